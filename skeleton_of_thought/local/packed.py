"""Linear layers whose weights lie in the order in which oneDNN multiplies few rows by them.

A step of a small batch reads every weight once and does little with it. The usual kernels rearrange a weight
for each product, which on a CPU takes two thirds of a step; weights that were rearranged once, beforehand, are
read at the pace of memory. torch's own compiler uses the same operators when it freezes a model.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["PackedLinear", "packable", "packing_works"]

_ROWS = 16
"""The rows that weights are packed for. One order serves all numbers of rows well; only that for 1 does not."""

_TYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """Does what a `torch.nn.Linear` does, on a packed copy of its weight.

    Args:
        linear: The layer; stays as it is.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # No parameter: the packed order is opaque, and nothing may move or save it. Models look at `weight`.
        self.__dict__["weight"] = linear.weight
        self._packed = _pack(linear.weight.detach())
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._made_of = _stamp(linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[..., in] -> [..., out]`."""
        return _product(x, self._packed, self._bias)

    def stale(self, linear: nn.Linear) -> bool:
        """Whether the layer's weight was changed or replaced since it was packed."""
        return self._made_of != _stamp(linear)


def packable(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers of a model that can be packed, with their names."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype in _TYPES:
            yield name, module


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operators and they give the right product."""
    try:
        weight, x = torch.randn(48, 32, dtype=dtype), torch.randn(3, 32, dtype=dtype)
        got = _product(x, _pack(weight), None)
    except Exception:
        return False
    return torch.allclose(got.float(), x.float() @ weight.float().t(), atol=1e-4 if dtype == torch.float32 else 0.3)


def _pack(weight: torch.Tensor) -> torch.Tensor:
    ops: Any = torch.ops.mkldnn
    packed: torch.Tensor = ops._reorder_linear_weight(weight.contiguous(), _ROWS)
    return packed


def _product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    ops: Any = torch.ops.mkldnn
    out: torch.Tensor = ops._linear_pointwise.default(x, packed, bias, "none", [], "")
    return out


def _stamp(linear: nn.Linear) -> tuple[int, ...]:
    """What changes when weight or bias are written to in place, or replaced."""
    return tuple(number for part in (linear.weight, linear.bias) if part is not None for number in _mark(part))


def _mark(tensor: torch.Tensor) -> tuple[int, int]:
    # Tensors made in inference mode count no versions.
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
