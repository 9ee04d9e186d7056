"""A router that asks an LLM of LlamaIndex."""

from __future__ import annotations

import dataclasses

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.llms.llm import LLM

from llama_index_sot.backends import Backend, find_backend
from llama_index_sot.llm_responses import ResponseReader
from llama_index_sot.options import check_llm
from skeleton_of_thought.routers import prompt as core
from skeleton_of_thought.types import Call, Hints, Prompt, Usage

__all__ = ["PromptRouter"]

_LOCAL_TOKENS = 16
"""The longest reply of a local model where nothing else is said: one word is asked for."""


class PromptRouter(core.PromptRouter):
    """Asks an LLM whether an answer is a list of points that can be written independently: one short call.

    A reply that says nothing clear is answered directly, and so is a question whose call fails; the answer's
    `metadata["sot"]` has the reason. What the call cost is in the decision's `usage`, and so in the answer's.

    Beside an event loop an LLM whose async methods block runs in a thread.

    Example:
        >>> from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
        >>> from llama_index_sot import PromptRouter, SkeletonOfThoughtQueryEngine
        >>> class Scripted(CustomLLM):
        ...     @property
        ...     def metadata(self):
        ...         return LLMMetadata()
        ...     def complete(self, prompt, formatted=False, **kwargs):
        ...         return CompletionResponse(text="NONE" if "INDEPENDENT" in prompt else "Just as it is.")
        ...     def stream_complete(self, prompt, formatted=False, **kwargs):
        ...         yield self.complete(prompt)
        >>> engine = SkeletonOfThoughtQueryEngine.from_defaults(Scripted(), router=PromptRouter(Scripted()))
        >>> response = engine.query("Who wrote Faust?")
        >>> print(response, "|", response.metadata["sot"]["reason"])
        Just as it is. | the model takes the answer for no list

    Args:
        llm: Who is asked, such as a smaller one than that which answers; None for `Settings.llm` at the time.
        race: Have the skeleton written while the router decides: its time is hidden, at the price of a skeleton that
            is thrown away where the answer is direct.
        max_tokens: The longest reply, given to the LLM with the call. None for 16 with local models on an engine and
            the LLM's own limit with others, for those that think first need room.

    Raises:
        InvalidInput: What is given is no LLM that writes text, or `max_tokens` is no number of tokens.
    """

    def __init__(self, llm: LLM | None = None, *, race: bool = False, max_tokens: int | None = None) -> None:
        if llm is not None:
            check_llm("llm", llm)
            find_backend(llm, "auto")  # an engine packs a model's weights: now, rather than amid the first answer
        self._llm = llm
        super().__init__(self._complete, aask=self._acomplete, race=race, max_tokens=max_tokens)

    def __repr__(self) -> str:
        llm = "Settings.llm" if self._llm is None else type(self._llm).__name__
        return f"PromptRouter({llm}, race={self.races}, max_tokens={self._max_tokens})"

    def _complete(self, prompt: Prompt) -> tuple[str, Usage | None]:
        backend = self._backend()
        text, reply = ResponseReader().whole(backend.whole(_call(backend, prompt)))
        return text, reply.usage

    async def _acomplete(self, prompt: Prompt) -> tuple[str, Usage | None]:
        backend = self._backend()
        text, reply = ResponseReader().whole(await backend.awhole(_call(backend, prompt)))
        return text, reply.usage

    def _backend(self) -> Backend:
        return find_backend(self._llm or LlamaIndexSettings.llm, "auto")


def _call(backend: Backend, prompt: Prompt) -> Call:
    if prompt.hints.max_tokens is None and backend.native is not None:
        prompt = dataclasses.replace(prompt, hints=Hints(max_tokens=_LOCAL_TOKENS))
    return Call(1, "route", prompt)
