"""What `ChatTransformers` asks of its engine: messages, tools and response formats as a request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sot.local.structured_output import read_format
from langchain_sot.local.tool_calls import (
    ForcedReader,
    MarkedReader,
    Reader,
    TemplateReader,
    Tool,
    ToolFormat,
    call_schema,
    find_format,
)
from langchain_sot.messages import convert_message
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Message

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["EngineRequest", "ToolUse", "convert_tools", "make_request"]

_KNOWN_OTHERWISE = frozenset({"tool_use", "tool_call", "tool_call_chunk", "function_call", "reasoning", "thinking"})
"""Blocks of earlier replies that say again what `tool_calls` says, or what models are not shown again."""


_KINDS = ("function", "object")
"""Types of tool descriptions that name functions; others are the server's own tools of some provider."""


@dataclass(frozen=True)
class EngineRequest:
    """One call of the engine.

    Attributes:
        messages: As chat templates take them.
        settings: The engine's, for this call.
        reader: Tells tool calls from text; None where there can be none.
    """

    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    reader: Reader | None = None


def convert_tools(tools: Iterable[Any]) -> list[Tool]:
    """Tools, pydantic classes, functions and schemas as descriptions.

    Raises:
        InvalidInput: One of them cannot be described.
    """
    converted: list[Tool] = []
    for tool in tools:
        try:
            converted.append(convert_to_openai_tool(tool))
        except Exception as error:
            raise InvalidInput(f"The tool {tool!r:.80} cannot be described to a model: {error}") from error
        if "function" not in converted[-1] or (
            isinstance(tool, Mapping) and tool.get("type", "function") not in _KINDS
        ):
            raise InvalidInput(f"The tool {tool!r:.80} is a provider's own; a local model can call functions only.")
    return converted


class ToolUse:
    """The tools of a call, how the model calls them, and whether it has to.

    Args:
        engine: The engine.
        tools: What the model may call.
        choice: None or `"auto"`; `"none"`; `"any"`, `"required"` or True for some tool; or the name of one.

    Raises:
        InvalidInput: The model cannot call tools, or not these, or cannot be forced to.
        MissingExtra: A call is to be forced, and the library for it is not installed.
    """

    def __init__(self, engine: LocalEngine, tools: Sequence[Tool], choice: Any = None) -> None:
        self._engine = engine
        self.format = find_format(engine)
        forced = _forced(tools, choice)
        self.tools = [] if choice == "none" else list(tools)
        self.grammar = None if forced is None else self._grammar(forced)

    def _grammar(self, forced: Sequence[Tool]) -> Any:
        if not self.format.known:
            raise InvalidInput(
                "tool_choice cannot force this model: how it writes its calls is known to its tokenizer alone. Leave "
                "tool_choice out."
            )
        from skeleton_of_thought.local import Grammar

        return Grammar.from_json_schema(call_schema(self.format, forced))

    def settings(self) -> dict[str, Any]:
        """What the engine is to be told."""
        if not self.tools:
            return {}
        told: dict[str, Any] = {"tools": self.tools, "skip_special_tokens": False}
        if self.grammar is not None:
            told |= {"grammar": self.grammar, "prefill": self.format.opener and f"{self.format.opener}\n"}
        return told

    def reader(self, messages: list[dict[str, Any]]) -> Reader | None:
        """Reads the reply."""
        if not self.tools:
            return None
        if self.grammar is not None:
            return ForcedReader()
        if self.format.known:
            return MarkedReader(self.format)
        return TemplateReader(self._engine, self._engine.render(messages, tools=self.tools), self.tools)


def _forced(tools: Sequence[Tool], choice: Any) -> list[Tool] | None:
    """The tools of which one has to be called; None where none has to."""
    if isinstance(choice, Mapping):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, Mapping) else choice.get("name", choice)
    if choice in (None, False, "auto", "none"):
        return None
    if not tools:
        raise InvalidInput("tool_choice asks for a call, but there are no tools.")
    if choice in (True, "any", "required"):
        return list(tools)
    named = [tool for tool in tools if tool["function"]["name"] == choice]
    if not named:
        names = ", ".join(tool["function"]["name"] for tool in tools)
        raise InvalidInput(
            f"tool_choice is {choice!r:.60}; it must be 'auto', 'none', 'any', or the name of a tool ({names})."
        )
    return named


def make_request(
    engine: LocalEngine,
    messages: Sequence[BaseMessage],
    settings: dict[str, Any],
    *,
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Any = None,
) -> EngineRequest:
    """The request of a call.

    Args:
        engine: The engine.
        messages: The prompt.
        settings: What the engine is told besides.
        tools: What the model may call.
        tool_choice: See `ToolUse`.
        response_format: What the reply has to look like, in OpenAI's form.

    Raises:
        InvalidInput: Something of this cannot work.
    """
    use = ToolUse(engine, convert_tools(tools), tool_choice) if tools else None
    past = use.format if use is not None else find_format(engine) if _calls_in(messages) else None
    chat = _chat(messages, past)
    if response_format is not None:
        if use is not None and use.tools:
            raise InvalidInput("response_format and tools exclude each other: a reply is either the one or a call.")
        format_ = read_format(response_format)
        _instruct(chat, format_.instruction)
        grammar = format_.grammar
        return EngineRequest(chat, settings if grammar is None else {**settings, "grammar": grammar})
    if use is None:
        return EngineRequest(chat, settings)
    told = use.settings()
    if told.get("prefill") and settings.get("prefill"):
        raise InvalidInput("A prefill and a forced tool call exclude each other: leave one of them out.")
    return EngineRequest(chat, {**settings, **told}, use.reader(chat))


def _instruct(chat: list[dict[str, Any]], instruction: str) -> None:
    """Tell the model what its answer has to look like, where it reads it last."""
    for message in reversed(chat):
        if message["role"] == "user":
            message["content"] = f"{message['content']}\n\n{instruction}"
            return
    chat.insert(0, {"role": "user", "content": instruction})


def _calls_in(messages: Sequence[BaseMessage]) -> bool:
    return any(isinstance(message, AIMessage) and message.tool_calls for message in messages)


def _chat(messages: Sequence[BaseMessage], format_: ToolFormat | None) -> list[dict[str, Any]]:
    """The messages as chat templates take them; tool calls in the way that the model writes them."""
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
            entry["tool_call_id"] = _id(message.tool_call_id, format_)
            if name := message.name or names.get(message.tool_call_id):
                entry["name"] = name
        chat.append(entry)
    return chat


def _text(message: BaseMessage) -> str:
    converted: Message = convert_message(message)
    blocks = [
        block
        for block in converted.attachments
        if not (isinstance(message, AIMessage) and block.get("type") in _KNOWN_OTHERWISE)
    ]
    if blocks:
        kinds = sorted({str(block.get("type")) for block in blocks})
        raise InvalidInput(f"The local model reads text only, but a {converted.role} message holds {kinds}.")
    return converted.text


def _call(call: Mapping[str, Any], format_: ToolFormat | None) -> dict[str, Any]:
    return {
        "id": _id(call["id"], format_),
        "type": "function",
        "function": {"name": call["name"], "arguments": call["args"]},
    }


def _id(given: str | None, format_: ToolFormat | None) -> str:
    """The id of a call; another one, but always the same, where the template takes short ones only."""
    own = given or ""
    if format_ is None or not format_.short_ids or (len(own) == 9 and own.isalnum()):
        return own
    return hashlib.sha256(own.encode()).hexdigest()[:9]
