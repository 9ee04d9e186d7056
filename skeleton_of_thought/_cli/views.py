"""Views of an answer without a live terminal: plain text, one JSON object, JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from skeleton_of_thought._cli.report import Comparison, comparison_dict
from skeleton_of_thought._cli.terminal_text import json_text
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    Event,
    event_dict,
    plain_value,
)
from skeleton_of_thought.types import Answer

__all__ = ["AnswerResult", "JsonView", "PlainView", "View", "event_dict"]


@dataclass(frozen=True)
class AnswerResult:
    """The result of a question: an answer, which is partial or None if there is an `error`."""

    answer: Answer | None
    error: Exception | None = None
    comparison: Comparison | None = None


class View(Protocol):
    """Shows an answer while it is written, and at its end."""

    @property
    def shows_figures(self) -> bool:
        """Whether the line of figures is shown by default: only if a person reads the output."""
        ...

    @property
    def width(self) -> int | None:
        """The most characters of a line of figures; None for no limit."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, event: Event) -> None:
        """Shows an event of the answer."""
        ...

    def note(self, what: str) -> None:
        """Shows what happens from now on besides the answer, such as a warm-up or a measurement."""
        ...

    def show_baseline(self, text: str) -> None:
        """Shows more text of a baseline that is measured."""
        ...

    def show_repetition(self, event: Event) -> None:
        """Shows an event of an answer that is repeated for measuring."""
        ...

    def finish(self, result: AnswerResult) -> None:
        """Shows the result; called after the `with` block, when the terminal is free again."""
        ...

    def interrupt(self, answer: Answer) -> None:
        """Shows the answer so far; called when the user interrupts."""
        ...

    def report(self, lines: Sequence[str]) -> None:
        """Shows lines of figures."""
        ...


class _StreamView:
    """The common part of the views that only write to the standard streams."""

    shows_figures = False
    width: int | None = None

    def __init__(self, *, notes: bool = False) -> None:
        """With `notes`, slow steps are reported."""
        self._notes = notes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, what: str) -> None:
        """Writes the note to stderr."""
        if self._notes:
            print(f"sot: {what} ...", file=sys.stderr, flush=True)

    def show_baseline(self, text: str) -> None:
        """Shows nothing: the text of a baseline is not part of the answer."""

    def show_repetition(self, event: Event) -> None:
        """Shows nothing: there is an answer already."""

    def interrupt(self, answer: Answer) -> None:
        """Shows nothing: text is on stdout already, and half a JSON object is of no use."""

    def report(self, lines: Sequence[str]) -> None:
        """Writes the figures to stderr."""
        if lines:
            print(*lines, sep="\n", file=sys.stderr)


class PlainView(_StreamView):
    """Writes only the answer's text to stdout, in document order and as soon as it is final."""

    def __init__(self, *, notes: bool = False) -> None:
        super().__init__(notes=notes)
        self._written: list[str] = []
        self._terminal = sys.stdout.isatty()
        # With one of them in a pager or a file, the figures would stand apart from the answer.
        self.shows_figures = self._terminal and sys.stderr.isatty()

    def show(self, event: Event) -> None:
        """Writes the text that the event releases."""
        if isinstance(event, AnswerDelta):
            self._write(event.text)
        elif isinstance(event, AnswerRestarted):
            # Written text cannot be taken back; the whole answer follows, set apart by the blank line just written.
            self._written.clear()

    def note(self, what: str) -> None:
        """Writes the note to stderr; on a terminal, the line of the answer ends first."""
        if self._notes and self._terminal and self._written and not self._written[-1].endswith("\n"):
            self._write("\n")
        super().note(what)

    def _write(self, text: str) -> None:
        self._written.append(text)
        sys.stdout.write(text)
        sys.stdout.flush()

    def finish(self, result: AnswerResult) -> None:
        """Writes the parts of a partial answer that were held back until their turn."""
        text = "".join(self._written)
        if result.answer is not None and result.answer.text.startswith(text):
            self._write(result.answer.text[len(text) :])
        text = "".join(self._written)
        if text and not text.endswith("\n"):
            self._write("\n")


class JsonView(_StreamView):
    """Writes the answer as one JSON object to stdout; with `events`, a line for each event before it."""

    def __init__(self, *, events: bool, notes: bool = False) -> None:
        super().__init__(notes=notes)
        self._events = events

    def show(self, event: Event) -> None:
        """Writes the event; `finish` writes the last one, which has the comparison too."""
        if self._events and not isinstance(event, AnswerDone | AnswerFailed):
            _print_json(event_dict(event))

    def finish(self, result: AnswerResult) -> None:
        """Writes the answer, partial or whole, and the `error` if there is one."""
        answer = None if result.answer is None else result.answer.to_dict()
        extra = {}
        if result.error is not None:
            extra["error"] = plain_value(result.error)
        if result.comparison is not None and result.answer is not None:
            extra["compare"] = comparison_dict(result.answer, result.comparison)
        if self._events:
            name = "AnswerDone" if result.error is None else "AnswerFailed"
            _print_json({"event": name, "answer": answer, **extra})
        else:
            _print_json({**(answer or {}), **extra})

    def report(self, lines: Sequence[str]) -> None:
        """Writes nothing: the JSON object has all figures."""


def _print_json(value: Any) -> None:
    text = json_text(json.dumps(value, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        text = json_text(json.dumps(value))  # the encoding lacks characters
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
