"""The budget of open calls where a number is not enough: for batches without a limit, and after a rate limit.

A `Budget` belongs to one board, or to several that run side by side, in threads or tasks. A board takes part in it by
its `Share`. A board without a budget of its own gets one when a server first refuses a call because of its rate limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.ledger import Key
from skeleton_of_thought.rate_limits import is_thread_shortage, read_rate_limit
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Skeleton

__all__ = ["LONGEST_WAIT", "MAX_WAITS", "Budget", "Ended", "Share", "default_limit"]

logger = logging.getLogger(__name__)

MAX_WAITS = 6
"""How often one call waits for a rate limit; and after how many pauses without a successful call a batch gives up."""
LONGEST_WAIT = 120.0
"""Seconds. A server that asks for a longer wait is not waited for; its error then fails the call."""
_LONGEST_PAUSE = 8.0
"""Seconds, where the server does not say how long to wait."""


def default_limit(settings: Settings, skeleton: Skeleton | None = None) -> int:
    """The most calls that a batch opens at a time if its caller sets no limit.

    One answer keeps all its calls parallel: all its points and, with `eager`, the skeleton that is still being written.
    Beyond that, a batch opens as many calls as LangChain does for a plain model: four more than there are processors,
    at most 32.

    Args:
        settings: How the answers are made.
        skeleton: The points, if they are known.
    """
    widest = settings.max_points + bool(settings.eager) if skeleton is None else len(skeleton)
    processors = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    return max(widest, min(32, processors + 4))


class Ended(BaseException):
    """The caller has left the answers of a budget. This is no failure, which a fallback or a retry could mend."""


@dataclass(frozen=True, eq=False)
class _Place:
    """The place of one open call, which no other equals.

    Attributes:
        slowed: How often the budget had been lowered when the call was opened.
        counted: Whether the call takes up room.
    """

    slowed: int
    counted: bool = True


class Budget:
    """How many calls may be open, and from when on. Thread-safe.

    A rate limit halves the number of calls and stops all openings for as long as the server asks, else for a pause that
    doubles each time. Calls that were open together are one burst, which slows the budget down once. As calls succeed,
    the number rises again by one at a time, and the more slowly the more often it was lowered.

    Args:
        limit: The most calls that are open at any time; None for no limit.
        least: The number of calls that a rate limit leaves open, if the limit is not lower itself.

    Attributes:
        ended: Whether `end` was called.
    """

    def __init__(self, limit: int | None, least: int = 1) -> None:
        self.ended = False
        self._given = self._limit = limit
        self._least = least
        # Sets, because a place that is taken or given twice, after an interrupt, then counts once.
        self._taken: set[_Place] = set()  # of open calls that take up room
        self._beside: set[_Place] = set()  # of open calls that take up no room
        self._resume = 0.0
        self._slowed = 0  # how often it was lowered
        self._fruitless = 0  # how often since the last call that succeeded
        self._succeeded = 0  # calls since it was lowered or raised
        self._ceiling: int | None = None  # the limit at which the lowering ends; None if it is not lowered
        self._wakers: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def allow(self, at_least: int) -> None:
        """Raises the limit to this number, if it is lower."""
        with self._lock:
            if self._given is not None and self._given < at_least and self._ceiling is None:
                self._given = self._limit = at_least

    @property
    def limit(self) -> int | None:
        """The most calls that are open at any time, as it was given."""
        return self._given

    @property
    def open(self) -> int:
        """The number of open calls that take up room."""
        return len(self._taken)

    def take(
        self,
        now: float,
        *,
        exempt: bool = False,
        held: MutableMapping[Any, _Place] | None = None,
        key: Any = None,
    ) -> _Place | None:
        """A place for a call that opens now; None while there is none.

        Args:
            now: The driver's clock.
            exempt: Whether the call takes up no room, unless a server has limited the rate.
            held: Gets the place, under `key`, before it is taken: an interrupt then leaves none that nobody knows.
            key: See `held`.
        """
        with self._lock:
            if now < self._resume:
                return None
            free = exempt and self._ceiling is None
            if not free and self._limit is not None and len(self._taken) >= self._limit:
                return None
            place = _Place(self._slowed, counted=not free)
            if held is not None:
                held[key] = place
            (self._beside if free else self._taken).add(place)
            return place

    def enter(self, held: MutableMapping[Any, _Place], key: Any) -> None:
        """Takes a place for a call that is open already; for `held` and `key` see `take`."""
        with self._lock:
            place = held[key] = _Place(self._slowed)
            self._taken.add(place)

    def give(self, places: Iterable[_Place], *, succeeded: bool = False) -> None:
        """Takes places back.

        Args:
            places: The places of calls that have ended.
            succeeded: Whether these calls succeeded.
        """
        with self._lock:
            for place in places:
                self._taken.discard(place)
                self._beside.discard(place)
            if succeeded:
                self._recover()
            for wake in self._wakers:
                wake()

    def _recover(self) -> None:
        self._fruitless = 0
        if self._limit is None or self._ceiling is None:
            return
        self._succeeded += 1
        if self._succeeded >= self._limit * self._slowed:
            self._limit, self._succeeded = self._limit + 1, 0
            if self._limit >= self._ceiling:
                self._limit, self._ceiling = self._given, None

    def slow_down(self, place: _Place, error: Exception, seconds: float | None, backoff: float, now: float) -> bool:
        """Takes a rate limit into account; returns whether the refused call may be opened again later.

        Args:
            place: The place of the call that was refused.
            error: Its error.
            seconds: How long the server asks to wait; None where it does not say.
            backoff: The first pause in seconds where it does not.
            now: The driver's clock.
        """
        if seconds is not None and seconds > LONGEST_WAIT:
            return False
        with self._lock:
            if place.slowed < self._slowed:  # of a burst that has been seen
                if seconds is not None:
                    self._resume = max(self._resume, now + seconds)
                return True
            if self._fruitless >= MAX_WAITS:
                return False
            if seconds is None:
                seconds = min(backoff * 2.0**self._fruitless, max(backoff, _LONGEST_PAUSE))
            self._fruitless += 1
            self._resume = max(self._resume, now + seconds)
            limit = self._lower(max(self._least, (len(self._taken) + len(self._beside)) // 2))
        logger.warning(
            "The model's server limits its rate (%s: %.200s). No call is opened for %g s, then at most %d at a time.",
            type(error).__name__,
            error,
            round(seconds, 3),
            limit,
        )
        return True

    def lower(self, others: int, error: Exception) -> None:
        """Opens no more than the calls that are open, because this machine could not open another."""
        with self._lock:
            limit = self._lower(max(1, others))
        logger.warning("%.200s: no more than %d call(s) are opened at a time.", error, limit)

    def _lower(self, limit: int) -> int:
        if self._ceiling is None:
            self._ceiling = max(limit + 1, len(self._taken) if self._given is None else self._given)
        self._limit = limit if self._limit is None else min(limit, self._limit)
        self._slowed += 1
        self._succeeded = 0
        return self._limit

    def resumes(self, now: float) -> float | None:
        """When calls may be opened again; None if they may be now."""
        return self._resume if self._resume > now else None

    def end(self) -> None:
        """Ends the drivers that share the budget: each raises `Ended` as soon as it goes on, or when it begins."""
        self.ended = True
        with self._lock:
            for wake in self._wakers:
                wake()

    def check(self) -> None:
        """Raises `Ended` once the budget has ended."""
        if self.ended:
            raise Ended("The caller has left this answer.")

    def join(self, wake: Callable[[], object]) -> None:
        """Registers a function to call whenever there may be room, from any thread."""
        with self._lock:
            self._wakers.append(wake)

    def leave(self, wake: Callable[[], object]) -> None:
        """Removes a function that `join` registered, if it is still there."""
        with self._lock, contextlib.suppress(ValueError):
            self._wakers.remove(wake)


class Share:
    """One board's part in a budget.

    Args:
        budget: The budget, its own or that of several boards.
        exempt: Called with a call and the position of its flow: whether the call takes up no room.
        most: The most calls of this board; None for as many as the budget has.
        shared: Whether the budget belongs to several boards.

    Attributes:
        resumes: When the budget opens calls again, if the last one was refused for its pause.
    """

    def __init__(
        self,
        budget: Budget,
        exempt: Callable[[Call, int], bool] | None = None,
        *,
        most: int | None = None,
        shared: bool = False,
    ) -> None:
        self.budget = budget
        self.most = most
        self.shared = shared
        self.resumes: float | None = None
        self._exempt = exempt
        self._places: dict[Key, _Place] = {}
        self._waits: Counter[Any] = Counter()
        self._wake: Callable[[], object] | None = None

    def begin(self, wake: Callable[[], object] | None) -> None:
        """The driver runs from now on, and is woken by this function."""
        if self.shared and wake is not None:
            self._wake = wake
            self.budget.join(wake)

    def end(self) -> None:
        """The driver has ended, with all its calls. Does no harm if it is called again."""
        if self._wake is not None:
            self.budget.leave(self._wake)
            self._wake = None
        self.budget.give([*self._places.values()])
        self._places.clear()

    def enter(self, keys: Iterable[Key]) -> None:
        """Counts calls that are open already."""
        for key in keys:
            self.budget.enter(self._places, key)

    def open(self, key: Key, call: Call, now: float) -> bool:
        """Opens a call if there is room."""
        exempt = self._exempt is not None and call.prompt is not None and self._exempt(call, key[0])
        self.resumes = None
        if self.budget.take(now, exempt=exempt, held=self._places, key=key) is None:
            self.resumes = self.budget.resumes(now)
            return False
        return True

    def close(self, key: Key, *, succeeded: bool = False) -> None:
        """Closes a call."""
        if (place := self._places.get(key)) is not None:
            self.budget.give([place], succeeded=succeeded)
            del self._places[key]

    def opens_again(
        self, key: Key, call: Call, error: Exception, backoff: float, now: float, *, repeats: bool = True
    ) -> bool:
        """Slows the budget down if there was no room for a call; returns whether the call is to be opened again.

        Args:
            key: The call's key; the call still has its place.
            call: The call, which has sent no text.
            error: Its error.
            backoff: Seconds before a first retry.
            now: The driver's clock.
            repeats: Whether a call that a server has refused may be repeated without a retry of its own.
        """
        # A retry of a point is another call, and has no more waits than the point had.
        waits = (key[0], call.stage, call.point and call.point.index)
        again = self._waits[waits] < MAX_WAITS and self._finds_room_later(key, error, backoff, now, repeats)
        self._waits[waits] += again
        return again

    def _finds_room_later(self, key: Key, error: Exception, backoff: float, now: float, repeats: bool) -> bool:
        if (limit := read_rate_limit(error, time.time())) is not None:
            return self.budget.slow_down(self._places[key], error, limit.seconds, backoff, now) and repeats
        if is_thread_shortage(error) and (others := self.budget.open - self._places[key].counted) > 0:
            self.budget.lower(others, error)
            return True
        return False
