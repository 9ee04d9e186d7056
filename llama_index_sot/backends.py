"""How an LLM is called: which of its methods are fit for what, found out by what it has."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from llama_index_sot.adoption import adopt_llm, is_stock
from llama_index_sot.awaiting import lets_the_loop_go
from llama_index_sot.messages import as_text, chat_messages
from llama_index_sot.threads import call_in_thread, stream_in_thread
from llama_index_sot.transformers_llm import TransformersLLM
from skeleton_of_thought.adapters.hints import engine_settings, token_limit
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Call

__all__ = ["Backend", "Concurrency", "Used", "check_concurrency", "find_backend"]

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


def find_backend(llm: LLM, concurrency: Concurrency) -> Backend:
    """How an LLM is called.

    Args:
        llm: The user's.
        concurrency: `"auto"` and `"batch"` let a stock `HuggingFaceLLM` be adopted: its model gets an engine.

    Raises:
        InvalidInput: A batch is asked for, and the LLM has none.
    """
    native = llm if isinstance(llm, TransformersLLM) else adopt_llm(llm) if concurrency in ("auto", "batch") else None
    if native is None and concurrency == "batch":
        raise InvalidInput(
            f"concurrency='batch' needs a local model, and {type(llm).__name__} is none that an engine can run (of a "
            "HuggingFaceLLM, the log says why): use a TransformersLLM, or concurrency='auto'."
        )
    return Backend(native or llm, concurrency)


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
    def native(self) -> TransformersLLM | None:
        """It, if it is a local model over an engine, which decodes all open calls as one batch."""
        return self.llm if isinstance(self.llm, TransformersLLM) else None

    @property
    def chat(self) -> bool:
        """Whether it gets messages."""
        own = inspect.getattr_static(self.llm, "chat") is not inspect.getattr_static(CustomLLM, "chat")
        return bool(self.llm.metadata.is_chat_model) and own

    def used(self, *, streamed: bool, sync: bool) -> Used:
        """How calls run side by side: in threads, as tasks, or as rows of one batch."""
        if self.native is not None:
            return "batch"
        if sync or self.concurrency == "thread":
            return "thread"
        if self.concurrency == "async":
            return "async"
        # Many LLMs have async methods that call the sync ones, as `CustomLLM` has.
        return "async" if self._lets_the_loop_go(streamed=streamed) else "thread"

    def room(self, *, streamed: bool, sync: bool) -> int | None:
        """How many calls can really run side by side, where that can be told; None for no limit that is known."""
        if self.native is not None:
            room: int = self.native.engine.parallel_rows
            return room
        # Its threads share one model and gain next to nothing; async methods that block run one after the other.
        blocks = self.concurrency == "async" and not sync and not self._lets_the_loop_go(streamed=streamed)
        return 1 if blocks or is_stock(self.llm) else None

    def _lets_the_loop_go(self, *, streamed: bool) -> bool:
        name = "chat" if self.chat else "complete"
        return lets_the_loop_go(self.llm, f"astream_{name}" if streamed else f"a{name}")

    # --- calls ---

    def whole(self, call: Call) -> LLMResponse:
        """Makes a call and returns its whole response."""
        how = self._request(call)
        return self.llm.chat(how.input, **how.kwargs) if how.chat else self.llm.complete(how.input, **how.kwargs)

    def stream(self, call: Call) -> Iterator[LLMResponse]:
        """Makes a call and yields its response as it is written."""
        how = self._request(call)
        begin: Any = self.llm.stream_chat if how.chat else self.llm.stream_complete
        return cast(Iterator[LLMResponse], begin(how.input, **how.kwargs))

    async def awhole(self, call: Call) -> LLMResponse:
        """Async twin of `whole`; never blocks the loop."""
        if self.used(streamed=False, sync=False) == "thread":
            return await call_in_thread(lambda: self.whole(call), _thread_name(call))
        how = self._request(call)
        if how.chat:
            return await self.llm.achat(how.input, **how.kwargs)
        return await self.llm.acomplete(how.input, **how.kwargs)

    async def astream(self, call: Call) -> AsyncIterator[LLMResponse]:
        """Async twin of `stream`; never blocks the loop."""
        if self.used(streamed=True, sync=False) == "thread":
            return stream_in_thread(lambda: self.stream(call), _thread_name(call))
        how = self._request(call)
        begin: Any = self.llm.astream_chat if how.chat else self.llm.astream_complete
        return cast(AsyncIterator[LLMResponse], await begin(how.input, **how.kwargs))

    def _request(self, call: Call) -> _Request:
        assert call.prompt is not None, "retrievals ask no model"
        if self.native is not None:
            # It formats what it gets by itself, as the object would that it was adopted from.
            chat, kwargs = self.chat or len(call.prompt.messages) > 1, _native_kwargs(self.native, call)
            if chat:
                return _Request(True, chat_messages(call.prompt, self.llm), kwargs)
            return _Request(False, call.prompt.messages[0].text, kwargs)
        # The limits of other prompts are guesses for small models; a router's is its owner's, or there is none.
        most = call.prompt.hints.max_tokens if call.stage == "route" else None
        limit = {"max_tokens": most} if most else {}
        if self.chat:
            return _Request(True, chat_messages(call.prompt, self.llm), limit)
        text = as_text(call.prompt, self.llm, chat=bool(self.llm.metadata.is_chat_model))
        return _Request(False, text, {"formatted": True, **limit})


@dataclass(frozen=True)
class _Request:
    """What an LLM gets: messages or a text, and keywords."""

    chat: bool
    input: Any
    kwargs: dict[str, Any]


def _native_kwargs(llm: TransformersLLM, call: Call) -> dict[str, Any]:
    assert call.prompt is not None
    hints = engine_settings(call.prompt.hints)
    return {
        **hints,
        "prefill": call.prompt.prefill,
        "max_tokens": token_limit(call, llm.max_tokens, chosen="max_tokens" in llm.model_fields_set),
        "min_new_tokens": max(hints["min_new_tokens"], llm.min_new_tokens),
    }


def _thread_name(call: Call) -> str:
    return f"sot-{call.stage}" if call.point is None else f"sot-{call.stage}-{call.point.index}"
