"""A chat model over a local Hugging Face model, whose concurrent calls are decoded as one batch."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, model_validator

from langchain_sot.messages import convert_message
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Completion, Message

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["ChatTransformers"]

_DEMO = "demo"
_SAMPLING = ("temperature", "top_p", "top_k", "seed")
_HINTS: dict[str, Any] = {
    "prefill": "",
    "stop_after_text": (),
    "min_new_tokens": 0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""What the chain knows about its prompts and the engine takes with each call, and what stands where it is missing."""
_REMOTE = ("api_key", "base_url", "max_retries", "stream_usage", "streaming", "timeout")
"""LangChain's standard parameters that mean nothing without a server; accepted so that models can be swapped."""


class ChatTransformers(BaseChatModel):
    """A local Hugging Face model as a LangChain chat model.

    All calls that are open at a time, from threads or from tasks, are decoded together as one batch, so a
    `RunnableParallel` or a Skeleton-of-Thought over it is truly parallel. Instances with the same `model` share
    one loaded model. A trailing AI message is the start of the model's turn, which it continues.

    Example:
        ChatTransformers()                                      # a small built-in demo model
        ChatTransformers(model="Qwen/Qwen2.5-1.5B-Instruct")    # from the hub, a folder or a .gguf file
        ChatTransformers.from_model(model, tokenizer)           # already loaded
        ChatTransformers(engine=engine, temperature=0.7)        # an engine of one's own

    Attributes:
        model: A hub id, a directory, a path to a .gguf file, or None for the demo model.
        engine: The engine that decodes; loaded from `model` if not given.
        temperature: 0 for greedy decoding.
        top_p: The probability mass to sample from.
        top_k: The number of tokens to sample from; 0 for all.
        max_tokens: The longest completion, in tokens.
        seed: Makes sampling repeatable.
        stop: Strings that end the completion; not part of the text.

    All of these but `model` and `engine`, and `prefill` (the start of the model's turn, not part of the text), may
    also be given with a call, or bound.

    `response_metadata["decoding"]` of a reply is what the engine did for it (`skeleton_of_thought.types.Decoding`, as a
    dict): seconds of waiting, prefill and decoding, and the rows that were decoded at once.

    Raises:
        MissingExtra: torch or transformers are not installed.
        ModelLoadError: The model cannot be found or loaded.
        InvalidInput: With a call: a message or setting that the model cannot take.
    """

    model: str | None = None
    engine: Any = Field(default=None, exclude=True, repr=False)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    seed: int | None = None
    stop: list[str] | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_remote(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if k not in _REMOTE} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _load(self) -> Self:
        self._find_engine()
        return self

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, **settings: Any) -> Self:
        """Over a model and tokenizer that are loaded already; several instances share one engine.

        Args:
            model: A `PreTrainedModel` that generates text.
            tokenizer: Its tokenizer.
            settings: The attributes of this class.
        """
        from skeleton_of_thought.local import LocalEngine

        name = getattr(model, "name_or_path", "") or type(model).__name__
        return cls(**{"model": name, **settings}, engine=LocalEngine.for_model(model, tokenizer))

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """It is; the model is loaded again by its name."""
        return True

    def get_num_tokens(self, text: str) -> int:
        """The number of tokens that the text takes within a prompt."""
        return len(self.engine.tokenizer(text, add_special_tokens=False)["input_ids"])

    def __getstate__(self) -> dict[Any, Any]:
        # A worker thread and its model do not travel; they are found again by the model's name.
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "engine": None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._find_engine()

    def _find_engine(self) -> None:
        if self.engine is None:
            self.engine = _shared_engine(self.model)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self.model_copy()

    # --- what BaseChatModel asks for ---

    @property
    def _llm_type(self) -> str:
        return "skeleton-of-thought-transformers"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        names = ("temperature", "top_p", "top_k", "max_tokens", "seed", "stop")
        return {"model": self._model_name, **{name: getattr(self, name) for name in names}}

    @property
    def _model_name(self) -> str:
        return self.model or _DEMO

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
        with self.engine.stream(_prompt(messages), **self._settings(stop, kwargs)) as stream:
            for _ in stream:
                pass
        return self._result(stream.completion)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        async with self.engine.astream(_prompt(messages), **self._settings(stop, kwargs)) as stream:
            async for _ in stream:
                pass
        return self._result(stream.completion)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with self.engine.stream(_prompt(messages), **self._settings(stop, kwargs)) as stream:
            for text in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        yield self._last_chunk(stream.completion)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with self.engine.astream(_prompt(messages), **self._settings(stop, kwargs)) as stream:
            async for text in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        yield self._last_chunk(stream.completion)

    # --- conversions ---

    def _settings(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in kwargs.items() if name not in ("stream",)}
        settings = {name: given.pop(name, getattr(self, name)) for name in _SAMPLING}
        settings["max_new_tokens"] = given.pop("max_tokens", self.max_tokens)
        settings |= {name: given.pop(name, default) for name, default in _HINTS.items()}
        settings["stop"] = tuple(stop if stop is not None else self.stop or ())
        if given:
            raise InvalidInput(
                f"ChatTransformers does not know {sorted(given)}. With a call it takes {[*_SAMPLING]}, 'max_tokens', "
                f"'stop' and {[*_HINTS]}."
            )
        return settings

    def _result(self, completion: Completion) -> ChatResult:
        message = AIMessage(
            content=completion.text,
            usage_metadata=_usage(completion),
            response_metadata=self._metadata(completion),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _last_chunk(self, completion: Completion) -> ChatGenerationChunk:
        message = AIMessageChunk(
            content="",
            usage_metadata=_usage(completion),
            response_metadata=self._metadata(completion),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def _metadata(self, completion: Completion) -> dict[str, Any]:
        metadata = {
            "model_name": self._model_name,
            "model_provider": "transformers",
            "finish_reason": completion.finish_reason,
        }
        decoding = completion.decoding
        return metadata if decoding is None else {**metadata, "decoding": decoding.to_dict()}


def _usage(completion: Completion) -> UsageMetadata:
    usage = completion.usage
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _prompt(messages: Sequence[BaseMessage]) -> list[Message]:
    converted = [convert_message(message) for message in messages]
    for message in converted:
        if message.attachments:
            kinds = sorted({str(block.get("type")) for block in message.attachments})
            raise InvalidInput(f"The local model reads text only, but a {message.role} message holds {kinds}.")
    return [Message(message.role, message.text) for message in converted]


_engines: WeakValueDictionary[str, LocalEngine] = WeakValueDictionary()
_loading = threading.Lock()


def _shared_engine(model: str | None) -> LocalEngine:
    from skeleton_of_thought.local import LocalEngine

    name = model or _DEMO
    # Under the lock: two threads that ask at once shall not load the same weights twice.
    with _loading:
        engine = _engines.get(name)
        if engine is None or engine.closed:
            engine = _engines[name] = LocalEngine.from_pretrained(model)
        return engine
