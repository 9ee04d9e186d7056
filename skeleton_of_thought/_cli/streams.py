"""The standard streams as they may be: closed, in an encoding that lacks characters, or with nobody who reads."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Self, TextIO, cast

__all__ = ["LastingStdout", "let_go_of_stdout", "prepare_streams"]


def prepare_streams() -> None:
    """Has every text be written, and one that cannot be shown be lost rather than the answer.

    A closed descriptor is opened on the null device, or the next file that is opened would take its number, and get
    what is meant for the stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def let_go_of_stdout() -> None:
    """Sends what is still written to stdout nowhere: Python flushes it once more at its end, which would complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class LastingStdout:
    """Stands in for `sys.stdout`, and takes text also when it cannot be written any more.

    Attributes:
        lost: Why it could not; None while it can.
    """

    def __init__(self) -> None:
        self.lost: OSError | None = None
        self._stream = sys.stdout

    def __enter__(self) -> Self:
        self._stream = sys.stdout
        sys.stdout = cast("TextIO", self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """See `io.TextIOBase.write`."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """See `io.IOBase.flush`."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        let_go_of_stdout()
