"""The overhead of the chain: the time of answers over the least possible time, with models of known delays.

The models wait instead of computing, so all time over the ideal is overhead:

    ideal          the delays of the skeleton and of a point; the same with `eager`, since the last line starts the last
                   point
    ours           `SkeletonOfThoughtChain`
    ours eager     the same with `eager=True`, whose skeleton comes line by line
    map            `prompt | llm | parser | (prompt | llm | parser).map()`, the usual recipe
    parallel       the same over a `RunnableParallel` that is built from the titles
    map, parallel wide    the same two, with `max_concurrency` set to all calls; LangChain has few threads otherwise
    calls          the model's own `invoke`s and nothing else, each in a thread or all gathered: LangChain's own time
                   for the same calls

Each runs with `--points` for one question, and with `--questions` at once of `--batch-points` points, sync (`invoke`,
`batch`) and async (`ainvoke`, `abatch`). Printed are the median seconds of `--repeats` runs in turns (one run for map
and parallel with few threads, which take long), and the milliseconds and per cent over the ideal.

Then plans of 8 points that build on each other in 1, 2 and 3 waves, whole and with `eager`, sync and async, over the
longest path of the delays of the plan and of the points, which differ. And the share of the time of an answer in which
only its plan is written, by models of `--rate` words a second: titles of 3 words, with and without notes of 12 words,
against points of `--plan-words` words.

Then an agent that looks something up first and answers in `--batch-points` points, alone and with `final="tool"` of
`SkeletonOfThoughtMiddleware`, whose least time is that of two turns that call tools and of one point.

Then follow the cost of streaming, as microseconds per token from `llm.stream` alone and through the chain, with models
that do not wait, and the time to import `langchain_sot` after `langchain_core`'s runnables, chat models, prompts and
output parsers, in new interpreters, from compiled files as in an installed package.

    python benchmarks/orchestration.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import agent_answers
import waves
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel

from langchain_sot import SkeletonOfThoughtChain, SkeletonOutputParser

_SKELETON = "Skeleton of: {question}"
_SLOW = ("map", "parallel")
_POINT = "Point {index}, {title}, of: {question}"
_PLANNED_POINT = "Point {index}, {title}, of: {question}\n{parents}"
_KINDS = ("titles", "scoped", "graph")
_CORE = """
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
"""

Seconds = dict[str, float]


class Waiting(BaseChatModel):
    """A chat model that waits before it returns a fixed text.

    Attributes:
        points: Lines of a skeleton.
        skeleton_seconds: Seconds of a skeleton, spread evenly over its lines.
        point_seconds: Seconds of a point.
        tokens: Pieces of a streamed point.
        lines: The lines of the skeleton; None for titles.
        delays: Seconds of each point; None for `point_seconds` each.
    """

    points: int
    skeleton_seconds: float = 0.0
    point_seconds: float = 0.0
    tokens: int = 1
    lines: list[str] | None = None
    delays: list[float] | None = None

    @property
    def _llm_type(self) -> str:
        return "waiting"

    def _pieces(self, messages: Sequence[BaseMessage]) -> tuple[list[str], float]:
        text = str(messages[-1].content)
        if text.startswith("Skeleton"):
            lines = waves.plan_lines("titles", self.points) if self.lines is None else self.lines
            return lines, self.skeleton_seconds / self.points
        point = re.match(r"Point (\d+),", text)
        seconds = self.delays[int(point[1]) - 1] if self.delays and point else self.point_seconds
        return ["word "] * self.tokens, seconds / self.tokens

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        pieces, delay = self._pieces(messages)
        time.sleep(delay * len(pieces))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(pieces)))])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        pieces, delay = self._pieces(messages)
        await asyncio.sleep(delay * len(pieces))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(pieces)))])

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        pieces, delay = self._pieces(messages)
        due = time.perf_counter()
        for piece in pieces:
            if delay:
                due += delay
                time.sleep(max(0.0, due - time.perf_counter()))
            yield ChatGenerationChunk(message=AIMessageChunk(piece))

    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        pieces, delay = self._pieces(messages)
        due = time.perf_counter()
        for piece in pieces:
            if delay:
                due += delay
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            yield ChatGenerationChunk(message=AIMessageChunk(piece))


def ours(llm: Waiting, **settings: Any) -> Runnable[Any, Any]:
    """The chain, with prompts that the scripted models recognise."""
    settings = {"router": None, "skeleton_prompt": _SKELETON, "point_prompt": _POINT, **settings}
    return SkeletonOfThoughtChain(llm=llm, max_points=llm.points, **settings)


def recipe(llm: Waiting, kind: str) -> Runnable[Any, Any]:
    """The usual recipe, written by hand."""
    outline = ChatPromptTemplate.from_template(_SKELETON) | llm | SkeletonOutputParser(max_points=llm.points)
    expand = ChatPromptTemplate.from_template(_POINT) | llm | StrOutputParser()

    def inputs(found: Mapping[str, Any]) -> list[dict[str, Any]]:
        question = found["question"]["question"]
        return [{"index": i, "title": title, "question": question} for i, title in enumerate(found["titles"], 1)]

    def parallel(values: list[dict[str, Any]]) -> Runnable[Any, Any]:
        steps = {str(v["index"]): RunnableLambda(lambda _, v=v: v) | expand for v in values}
        return RunnableParallel(steps)

    start = RunnableParallel(question=lambda x: x, titles=outline) | RunnableLambda(inputs)
    return start | (expand.map() if kind == "map" else RunnableLambda(parallel))


class Calls:
    """Only the calls of the answers."""

    def __init__(self, llm: Waiting) -> None:
        self._llm = llm

    def batch(self, inputs: Sequence[Any], config: Any) -> list[Any]:
        """All skeletons, then all points."""
        with ThreadPoolExecutor(len(inputs) * self._llm.points) as pool:
            return [
                *pool.map(self._llm.invoke, self._skeletons(inputs)),
                *pool.map(self._llm.invoke, self._all(inputs)),
            ]

    def invoke(self, value: Any, config: Any) -> Any:
        """The calls of one answer."""
        return self.batch([value], config)

    async def abatch(self, inputs: Sequence[Any], config: Any) -> list[Any]:
        """Async twin of `batch`."""
        skeletons = await asyncio.gather(*map(self._llm.ainvoke, self._skeletons(inputs)))
        return [*skeletons, *await asyncio.gather(*map(self._llm.ainvoke, self._all(inputs)))]

    async def ainvoke(self, value: Any, config: Any) -> Any:
        """Async twin of `invoke`."""
        return await self.abatch([value], config)

    def _skeletons(self, inputs: Sequence[Any]) -> list[str]:
        return [f"Skeleton of: {value}" for value in inputs]

    def _all(self, inputs: Sequence[Any]) -> list[str]:
        return [f"Point {i} of: {value}" for value in inputs for i in range(self._llm.points)]


def measured(ways: Mapping[str, tuple[Any, dict[str, Any]]], questions: int, repeats: int, *, sync: bool) -> Seconds:
    """The median seconds of each method for a number of questions at once."""
    texts = [f"question {i}" for i in range(questions)]
    took: dict[str, list[float]] = {name: [] for name in ways}

    def once(name: str) -> float:
        runnable, config = ways[name]
        inputs: list[Any] = list(texts) if name.startswith("ours") else [{"question": text} for text in texts]
        start = time.perf_counter()
        if sync:
            done = runnable.batch(inputs, config) if questions > 1 else [runnable.invoke(inputs[0], config)]
        else:
            one = runnable.abatch(inputs, config) if questions > 1 else runnable.ainvoke(inputs[0], config)
            done = asyncio.run(_whole(one))
        assert done
        return time.perf_counter() - start

    repeated = [name for name in ways if name not in _SLOW]
    for name in repeated:
        once(name)
    for _ in range(repeats):
        for name in repeated:
            took[name].append(once(name))
    for name in _SLOW:
        took[name].append(once(name))
    return {name: statistics.median(seconds) for name, seconds in took.items()}


async def _whole(one: Any) -> Any:
    return await one


def cells(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures all cases."""
    cases = [(1, points) for points in args.points] + [(q, args.batch_points) for q in args.questions if q > 1]
    ideal = args.skeleton_seconds + args.point_seconds
    for questions, points in cases:
        llm = Waiting(points=points, skeleton_seconds=args.skeleton_seconds, point_seconds=args.point_seconds)
        wide = {"max_concurrency": questions * points}
        ways: dict[str, tuple[Any, dict[str, Any]]] = {
            "calls": (Calls(llm), {}),
            "ours": (ours(llm), {}),
            "ours eager": (ours(llm, eager=True), {}),
            "map": (recipe(llm, "map"), {}),
            "parallel": (recipe(llm, "parallel"), {}),
            "map wide": (recipe(llm, "map"), wide),
            "parallel wide": (recipe(llm, "parallel"), wide),
        }
        for sync in (True, False):
            for name, seconds in measured(ways, questions, args.repeats, sync=sync).items():
                yield {
                    "questions": questions,
                    "points": points,
                    "mode": "sync" if sync else "async",
                    "way": name,
                    "seconds": round(seconds, 4),
                    "ideal": ideal,
                    "over_ms": round((seconds - ideal) * 1e3, 1),
                    "over": round(seconds / ideal - 1, 4),
                }


def planned(llm: Waiting, kind: str, **settings: Any) -> Runnable[Any, Any]:
    """The chain with plans of a kind."""
    prompts = {} if kind == "titles" else {f"{kind}_prompt": _SKELETON, "point_prompt": _PLANNED_POINT}
    return ours(llm, planning=kind, max_depth=3, **prompts, **settings)


def planned_cells(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The time of plans of several waves over their longest path."""
    seconds = waves.delays(args.point_seconds)
    for count, parents in waves.SHAPES.items():
        llm = Waiting(
            points=waves.POINTS,
            skeleton_seconds=args.skeleton_seconds,
            lines=waves.plan_lines("graph", waves.POINTS, parents),
            delays=seconds,
        )
        for eager in (False, True):
            ideal = waves.ideal(parents, seconds, args.skeleton_seconds, eager=eager)
            chain = planned(llm, "graph", eager=eager)
            for sync in (True, False):
                took, result = _answered(chain, args.repeats, sync=sync)
                yield {
                    "waves": count,
                    "points": len(result["points"]),
                    "eager": eager,
                    "mode": "sync" if sync else "async",
                    "seconds": round(took, 4),
                    "ideal": round(ideal, 4),
                    "over_ms": round((took - ideal) * 1e3, 1),
                    "over": round(took / ideal - 1, 4),
                    "waves_run": max(point["wave"] for point in result["timings"]["points"]),
                    "started_early": _started_early(result["timings"]["points"]),
                }


def _answered(chain: Runnable[Any, Any], repeats: int, *, sync: bool) -> tuple[float, dict[str, Any]]:
    """The median seconds of one question after a first run, and the last result."""
    took, result = [], {}
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = chain.invoke("question") if sync else asyncio.run(chain.ainvoke("question"))
        took.append(time.perf_counter() - start)
    return statistics.median(took[1:]), result


def _started_early(points: Sequence[Mapping[str, Any]]) -> int:
    """How many points started before one that they build on had ended."""
    ends = {point["index"]: point["written"]["end"] for point in points}
    return sum(any(ends[parent] > point["written"]["start"] for parent in point["depends_on"]) for point in points)


def plan_shares(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The share of an answer's time in which only its plan is written, by kind and by words of a point."""
    for kind in _KINDS:
        parents = {args.plan_points: (1, 2)} if kind == "graph" else {}
        lines = waves.plan_lines(kind, args.plan_points, parents)
        plan_words = sum(len(line.split()) for line in lines)
        for words in args.plan_words:
            llm = Waiting(
                points=args.plan_points,
                skeleton_seconds=plan_words / args.rate,
                point_seconds=words / args.rate,
                lines=lines,
            )
            for eager in (False, True):
                timings = planned(llm, kind, eager=eager).invoke("question")["timings"]
                alone = min(point["written"]["start"] for point in timings["points"])
                yield {
                    "plan": kind,
                    "eager": eager,
                    "plan_words": plan_words,
                    "point_words": words,
                    "seconds": round(timings["total"], 4),
                    "share": round(alone / timings["total"], 3),
                }


def streaming(args: argparse.Namespace) -> dict[str, float]:
    """Microseconds per token, from the model alone and through the chain."""
    points, tokens = 8, args.tokens // 8
    llm = Waiting(points=points, tokens=tokens)
    one = Waiting(points=points, tokens=points * tokens)
    chain = ours(llm)

    async def aplain() -> None:
        async for _ in one.astream("Point"):
            pass

    async def achain() -> None:
        async for _ in chain.astream("question"):
            pass

    ways: dict[str, Callable[[], Any]] = {
        "llm.stream": lambda: [None for _ in one.stream("Point")],
        "chain.stream": lambda: [None for _ in chain.stream("question")],
        "llm.astream": lambda: asyncio.run(aplain()),
        "chain.astream": lambda: asyncio.run(achain()),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            took[name].append((time.perf_counter() - start) / (points * tokens) * 1e6)
    return {name: round(statistics.median(values[1:]), 1) for name, values in took.items()}


def importing(repeats: int) -> dict[str, float]:
    """Milliseconds to import this package after LangChain's core."""
    code = f"{_CORE}\nimport time\nstart = time.perf_counter()\nimport langchain_sot\n"
    code += "langchain_sot.SkeletonOfThoughtChain\nprint((time.perf_counter() - start) * 1e3)"
    own = []
    with TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": str(Path(folder)), "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(repeats + 1):
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
            own.append(float(done.stdout))
    own = own[1:]  # the first run compiled the files
    return {"over_langchain_core_ms": round(statistics.median(own), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=_numbers, default=[8, 32, 128], help="points per question (default 8,32,128)")
    parser.add_argument("--questions", type=_numbers, default=[4, 16, 64], help="questions at once (default 4,16,64)")
    parser.add_argument("--batch-points", type=int, default=8, help="points of each of several questions (default 8)")
    parser.add_argument("--skeleton-seconds", type=float, default=1.0)
    parser.add_argument("--point-seconds", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=4000, help="tokens to stream (default 4000)")
    parser.add_argument(
        "--plan-points", type=int, default=5, help="points of a plan whose share is measured (default 5)"
    )
    parser.add_argument(
        "--plan-words", type=_numbers, default=[40, 100, 250], help="words per point (default 40,100,250)"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="words that a model writes a second (default 100)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    print(f"{'questions':>9}{'points':>7} {'mode':<6}{'method':<14}{'seconds':>9}{'over ms':>9}{'over':>8}")
    rows = []
    with contextlib.suppress(KeyboardInterrupt):
        for row in cells(args):
            rows.append(row)
            print(
                f"{row['questions']:>9}{row['points']:>7} {row['mode']:<6}{row['way']:<14}{row['seconds']:>9.3f}"
                f"{row['over_ms']:>9.1f}{row['over']:>8.1%}",
                flush=True,
            )
    print(f"\n{'waves':>5} {'eager':<6}{'mode':<6}{'seconds':>9}{'ideal':>8}{'over ms':>9}{'over':>8}")
    in_waves = []
    for row in planned_cells(args):
        in_waves.append(row)
        print(
            f"{row['waves']:>5} {'yes' if row['eager'] else 'no':<6}{row['mode']:<6}{row['seconds']:>9.3f}"
            f"{row['ideal']:>8.3f}{row['over_ms']:>9.1f}{row['over']:>8.1%}",
            flush=True,
        )
    print(f"\n{'plan':<7}{'words':>6}{'words per point':>17} {'eager':<6}{'seconds':>8}{'only the plan':>15}")
    shares = []
    for row in plan_shares(args):
        shares.append(row)
        print(
            f"{row['plan']:<7}{row['plan_words']:>6}{row['point_words']:>17} {'yes' if row['eager'] else 'no':<6}"
            f"{row['seconds']:>8.2f}{row['share']:>15.0%}",
            flush=True,
        )
    in_agents = list(agent_answers.cells(args.batch_points, args.skeleton_seconds, args.point_seconds))
    print(f"\n{'agent, points':<15}{'mode':<6}{'alone':>8}{'final=tool':>12}{'ideal':>8}{'over ms':>9}{'ratio':>7}")
    for row in in_agents:
        print(
            f"{row['points']:<15}{row['mode']:<6}{row['alone']:>8.3f}{row['seconds']:>12.3f}{row['ideal']:>8.3f}"
            f"{row['over_ms']:>9.1f}{row['ratio']:>7.2f}",
            flush=True,
        )
    streams, imports = streaming(args), importing(max(5, args.repeats))
    print("\nmicroseconds per token: " + ", ".join(f"{name} {value}" for name, value in streams.items()))
    print(f"import langchain_sot: {imports['over_langchain_core_ms']} ms over langchain_core")
    found = {"cells": rows, "us_per_token": streams, "import": imports, "waves": in_waves, "plan_share": shares}
    found["agents"] = in_agents
    print(json.dumps({"benchmark": "orchestration", **found}))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
