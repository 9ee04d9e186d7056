"""A chat model over a local Hugging Face model, which decodes concurrent calls as one batch."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, InvalidToolCall, ToolCall
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, model_validator

from langchain_sot.local.engine_request import EngineRequest, convert_tools, make_request, tool_use
from langchain_sot.local.profile import engine_profile
from langchain_sot.local.structured_output import Method, StructuredOutputParser, openai_format, with_raw
from langchain_sot.messages import usage_metadata
from skeleton_of_thought.adapters.engines import EngineModel, find_engine
from skeleton_of_thought.adapters.replies import completion_metadata
from skeleton_of_thought.adapters.reply_format import read_format
from skeleton_of_thought.adapters.tool_calls import ParsedReply, WrittenCall
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import first_by_position
from skeleton_of_thought.types import Completion

__all__ = ["ChatTransformers"]

_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "no_repeat_ngram_size"),
    *("bad_words_ids", "suppress_tokens", "sequence_bias", "logits_processor", "generation_config"),
    "split_special_tokens",
)
"""Fields that are passed to every call of the engine, where they are not None."""
_HINT_DEFAULTS: dict[str, Any] = {
    "prefill": "",
    "stop_after_text": (),
    "min_new_tokens": 0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""Hints of the chain's prompts that the engine takes with each call, and their defaults."""
_REPLY_FORM = ("tools", "tool_choice", "response_format")
"""Keyword arguments of a call that decide on the form of the reply."""
_SERVER_SETTINGS = ("api_key", "base_url", "max_retries", "streaming", "timeout")
"""Standard parameters of LangChain that only servers need. The constructor ignores them, to make models swappable."""


class ChatTransformers(BaseChatModel, EngineModel):
    """A local Hugging Face model as a LangChain chat model.

    The engine decodes all open calls together as one batch, whether they come from threads or from tasks, so a
    `RunnableParallel` or a Skeleton-of-Thought over it is truly parallel. Instances with the same `model` and
    `model_kwargs` share one loaded model. The model continues a trailing AI message as the start of its turn.

    Example:
        ChatTransformers()                                      # a small built-in demo model
        ChatTransformers(model="Qwen/Qwen2.5-1.5B-Instruct")    # from the hub, a folder or a .gguf file
        ChatTransformers.from_model(model, tokenizer)           # already loaded
        ChatTransformers(engine=engine, temperature=0.7)        # your own engine
        ChatTransformers(model="...", model_kwargs={"dtype": "bfloat16", "device": "cuda", "kv_memory": 0.3})

        >>> llm = ChatTransformers(max_tokens=16)
        >>> llm.invoke("What is the capital of France?").text
        'The capital of France is Paris.'

    Attributes:
        model: A hub id, a directory, a path to a .gguf file, or None for the demo model.
        model_kwargs: Keyword arguments of `LocalEngine.from_pretrained`, which loads and runs the model, such as
            `dtype`, `device`, `optimize`, `kv_memory`, `max_batch_size` or `chat_template_kwargs`.
        engine: The engine that decodes; by default the shared one of `model`.
        temperature: 0 for greedy decoding, which is the default. This and the settings that follow are None for the
            engine's defaults: greedy, without limits, and otherwise what the model's `generation_config` says
            (docs/local.md). `model_kwargs={"use_checkpoint_sampling": True}` samples where that config does.
        top_p: The probability mass to sample from.
        top_k: The number of tokens to sample from; 0 for all.
        min_p: The least share of the most likely token's probability; 0 for no such limit.
        repetition_penalty, no_repeat_ngram_size, bad_words_ids, suppress_tokens, sequence_bias, logits_processor: As in
            `skeleton_of_thought.local.SamplingParams`.
        generation_config: Values that replace the model's, by name, or a `GenerationConfig`, or `"ignore"`.
        split_special_tokens: True to read no special token in any message; or the texts in which none is read. By
            default none is read in text of a model or a retriever within the prompts of Skeleton-of-Thought. A
            message may list such texts in its `additional_kwargs`, too.
        max_tokens: The longest completion, in tokens.
        seed: Makes sampling repeatable.
        stop: Strings that end the completion. The text does not include them.
        stream_usage: Whether the last chunk of a stream has `usage_metadata`.

    Each call takes all of these but `model`, `model_kwargs` and `engine` as keyword arguments, too, given or bound. It
    also takes `prefill` (the start of the model's turn, not part of the text), `tools`, `tool_choice` and
    `response_format` (in OpenAI's form).

    With the extra `structured`, a grammar makes replies valid for `bind_tools` and `with_structured_output`. `profile`
    tells LangChain's agents and middleware the context window, and whether the model calls tools.

    `response_metadata["decoding"]` of a reply is the engine's record (`skeleton_of_thought.types.Decoding`, as a dict):
    seconds of waiting, prefill and decoding, and the rows that were decoded at once.

    Raises:
        MissingExtra: torch or transformers are not installed.
        ModelLoadError: The model cannot be found or loaded.
        InvalidInput: From a call: a message or setting that the model cannot take.
    """

    model: str | None = Field(default=None, kw_only=False)
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    engine: Any = Field(default=None, exclude=True, repr=False)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0)
    bad_words_ids: list[list[int]] | None = None
    suppress_tokens: list[int] | None = None
    sequence_bias: Any = None
    logits_processor: Any = None
    generation_config: Any = None
    split_special_tokens: bool | list[str] | None = None
    max_tokens: int = Field(default=512, ge=1)
    seed: int | None = None
    stop: list[str] | None = None
    stream_usage: bool = True

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    if not TYPE_CHECKING:

        @first_by_position("model", str | None, None)
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _drop_server_settings(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in _SERVER_SETTINGS} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _load(self) -> Self:
        loads = self.engine is None
        self.engine = find_engine(self.model, self.model_kwargs, self.engine)
        if loads and self.profile is None:  # `BaseChatModel` asked before there was an engine
            self.profile = self._resolve_model_profile()
        return self

    def _resolve_model_profile(self) -> Any:
        return engine_profile(self.engine, self.model) if self.engine else None

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True; a loaded dump loads the model again by its name."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        return ["langchain_sot", "chat_transformers"] if cls is ChatTransformers else super().get_lc_namespace()

    def get_num_tokens(self, text: str) -> int:
        """The number of tokens of the text within a prompt."""
        return len(self.engine.tokenizer(text, add_special_tokens=False)["input_ids"])

    def __getstate__(self) -> dict[Any, Any]:
        # The engine cannot be pickled: it has a thread and the model's weights. The model's name finds it again.
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "engine": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.engine = find_engine(self.model, self.model_kwargs, None)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()

    # --- the hooks of `BaseChatModel` ---

    @property
    def _llm_type(self) -> str:
        return "skeleton-of-thought-transformers"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        names = (*_SAMPLING, "max_tokens", "stop")
        return {"model": self._model_name, **{name: getattr(self, name) for name in names}}

    @property
    def _model_name(self) -> str:
        return self.model or "demo"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return {**params, "ls_provider": "transformers", "ls_model_name": kwargs.get("model", self._model_name)}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        text_of = _text_filter(request)
        with self.engine.stream(request.messages, **request.settings) as stream:
            text = "".join([text_of(piece) for piece in stream])
        return self._result(text, request, stream.completion)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        text_of = _text_filter(request)
        async with self.engine.astream(request.messages, **request.settings) as stream:
            text = "".join([text_of(piece) async for piece in stream])
        return self._result(text, request, stream.completion)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        stream_usage: bool | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        text_of = _text_filter(request)
        with self.engine.stream(request.messages, **request.settings) as stream:
            for piece in stream:
                if text := text_of(piece):
                    yield _chunk(text)
        yield from self._last_chunks(request, stream.completion, stream_usage)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        stream_usage: bool | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, kwargs)
        text_of = _text_filter(request)
        async with self.engine.astream(request.messages, **request.settings) as stream:
            async for piece in stream:
                if text := text_of(piece):
                    yield _chunk(text)
        for chunk in self._last_chunks(request, stream.completion, stream_usage):
            yield chunk

    # --- tools and structured output ---

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it can call, if its chat template shows tools to it.

        The model decides whether it calls one, unless `tool_choice` forces it. Then a grammar limits the reply to one
        call that is valid for its tool's schema (extra `structured`). Calls in the form of Hermes and Qwen, Llama 3 or
        Mistral are read, and those that the tokenizer's own `response_template` describes. Unreadable calls are in
        `invalid_tool_calls`. In a stream, text comes as the model writes it, and calls come at the end.

        Example:
            llm = ChatTransformers(model="Qwen/Qwen2.5-1.5B-Instruct").bind_tools([get_weather])
            llm.invoke("How is the weather in Paris?").tool_calls    # [{"name": "get_weather", "args": ...}]

        Args:
            tools: LangChain tools, functions, pydantic classes, or descriptions as JSON schemas.
            tool_choice: None or `"auto"`; `"none"`; `"any"` or True for exactly one call, of any tool; or the name
                of the tool to call.
            strict: No effect, for compatibility with other models: forced calls are always valid, others are not
                checked.
            kwargs: Settings to bind.

        Raises:
            InvalidInput: The model's chat template does not support tools, or a tool or choice cannot work.
            MissingExtra: `tool_choice` forces a call, and llguidance is not installed.
        """
        converted = convert_tools(tools)
        use = tool_use(self.engine, converted, tool_choice, kwargs.get("response_format"))
        if use is not None and use.grammar is not None:
            self.engine.prepare(use.grammar)
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=converted, **choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """The model with output in the form of a schema.

        With the extra `structured`, a grammar makes the reply valid JSON for the schema, unless `max_tokens` or a stop
        string cuts it off. Without the extra, an instruction asks the model for it, which small models often fail to
        follow.

        Example:
            >>> from pydantic import BaseModel, Field
            >>> class Person(BaseModel):
            ...     name: str = Field(max_length=20)
            ...     age: int = Field(ge=0, le=150)
            >>> llm = ChatTransformers(max_tokens=60).with_structured_output(Person)
            >>> person = llm.invoke("Ann is 35 years old.")
            >>> type(person).__name__
            'Person'

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema. None for any JSON object, with `"json_mode"`.
            include_raw: Return `{"raw": message, "parsed": value or None, "parsing_error": error or None}`, and do not
                raise for an invalid reply.
            method: `"json_schema"` shows the model the schema and enforces it; `"json_mode"` asks for any JSON object
                and validates it afterwards; `"function_calling"` forces a tool call.
            strict: No effect, for compatibility with other models: the schema is always enforced.

        Returns:
            A runnable that returns an instance of the pydantic class, else a dict.

        Raises:
            InvalidInput: The schema or method cannot work.
            OutputParserException: From a call: the reply is invalid; the message has the reason.
        """
        if kwargs:
            raise InvalidInput(f"with_structured_output does not take {sorted(kwargs)}.")
        if schema is None and method != "json_mode":
            raise InvalidInput(f"with_structured_output needs a schema for the method {method!r:.40}.")
        trace = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        bound: dict[str, Any] = {} if schema is None else {"ls_structured_output_format": trace}
        if method == "function_calling":
            llm = self.bind_tools([cast("type", schema)], tool_choice="any", **bound)
        elif method in ("json_schema", "json_mode"):
            response_format = openai_format(method, schema)
            if (grammar := read_format(response_format).grammar) is not None:
                self.engine.prepare(grammar)
            llm = self.bind(response_format=response_format, **bound)
        else:
            raise InvalidInput(
                f"method is {method!r:.40}; it must be 'json_schema', 'json_mode' or 'function_calling'."
            )
        target = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
        parser = StructuredOutputParser(target=target, from_tool=method == "function_calling")
        return with_raw(llm, parser) if include_raw else llm | parser

    # --- conversions ---

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> EngineRequest:
        form = {name: kwargs[name] for name in _REPLY_FORM if name in kwargs}
        settings = self._settings(stop, {name: value for name, value in kwargs.items() if name not in form})
        quoted = [message.additional_kwargs.get("split_special_tokens") or () for message in messages]
        if any(quoted) and settings["split_special_tokens"] is not True:
            settings["split_special_tokens"] = [*(settings["split_special_tokens"] or ()), *chain(*quoted)]
        return make_request(self.engine, messages, settings, **form)

    def _settings(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in kwargs.items() if name not in ("stream", "stream_usage")}
        # None stands for the engine's default.
        settings = {name: given.pop(name, getattr(self, name)) for name in _SAMPLING}
        settings["max_new_tokens"] = given.pop("max_tokens", self.max_tokens)
        settings |= {name: given.pop(name, default) for name, default in _HINT_DEFAULTS.items()}
        settings["min_new_tokens"] = settings["min_new_tokens"] or None
        settings["stop"] = tuple(stop if stop is not None else self.stop or ()) or None
        if given:
            raise InvalidInput(
                f"ChatTransformers does not take {sorted(given)}. A call takes {[*_SAMPLING]}, 'max_tokens', "
                f"'stop', {[*_REPLY_FORM]} and {[*_HINT_DEFAULTS]}."
            )
        return settings

    def _result(self, text: str, request: EngineRequest, completion: Completion) -> ChatResult:
        rest = _parsed_rest(request, completion)
        message = AIMessage(
            content=text + rest.text,
            additional_kwargs=_reasoning(rest),
            tool_calls=[cast("ToolCall", call) for call in rest.calls if call["type"] == "tool_call"],
            invalid_tool_calls=[
                cast("InvalidToolCall", call) for call in rest.calls if call["type"] == "invalid_tool_call"
            ],
            usage_metadata=usage_metadata(completion.usage),
            response_metadata=self._metadata(completion),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _last_chunks(
        self, request: EngineRequest, completion: Completion, stream_usage: bool | None
    ) -> Iterator[ChatGenerationChunk]:
        rest = _parsed_rest(request, completion)
        if rest.text or rest.calls or rest.reasoning:
            chunks = [_call_chunk(call, index) for index, call in enumerate(rest.calls)]
            yield _chunk(rest.text, tool_call_chunks=chunks, additional_kwargs=_reasoning(rest))
        with_usage = self.stream_usage if stream_usage is None else stream_usage
        yield _chunk(
            "",
            usage_metadata=usage_metadata(completion.usage) if with_usage else None,
            response_metadata=self._metadata(completion),
            chunk_position="last",
        )

    def _metadata(self, completion: Completion) -> dict[str, Any]:
        return {
            "model_name": self._model_name,
            "model_provider": "transformers",
            **completion_metadata(completion),
        }


def _text_filter(request: EngineRequest) -> Callable[[str], str]:
    """Turns each piece of the reply into the text that can be streamed."""
    return (lambda piece: piece) if request.reader is None else request.reader.feed


def _parsed_rest(request: EngineRequest, completion: Completion) -> ParsedReply:
    """The tool calls of a complete reply, and the text that the filter held back."""
    return ParsedReply() if request.reader is None else request.reader.finish(cut=completion.finish_reason == "length")


def _reasoning(reply: ParsedReply) -> dict[str, Any]:
    return {"reasoning_content": reply.reasoning} if reply.reasoning else {}


def _chunk(text: str, **parts: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=text, **parts))


def _call_chunk(call: WrittenCall, index: int) -> ToolCallChunk:
    args = call["args"]
    text = args if isinstance(args, str) else json.dumps(args, ensure_ascii=False)
    return tool_call_chunk(name=call["name"], args=text, id=call["id"], index=index)
