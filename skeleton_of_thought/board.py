"""The calls of an answer: opened by its flow, made by a driver within a budget, and counted in a ledger."""

from __future__ import annotations

import dataclasses
import heapq
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.errors import InvalidInput, PointTimeout
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event, SourcesDone
from skeleton_of_thought.ledger import End, Key, Ledger, Text
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import PrefillEcho
from skeleton_of_thought.types import Call, Cancel, Decoding, Prompt, Reply, Span, Stage, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.budget import Share

__all__ = ["Action", "Board", "CallFlow", "End", "Key", "Ledger", "Text"]

logger = logging.getLogger(__name__)

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
        self._last_id = 0
        self._actions: list[Action] = []

    @abstractmethod
    def start(self, now: float = 0.0) -> list[Action]:
        """Begins the answer; returns the first calls."""

    def opened(self, call_id: int, now: float = 0.0) -> None:
        """The driver has opened this call, which may have waited for room until now."""
        self._offset = now - self._began
        if (call := self._ledger.calls.get(call_id)) is not None:
            self._ledger.spans.setdefault(call.stage, Span(self._offset, self._offset))
            if call.point is not None:
                self._ledger.points[call.point.index].start(call.stage, self._offset)

    def delta(self, call_id: int, text: str, now: float = 0.0) -> list[Action]:
        """A call has sent more text."""
        self._offset, self._actions = now - self._began, []
        call = self._ledger.calls.get(call_id)
        # The sources come with the reply; text of such a call is no text of the answer.
        if call is not None and text and call.stage != "sources":
            span = self._ledger.spans.get(call.stage)
            if span is not None and span.first is None:
                self._ledger.spans[call.stage] = dataclasses.replace(span, first=self._offset)
            received = self._ledger.received[call_id] = self._ledger.received.get(call_id, 0) + len(text)
            if cut := call.max_chars is not None and received > call.max_chars:
                text = text[: call.max_chars - received]
            if (echo := self._ledger.echoes.get(call_id)) is not None:
                text = echo.feed(text)
            self._read(call, text if text.isascii() else replace_surrogates(text))
            if cut and call_id in self._ledger.calls:
                self._actions.append(Cancel(call.id))
                self._end(call, self._close(call), Reply(finish_reason=CUT))
        return self._actions

    def done(self, call_id: int, reply: Reply | None = None, now: float = 0.0) -> list[Action]:
        """A call has succeeded."""
        self._offset, self._actions = now - self._began, []
        if (call := self._ledger.calls.get(call_id)) is not None:
            reply = reply or Reply()
            rest = self._close(call)
            self._count(call, reply.usage, reply.decoding)
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
            self._close(call)
            self._count(call, usage, decoding)
            self._fail(call, error)
        return self._actions

    def cancelled(
        self, call: Call, usage: Usage | None = None, now: float = 0.0, decoding: Decoding | None = None
    ) -> None:
        """A call that was cancelled has ended; `usage` and `decoding` are its cost, if the backend reports it."""
        self._count(call, usage, decoding)

    def _open(self, stage: Stage, prompt: Prompt | None = None, *, attempt: int = 1, **details: Any) -> None:
        """Opens a call; from the second attempt on after a pause, unless the details have a `delay`."""
        delay = self.settings.backoff * 2.0 ** (attempt - 2) if attempt > 1 else 0.0
        timeout = None if details.get("point") is None else self.settings.point_timeout
        most = {"skeleton": self.settings.max_skeleton_chars, "point": self.settings.max_point_chars}
        details["max_chars"] = most.get(stage, self.settings.max_answer_chars)
        self._last_id += 1
        call = Call(self._last_id, stage, prompt, attempt=attempt, timeout=timeout, **{"delay": delay, **details})
        self._ledger.calls[call.id] = call
        if prompt is not None and prompt.prefill:
            self._ledger.echoes[call.id] = PrefillEcho(prompt.prefill)
        self._actions.append(call)

    def _cancel(self, call: Call) -> None:
        """Cancels an open or waiting call."""
        self._close(call)
        self._actions.append(Cancel(call.id))

    def _close(self, call: Call) -> str:
        """Takes a call off the ledger; returns text that was held back, as it could have been a repeated prefill."""
        ledger = self._ledger
        ledger.calls.pop(call.id, None)
        ledger.received.pop(call.id, None)
        if (span := ledger.spans.get(call.stage)) is not None:
            ledger.spans[call.stage] = dataclasses.replace(span, end=self._offset)
        if call.point is not None and call.stage == "sources":
            ledger.points[call.point.index].end_retrieval(self._offset)
        echo = ledger.echoes.pop(call.id, None)
        return "" if echo is None else echo.close()

    def _count(self, call: Call, usage: Usage | None, decoding: Decoding | None) -> None:
        """Adds the cost of a call, as far as its backend reported it."""
        ledger = self._ledger
        if usage is not None:
            ledger.usage[call.stage] = ledger.usage.get(call.stage, Usage()) + usage
            # Points that turned out to be reasoning are gone, and others may have their numbers.
            writing = None if call.point is None else ledger.points.get(call.point.index)
            if writing is not None and writing.point is call.point:
                writing.count(usage)
        if decoding is not None:
            ledger.decoding[call.stage] = ledger.decoding.get(call.stage, Decoding()) + decoding

    @abstractmethod
    def _read(self, call: Call, text: str) -> None:
        """A call has sent more text."""

    @abstractmethod
    def _end(self, call: Call, rest: str, reply: Reply) -> None:
        """A call has succeeded, or was cut; `rest` is text that was held back until now."""

    @abstractmethod
    def _fail(self, call: Call, error: Exception) -> None:
        """A call has failed."""

    @abstractmethod
    def last_event(self, event: Event) -> Event:
        """The last event, with the costs of calls that were cancelled before it and have ended since."""


class Board:
    """The calls that wait, are open, or are closing, and the events that may be shown. No I/O, no waiting.

    A board belongs to no thread and no event loop: while no call is open, another driver may take over.

    Args:
        flows: Flows that have not been started.
        limit: The most calls that are open at any time, over all flows; or a share in a budget. None: no limit for one
            flow, and `skeleton_of_thought.budget.default_limit` for several. `math.inf`: no limit.
        grace: Seconds until a cancelled call that does not end is given up.

    Attributes:
        share: The share in a budget; None while a number is enough.

    A call that a server refuses because of its rate limit, before it has sent any text, is opened again later, and the
    whole board slows down; see `skeleton_of_thought.budget`. The one call of a lone direct answer is not: it behaves as
    a call of the model without a flow. Nor is a call of a lone answer that allows no retries, or that makes one call at
    a time, for which its retries are enough.

    Raises:
        InvalidInput: The limit is less than 1.
    """

    def __init__(self, flows: Sequence[CallFlow], limit: float | Share | None, grace: float) -> None:
        self.share: Share | None = None
        if not isinstance(limit, float | int | None) and hasattr(limit, "most"):
            self.share, limit = limit, limit.most
        elif limit is None and len(flows) > 1:
            from skeleton_of_thought.budget import default_limit

            limit = max(default_limit(flow.settings) for flow in flows)
        if not (limit in (None, math.inf) or (isinstance(limit, Integral) and int(limit) >= 1)):
            raise InvalidInput(f"max_concurrency must be a whole number of at least 1, or None, not {limit!r}.")
        self._flows, self._grace = flows, grace
        self._limit = None if limit is None or limit == math.inf else int(limit)
        self._delayed: list[tuple[float, int, Key, Call]] = []
        self._ready: list[tuple[bool, int, Key, Call]] = []
        self._open: dict[Key, Call] = {}
        self._deadlines: dict[Key, float] = {}
        self._closing: dict[Key, tuple[Call, float]] = {}
        self._last_events: dict[int, list[Event]] = {}
        self._events: list[tuple[int, Event]] = []
        self._cancels: list[Key] = []
        self._started = self._holding = False
        self._order = 0
        self._held: list[tuple[int, Key, Call]] = []
        self._sourced: set[int] = set()
        self._heard: set[Key] = set()

    # --- reports ---

    def go_on(self, now: float, *, until_sources: bool = False, wake: Callable[[], object] | None = None) -> None:
        """Starts every flow, or goes on where an earlier driver has stopped.

        Args:
            now: The driver's clock.
            until_sources: See `drive.run`.
            wake: Called from any thread when other boards leave room in a budget that they share.
        """
        if self.share is not None:
            self.share.begin(wake)
        self._holding = until_sources
        held, self._held = self._held, []
        for order, key, call in held:
            self._wait_for_room(order, key, call)
        if not self._started:
            self._started = True
            for index, flow in enumerate(self._flows):
                self._follow(index, flow.start(now), now)

    def handle(self, report: Text | End, now: float) -> None:
        """Passes a report on a call to its flow. Text of a cancelled call is ignored."""
        index, call_id = report.key
        if isinstance(report, Text):
            if report.key in self._open:
                self._heard.add(report.key)
                self._follow(index, self._flows[index].delta(call_id, report.text, now), now)
            return
        call = self._open.pop(report.key, None)
        self._deadlines.pop(report.key, None)
        if call is None:
            if (closing := self._closing.pop(report.key, None)) is not None:
                self._flows[index].cancelled(closing[0], report.reply.usage, now, report.reply.decoding)
                self._emit_last_events(index)
        elif report.error is None:
            self._follow(index, self._flows[index].done(call_id, report.reply, now), now)
        else:
            if not isinstance(error := report.error, Exception):
                raise error
            cost = report.reply.usage, report.reply.decoding
            if self._opens_again(report.key, call, error, now):
                self._flows[index].cancelled(call, cost[0], now, cost[1])
                self._wait_for_room(0, report.key, call)  # before all calls that have not been open yet
            else:
                self._follow(index, self._flows[index].failed(call_id, error, now, *cost), now)
        self._heard.discard(report.key)
        if self.share is not None:
            self.share.close(report.key, succeeded=call is not None and report.error is None)

    def unopened(self, openings: Sequence[tuple[Key, Call]], error: Exception, now: float) -> None:
        """The driver could not open these calls: this machine had no thread for the first of them.

        They wait until another call has ended. If none is open, the first one fails.
        """
        share = self._taking_share()
        for key, _ in openings:
            del self._open[key]
            self._deadlines.pop(key, None)
            share.close(key)
        failing = () if share.budget.open > 0 else openings[:1]
        for key, call in openings[len(failing) :]:
            self._wait_for_room(0, key, call)  # before all calls that have not been open yet
        for key, _ in failing:
            self._follow(key[0], self._flows[key[0]].failed(key[1], error, now), now)
        if not failing:
            share.budget.lower(share.budget.open, error)

    def expire(self, now: float) -> None:
        """Ends calls that take too long, and gives up cancelled calls that do not end."""
        for key, deadline in list(self._deadlines.items()):
            if deadline <= now and (call := self._open.get(key)) is not None:
                self._close(key, call, now)
                error = PointTimeout(f"It took longer than point_timeout={call.timeout:g} seconds.")
                self._follow(key[0], self._flows[key[0]].failed(key[1], error, now), now)
        for key, (call, until) in list(self._closing.items()):
            if until <= now:
                self._forget(key)
                logger.warning(
                    "A cancelled %s call is still blocked in its backend after %g s; it is left to end by itself.",
                    call.stage,
                    self._grace,
                )
                self._emit_last_events(key[0])

    # --- what the driver does next ---

    def openings(self, now: float) -> list[tuple[Key, Call]]:
        """The calls that the driver opens now."""
        openings: list[tuple[Key, Call]] = []
        while self._delayed and self._delayed[0][0] <= now:
            _, order, key, call = heapq.heappop(self._delayed)
            self._wait_for_room(order, key, call)
        while self._ready and (self._limit is None or len(self._open) + len(self._closing) < self._limit):
            _, _, key, call = self._ready[0]
            if self.share is not None and not self.share.open(key, call, now):
                break
            heapq.heappop(self._ready)
            self._open[key] = call
            if call.timeout is not None:
                self._deadlines[key] = now + call.timeout
            self._flows[key[0]].opened(key[1], now)
            openings.append((key, call))
        return openings

    def is_direct(self, openings: Sequence[tuple[Key, Call]]) -> bool:
        """Whether these are the one call of a direct answer, so that nothing else can happen meanwhile."""
        call = openings[0][1] if len(self._flows) == len(openings) == 1 else None
        return call is not None and call.stage == "direct" and call.timeout is None

    def still_open(self, openings: Iterable[tuple[Key, Call]]) -> Iterator[tuple[Key, Call]]:
        """Yields the calls of a failed batch that are still open; closes the cancelled ones."""
        for key, call in openings:
            if key in self._open:
                yield key, call
            elif key in self._closing:
                self._forget(key)
                self._emit_last_events(key[0])

    def cancels(self) -> list[Key]:
        """The open calls that the driver cancels now; raises `Ended` if the budget has ended."""
        if self.share is not None:
            self.share.budget.check()
        keys, self._cancels = self._cancels, []
        return keys

    def events(self) -> list[tuple[int, Event]]:
        """The events that the driver shows now."""
        events, self._events = self._events, []
        return events

    @property
    def finished(self) -> bool:
        """Whether every flow has ended or is held, and every call is closed."""
        return not (self._open or self._closing or self._ready or self._delayed)

    def seconds_to_wait(self, now: float) -> float | None:
        """Seconds until the next deadline or delayed call; None if only a report can come next."""
        moments = list(self._deadlines.values())
        for _, until in self._closing.values():
            moments.append(until)
        if self._delayed:
            moments.append(self._delayed[0][0])
        if self._ready and self.share is not None and self.share.resumes is not None:
            moments.append(self.share.resumes)
        return max(0.0, min(moments) - now) if moments else None

    # --- inside ---

    def _follow(self, index: int, actions: Iterable[Action], now: float) -> None:
        for action in actions:
            if isinstance(action, Call):
                self._order += 1
                key = (index, action.id)
                if action.delay > 0:
                    heapq.heappush(self._delayed, (now + action.delay, self._order, key, action))
                else:
                    self._wait_for_room(self._order, key, action)
            elif isinstance(action, Cancel):
                self._cancel((index, action.id), now)
            elif self._closing and isinstance(action, AnswerDone | AnswerFailed):
                self._last_events.setdefault(index, []).append(action)
                self._emit_last_events(index)
            else:
                if isinstance(action, SourcesDone):
                    self._sourced.add(index)
                self._events.append((index, action))

    def _wait_for_room(self, order: int, key: Key, call: Call) -> None:
        # An answer that has begun goes before one that has not: a batch then finishes its first answers early
        # instead of all of them late.
        if self._holding and (call.stage == "point" or key[0] in self._sourced):
            self._held.append((order, key, call))
            return
        begun = call.id > 1 or call.point is not None
        heapq.heappush(self._ready, (not begun, order, key, call))

    def _cancel(self, key: Key, now: float) -> None:
        if (call := self._open.get(key)) is not None:
            self._close(key, call, now)
            return
        self._held = [item for item in self._held if item[1] != key]
        # A sorted list is a heap.
        self._ready = sorted(item for item in self._ready if item[2] != key)
        self._delayed = sorted(item for item in self._delayed if item[2] != key)

    def _taking_share(self) -> Share:
        """The share in a budget, which begins when a call fails for the first time."""
        if self.share is None:
            from skeleton_of_thought.budget import Budget, Share

            # One long call of a lone answer should not hold back a short one that was refused.
            self.share = Share(Budget(self._limit, least=1 if len(self._flows) > 1 else 2))
            self.share.enter([*self._open, *self._closing])
        return self.share

    def _opens_again(self, key: Key, call: Call, error: Exception, now: float) -> bool:
        settings = self._flows[key[0]].settings
        is_batch = len(self._flows) > 1 or (self.share is not None and self.share.shared)
        if call.stage == "direct" and not is_batch:
            return False
        if self.share is None:
            # The failed call counts among those that were open together.
            self._taking_share().enter([key])
        repeats = is_batch or (settings.max_retries > 0 and self._limit != 1)
        again = self._taking_share().opens_again(key, call, error, settings.backoff, now, repeats=repeats)
        # A reader may have the text that it has sent.
        return again and key not in self._heard

    def _forget(self, key: Key) -> None:
        del self._closing[key]
        if self.share is not None:
            self.share.close(key)

    def _close(self, key: Key, call: Call, now: float) -> None:
        del self._open[key]
        self._deadlines.pop(key, None)
        self._closing[key] = (call, now + self._grace)
        self._cancels.append(key)

    def _emit_last_events(self, index: int) -> None:
        # An answer's last event is emitted once none of its calls is open: its reader may rely on nothing being
        # left running.
        if any(key[0] == index for key in self._closing):
            return
        flow = self._flows[index]
        self._events.extend((index, flow.last_event(event)) for event in self._last_events.pop(index, ()))
