"""Snapshots: copies of the state that a model has after some tokens, for later prompts that begin with them."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from skeleton_of_thought.local.own_cache import RowState

__all__ = ["MIN_SHARED_TOKENS", "Snapshot", "SnapshotStore"]

MIN_SHARED_TOKENS = 8
"""The least number of tokens that a common beginning must save to get a separate forward."""

_RECENT = 64
"""Texts whose tokens are remembered, to find out where later prompts part from them."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a row after these tokens. It can be continued, but not cut.

    Attributes:
        ids: The tokens.
        state: The state; copied by those that continue it.
    """

    ids: tuple[int, ...]
    state: RowState

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes of the state."""
        return self.state.nbytes


class SnapshotStore:
    """Snapshots of recent texts. Drops the least recently used ones first.

    Args:
        capacity: The most tokens to hold; 0 holds nothing.
        token_bytes: The bytes by which each token lets a state grow, in which `shrink` counts.
    """

    def __init__(self, capacity: int, token_bytes: float = 1.0) -> None:
        self._capacity = capacity
        self._token_bytes = max(1.0, token_bytes)
        self._held: list[Snapshot] = []
        self._recent: deque[tuple[int, ...]] = deque(maxlen=_RECENT)

    def find(self, ids: tuple[int, ...]) -> Snapshot | None:
        """The longest snapshot that these tokens begin with, shorter than they are."""
        fits = [held for held in self._held if len(held.ids) < len(ids) and held.ids == ids[: len(held.ids)]]
        if not fits:
            return None
        found = max(fits, key=lambda held: len(held.ids))
        self._held.remove(found)
        self._held.append(found)
        return found

    def wants(self, ids: tuple[int, ...]) -> bool:
        """Whether the store would keep a snapshot after these tokens."""
        return MIN_SHARED_TOKENS <= len(ids) <= self._capacity and all(held.ids != ids for held in self._held)

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot, if `wants` it."""
        if self.wants(snapshot.ids):
            self._held.append(snapshot)
            while self.tokens > self._capacity:
                self._held.pop(0)

    def note(self, ids: tuple[int, ...]) -> None:
        """Remember a text."""
        if self._capacity and ids not in self._recent:
            self._recent.append(ids)

    @property
    def texts(self) -> Sequence[tuple[int, ...]]:
        """The texts that are remembered."""
        return self._recent

    @property
    def tokens(self) -> int:
        """The number of tokens held."""
        return sum(len(held.ids) for held in self._held)

    @property
    def nbytes(self) -> int:
        """The bytes of all snapshots."""
        return sum(held.nbytes for held in self._held)

    @property
    def held(self) -> Sequence[Snapshot]:
        """The snapshots."""
        return tuple(self._held)

    def keep_only(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep these snapshots and drop all others, and forget the texts."""
        self._held = list(snapshots)
        self._recent.clear()

    def shrink(self, tokens: int) -> None:
        """Drop the least recently used snapshots, down to the memory of this number of tokens."""
        while self._held and self.nbytes > tokens * self._token_bytes:
            self._held.pop(0)

    def clear(self) -> None:
        """Drop all snapshots, to free memory."""
        self._held.clear()
