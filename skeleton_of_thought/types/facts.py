"""Facts about a request, the names of stages and roles, and when things ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Planning", "PointTimes", "Request", "Role", "Span", "Stage"]

Stage = Literal["route", "sources", "skeleton", "point", "opening", "closing", "merge", "direct"]

Role = Literal["opening", "closing"]
"""A text of an answer that is no point, and is written from the points."""

Planning = Literal["titles", "scoped", "graph"]
"""What a skeleton says of its points: their titles; also what each covers; also which points each builds on."""


@dataclass(frozen=True)
class Request:
    """Facts about a request besides its messages, for routers.

    Attributes:
        tools: Whether tools are bound, of which the model may want to call one.
        response_format: Whether the answer has to fit a schema or another format of the backend.
        max_concurrency: The most calls that may be open at a time; None for as many as there are points.
        graph: Whether points may build on each other, so that comparisons and conclusions suit a skeleton, too.
        items: Whether a question about several items may be answered item by item.
    """

    tools: bool = False
    response_format: bool = False
    max_concurrency: int | None = None
    graph: bool = False
    items: bool = False


@dataclass(frozen=True)
class Span:
    """When a piece of work ran, in seconds since the answer began. `first` is the time of its first text."""

    start: float
    end: float
    first: float | None = None

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


@dataclass(frozen=True)
class PointTimes:
    """When one point was retrieved for, written and released, in seconds since the answer began.

    Attributes:
        index: The point's number.
        title: Its title.
        written: The time of its last call; None if none was opened.
        retrieved: The time of its retrieval, all attempts together; None without retrieval per point.
        released: When the reader got its first text, in document order. None if there was none, or if the answer's
            text comes at once, at its end.
        attempts: The number of calls made to write it.
        failed: Whether it failed for good.
        depends_on: The points that it waited for.
        wave: The wave in which it was written, from 1.
    """

    index: int
    title: str
    written: Span | None = None
    retrieved: Span | None = None
    released: float | None = None
    attempts: int = 0
    failed: bool = False
    depends_on: tuple[int, ...] = ()
    wave: int = 1
