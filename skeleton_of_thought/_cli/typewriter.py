"""An answer written as it comes, between other lines of a terminal: words are not broken, and waiting is shown."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from typing import Self

from skeleton_of_thought._cli.views import without_controls
from skeleton_of_thought.events import AnswerDelta, AnswerRestarted, Event, PointFound, Routed, SkeletonDone

__all__ = ["Typewriter", "points"]

_DIM, _NORMAL, _ERASE = "\x1b[2m", "\x1b[0m", "\r\x1b[K"
_PIECES = re.compile(r"\n|[^\S\n]+|\S+")


class Typewriter:
    """Writes an answer to stdout. On a terminal a dim line says what is being done until there is text.

    Attributes:
        text: What was written of the answer.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """`quiet` leaves out that line."""
        self.text = ""
        self._terminal = sys.stdout.isatty()
        self._steers = self._terminal and os.environ.get("TERM") not in (None, "", "dumb")
        self._quiet = quiet
        self._noted = False
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
        """Takes an event of the answer."""
        match event:
            case Routed(decision):
                self._note("listing the points" if decision.use_skeleton else "answering directly")
            case PointFound():
                self._points += 1
                self._note(f"listing the points: {self._points}")
            case SkeletonDone(skeleton):
                self._note(f"writing {points(len(skeleton.points))}")
            case AnswerDelta(text):
                self._write(text)
            case AnswerRestarted():
                # What is out cannot be taken back; the whole answer follows, set off from it.
                self._write("\n\n")
                self.text = ""

    def end(self) -> None:
        """Writes what is held back, and ends the line."""
        self._forget()
        self._flush()
        if self._column:
            self._emit("\n")
        self._column = 0
        sys.stdout.flush()

    def _note(self, what: str) -> None:
        if self._steers and not self._quiet and not self.text:
            sys.stdout.write(f"{_ERASE}{_DIM}{what} ...{_NORMAL}")
            sys.stdout.flush()
            self._noted = True

    def _forget(self) -> None:
        if self._noted:
            sys.stdout.write(_ERASE)
            self._noted = False

    def _write(self, text: str) -> None:
        self._forget()
        self.text += text
        if not self._terminal:
            self._emit(text)
            self._column = 0 if text.endswith("\n") else self._column + len(text)
        else:
            for piece in _PIECES.findall(without_controls(text)):
                self._take(piece)
        sys.stdout.flush()

    def _take(self, piece: str) -> None:
        """A line end, white space or a part of a word, which is held back until it is whole."""
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
        if self._word:
            needed = _cells(self._space) + _cells(self._word)
            if self._column and self._column + needed > width:
                self._emit("\n")
                self._column, self._space = 0, ""
                needed = _cells(self._word)
            self._emit(self._space + self._word)
            self._column += needed
        self._word = self._space = ""

    def _emit(self, text: str) -> None:
        sys.stdout.write(text)


def points(count: int) -> str:
    """So many points, in words."""
    return f"{count} point{'' if count == 1 else 's'}"


def _cells(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )
