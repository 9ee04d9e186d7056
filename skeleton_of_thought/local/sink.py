"""Where the worker puts a row's text: for a thread that waits, and for a task on an event loop.

However slow its reader is, a row costs no more than its text: what was not read yet waits as one string, with
one wake-up at most, and is read as one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque

from skeleton_of_thought.local.guard import Home, holds_guard, reentered
from skeleton_of_thought.types import Completion

__all__ = ["AsyncSink", "QueueSink"]


class _Unread:
    """The text that came since the last reading, as one string, and the row's end.

    One thread puts and any take. Each change is a single operation of a deque and there is no lock, so it does
    not matter where a signal handler or a finalizer interrupts it.
    """

    def __init__(self) -> None:
        self._slot: deque[str] = deque()
        self.home = Home()
        self.result: Completion | BaseException | None = None

    def put(self, piece: str) -> None:
        if self._slot:
            with contextlib.suppress(IndexError):  # taken just now
                piece = self._slot.pop() + piece
        self._slot.append(piece)

    def take(self) -> str | None:
        """What there is, which is empty at the end; None where more is to be waited for.

        Raises:
            EngineForked: This is a fork of the process in which the text is written.
        """
        self.home.check()
        ended = self.result is not None  # looked at first: the last text comes before the end
        try:
            return self._slot.pop()
        except IndexError:
            return "" if ended else None


class QueueSink:
    """Hands text to one waiting thread; never blocks the worker, however slow the consumer is."""

    def __init__(self) -> None:
        self._unread = _Unread()
        # A semaphore that counts to one. Those of the standard library take a lock of their own to count,
        # and so would wait for themselves in a handler that interrupted them.
        self._ready = threading.Lock()
        self._ready.acquire()

    @property
    def result(self) -> Completion | BaseException | None:
        """How the row ended; None as long as it has not."""
        return self._unread.result

    def text(self, piece: str) -> bool:
        """More text."""
        self._unread.put(piece)
        self._wake()
        return True

    def end(self, result: Completion | BaseException) -> None:
        """The completion, or why there is none."""
        self._unread.result = result
        self._wake()

    def take(self) -> str:
        """All text that was not read yet, waiting for some if there is none. Empty at the end alone.

        Raises:
            EngineForked: This is a fork of the process in which the text is written.
            EngineReentered: There is none yet, and the worker may wait for this very thread.
        """
        while (text := self._unread.take()) is None:
            if holds_guard():
                raise reentered()
            self._ready.acquire()
        if not text:
            self._wake()  # several may wait for the end: one to read, one that closed
        return text

    def _wake(self) -> None:
        if self._ready.locked():
            with contextlib.suppress(RuntimeError):  # two woke it at once
                self._ready.release()


class AsyncSink:
    """Hands text to a task, through its own event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._unread = _Unread()
        self._ready = asyncio.Event()
        self._waking = False

    @property
    def result(self) -> Completion | BaseException | None:
        """How the row ended; None as long as it has not."""
        return self._unread.result

    def text(self, piece: str) -> bool:
        """More text; False when the loop is closed and so nobody is left to read it."""
        self._unread.put(piece)
        return self._wake()

    def end(self, result: Completion | BaseException) -> None:
        """The completion, or why there is none."""
        self._unread.result = result
        self._wake()

    async def take(self) -> str:
        """All text that was not read yet, waiting for some if there is none. Empty at the end alone.

        Raises:
            EngineForked: This is a fork of the process in which the text is written.
        """
        while (text := self._unread.take()) is None:
            # Nothing can be missed in between: wake-ups arrive on this loop, and not before it waits.
            self._ready.clear()
            await self._ready.wait()
        return text

    def _wake(self) -> bool:
        if self._waking:
            return not self._loop.is_closed()
        self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._arrive)
        except RuntimeError:
            return False
        return True

    def _arrive(self) -> None:
        # What came before is read by whoever wakes now; what comes from here on calls again.
        self._waking = False
        self._ready.set()
