"""The transport of a row's text to its reader: sinks that the worker fills, and streams that callers read.

A slow reader costs no more memory than the text: unread text waits as one string, with at most one wake-up, and is read
as one piece.
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
    """The unread text of a row, as one string, and the row's result.

    One thread puts, and any thread takes. Each change is a single operation of a deque, without a lock, so a signal
    handler or a finalizer may interrupt it anywhere.
    """

    def __init__(self) -> None:
        self._slot: deque[str] = deque()
        self.owner = OwnerProcess()
        self.result: Completion | BaseException | None = None

    def put(self, piece: str) -> None:
        if self._slot:
            with contextlib.suppress(IndexError):  # another thread took it in between
                piece = self._slot.pop() + piece
        self._slot.append(piece)

    def take(self) -> str | None:
        """The unread text; empty at the end, None while there is none yet.

        Raises:
            EngineForked: This is a fork of the process that writes the text.
        """
        self.owner.check()
        ended = self.result is not None  # read first, as the last text comes before the end
        try:
            return self._slot.pop()
        except IndexError:
            return "" if ended else None


class QueueSink:
    """Passes text to a waiting thread. Never blocks the worker, however slow the reader is."""

    def __init__(self) -> None:
        self._unread = _Unread()
        # A lock as a semaphore that counts to one. The standard library's semaphores take a lock to count, and would
        # wait for themselves in a handler that interrupted them.
        self._ready = threading.Lock()
        self._ready.acquire()

    @property
    def result(self) -> Completion | BaseException | None:
        """The completion or error of the row; None until it ends."""
        return self._unread.result

    def text(self, piece: str) -> bool:
        """Receive more text."""
        self._unread.put(piece)
        self._wake()
        return True

    def end(self, result: Completion | BaseException) -> None:
        """Receive the completion, or the error that prevented it."""
        self._unread.result = result
        self._wake()

    def take(self) -> str:
        """All unread text; waits until there is some. Empty only at the end.

        Raises:
            EngineForked: This is a fork of the process that writes the text.
            EngineReentered: There is no text yet, and the worker may be waiting for this thread.
        """
        while (text := self._unread.take()) is None:
            if holds_guard():
                raise reentry_error()
            self._ready.acquire()
        if not text:
            self._wake()  # another thread may wait for the end, too: a reader and a closer
        return text

    def _wake(self) -> None:
        if self._ready.locked():
            with contextlib.suppress(RuntimeError):  # another thread released it in between
                self._ready.release()


class AsyncSink:
    """Passes text to a task through its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._unread = _Unread()
        self._ready = asyncio.Event()
        self._waking = False

    @property
    def result(self) -> Completion | BaseException | None:
        """The completion or error of the row; None until it ends."""
        return self._unread.result

    def text(self, piece: str) -> bool:
        """Receive more text. Returns False if the loop is closed, since then no task can read it."""
        self._unread.put(piece)
        return self._wake()

    def end(self, result: Completion | BaseException) -> None:
        """Receive the completion, or the error that prevented it."""
        self._unread.result = result
        self._wake()

    async def take(self) -> str:
        """All unread text; waits until there is some. Empty only at the end.

        Raises:
            EngineForked: This is a fork of the process that writes the text.
        """
        while (text := self._unread.take()) is None:
            # No wake-up is lost in between: they arrive on this loop, and not before it waits.
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
        # The task that wakes now reads the text so far; later text causes another wake-up.
        self._waking = False
        self._ready.set()


class _Ending:
    """The end of a stream: the code that both stream classes share."""

    _result: Completion | BaseException | None = None
    _closed = False
    _cancel: Callable[[], None]
    _sink: QueueSink | AsyncSink

    def _wait(self) -> None:
        """Wait for the end, if that is possible."""

    def _piece(self, text: str) -> str | None:
        """The text to return to the reader; None at the end.

        Raises:
            Exception: The error with which the stream failed.
        """
        if text:
            return None if self._closed else text
        self._result = self._sink.result
        if isinstance(self._result, BaseException):
            raise _copied(self._result)
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
            raise _copied(self._result)
        return self._result

    def __del__(self) -> None:
        # A stream that is dropped without closing must free its row.
        if self._result is None and hasattr(self, "_cancel"):
            self._cancel()


class CompletionStream(_Ending, Iterator[str]):
    """The text of one completion as it is generated. Iterate in one thread; call `close()` from any.

    Each piece is all text since the last one, of one token or of many.

    Args:
        sink: The sink that the worker fills.
        cancel: Cancels the row; thread-safe and idempotent.
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
        """Stop generating; the row is free by the next step. Iteration skips the unread text."""
        if self._result is None and not self._closed:
            self._closed = True
            self._cancel()

    def _wait(self) -> None:
        # Waits only for a closed stream, and for one step at most: its row ends before the next.
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
    """The text of one completion as it is generated, for one task. Cancelling the task frees the row.

    Args:
        sink: The sink that the worker fills.
        cancel: Cancels the row; thread-safe and idempotent.
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
        """Stop generating and free the row. Iteration skips the unread text."""
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


def _copied(error: BaseException) -> BaseException:
    """A copy of an error to raise: one exception object raised in several threads would mix up their tracebacks."""
    try:
        duplicate = copy.copy(error)
    except Exception:
        return error
    if type(duplicate) is not type(error) or str(duplicate) != str(error):
        return error
    if error.__traceback__ is not None:
        duplicate.__cause__ = error  # its traceback leads into the model
    return duplicate
