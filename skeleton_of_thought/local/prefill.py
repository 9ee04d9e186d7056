"""Running prompts before they are decoded: what several prompts share is computed once.

Prompts that are admitted together form a tree of common beginnings. Each inner node runs on a single row;
the leaves, what is particular to each prompt, run as one batch on the repeated keys and values. Beginnings
are also kept for a while, for prompts that come later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache

from skeleton_of_thought.local.kv import repeat_row
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import ModelRunner

__all__ = ["Prefilled", "Prefiller", "PrefixStore", "common_prefix"]

_WORTHWHILE = 8
"""Tokens that sharing a beginning must save, for it to be worth a forward of its own."""

_TAIL_BUDGET = 4096
"""Tokens, padding included, in one forward of several tails."""


@dataclass(frozen=True)
class Prefilled:
    """Rows whose prompts have run.

    Attributes:
        rows: The rows.
        cache: Their keys and values; row i holds its tokens in the first `lengths[i]` slots.
        lengths: Tokens held per row: the whole prompt with `logits`, all but its last token without.
        logits: `[rows, vocabulary]`, to choose the first token from.
    """

    rows: list[Row]
    cache: Cache
    lengths: list[int]
    logits: torch.Tensor | None = None


class PrefixStore:
    """Keys and values of recent prompts, least recently used dropped first.

    Args:
        capacity: Tokens to hold at most; 0 holds nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: list[tuple[tuple[int, ...], Cache]] = []

    def find(self, ids: Sequence[int]) -> tuple[int, Cache | None]:
        """The stored cache that shares the longest beginning with these ids, and how long that is."""
        best, found = 0, None
        for entry in self._entries:
            shared = common_prefix(entry[0], ids)
            if shared >= max(best + 1, _WORTHWHILE):
                best, found = shared, entry
        if found is None:
            return 0, None
        self._entries.remove(found)
        self._entries.append(found)
        return best, found[1]

    def add(self, ids: tuple[int, ...], cache: Cache) -> None:
        """Keep a one-row cache of these tokens. It must not be changed afterwards."""
        if not _WORTHWHILE <= len(ids) <= self._capacity:
            return
        if any(len(held) >= len(ids) and held[: len(ids)] == ids for held, _ in self._entries):
            return
        self._entries = [entry for entry in self._entries if entry[0] != ids[: len(entry[0])]]
        self._entries.append((ids, cache))
        while sum(len(held) for held, _ in self._entries) > self._capacity:
            self._entries.pop(0)

    def clear(self) -> None:
        """Forget everything, to free memory."""
        self._entries.clear()


class Prefiller:
    """Runs the prompts of rows that are admitted together.

    Args:
        runner: The model.
        store: Beginnings of earlier prompts.
    """

    def __init__(self, runner: ModelRunner, store: PrefixStore) -> None:
        self._runner = runner
        self._store = store

    def run(self, rows: Sequence[Row]) -> Iterator[Prefilled]:
        """Run all prompts, in as few tokens as possible. Yields groups of rows as they are ready."""
        for cache, depth, group in self._known(rows):
            for row in group:
                row.reused = depth
            yield from self._descend(group, self._branch(cache, depth), depth)

    def _known(self, rows: Sequence[Row]) -> Iterator[tuple[Cache | None, int, list[Row]]]:
        """The rows in groups, each with a stored beginning that its rows share and the length to take of it."""
        by_cache: dict[int, list[tuple[int, Row, Cache | None]]] = {}
        for row in rows:
            held, cache = self._store.find(row.prompt_ids[:-1])
            by_cache.setdefault(id(cache), []).append((held, row, cache))
        for members in by_cache.values():
            left = sorted(members, key=lambda member: -member[0])
            while left:
                # Rows that would lose only a few tokens stay together: one batch is worth more.
                least = left[0][0] - 2 * _WORTHWHILE
                near = [member for member in left if member[0] >= least]
                left = left[len(near) :]
                yield near[0][2], near[-1][0], [row for _, row, _ in near]

    def _descend(self, rows: list[Row], cache: Any, depth: int) -> Iterator[Prefilled]:
        """Run rows that share `depth` tokens, which the one-row cache holds."""
        shared = _shared(rows)
        if (shared - depth) * (len(rows) - 1) >= _WORTHWHILE:
            ids = rows[0].prompt_ids[:shared]
            self._runner.prefill(ids, cache, depth)
            self._store.add(ids, cache)
            for row in rows[1:]:
                row.reused += shared - depth
            depth = shared
        leaves: list[Row] = []
        for branch in _branches(rows, depth):
            if (_shared(branch) - depth) * (len(branch) - 1) >= _WORTHWHILE:
                yield from self._descend(branch, self._branch(cache, depth), depth)
            else:
                leaves.extend(branch)
        for batch in _similar(leaves, depth):
            yield self._tails(batch, cache, depth) if len(batch) > 1 else self._single(batch[0], cache, depth)

    def _single(self, row: Row, cache: Any, depth: int) -> Prefilled:
        own = self._branch(cache, depth)
        logits = self._runner.prefill(row.prompt_ids, own, depth)
        self._store.add(row.prompt_ids, own)
        return Prefilled([row], own, [len(row.prompt_ids)], logits)

    def _tails(self, rows: list[Row], cache: Any, depth: int) -> Prefilled:
        """Run the tails as one batch, padded at the right, where a causal model cannot see the padding.

        The last token of each prompt is left to the first decoding step, which yields the logits of all
        rows at once, whatever their lengths.
        """
        lengths = [len(row.prompt_ids) - 1 for row in rows]
        longest = max(lengths)
        own = repeat_row(cache, len(rows), depth) if depth else DynamicCache()
        if longest > depth:
            device = self._runner.device
            ids = [
                [*r.prompt_ids[depth:-1], *[r.prompt_ids[-1]] * (longest - n)]
                for r, n in zip(rows, lengths, strict=True)
            ]
            last = torch.tensor(lengths, device=device)[:, None] - 1
            # Padding repeats the last position: models with learned positions have none past their window.
            positions = torch.arange(depth, longest, device=device).expand(len(rows), -1).minimum(last.clamp(min=0))
            self._runner.forward(torch.tensor(ids, device=device), own, positions)
        return Prefilled(rows, own, lengths)

    @staticmethod
    def _branch(cache: Any, depth: int) -> Any:
        return repeat_row(cache, 1, depth) if depth else DynamicCache()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # halving, since slices compare much faster than single items
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _shared(rows: Sequence[Row]) -> int:
    """The beginning that all rows share, short of the last token of the shortest: that one yields logits."""
    # Of sorted sequences, the first and the last differ the earliest.
    low, high = min(row.prompt_ids for row in rows), max(row.prompt_ids for row in rows)
    return min(common_prefix(low, high), min(len(row.prompt_ids) for row in rows) - 1)


def _branches(rows: Sequence[Row], depth: int) -> list[list[Row]]:
    branches: dict[int, list[Row]] = {}
    for row in rows:
        branches.setdefault(row.prompt_ids[depth], []).append(row)
    return list(branches.values())


def _similar(rows: Sequence[Row], depth: int) -> Iterator[list[Row]]:
    """Batches of tails of similar length, so that padding stays below half of the work."""
    batch: list[Row] = []
    total = 0
    for row in sorted(rows, key=lambda row: len(row.prompt_ids)):
        tail = len(row.prompt_ids) - 1 - depth
        padded = tail * (len(batch) + 1)
        if batch and (padded > _TAIL_BUDGET or padded > 1.5 * (total + tail) + 64 or not batch[0].prompt_ids[1:]):
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += tail
    if batch:
        yield batch
