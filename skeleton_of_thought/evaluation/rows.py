"""One try of an answer, as a line of `rows.jsonl` and of the parts of `sot batch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.timeline import Timeline

__all__ = ["PointRow", "Row", "from_json", "latest", "to_json"]


@dataclass(frozen=True)
class PointRow:
    """A point of an answer.

    Attributes:
        index: Its number.
        title: Its title.
        text: Its text, without number and title.
        start: When its last call began, in seconds since the answer began; None if there was none.
        first: When its first text came.
        end: When its last call ended.
        released: When the reader got its first text, in document order.
        attempts: The calls made to write it.
        output_tokens: The tokens of all its attempts.
        finish_reason: Why the text ended, see `Expansion.finish_reason`.
        error: Why it failed, in one line; empty if it did not.
        scope: What it covers, as its plan says; empty where the plan does not.
        depends_on: The numbers of the points that it builds on.
        wave: The wave in which it was written, from 1.
    """

    index: int
    title: str
    text: str = ""
    start: float | None = None
    first: float | None = None
    end: float | None = None
    released: float | None = None
    attempts: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None
    error: str = ""
    scope: str = ""
    depends_on: tuple[int, ...] = ()
    wave: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depends_on", tuple(self.depends_on))  # a list in JSON


@dataclass(frozen=True)
class Row:
    """One try of an answer.

    Attributes:
        key: What the answer is to: question, way, model, settings, repeat (`journal.key_of`).
        number: The question's place in its file, from 1.
        id: The file's own name for it; else the number.
        question: Its text.
        way: The name of the way that answered it.
        model: The model's name.
        repeat: Which repeat, from 1.
        category: The question's category; empty for none.
        error: Why there is no answer, in one line; empty for an answer.
        error_type: The type of its error, such as `"APIConnectionError"`; empty for an answer.
        text: The answer; of one that failed, the text until then.
        route: `"skeleton"`, `"items"` or `"direct"`.
        reason: Why this route was taken.
        seconds: From the start to the end of the answer.
        first_text: Seconds to its first text; None if there was none.
        input_tokens: Tokens of all prompts.
        cached_tokens: Those of them that the server had computed before.
        output_tokens: Tokens that all calls wrote.
        answer_tokens: Tokens of the text alone, without the skeleton and without points that a merge rewrote.
        tokens_estimated: Whether the model reports no tokens for some call that wrote text, so that they are estimated:
            a token per four bytes of UTF-8.
        calls: The calls opened, retries included.
        finish_reason: See `Answer.finish_reason`.
        merged: Whether the text is that of a merge.
        merge_error: Why a merge failed, in one line; empty if it did not, or if there was none.
        role_errors: Why the opening or the closing is missing, in one line each.
        points: Its points in document order, or the items of its question; empty for a direct answer.
        stages: Start, end and first text of each stage, in seconds since the answer began.
        plain: The same content as plain paragraphs, without marks.
        order: Its place among the answers to this question and repeat, from 0: the ways rotate.
        at: When it began, UTC, ISO 8601.
        busy: A warning if other work used the processors meanwhile; empty if none did, or if that is unknown.
        extra: Columns of the file that the answer keeps.
    """

    key: str
    number: int
    id: str
    question: str
    way: str
    model: str
    repeat: int = 1
    category: str = ""
    error: str = ""
    error_type: str = ""
    text: str = ""
    route: str = ""
    reason: str = ""
    seconds: float = 0.0
    first_text: float | None = None
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    answer_tokens: int = 0
    tokens_estimated: bool = False
    calls: int = 0
    finish_reason: str | None = None
    merged: bool = False
    merge_error: str = ""
    role_errors: Mapping[str, str] = field(default_factory=dict)
    points: tuple[PointRow, ...] = ()
    stages: Mapping[str, tuple[float, float, float | None]] = field(default_factory=dict)
    plain: str = ""
    order: int = 0
    at: str = ""
    busy: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it is an answer."""
        return not self.error

    def timeline(self, normal: Mapping[str, float] | None = None) -> Timeline:
        """When each call of it ran, as a picture.

        Args:
            normal: Seconds of other ways, by name.

        Raises:
            InvalidInput: The row has times that make no sense, as those of a file that was changed by hand.
        """
        stages = {name: dict(zip(_TIMES, times, strict=True)) for name, times in self.stages.items()}
        points = [
            {
                "index": point.index,
                "title": point.title,
                "written": None
                if point.start is None or point.end is None
                else dict(zip(_TIMES, (point.start, point.end, point.first), strict=True)),
                "released": point.released,
                "attempts": point.attempts,
                "failed": bool(point.error),
                "depends_on": point.depends_on,
                "wave": point.wave,
            }
            for point in self.points
        ]
        source = {"total": self.seconds, "first_text": self.first_text, "stages": stages, "points": points}
        return Timeline.of(source, normal)


_TIMES = ("start", "end", "first")
_FIELDS = {each.name for each in dataclasses.fields(Row)}
_POINT_FIELDS = {each.name for each in dataclasses.fields(PointRow)}
_TYPES = {"key": str, "number": int, "id": str, "question": str, "way": str, "model": str}


def to_json(row: Row) -> dict[str, Any]:
    """The row as plain data for `json.dumps`."""
    return dataclasses.asdict(row)


def from_json(data: Mapping[str, Any]) -> Row:
    """The row of plain data. Fields that are not known are left out, so that newer files can be read.

    Raises:
        InvalidInput: A field is missing or has another type.
    """
    for name, kind in _TYPES.items():
        if not isinstance(data.get(name), kind):
            raise InvalidInput(f"a row needs {name!r}, a {kind.__name__}")
    known = {name: value for name, value in data.items() if name in _FIELDS}
    try:
        points = tuple(
            PointRow(**{name: value for name, value in point.items() if name in _POINT_FIELDS})
            for point in known.pop("points", ())
        )
        stages = {name: (times[0], times[1], times[2]) for name, times in known.pop("stages", {}).items()}
        return Row(**known, points=points, stages=stages)
    except (TypeError, AttributeError, IndexError) as error:
        raise InvalidInput(f"a row has a field of another form: {error}") from error


def latest(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: of each key the newest, in the order of questions, repeats and ways as they were asked."""
    newest = {row.key: row for row in rows}
    return sorted(newest.values(), key=lambda row: (row.number, row.repeat, row.order))
