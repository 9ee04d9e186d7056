"""The standard streams: the question on standard input, and output that may be closed or hard to encode."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any, Self, TextIO, cast

from skeleton_of_thought.errors import InvalidInput

__all__ = ["ResilientStdout", "as_utf8", "is_piped", "prepare_streams", "question_of", "silence_stdout"]


def prepare_streams() -> None:
    """Opens closed streams, and makes characters that a stream cannot encode come out as `?`.

    A closed descriptor is opened on the null device. Otherwise the next file that is opened would get its number, and
    with it the text for the stream.
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


def silence_stdout() -> None:
    """Sends everything else on stdout to the null device: Python flushes it once more at exit, and would complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def is_piped() -> bool:
    """Whether another program reads stdout. It may be a pager, whose screen other output would garble."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


class ResilientStdout:
    """Replaces `sys.stdout` in a `with` block, and drops text once stdout cannot be written any more.

    Attributes:
        lost: The error that ended writing; None so far.
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
        """Writes text, like `io.TextIOBase.write`."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, like `io.IOBase.flush`."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        silence_stdout()


def question_of(words: Sequence[str], command: str = "ask") -> str:
    """Makes the question from the words on the command line; `-` among them stands for standard input.

    With words, standard input is only read for a `-`, because in a script or a scheduled job it may never end; a text
    that waits there is reported. Without words, it is read unless it is a terminal.

    Raises:
        InvalidInput: There is no question, `-` occurs twice, or standard input is not text.
    """
    if not words and (sys.stdin is None or sys.stdin.isatty()):
        raise InvalidInput(
            f'There is no question: sot {command} "QUESTION", sot {command} < FILE, or anything | sot {command}.'
        )
    if not words:
        return _read()
    if words.count("-") > 1:
        raise InvalidInput("Standard input can be read only once: leave one - alone.")
    if "-" not in words:
        if _has_input():
            print("sot: standard input was not read; put a - where its text belongs", file=sys.stderr)
        return as_utf8(" ".join(words), "The question")
    at = list(words).index("-")
    parts = (" ".join(words[:at]), _read(), " ".join(words[at + 1 :]))
    return as_utf8("\n\n".join(part for part in parts if part), "The question")


def as_utf8(text: str, what: str) -> str:
    """Decodes the bytes that Python kept as surrogates because its own encoding could not decode them.

    Args:
        text: Text from the command line or a stream.
        what: Its name in errors.

    Raises:
        InvalidInput: The bytes are not UTF-8. Servers and tokenizers would refuse the text.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise InvalidInput(f"{what} has bytes that are not text in utf-8.") from error


def _has_input() -> bool:
    """Whether text that nobody will read is waiting on standard input. It does not wait for text still to come."""
    try:
        import fcntl
        import termios

        number = sys.stdin.fileno()
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):
            # At another position than the start, a loop of the shell is reading the file.
            return status.st_size > 0 == os.lseek(number, 0, os.SEEK_CUR)
        if not stat.S_ISFIFO(status.st_mode):
            return False
        waiting = fcntl.ioctl(number, termios.FIONREAD, bytes(4))
    except (ImportError, OSError, ValueError, AttributeError):
        return False  # on Windows, or on a stream without a descriptor
    return int.from_bytes(waiting, sys.byteorder) > 0


def _read() -> str:
    if sys.stdin is None:
        raise InvalidInput("There is nothing to put in the place of -: standard input is closed.")
    try:
        return as_utf8(sys.stdin.read().strip(), "Standard input")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is not text in {sys.stdin.encoding}: {error}") from error
