"""LLM calls: the LLM resolved once per answer, prompts in LlamaIndex's types, and the reading of responses."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast, get_args

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from llama_index_sot.event_loop import call_in_thread, is_truly_async, stream_in_thread
from llama_index_sot.local.adoption import STOCK_CLASS, adopt_llm, is_stock
from llama_index_sot.local.prompts import has_own_messages_format
from llama_index_sot.local.transformers_llm import TransformersLLM
from skeleton_of_thought.adapters.adoption import library_base
from skeleton_of_thought.adapters.hints import engine_settings, token_limit
from skeleton_of_thought.adapters.replies import FinishReasons, ReplyEnd, read_decoding, read_finish_reason, read_usage
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Call, Message, Prompt, Reply

__all__ = [
    "Concurrency",
    "LLMResponse",
    "ResolvedLLM",
    "ResponseReader",
    "UsedConcurrency",
    "check_concurrency",
    "core_message",
    "resolve_both",
    "resolve_llm",
]

UsedConcurrency = Literal["async", "thread", "batch"]
"""How the calls of an answer ran side by side."""
Concurrency = Literal["auto", "async", "thread", "batch"]
"""The option `concurrency`; `"auto"` chooses the best that the LLM supports."""
LLMResponse = ChatResponse | CompletionResponse
"""A response of an LLM."""

_EVENTS = ("delta", "response", "messageStop")
"""Where events of Anthropic's, OpenAI's and Bedrock's streams have the finish reason."""
_MEDIA = frozenset({"image", "audio", "video", "document"})
"""Types of content blocks that are an answer without text."""
_REASONING = frozenset({"thinking", "reasoning", "reasoning_content", "thinking_delta"})
"""Types of content blocks, and keys of `additional_kwargs`, that hold an LLM's reasoning."""


def check_concurrency(concurrency: str) -> None:
    """Raises `InvalidInput` for a value that is not in `Concurrency`."""
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
    # Calls of an answer never pass through a second answer.
    wrapper: Any = llm
    if getattr(type(llm), "is_skeleton_llm", False):
        llm = wrapper.llm
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
        has_own_chat=own_chat,
        adopted=called is not llm,
        serial=stock and native is None and is_stock(llm),
        reasons=FinishReasons.of(called),
    )


def resolve_both(llm: LLM, point_llm: LLM, concurrency: Concurrency) -> tuple[ResolvedLLM, ResolvedLLM]:
    """Resolves the two LLMs of an answer; once, if they are the same."""
    resolved = resolve_llm(llm, concurrency)
    return resolved, resolved if point_llm is llm else resolve_llm(point_llm, concurrency)


@dataclass(frozen=True)
class ResolvedLLM:
    """An LLM, and how it is called during one answer.

    Attributes:
        llm: Receives the calls: the user's LLM, or the model adopted from it.
        native: `llm`, if it is a local model on an engine, which decodes all open calls as one batch; else None.
        concurrency: The option of the engine or synthesizer.
        is_chat_model: Whether the LLM calls itself a chat model.
        takes_messages: Whether calls are messages, and not text. A `CustomLLM` that is a chat model only by its own
            `complete` gets text, too: its `chat` would make the same call with two LLM events, and charge its rate
            limiter twice.
        has_own_chat: Whether its `chat` is more than a call of its `complete`.
        serial: Whether the LLM runs one prompt after another.
        adopted: Whether `llm` was made of the user's, with its model on an engine.
        extends: Whether prompts get the LLM's own system prompt and wrapper, as `LLM.predict` adds them.
        kwargs: The caller's keyword arguments of every call.
        reasons: Whether its streams have had finish reasons so far.
    """

    llm: LLM
    native: TransformersLLM | None = None
    concurrency: Concurrency = "auto"
    is_chat_model: bool = False
    takes_messages: bool = False
    has_own_chat: bool = False
    serial: bool = False
    adopted: bool = False
    extends: bool = True
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    reasons: FinishReasons = field(default_factory=FinishReasons, compare=False)

    @property
    def continues_turn(self) -> bool:
        """Whether the LLM continues the start of its turn."""
        return self.native is not None and (
            has_own_messages_format(self.native) or bool(self.native.engine.takes_prefill)
        )

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
        """The most calls that really run side by side; None where no limit is known."""
        if self.native is not None:
            room: int = self.native.engine.parallel_rows
            return room
        # Threads that share a stock model gain next to nothing; async methods that block run one by one.
        blocks = self.concurrency == "async" and not sync and not self._is_async(streamed=streamed)
        return 1 if blocks or self.serial else None

    def _is_async(self, *, streamed: bool) -> bool:
        return self._streams_async if streamed else self._replies_async

    @property
    def system_prompt(self) -> str | None:
        """The system prompt that calls get, if they do not have it yet."""
        return self.llm.system_prompt if self.extends else None

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
            # Text is passed on unchanged: an adopted model formats it as the original LLM would.
            prompt = call.prompt.exact or call.prompt
            kwargs = {**_native_kwargs(self.native, call, prompt), **self.kwargs}
            if self.takes_messages or len(prompt.messages) > 1:
                return _Request(True, chat_messages(prompt, self.system_prompt), kwargs)
            return _Request(False, prompt.messages[0].text, kwargs)
        # Users choose a router's limit; the limits of other prompts are estimates for small models.
        limit = call.prompt.hints.max_tokens if call.stage == "route" else None
        kwargs = {"max_tokens": limit, **self.kwargs} if limit else {**self.kwargs}
        if self.takes_messages:
            return _Request(True, chat_messages(call.prompt, self.system_prompt), kwargs)
        text = completion_text(call.prompt, self.llm, chat=self.is_chat_model, extended=self.extends)
        return _Request(False, text, {"formatted": True, **kwargs})


@dataclass(frozen=True)
class _Request:
    """The arguments of one LLM call: messages or text, and keyword arguments."""

    chat: bool
    input: Any
    kwargs: dict[str, Any]


def _native_kwargs(llm: TransformersLLM, call: Call, prompt: Prompt) -> dict[str, Any]:
    reasons = not prompt.prefill and bool(llm.engine.reasons)
    hints, split = engine_settings(prompt.hints, reasons=reasons), llm.split_special_tokens
    if split is not True and prompt.quoted:
        split = [*(split or ()), *llm.engine.with_special_tokens(prompt.quoted)]
    return {
        **hints,
        "prefill": prompt.prefill,
        "split_special_tokens": split or None,
        "max_tokens": token_limit(call, llm.max_tokens, chosen="max_tokens" in llm.model_fields_set, reasons=reasons),
        "min_new_tokens": max(hints["min_new_tokens"], llm.min_new_tokens),
    }


def _thread_name(call: Call) -> str:
    return f"sot-{call.stage}" if call.point is None else f"sot-{call.stage}-{call.point.index}"


# --- prompts ---


def core_message(message: ChatMessage) -> Message:
    """A LlamaIndex message as the core's. Blocks other than text are kept unchanged."""
    if all(isinstance(block, TextBlock) for block in message.blocks):
        return Message(_role(message), message.content or "", raw=message)
    blocks = tuple(
        {"type": "text", "text": block.text}
        if isinstance(block, TextBlock)
        else {"type": block.block_type, "block": block}
        for block in message.blocks
    )
    return Message(_role(message), blocks, raw=message)


def _role(message: ChatMessage) -> str:
    return message.role.value if isinstance(message.role, MessageRole) else str(message.role)


def chat_messages(prompt: Prompt, system_prompt: str | None) -> list[ChatMessage]:
    """A prompt as messages for a chat model, its own system prompt first. Strict servers take one system message."""
    messages = [_chat_message(message) for message in prompt.messages]
    if system_prompt:
        own: list[Any] = [TextBlock(text=system_prompt)]
        if messages[0].role is MessageRole.SYSTEM:
            blocks = messages.pop(0).blocks
            if all(isinstance(block, TextBlock) for block in blocks):
                blocks = [TextBlock(text="\n\n".join(block.text for block in (*own, *blocks)))]
            own = blocks if len(blocks) == 1 else [*own, *blocks]
        messages.insert(0, ChatMessage(role=MessageRole.SYSTEM, blocks=own))
    return messages


def _chat_message(message: Message) -> ChatMessage:
    if isinstance(message.raw, ChatMessage):
        return message.raw
    role = MessageRole(message.role)
    if isinstance(message.content, str):
        return ChatMessage(role=role, content=message.content)
    return ChatMessage(role=role, blocks=[_block(block) for block in message.content])


def _block(block: Mapping[str, Any]) -> Any:
    return TextBlock(text=str(block.get("text", ""))) if block.get("type") == "text" else block["block"]


def completion_text(prompt: Prompt, llm: LLM, *, chat: bool = False, extended: bool = True) -> str:
    """A prompt as text for a completion, formatted as LlamaIndex formats it.

    Args:
        prompt: The prompt.
        llm: The LLM, whose own formats are used.
        chat: Whether the LLM formats even a single message as a chat.
        extended: Whether the LLM's own system prompt and wrapper are added.
    """
    if chat or len(prompt.messages) > 1:
        return _from_messages(llm, chat_messages(prompt, llm.system_prompt if extended else None))
    text = prompt.messages[0].text
    if llm.completion_to_prompt is not None:
        text = llm.completion_to_prompt(text)
    if not extended:
        return text
    # As `LLM.predict` does: the user's texts stand around every prompt.
    if llm.system_prompt:
        text = f"{llm.system_prompt}\n\n{text}"
    if llm.query_wrapper_prompt is not None:
        text = llm.query_wrapper_prompt.format(query_str=text)
    return text


def _from_messages(llm: LLM, messages: Sequence[ChatMessage]) -> str:
    assert llm.messages_to_prompt is not None, "LLM sets a default"
    return llm.messages_to_prompt(messages)


# --- replies ---


class ResponseReader:
    """Reads the text and the end of one call's responses.

    Args:
        reasons: Whether the LLM's streams have finish reasons.
        max_chars: The most characters of a stream.

    Attributes:
        end_of_reply: The end of the call so far; once it is `full`, the stream is to be left.
    """

    def __init__(self, reasons: FinishReasons, max_chars: int | None = None) -> None:
        self._text = ""
        self._hidden = 0
        self.end_of_reply = ReplyEnd(reasons=reasons, max_chars=max_chars)
        self._promised = False

    def whole(self, response: ChatResponse | CompletionResponse) -> tuple[str, Reply]:
        """The text and the end of a response that came at once."""
        end = self.end_of_reply
        end.streamed = False
        self._read_end(response)
        text = _text(response)
        if not text:
            self._read_other_content(response)
        end.cut = end.finish_reason is None and self._promised
        return text, end.reply()

    def add(self, response: ChatResponse | CompletionResponse) -> str:
        """Reads the next response of a stream and returns its new text."""
        self._read_end(response)
        delta = response.delta
        if delta is None:
            # Some LLMs give only the text so far.
            text = _text(response)
            delta = text[len(self._text) :] if text.startswith(self._text) else ""
        if not delta:
            self._read_other_content(response)
        self._text += delta
        end = self.end_of_reply
        end.chars = len(self._text) + self._hidden
        end.full = end.max_chars is not None and end.chars > end.max_chars
        return delta

    @property
    def reply(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: The stream broke off. Some clients end it without an error then.
        """
        end = self.end_of_reply
        end.cut = end.finish_reason is None and self._promised
        return end.reply()

    def _read_end(self, response: ChatResponse | CompletionResponse) -> None:
        raw, end = response.raw, self.end_of_reply
        if (raw is None or (isinstance(raw, dict) and not raw)) and not response.additional_kwargs:
            return  # most pieces of a stream
        usage = read_usage(_get(raw, "usage") or _get(raw, "usage_metadata") or raw)
        # The last count replaces earlier ones: streams with several counts send running totals.
        end.usage = usage or read_usage(response.additional_kwargs) or end.usage
        choices = _get(raw, "choices")
        if isinstance(choices, list | tuple) and choices:
            end.finish_reason = read_finish_reason(choices[0]) or end.finish_reason
            self._promised = True
        else:
            end.finish_reason = _finish_reason(raw) or end.finish_reason
            # Google's streams and Ollama's end with a reason, too.
            self._promised = self._promised or bool(_get(raw, "candidates")) or _get(raw, "done") is not None
        end.decoding = read_decoding(_get(raw, "decoding")) or end.decoding

    def _read_other_content(self, response: ChatResponse | CompletionResponse) -> None:
        """Notes in `end` the other content of a response: a refusal, tool calls, media, reasoning."""
        end, own = self.end_of_reply, response.additional_kwargs
        message = response.message if isinstance(response, ChatResponse) else ChatMessage()
        extras = {**own, **message.additional_kwargs}
        choice = next(iter(_get(response.raw, "choices") or ()), None)
        refusals = [_get(_get(choice, name), "refusal") for name in ("message", "delta")]
        end.refusal += next((str(refusal) for refusal in (extras.get("refusal"), *refusals) if refusal), "")
        kinds = {block.block_type for block in message.blocks}
        if extras.get("tool_calls") or "tool_call" in kinds:
            end.instead = "tool calls"
        elif kinds & _MEDIA or extras.get("audio"):
            end.instead = "other content"
        elif kinds & _REASONING or any(map(extras.get, _REASONING)):
            end.instead = end.instead or "reasoning"
            # Blocks have the reasoning so far, deltas the next piece of it.
            so_far = sum(
                len(str(_get(block, "content") or "")) for block in message.blocks if block.block_type in _REASONING
            )
            self._hidden = max(so_far, self._hidden + len(str(extras.get("thinking_delta") or "")))


def _finish_reason(raw: Any) -> str | None:
    """The finish reason of a raw response, or of an event of a raw stream, which has it one level deeper."""
    reason = read_finish_reason(raw)
    for name in _EVENTS if reason is None else ():
        reason = reason or read_finish_reason(_get(raw, name))
    if reason is None and (candidates := _get(raw, "candidates")):  # of Google's whole responses
        reason = read_finish_reason(next(iter(candidates), None))
    return reason


def _text(response: ChatResponse | CompletionResponse) -> str:
    return (response.message.content if isinstance(response, ChatResponse) else response.text) or ""


def _get(data: Any, name: str) -> Any:
    # Dicts first: the check for a `Mapping` costs more than everything else here, for every piece.
    if isinstance(data, dict | Mapping):
        return data.get(name)
    return getattr(data, name, None)
