"""What the engine counts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "EngineStats"]


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of what an engine has done since it was made.

    Attributes:
        steps: Decoding steps; each gives one token to every row of the batch.
        forwards: All runs of the model, those over prompts included.
        rows: Rows in flight now.
        waiting: Requests that wait for a free row now.
        peak_batch_size: The most rows ever in flight at once.
        prefill_tokens: Prompt tokens that were computed.
        prefix_tokens_reused: Prompt tokens that were taken from another prompt's computation.
        decode_tokens: Tokens generated.
        completed: Rows that came to their own end.
        cancelled: Rows whose consumer went away.
        failed: Rows that ended with an error.
    """

    steps: int
    forwards: int
    rows: int
    waiting: int
    peak_batch_size: int
    prefill_tokens: int
    prefix_tokens_reused: int
    decode_tokens: int
    completed: int
    cancelled: int
    failed: int


@dataclass
class Counters:
    """The running counts behind `EngineStats`. Only the worker changes them."""

    steps: int = 0
    rows: int = 0
    waiting: int = 0
    peak_batch_size: int = 0
    prefill_tokens: int = 0
    prefix_tokens_reused: int = 0
    decode_tokens: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
