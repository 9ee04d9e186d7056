"""The question on the command line, or on standard input."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence

from skeleton_of_thought.errors import InvalidInput

__all__ = ["as_text", "question_of"]


def question_of(words: Sequence[str], command: str = "ask") -> str:
    """The question that the words make, `-` among them standing for standard input.

    Where there are words, standard input is read for a `-` alone: in a script or a scheduled job it may be something
    that never ends. A text that waits there is mentioned. Without words it is read where it is no terminal.

    Raises:
        InvalidInput: There is no question, `-` comes twice, or standard input is no text.
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
        if _waits():
            print("sot: standard input was not read; put a - where its text belongs", file=sys.stderr)
        return as_text(" ".join(words), "The question")
    at = list(words).index("-")
    parts = (" ".join(words[:at]), _read(), " ".join(words[at + 1 :]))
    return as_text("\n\n".join(part for part in parts if part), "The question")


def as_text(text: str, what: str) -> str:
    """The text, read as UTF-8 where Python could not make characters of its bytes and has kept them as surrogates.

    Args:
        text: What stood on the command line or in a stream.
        what: What it is called in errors.

    Raises:
        InvalidInput: It is no text; a server would refuse it, and no tokenizer takes it.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise InvalidInput(f"{what} holds bytes that are no text in utf-8.") from error


def _waits() -> bool:
    """Whether a text is piped in, which would be lost; not whether one may yet come, which could take for ever."""
    try:
        import fcntl
        import termios

        number = sys.stdin.fileno()
        kind = os.fstat(number)
        if stat.S_ISREG(kind.st_mode):
            return kind.st_size > 0 == os.lseek(number, 0, os.SEEK_CUR)  # further on, a loop of the shell is reading it
        if not stat.S_ISFIFO(kind.st_mode):
            return False
        waiting = fcntl.ioctl(number, termios.FIONREAD, bytes(4))
    except (ImportError, OSError, ValueError, AttributeError):
        return False  # Windows, or nothing with a descriptor
    return int.from_bytes(waiting, sys.byteorder) > 0


def _read() -> str:
    if sys.stdin is None:
        raise InvalidInput("There is nothing to put in the place of -: standard input is closed.")
    try:
        return as_text(sys.stdin.read().strip(), "Standard input")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is no text in {sys.stdin.encoding}: {error}") from error
