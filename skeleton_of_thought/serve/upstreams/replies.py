"""Chat completions of models that do not write OpenAI's protocol themselves: whole, and as a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.adapters.finish_reasons import FINISH_REASONS
from skeleton_of_thought.adapters.replies import aclose_stream, aclosing_stream
from skeleton_of_thought.serve.chunks import Chunks, Completion, json_bytes, usage_dict
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.types import Usage

__all__ = ["End", "Piece", "Pieces", "streamed", "whole"]

_WORDS: Mapping[str, str] = {"refusal": "content_filter", "error": "stop"}


@dataclass(frozen=True)
class Piece:
    """A part of a reply.

    Attributes:
        text: Text.
        reasoning: Text of the model's reasoning.
        calls: Calls of tools, or parts of them, in the form of OpenAI's chunks.
    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class End:
    """The end of a reply.

    Attributes:
        reason: Why it ended, in any provider's words; None if that is unknown.
        usage: Its tokens; None if they are unknown.
    """

    reason: str | None = None
    usage: Usage | None = None


Pieces = AsyncIterator[Piece | End]
"""A reply as it comes; one `End` is the last."""


@dataclass
class _Reply:
    """A reply in OpenAI's form, from what has come of it so far."""

    text: str = ""
    reasoning: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    end: End = End()

    def add(self, piece: Piece | End) -> None:
        """Takes the next piece."""
        if isinstance(piece, End):
            self.end = piece
            return
        self.text += piece.text
        self.reasoning += piece.reasoning
        for part in piece.calls:
            self._add_call(part)

    def _add_call(self, part: Mapping[str, Any]) -> None:
        call = self.calls.setdefault(part["index"], {"id": "", "type": "function"})
        function = call.setdefault("function", {"name": "", "arguments": ""})
        call["id"] = part.get("id") or call["id"]
        for name, text in (part.get("function") or {}).items():
            function[name] += text or ""

    @property
    def finish_reason(self) -> str:
        """Why it ended, in OpenAI's words."""
        word = FINISH_REASONS.get((self.end.reason or "").lower(), "stop")
        word = _WORDS.get(word, word)
        return "tool_calls" if self.calls and word == "stop" else word

    def usage(self) -> dict[str, Any] | None:
        """Its tokens in OpenAI's form; None if they are unknown."""
        return None if self.end.usage is None else usage_dict(self.end.usage)

    def message(self) -> dict[str, Any]:
        """All of it as one message."""
        calls = list(self.calls.values())
        message: dict[str, Any] = {"role": "assistant", "content": self.text or (None if calls else "")}
        message["refusal"] = None
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if calls:
            message["tool_calls"] = calls
        return message


async def whole(pieces: Pieces, request: ChatRequest) -> Passed:
    """Reads a reply to its end. Being cancelled ends the reply.

    Args:
        pieces: The reply, which the caller closes.
        request: The request that it answers.
    """
    reply = _Reply()
    async for piece in pieces:
        reply.add(piece)
    choice = {"index": 0, "message": reply.message(), "logprobs": None, "finish_reason": reply.finish_reason}
    completion = {**Completion(request.model).head("chat.completion"), "choices": [choice], "usage": reply.usage()}
    return Passed(200, {"content-type": "application/json"}, _Body(_single(json_bytes(completion)), _nothing))


def streamed(pieces: Pieces, request: ChatRequest, *, close: Callable[[], Awaitable[None]]) -> Passed:
    """The reply as a stream of chunks. An error of the reply is raised where its next chunk would come.

    Args:
        pieces: The reply.
        request: The request that it answers.
        close: Ends the reply, whether or not `pieces` was read; called once the stream is closed.
    """
    headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
    return Passed(200, headers, _Body(_chunks(pieces, request), close), own_events=True)


async def _chunks(pieces: Pieces, request: ChatRequest) -> AsyncIterator[bytes]:
    reply = _Reply()
    chunks = Chunks(Completion(request.model), include_usage=request.include_usage)
    yield chunks.first()
    async with aclosing_stream(pieces):
        async for piece in pieces:
            reply.add(piece)
            if isinstance(piece, End):
                continue
            delta = {"content": piece.text, "reasoning_content": piece.reasoning, "tool_calls": list(piece.calls)}
            if given := {name: value for name, value in delta.items() if value}:
                yield chunks.chunk(given)
    yield chunks.chunk({}, reply.finish_reason)
    yield chunks.end(reply.usage())


class _Body:
    """The bytes of a response. Closing it ends the reply, whether or not it was read."""

    # A class, not a generator: a generator that was never read would not run its `finally`.
    def __init__(self, chunks: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._chunks = chunks
        self._close = close

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Ends the reply."""
        try:
            await aclose_stream(self._chunks)
        finally:
            await self._close()


async def _single(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _nothing() -> None:
    """The end of a reply that has ended."""
