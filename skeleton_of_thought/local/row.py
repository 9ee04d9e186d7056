"""The one type that travels through the engine: a request, what was generated for it, and who waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from skeleton_of_thought.local.codec import Detokenizer, EncodedPrompt, StopStrings
from skeleton_of_thought.local.grammar import Constraint
from skeleton_of_thought.local.sampling import RowSampler, SamplingParams
from skeleton_of_thought.types import Completion, Decoding, Usage

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
        constraint: Holds the text to a grammar; None for none.

    Attributes:
        cancelled: Set by the consumer, from any thread: nobody waits for this row any more.
        result: How the row ended; None as long as it has not. The consumer learns it by `deliver`.
        next_input: The token to run next, which no cache holds yet.
        reused: Tokens of the prompt that were taken from another row's computation.
        submitted: When the row was made. Moments are `time.perf_counter()` seconds, 0.0 until they come.
        admitted: When its prompt began to run. The worker sets this and what follows, but for `ended`.
        started: When it joined the batch.
        ended: When it got its result.
        steps: Decoding steps it took part in. Each counts before its token is chosen, which may be the last.
        step_rows: Rows in the batch, summed over those steps.
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
        constraint: Constraint | None = None,
    ) -> None:
        self.prompt_ids = prompt.ids
        self.output_ids: list[int] = []
        self.limit = limit
        self._last_ids = frozenset(params.stop_token_ids)
        self._eos_ids = frozenset[int]() if params.ignore_eos else eos_ids
        self.constraint = constraint
        self.sampler = RowSampler(params, prompt.ids, self._eos_ids)
        self.cancelled = False
        self.next_input = prompt.ids[-1]
        self.reused = 0
        self.result: Completion | BaseException | None = None
        self.submitted = time.perf_counter()
        self.admitted = self.started = self.ended = 0.0
        self.steps = self.step_rows = 0
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
        complete = self.constraint is not None and self.constraint.accept(token)
        if self._emit(self._detokenizer.push(token)):
            self._end("stop")
        elif complete or token in self._last_ids:
            self._finish("stop")
        elif len(self.output_ids) >= self.limit:
            self._finish("length")

    def cancel(self) -> None:
        """End the row because its consumer went away."""
        self._end("cancelled")

    def fail(self, error: BaseException) -> None:
        """End the row with an error."""
        if self.result is None:
            self.ended = time.perf_counter()
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
            self.ended = time.perf_counter()
            usage = Usage(len(self.prompt_ids), len(self.output_ids), self.reused)
            text, ids = "".join(self._pieces), tuple(self.output_ids)
            self.result = Completion(text, ids, reason, usage, self._decoding())

    def _decoding(self) -> Decoding | None:
        if not self.admitted:
            return None
        started = self.started or self.ended  # a row can end with its first token, before it joins
        return Decoding(
            waiting=self.admitted - self.submitted,
            prefill=started - self.admitted,
            decode=self.ended - started,
            steps=self.steps,
            mean_rows=self.step_rows / self.steps if self.steps else 0.0,
            output_tokens=len(self.output_ids),
        )
