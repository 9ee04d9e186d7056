"""The options of libraries for faster decoding steps on a CPU, against the engine's choice.

All run forward passes of one new token per row, with the same float32 weights and the same `--prefix` tokens before:

    eager, sdpa        transformers with this implementation of attention, a `DynamicCache`
    compiled           `torch.compile` of the model over a `StaticCache`; it needs a C++ compiler
    bfloat16           the model in bfloat16
    int8, float16      torch's dynamic quantisation of all linear layers (fbgemm): weights of 8 bits, or of 16
    torchao int8       torchao's weight-only quantisation, where it is installed
    packed, lean       the engine's own, float32: `LocalEngine(optimize=...)` picks the last that suits the model
    packed bfloat16,
    lean bfloat16,
    lean float16       the same with weights in these types

Each option has: the median milliseconds of a step for each number of rows, in turns with steps of `sdpa`, and the ratio
to those; the seconds of its first step, which may compile; and the largest distance of its logits from those of `sdpa`
in float32, as a share of the largest logit.

    python benchmarks/options.py --rows 1,8,16

Options that cannot run are listed with the reason. The last line is JSON.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from skeleton_of_thought.local.decoding_path import cache_argument
from skeleton_of_thought.local.kv import RowsCache
from skeleton_of_thought.local.models import load_model
from skeleton_of_thought.local.runner import ModelRunner, Optimize

Step = Callable[[torch.Tensor], torch.Tensor]
"""Runs the next token of every row, `[rows, 1]`; returns logits, `[rows, vocabulary]`."""
Option = Callable[[Any, torch.Tensor, int], Step]
"""Takes a float32 model, the rows' first tokens `[rows, prefix]` and the number of steps; runs the first tokens."""


def transformers_step(model: Any, first: torch.Tensor, steps: int) -> Step:
    """Forward passes of transformers over its growing cache."""
    cache = {str(cache_argument(model)): DynamicCache(config=model.config)}
    model(input_ids=first, **cache, logits_to_keep=1)
    return lambda ids: model(input_ids=ids, **cache, logits_to_keep=1).logits[:, -1]


def with_attention(name: str) -> Option:
    """Transformers with an implementation of attention."""

    def option(model: Any, first: torch.Tensor, steps: int) -> Step:
        changed = copy.deepcopy(model)
        changed.set_attn_implementation(name)
        return transformers_step(changed, first, steps)

    return option


def compiled(model: Any, first: torch.Tensor, steps: int) -> Step:
    """`torch.compile` over a cache of constant shapes."""
    cache = {str(cache_argument(model)): StaticCache(config=model.config, max_cache_len=first.shape[1] + steps)}
    model(input_ids=first, **cache, logits_to_keep=1)
    forward = torch.compile(model.forward, dynamic=False)
    at = first.shape[1]

    def step(ids: torch.Tensor) -> torch.Tensor:
        nonlocal at
        positions = torch.full(ids.shape, at)
        at += 1
        out = forward(input_ids=ids, **cache, position_ids=positions, logits_to_keep=1)
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    return step


def cast(model: Any, first: torch.Tensor, steps: int) -> Step:
    """The model in bfloat16."""
    return transformers_step(copy.deepcopy(model).to(torch.bfloat16), first, steps)


def quantised(dtype: torch.dtype) -> Option:
    """Torch's dynamic quantisation."""

    def option(model: Any, first: torch.Tensor, steps: int) -> Step:
        changed = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=dtype)
        return transformers_step(changed, first, steps)

    return option


def torchao_int8(model: Any, first: torch.Tensor, steps: int) -> Step:
    """Torchao's weight-only quantisation."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # type: ignore[import-not-found, unused-ignore]

    changed = copy.deepcopy(model)
    quantize_(changed, Int8WeightOnlyConfig())
    return transformers_step(changed, first, steps)


def ours(optimize: Optimize, dtype: torch.dtype = torch.float32) -> Option:
    """An optimization of the engine."""

    def option(model: Any, first: torch.Tensor, steps: int) -> Step:
        if dtype != torch.float32:
            model = copy.deepcopy(model).to(dtype)
        runner = ModelRunner(model, optimize)
        if runner.optimization != optimize:
            raise RuntimeError(f"this model runs with optimization {runner.optimization!r}")
        rows, at = first.shape
        cache = RowsCache(rows, at + steps)
        runner.forward(first, cache, torch.arange(at).expand(rows, -1))
        cache.advance(at)

        def step(ids: torch.Tensor) -> torch.Tensor:
            logits = runner.forward(ids, cache, torch.full(ids.shape, cache.width))
            cache.advance()
            return logits[:, -1]

        return step

    return option


WAYS: dict[str, Option] = {
    "eager": with_attention("eager"),
    "compiled": compiled,
    "bfloat16": cast,
    "int8": quantised(torch.qint8),
    "float16": quantised(torch.float16),
    "torchao int8": torchao_int8,
    "packed": ours("packed"),
    "lean": ours("lean"),
    "packed bfloat16": ours("packed", torch.bfloat16),
    "lean bfloat16": ours("lean", torch.bfloat16),
    "lean float16": ours("lean", torch.float16),
}


@dataclass
class Result:
    """One option with one number of rows.

    Attributes:
        step: Median seconds of a step.
        baseline: Median seconds of a step of `sdpa`.
        first: Seconds of the first step.
        error: The largest error of its logits, as a share of the largest logit.
    """

    step: float
    baseline: float
    first: float
    error: float


def measure(option: Option, model: Any, first: torch.Tensor, next_ids: torch.Tensor) -> Result:
    """Measures the steps of an option and of `sdpa` in turns."""
    steps = next_ids.shape[1]
    theirs, own = option(model, first, steps), transformers_step(model, first, steps)
    times: list[float] = []
    baseline: list[float] = []
    error = 0.0
    for at in range(steps):
        ids = next_ids[:, at : at + 1].contiguous()
        start = time.perf_counter()
        wanted = own(ids)
        middle = time.perf_counter()
        got = theirs(ids)
        times.append(time.perf_counter() - middle)
        baseline.append(middle - start)
        error = max(error, float((got.float() - wanted).abs().max() / wanted.abs().max()))
    return Result(statistics.median(times[2:]), statistics.median(baseline[2:]), times[0], error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="1,8,16", help="rows of a step (default 1,8,16)")
    parser.add_argument("--prefix", type=int, default=250, help="tokens before the new ones (default 250)")
    parser.add_argument("--steps", type=int, default=24, help="steps of each option (default 24)")
    parser.add_argument("--model", default="demo", help="hub id, directory or GGUF file (default: the demo model)")
    parser.add_argument("--ways", default=",".join(WAYS), help="options, separated by commas (default all)")
    args = parser.parse_args()
    if args.steps < 4:
        parser.error("--steps must be at least 4")
    unknown = set(args.ways.split(",")) - set(WAYS)
    if unknown:
        parser.error(f"unknown ways: {', '.join(sorted(unknown))}; known are {', '.join(WAYS)}")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    model, _ = load_model(args.model, dtype=torch.float32)
    model.set_attn_implementation("sdpa")
    torch.manual_seed(0)
    report: dict[str, Any] = {"rows": {}, "skipped": {}, "prefix": args.prefix, "steps": args.steps}
    print(f"{'rows':>4}  {'option':16} {'step, ms':>10} {'sdpa':>7} {'ratio':>6} {'first, s':>9} {'error':>8}")
    for rows in (int(part) for part in args.rows.split(",")):
        tokens = torch.randint(100, model.config.vocab_size, (rows, args.prefix + args.steps))
        first, next_ids = tokens[:, : args.prefix], tokens[:, args.prefix :]
        table = report["rows"][rows] = {}
        for name in args.ways.split(","):
            if name in report["skipped"]:
                continue
            try:
                with torch.inference_mode():
                    result = measure(WAYS[name], model, first, next_ids)
            except Exception as error:
                report["skipped"][name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.150}"
                print(f"{rows:>4}  {name:16} skipped: {report['skipped'][name]}", flush=True)
                continue
            finally:
                gc.collect()
            ratio = result.baseline / result.step
            table[name] = {
                "ms": round(result.step * 1e3, 1), "sdpa_ms": round(result.baseline * 1e3, 1),
                "ratio": round(ratio, 2), "first_s": round(result.first, 2), "error": float(f"{result.error:.2g}"),
            }  # fmt: skip
            print(
                f"{rows:>4}  {name:16} {result.step * 1e3:>10.1f} {result.baseline * 1e3:>7.1f} {ratio:>5.2f}x "
                f"{result.first:>9.2f} {result.error:>8.1e}",
                flush=True,
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
