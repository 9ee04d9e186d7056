"""LangChain's things as routers, and routers within the runs of a chain."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs, set_config_context
from langchain_core.runnables.utils import coro_with_context

from langchain_sot.calls import message_usage
from langchain_sot.interrupts import lifted
from skeleton_of_thought.routers.base import BoundRouter, Router, RouterWrapper
from skeleton_of_thought.types import Answer, Conversation, Request, RouteDecision, Usage

__all__ = ["TracedRouter", "read_request"]

_TOOLS = frozenset({"tools", "functions", "tool_choice", "function_call"})
_FORMATS = frozenset(
    {
        "response_format",
        "ls_structured_output_format",
        "format",
        "json_schema",
        "response_schema",
        "response_json_schema",
        "response_mime_type",
        "text_format",
    }
)
"""What the models of LangChain's partners take a format of the answer by."""


def read_request(kwargs: Mapping[str, Any], max_concurrency: int | None) -> Request:
    """What the keywords of a call, and what is bound to its model, say of the request.

    Args:
        kwargs: They.
        max_concurrency: The most calls that may be open at a time.
    """
    given = {name for name, value in kwargs.items() if value}
    return Request(bool(given & _TOOLS), bool(given & _FORMATS), max_concurrency)


@dataclass(frozen=True)
class TracedRouter(RouterWrapper):
    """A router as part of one run of the chain: the runs that it starts are children of the chain's.

    The tokens that these runs spend are told with the decision. What decides at once starts none.

    Attributes:
        router: A runnable that takes the question and returns whether to use a skeleton, a function of the
            question, or a `Router`.
        config: The config for its runs.
        learns: Whether it is told of the answer.
    """

    router: Any
    config: RunnableConfig
    learns: bool = True

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The router's decision where it takes no call."""
        at_once: Any = getattr(self.router, "at_once", None)
        if at_once is None:
            return None
        with lifted():
            decision: RouteDecision | None = at_once(conversation)
            return decision

    def observe(self, answer: Answer) -> None:
        """Tells the router of an answer, if it learns."""
        if self.learns:
            super().observe(answer)

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        spent = _Spent()
        config = spent.counting(self.config)
        with lifted():
            if (runnable := self._runnable) is not None:
                return spent.told(_decision(runnable.invoke(conversation.question, _child(config))))
            with set_config_context(config) as context:
                return spent.told(context.run(BoundRouter(self.router, conversation).decide))

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        spent = _Spent()
        config = spent.counting(self.config)
        with lifted():
            if (runnable := self._runnable) is not None:
                return spent.told(_decision(await runnable.ainvoke(conversation.question, _child(config))))
            with set_config_context(config) as context:
                return spent.told(await coro_with_context(BoundRouter(self.router, conversation).adecide(), context))

    @property
    def _runnable(self) -> Runnable[str, Any] | None:
        # A runnable that is a `Router` too is told more than the question.
        router = self.router
        return router if isinstance(router, Runnable) and not isinstance(router, Router) else None


class _Spent(BaseCallbackHandler):
    """Adds up the tokens of the model runs that it hears of."""

    run_inline = True

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._lock = threading.Lock()

    def counting(self, config: RunnableConfig) -> RunnableConfig:
        """The config, with this as one of its callbacks."""
        callbacks = config.get("callbacks")
        if isinstance(callbacks, CallbackManager | AsyncCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return merge_configs(config, {"callbacks": [self]})

    def told(self, decision: RouteDecision) -> RouteDecision:
        """The decision, with what it had cost."""
        return decision if decision.usage is not None else dataclasses.replace(decision, usage=self._usage)

    def on_llm_end(self, response: Any, **_: Any) -> None:
        for generation in (generation for row in response.generations for generation in row):
            usage = message_usage(getattr(generation, "message", None))
            if usage is not None:
                with self._lock:
                    self._usage = (self._usage or Usage()) + usage


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
