"""Model and retriever runs that LangChain leaves open when a call is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    AsyncCallbackManagerForRetrieverRun,
)
from langchain_core.callbacks.base import AsyncCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig

__all__ = ["any_inline", "ended_runs"]


@contextlib.asynccontextmanager
async def ended_runs(config: RunnableConfig) -> AsyncIterator[RunnableConfig]:
    """Yields a config for one call, and ends its open model and retriever runs when the call is cancelled.

    `BaseChatModel.ainvoke` and `BaseRetriever.ainvoke` forget their run when their task is cancelled: tracers would
    show it as open for ever. `astream` forgets it only while its handlers process the start of the run.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, AsyncCallbackManager) or not (callbacks.handlers or callbacks.inheritable_handlers):
        yield config
        return
    manager = callbacks.copy()
    runs = _OpenRuns(inline=any_inline(callbacks))
    manager.add_handler(runs, inherit=True)
    try:
        yield {**config, "callbacks": manager}
    except asyncio.CancelledError as error:
        own: dict[str, Any] = {"handlers": callbacks.handlers, "inheritable_handlers": callbacks.inheritable_handlers}
        for run_id, details in runs.models.items():
            await AsyncCallbackManagerForLLMRun(run_id=run_id, **own, **details).on_llm_error(error)
        for run_id, details in runs.retrievers.items():
            await AsyncCallbackManagerForRetrieverRun(run_id=run_id, **own, **details).on_retriever_error(error)
        raise


def any_inline(callbacks: BaseCallbackManager) -> bool:
    """Whether a handler of these callbacks runs inline, so that one more may do so.

    `AsyncCallbackManager.on_llm_start` passes the others by as soon as one handler does.
    """
    return any(handler.run_inline for handler in callbacks.handlers)


class _OpenRuns(AsyncCallbackHandler):
    """Keeps the runs of models and retrievers that have begun and not ended."""

    def __init__(self, *, inline: bool) -> None:
        self.run_inline = inline
        self.models: dict[Any, dict[str, Any]] = {}
        self.retrievers: dict[Any, dict[str, Any]] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **details: Any) -> None:
        self.models[run_id] = _kept(details)

    async def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, **details: Any) -> None:
        self.models[run_id] = _kept(details)

    async def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        self.models.pop(run_id, None)

    async def on_llm_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self.models.pop(run_id, None)

    async def on_retriever_start(self, serialized: Any, query: str, *, run_id: Any, **details: Any) -> None:
        self.retrievers[run_id] = _kept(details)

    async def on_retriever_end(self, documents: Any, *, run_id: Any, **_: Any) -> None:
        self.retrievers.pop(run_id, None)

    async def on_retriever_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self.retrievers.pop(run_id, None)


def _kept(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: details.get(key) for key in ("parent_run_id", "tags", "metadata")}
