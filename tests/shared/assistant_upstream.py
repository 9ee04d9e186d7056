"""A model for tests of the server that follows instructions: it calls tools and writes JSON."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from scripted_upstream import ScriptedUpstream

from skeleton_of_thought.serve.requests import ChatRequest, question_of
from skeleton_of_thought.serve.upstream import Passed

__all__ = ["AssistantUpstream"]

_JOKE = {"setup": "Why did the cat sit down?", "punchline": "It was tired."}
_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


class AssistantUpstream(ScriptedUpstream):
    """An `Upstream` whose completions that pass through answer tools with calls, and other forms with JSON.

    Attributes:
        refusal: A response in place of all completions: status, headers and body.
    """

    refusal: tuple[int, dict[str, str], Mapping[str, Any]] | None = None

    async def pass_through(self, request: ChatRequest) -> Passed:
        """See `Upstream.pass_through`."""
        self.passed.append(request)
        if self.refusal is not None:
            status, headers, body = self.refusal
            return Passed(status, {"content-type": "application/json", **headers}, _pieces(json.dumps(body).encode()))
        message, reason = _message(request)
        if request.stream:
            return Passed(200, {"content-type": "text/event-stream"}, _pieces(*_stream(request, message, reason)))
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        whole = {**_head("chat.completion", request), "choices": [choice], "usage": _USAGE}
        return Passed(200, {"content-type": "application/json"}, _pieces(json.dumps(whole).encode()))


def _head(kind: str, request: ChatRequest) -> dict[str, Any]:
    return {"id": "up-1", "object": kind, "created": 1, "model": request.model}


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _message(request: ChatRequest) -> tuple[dict[str, Any], str]:
    body, asked = request.body, question_of(request)
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        functions = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
        choice = body.get("tool_choice")
        named = choice["function"]["name"] if isinstance(choice, dict) else next(iter(functions))
        called = {"name": named, "arguments": json.dumps(_arguments(functions[named], asked), ensure_ascii=False)}
        return {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": called}]}, "tool_calls"
    if (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        return {"content": json.dumps(_JOKE)}, "stop"
    return {"content": "A passed answer."}, "stop"


def _arguments(function: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Arguments of the right types: numbers and quoted words of the question."""
    number, quoted = re.search(r"\d+", asked), re.search(r"'(.*?)'", asked)
    text = quoted[1] if quoted else asked
    return {
        name: (int(number[0]) if number else 1) if kind.get("type") == "integer" else text
        for name, kind in function.get("parameters", {}).get("properties", {}).items()
    }


def _stream(request: ChatRequest, message: Mapping[str, Any], reason: str) -> list[bytes]:
    if calls := message.get("tool_calls"):
        deltas: list[dict[str, Any]] = [{"tool_calls": [{"index": 0, **calls[0]}]}]
    else:
        deltas = [{"content": word} for word in re.findall(r"\S+\s*", message["content"])]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in [{"role": "assistant"}, *deltas]]
    choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    chunks: list[dict[str, Any]] = [{"choices": [choice]} for choice in choices]
    if request.include_usage:
        chunks.append({"choices": [], "usage": _USAGE})
    head = _head("chat.completion.chunk", request)
    return [b"data: %b\n\n" % json.dumps({**head, **chunk}).encode() for chunk in chunks] + [b"data: [DONE]\n\n"]
