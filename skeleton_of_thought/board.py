"""What both drivers need: the budget of open calls, calls that wait, deadlines, and the events to be shown."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from skeleton_of_thought.errors import InvalidInput, PointTimeout
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event, SourcesDone
from skeleton_of_thought.flow import Action, AnswerFlow
from skeleton_of_thought.types import Call, Cancel, Reply

__all__ = ["Board", "End", "Key", "Text"]

logger = logging.getLogger(__name__)

Key = tuple[int, int]
"""The position of a flow, and the id of one of its calls."""


@dataclass(frozen=True)
class Text:
    """More text of a call."""

    key: Key
    text: str


@dataclass(frozen=True)
class End:
    """The last word of a worker: its stream is closed."""

    key: Key
    reply: Reply
    error: BaseException | None


class Board:
    """Which calls wait, are open, or are closing; and the events that may be shown. No I/O, no waiting.

    It belongs to no thread and no event loop: while no call is open, one driver may leave it and another go on.
    """

    def __init__(self, flows: Sequence[AnswerFlow], limit: int | None, grace: float) -> None:
        if limit is not None and limit < 1:
            raise InvalidInput(f"max_concurrency must be at least 1, or None for no limit, not {limit!r}.")
        self._flows = flows
        self._limit = limit
        self._grace = grace
        self._delayed: list[tuple[float, int, Key, Call]] = []
        self._ready: list[tuple[bool, int, Key, Call]] = []
        self._order = 0
        self._open: dict[Key, Call] = {}
        self._deadlines: dict[Key, float] = {}
        self._closing: dict[Key, tuple[Call, float]] = {}
        self._last_words: dict[int, list[Event]] = {}
        self._events: list[tuple[int, Event]] = []
        self._cancels: list[Key] = []
        self._started = False
        self._holding = False
        self._held: list[tuple[int, Key, Call]] = []
        self._sourced: set[int] = set()

    # --- what has happened ---

    def go_on(self, now: float, *, until_sources: bool = False) -> None:
        """Starts every flow, or goes on where an earlier driver has left off; see `drive.run` for `until_sources`."""
        self._holding = until_sources
        held, self._held = self._held, []
        for order, key, call in held:
            self._wait_for_room(order, key, call)
        if not self._started:
            self._started = True
            for index, flow in enumerate(self._flows):
                self._take(index, flow.start(now), now)

    def handle(self, message: Text | End, now: float) -> None:
        """Passes on what a call has sent; what a cancelled call still sends changes nothing."""
        index, call_id = message.key
        if isinstance(message, Text):
            if message.key in self._open:
                self._take(index, self._flows[index].delta(call_id, message.text, now), now)
            return
        call = self._open.pop(message.key, None)
        self._deadlines.pop(message.key, None)
        if call is None:
            closing = self._closing.pop(message.key, None)
            if closing is not None:
                self._flows[index].cancelled(closing[0], message.reply.usage, now, message.reply.decoding)
                self._say_last_words(index)
        elif message.error is None:
            self._take(index, self._flows[index].done(call_id, message.reply, now), now)
        else:
            error = message.error
            if not isinstance(error, Exception):
                raise error
            self._take(
                index, self._flows[index].failed(call_id, error, now, message.reply.usage, message.reply.decoding), now
            )

    def expire(self, now: float) -> None:
        """Ends the calls that took too long, and gives up on cancelled ones that do not end."""
        for key, deadline in list(self._deadlines.items()):
            if deadline <= now and (call := self._open.get(key)) is not None:
                self._close(key, call, now)
                error = PointTimeout(f"It took longer than point_timeout={call.timeout:g} seconds.")
                self._take(key[0], self._flows[key[0]].failed(key[1], error, now), now)
        for key, (call, until) in list(self._closing.items()):
            if until <= now:
                del self._closing[key]
                logger.warning(
                    "A cancelled %s call is still blocked in its backend after %g s; it is left to end by itself.",
                    call.stage,
                    self._grace,
                )
                self._say_last_words(key[0])

    # --- what is to be done ---

    def openings(self, now: float) -> Iterator[tuple[Key, Call]]:
        """The calls that are to be opened now."""
        while self._delayed and self._delayed[0][0] <= now:
            _, order, key, call = heapq.heappop(self._delayed)
            self._wait_for_room(order, key, call)
        while self._ready and self._has_room():
            _, _, key, call = heapq.heappop(self._ready)
            self._open[key] = call
            if call.timeout is not None:
                self._deadlines[key] = now + call.timeout
            self._flows[key[0]].opened(key[1], now)
            yield key, call

    def is_direct(self, groups: Sequence[Sequence[tuple[Key, Call]]]) -> bool:
        """Whether these openings are the one call of a direct answer, and nothing else can happen meanwhile."""
        calls = [call for group in groups for _, call in group]
        return len(self._flows) == 1 and len(calls) == 1 and calls[0].stage == "direct" and calls[0].timeout is None

    def still_open(self, openings: Iterable[tuple[Key, Call]]) -> Iterator[tuple[Key, Call]]:
        """Those of these calls that were not cancelled while another way to make them failed; the others have ended."""
        for key, call in openings:
            if key in self._open:
                yield key, call
            elif key in self._closing:
                del self._closing[key]
                self._say_last_words(key[0])

    def cancels(self) -> list[Key]:
        """The open calls that are to be cancelled now."""
        keys, self._cancels = self._cancels, []
        return keys

    def events(self) -> list[tuple[int, Event]]:
        """The events that may be shown now."""
        events, self._events = self._events, []
        return events

    @property
    def finished(self) -> bool:
        """Whether every flow has ended, or is held, and every call is closed."""
        return not (self._open or self._closing or self._ready or self._delayed)

    def seconds_to_wait(self, now: float) -> float | None:
        """How long nothing can happen but messages; None for as long as they take."""
        moments = [*self._deadlines.values(), *(until for _, until in self._closing.values())]
        if self._delayed:
            moments.append(self._delayed[0][0])
        return max(0.0, min(moments) - now) if moments else None

    # --- inside ---

    def _has_room(self) -> bool:
        return self._limit is None or len(self._open) + len(self._closing) < self._limit

    def _take(self, index: int, actions: Iterable[Action], now: float) -> None:
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
            elif isinstance(action, AnswerDone | AnswerFailed):
                self._last_words.setdefault(index, []).append(action)
                self._say_last_words(index)
            else:
                if isinstance(action, SourcesDone):
                    self._sourced.add(index)
                self._events.append((index, action))

    def _wait_for_room(self, order: int, key: Key, call: Call) -> None:
        # An answer that has begun goes before one that has not: a batch then finishes its first answers
        # early instead of all of them late.
        if self._holding and (call.stage == "point" or key[0] in self._sourced):
            self._held.append((order, key, call))
            return
        begun = call.id > 1
        heapq.heappush(self._ready, (not begun, order, key, call))

    def _cancel(self, key: Key, now: float) -> None:
        call = self._open.get(key)
        if call is not None:
            self._close(key, call, now)
            return
        self._held = [item for item in self._held if item[1] != key]
        # A sorted list is a heap.
        self._ready = sorted(item for item in self._ready if item[2] != key)
        self._delayed = sorted(item for item in self._delayed if item[2] != key)

    def _close(self, key: Key, call: Call, now: float) -> None:
        del self._open[key]
        self._deadlines.pop(key, None)
        self._closing[key] = (call, now + self._grace)
        self._cancels.append(key)

    def _say_last_words(self, index: int) -> None:
        # An answer's end is told only when none of its calls is open any more: whoever hears of it may
        # rely on nothing being left running.
        if any(key[0] == index for key in self._closing):
            return
        flow = self._flows[index]
        self._events.extend((index, flow.last_event(event)) for event in self._last_words.pop(index, ()))
