"""The tasks in which the async driver makes its calls: one for each call, or for each batch of calls.

The driver stores each object before it calls `start`, so that it can cancel the task even if an interrupt breaks off
the start.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence

from skeleton_of_thought.adapters.replies import aclosing_stream
from skeleton_of_thought.board import End, Key, Text
from skeleton_of_thought.together import AsyncTogether, Members, WorkerReport, empty_ends
from skeleton_of_thought.types import Call, Reply

__all__ = ["BatchTask", "CallTask"]


class CallTask:
    """A task that opens one call and passes its text on."""

    def __init__(
        self,
        key: Key,
        call: Call,
        open_call: Callable[[Call, int], AsyncIterator[str | Reply]],
        inbox: asyncio.Queue[list[WorkerReport]],
    ) -> None:
        self._key = key
        self._call = call
        self._open_call = open_call
        self._inbox = inbox
        self._cancelled = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task."""
        # Tasks and a queue instead of a TaskGroup: each step of an async generator may run in another task, and there
        # a cancel scope around a `yield` breaks.
        self.task = asyncio.create_task(self._work())
        self.task.add_done_callback(self._report_broken_off)

    def cancel(self, key: Key) -> None:
        """Cancels the call."""
        self._cancelled = True
        if self.task is not None:
            self.task.cancel()

    def _report_broken_off(self, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never runs its own handlers, and an interrupt breaks them off.
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            self._inbox.put_nowait([End(self._key, Reply(), error)])

    async def _work(self) -> None:
        if self._cancelled:  # by an interrupt within `start`, when the task was not known yet
            return
        reply, call = Reply(), self._call
        error: BaseException | None = None
        try:
            if call.router is not None:
                decision = await call.router.adecide()
                reply = Reply(decision=decision, usage=decision.usage)
            else:
                left = math.inf if call.max_chars is None else call.max_chars
                async with aclosing_stream(self._open_call(call, self._key[0])) as stream:
                    async for item in stream:
                        if _cancelling():
                            # A client below has swallowed the cancellation, and would read on forever.
                            raise asyncio.CancelledError
                        if isinstance(item, Reply):
                            reply = item
                        elif item:
                            self._inbox.put_nowait([Text(self._key, item)])
                            left -= len(item)
                            if left < 0:  # the flow cuts the text, but may be slow to read it
                                break
        except asyncio.CancelledError as cancelled:
            if _cancelling():
                raise
            # The backend cancelled itself, which is a failure like any other.
            error = ConnectionAbortedError("The backend cancelled the call.")
            error.__cause__ = cancelled
        except BaseException as caught:  # the driver raises it in the caller's thread
            error = caught
        self._inbox.put_nowait([End(self._key, reply, error)])


class BatchTask:
    """A task that makes several calls at once; it is cancelled once all of them are."""

    def __init__(
        self, openings: Sequence[tuple[Key, Call]], together: AsyncTogether, inbox: asyncio.Queue[list[WorkerReport]]
    ) -> None:
        self._members = Members(openings, lambda messages: inbox.put_nowait(list(messages)))
        self._together = together
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task."""
        self.task = asyncio.create_task(self._work())
        # A task that is cancelled before its first step never runs its own `except`.
        self.task.add_done_callback(lambda _: self._members.end(empty_ends))

    def cancel(self, key: Key) -> None:
        """Drops one of its calls."""
        if self._members.drop(key) and self.task is not None:
            self.task.cancel()

    async def _work(self) -> None:
        if not self._members.wanted:  # by an interrupt within `start`, when the task was not known yet
            return
        try:
            self._members.succeed(await self._together.answer(self._members.arguments))
        except asyncio.CancelledError as cancelled:
            if _cancelling():
                raise
            error = ConnectionAbortedError("The backend cancelled the calls.")
            error.__cause__ = cancelled
            self._members.fail(error)
        except BaseException as error:  # handled in the caller's thread
            if self._members.ended:
                raise
            self._members.fail(error)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
