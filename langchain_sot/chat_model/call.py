"""What one call of the chat model knows, where LangChain does not tell the model itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun, CallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig

if TYPE_CHECKING:
    from langchain_sot.chat_model.direct import Way

__all__ = ["ChatCall"]

_UNSTREAMED = ("nostream", "langsmith:nostream")
"""LangGraph shows the tokens of model runs without these tags. The answer's own run shows them, in order."""


class _Listener(BaseCallbackHandler):
    """Hears which run has begun, and ends the calls of a run that fails."""

    run_inline = True

    def __init__(self, call: ChatCall) -> None:
        self._call = call

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **_: Any) -> None:
        self._call.run_id = run_id

    def on_llm_error(self, error: BaseException, **_: Any) -> Any:
        self._call.close()


class _AsyncListener(_Listener):
    async def on_llm_error(self, error: BaseException, **_: Any) -> None:
        await self._call.aclose()


@dataclass
class ChatCall:
    """One call of the model.

    Attributes:
        config: The caller's config; of it, what callbacks do not carry is used.
        run: The model's run, where LangChain says.
        inherited: Where it does not: whose handlers, tags and metadata the calls inherit.
        run_id: And the id of the run, once it has begun.
        shared: Whether the call is one of a batch.
        share: Then, the most calls that it may have open; None for no limit.
        way: Which way it takes, where that is known.
        source: What `_stream` or `_astream` gave.
    """

    config: RunnableConfig
    run: Any = None
    inherited: CallbackManager | AsyncCallbackManager | None = None
    shared: bool = False
    share: int | None = None
    way: Way | None = None
    run_id: Any = field(default=None, init=False)
    source: Any = field(default=None, init=False)
    _closing: asyncio.Future[None] | None = field(default=None, init=False)

    def listen(self, manager: CallbackManager | AsyncCallbackManager) -> None:
        """Hears of the one run that will be made with this manager, before any other handler does.

        When that run is interrupted in a handler, or its stream is closed, `BaseChatModel` leaves what `_stream` gave
        open and tells all handlers that the run has ended. The calls in it shall end before that.
        """
        self.inherited = manager
        is_async = isinstance(manager, AsyncCallbackManager)
        manager.handlers.insert(0, _AsyncListener(self) if is_async else _Listener(self))

    def child_config(self, run: Any) -> RunnableConfig:
        """The config of the answer's calls: children of the model's run."""
        config: RunnableConfig = {"tags": [*_UNSTREAMED]}
        for name in ("max_concurrency", "configurable", "recursion_limit"):
            if self.config.get(name) is not None:
                config[name] = self.config[name]
        run = run or self.run
        source, run_id = (run, run.run_id) if run else (self.inherited, self.run_id)
        if source is not None:
            is_async = isinstance(source, AsyncCallbackManager | AsyncCallbackManagerForLLMRun)
            config["callbacks"] = (AsyncCallbackManager if is_async else CallbackManager)(
                handlers=[*source.inheritable_handlers],
                inheritable_handlers=[*source.inheritable_handlers],
                parent_run_id=run_id,
                tags=[*source.inheritable_tags],
                inheritable_tags=[*source.inheritable_tags],
                metadata={**source.inheritable_metadata},
                inheritable_metadata={**source.inheritable_metadata},
            )
        return config

    def close(self) -> None:
        """Ends all calls of the answer."""
        if self.source is not None:
            self.source.close()

    async def aclose(self) -> None:
        """Async twin of `close`. Who is cancelled while waiting for it may wait once more."""
        if self.source is None:
            return
        if self._closing is None:
            self._closing = asyncio.ensure_future(self.source.aclose())
        await asyncio.shield(self._closing)
