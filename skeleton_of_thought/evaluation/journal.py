"""The append-only files of a run, and its manifest: what a run is, so that the same command can go on with it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.small_files import parse_json

__all__ = ["Journal", "keep_others_out", "key_of", "key_settings", "line_of", "read_journal", "sha256_of", "sync"]

_KEY_DIGITS = 20
_NOT_IN_KEYS = ("backoff", "max_retries", "merge", "point_timeout", "stop_loops")
"""Settings that make no other answer: how failures are met; and what the way and the model set."""


def key_of(
    question_text: str, *, way: str, model: str, settings: Mapping[str, Any], repeat: int = 1, system: str = ""
) -> str:
    """The key of an answer: nothing with the same key is asked twice.

    Args:
        question_text: The question.
        way: The name of the way.
        model: The model's name.
        settings: The settings of all answers, see `key_settings`.
        repeat: Which repeat, from 1.
        system: The system message of this question.
    """
    parts = {
        "question": question_text,
        "way": way,
        "model": model,
        "settings": dict(settings),
        "repeat": repeat,
        "system": system,
    }
    return sha256_of(json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str))[:_KEY_DIGITS]


def key_settings(
    settings: Settings, *, prompts: PromptSet | None = None, system: str | None = None, **more: Any
) -> dict[str, Any]:
    """The settings that decide what an answer is, for keys and for a manifest. None of them is a secret.

    Args:
        settings: How answers are made.
        prompts: The prompts; those of a file, whose digest alone is kept. None for the default ones.
        system: The system message of all questions, of which a digest is kept.
        more: Settings of the model, such as `temperature`, `seed`, `max_tokens` and `prefill`. None counts as not set.
    """
    own = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _NOT_IN_KEYS}
    # The text of a dataclass has all of its fields, so that new default prompts make new answers.
    own["prompts_sha256"] = sha256_of(repr(prompts or PromptSet()))
    if system:
        own["system_sha256"] = sha256_of(system)
    return own | {name: value for name, value in more.items() if value is not None}


def sha256_of(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """A file of JSON objects, one a line, each of them on the disk as soon as it is appended.

    One process writes it at a time; threads may share it. What a killed process has left of a line is cut off.

    Args:
        path: The file; made if it is not there.
        notice: Gets a line about a line that was cut off.

    Attributes:
        path: As given.
        rows: All objects, in their order.

    Raises:
        InvalidInput: Another process writes the file, it cannot be opened, or a line in it cannot be read. The file is
            unchanged.
        SotError: The file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, notice: Callable[[str], object] = lambda line: None) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        try:
            self._number: int | None = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666
            )
        except OSError as error:
            raise InvalidInput(f"{str(self.path)!r} cannot be opened: {error.strerror or error}.") from error
        try:
            keep_others_out(self._number, self.path)
            self._size = self._read(self._number, notice)
        except BaseException:
            self.close()
            raise

    def _read(self, number: int, notice: Callable[[str], object]) -> int:
        """Reads the rows, and cuts off or completes the last line; returns the size of the file."""
        size, end, whole = os.fstat(number).st_size, 0, True
        try:
            with open(number, "rb", closefd=False) as file:
                for rows, length, complete in _objects(file, self.path, size):
                    self.rows += rows
                    end, whole = end + length, complete
            if end < size:
                os.ftruncate(number, end)
                notice(f"The last line of {str(self.path)!r} was cut off: its process was killed while it wrote it.")
            if not whole:  # an object whose line end alone is missing
                os.write(number, b"\n")
                end += 1
        except OSError as error:
            raise SotError(f"{str(self.path)!r} cannot be used: {error.strerror or error}.") from error
        return end

    def append(self, row: Mapping[str, Any]) -> None:
        """Appends an object, and waits until the disk has it.

        Raises:
            SotError: The disk is full, or fails. Nothing of the object is left in the file then.
        """
        line = line_of(row)
        with self._lock:
            if self._number is None:
                raise SotError(f"{str(self.path)!r} is closed.")
            written = 0
            try:
                while written < len(line):
                    written += os.write(self._number, line[written:])
                sync(self._number)
            except BaseException as error:
                if written < len(line) or isinstance(error, OSError):
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._number, self._size)
                    if isinstance(error, OSError):
                        raise SotError(
                            f"{str(self.path)!r} cannot be written: {error.strerror or error}. All before is kept."
                        ) from error
                    raise
                self._kept(row, line)
                raise
            self._kept(row, line)

    def _kept(self, row: Mapping[str, Any], line: bytes) -> None:
        self._size += len(line)
        self.rows.append(dict(row))

    def close(self) -> None:
        """Closes the file; does no harm if it is called again."""
        with self._lock:
            number, self._number = self._number, None
            if number is not None:
                os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a journal, which is left as it is: another process may write it meanwhile.

    A file that is not there has none.

    Raises:
        InvalidInput: The file cannot be read, or a line other than the last one cannot.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return [row for rows, _, _ in _objects(file, Path(path), size) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}.") from error


def _objects(file: Any, path: Path, size: int) -> Iterator[tuple[list[dict[str, Any]], int, bool]]:
    """For each line its object, if it is not blank, its length, and whether it has its end.

    A last line that is none is left out.
    """
    end = number = 0
    while end < size and (line := file.readline(size - end)):
        number += 1
        end += len(line)
        rows = []
        if line.strip():
            try:
                value = parse_json(line)
            except ValueError as error:
                if end >= size:
                    return
                raise InvalidInput(f"{str(path)!r}, line {number} is no JSON: {error}. Name another folder.") from error
            if not isinstance(value, dict):
                if end >= size:
                    return
                raise InvalidInput(f"{str(path)!r}, line {number} is no JSON object. Name another folder.")
            rows.append(value)
        yield rows, len(line), line.endswith(b"\n")


def keep_others_out(number: int, path: Path) -> None:
    """Keeps other processes out of an open file or folder, until it is closed or the process ends, however it ends.

    Raises:
        InvalidInput: Another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidInput(
            f"Another process is writing {str(path)!r}: wait for its end, or name another folder."
        ) from error
    except OSError:  # a file system without locks
        return


def line_of(row: Mapping[str, Any]) -> bytes:
    """An object as a line of a journal."""
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can spell and UTF-8 cannot
        return (json.dumps(row) + "\n").encode()


def sync(number: int) -> None:
    """Waits until the disk has the file; pipes and devices have no disk."""
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:
            raise
