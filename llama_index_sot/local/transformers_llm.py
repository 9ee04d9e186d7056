"""A LlamaIndex LLM over a local Hugging Face model, whose concurrent calls are decoded as one batch."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import InitVar
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import Model
from pydantic import ConfigDict, Field, model_validator

from llama_index_sot.local.calls import (
    CALL_ONLY,
    LocalCall,
    astreamed,
    awhole,
    chat_response,
    completion_response,
    streamed,
    whole,
)
from llama_index_sot.local.prompts import (
    LocalPrompt,
    has_own_completion_format,
    has_own_messages_format,
    messages_prompt,
    text_prompt,
)
from skeleton_of_thought.adapters.engines import EngineModel, find_engine
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import first_by_position

__all__ = ["TransformersLLM"]

_logger = logging.getLogger(__name__)

_SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "min_new_tokens", "repetition_penalty"),
    *("no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "sequence_bias", "logits_processor"),
    *("seed", "stop", "stop_token_ids", "generation_config", "split_special_tokens"),
)
"""Fields passed to every engine call."""


class TransformersLLM(LLM, EngineModel):
    """A local Hugging Face model as a LlamaIndex LLM.

    All open calls, from threads or from tasks, are decoded together as one batch, so concurrent `acomplete`s, or a
    Skeleton-of-Thought, are truly parallel. Async methods never block the event loop, streams yield text as it is
    written, and a stream that is closed early stops decoding. Instances with the same `model` and `model_kwargs` share
    one loaded model.

    Messages go through `messages_to_prompt` if that is given, else through the model's chat template if it has one. A
    last message of the assistant's is the start of the model's turn, which the model continues. `complete` makes a
    message of its prompt, unless `completion_to_prompt` or `query_wrapper_prompt` is given. A prompt that is
    `formatted` stays plain text.

    Example:
        TransformersLLM()                                      # a small built-in demo model
        TransformersLLM(model="Qwen/Qwen2.5-1.5B-Instruct")    # from the hub, a folder or a .gguf file
        TransformersLLM.from_model(model, tokenizer)           # already loaded
        TransformersLLM(engine=engine, temperature=0.7)        # an engine that you made
        TransformersLLM(model="...", model_kwargs={"dtype": "bfloat16", "device": "cuda", "kv_memory": 0.3})

        >>> llm = TransformersLLM(max_tokens=16)
        >>> llm.complete("What is the capital of France?").text
        'The capital of France is Paris.'

    Attributes:
        model: A hub id, a directory, a path to a .gguf file, or None for the demo model.
        model_kwargs: How the model is loaded and run: keyword arguments of `LocalEngine.from_pretrained`, such as
            `dtype`, `device`, `optimize`, `kv_memory`, `max_batch_size` or `chat_template_kwargs`.
        engine: The engine that decodes; loaded from `model` if not given.
        context_window: The most tokens of prompt and completion that LlamaIndex plans for; None for the model's window.
        is_chat_model: Whether LlamaIndex calls it with messages. None for yes where there is a chat template or
            `messages_to_prompt`, and no wrapper for completions.
        temperature: 0 for greedy decoding, which is the default. For this and the settings below, None stands for the
            engine's default: greedy, without limits, and otherwise what the model's `generation_config` says
            (docs/local.md). `model_kwargs={"use_checkpoint_sampling": True}` samples where that config does.
        top_p: The probability mass to sample from.
        top_k: The number of tokens to sample from; 0 for all.
        min_p: The least share of the most likely token's probability; 0 for no such limit.
        max_tokens: The longest completion, in tokens, if the window has room for it; also called `max_new_tokens`.
        min_new_tokens: The shortest completion, in tokens; stop strings may end it earlier.
        repetition_penalty: Above 1 makes tokens of the prompt and of the text so far less likely.
        no_repeat_ngram_size, bad_words_ids, suppress_tokens, sequence_bias, logits_processor: As in
            `skeleton_of_thought.local.SamplingParams`.
        seed: Makes sampling repeatable.
        stop: Strings that end the completion; not part of the text.
        stop_token_ids: Tokens that end the completion, besides the model's own end tokens.
        generation_config: Values that replace the model's, by name, or a `GenerationConfig`, or `"ignore"`.
        split_special_tokens: True to read no special token in any message; or the texts in which none is read. By
            default none is read in text of a model or a retriever within the prompts of Skeleton-of-Thought.
        system_prompt: The system message of chats that have none.

    The settings from `temperature` to `split_special_tokens` may also be given with a call; so may `prefill` (the start
    of the model's turn, not part of the text), `stop_after_text` (strings that end the completion once it has any
    text), `frequency_penalty`, `presence_penalty` and `grammar` (a `skeleton_of_thought.local.Grammar`).

    The `raw` of a response, and of a stream's last chunk, holds `usage` in tokens as OpenAI's servers report it,
    `finish_reason` (`"stop"` or `"length"`), and `decoding`: the engine's record of the completion
    (`skeleton_of_thought.types.Decoding`, as a dict).

    With the extra `structured`, `structured_predict` and `as_structured_llm` enforce the schema by a grammar.

    Raises:
        MissingExtra: torch or transformers are not installed.
        ModelLoadError: The model cannot be found or loaded.
        InvalidInput: With a call: a message or setting that the model cannot take.
    """

    model: str | None = Field(default=None, kw_only=False)
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    engine: Any = Field(default=None, exclude=True, repr=False)
    context_window: int | None = Field(default=None, gt=0)
    is_chat_model: bool | None = None
    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    min_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    min_new_tokens: int = Field(default=0, ge=0)
    repetition_penalty: float | None = Field(default=None, gt=0)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0)
    bad_words_ids: list[list[int]] | None = None
    suppress_tokens: list[int] | None = None
    sequence_bias: Any = Field(default=None, exclude=True)
    logits_processor: Any = Field(default=None, exclude=True)
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] = Field(default_factory=list)
    generation_config: Any = None
    split_special_tokens: bool | list[str] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    if TYPE_CHECKING:  # another name for max_tokens
        max_new_tokens: InitVar[int] = 512
    else:

        @first_by_position("model", str | None, None)
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "max_new_tokens" not in values:
            return values
        if "max_tokens" in values:
            raise InvalidInput("max_tokens and max_new_tokens mean the same: give one of them.")
        return {"max_tokens" if name == "max_new_tokens" else name: value for name, value in values.items()}

    @model_validator(mode="after")
    def _load(self) -> Self:
        self.engine = find_engine(self.model, self.model_kwargs, self.engine)
        return self

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised form."""
        return "TransformersLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The metadata that LlamaIndex reads: window, longest completion, chat or text."""
        windows = [window for window in (self.context_window, self.engine.context_window) if window is not None]
        return LLMMetadata(
            context_window=min(windows, default=DEFAULT_CONTEXT_WINDOW),
            num_output=self.max_tokens,
            is_chat_model=self._takes_messages if self.is_chat_model is None else self.is_chat_model,
            model_name=self.model or "demo",
        )

    @property
    def _takes_messages(self) -> bool:
        able = self.engine.has_chat_template or has_own_messages_format(self)
        return bool(able) and not has_own_completion_format(self)

    @classmethod
    def call_settings(cls) -> frozenset[str]:
        """The keyword arguments that calls take."""
        return frozenset((*_SETTINGS, *CALL_ONLY))

    # --- pickles and copies: without the engine, which is found again by the model's name ---

    def __getstate__(self) -> dict[str, Any]:
        return super(TransformersLLM, self.model_copy(update={"engine": None})).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # BaseComponent's method would make an object without an engine if the model cannot be loaded.
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()

    # --- calls ---

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The model's reply; the class documents the keyword arguments."""
        return whole(self._chat_call(messages, kwargs).open(), chat_response)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Async twin of `chat`."""
        return await awhole(self._chat_call(messages, kwargs).aopen(), chat_response)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The reply as it is written; decoding begins now, even if nobody reads it."""
        return streamed(self._chat_call(messages, kwargs).open(), chat_response)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Async twin of `stream_chat`."""
        return astreamed(self._chat_call(messages, kwargs).aopen(), chat_response)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The completion of a prompt, used as it is if `formatted`; the class documents the keyword arguments."""
        return whole(self._text_call(prompt, formatted, kwargs).open(), completion_response)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Async twin of `complete`."""
        return await awhole(self._text_call(prompt, formatted, kwargs).aopen(), completion_response)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The completion as it is written; decoding begins now, even if nobody reads it."""
        return streamed(self._text_call(prompt, formatted, kwargs).open(), completion_response)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Async twin of `stream_complete`."""
        return astreamed(self._text_call(prompt, formatted, kwargs).aopen(), completion_response)

    def _chat_call(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> LocalCall:
        return self._call(messages_prompt(self, messages, template=self.engine.has_chat_template), kwargs)

    def _text_call(self, prompt: str, formatted: bool, kwargs: Mapping[str, Any]) -> LocalCall:
        if formatted:
            return self._call(LocalPrompt(prompt), kwargs)
        return self._call(text_prompt(self, prompt, template=self.engine.has_chat_template), kwargs)

    def _call(self, prompt: LocalPrompt, kwargs: Mapping[str, Any]) -> LocalCall:
        return LocalCall(self.engine, prompt, {name: getattr(self, name) for name in _SETTINGS}, kwargs)

    # --- structured output ---

    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """An instance of a pydantic class; a grammar enforces its schema (extra `structured`)."""
        kwargs = self._with_grammar(output_cls, llm_kwargs)
        predicted: Model = super().structured_predict(output_cls, prompt, kwargs, **prompt_args)
        return predicted

    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Async twin of `structured_predict`."""
        kwargs = self._with_grammar(output_cls, llm_kwargs)
        predicted: Model = await super().astructured_predict(output_cls, prompt, kwargs, **prompt_args)
        return predicted

    def _structured_stream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        kwargs = self._with_grammar(output_cls, llm_kwargs)
        return super()._structured_stream_call(output_cls, prompt, kwargs, **prompt_args)

    async def _structured_astream_call(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        kwargs = self._with_grammar(output_cls, llm_kwargs)
        return await super()._structured_astream_call(output_cls, prompt, kwargs, **prompt_args)

    def _with_grammar(self, output_cls: Any, llm_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
        """The keyword arguments of a call for JSON of this class, with a grammar where one can be made."""
        given = dict(llm_kwargs or {})
        if "grammar" in given or importlib.util.find_spec("llguidance") is None:
            return given
        from skeleton_of_thought.local import Grammar

        try:
            grammar = Grammar.from_json_schema(output_cls.model_json_schema())
            self.engine.prepare(grammar)
        except InvalidInput as error:
            _logger.warning("The prompt asks for %s, but no grammar enforces it: %s", output_cls.__name__, error)
            return given
        return {**given, "grammar": grammar}
