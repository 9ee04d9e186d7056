"""Bars over an axis in seconds, drawn as SVG and as text; `timeline` gives them their meaning."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

__all__ = ["Bar", "Part", "draw_svg", "draw_text", "in_seconds"]

PartKind = Literal["waiting", "writing", "retrieval", "failed", "normal"]

_MEANING: dict[PartKind | Literal["released"], str] = {
    "retrieval": "retrieval",
    "waiting": "until its first text",
    "writing": "writing",
    "failed": "failed",
    "released": "first text shown",
    "normal": "normal decoding",
}
"""The texts of the legend, in order."""


@dataclass(frozen=True)
class Part:
    """A stretch of a bar, in seconds since the answer began."""

    start: float
    end: float
    kind: PartKind


@dataclass(frozen=True)
class Bar:
    """A bar for one call, or for several calls of a stage.

    Attributes:
        label: Its label, of any length.
        parts: Its parts, in order; empty if it never ran.
        number: A point's number.
        released: When the reader got its first text; None if that is unknown.
        attempts: The number of calls made for it.
        after: The numbers of the points that it waited for.
    """

    label: str
    parts: tuple[Part, ...] = ()
    number: int | None = None
    released: float | None = None
    attempts: int = 1
    after: tuple[int, ...] = ()

    @property
    def waited(self) -> str:
        """Which points it waited for, in words; empty for none."""
        return f"after {', '.join(map(str, self.after))}" if self.after else ""

    @property
    def kind(self) -> PartKind | None:
        """The kind of its last part; None without any."""
        return self.parts[-1].kind if self.parts else None

    @property
    def end(self) -> float:
        """The end of its last part, or its release if that is later."""
        return max([0.0, *(part.end for part in self.parts), *([self.released] if self.released else [])])

    @property
    def took(self) -> str:
        """Its duration in words, from its first part to its last."""
        if not self.parts:
            return "not run"
        return in_seconds(self.parts[-1].end - self.parts[0].start)

    def shortened(self, width: int, *, isolated: bool = False) -> str:
        """Number and label, cut to a width.

        Args:
            width: The most columns of a terminal.
            isolated: Put marks around the title that isolate its writing direction from the number.
        """
        number = "" if self.number is None else f"{self.number}. "
        title = _cut(_clean(self.label), width - len(number))
        return f"{number}\u2068{title}\u2069" if isolated else number + title


def in_seconds(seconds: float) -> str:
    """A time in words, with its significant digits."""
    return f"{seconds:.2f} s" if seconds >= 0.1 or seconds < 0.0001 else f"{seconds:.2g} s"


# --- text of any script -----------------------------------------------------------------------------


def _clean(text: str) -> str:
    """The text on one line, without characters that XML forbids, that control terminals, or that turn the direction."""
    return " ".join("".join(map(_printable, text)).split())


def _printable(char: str) -> str:
    if char.isspace():
        return " "
    turns = "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
    return "" if turns or char in "\ufffe\uffff" or unicodedata.category(char) in ("Cc", "Cs") else char


def _columns(text: str) -> int:
    return sum(map(_column, text))


def _column(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    kept, used = [], 1  # the ellipsis
    for char in text:
        used += _column(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


# --- the axis ---------------------------------------------------------------------------------------


def _ticks(seconds: float, most: int) -> list[tuple[float, str]]:
    """At most `most` round numbers from 0 to `seconds`, with their labels."""
    least = seconds / (most - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= least * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    count = math.floor(seconds / step + 1e-9)
    return [(step * i, f"{step * i:.{decimals}f}") for i in range(count + 1)]


# --- SVG --------------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT, _TOP = 760, 222, 672, 40
_LABEL = 31
"""Columns of a label, at about 6.5 units a letter."""
_CROWD = 30
"""With at least this many bars, they stand closer together."""
_LETTER = 5.2
"""About the width of a digit or a letter of the small texts."""
_LEAST = len("after 1")
"""The letters that say at least one point."""

# Colours in pairs, for light and dark mode, also for the background: a viewer that shows the picture as an image
# (GitHub, JupyterLab) applies the system's mode and not the page's, and one that drops styles shows the light colours.
_COLOURS: dict[str, tuple[str, str]] = {
    "ground": ("#ffffff", "#15191f"),
    "text": ("#1f2328", "#e6e9ed"),
    "faint": ("#59636e", "#9aa4af"),
    "grid": ("#e3e6ea", "#2b313a"),
    "waiting": ("#b3cdf0", "#34507a"),
    "writing": ("#2f6fc9", "#6aa3f5"),
    "retrieval": ("#c98a1b", "#d9a441"),
    "failed": ("#c93a32", "#f07a70"),
    "normal": ("#8b939c", "#7d8793"),
}
_STYLE = "@media(prefers-color-scheme:dark){{{}}}".format(
    "".join(f".sot-{name}{{fill:{dark}}}" for name, (_, dark) in _COLOURS.items())
)


def draw_svg(bars: Sequence[Bar], heading: str, seconds: float) -> str:
    """The picture as one SVG element."""
    pitch = 22 if len(bars) < _CROWD else 15
    bottom = _TOP + pitch * len(bars)
    body = [_text(14, 24, heading, size=13, bold=True)]
    if bars:
        seconds = seconds or 1.0
        scale = (_RIGHT - _LEFT) / seconds
        body += _axis(_ticks(seconds, 9), scale, bottom)
        for row, bar in enumerate(bars):
            body += _row(bar, _TOP + pitch * row, pitch, scale)
        legend, height = _legend(bars, bottom + 46)
        body += legend
    else:
        height = bottom
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    fonts = 'font-family="system-ui, -apple-system, Segoe UI, Noto Sans, sans-serif" font-size="12"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {fonts} role="img" aria-label="{escape(_clean(heading))}">'
        f"<style>{_STYLE}</style>" + _box(0, 0, _WIDTH, height, "ground", round_=6) + "".join(body) + "</svg>\n"
    )


def _axis(ticks: list[tuple[float, str]], scale: float, bottom: float) -> Iterator[str]:
    for at, name in ticks:
        x = _LEFT + at * scale
        yield _box(x - 0.5, _TOP - 2, 1, bottom - _TOP + 4, "grid")
        yield _text(x, bottom + 16, name, colour="faint", size=11, anchor="middle")
    yield _text(_WIDTH - 14, bottom + 16, "seconds", colour="faint", size=11, anchor="end")


def _row(bar: Bar, top: float, pitch: float, scale: float) -> Iterator[str]:
    height, middle = pitch - 6, top + pitch / 2
    size = 12 if pitch > 20 else 10
    label = _text(0, pitch / 2 + size / 3, bar.shortened(_LABEL, isolated=True), size=size)
    tries = f" ({bar.attempts} attempts)" if bar.attempts > 1 else ""
    full = _cut(_clean(bar.label), 200)
    waited = f", {bar.waited}" if bar.after else ""
    yield f"<g><title>{escape(full)}: {bar.took}{tries}{waited}</title>"
    # An element of its own, which clips wide letters before they reach the bars.
    yield f'<svg x="14" y="{top:g}" width="{_LEFT - 22}" height="{pitch:g}" overflow="hidden">{label}</svg>'
    for part in bar.parts:
        width = max(1.0, (part.end - part.start) * scale)
        yield _box(_LEFT + part.start * scale, middle - height / 2, width, height, part.kind)
    if bar.released is not None:
        yield from _release(bar, middle, scale)
    if bar.after:
        yield from _waited(bar, middle, scale)
    yield _text(_WIDTH - 14, middle + 4, bar.took, colour="faint", size=11, anchor="end") + "</g>"


def _waited(bar: Bar, middle: float, scale: float) -> Iterator[str]:
    """Which points a bar waited for: before it, where nothing else can be drawn, or after it if that is too narrow."""
    start, end = (_LEFT + at * scale for at in (bar.parts[0].start if bar.parts else 0.0, bar.end))
    words = _cut(bar.waited, int((start - _LEFT - 8) / _LETTER))
    if len(words) >= _LEAST:
        yield _text(start - 6, middle + 4, words, colour="faint", size=10, anchor="end")
    elif len(words := _cut(bar.waited, int((_RIGHT - end - 8) / _LETTER))) >= _LEAST:
        yield _text(end + 8, middle + 4, words, colour="faint", size=10)


def _release(bar: Bar, middle: float, scale: float) -> Iterator[str]:
    at, end = ((seconds or 0) * scale + _LEFT for seconds in (bar.released, bar.parts[-1].end if bar.parts else 0))
    if at > end:
        yield _box(end, middle - 0.5, at - end, 1, "faint")
    yield _diamond(at, middle)


def _diamond(x: float, y: float) -> str:
    colours = f'class="sot-text" fill="{_COLOURS["text"][0]}"'
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z" {colours}/>'


def _legend(bars: Sequence[Bar], top: float) -> tuple[list[str], int]:
    kinds = {part.kind for bar in bars for part in bar.parts}
    released = any(bar.released is not None for bar in bars)
    drawn, x, y = [], 14.0, top
    for name, meaning in _MEANING.items():
        if name not in kinds and not (name == "released" and released):
            continue
        width = 36 + sum(3.2 if letter in "fijlrt " else 6.6 for letter in meaning)
        if x + width > _WIDTH:
            x, y = 14.0, y + 20
        drawn.append(_diamond(x + 5, y) if name == "released" else _box(x, y - 5, 11, 11, name))
        drawn.append(_text(x + 17, y + 4, meaning, colour="faint", size=11))
        x += width
    return drawn, int(y + (16 if drawn else -20))


def _box(x: float, y: float, width: float, height: float, colour: str, *, round_: int = 0) -> str:
    corner = f' rx="{round_}"' if round_ else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place}{corner} class="sot-{colour}" fill="{_COLOURS[colour][0]}"/>'


def _text(
    x: float, y: float, text: str, *, colour: str = "text", size: int = 12, anchor: str = "start", bold: bool = False
) -> str:
    more = ("" if anchor == "start" else f' text-anchor="{anchor}"') + (' font-weight="600"' if bold else "")
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}"'
    return f'<text {place}{more} class="sot-{colour}" fill="{_COLOURS[colour][0]}">{escape(text)}</text>'


# --- text -------------------------------------------------------------------------------------------

_MARKS = {"waiting": "░", "writing": "█", "retrieval": "▒", "failed": "x", "normal": "─", "released": "◆"}
_TEXT_LABEL, _TEXT_BAR = 26, 42


def draw_text(bars: Sequence[Bar], heading: str, seconds: float) -> str:
    """The picture as text for a terminal of 80 columns."""
    lines = [heading]
    if bars:
        seconds = seconds or 1.0
        scale = (_TEXT_BAR - 1) / seconds
        lines += [line for bar in bars for line in _text_rows(bar, scale)]
        lines += [_text_axis(_ticks(seconds, 6), scale), _text_legend(bars)]
    return "\n".join(line.rstrip() for line in lines if line)


def _text_rows(bar: Bar, scale: float) -> Iterator[str]:
    """The row of a bar. Which points it waited for stands before the bar, or else in a row of its own."""
    cells = [" "] * _TEXT_BAR
    for part in bar.parts:
        first, last = (round(at * scale) for at in (part.start, part.end))
        for cell in range(first, max(last, first + 1)):
            cells[min(cell, _TEXT_BAR - 1)] = _MARKS[part.kind]
    if bar.released is not None:
        cells[min(round(bar.released * scale), _TEXT_BAR - 1)] = _MARKS["released"]
    room = next((at for at, cell in enumerate(cells) if cell != " "), _TEXT_BAR)
    fits = len(bar.waited) < room
    if bar.after and fits:
        cells[room - len(bar.waited) - 1 : room - 1] = bar.waited
    label = bar.shortened(_TEXT_LABEL)
    yield f"{label}{' ' * (_TEXT_LABEL - _columns(label))} {''.join(cells)} {bar.took:>9}"
    if bar.after and not fits:
        yield f"   {bar.waited}"


def _text_axis(ticks: list[tuple[float, str]], scale: float) -> str:
    line = [" "] * (_TEXT_BAR + 10)
    for at, name in ticks:
        begin = round(at * scale)
        line[begin : begin + len(name)] = name
    return " " * (_TEXT_LABEL + 1) + "".join(line).rstrip() + " s"


def _text_legend(bars: Sequence[Bar]) -> str:
    kinds = {part.kind for bar in bars for part in bar.parts}
    released = any(bar.released is not None for bar in bars)
    shown = (name for name in _MEANING if name in kinds or (name == "released" and released))
    return "  ".join(f"{_MARKS[name]} {_MEANING[name]}" for name in shown)
