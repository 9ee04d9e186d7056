"""Prefill for models with states (`states.py`), which are known only where a forward has ended.

So prompts begin at kept places that a forward has ended at: where prompts of one admission part, before a prompt's last
token, after an answer, and where a prompt parted from a kept one. Padding would enter the states. So tails that run as
one batch run up to the end of the shortest one, and what is left of the others is read with the steps of the running
batch, one token per step.

Some models (Mamba 1 and its hybrids in transformers) continue a state by single tokens only. Their prompts run in one
piece from the beginning, or begin at a kept place if few tokens follow it, which are read with the steps. A few others
(Nemotron-H, Zamba 2) compute a single token in another way than several: no token of their prompts runs alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence

import torch

from skeleton_of_thought.local.kv import RowsCache, States
from skeleton_of_thought.local.prefill import TAIL_BUDGET, Prefilled, Prefiller, piece_end, shared_length
from skeleton_of_thought.local.prefix import NOWHERE, Place, PrefixStore
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import MAX_FORWARD_TOKENS, ModelRunner

__all__ = ["StatePrefiller", "run_alone"]

_READ_STEPS = 16
"""The most tokens of a prompt that are read with the steps of the running batch, if the prompt is short."""

_READ_SHARE = 8
"""Of a longer prompt, the part of its tokens that may be read so instead of running all of it from the beginning."""

_BRANCH_TOKENS = 32
"""The least number of tokens that a prompt must share with a kept one for a place to be kept where they part."""


class StatePrefiller(Prefiller):
    """Runs the prompts of rows that are admitted together, for a model with states.

    Args:
        runner: The model.
        store: Beginnings of earlier prompts.
        chunk: Returns the most tokens for the next forward.
    """

    def __init__(self, runner: ModelRunner, store: PrefixStore, chunk: Callable[[], int]) -> None:
        self._pieces = runner.path.pieces
        self._most_left = _READ_STEPS if runner.path.reads else 0
        # The last token is left to the first step: so the same prompt can begin before it again.
        self._left = min(1, self._most_left)
        self._least = 1 if runner.path.reads else 2
        super().__init__(runner, store, chunk if self._pieces else lambda: sys.maxsize)

    def run(self, rows: Sequence[Row]) -> Iterator[Prefilled | None]:
        """Run all prompts, with as few tokens as possible. Yields each group of rows when it is ready.

        Yields None after each forward that leaves a group unfinished.
        """
        for place, group in self._known(rows):
            near = [row for row in group if self._reaches(row, place.depth)]
            far = [row for row in group if row not in near]
            for start, part in ((place, near), (NOWHERE, far)):
                for row in part:
                    row.reused = start.depth
                if part:
                    branch = yield from self._branch(part, start)
                    yield from self._descend(part, branch)

    def _reaches(self, row: Row, depth: int) -> bool:
        """Whether a row should begin after this many tokens, rather than run its prompt from the beginning."""
        left = len(row.prompt_ids) - depth
        if self._pieces or not depth:
            return left >= self._least or not depth
        return self._most_left > 0 and left <= max(self._most_left, len(row.prompt_ids) // _READ_SHARE)

    def _pays(self, rows: Sequence[Row], shared: int, place: Place) -> bool:
        """Whether a separate forward of the tokens that rows share after a place saves enough."""
        near = [row for row in rows if self._reaches(row, shared)]
        return shared - place.depth >= self._least and super()._pays(near, shared, place)

    def _branch(self, rows: Sequence[Row], place: Place) -> Generator[None, None, Place]:
        """Run what rows share with a kept text up to where they part from it. Returns the place there."""
        shared = self._store.overlap(rows[0].prompt_ids[: shared_length(rows)])
        if shared - place.depth < _BRANCH_TOKENS or not all(self._reaches(row, shared) for row in rows):
            return place
        for row in rows[1:]:
            row.reused += shared - place.depth
        place, _ = yield from self._strip(rows[0].prompt_ids[:shared], place)
        return place

    def _strip(self, ids: tuple[int, ...], place: Place) -> Generator[None, None, tuple[Place, torch.Tensor | None]]:
        """Run the tokens after a place on one row, and keep them. Returns the new place and the last logits."""
        result = yield from super()._strip(ids, place if self._pieces else NOWHERE)
        return result

    def _leaves(self, rows: Sequence[Row], place: Place) -> Iterator[Prefilled | None]:
        """Run rows that share no more than this place."""
        near = [row for row in rows if self._reaches(row, place.depth)]
        for start, part in ((place, near), (NOWHERE, [row for row in rows if row not in near])):
            for batch in self._close(part, start.depth):
                for row in batch if start is not place else ():
                    row.reused = 0
                if len(batch) > 1:
                    yield from self._tails(batch, start)
                else:
                    yield from self._single(batch[0], start)

    def _single(self, row: Row, place: Place) -> Iterator[Prefilled | None]:
        """Run one prompt."""
        ids, logits = row.prompt_ids, None
        end = max(1, len(ids) - self._left)
        if place.depth < end and (self._pieces or not place.depth):
            place, logits = yield from self._strip(ids[:end], place)
        yield Prefilled([row], place, [[]], logits if end == len(ids) else None, [_states(place)])

    def _tails(self, rows: list[Row], place: Place) -> Iterator[Prefilled | None]:
        """Run the tails as one batch up to the end of the shortest one."""
        depth, device = place.depth, self._runner.device
        shortest = min(len(row.prompt_ids) for row in rows) - self._left
        if shortest == depth or (depth and not self._pieces):
            yield Prefilled(rows, place, [[] for _ in rows], None, [_states(place) for _ in rows])
            return
        cache, held = self._begin(place, len(rows), shortest)
        at, logits = depth, None
        while at < shortest:
            stop = piece_end(at, shortest, self._chunk() // len(rows))
            ids = torch.tensor([row.prompt_ids[at:stop] for row in rows], device=device)
            positions = torch.arange(at, stop, device=device).expand(len(rows), -1)
            logits = self._runner.forward(ids, cache, positions)[:, -1]
            cache.advance(stop - at)
            at = stop
            if at < shortest:
                yield None
        own = [[cache.own(i, held, held + shortest - depth)] for i in range(len(rows))]
        logits = None if self._left else logits
        yield Prefilled(rows, place, own, logits, [cache.states_of(i) for i in range(len(rows))])

    def _close(self, rows: Sequence[Row], depth: int) -> Iterator[list[Row]]:
        """Batches of rows of similar length."""
        batch: list[Row] = []
        for row in sorted(rows, key=lambda row: len(row.prompt_ids)):
            shortest = len(batch[0].prompt_ids) if batch else 0
            # A prompt of one token has no state to begin with, so it runs alone.
            if batch and (
                shortest == self._left
                or len(row.prompt_ids) - shortest >= max(1, self._most_left)
                or (shortest - self._left - depth) * (len(batch) + 1) > TAIL_BUDGET
            ):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch


def _states(place: Place) -> States:
    return () if place.strip is None else place.strip.states


def run_alone(runner: ModelRunner, row: Row, length: int) -> tuple[RowsCache, torch.Tensor]:
    """Run the first tokens of a row's text again, from the beginning.

    Returns:
        A cache with them, and the logits after the last one, `[1, 1, vocabulary]`.
    """
    ids, prompt = (*row.prompt_ids, *row.output_ids)[:length], min(len(row.prompt_ids), length)
    cache = runner.caches.rows(1, length)
    goes_on = runner.path.pieces and runner.path.reads
    at, most = 0, MAX_FORWARD_TOKENS if runner.path.pieces else sys.maxsize
    while at < length:
        stop = piece_end(at, prompt, most) if at < prompt else length if goes_on else at + 1
        part = torch.tensor([ids[at:stop]], device=runner.device)
        logits = runner.forward(part, cache, torch.arange(at, stop, device=runner.device)[None])
        cache.advance(stop - at)
        at = stop
    return cache, logits
