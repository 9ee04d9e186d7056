"""The one type that travels through the engine: a request, what was generated for it, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from skeleton_of_thought.local.detokenize import Detokenizer, StopStrings
from skeleton_of_thought.local.encode import EncodedPrompt
from skeleton_of_thought.local.sampling import RowSampler, SamplingParams
from skeleton_of_thought.types import Completion, Usage

__all__ = ["FinishReason", "Row", "Sink"]

FinishReason = Literal["stop", "length", "cancelled"]


class Sink(Protocol):
    """Where a row's text goes. Called by the worker alone; must neither block nor raise."""

    def text(self, piece: str) -> bool:
        """More text. Returns whether anyone can still receive it."""

    def end(self, result: Completion | BaseException) -> None:
        """The last call: the completion, or why there is none."""


class Row:
    """One completion in the making. Only the worker changes it, but for `cancelled`.

    Args:
        prompt: The prompt in tokens.
        params: Sampling settings.
        limit: The most tokens to generate.
        eos_ids: Tokens that end the text.
        decode: Ids to text.
        sink: Where the text goes.

    Attributes:
        cancelled: Set by the consumer, from any thread: nobody waits for this row any more.
        result: How the row ended; None as long as it has not. The consumer learns it by `deliver`.
        next_input: The token to run next, which no cache holds yet.
        reused: Tokens of the prompt that were taken from another row's computation.
    """

    def __init__(
        self,
        prompt: EncodedPrompt,
        params: SamplingParams,
        *,
        limit: int,
        eos_ids: frozenset[int],
        decode: Callable[[Sequence[int]], str],
        sink: Sink,
    ) -> None:
        self.prompt_ids = prompt.ids
        self.output_ids: list[int] = []
        self.limit = limit
        self._eos_ids = frozenset[int]() if params.ignore_eos else eos_ids
        self.sampler = RowSampler(params, prompt.ids, self._eos_ids)
        self.cancelled = False
        self.next_input = prompt.ids[-1]
        self.reused = 0
        self.result: Completion | BaseException | None = None
        self._detokenizer = Detokenizer(decode, prompt.context)
        self._stops = StopStrings(params.stop, params.stop_after_text)
        self._pieces: list[str] = []
        self._sink = sink

    @property
    def longest(self) -> int:
        """Tokens that prompt and output may have together."""
        return len(self.prompt_ids) + self.limit

    def accept(self, token: int) -> None:
        """Take the next token: pass its text on, and finish where the text ends."""
        self.output_ids.append(token)
        self.next_input = token
        if token in self._eos_ids:
            self._finish("stop")
            return
        if self._emit(self._detokenizer.push(token)):
            self._end("stop")
        elif len(self.output_ids) >= self.limit:
            self._finish("length")

    def cancel(self) -> None:
        """End the row because its consumer went away."""
        self._end("cancelled")

    def fail(self, error: BaseException) -> None:
        """End the row with an error."""
        if self.result is None:
            self.result = error

    def deliver(self) -> None:
        """Tell the consumer the end. Apart from the end itself, so that the row's place is free by then."""
        if self.result is not None:
            self._sink.end(self.result)

    @property
    def finished(self) -> bool:
        """Whether the row takes no more tokens."""
        return self.result is not None

    def _finish(self, reason: FinishReason) -> None:
        stopped = self._emit(self._detokenizer.flush())
        if not stopped:
            self._send(self._stops.flush())
        self._end("stop" if stopped else reason)

    def _emit(self, text: str) -> bool:
        piece, stopped = self._stops.push(text)
        self._send(piece)
        return stopped

    def _send(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            if not self._sink.text(piece):
                self.cancelled = True

    def _end(self, reason: FinishReason) -> None:
        if self.result is None:
            usage = Usage(len(self.prompt_ids), len(self.output_ids), self.reused)
            self.result = Completion("".join(self._pieces), tuple(self.output_ids), reason, usage)
