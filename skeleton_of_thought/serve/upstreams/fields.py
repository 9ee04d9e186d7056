"""The fields of a request that models follow which are not behind OpenAI's protocol; unknown ones are ignored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skeleton_of_thought.serve.errors import refuse
from skeleton_of_thought.types import Message

__all__ = ["check_supported", "limit_of", "numbers_of", "stops_of", "text_of", "tools_of"]

_LIMITS = ("max_completion_tokens", "max_tokens")
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, math.inf),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-math.inf, math.inf),
    "presence_penalty": (-math.inf, math.inf),
    "repetition_penalty": (0.0, math.inf),
}
"""Numbers, each with its least and its largest value."""
_WHOLE = ("seed", "top_k", "min_tokens")
_INSTEAD: Mapping[str, str] = {
    "logprobs": "has no log probabilities here: leave it out, or ask a model behind an OpenAI-compatible server",
    "top_logprobs": "has no log probabilities here: leave it out, or ask a model behind an OpenAI-compatible server",
    "functions": "is OpenAI's old form of `tools`: send `tools`",
    "function_call": "is OpenAI's old form of `tool_choice`: send `tool_choice`",
    "audio": "is not there for this model: it writes text only",
    "web_search_options": "is not there for this model: it has no search",
}
_TEXT = ("text", "input_text", "refusal")


def check_supported(body: Mapping[str, Any]) -> None:
    """Checks that a request asks for one text without further data.

    Raises:
        ServeError: It asks for more.
    """
    if (n := body.get("n")) not in (None, 1):
        refuse("n", f"is {n!r:.40}; this model gives one choice to a request, so send it {n!r:.9} times or leave n out")
    for name, why in _INSTEAD.items():
        if body.get(name) not in (None, False, 0, [], "none"):
            refuse(name, why)
    modalities = body.get("modalities")
    if modalities not in (None, [], ["text"]):
        refuse("modalities", f'is {modalities!r:.60}; this model writes text only: leave it out, or send ["text"]')


def numbers_of(body: Mapping[str, Any]) -> dict[str, float | int]:
    """The settings of sampling that are numbers, those that are given.

    Raises:
        ServeError: One is no number, or out of its range.
    """
    given: dict[str, float | int] = {}
    for name, (least, most) in _NUMBERS.items():
        if (value := body.get(name)) is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not least <= value <= most:
            limits = (
                "" if least == -math.inf else f" of at least {least:g}" + f" and at most {most:g}" * (most < math.inf)
            )
            refuse(name, f"is {value!r:.40}; it has to be a number{limits}")
        given[name] = value
    for name in _WHOLE:
        if (value := body.get(name)) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            refuse(name, f"is {value!r:.40}; it has to be a whole number")
        given[name] = value
    return given


def limit_of(body: Mapping[str, Any], own: int | None) -> int | None:
    """The most tokens of the reply; None for the model's own limit.

    Args:
        body: The request.
        own: The limit of requests that set none. Some clients send -1 for none.

    Raises:
        ServeError: The limit is no whole number.
    """
    for name in _LIMITS:
        if (value := body.get(name)) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value == 0:
            refuse(name, f"is {value!r:.40}; it has to be a whole number of at least 1")
        return value if value > 0 else own
    return own


def stops_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The strings that end the text.

    Raises:
        ServeError: They are neither a string nor a list of strings.
    """
    stop = body.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(each, str) and each for each in stops):
        refuse("stop", f"is {stop!r:.60}; it has to be a string or a list of strings, none of them empty")
    return tuple(stops)


def tools_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools, each a function with a name.

    Raises:
        ServeError: One of them is something else.
    """
    tools = body.get("tools") or []
    if not isinstance(tools, list):
        refuse("tools", "has to be a list")
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            refuse(f"tools[{i}]", 'has to be {"type": "function", "function": {"name": ..., "parameters": {...}}}')
        if not isinstance(function.get("parameters") or {}, dict):
            refuse(f"tools[{i}].function.parameters", "has to be a JSON schema, which is an object")
    return tools


def text_of(message: Mapping[str, Any], place: str) -> str:
    """The text of a message for a model that reads text only; its parts are joined.

    Args:
        message: The message.
        place: Its place in the request, for errors.

    Raises:
        ServeError: It holds something else.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        refuse(f"{place}.content", "has to be a text or a list of parts")
    if others := sorted({str(part.get("type")) for part in content} - {*_TEXT}):
        refuse(f"{place}.content", f"holds {', '.join(others)!s:.80}, but this model reads text only", code="text_only")
    return Message(str(message["role"]), tuple(_parts(content))).text


def _parts(content: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for part in content:
        yield {"type": "text", "text": part.get("refusal")} if part.get("type") == "refusal" else part
