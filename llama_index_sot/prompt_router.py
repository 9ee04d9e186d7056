"""A router that asks an LLM of LlamaIndex."""

from __future__ import annotations

import dataclasses

from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.llms.llm import LLM

from llama_index_sot.llm_calls import ResolvedLLM, ResponseReader, resolve_llm
from llama_index_sot.options import check_llm
from skeleton_of_thought.routers import prompt as core
from skeleton_of_thought.types import Call, Hints, Prompt, Usage

__all__ = ["PromptRouter"]

_LOCAL_TOKENS = 16
"""The default limit of a local model's reply, in tokens: the prompt asks for one word."""


class PromptRouter(core.PromptRouter):
    """Asks an LLM whether an answer is a list of points that can be written independently: one short call.

    With `planning="graph"` or `"auto"`, points that need others are a graph; a chain of parts is answered directly.

    An unclear reply leads to a direct answer, and so does a failed call; the answer's `metadata["sot"]` has the reason.
    The call's tokens are in the decision's `usage`, and so in the answer's.

    On an event loop, an LLM whose async methods block runs in a thread.

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
        llm: Decides, such as a smaller LLM than the one that answers; None for `Settings.llm`, read at each call.
        race: Write the skeleton while the router decides. That hides the router's time, and wastes the skeleton of a
            direct answer.
        max_tokens: The longest reply, passed to the LLM with the call. None: 16 for local models on an engine; for
            other LLMs their own limit, because models that think first need room.

    Raises:
        InvalidInput: `llm` is not an LLM that writes text, or `max_tokens` is not a number of tokens.
    """

    def __init__(self, llm: LLM | None = None, *, race: bool = False, max_tokens: int | None = None) -> None:
        if llm is not None:
            check_llm("llm", llm)
            resolve_llm(llm, "auto")  # an adopted model packs its weights now, and not during the first answer
        self._llm = llm
        super().__init__(self._complete, aask=self._acomplete, race=race, max_tokens=max_tokens)

    def __repr__(self) -> str:
        llm = "Settings.llm" if self._llm is None else type(self._llm).__name__
        return f"PromptRouter({llm}, race={self.races}, max_tokens={self._max_tokens})"

    def _complete(self, prompt: Prompt) -> tuple[str, Usage | None]:
        llm = self._resolved()
        text, reply = ResponseReader(llm.reasons).whole(llm.whole(_call(llm, prompt)))
        return text, reply.usage

    async def _acomplete(self, prompt: Prompt) -> tuple[str, Usage | None]:
        llm = self._resolved()
        text, reply = ResponseReader(llm.reasons).whole(await llm.awhole(_call(llm, prompt)))
        return text, reply.usage

    def _resolved(self) -> ResolvedLLM:
        return resolve_llm(self._llm or LlamaIndexSettings.llm, "auto")


def _call(llm: ResolvedLLM, prompt: Prompt) -> Call:
    if prompt.hints.max_tokens is None and llm.native is not None:
        prompt = dataclasses.replace(prompt, hints=Hints(max_tokens=_LOCAL_TOKENS))
    return Call(1, "route", prompt)
