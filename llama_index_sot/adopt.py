"""Local models that people have already in LlamaIndex's `HuggingFaceLLM`, run by a local engine.

`HuggingFaceLLM` runs one prompt after another, and its async methods stop the event loop meanwhile. Adopted, its model
and tokenizer get the model's `LocalEngine`, which decodes all calls that are open as one batch. What the object was set
up to do is kept: limits, sampling, penalties, stopping ids, and how it writes prompts. Settings that an engine does not
have (beams, custom logits processors, ...) leave the object as it is, with a line in the log that says which.

It differs from the object itself where that is at odds with itself or its model: a chat template is used where there
is one and nobody said how prompts are written; a BOS comes once, where template and tokenizer would both write it; the
system prompt counts in `complete` as in `stream_complete`, and `completion_to_prompt` in both; a stop string of
`generate_kwargs` is no part of the text.

The class is known by name, so nothing is imported for it.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from typing import Any

from llama_index.core.llms.llm import LLM

from llama_index_sot.transformers_llm import TransformersLLM
from skeleton_of_thought.errors import InvalidInput

__all__ = ["adopt", "is_stock"]

logger = logging.getLogger(__name__)

_CLASS = "HuggingFaceLLM"
_PACKAGE = "llama_index.llms.huggingface"

_METHODS = (
    *("complete", "stream_complete", "chat", "stream_chat"),
    *("acomplete", "astream_complete", "achat", "astream_chat"),
)
"""What makes it generate."""

_KEPT = ("callback_manager", "rate_limiter", "output_parser", "pydantic_program_mode", "completion_to_prompt")
"""What every LLM has, whatever it runs on. System prompt, wrapper and messages are looked at by themselves."""


class _NotAdopted(Exception):
    """Why an object is left as it is."""


class _Known:
    """What is kept for one object: its engine, which `LocalEngine.for_model` does not hold, and what was told of it."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.reasons: set[str] = set()


_known: dict[int, _Known] = {}
"""By the object's id, as long as it lives: models of pydantic cannot be keys."""

_adopting = threading.Lock()


def adopt(llm: LLM) -> TransformersLLM | None:
    """A stock `HuggingFaceLLM`'s model over its local engine, with the settings that it has now.

    All that are adopted from one object, or from objects over the same model and tokenizer, share one engine.

    Args:
        llm: Any LLM.

    Returns:
        The LLM to use instead; None for any other LLM, and where an engine cannot do what this one does (a warning in
        the log then says why).
    """
    owner = _library_class(llm)
    if owner is None:
        return None
    try:
        return _adopted(llm, owner)
    except Exception as error:  # whatever it is, the object still works as it did
        own = isinstance(error, _NotAdopted | InvalidInput)
        _tell(llm, str(error) if own else f"{type(error).__name__}: {error}")
        return None


def is_stock(llm: LLM) -> bool:
    """Whether it is a `HuggingFaceLLM`, adopted or not: by itself it runs one prompt after another."""
    owner = _library_class(llm)
    return owner is not None and _own_method(llm, owner) is None


def _library_class(llm: Any) -> type | None:
    for cls in type(llm).__mro__:
        if cls.__name__ == _CLASS and f"{cls.__module__}.".startswith(f"{_PACKAGE}."):
            return cls
    return None


def _adopted(llm: Any, owner: type) -> TransformersLLM:
    from skeleton_of_thought.local.generation import read_generation, sampling_settings

    if (name := _own_method(llm, owner)) is not None:
        raise _NotAdopted(f"{type(llm).__name__} has a {name} of its own.")
    if "max_new_tokens" in llm.generate_kwargs:
        raise _NotAdopted("Its generate_kwargs have max_new_tokens, which it says itself: it fails with them.")
    generate = {**llm.generate_kwargs, "max_new_tokens": llm.max_new_tokens}
    given = read_generation(llm._model, llm._tokenizer, generate)
    settings, further = sampling_settings(given)
    return TransformersLLM(
        engine=_engine_of(llm),
        model=getattr(llm._model, "name_or_path", "") or type(llm._model).__name__,
        context_window=llm.context_window,
        min_new_tokens=given.get("min_new_tokens") or 0,
        stop_token_ids=list(llm.stopping_ids),
        system_prompt=llm.system_prompt or None,
        query_wrapper_prompt=llm.query_wrapper_prompt,
        messages_to_prompt=_messages_to_prompt(llm, owner),
        is_chat_model=llm.is_chat_model or None,
        **settings,
        **further,
        **{name: getattr(llm, name) for name in _KEPT if hasattr(llm, name)},
    )


def _own_method(llm: Any, owner: type) -> str | None:
    """A method that this one has in place of the library's; None where it has them all."""
    names = (*_METHODS, "_tokenizer_messages_to_prompt")
    kind = type(llm)
    return next((n for n in names if inspect.getattr_static(kind, n) is not inspect.getattr_static(owner, n)), None)


def _messages_to_prompt(llm: Any, owner: type) -> Any:
    """How messages become text; None for the way that the class has by itself, which is the chat template."""
    own = llm.messages_to_prompt
    return None if getattr(own, "__func__", None) is getattr(owner, "_tokenizer_messages_to_prompt", owner) else own


def _knowledge(llm: Any) -> _Known:
    known = _known.get(id(llm))
    if known is None:
        known = _known[id(llm)] = _Known()
        weakref.finalize(llm, _known.pop, id(llm), None).atexit = False
    return known


def _engine_of(llm: Any) -> Any:
    from skeleton_of_thought.local import LocalEngine

    # Under the lock: two calls that come first shall not pack the same weights twice.
    with _adopting:
        known = _knowledge(llm)
        if known.engine is None or known.engine.closed or known.engine.model is not llm._model:
            known.engine = LocalEngine.for_model(llm._model, llm._tokenizer)
        return known.engine


def _tell(llm: Any, reason: str) -> None:
    with _adopting:
        reasons = _knowledge(llm).reasons
        if reason in reasons:
            return
        reasons.add(reason)
    logger.warning("This %s is used as it is, one prompt after another: %s", type(llm).__name__, reason)
