"""An answer and its parts: points, skeleton, route, expansions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from skeleton_of_thought.types.usage import Span, Timings, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.timeline import Timeline

__all__ = [
    "Answer",
    "Expansion",
    "Point",
    "RouteDecision",
    "Skeleton",
]


@dataclass(frozen=True)
class Point:
    """One point of a skeleton.

    Attributes:
        index: 1, 2, ... in document order.
        title: The point's own words, without list marks.
        depends_on: Indices of the points that must be written before this one; empty for now.
    """

    index: int
    title: str
    depends_on: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.index}. {self.title}"


@dataclass(frozen=True)
class Skeleton:
    """The points of an answer, and the text that they were parsed from.

    `str(skeleton)` is the numbered list, one point a line, which `parse_skeleton` reads back.
    """

    points: tuple[Point, ...] = ()
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self._lines

    @cached_property
    def _lines(self) -> str:
        # Cached, because the prompt of each point shows it.
        return "\n".join([f"{point.index}. {point.title}" for point in self.points])

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """The titles in order."""
        return tuple([point.title for point in self.points])


@dataclass(frozen=True)
class RouteDecision:
    """The decision of a router.

    Attributes:
        use_skeleton: Whether the question is answered through a skeleton.
        score: How sure the router is, from 0 to 1; None if it does not say.
        reason: Why, in words.
        usage: Tokens that the decision took; None if it took none.
    """

    use_skeleton: bool
    score: float | None = None
    reason: str = ""
    usage: Usage | None = None


@dataclass(frozen=True)
class Expansion:
    """A point, written out.

    Attributes:
        point: The point of the skeleton.
        text: Its text without number and title. For a failed point: the text that had been written, followed by the
            placeholder.
        error: Why the point failed; None for a point that succeeded.
        usage: Tokens of all its attempts, as far as the backend reported them. A `PointDone` may come before the usage
            of a cancelled attempt; the answer of the last event includes it.
        sources: The sources retrieved for this point, with retrieval per point. A failed point has them, too, unless
            its retrieval failed.
        attempts: The number of calls made to write it; 0 if its retrieval failed.
        finish_reason: The backend's word for why the text ended.
        span: When it was written, without its retrieval.
    """

    point: Point
    text: str = ""
    error: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    sources: tuple[Any, ...] = ()
    attempts: int = 0
    finish_reason: str | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Answer:
    """An answer, its parts, and how it was made.

    Attributes:
        text: The whole answer. Equal to the join of all `AnswerDelta` texts since the last `AnswerRestarted`.
        question: The question's text.
        route: `"skeleton"`, or `"direct"` if the model answered as it does without Skeleton-of-Thought.
        skeleton: The points; empty for a direct answer.
        expansions: One per point, in document order.
        usage: Tokens of all calls, as far as the backend reported them.
        timings: The times of its stages and points.
        decision: The router's decision; None without a router.
        reason: Why the route was taken, in words.
        usage_by_stage: `usage`, split by stage.
        finish_reason: The backend's word for why a direct answer ended; `"loop"` if its call was cancelled because it
            repeated itself (`Settings.stop_loops`).
        merged: Whether `text` is that of the merge instead of the joined points.
        merge_error: Why the merge failed; None if it did not, or if there was none.
        sources: The sources retrieved for the question as a whole: with retrieval once, and for a direct answer. The
            sources of a point are in its expansion.
    """

    text: str
    question: str
    route: Literal["skeleton", "direct"]
    skeleton: Skeleton = Skeleton()
    expansions: tuple[Expansion, ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    decision: RouteDecision | None = None
    reason: str = ""
    usage_by_stage: Mapping[str, Usage] = field(default_factory=lambda: MappingProxyType({}))
    finish_reason: str | None = None
    merged: bool = False
    merge_error: Exception | None = None
    sources: tuple[Any, ...] = ()

    @property
    def errors(self) -> dict[int, Exception]:
        """The errors of failed points, by point index."""
        return {e.point.index: e.error for e in self.expansions if e.error is not None}

    def timeline(self, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """A picture of when each call of this answer ran; notebooks show it, `str` of it is one for terminals.

        Args:
            normal: Seconds that normal decoding took for the same question, shown beside it; or seconds by name, such
                as `{"model.generate": 21.3, "one row": 18.0}`.

        Raises:
            InvalidInput: Seconds that are not positive and finite.
        """
        from skeleton_of_thought.timeline import Timeline  # imported here, because most answers are never drawn

        return Timeline.of(self, normal)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain JSON-safe data. Sources, which may be any objects, are counted."""
        return {
            "text": self.text,
            "question": self.question,
            "route": self.route,
            "reason": self.reason,
            "finish_reason": self.finish_reason,
            "decision": None if self.decision is None else dataclasses.asdict(self.decision),
            "skeleton": list(self.skeleton.titles),
            "merged": self.merged,
            "merge_error": _error_dict(self.merge_error),
            "sources": len(self.sources),
            "expansions": [_expansion_dict(e) for e in self.expansions],
            "usage": _usage_dict(self.usage),
            "usage_by_stage": {stage: _usage_dict(usage) for stage, usage in self.usage_by_stage.items()},
            "timings": self.timings.to_dict(),
        }


def _usage_dict(usage: Usage) -> dict[str, int]:
    return {**dataclasses.asdict(usage), "total_tokens": usage.total_tokens}


def _error_dict(error: Exception | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


def _expansion_dict(expansion: Expansion) -> dict[str, Any]:
    return {
        "index": expansion.point.index,
        "title": expansion.point.title,
        "text": expansion.text,
        "error": _error_dict(expansion.error),
        "usage": _usage_dict(expansion.usage),
        "sources": len(expansion.sources),
        "attempts": expansion.attempts,
        "finish_reason": expansion.finish_reason,
        "span": None if expansion.span is None else dataclasses.asdict(expansion.span),
    }
