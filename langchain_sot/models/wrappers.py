"""What people put around a model: bindings, retries, fallbacks, configurable fields and alternatives.

A config decides which model a call goes to. `settled` finds out, `find_backend` says what kind of model that is, and
`begin` streams from it. LangChain's own wrappers do the rest, where nothing is streamed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs

from langchain_sot.models.kinds import (
    has_fallbacks,
    is_binding,
    is_configurable,
    is_native,
    is_retry,
    is_string_llm,
    may_be_adopted,
)

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableWithFallbacks
    from langchain_core.runnables.retry import RunnableRetry

__all__ = ["Backend", "abegin", "aclose", "begin", "close", "find_backend", "models_in", "settled", "unbound"]

_NOTHING: Any = object()

_SERIAL = frozenset({"ChatLlamaCpp", "LlamaCpp"})
"""Known by name: langchain-community, which has them, is not imported here."""


@dataclass(frozen=True)
class Backend:
    """What kind of model stands behind a runnable.

    Attributes:
        model: The model itself, out of its wrappers; any runnable may be one.
    """

    model: Runnable[Any, Any]

    @property
    def native(self) -> bool:
        """Whether it is this package's own, which takes a prefill, stop strings and a limit with each call."""
        return is_native(self.model)

    @property
    def text(self) -> bool:
        """Whether it completes a string instead of answering a chat."""
        return is_string_llm(self.model)

    @property
    def serial(self) -> bool:
        """Whether two calls at a time would break it: llama-cpp-python's model in this process, which has one state."""
        return any(kind.__name__ in _SERIAL for kind in type(self.model).__mro__)


def models_in(
    llm: Runnable[Any, Any], config: RunnableConfig | None, kwargs: Mapping[str, Any]
) -> Iterator[tuple[Runnable[Any, Any], dict[str, Any]]]:
    """The models behind bindings, retries, fallbacks and what is configurable.

    Args:
        llm: A model with whatever is around it.
        config: What chooses where there is a choice; None for the defaults.
        kwargs: What a call passes on to the model.

    Returns:
        Each model that may get the call, with the keywords that come with it.
    """
    if is_configurable(llm):
        llm, config = (llm.default, None) if config is None else llm.prepare(config)
        yield from models_in(llm, config, kwargs)
    elif isinstance(llm, RunnableBindingBase):
        inner = None if config is None else merge_configs(llm.config, config)
        yield from models_in(llm.bound, inner, {**llm.kwargs, **kwargs})
    elif has_fallbacks(llm):
        for runnable in llm.runnables:
            yield from models_in(runnable, config, kwargs)
    else:
        yield llm, dict(kwargs)


def find_backend(llm: Runnable[Any, Any]) -> Backend:
    """Looks through whatever is around the model (where there is a choice, at its default: see `settled`)."""
    # Fallbacks all get the same input: what only some understand, none must get.
    backends = [Backend(model) for model, _ in models_in(llm, None, {})]
    return next((backend for backend in backends if not backend.native), backends[0])


def settled(
    llm: Runnable[Any, Any], config: RunnableConfig, kwargs: Mapping[str, Any], *, adopts: bool
) -> Runnable[Any, Any]:
    """The runnable as this config chooses it: nothing in it is configurable any more, and local models are adopted.

    Args:
        llm: A model with whatever is around it.
        config: The config of a call.
        kwargs: What the call passes on to the model.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.

    Raises:
        ValueError: The config names an alternative that there is not.
    """
    if is_binding(llm):
        bound = settled(llm.bound, _bound_config(llm, config), {**llm.kwargs, **kwargs}, adopts=adopts)
        return llm if bound is llm.bound else llm.model_copy(update={"bound": bound})
    if is_configurable(llm):
        chosen, prepared = llm.prepare(config)
        bound = settled(chosen, prepared, kwargs, adopts=adopts)
        # Alternatives may rename what is configurable inside of them; the rest of the config comes with the call.
        own = cast(RunnableConfig, {**(llm.config or {}), "configurable": prepared.get("configurable") or {}})
        return RunnableBinding(bound=bound, kwargs={}, config=own)
    if is_retry(llm):
        bound = settled(llm.bound, _bound_config(llm, config), {**llm.kwargs, **kwargs}, adopts=adopts)
        return llm if bound is llm.bound else llm.model_copy(update={"bound": bound})
    if has_fallbacks(llm, stock=True):
        first, *others = (settled(runnable, config, kwargs, adopts=adopts) for runnable in llm.runnables)
        return llm.model_copy(update={"runnable": first, "fallbacks": others})
    if not may_be_adopted(llm):
        return llm
    from langchain_sot.local.adoption import adopt_runnable, with_async_methods

    return adopt_runnable(llm, kwargs) if adopts else with_async_methods(llm)


def unbound(
    llm: Runnable[Any, Any], config: RunnableConfig, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], RunnableConfig, dict[str, Any]]:
    """The runnable without the bindings around it, and what they bind."""
    merged = dict(kwargs)
    while is_binding(llm):
        config = _bound_config(llm, config)
        merged = {**llm.kwargs, **merged}
        llm = llm.bound
    return llm, config, merged


def _bound_config(binding: RunnableBindingBase[Any, Any], config: RunnableConfig) -> RunnableConfig:
    merged = merge_configs(binding.config, config)
    return merge_configs(merged, *(make(merged) for make in binding.config_factories))


# --- streams ---

# The wrappers' own `astream` leaves the model's stream to the garbage collector when it is closed early, and retries
# do nothing for streams at all (`langchain_core/runnables/retry.py`: "stream() and transform() are not retried"). Here
# every stream is closed with the one around it, and a retry tries again until the first chunk is there. What breaks
# later is the flow's business, which writes the point anew.


def begin(llm: Runnable[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Streams from a settled runnable. Whoever closes the iterator closes the model's own stream."""
    if is_binding(llm):
        return begin(*_inside(llm, input, config, kwargs))
    if is_retry(llm):
        return _retried(llm, input, config, kwargs)
    if has_fallbacks(llm, stock=True) and llm.exception_key is None:
        return _first_that_begins(llm, input, config, kwargs)
    return llm.stream(input, config, **kwargs)


def abegin(
    llm: Runnable[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> AsyncIterator[Any]:
    """Async twin of `begin`."""
    if is_binding(llm):
        return abegin(*_inside(llm, input, config, kwargs))
    if is_retry(llm):
        return _aretried(llm, input, config, kwargs)
    if has_fallbacks(llm, stock=True) and llm.exception_key is None:
        return _afirst_that_begins(llm, input, config, kwargs)
    return llm.astream(input, config, **kwargs)


def close(stream: Any) -> None:
    """Closes a stream, where it can be closed."""
    if (end := getattr(stream, "close", None)) is not None:
        end()


async def aclose(stream: Any) -> None:
    """Async twin of `close`."""
    if (end := getattr(stream, "aclose", None)) is not None:
        await end()


def _inside(
    llm: RunnableBindingBase[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], Any, RunnableConfig, Mapping[str, Any]]:
    return llm.bound, input, _bound_config(llm, config), {**llm.kwargs, **kwargs}


def _retried(
    llm: RunnableRetry[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> Generator[Any]:
    bound, input, config, kwargs = _inside(llm, input, config, kwargs)
    stream: Any = None
    try:
        first = _NOTHING
        for attempt in llm._sync_retrying(reraise=True):
            with attempt:
                close(stream)
                stream = begin(bound, input, _attempt_config(config, attempt.retry_state.attempt_number), kwargs)
                first = next(stream, _NOTHING)
        if first is not _NOTHING:
            yield first
            yield from stream
    finally:
        close(stream)


async def _aretried(
    llm: RunnableRetry[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> AsyncGenerator[Any]:
    bound, input, config, kwargs = _inside(llm, input, config, kwargs)
    stream: Any = None
    try:
        first = _NOTHING
        async for attempt in llm._async_retrying(reraise=True):
            with attempt:
                await aclose(stream)
                stream = abegin(bound, input, _attempt_config(config, attempt.retry_state.attempt_number), kwargs)
                first = await anext(stream, _NOTHING)
        if first is not _NOTHING:
            yield first
            async for chunk in stream:
                yield chunk
    finally:
        await aclose(stream)


def _attempt_config(config: RunnableConfig, attempt: int) -> RunnableConfig:
    # The tag that `RunnableRetry` gives the attempts of an `invoke`.
    return merge_configs(config, {"tags": [f"retry:attempt:{attempt}"]}) if attempt > 1 else config


def _first_that_begins(
    llm: RunnableWithFallbacks[Any, Any], input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
) -> Generator[Any]:
    error: BaseException | None = None
    for runnable in llm.runnables:
        stream: Any = None
        try:
            try:
                stream = begin(runnable, input, config, kwargs)
                first = next(stream, _NOTHING)
            except llm.exceptions_to_handle as failure:
                error = error or failure
                continue
            if first is not _NOTHING:
                yield first
                yield from stream
            return
        finally:
            close(stream)
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
                stream = abegin(runnable, input, config, kwargs)
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
            await aclose(stream)
    assert error is not None
    raise error
