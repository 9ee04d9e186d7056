"""OpenAI's chat completions as bytes: the chunks of a stream, a whole completion. Pure."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    Event,
    PointFound,
    PointStarted,
    SkeletonDone,
    SkeletonRestarted,
    event_dict,
)
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.types import Answer, Usage

__all__ = [
    "KEEP_ALIVE",
    "Chunks",
    "Completion",
    "CompletionChunks",
    "event_stream",
    "event_stream_error",
    "finish_reason",
    "json_bytes",
    "usage_dict",
]

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which readers of a stream skip."""
DONE = b"data: [DONE]\n\n"

_FINISH_REASONS: Mapping[str | None, str] = {
    "length": "length",
    "max_chars": "length",
    "loop": "length",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
"""OpenAI's words for the ends of answers. All others are "stop", also that of an answer with a failed point."""

_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters at which some clients break lines, and halves of characters, which UTF-8 does not have."""


def json_bytes(value: Any) -> bytes:
    """A value as JSON in one line."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if not text.isascii():
        text = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode()


def event_stream(value: Any) -> bytes:
    """A value as an event of a stream."""
    return b"data: %b\n\n" % json_bytes(value)


def event_stream_error(error: ServeError) -> bytes:
    """An error in the middle of a stream."""
    return event_stream(error.to_dict())


def finish_reason(answer: Answer) -> str:
    """Why an answer ended, in OpenAI's words."""
    return _FINISH_REASONS.get(answer.finish_reason, "stop")


@dataclass(frozen=True)
class Completion:
    """What all chunks of one completion have in common.

    Attributes:
        model: The model's name, as the caller gave it.
        id: The completion's id.
        created: Seconds since the epoch.
    """

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer, *, skeleton: bool = False, events: bool = False, at: float = 0.0) -> dict[str, Any]:
        """The completion in one piece.

        Args:
            answer: The answer.
            skeleton: Whether its skeleton stands beside the text, as `reasoning_content`.
            events: Whether its last event, with all points and times, stands beside the choices, under `sot`.
            at: Seconds since the request came in.
        """
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if skeleton and answer.skeleton.points and answer.route == "skeleton":  # items are no skeleton of a model
            message["reasoning_content"] = f"{answer.skeleton}\n"
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
        whole = {**self.head("chat.completion"), "choices": [choice], "usage": _usage(answer)}
        return {**whole, "sot": _told(AnswerDone(answer), at)} if events else whole

    def head(self, kind: str) -> dict[str, Any]:
        """The fields that the whole completion, or each of its chunks, begins with; `kind` is its `object`."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": None,
        }


class Chunks:
    """The stream of a completion: its chunks, from the first one to the end.

    Args:
        completion: What all chunks have in common.
        include_usage: Whether a chunk with the usage ends the stream.
    """

    def __init__(self, completion: Completion, *, include_usage: bool) -> None:
        self._head = completion.head("chat.completion.chunk")
        if include_usage:
            self._head["usage"] = None
        self._include_usage = include_usage

    def first(self) -> bytes:
        """The chunk that opens the stream."""
        return self.chunk({"role": "assistant", "content": ""})

    def chunk(self, delta: Mapping[str, Any], reason: str | None = None, sot: Mapping[str, Any] | None = None) -> bytes:
        """A chunk with more of the message; with a `reason`, the last one of it."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        return event_stream(chunk if sot is None else {**chunk, "sot": sot})

    def end(self, usage: Mapping[str, Any] | None) -> bytes:
        """What follows the last chunk of the message."""
        return event_stream({**self._head, "choices": [], "usage": usage}) + DONE if self._include_usage else DONE


class CompletionChunks(Chunks):
    """The stream of a completion by points: events of its answer to bytes.

    Args:
        completion: What all chunks have in common.
        include_usage: Whether a chunk with the usage ends the stream.
        show_skeleton: Whether the points of the skeleton come as `reasoning_content`.
        events: Whether chunks tell what happens, each under `sot`.
    """

    def __init__(
        self,
        completion: Completion,
        *,
        include_usage: bool = False,
        show_skeleton: bool = False,
        events: bool = False,
    ) -> None:
        super().__init__(completion, include_usage=include_usage)
        self._show_skeleton, self._events = show_skeleton, events
        self._waves: dict[int, int] = {}

    def read(self, event: Event, at: float) -> bytes:
        """The chunks that an event makes; none for most of them.

        Args:
            event: An event of the answer, but for one that failed.
            at: Seconds since the request came in.
        """
        if isinstance(event, AnswerDone):
            return self._end(event, at)
        delta: dict[str, Any] = {}
        if isinstance(event, AnswerDelta):
            delta["content"] = event.text
        elif self._show_skeleton and isinstance(event, PointFound):
            delta["reasoning_content"] = f"{event.point.line}\n"
        elif self._show_skeleton and isinstance(event, SkeletonRestarted):
            # What was sent cannot be taken back: the new skeleton follows after a blank line.
            delta["reasoning_content"] = "\n"
        if not delta and not self._events:
            return b""
        return self.chunk(delta, sot=self._told(event, at))

    def failed(self, error: ServeError, event: AnswerFailed, at: float) -> bytes:
        """The error that ends the stream."""
        told = self._told(event, at)
        return event_stream(error.to_dict() if told is None else {**error.to_dict(), "sot": told})

    def _end(self, event: AnswerDone, at: float) -> bytes:
        last = self.chunk({}, finish_reason(event.answer), self._told(event, at))
        return last + self.end(_usage(event.answer))

    def _told(self, event: Event, at: float) -> dict[str, Any] | None:
        if not self._events:
            return None
        told = _told(event, at)
        if isinstance(event, PointFound | PointStarted) and (parents := event.point.depends_on):
            # A point comes after those that it builds on.
            wave = 1 + max(self._waves.get(parent, 1) for parent in parents)
            self._waves[event.point.index] = told["point"]["wave"] = wave
        return told


def _told(event: Event, at: float) -> dict[str, Any]:
    told = {**event_dict(event), "at": round(at, 6)}
    if isinstance(event, SkeletonDone) and any(point.scope or point.depends_on for point in event.skeleton.points):
        told["plan"] = event.skeleton.plan
    return told


def _usage(answer: Answer) -> dict[str, Any] | None:
    """The tokens of all calls of an answer; None if its model reports none."""
    if not answer.usage_by_stage:
        return None
    return usage_dict(answer.usage)


def usage_dict(usage: Usage) -> dict[str, Any]:
    """Tokens in OpenAI's form."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
