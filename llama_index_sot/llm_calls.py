"""How an LLM is called: resolved once per answer, by the methods that the LLM has."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast, get_args

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from llama_index_sot.event_loop import call_in_thread, is_truly_async, stream_in_thread
from llama_index_sot.local.adoption import STOCK_CLASS, adopt_llm, is_stock
from llama_index_sot.local.transformers_llm import TransformersLLM
from llama_index_sot.messages import chat_messages, completion_text
from skeleton_of_thought.adapters.adoption import library_base
from skeleton_of_thought.adapters.hints import engine_settings, token_limit
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Call

__all__ = ["Concurrency", "ResolvedLLM", "UsedConcurrency", "check_concurrency", "resolve_both", "resolve_llm"]

UsedConcurrency = Literal["async", "thread", "batch"]
"""How the calls of an answer ran side by side."""
Concurrency = Literal["auto", "async", "thread", "batch"]
"""The option for it; `"auto"` for the best that the LLM can do."""
LLMResponse = ChatResponse | CompletionResponse


def check_concurrency(concurrency: str) -> None:
    """Raises `InvalidInput` for a word that is none of `Concurrency`."""
    if concurrency not in get_args(Concurrency):
        choices = " or ".join(map(repr, get_args(Concurrency)))
        raise InvalidInput(f"concurrency must be {choices}, not {concurrency!r}.")


def resolve_llm(llm: LLM, concurrency: Concurrency) -> ResolvedLLM:
    """Finds out how an LLM is called.

    Args:
        llm: The user's LLM.
        concurrency: `"auto"` and `"batch"` let a stock `HuggingFaceLLM` be adopted: its model gets an engine.

    Raises:
        InvalidInput: `"batch"` was chosen, and the LLM cannot decode batches.
    """
    native = llm if isinstance(llm, TransformersLLM) else None
    stock = native is None and library_base(type(llm), *STOCK_CLASS) is not None
    if stock and concurrency in ("auto", "batch"):
        native = adopt_llm(llm)
    if native is None and concurrency == "batch":
        raise InvalidInput(
            f"concurrency='batch' needs a local model, and an engine cannot run {type(llm).__name__} (for a "
            "HuggingFaceLLM, the log says why): use a TransformersLLM, or concurrency='auto'."
        )
    called = native or llm
    own_chat = inspect.getattr_static(called, "chat") is not inspect.getattr_static(CustomLLM, "chat")
    is_chat_model = bool(called.metadata.is_chat_model)
    return ResolvedLLM(
        called,
        native=native,
        concurrency=concurrency,
        is_chat_model=is_chat_model,
        takes_messages=is_chat_model and own_chat,
        serial=stock and native is None and is_stock(llm),
    )


def resolve_both(llm: LLM, point_llm: LLM, concurrency: Concurrency) -> tuple[ResolvedLLM, ResolvedLLM]:
    """Resolves the two LLMs of an answer; once, if they are the same."""
    resolved = resolve_llm(llm, concurrency)
    return resolved, resolved if point_llm is llm else resolve_llm(point_llm, concurrency)


@dataclass(frozen=True)
class ResolvedLLM:
    """An LLM, and how it is called during one answer.

    Attributes:
        llm: The LLM that gets the calls: the user's, or the model adopted from it.
        native: The same, if it is a local model on an engine, which decodes all open calls as one batch.
        concurrency: The user's option.
        is_chat_model: Whether the LLM calls itself a chat model.
        takes_messages: Whether calls are messages, and not text. A `CustomLLM` that is a chat model only by its own
            `complete` gets text, too: its `chat` would make the same call with two LLM events, and charge its rate
            limiter twice.
        serial: Whether the LLM runs one prompt after another.
    """

    llm: LLM
    native: TransformersLLM | None = None
    concurrency: Concurrency = "auto"
    is_chat_model: bool = False
    takes_messages: bool = False
    serial: bool = False

    def used(self, *, streamed: bool, sync: bool) -> UsedConcurrency:
        """How calls run side by side: in threads, as tasks, or as rows of one batch."""
        if self.native is not None:
            return "batch"
        if sync or self.concurrency == "thread":
            return "thread"
        if self.concurrency == "async":
            return "async"
        # Many LLMs have async methods that call the sync ones, as `CustomLLM` has.
        return "async" if self._is_async(streamed=streamed) else "thread"

    def room(self, *, streamed: bool, sync: bool) -> int | None:
        """How many calls really run side by side; None where no limit is known."""
        if self.native is not None:
            room: int = self.native.engine.parallel_rows
            return room
        # The threads of a stock model share it and gain next to nothing; async methods that block run one by one.
        blocks = self.concurrency == "async" and not sync and not self._is_async(streamed=streamed)
        return 1 if blocks or self.serial else None

    def _is_async(self, *, streamed: bool) -> bool:
        return self._streams_async if streamed else self._replies_async

    # Only answers on an event loop need these.

    @cached_property
    def _replies_async(self) -> bool:
        return is_truly_async(self.llm, "achat" if self.takes_messages else "acomplete")

    @cached_property
    def _streams_async(self) -> bool:
        return is_truly_async(self.llm, "astream_chat" if self.takes_messages else "astream_complete")

    # --- calls ---

    def whole(self, call: Call) -> LLMResponse:
        """Makes a call and returns its whole response."""
        request = self._request(call)
        method = self.llm.chat if request.chat else self.llm.complete
        return method(request.input, **request.kwargs)

    def stream(self, call: Call) -> Iterator[LLMResponse]:
        """Makes a call and yields its response as it is written."""
        request = self._request(call)
        method: Any = self.llm.stream_chat if request.chat else self.llm.stream_complete
        return cast(Iterator[LLMResponse], method(request.input, **request.kwargs))

    async def awhole(self, call: Call) -> LLMResponse:
        """Async twin of `whole`; never blocks the loop."""
        if self.used(streamed=False, sync=False) == "thread":
            return await call_in_thread(lambda: self.whole(call), _thread_name(call))
        request = self._request(call)
        if request.chat:
            return await self.llm.achat(request.input, **request.kwargs)
        return await self.llm.acomplete(request.input, **request.kwargs)

    async def astream(self, call: Call) -> AsyncIterator[LLMResponse]:
        """Async twin of `stream`; never blocks the loop."""
        if self.used(streamed=True, sync=False) == "thread":
            return stream_in_thread(lambda: self.stream(call), _thread_name(call))
        request = self._request(call)
        method: Any = self.llm.astream_chat if request.chat else self.llm.astream_complete
        return cast(AsyncIterator[LLMResponse], await method(request.input, **request.kwargs))

    def _request(self, call: Call) -> _Request:
        assert call.prompt is not None, "retrievals call no model"
        if self.native is not None:
            # Text is passed on as it is: the model formats it as the LLM that it was adopted from would.
            kwargs = _native_kwargs(self.native, call)
            if self.takes_messages or len(call.prompt.messages) > 1:
                return _Request(True, chat_messages(call.prompt, self.llm), kwargs)
            return _Request(False, call.prompt.messages[0].text, kwargs)
        # A router's limit is its user's choice. Those of other prompts are estimates for small models.
        limit = call.prompt.hints.max_tokens if call.stage == "route" else None
        limited = {"max_tokens": limit} if limit else {}
        if self.takes_messages:
            return _Request(True, chat_messages(call.prompt, self.llm), limited)
        text = completion_text(call.prompt, self.llm, chat=self.is_chat_model)
        return _Request(False, text, {"formatted": True, **limited})


@dataclass(frozen=True)
class _Request:
    """The arguments of one LLM call: messages or text, and keyword arguments."""

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
