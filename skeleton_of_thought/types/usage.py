"""The cost of calls and answers: tokens, seconds, and the work of a local engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Decoding",
    "PointTimes",
    "Span",
    "Stage",
    "Timings",
    "Usage",
]

Stage = Literal["route", "sources", "skeleton", "point", "merge", "direct"]


@dataclass(frozen=True)
class Usage:
    """Tokens. `cached_tokens` is the share of `input_tokens` that the backend had cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True)
class Decoding:
    """The work of a local engine for one completion, or for several of them together.

    A sum adds seconds, steps and tokens of completions that may have been decoded side by side. So its seconds can be
    more than the time that passed, and its pace is the mean pace of one completion.

    Attributes:
        waiting: Seconds from the submission until the prompt began to run.
        prefill: Seconds from then until the completion joined the batch.
        decode: Seconds from then until its end.
        steps: Decoding steps that it took part in.
        mean_rows: The mean number of rows in the batch over its steps. A sum weighs by steps.
        output_tokens: Tokens generated.
    """

    waiting: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    steps: int = 0
    mean_rows: float = 0.0
    output_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Tokens over the time in the batch; 0.0 without any."""
        return self.output_tokens / self.decode if self.decode > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields and the pace as plain JSON-safe data."""
        return {**dataclasses.asdict(self), "tokens_per_second": self.tokens_per_second}

    def __add__(self, other: Decoding) -> Decoding:
        steps = self.steps + other.steps
        rows = self.mean_rows * self.steps + other.mean_rows * other.steps
        return Decoding(
            self.waiting + other.waiting,
            self.prefill + other.prefill,
            self.decode + other.decode,
            steps,
            rows / steps if steps else 0.0,
            self.output_tokens + other.output_tokens,
        )


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
    """

    index: int
    title: str
    written: Span | None = None
    retrieved: Span | None = None
    released: float | None = None
    attempts: int = 0
    failed: bool = False


@dataclass(frozen=True)
class Timings:
    """The times of an answer, in seconds.

    Attributes:
        total: From the start to the end of the answer.
        first_text: From the start to the first text of the answer; None if there was none.
        stages: A `Span` per stage that ran: `route`, `sources`, `skeleton`, `point` (of several calls, from the
            first one's start to the last one's end), `merge`, `direct`.
        decoding: The work of the local engine for the calls of a stage, summed; no entry for a stage whose backend does
            not report it.
        points: When each point was written, in document order; see `skeleton_of_thought.timeline` for a picture.
    """

    total: float = 0.0
    first_text: float | None = None
    stages: Mapping[str, Span] = field(default_factory=dict)
    decoding: Mapping[Stage, Decoding] = field(default_factory=dict)
    points: tuple[PointTimes, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The timings as plain JSON-safe data."""
        return {
            "total": self.total,
            "first_text": self.first_text,
            "stages": {stage: dataclasses.asdict(span) for stage, span in self.stages.items()},
            "decoding": {stage: done.to_dict() for stage, done in self.decoding.items()},
            "points": [dataclasses.asdict(point) for point in self.points],
        }
