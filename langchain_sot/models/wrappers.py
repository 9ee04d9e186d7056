"""The wrappers around a model: calls of the model's methods through them, and the values that their configs set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase, RunnableParallel, RunnableSequence

from langchain_sot.models.resolution import has_fallbacks, read_traits

__all__ = ["rebound", "without_own_values"]


def rebound(llm: Runnable[Any, Any], method: str, /, *args: Any, **kwargs: Any) -> Runnable[Any, Any]:
    """The result of a model's method, such as `bind_tools`, in the model's wrappers.

    LangChain's own wrappers either have no such methods (`with_retry`) or hand them to the bare model, so that
    earlier bindings are lost (`llm.bind(...).with_structured_output(...)`).

    Args:
        llm: A chat model, or bindings, retries and fallbacks around it.
        method: The name of the method; it returns a runnable.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Raises:
        NotImplementedError: The model has no such method.
    """
    if isinstance(llm, RunnableBindingBase):
        return _wrapped_again(rebound(llm.bound, method, *args, **kwargs), llm)
    if has_fallbacks(llm):
        runnable, *fallbacks = (rebound(r, method, *args, **kwargs) for r in llm.runnables)
        return llm.model_copy(update={"runnable": runnable, "fallbacks": fallbacks})
    call = getattr(llm, method, None)
    if call is None:
        raise NotImplementedError(
            f"The chain's llm is {type(llm).__name__}, which has no {method}: give the chain a chat model that has it."
        )
    result: Runnable[Any, Any] = call(*args, **kwargs)
    return result


def _wrapped_again(result: Runnable[Any, Any], wrapper: RunnableBindingBase[Any, Any]) -> Runnable[Any, Any]:
    """The result with the wrapper around the model in it, and not around the parsers that may follow."""
    if isinstance(result, RunnableSequence):
        return RunnableSequence(_wrapped_again(result.first, wrapper), *result.middle, result.last, name=result.name)
    if isinstance(result, RunnableParallel):
        return RunnableParallel({key: _wrapped_again(step, wrapper) for key, step in result.steps__.items()})
    return wrapper.model_copy(update={"bound": result})


def without_own_values(config: RunnableConfig, llms: Iterable[Runnable[Any, Any]]) -> RunnableConfig:
    """A config of the context without the configurable values that the models' own configs set.

    A model's own config wins over the context where the caller gives no config, and only there.
    """
    own: set[str] = set()
    for llm in llms:
        if isinstance(llm, RunnableBindingBase) or read_traits(llm).configurable:
            own.update((cast(Any, llm).config or {}).get("configurable") or ())
    values = {name: value for name, value in config["configurable"].items() if name not in own}
    return {**config, "configurable": values}
