"""The reading of a skeleton while a model writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from skeleton_of_thought.errors import InvalidInput, SkeletonError
from skeleton_of_thought.parsing.parser import SkeletonParser, skeleton_of_titles
from skeleton_of_thought.types import Point, Skeleton

__all__ = ["SkeletonReading", "check_skeleton"]

_LOOP = 3
"""A model that repeats so many titles in a row is in a loop: the rest of its skeleton is of no use."""


class SkeletonReading:
    """The points of a skeleton that is being written: numbered anew, without repeats, no more than wanted.

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
