"""The prompt router over a model of LangChain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_sot.calls import ModelCalls
from langchain_sot.messages import ParsedInput
from langchain_sot.models.resolution import AnswerModels, ChainModels
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers import prompt as prompt_router
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply

__all__ = ["PromptRouter"]

_LOCAL_TOKENS = 16
"""The longest reply of a local model by default, in tokens: the prompt wants one word."""


class PromptRouter(prompt_router.PromptRouter):
    """Asks a model of LangChain whether an answer is a list of points that can be written independently.

    With `planning="graph"` or `"auto"`, points that need others are a graph; a chain of parts is answered directly.

    The router makes one short call with the project's own prompt. An unclear reply means the direct route, and so does
    a call that fails; the answer's `reason` has the cause. The call is a run named `route`, a child of the run around
    it, and its tokens are in the answer's usage, under `route`.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_sot import PromptRouter, SkeletonOfThoughtChain
        >>> small = FakeListChatModel(responses=["NONE"])
        >>> llm = FakeListChatModel(responses=["About 384,400 km."])
        >>> answer = SkeletonOfThoughtChain(llm=llm, router=PromptRouter(small)).invoke("How far away is the moon?")
        >>> answer["route"], answer["reason"]
        ('direct', 'the model takes the answer for no list')

    Args:
        llm: A chat model or string LLM, bare or in wrappers such as bindings, retries and fallbacks. A small one is
            enough.
        race: Write the skeleton while the router decides. That hides the router's time; a direct answer costs a
            skeleton that is thrown away.
        max_tokens: The longest reply, passed to the model with the call. None for 16 with local models on an engine
            and the model's own limit with others, as models that reason first need room.

    Raises:
        InvalidInput: `llm` is not a runnable, or `max_tokens` not a number of tokens.
    """

    def __init__(self, llm: Runnable[Any, Any], *, race: bool = False, max_tokens: int | None = None) -> None:
        if not isinstance(llm, Runnable):
            raise InvalidInput(
                f"PromptRouter takes a model of LangChain, not {type(llm).__name__}. For a function that calls a "
                "model, use skeleton_of_thought.PromptRouter."
            )
        self.llm = llm
        self._kwargs = {} if max_tokens is None else {"max_tokens": max_tokens}
        # Adopts a local model now, rather than amid the first answer: an engine packs a model's weights.
        self._models({})
        # Only engines read the limit in the prompt; other models get it as a keyword argument.
        limit = _LOCAL_TOKENS if max_tokens is None else max_tokens
        super().__init__(self._call_model, aask=self._acall_model, race=race, max_tokens=limit)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a copy or a pickle. Version 0.1 kept the keyword arguments in an object named `_models`."""
        self.__dict__.update(state)
        if (models := self.__dict__.pop("_models", None)) is not None:
            self._kwargs = dict(models.kwargs)

    def _call_model(self, prompt: Prompt) -> Iterator[str | Reply]:
        # In a context of its own: the call sets the config that the runnables in the model find.
        yield from copy_context().run(list, self._calls(ensure_config(), prompt).open(Call(0, "route", prompt), 0))

    async def _acall_model(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        async def reply() -> list[str | Reply]:
            calls = self._calls(ensure_config(), prompt)
            return [item async for item in calls.aopen(Call(0, "route", prompt), 0)]

        for item in await asyncio.create_task(reply()):
            yield item

    # Pickles of 0.1 name these methods.
    _asked, _aasked = _call_model, _acall_model

    def _models(self, config: RunnableConfig) -> AnswerModels:
        return ChainModels(self.llm, self.llm, kwargs=self._kwargs).for_config(config)

    def _calls(self, config: RunnableConfig, prompt: Prompt) -> ModelCalls:
        parsed = ParsedInput(Conversation(prompt.messages), None)
        return ModelCalls([self._models(config)], [parsed], [config], frozenset())
