"""The type that travels through the engine: a request, its generated tokens, and the sink of its text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from skeleton_of_thought.local.codec import Detokenizer, EncodedPrompt, StopStrings
from skeleton_of_thought.local.embeddings import Embeddings
from skeleton_of_thought.local.grammar import Constraint
from skeleton_of_thought.local.processors import RowProcessors
from skeleton_of_thought.local.sampling import RowSampler, SamplingParams
from skeleton_of_thought.types import Completion, Decoding, Usage

__all__ = ["FinishReason", "Row", "Sink"]

FinishReason = Literal["stop", "length", "cancelled"]


class Sink(Protocol):
    """The receiver of a row's text. Only the worker calls it; it must neither block nor raise."""

    def text(self, piece: str) -> bool:
        """Receive more text. Returns whether a reader can still get it."""

    def end(self, result: Completion | BaseException) -> None:
        """Receive the completion, or the error that prevented it. The last call."""


class Row:
    """One completion in progress. Only the worker changes it, except for `cancelled`.

    Args:
        prompt: The prompt in tokens.
        params: Sampling settings.
        limit: The most tokens to generate.
        eos_ids: Tokens that end the text.
        decode: Ids to text.
        sink: The receiver of the text.
        constraint: The state of the row's grammar; None without a grammar.
        embeddings: What the model has embeddings for; None if that is not to be checked.
        processors: The functions that change the row's logits; None where its settings need none.

    Attributes:
        cancelled: Set by the consumer, from any thread, when it stops reading.
        result: The completion or error of the row; None until it ends. `deliver` passes it to the consumer.
        next_input: The next token to run, which no cache holds yet.
        reused: Tokens of the prompt whose keys and values another row had computed.
        mixed: Whether the model changed while the row ran, so that its keys and values must not be kept.
        submitted: The time at which the row was made. Times are `time.perf_counter()` seconds, 0.0 until they are set.
        admitted: The time at which its prompt began to run. The worker sets this and all that follow, except `ended`.
        started: The time at which it joined the batch.
        ended: The time at which it got its result.
        steps: The row's decoding steps. Each counts before its token is chosen, which may be the last.
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
        embeddings: Embeddings | None = None,
        processors: RowProcessors | None = None,
    ) -> None:
        self.prompt_ids = prompt.ids
        self.output_ids: list[int] = []
        self.limit = limit
        self._last_ids = frozenset(params.stop_token_ids)
        self._embeddings = embeddings
        self._readable = math.inf if embeddings is None else embeddings.ids
        self._eos_ids = frozenset[int]() if params.ignore_eos else eos_ids
        self.constraint = constraint
        self.sampler = RowSampler(params, prompt.ids, self._eos_ids, processors)
        self.cancelled = False
        self.next_input = prompt.ids[-1]
        self.reused = 0
        self.mixed = False
        self.result: Completion | BaseException | None = None
        self.submitted = time.perf_counter()
        self.admitted = self.started = self.ended = 0.0
        self.steps = self.step_rows = 0
        self._detokenizer = Detokenizer(decode, prompt.context)
        self._stops = StopStrings((*params.stop, *prompt.stops), params.stop_after_text, prompt.thought_ends)
        self._pieces: list[str] = []
        self._sink = sink

    @property
    def longest(self) -> int:
        """The most tokens of prompt and output together."""
        return len(self.prompt_ids) + self.limit

    def accept(self, token: int) -> None:
        """Add the next token: pass its text on, and end the row if the text ends.

        Raises:
            InvalidInput: The text goes on, but the model has no embedding for the token.
        """
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
        elif len(self.output_ids) >= self.limit or self._out_of_time():
            self._finish("length")
        elif token >= self._readable and self._embeddings is not None:
            raise self._embeddings.missing(token)

    def cancel(self) -> None:
        """End the row because its consumer cancelled it."""
        self._end("cancelled")

    def fail(self, error: BaseException) -> None:
        """End the row with an error."""
        if self.result is None:
            self.ended = time.perf_counter()
            self.result = error

    def deliver(self) -> None:
        """Pass the result to the consumer. Separate from the end itself, so that the row's place is free by then."""
        if self.result is not None:
            self._sink.end(self.result)

    @property
    def finished(self) -> bool:
        """Whether the row has ended."""
        return self.result is not None

    def _out_of_time(self) -> bool:
        most = self.sampler.params.max_time
        return most is not None and time.perf_counter() - self.admitted > most

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
        started = self.started or self.ended  # a row can end with its first token, before it joins the batch
        return Decoding(
            waiting=self.admitted - self.submitted,
            prefill=started - self.admitted,
            decode=self.ended - started,
            steps=self.steps,
            mean_rows=self.step_rows / self.steps if self.steps else 0.0,
            output_tokens=len(self.output_ids),
        )
