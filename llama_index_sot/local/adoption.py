"""Adoption of a `HuggingFaceLLM`: its model on a local engine.

`HuggingFaceLLM` runs one prompt after another, and its async methods block the event loop. Adopted, its model and
tokenizer get the model's `LocalEngine`, which decodes all open calls as one batch. The object's settings are kept:
limits, sampling, penalties, logits processors, stopping ids, and how it writes prompts. An object with settings that an
engine does not have (beams, ...) stays as it is, and a line in the log names the setting.

The adopted model differs from the object where the object contradicts itself or its model: it uses a chat template
that exists unless the user said how to write prompts; it adds one BOS token where template and tokenizer would both
add one; `complete` uses the system prompt, as `stream_complete` does, and both use `completion_to_prompt`; a stop
string of `generate_kwargs` is no part of the text.

The class is recognised by its name, so its package is not imported.
"""

from __future__ import annotations

import logging
from typing import Any

from llama_index.core.llms.llm import LLM

from llama_index_sot.local.transformers_llm import TransformersLLM
from skeleton_of_thought.adapters.adoption import Adoptions, NotAdopted, library_class, overridden
from skeleton_of_thought.adapters.engines import model_name

__all__ = ["STOCK_CLASS", "adopt_llm", "is_stock"]

STOCK_CLASS = ("HuggingFaceLLM", ("llama_index.llms.huggingface",))
"""The name of the class that can be adopted, and the package that has it."""

_METHODS = (
    *("complete", "stream_complete", "chat", "stream_chat"),
    *("acomplete", "astream_complete", "achat", "astream_chat"),
    "_tokenizer_messages_to_prompt",
)
"""The methods by which it generates."""

_KEPT = ("callback_manager", "rate_limiter", "output_parser", "pydantic_program_mode", "completion_to_prompt")
"""Fields of every LLM that are copied. System prompt, wrapper and messages are converted one by one."""

_adoptions = Adoptions(logging.getLogger(__name__))


def adopt_llm(llm: LLM) -> TransformersLLM | None:
    """The model of a `HuggingFaceLLM` over its local engine, with the object's present settings.

    All LLMs adopted from one object, or from objects over the same model and tokenizer, share one engine.

    Args:
        llm: Any LLM.

    Returns:
        The LLM to use instead; None for any other class, and for settings that an engine does not have (a warning in
        the log then names them).
    """
    owner = library_class(llm, *STOCK_CLASS)
    if owner is None:
        return None
    return _adoptions.attempt(llm, type(llm).__name__, lambda: _adopted(llm, owner))


def is_stock(llm: LLM) -> bool:
    """Whether an LLM is a `HuggingFaceLLM`, adopted or not: by itself it runs one prompt after another."""
    owner = library_class(llm, *STOCK_CLASS)
    return owner is not None and overridden(llm, owner, _METHODS) is None


def _adopted(llm: Any, owner: type) -> TransformersLLM:
    from skeleton_of_thought.local.generation import read_generation, request_config, sampling_settings

    if (name := overridden(llm, owner, _METHODS)) is not None:
        raise NotAdopted(f"{type(llm).__name__} has a {name} of its own.")
    if "max_new_tokens" in llm.generate_kwargs:
        raise NotAdopted("Its generate_kwargs have max_new_tokens, which the class passes, too: its calls fail.")
    generate = {**llm.generate_kwargs, "max_new_tokens": llm.max_new_tokens}
    given = read_generation(llm._model, llm._tokenizer, generate)
    settings, further = sampling_settings(given)
    return TransformersLLM(
        engine=_adoptions.engine(llm, llm._model, llm._tokenizer),
        model=model_name(llm._model),
        context_window=llm.context_window,
        min_new_tokens=given.get("min_new_tokens") or 0,
        generation_config=request_config(given),
        stop_token_ids=list(llm.stopping_ids),
        system_prompt=llm.system_prompt or None,
        query_wrapper_prompt=llm.query_wrapper_prompt,
        messages_to_prompt=_messages_to_prompt(llm, owner),
        is_chat_model=llm.is_chat_model or None,
        **settings,
        **further,
        **{name: getattr(llm, name) for name in _KEPT if hasattr(llm, name)},
    )


def _messages_to_prompt(llm: Any, owner: type) -> Any:
    """The user's function that writes messages as text; None for the class's own, which uses the chat template."""
    own = llm.messages_to_prompt
    return None if getattr(own, "__func__", None) is getattr(owner, "_tokenizer_messages_to_prompt", owner) else own
