"""The values that an answer is made of and its calls exchange. All are frozen; none knows a framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from skeleton_of_thought.types.answer import (
    Answer,
    Content,
    Conversation,
    Expansion,
    Message,
    Planning,
    Point,
    PointTimes,
    Request,
    Role,
    RouteDecision,
    Skeleton,
    Span,
    Stage,
    Timings,
    Usage,
)
from skeleton_of_thought.types.calls import (
    Call,
    Cancel,
    Completion,
    Decoding,
    Hints,
    PlanItem,
    Prompt,
    Reply,
    Retrieval,
)
from skeleton_of_thought.types.items import Item, ItemForm, ItemList, ItemsDecision, route_of

__all__ = [
    "Answer",
    "Call",
    "Cancel",
    "Completion",
    "Content",
    "Conversation",
    "Decoding",
    "Expansion",
    "Hints",
    "Item",
    "ItemForm",
    "ItemList",
    "ItemsDecision",
    "Message",
    "PlanItem",
    "Planning",
    "Point",
    "PointTimes",
    "Prompt",
    "Reply",
    "Request",
    "Retrieval",
    "Role",
    "RouteDecision",
    "Skeleton",
    "Span",
    "Stage",
    "Timings",
    "Usage",
    "route_of",
]


def __getattr__(name: str) -> Any:
    # The events were here in 0.1, and pickles name this module. By name, because the events import these types.
    events = import_module("skeleton_of_thought.events")
    if name not in events.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(events, name)
