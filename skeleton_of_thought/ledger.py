"""The calls of an answer: those that are open, and what all of them took, by stage."""

from __future__ import annotations

import dataclasses
from typing import Any

from skeleton_of_thought.text.assembly import PrefillEcho
from skeleton_of_thought.types import Call, Decoding, Prompt, Span, Stage, Usage

__all__ = ["Ledger"]


class Ledger:
    """Keeps the open calls, and counts tokens, seconds and decoding. Times are seconds since the answer began.

    Attributes:
        calls: The calls that are open or wait for room, by their ids.
        usage: Tokens by stage.
        decoding: The work of a local engine by stage.
        spans: By stage, from the start of its first call to the end of its last one.
    """

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.usage: dict[str, Usage] = {}
        self.decoding: dict[Stage, Decoding] = {}
        self.spans: dict[str, Span] = {}
        self._echoes: dict[int, PrefillEcho] = {}
        self._last_id = 0

    def add(self, stage: Stage, prompt: Prompt | None, **details: Any) -> Call:
        """A new call, with an id of its own."""
        self._last_id += 1
        call = self.calls[self._last_id] = Call(self._last_id, stage, prompt, **details)
        if prompt is not None and prompt.prefill:
            self._echoes[call.id] = PrefillEcho(prompt.prefill)
        return call

    def start(self, stage: Stage, offset: float) -> None:
        """Counts a call of this stage as running from now on."""
        self.spans.setdefault(stage, Span(offset, offset))

    def read(self, call: Call, text: str, offset: float) -> str:
        """Notes the first text of a stage; returns the text without a repeated prefill."""
        span = self.spans.get(call.stage)
        if span is not None and span.first is None:
            self.spans[call.stage] = dataclasses.replace(span, first=offset)
        echo = self._echoes.get(call.id)
        return text if echo is None else echo.feed(text)

    def end(self, call: Call, offset: float) -> str:
        """Ends an open call; returns text that was held back, because it could have been a repeated prefill."""
        del self.calls[call.id]
        if (span := self.spans.get(call.stage)) is not None:
            self.spans[call.stage] = dataclasses.replace(span, end=offset)
        echo = self._echoes.pop(call.id, None)
        return "" if echo is None else echo.close()

    def count(self, stage: Stage, usage: Usage | None, decoding: Decoding | None) -> None:
        """Adds what a call has used, as far as its backend reported it."""
        if usage is not None:
            self.usage[stage] = self.usage.get(stage, Usage()) + usage
        if decoding is not None:
            self.decoding[stage] = self.decoding.get(stage, Decoding()) + decoding
