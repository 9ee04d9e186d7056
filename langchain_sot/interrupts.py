"""LangGraph's control flow through an answer: an interrupt pauses the graph, it is no failed call.

`interrupt()` and similar functions leave a node by an exception. Within an answer such an exception would count as a
failed call, which is retried, replaced by a placeholder, or by the direct route if a router raised it. Here it is
lifted past all of these, to the caller of the answer.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

__all__ = ["dropped", "lifted", "lifting"]


class _Lifted(BaseException):
    """Carries an exception of LangGraph past all handlers of failures; drivers raise it in the caller's thread."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


@contextlib.contextmanager
def lifted() -> Iterator[None]:
    """Lifts the exceptions that LangGraph raises in the block."""
    try:
        yield
    except Exception as error:
        errors: Any = sys.modules.get("langgraph.errors")
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


def lifting(run: Callable[..., Any], open_call: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A driver, and the function that opens its calls, with LangGraph's exceptions in them lifted past the flows.

    Args:
        run: `drive.run` or `drive.arun`.
        open_call: Opens a call for this driver.
    """
    if inspect.isasyncgenfunction(run):
        return _arun_dropping(run), _aopen_lifting(open_call)
    return _run_dropping(run), _open_lifting(open_call)


def _run_dropping(run: Callable[..., Any]) -> Callable[..., Generator[Any]]:
    def events(*args: Any, **kwargs: Any) -> Generator[Any]:
        with dropped(), contextlib.closing(run(*args, **kwargs)) as own:
            yield from own

    return events


def _arun_dropping(run: Callable[..., Any]) -> Callable[..., AsyncGenerator[Any]]:
    async def events(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        with dropped():
            async with contextlib.aclosing(run(*args, **kwargs)) as own:
                async for event in own:
                    yield event

    return events


def _open_lifting(open_call: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def opened(*args: Any) -> Iterator[Any]:
        with lifted(), contextlib.closing(open_call(*args)) as stream:
            yield from stream

    return opened


def _aopen_lifting(open_call: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def opened(*args: Any) -> AsyncIterator[Any]:
        with lifted():
            async with contextlib.aclosing(open_call(*args)) as stream:
                async for item in stream:
                    yield item

    return opened
