"""The time of a decoding step of the local engine, by kind of operation.

A `LocalEngine` decodes rows with a shared prefix, as in `benchmarks/engine.py`; some of its steps run under torch's
profiler. The own time of each operation counts as one of

    products     matrix products with weights
    attention    keys and values: attention itself, and merging its parts
    kept         writing new keys and values
    norms        root mean squares and divisions by them
    activation   SiLU and the products after it
    others       all other operations of torch
    between      the rest of the step: Python, and the dispatch of operations

The profiler itself takes time in and between operations, so the table shows `step` with and without it; shares are
those of the profiled steps. The profiler writes lines of its own to stderr.

    python benchmarks/step_profile.py --rows 1,8,16

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.batch import BatchedLane

_KINDS = {
    "products": ("linear_pointwise", "_linear", "addmm", "aten::mm", "aten::linear"),
    "attention": ("scaled_dot_product", "lerp", "sigmoid", "logaddexp", "aten::sub", "softmax", "logsumexp", "bmm"),
    "kept": ("aten::copy_",),
    "norms": ("vector_norm", "hypot", "aten::div", "rms_norm", "rsqrt", "aten::mean"),
    "activation": ("silu", "aten::mul"),
}


def kind_of(name: str) -> str:
    """The kind of an operation."""
    return next((kind for kind, parts in _KINDS.items() if any(part in name for part in parts)), "others")


class StepTimer:
    """Measures the steps of full batches: first without the profiler, then with it.

    Args:
        rows: Rows of a full batch.
        plain: Steps without the profiler.
        profiled: Steps with the profiler.
    """

    def __init__(self, rows: int, plain: int, profiled: int) -> None:
        self._rows, self._plain, self._profiled = rows, plain, profiled
        self.plain: list[float] = []
        self.profiled: list[float] = []
        self.seconds: dict[str, float] = dict.fromkeys([*_KINDS, "others"], 0.0)

    def step(self, lane: BatchedLane, original: Any) -> None:
        """Runs one step, measured if its batch is full."""
        full = len(lane.rows) == self._rows
        profiling = full and len(self.plain) == self._plain and len(self.profiled) < self._profiled
        if not full or (len(self.plain) == self._plain and not profiling):
            original(lane)
        elif not profiling:
            start = time.perf_counter()
            original(lane)
            self.plain.append(time.perf_counter() - start)
        else:
            with profile(activities=[ProfilerActivity.CPU]) as watch:
                start = time.perf_counter()
                original(lane)
                self.profiled.append(time.perf_counter() - start)
            for event in watch.key_averages():
                self.seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6


def measure(model: Any, tokenizer: Any, rows: int, prefix: int) -> dict[str, Any]:
    """The parts of a step, in milliseconds."""
    timer = StepTimer(rows, plain=20, profiled=10)
    original = BatchedLane.step
    BatchedLane.step = lambda lane: timer.step(lane, original)  # type: ignore[method-assign]
    try:
        with LocalEngine(model, tokenizer) as engine:
            shared = " ".join(["river"] * prefix)
            prompts = [f"{shared} {i} tail of the prompt" for i in range(rows)]
            engine.generate(prompts, max_new_tokens=40, ignore_eos=True)
            optimization = engine.optimization
    finally:
        BatchedLane.step = original  # type: ignore[method-assign]
    count = len(timer.profiled)
    parts = {kind: seconds / count * 1e3 for kind, seconds in timer.seconds.items()}
    step = sum(timer.profiled) / count * 1e3
    parts["between"] = max(0.0, step - sum(parts.values()))
    return {
        "rows": rows,
        "optimization": optimization,
        "step_ms": round(statistics.median(timer.plain) * 1e3, 1),
        "profiled_step_ms": round(step, 1),
        "parts_ms": {kind: round(value, 2) for kind, value in parts.items()},
        "share": {kind: round(value / step, 3) for kind, value in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1,8,16", help="rows decoded at once (default 1,8,16)")
    parser.add_argument("--prefix", type=int, default=250, help="tokens that all rows share (default 250)")
    parser.add_argument("--model", help="hub id, directory or GGUF file (default: the demo model)")
    args = parser.parse_args()
    with LocalEngine.from_pretrained(args.model) as loader:
        model, tokenizer = loader.model, loader.tokenizer
    runs = [measure(model, tokenizer, int(rows), args.prefix) for rows in args.rows.split(",")]
    kinds = list(runs[0]["share"])
    print(f"{'rows':>4}{'step ms':>9}{'profiled':>9}" + "".join(f"{kind:>12}" for kind in kinds))
    for run in runs:
        cells = "".join(f"{share:>12.1%}" for share in run["share"].values())
        print(f"{run['rows']:>4}{run['step_ms']:>9}{run['profiled_step_ms']:>9}{cells}")
    print(json.dumps({"benchmark": "step_profile", "torch_threads": torch.get_num_threads(), "runs": runs}))


if __name__ == "__main__":
    main()
