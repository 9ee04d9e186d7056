"""What `TransformersLLM` hands to its engine: text, or messages as chat templates take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM, default_completion_to_prompt

from skeleton_of_thought.errors import InvalidInput

__all__ = ["LocalPrompt", "has_own_completion_format", "has_own_messages_format", "prompt_of", "prompt_of_messages"]

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}
"""Roles that chat templates know by another name."""

_UNSEEN = frozenset({"thinking", "cache"})
"""Blocks that a model is not shown again: what it thought before, and marks for a provider's cache."""

_PLAIN_WRAPPER = "{query_str}"


@dataclass(frozen=True)
class LocalPrompt:
    """The prompt of one call of an engine.

    Attributes:
        content: Text, or messages with role and content.
        prefill: The start of the model's turn, which it continues.
    """

    content: str | list[dict[str, Any]]
    prefill: str = ""


def has_own_completion_format(llm: LLM) -> bool:
    """Whether somebody said what a completion's prompt is to be wrapped in."""
    wrapper = llm.query_wrapper_prompt
    return llm.completion_to_prompt not in (None, default_completion_to_prompt) or (
        wrapper is not None and wrapper.get_template(llm=llm) != _PLAIN_WRAPPER
    )


def has_own_messages_format(llm: LLM) -> bool:
    """Whether somebody said how messages become text."""
    return llm.messages_to_prompt not in (None, generic_messages_to_prompt)


def prompt_of(llm: LLM, text: str, *, template: bool) -> LocalPrompt:
    """The prompt of a completion, formatted.

    Args:
        llm: Whose wrappers and system prompt count.
        text: What is to be completed.
        template: Whether the model has a chat template.
    """
    if llm.metadata.is_chat_model and not has_own_completion_format(llm):
        return prompt_of_messages(llm, [ChatMessage(role=MessageRole.USER, content=text)], template=template)
    # In the order of HuggingFaceLLM: templates that have a place for the system prompt write it themselves.
    if llm.query_wrapper_prompt is not None:
        text = llm.query_wrapper_prompt.format(query_str=text)
    if llm.completion_to_prompt not in (None, default_completion_to_prompt):
        return LocalPrompt(llm.completion_to_prompt(text))
    return LocalPrompt(f"{llm.system_prompt} {text}" if llm.system_prompt else text)


def prompt_of_messages(llm: LLM, messages: Sequence[ChatMessage], *, template: bool) -> LocalPrompt:
    """The prompt of a chat: by `messages_to_prompt` where it was given, else by the model's chat template, else as
    LlamaIndex writes messages as text. A last message of the assistant's is the start of its turn.

    Raises:
        InvalidInput: There are no messages, or they hold more than text.
    """
    texts = [_text(message) for message in messages]
    prompt, prefill = list(messages), ""
    if prompt and _role(prompt[-1]) == "assistant":
        prompt.pop()
        prefill = texts.pop()
    if not prompt:
        raise InvalidInput("The prompt has no messages: give at least the user's.")
    if llm.system_prompt and _role(prompt[0]) != "system":
        prompt.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=llm.system_prompt))
        texts.insert(0, llm.system_prompt)
    if template and not has_own_messages_format(llm):
        entries = [{"role": _role(m), "content": text, **_extras(m)} for m, text in zip(prompt, texts, strict=True)]
        return LocalPrompt(entries, prefill)
    to_prompt = llm.messages_to_prompt or generic_messages_to_prompt
    return LocalPrompt(to_prompt(prompt), prefill)


def _role(message: ChatMessage) -> str:
    return _ROLES.get(message.role, message.role.value)


def _extras(message: ChatMessage) -> dict[str, Any]:
    """What templates know of a tool's answer besides its text."""
    return {
        name: message.additional_kwargs[name]
        for name in ("name", "tool_call_id")
        if message.additional_kwargs.get(name)
    }


def _text(message: ChatMessage) -> str:
    blocks = [block for block in message.blocks if block.block_type not in _UNSEEN]
    if kinds := sorted({block.block_type for block in blocks} - {"text"}):
        raise InvalidInput(
            f"TransformersLLM reads text only, but a message of role {message.role.value} holds blocks of type "
            f"{', '.join(kinds)}: leave them out, or ask a model that takes them."
        )
    return "".join(getattr(block, "text", "") for block in blocks)
