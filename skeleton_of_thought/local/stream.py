"""What callers hold: an iterator over one row's text, for threads and for the event loop."""

from __future__ import annotations

import asyncio
import copy
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from skeleton_of_thought.types import Completion

__all__ = ["AsyncCompletionStream", "AsyncSink", "CompletionStream", "QueueSink"]

_Item = str | Completion | BaseException


class QueueSink:
    """Hands items to one waiting thread; never blocks the worker, however slow the consumer is."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[_Item] = queue.SimpleQueue()

    def text(self, piece: str) -> bool:
        """More text."""
        self.items.put(piece)
        return True

    def end(self, result: Completion | BaseException) -> None:
        """The completion, or why there is none."""
        self.items.put(result)


class AsyncSink:
    """Hands items to a task, through its own event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.items: asyncio.Queue[_Item] = asyncio.Queue()

    def text(self, piece: str) -> bool:
        """More text; False when the loop is closed and so nobody is left to read it."""
        return self._put(piece)

    def end(self, result: Completion | BaseException) -> None:
        """The completion, or why there is none."""
        self._put(result)

    def _put(self, item: _Item) -> bool:
        try:
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:
            return False
        return True


class _Ending:
    """What both kinds of stream know about their end."""

    _result: Completion | BaseException | None = None
    _closed = False
    _cancel: Callable[[], None]

    def _wait(self) -> None:
        """Wait for the end, where that is possible."""

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

    Args:
        sink: Where the worker puts the text.
        cancel: Tells the engine that nobody waits any more; thread-safe and idempotent.
    """

    def __init__(self, sink: QueueSink, cancel: Callable[[], None]) -> None:
        self._items = sink.items
        self._cancel = cancel

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if self._closed or self._result is not None:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, str) and not self._closed:
            return item
        if isinstance(item, str):
            raise StopIteration
        self._settle(item)
        if isinstance(item, BaseException):
            raise _fresh(item)
        raise StopIteration

    def close(self) -> None:
        """Stop generating; the row is free by the next step. Text that was not read yet is not iterated."""
        if self._result is None and not self._closed:
            self._closed = True
            self._cancel()

    def _wait(self) -> None:
        # Only a closed stream is waited for, and for one step at most: its row ends with the next.
        while self._closed and self._result is None:
            item = self._items.get()
            if not isinstance(item, str):
                self._settle(item)

    def _settle(self, result: Completion | BaseException) -> None:
        self._result = result
        # Another thread may wait in `__next__` or `close()`: it finds the same end.
        self._items.put(result)

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
        self._items = sink.items
        self._cancel = cancel

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._result is not None:
            raise StopAsyncIteration
        try:
            item = await self._items.get()
        except asyncio.CancelledError:
            self._cancel()
            raise
        if isinstance(item, str):
            return item
        self._settle(item)
        if isinstance(item, BaseException):
            raise _fresh(item)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop generating and free the row."""
        if self._result is None:
            self._cancel()
            while self._result is None:
                item = await self._items.get()
                if not isinstance(item, str):
                    self._settle(item)

    def _settle(self, result: Completion | BaseException) -> None:
        self._result = result
        self._items.put_nowait(result)

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
