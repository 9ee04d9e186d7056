"""How an LLM is called: which of its methods are fit for what, found out by what it has."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from llama_index_sot.messages import as_text, chat_messages
from llama_index_sot.threads import call_in_thread, stream_in_thread
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Call

__all__ = ["Backend", "Concurrency", "Used", "check_concurrency"]

Used = Literal["async", "thread", "batch"]
"""How the calls of an answer ran side by side."""
Concurrency = Literal["auto", "async", "thread", "batch"]
"""How they are to run; `"auto"` for what the LLM is fit for."""
LLMResponse = ChatResponse | CompletionResponse


def check_concurrency(concurrency: str) -> None:
    """Raises `InvalidInput` for a word that is none of `Concurrency`."""
    if concurrency not in get_args(Concurrency):
        choices = " or ".join(map(repr, get_args(Concurrency)))
        raise InvalidInput(f"concurrency must be {choices}, not {concurrency!r}.")


@dataclass(frozen=True)
class Backend:
    """An LLM, and how it is called.

    Chat models get messages, others a text. A `CustomLLM` that is a chat model only by its own `complete` gets the
    text, too: its `chat` would make the same call with two LLM events, and charge its rate limiter twice.

    Attributes:
        llm: Who is called.
        concurrency: How it is to be called beside an event loop.
    """

    llm: LLM
    concurrency: Concurrency = "auto"

    @property
    def chat(self) -> bool:
        """Whether it gets messages."""
        return bool(self.llm.metadata.is_chat_model) and _own(self.llm, "chat")

    def used(self, *, streamed: bool, sync: bool) -> Used:
        """How calls run side by side: in threads, as tasks, or as rows of one batch."""
        if sync or self.concurrency == "thread":
            return "thread"
        if self.concurrency == "async":
            return "async"
        name = "chat" if self.chat else "complete"
        return "async" if _own(self.llm, f"astream_{name}" if streamed else f"a{name}") else "thread"

    # --- calls ---

    def whole(self, call: Call) -> LLMResponse:
        """Makes a call and returns its whole response."""
        if self.chat:
            return self.llm.chat(self._messages(call))
        return self.llm.complete(self._text(call), formatted=True)

    def stream(self, call: Call) -> Iterator[LLMResponse]:
        """Makes a call and yields its response as it is written."""
        if self.chat:
            return cast(Iterator[LLMResponse], self.llm.stream_chat(self._messages(call)))
        return cast(Iterator[LLMResponse], self.llm.stream_complete(self._text(call), formatted=True))

    async def awhole(self, call: Call) -> LLMResponse:
        """Async twin of `whole`; never blocks the loop."""
        if self.used(streamed=False, sync=False) == "thread":
            return await call_in_thread(lambda: self.whole(call), _thread_name(call))
        if self.chat:
            return await self.llm.achat(self._messages(call))
        return await self.llm.acomplete(self._text(call), formatted=True)

    async def astream(self, call: Call) -> AsyncIterator[LLMResponse]:
        """Async twin of `stream`; never blocks the loop."""
        if self.used(streamed=True, sync=False) == "thread":
            return stream_in_thread(lambda: self.stream(call), _thread_name(call))
        if self.chat:
            return cast(AsyncIterator[LLMResponse], await self.llm.astream_chat(self._messages(call)))
        return cast(AsyncIterator[LLMResponse], await self.llm.astream_complete(self._text(call), formatted=True))

    def _messages(self, call: Call) -> Any:
        assert call.prompt is not None
        return chat_messages(call.prompt, self.llm)

    def _text(self, call: Call) -> str:
        assert call.prompt is not None
        return as_text(call.prompt, self.llm, chat=bool(self.llm.metadata.is_chat_model))


def _thread_name(call: Call) -> str:
    return f"sot-{call.stage}" if call.point is None else f"sot-{call.stage}-{call.point.index}"


def _own(llm: LLM, method: str) -> bool:
    """Whether an LLM has a method of its own, and not the one of `CustomLLM`, which calls the sync ones.

    Looked up statically: LlamaIndex wraps methods in descriptors that give another object at each access.
    """
    return inspect.getattr_static(type(llm), method) is not inspect.getattr_static(CustomLLM, method)
