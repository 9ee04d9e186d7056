"""Texts under way: the skeleton, a point, the merge of all points, a direct answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from skeleton_of_thought.errors import InvalidInput, MergeError, PointError, SkeletonError
from skeleton_of_thought.parsing.parser import SkeletonParser, skeleton_of_titles
from skeleton_of_thought.text.assembly import ExpansionText, WholeText
from skeleton_of_thought.text.echoes import PromptEcho
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Answer, Call, Expansion, Point, PointTimes, Prompt, Skeleton, Span, Stage, Usage

__all__ = ["DirectWriting", "MergeWriting", "PointWriting", "SkeletonWriting", "check_skeleton"]

_CUT = frozenset({"length", "content_filter"})
"""Finish reasons of a text that lacks its end."""

_LOOP = 3
"""A model that repeats so many titles in a row is in a loop: the rest of its skeleton is of no use."""


class SkeletonWriting:
    """The points of a skeleton that is being written: numbered from 1, without repeats, and no more than `max_points`.

    `feed` and `close` return the points that may show now. None may before there are enough: the answer may still
    become a direct one.

    Args:
        min_points: With fewer points the skeleton is unusable.
        max_points: The most points.

    Attributes:
        points: The points so far.
        complete: Whether the rest of the skeleton is of no use: there are enough points, or the model is in a loop.
        written: The skeleton as the model wrote it, repeats included; empty until `close`.
    """

    def __init__(self, min_points: int, max_points: int) -> None:
        self.points: list[Point] = []
        self.complete = False
        self.written = Skeleton()
        self._min_points = min_points
        self._max_points = max_points
        self._shown = 0
        self._parser = SkeletonParser()
        self._titles: set[str] = set()
        self._repeats = 0

    def feed(self, text: str) -> Sequence[Point]:
        """Reads more text; returns the points that may show now."""
        points = self._parser.feed(text)
        return self._add(points) if points else ()

    def close(self, *, truncated: bool, titles: Collection[str] | None = None) -> Sequence[Point]:
        """Ends the reading; returns the points that may show now.

        Args:
            truncated: The text or the list was cut off, so its last title may be half a title.
            titles: The titles, where the backend gave them as data; they count instead of the text.
        """
        known = len(self._parser.points)
        if titles is None:
            self.written = self._parser.close(truncated=truncated)
            return self._add(self.written.points[known:])
        self.written = skeleton_of_titles(list(titles)[:-1] if truncated and len(titles) > 1 else titles)
        return self._add(self.written.points)

    @property
    def skeleton(self) -> Skeleton:
        """The points so far as a skeleton."""
        return Skeleton(tuple(self.points), self.written.text)

    @property
    def error(self) -> SkeletonError:
        """The error of a skeleton with too few points."""
        return SkeletonError(
            f"The model's skeleton has {len(self.points)} usable point(s), fewer than min_points={self._min_points}: "
            f"{self.written.text[:80]!r}. Try another model or skeleton prompt, or let "
            'on_empty_skeleton="direct" answer such questions directly.',
            self.written,
        )

    def _add(self, points: Collection[Point]) -> Sequence[Point]:
        for point in points:
            title = point.title.casefold()
            if title in self._titles:
                # Small models repeat themselves; the same title twice would be the same text twice.
                self._repeats += 1
                continue
            self._repeats = 0
            if len(self.points) < self._max_points:
                self._titles.add(title)
                self.points.append(dataclasses.replace(point, index=len(self.points) + 1))
        self.complete = len(self.points) >= self._max_points or self._repeats >= _LOOP
        if len(self.points) < self._min_points:
            return ()
        fresh = self.points[self._shown :]
        self._shown = len(self.points)
        return fresh


def check_skeleton(skeleton: Skeleton | None) -> None:
    """Raises `InvalidInput` for a given skeleton without points, or with an index that comes twice."""
    if skeleton is not None and len({point.index for point in skeleton.points}) != max(len(skeleton), 1):
        raise InvalidInput(
            "The given skeleton needs at least one point, each with an index of its own; it has the indices "
            f"{[point.index for point in skeleton.points]}."
        )


class PointWriting:
    """A point under way: its sources, the text of its present attempt, its times, and in the end its expansion.

    Times are seconds since the answer began.

    Args:
        point: The point.
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        attempt: The number of calls that were made to write it.
        pieces: The cleaned text of the present attempt.
        loops: As given, for the present attempt.
        released: The number of pieces that the reader has.
        shown: When the reader got the first one.
        expansion: The result; None while the point is under way.
    """

    def __init__(self, point: Point, loops: LoopGuard | None) -> None:
        self.point = point
        self.attempt = 0
        self.sources: tuple[Any, ...] = ()
        self.context = ""
        self.usage = Usage()
        self.released = 0
        self.shown: float | None = None
        self.expansion: Expansion | None = None
        self._start: float | None = None
        self._first: float | None = None
        self._retrieved: Span | None = None
        self.restart(loops)

    def restart(self, loops: LoopGuard | None) -> None:
        """Drops the text of the present attempt."""
        self.pieces: list[str] = []
        self._cleaner = ExpansionText(self.point)
        self.loops = loops

    def feed(self, text: str, offset: float) -> str:
        """Takes more text of the model; returns the text that belongs to the point and is no loop."""
        if self._first is None and text:
            self._first = offset
        text = self._cleaner.feed(text)
        return text if self.loops is None else self.loops.feed(text)

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        text = self._cleaner.close()
        return text if self.loops is None else self.loops.feed(text) + self.loops.close()

    @property
    def looping(self) -> bool:
        """Whether the text repeats itself and is to be ended."""
        return self.loops is not None and self.loops.looping

    def start(self, stage: Stage, offset: float) -> None:
        """A call that writes the point or retrieves for it is open from now on."""
        if stage == "point":
            self._start, self._first = offset, None
        elif self._retrieved is None:
            self._retrieved = Span(offset, offset)

    def end(self, stage: Stage, offset: float) -> None:
        """A call that writes the point or retrieves for it has ended."""
        if stage == "sources" and self._retrieved is not None:
            self._retrieved = dataclasses.replace(self._retrieved, end=offset)

    def count(self, usage: Usage) -> None:
        """Adds the tokens of one of its calls, which may come after the point is done."""
        self.usage += usage
        if self.expansion is not None:
            self.expansion = dataclasses.replace(self.expansion, usage=self.usage)

    def result(self, offset: float, error: Exception | None = None, finish_reason: str | None = None) -> Expansion:
        """The expansion, as far as it is written."""
        return Expansion(
            point=self.point,
            text="".join(self.pieces),
            error=error,
            usage=self.usage,
            sources=self.sources,
            attempts=self.attempt,
            finish_reason=finish_reason,
            span=Span(offset if self._start is None else self._start, offset, self._first),
        )

    def failure(self, error: Exception, retrieval: Call | None, answer: Answer) -> PointError:
        """The error of an answer whose point has failed for good.

        Args:
            error: The error of the last attempt.
            retrieval: The last retrieval for the point, if that has failed and not the point itself.
            answer: The answer as far as it is.
        """
        what, attempts = ("Point", self.attempt)
        if retrieval is not None:
            what, attempts = ("The retrieval for point", retrieval.attempt)
        failure = PointError(
            f"{what} {self.point.index} ({self.point.title[:60]!r}) failed after {attempts} attempt(s): "
            f"{type(error).__name__}: {error}. The error's `answer` holds the rest; "
            'on_point_error="placeholder" keeps it as the result.',
            self.point,
            answer,
        )
        failure.__cause__ = error
        return failure

    def times(self, offset: float) -> PointTimes:
        """When it was retrieved for, written and released; a call that is open has run until `offset`."""
        done = self.expansion
        written = None if self._start is None else done.span if done else Span(self._start, offset, self._first)
        return PointTimes(
            index=self.point.index,
            title=self.point.title,
            written=written,
            retrieved=self._retrieved,
            released=self.shown,
            attempts=self.attempt,
            failed=done is not None and done.error is not None,
        )


class MergeWriting:
    """The text of a merge under way.

    Args:
        prompt: The prompt of its call.
        material: Texts in the prompt that the merge may repeat.
        quotable: Whether the instruction may want some of its own words in the text.
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        pieces: The cleaned text.
    """

    def __init__(self, prompt: Prompt, material: Iterable[str], *, quotable: bool, loops: LoopGuard | None) -> None:
        self.pieces: list[str] = []
        self._cleaner = WholeText()
        self._echo = PromptEcho(prompt, material, quotable=quotable)
        self._loops = loops

    def feed(self, text: str) -> str:
        """Takes more text of the model; returns the text that belongs to the answer."""
        text = self._echo.feed(self._cleaner.feed(text))
        return self._keep(text if self._loops is None else self._loops.feed(text))

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        text = self._echo.feed(self._cleaner.close()) + self._echo.close()
        return self._keep(text if self._loops is None else self._loops.feed(text) + self._loops.close())

    def _keep(self, text: str) -> str:
        if text:
            self.pieces.append(text)
        return text

    @property
    def fault(self) -> MergeError | None:
        """Why the text is of no use, as far as that shows while it is written."""
        if self._echo.found:
            return MergeError("The model repeated its instruction. Try a larger model, or a merge prompt of your own.")
        if self._loops is not None and self._loops.looping:
            return MergeError("The model repeated the same passage again and again. Try a larger model.")
        return None

    def final_fault(self, finish_reason: str | None) -> MergeError | None:
        """Why the text is of no use, now that it has ended."""
        if (fault := self.fault) is not None:
            return fault
        if finish_reason in _CUT:
            why = f"The model ended its text before it was complete (finish reason {finish_reason!r})."
            return MergeError(f"{why} Allow it more tokens, or fewer or shorter points.")
        return None if self.pieces else MergeError("The model gave no text.")


class DirectWriting:
    """The text of a direct answer under way.

    Args:
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        pieces: The text.
    """

    def __init__(self, loops: LoopGuard | None) -> None:
        self.pieces: list[str] = []
        self._loops = loops

    def feed(self, text: str) -> str:
        """Takes more text of the model; returns the text that may show now."""
        shown = text if self._loops is None else self._loops.feed(text)
        self.pieces.append(shown)
        return shown

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        rest = "" if self._loops is None else self._loops.close()
        self.pieces.append(rest)
        return rest

    @property
    def looping(self) -> bool:
        """Whether the text repeats itself and is to be ended."""
        return self._loops is not None and self._loops.looping
