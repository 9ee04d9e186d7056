"""What a run is: its model, settings and questions, kept in its folder so that no other run is mixed with it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from skeleton_of_thought.errors import InvalidInput, SotError, without_secrets
from skeleton_of_thought.evaluation.journal import sha256_of
from skeleton_of_thought.small_files import parse_json, read_bounded

__all__ = ["MANIFEST", "Kind", "Manifest", "now", "safe_arguments", "write_atomically"]

MANIFEST = "manifest.json"
"""The file's name in the folder of a run."""
Kind = Literal["eval", "batch"]
_VERSION = 1
_MOST = 16 << 20
"""The most bytes of a manifest."""
_PACKAGES = ("torch", "transformers", "openai", "langchain_core", "ray", "vllm")
_SECRET = re.compile(r"--(?:[\w-]*-)?(?:key|token|secret|password|auth|headers?)(?:-\w+)*$", re.I)
_TEXT = re.compile(r"--system$")


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Manifest:
    """What a run is.

    Attributes:
        kind: The command.
        model: The model's name.
        settings: What decides the answers, see `journal.key_settings`.
        ways: The names of the ways.
        judge: The names of the judges.
        questions: Their `file`, `count` and `sha256` (`questions.digest`).
        package: The version of this package.
        python: The version of Python.
        platform: The system.
        processors: The processors that the process may use.
        versions: Those of the packages that answers depend on, as far as they are imported.
        started: When the run began, UTC, ISO 8601.
        runs: When the command was run, and its arguments without secrets.
    """

    kind: Kind
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    ways: tuple[str, ...] = ()
    judge: tuple[str, ...] = ()
    questions: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    python: str = ""
    platform: str = ""
    processors: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    runs: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        kind: Kind,
        *,
        model: str,
        settings: Mapping[str, Any],
        ways: Sequence[str] = (),
        judges: Sequence[str] = (),
        questions: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ) -> Manifest:
        """The manifest of a run of the command that begins now, without secrets.

        Args:
            kind: The command.
            model: The model's name.
            settings: What decides the answers.
            ways: The names of the ways.
            judges: The names of the judges.
            questions: Their `file`, `count` and `sha256`.
            arguments: The arguments of the command line. Values of options that may hold a key, and the text of
                `--system`, are replaced.
        """
        time = now()
        return cls(
            kind,
            without_secrets(model),
            dict(settings),
            tuple(ways),
            tuple(map(without_secrets, judges)),
            dict(questions or {}),
            _version("skeleton-of-thought"),
            platform.python_version(),
            platform.platform(),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
            {name: _version(name) for name in _PACKAGES if name in sys.modules},
            time,
            ({"at": time, "arguments": safe_arguments(arguments)},),
        )

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest of a folder.

        Raises:
            InvalidInput: There is none, or it cannot be read.
        """
        path = Path(folder) / MANIFEST
        try:
            data = parse_json(read_bounded(path, _MOST))
        except FileNotFoundError as error:
            raise InvalidInput(f"{str(folder)!r} is no folder of a run: it has no {MANIFEST}.") from error
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{str(path)!r} cannot be read: {error}. Name another folder.") from error
        return cls.from_json(data, str(path))

    @classmethod
    def from_json(cls, data: Any, path: str = MANIFEST) -> Manifest:
        """The manifest of plain data; `path` is its file, for errors."""
        if not isinstance(data, dict) or data.get("kind") not in get_args(Kind):
            raise InvalidInput(f"{path!r} is no manifest of a run: name another folder.")
        if not isinstance(data.get("version"), int) or data["version"] > _VERSION:
            raise InvalidInput(f"{path!r} was made by a newer version of this package: update it.")
        known = {each.name: data[each.name] for each in fields(cls) if each.name in data}
        for name in ("ways", "judge", "runs"):
            if not isinstance(known.setdefault(name, []), list):
                raise InvalidInput(f"{path!r} has a {name!r} that is no list: name another folder.")
            known[name] = tuple(known[name])
        for name in ("settings", "questions", "versions"):
            if not isinstance(known.setdefault(name, {}), dict):
                raise InvalidInput(f"{path!r} has {name!r} that are no object: name another folder.")
        return cls(**{"model": "", **known})

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        return {"version": _VERSION, **{each.name: getattr(self, each.name) for each in fields(self)}}

    def joined(self, folder: str | os.PathLike[str]) -> Manifest:
        """The manifest for a folder in which this run begins, or goes on; nothing is changed.

        Ways, judges and questions may be added to a run. Its model and its settings stay.

        Raises:
            InvalidInput: The folder is of another run, or has other files; the error says what differs.
        """
        path = Path(folder)
        try:
            if not path.exists():
                return self
            if not path.is_dir():
                raise InvalidInput(f"{str(folder)!r} is a file: name a folder.")
            if not (path / MANIFEST).exists():
                # Empty files are what a run leaves that was killed before it began.
                others = sorted(each.name for each in path.iterdir() if not _counts_as_empty(each))
                if others:
                    raise InvalidInput(
                        f"{str(folder)!r} has other files ({others[0]!r}) and no {MANIFEST}: name an empty folder, or "
                        "one that is not there."
                    )
                return self
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"{str(folder)!r} cannot be read: {error}.") from error
        before = Manifest.read(folder)
        if difference := self._difference(before):
            raise InvalidInput(f"{str(folder)!r} holds another run: {difference}. Name another folder.")
        return replace(
            self,
            ways=tuple(dict.fromkeys((*before.ways, *self.ways))),
            judge=tuple(dict.fromkeys((*before.judge, *self.judge))),
            started=before.started,
            runs=(*before.runs, *self.runs),
        )

    def _difference(self, before: Manifest) -> str:
        """What differs from an earlier manifest; empty for nothing that counts."""
        if before.kind != self.kind:
            return f"it is one of `sot {before.kind}`"
        if before.model != self.model:
            return f"the model is {before.model!r} there and {self.model!r} here"
        # As they are after a file: tuples are lists there.
        there, here = dict(before.settings), json.loads(json.dumps(dict(self.settings), default=str))
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                if name.endswith("sha256"):
                    return f"{_words(name.removesuffix('sha256').rstrip('_'))} differs"
                return f"{_words(name)} is {_shown(there, name)} there and {_shown(here, name)} here"
        return ""

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Makes the folder and writes its manifest.

        Raises:
            SotError: It cannot be written.
        """
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"The folder {str(folder)!r} cannot be made: {error.strerror or error}.") from error
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1, default=str) + "\n"
        write_atomically(Path(folder) / MANIFEST, text)


def _counts_as_empty(path: Path) -> bool:
    return path.name.startswith(".") or (path.is_file() and not path.stat().st_size)


def _words(name: str) -> str:
    return "the system message" if name == "system" else name.replace("_", " ")


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not set"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def safe_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line, without keys, passwords and the text of a system message."""
    safe, hide = [], ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        kind = "text" if _TEXT.match(name) else "secret" if _SECRET.match(name) and name != "--max-tokens" else ""
        if hide:
            safe.append(_hidden(hide, argument))
            hide = ""
        elif kind and equals:
            safe.append(f"{name}={_hidden(kind, value)}")
        else:
            safe.append(without_secrets(argument))
            hide = kind
    return safe


def _hidden(kind: str, value: str) -> str:
    return f"sha256:{sha256_of(value)}" if kind == "text" else "***"


def write_atomically(path: Path, text: str) -> None:
    """Writes a file as a whole, or leaves it as it is.

    Raises:
        SotError: It cannot be written.
    """
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.new")
    try:
        with aside.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise SotError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
