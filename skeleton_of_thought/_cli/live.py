"""The live view: the skeleton line by line, then all points side by side. Needs `rich` (extra `demo`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from skeleton_of_thought._cli.views import Outcome, without_controls
from skeleton_of_thought.assemble import POINT_BREAK, Join, heading, separator
from skeleton_of_thought.types import (
    Answer,
    AnswerDelta,
    AnswerRestarted,
    Event,
    Expansion,
    MergeStarted,
    Point,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    Routed,
    SkeletonDone,
)

__all__ = ["LiveView"]

_NARROWEST = 26
"""The least width of a point's box, in columns."""
_LOWEST = 4
"""The least height of a point's box, in lines: its frame, and two lines of text."""
_LONGEST_TAIL = 4000
"""So many characters of a text are wrapped for each picture. It is far more than a box shows."""

_STATES = {
    "waiting": ("·", ".", "dim"),
    "writing": ("▸", ">", "cyan"),
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
}


@dataclass
class _Cell:
    """A point on the screen."""

    point: Point
    pieces: list[str] = field(default_factory=list)
    state: str = "waiting"
    opened: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class LiveView:
    """Shows an answer on the terminal's second screen while it is written, then prints it as normal text.

    The second screen is used because it survives a change of size: what is drawn in the scrollback cannot
    be taken back once lines have been wrapped anew.
    """

    def __init__(self, question: str, console: Console | None = None, *, join: Join = "numbered") -> None:
        self._console = console or Console(highlight=False)
        self._question = " ".join(without_controls(question).split())
        self._cells: dict[int, _Cell] = {}
        self._complete = False
        self._join = join
        self._reason: str | None = None
        self._direct: list[str] = []
        self._merge: list[str] | None = None
        self._normal: list[str] = []
        self._began = time.monotonic()
        self._live = Live(self, console=self._console, screen=True, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    # --- what has happened ---

    def show(self, event: Event) -> None:
        """See `View.show`. The screen is drawn by a thread of its own, from what is noted here."""
        match event:
            case Routed(decision) if not decision.use_skeleton:
                self._reason = " ".join(without_controls(decision.reason).split())
            case PointFound(point):
                self._cells.setdefault(point.index, _Cell(point))
            case SkeletonDone(skeleton):
                self._complete = True
                for point in skeleton.points:
                    self._cells.setdefault(point.index, _Cell(point))
            case PointStarted(point):
                self._cells.setdefault(point.index, _Cell(point)).opened = True
            case PointDelta(point, text):
                cell = self._cells[point.index]
                cell.state = "writing"
                cell.pieces.append(text)
            case PointRestarted(point):
                cell = self._cells[point.index]
                cell.pieces, cell.state = [], "waiting"
            case PointDone(expansion):
                self._cells[expansion.point.index].state = "failed" if expansion.error else "done"
            case MergeStarted():
                self._merge = []
            case AnswerRestarted():
                self._merge = None
            case AnswerDelta(text) if self._merge is not None:
                self._merge.append(text)
            case AnswerDelta(text) if not self._cells:
                self._direct.append(text)

    def show_normal(self, text: str) -> None:
        """See `View.show_normal`."""
        self._normal.append(text)

    # --- the screen ---

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = console.size
        status = f"{self._status()} - {time.monotonic() - self._began:.1f} s"
        if self._reason and not self._normal:
            status += f" - {self._reason}"
        head = [Text(self._question, style="bold"), Text(status, style="dim"), Text()]
        # The points matter most: on a very low terminal they get all of it.
        head = head[: max(0, min(3, height - 2))]
        for line in head:
            line.truncate(width, overflow="ellipsis")
        room = max(1, height - len(head))
        cells = list(self._cells.values())
        body: RenderableType
        if self._normal:
            body = _box("normal decoding", "".join(self._normal), "cyan", (width, room), console)
        elif self._merge:
            body = _box("one text of all points", "".join(self._merge), "cyan", (width, room), console)
        elif self._direct:
            body = _box("answer", "".join(self._direct), "cyan", (width, room), console)
        elif any(cell.opened for cell in cells):
            body = _grid(cells, width, room, console)
        else:
            body = Text("\n").join(_line(cell, width, console, text=False) for cell in cells[-room:])
        yield Group(*head, body)

    def _status(self) -> str:
        cells = list(self._cells.values())
        if self._normal:
            return "normal decoding"
        if self._direct or self._reason is not None:
            return "answering directly"
        if not any(cell.opened for cell in cells):
            return "writing the skeleton"
        if self._merge is not None:
            return "merging the points"
        done = sum(cell.state in ("done", "failed") for cell in cells)
        more = "" if self._complete else ", the skeleton is still being written"
        return f"points done: {done} of {len(cells)}{more}"

    # --- the end ---

    def finish(self, outcome: Outcome) -> None:
        """Prints the whole answer as normal text."""
        if outcome.answer is not None and outcome.answer.text:
            # After a change of size the terminal may come back in the middle of a line.
            self._console.print()
            self._console.print(_document(outcome.answer, self._join))
        if outcome.normal is not None:
            self._console.print(Text("\nNormal decoding wrote:\n", style="dim"))
            self._console.print(Text(without_controls(outcome.normal.text)))

    def interrupt(self, answer: Answer) -> None:
        """Prints what there is: it was on the screen a moment ago."""
        self.finish(Outcome(answer))

    def report(self, lines: Sequence[str]) -> None:
        """Prints statistics, set off from the answer."""
        self._console.print(Text("\n" + "\n".join(lines), style="dim"))


def _document(answer: Answer, join: Join) -> Text:
    """The answer's text, with bold headings."""
    if answer.route == "direct" or answer.merged:
        return Text(without_controls(answer.text))
    sections = (_section(expansion, join) for expansion in answer.expansions)
    return Text(POINT_BREAK).join(section for section in sections if section)


def _section(expansion: Expansion, join: Join) -> Text:
    body = separator(expansion.point, join) + expansion.text if expansion.text else ""
    return Text.assemble((without_controls(heading(expansion.point, join)), "bold"), without_controls(body))


def _grid(cells: list[_Cell], width: int, height: int, console: Console) -> RenderableType:
    """All points side by side where their boxes fit; else a line for each."""
    columns = _columns(len(cells), width, height)
    if columns == 0:
        return _lines(cells, width, height, console)
    rows = -(-len(cells) // columns)
    table = Table.grid(expand=True)
    for _ in range(columns):
        table.add_column(ratio=1)
    # Column by column the numbers would run downwards; row by row is how one reads.
    widths = [(width * (i + 1)) // columns - (width * i) // columns for i in range(columns)]
    for row in range(rows):
        boxes = cells[row * columns : (row + 1) * columns]
        table.add_row(*(_point_box(c, (w, height // rows), console) for c, w in zip(boxes, widths, strict=False)))
    return table


def _columns(count: int, width: int, height: int) -> int:
    """The number of columns that leaves the most room for text; 0 if boxes do not fit."""
    best, most = 0, 0
    for columns in range(1, min(count, max(1, width // _NARROWEST)) + 1):
        lines = height // -(-count // columns)
        room = (width // columns - 4) * (lines - 2)
        if lines >= _LOWEST and room > most:
            best, most = columns, room
    return best


def _point_box(cell: _Cell, size: tuple[int, int], console: Console) -> Panel:
    mark, ascii_mark, style = _STATES[cell.state]
    title = f"{ascii_mark if console.options.ascii_only else mark} {heading(cell.point)}"
    return _box(title, cell.text, style, size, console)


def _box(title: str, text: str, style: str, size: tuple[int, int], console: Console) -> Panel:
    width, height = size
    label = Text(without_controls(title), no_wrap=True, overflow="ellipsis")
    label.truncate(max(1, width - 6), overflow="ellipsis")
    body = _tail(text, max(1, width - 4), max(1, height - 2), console)
    return Panel(body, title=label, title_align="left", border_style=style, height=height, width=width)


def _lines(cells: list[_Cell], width: int, height: int, console: Console) -> Text:
    """A line or more per point; those that are done give way where there are too many."""
    shown = cells
    if len(cells) > height:
        order = sorted(cells, key=lambda cell: (cell.state in ("done", "failed"), cell.point.index))
        shown = sorted(order[: max(1, height - 1)], key=lambda cell: cell.point.index)
    each = max(1, height // len(cells))
    lines = [_lines_of(cell, width, each, console) for cell in shown]
    if len(shown) < len(cells) and height > 1:
        more = Text(f"and {len(cells) - len(shown)} more", style="dim")
        more.truncate(width, overflow="ellipsis")
        lines.append(more)
    return Text("\n").join(lines)


def _lines_of(cell: _Cell, width: int, height: int, console: Console) -> Text:
    """A point without a box: its heading, and below it the end of its text."""
    if height == 1:
        return _line(cell, width, console)
    head = _line(cell, width, console, text=False)
    return Text("\n").join([head, _tail(cell.text, width, height - 1, console)]) if cell.pieces else head


def _line(cell: _Cell, width: int, console: Console, *, text: bool = True) -> Text:
    mark, ascii_mark, style = _STATES[cell.state]
    sign = f"{ascii_mark if console.options.ascii_only else mark} "
    line = Text.assemble((sign, style), (without_controls(heading(cell.point)), "bold"))
    if text:
        line.truncate(max(1, width // 2), overflow="ellipsis")
        room = width - line.cell_len - 2
        if room > 4 and cell.pieces:
            line.append("  ").append_text(_tail(cell.text.replace("\n", " "), room, 1, console))
    line.truncate(width, overflow="ellipsis")
    return line


def _tail(text: str, width: int, height: int, console: Console) -> Text:
    """The last lines of a text, wrapped to the width."""
    # Cut at multiples of a fixed length, so that the lines do not jump with every token.
    start = max(0, len(text) - _LONGEST_TAIL) // 1000 * 1000
    lines = Text(without_controls(text[start:])).wrap(console, width)
    return Text("\n").join(lines[-height:])
