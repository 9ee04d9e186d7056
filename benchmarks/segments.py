"""The size from which on a shared prefix is better attended to in place than copied to every row.

Measured is the attention of one decoding step in float32, over all layers of a model with the given `--layers`,
`--heads`, `--kv-heads` and `--size` (by default those of the demo model). Rows are in groups, with a prefix per group
and `--own` tokens per row. Prefixes are segments in one run and copies in each row in the other. The runs take turns
and read other memory in between, like products with weights. Printed are, for each case, the bytes per layer that a
group does not copy, and the microseconds saved (or lost) per layer and group.

    python benchmarks/segments.py

The engine shares prefixes from the size on at which no time is lost. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from skeleton_of_thought.local.attention import attend
from skeleton_of_thought.local.kv import Segment

_CASES = ((4, 4), (8, 8), (16, 16), (16, 4), (24, 4))
_LENGTHS = (16, 64, 128, 250, 500, 1000)
_ELSEWHERE = 20_000_000


def interleaved(ways: Sequence[Callable[[int], object]], layers: int, repeats: int) -> list[float]:
    """The median seconds of each function over all layers."""
    elsewhere = torch.zeros(_ELSEWHERE)
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, took in zip(ways, seconds, strict=True):
            elsewhere.add_(1)
            start = time.perf_counter()
            for layer in range(layers):
                way(layer)
            took.append(time.perf_counter() - start)
    return [statistics.median(took) for took in seconds]


def case(rows: int, group: int, length: int, args: argparse.Namespace) -> dict[str, float]:
    """Measures rows in groups of this size, each with a prefix of this length, shared and copied."""
    heads, size = args.kv_heads, args.size

    def held(count: int, slots: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        slab = torch.randn(args.layers, 2, count, heads, slots, size)
        return [(keys, values) for keys, values in slab]

    query = torch.randn(rows, args.heads, 1, size)
    own, whole = held(rows, args.own), held(rows, args.own + length)
    # Rows of different lengths have a mask.
    own_bias, whole_bias = (torch.zeros(rows, 1, 1, slots) for slots in (args.own, args.own + length))
    segments = [
        Segment(held(1, length), None if group == rows else slice(first, first + group))
        for first in range(0, rows, group)
    ]
    scale = size**-0.5
    shared, copied = interleaved(
        [
            lambda layer: attend(query, *own[layer], segments, layer, bias=own_bias, scale=scale),
            lambda layer: attend(query, *whole[layer], [], layer, bias=whole_bias, scale=scale),
        ],
        args.layers,
        args.repeats,
    )
    return {
        "rows": rows,
        "group": group,
        "length": length,
        "bytes": (group - 1) * length * 2 * heads * size * 4,
        "saves_us": round((copied - shared) / args.layers / len(segments) * 1e6, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--heads", type=int, default=9)
    parser.add_argument("--kv-heads", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="values of a head (default 64)")
    parser.add_argument("--own", type=int, default=80, help="tokens of each row after its prefix (default 80)")
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    torch.manual_seed(0)
    cases = []
    print(f"{'rows':>5}{'group':>6}{'length':>7}{'bytes':>11}{'saves us':>10}")
    with torch.inference_mode():
        for rows, group in _CASES:
            for length in _LENGTHS:
                cases.append(one := case(rows, group, length, args))
                print(f"{rows:>5}{group:>6}{length:>7}{one['bytes']:>11}{one['saves_us']:>10.1f}", flush=True)
    print(json.dumps({"benchmark": "segments", "torch_threads": torch.get_num_threads(), "cases": cases}))


if __name__ == "__main__":
    main()
