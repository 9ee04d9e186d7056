"""The request that `ChatTransformers` sends to its engine: messages, tools and response formats, converted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sot.messages import convert_message
from skeleton_of_thought.adapters.reply_format import instruct, read_format
from skeleton_of_thought.adapters.tool_calls import Reader, Tool, ToolFormat, find_format
from skeleton_of_thought.adapters.tool_use import ToolUse, call_id
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Message

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["EngineRequest", "convert_tools", "make_request", "tool_use"]

_IGNORED_BLOCKS = frozenset({"tool_use", "tool_call", "tool_call_chunk", "function_call", "reasoning", "thinking"})
"""Blocks of earlier replies that repeat `tool_calls`, and reasoning, which models do not get again."""

_FUNCTION_TYPES = ("function", "object")
"""Types of tool descriptions that describe functions. Others are tools that a provider's server runs."""


@dataclass(frozen=True)
class EngineRequest:
    """One call of the engine.

    Attributes:
        messages: The messages in the form of chat templates.
        settings: The engine's settings for this call.
        reader: Separates tool calls from text; None for a call without tools.
    """

    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    reader: Reader | None = None


def convert_tools(tools: Iterable[Any]) -> list[Tool]:
    """Describes tools, pydantic classes, functions and schemas to a model.

    Raises:
        InvalidInput: One of them cannot be described, or runs on a provider's server.
    """
    converted: list[Tool] = []
    for tool in tools:
        try:
            converted.append(convert_to_openai_tool(tool))
        except Exception as error:
            raise InvalidInput(f"The tool {tool!r:.80} cannot be described to a model: {error}") from error
        if "function" not in converted[-1] or (
            isinstance(tool, Mapping) and tool.get("type", "function") not in _FUNCTION_TYPES
        ):
            raise InvalidInput(f"The tool {tool!r:.80} is a provider's own; a local model can call functions only.")
    return converted


def tool_use(engine: LocalEngine, tools: Sequence[Tool], tool_choice: Any, response_format: Any) -> ToolUse | None:
    """The tools of a request; None where there are none and no choice among them.

    Args:
        engine: The engine.
        tools: Descriptions of the tools, as `convert_tools` makes them.
        tool_choice: The choice among them, as `ToolUse` takes it.
        response_format: The form of a reply that calls none, as OpenAI's `response_format`; None for free text.

    Raises:
        InvalidInput, MissingExtra: As for `ToolUse`.
    """
    if not tools and tool_choice is None:
        return None
    return ToolUse(engine, tools, tool_choice, None if response_format is None else read_format(response_format))


def make_request(
    engine: LocalEngine,
    messages: Sequence[BaseMessage],
    settings: dict[str, Any],
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Any = None,
) -> EngineRequest:
    """Converts one call on the chat model to a request.

    Args:
        engine: The engine.
        messages: The prompt.
        settings: The engine's settings besides those for tools and formats.
        tools: The tools that the model can call.
        tool_choice: The choice among them, as `ToolUse` takes it.
        response_format: The form of the reply, as OpenAI's `response_format`.

    Raises:
        InvalidInput: The messages, tools or format cannot be converted, or exclude each other.
    """
    use = tool_use(engine, convert_tools(tools), tool_choice, response_format) if tools else None
    past = use.format if use is not None else find_format(engine) if _calls_in(messages) else None
    chat = _chat(messages, past)
    if response_format is not None and not (use is not None and use.tools):
        format_ = read_format(response_format)
        instruct(chat, format_.instruction)
        grammar = format_.grammar
        return EngineRequest(chat, settings if grammar is None else {**settings, "grammar": grammar})
    if use is None:
        return EngineRequest(chat, settings)
    tool_settings = use.settings()
    if tool_settings.get("prefill") and settings.get("prefill"):
        raise InvalidInput("A prefill and a forced tool call exclude each other: leave one of them out.")
    return EngineRequest(chat, {**settings, **tool_settings}, use.reader(chat))


def _calls_in(messages: Sequence[BaseMessage]) -> bool:
    return any(isinstance(message, AIMessage) and message.tool_calls for message in messages)


def _chat(messages: Sequence[BaseMessage], format_: ToolFormat | None) -> list[dict[str, Any]]:
    """The messages in the form of chat templates, with tool calls in the model's format."""
    names: dict[str | None, str] = {}
    chat: list[dict[str, Any]] = []
    for message in messages:
        entry: dict[str, Any] = {"role": convert_message(message).role, "content": _text(message)}
        if isinstance(message, AIMessage):
            names |= {call["id"]: call["name"] for call in message.tool_calls}
            broken = [str(call["args"]).removeprefix("Unreadable: ") for call in message.invalid_tool_calls]
            entry["content"] = "\n".join(part for part in (entry["content"], *broken) if part)
            if message.tool_calls:
                entry["tool_calls"] = [_call(call, format_) for call in message.tool_calls]
        if isinstance(message, ToolMessage):
            entry["tool_call_id"] = call_id(message.tool_call_id, format_)
            if name := message.name or names.get(message.tool_call_id):
                entry["name"] = name
        chat.append(entry)
    return chat


def _text(message: BaseMessage) -> str:
    converted: Message = convert_message(message)
    blocks = [
        block
        for block in converted.attachments
        if not (isinstance(message, AIMessage) and block.get("type") in _IGNORED_BLOCKS)
    ]
    if blocks:
        kinds = sorted({str(block.get("type")) for block in blocks})
        raise InvalidInput(f"The local model reads text only, but a {converted.role} message holds {kinds}.")
    return converted.text


def _call(call: Mapping[str, Any], format_: ToolFormat | None) -> dict[str, Any]:
    return {
        "id": call_id(call["id"], format_),
        "type": "function",
        "function": {"name": call["name"], "arguments": call["args"]},
    }
