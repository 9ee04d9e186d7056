"""Keys and values of a running batch, in slabs that rows join and leave without moving the others.

All rows end at the same slot, so a row of n tokens occupies the last n slots before `end`, and the shorter
ones have padding at their left:

        start           end   capacity
    row 0 | a b c d e f g |          |
    row 1 | . . . p q r s |          |

No row has a gap. The distance between two slots of a row is then the distance between their tokens, which
is what sliding windows and relative positions rely on, and a batch of equal rows needs no mask at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

__all__ = ["SlabCache", "cut_row", "repeat_row"]

_ROOM = 256
"""Slots added at least when slabs grow."""


class _Frame:
    """The part of the slabs in use, shared by all layers."""

    def __init__(self) -> None:
        self.rows = 0
        self.start = 0
        self.end = 0


class _SlabLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's slabs, `[row capacity, heads, slots, head size]`; `update` writes in place, returns views."""

    keys: Any
    values: Any

    def __init__(self, frame: _Frame) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.frame = frame

    def allocate(self, like: Any, rows: int, slots: int) -> None:
        """Make empty slabs for keys and values of this kind."""
        for name in ("keys", "values"):
            part = getattr(like, name)
            # Zeros: what a mask hides still takes part as 0 * value, which must not be NaN.
            setattr(self, name, part.new_zeros((rows, part.shape[1], slots, part.shape[3])))
        self.dtype, self.device, self.is_initialized = like.keys.dtype, like.keys.device, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens behind the frame. The frame itself moves once all layers are done."""
        frame = self.frame
        end = frame.end + key_states.shape[-2]
        self.keys[: frame.rows, :, frame.end : end] = key_states
        self.values[: frame.rows, :, frame.end : end] = value_states
        return self.keys[: frame.rows, :, frame.start : end], self.values[: frame.rows, :, frame.start : end]

    def get_seq_length(self) -> int:
        """Slots in use."""
        return self.frame.end - self.frame.start


class SlabCache(Cache):
    """A cache for a changing set of rows. `lengths[i]` is the number of tokens that row i holds."""

    def __init__(self) -> None:
        self._frame = _Frame()
        self.lengths: list[int] = []
        self.layers: list[Any]
        super().__init__(layers=[_SlabLayer(self._frame)])
        self._empty = True

    @property
    def width(self) -> int:
        """Slots from the start of the longest row to the common end."""
        return self._frame.end - self._frame.start

    def reserve(self, tokens: int = 1) -> None:
        """Make room for that many more tokens per row."""
        if not self._empty and self._frame.end + tokens > self._slots:
            self._rebase(self._rows, self.width, self.width + max(tokens, _ROOM, self.width // 2))

    def advance(self) -> None:
        """Count the token per row that a forward has just written."""
        self._frame.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def join(self, source: Any, lengths: Sequence[int]) -> None:
        """Add rows. Row i of `source` holds its tokens in the first `lengths[i]` slots.

        If this fails for lack of memory, the rows that were there before stay as they were.
        """
        rows, longest = len(self.lengths) + len(lengths), max(lengths)
        if self._empty:
            self._allocate(source, rows, longest + _ROOM)
            self._frame.start = self._frame.end = longest
        elif rows > self._rows or longest > self._frame.end:
            width = max(self.width, longest)
            self._rebase(max(rows, self._rows), width, width + _ROOM)
        frame, first = self._frame, len(self.lengths)
        start = min(frame.start, frame.end - longest)
        for layer, other in zip(self.layers, source.layers, strict=True):
            for slab, part in ((layer.keys, other.keys), (layer.values, other.values)):
                # Left of their own start the old rows may have what earlier rows left there.
                slab[:first, :, start : frame.start] = 0
                for i, length in enumerate(lengths):
                    slab[first + i, :, start : frame.end - length] = 0
                    slab[first + i, :, frame.end - length : frame.end] = part[i, :, :length]
        frame.start, frame.rows = start, rows
        self.lengths.extend(lengths)

    def remove(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        last, frame = len(self.lengths) - 1, self._frame
        if row != last:
            for layer in self.layers:
                for slab in (layer.keys, layer.values):
                    slab[row, :, frame.start : frame.end] = slab[last, :, frame.start : frame.end]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        frame.rows = last
        frame.start = frame.end - max(self.lengths, default=0)

    def mask(self, new: int, device: torch.device) -> torch.Tensor | None:
        """Which slots hold tokens once `new` more per row are written, `[rows, slots]`; None for all."""
        shortest = min(self.lengths)
        if shortest == self.width:
            return None
        slots = torch.arange(self.width + new, device=device)
        return (slots >= (self.width - torch.tensor(self.lengths, device=device))[:, None]).long()

    @property
    def _rows(self) -> int:
        return int(self.layers[0].keys.shape[0])

    @property
    def _slots(self) -> int:
        return int(self.layers[0].keys.shape[2])

    def _allocate(self, source: Any, rows: int, slots: int) -> None:
        layers = [_SlabLayer(self._frame) for _ in source.layers]
        for layer, other in zip(layers, source.layers, strict=True):
            layer.allocate(other, _power_of_two(rows), slots)
        self.layers, self._empty = layers, False

    def _rebase(self, rows: int, end: int, slots: int) -> None:
        """Move what is in use into new slabs so that it ends at `end`: to grow, or to close a gap at the left.

        The old slabs are let go only when all layers have moved: running out of memory in between must not
        leave the rows half moved.
        """
        frame, width = self._frame, self.width
        fresh = []
        for layer in self.layers:
            copy = _SlabLayer(frame)
            copy.allocate(layer, _power_of_two(rows), slots)
            for name in ("keys", "values"):
                old, new = getattr(layer, name), getattr(copy, name)
                new[: frame.rows, :, end - width : end] = old[: frame.rows, :, frame.start : frame.end]
            fresh.append(copy)
        self.layers = fresh
        frame.start, frame.end = end - width, end


def repeat_row(cache: Cache, rows: int, length: int) -> Cache:
    """A cache of `rows` rows that all begin with the first `length` tokens of a one-row cache.

    Nothing is copied: a forward concatenates, and so copies, by itself.
    """
    return _viewed(cache, lambda part: part[:, :, :length].expand(rows, -1, -1, -1))


def cut_row(cache: Cache, row: int, length: int) -> Cache:
    """A one-row cache with a copy of the first `length` tokens of a row."""
    return _viewed(cache, lambda part: part[row : row + 1, :, :length].clone())


def _viewed(cache: Any, view: Callable[[torch.Tensor], torch.Tensor]) -> Cache:
    layers: list[Any] = []
    for layer in cache.layers:
        copy: Any = DynamicLayer()  # type: ignore[no-untyped-call]
        copy.lazy_initialization(layer.keys, layer.values)
        copy.keys, copy.values = view(layer.keys), view(layer.values)
        layers.append(copy)
    return Cache(layers=layers)


def _power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()
