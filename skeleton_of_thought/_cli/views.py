"""How an answer is shown without a live terminal: as plain text, as one JSON object, as JSON lines."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from skeleton_of_thought._cli.report import Comparison, comparison_dict
from skeleton_of_thought.events import AnswerDelta, AnswerDone, AnswerFailed, AnswerRestarted, Event
from skeleton_of_thought.types import Answer, Expansion, Point, Skeleton

__all__ = ["JsonView", "Outcome", "PlainView", "View", "event_dict", "without_controls"]

_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def without_controls(text: str) -> str:
    """The text without control characters: what a model writes must not steer the terminal."""
    return text.translate(_CONTROLS)


@dataclass(frozen=True)
class Outcome:
    """How a question ended: `answer` is partial, or None, where there is an `error`."""

    answer: Answer | None
    error: Exception | None = None
    comparison: Comparison | None = None


class View(Protocol):
    """Shows an answer while it is written, and at its end."""

    @property
    def shows_figures(self) -> bool:
        """Whether the line of figures is wanted where nobody asked for it: only where people read."""
        ...

    @property
    def width(self) -> int | None:
        """The most characters of a line of figures; None where there is no limit."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def show(self, event: Event) -> None:
        """One more event."""
        ...

    def note(self, what: str) -> None:
        """What is being done besides the answer, from now on: something to be warmed up or measured."""
        ...

    def show_normal(self, text: str) -> None:
        """More text of what is being measured."""
        ...

    def show_again(self, event: Event) -> None:
        """One more event of an answer that is made again, to be measured."""
        ...

    def finish(self, outcome: Outcome) -> None:
        """The end of it all; called after the `with` block, when the terminal is free again."""
        ...

    def interrupt(self, answer: Answer) -> None:
        """The user has had enough; this is what there is."""
        ...

    def report(self, lines: Sequence[str]) -> None:
        """Figures for a reader."""
        ...


class _Quiet:
    """What the views without a live terminal share."""

    shows_figures = False
    width: int | None = None

    def __init__(self, *, notes: bool = False) -> None:
        """`notes` says what is being done where that takes time."""
        self._notes = notes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, what: str) -> None:
        """Says it where it is not in the way."""
        if self._notes:
            print(f"sot: {what} ...", file=sys.stderr, flush=True)

    def show_normal(self, text: str) -> None:
        """Other ways are measured; their text is not part of the answer."""

    def show_again(self, event: Event) -> None:
        """Nothing: there is an answer."""

    def interrupt(self, answer: Answer) -> None:
        """Nothing: what was written was written, and half a JSON object helps nobody."""

    def report(self, lines: Sequence[str]) -> None:
        """Figures go where they are not in the way."""
        if lines:
            print(*lines, sep="\n", file=sys.stderr)


class PlainView(_Quiet):
    """The answer's text on stdout in document order, as soon as it is final; nothing else."""

    def __init__(self, *, notes: bool = False) -> None:
        super().__init__(notes=notes)
        self._written: list[str] = []
        self._terminal = sys.stdout.isatty()
        # Not where a pager or file has taken over the one and the terminal is still there for the other.
        self.shows_figures = self._terminal and sys.stderr.isatty()

    def show(self, event: Event) -> None:
        """See `View.show`."""
        if isinstance(event, AnswerDelta):
            self._write(event.text)
        elif isinstance(event, AnswerRestarted):
            # What is out cannot be taken back; the whole answer follows, set off from it.
            self._write("\n\n")
            self._written.clear()

    def note(self, what: str) -> None:
        """See `View.note`. On a terminal the answer's line ends first."""
        if self._notes and self._terminal and self._written and not self._written[-1].endswith("\n"):
            self._write("\n")
        super().note(what)

    def _write(self, text: str) -> None:
        self._written.append(text)
        sys.stdout.write(without_controls(text) if self._terminal else text)
        sys.stdout.flush()

    def finish(self, outcome: Outcome) -> None:
        """Writes what of a partial answer was still waiting for its turn."""
        text = "".join(self._written)
        if outcome.answer is not None and outcome.answer.text.startswith(text):
            self._write(outcome.answer.text[len(text) :])
        text = "".join(self._written)
        if text and not text.endswith("\n"):
            self._write("\n")


class JsonView(_Quiet):
    """The answer as one JSON object on stdout; with `events`, every event on a line of its own before it."""

    def __init__(self, *, events: bool, notes: bool = False) -> None:
        super().__init__(notes=notes)
        self._events = events

    def show(self, event: Event) -> None:
        """See `View.show`. The end is left to `finish`, which knows the comparison too."""
        if self._events and not isinstance(event, AnswerDone | AnswerFailed):
            _print_json(event_dict(event))

    def finish(self, outcome: Outcome) -> None:
        """Writes the answer; a partial one has its `error` beside it, and where there is none the `error` is all."""
        answer = None if outcome.answer is None else outcome.answer.to_dict()
        extra = {}
        if outcome.error is not None:
            extra["error"] = _plain(outcome.error)
        if outcome.comparison is not None and outcome.answer is not None:
            extra["compare"] = comparison_dict(outcome.answer, outcome.comparison)
        if self._events:
            name = "AnswerDone" if outcome.error is None else "AnswerFailed"
            _print_json({"event": name, "answer": answer, **extra})
        else:
            _print_json({**(answer or {}), **extra})

    def report(self, lines: Sequence[str]) -> None:
        """Nothing: the JSON has it all."""


def _print_json(value: Any) -> None:
    # Not every terminal or pipe takes every character, and half a surrogate pair fits into none.
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def event_dict(event: Event) -> dict[str, Any]:
    """An event as plain data: its name under `event`, and its fields."""
    fields = {f.name: _plain(getattr(event, f.name)) for f in dataclasses.fields(event)}
    return {"event": type(event).__name__, **fields}


def _plain(value: Any) -> Any:
    match value:
        case Exception():
            return {"type": type(value).__name__, "message": str(value)}
        case Answer():
            return value.to_dict()
        case Skeleton():
            return list(value.titles)
        case Point():
            return {"index": value.index, "title": value.title}
        case Expansion():
            return Answer("", "", "skeleton", expansions=(value,)).to_dict()["expansions"][0]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        case _:
            return value
