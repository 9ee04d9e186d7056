"""What the server counts, as text for Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skeleton_of_thought.serve import log
from skeleton_of_thought.types import Answer, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.serve.limits import CallLimit

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text."""

_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)
"""Upper bounds of the histograms' buckets in seconds."""
_OTHER = "(other)"
_NO_ROUTE = "none"

Labels = tuple[str, ...]


@dataclass
class _Histogram:
    """Seconds, in buckets."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """Counts of the answers since the server started."""

    def __init__(self) -> None:
        self._answers: Counter[Labels] = Counter()
        self._input: Counter[Labels] = Counter()
        self._output: Counter[Labels] = Counter()
        self._first: dict[Labels, _Histogram] = {}
        self._seconds: dict[Labels, _Histogram] = {}
        self._stage_tokens: Counter[Labels] = Counter()
        self._stage_seconds: dict[Labels, _Histogram] = {}

    def staged(self, model: str, answer: Answer) -> None:
        """Counts the stages of an answer by points: the skeleton, the points, the opening, the closing, the merge.

        Args:
            model: The name under which the model is served.
            answer: The answer, complete or not.
        """
        for stage, span in answer.timings.stages.items():
            self._stage_seconds.setdefault((model, stage), _Histogram()).add(span.seconds)
        for stage, usage in answer.usage_by_stage.items():
            self._stage_tokens[model, stage] += usage.output_tokens

    def answered(  # noqa: PLR0917 - each is of the answer
        self, model: str, route: str, usage: Usage | None, first: float | None, seconds: float, status: int
    ) -> None:
        """Counts an answer, also one that failed or was broken off, and notes it for the log.

        Args:
            model: The name under which the model is served.
            route: `"skeleton"` or `"items"` as the router decided; `"direct"` if it decided so, `"passed"` if the
                request passed through.
            usage: Its tokens, if they are known.
            first: Seconds until its first text; None without any.
            seconds: Seconds until its end.
            status: The HTTP status; that of the error if it failed in mid-stream, 499 if the client went away.
        """
        log.note(model=model, route=route, status=status, usage=usage, first=first)
        labels = (model, route)
        self._answers[*labels, str(status)] += 1
        self._seconds.setdefault(labels, _Histogram()).add(seconds)
        if first is not None:
            self._first.setdefault(labels, _Histogram()).add(first)
        if usage is not None:
            self._input[labels] += usage.input_tokens
            self._output[labels] += usage.output_tokens

    def refused(self, seconds: float, status: int) -> None:
        """Counts a request that has no route, because it is invalid or names a model that is not served.

        Args:
            seconds: Seconds until its error.
            status: The HTTP status.
        """
        # Under no model: a name that is not served may be anything.
        self._answers[_OTHER, _NO_ROUTE, str(status)] += 1
        self._seconds.setdefault((_OTHER, _NO_ROUTE), _Histogram()).add(seconds)

    def render(self, limit: CallLimit | None = None) -> str:
        """The text for `GET /metrics`.

        Args:
            limit: Adds the open calls and the requests that wait.
        """
        names = ("model", "route")
        lines = [
            *_counter("sot_answers", "Answers, also failed ones.", (*names, "status"), self._answers),
            *_counter("sot_input_tokens", "Tokens of the prompts.", names, self._input),
            *_counter("sot_output_tokens", "Tokens that models wrote.", names, self._output),
            *_histogram("sot_first_text_seconds", "Seconds until the first text.", names, self._first),
            *_histogram("sot_answer_seconds", "Seconds until the end of the answer.", names, self._seconds),
        ]
        if self._stage_seconds:
            by = ("model", "stage")
            lines += _counter("sot_stage_output_tokens", "Tokens that a stage wrote.", by, self._stage_tokens)
            lines += _histogram("sot_stage_seconds", "Seconds of a stage.", by, self._stage_seconds)
        if limit is not None:
            lines += _gauge("sot_open_calls", "Calls that are open upstream.", limit.open_calls)
            lines += _gauge("sot_max_open_calls", "The most calls that may be open upstream.", limit.max_open)
            lines += _gauge("sot_waiting_requests", "Requests that wait for a free call.", limit.waiting)
        return "\n".join(lines) + "\n"


def _counter(name: str, text: str, names: Sequence[str], values: Mapping[Labels, int]) -> Iterator[str]:
    yield from _head(f"{name}_total", text, "counter")
    for labels, value in values.items():
        yield f"{name}_total{_labels(names, labels)} {value}"


def _gauge(name: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, text, "gauge")
    yield f"{name} {value}"


def _histogram(name: str, text: str, names: Sequence[str], values: Mapping[Labels, _Histogram]) -> Iterator[str]:
    yield from _head(name, text, "histogram")
    for labels, histogram in values.items():
        so_far = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), histogram.counts, strict=True):
            so_far += count
            yield f"{name}_bucket{_labels((*names, 'le'), (*labels, bound))} {so_far}"
        yield f"{name}_sum{_labels(names, labels)} {histogram.total:.6f}"
        yield f"{name}_count{_labels(names, labels)} {so_far}"


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _labels(names: Iterable[str], values: Iterable[str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    """The value of a label, with the three escapes that the format has."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
