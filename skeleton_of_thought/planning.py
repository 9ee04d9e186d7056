"""Graphs of points that build on each other, made safe and shallow before anything runs.

`parsing.plan_reader` has turned a model's numbers into indices. `PlanGuard` bounds what such a graph costs, point by
point, so that it works while the plan is still being written; `safe_skeleton` does so for a skeleton that a caller
gives.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Collection, Iterable, Sequence

from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import is_whole
from skeleton_of_thought.types import PlanItem, Planning, Point, Skeleton

__all__ = ["PlanGuard", "cut_plan", "kind_of", "safe_skeleton"]


class PlanGuard:
    """Makes a graph safe and shallow, one point at a time.

    Each point builds on points before it only, so there is no cycle. It loses the points of the wave `max_depth`, as it
    would be in a later one, and then all but the first `max_parents` that it names. A point that sums up, compares or
    weighs (`plan_lines.sums_up`) and names none builds on all points before it that do not.

    Args:
        named: For each point of the plan, the indices that it names; `add` reads the item of its point.
        max_depth: The most waves.
        max_parents: The most points that one builds on.

    Attributes:
        chain: Whether there are two points or more, and each builds on the one before it: no two of them can be
            written side by side. What the guard has dropped counts, too.
        parallel: Whether two of the points so far can be written side by side.
    """

    def __init__(self, named: Sequence[Sequence[int]], max_depth: int, max_parents: int) -> None:
        self._named = named
        self._max_depth, self._max_parents = max_depth, max_parents
        self.restart()

    def restart(self) -> None:
        """Forgets all points."""
        self._own: dict[int, int] = {}
        self._first: dict[str, int] = {}
        self._waves: list[int] = []
        self._plain: list[int] = []
        self.parallel = False

    @property
    def chain(self) -> bool:  # noqa: D102 - in the class
        return len(self._waves) > 1 and not self.parallel

    def add(self, point: Point) -> Point:
        """A point of the plan, by its index there, with the next index and with what it may build on."""
        from skeleton_of_thought.parsing.plan_lines import sums_up

        index = len(self._waves) + 1
        parents: Iterable[int] = dict.fromkeys(self._own[n] for n in self._named[point.index - 1] if n in self._own)
        summary = sums_up(point.title)
        if summary and not parents:
            parents = dict.fromkeys(self._plain)
        self._own[point.index] = index
        self._first[point.title.casefold()] = index
        if not summary:
            self._plain.append(index)
        if index > 1 and index - 1 not in parents:
            self.parallel = True
        kept, wave = _kept(parents, lambda parent: self._waves[parent - 1], self._max_depth, self._max_parents)
        self._waves.append(wave)
        return dataclasses.replace(point, index=index, depends_on=tuple(sorted(kept)))

    def repeat(self, point: Point) -> None:
        """Takes the number of a point that is left out, as its title came before, for that of the first such point."""
        if first := self._first.get(point.title.casefold()):
            self._own[point.index] = first

    def renumber(self) -> None:
        """Forgets the numbers of the plan: the next points are those of another one."""
        self._own = {}


def _kept(
    parents: Iterable[int], wave_of: Callable[[int], int], max_depth: int, max_parents: int
) -> tuple[list[int], int]:
    kept = [parent for parent in parents if wave_of(parent) < max_depth][:max_parents]
    return kept, 1 + max(map(wave_of, kept), default=0)


def cut_plan(plan: Sequence[PlanItem], most: int, reason: str | None) -> tuple[tuple[PlanItem, ...], str | None]:
    """The first items of a plan, as many as have this many characters together, and a piece of the next title.

    Args:
        plan: The items.
        most: The most characters of titles and scopes.
        reason: The reason for which the reply ended.

    Returns:
        The items, and the reason: `"max_chars"` where the plan was cut.
    """
    items: list[PlanItem] = []
    room = most
    for item in plan:
        room -= len(item.title) + len(item.scope)
        if room < 0:
            title = item.title[: room + len(item.title) + len(item.scope)]
            return (*items, dataclasses.replace(item, title=title, scope="")), CUT
        items.append(item)
    return tuple(items), reason


def kind_of(skeleton: Skeleton) -> Planning:
    """What a given skeleton says of its points."""
    if any(point.depends_on for point in skeleton.points):
        return "graph"
    return "scoped" if any(point.scope for point in skeleton.points) else "titles"


def safe_skeleton(skeleton: Skeleton, max_depth: int, max_parents: int) -> Skeleton:
    """A given skeleton as a safe graph, with the same points in the same order.

    What a point builds on may hold anything. Points that do not stand before it are dropped, so there are no cycles;
    depth and number are bounded as in `PlanGuard`. A skeleton that is safe already comes back as it is.

    Raises:
        InvalidInput: What a point builds on is no collection, its scope no text, or its words no whole number.
    """
    waves: dict[int, int] = {}
    places: dict[int, int] = {}
    points: list[Point] = []
    for point in skeleton.points:
        _check_point(point)
        known = [n for n in point.depends_on if isinstance(n, int) and not isinstance(n, bool) and n in waves]
        kept, wave = _kept(dict.fromkeys(known), waves.__getitem__, max_depth, max_parents)
        depends_on = tuple(sorted(kept, key=places.__getitem__))
        points.append(point if depends_on == point.depends_on else dataclasses.replace(point, depends_on=depends_on))
        waves[point.index], places[point.index] = wave, len(places)
    return skeleton if all(map(operator.is_, points, skeleton.points)) else Skeleton(tuple(points), skeleton.text)


def _check_point(point: Point) -> None:
    fault = ""
    if isinstance(point.depends_on, str) or not isinstance(point.depends_on, Collection):
        fault = f"depends_on must be the indices of other points, such as (1, 3), not {point.depends_on!r:.80}"
    elif not isinstance(point.scope, str):
        fault = f"scope must be a text, not {point.scope!r:.80}"
    elif point.words is not None and not is_whole(point.words, 1):
        fault = f"words must be a whole number of at least 1, or None, not {point.words!r:.80}"
    if fault:
        raise InvalidInput(f"Point {point.index!r:.80} of the given skeleton: {fault}.")
