"""The folder of `sot batch`: append-only parts with a row for each try, and all answers in the order of the questions.

    parts/00001.jsonl    1,000 rows, in the order in which they ended; then 00002.jsonl, ...
    answers.jsonl        the newest row of each question of the file, in its order; written when each has one

Of a row, only its key and its place are kept in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.journal import keep_others_out, line_of, sync
from skeleton_of_thought.evaluation.rows import Row, to_json
from skeleton_of_thought.small_files import parse_json

__all__ = ["ANSWERS", "PARTS", "ROWS_OF_A_PART", "Parts"]

ANSWERS = "answers.jsonl"
PARTS = "parts"
ROWS_OF_A_PART = 1000
_KEPT = " All rows before are kept, and the same command goes on."
_NAME = re.compile(r"(\d{5,})\.jsonl")


class _Place(NamedTuple):
    part: int
    offset: int
    ok: bool


class Parts:
    """The rows of a folder. Use it in a `with` block: only one process can have the folder at a time.

    A last line that a kill has cut is taken off; that try is then as if it had never been made.

    Args:
        folder: The folder, which exists.
        rows: The rows of a part.

    Attributes:
        notice: What was mended, in a line; empty for nothing.

    Raises:
        InvalidInput: A line is no row, or another process works in this folder.
        SotError: The folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, rows: int = ROWS_OF_A_PART) -> None:
        self.notice = ""
        self._folder = folder / PARTS
        self._answers = folder / ANSWERS
        self._most = rows
        self._places: dict[str, _Place] = {}
        self._failed = 0
        self._part = self._rows = self._end = 0
        self._file: int | None = None
        self._disk: _Disk | None = None
        with _explained(self._folder):
            self._folder.mkdir(exist_ok=True)
            self._lock = _lock(self._folder)
        try:
            with _explained(self._folder):
                self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        disk = self._disk
        self.close()
        if disk is not None and kind is None:
            with _explained(self._path(self._part)):
                disk.check()

    def close(self) -> None:
        """Waits for the disk, closes the files, and lets other processes have the folder."""
        self._close_part()
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    @property
    def failed(self) -> int:
        """The number of keys whose newest row is an error."""
        return self._failed

    def __len__(self) -> int:
        return len(self._places)

    def state(self, key: str) -> bool | None:
        """Whether the newest row of a key is an answer; None if it has no row."""
        place = self._places.get(key)
        return None if place is None else place.ok

    def append(self, row: Row) -> None:
        """Adds a row, as a whole or not at all. No kill of this process can undo it.

        The disk has it moments later, which nobody waits for: it may take longer than a call of a model. An error of
        the disk is raised by the next row, or at the end.

        Raises:
            SotError: It cannot be written, such as on a full disk. The rows before it are unharmed.
        """
        data = line_of(to_json(row))
        if self._file is None or self._rows >= self._most:
            self._open_next()
        assert self._file is not None
        with _explained(self._path(self._part), _KEPT):
            if self._disk is None:
                self._disk = _Disk(self._file)
            self._disk.check()
            offset, written = self._end, False
            try:
                _write(self._file, data)
                written = True
            finally:
                if not written:
                    with contextlib.suppress(OSError):
                        os.ftruncate(self._file, offset)
            self._disk.write()
        self._rows, self._end = self._rows + 1, offset + len(data)
        self._place(row.key, _Place(self._part, offset, row.ok))

    def read(self, key: str) -> dict[str, Any]:
        """The newest row of a key.

        Raises:
            KeyError: It has none.
            SotError: It cannot be read.
        """
        place = self._places[key]
        path = self._path(place.part)
        with _explained(path), path.open("rb") as file:
            return self._row_at(file, place)

    def write_answers(self, questions: Iterable[tuple[str, dict[str, Any]]]) -> Path:
        """Writes the newest row of each question, in their order, to a new file that replaces the one before.

        Args:
            questions: The key of each question, and the fields of its row that are taken from the file of questions
                as it is now. Keys without a row are left out.

        Returns:
            The file.

        Raises:
            SotError: It cannot be written. The file that was there is then unchanged.
        """
        aside = self._answers.with_name(f".{ANSWERS}-{secrets.token_hex(4)}.new")
        part: int | None = None
        try:
            with contextlib.ExitStack() as stack, _explained(self._answers, _KEPT):
                out = stack.enter_context(aside.open("xb"))
                source = stack.enter_context(contextlib.ExitStack())
                for key, fields in questions:
                    if (place := self._places.get(key)) is None:
                        continue
                    if place.part != part:
                        source.close()
                        file = source.enter_context(self._path(place.part).open("rb"))
                        part = place.part
                    out.write(line_of(self._row_at(file, place) | fields))
                out.flush()
                os.fsync(out.fileno())
                os.replace(aside, self._answers)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        return self._answers

    # --- inside ---

    def _path(self, part: int) -> Path:
        return self._folder / f"{part:05}.jsonl"

    def _row_at(self, file: BinaryIO, place: _Place) -> dict[str, Any]:
        file.seek(place.offset)
        return json.loads(file.readline())  # type: ignore[no-any-return]

    def _place(self, key: str, place: _Place) -> None:
        if (before := self._places.get(key)) is not None:
            self._failed -= not before.ok
        self._failed += not place.ok
        self._places[key] = place

    def _read(self) -> None:
        numbers = sorted(int(found[1]) for name in os.listdir(self._folder) if (found := _NAME.fullmatch(name)))
        for number in numbers:
            self._part, self._rows, self._end = number, 0, 0
            for key, place in self._rows_of(number, last=number == numbers[-1]):
                self._place(key, place)
                self._rows += 1
        if numbers and self._rows < self._most:
            self._file = os.open(self._path(self._part), os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))

    def _rows_of(self, number: int, *, last: bool) -> Iterator[tuple[str, _Place]]:
        path = self._path(number)
        with path.open("rb") as file:
            for line, data in enumerate(file, 1):
                try:
                    if not data.endswith(b"\n"):
                        raise ValueError("it has no end")
                    row = parse_json(data)
                    key, error = row["key"], row.get("error", "")
                    if not isinstance(key, str):
                        raise ValueError("its key is no text")
                except (ValueError, TypeError, KeyError, AttributeError) as problem:
                    if last and not file.read(1):
                        break
                    raise InvalidInput(
                        f"{str(path)!r}, line {line}, is no row ({problem}). Take the line out: its question is then "
                        "asked again."
                    ) from problem
                yield key, _Place(number, self._end, not error)
                self._end += len(data)
        if path.stat().st_size > self._end:
            os.truncate(path, self._end)
            self.notice = f"the last line of {path.name} was incomplete and was taken off: its question is asked again"

    def _close_part(self) -> _Disk | None:
        disk, self._disk = self._disk, None
        if disk is not None:
            disk.end()
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        return disk

    def _open_next(self) -> None:
        if (disk := self._close_part()) is not None:
            with _explained(self._path(self._part)):
                disk.check()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        path = self._path(self._part + 1)
        with _explained(path):
            self._file = os.open(path, flags, 0o666)
            self._part, self._rows, self._end = self._part + 1, 0, 0
            _sync_folder(self._folder)


class _Disk:
    """Has the disk take what is written to a file, in a thread: once for all that was written meanwhile.

    Args:
        file: The file, which stays open until `end`.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._changed = threading.Condition()
        self._waiting = self._ending = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._work, name="sot-parts", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Something was written."""
        with self._changed:
            self._waiting = True
            self._changed.notify()

    def check(self) -> None:
        """Raises the error of the disk, if there was one."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Waits until the disk has all, or has failed."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                self._waiting = False
            try:
                sync(self._file)
            except OSError as error:
                self._error = error
                return


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(number)
    finally:
        os.close(number)


def _lock(folder: Path) -> int | None:
    """Keeps other processes out of the folder until the number is closed."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return None
    number = os.open(folder, os.O_RDONLY)
    try:
        keep_others_out(number, folder.parent)
    except BaseException:
        os.close(number)
        raise
    return number


@contextlib.contextmanager
def _explained(path: Path, then: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SotError(f"{str(path)!r} cannot be used: {error.strerror or error}.{then}") from error
