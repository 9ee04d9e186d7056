"""The values that an answer is made of and its calls exchange. All are frozen; none knows a framework."""

from __future__ import annotations

from skeleton_of_thought.types.answer import (
    Answer,
    Content,
    Conversation,
    Expansion,
    Message,
    Point,
    PointTimes,
    Request,
    RouteDecision,
    Skeleton,
    Span,
    Stage,
    Timings,
    Usage,
)
from skeleton_of_thought.types.calls import Call, Cancel, Completion, Decoding, Hints, Prompt, Reply, Retrieval

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
    "Message",
    "Point",
    "PointTimes",
    "Prompt",
    "Reply",
    "Request",
    "Retrieval",
    "RouteDecision",
    "Skeleton",
    "Span",
    "Stage",
    "Timings",
    "Usage",
]
