"""What one call of the chat model knows, where LangChain does not tell the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun, CallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig

__all__ = ["ChatCall"]

_UNSTREAMED = ("nostream", "langsmith:nostream")
"""LangGraph shows the tokens of model runs without these tags. The answer's own run shows them, in order."""


class Listener(BaseCallbackHandler):
    """Hears which run has begun, and nothing else."""

    run_inline = True
    ignore_llm = True

    def __init__(self) -> None:
        self.run_id: Any = None

    def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **_: Any) -> None:
        self.run_id = run_id


@dataclass
class ChatCall:
    """One call of the model.

    Attributes:
        config: The caller's config; of it, what callbacks do not carry is used.
        run: The model's run, where LangChain says.
        inherited: Where it does not: whose handlers, tags and metadata the calls inherit; `listener` knows the run.
        shared: Whether the call is one of a batch.
        share: Then, the most calls that it may have open; None for no limit.
        source: What `_stream` or `_astream` gave.
    """

    config: RunnableConfig
    run: Any = None
    inherited: CallbackManager | AsyncCallbackManager | None = None
    shared: bool = False
    share: int | None = None
    source: Any = None
    listener: Listener = field(default_factory=Listener)

    def child_config(self, run: Any) -> RunnableConfig:
        """The config of the answer's calls: children of the model's run."""
        config: RunnableConfig = {"tags": [*_UNSTREAMED]}
        for name in ("max_concurrency", "configurable", "recursion_limit"):
            if self.config.get(name) is not None:
                config[name] = self.config[name]
        run = run or self.run
        source, run_id = (run, run.run_id) if run else (self.inherited, self.listener.run_id)
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
        """Async twin of `close`."""
        if self.source is not None:
            await self.source.aclose()
