"""The calls of a state machine: opened and cancelled by it, reported by its driver, counted in a ledger."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from skeleton_of_thought.events import Event
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import PrefillEcho
from skeleton_of_thought.types import Call, Cancel, Decoding, Prompt, Reply, Span, Stage, Usage
from skeleton_of_thought.writing import PointWriting

__all__ = ["Action", "CallFlow", "Ledger"]

Action = Call | Cancel | Event
"""An instruction to the driver: open a call, cancel one, or show an event."""


class CallFlow(ABC):
    """A state machine whose steps are reports on its calls.

    `delta`, `done` and `failed` return the actions that follow, in order. Reports on calls that were cancelled or have
    ended are ignored. `now` is the driver's clock in seconds; the flow only subtracts.

    Args:
        settings: How the answer is made.
        ledger: Keeps the open calls, and counts their cost.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.settings = settings
        self._ledger = ledger
        self._began = self._offset = 0.0
        self._actions: list[Action] = []

    def opened(self, call_id: int, now: float = 0.0) -> None:
        """The driver has opened this call, which may have waited for room until now."""
        self._offset = now - self._began
        if (call := self._ledger.calls.get(call_id)) is not None:
            self._ledger.start(call, self._offset)

    def delta(self, call_id: int, text: str, now: float = 0.0) -> list[Action]:
        """A call has sent more text."""
        self._offset, self._actions = now - self._began, []
        call = self._ledger.calls.get(call_id)
        # The sources come with the reply; text of such a call is no text of the answer.
        if call is not None and text and call.stage != "sources":
            span = self._ledger.spans.get(call.stage)
            if span is not None and span.first is None:
                self._ledger.spans[call.stage] = dataclasses.replace(span, first=self._offset)
            if (echo := self._ledger.echoes.get(call_id)) is not None:
                text = echo.feed(text)
            self._read(call, text)
        return self._actions

    def done(self, call_id: int, reply: Reply | None = None, now: float = 0.0) -> list[Action]:
        """A call has succeeded."""
        self._offset, self._actions = now - self._began, []
        if (call := self._ledger.calls.get(call_id)) is not None:
            reply = reply or Reply()
            rest = self._ledger.end(call, self._offset)
            self._ledger.count(call, reply.usage, reply.decoding)
            self._end(call, rest, reply)
        return self._actions

    def failed(
        self,
        call_id: int,
        error: Exception,
        now: float = 0.0,
        usage: Usage | None = None,
        decoding: Decoding | None = None,
    ) -> list[Action]:
        """A call has failed; `usage` and `decoding` are its cost, if the backend reports it."""
        self._offset, self._actions = now - self._began, []
        if (call := self._ledger.calls.get(call_id)) is not None:
            self._ledger.end(call, self._offset)
            self._ledger.count(call, usage, decoding)
            self._fail(call, error)
        return self._actions

    def cancelled(
        self, call: Call, usage: Usage | None = None, now: float = 0.0, decoding: Decoding | None = None
    ) -> None:
        """A call that was cancelled has ended; `usage` and `decoding` are its cost, if the backend reports it."""
        self._ledger.count(call, usage, decoding)

    def _open(self, stage: Stage, prompt: Prompt | None = None, *, attempt: int = 1, **details: Any) -> None:
        """Opens a call; from the second attempt on after a pause."""
        delay = self.settings.backoff * 2.0 ** (attempt - 2) if attempt > 1 else 0.0
        timeout = None if details.get("point") is None else self.settings.point_timeout
        self._actions.append(self._ledger.add(stage, prompt, attempt=attempt, delay=delay, timeout=timeout, **details))

    def _cancel(self, call: Call) -> None:
        """Cancels an open or waiting call."""
        self._ledger.end(call, self._offset)
        self._actions.append(Cancel(call.id))

    @abstractmethod
    def _read(self, call: Call, text: str) -> None:
        """A call has sent more text."""

    @abstractmethod
    def _end(self, call: Call, rest: str, reply: Reply) -> None:
        """A call has succeeded; `rest` is text that was held back until now."""

    @abstractmethod
    def _fail(self, call: Call, error: Exception) -> None:
        """A call has failed."""


class Ledger:
    """Keeps the open calls, and counts tokens, seconds and decoding. Times are seconds since the answer began.

    Args:
        points: The points under way by index, which count their own calls, too.

    Attributes:
        calls: The calls that are open or wait for room, by their ids.
        echoes: Take a repeated prefill off the replies of calls that have one.
        usage: Tokens by stage.
        decoding: The work of a local engine by stage.
        spans: By stage, from the start of its first call to the end of its last one.
    """

    def __init__(self, points: Mapping[int, PointWriting]) -> None:
        self.calls: dict[int, Call] = {}
        self.usage: dict[str, Usage] = {}
        self.decoding: dict[Stage, Decoding] = {}
        self.spans: dict[str, Span] = {}
        self._points = points
        self.echoes: dict[int, PrefillEcho] = {}
        self._last_id = 0

    def add(self, stage: Stage, prompt: Prompt | None, **details: Any) -> Call:
        """A new call, with an id of its own."""
        self._last_id += 1
        call = self.calls[self._last_id] = Call(self._last_id, stage, prompt, **details)
        if prompt is not None and prompt.prefill:
            self.echoes[call.id] = PrefillEcho(prompt.prefill)
        return call

    def start(self, call: Call, offset: float) -> None:
        """Counts a call as running from now on."""
        self.spans.setdefault(call.stage, Span(offset, offset))
        if call.point is not None:
            self._points[call.point.index].start(call.stage, offset)

    def end(self, call: Call, offset: float) -> str:
        """Ends a call; returns text that was held back, because it could have been a repeated prefill."""
        self.calls.pop(call.id, None)
        if (span := self.spans.get(call.stage)) is not None:
            self.spans[call.stage] = dataclasses.replace(span, end=offset)
        if call.point is not None:
            self._points[call.point.index].end(call.stage, offset)
        echo = self.echoes.pop(call.id, None)
        return "" if echo is None else echo.close()

    def count(self, call: Call, usage: Usage | None, decoding: Decoding | None) -> None:
        """Adds the cost of a call, as far as its backend reported it."""
        if usage is not None:
            self.usage[call.stage] = self.usage.get(call.stage, Usage()) + usage
            if call.point is not None:
                self._points[call.point.index].count(usage)
        if decoding is not None:
            self.decoding[call.stage] = self.decoding.get(call.stage, Decoding()) + decoding
