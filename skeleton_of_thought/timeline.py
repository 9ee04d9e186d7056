"""The time line of an answer: a picture of when each call ran, as SVG for notebooks and as text for terminals.

answer.timeline()                                            # of an `Answer`; a notebook shows it
answer.timeline({"model.generate": 21.3, "one row": 18.0})   # beside normal decoding
Timeline.of(result)                                          # of a result of LangChain's chain
Timeline.of(message)                                         # of a message of LangChain's chat model
response.timeline()                                          # of a LlamaIndex response
Timeline.of(answer).save("answer.svg")                       # for a report; str() of it is for terminals
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, SupportsFloat, cast

from skeleton_of_thought._drawing import Bar, Part, draw_svg, draw_text, in_seconds
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types.answer import PointTimes, Span, Timings

__all__ = ["Timeline"]

_STAGES = {
    "route": "router",
    "sources": "retrieval",
    "skeleton": "skeleton",
    "point": "points",
    "opening": "opening",
    "closing": "closing",
    "merge": "merge",
    "direct": "direct answer",
}
"""Display names of the stages, in the order of their bars."""

_AT_ONCE = 0.02
"""A call was not streamed if less than this share of its time came after its first text."""


@dataclass(frozen=True)
class Timeline:
    """When each call of one answer ran: a bar per call over an axis in seconds.

    A notebook shows the picture, `print` its text version. Colours follow the reader's dark or light mode.

    Attributes:
        bars: The router, retrieval, the skeleton, each point in document order, the opening, the closing, the merge,
            the direct answer, if they ran; then normal decoding. The bar of a point says which points it waited for.
        total: Seconds until the end of the answer.
        first_text: Seconds until its first text; None if it had none.
    """

    bars: tuple[Bar, ...] = ()
    total: float = 0.0
    first_text: float | None = None

    @classmethod
    def of(cls, source: object, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """The time line of an answer.

        Args:
            source: An `Answer` or its `Timings`; a result of LangChain's chain, or a message of its chat model; a
                LlamaIndex response; or the plain data of any of these, such as the output of `sot ask --json`.
            normal: Seconds that normal decoding took, or seconds by name.

        Raises:
            InvalidInput: The source has no timings, or some seconds are not finite, or below zero.
        """
        timings = _timings(source)
        bars = (*_bars(timings), *_normal(normal))
        return cls(bars, timings.total, timings.first_text)

    @property
    def seconds(self) -> float:
        """The least length of the axis: the end of the last bar."""
        return max((self.total, *(bar.end for bar in self.bars)))

    @property
    def svg(self) -> str:
        """The picture as an SVG document, which can also be embedded in a page."""
        return draw_svg(self.bars, self._heading, self.seconds)

    def save(self, path: str | Path) -> Path:
        """Writes the picture into a file, and returns its path.

        Raises:
            InvalidInput: The name does not end in `.svg`.
            OSError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".svg":
            raise InvalidInput(f"A time line is saved as SVG: give a name that ends in .svg, not {path.name!r}.")
        path.write_text(self.svg, encoding="utf-8")
        return path

    def __str__(self) -> str:
        return draw_text(self.bars, self._heading, self.seconds)

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # IPython shows this in a terminal, and keeps it in a notebook beside the picture.
        printer.text(str(self))

    @property
    def _heading(self) -> str:
        if not any(bar.kind != "normal" for bar in self.bars):
            return "No call was timed."
        whole = f"the whole answer after {in_seconds(self.total)}"
        if self.first_text is None or self.total - self.first_text <= _AT_ONCE * self.total:
            return whole[0].upper() + whole[1:]
        return f"First text after {in_seconds(self.first_text)}, {whole}"


# --- from timings to bars ---------------------------------------------------------------------------


def _bars(timings: Timings) -> Iterator[Bar]:
    # Retrieval for each point stands in the points' own bars.
    own = any(point.retrieved is not None for point in timings.points)
    for stage, name in _STAGES.items():
        span = timings.stages.get(stage)
        if stage == "point" and timings.points:
            yield from map(_point_bar, timings.points)
        elif span is not None and not (stage == "sources" and own):
            yield Bar(name, _parts(span, "retrieval" if stage == "sources" else "writing"))


def _point_bar(point: PointTimes) -> Bar:
    parts: tuple[Part, ...] = ()
    if point.retrieved is not None:
        lost = point.failed and point.written is None
        parts += _parts(point.retrieved, "failed" if lost else "retrieval")
    if point.written is not None:
        parts += _parts(point.written, "failed" if point.failed else "writing")
    return Bar(
        point.title,
        parts,
        number=point.index,
        released=point.released,
        attempts=point.attempts,
        after=point.depends_on,
    )


def _parts(span: Span, kind: Literal["retrieval", "writing", "failed"]) -> tuple[Part, ...]:
    if span.first is None or span.end - span.first <= _AT_ONCE * span.seconds:
        return (Part(span.start, span.end, kind),)
    return (Part(span.start, span.first, "waiting"), Part(span.first, span.end, kind))


def _normal(normal: float | Mapping[str, float] | None) -> Iterator[Bar]:
    if normal is None:
        return
    for name, seconds in (normal if isinstance(normal, Mapping) else {"normal decoding": normal}).items():
        took = _number(seconds)
        if took is None or took <= 0:
            raise InvalidInput(
                f"normal= takes the seconds that normal decoding took, above zero, or a mapping of names to seconds; "
                f"{name!r} has {_shown(seconds)}."
            )
        yield Bar(str(name), (Part(0.0, took, "normal"),))


def _number(value: object) -> float | None:
    """The value as a float if it is a finite real number of any type, such as numpy's; else None."""
    # `float` accepts these, too.
    if isinstance(value, bool | str | bytes | bytearray):
        return None
    try:
        number = float(cast(SupportsFloat, value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    try:
        return repr(str(value)[:40])
    except ValueError:  # a whole number with thousands of digits
        return f"{_article(value)} of its size"


# --- from plain data to timings ---------------------------------------------------------------------


def _timings(source: object) -> Timings:
    # An `Answer` is known by its timings: it draws itself with this module, which so cannot import it.
    timings = getattr(source, "timings", source)
    if isinstance(timings, Timings):
        return timings
    data = source if isinstance(source, Mapping) else _metadata(source)
    for name in ("sot", "timings"):
        data = data.get(name, data) if isinstance(data, Mapping) else data
    if isinstance(data, Timings):
        return data
    if isinstance(data, Mapping) and isinstance(data.get("stages"), Mapping):
        return _read(data)
    keys = f" with the keys {sorted(map(str, source))[:8]}" if isinstance(source, Mapping) else ""
    raise InvalidInput(
        "A time line needs an answer with its timings: an Answer, what the chain or its chat model returns, or a "
        f"response of the query engine; not {_article(source)}{keys}."
    )


def _metadata(source: object) -> Mapping[str, Any]:
    # The attributes of LangChain's messages and LlamaIndex's responses; the core imports neither.
    for name in ("response_metadata", "metadata"):
        found = getattr(source, name, None)
        if isinstance(found, Mapping):
            return found
    return {}


def _article(source: object) -> str:
    name = type(source).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _read(data: Mapping[str, Any]) -> Timings:
    points = data.get("points", ())
    if isinstance(points, str | Mapping) or not isinstance(points, Iterable):
        raise _unreadable("points", points, "a list")
    return Timings(
        total=_seconds("total", data.get("total", 0.0)),
        first_text=_perhaps("first_text", data.get("first_text")),
        stages={str(name): _span(f"stages.{name}", span) for name, span in data["stages"].items()},
        points=tuple(_point(f"points[{place}]", point) for place, point in enumerate(points)),
    )


def _point(field: str, data: object) -> PointTimes:
    known = _fields(field, data, PointTimes)
    index, title, attempts, failed = (known.get(name) for name in ("index", "title", "attempts", "failed"))
    if not isinstance(title, str):
        raise _unreadable(f"{field}.title", title, "a text")
    # Older timings have neither.
    parents, wave = known.get("depends_on") or (), known.get("wave")
    if isinstance(parents, str | Mapping) or not isinstance(parents, Iterable):
        raise _unreadable(f"{field}.depends_on", parents, "a list")
    return PointTimes(
        index=_whole(f"{field}.index", index),
        title=title,
        written=None if known.get("written") is None else _span(f"{field}.written", known["written"]),
        retrieved=None if known.get("retrieved") is None else _span(f"{field}.retrieved", known["retrieved"]),
        released=_perhaps(f"{field}.released", known.get("released")),
        attempts=0 if attempts is None else _whole(f"{field}.attempts", attempts),
        failed=bool(failed),
        depends_on=tuple(_whole(f"{field}.depends_on[{at}]", parent) for at, parent in enumerate(parents)),
        wave=1 if wave is None else _whole(f"{field}.wave", wave),
    )


def _span(field: str, data: object) -> Span:
    known = _fields(field, data, Span)
    start, end = (_seconds(f"{field}.{name}", known.get(name)) for name in ("start", "end"))
    if end < start:
        raise _unreadable(f"{field}.end", end, f"a number from its start, {start}, on")
    first = _perhaps(f"{field}.first", known.get("first"))
    # It may lie after the end: the timings of an aborted answer lack the ends of some calls.
    if first is not None and first < start:
        raise _unreadable(f"{field}.first", first, f"a number from its start, {start}, on")
    return Span(start, end, first)


def _fields(field: str, data: object, kind: type[Span | PointTimes]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise _unreadable(field, data, "a mapping")
    if more := sorted(map(str, data.keys() - {one.name for one in fields(kind)})):
        raise InvalidInput(f"The timings cannot be read: {field} has {more[0]!r}, which is no field of it.")
    return data


def _whole(field: str, value: object) -> int:
    number = _number(value)
    if number is None or number != int(number) or number < 0:
        raise _unreadable(field, value, "a whole number")
    return int(number)


def _perhaps(field: str, value: object) -> float | None:
    return None if value is None else _seconds(field, value)


def _seconds(field: str, value: object) -> float:
    number = _number(value)
    if number is None or number < 0:
        raise _unreadable(field, value, "a finite number of seconds from zero on")
    return number


def _unreadable(field: str, value: object, wanted: str) -> InvalidInput:
    return InvalidInput(f"The timings cannot be read: {field} is {_shown(value)}, not {wanted}.")
