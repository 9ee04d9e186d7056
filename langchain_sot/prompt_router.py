"""The prompt router for LangChain's models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config

from langchain_sot.calls import AnswerModels, ChainModels, ModelCalls
from langchain_sot.messages import ParsedInput
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers import prompt as prompt_router
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply

__all__ = ["PromptRouter"]

_LOCAL_TOKENS = 16
"""The longest reply of a local model where nothing else is said: one word is asked for."""


class PromptRouter(prompt_router.PromptRouter):
    """Asks a model of LangChain whether an answer is a list of points that can be written independently.

    One short call with a prompt of the project's own. A reply that says nothing clear goes the direct way; so does a
    call that fails, and the answer's `reason` says so. The call is a run named `route`, a child of the run that it is
    made in, and its tokens are in the answer's usage, under `route`.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_sot import PromptRouter, SkeletonOfThoughtChain
        >>> small = FakeListChatModel(responses=["NONE"])
        >>> llm = FakeListChatModel(responses=["About 384,400 km."])
        >>> answer = SkeletonOfThoughtChain(llm=llm, router=PromptRouter(small)).invoke("How far away is the moon?")
        >>> answer["route"], answer["reason"]
        ('direct', 'the model takes the answer for no list')

    Args:
        llm: A chat model or string LLM, with whatever is around it: a small one will do.
        race: Have the skeleton written while the router decides: its time is hidden, at the price of a skeleton that
            is thrown away where the answer is direct.
        max_tokens: The longest reply, given to the model with the call. None for 16 with local models on an engine and
            the model's own limit with others, for those that think first need room.

    Raises:
        InvalidInput: `llm` is no runnable, or `max_tokens` is no number of tokens.
    """

    def __init__(self, llm: Runnable[Any, Any], *, race: bool = False, max_tokens: int | None = None) -> None:
        if not isinstance(llm, Runnable):
            raise InvalidInput(
                f"PromptRouter takes a model of LangChain, not {type(llm).__name__}. For functions that ask a model "
                "there is skeleton_of_thought.PromptRouter."
            )
        self.llm = llm
        self._kwargs = {} if max_tokens is None else {"max_tokens": max_tokens}
        self._models({})
        # The prompt's own limit is for engines alone.
        limit = _LOCAL_TOKENS if max_tokens is None else max_tokens
        super().__init__(self._asked, aask=self._aasked, race=race, max_tokens=limit)

    def _asked(self, prompt: Prompt) -> Iterator[str | Reply]:
        return self._calls(ensure_config(), prompt).open(Call(0, "route", prompt), 0)

    def _aasked(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        return self._calls(ensure_config(), prompt).aopen(Call(0, "route", prompt), 0)

    def _models(self, config: RunnableConfig) -> AnswerModels:
        # Local models are adopted with the first look, which packs their weights: when the router is made.
        return ChainModels(self.llm, self.llm, kwargs=self._kwargs).resolve(config)

    def _calls(self, config: RunnableConfig, prompt: Prompt) -> ModelCalls:
        parsed = ParsedInput(Conversation(prompt.messages), None)
        return ModelCalls([self._models(config)], [parsed], [config], frozenset())
