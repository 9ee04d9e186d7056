"""LangChain's things as routers: runnables, and functions that call models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs, set_config_context
from langchain_core.runnables.utils import coro_with_context

from langchain_sot.interrupts import lifted
from skeleton_of_thought.routing import BoundRouter, Router
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["TracedRouter"]


@dataclass(frozen=True)
class TracedRouter:
    """A router as part of one run of the chain: the runs that it starts are children of the chain's.

    Attributes:
        router: A runnable that takes the question and returns whether to use a skeleton, a function of the
            question, or a `Router`.
        config: The config for its runs.
    """

    router: Runnable[str, Any] | Router | Callable[[str], Any]
    config: RunnableConfig

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        with lifted():
            if isinstance(self.router, Runnable):
                return _decision(self.router.invoke(conversation.question, _child(self.config)))
            with set_config_context(self.config) as context:
                return context.run(BoundRouter(self.router, conversation).decide)

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        with lifted():
            if isinstance(self.router, Runnable):
                return _decision(await self.router.ainvoke(conversation.question, _child(self.config)))
            with set_config_context(self.config) as context:
                return await coro_with_context(BoundRouter(self.router, conversation).adecide(), context)


def _child(config: RunnableConfig) -> RunnableConfig:
    return merge_configs(config, {"run_name": "route", "tags": ["sot:route"], "metadata": {"sot_stage": "route"}})


def _decision(result: Any) -> RouteDecision:
    if isinstance(result, RouteDecision):
        return result
    if isinstance(result, BaseMessage):
        raise TypeError(
            "The router gave a message, and every message is true. End it with a parser that gives True or False."
        )
    return RouteDecision(bool(result))
