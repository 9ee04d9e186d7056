"""A chat completion request as a request to the local engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.adapters.reply_format import instruct, read_format
from skeleton_of_thought.adapters.tool_calls import Reader, ToolFormat, find_format
from skeleton_of_thought.adapters.tool_use import ToolUse, call_id
from skeleton_of_thought.errors import InvalidInput, install_line
from skeleton_of_thought.serve.errors import ServeError, refuse
from skeleton_of_thought.serve.upstreams.fields import (
    check_supported,
    limit_of,
    numbers_of,
    stops_of,
    text_of,
    tools_of,
)

if TYPE_CHECKING:
    from skeleton_of_thought.local import LocalEngine

__all__ = ["LocalRequest", "read_local_request", "sampling_settings"]

_NAMES: Mapping[str, str] = {"min_tokens": "min_new_tokens"}
_LEAST = 1e-9
"""Stands for a `top_p` of 0, which leaves one token, as the engine's least value does."""


@dataclass(frozen=True)
class LocalRequest:
    """One request to the engine.

    Attributes:
        messages: The messages in the form of chat templates.
        settings: The engine's settings for it.
        reader: Separates calls of tools from text; None for a request without tools.
    """

    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    reader: Reader | None = None


def sampling_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's settings for the fields of a request that say how each text is sampled.

    Args:
        body: The fields; those that the engine does not know are left out.

    Raises:
        ServeError: A value cannot be used.
    """
    given = numbers_of(body)
    settings: dict[str, Any] = {_NAMES.get(name, name): value for name, value in given.items()}
    if settings.get("top_p") == 0:
        settings["top_p"] = _LEAST
    if settings.get("seed", 0) < 0:  # clients of llama.cpp send -1 for any seed
        del settings["seed"]
    if settings.get("top_k", 0) < 0:  # and those of vLLM for no limit
        del settings["top_k"]
    if bias := body.get("logit_bias"):
        try:
            settings["sequence_bias"] = {(int(token),): float(value) for token, value in bias.items()}
        except (AttributeError, TypeError, ValueError):
            refuse("logit_bias", "has to be an object of token ids and numbers")
    if isinstance(body.get("ignore_eos"), bool):
        settings["ignore_eos"] = body["ignore_eos"]
    return settings


def read_local_request(engine: LocalEngine, body: Mapping[str, Any], max_tokens: int | None) -> LocalRequest:
    """Reads a request.

    Args:
        engine: The engine.
        body: The request's fields.
        max_tokens: The limit of a request that sets none.

    Raises:
        ServeError: A field cannot be followed; the message says what to do.
        InvalidInput: The model cannot call tools, or a schema cannot be followed.
    """
    check_supported(body)
    settings = sampling_settings(body)
    settings |= {"max_new_tokens": limit_of(body, max_tokens), "stop": stops_of(body) or None}
    tools = tools_of(body)
    use = ToolUse(engine, tools, body.get("tool_choice")) if tools else None
    given = body["messages"]
    past = use.format if use else find_format(engine) if any(message.get("tool_calls") for message in given) else None
    chat = _chat(given, past)
    response_format = body.get("response_format")
    if response_format is not None and response_format != {"type": "text"}:
        if use is not None and use.tools:
            refuse("response_format", "and `tools` exclude each other: the reply is either JSON or a call")
        settings["grammar"] = _form(response_format, chat)
    if use is None:
        return LocalRequest(chat, settings)
    return LocalRequest(chat, {**settings, **use.settings()}, use.reader(chat))


def _form(response_format: Any, chat: list[dict[str, Any]]) -> Any:
    """The grammar of a reply in this form; the chat gets an instruction, which small models need as well."""
    try:
        form = read_format(response_format)
        grammar = form.grammar
    except InvalidInput as error:
        raise ServeError(str(error), param="response_format") from error
    if grammar is None:
        refuse("response_format", f"needs llguidance, which this server does not have: {install_line('structured')}")
    instruct(chat, form.instruction)
    return grammar


def _chat(messages: Sequence[Mapping[str, Any]], format_: ToolFormat | None) -> list[dict[str, Any]]:
    """The messages in the form of chat templates, with calls of tools in the model's format."""
    names: dict[str | None, str] = {}
    chat: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        place = f"messages[{i}]"
        entry: dict[str, Any] = {"role": message["role"], "content": text_of(message, place)}
        if calls := message.get("tool_calls"):
            read, broken = _calls(calls, place, format_)
            names |= {call["id"]: call["function"]["name"] for call in calls if isinstance(call.get("id"), str)}
            entry["content"] = "\n".join(part for part in (entry["content"], *broken) if part)
            entry |= {"tool_calls": read} if read else {}
        name = message.get("name")
        if message["role"] == "tool":
            given = _string(message.get("tool_call_id"))
            entry["tool_call_id"] = call_id(given, format_)
            name = name or names.get(given)
        if isinstance(name, str):
            entry["name"] = name
        chat.append(entry)
    return chat


def _calls(calls: Any, place: str, format_: ToolFormat | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The calls that a model made earlier, and the texts of those that cannot be read."""
    read: list[dict[str, Any]] = []
    broken: list[str] = []
    for call in calls if isinstance(calls, list) else (None,):
        function = call.get("function") if isinstance(call, Mapping) else None
        if (
            not isinstance(call, Mapping)
            or not isinstance(function, Mapping)
            or not isinstance(function.get("name"), str)
        ):
            refuse(f"{place}.tool_calls", 'has to be a list of {"id": ..., "type": "function", "function": {...}}')
        given = function.get("arguments")
        try:
            arguments = json.loads(given or "{}") if isinstance(given, str | None) else given
        except (ValueError, RecursionError):
            arguments = None
        if isinstance(arguments, dict):
            named = {"name": function["name"], "arguments": arguments}
            read.append({"id": call_id(_string(call.get("id")), format_), "type": "function", "function": named})
        else:
            broken.append(str(given))
    return read, broken


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None
