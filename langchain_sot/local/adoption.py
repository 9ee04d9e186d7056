"""Local models that people have already in LangChain's Hugging Face classes, run by a local engine.

`HuggingFacePipeline` and `ChatHuggingFace` run one prompt after another. Where such an object holds a model of this
process, its calls go to the model's `LocalEngine` instead, which decodes all that are open as one batch. What the
object's pipeline would have done is kept: its limits, sampling and penalties. Settings that an engine does not have
(beams, custom logits processors, ...) leave the object as it is, with a line in the log that says which.

The classes are known by name, wherever they are defined, so nothing is imported for them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import Field

from langchain_sot.local.chat_transformers import ChatTransformers
from langchain_sot.messages import render_text
from langchain_sot.models.resolution import library_class
from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.types import Message, Prompt

__all__ = ["AdoptedModel", "adopt_runnable", "with_async_methods"]

logger = logging.getLogger(__name__)

_IN_CALLS = ("skip_prompt", "pipeline_kwargs")
"""What these classes take with a call. The prompt is never part of an engine's text; the rest is read when adopting."""

_UNDERSTOOD = frozenset(
    {*_IN_CALLS, "stop", "stream", "temperature", "top_p", "top_k", "max_tokens", "seed", "prefill", "stop_after_text"}
    | {"min_new_tokens", "frequency_penalty", "presence_penalty"}
)
"""Keywords of a call that an adopted model can do."""

_SHARED_FIELDS = ("cache", "verbose", "callbacks", "tags", "metadata", "rate_limiter", "disable_streaming")
"""What every LangChain model has, whatever it runs on."""


class _NotAdopted(Exception):
    """Why an object is left as it is."""


# --- who can be adopted ---


@dataclass(frozen=True)
class _Local:
    """A LangChain object over a pipeline of this process."""

    llm: Any
    pipeline: Any
    chat: bool
    owner: type
    """The library's class, of which the object's may be a subclass."""


def _find_local(llm: Any) -> _Local | None:
    if (owner := library_class(type(llm), "ChatHuggingFace")) is not None:
        inner = getattr(llm, "llm", None)
        pipeline = getattr(inner, "pipeline", None)
        if library_class(type(inner), "HuggingFacePipeline") is None or pipeline is None:
            return None  # a remote endpoint
        return _Local(llm, pipeline, True, owner)
    owner = library_class(type(llm), "HuggingFacePipeline")
    pipeline = getattr(llm, "pipeline", None)
    return None if owner is None or pipeline is None else _Local(llm, pipeline, False, owner)


def adopt_runnable(llm: Runnable[Any, Any], kwargs: Mapping[str, Any]) -> Runnable[Any, Any]:
    """The model over its engine, if it is one of LangChain's local Hugging Face models; else the model itself.

    Args:
        llm: Any model, without wrappers.
        kwargs: What is bound to it or passed with the call.
    """
    local = _find_local(llm)
    if local is None:
        return llm
    try:
        return _adopted(local, kwargs)
    except Exception as error:  # whatever it is, the object still works as it did
        reason = str(error) if isinstance(error, _NotAdopted | InvalidInput) else f"{type(error).__name__}: {error}"
        _tell(local, reason)
        return with_async_methods(llm)


def with_async_methods(llm: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model, with async methods that work."""
    local = _find_local(llm)
    return _InThreads(llm) if local is not None and local.chat else llm


class _InThreads(Runnable[Any, Any]):
    """`ChatHuggingFace` over a pipeline, whose `ainvoke` raises NotImplementedError and `astream` AttributeError.

    Its sync methods do work; a runnable's own async ones run those in a thread.
    """

    def __init__(self, model: Runnable[Any, Any]) -> None:
        self.model = model

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.model.invoke(input, config, **kwargs)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[Any]:
        return self.model.stream(input, config, **kwargs)


_told: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def _tell(local: _Local, reason: str) -> None:
    reasons = _told.setdefault(local.pipeline, set())
    if reason not in reasons:
        reasons.add(reason)
        logger.warning("This %s is used as it is, one prompt after another: %s", type(local.llm).__name__, reason)


# --- the model over its engine ---


class AdoptedModel(ChatTransformers):
    """A `HuggingFacePipeline` or `ChatHuggingFace` over a local engine.

    It gives messages, with usage and `response_metadata`, for a string LLM too.

    Attributes:
        chat: Whether messages go through the chat template; a string LLM's go as plain text.
        further: Settings of the pipeline that `ChatTransformers` has no field for; the engine heeds them.
    """

    chat: bool = True
    further: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "skeleton-of-thought-adopted"

    def _settings(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return super()._settings(stop, {name: value for name, value in kwargs.items() if name not in _IN_CALLS})


class _OwnEngine:
    """A shared engine as one object's calls are to run on it: `ChatTransformers` talks to it as to an engine.

    Args:
        engine: The model's engine.
        chat: Whether prompts are messages; else their text is what the model gets.
        fixed: Settings that every call has.
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

    def stream(self, prompt: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """See `LocalEngine.stream`."""
        prompt, settings = self._own(prompt, settings)
        return self._engine.stream(prompt, **settings)

    def astream(self, prompt: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """See `LocalEngine.astream`."""
        prompt, settings = self._own(prompt, settings)
        return self._engine.astream(prompt, **settings)

    def _own(self, messages: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from skeleton_of_thought.local.generation import fit_settings

        own = {**settings, **self._fixed}
        own["min_new_tokens"] = max(self._min_new_tokens, own.get("min_new_tokens", 0))
        prompt: Any = messages
        if not self._chat:
            prompt = _plain(messages, own.pop("prefill", ""))
        used = self._engine.count_tokens(prompt, prefill=own.get("prefill", ""))
        if self._max_length is not None and used >= self._max_length:
            raise PromptTooLong(
                f"The prompt has {used} tokens, and max_length={self._max_length} counts them: give the pipeline "
                "max_new_tokens instead, or a larger max_length."
            )
        return prompt, fit_settings(own, used, self._max_length, self._engine.context_window)


def _plain(messages: Sequence[Mapping[str, Any]], prefill: str) -> str:
    turns = [Message(str(message["role"]), str(message.get("content") or "")) for message in messages]
    if len(turns) > 1 and turns[-1].role == "assistant":
        prefill = turns.pop().text + prefill
    return render_text(Prompt(tuple(turns), prefill=prefill))


def _adopted(local: _Local, kwargs: Mapping[str, Any]) -> AdoptedModel:
    llm, pipeline = local.llm, local.pipeline
    for name in ("_generate", "_stream"):
        if getattr(type(llm), name, None) is not getattr(local.owner, name, None):
            raise _NotAdopted(f"{type(llm).__name__} has a {name} of its own.")
    if strange := sorted(kwargs.keys() - _UNDERSTOOD):
        raise _NotAdopted(f"An engine does not know {', '.join(strange)}, which a call brings.")
    from skeleton_of_thought.local.generation import sampling_settings

    given = _generation(pipeline, kwargs.get("pipeline_kwargs") or {})
    settings, fixed = sampling_settings(given)
    if local.chat:
        _add_chat_settings(settings, fixed, llm)
    least = given.get("min_new_tokens") or 0
    total = None if given.get("max_new_tokens") is not None else given.get("max_length")
    engine = _OwnEngine(
        _engine_of(pipeline, _tokenizer(local)), chat=local.chat, fixed=fixed, min_new_tokens=least, max_length=total
    )
    further = {**fixed, "min_new_tokens": least, "max_length": total}
    shared = {name: getattr(llm, name) for name in _SHARED_FIELDS if hasattr(llm, name)}
    name = (
        getattr(llm, "model_id", None) or getattr(pipeline.model, "name_or_path", "") or type(pipeline.model).__name__
    )
    return AdoptedModel(
        engine=engine, model=name, name=type(llm).__name__, chat=local.chat, further=further, **settings, **shared
    )


def _tokenizer(local: _Local) -> Any:
    own = getattr(local.llm, "tokenizer", None) if local.chat else None
    theirs = local.pipeline.tokenizer
    # `ChatHuggingFace` loads a tokenizer of its own for its template. With the same template the pipeline's does as
    # well, and then both classes over one pipeline share one engine.
    if own is None or getattr(own, "chat_template", None) == getattr(theirs, "chat_template", None):
        return theirs
    return own


_engines: WeakKeyDictionary[Any, dict[int, Any]] = WeakKeyDictionary()
"""Engines by the pipeline that they were adopted from, which keeps them: `LocalEngine.for_model` does not."""

_adopting = threading.Lock()


def _engine_of(pipeline: Any, tokenizer: Any) -> Any:
    from skeleton_of_thought.local import LocalEngine

    # Under the lock: two calls that come first shall not pack the same weights twice.
    with _adopting:
        kept = _engines.setdefault(pipeline, {})
        engine = kept.get(id(tokenizer))
        if engine is None or engine.closed or engine.model is not pipeline.model:
            engine = kept[id(tokenizer)] = LocalEngine.for_model(pipeline.model, tokenizer)
        return engine


# --- what the pipeline would have done ---


def _generation(pipeline: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The generation config that the pipeline would use for a call, as a dict.

    Raises:
        _NotAdopted, InvalidInput: It does something besides that an engine does not.
    """
    from skeleton_of_thought.local.generation import read_generation

    if getattr(pipeline, "task", None) != "text-generation":
        raise _NotAdopted(f"Its pipeline is for {getattr(pipeline, 'task', None)!r}, not for 'text-generation'.")
    if getattr(pipeline, "assistant_model", None) is not None:
        raise _NotAdopted("Its pipeline has an assistant model.")
    call = {name: value for name, value in call.items() if name not in ("batch_size", "num_workers")}
    before, forward, after = pipeline._sanitize_parameters(**call)
    before, after = {**pipeline._preprocess_params, **before}, {**pipeline._postprocess_params, **after}
    for name in ("prefix", "tools", "documents", "handle_long_generation", "tokenizer_encode_kwargs"):
        if before.get(name):
            raise _NotAdopted(f"Its pipeline has {name}.")
    if before.get("add_special_tokens") is False:
        raise _NotAdopted("Its pipeline has add_special_tokens=False.")
    if after.get("skip_special_tokens") is False:
        raise _NotAdopted("Its pipeline has skip_special_tokens=False.")
    if getattr(after.get("return_type"), "name", None) == "TENSORS":
        raise _NotAdopted("Its pipeline returns tensors.")
    forward = {**pipeline._forward_params, **forward}
    if hasattr(pipeline, "_prepare_generate_kwargs"):
        forward = pipeline._prepare_generate_kwargs(forward)
    elif "generation_config" not in forward:
        forward["generation_config"] = getattr(pipeline, "generation_config", None)  # before transformers 5.20
    return read_generation(pipeline.model, pipeline.tokenizer, forward)


def _add_chat_settings(settings: dict[str, Any], fixed: dict[str, Any], llm: Any) -> None:
    """What was set on a `ChatHuggingFace` itself. With a pipeline that class passes none of it on; whoever sets it
    means it."""
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(llm, name, None)) is not None:
            settings[name] = value
    for name in ("frequency_penalty", "presence_penalty"):
        if (value := getattr(llm, name, None)) is not None:
            fixed[name] = value
    if stop := getattr(llm, "stop", None):
        settings["stop"] = [stop] if isinstance(stop, str) else list(stop)
