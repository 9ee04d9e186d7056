"""The engine's decoding speed alone on the machine, and beside other busy processes.

OpenMP's threads, and those of llama.cpp, wait for each other many times in each step. A busy process costs more or less
depending on how they wait: a thread that spins takes the processor from the thread it waits for. Compared, in steps per
second:

    default      libgomp with its defaults: threads spin for milliseconds
    passive      OMP_WAIT_POLICY=passive: threads sleep at once
    spincount    our setting before torch is imported: threads spin for microseconds
                 (`skeleton_of_thought/local/openmp.py`)
    one thread   OMP_NUM_THREADS=1: no waiting, and no use of a second processor
    llama.cpp    its server (xllamacpp) with the same weights in float32, and its default polling (50 of 100)
    llama.cpp 0  the same without polling (`--poll 0`)

Libraries read these settings when they are loaded, so each method runs in a process of its own, `--rounds` times in
turns with the others. A figure is the median over rounds, without the first steps of each process.

    python benchmarks/contention.py --rows 1,8 --busy 0,1,2
    python benchmarks/contention.py --demo 10

With `--demo N` the comparison of the demo (`sot ask --compare`) runs N times beside the largest number of `--busy`
processes instead, and counts the runs with a speed-up at equal tokens above `--least`.

Nothing else should run at the same time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import servers

ENGINE: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spincount": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Environment variables of the engine's methods."""

LLAMA_CPP = {"llama.cpp": 50, "llama.cpp 0": 0}
"""The polling level of llama.cpp's threads, from 0 to 100."""

WAYS = (*ENGINE, *LLAMA_CPP)
_DECIDES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "KMP_LIBRARY")
_QUESTION = "How can I stay motivated at work?"

# Ends as soon as the process that started it has ended, for whatever reason.
_BUSY = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
while True: pass
"""


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Runs a number of processes that each keep a processor busy, for the length of a block."""
    running = [subprocess.Popen([sys.executable, "-c", _BUSY], stdin=subprocess.PIPE) for _ in range(processes)]
    try:
        time.sleep(0.5 if running else 0.0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


Steps = Callable[[int, int], float]
"""Decodes a number of rows for a number of steps; returns steps per second."""


def cells(measure: Steps, rows: Sequence[int], neighbours: Sequence[int], steps: int) -> Iterator[dict[str, Any]]:
    """Steps per second for each number of rows and of busy processes."""
    for count in rows:
        measure(count, min(steps, 8))
        for others in neighbours:
            with busy(others):
                yield {"rows": count, "busy": others, "steps_per_second": measure(count, steps)}


# --- one process ------------------------------------------------------------------------------------


def engine_steps(model: str | None, rows: int, plain: bool) -> Steps:
    """Measures the engine; `plain` imports torch before this project, so that OpenMP keeps its defaults."""
    if plain:
        import torch  # noqa: F401

    from skeleton_of_thought.local import LocalEngine

    engine = LocalEngine.from_pretrained(model, max_batch_size=rows, prefix_cache_tokens=0)

    def measure(count: int, steps: int) -> float:
        prompts = [f"{row} is a number with a long history." for row in range(count)]
        done = engine.generate(prompts, max_new_tokens=steps, ignore_eos=True)
        # The last row to join ran all its steps beside the others.
        shortest = min((completion.decoding for completion in done), key=lambda decoding: decoding.decode)
        return shortest.steps / max(shortest.decode, 1e-9)

    return measure


def served_steps(url: str) -> Steps:
    """Measures a server by the pieces of text of a row after the first piece."""

    def measure(count: int, steps: int) -> float:
        prompts = [[row + 100, *range(300, 310)] for row in range(count)]
        done = servers.complete(url, "model", prompts, steps)
        paces = [(len(row.times) - 1) / max(row.times[-1] - row.times[0], 1e-9) for row in done if len(row.times) > 1]
        return statistics.median(paces) if paces else 0.0

    return measure


def child(args: argparse.Namespace) -> None:
    """Measures one method; prints a line of JSON for each cell."""
    measure = engine_steps(args.model, max(args.rows), args.child == "default")
    for cell in cells(measure, args.rows, args.busy, args.steps):
        print(json.dumps(cell), flush=True)


def in_process(way: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One round of a method of the engine."""
    command = [sys.executable, __file__, "--child", way, "--steps", str(args.steps)]
    command += ["--rows", ",".join(map(str, args.rows)), "--busy", ",".join(map(str, args.busy))]
    command += ["--model", args.model] if args.model else []
    env = {name: value for name, value in os.environ.items() if name not in _DECIDES} | ENGINE[way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def on_a_server(way: str, args: argparse.Namespace, weights: Path) -> list[dict[str, Any]]:
    """One round of a method of llama.cpp."""
    with servers.llama_cpp(
        weights,
        slots=max(args.rows),
        context=64 + args.steps,
        threads=args.threads,
        log=weights.parent / "log",
        poll=LLAMA_CPP[way],
    ) as url:
        return list(cells(served_steps(url), args.rows, args.busy, args.steps))


# --- all of them ------------------------------------------------------------------------------------


@contextlib.contextmanager
def float32(model: str | None) -> Iterator[Path | str]:
    """Yields the model's file for llama.cpp in float32, or the reason why there is none."""
    if importlib.util.find_spec("xllamacpp") is None:
        yield "xllamacpp is not installed (pip install xllamacpp)"
        return
    from skeleton_of_thought.local.models import demo_model_path

    source = Path(model) if model not in (None, "demo") else demo_model_path()
    if source.suffix != ".gguf":
        yield "its server needs a GGUF file (--model FILE.gguf)"
        return
    with tempfile.TemporaryDirectory() as folder:
        servers.write_weights(source, Path(folder) / "float32.gguf")
        yield Path(folder) / "float32.gguf"


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Runs every method `--rounds` times, in turns."""
    found: dict[tuple[str, int, int], list[float]] = {}
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        weights: Path | str = "not asked for"
        if set(args.ways) & LLAMA_CPP.keys():
            weights = stack.enter_context(float32(args.model))
        for turn in range(args.rounds):
            # The order rotates, so that a machine that slows down favours none.
            order = args.ways[turn % len(args.ways) :] + args.ways[: turn % len(args.ways)]
            for way in order:
                if way in ENGINE:
                    round_cells = in_process(way, args)
                elif isinstance(weights, Path):
                    round_cells = on_a_server(way, args, weights)
                else:
                    skipped[way] = weights
                    continue
                for cell in round_cells:
                    found.setdefault((way, cell["rows"], cell["busy"]), []).append(cell["steps_per_second"])
                print(f"round {turn + 1}: {way}", file=sys.stderr)
    figures = [
        {"way": way, "rows": rows, "busy": others, "steps_per_second": round(statistics.median(paces), 2)}
        for (way, rows, others), paces in found.items()
    ]
    return {"cells": figures, "skipped": skipped, "rounds": args.rounds, "steps": args.steps}


def show(result: dict[str, Any]) -> None:
    """Prints the figures as a table with a line for each method."""
    places = sorted({(cell["busy"], cell["rows"]) for cell in result["cells"]})
    by_place = {(cell["way"], cell["busy"], cell["rows"]): cell["steps_per_second"] for cell in result["cells"]}
    print("steps per second".ljust(18) + "".join(f"{others} busy, {rows} rows".rjust(18) for others, rows in places))
    for way in dict.fromkeys(cell["way"] for cell in result["cells"]):
        line = (f"{by_place[way, others, rows]:.1f}".rjust(18) for others, rows in places)
        print(way.ljust(18) + "".join(line))
    for way, why in result["skipped"].items():
        print(f"{way}: {why}")


def demo(args: argparse.Namespace) -> dict[str, Any]:
    """Repeats the demo's comparison beside busy processes."""
    command = [sys.executable, "-m", "skeleton_of_thought", "ask", "--compare", "--json", "--words", str(args.words)]
    command += ["--model", args.model] if args.model else []
    env = {name: value for name, value in os.environ.items() if name not in _DECIDES}
    ratios: list[float] = []
    for turn in range(args.demo):
        with busy(max(args.busy)):
            done = subprocess.run([*command, args.question], stdout=subprocess.PIPE, text=True, env=env, check=True)
        speedup = json.loads(done.stdout.splitlines()[-1])["compare"]["speedup"]
        # Normal decoding may end early, so the speed-up is that at equal tokens.
        ratios.append(round(speedup["per_token"], 2))
        print(f"run {turn + 1}: {ratios[-1]:.2f}x", file=sys.stderr)
    above = sum(ratio > args.least for ratio in ratios)
    print(f"beside {max(args.busy)} busy: above {args.least:g}x in {above} of {len(ratios)} runs, {sorted(ratios)}")
    return {
        "demo": {"ratios": ratios, "above": above, "runs": len(ratios), "least": args.least, "busy": max(args.busy)}
    }


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in WAYS]:
        raise argparse.ArgumentTypeError(f"no such way: {', '.join(unknown)}; there are {', '.join(WAYS)}")
    return names


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as for `sot ask` (default: the demo model)")
    parser.add_argument("--ways", type=_names, default=list(WAYS), help="methods, separated by commas (default all)")
    parser.add_argument("--rows", type=_numbers, default=[1, 8], help="rows at once (default 1,8)")
    parser.add_argument("--busy", type=_numbers, default=[0, 1], help="other busy processes (default 0,1)")
    parser.add_argument("--steps", type=int, default=100, help="steps for each figure (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of llama.cpp (default all)")
    parser.add_argument("--demo", type=int, metavar="N", help="run the demo's comparison N times instead")
    parser.add_argument("--least", type=float, default=2.0, help="the speed-up that counts (default 2)")
    parser.add_argument("--question", default=_QUESTION, help="question of the demo")
    parser.add_argument("--words", type=int, default=100, help="per point in the demo (default 100)")
    parser.add_argument("--child", choices=list(ENGINE), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    if args.child:
        child(args)
        return
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors", file=sys.stderr)
    if args.demo:
        result = demo(args)
    else:
        result = measured(args)
        show(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
