"""The draft of an answer: all that is known of it while it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from skeleton_of_thought.ledger import Ledger
from skeleton_of_thought.release import Release
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.skeleton_reading import SkeletonReading
from skeleton_of_thought.text.assembly import POINT_BREAK, render
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Answer, Expansion, Point, RouteDecision, Skeleton, Timings, Usage
from skeleton_of_thought.writing import DirectWriting, MergeWriting, PointWriting

__all__ = ["Draft"]


class Draft:
    """An answer under way.

    Args:
        question: The question's text.
        settings: How the answer is made.
        reason: Why the route is taken.
        live: Whether text is released while it is written.

    Attributes:
        route: The route that is taken.
        decision: The router's decision.
        sources: What was retrieved for the question; None before that.
        reading: The skeleton under way.
        skeleton: The skeleton; None until it is complete.
        points: The points that were opened, by index, in document order.
        direct: The text of a direct answer.
        finish_reason: Why a direct answer ended.
        merge: The text of the merge; None where there is none.
        merged: Whether the merge has succeeded.
        merge_error: Why the merge failed.
        ledger: The calls, and what they took.
        release: What the reader has.
    """

    def __init__(self, question: str, settings: Settings, *, reason: str, live: bool) -> None:
        self.question = question
        self.reason = reason
        self.route: Literal["skeleton", "direct"] = "skeleton"
        self.decision: RouteDecision | None = None
        self.sources: tuple[Any, ...] | None = None
        self.reading = SkeletonReading(settings.min_points, settings.max_points)
        self.skeleton: Skeleton | None = None
        self.points: dict[int, PointWriting] = {}
        self.finish_reason: str | None = None
        self.merge: MergeWriting | None = None
        self.merged = False
        self.merge_error: Exception | None = None
        self.ledger = Ledger()
        self.release = Release(settings.join, live=live, held=settings.merge)
        self._settings = settings
        self.direct = DirectWriting(self.loop_guard())

    def loop_guard(self) -> LoopGuard | None:
        """A new guard for one text; None where the settings keep texts that repeat themselves."""
        return LoopGuard(self.question) if self._settings.stop_loops else None

    def add_point(self, point: Point) -> PointWriting:
        """Opens the next point of the answer."""
        writing = self.points[point.index] = PointWriting(point, self.loop_guard())
        self.release.add(writing)
        return writing

    def written(self) -> list[Expansion]:
        """The points that have a text and did not fail, of which a merge is made."""
        expansions = (writing.expansion for writing in self.points.values())
        return [each for each in expansions if each is not None and each.error is None and each.text]

    def failed(self) -> str:
        """The text of the points that failed."""
        return self.join(e for w in self.points.values() if (e := w.expansion) is not None and e.error is not None)

    def join(self, expansions: Iterable[Expansion]) -> str:
        """The text of these points, one after the other."""
        return render(expansions, self._settings.join)

    def answer(self, offset: float) -> Answer:
        """The answer as far as it is, so many seconds after its beginning."""
        writings, ledger = self.points.values(), self.ledger
        expansions = tuple([writing.expansion or writing.result(offset) for writing in writings])
        times = tuple([writing.times(offset) for writing in writings])
        return Answer(
            text=self._text(expansions),
            question=self.question,
            route=self.route,
            skeleton=self.reading.skeleton if self.skeleton is None else self.skeleton,
            expansions=expansions,
            usage=sum(ledger.usage.values(), Usage()),
            timings=Timings(offset, self.release.first_text, dict(ledger.spans), dict(ledger.decoding), times),
            decision=self.decision,
            reason=self.reason,
            usage_by_stage=dict(ledger.usage),
            finish_reason=self.finish_reason,
            merged=self.merged,
            merge_error=self.merge_error,
            sources=self.sources or (),
        )

    def recount(self, answer: Answer) -> Answer:
        """The answer with what its calls took by now."""
        expansions = [dataclasses.replace(e, usage=self.points[e.point.index].usage) for e in answer.expansions]
        return dataclasses.replace(
            answer,
            expansions=tuple(expansions),
            timings=dataclasses.replace(answer.timings, decoding=dict(self.ledger.decoding)),
            usage=sum(self.ledger.usage.values(), Usage()),
            usage_by_stage=dict(self.ledger.usage),
        )

    def _text(self, expansions: Iterable[Expansion]) -> str:
        if self.route == "direct":
            return "".join(self.direct.pieces)
        if not self.merged or self.merge is None:
            return self.join(expansions)
        return POINT_BREAK.join(filter(None, ("".join(self.merge.pieces), self.failed())))
