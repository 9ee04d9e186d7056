"""Rows that are being decoded. A lane takes rows in, runs one step for all of them, and lets rows go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from skeleton_of_thought.local.kv import SlabCache
from skeleton_of_thought.local.prefill import Prefilled, Prefiller, PrefixStore
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import ModelRunner
from skeleton_of_thought.local.stats import Counters

__all__ = ["BatchedLane", "Lane", "SeparateLane"]


class Lane(Protocol):
    """Rows that are decoded in the same way."""

    rows: list[Row]

    def admit(self, rows: Sequence[Row]) -> None:
        """Run the prompts of new rows and take them in. A failure ends the rows concerned, and them alone."""

    def step(self) -> None:
        """One more token for every row."""

    def drop(self, row: Row) -> None:
        """Forget a row."""

    def clear(self) -> None:
        """Forget everything and free its memory."""


class BatchedLane:
    """All rows in one forward per step."""

    def __init__(self, runner: ModelRunner, store: PrefixStore, counters: Counters) -> None:
        self.rows: list[Row] = []
        self._runner = runner
        self._counters = counters
        self._prefiller = Prefiller(runner, store)
        self._cache = SlabCache()

    def admit(self, rows: Sequence[Row]) -> None:
        """Run the prompts of new rows, what they share once, and join them to the batch."""
        for group in self._prefiller.run(rows):
            if group.logits is not None:
                _choose(group.rows, group.logits, self._counters)
            self._join(group)

    def step(self) -> None:
        """One forward for all rows."""
        device = self._runner.device
        self._cache.reserve(1)
        ids = torch.tensor([[row.next_input] for row in self.rows], device=device)
        positions = torch.tensor(self._cache.lengths, device=device)[:, None]
        logits = self._runner.forward(ids, self._cache, positions, mask=self._cache.mask(1, device))
        self._cache.advance()
        self._counters.steps += 1
        _choose(self.rows, logits[:, -1], self._counters)
        for row in [row for row in self.rows if row.finished]:
            self.drop(row)

    def drop(self, row: Row) -> None:
        """Forget a row; the last one takes its place."""
        at = self.rows.index(row)
        self._cache.remove(at)
        last = self.rows.pop()
        if at < len(self.rows):
            self.rows[at] = last

    def clear(self) -> None:
        """Forget everything and free its memory."""
        self.rows = []
        self._cache = SlabCache()

    def _join(self, group: Prefilled) -> None:
        # A row can be finished by its first token.
        rows = [row for row in group.rows if not row.finished]
        if rows:
            self._cache.join(group.cache, group.lengths)
            self.rows.extend(rows)


class SeparateLane:
    """Each row with a cache of its own, or none: one forward per row and step.

    The slow but right way for models whose state cannot be cut and joined by position.
    """

    def __init__(self, runner: ModelRunner, counters: Counters, *, cached: bool) -> None:
        self.rows: list[Row] = []
        self._runner = runner
        self._counters = counters
        self._cached = cached
        self._caches: dict[int, Any] = {}

    def admit(self, rows: Sequence[Row]) -> None:
        """Run each prompt by itself."""
        for row in rows:
            cache = self._runner.new_cache() if self._cached else None
            _choose([row], self._runner.prefill(row.prompt_ids, cache), self._counters)
            if not row.finished:
                self._caches[id(row)] = cache
                self.rows.append(row)

    def step(self) -> None:
        """One forward per row."""
        for row in list(self.rows):
            text = (*row.prompt_ids, *row.output_ids)
            start = len(text) - 1 if self._cached else 0
            logits = self._runner.prefill(text, self._caches[id(row)], start)
            self._counters.steps += 1
            _choose([row], logits, self._counters)
            if row.finished:
                self.drop(row)

    def drop(self, row: Row) -> None:
        """Forget a row and its cache."""
        self.rows.remove(row)
        del self._caches[id(row)]

    def clear(self) -> None:
        """Forget everything and free its memory."""
        self.rows = []
        self._caches = {}


def _choose(rows: Sequence[Row], logits: torch.Tensor, counters: Counters) -> None:
    """Give each row its next token, from logits of shape `[rows, vocabulary]`."""
    counters.decode_tokens += len(rows)
    likeliest: list[int] = []
    if any(row.sampler.plain for row in rows):
        likeliest = logits.argmax(-1).tolist()
    for i, row in enumerate(rows):
        try:
            row.accept(likeliest[i] if row.sampler.plain else row.sampler.choose(logits[i]))
        except Exception as error:
            row.fail(error)  # what one row's settings or text break is no other row's concern
