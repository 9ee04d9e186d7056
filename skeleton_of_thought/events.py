"""The events that an answer emits while it is made, and their plain form. All are frozen; none knows a framework."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import without_secrets
from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.types import Answer, Expansion, Point, Role, RouteDecision, Skeleton

__all__ = [
    "AnswerDelta",
    "AnswerDone",
    "AnswerFailed",
    "AnswerRestarted",
    "Event",
    "MergeDone",
    "MergeStarted",
    "OverlapFound",
    "PointDelta",
    "PointDone",
    "PointFound",
    "PointRestarted",
    "PointStarted",
    "RoleDone",
    "RoleStarted",
    "Routed",
    "SkeletonDone",
    "SkeletonRestarted",
    "SourcesDone",
    "SourcesFound",
    "event_dict",
    "plain_value",
]


@dataclass(frozen=True)
class Routed:
    """The router has decided, or has failed; the reason says which."""

    decision: RouteDecision


@dataclass(frozen=True)
class PointFound:
    """A line of the skeleton is complete."""

    point: Point


@dataclass(frozen=True)
class SkeletonDone:
    """The skeleton is complete."""

    skeleton: Skeleton


@dataclass(frozen=True)
class SkeletonRestarted:
    """The points found so far are void, with all events about them.

    They were part of the model's reasoning, nothing was retrieved for any of them, or the skeleton's call failed and is
    made again. Their calls are cancelled. An `AnswerRestarted` follows if text of theirs was released. The points of
    the answer, or a direct answer, come next.

    Attributes:
        skeleton: The points that are void.
    """

    skeleton: Skeleton


@dataclass(frozen=True)
class SourcesFound(Portable):
    """A retrieval has succeeded: for a point, or with `point` None for the question as a whole."""

    point: Point | None
    sources: tuple[Any, ...]


@dataclass(frozen=True)
class SourcesDone:
    """All retrievals have ended or failed for good. Emitted once, if the answer has any."""


@dataclass(frozen=True)
class PointStarted:
    """A call that writes this point was requested."""

    point: Point
    attempt: int = 1


@dataclass(frozen=True)
class PointDelta:
    """More text of a point, in order of arrival. A `PointRestarted` may void it."""

    point: Point
    text: str


@dataclass(frozen=True)
class PointRestarted(Portable):
    """The text of a point's `PointDelta`s so far is void: its call failed, or the text was the model's reasoning.

    A point that failed is written again. Reasoning (`ReasoningShown`) is followed by the text itself. The last
    `PointDelta` before is a blank line, for readers that join all of them.
    """

    point: Point
    error: Exception


@dataclass(frozen=True)
class OverlapFound:
    """A written point shares too much with another one and is written anew: a `PointRestarted` follows.

    Attributes:
        point: The later point, which is written anew.
        other: The point that has the same passage.
        share: The share of its word trigrams that stand in the other one, from 0 to 1.
        passage: The longest passage that both have, in the words of the later one.
    """

    point: Point
    other: Point
    share: float
    passage: str


@dataclass(frozen=True)
class PointDone:
    """A point is written, or it, its retrieval or a point that it builds on has failed for good (`expansion.error`)."""

    expansion: Expansion


@dataclass(frozen=True)
class RoleStarted:
    """All points are done, and a call that writes the opening or the closing was requested."""

    role: Role
    attempt: int = 1


@dataclass(frozen=True)
class RoleDone(Portable):
    """The opening or the closing has ended with `text`, or has failed for good with `error`."""

    role: Role
    text: str
    error: Exception | None = None


@dataclass(frozen=True)
class MergeStarted:
    """All points are done, and a call that makes one text of them was requested."""

    attempt: int = 1


@dataclass(frozen=True)
class MergeDone(Portable):
    """The merge has ended with `text`, or has failed for good with `error`."""

    text: str
    error: Exception | None = None


@dataclass(frozen=True)
class AnswerDelta:
    """More text of the answer, in document order.

    Released text is final, unless a merge fails while it is written, or a model's text turns out to be its reasoning
    (`AnswerRestarted`).
    """

    text: str


@dataclass(frozen=True)
class AnswerRestarted(Portable):
    """The `AnswerDelta`s so far are void, and the answer follows from its beginning.

    A merge failed in the middle of its text, or text that was released is the model's reasoning (`ReasoningShown`). The
    last `AnswerDelta` before is a blank line, for readers that join all of them.
    """

    error: Exception


@dataclass(frozen=True)
class AnswerDone:
    """The answer is complete; the last event of a flow that succeeded."""

    answer: Answer


@dataclass(frozen=True)
class AnswerFailed(Portable):
    """The answer could not be completed; the last event of a flow that failed."""

    error: Exception


Event = (
    Routed
    | PointFound
    | SkeletonDone
    | SkeletonRestarted
    | SourcesFound
    | SourcesDone
    | PointStarted
    | PointDelta
    | PointRestarted
    | OverlapFound
    | PointDone
    | RoleStarted
    | RoleDone
    | MergeStarted
    | MergeDone
    | AnswerDelta
    | AnswerRestarted
    | AnswerDone
    | AnswerFailed
)


def event_dict(event: Event) -> dict[str, Any]:
    """An event as plain data: its type under `event`, and its fields."""
    fields = {f.name: plain_value(getattr(event, f.name)) for f in dataclasses.fields(event)}
    return {"event": type(event).__name__, **fields}


def plain_value(value: Any) -> Any:
    """A field of an event as plain data, without secrets in the texts of errors."""
    match value:
        case Exception():
            return {"type": type(value).__name__, "message": without_secrets(str(value))}
        case Answer():
            return value.to_dict()
        case RouteDecision():
            fields = dataclasses.asdict(value)
            return fields if value.planning else {name: x for name, x in fields.items() if name != "planning"}
        case Skeleton():
            return list(value.titles)
        case Point():
            plan = {"scope": value.scope, "depends_on": list(value.depends_on), "words": value.words}
            return {"index": value.index, "title": value.title, **{name: x for name, x in plan.items() if x}}
        case Expansion():
            return Answer("", "", "skeleton", expansions=(value,)).to_dict()["expansions"][0]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        case _:
            return value
