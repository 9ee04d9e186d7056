"""Settings that servers of OpenAI's protocol need with a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase

from langchain_sot.models.resolution import has_fallbacks, merged_configs, prepared, read_traits, turn_flag

__all__ = ["begin_turn", "with_timeout"]

_FLAGS = ("continue_final_message", "add_generation_prompt")
_MARGIN = 1.0
"""Seconds by which a request may outlast its point, so that the driver reports the timeout, not the client."""

_Model = Runnable[Any, Any]


def begin_turn(llm: _Model, config: RunnableConfig, kwargs: Mapping[str, Any]) -> tuple[_Model, dict[str, Any]]:
    """The model and keyword arguments for a call that ends with the user's turn, which no server may continue.

    Returns:
        Both without `continue_final_message` and `add_generation_prompt`; everything else stays as it is.
    """
    if isinstance(llm, RunnableBindingBase) or has_fallbacks(llm) or read_traits(llm).configurable:
        return _without_turn_flags(llm, config), _without_flags(kwargs)
    body = kwargs["extra_body"] if "extra_body" in kwargs else getattr(llm, "extra_body", None)
    return llm, {**kwargs, "extra_body": _unflagged(body or {})}


def _without_turn_flags(llm: _Model, config: RunnableConfig) -> _Model:
    if read_traits(llm).configurable:
        llm, config = prepared(llm, config)
    if has_fallbacks(llm):
        first, *others = (_without_turn_flags(runnable, config) for runnable in llm.runnables)
        return llm.model_copy(update={"runnable": first, "fallbacks": others})
    if isinstance(llm, RunnableBindingBase):
        bound = _without_turn_flags(llm.bound, merged_configs(llm.config, config))
        return llm.model_copy(update={"bound": bound, "kwargs": _without_flags(llm.kwargs)})
    return llm.bind(extra_body=_unflagged(cast(Any, llm).extra_body)) if turn_flag(llm, {}) else llm


def _without_flags(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    body = kwargs.get("extra_body")
    return {**kwargs, "extra_body": _unflagged(body)} if isinstance(body, Mapping) else dict(kwargs)


def _unflagged(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _FLAGS}


def with_timeout(
    members: Iterable[tuple[_Model, Mapping[str, Any]]], kwargs: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """Adds a timeout, so that the call ends when its point's time is over.

    A thread that waits for a silent server cannot be interrupted, but `ChatOpenAI` and its relatives take a timeout
    with each call, and then it ends by itself. A shorter timeout of the model's own stays, and so does an
    `httpx.Timeout`.

    Args:
        members: Each model that may get the call, with the keyword arguments that come with it.
        kwargs: The call's keyword arguments.
        seconds: How long the call is waited for.
    """
    timeouts: list[Any] = []
    for model, given in members:
        if "timeout" in given or all(base.__name__ != "BaseChatOpenAI" for base in type(model).__mro__):
            return dict(kwargs)
        timeouts.append(getattr(model, "request_timeout", None))
    if not all(timeout is None or isinstance(timeout, int | float) for timeout in timeouts):
        return dict(kwargs)
    return {**kwargs, "timeout": min([seconds + _MARGIN, *(timeout for timeout in timeouts if timeout is not None)])}
