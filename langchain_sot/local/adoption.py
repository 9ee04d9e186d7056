"""Adoption: running the model of a `HuggingFacePipeline` or `ChatHuggingFace` on a local engine.

These classes of LangChain run one prompt after another. If such an object holds a model of this process, its calls go
to the model's `LocalEngine` instead, which decodes all open calls as one batch. The object's settings are kept: limits,
sampling, penalties, logits processors. An object with settings that an engine does not have (beams, stopping criteria,
...) stays as it is, and a line in the log names the setting.

The classes are known by their names, so nothing is imported for them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import Field

from langchain_sot.local.chat_transformers import ChatTransformers
from langchain_sot.messages import render_text
from skeleton_of_thought.adapters.adoption import Adoptions, NotAdopted, library_class, overridden
from skeleton_of_thought.adapters.engines import model_name
from skeleton_of_thought.errors import PromptTooLong
from skeleton_of_thought.types import Message, Prompt

__all__ = ["AdoptedModel", "adopt_runnable", "with_async_methods"]

_PACKAGES = ("langchain_huggingface", "langchain_community")

_PIPELINE_KWARGS = ("skip_prompt", "pipeline_kwargs")
"""Keyword arguments of these classes that an engine does not take. Its texts never repeat the prompt, and adoption has
read `pipeline_kwargs` already."""

_OF_A_CALL = (
    *("min_p", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "sequence_bias"),
    "logits_processor",
)
"""Settings that a call on an adopted model may have, which come before the pipeline's."""

_SUPPORTED = frozenset(
    {*_PIPELINE_KWARGS, *_OF_A_CALL, "stop", "stream", "temperature", "top_p", "top_k", "max_tokens", "seed", "prefill"}
    | {"split_special_tokens", "stop_after_text", "min_new_tokens", "frequency_penalty", "presence_penalty"}
)
"""Keyword arguments of a call that an adopted model supports."""

_SHARED_FIELDS = ("cache", "verbose", "callbacks", "tags", "metadata", "rate_limiter", "disable_streaming")
"""Fields of every LangChain model that the adopted one copies."""

_adoptions = Adoptions(logging.getLogger(__name__))


# --- the objects that can be adopted ---


@dataclass(frozen=True)
class _LocalModel:
    """A LangChain object over a pipeline of this process.

    Attributes:
        llm: The object.
        pipeline: The pipeline of transformers in it.
        chat: Whether it is a chat model.
        owner: The library's class; the object's own may be a subclass.
    """

    llm: Any
    pipeline: Any
    chat: bool
    owner: type


def _find_local(llm: Any) -> _LocalModel | None:
    if (owner := library_class(llm, "ChatHuggingFace", _PACKAGES)) is not None:
        inner = getattr(llm, "llm", None)
        pipeline = getattr(inner, "pipeline", None)
        if library_class(inner, "HuggingFacePipeline", _PACKAGES) is None or pipeline is None:
            return None  # a remote endpoint
        return _LocalModel(llm, pipeline, True, owner)
    owner = library_class(llm, "HuggingFacePipeline", _PACKAGES)
    pipeline = getattr(llm, "pipeline", None)
    return None if owner is None or pipeline is None else _LocalModel(llm, pipeline, False, owner)


def adopt_runnable(llm: Runnable[Any, Any], kwargs: Mapping[str, Any]) -> Runnable[Any, Any]:
    """A model of LangChain's local Hugging Face classes, over its engine; any other model as it is.

    Args:
        llm: Any model, without wrappers.
        kwargs: Keyword arguments that are bound to it or passed with the call.
    """
    local = _find_local(llm)
    if local is None:
        return llm
    adopted = _adoptions.attempt(local.pipeline, type(llm).__name__, lambda: _adopted(local, kwargs))
    return with_async_methods(llm) if adopted is None else adopted


def with_async_methods(llm: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model with async methods that work: those of a local `ChatHuggingFace` do not."""
    local = _find_local(llm)
    return _ThreadedModel(llm) if local is not None and local.chat else llm


class _ThreadedModel(Runnable[Any, Any]):
    """`ChatHuggingFace` over a pipeline, whose `ainvoke` raises NotImplementedError and `astream` AttributeError.

    Its sync methods work, and the async methods of `Runnable` run them in a thread.
    """

    def __init__(self, model: Runnable[Any, Any]) -> None:
        self.model = model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.model.invoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[Any]:
        return self.model.stream(input, config, **kwargs)


# --- the model over its engine ---


class AdoptedModel(ChatTransformers):
    """A `HuggingFacePipeline` or `ChatHuggingFace` over a local engine.

    It returns messages, with usage and `response_metadata`, for a string LLM too.

    Attributes:
        chat: Whether messages go through the chat template; a string LLM's go as plain text.
        further: Settings of the pipeline that `ChatTransformers` has no field for. The engine already has them; here
            they tell apart models with different settings, for caches.
    """

    chat: bool = True
    further: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "skeleton-of-thought-adopted"

    def _resolve_model_profile(self) -> None:
        return None  # no caller gets this model, and each answer makes one of its own

    def _settings(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return super()._settings(stop, {name: value for name, value in kwargs.items() if name not in _PIPELINE_KWARGS})


class _AdoptedEngine:
    """A shared engine with the settings of one object's pipeline, which `ChatTransformers` uses like an engine.

    Args:
        engine: The model's engine.
        chat: Whether prompts go through the chat template; else as plain text.
        fixed: Settings of every call.
        min_new_tokens: The shortest completion.
        max_length: The most tokens of prompt and completion together; None for the model's window.
    """

    def __init__(
        self, engine: Any, *, chat: bool, fixed: Mapping[str, Any], min_new_tokens: int, max_length: int | None
    ) -> None:
        self._engine = engine
        self._chat = chat
        self._fixed = fixed
        self._min_new_tokens = min_new_tokens
        self._max_length = max_length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @property
    def takes_prefill(self) -> bool:
        """`LocalEngine.takes_prefill`; plain text has no template."""
        return not self._chat or bool(self._engine.takes_prefill)

    @property
    def reasons(self) -> bool:
        """`LocalEngine.reasons`; plain text has no template."""
        return self._chat and bool(self._engine.reasons)

    def stream(self, prompt: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """`LocalEngine.stream` with the pipeline's settings."""
        prompt, settings = self._request(prompt, settings)
        return self._engine.stream(prompt, **settings)

    def astream(self, prompt: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """Async twin of `stream`."""
        prompt, settings = self._request(prompt, settings)
        return self._engine.astream(prompt, **settings)

    def _request(
        self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        from skeleton_of_thought.local.generation import fit_settings

        called = {name: settings[name] for name in _OF_A_CALL if settings.get(name) is not None}
        own = {**settings, **self._fixed, **called}
        own["min_new_tokens"] = max(self._min_new_tokens, own.get("min_new_tokens") or 0) or None
        prompt: Any = messages
        if not self._chat:
            prompt = _plain(messages, own.pop("prefill", ""))
        split = own.get("split_special_tokens")
        used = self._engine.count_tokens(prompt, prefill=own.get("prefill", ""), split_special_tokens=split)
        if self._max_length is not None and used >= self._max_length:
            raise PromptTooLong(
                f"The prompt has {used} tokens, and max_length={self._max_length} includes them: give the pipeline "
                "max_new_tokens instead, or a larger max_length."
            )
        return prompt, fit_settings(own, used, self._max_length, self._engine.context_window)


def _plain(messages: Sequence[Mapping[str, Any]], prefill: str) -> str:
    turns = [Message(str(message["role"]), str(message.get("content") or "")) for message in messages]
    if len(turns) > 1 and turns[-1].role == "assistant":
        prefill = turns.pop().text + prefill
    return render_text(Prompt(tuple(turns), prefill=prefill))


def _adopted(local: _LocalModel, kwargs: Mapping[str, Any]) -> AdoptedModel:
    from skeleton_of_thought.local.generation import request_config, sampling_settings

    llm, pipeline = local.llm, local.pipeline
    if (method := overridden(llm, local.owner, ("_generate", "_stream"))) is not None:
        raise NotAdopted(f"{type(llm).__name__} has a {method} of its own.")
    if unsupported := sorted(kwargs.keys() - _SUPPORTED):
        raise NotAdopted(f"An engine does not support {', '.join(unsupported)}, which the call has.")
    given = _generation(pipeline, kwargs.get("pipeline_kwargs") or {})
    settings, fixed = sampling_settings(given)
    if local.chat:
        _add_chat_settings(settings, fixed, llm)
    config = request_config(given)
    least = given.get("min_new_tokens") or 0
    total = None if given.get("max_new_tokens") is not None else given.get("max_length")
    engine = _AdoptedEngine(
        _adoptions.engine(pipeline, pipeline.model, _tokenizer(local)),
        chat=local.chat,
        fixed={**fixed, "generation_config": config},
        min_new_tokens=least,
        max_length=total,
    )
    return AdoptedModel(
        engine=engine,
        model=getattr(llm, "model_id", None) or model_name(pipeline.model),
        name=type(llm).__name__,
        chat=local.chat,
        further={
            **{name: value for name, value in config.items() if value},
            **fixed,
            "min_new_tokens": least,
            "max_length": total,
        },
        **settings,
        **{name: getattr(llm, name) for name in _SHARED_FIELDS if hasattr(llm, name)},
    )


def _tokenizer(local: _LocalModel) -> Any:
    own = getattr(local.llm, "tokenizer", None) if local.chat else None
    pipelines = local.pipeline.tokenizer
    # `ChatHuggingFace` loads a tokenizer of its own for its template. If the pipeline's has the same template, it is
    # used instead, so that both classes over one pipeline share one engine.
    if own is None or getattr(own, "chat_template", None) == getattr(pipelines, "chat_template", None):
        return pipelines
    return own


# --- the pipeline's settings ---


def _generation(pipeline: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The generation config that the pipeline would use for a call, as a dict.

    Raises:
        NotAdopted, InvalidInput: The pipeline has a setting that an engine does not have.
    """
    from skeleton_of_thought.local.generation import read_generation

    if getattr(pipeline, "task", None) != "text-generation":
        raise NotAdopted(f"Its pipeline is for {getattr(pipeline, 'task', None)!r}, not for 'text-generation'.")
    if getattr(pipeline, "assistant_model", None) is not None:
        raise NotAdopted("Its pipeline has an assistant model.")
    call = {name: value for name, value in call.items() if name not in ("batch_size", "num_workers")}
    before, forward, after = pipeline._sanitize_parameters(**call)
    before, after = {**pipeline._preprocess_params, **before}, {**pipeline._postprocess_params, **after}
    for name in ("prefix", "tools", "documents", "handle_long_generation", "tokenizer_encode_kwargs"):
        if before.get(name):
            raise NotAdopted(f"Its pipeline has {name}.")
    if before.get("add_special_tokens") is False:
        raise NotAdopted("Its pipeline has add_special_tokens=False.")
    if after.get("skip_special_tokens") is False:
        raise NotAdopted("Its pipeline has skip_special_tokens=False.")
    if getattr(after.get("return_type"), "name", None) == "TENSORS":
        raise NotAdopted("Its pipeline returns tensors.")
    forward = {**pipeline._forward_params, **forward}
    if hasattr(pipeline, "_prepare_generate_kwargs"):
        forward = pipeline._prepare_generate_kwargs(forward)
    elif "generation_config" not in forward:
        forward["generation_config"] = getattr(pipeline, "generation_config", None)  # before transformers 5.20
    return read_generation(pipeline.model, pipeline.tokenizer, forward)


def _add_chat_settings(settings: dict[str, Any], fixed: dict[str, Any], llm: Any) -> None:
    """Adds the settings of a `ChatHuggingFace` itself, which that class does not pass on to a pipeline."""
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(llm, name, None)) is not None:
            settings[name] = value
    for name in ("frequency_penalty", "presence_penalty"):
        if (value := getattr(llm, name, None)) is not None:
            fixed[name] = value
    if stop := getattr(llm, "stop", None):
        settings["stop"] = [stop] if isinstance(stop, str) else list(stop)
