"""Keys and values of rows that run together: each row's own, and the segments that rows share.

A forward extends a `RowsCache`. The running batch has a `BatchCache`, which rows join and leave without moving the
others. All its rows end at the same slot, so a row of n tokens occupies the last n slots before `end`, and shorter
rows have padding at their left:

        start           end   capacity
    row 0 | a b c d e f g |          |
    row 1 | . . . p q r s |          |

No row has a gap. So the distance between two slots of a row is the distance between their tokens, as sliding windows
and relative positions require, and a batch of rows of equal length needs no mask.

A `Segment` precedes the rows' own tokens. Rows attend to it without copying it, all rows that share it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

__all__ = [
    "BatchCache",
    "Caches",
    "Frame",
    "Layers",
    "Layout",
    "OwnLayer",
    "RowsCache",
    "Segment",
    "States",
    "bias_of",
    "row_capacity",
]

_ROOM = 256
"""The least number of slots by which slabs grow."""

_ROWS_BY = 4
"""Row capacities are multiples of this."""

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of some tokens of one row, per layer, `[1, heads, tokens, head size]` each."""

States = Sequence[Sequence[torch.Tensor | None]]
"""The states of one row after some tokens, several per layer, `[1, ...]` each; nothing for models without states."""

Layout = tuple[int, ...]
"""The number of states in each layer of a model with states (`states.py`)."""


def bias_of(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The bias that hides places from attention: minus infinity where `hidden` is true, 0 elsewhere."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


def row_capacity(rows: int) -> int:
    """The number of rows for which slabs for this many rows have room."""
    return -(-rows // _ROWS_BY) * _ROWS_BY


@dataclass(frozen=True)
class Segment:
    """Tokens that several rows of a cache have before their own.

    Attributes:
        layers: Their keys and values.
        rows: The rows with these tokens; None for all.
    """

    layers: Layers
    rows: torch.Tensor | slice | None = None


class Frame:
    """The bounds of the used part of the slabs, shared by all layers."""

    def __init__(self, rows: int = 0, slots: int = 0) -> None:
        self.rows = rows
        self.start = 0
        self.end = 0
        self.row_capacity = rows
        self.slots = slots


class OwnLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's slabs, `[row capacity, heads, slots, head size]`. `update` writes in place and returns views."""

    keys: Any
    values: Any

    def __init__(self, frame: Frame) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.frame = frame

    def allocate(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Allocate slabs for keys and values of these shapes, without initial values."""
        frame = self.frame
        self.hold(*(part.new_empty((frame.row_capacity, part.shape[1], frame.slots, part.shape[3]))
                    for part in (keys, values)))  # fmt: skip

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Use these slabs."""
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def moved(self, frame: Frame) -> OwnLayer:
        """An empty layer of another frame for keys and values of the same shapes."""
        layer = OwnLayer(frame)
        if self.is_initialized:
            layer.allocate(self.keys, self.values)
        return layer

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new tokens after the frame. The frame itself moves when all layers are done."""
        if not self.is_initialized:
            self.allocate(key_states, value_states)
        frame = self.frame
        end = frame.end + key_states.shape[-2]
        self.keys[: frame.rows, :, frame.end : end] = key_states
        self.values[: frame.rows, :, frame.end : end] = value_states
        return self.keys[: frame.rows, :, frame.start : end], self.values[: frame.rows, :, frame.start : end]

    def get_seq_length(self) -> int:
        """Slots in use."""
        return self.frame.end - self.frame.start


class RowsCache(Cache):
    """A cache for rows that begin together, for a known number of tokens.

    Args:
        rows: The number of rows.
        slots: The number of tokens that each row will hold itself.
        segments: The tokens before these.
    """

    def __init__(self, rows: int, slots: int, segments: Sequence[Segment] = ()) -> None:
        self.frame = Frame(rows, slots)
        self.layers: list[Any]
        new_layer: Any = lambda: OwnLayer(self.frame)  # noqa: E731
        super().__init__(layer_class_to_replicate=new_layer)
        self.segments = segments
        # One tensor with all layers' slabs, if these are alike: `[layers, 2, row capacity, heads, slots, size]`.
        self._slab: torch.Tensor | None = None

    @property
    def width(self) -> int:
        """Slots in use."""
        return self.frame.end - self.frame.start

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots in use; the same for all layers."""
        return self.width

    @property
    def nbytes(self) -> int:
        """The bytes of the rows' own keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers if layer.is_initialized)

    def open(
        self, tokens: int, layers: int, heads: int, size: int, like: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Views for a forward of layers of equal shapes, to write its new tokens and to read all of them.

        A few operations cut the views of all layers, instead of a few operations in each layer.

        Returns:
            Per layer: the slots of the new keys and values, `[rows, tokens, 2, heads, size]`; all keys, the new
            ones included; all values, both `[rows, heads, slots, size]`.
        """
        frame = self.frame
        slab = self._allocate(layers, heads, size, like) if self._slab is None else self._slab
        used = slab[:, :, : frame.rows]
        new = used[:, :, :, :, frame.end : frame.end + tokens].permute(0, 2, 4, 1, 3, 5)
        keys, values = used[:, :, :, :, frame.start : frame.end + tokens].unbind(1)
        return new.unbind(0), keys.unbind(0), values.unbind(0)

    def preload(self, pieces: Sequence[Layers]) -> None:
        """Copy the first tokens into every row, for models that cannot attend to segments."""
        for layers in pieces:
            self._need_layers(layers)
            end = self.frame.end + layers[0][0].shape[2]
            for layer, (keys, values) in zip(self.layers, layers, strict=True):
                layer.keys[:, :, self.frame.end : end] = keys
                layer.values[:, :, self.frame.end : end] = values
            self.frame.end = end

    def advance(self, tokens: int = 1) -> None:
        """Move the frame over the tokens that a forward has just written to every row."""
        self.frame.end += tokens

    def own(self, row: int, start: int, stop: int) -> Layers:
        """Views of some of a row's slots."""
        return [(layer.keys[row : row + 1, :, start:stop], layer.values[row : row + 1, :, start:stop])
                for layer in self.layers]  # fmt: skip

    def states_of(self, row: int) -> States:
        """Views of a row's states."""
        return ()

    def restore(self, states: States) -> None:
        """Begin all rows with copies of these states."""

    def _need_layers(self, like: Layers) -> None:
        if self.layers:
            return
        frame, first = self.frame, like[0][0]
        if len({(part.shape[1:], part.dtype, part.device) for pair in like for part in pair}) == 1:
            self._allocate(len(like), first.shape[1], first.shape[3], first)
            return
        self.layers.extend(OwnLayer(frame) for _ in like)
        for layer, (keys, values) in zip(self.layers, like, strict=True):
            layer.allocate(keys, values)

    def _allocate(self, layers: int, heads: int, size: int, like: torch.Tensor) -> torch.Tensor:
        """Allocate one slab for all layers, without initial values."""
        frame = self.frame
        # Rows that join fill the slots that will be read. Most of a slab is never read, and clearing it takes long.
        slab = self._slab = like.new_empty((layers, 2, frame.row_capacity, heads, frame.slots, size))
        self.layers = [OwnLayer(frame) for _ in slab]
        for layer, (keys, values) in zip(self.layers, slab, strict=True):
            layer.hold(keys, values)
        return slab

    def _slabs(self) -> list[torch.Tensor]:
        """The tensors that hold rows, `[row capacity, ..., slots, size]`."""
        if self._slab is not None:
            return [self._slab.permute(2, 0, 1, 3, 4, 5)]
        return [slab for layer in self.layers if layer.is_initialized for slab in (layer.keys, layer.values)]


class BatchCache(RowsCache):
    """The cache of a changing set of rows.

    Attributes:
        starts: The first slot of each row.
    """

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.starts: list[int] = []
        self._bias: torch.Tensor | None = None

    def lengths(self) -> list[int]:
        """The number of tokens that each row holds itself."""
        return [self.frame.end - start for start in self.starts]

    def reserve(self, tokens: int = 1) -> None:
        """Make room for this many more tokens per row."""
        frame = self.frame
        if frame.end + tokens > frame.slots:
            self._rebase(frame.row_capacity, self.width, self.width + max(tokens, _ROOM, self.width // 2))

    def part(self, first: int, stop: int, segments: Sequence[Segment]) -> BatchCache:
        """A cache of the rows from `first` up to `stop`, for a forward of these rows alone.

        Its slabs are views of this cache's. A forward that failed may have written its tokens in some layers, but the
        frame has not moved: the next forward writes them again. `take` the new tokens afterwards, and `advance` this
        cache once.

        Args:
            first: The first row.
            stop: The end of the rows.
            segments: The tokens before these rows' own.
        """
        part = BatchCache()
        part.starts, part.segments = self.starts[first:stop], segments
        frame = part.frame = Frame(stop - first, self.frame.slots)
        frame.start, frame.end = min(part.starts), self.frame.end
        if self._slab is not None:
            part._slab = self._slab[:, :, first:stop]
        for layer in self.layers:
            part.layers.append(OwnLayer(frame))
            if layer.is_initialized:
                part.layers[-1].hold(layer.keys[first:stop], layer.values[first:stop])
        return part

    def take(self, first: int, part: BatchCache) -> None:
        """Take the tokens that a forward of a `part` has just written, before either frame moves."""
        end = self.frame.end
        if not self.layers:
            self._need_layers(part.own(0, end, end + 1))
        rows = slice(first, first + part.frame.rows)
        for mine, theirs in zip(self.layers, part.layers, strict=True):
            mine.keys[rows, :, end : end + 1] = theirs.keys[: part.frame.rows, :, end : end + 1]
            mine.values[rows, :, end : end + 1] = theirs.values[: part.frame.rows, :, end : end + 1]

    def forget(self) -> None:
        """Drop the slabs of a first forward that failed: some layers may have none."""
        self.layers, self._slab = [], None

    def join(self, rows: Sequence[Sequence[Layers]], states: Sequence[States] = ()) -> None:
        """Add rows, each with copies of its pieces, which may be none, and of its states.

        If memory runs out, the earlier rows are unchanged.
        """
        lengths = [sum(piece[0][0].shape[2] for piece in pieces) for pieces in rows]
        frame, first = self.frame, len(self.starts)
        longest, total = max(lengths), first + len(rows)
        if total > frame.row_capacity or longest > frame.end:
            width = max(self.width, longest)
            capacity = max(frame.row_capacity, row_capacity(total))
            self._rebase(capacity, width, width + _ROOM)
            frame = self.frame
        if (like := next((piece for pieces in rows for piece in pieces), None)) is not None:
            self._need_layers(like)
        start = min(frame.start, frame.end - longest)
        for slab in self._slabs():
            # Zeros: a hidden slot still takes part as 0 * value, which must not be NaN. Left of their own start the
            # old rows may have values of earlier rows.
            slab[:first, ..., start : frame.start, :] = 0
            for i, length in enumerate(lengths):
                slab[first + i, ..., start : frame.end - length, :] = 0
        for i, (pieces, length) in enumerate(zip(rows, lengths, strict=True)):
            at = frame.end - length
            for piece in pieces:
                stop = at + piece[0][0].shape[2]
                for layer, (keys, values) in zip(self.layers, piece, strict=True):
                    layer.keys[first + i, :, at:stop] = keys[0]
                    layer.values[first + i, :, at:stop] = values[0]
                at = stop
        frame.start, frame.rows = start, total
        self.starts.extend(frame.end - length for length in lengths)
        self._bias = None

    def trim(self, row: int, tokens: int) -> None:
        """Drop the first tokens of a row, which are in a segment from now on."""
        self.starts[row] += tokens
        self._restart()

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last, frame = len(self.starts) - 1, self.frame
        if row != last:
            for slab in self._slabs():
                slab[row, ..., frame.start : frame.end, :] = slab[last, ..., frame.start : frame.end, :]
            self.starts[row] = self.starts[last]
        self.starts.pop()
        frame.rows = last
        self._restart()

    def mask(self, new: int, device: torch.device) -> torch.Tensor | None:
        """The slots that hold tokens after `new` more per row, as 1 and 0, `[rows, slots]`; None for all."""
        if self._even():
            return None
        slots = torch.arange(self.frame.start, self.frame.end + new, device=device)
        return (slots >= torch.tensor(self.starts, device=device)[:, None]).long()

    def bias(self, new: int, like: torch.Tensor) -> torch.Tensor | None:
        """The mask as a bias of scores, `[rows, 1, 1, slots]`. Rebuilt only when rows have changed."""
        if self._even():
            return None
        frame = self.frame
        if self._bias is None:
            slots = torch.arange(frame.slots, device=like.device)
            hidden = slots < torch.tensor(self.starts, device=like.device)[:, None]
            self._bias = bias_of(hidden, like.dtype)[:, None, None]
        return self._bias[..., frame.start : frame.end + new]

    def _even(self) -> bool:
        return max(self.starts) == self.frame.start

    def _restart(self) -> None:
        self.frame.start = min(self.starts, default=self.frame.end)
        self._bias = None

    def _rebase(self, rows: int, end: int, slots: int) -> None:
        """Move the used slots into new slabs so that they end at `end`: to grow, or to close a gap at the left.

        The old slabs are freed only after all layers have moved, so that running out of memory does not leave the rows
        half moved.
        """
        old, width = self.frame, self.width
        frame = Frame(old.rows, slots)
        frame.row_capacity, frame.start, frame.end = rows, end - width, end
        moved = BatchCache()
        moved.frame = frame
        if self._slab is not None:
            count, _, _, heads, _, size = self._slab.shape
            moved._allocate(count, heads, size, self._slab)
        else:
            for layer in self.layers:
                moved.layers.append(layer.moved(frame))
        for before, after in zip(self._slabs(), moved._slabs(), strict=True):
            after[: old.rows, ..., end - width : end, :] = before[: old.rows, ..., old.start : old.end, :]
        shift = end - old.end
        self.frame, self.layers, self._slab, self._bias = frame, moved.layers, moved._slab, None
        self.starts = [start + shift for start in self.starts]


class Caches:
    """Makes the caches of a model."""

    def rows(self, rows: int, slots: int, segments: Sequence[Segment] = ()) -> RowsCache:
        """A cache for rows that begin together."""
        return RowsCache(rows, slots, segments)

    def batch(self) -> BatchCache:
        """A cache for a changing set of rows."""
        return BatchCache()
