"""Tool calls of local models: the models that can make them, how these write calls, and parsing calls from text.

The chat template decides how tools look in a prompt. How a model writes calls is in its tokenizer's
`response_template`; for tokenizers without one, three formats are recognised by the chat template.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.local.engine import LocalEngine

__all__ = [
    "ForcedReader",
    "MarkedReader",
    "ParsedReply",
    "Reader",
    "TemplateReader",
    "ToolFormat",
    "call_schema",
    "find_format",
]

Tool = dict[str, Any]
"""A tool as OpenAI's `tools` describe it: `{"type": "function", "function": {"name": ..., "parameters": ...}}`."""

WrittenCall = dict[str, Any]
"""A call that a model wrote, in LangChain's form: `{"type": "tool_call", "name": ..., "args": {...}, "id": ...}`.

One that cannot be read is `{"type": "invalid_tool_call", "name": ..., "args": the text, "id": ..., "error": ...}`.
"""

_MOST_REFERENCES = 2000
"""References in the schema of one tool, those in parts that several refer to counted each time."""

_PROBE: Tool = {
    "type": "function",
    "function": {
        "name": "is_this_tool_shown",
        "description": "Finds out.",
        "parameters": {"type": "object", "properties": {}},
    },
}
_PROBE_MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class ToolFormat:
    """How a model writes tool calls.

    Attributes:
        name: The format's name.
        opener: The mark before a call; empty where the call is the whole reply.
        closer: The mark after a call.
        arguments: The key of the arguments.
        listed: Whether the calls are one JSON list.
        short_ids: Whether the template takes only ids of nine letters and digits.
        known: Whether these attributes describe the format; else only the tokenizer's `response_template` does.
    """

    name: str
    opener: str = ""
    closer: str = ""
    arguments: str = "arguments"
    listed: bool = False
    short_ids: bool = False
    known: bool = True


HERMES = ToolFormat("hermes", "<tool_call>", "</tool_call>")
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", listed=True, short_ids=True)
LLAMA = ToolFormat("llama", arguments="parameters")
TEMPLATE = ToolFormat("response_template", known=False)

_PYTHON_TAG = "<|python_tag|>"
"""Llama's mark before calls. The model often leaves it out."""


def find_format(engine: LocalEngine) -> ToolFormat:
    """The format in which the engine's model writes tool calls.

    Raises:
        InvalidInput: The chat template does not show tools to the model, or the format is unknown.
    """
    if not _shows_tools(engine):
        raise InvalidInput(
            "The chat template of this model does not support tools: leave them out, or take a model that was trained "
            "to call them (the model's card says so). Structured output goes without tools: "
            "with_structured_output(schema) in LangChain, response_format in requests to a server."
        )
    tokenizer = engine.tokenizer
    known = _known_format(str(tokenizer.get_chat_template(tools=[_PROBE])))
    if known is None and not getattr(tokenizer, "response_template", None):
        raise InvalidInput(
            "The chat template of this model supports tools, but the format of its calls is unknown (Hermes and Qwen, "
            "Llama 3 and Mistral are known): set tokenizer.response_template, with which transformers can parse them."
        )
    return known or TEMPLATE


def _known_format(template: str) -> ToolFormat | None:
    if HERMES.opener in template:
        others = ("<function=", "<arg_key>", "<parameter=")  # XML within the same mark
        return None if any(mark in template for mark in others) else HERMES
    if MISTRAL.opener in template:
        return None if "[ARGS]" in template else MISTRAL
    if '"parameters"' in template and ("ipython" in template or _PYTHON_TAG in template):
        return LLAMA
    return None


def _shows_tools(engine: LocalEngine) -> bool:
    if not engine.has_chat_template:
        return False
    try:
        return _PROBE["function"]["name"] in engine.render(_PROBE_MESSAGES, tools=[_PROBE])
    except InvalidInput:
        return False


def call_schema(format_: ToolFormat, tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of one call to one of these tools, in the model's format."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, format_.arguments: parameters},
            "required": ["name", format_.arguments],
            "additionalProperties": False,
        }
        for name, parameters in ((tool["function"]["name"], _parameters(tool)) for tool in tools)
    ]
    call: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {"type": "array", "items": call, "minItems": 1, "maxItems": 1} if format_.listed else call


def _parameters(tool: Tool) -> dict[str, Any]:
    parameters = dict(tool["function"].get("parameters") or {})
    if "$defs" in parameters or "definitions" in parameters:
        # References are paths from the root of the schema, and here the parameters are no longer the root.
        parameters = _inlined(parameters, parameters, (), [_MOST_REFERENCES])
        parameters = {key: value for key, value in parameters.items() if key not in ("$defs", "definitions")}
    if {"anyOf", "oneOf"} & set(parameters) and "properties" not in parameters:
        return parameters
    return {"type": "object", "properties": {}, "additionalProperties": False, **parameters}


def _inlined(value: Any, root: Mapping[str, Any], above: tuple[str, ...], left: list[int]) -> Any:
    """A part of a schema with parts of `root` in place of the references to them; a circle ends with any value.

    Args:
        value: The part.
        root: The whole schema.
        above: The references that lead to the part.
        left: The references that may still be followed: each may hold several, so a short schema can be endless.
    """
    if isinstance(value, list):
        return [_inlined(item, root, above, left) for item in value]
    if not isinstance(value, Mapping):
        return value
    path = value.get("$ref")
    if not isinstance(path, str):  # a property may have this name, too
        return {key: _inlined(part, root, above, left) for key, part in value.items()}
    own = {key: _inlined(part, root, above, left) for key, part in value.items() if key != "$ref"}
    if path in above:
        return own
    left[0] -= 1
    found: Any = root
    for name in path.removeprefix("#").strip("/").split("/"):
        key = name.replace("~1", "/").replace("~0", "~")
        if left[0] < 0 or not isinstance(found, Mapping) or key not in found:
            why = "too many parts" if left[0] < 0 else f"{path!r:.80}, which is not in their schema"
            raise InvalidInput(f"The parameters of a tool refer to {why}.")
        found = found[key]
    part = _inlined(found, root, (*above, path), left)
    return {**part, **own} if isinstance(part, Mapping) else own or part


# --- parsing replies ---


@dataclass(frozen=True)
class ParsedReply:
    """The content of a reply.

    Attributes:
        text: The text, without the part that `feed` returned before.
        calls: The tool calls in order, invalid ones included.
        reasoning: The model's reasoning, where its tokenizer can separate it.
    """

    text: str = ""
    calls: list[WrittenCall] = field(default_factory=list)
    reasoning: str = ""


class Reader(Protocol):
    """Separates text from tool calls while a reply streams."""

    def feed(self, text: str) -> str:
        """Takes the next piece of the reply; returns text that is surely not part of a call."""

    def finish(self, *, cut: bool) -> ParsedReply:
        """Parses the calls and the rest of the text of a complete reply; `cut` says whether a limit ended it."""


class MarkedReader:
    """Reads calls in a known format.

    Args:
        format_: The format.
    """

    def __init__(self, format_: ToolFormat) -> None:
        self._format = format_
        self._held = ""
        self._calling = False
        self._begun = False

    def feed(self, text: str) -> str:
        """Takes the next piece; holds back text that may belong to a call, and space before it."""
        self._held += text
        if self._calling or not self._held.strip():
            return ""
        end = self._start_of_calls()
        out, self._held = self._held[:end], self._held[end:]
        self._begun = self._begun or bool(out)
        return out

    def _start_of_calls(self) -> int:
        """The length of the held text that is surely not part of a call."""
        held = self._held
        if self._format.opener:
            at = held.find(self._format.opener)
            self._calling = at >= 0
            end = at if self._calling else len(held) - _overlap(held, self._format.opener)
        elif self._begun:
            return len(held)
        else:  # the call is the whole reply
            start = held.lstrip()
            self._calling = start.startswith(("{", _PYTHON_TAG))
            end = 0 if self._calling or _PYTHON_TAG.startswith(start) else len(held)
        return len(held[:end].rstrip()) if end < len(held) or self._format.opener else end

    def finish(self, *, cut: bool) -> ParsedReply:
        """Parses the complete reply."""
        if not self._calling:
            return ParsedReply(self._held)
        if self._format.opener:
            return _marked(self._held, self._format, cut)
        return _bare(self._held, cut)


class ForcedReader:
    """Reads replies that a grammar limits to one call: nothing but JSON.

    Args:
        answer: The name of the tool whose arguments are the answer: they become the text of the reply.
    """

    def __init__(self, answer: str | None = None) -> None:
        self._answer = answer
        self._text = ""

    def feed(self, text: str) -> str:
        """Takes the next piece; returns no text before the end."""
        self._text += text
        return ""

    def finish(self, *, cut: bool) -> ParsedReply:
        """Parses the complete reply."""
        value = _read(self._text)
        calls = [_invalid(self._text, cut)] if value is None else _calls(value[0], self._text)
        if self._answer is not None and calls[0]["name"] == self._answer and calls[0]["type"] == "tool_call":
            return ParsedReply(json.dumps(calls[0]["args"], ensure_ascii=False))
        return ParsedReply(calls=calls)


class TemplateReader:
    """Reads complete replies with the tokenizer's own `response_template`.

    Args:
        engine: The engine.
        prompt: The rendered prompt.
        tools: The tools that the model can call.
    """

    def __init__(self, engine: LocalEngine, prompt: str, tools: Sequence[Tool]) -> None:
        self._tokenizer = engine.tokenizer
        self._prompt = prompt
        self._tools = list(tools)
        self._text = ""

    def feed(self, text: str) -> str:
        """Takes the next piece; returns no text before the end."""
        self._text += text
        return ""

    def finish(self, *, cut: bool) -> ParsedReply:
        """Parses the complete reply."""
        try:
            message = self._tokenizer.parse_response(self._text, prefix=self._prompt, tools=self._tools)
        except Exception:
            # The template does not fit this reply. An invalid call with the whole text shows it to the caller.
            return ParsedReply(calls=[_invalid(self._text, cut)])
        found = [call.get("function", call) for call in message.get("tool_calls") or ()]
        calls = [call for value in found for call in _calls(value, json.dumps(value, default=str))]
        reasoning = message.get("thinking") or message.get("reasoning_content") or message.get("reasoning") or ""
        return ParsedReply(str(message.get("content") or ""), calls, str(reasoning))


def _marked(text: str, format_: ToolFormat, cut: bool) -> ParsedReply:
    """Parses calls behind marks, with text between them."""
    calls: list[WrittenCall] = []
    between: list[str] = []
    at = 0
    while (start := text.find(format_.opener, at)) >= 0:
        between.append(text[at:start])
        body = start + len(format_.opener)
        if (found := _read(text, body)) is None:
            close = text.find(format_.closer, body) if format_.closer else -1
            at = close + len(format_.closer) if close >= 0 else len(text)
            calls.append(_invalid(text[start:at], cut))
            continue
        value, at = found
        calls += _calls(value, text[start:at])
        rest = text[at:].lstrip()
        if format_.closer and rest.startswith(format_.closer):
            at = len(text) - len(rest) + len(format_.closer)
    between.append(text[at:])
    return ParsedReply("".join(part for part in between if part.strip()), calls)


def _bare(text: str, cut: bool) -> ParsedReply:
    """Parses a reply that consists of calls; any other reply is text."""
    body = text.strip()
    tagged = body.startswith(_PYTHON_TAG)
    at = len(_PYTHON_TAG) if tagged else 0
    calls: list[WrittenCall] = []
    while at < len(body):
        found = _read(body, at)
        if found is None or not (isinstance(found[0], dict) and "name" in found[0]):
            # Text may begin with a brace, too. Only the mark, or an earlier call, shows that a call was meant.
            return ParsedReply(calls=[*calls, _invalid(body, cut)]) if tagged or calls else ParsedReply(text)
        value, end = found
        calls += _calls(value, body[at:end])
        at = len(body) - len(body[end:].lstrip("; \n"))
    return ParsedReply(calls=calls)


def _read(text: str, at: int = 0) -> tuple[Any, int] | None:
    """The JSON value at this position and its end, or None."""
    start = len(text) - len(text[at:].lstrip())
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def _calls(value: Any, raw: str) -> list[WrittenCall]:
    return [_call(item, raw) for item in (value if isinstance(value, list) else [value])]


def _call(value: Any, raw: str) -> WrittenCall:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return _invalid(raw, False, "it names no tool")
    args = value.get("arguments", value.get("parameters"))
    if isinstance(args, str):
        found = _read(args) if args.strip() else ({}, 0)
        args = found[0] if found else args
    if args is None:
        args = {}
    if not isinstance(args, Mapping):
        return _invalid(raw, False, "its arguments are not a JSON object", name=value["name"])
    return {"type": "tool_call", "name": value["name"], "args": dict(args), "id": _new_id()}


def _invalid(raw: str, cut: bool, why: str = "it is not valid JSON", name: str | None = None) -> WrittenCall:
    why = "it was cut off by max_tokens or a stop string" if cut else why
    # Message chunks complete truncated JSON when they are added, which would turn half a call into a whole one. The
    # prefix prevents that.
    unreadable = {"name": name, "args": f"Unreadable: {raw}", "error": f"The call is invalid: {why}."}
    return {"type": "invalid_tool_call", "id": _new_id(), **unreadable}


def _new_id() -> str:
    """An id for a call: nine letters and digits, which all templates take."""
    return secrets.token_hex(5)[:9]


def _overlap(text: str, mark: str) -> int:
    """The length of the longest suffix of `text` that is a prefix of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
