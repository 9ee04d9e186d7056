"""The values that an answer is made of and its calls exchange. All are frozen; none knows a framework."""

from __future__ import annotations

from skeleton_of_thought.types.answer import Answer, Expansion, Point, RouteDecision, Skeleton
from skeleton_of_thought.types.calls import Call, Cancel, Completion, Hints, Prompt, Reply, Retrieval
from skeleton_of_thought.types.conversation import Content, Conversation, Message, Request
from skeleton_of_thought.types.usage import Decoding, PointTimes, Span, Stage, Timings, Usage

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
