"""`--output`: the answer in a file, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from skeleton_of_thought._cli.views import JsonView, Outcome
from skeleton_of_thought.errors import InvalidInput, SotError

__all__ = ["Output", "write_whole"]


@dataclass(frozen=True)
class Output:
    """A file that is going to hold the answer.

    Attributes:
        path: The file, links followed.
        json: Whether it gets the JSON object instead of the text.
    """

    path: Path
    json: bool

    @classmethod
    def of(cls, name: str, *, json: bool) -> Output:
        """Checks the place before a model is asked for what could not be kept.

        Raises:
            InvalidInput: Its folder is not there or cannot be written to, or it is a folder itself.
        """
        if name == "-":
            raise InvalidInput("--output - is where the answer goes anyway: leave it out, or name a file.")
        path = Path(name).expanduser().resolve()
        if path.is_dir():
            raise InvalidInput(f"--output {name}: that is a directory; name a file in it.")
        if not path.parent.is_dir():
            raise InvalidInput(f"--output {name}: there is no directory {str(path.parent)!r}; make it first.")
        if not os.access(path if _is_special(path) else path.parent, os.W_OK):
            raise InvalidInput(f"--output {name}: {str(path.parent)!r} cannot be written to.")
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
            raise SotError(f"The answer could not be written to {str(self.path)!r}: {error}") from error

    def _text(self, outcome: Outcome) -> str:
        if not self.json:
            return "" if outcome.answer is None else outcome.answer.text.rstrip("\n") + "\n"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            JsonView(events=False).finish(outcome)
        return printed.getvalue()


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def write_whole(path: Path, text: str) -> None:
    """Writes a file aside and moves it into place, so that there never is half of it.

    Raises:
        OSError: It cannot be written; what was there before is unchanged.
    """
    path = path.resolve()
    if _is_special(path):
        path.write_text(text, encoding="utf-8")  # moving something onto a device would replace it
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with aside.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
