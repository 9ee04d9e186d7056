"""Writes an answer between other lines of a terminal, without breaking words, and shows progress until it begins."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Self

from skeleton_of_thought._cli.streams import unwrapped
from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerRestarted,
    Event,
    PointFound,
    RoleStarted,
    Routed,
    SkeletonDone,
    SkeletonRestarted,
)
from skeleton_of_thought.types import Item, Point

__all__ = ["Typewriter", "count_points"]

_DIM, _NORMAL, _ERASE = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")


class Typewriter:
    """Writes an answer to stdout. On a terminal a dim line shows the progress until there is text.

    Attributes:
        text: The written text of the answer.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """With `quiet`, there is no progress line."""
        self.text = ""
        self._terminal = sys.stdout.isatty()
        self._has_controls = self._terminal and os.environ.get("TERM") not in (None, "", "dumb")
        self._quiet = quiet
        self._note_shown = False
        self._points = 0
        self._column = 0
        self._word = ""
        self._space = ""

    def __enter__(self) -> Self:
        self._note("thinking")
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def show(self, event: Event) -> None:
        """Shows an event of the answer."""
        match event:
            case Routed(decision):
                if decision.items is None:  # items are known, and their number follows
                    self._note("listing the points" if decision.use_skeleton else "answering directly")
            case PointFound():
                self._points += 1
                self._note(f"listing the points: {self._points}")
            case SkeletonRestarted():
                self._points = 0
                self._note("listing the points")
            case SkeletonDone(skeleton):
                self._note(f"writing {count_points(skeleton.points)}")
            case RoleStarted("opening"):
                self._note("writing the opening")
            case AnswerDelta(text):
                self._write(text)
            case AnswerRestarted():
                # Written text cannot be taken back; the whole answer follows, set apart by the blank line just written.
                self.text = ""

    def end(self) -> None:
        """Writes text that is held back, and ends the line."""
        self._erase_note()
        self._flush()
        if self._column:
            self._emit("\n")
        self._column = 0
        sys.stdout.flush()

    def _note(self, what: str) -> None:
        if self._has_controls and not self._quiet and not self.text:
            unwrapped(sys.stdout).write(f"{_ERASE}{_DIM}{what} ...{_NORMAL}")
            sys.stdout.flush()
            self._note_shown = True

    def _erase_note(self) -> None:
        if self._note_shown:
            unwrapped(sys.stdout).write(_ERASE)
            self._note_shown = False

    def _write(self, text: str) -> None:
        self._erase_note()
        self.text += text
        if not self._terminal:
            self._emit(text)
            self._column = 0 if text.endswith("\n") else self._column + len(text)
        else:
            for piece in _PIECES.findall(text):
                self._take(piece)
        sys.stdout.flush()

    def _take(self, piece: str) -> None:
        """Takes a line end, white space, or a part of a word, which is held back until the word is complete."""
        if piece.isspace():
            self._flush()
            if piece == "\n":
                self._emit("\n")
                self._column, self._space = 0, ""
            else:
                self._space = piece
        else:
            self._word += piece

    def _flush(self) -> None:
        width = shutil.get_terminal_size().columns
        if word := printable(self._word):
            needed = _cells(self._space) + _cells(word)
            if self._column and self._column + needed > width:
                self._emit("\n")
                self._column, self._space = 0, ""
                needed = _cells(word)
            self._emit(self._space + word)
            self._column += needed
        self._word = self._space = ""

    def _emit(self, text: str) -> None:
        sys.stdout.write(text)


def count_points(points: Sequence[Point]) -> str:
    """The number of points, or of items of a question, with its noun, as in "1 point"."""
    noun = "item" if points and isinstance(points[0], Item) else "point"
    return f"{len(points)} {noun}{'' if len(points) == 1 else 's'}"


def _cells(text: str) -> int:
    """The width of a text in columns of a terminal."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
