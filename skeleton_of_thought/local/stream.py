"""The way of a row's text from the worker to its reader: sinks that the worker fills, and streams that callers read.

However slow its reader is, a row costs no more than its text: what was not read yet waits as one string, with
one wake-up at most, and is read as one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from skeleton_of_thought.local.guard import OwnerProcess, holds_guard, reentry_error
from skeleton_of_thought.types import Completion

__all__ = ["AsyncCompletionStream", "AsyncSink", "CompletionStream", "QueueSink"]


class _Unread:
    """The text that came since the last reading, as one string, and the row's end.

    One thread puts and any take. Each change is a single operation of a deque and there is no lock, so it does
    not matter where a signal handler or a finalizer interrupts it.
    """

    def __init__(self) -> None:
        self._slot: deque[str] = deque()
        self.owner = OwnerProcess()
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
        self.owner.check()
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
                raise reentry_error()
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


class _Ending:
    """What both kinds of stream know about their end."""

    _result: Completion | BaseException | None = None
    _closed = False
    _cancel: Callable[[], None]
    _sink: QueueSink | AsyncSink

    def _wait(self) -> None:
        """Wait for the end, where that is possible."""

    def _piece(self, text: str) -> str | None:
        """What to hand out of the text that was read; None when there is no more to be had.

        Raises:
            Exception: The error with which the stream failed.
        """
        if text:
            return None if self._closed else text
        self._result = self._sink.result
        if isinstance(self._result, BaseException):
            raise _fresh(self._result)
        return None

    @property
    def completion(self) -> Completion:
        """The finished completion, also of a stream that was closed early.

        Raises:
            RuntimeError: The stream has not ended yet.
            Exception: The error with which the stream failed.
        """
        self._wait()
        if self._result is None:
            raise RuntimeError("The stream has not ended yet: read it to its end or close it first.")
        if isinstance(self._result, BaseException):
            raise _fresh(self._result)
        return self._result

    def __del__(self) -> None:
        # A consumer that goes away without closing must not keep its row.
        if self._result is None and hasattr(self, "_cancel"):
            self._cancel()


class CompletionStream(_Ending, Iterator[str]):
    """The text of one completion as it is generated. Iterate from one thread; `close()` from any.

    What came since the last piece is the next one, be it a token's text or much.

    Args:
        sink: Where the worker puts the text.
        cancel: Tells the engine that nobody waits any more; thread-safe and idempotent.
    """

    def __init__(self, sink: QueueSink, cancel: Callable[[], None]) -> None:
        self._sink: QueueSink = sink
        self._cancel = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._closed or self._result is not None:
            raise StopIteration
        piece = self._piece(self._sink.take())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Stop generating; the row is free by the next step. Text that was not read yet is not iterated."""
        if self._result is None and not self._closed:
            self._closed = True
            self._cancel()

    def _wait(self) -> None:
        # Only a closed stream is waited for, and for one step at most: its row ends with the next.
        while self._closed and self._result is None:
            if not self._sink.take():
                self._result = self._sink.result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncCompletionStream(_Ending, AsyncIterator[str]):
    """The text of one completion as it is generated, for one task. A cancelled task frees its row.

    Args:
        sink: Where the worker puts the text.
        cancel: Tells the engine that nobody waits any more; thread-safe and idempotent.
    """

    def __init__(self, sink: AsyncSink, cancel: Callable[[], None]) -> None:
        self._sink: AsyncSink = sink
        self._cancel = cancel

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._closed or self._result is not None:
            raise StopAsyncIteration
        try:
            piece = self._piece(await self._sink.take())
        except asyncio.CancelledError:
            self._cancel()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Stop generating and free the row. Text that was not read yet is not iterated."""
        if self._result is None:
            self._closed = True
            self._cancel()
            while self._result is None:
                if not await self._sink.take():
                    self._result = self._sink.result

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _fresh(error: BaseException) -> BaseException:
    """A copy to raise: one exception object raised in several threads would mix up their tracebacks."""
    try:
        duplicate = copy.copy(error)
    except Exception:
        return error
    if type(duplicate) is not type(error) or str(duplicate) != str(error):
        return error
    if error.__traceback__ is not None:
        duplicate.__cause__ = error  # which shows where in the model it happened
    return duplicate
