"""What LLM responses say: their text, what they cost, and why they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from skeleton_of_thought.types import Decoding, Reply, Usage

__all__ = ["Outcome"]

_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")


class Outcome:
    """What the responses of one call say about its text and its end."""

    def __init__(self) -> None:
        self._text = ""
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._decoding: Decoding | None = None
        self._endless = False

    def whole(self, response: ChatResponse | CompletionResponse) -> tuple[str, Reply]:
        """The text of a response that came at once, and how it ended."""
        self._take(response)
        return _text(response), self.reply

    def add(self, response: ChatResponse | CompletionResponse) -> str:
        """Takes one response of a stream; returns its new text."""
        self._take(response)
        delta = response.delta
        if delta is None:
            # Some give only what there is so far.
            text = _text(response)
            delta = text[len(self._text) :] if text.startswith(self._text) else ""
        self._text += delta
        return delta

    @property
    def reply(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: It did not end, it broke off: some clients end a stream quietly then.
        """
        if self._endless and self._usage is None:
            raise ConnectionError("The server's stream ended before its answer was complete.")
        return Reply(usage=self._usage, finish_reason=self._finish, decoding=self._decoding)

    def _take(self, response: ChatResponse | CompletionResponse) -> None:
        raw = response.raw
        if (raw is None or (isinstance(raw, dict) and not raw)) and not response.additional_kwargs:
            return  # so it is with most pieces of a stream
        usage = _usage(_get(raw, "usage") or _get(raw, "usage_metadata") or raw) or _usage(response.additional_kwargs)
        # The last word counts: streams tell running totals, if they tell more than once.
        self._usage = usage or self._usage
        choices = _get(raw, "choices")
        if isinstance(choices, list | tuple) and choices:
            self._finish = _get(choices[0], "finish_reason") or self._finish
            self._endless = self._finish is None
        elif isinstance(reason := _get(raw, "finish_reason") or _get(raw, "stop_reason"), str):
            self._finish = reason
        self._decoding = _decoding(_get(raw, "decoding")) or self._decoding


def _text(response: ChatResponse | CompletionResponse) -> str:
    return (response.message.content if isinstance(response, ChatResponse) else response.text) or ""


def _get(data: Any, name: str) -> Any:
    # Dicts first: to find out whether something is a `Mapping` takes longer than all else here, for every piece.
    if isinstance(data, dict | Mapping):
        return data.get(name)
    return getattr(data, name, None)


def _usage(data: Any) -> Usage | None:
    given, written = _first(data, _INPUT), _first(data, _OUTPUT)
    if given is None and written is None:
        return None
    details = _get(data, "prompt_tokens_details") or _get(data, "input_tokens_details")
    cached = _get(details, "cached_tokens")
    return Usage(given or 0, written or 0, cached if isinstance(cached, int) else 0)


def _first(data: Any, names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := _get(data, name), int)), None)


def _decoding(data: Any) -> Decoding | None:
    """What `TransformersLLM` says that its engine did for this response."""
    names = Decoding.__dataclass_fields__
    if not isinstance(data, Mapping) or not data.keys() >= names.keys():
        return None
    return Decoding(**{name: data[name] for name in names})
