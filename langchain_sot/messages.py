"""LangChain's inputs and messages as the core's, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from skeleton_of_thought.adapters.replies import ReplyEnd, read_decoding, read_usage
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Content, Conversation, Decoding, Message, Prompt, Request, Usage

if TYPE_CHECKING:
    from langchain_sot.inputs import KeyedInput

__all__ = [
    "ParsedInput",
    "as_messages",
    "convert_message",
    "convert_messages",
    "message_decoding",
    "message_usage",
    "read_input",
    "read_messages",
    "read_other_content",
    "read_request",
    "render_text",
    "usage_metadata",
    "without_usage",
]

_ROLES = frozenset({"human", "user", "ai", "assistant", "system", "developer", "tool"})
_REASONING = frozenset({"reasoning", "reasoning_content", "thinking", "redacted_thinking"})
"""Types of content blocks, and keys of `additional_kwargs`, that hold a model's reasoning."""
_MEDIA = frozenset({"image", "image_url", "image_generation_call", "audio", "video", "file", "media"})
"""Types of content blocks, and keys of `additional_kwargs`, that are an answer without text."""
_TURNS = {"user": "User", "assistant": "Assistant"}
_TOOLS = frozenset({"tools", "functions", "tool_choice", "function_call"})
_FORMATS = frozenset(
    {
        "response_format",
        "ls_structured_output_format",
        "format",
        "json_schema",
        "response_schema",
        "response_json_schema",
        "response_mime_type",
        "text_format",
    }
)
"""Keyword arguments by which the models of LangChain's partner packages take a response format."""


@dataclass(frozen=True)
class ParsedInput:
    """The input of one answer.

    Attributes:
        conversation: The input as the core reads it.
        untouched: The input of the model on the direct route: the caller's own objects, or the bare string
            where nothing but a string was given.
        keyed: The other keys of an input with several keys; None for text and messages.
    """

    conversation: Conversation
    untouched: Any
    keyed: KeyedInput | None = None


def read_input(value: Any) -> ParsedInput:
    """Reads an input of the chain.

    Args:
        value: A string, a message, a list of values that LangChain converts to messages, a prompt value, or a
            mapping with several keys, see `langchain_sot.inputs`.

    Raises:
        InvalidInput: It is none of these, or has no question.
    """
    messages, untouched, keyed = _read(value)
    return ParsedInput(Conversation(messages), untouched, keyed)


def read_messages(value: Any) -> tuple[Message, ...]:
    """The messages of an input of the chain, whether or not they end with a question.

    Raises:
        InvalidInput: The input cannot be read.
    """
    return _read(value)[0]


def read_request(kwargs: Mapping[str, Any], max_concurrency: int | None) -> Request:
    """The core's view of a request: whether it has tools or a response format, and how many calls may be open.

    Args:
        kwargs: The call's keyword arguments, with those that are bound to the model.
        max_concurrency: The most calls that may be open at a time; None for no limit.
    """
    given = frozenset(filter(kwargs.get, kwargs))
    return Request(bool(given & _TOOLS), bool(given & _FORMATS), max_concurrency)


def _read(value: Any) -> tuple[tuple[Message, ...], Any, KeyedInput | None]:
    if isinstance(value, str):
        return (Message("user", value, raw=HumanMessage(value)),), value, None
    if isinstance(value, PromptValue):
        return _all_converted(value.to_messages()), value, None
    if isinstance(value, Mapping) or _is_state(value):
        # By name, because that module imports this one.
        messages, untouched, keyed = import_module("langchain_sot.inputs").read_mapping(value)
        return _all_converted(messages), untouched, keyed
    messages = as_messages(value)
    return _all_converted(messages), messages, None


def _all_converted(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    return tuple(convert_message(message) for message in messages)


def _is_state(value: Any) -> bool:
    """Whether this is the state of a graph as an object."""
    if isinstance(value, BaseMessage) or not (hasattr(value, "messages") or hasattr(value, "question")):
        return False
    return isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type))


def as_messages(value: Any) -> list[BaseMessage]:
    """A message, or a list of messages, in any form that LangChain converts to messages.

    Raises:
        InvalidInput: It is something else.
    """
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, Mapping):
        return _converted([dict(value)])
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] in _ROLES:
        return _converted([value])
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return _converted(value)
    raise InvalidInput(
        f"The input is {type(value).__name__} ({repr(value)[:60]}). Give a string, messages, or "
        "{'question': ..., 'chat_history': [...], 'context': ...}."
    )


def _converted(values: Sequence[Any]) -> list[BaseMessage]:
    try:
        return convert_to_messages(values)
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise InvalidInput(f"The messages cannot be read: {error} Input: {repr(values)[:100]}") from error


def convert_message(message: BaseMessage) -> Message:
    """A message of LangChain as the core's, with the original in `raw`."""
    return Message(_role(message), _content(message.content), raw=message)


def _role(message: BaseMessage) -> str:
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ChatMessage):
        return {"human": "user", "ai": "assistant"}.get(message.role, message.role)
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, ToolMessage):
        return "tool"
    return message.type


def _content(content: str | Sequence[str | dict[str, Any]]) -> Content:
    if isinstance(content, str):
        return content
    return tuple({"type": "text", "text": block} if isinstance(block, str) else block for block in content)


def convert_messages(prompt: Prompt) -> list[BaseMessage]:
    """The messages of a prompt as LangChain's, without the prefill. Messages of the caller are the original objects."""
    return list(map(_langchain_message, prompt.messages))


def _langchain_message(message: Message) -> BaseMessage:
    if isinstance(message.raw, BaseMessage):
        return message.raw
    content: Any = message.content
    if not isinstance(content, str):
        content = [dict(block) for block in content]
    if message.role == "user":
        return HumanMessage(content=content)
    if message.role == "assistant":
        return AIMessage(content=content)
    if message.role == "system":
        return SystemMessage(content=content)
    return ChatMessage(role=message.role, content=content)


def render_text(prompt: Prompt) -> str:
    """The prompt as plain text, for models that complete a string; ends with the prefill.

    Raises:
        InvalidInput: The question has images or files, which a string cannot hold.
    """
    *head, last = prompt.messages
    if last.attachments:
        raise InvalidInput(
            "The question holds content that is not text, but the model takes a string only: use a chat model."
        )
    if all(message.role == "system" for message in head):
        parts = [message.text for message in prompt.messages]
        return "\n\n".join(parts) + (f"\n\n{prompt.prefill}" if prompt.prefill else "")
    turns = [
        f"{_TURNS[message.role]}: {message.text}" if message.role in _TURNS else message.text
        for message in prompt.messages
    ]
    return "\n\n".join([*turns, f"Assistant: {prompt.prefill}".rstrip()])


def message_usage(message: Any) -> Usage | None:
    """The tokens that a model's message says were spent; None where it says nothing."""
    return read_usage(message.usage_metadata) if isinstance(message, AIMessage) and message.usage_metadata else None


def message_decoding(message: BaseMessage) -> Decoding | None:
    """The record of the engine of `ChatTransformers` for this reply."""
    usage: Mapping[str, Any] = getattr(message, "usage_metadata", None) or {}
    # A cost of 0 marks a cached reply, for which the engine decoded nothing.
    return None if usage.get("total_cost") == 0 else read_decoding(message.response_metadata.get("decoding"))


def read_other_content(message: BaseMessage, end: ReplyEnd) -> None:
    """Notes in `end` the other content of a message or chunk: a refusal, tool calls, media, reasoning."""
    extras = message.additional_kwargs
    refusal = extras.get("refusal") or ""
    reasoning, media = bool(_REASONING & extras.keys()), bool(_MEDIA & extras.keys())
    for block in message.content if isinstance(message.content, list) else ():
        # Version 1 of the content blocks wraps those that it does not know.
        own: Any = block.get("value") if isinstance(block, dict) and block.get("type") == "non_standard" else block
        kind = own.get("type") if isinstance(own, dict) else None
        if kind == "refusal":
            refusal = refusal or own.get("refusal") or "no reason given"
        else:
            reasoning, media = reasoning or kind in _REASONING, media or kind in _MEDIA
            if kind in _REASONING:
                end.chars += sum(len(own[name]) for name in _REASONING & own.keys() if isinstance(own[name], str))
    end.chars += sum(len(extras[name]) for name in _REASONING & extras.keys() if isinstance(extras[name], str))
    end.chars += sum(len(piece.get("args") or "") for piece in getattr(message, "tool_call_chunks", ()))
    end.refusal += str(refusal)
    # A tool call explains why there is no text; reasoning merely comes before text.
    if isinstance(message, AIMessage) and message.tool_calls:
        end.instead = "tool calls"
    elif media:
        end.instead = end.instead.replace("reasoning", "") or "other content"
    elif reasoning:
        end.instead = end.instead or "reasoning"


def usage_metadata(usage: Usage) -> UsageMetadata:
    """The tokens of a call as LangChain's messages have them."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def without_usage(generation: Any) -> Any:
    """The generation without `usage_metadata`, for callbacks; its tokens are counted elsewhere.

    LangChain's events of version "v3" have the usage of the last chunk, and so has the message that it makes of them.
    """
    message = getattr(generation, "message", None)
    if not isinstance(message, AIMessage) or message.usage_metadata is None:
        return generation
    return generation.model_copy(update={"message": message.model_copy(update={"usage_metadata": None})})
