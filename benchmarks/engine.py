"""The local engine's decoding speed on prompts with a common prefix, against other methods and the machine's limit.

Everything is measured in one run on one machine: greedy, exactly `--tokens` new tokens for every row, prompts of exact
lengths. For each number of rows, length of the shared prefix and kind of tails (`equal`: 15 tokens each, `mixed`: 5 to
60), these columns decode the same prompts:

    sequential  `model.generate`, one row after another; measured on 2 rows, since all rows take the same time
    threads     one `model.generate` per thread, all on one model
    padded      one left-padded `model.generate`
    continuous  transformers' own continuous batching, with block sharing
    llama.cpp   its server (xllamacpp), started here with the same weights in float32, and with its default of
                float16 for keys and values
    vllm        a server that is running at `--vllm URL` with the same model (see docs/servers.md)
    engine      `LocalEngine.generate`, with `prefix_cache_tokens=0`, so that no run reuses another one's prefix
    copied      the same engine, but with the shared prefix copied to every row; measured at the longest prefix
                with `--copied-rows` rows only
    engine bf16, engine f16, llama.cpp f16
                the engine and llama.cpp's server with the weights rounded to bfloat16 or float16, as checkpoints
                that were saved in these types have them

The first table of each prefix shows tokens per second, including the time for the prompts. The second shows the
milliseconds of one decoding step while all rows decode. The limit of a step is the longer of two times: the bytes of
the weights and of all keys and values, a shared prefix counted once, over the rate of reading memory; and the
operations over the rate of a 1024 x 1024 x 1024 product. Both rates are measured between the columns of each repeat.

Every repeat has new prompts from their first word on, so that no server's cache makes it faster than the first. The
order of the columns rotates from repeat to repeat. Figures are medians; a column that took longer than `--patience`
seconds is not repeated. The last figure compares a whole answer by the engine (a skeleton of 40 tokens, then 8 points
of 64) with normal decoding of the same number of tokens.

    python benchmarks/engine.py                                       # a few minutes
    python benchmarks/engine.py --rows 1,4,8,16,32 --prefixes 250,1000,4000 --tails equal,mixed      # hours
    python benchmarks/engine.py --rows 8,16 --columns padded,engine --answers 0

Columns that cannot run are listed with the reason. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import inspect
import json
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import columns as ways
import servers
import torch
from answer import measure_answers
from cells import Cell, Measured, measure, show
from columns import Column
from limit import Probe, Shape
from workload import TAILS, Workload, longest_tail

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.models import demo_model_path, load_model

_HALVES = {"engine bf16": torch.bfloat16, "engine f16": torch.float16}
COLUMNS = (
    *("sequential", "threads", "padded", "continuous", "llama.cpp", "vllm", "engine", "copied"),
    *("llama.cpp f16", *_HALVES),
)
_ANSWER = {"skeleton_tokens": 40, "points": 8, "point_tokens": 64}


class _Missing(Exception):
    """The reason why a column cannot run, in one line."""


class Bench:
    """The model and its columns. Engines and servers end with the `with` block.

    Attributes:
        columns: The columns that can run.
        skipped: The reasons why the others cannot.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.model, self.tokenizer = load_model(args.model)
        self.columns: dict[str, Column] = {}
        self.skipped: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            self._stack = stack
            for name in self.args.columns:
                try:
                    self.columns[name] = self._open(name)
                except (_Missing, servers.ServerError, ImportError) as reason:
                    self.skipped[name] = str(reason)
                    print(f"{name} skipped: {reason}", flush=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, name: str) -> Column:
        match name:
            case "engine":
                return self._engine()
            case "copied":
                if "share_prefix" not in inspect.signature(LocalEngine.__init__).parameters:
                    raise _Missing("this LocalEngine has no setting share_prefix")
                return self._engine(share_prefix=False)
            case "llama.cpp" | "llama.cpp f16":
                return self._llama_cpp("float16" if name.endswith("f16") else "float32")
            case "engine bf16" | "engine f16":
                return self._engine(copy.deepcopy(self.model).to(_HALVES[name]))
            case "vllm":
                if self.args.vllm is None:
                    raise _Missing("it needs the address of a server (--vllm URL)")
                return ways.served(self.args.vllm, servers.served_model(self.args.vllm))
        pads = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        column: Column = getattr(ways, name)(self.model, next(pad for pad in pads if pad is not None))
        return column

    def _engine(self, model: Any = None, **settings: Any) -> Column:
        rows = max(*self.args.rows, self.args.copied_rows)
        settings |= {"max_batch_size": rows, "prefix_cache_tokens": 0}
        engine = LocalEngine(self.model if model is None else model, self.tokenizer, **settings)
        return ways.with_engine(self._stack.enter_context(engine))

    def _llama_cpp(self, dtype: str) -> Column:
        if importlib.util.find_spec("xllamacpp") is None:
            raise _Missing("xllamacpp is not installed (pip install xllamacpp)")
        source = demo_model_path() if self.args.model in (None, "demo") else Path(self.args.model)
        if source.suffix != ".gguf":
            raise _Missing("its server needs a GGUF file (--model FILE.gguf)")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        servers.write_weights(source, folder / "weights.gguf", dtype)
        server = servers.llama_cpp(
            folder / "weights.gguf",
            slots=max(self.args.rows),
            context=max(self.args.prefixes) + longest_tail() + self.args.tokens,
            threads=torch.get_num_threads(),
            log=folder / "log",
        )
        return ways.served(self._stack.enter_context(server), "model")


def cells(args: argparse.Namespace, open_columns: Collection[str]) -> Iterator[list[Cell]]:
    """The cells of the tables, in groups that are shown together."""
    everywhere = tuple(name for name in args.columns if name != "copied")
    for prefix in args.prefixes:
        for tails in args.tails:
            yield [Cell(rows, prefix, tails, everywhere) for rows in args.rows]
    if "copied" in open_columns:
        yield [Cell(args.copied_rows, max(args.prefixes), "equal", ("engine", "copied"))]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers, names = _listed(int), _listed(str)
    parser.add_argument("--rows", type=numbers, default=[1, 8], help="rows decoded at once (default 1,8)")
    parser.add_argument("--prefixes", type=numbers, default=[250], help="tokens that all rows share (default 250)")
    parser.add_argument("--tails", type=names, default=["equal"], help="equal, mixed or both (default equal)")
    parser.add_argument("--columns", type=names, default=list(COLUMNS), help="columns to measure (default all)")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens for each row (default 64)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each column (default 3)")
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds after which a column is not repeated (default 60)"
    )
    parser.add_argument("--model", help="hub id, directory or GGUF file (default: the demo model)")
    parser.add_argument("--vllm", metavar="URL", help="address of a running vLLM server with the same model")
    parser.add_argument("--copied-rows", type=int, default=10, help="rows for the column `copied` (default 10)")
    parser.add_argument("--answers", type=int, default=1, help="whole answers to measure; 0 for none (default 1)")
    args = parser.parse_args()
    for option, known in (("columns", COLUMNS), ("tails", TAILS)):
        if unknown := set(getattr(args, option)) - set(known):
            parser.error(f"--{option} takes {', '.join(known)}, not {', '.join(sorted(unknown))}")
    if min(*args.rows, *args.prefixes, args.tokens, args.repeats, args.copied_rows) < 1:
        parser.error("--rows, --prefixes, --tokens, --repeats and --copied-rows must be at least 1")
    return args


def answers(bench: Bench, count: int) -> dict[str, Any]:
    """The figures of whole answers, or the reason why there are none."""
    if count < 1:
        return {"skipped": "switched off (--answers 0)"}
    try:
        with LocalEngine(bench.model, bench.tokenizer) as engine:
            return measure_answers(engine, answers=count, **_ANSWER)
    except Exception as error:
        # A model without a chat template, or with too short a window, must not cost the tables above.
        return {"skipped": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _listed(kind: type) -> Any:
    return lambda text: [kind(part) for part in text.split(",")]


def main() -> None:
    args = arguments()
    measured: list[Measured] = []
    with Bench(args) as bench:
        shape = Shape.of(bench.model)
        common: dict[str, Any] = {
            "columns": bench.columns,
            "workload": Workload(bench.tokenizer),
            "shape": shape,
            "probe": Probe(shape.weights, bench.model.get_output_embeddings().weight),
        }
        counts = {"tokens": args.tokens, "repeats": args.repeats, "patience": args.patience}
        warm = Cell(min(args.rows), min(args.prefixes), "equal", tuple(args.columns))
        print("Each column once, as a warm-up:")
        measure(warm, **common, **counts | {"tokens": 4, "repeats": 1})
        for group in cells(args, bench.columns):
            print()
            measured += (done := [measure(cell, **common, **counts) for cell in group])
            show(done)
        answer = answers(bench, args.answers)
    print(f"\nwhole answer: {answer}")
    for name, reason in bench.skipped.items():
        print(f"{name} skipped: {reason}")
    result = {"benchmark": "engine", "model": args.model or "demo", "dtype": str(bench.model.dtype), **counts}
    result |= {"torch_threads": torch.get_num_threads(), "cells": [cell.as_dict() for cell in measured]}
    print(json.dumps(result | {"skipped": bench.skipped, "answer": answer}))


if __name__ == "__main__":
    main()
