"""Reads the questions of `sot eval` and `sot batch`."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.small_files import open_at_once, parse_json

__all__ = ["Question", "digest", "iter_questions", "read_questions"]

_MOST = 1 << 30
"""The most bytes of a file."""
_LONGEST = 1 << 24
"""The most bytes of a line."""
_COLUMN, _CATEGORY, _ID, _SYSTEM = "question", "category", "id", "system"
_ID_OF_VICUNA = "question_id"
_KINDS = {"": "txt", ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@dataclass(frozen=True)
class Question:
    """A question of a file.

    Attributes:
        number: Its place among the questions of the file, from 1.
        text: The question, stripped.
        id: The file's own name for it; else the number.
        category: Its category; empty for none.
        system: Its own system message; empty for none.
        extra: The other columns of its row.
    """

    number: int
    text: str
    id: str
    category: str = ""
    system: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_questions(
    path: str | os.PathLike[str],
    *,
    column: str = _COLUMN,
    category: str = _CATEGORY,
    id_column: str = _ID,
    limit: int | None = None,
) -> list[Question]:
    """The questions of a file.

    The name tells the format. `.txt`, or no ending: a question a line. `.csv` and `.tsv`: a table with a line of column
    names. `.jsonl` and `.ndjson`: an object a line, with the same names as columns, or `turns` as in the files of
    FastChat, whose first turn is the question; a line that is a string is a question itself. A column `system` holds
    system messages. The text is UTF-8; blank lines do not count.

    Args:
        path: The file; `-` for standard input, a question a line.
        column: The column of the questions.
        category: The column of the categories. The file may lack it if it has the default name.
        id_column: The column of the file's own names for its questions. The same.
        limit: The most questions to read; None for all.

    Raises:
        InvalidInput: The file cannot be read, lacks a column, or has no questions; or a line is no question, which the
            error names.
    """
    return list(iter_questions(path, column=column, category=category, id_column=id_column, limit=limit))


def iter_questions(
    path: str | os.PathLike[str],
    *,
    column: str = _COLUMN,
    category: str = _CATEGORY,
    id_column: str = _ID,
    limit: int | None = None,
) -> Iterator[Question]:
    """The same one by one, for files that are too long to be kept in memory."""
    name = "Standard input" if os.fspath(path) == "-" else repr(os.fspath(path))
    columns = _Columns(name, column, category, id_column)
    kind = _kind(path)
    try:
        with _open(path) as file:
            lines = _lines(file, name)
            rows = _texts(lines) if kind == "txt" else _objects(lines, name) if kind == "jsonl" else None
            rows = _records(lines, columns, "\t" if kind == "tsv" else ",") if rows is None else rows
            found = 0
            for found, question in enumerate(islice(columns.questions(rows), limit), 1):  # noqa: B007
                yield question
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{name} cannot be read: {error}.") from error
    if not found:
        raise InvalidInput(f"{name} has no questions.")
    if limit is None:
        columns.check_used()


def digest(questions: Iterable[Question]) -> str:
    """The SHA-256 of the texts of questions, in hexadecimal digits, for a manifest."""
    texts = json.dumps([question.text for question in questions])
    return hashlib.sha256(texts.encode()).hexdigest()


def _kind(path: str | os.PathLike[str]) -> str:
    if os.fspath(path) == "-":
        return "txt"
    ending = Path(path).suffix.lower()
    if (kind := _KINDS.get(ending)) is None:
        raise InvalidInput(
            f"{os.fspath(path)!r} has an ending that says nothing about its questions: name it .txt (a question a "
            "line), .csv, .tsv or .jsonl."
        )
    return kind


def _open(path: str | os.PathLike[str]) -> BinaryIO:
    if os.fspath(path) != "-":
        return open_at_once(Path(path).expanduser())
    if sys.stdin is None:
        raise InvalidInput("Standard input is closed: name a file of questions.")
    try:
        # A copy of the descriptor, because the block that reads it closes it.
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except io.UnsupportedOperation:  # a text in memory
        return io.BytesIO(sys.stdin.read().encode("utf-8", "surrogatepass"))


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines with their numbers and ends, without the mark of byte order."""
    size = number = 0
    while data := file.readline(_LONGEST + 1):
        number += 1
        size += len(data)
        if len(data) > _LONGEST:
            raise InvalidInput(
                f"{name}, line {number} has more than {_LONGEST:,} bytes: no model takes such a question."
            )
        if size > _MOST:
            raise InvalidInput(f"{name} has more than {_MOST:,} bytes: split it into several files.")
        try:
            yield number, data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{name}, line {number} is no text in UTF-8: save the file as UTF-8.") from error


_Row = tuple[int, Mapping[str, Any] | str]
"""The number of a line, and its columns or the question."""


def _texts(lines: Iterable[tuple[int, str]]) -> Iterator[_Row]:
    # A return alone ended the lines of old systems.
    return ((number, text) for number, line in lines for each in line.split("\r") if (text := each.strip()))


def _objects(lines: Iterable[tuple[int, str]], name: str) -> Iterator[_Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            # The place that the error names counts lines within the line.
            why = str(error).partition(": line ")[0]
            raise InvalidInput(f"{name}, line {number} is no JSON: {why}.") from error
        if not isinstance(value, dict | str):
            raise InvalidInput(f"{name}, line {number} is neither an object nor a string.")
        yield number, value


def _records(lines: Iterable[tuple[int, str]], columns: _Columns, delimiter: str) -> Iterator[_Row]:
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    head: list[str] | None = None
    begin = 1
    try:
        for values in reader:
            if head is None and any(values):
                head = [value.strip() for value in values]
                columns.check(head)
            elif head is not None and len(values) > len(head):
                raise InvalidInput(
                    f"{columns.name}, line {begin} has {len(values)} fields, but there are {len(head)} columns: put "
                    "texts that hold the separator into quotes."
                )
            elif head is not None and values:
                yield begin, dict(zip(head, values, strict=False))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InvalidInput(f"{columns.name}, line {begin} cannot be read: {error}.") from error


class _Columns:
    """Makes questions of rows.

    Args:
        name: The file, as errors name it.
        column: The column of the questions.
        category: That of the categories.
        id_column: That of the names.

    Attributes:
        name: As given.
    """

    def __init__(self, name: str, column: str, category: str, id_column: str) -> None:
        self.name = name
        self._column, self._category, self._id = column, category, id_column
        # The caller has named these, so the file has to have them.
        own = ((category, _CATEGORY), (id_column, _ID))
        self._unused = {named for named, default in own if named != default}
        self._lines: dict[str, int] = {}

    def check(self, head: list[str]) -> None:
        """Checks the columns of a table."""
        for needed in (self._column, *sorted(self._unused)):
            if needed not in head:
                there = ", ".join(map(repr, head)) or "none"
                raise InvalidInput(f"{self.name} has no column {needed!r}, but {there}: name one that is there.")
        if len(set(head)) < len(head):
            twice = next(each for each in head if head.count(each) > 1)
            raise InvalidInput(f"{self.name} has two columns {twice!r}.")

    def check_used(self) -> None:
        """Checks that the columns that the caller has named were in some row."""
        for missing in sorted(self._unused):
            raise InvalidInput(f"{self.name} has no column {missing!r}.")

    def questions(self, rows: Iterable[_Row]) -> Iterator[Question]:
        """The questions of rows."""
        for number, (line, row) in enumerate(rows, 1):
            values = {self._column: row} if isinstance(row, str) else row
            text = self._text(values, line)
            taken = {self._column, self._category, self._id, _SYSTEM, *(("turns",) if "turns" in values else ())}
            self._unused -= values.keys()
            own = values.get(self._id)
            if own is None and self._id == _ID:
                own = values.get(_ID_OF_VICUNA)
                taken.add(_ID_OF_VICUNA)
            name = "" if own is None else self._plain(own, self._id, line)
            # Names of rows that have none are not kept: a file may have millions of them.
            if name and (before := self._lines.setdefault(name, line)) != line:
                raise InvalidInput(f"{self.name}, lines {before} and {line} have the same id {name!r}.")
            yield Question(
                number,
                text,
                name or str(number),
                self._plain(values.get(self._category), self._category, line),
                self._plain(values.get(_SYSTEM), _SYSTEM, line),
                {key: value for key, value in values.items() if key not in taken},
            )

    def _text(self, values: Mapping[str, Any], line: int) -> str:
        value = values.get(self._column)
        if value is None and self._column == _COLUMN and (turns := values.get("turns")):
            value = turns[0] if isinstance(turns, list) else turns
        if value is None and self._column not in values:
            there = ", ".join(map(repr, values)) or "none"
            raise InvalidInput(f"{self.name}, line {line} has no {self._column!r}, but {there}.")
        if not isinstance(value, str):
            raise InvalidInput(f"{self.name}, line {line}: {self._column!r} is no text.")
        if not (text := replace_surrogates(value).strip()):
            raise InvalidInput(f"{self.name}, line {line}: the question is empty.")
        return text

    def _plain(self, value: Any, column: str, line: int) -> str:
        """A short text of a row, where a number is one too."""
        if isinstance(value, dict | list):
            raise InvalidInput(f"{self.name}, line {line}: {column!r} is no text.")
        return "" if value is None else replace_surrogates(str(value)).strip()
