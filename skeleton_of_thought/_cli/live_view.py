"""The live view: shows the skeleton line by line, then all points side by side. Needs `rich` (extra `demo`)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from skeleton_of_thought._cli.live_page import Cell, Page
from skeleton_of_thought._cli.streams import CommandStream, unwrapped
from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought._cli.views import AnswerResult
from skeleton_of_thought.events import Event
from skeleton_of_thought.text.assembly import POINT_BREAK, Join, heading, separator
from skeleton_of_thought.types import Answer, Expansion, Item

__all__ = ["LiveView"]

_READABLE = 38
"""The least width of a point's box, in columns, if the height suffices for all boxes."""
_NARROWEST = 26
"""The least width of a point's box in any case."""
_WIDEST = 100
"""The greatest width of text and of a box: longer lines are hard to read."""
_LOWEST = 4
"""The least height of a box whose text is cut: the frame and two lines of text."""
_TWO_TEXTS = 100
"""The least width at which two texts stand side by side."""
_GAP = 3
"""Columns between two texts that stand side by side."""
_CUT = 1000
"""Long texts are cut at multiples of this many characters, so that their lines do not move with every token."""

_STATES = {
    "waiting": ("·", ".", "dim"),
    "writing": ("▸", ">", "cyan"),
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
}


class LiveView:
    """Shows an answer on the terminal's alternate screen while it is written, then prints it as normal text.

    The alternate screen survives a change of the terminal's size. In the scrollback, drawn lines cannot be erased any
    more after the terminal has wrapped them again.

    Args:
        question: The question.
        console: The console to draw on; by default that of the process.
        join: The form of the points in the answer.
        clock: Returns the time in seconds.
    """

    shows_figures = True

    def __init__(
        self,
        question: str,
        console: Console | None = None,
        *,
        join: Join = "numbered",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or Console(file=unwrapped(sys.stdout), highlight=False)
        self._question = " ".join(printable(question).split())
        self._join = join
        self._page = Page()
        self._note: str | None = None
        self._baseline: list[str] = []
        self._clock = clock
        self._start = clock()
        # What others write meanwhile would vanish with the alternate screen, so it is held back.
        self._live = Live(
            self,
            console=self._console,
            screen=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @property
    def width(self) -> int:
        """The width of the console."""
        return self._console.width

    def __enter__(self) -> Self:
        self._start = self._clock()
        if isinstance(sys.stderr, CommandStream) and sys.stderr.isatty():
            sys.stderr.held = []
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._live.stop()
        finally:
            if isinstance(sys.stderr, CommandStream):
                sys.stderr.release()

    # --- events: a thread of rich draws the screen from the state that they leave here ---

    def show(self, event: Event) -> None:
        """Shows an event of the answer."""
        if self._note is not None:
            self.note(None)
        self._page.show(event)

    def note(self, what: str | None) -> None:
        """Shows what happens from now on, on an empty screen and with the clock at zero."""
        self._page, self._baseline = Page(), []
        self._note, self._start = what, self._clock()

    def show_baseline(self, text: str) -> None:
        """Shows more text of a baseline that is measured."""
        self._baseline.append(text)

    def show_repetition(self, event: Event) -> None:
        """Shows an event of an answer that is repeated for measuring."""
        self._page.show(event)

    # --- the screen ---

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = console.size
        page, note, baseline = self._page, self._note, "".join(self._baseline)
        status = f"{note or page.status} - {self._clock() - self._start:.1f} s"
        head = [Text(self._question, style="bold"), Text(status, style="dim"), Text()]
        # The points matter most, so on a very low terminal they get all lines.
        head = head[: max(0, min(3, height - 2))]
        for line in head:
            line.truncate(width, overflow="ellipsis")
        room = max(1, height - len(head))
        yield Group(
            *head,
            _tail(baseline, min(width, _WIDEST), room, console) if baseline else _body(page, width, room, console),
        )

    # --- the end ---

    def finish(self, result: AnswerResult) -> None:
        """Prints the question and the whole answer as normal text, beside that of a baseline if there is one."""
        answer, comparison = result.answer, result.comparison
        if answer is None or not answer.text:
            return
        question = Text(self._question, style="bold")
        question.truncate(3 * self.width, overflow="ellipsis")
        document = _document(answer, self._join)
        # After a change of size the terminal may come back in the middle of a line.
        self._console.print(Text(), question, Text(), sep="\n")
        if comparison is None:
            self._console.print(document)
            return
        baseline = comparison.baselines[0]
        ours = Text(f"Skeleton-of-Thought, {comparison.seconds:.1f} s", style="dim")
        theirs = Text(f"{baseline.name}, {baseline.seconds:.1f} s", style="dim")
        self._console.print(_two_texts((ours, document), (theirs, Text(printable(baseline.text))), self.width))

    def interrupt(self, answer: Answer) -> None:
        """Prints the answer so far, which was on the screen a moment ago."""
        self.finish(AnswerResult(answer))

    def report(self, lines: Sequence[str]) -> None:
        """Prints lines of figures, set apart from the answer."""
        if lines:
            self._console.print(Text(printable("\n" + "\n".join(lines)), style="dim"))


def _two_texts(ours: tuple[Text, Text], theirs: tuple[Text, Text], width: int) -> RenderableType:
    """Two texts with their headings, side by side if the width suffices, else one below the other."""
    if width < _TWO_TEXTS:
        return Group(ours[0], Text(), ours[1], Text(), theirs[0], Text(), theirs[1])
    table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    for _ in range(2):
        table.add_column(width=(width - _GAP) // 2, overflow="fold")
    table.add_row(ours[0], theirs[0])
    table.add_row(Text(), Text())
    table.add_row(ours[1], theirs[1])
    return table


def _body(page: Page, width: int, height: int, console: Console) -> RenderableType:
    cells = page.cells
    if text := "".join(page.merge or page.direct):
        return _tail(text, min(width, _WIDEST), height, console)
    if any(cell.opened for cell in cells):
        return _grid(cells, width, height, console)
    return Text("\n").join(_line(cell, width, console, text=False) for cell in cells[-height:])


def _document(answer: Answer, join: Join) -> Text:
    """The answer's text, with bold headings."""
    if answer.route == "direct" or answer.merged:
        return Text(printable(answer.text))
    if answer.route == "items":
        return _items(answer)
    opening, closing = (Text(printable(text)) for text in (answer.opening, answer.closing))
    sections = (opening, *(_section(expansion, join) for expansion in answer.expansions), closing)
    return Text(POINT_BREAK).join(section for section in sections if section)


def _items(answer: Answer) -> Text:
    """The answers to the items of a question, each after its mark in bold."""
    document, before = Text(), ""
    for expansion in answer.expansions:
        if section := _section(expansion, "numbered"):
            point = expansion.point
            gap = point.gap_after(before) if isinstance(point, Item) else POINT_BREAK
            document.append(gap if document else "").append_text(section)
            before = expansion.text
    return document


def _section(expansion: Expansion, join: Join) -> Text:
    body = separator(expansion.point, join, expansion.text) + expansion.text if expansion.text else ""
    return Text.assemble((printable(heading(expansion.point, join)), "bold"), printable(body))


def _grid(cells: list[Cell], width: int, height: int, console: Console) -> RenderableType:
    """All points side by side, in boxes as tall as their texts if these fit; without boxes if no boxes fit."""
    columns = _columns(len(cells), width, height)
    if columns == 0:
        return _list(cells, width, height, console)
    each = min(_WIDEST, width // columns)
    table = Table.grid()
    for _ in range(columns):
        table.add_column(width=each)
    # Points are numbered row by row, but boxes of different heights need no common rows: each column is a stack.
    table.add_row(*(Group(*_stack(cells[column::columns], each, height, console)) for column in range(columns)))
    return table


def _columns(count: int, width: int, height: int) -> int:
    """The most columns whose boxes are wide enough to read; 0 if boxes of no width fit."""
    fits = [
        columns
        for columns in range(1, min(count, max(1, width // _NARROWEST)) + 1)
        if -(-count // columns) * _LOWEST <= height
    ]
    readable = [columns for columns in fits if width // columns >= _READABLE]
    # If the height requires narrower boxes, take the fewest columns that fit.
    return max(readable, default=min(fits, default=0))


def _stack(cells: list[Cell], width: int, height: int, console: Console) -> list[Panel]:
    """Boxes below each other, at most `height` lines in all. Of texts that are too long, only the ends are shown."""
    left = height - 2 * len(cells)
    texts = [_wrap(_shown(cell), width - 4, height, console) for cell in cells]
    scopes = [_wrap(_scope(cell), width - 4, height, console) if cell.scope else [] for cell in cells]
    if sum(map(len, (*texts, *scopes))) <= left:
        texts = [scope + text for scope, text in zip(scopes, texts, strict=True)]
    room = _share([len(text) for text in texts], left)
    return [
        _box(cell, text[len(text) - lines :], width, console)
        for cell, text, lines in zip(cells, texts, room, strict=True)
    ]


def _share(wanted: Sequence[int], room: int) -> list[int]:
    """Shares lines among texts: short texts get all that they want, long ones equal shares of the rest."""
    given = [0] * len(wanted)
    left = room
    for rank, index in enumerate(sorted(range(len(wanted)), key=lambda index: wanted[index])):
        given[index] = min(wanted[index], left // (len(wanted) - rank))
        left -= given[index]
    return given


def _shown(cell: Cell) -> Text:
    if text := cell.text.strip():
        return Text(text)
    return Text(cell.note, style="dim")


def _scope(cell: Cell) -> Text:
    return Text(cell.scope, style="dim italic")


def _box(cell: Cell, lines: Sequence[Text], width: int, console: Console) -> Panel:
    mark, ascii_mark, style = _STATES[cell.state]
    sign = ascii_mark if console.options.ascii_only else mark
    label = Text(printable(f"{sign} {cell.label}"), no_wrap=True, overflow="ellipsis")
    label.truncate(max(1, width - 6), overflow="ellipsis")
    # The lines are already wrapped at the inner width of the box.
    body = Text("\n", no_wrap=True, overflow="crop").join(lines)
    return Panel(body, title=label, title_align="left", border_style=style, height=max(1, len(lines)) + 2, width=width)


def _list(cells: list[Cell], width: int, height: int, console: Console) -> Text:
    """Points without boxes, a line or more for each. If there are too many, finished ones are left out first."""
    shown = cells
    if len(cells) > height:
        order = sorted(cells, key=lambda cell: (cell.ended, cell.place))
        shown = sorted(order[: max(1, height - 1)], key=lambda cell: cell.place)
    each = max(1, height // len(cells))
    lines = [_entry(cell, width, each, console) for cell in shown]
    if len(shown) < len(cells) and height > 1:
        more = Text(f"and {len(cells) - len(shown)} more", style="dim")
        more.truncate(width, overflow="ellipsis")
        lines.append(more)
    return Text("\n").join(lines)


def _entry(cell: Cell, width: int, height: int, console: Console) -> Text:
    """A point without a box: its heading, and the end of its text below it."""
    if height == 1:
        return _line(cell, width, console)
    head = _line(cell, width, console, text=False)
    if cell.pieces:
        return Text("\n").join([head, _tail(cell.text, width, height - 1, console)])
    return Text("\n").join([head, Text(f"  {cell.note}", style="dim")]) if cell.waits else head


def _line(cell: Cell, width: int, console: Console, *, text: bool = True) -> Text:
    mark, ascii_mark, style = _STATES[cell.state]
    sign = f"{ascii_mark if console.options.ascii_only else mark} "
    line = Text.assemble((sign, style), (printable(cell.label), "bold"))
    if text:
        line.truncate(max(1, width // 2), overflow="ellipsis")
        room = width - line.cell_len - 2
        if room > 4 and cell.pieces:
            line.append("  ").append_text(_tail(cell.text.replace("\n", " "), room, 1, console))
        elif cell.waits:
            line.append(f"  {cell.note}", style="dim")
    elif cell.plan:
        line.append(printable(cell.plan), style="dim")
    line.truncate(width, overflow="ellipsis")
    return line


def _tail(text: str, width: int, height: int, console: Console) -> Text:
    """The last lines of a text."""
    return Text("\n").join(_wrap(Text(text), width, height, console)[-height:])


def _wrap(text: Text, width: int, height: int, console: Console) -> list[Text]:
    """The lines of a text at a width. Of a long text only the end is wrapped, at least `height` lines."""
    plain = printable(text.plain)
    start = max(0, len(plain) - (width * height + _CUT)) // _CUT * _CUT
    if start:
        # Cut between words, if the text has any.
        start = next((at + 1 for at in range(start, start + _CUT // 2) if plain[at].isspace()), start)
    return list(Text(plain[start:], style=text.style).wrap(console, max(1, width)))
