"""From the texts of the points to the text of the answer: clean-up of expansions, and joining in order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from skeleton_of_thought.parsing.parser import ReasoningFilter
from skeleton_of_thought.types import Expansion, Point

__all__ = ["POINT_BREAK", "ExpansionText", "Join", "PrefillEcho", "WholeText", "heading", "render", "separator"]

POINT_BREAK = "\n\n"
"""What stands between two points of an answer."""

Join = Literal["numbered", "headings", "paragraphs"]
"""How the points stand in an answer, see `skeleton_of_thought.settings.Settings.join`."""

_MARKS = frozenset("#*_>\"'“”`([ \t\r\n")
_AFTER_NUMBER = frozenset(".):、．：]")
_AFTER_TITLE = frozenset(":：.-–—\n")
_LONGEST_ECHO = 120
_WORD = re.compile(r"(?:point|step|item|section)\s*", re.IGNORECASE)


def heading(point: Point, join: Join = "numbered") -> str:
    """How a point begins in the answer; empty for paragraphs."""
    if join == "paragraphs":
        return ""
    if join == "headings":
        # On one line, or the rest of the title would be text; a heading needs no colon after it.
        return f"## {' '.join(point.title.split()).rstrip(':：') or point.index}"
    return f"{point.index}. {point.title}" if point.title else f"{point.index}."


def separator(point: Point, join: Join = "numbered") -> str:
    """What stands between a point's heading and its text."""
    if join != "numbered":
        return POINT_BREAK if join == "headings" else ""
    last = point.title[-1:]
    return " " if not last or (unicodedata.category(last) == "Po" and last not in "\"'%") else ": "


def render(expansions: Iterable[Expansion], join: Join = "numbered") -> str:
    """The text of a whole answer: the points in order, each with its heading."""
    points = (heading(e.point, join) + (separator(e.point, join) + e.text if e.text else "") for e in expansions)
    # A paragraph without text is none.
    return POINT_BREAK.join(point for point in points if point)


class WholeText:
    """Cleans a text as it streams: drops reasoning blocks, and white space around the whole.

    `feed` and `close` return the text that may be shown; their join does not depend on the chunking.
    """

    def __init__(self) -> None:
        self._reasoning = ReasoningFilter()
        self._trimmed = _Trimmed()

    def feed(self, text: str) -> str:
        """More text from the model; returns what of it can be shown now."""
        return self._trimmed.feed(self._reasoning.feed(text))

    def close(self) -> str:
        """The text is complete; returns what was held back and belongs to it."""
        return self._trimmed.feed(self._reasoning.close())


class _Trimmed:
    """Text without the white space around it: what may be at the end is held back."""

    def __init__(self) -> None:
        self._begun = False
        self._spaces = ""

    def feed(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._spaces += text
            return ""
        self._begun = True
        shown = self._spaces + body
        self._spaces = text[len(body) :]
        return shown


class PrefillEcho:
    """Takes a repeated prefill off the start of a reply as it streams.

    Some servers send the start of the turn that they were given back before what the model adds to it, and some do
    so only when the reply is not streamed. `feed` and `close` return the model's own text; their join does not
    depend on the chunking.

    Example:
        >>> echo = PrefillEcho("1.")
        >>> echo.feed("1"), echo.feed(". Move"), echo.feed(" more")
        ('', ' Move', ' more')
    """

    def __init__(self, prefill: str) -> None:
        # Chat templates take white space off the ends of a turn.
        self._prefill = prefill.strip()
        self._head: str | None = "" if self._prefill else None

    def feed(self, text: str) -> str:
        """More text of the reply; returns what of it is the model's own."""
        if self._head is None:
            return text
        self._head += text
        if len(self._head) < len(self._prefill) and self._prefill.startswith(self._head):
            return ""
        own, self._head = self._head.removeprefix(self._prefill), None
        return own

    def close(self) -> str:
        """The reply is complete; returns what was held back and is no repetition."""
        own, self._head = self._head or "", None
        return own


class ExpansionText:
    """Cleans the text of one point as it streams.

    Drops reasoning blocks, an echo of the point's number or title at the start, and white space around
    the whole. `feed` and `close` return the text that may be shown; their join does not depend on the
    chunking. Text is held back only while it may still turn out to be an echo, or is trailing white space.
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self._reasoning = ReasoningFilter()
        self._head: str | None = ""
        self._trimmed = _Trimmed()

    def feed(self, text: str) -> str:
        """More text from the model; returns what of it can be shown now."""
        return self._visible(self._reasoning.feed(text), final=False)

    def close(self) -> str:
        """The text is complete; returns what was held back and belongs to it."""
        return self._visible(self._reasoning.close(), final=True)

    def _visible(self, text: str, *, final: bool) -> str:
        if self._head is not None:
            self._head += text
            # No echo is longer than this; the cap keeps endless marks or blanks from being read again and again.
            final_head = final or len(self._head) > len(self._point.title) + _LONGEST_ECHO
            end = _echo_end(self._head, self._point, final=final_head)
            if end is None:
                return ""
            text, self._head = self._head[end:], None
        return self._trimmed.feed(text)


def _echo_end(text: str, point: Point, *, final: bool) -> int | None:
    """Where the echo of `point` at the start of `text` ends; 0 for none, None while it is undecided."""
    undecided = None if not final else 0
    marks = _skip(text, 0, _MARKS)
    if marks == len(text):
        return undecided
    number = _number_end(text, marks, str(point.index), final=final)
    if number is None:
        return undecided
    start = _skip(text, number or marks, _MARKS)
    if number and start == len(text):
        return start if final else None
    title = _title_end(text, start, point.title)
    if title is None:
        # The text ends inside the title: it may become an echo, unless it is over.
        return (number or 0) if final else None
    if not title:
        return number or 0
    if title == len(text):
        return len(text) if final else None
    after = _skip(text, title, frozenset("*_\"'”` )]"))
    if after == len(text):
        return len(text) if final else None
    if text[after] not in _AFTER_TITLE and text[title] not in "*_":
        return number or 0
    # A hyphen without a space before it is part of a word, as in "Self-care" after the title "Self".
    if text[after] in "-.–" and not (text[after] == "." or after > title):
        return number or 0
    end = _skip(text, after, _AFTER_TITLE | frozenset("*_\"'”` \t\r\n"))
    return None if end == len(text) and not final else end


def _number_end(text: str, start: int, number: str, *, final: bool) -> int | None:
    """The end of "3." or "Point 3:" at `start`, `0` for no such thing, None while undecided."""
    rest = text[start:]
    word = _WORD.match(rest)
    if word is None and not final and any(w.startswith(rest.lower()) for w in ("point", "step", "item", "section")):
        return None
    begin = start + (word.end() if word else 0)
    digits = text[begin : begin + len(number)]
    if digits != number:
        return None if not final and number.startswith(digits) else 0
    end = begin + len(number)
    if end == len(text):
        return 0 if final else None
    if text[end] not in _AFTER_NUMBER:
        return 0
    after = _skip(text, end, _AFTER_NUMBER | frozenset("*_"))
    if after == len(text):
        return after if final else None
    # "2.5 litres" is no number of a point.
    return 0 if text[after].isdigit() else after


def _title_end(text: str, start: int, title: str) -> int | None:
    """The end of the title at `start`, case and white space apart; 0 for none, None if the text ends in it."""
    if not title:
        return 0
    position = start
    for word in title.split():
        position = _skip(text, position, frozenset(" \t\r\n*_"))
        piece = text[position : position + len(word)]
        if piece.casefold() != word.casefold():
            inside = position + len(piece) == len(text) and word.casefold().startswith(piece.casefold())
            return None if inside else 0
        position += len(word)
    return position


def _skip(text: str, start: int, characters: frozenset[str]) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start
