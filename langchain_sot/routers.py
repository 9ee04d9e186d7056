"""A router whose runs belong to one run of a chain."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import set_config_context
from langchain_core.runnables.utils import coro_with_context

from langchain_sot.interrupts import lifted
from langchain_sot.messages import message_usage
from langchain_sot.models.open_runs import any_inline
from langchain_sot.models.resolution import merged_configs
from skeleton_of_thought.routers.base import BoundRouter, Router, RouterWrapper
from skeleton_of_thought.types import Answer, Conversation, RouteDecision, Usage

__all__ = ["ChildRunRouter"]


@dataclass(frozen=True)
class ChildRunRouter(RouterWrapper):
    """A router whose runs are children of one run of the chain.

    The decision has the tokens that these runs spent. A decision without a call starts no run.

    Attributes:
        router: A runnable that takes the question and returns whether to use a skeleton, a function of the
            question, or a `Router`.
        config: The config for the router's runs.
        learns: Whether the router observes the answer.
    """

    router: Any
    config: RunnableConfig
    learns: bool = True

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The router's decision if it takes no call, else None."""
        at_once: Any = getattr(self.router, "at_once", None)
        if at_once is None:
            return None
        with lifted():
            decision: RouteDecision | None = at_once(conversation)
            return decision

    def observe(self, answer: Answer) -> None:
        """Passes the answer to the router if it learns."""
        if self.learns:
            super().observe(answer)

    def route(self, conversation: Conversation) -> RouteDecision:
        """Decides within a child run, see `Router.route`."""
        counter = _UsageCounter()
        config = counter.added_to(self.config)
        with lifted(), set_config_context(config) as context:
            if (runnable := self._runnable) is not None:
                output = context.run(runnable.invoke, conversation.question, _child(config))
                return counter.with_usage(_decision(output))
            return counter.with_usage(context.run(BoundRouter(self.router, conversation).decide))

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        counter = _UsageCounter()
        config = counter.added_to(self.config)
        with lifted(), set_config_context(config) as context:
            if (runnable := self._runnable) is not None:
                call = runnable.ainvoke(conversation.question, _child(config))
                return counter.with_usage(_decision(await coro_with_context(call, context)))
            decision = await coro_with_context(BoundRouter(self.router, conversation).adecide(), context)
            return counter.with_usage(decision)

    @property
    def _runnable(self) -> Runnable[str, Any] | None:
        # A runnable that is also a `Router` gets the whole conversation, not the question alone.
        router = self.router
        return router if isinstance(router, Runnable) and not isinstance(router, Router) else None


class _UsageCounter(BaseCallbackHandler):
    """Adds up the tokens of the router's model runs."""

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._lock = threading.Lock()

    def added_to(self, config: RunnableConfig) -> RunnableConfig:
        """The config with this counter among its callbacks."""
        callbacks = config.get("callbacks")
        if isinstance(callbacks, CallbackManager | AsyncCallbackManager):
            self.run_inline = any_inline(callbacks)
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return merged_configs(config, {"callbacks": [self]})

    def with_usage(self, decision: RouteDecision) -> RouteDecision:
        """The decision with the counted tokens, unless it has a usage already."""
        return decision if decision.usage is not None else dataclasses.replace(decision, usage=self._usage)

    def on_llm_end(self, response: Any, **_: Any) -> None:
        for generation in (generation for row in response.generations for generation in row):
            usage = message_usage(getattr(generation, "message", None))
            if usage is not None:
                with self._lock:
                    self._usage = (self._usage or Usage()) + usage


def _child(config: RunnableConfig) -> RunnableConfig:
    return merged_configs(config, {"run_name": "route", "tags": ["sot:route"], "metadata": {"sot_stage": "route"}})


def _decision(result: Any) -> RouteDecision:
    if isinstance(result, RouteDecision):
        return result
    if isinstance(result, BaseMessage):
        raise TypeError(
            "The router returned a message, and every message counts as true. End the router with a parser that "
            "returns True or False."
        )
    return RouteDecision(bool(result))
