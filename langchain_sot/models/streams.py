"""Streams from a model through the retries and fallbacks around it, closed together with them.

The wrappers' own `astream` leaves the model's stream to the garbage collector when it is closed early, and retries do
nothing for streams at all (`langchain_core/runnables/retry.py`: "stream() and transform() are not retried"). Here every
stream is closed with the one around it, and a retry tries again until the first chunk arrives. A stream that breaks
later is retried by the flow, which writes the point anew.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from langchain_sot.models.resolution import merged_configs, read_traits, with_bindings
from skeleton_of_thought.adapters.replies import aclose_stream, close_stream

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableWithFallbacks
    from langchain_core.runnables.retry import RunnableRetry

__all__ = ["aopen_stream", "open_stream"]

_NOTHING: Any = object()


def open_stream(llm: object, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Streams from a model of a `ResolvedModel`. Closing the iterator closes the model's own stream."""
    traits = read_traits(llm)
    runnable: Any = llm
    if traits.binding:
        return open_stream(*_inside(runnable, input, config, kwargs))
    if traits.retry:
        return _retried(runnable, input, config, kwargs)
    if traits.stock_fallbacks and runnable.exception_key is None:
        return _first_that_begins(runnable, input, config, kwargs)
    stream: Iterator[Any] = runnable.stream(input, config, **kwargs)
    return stream


def aopen_stream(llm: object, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
    """Async twin of `open_stream`."""
    traits = read_traits(llm)
    runnable: Any = llm
    if traits.binding:
        return aopen_stream(*_inside(runnable, input, config, kwargs))
    if traits.retry:
        return _aretried(runnable, input, config, kwargs)
    if traits.stock_fallbacks and runnable.exception_key is None:
        return _afirst_that_begins(runnable, input, config, kwargs)
    stream: AsyncIterator[Any] = runnable.astream(input, config, **kwargs)
    return stream


def _inside(
    llm: RunnableBindingBase[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], Any, RunnableConfig, Mapping[str, Any]]:
    return llm.bound, input, with_bindings([llm], config), {**llm.kwargs, **kwargs}


def _retried(
    llm: RunnableRetry[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> Generator[Any]:
    bound, input, config, kwargs = _inside(llm, input, config, kwargs)
    stream: Any = None
    try:
        first = _NOTHING
        for attempt in llm._sync_retrying(reraise=True):
            with attempt:
                close_stream(stream)
                stream = open_stream(bound, input, _attempt_config(config, attempt.retry_state.attempt_number), kwargs)
                first = next(stream, _NOTHING)
        if first is not _NOTHING:
            yield first
            yield from stream
    finally:
        close_stream(stream)


async def _aretried(
    llm: RunnableRetry[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> AsyncGenerator[Any]:
    bound, input, config, kwargs = _inside(llm, input, config, kwargs)
    stream: Any = None
    try:
        first = _NOTHING
        async for attempt in llm._async_retrying(reraise=True):
            with attempt:
                await aclose_stream(stream)
                stream = aopen_stream(bound, input, _attempt_config(config, attempt.retry_state.attempt_number), kwargs)
                first = await anext(stream, _NOTHING)
        if first is not _NOTHING:
            yield first
            async for chunk in stream:
                yield chunk
    finally:
        await aclose_stream(stream)


def _attempt_config(config: RunnableConfig, attempt: int) -> RunnableConfig:
    # The tag that `RunnableRetry` gives the attempts of an `invoke`.
    return merged_configs(config, {"tags": [f"retry:attempt:{attempt}"]}) if attempt > 1 else config


def _first_that_begins(
    llm: RunnableWithFallbacks[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> Generator[Any]:
    error: BaseException | None = None
    for runnable in llm.runnables:
        stream: Any = None
        try:
            try:
                stream = open_stream(runnable, input, config, kwargs)
                first = next(stream, _NOTHING)
            except llm.exceptions_to_handle as failure:
                error = error or failure
                continue
            if first is not _NOTHING:
                yield first
                yield from stream
            return
        finally:
            close_stream(stream)
    assert error is not None
    raise error


async def _afirst_that_begins(
    llm: RunnableWithFallbacks[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> AsyncGenerator[Any]:
    error: BaseException | None = None
    for runnable in llm.runnables:
        stream: Any = None
        try:
            try:
                stream = aopen_stream(runnable, input, config, kwargs)
                first = await anext(stream, _NOTHING)
            except llm.exceptions_to_handle as failure:
                error = error or failure
                continue
            if first is not _NOTHING:
                yield first
                async for chunk in stream:
                    yield chunk
            return
        finally:
            await aclose_stream(stream)
    assert error is not None
    raise error
