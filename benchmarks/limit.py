"""The machine's limit: its rates of reading memory and multiplying, and the least time of a decoding step.

A step has to read every weight once, and the keys and values of all rows, those of a shared prefix once. It also has to
do its multiplications. At the measured rates it takes at least the longer of both times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Machine", "Probe", "Shape"]

_GEMM = 1024
_REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """The measured rates.

    Attributes:
        bandwidth: Bytes read per second.
        rate: Floating-point operations per second.
    """

    bandwidth: float
    rate: float

    @classmethod
    def median(cls, machines: Sequence[Machine]) -> Machine:
        """The median of each rate."""
        return cls(
            statistics.median(machine.bandwidth for machine in machines),
            statistics.median(machine.rate for machine in machines),
        )


@dataclass(frozen=True)
class Shape:
    """The costs of a decoding step.

    Attributes:
        weights: Parameters that a step reads: all but the tables of input embeddings.
        itemsize: Bytes of one parameter, and of one key or value.
        kv_values: Keys and values of one token, over all layers.
        attention: Operations of one new token for each token that it attends to.
    """

    weights: int
    itemsize: int
    kv_values: int
    attention: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """The shape of a Hugging Face model, without regard to attention windows and unused experts."""
        config = model.config.get_text_config(decoder=True)
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        layers = config.num_hidden_layers
        head = model.get_output_embeddings().weight
        looked_up = sum(
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, torch.nn.Embedding) and module.weight is not head
        )
        # `parameters` yields a tied parameter once.
        weights = sum(parameter.numel() for parameter in model.parameters()) - looked_up
        return cls(weights, head.element_size(), 2 * layers * kv_heads * width, 4 * layers * heads * width)

    def step_bytes(self, prefix: int, own: Sequence[float]) -> float:
        """The bytes that a step reads: every weight, and all keys and values, those of the shared prefix once.

        Args:
            prefix: Tokens that all rows share.
            own: The other tokens of each row, including its new tokens.
        """
        return self.itemsize * (self.weights + (prefix + sum(own)) * self.kv_values)

    def step_flops(self, prefix: int, own: Sequence[float]) -> float:
        """The operations of a step, in which every row attends to the whole prefix. Arguments as in `step_bytes`."""
        return 2.0 * self.weights * len(own) + self.attention * (len(own) * prefix + sum(own))

    def step_seconds(self, machine: Machine, *, prefix: int, tails: Sequence[int], tokens: int) -> tuple[float, str]:
        """The least seconds of a step, as a mean over all steps, and the limiting factor: `bytes` or `flops`.

        Args:
            machine: The rates.
            prefix: Tokens that all rows share.
            tails: The other tokens of each row's prompt.
            tokens: New tokens of each row after the last step.
        """
        own = [tail + tokens / 2 for tail in tails]
        reading = self.step_bytes(prefix, own) / machine.bandwidth
        computing = self.step_flops(prefix, own) / machine.rate
        return max((reading, "bytes"), (computing, "flops"))


class Probe:
    """Measures the machine with each call.

    Args:
        numbers: The count of numbers to read: that of the model's weights, so that no cache holds them.
        like: A tensor of the measured type on the measured device.
    """

    def __init__(self, numbers: int, like: torch.Tensor) -> None:
        self._data = torch.ones(numbers, dtype=like.dtype, device=like.device)
        self._factors = torch.ones(2, _GEMM, _GEMM, dtype=like.dtype, device=like.device)

    def __call__(self) -> Machine:
        """The rates now, medians over a few repeats of each."""
        a, b = self._factors
        reading = self._median(self._data.sum)
        computing = self._median(lambda: a @ b)
        return Machine(self._data.nbytes / reading, 2 * _GEMM**3 / computing)

    def _median(self, work: Callable[[], torch.Tensor]) -> float:
        times = []
        for _ in range(_REPEATS + 1):
            start = time.perf_counter()
            # Reading one number waits for an asynchronous device.
            work().flatten()[0].item()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])
