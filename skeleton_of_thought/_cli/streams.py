"""The standard streams: the question on standard input; output that may be closed, full, hard to encode or hostile."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

from skeleton_of_thought._cli.terminal_text import UNSAFE, printable
from skeleton_of_thought.errors import InvalidInput, without_secrets

__all__ = [
    "CommandStream",
    "as_utf8",
    "command_streams",
    "is_piped",
    "question_of",
    "silence_stdout",
    "surviving_stdout",
    "unwrapped",
]


class CommandStream:
    """Standard output or standard errors of the command: shows no text that controls the terminal.

    Writing to standard errors never fails, and leaves out passwords and keys in addresses: an answer must not be lost
    because a line about it could not be written.

    Attributes:
        raw: The stream itself, for the control sequences of the command.
        is_log: Whether it is standard errors.
        may_fail: Whether an error of writing is raised; otherwise what follows it is dropped.
        lost: The error that ended writing; None so far.
        held: Lines for later, while a view has the screen; None if lines are written at once.
    """

    def __init__(self, raw: TextIO, *, is_log: bool = False) -> None:
        self.raw = raw
        self.is_log = is_log
        self.may_fail = not is_log
        self.lost: OSError | ValueError | None = None
        self.held: list[str] | None = None
        self.isatty = raw.isatty  # so that a view that asks does not go through `__getattr__`

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def write(self, text: str) -> int:
        """Writes text, like `io.TextIOBase.write`."""
        if UNSAFE.search(text) is not None:
            text = _log_text(text) if self.is_log else printable(text)
        if self.is_log:
            text = without_secrets(text)
        if self.held is not None:
            self.held.append(text)
        elif self.lost is None:
            try:
                self.raw.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, like `io.IOBase.flush`; also reports an error of writing that argparse has swallowed."""
        if self.lost is None:
            try:
                self.raw.flush()
            except (OSError, ValueError) as error:
                self._lose(error)
        elif self.may_fail:
            raise self.lost

    def release(self) -> None:
        """Writes the lines that were held."""
        held, self.held = self.held or (), None
        for text in held:
            self.write(text)

    def _lose(self, error: OSError | ValueError) -> None:
        self.lost = error
        if self.may_fail:
            raise error
        _silence(self.raw)


_BAR = re.compile(r"\r|(?:\n|\x1b\[A)+\Z")
"""How progress bars begin a line again, or leave it. Log messages do not begin with these."""


def _log_text(text: str) -> str:
    bar = _BAR.match(text)
    return printable(text) if bar is None else bar[0] + printable(text[bar.end() :])


def unwrapped(stream: TextIO) -> TextIO:
    """The stream below a `CommandStream`, for text with control sequences of the command's own."""
    return cast("TextIO", getattr(stream, "raw", stream))


@contextlib.contextmanager
def command_streams() -> Iterator[None]:
    """Opens closed streams, and makes standard output and errors streams of the command, see `CommandStream`.

    A closed descriptor is opened on the null device. Otherwise the next file that is opened would get its number, and
    with it the text for the stream. A character that a stream cannot encode is shown as `?`.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    if hasattr(sys.stdin, "reconfigure"):
        # Python's own encoding may lack characters of UTF-8, see `as_utf8`. Other bytes fail where they are used.
        sys.stdin.reconfigure(errors="surrogateescape")
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        elif getattr(stream, "errors", None) not in _LENIENT and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
        setattr(sys, name, CommandStream(stream, is_log=name == "stderr"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


_LENIENT = frozenset({None, "replace", "ignore", "backslashreplace", "xmlcharrefreplace", "namereplace"})
"""Ways of encoding that take any character."""


@contextlib.contextmanager
def surviving_stdout() -> Iterator[CommandStream]:
    """Makes standard output drop text once it cannot be written any more; its `lost` is then the error."""
    stream = cast("CommandStream", sys.stdout)
    stream.may_fail = False
    try:
        yield stream
    finally:
        stream.may_fail = True


def silence_stdout() -> None:
    """Sends everything else on stdout to the null device: Python flushes it once more at exit, and would complain."""
    _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_piped() -> bool:
    """Whether another program reads stdout. It may be a pager, whose screen other output would garble."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


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
        text = sys.stdin.read(_LONGEST + 1)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is not text in {sys.stdin.encoding}: {error}") from error
    except OSError as error:
        raise InvalidInput(f"Standard input cannot be read: {error.strerror or error}.") from error
    if len(text) > _LONGEST:
        raise InvalidInput(f"Standard input has more than {_LONGEST:,} characters: no model takes such a question.")
    return as_utf8(text.strip(), "Standard input")


_LONGEST = 1 << 24
"""The most characters of a question from standard input."""
