"""`--output`: the answer in a file, whole or not at all."""

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

from skeleton_of_thought._cli.views import JsonView, Outcome
from skeleton_of_thought.errors import InvalidInput, SotError

__all__ = ["Output", "place_of", "write_whole"]

_DESCRIPTOR = re.compile(r"/dev/fd/(\d+)|/proc/(\d+)/(?:task/\d+/)?fd/(\d+)")
_MOST_LINKS = 40
_STDOUT = 1


@dataclass(frozen=True)
class Output:
    """A file that is going to hold the answer.

    Attributes:
        path: The file, as the user names it.
        json: Whether it gets the JSON object instead of the text.
    """

    path: Path
    json: bool

    @classmethod
    def of(cls, name: str, *, json: bool) -> Output:
        """Checks the place before a model is asked for what could not be kept.

        Raises:
            InvalidInput: Nothing can be written there, or it is where the answer is shown.
        """
        try:
            path = place_of(name)
            shown = name == "-" or _target(path) == _STDOUT
        except InvalidInput as error:
            raise InvalidInput(f"--output {name or repr(name)}: {error}") from error
        if shown:
            raise InvalidInput(f"--output {name} is where the answer goes anyway: leave it out, or name a file.")
        return cls(path, json)

    def write(self, outcome: Outcome) -> None:
        """Writes the answer aside and moves it into place.

        Raises:
            SotError: The file cannot be written; what was there before is unchanged.
        """
        text = self._text(outcome)
        try:
            write_whole(self.path, text)
        except OSError as error:
            raise SotError(f"The answer could not be written to {str(self.path)!r}: {_reason(error)}") from error

    def _text(self, outcome: Outcome) -> str:
        if not self.json:
            return "" if outcome.answer is None else outcome.answer.text.rstrip("\n") + "\n"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            JsonView(events=False).finish(outcome)
        return printed.getvalue()


def place_of(name: str) -> Path:
    """Where a file of that name is going to be.

    Raises:
        InvalidInput: It cannot be written, as far as that can be told before.
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


def write_whole(path: Path, text: str) -> None:
    """Writes a file aside and moves it into place, so that there never is half of it.

    What is no file of its own (a pipe, a device, an open descriptor) is written to, and so is a file in a directory
    that takes no new ones.

    Raises:
        OSError: It cannot be written; what was there before is unchanged.
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
            # Moving another file to its place would need no right to write to this one.
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
        # Of the directory, which may be read-only or keep each user to the own files.
        if not target.exists():
            raise
        target.write_text(text, encoding="utf-8")
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """What went wrong, without the names of files that the user has not heard of."""
    return getattr(error, "strerror", None) or str(error)


def _target(path: Path) -> Path | int:
    """Where a path leads: a file, or an open descriptor, which of this process is a number.

    A name such as /dev/stderr leads on to the file that the shell has redirected it to, which others write to as well:
    it must neither be replaced nor begun anew.

    Raises:
        OSError: The links lead in a circle, or a name is too long.
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
                os.lstat(name)  # raises what makes a name impossible
            return Path(name)
        name = os.path.join(folder, os.readlink(name))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _takes_text(descriptor: int) -> bool:
    import fcntl  # only where descriptors have names

    try:
        return fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False
