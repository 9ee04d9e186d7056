"""One query of several points over a stock `HuggingFaceLLM`: LlamaIndex alone, two recipes, and the query engine.

All methods decode greedily with the same model, number of tokens and machine:

    stock          LlamaIndex's own engine: one answer of as many tokens as all points together
    acomplete      a common recipe: the skeleton, then `asyncio.gather` of `acomplete` for all points
    sub-questions  a query engine for each point, run like those of `SubQuestionQueryEngine` (`run_async_tasks`)
    ours           `SkeletonOfThoughtQueryEngine` over the same object, with its defaults
    ours, thread   the same without adopting the model (`concurrency="thread"`)

All calls, also the skeleton's, write exactly `--point-tokens` tokens, so the methods do not differ in the length of
their texts. The skeleton is a list that the prompt already contains. Each method runs in a process of its own, because
of its peak memory; the methods take turns, `--repeats` times.

    seconds     the median time of the query, without loading the model, and the ratio to `stock`
    generate    calls of `model.generate`
    steps       decoding steps: forward passes of the model after its prompts
    peak MB     the peak memory of the process (resident set), and the part of it that the query added

    python benchmarks/llama_index.py

Needs `llama-index-llms-huggingface` and the demo model. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# This file has the name of a package that it imports, and Python searches its folder first.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

TITLES = (
    "Plan the week",
    "Sleep enough",
    "Walk every day",
    "Cook at home",
    "Call a friend",
    "Read a book",
    "Drink water",
    "Rest on Sunday",
)
QUESTION = "What makes a good week?"
_POINT = "{query_str}\n\nHeadings: {titles}\n\nA few sentences about: {title}\n\n"
WAYS = ("stock", "acomplete", "sub-questions", "ours", "ours, thread")


def skeleton_template(points: int) -> str:
    """A prompt that already contains its skeleton, so that every model writes the same one."""
    listed = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES[:points], 1))
    return f"{{query_str}}\n\nThe list:\n{listed}\n\nThe same list, copied:\n"


def load(args: argparse.Namespace, tokens: int) -> Any:
    """The stock object over the demo model, with a fixed number of tokens per call."""
    from llama_index.llms.huggingface import HuggingFaceLLM

    from skeleton_of_thought.local.models import load_model

    loaded = load_model(args.model)
    return HuggingFaceLLM(
        model=loaded[0],
        tokenizer=loaded[1],
        max_new_tokens=tokens,
        generate_kwargs={"do_sample": False, "min_new_tokens": tokens},
    )


# --- the methods ---


def stock(llm: Any, args: argparse.Namespace) -> str:
    """LlamaIndex's own engine, over one page without content."""
    from llama_index.core import Document, SummaryIndex

    engine = SummaryIndex.from_documents([Document(text="A week has seven days.")]).as_query_engine(llm=llm)
    return str(engine.query(QUESTION))


def _point_prompts(skeleton: str, args: argparse.Namespace) -> list[str]:
    from skeleton_of_thought import parse_skeleton

    titles = parse_skeleton(skeleton, args.points).titles
    return [_POINT.format(query_str=QUESTION, titles="; ".join(titles), title=title) for title in titles]


def acomplete(llm: Any, args: argparse.Namespace) -> list[str]:
    """The recipe: `acomplete` of all points under `asyncio.gather`."""

    async def answer() -> list[str]:
        skeleton = await llm.acomplete(skeleton_template(args.points).format(query_str=QUESTION))
        points = await asyncio.gather(*map(llm.acomplete, _point_prompts(skeleton.text, args)))
        return [point.text for point in points]

    return asyncio.run(answer())


def sub_questions(llm: Any, args: argparse.Namespace) -> list[str]:
    """A query engine per point, run like those of `SubQuestionQueryEngine`."""
    from llama_index.core.async_utils import run_async_tasks
    from llama_index.core.query_engine import CustomQueryEngine

    class Completes(CustomQueryEngine):
        """Completes the query as a prompt."""

        def custom_query(self, query_str: str) -> str:
            return str(llm.complete(query_str))

        async def acustom_query(self, query_str: str) -> str:
            return str(await llm.acomplete(query_str))

    engine = Completes()
    skeleton = engine.query(skeleton_template(args.points).format(query_str=QUESTION))
    prompts = _point_prompts(str(skeleton), args)
    return [str(response) for response in run_async_tasks([engine.aquery(prompt) for prompt in prompts])]


def ours(llm: Any, args: argparse.Namespace, **settings: Any) -> Any:
    """The query engine, with prompts of the same text."""
    from llama_index_sot import SkeletonOfThoughtQueryEngine

    engine = SkeletonOfThoughtQueryEngine.from_defaults(
        llm,
        router=None,
        max_points=args.points,
        skeleton_template=skeleton_template(args.points),
        point_template=_POINT,
        **settings,
    )
    return engine.query(QUESTION)


# --- one method, in a process of its own ---


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one method, after its model is loaded."""
    tokens = args.point_tokens * (args.points if args.way == "stock" else 1)
    llm = load(args, tokens)
    model, counted = llm._model, {"generate": 0}
    generate = model.generate

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*given: Any, **keywords: Any) -> Any:
            counted[name] += 1
            return call(*given, **keywords)

        return wrapper

    model.generate = counting("generate", generate)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = _answer(llm, args)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written = 1 if args.way == "stock" else len(result) if isinstance(result, list) else len(result.points)
    if args.way != "stock" and written != args.points:
        raise SystemExit(
            f"The model wrote {written} points and not {args.points}: the methods would not do the same work."
        )
    model.generate = generate
    steps = _engine_steps(llm) if args.way == "ours" else None
    return {
        "way": args.way,
        "seconds": seconds,
        "generate": counted["generate"],
        # `generate` takes a step for each token but the first, which follows from the prompt.
        "steps": steps if steps is not None else counted["generate"] * (tokens - 1),
        "peak_mb": peak / 1024,
        "added_mb": (peak - before) / 1024,
        "tokens": args.points * args.point_tokens,
    }


def _answer(llm: Any, args: argparse.Namespace) -> Any:
    ways: dict[str, Callable[[], Any]] = {
        "stock": lambda: stock(llm, args),
        "acomplete": lambda: acomplete(llm, args),
        "sub-questions": lambda: sub_questions(llm, args),
        "ours": lambda: ours(llm, args),
        "ours, thread": lambda: ours(llm, args, concurrency="thread"),
    }
    return ways[args.way]()


def _engine_steps(llm: Any) -> int:
    from skeleton_of_thought.local import LocalEngine

    return LocalEngine.for_model(llm._model, llm._tokenizer).stats().steps


# --- all of them ---


def measured(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """One method, in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--points", str(args.points)]
    command += ["--point-tokens", str(args.point_tokens)]
    if args.model is not None:
        command += ["--model", args.model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=8, help="points of the answer (default 8, at most 8)")
    parser.add_argument(
        "--point-tokens", type=int, default=64, help="tokens of a point, and of the skeleton (default 64)"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", default=";".join(WAYS), help="methods, separated by semicolons (default all)")
    parser.add_argument("--model", help="a hub id, folder or .gguf file; the demo model otherwise")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not 1 <= args.points <= len(TITLES):
        parser.error(f"--points must be 1 to {len(TITLES)}, not {args.points}.")
    if args.way:
        print(json.dumps(measure(args)))
        return
    ways = [way.strip() for way in args.ways.split(";")]
    if unknown := sorted(set(ways) - set(WAYS)):
        parser.error(f"Unknown methods {unknown}; known are {list(WAYS)}.")
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for turn in range(args.repeats):
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            runs[way].append(measured(args, way))
    cells = [{key: _middle([run[key] for run in done]) for key in done[0]} for done in runs.values()]
    first = cells[0]["seconds"]
    print(f"{'method':<15}{'seconds':>9}{'ratio':>8}{'generate':>10}{'steps':>7}{'peak MB':>9}{'added':>7}")
    for cell in cells:
        cell["ratio"] = first / cell["seconds"]
        print(
            f"{cell['way']:<15}{cell['seconds']:>9.1f}{cell['ratio']:>7.2f}x{cell['generate']:>10}{cell['steps']:>7}"
            f"{cell['peak_mb']:>9.0f}{cell['added_mb']:>7.0f}"
        )
    print(json.dumps({"benchmark": "llama_index", "points": args.points, "ratio_to": cells[0]["way"], "cells": cells}))


def _middle(values: list[Any]) -> Any:
    return statistics.median(values) if isinstance(values[0], float) else values[len(values) // 2]


if __name__ == "__main__":
    main()
