"""Beginnings of prompts with their keys and values, and the beginnings that rows of a batch share.

A `Strip` holds the keys and values of some tokens of one text; the tokens before these lie in the strip that it
extends. Strips are never copied or cut: a place in a text is a strip and a number of tokens.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from skeleton_of_thought.local.kv import Layers, Segment, States
from skeleton_of_thought.local.snapshots import MIN_SHARED_TOKENS, Snapshot, SnapshotStore

__all__ = [
    "MIN_SHARED_TOKENS",
    "NOWHERE",
    "Place",
    "PrefixStore",
    "Strip",
    "attached_tokens",
    "common_prefix",
    "reachable",
    "segments_of",
    "shared_tokens",
]

_MIN_SEGMENT_BYTES = 1_500_000
"""The least number of bytes per layer that a segment must save from being copied and read again.

On CPUs the operations for one more segment take as long as reading this many bytes (`benchmarks/segments.py`).
"""

_MIN_LONE_TOKENS = 1024
"""The length from which even a single row attends to a beginning without copying it: a copy would hold it twice."""


_LEAST_STATES = 8
"""The number of strips with states that a store holds in any case, if their texts are short."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Keys and values of the tokens `ids[start:]` of a text.

    Attributes:
        ids: All tokens of the text.
        start: The number of tokens before the strip's own.
        layers: Keys and values of the strip's own tokens.
        base: The strip with the tokens before these.
        states: The model's states after the last token; nothing for models without states.
    """

    ids: tuple[int, ...]
    start: int
    layers: Layers
    base: Strip | None = None
    states: States = ()

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes of its own tokens and of its states."""
        states = sum(state.nbytes for layer in self.states for state in layer if state is not None)
        return states + sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    @functools.cached_property
    def token_bytes(self) -> float:
        """The bytes of one token in a layer that attends."""
        keys, values = max(self.layers, key=lambda layer: layer[0].nbytes) if self.states else self.layers[0]
        return (keys.nbytes + values.nbytes) / max(1, keys.shape[2])

    def views(self, start: int, stop: int) -> Layers:
        """Keys and values of the tokens from `start` to `stop` of the text, both within this strip."""
        a, b = start - self.start, stop - self.start
        return [(keys[:, :, a:b], values[:, :, a:b]) for keys, values in self.layers]


class Place(NamedTuple):
    """The first `depth` tokens of a strip's text; all of them, if the model has states."""

    strip: Strip | None
    depth: int

    def pieces(self) -> list[tuple[Strip, int, int]]:
        """The strips that hold these tokens, each with the first and the end of its tokens among them."""
        found: list[tuple[Strip, int, int]] = []
        strip, depth = self
        while strip is not None and depth > 0:
            if depth > strip.start:
                found.append((strip, strip.start, depth))
                depth = strip.start
            strip = strip.base
        return found[::-1]

    def layers(self, start: int = 0) -> list[Layers]:
        """Keys and values of these tokens from `start` on, in order."""
        return [strip.views(max(a, start), b) for strip, a, b in self.pieces() if b > start]


NOWHERE = Place(None, 0)


class PrefixStore:
    """Keys and values of recent prompts. Drops the least recently used ones first.

    Args:
        capacity: The most tokens to hold; 0 holds none.
        snapshots: The states of recent prompts, for rows with caches of the model's own kind.
        stateful: Whether the model has states, so that a strip serves only texts that begin with all of its tokens.
        state_tokens: The number of tokens whose keys and values take as much memory as the states of one strip.
    """

    def __init__(
        self,
        capacity: int,
        snapshots: SnapshotStore | None = None,
        *,
        stateful: bool = False,
        state_tokens: int = 0,
    ) -> None:
        self._capacity = capacity
        self._stateful = stateful
        self._state_tokens = state_tokens
        # Some states are kept in any case, even if those of one row take more memory than many tokens do.
        self._counted_tokens = min(state_tokens, capacity // _LEAST_STATES)
        self._strips: list[Strip] = []
        self.snapshots = SnapshotStore(0) if snapshots is None else snapshots

    def find(self, ids: Sequence[int]) -> Place:
        """The longest stored beginning of these ids; of several, the one found or added last.

        So prompts with a common beginning get the same strip, which shows that they share it.
        """
        best, found, end = 0, None, None
        for strip in reversed(self._strips):
            shared = common_prefix(strip.ids, ids)
            if shared < max(best + 1, MIN_SHARED_TOKENS):
                continue
            at: Strip | None = strip
            while self._stateful and at is not None and len(at.ids) > shared:
                at = at.base
            depth = 0 if at is None else len(at.ids) if self._stateful else shared
            if depth >= max(best + 1, MIN_SHARED_TOKENS):
                best, found, end = depth, strip, at
        if found is None:
            return NOWHERE
        self._strips.remove(found)
        self._strips.append(found)
        return Place(end, best)

    def overlap(self, ids: Sequence[int]) -> int:
        """The number of first tokens that these ids share with a stored text, wherever its strips end."""
        return max((common_prefix(strip.ids, ids) for strip in self._strips), default=0)

    def wants(self, ids: tuple[int, ...]) -> bool:
        """Whether the store would keep a strip of this text: its length fits, and no other strip serves instead."""
        if not MIN_SHARED_TOKENS <= len(ids) <= self._capacity - self._counted_tokens:
            return False
        if self._stateful:
            return not any(ids == held.ids for held in reachable(self._strips))
        return not any(ids == held.ids[: len(ids)] for held in self._strips)

    def add(self, strip: Strip) -> None:
        """Keep a strip, if `wants` it."""
        if not self.wants(strip.ids):
            return
        if self._stateful:
            # Those that it extends stay reachable through it.
            bases = {id(base) for base in reachable([strip])}
            self._strips = [held for held in self._strips if id(held) not in bases]
        else:
            self._strips = [held for held in self._strips if held.ids != strip.ids[: len(held.ids)]]
        self._strips.append(strip)
        self._drop(self._capacity, self._counted_tokens)

    def keep_only(self, kept: Sequence[Strip | Snapshot]) -> None:
        """Keep these strips and snapshots and drop all others."""
        self._strips = [strip for strip in kept if isinstance(strip, Strip)]
        self.snapshots.keep_only([snapshot for snapshot in kept if isinstance(snapshot, Snapshot)])
        self._drop(self._capacity, self._counted_tokens)

    def shrink(self, tokens: int) -> None:
        """Drop the least recently used strips and snapshots, down to the memory of this number of tokens for each."""
        self.snapshots.shrink(tokens)
        self._drop(tokens, self._state_tokens)

    def _drop(self, tokens: int, state_tokens: int) -> None:
        while self._strips and self._held(state_tokens) > tokens:
            self._strips.pop(0)

    def _held(self, state_tokens: int) -> int:
        return sum(len(strip.ids) - strip.start + state_tokens for strip in reachable(self._strips))

    @property
    def tokens(self) -> int:
        """The number of tokens whose memory is held, each counted once, and `state_tokens` for each strip."""
        return self._held(self._state_tokens)

    @property
    def strips(self) -> Sequence[Strip]:
        """The strips that are kept."""
        return self._strips

    def clear(self) -> None:
        """Drop all strips and snapshots, to free memory."""
        self._strips.clear()
        self.snapshots.clear()


def reachable(strips: Sequence[Strip | None]) -> list[Strip]:
    """These strips and all that they extend, each once."""
    found: dict[int, Strip] = {}
    for strip in strips:
        at = strip
        while at is not None and id(at) not in found:
            found[id(at)] = at
            at = at.base
    return list(found.values())


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of tokens that two sequences share at their beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # by halving: comparing slices is much faster than comparing single items
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def attached_tokens(places: Sequence[Place], attached: Sequence[int]) -> list[int]:
    """The number of tokens that each row should have in segments, without a copy; never fewer than it has now."""
    stretches, sharers = _stretches(places)
    wanted = []
    for row, now in enumerate(attached):
        reach = now
        for strip, start, stop in stretches[row]:
            if _should_attend(stop - start, len(sharers[id(strip), start, stop]), strip.token_bytes):
                reach = max(reach, stop)
        wanted.append(reach)
    return wanted


def _should_attend(tokens: int, rows: int, token_bytes: float) -> bool:
    """Whether this many rows should attend to a stretch without copying it."""
    return (rows - 1) * tokens * token_bytes >= _MIN_SEGMENT_BYTES or tokens >= _MIN_LONE_TOKENS


def shared_tokens(prompts: Sequence[Sequence[int]], token_bytes: float) -> int:
    """The number of tokens whose keys and values rows with these prompts share instead of holding copies.

    Args:
        prompts: The prompts' tokens, sorted.
        token_bytes: The bytes of one token in one layer.
    """
    saved = 0
    groups = [(prompts, 0)]
    while groups:
        group, depth = groups.pop()
        # In sorted order, the first and the last sequence differ the earliest.
        shared = min(common_prefix(group[0], group[-1]), min(map(len, group)) - 1)
        if shared > depth:
            if _should_attend(shared - depth, len(group), token_bytes):
                saved += (len(group) - 1) * (shared - depth)
            depth = shared
        for _, rows in itertools.groupby(group, operator.itemgetter(depth)):
            if len(branch := [ids for ids in rows if len(ids) > depth + 1]) > 1:
                groups.append((branch, depth))
    return saved


def segments_of(places: Sequence[Place], device: torch.device) -> list[Segment]:
    """The segments of rows that attend to the tokens of these places."""
    stretches, sharers = _stretches(places)
    known = {(id(strip), start, stop): strip for row in stretches for strip, start, stop in row}
    segments = []
    for (number, start, stop), rows in sharers.items():
        first, count = rows[0], len(rows)
        which: torch.Tensor | slice | None = None
        if count < len(places):
            together = rows == list(range(first, first + count))
            which = slice(first, first + count) if together else torch.tensor(rows, device=device)
        segments.append(Segment(known[number, start, stop].views(start, stop), which))
    return segments


_Stretch = tuple[Strip, int, int]


def _stretches(places: Sequence[Place]) -> tuple[list[list[_Stretch]], dict[tuple[int, int, int], list[int]]]:
    """Each row's tokens, cut into stretches wherever a row's part of a strip ends; and the rows of each stretch."""
    pieces = [place.pieces() for place in places]
    cuts: dict[int, set[int]] = {}
    for row in pieces:
        for strip, start, stop in row:
            cuts.setdefault(id(strip), set()).update((start, stop))
    stretches: list[list[_Stretch]] = []
    sharers: dict[tuple[int, int, int], list[int]] = {}
    for number, row in enumerate(pieces):
        own = [(strip, a, b) for strip, start, stop in row for a, b in _between(sorted(cuts[id(strip)]), start, stop)]
        for strip, a, b in own:
            sharers.setdefault((id(strip), a, b), []).append(number)
        stretches.append(own)
    return stretches, sharers


def _between(cuts: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int]]:
    inner = [cut for cut in cuts if start <= cut <= stop]
    return itertools.pairwise(inner)
