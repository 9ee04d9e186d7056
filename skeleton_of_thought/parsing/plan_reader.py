"""The points of a plan, from the titles of an outline and from data: what each covers and builds on.

A model's own numbers become indices of points here. `skeleton_of_thought.planning` then makes the graph shallow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skeleton_of_thought.parsing.data import plain_title, plan_fields
from skeleton_of_thought.parsing.mark import Title
from skeleton_of_thought.parsing.marks import clean_title
from skeleton_of_thought.parsing.plan_lines import is_length, read_numbers, read_plan_line
from skeleton_of_thought.planning import PlanGuard
from skeleton_of_thought.types import PlanItem, Planning, Point, Skeleton

__all__ = ["PlanReader"]


class PlanReader:
    """Makes points of the titles of a plan, in their order.

    The numbers that a point names are those that the model wrote before its titles, where they rise: a list may begin
    at 0, or skip some. Else the order counts. A point builds on points before it alone; others that it names are
    dropped.

    Args:
        planning: The kind of plan. Only `"graph"` reads what a point builds on.

    Attributes:
        named: For each point so far, the indices of the points that it builds on, in the order in which it names them.
    """

    def __init__(self, planning: Planning) -> None:
        self._planning: Planning = planning
        self.named: list[tuple[int, ...]] = []
        self._guard: PlanGuard | None = None
        self.restart()

    def restart(self) -> None:
        """Forgets all points."""
        self.named.clear()
        self._indices: dict[int, int] = {}
        self._titles: dict[str, int] = {}
        self._last = -1

    def guard(self, max_depth: int, max_parents: int) -> PlanGuard | None:
        """A guard for the points of this reader; None for plans without a graph."""
        if self._planning == "graph":
            self._guard = PlanGuard(self.named, max_depth, max_parents)
        return self._guard

    def read(self, title: Title) -> Point:
        """The next point, from a title of the outline."""
        item = title.item
        if not isinstance(item, Mapping):
            return self._point(title.text, title.number)
        fields = plan_fields(item)
        return self._point(title.text, fields.number, fields.scope, fields.after, fields.words)

    def read_item(self, item: PlanItem) -> Point | None:
        """The next point, from data; None for a title without any words, which keeps its number."""
        title = plain_title(" ".join(item.title.split()))
        if not title:
            self._last = max(self._last, 0) + 1
            return None
        scope = clean_title(" ".join(item.scope.split())) if item.scope else None
        return self._point(title, -1, scope, item.after, item.words)

    def read_all(self, items: Iterable[str | PlanItem]) -> Skeleton:
        """The skeleton of a whole plan that is given as titles or as items; the points before it do not count."""
        self.restart()
        if self._guard is not None:
            self._guard.renumber()
        plan = [PlanItem(item) if isinstance(item, str) else item for item in items]
        points = [point for item in plan if (point := self.read_item(item))]
        return Skeleton(tuple(points), "\n".join([point.line for point in points]))

    def _point(
        self, title: str, number: int, scope: str | None = None, after: Any = (), words: int | None = None
    ) -> Point:
        if number < 0 and self._last < 0:
            number = 1
        line = read_plan_line(title, self._planning, noted=scope is not None)
        index = len(self.named) + 1
        named: Iterable[int] = ()
        if self._planning == "graph":
            named, every = self._numbers(after)
            if every or line.after_all:
                named = range(1, index)
            else:
                last = (index - 1,) if line.after_last and index > 1 else ()
                named = (*(self._indices[n] for n in (*named, *line.after) if n in self._indices), *last)
        self.named.append(tuple(dict.fromkeys(named)))
        self._last = number if number > self._last else self._last + 1
        self._indices[self._last] = index
        self._titles.setdefault(line.title.casefold(), self._last)
        return Point(
            index,
            line.title,
            tuple(sorted(self.named[-1])),
            line.scope if scope is None else scope,
            words if is_length(words) else line.words,
        )

    def _numbers(self, after: Any) -> tuple[list[int], bool]:
        """The model's numbers in a value such as `[1, "3"]`, `"1 and 3"` or a title; whether it names all points."""
        numbers: list[int] = []
        every = False
        for value in after if isinstance(after, (list, tuple)) else (after,):
            if isinstance(value, str):
                found, whole = read_numbers(value)
                title = () if found or whole else (self._titles.get(plain_title(value).casefold()),)
                numbers += found or [n for n in title if n is not None]
                every = every or whole
            elif isinstance(value, int) and not isinstance(value, bool):
                numbers.append(value)
        return numbers, every
