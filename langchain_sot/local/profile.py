"""The profile of a local model: what LangChain's agents and middleware ask before they use it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import ModelProfile

from skeleton_of_thought.adapters.tool_calls import find_format
from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["engine_profile"]

_TEXT_ONLY = dict.fromkeys(
    [
        *(f"{kind}_inputs" for kind in ("image", "image_url", "pdf", "audio", "video")),
        *(f"{kind}_outputs" for kind in ("image", "audio", "video")),
        *("image_tool_message", "pdf_tool_message", "attachment"),
    ],
    False,
)
"""What an engine neither reads nor writes, also where its model's checkpoint could."""


def engine_profile(engine: LocalEngine, name: str | None) -> ModelProfile:
    """The profile of an engine's model, in the fields that the installed langchain-core knows.

    Reads the configuration and the chat template; runs nothing on the model.

    Args:
        engine: The engine.
        name: The model's name; None if the user gave none.

    Returns:
        Numbers of tokens, and what the model can do. `max_input_tokens` and `max_output_tokens` are both the context
        window, which prompt and reply share; without a window in the configuration they are absent. `tool_choice` and
        `structured_output` need the extra `structured`, whose grammar enforces them.
    """
    try:
        format_ = find_format(engine)
    except InvalidInput:  # the template shows no tools, or nothing tells calls from text
        format_ = None
    enforced = importlib.util.find_spec("llguidance") is not None
    window = engine.context_window
    found: dict[str, Any] = {
        **({} if name is None else {"name": name}),
        **({} if window is None else {"max_input_tokens": window, "max_output_tokens": window}),
        "text_inputs": True,
        "text_outputs": True,
        **_TEXT_ONLY,
        "reasoning_output": engine.reasons,
        "tool_calling": format_ is not None,
        "tool_choice": format_ is not None and format_.known and enforced,
        "tool_call_streaming": format_ is not None,
        "structured_output": enforced,
        "temperature": True,
    }
    known = ModelProfile.__annotations__  # LangChain warns of other fields
    return cast(ModelProfile, {key: value for key, value in found.items() if key in known})
