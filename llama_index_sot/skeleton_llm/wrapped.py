"""What an LLM around another one passes on: structured output, and calls that predict and run a tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import Model
from pydantic import Field, PrivateAttr

from llama_index_sot.event_loop import call_in_thread, stream_in_thread
from llama_index_sot.llm_calls import Concurrency, ResolvedLLM, resolve_both

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse

__all__ = ["WrappedLLM"]

_THREAD = "sot-structured"


class WrappedLLM(LLM):
    """An LLM around another one, which gives structured output and calls tools by itself.

    Attributes:
        llm: The wrapped LLM.
        point_llm: The LLM of an answer's points; None for `llm`.
    """

    llm: LLM = Field(exclude=True)
    point_llm: LLM | None = Field(default=None, exclude=True)

    _concurrency: Concurrency = PrivateAttr(default="auto")

    def resolved(self) -> tuple[ResolvedLLM, ResolvedLLM]:
        """How the wrapped LLM and that of the points are called."""
        return resolve_both(self.llm, self.point_llm or self.llm, self._concurrency)

    @property
    def _wrapped(self) -> ResolvedLLM:
        return self.resolved()[0]

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """The wrapped LLM's."""
        predicted: Model = self._wrapped.llm.structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        return predicted

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """The wrapped LLM's; in a thread if it would block the loop."""
        wrapped = self._wrapped
        given = (output_cls, prompt, llm_kwargs)
        if wrapped.used(streamed=False, sync=False) != "thread":
            predicted: Model = await wrapped.llm.astructured_predict(*given, **prompt_args)
            return predicted
        return await call_in_thread(lambda: wrapped.llm.structured_predict(*given, **prompt_args), _THREAD)

    def stream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """The wrapped LLM's."""
        yield from self._wrapped.llm.stream_structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)

    async def astream_structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """The wrapped LLM's; in a thread if it would block the loop."""
        wrapped = self._wrapped
        given = (output_cls, prompt, llm_kwargs)
        if wrapped.used(streamed=True, sync=False) != "thread":
            return await wrapped.llm.astream_structured_predict(*given, **prompt_args)
        return stream_in_thread(lambda: wrapped.llm.stream_structured_predict(*given, **prompt_args), _THREAD)

    def predict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> AgentChatResponse:
        """The wrapped LLM's."""
        return self._wrapped.llm.predict_and_call(list(tools), *args, **kwargs)

    async def apredict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> AgentChatResponse:
        """The wrapped LLM's."""
        return await self._wrapped.llm.apredict_and_call(list(tools), *args, **kwargs)
