"""Linear layers with weights in the memory order of oneDNN's products of few rows.

A step of a small batch reads every weight once and does little with it. The usual kernels rearrange a weight for each
product, which takes two thirds of a step on a CPU. Weights that were rearranged once, beforehand, are read at the speed
of memory. torch's own compiler uses the same operators when it freezes a model.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from torch import nn

__all__ = ["PackedLinear", "PackedWeight", "packable_layers", "packing_fits_memory", "packing_works"]

logger = logging.getLogger(__name__)

_ROWS = 16
"""The number of rows that weights are packed for. The order for any number but 1 is fast for all numbers."""

_SHARE = 0.5
"""The share of free memory that packed copies of the weights may take."""

_TYPES = (torch.float32, torch.bfloat16)


class PackedWeight:
    """A packed weight `[out, in]`, with or without a bias `[out]`."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        ops: Any = torch.ops.mkldnn
        self._packed = ops._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self._bias = None if bias is None else bias.detach()
        self._product = ops._linear_pointwise.default
        self._product_and = ops._linear_pointwise.binary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[..., in] -> [..., out]`."""
        return self._product(x, self._packed, self._bias, "none", [], "")  # type: ignore[no-any-return]

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`."""
        return self._product_and(x, other, self._packed, self._bias, "add")  # type: ignore[no-any-return]


class PackedLinear(nn.Module):
    """A `torch.nn.Linear` on a packed copy of its weight.

    Args:
        linear: The layer; unchanged.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Not a parameter, so that nothing moves or saves it; but some models read their layers' `weight`.
        self.__dict__["weight"] = linear.weight
        self.__dict__["bias"] = linear.bias
        self._packed = PackedWeight(linear.weight, linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[..., in] -> [..., out]`."""
        return self._packed(x)


def packable_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers of a model that can be packed, with their names."""
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype in _TYPES:
            yield name, module


def packing_fits_memory(model: nn.Module) -> bool:
    """Whether a model has layers to pack, and the free memory holds packed copies beside the weights."""
    needed = sum(linear.weight.nbytes for _, linear in packable_layers(model))
    if needed > _SHARE * psutil.virtual_memory().available:
        logger.info("Not enough memory for packed copies of the weights (%d MB): the model runs unpacked", needed >> 20)
        return False
    return needed > 0


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operators, and their products are right."""
    try:
        weight, x, other = (torch.randn(*shape, dtype=dtype) for shape in ((48, 32), (3, 32), (3, 48)))
        packed, plain = PackedWeight(weight), x.float() @ weight.float().t()
        pairs = [(packed(x), plain), (packed.add(x, other), plain + other.float())]
    except Exception:
        return False
    slack = 1e-4 if dtype == torch.float32 else 0.5
    return all(torch.allclose(got.float(), wanted, atol=slack, rtol=slack / 10) for got, wanted in pairs)
