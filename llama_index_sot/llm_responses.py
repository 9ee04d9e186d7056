"""Reading LLM responses: their text, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from skeleton_of_thought.adapters.replies import ReplyEnd, read_decoding, read_finish_reason, read_usage
from skeleton_of_thought.types import Reply

__all__ = ["ResponseReader"]


class ResponseReader:
    """Reads the text and the end of one call's responses."""

    def __init__(self) -> None:
        self._text = ""
        self._end = ReplyEnd()

    def whole(self, response: ChatResponse | CompletionResponse) -> tuple[str, Reply]:
        """The text and the end of a response that came at once."""
        self._read_end(response)
        return _text(response), self.reply

    def add(self, response: ChatResponse | CompletionResponse) -> str:
        """Reads the next response of a stream and returns its new text."""
        self._read_end(response)
        delta = response.delta
        if delta is None:
            # Some LLMs give only the text so far.
            text = _text(response)
            delta = text[len(self._text) :] if text.startswith(self._text) else ""
        self._text += delta
        return delta

    @property
    def reply(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: The stream broke off: some clients end it without an error then.
        """
        return self._end.reply()

    def _read_end(self, response: ChatResponse | CompletionResponse) -> None:
        raw, end = response.raw, self._end
        if (raw is None or (isinstance(raw, dict) and not raw)) and not response.additional_kwargs:
            return  # most pieces of a stream
        usage = read_usage(_get(raw, "usage") or _get(raw, "usage_metadata") or raw)
        # The last count replaces earlier ones: streams that send several send running totals.
        end.usage = usage or read_usage(response.additional_kwargs) or end.usage
        choices = _get(raw, "choices")
        if isinstance(choices, list | tuple) and choices:
            end.finish_reason = read_finish_reason(choices[0]) or end.finish_reason
            end.cut = end.finish_reason is None
        else:
            end.finish_reason = read_finish_reason(raw) or end.finish_reason
        end.decoding = read_decoding(_get(raw, "decoding")) or end.decoding


def _text(response: ChatResponse | CompletionResponse) -> str:
    return (response.message.content if isinstance(response, ChatResponse) else response.text) or ""


def _get(data: Any, name: str) -> Any:
    # Dicts first: the check for a `Mapping` costs more than everything else here, for every piece.
    if isinstance(data, dict | Mapping):
        return data.get(name)
    return getattr(data, name, None)
