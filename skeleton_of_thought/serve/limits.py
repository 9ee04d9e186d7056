"""The calls that are open upstream over all clients, and the requests that wait for one."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.budget import Budget, Share
from skeleton_of_thought.ledger import Key
from skeleton_of_thought.serve.errors import ServeError, stopping
from skeleton_of_thought.types import Call

__all__ = ["CallLimit"]

_HEAD_START = 0.01
"""Seconds that answers which have begun have to take a place before a new answer gets it."""
_LONGEST_RETRY = 60
"""The most seconds that `Retry-After` names."""


class _AnswerShare(Share):
    """An answer's part in the budget of its model.

    Args:
        limit: The limit over all models.
        budget: The budget of the model.
        reserved: The place that the answer was admitted with. Its first call takes it.
        most: The most calls of this answer that are open at a time; None for no limit of its own.

    Attributes:
        refused: Whether the last call that was to open found no room.
    """

    def __init__(self, limit: CallLimit, budget: Budget, reserved: Any, most: int | None) -> None:
        super().__init__(budget, most=most, shared=True)
        self.refused = False
        self._limit = limit
        self._reserved = reserved

    def open(self, key: Key, call: Call, now: float) -> bool:
        """Opens a call if there is room, for its model and over all models."""
        self.resumes = None
        if self._reserved is None:
            opened = self._limit.has_room and super().open(key, call, now)
        elif opened := (resumes := self.budget.resumes(now)) is None:
            self._places[key], self._reserved = self._reserved, None
        else:
            self.resumes = resumes
        self.refused = not opened and self.resumes is None
        return opened

    def end(self) -> None:
        """The answer has ended, with all its calls. Does no harm if it is called again."""
        super().end()
        self.refused = False
        if self._reserved is not None:
            self.budget.give([self._reserved])
            self._reserved = None

    def wake(self) -> None:
        """Has the driver try again to open its next call."""
        if self._wake is not None:
            self._wake()


@dataclass(eq=False)
class _Waiter:
    """A request that waits for a place.

    Attributes:
        model: The name of its model.
        place: Gets the place.
    """

    model: str
    place: asyncio.Future[Any]


class CallLimit:
    """A bound on the calls that are open upstream, and a queue before it. For the tasks of one event loop.

    An answer is admitted with its first call. Its further calls take places as they become free, before requests that
    wait, so that answers which have begun end early. Requests are admitted in the order in which they came; one that is
    cancelled leaves the queue. Each model has a budget of its own within the bound: a server that limits its rate slows
    down no other model.

    Args:
        max_open: The most calls that are open at any time.
        max_waiting: The most requests that wait; further ones are refused.
    """

    def __init__(self, max_open: int, max_waiting: int) -> None:
        self.max_open, self.max_waiting = max_open, max_waiting
        self.closing = False
        self._budgets: dict[str, Budget] = {}
        self._shares: list[_AnswerShare] = []  # the oldest first
        self._queue: list[_Waiter] = []
        self._turn: asyncio.Handle | None = None
        self._pause: asyncio.Handle | None = None
        self._admitted = 0
        self._seconds = 1.0  # of an answer, on the average of the last ones

    @property
    def open_calls(self) -> int:
        """The calls that are open now."""
        return sum(budget.open for budget in self._budgets.values())

    @property
    def waiting(self) -> int:
        """The requests that wait now."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether another call may open now."""
        return self.open_calls < self.max_open

    def close(self) -> None:
        """From now on all requests are refused, also those that wait. Those that were admitted go on."""
        self.closing = True
        for waiter in self._queue:
            if not waiter.place.done():
                waiter.place.set_exception(stopping())

    @contextlib.asynccontextmanager
    async def admitted(self, model: str = "", most: int | None = None) -> AsyncIterator[Share]:
        """Waits until an answer may begin; gives its share, for `skeleton_of_thought.drive.arun`.

        Args:
            model: The name of its model.
            most: The most of its calls that are open at a time; None for as many as there is room for.

        Raises:
            ServeError: Too many requests wait (429), or the server stops (503).
        """
        reserved = await self._enter(model)
        share = _AnswerShare(self, self._budgets[model], reserved, most)
        self._shares.append(share)
        with self._counted():
            try:
                yield share
            finally:
                self._shares.remove(share)
                share.end()

    @contextlib.asynccontextmanager
    async def place(self, model: str = "") -> AsyncIterator[None]:
        """Waits until one call may open, and keeps its place until the block ends; see `admitted`."""
        taken = await self._enter(model)
        succeeded = False
        with self._counted():
            try:
                yield
                succeeded = True
            finally:
                self._budgets[model].give([taken], succeeded=succeeded)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        begun = time.monotonic()
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1
            self._seconds += 0.2 * (time.monotonic() - begun - self._seconds)

    async def _enter(self, model: str) -> Any:
        """A place for a request of the model, after all those that wait."""
        if self.closing:
            raise stopping()
        if not self._queue and not self._begun_wait() and (place := self._take(model)) is not None:
            return place
        if len(self._queue) >= self.max_waiting:
            raise ServeError(
                f"The server is busy: {self.open_calls} calls are open, and {len(self._queue)} requests wait.",
                429,
                "rate_limit_error",
                code="rate_limit_exceeded",
                retry_after=self._retry_after(),
            )
        waiter = _Waiter(model, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self._schedule()
        try:
            return await waiter.place
        except asyncio.CancelledError:
            # The place may have come just before the request was cancelled.
            if waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
                self._budgets[model].give([waiter.place.result()])
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._queue.remove(waiter)

    def _retry_after(self) -> int:
        """Seconds until the queue has moved on by about one, as far as the last answers tell."""
        seconds = self._seconds * (len(self._queue) + 1) / max(1, self._admitted)
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds)))

    def _take(self, model: str) -> Any:
        """A place in the budget of the model; None if there is no room."""
        if (budget := self._budgets.get(model)) is None:
            budget = self._budgets[model] = Budget(self.max_open)
            budget.join(self._freed)
        return budget.take(time.monotonic()) if self.has_room else None

    def _begun_wait(self) -> bool:
        return any(share.refused for share in self._shares)

    # --- turns: places that became free are given away ---

    def _freed(self) -> None:
        """A call has ended. The budget is locked meanwhile, so the place is given away a moment later."""
        if self._queue or (len(self._budgets) > 1 and self._begun_wait()):
            self._schedule()

    def _schedule(self) -> None:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._give_away)

    def _give_away(self) -> None:
        """Answers that have begun take their places first; then requests that wait get theirs."""
        self._turn = None
        if not self._begun_wait():
            self._admit()
            return
        if self.has_room:
            for share in self._shares:
                if share.refused:
                    share.wake()
            if self._queue:
                self._turn = asyncio.get_running_loop().call_later(_HEAD_START, self._admit_now)

    def _admit_now(self) -> None:
        """Those that have begun had their turn: one that still counts as refused needs no place any more."""
        self._turn = None
        if self.has_room:
            for share in self._shares:
                share.refused = False
        self._admit()

    def _admit(self) -> None:
        """Admits requests in their order, but for those of a model whose server has asked for a pause."""
        now, resumes = time.monotonic(), math.inf
        for waiter in [*self._queue]:
            if not self.has_room:
                break
            if waiter.place.done():
                continue
            if (place := self._take(waiter.model)) is not None:
                waiter.place.set_result(place)
                self._queue.remove(waiter)
            elif (until := self._budgets[waiter.model].resumes(now)) is not None:
                resumes = min(resumes, until)
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if resumes < math.inf:
            self._pause = asyncio.get_running_loop().call_later(max(0.0, resumes - now), self._give_away)
