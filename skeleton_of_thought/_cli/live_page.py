"""What the live view shows: the state of each point, of the opening and the closing, and of the whole answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought.errors import ReasoningShown
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerRestarted,
    Event,
    MergeStarted,
    OverlapFound,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    RoleDone,
    RoleStarted,
    Routed,
    SkeletonDone,
    SkeletonRestarted,
)
from skeleton_of_thought.text.assembly import heading
from skeleton_of_thought.types import Item, Point, Role

__all__ = ["Cell", "Page"]

_ENDED = ("done", "failed")
_LAST = 1 << 62
"""The place of the closing, after all points."""


@dataclass
class Cell:
    """A point on the screen, or the opening or the closing.

    Attributes:
        label: Its heading.
        place: Its place among the others.
        plan: What its line of the skeleton says besides the title.
        scope: What it covers.
        waits: The points that it still waits for.
        state: `"waiting"`, `"writing"`, `"done"` or `"failed"`.
        opened: Whether its call was requested.
        again: Why it is written anew; empty if it is not.
    """

    label: str
    place: int
    plan: str = ""
    scope: str = ""
    waits: tuple[int, ...] = ()
    pieces: list[str] = field(default_factory=list)
    state: str = "waiting"
    opened: bool = False
    again: str = ""

    @property
    def text(self) -> str:
        """Its text so far."""
        return "".join(self.pieces)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self.state in _ENDED

    @property
    def note(self) -> str:
        """What stands in place of its text while it has none."""
        if self.state == "waiting" and self.waits and not self.opened:
            return f"waits for {', '.join(map(str, self.waits))}"
        return self.again if self.again and not self.ended else self.state


class Page:
    """The answer so far."""

    def __init__(self) -> None:
        self.points: dict[int, Cell] = {}
        self.roles: dict[Role, Cell] = {}
        self.complete = False
        self.noun = "points"
        self.reason: str | None = None
        self.direct: list[str] = []
        self.merge: list[str] | None = None

    @property
    def cells(self) -> list[Cell]:
        """The opening, the points, the closing: those that there are."""
        return sorted((*self.points.values(), *self.roles.values()), key=lambda cell: cell.place)

    def show(self, event: Event) -> None:
        """Takes in an event."""
        match event:
            case Routed(decision) if not decision.use_skeleton:
                self.reason = " ".join(printable(decision.reason).split())
            case PointFound(point):
                self._cell(point)
            case SkeletonDone(skeleton):
                self.complete = True
                if any(isinstance(point, Item) for point in skeleton.points):
                    self.noun = "items"
                for point in skeleton.points:
                    self._cell(point)
            case PointStarted(point):
                self._cell(point).opened = True
            case PointDelta(point, text):
                cell = self.points[point.index]
                cell.state = "writing"
                cell.pieces.append(text)
            case OverlapFound(point, other):
                self.points[point.index].again = f"repeats point {other.index}, is written anew"
            case PointRestarted(point):
                cell = self.points[point.index]
                cell.pieces, cell.state = [], "waiting"
            case PointDone(expansion):
                self._end(expansion.point, failed=expansion.error is not None)
            case RoleStarted(role):
                self.roles[role] = Cell(role.capitalize(), 0 if role == "opening" else _LAST, state="writing")
            case RoleDone(role, text, error):
                self.roles[role].pieces, self.roles[role].state = [text], "failed" if error else "done"
            case MergeStarted():
                self.merge = []
            case SkeletonRestarted():
                self.points = {}
            case AnswerRestarted(error):
                # After a failed merge the points follow; a merge whose reasoning was shown goes on.
                self.merge = [] if self.merge is not None and isinstance(error, ReasoningShown) else None
            case AnswerDelta(text) if self.merge is not None:
                self.merge.append(text)
            case AnswerDelta(text) if not self.points:
                self.direct.append(text)

    def _cell(self, point: Point) -> Cell:
        if point.index not in self.points:
            waits = [each for each in point.depends_on if each not in self.points or not self.points[each].ended]
            plan = point.line.removeprefix(str(point))
            self.points[point.index] = Cell(_label(point), point.index, plan, point.scope, tuple(waits))
        return self.points[point.index]

    def _end(self, point: Point, *, failed: bool) -> None:
        self._cell(point).state = "failed" if failed else "done"
        for cell in self.points.values():
            if point.index in cell.waits:
                cell.waits = tuple(each for each in cell.waits if each != point.index)

    @property
    def status(self) -> str:
        """What happens now, in words."""
        cells = list(self.points.values())
        if self.direct or self.reason is not None:
            return "answering directly" + (f": {self.reason}" if self.reason else "")
        if not any(cell.opened for cell in cells):
            return "writing the skeleton"
        if self.merge is not None:
            return "merging the points into one text"
        if writing := [role for role, cell in [*self.roles.items()] if not cell.ended]:
            return f"writing the {' and the '.join(writing)}"
        more = "" if self.complete else ", the skeleton is still being written"
        return f"{self.noun} done: {sum(cell.ended for cell in cells)} of {len(cells)}{more}"


def _label(point: Point) -> str:
    """The heading of a point. For an item: its mark and its text, or the text alone where the mark repeats it."""
    if not isinstance(point, Item):
        return heading(point)
    return point.title if point.mark.endswith((":", "：")) else f"{point.mark} {point.title}".strip()
