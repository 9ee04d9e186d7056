"""Products with weights on CPUs, and weights in the memory order of the fastest ones.

A step of a small batch reads every weight once and does little with it. The usual kernels rearrange a weight for each
product, which takes two thirds of a step on a CPU. These read it at the speed of memory, or near it:

    PackedWeight    oneDNN, in float32 or bfloat16; the weight was rearranged once, beforehand. torch's own compiler
                    uses the same operators when it freezes a model.
    SplitWeight     a plain float32 weight and a single row. The library's product of a matrix and a vector uses its
                    threads badly; a batch of products with parts of the weight gives each thread its own part.
    HalfWeight      fbgemm: a weight in float16, which is widened in registers; all sums are in float32.
    RoundedWeight   oneDNN, in bfloat16: rounds its input and its results to bfloat16, and sums in float32.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import psutil
import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "HalfWeight",
    "PackedLinear",
    "PackedWeight",
    "Product",
    "RoundedWeight",
    "SplitWeight",
    "compiled_rows",
    "halves_work",
    "multiplies_bfloat16",
    "packable_layers",
    "packing_fits_memory",
    "packing_works",
    "splitting_works",
]

logger = logging.getLogger(__name__)

_ROWS = 16
"""The number of rows that weights are packed for. The order for any number but 1 is fast for all numbers."""

_SHARE = 0.5
"""The share of free memory that packed copies of the weights may take."""

_TYPES = (torch.float32, torch.bfloat16, torch.float16)

_EXACT = 16
"""The most rows for which products are compiled for each number."""

_LEAST_SPLIT = 1 << 16
"""The values of a weight from which threads share its product."""

_SMALL_PARTS = 64
"""The most parts of a split weight."""


class Product(Protocol):
    """A weight `[out, in]` to multiply by, with or without a bias `[out]`."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[rows, in] -> [rows, out]`."""

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`."""


class PackedWeight:
    """A packed weight `[out, in]`, with or without a bias `[out]`.

    oneDNN compiles a product for each number of rows, which takes milliseconds and hundreds of kilobytes, and never
    frees some of the code. Therefore rows of zeros fill the input up to one of a few numbers (`compiled_rows`).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        ops: Any = torch.ops.mkldnn
        self._packed = ops._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self._bias = None if bias is None else bias.detach()
        self._product = ops._linear_pointwise.default
        self._product_and = ops._linear_pointwise.binary

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[..., in] -> [..., out]`."""
        rows = x.numel() // x.shape[-1]
        if more := compiled_rows(rows) - rows:
            full = functional.pad(x.reshape(rows, -1), (0, 0, 0, more))
            out: torch.Tensor = self._product(full, self._packed, self._bias, "none", [], "")
            return out[:rows].view(*x.shape[:-1], -1)
        return self._product(x, self._packed, self._bias, "none", [], "")  # type: ignore[no-any-return]

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`, `[rows, in] -> [rows, out]`."""
        if more := compiled_rows(len(x)) - len(x):
            full, others = (functional.pad(part, (0, 0, 0, more)) for part in (x, other))
            return self._product_and(full, others, self._packed, self._bias, "add")[: len(x)]  # type: ignore[no-any-return]
        return self._product_and(x, other, self._packed, self._bias, "add")  # type: ignore[no-any-return]


def compiled_rows(rows: int) -> int:
    """The number of rows, at least this one, that a product is compiled for: 4 to 8 numbers between powers of two.

    Steps of small batches run as they are; others have a fifth more rows at most, and an eighth from 32 rows on.
    """
    by = 1 if rows <= _EXACT else max(4, 1 << (rows.bit_length() - 4))
    return -(-rows // by) * by


class SplitWeight:
    """Plain weights in float32, one below the other, for a single row. It holds views of them, no copies.

    Args:
        weights: `[out, in]` each.
        bias: For all outputs together.
    """

    def __init__(self, *weights: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        threads = torch.get_num_threads()
        parts = [_parts(weight, threads) for weight in weights]
        self._weights = [
            weight.detach().reshape(count, -1, weight.shape[1]) for weight, count in zip(weights, parts, strict=True)
        ]
        self._bias = None if bias is None else bias.detach()[None]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[1, in] -> [1, out]`."""
        outs = [torch.bmm(weight, self._columns(x, weight)).view(1, -1) for weight in self._weights]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, 1)
        return out if self._bias is None else out.add_(self._bias)

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`; for one weight only."""
        (weight,) = self._weights
        out = torch.baddbmm(other.view(*weight.shape[:2], 1), weight, self._columns(x, weight)).view(1, -1)
        return out if self._bias is None else out.add_(self._bias)

    @staticmethod
    def _columns(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        # The strides decide between the library's kernels: those of a transposed row are five times as fast.
        size = x.shape[1]
        return x.as_strided((len(weight), size, 1), (0, 1, size))


def _parts(weight: torch.Tensor, threads: int) -> int:
    """The number of equal parts of a weight: one a thread, or else enough to share them evenly; 1 for a small one."""
    rows = len(weight)
    if weight.numel() < _LEAST_SPLIT:
        return 1  # threads would wait for each other longer than the product takes
    if rows % threads == 0:
        return threads
    return max(count for count in range(1, _SMALL_PARTS + 1) if rows % count == 0)


class HalfWeight:
    """A copy of a weight in float16, for inputs and results in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        ops: Any = torch.ops.quantized
        full = weight.detach().to(torch.float32).contiguous()
        self._packed = ops.linear_prepack_fp16(full, None if bias is None else bias.detach().to(torch.float32))
        self._product: Callable[..., torch.Tensor] = ops.linear_dynamic_fp16.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[rows, in] -> [rows, out]`."""
        return self._product(x, self._packed)

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`."""
        return self._product(x, self._packed).add_(other)


class RoundedWeight:
    """A packed copy of a weight in bfloat16, for inputs and results in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._packed = PackedWeight(weight, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias`, `[rows, in] -> [rows, out]`."""
        return self._packed(x.to(torch.bfloat16)).float()

    def add(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """`x @ weight.T + bias + other`."""
        return other + self._packed(x.to(torch.bfloat16))


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


def packing_fits_memory(model: nn.Module, copies: int = 1) -> bool:
    """Whether a model has layers to pack, and the free memory holds so many packed copies beside the weights."""
    needed = copies * sum(linear.weight.nbytes for _, linear in packable_layers(model))
    if needed > _SHARE * psutil.virtual_memory().available:
        logger.info("Not enough memory for packed copies of the weights (%d MB): the model runs unpacked", needed >> 20)
        return False
    return needed > 0


def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's products with packed weights, and they are right."""
    return _works(PackedWeight, dtype)


def halves_work() -> bool:
    """Whether this build of torch has fbgemm's products with float16 weights, and they are right."""
    # A program can choose another library for quantised products at any time.
    return _works(HalfWeight, torch.float32, torch.backends.quantized.engine)


def splitting_works() -> bool:
    """Whether split weights are right, and fast: by MKL, the only library with threads across a batch of products."""
    mkl: Any = torch.backends.mkl
    return mkl.is_available() and _works(SplitWeight, torch.float32)


def multiplies_bfloat16() -> bool:
    """Whether the processor has products in bfloat16; others widen each number first."""
    find = getattr(torch.cpu, "get_capabilities", None)
    # Older versions of torch do not tell.
    has = {"bf16": True} if find is None else find()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@functools.cache
def _works(kind: Callable[..., Product], dtype: torch.dtype, *_: object) -> bool:
    slack = 0.5 if dtype == torch.bfloat16 else 1e-2 if kind is HalfWeight or dtype == torch.float16 else 1e-4
    try:
        rows = 1 if kind is SplitWeight else 3
        weight, x, other = (torch.randn(*shape, dtype=dtype) for shape in ((48, 32), (rows, 32), (rows, 48)))
        product, plain = kind(weight), x.float() @ weight.float().t()
        pairs = [(product(x), plain), (product.add(x, other), plain + other.float())]
    except Exception:
        return False
    return all(torch.allclose(got.float(), wanted, atol=slack, rtol=slack / 10) for got, wanted in pairs)
