"""Linear layers whose weights lie in the order in which oneDNN multiplies few rows by them.

A step of a small batch reads every weight once and does little with it. The usual kernels rearrange a weight
for each product, which on a CPU takes two thirds of a step; weights that were rearranged once, beforehand, are
read at the pace of memory. torch's own compiler uses the same operators when it freezes a model.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import psutil
import torch
from torch import nn

__all__ = ["PackedLinear", "PackedWeight", "fingerprint", "packable_layers", "packing_fits_memory", "packing_works"]

logger = logging.getLogger(__name__)

_ROWS = 16
"""The rows that weights are packed for. One order serves all numbers of rows well; only that for 1 does not."""

_SHARE = 0.5
"""The share of free memory that packed copies of the weights may take."""

_SAMPLES = 8
"""Values of each weight that are looked at for changes."""

_TYPES = (torch.float32, torch.bfloat16)


class PackedWeight:
    """A weight `[out, in]` and perhaps a bias `[out]`, as a product that takes what follows it along."""

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
    """Does what a `torch.nn.Linear` does, on a packed copy of its weight.

    Args:
        linear: The layer; stays as it is.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # No parameter: nothing may move or save it. But there are models that look at their layers' `weight`.
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
    """Whether there is something to pack, and memory for packed copies beside the weights themselves."""
    needed = sum(linear.weight.nbytes for _, linear in packable_layers(model))
    if needed > _SHARE * psutil.virtual_memory().available:
        logger.info("No memory for packed copies of the weights (%d MB): the model runs as it is", needed >> 20)
        return False
    return needed > 0


def fingerprint(parts: Iterable[torch.Tensor]) -> list[tuple[object, ...]]:
    """What changes when one of these tensors is written to in place, or replaced."""
    return [_fingerprint(part) for part in parts]


def _fingerprint(part: torch.Tensor) -> tuple[object, ...]:
    # Tensors made in inference mode count no versions, and neither do changes through `.data`: those show in a few
    # samples, unless they leave most of a weight as it was.
    version = 0 if part.is_inference() else part._version
    flat = part.detach().view(-1) if part.is_contiguous() else part.detach().flatten()
    samples = tuple(flat[:: max(1, part.numel() // _SAMPLES)].tolist()) if part.device.type == "cpu" else ()
    return part.data_ptr(), version, part.dtype, samples


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operators and they give the right products."""
    try:
        weight, x, other = (torch.randn(*shape, dtype=dtype) for shape in ((48, 32), (3, 32), (3, 48)))
        packed, plain = PackedWeight(weight), x.float() @ weight.float().t()
        pairs = [(packed(x), plain), (packed.add(x, other), plain + other.float())]
    except Exception:
        return False
    slack = 1e-4 if dtype == torch.float32 else 0.5
    return all(torch.allclose(got.float(), wanted, atol=slack, rtol=slack / 10) for got, wanted in pairs)
