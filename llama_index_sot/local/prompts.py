"""The prompts of `TransformersLLM`: text, or messages for a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM, default_completion_to_prompt

from skeleton_of_thought.errors import InvalidInput

__all__ = ["LocalPrompt", "has_own_completion_format", "has_own_messages_format", "messages_prompt", "text_prompt"]

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}
"""Roles with another name in chat templates."""

_HIDDEN = frozenset({"thinking", "cache"})
"""Blocks that are left out of prompts: earlier thoughts of the model, and marks for a provider's cache."""

_PLAIN_WRAPPER = "{query_str}"


@dataclass(frozen=True)
class LocalPrompt:
    """The prompt of one call of an engine.

    Attributes:
        content: Text, or messages with role and content.
        prefill: The start of the model's turn, which the model continues.
        stops: Strings with which the model would go on to the next turn.
    """

    content: str | list[dict[str, Any]]
    prefill: str = ""
    stops: tuple[str, ...] = ()


def has_own_completion_format(llm: LLM) -> bool:
    """Whether the user gave a wrapper for a completion's prompt."""
    wrapper = llm.query_wrapper_prompt
    return llm.completion_to_prompt not in (None, default_completion_to_prompt) or (
        wrapper is not None and wrapper.get_template(llm=llm) != _PLAIN_WRAPPER
    )


def has_own_messages_format(llm: LLM) -> bool:
    """Whether the user gave a function that writes messages as text."""
    return llm.messages_to_prompt not in (None, generic_messages_to_prompt)


def text_prompt(llm: LLM, text: str, *, template: bool) -> LocalPrompt:
    """The prompt of a completion, formatted.

    Args:
        llm: Has the wrappers and the system prompt.
        text: The user's text.
        template: Whether the model has a chat template.
    """
    if llm.metadata.is_chat_model and not has_own_completion_format(llm):
        return messages_prompt(llm, [ChatMessage(role=MessageRole.USER, content=text)], template=template)
    # HuggingFaceLLM's order: templates with a place for the system prompt write it themselves.
    if llm.query_wrapper_prompt is not None:
        text = llm.query_wrapper_prompt.format(query_str=text)
    if llm.completion_to_prompt not in (None, default_completion_to_prompt):
        return LocalPrompt(llm.completion_to_prompt(text))
    return LocalPrompt(f"{llm.system_prompt} {text}" if llm.system_prompt else text)


def messages_prompt(llm: LLM, messages: Sequence[ChatMessage], *, template: bool) -> LocalPrompt:
    """The prompt of a chat.

    Written by `messages_to_prompt` if that was given, else by the model's chat template, else by LlamaIndex's default.
    A last message of the assistant's is the start of its turn.

    Args:
        llm: Has the formats and the system prompt.
        messages: The chat.
        template: Whether the model has a chat template.

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
    own: Any = llm.messages_to_prompt
    if has_own_messages_format(llm):
        return LocalPrompt(own(prompt), prefill)
    return LocalPrompt(generic_messages_to_prompt(prompt), prefill, stops=("\nuser:",))


def _role(message: ChatMessage) -> str:
    return _ROLES.get(message.role, message.role.value)


def _extras(message: ChatMessage) -> dict[str, Any]:
    """The fields of a tool's reply that templates use besides its text."""
    return {
        name: message.additional_kwargs[name]
        for name in ("name", "tool_call_id")
        if message.additional_kwargs.get(name)
    }


def _text(message: ChatMessage) -> str:
    blocks = [block for block in message.blocks if block.block_type not in _HIDDEN]
    if others := sorted({block.block_type for block in blocks} - {"text"}):
        raise InvalidInput(
            f"TransformersLLM reads text only, but a message of role {message.role.value} holds blocks of type "
            f"{', '.join(others)}: leave them out, or use a model that takes them."
        )
    return "".join(getattr(block, "text", "") for block in blocks)
