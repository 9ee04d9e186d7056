"""What callers hold: an iterator over one row's text, for threads and for the event loop."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from skeleton_of_thought.local.sink import AsyncSink, QueueSink
from skeleton_of_thought.types import Completion

__all__ = ["AsyncCompletionStream", "CompletionStream"]


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
