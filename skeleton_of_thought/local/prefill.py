"""Prefill: the forwards over prompts, which compute common beginnings once.

Prompts that are admitted together form a tree of common beginnings. Each inner node runs on a single row. The leaves,
the remainders of the prompts, run as one batch after it. Beginnings are also kept for a while, for later prompts. All
of this runs in pieces; between two pieces the rows of the batch take a step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from skeleton_of_thought.local.kv import Layers, RowsCache, States
from skeleton_of_thought.local.prefix import MIN_SHARED_TOKENS, Place, PrefixStore, Strip, common_prefix, segments_of
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import ModelRunner

__all__ = ["TAIL_BUDGET", "Prefilled", "Prefiller", "branches_of", "piece_end", "shared_length"]

TAIL_BUDGET = 4096
"""The most tokens, padding included, in one batch of several tails."""


@dataclass(frozen=True)
class Prefilled:
    """Rows whose prompts have run.

    Attributes:
        rows: The rows.
        place: The tokens that all of them begin with.
        own: Keys and values of the tokens after these, per row; none if the place is the whole prompt.
        logits: Logits of the first generated tokens, `[rows, vocabulary]`; None if the last token of each prompt
            has not run yet.
        states: The model's states after the tokens that have run, per row; nothing for models without states.
    """

    rows: list[Row]
    place: Place
    own: list[list[Layers]]
    logits: torch.Tensor | None = None
    states: Sequence[States] = ()


class Prefiller:
    """Runs the prompts of rows that are admitted together.

    Args:
        runner: The model.
        store: Beginnings of earlier prompts.
        chunk: Returns the most tokens for the next forward.
    """

    def __init__(self, runner: ModelRunner, store: PrefixStore, chunk: Callable[[], int]) -> None:
        self._runner = runner
        self._store = store
        self._chunk = chunk

    def run(self, rows: Sequence[Row]) -> Iterator[Prefilled | None]:
        """Run all prompts, with as few tokens as possible. Yields each group of rows when it is ready.

        Yields None after each forward that leaves a group unfinished.
        """
        for place, group in self._known(rows):
            for row in group:
                row.reused = place.depth
            yield from self._descend(group, place)

    def _known(self, rows: Sequence[Row]) -> Iterator[tuple[Place, list[Row]]]:
        """The rows in groups, each with a stored beginning that its rows share."""
        by_strip: dict[int, list[tuple[Place, Row]]] = {}
        for row in rows:
            place = self._store.find(row.prompt_ids[:-1])
            by_strip.setdefault(id(place.strip), []).append((place, row))
        for members in by_strip.values():
            left = sorted(members, key=lambda member: -member[0].depth)
            while left:
                # Rows stay together if that costs them only a few stored tokens: one batch saves more.
                least = left[0][0].depth - 2 * MIN_SHARED_TOKENS
                near = [member for member in left if member[0].depth >= least]
                left = left[len(near) :]
                yield near[-1][0], [row for _, row in near]

    def _descend(self, rows: list[Row], place: Place) -> Iterator[Prefilled | None]:
        """Run rows that all begin with the tokens of this place."""
        shared = shared_length(rows)
        if self._pays(rows, shared, place):
            for row in rows[1:]:
                row.reused += shared - place.depth
            place, _ = yield from self._strip(rows[0].prompt_ids[:shared], place)
        leaves: list[Row] = []
        for branch in branches_of(rows, place.depth):
            if self._pays(branch, shared_length(branch), place):
                yield from self._descend(branch, place)
            else:
                leaves.extend(branch)
        yield from self._leaves(leaves, place)

    def _pays(self, rows: Sequence[Row], shared: int, place: Place) -> bool:
        """Whether a separate forward of the tokens that rows share after a place saves enough."""
        return (shared - place.depth) * (len(rows) - 1) >= MIN_SHARED_TOKENS

    def _leaves(self, rows: Sequence[Row], place: Place) -> Iterator[Prefilled | None]:
        """Run rows that share no more than this place."""
        for batch in _similar(rows, place.depth):
            if len(batch) > 1:
                yield from self._tails(batch, place)
            else:
                whole, logits = yield from self._strip(batch[0].prompt_ids, place)
                yield Prefilled(batch, whole, [[]], logits)

    def _strip(self, ids: tuple[int, ...], place: Place) -> Generator[None, None, tuple[Place, torch.Tensor | None]]:
        """Run the tokens after a place on one row, and keep them. Returns the new place and the last logits."""
        cache, held = self._begin(place, 1, len(ids))
        logits: torch.Tensor | None = None
        at = place.depth
        device = self._runner.device
        while at < len(ids):
            part = torch.tensor([ids[at : piece_end(at, len(ids), self._chunk())]], device=device)
            positions = torch.arange(at, at + part.shape[1], device=device)[None]
            logits = self._runner.forward(part, cache, positions)[:, -1]
            cache.advance(part.shape[1])
            at += part.shape[1]
            if at < len(ids):
                yield None
        own = cache.own(0, held, held + len(ids) - place.depth)
        if held:
            # Views would keep the copies of the tokens before these as well, which the store does not count.
            own = [(keys.clone(), values.clone()) for keys, values in own]
        strip = Strip(ids, place.depth, own, place.strip, cache.states_of(0))
        self._store.add(strip)
        return Place(strip, len(ids)), logits

    def _tails(self, rows: list[Row], place: Place) -> Iterator[Prefilled | None]:
        """Run the tails as one batch, padded at the right, where causal attention ignores the padding.

        The first decoding step runs the last token of each prompt: it has the logits of all rows together, whatever
        their lengths.
        """
        depth, device = place.depth, self._runner.device
        lengths = [len(row.prompt_ids) - 1 for row in rows]
        longest = max(lengths)
        cache, held = self._begin(place, len(rows), longest)
        last = torch.tensor(lengths, device=device)[:, None] - 1
        at = depth
        while at < longest:
            stop = min(longest, at + max(1, self._chunk() // len(rows)))
            ids = [
                [*row.prompt_ids[at : min(stop, n)], *[row.prompt_ids[-1]] * (stop - max(at, min(stop, n)))]
                for row, n in zip(rows, lengths, strict=True)
            ]
            # Padding repeats the last position: models with learned positions have none beyond their window.
            positions = torch.arange(at, stop, device=device).expand(len(rows), -1).minimum(last.clamp(min=0))
            self._runner.forward(torch.tensor(ids, device=device), cache, positions)
            cache.advance(stop - at)
            at = stop
            if at < longest:
                yield None
        own = [[cache.own(i, held, held + n - depth)] if n > depth else [] for i, n in enumerate(lengths)]
        yield Prefilled(rows, place, own)

    def _begin(self, place: Place, rows: int, length: int) -> tuple[RowsCache, int]:
        """A cache for the tokens after a place, up to this length; and the slot of the first of them."""
        caches, first = self._runner.caches, 0
        if self._runner.shares:
            cache = caches.rows(rows, length - place.depth, segments_of([place], self._runner.device))
        else:
            cache, first = caches.rows(rows, length), place.depth
            cache.preload(place.layers())
        if place.strip is not None:
            cache.restore(place.strip.states)
        return cache, first


def piece_end(start: int, end: int, most: int) -> int:
    """The end of the next piece of a prompt, of about this many tokens; no token is left alone after it."""
    stop = start + max(2, most)
    return end if stop >= end - 1 else stop


def shared_length(rows: Sequence[Row]) -> int:
    """The length of the beginning that all rows share, without the shortest prompt's last token, which gives logits."""
    # In sorted order, the first and the last sequence differ the earliest.
    low, high = min(row.prompt_ids for row in rows), max(row.prompt_ids for row in rows)
    return min(common_prefix(low, high), min(len(row.prompt_ids) for row in rows) - 1)


def branches_of(rows: Sequence[Row], depth: int) -> list[list[Row]]:
    """The rows in groups that have the same token at this place."""
    branches: dict[int, list[Row]] = {}
    for row in rows:
        branches.setdefault(row.prompt_ids[depth], []).append(row)
    return list(branches.values())


def _similar(rows: Sequence[Row], depth: int) -> Iterator[list[Row]]:
    """Batches of tails of similar length, in which padding is less than half of the work."""
    batch: list[Row] = []
    total = 0
    for row in sorted(rows, key=lambda row: len(row.prompt_ids)):
        tail = len(row.prompt_ids) - 1 - depth
        padded = tail * (len(batch) + 1)
        if batch and (padded > TAIL_BUDGET or padded > 1.5 * (total + tail) + 64 or not batch[0].prompt_ids[1:]):
            yield batch
            batch, total = [], 0
        batch.append(row)
        total += tail
    if batch:
        yield batch
