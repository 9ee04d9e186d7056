"""`--output`: writes the answer to a file, completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought._cli.views import AnswerResult, JsonView
from skeleton_of_thought.errors import InvalidInput, SotError

__all__ = ["OutputFile", "checked_path", "write_atomically"]

_DESCRIPTOR = re.compile(r"/dev/fd/(\d+)|/proc/(\d+)/(?:task/\d+/)?fd/(\d+)")
_MOST_LINKS = 40
_STDOUT = 1


@dataclass(frozen=True)
class OutputFile:
    """The file for the answer.

    Attributes:
        path: The file, as named by the user.
        json: Whether it gets the JSON object instead of the text.
    """

    path: Path
    json: bool

    @classmethod
    def of(cls, name: str, *, json: bool) -> OutputFile:
        """Checks the path before a model writes an answer that could not be kept.

        Raises:
            InvalidInput: The path cannot be written to, or leads to stdout, where the answer is shown.
        """
        try:
            path = checked_path(name)
            shown = name == "-" or _target(path) == _STDOUT
        except InvalidInput as error:
            raise InvalidInput(f"--output {name or repr(name)}: {error}") from error
        if shown:
            raise InvalidInput(f"--output {name} is where the answer goes anyway: leave it out, or name a file.")
        return cls(path, json)

    def write(self, result: AnswerResult) -> None:
        """Writes the answer to a new file and moves it into place.

        Raises:
            SotError: The file cannot be written. An existing file is then unchanged.
        """
        text = self._text(result)
        try:
            write_atomically(self.path, text)
        except OSError as error:
            raise SotError(f"The answer could not be written to {str(self.path)!r}: {_reason(error)}") from error

    def _text(self, result: AnswerResult) -> str:
        if not self.json:
            return "" if result.answer is None else printable(result.answer.text).rstrip("\n") + "\n"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            JsonView(events=False).finish(result)
        return printed.getvalue()


def checked_path(name: str) -> Path:
    """The path of a file that will be written.

    Raises:
        InvalidInput: The file cannot be written, as far as that is known beforehand.
    """
    if not name:
        raise InvalidInput("name a file.")
    try:
        path = Path(name).expanduser()
        objection = _objection(name, _target(path))
    except RuntimeError as error:
        raise InvalidInput("there is no such home directory.") from error
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{_reason(error)}.") from error
    if objection is not None:
        raise InvalidInput(objection)
    return path


def _objection(name: str, target: Path | int) -> str | None:
    if isinstance(target, int):
        return None if _takes_text(target) else "nothing can be written there."
    if target.is_dir():
        return "that is a directory; name a file in it."
    folder = target if name.endswith(("/", os.sep)) else target.parent
    if not folder.is_dir():
        return f"there is no directory {str(folder)!r}; make it first."
    if target.exists():
        return None if os.access(target, os.W_OK) else "the file is write-protected."
    return None if os.access(folder, os.W_OK) else f"{str(folder)!r} cannot be written to."


def write_atomically(path: Path, text: str) -> None:
    """Writes a new file and moves it into place, so that there never is a partial one.

    Pipes, devices and open descriptors are written to directly, as is a file in a directory that takes no new files.

    Raises:
        OSError: The file cannot be written. An existing file is then unchanged.
    """
    target = _target(path)
    if isinstance(target, int):
        with os.fdopen(os.dup(target), "w", encoding="utf-8") as file:
            file.write(text)
        return
    if _DESCRIPTOR.fullmatch(str(target)) is not None:
        with target.open("a", encoding="utf-8") as file:
            file.write(text)
        return
    if target.exists():
        if not os.access(target, os.W_OK):
            # Replacing the file would succeed even without the right to write to it.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
    aside = target.with_name(f".sot-{secrets.token_hex(4)}.new")
    try:
        with aside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, aside)
        os.replace(aside, target)
    except PermissionError:
        # The directory may be read-only, or have the sticky bit.
        if not target.exists():
            raise
        target.write_text(text, encoding="utf-8")
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """The text of an error, without names of temporary files, which the user does not know."""
    return getattr(error, "strerror", None) or str(error)


def _target(path: Path) -> Path | int:
    """The target of a path: a file, or the number of an open descriptor of this process.

    A name such as /dev/stderr may stand for a file to which the shell has redirected stderr. Other programs write to it
    as well, so it must not be replaced or truncated.

    Raises:
        OSError: Symbolic links form a circle, or a name is too long.
    """
    name = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(name))
        name = os.path.join(folder, os.path.basename(name))
        if (found := _DESCRIPTOR.fullmatch(name)) is not None:
            own, process, number = found.groups()
            return int(own or number) if own or int(process) == os.getpid() else Path(name)
        if not os.path.islink(name):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(name)  # raises OSError if the name is impossible
            return Path(name)
        name = os.path.join(folder, os.readlink(name))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _takes_text(descriptor: int) -> bool:
    import fcntl  # not on Windows, where descriptors have no names

    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False
