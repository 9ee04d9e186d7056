"""The typed events of an answer.

Every answer emits them to the handlers of LlamaIndex's instrumentation. `SkeletonOfThoughtQueryEngine.astream_events`
yields them, and `SkeletonOfThoughtWorkflow` writes them to its event stream. Streamed texts come in pieces, others
whole.

`Routed` comes first, if there is a router. A direct answer then has `AnswerDelta`s and nothing else. Any other answer
has a `SkeletonReady`, with `eager=True` among the first points; then for each point its `PointSources` (with retrieval
per point), `PointDelta`s and `PointDone`, points interleaved. The `AnswerDelta`s add up to the answer. Where a question
is answered item by item, its items are the points.

With `planning="graph"` a point that builds on others is written after them: its `PointDelta`s come after their
`PointDone`s, and `SkeletonReady.plan` shows which point waits for which. `opening` and `closing` have a `RoleStarted`
and a `RoleDone` after the last point; their text comes as `AnswerDelta`s.

Text that was streamed may turn out to be the model's reasoning, if the model marks only its end. A `PointRestarted`, an
`AnswerRestarted` or, with `eager=True`, a `SkeletonRestarted` then voids earlier events. They also follow a point that
is written anew (`OverlapFound`), an opening that was not waited for, and a plan without points that can be written side
by side.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.workflow import Event
from llama_index_instrumentation.base import BaseEvent
from pydantic import Field

from skeleton_of_thought import events
from skeleton_of_thought.errors import error_text
from skeleton_of_thought.types import route_of

__all__ = [
    "AnswerDelta",
    "AnswerReady",
    "AnswerRestarted",
    "OverlapFound",
    "PointDelta",
    "PointDone",
    "PointRestarted",
    "PointSources",
    "RoleDone",
    "RoleStarted",
    "Routed",
    "SkeletonOfThoughtEvent",
    "SkeletonReady",
    "SkeletonRestarted",
    "typed_event",
]


class SkeletonOfThoughtEvent(BaseEvent, Event):
    """The base of these events: an event of the instrumentation, and of workflows."""

    @classmethod
    def class_name(cls) -> str:
        """The name of the event's class."""
        return cls.__name__


class Routed(SkeletonOfThoughtEvent):
    """The router has decided. A router that failed leads to a direct answer, with the failure as the reason."""

    use_skeleton: bool = Field(description="Whether the answer is written by points: those of a skeleton, or items.")
    route: str = Field(default="", description='`"skeleton"`, `"items"` or `"direct"`.')
    score: float | None = Field(default=None, description="Its score, from 0 (direct) to 1; None if it has none.")
    reason: str = Field(default="", description="The router's reason.")
    planning: str | None = Field(default=None, description="The kind of skeleton that it advises; None for no advice.")


class SkeletonReady(SkeletonOfThoughtEvent):
    """The skeleton is complete."""

    titles: list[str] = Field(description="The titles of all points, in document order.")
    plan: list[dict[str, Any]] = Field(
        default_factory=list,
        description="The points as plain data: `index`, `title`, `scope`, `words`, `depends_on` (the points that it "
        "waits for) and `wave` (from 1).",
    )


class SkeletonRestarted(SkeletonOfThoughtEvent):
    """Discard all events about the points so far: they are the model's reasoning, or nothing to write side by side."""

    titles: list[str] = Field(description="The titles of the discarded points.")


class PointSources(SkeletonOfThoughtEvent):
    """A retrieval has ended."""

    index: int | None = Field(description="The point's number, from 1; None for a retrieval for the whole question.")
    title: str = Field(default="", description="The point's title.")
    node_ids: list[str] = Field(description="The nodes' ids, best first.")
    nodes: list[Any] = Field(default_factory=list, description="The nodes as `NodeWithScore`s.", exclude=True)


class PointDelta(SkeletonOfThoughtEvent):
    """More text of a point, in order of arrival."""

    index: int = Field(description="The point's number, from 1.")
    title: str = Field(description="The point's title.")
    text: str = Field(description="The new text.")


class PointRestarted(SkeletonOfThoughtEvent):
    """Discard a point's `PointDelta`s so far: it failed, it repeats another point, or its text was reasoning."""

    index: int = Field(description="The point's number, from 1.")
    title: str = Field(description="The point's title.")
    error: str = Field(description="Why.")


class PointDone(SkeletonOfThoughtEvent):
    """A point is written, or has failed for good."""

    index: int = Field(description="The point's number, from 1.")
    title: str = Field(description="The point's title.")
    text: str = Field(description="Its text, without number and title.")
    node_ids: list[str] = Field(description="The ids of its nodes.")
    error: str | None = Field(default=None, description="Why it failed; None for a point that succeeded.")
    scope: str = Field(default="", description="What it covers, by the plan.")
    depends_on: list[int] = Field(default_factory=list, description="The points that it builds on.")
    wave: int = Field(default=1, description="The wave in which it was written, from 1.")
    missing: list[int] = Field(
        default_factory=list, description="Points that it builds on and that failed: it was written without them."
    )
    rewritten: bool = Field(default=False, description="Whether it was written anew because it repeated another point.")


class OverlapFound(SkeletonOfThoughtEvent):
    """A point repeats another one and is written anew: a `PointRestarted` follows."""

    index: int = Field(description="The number of the point that is written anew.")
    title: str = Field(description="Its title.")
    other: int = Field(description="The number of the point that has the same passage.")
    share: float = Field(description="The share of its word trigrams that stand in the other one, from 0 to 1.")
    passage: str = Field(description="The longest passage that both have.")


class RoleStarted(SkeletonOfThoughtEvent):
    """All points are done, and the opening or the closing is being written."""

    role: str = Field(description='`"opening"` or `"closing"`.')
    attempt: int = Field(default=1, description="1, 2, ...")


class RoleDone(SkeletonOfThoughtEvent):
    """The opening or the closing is written, or has failed for good: the answer then goes without it."""

    role: str = Field(description='`"opening"` or `"closing"`.')
    text: str = Field(description="Its text.")
    error: str | None = Field(default=None, description="Why it failed; None if it did not.")


class AnswerDelta(SkeletonOfThoughtEvent):
    """More text of the answer, in document order."""

    text: str = Field(description="The new text.")


class AnswerRestarted(SkeletonOfThoughtEvent):
    """Discard the `AnswerDelta`s so far, the answer follows from its beginning.

    A merge failed in the middle of its text, text of the model's reasoning was shown, or the opening was written after
    points that had been shown (`opening="restart"`).
    """

    error: str = Field(description="Why.")


class AnswerReady(SkeletonOfThoughtEvent):
    """The answer is complete. Only `astream_events` yields this; the instrumentation has `QueryEndEvent`."""

    response: Any = Field(description="The `SkeletonOfThoughtResponse`.")


def typed_event(event: events.Event, waves: dict[int, int] | None = None) -> SkeletonOfThoughtEvent | None:
    """The typed event for one of the core's; None where there is none.

    Args:
        event: The core's event.
        waves: By index, the waves of the answer's points so far. The events of an answer, in order, keep it up to date;
            None where nobody asks for waves.
    """
    waves = {} if waves is None else waves
    match event:
        case events.Routed(decision):
            return Routed(
                use_skeleton=decision.use_skeleton,
                route=route_of(decision),
                score=decision.score,
                reason=decision.reason,
                planning=decision.planning,
            )
        case events.PointFound(point):
            # With `eager` points end before the skeleton does.
            waves[point.index] = 1 + max((waves.get(parent, 0) for parent in point.depends_on), default=0)
        case events.SkeletonDone(skeleton):
            waves.update(skeleton.waves)
            return SkeletonReady(titles=list(skeleton.titles), plan=skeleton.plan)
        case events.SkeletonRestarted(skeleton):
            waves.clear()
            return SkeletonRestarted(titles=list(skeleton.titles))
        case events.SourcesFound(point, sources):
            return PointSources(
                index=None if point is None else point.index,
                title="" if point is None else point.title,
                node_ids=[source.node.node_id for source in sources],
                nodes=list(sources),
            )
        case events.PointDelta(point, text):
            return PointDelta(index=point.index, title=point.title, text=text)
        case events.PointRestarted(point, error):
            return PointRestarted(index=point.index, title=point.title, error=error_text(error))
        case events.OverlapFound(point, other, share, passage):
            return OverlapFound(index=point.index, title=point.title, other=other.index, share=share, passage=passage)
        case events.PointDone(expansion):
            return PointDone(
                index=expansion.point.index,
                title=expansion.point.title,
                text=expansion.text,
                node_ids=[source.node.node_id for source in expansion.sources],
                error=None if expansion.error is None else error_text(expansion.error),
                scope=expansion.point.scope,
                depends_on=list(expansion.point.depends_on),
                wave=waves.get(expansion.point.index, 1),
                missing=list(expansion.missing),
                rewritten=expansion.rewritten,
            )
        case events.RoleStarted(role, attempt):
            return RoleStarted(role=role, attempt=attempt)
        case events.RoleDone(role, text, error):
            return RoleDone(role=role, text=text, error=None if error is None else error_text(error))
        case events.AnswerDelta(text):
            return AnswerDelta(text=text)
        case events.AnswerRestarted(error):
            return AnswerRestarted(error=error_text(error))
    return None
