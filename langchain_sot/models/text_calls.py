"""Calls of string LLMs: any number of prompts in one `generate`, each with a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompt_values import ChatPromptValue, PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context, var_child_runnable_config
from langchain_core.runnables.utils import coro_with_context

from langchain_sot.models.resolution import read_traits

__all__ = ["acomplete", "as_string", "complete"]

PromptReply = Any
"""The reply to one prompt: `(text, generation_info)`, a message, or an error."""


def as_string(value: Any) -> str:
    """A string, a prompt value or messages as the string that a string LLM gets."""
    if isinstance(value, str):
        return value
    if isinstance(value, PromptValue):
        return value.to_string()
    messages: Sequence[BaseMessage] = value
    return ChatPromptValue(messages=list(messages)).to_string()


def complete(
    llm: Runnable[Any, Any], prompts: Sequence[str], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any]
) -> list[PromptReply]:
    """Completes all prompts by one `generate`.

    Args:
        llm: A string LLM, or one within retries or fallbacks.
        prompts: The prompts.
        configs: A config for each: its run's parent, name, tags and metadata.
        kwargs: Passed on to the model.

    Raises:
        Exception: `generate` failed, for all prompts alike.
    """
    if read_traits(llm).text:
        return _outputs(cast(Any, llm).generate(list(prompts), **_runs(configs), **kwargs), len(prompts))
    config, inner = _without_limit(configs)
    with set_config_context(config) as context:
        outputs = context.run(llm.batch, list(prompts), inner, return_exceptions=True, **kwargs)
    return _apart(outputs)


async def acomplete(
    llm: Runnable[Any, Any], prompts: Sequence[str], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any]
) -> list[PromptReply]:
    """Async twin of `complete`."""
    if read_traits(llm).text:
        return _outputs(await cast(Any, llm).agenerate(list(prompts), **_runs(configs), **kwargs), len(prompts))
    config, inner = _without_limit(configs)
    with set_config_context(config) as context:
        call = llm.abatch(list(prompts), inner, return_exceptions=True, **kwargs)
        outputs = await coro_with_context(call, context)
    return _apart(outputs)


def _runs(configs: Sequence[RunnableConfig]) -> dict[str, Any]:
    return {
        "callbacks": [config.get("callbacks") for config in configs],
        "tags": [config.get("tags") or [] for config in configs],
        "metadata": [config.get("metadata") or {} for config in configs],
        "run_name": [config.get("run_name") for config in configs],
    }


def _outputs(result: LLMResult, count: int) -> list[PromptReply]:
    if len(result.generations) != count:
        raise RuntimeError(f"The model gave {len(result.generations)} generations for {count} prompts.")
    return [(generations[0].text, generations[0].generation_info or {}) for generations in result.generations]


def _without_limit(configs: Sequence[RunnableConfig]) -> tuple[RunnableConfig, list[RunnableConfig]]:
    # `BaseLLM.batch` calls itself with `max_concurrency=None` for each chunk, but `ensure_config` drops what is None
    # and takes the limit from the context again: with a limit in the config of any parent it raises RecursionError
    # (`langchain_core/language_models/llms.py`, `batch` and `abatch`; `runnables/config.py`, `ensure_config`). So the
    # limit is removed from both places. It is kept all the same: the driver never opens more calls than it allows.
    context = {key: value for key, value in (var_child_runnable_config.get() or {}).items() if key != "max_concurrency"}
    inner = [{key: value for key, value in config.items() if key != "max_concurrency"} for config in configs]
    return cast(RunnableConfig, context), cast(list[RunnableConfig], inner)


def _apart(outputs: Sequence[PromptReply]) -> list[PromptReply]:
    errors = {id(output): output for output in outputs if isinstance(output, Exception)}
    if len(errors) == 1 and len(outputs) > 1 and all(isinstance(output, Exception) for output in outputs):
        # If all prompts failed with one error, `generate` raised it.
        raise next(iter(errors.values()))
    return list(outputs)
