"""A status line at the bottom of a terminal, which is rewritten in place."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import Any, Self, TextIO, cast

from skeleton_of_thought._cli.streams import CommandStream, unwrapped
from skeleton_of_thought._cli.terminal_text import printable

__all__ = ["StatusLine"]

_CLEAR = "\r\x1b[K"


class StatusLine:
    """Shows one line on standard errors, below the lines that others write there meanwhile.

    Leaving its `with` block removes the line. It is safe to use from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may write in the middle of a line
        self._before: Any = None
        self._text = ""

    def __enter__(self) -> Self:
        self._before = sys.stderr
        # The lines of others go through the streams of the command, which clean them, and then through `write`.
        sys.stderr = cast("TextIO", CommandStream(cast("TextIO", _Above(self)), is_log=True))
        return self

    def __exit__(self, *error: object) -> None:
        self.show("")
        sys.stderr = self._before

    def show(self, text: str) -> None:
        """Shows a text instead of the one before; an empty one removes the line."""
        with self._lock:
            # One column stays free, since some terminals begin a new line after the last one.
            self._text = printable(text)[: max(1, shutil.get_terminal_size().columns - 1)]
            self._draw(_CLEAR + self._text)

    def write(self, text: str) -> int:
        """Writes text of others above the line."""
        with self._lock:
            self._draw(_CLEAR + text + (self._text if text.endswith("\n") else ""))
        return len(text)

    @property
    def stream(self) -> TextIO:
        """The stream below, which takes control sequences."""
        return unwrapped(self._before)

    def _draw(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class _Above:
    """A stream whose text stands above a status line."""

    def __init__(self, line: StatusLine) -> None:
        self.write = line.write
        self._line = line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line.stream, name)
