"""The typed events of an answer.

Every answer emits them to the handlers of LlamaIndex's instrumentation. `SkeletonOfThoughtQueryEngine.astream_events`
yields them, and `SkeletonOfThoughtWorkflow` writes them to its event stream. Streamed texts come in pieces, others
whole.

`Routed` comes first, if there is a router. A direct answer then has `AnswerDelta`s and nothing else. Any other answer
has a `SkeletonReady`, with `eager=True` among the first points; then for each point its `PointSources` (with retrieval
per point), `PointDelta`s and `PointDone`, points interleaved. The `AnswerDelta`s add up to the answer.

Text that was streamed may turn out to be the model's reasoning, if the model marks only its end. A `PointRestarted`, an
`AnswerRestarted` or, with `eager=True`, a `SkeletonRestarted` then voids earlier events.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.workflow import Event
from llama_index_instrumentation.base import BaseEvent
from pydantic import Field

from skeleton_of_thought import events
from skeleton_of_thought.errors import error_text

__all__ = [
    "AnswerDelta",
    "AnswerReady",
    "AnswerRestarted",
    "PointDelta",
    "PointDone",
    "PointRestarted",
    "PointSources",
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

    use_skeleton: bool = Field(description="Whether the answer is written through a skeleton.")
    score: float | None = Field(default=None, description="Its score, from 0 (direct) to 1; None if it has none.")
    reason: str = Field(default="", description="The router's reason.")


class SkeletonReady(SkeletonOfThoughtEvent):
    """The skeleton is complete."""

    titles: list[str] = Field(description="The titles of all points, in document order.")


class SkeletonRestarted(SkeletonOfThoughtEvent):
    """The points so far are part of the model's reasoning: discard all events about them."""

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
    """A point failed and is written again, or its text was reasoning: discard its `PointDelta`s so far."""

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


class AnswerDelta(SkeletonOfThoughtEvent):
    """More text of the answer, in document order."""

    text: str = Field(description="The new text.")


class AnswerRestarted(SkeletonOfThoughtEvent):
    """Discard the `AnswerDelta`s so far, the answer follows from its beginning.

    A merge failed in the middle of its text, or text of the model's reasoning was shown.
    """

    error: str = Field(description="Why.")


class AnswerReady(SkeletonOfThoughtEvent):
    """The answer is complete. Only `astream_events` yields this; the instrumentation has `QueryEndEvent`."""

    response: Any = Field(description="The `SkeletonOfThoughtResponse`.")


def typed_event(event: events.Event) -> SkeletonOfThoughtEvent | None:
    """The typed event for one of the core's; None where there is none."""
    match event:
        case events.Routed(decision):
            return Routed(use_skeleton=decision.use_skeleton, score=decision.score, reason=decision.reason)
        case events.SkeletonDone(skeleton):
            return SkeletonReady(titles=list(skeleton.titles))
        case events.SkeletonRestarted(skeleton):
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
        case events.PointDone(expansion):
            return PointDone(
                index=expansion.point.index,
                title=expansion.point.title,
                text=expansion.text,
                node_ids=[source.node.node_id for source in expansion.sources],
                error=None if expansion.error is None else error_text(expansion.error),
            )
        case events.AnswerDelta(text):
            return AnswerDelta(text=text)
        case events.AnswerRestarted(error):
            return AnswerRestarted(error=error_text(error))
    return None
