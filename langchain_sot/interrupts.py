"""LangGraph's control flow through an answer: an interrupt pauses the graph, it is no failed call.

`interrupt()` and similar functions leave a node by an exception. Within an answer such an exception would count as a
failed call, which is retried, replaced by a placeholder, or by the direct route if a router raised it. Here it is
lifted past all of these, to the caller of the answer.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any, cast

__all__ = ["alifting", "dropped", "lifted", "lifting"]


class _Lifted(BaseException):
    """Carries an exception of LangGraph past all handlers of failures; drivers raise it in the caller's thread."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def _graph_errors() -> Any:
    # Not imported: without a graph that runs the chain, none of its exceptions can occur.
    return sys.modules.get("langgraph.errors")


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Lifts the exceptions that LangGraph raises in the block."""
    try:
        yield
    except Exception as error:
        errors = _graph_errors()
        if errors is not None and isinstance(error, errors.GraphBubbleUp):
            raise _Lifted(error) from None
        raise


@contextlib.contextmanager
def dropped() -> Iterator[None]:
    """Raises a lifted exception of the block as the original one."""
    try:
        yield
    except _Lifted as lifted_error:
        raise lifted_error.error from None


def lifting(open_call: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """The function that opens calls, with LangGraph's exceptions in them lifted."""
    if _graph_errors() is None:
        return open_call

    def opened(*args: Any) -> Iterator[Any]:
        with lifted(), contextlib.closing(cast(Generator[Any], open_call(*args))) as stream:
            yield from stream

    return opened


def alifting(open_call: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """Async twin of `lifting`."""
    if _graph_errors() is None:
        return open_call

    async def opened(*args: Any) -> AsyncIterator[Any]:
        with lifted():
            async with contextlib.aclosing(cast(AsyncGenerator[Any], open_call(*args))) as stream:
                async for item in stream:
                    yield item

    return opened
