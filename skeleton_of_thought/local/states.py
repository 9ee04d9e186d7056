"""Caches of rows for models with states: convolutions, state spaces and linear attention, alone or beside attention.

A state sums up all tokens of a row so far. It does not grow with the text and cannot be cut: a row begins with a copy
of the state after some tokens or with none. States of several rows are stacked along the first dimension. In a batch,
each row has one new token per step, so rows of any lengths step together; only attention needs to know their lengths.

Any layer of such a model may have states, keys and values, both, or neither (if it reads those of another layer).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import LinearAttentionLayer

from skeleton_of_thought.local.kv import (
    BatchCache,
    Caches,
    Frame,
    Layers,
    Layout,
    OwnLayer,
    RowsCache,
    Segment,
    States,
    row_capacity,
)

__all__ = ["StateBatch", "StateCaches", "StateRows"]


class _StateLayer(LinearAttentionLayer, OwnLayer):  # type: ignore[misc, override, no-untyped-call]
    """One layer's states, and its keys and values if it attends.

    Attributes:
        slabs: Tensors with room for more rows, of which the layer's states are the first rows.
    """

    conv_states: dict[int, Any]
    recurrent_states: dict[int, Any]

    def __init__(self, frame: Frame, states: int) -> None:
        OwnLayer.__init__(self, frame)
        LinearAttentionLayer.__init__(self, number_of_states=states)
        self.slabs: list[torch.Tensor | None] = [None] * (2 * states)

    def moved(self, frame: Frame) -> _StateLayer:
        """This layer with the same states and empty slabs for keys and values."""
        twin = copy.copy(self)
        twin.frame, twin.is_initialized = frame, False
        if self.is_initialized:
            twin.allocate(self.keys, self.values)
        return twin

    def states(self) -> list[torch.Tensor | None]:
        """The states of all rows, `[rows, ...]` each; None for those that the model does not use."""
        return [*self.conv_states.values(), *self.recurrent_states.values()]

    def hold_states(self, states: Sequence[torch.Tensor | None]) -> None:
        """Go on with these states of all rows."""
        half = len(states) // 2
        for index, (conv, recurrent) in enumerate(zip(states[:half], states[half:], strict=True)):
            self.conv_states[index], self.recurrent_states[index] = conv, recurrent
            self.is_conv_states_initialized[index] = conv is not None
            self.is_recurrent_states_initialized[index] = recurrent is not None
            self.has_previous_state[index] = conv is not None or recurrent is not None
            self.conv_kernel_size[index] = None if conv is None else conv.shape[-1]

    def show(self, rows: int) -> None:
        """Have the states of the first rows of the slabs as the layer's states."""
        self.hold_states([None if slab is None else slab[:rows] for slab in self.slabs])

    def gather(self) -> None:
        """Write states into the slabs that a forward has put elsewhere, instead of changing them in place."""
        for slab, state in zip(self.slabs, self.states(), strict=True):
            if slab is not None and state is not None and state.data_ptr() != slab.data_ptr():
                slab[: len(state)] = state

    def grown(self, rows: int, more: int, like: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Slabs with room for more rows than the first ones: the same, or larger ones with copies of these rows."""
        slabs = list(self.slabs)
        for number, (slab, state) in enumerate(zip(self.slabs, like, strict=True)):
            if state is None or (slab is not None and len(slab) >= rows + more):
                continue
            fresh = state.new_zeros((row_capacity(rows + more), *state.shape[1:]))
            if slab is not None:
                fresh[:rows] = slab[:rows]
            slabs[number] = fresh
        return slabs


class StateRows(RowsCache):
    """A `RowsCache` for models with states.

    Args:
        rows: The number of rows.
        slots: The number of tokens that each row will hold itself.
        segments: The tokens before these.
        layout: The number of states in each layer.
    """

    layers: list[Any]

    def __init__(self, rows: int, slots: int, segments: Sequence[Segment] = (), *, layout: Layout) -> None:
        super().__init__(rows, slots, segments)
        self.layers = [_StateLayer(self.frame, states) for states in layout]

    @property
    def nbytes(self) -> int:
        """The bytes of the rows' own keys and values and of their states."""
        return super().nbytes + _state_bytes(self.layers)

    def own(self, row: int, start: int, stop: int) -> Layers:
        """Views of some of a row's slots."""
        _fill(self.layers)
        return super().own(row, start, stop)

    def states_of(self, row: int) -> States:
        """Views of a row's states."""
        return _states_of(self.layers, row)

    def restore(self, states: States) -> None:
        """Begin all rows with copies of these states."""
        for layer, parts in zip(self.layers, states, strict=True):
            layer.hold_states([
                None if part is None else part.repeat(self.frame.rows, *(1 for _ in part.shape[1:])) for part in parts
            ])  # fmt: skip

    def _need_layers(self, like: Layers) -> None:
        _allocate(self.layers, like)


class StateBatch(BatchCache):
    """A `BatchCache` for models with states.

    Args:
        layout: The number of states in each layer.
    """

    layers: list[Any]

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layers = [_StateLayer(self.frame, states) for states in layout]

    @property
    def nbytes(self) -> int:
        """The bytes of the rows' own keys and values and of their states."""
        slabs: list[torch.Tensor] = [slab for layer in self.layers for slab in layer.slabs if slab is not None]
        return super().nbytes + sum(slab.nbytes for slab in slabs)

    def own(self, row: int, start: int, stop: int) -> Layers:
        """Views of some of a row's slots."""
        _fill(self.layers)
        return super().own(row, start, stop)

    def states_of(self, row: int) -> States:
        """Views of a row's states."""
        return _states_of(self.layers, row)

    def join(self, rows: Sequence[Sequence[Layers]], states: Sequence[States] = ()) -> None:
        """Add rows, each with copies of its pieces, which may be none, and of its states.

        If memory runs out, the earlier rows are unchanged.
        """
        if not states:
            super().join(rows)
            return
        first = len(self.starts)
        for layer in self.layers:
            layer.gather()
        grown = [layer.grown(first, len(rows), parts) for layer, parts in zip(self.layers, states[0], strict=True)]
        super().join(rows)
        for number, (layer, slabs) in enumerate(zip(self.layers, grown, strict=True)):
            layer.slabs = slabs
            for row, own in enumerate(states, first):
                for slab, part in zip(slabs, own[number], strict=True):
                    if slab is not None:
                        slab[row] = 0 if part is None else part[0]
            layer.show(first + len(rows))

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.starts) - 1
        for layer in self.layers:
            layer.gather()
            if row != last:
                for slab in layer.slabs:
                    if slab is not None:
                        slab[row] = slab[last]
            layer.show(last)
        super().remove(row)

    def mask(self, new: int, device: torch.device) -> torch.Tensor | None:
        """The slots that hold tokens after `new` more per row; None for all, or if no layer attends."""
        # A model without attention would take the mask for that of its new tokens.
        if not any(layer.is_initialized and layer.keys.numel() for layer in self.layers):
            return None
        return super().mask(new, device)

    def _need_layers(self, like: Layers) -> None:
        _allocate(self.layers, like)


class StateCaches(Caches):
    """Makes the caches of models with states.

    Args:
        layout: The number of states in each layer.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def rows(self, rows: int, slots: int, segments: Sequence[Segment] = ()) -> RowsCache:
        """A cache for rows that begin together."""
        return StateRows(rows, slots, segments, layout=self._layout)

    def batch(self) -> BatchCache:
        """A cache for a changing set of rows."""
        return StateBatch(self._layout)


def _states_of(layers: Sequence[_StateLayer], row: int) -> States:
    return [[None if state is None else state[row : row + 1] for state in layer.states()] for layer in layers]


def _state_bytes(layers: Sequence[_StateLayer]) -> int:
    return sum(state.nbytes for layer in layers for state in layer.states() if state is not None)


def _fill(layers: Sequence[_StateLayer]) -> None:
    """Give layers without attention keys and values of no size, so that all layers can be handled alike."""
    for layer in layers:
        if not layer.is_initialized:
            nothing = torch.empty(1, 0, 0, 0)
            layer.allocate(nothing, nothing)


def _allocate(layers: Sequence[_StateLayer], like: Layers) -> None:
    for layer, (keys, values) in zip(layers, like, strict=True):
        if not layer.is_initialized:
            layer.allocate(keys, values)
