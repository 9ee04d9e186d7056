"""Counts and times of an engine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters", "EngineStats"]


@dataclass(frozen=True)
class EngineStats:
    """A snapshot of an engine's counts and times since it was made.

    Attributes:
        steps: Decoding steps; each gives one token to every row of the batch.
        forwards: All runs of the model, those over prompts included.
        rows: Rows in flight now.
        waiting: Requests that wait for a free row now.
        peak_batch_size: The most rows ever in flight at once.
        prefill_tokens: Prompt tokens that were computed.
        prefix_tokens_reused: Prompt tokens whose keys and values another prompt had computed.
        prefix_hits: Requests whose prompts had a beginning that was computed before.
        decode_tokens: Tokens generated.
        slots: Slots that steps read, summed over rows and steps; those in shared segments do not count.
        padding: The empty ones among these slots.
        kv_bytes: Bytes of all keys and values now, those kept for later prompts included.
        peak_kv_bytes: The most bytes at the end of any request.
        prefill_seconds: Time spent on prompts.
        decode_seconds: Time spent on steps.
        python_seconds: The part of both outside the model's forwards.
        completed: Rows that ended by themselves.
        cancelled: Rows that their consumer cancelled.
        failed: Rows that ended with an error.
        cache_kind: How rows are decoded: `"batched"`, `"separate"` (on caches of the model's own kind)
            or `"none"` (no cache, so each token runs the whole text).
        reason: Why rows are not batched; empty if they are.
    """

    steps: int
    forwards: int
    rows: int
    waiting: int
    peak_batch_size: int
    prefill_tokens: int
    prefix_tokens_reused: int
    prefix_hits: int
    decode_tokens: int
    slots: int
    padding: int
    kv_bytes: int
    peak_kv_bytes: int
    prefill_seconds: float
    decode_seconds: float
    python_seconds: float
    completed: int
    cancelled: int
    failed: int
    cache_kind: str
    reason: str

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second of steps; 0.0 before the first step."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0

    @property
    def padding_share(self) -> float:
        """The empty share of the slots."""
        return self.padding / self.slots if self.slots else 0.0


@dataclass
class Counters:
    """The running counts behind `EngineStats`. Only the worker changes them."""

    steps: int = 0
    rows: int = 0
    waiting: int = 0
    peak_batch_size: int = 0
    prefill_tokens: int = 0
    prefix_tokens_reused: int = 0
    prefix_hits: int = 0
    decode_tokens: int = 0
    slots: int = 0
    padding: int = 0
    kv_bytes: int = 0
    peak_kv_bytes: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    python_seconds: float = 0.0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
