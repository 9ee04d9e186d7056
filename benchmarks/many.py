"""Many questions at the same time: the throughput of a local model against one question after another.

The questions go through one `SkeletonOfThoughtChain` over one `ChatTransformers`, greedy, by three methods:

    one by one   `chain.invoke` for each question
    batch        `chain.batch` of all questions
    abatch       `chain.abatch` of all questions

Each method and number of questions has an engine of its own over the same loaded model. The engine answers another
question before the measurement, so that it has stored the common prefix of all prompts, their examples, as in use. It
is closed before the next one is made. The order of the methods rotates, so that a machine that slows down favours none.
All do the same work: the JSON reports the tokens that each decoded, and the number of answers that are the same as one
by one.

A single question is the same work in the same code for every method. Its differences are noise of the machine, and a
smaller speed-up means nothing. Measure on a machine that does nothing else.

    questions/s  answered questions over the time until the last answer
    tokens/s     generated tokens, including those of the skeletons, over the same time
    latency      seconds from the start until a question's answer was complete: median and 95th percentile
    peak         the most rows that the engine decoded at once
    reused       prompt tokens taken from stored prefixes

    python benchmarks/many.py --questions 1,4,16,64

The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain
from skeleton_of_thought.local import LocalEngine

ONE_BY_ONE = "one by one"

_WHO = (
    "a student",
    "a small shop",
    "a family with young children",
    "a village school",
    "someone who has just retired",
    "a new neighbour",
    "a football club",
    "a nurse on night shifts",
)
_WHAT = (
    "save money on food",
    "find new friends",
    "use less energy",
    "plan a good weekend",
    "learn a new language",
    "stay calm in busy weeks",
    "make better use of the internet",
    "prepare for a long winter",
)
_FIRST = "What should I know before I keep bees?"
"""The question that an engine answers before the measurement."""


def questions(count: int) -> list[str]:
    """Different questions that suit a skeleton, at most 64."""
    # Diagonally, so that few of them have words in common, for any count.
    numbers = range(min(count, len(_WHO) * len(_WHAT)))
    return [f"How can {_WHO[i % len(_WHO)]} {_WHAT[(i + i // len(_WHO)) % len(_WHAT)]}?" for i in numbers]


@dataclass(frozen=True)
class Run:
    """The figures of a method.

    Attributes:
        latencies: Seconds from the start until each question's answer was complete.
        tokens: Generated tokens over all questions.
        peak: The most rows in the engine's batch.
        reused: Prompt tokens taken from stored prefixes.
        answers: The answers in the order of the questions.
    """

    latencies: Sequence[float]
    tokens: int
    peak: int
    reused: int
    answers: Sequence[str]

    @property
    def seconds(self) -> float:
        """Seconds until the last answer."""
        return max(self.latencies)

    @property
    def figures(self) -> dict[str, float]:
        """The columns of the table."""
        ordered = sorted(self.latencies)
        return {
            "questions/s": len(ordered) / self.seconds,
            "tokens/s": self.tokens / self.seconds,
            "median s": statistics.median(ordered),
            "95 % s": ordered[math.ceil(0.95 * len(ordered)) - 1],
            "peak": self.peak,
            "reused": self.reused,
        }


class WarmChain:
    """A chain over an engine that has answered one question.

    Args:
        model: A loaded model.
        tokenizer: Its tokenizer.
        points: The most points of an answer.
        point_tokens: The most tokens of a point.
    """

    def __init__(self, model: Any, tokenizer: Any, *, points: int, point_tokens: int) -> None:
        self._engine = LocalEngine(model, tokenizer)
        # A question without a skeleton gets a direct answer of as many tokens as its points would have.
        llm = ChatTransformers(engine=self._engine, max_tokens=points * max(point_tokens, 12))
        point_llm = ChatTransformers(engine=self._engine, max_tokens=point_tokens)
        # Prompts allow three tokens per word.
        words = max(40, math.ceil(point_tokens / 3))
        self.chain = SkeletonOfThoughtChain(
            llm=llm, point_llm=point_llm, router=None, max_points=points, point_words=words
        )
        # A single point, so that the peak is that of the measurement.
        first = {"router": None, "max_points": 1, "point_words": words}
        SkeletonOfThoughtChain(llm=llm, point_llm=point_llm, **first).invoke(_FIRST)
        self._before = self._engine.stats()

    def run(self, latencies: Sequence[float], answers: Sequence[str]) -> Run:
        """The engine's figures since its first question, with those of the caller."""
        now, before = self._engine.stats(), self._before
        return Run(
            tuple(latencies),
            now.decode_tokens - before.decode_tokens,
            now.peak_batch_size,
            now.prefix_tokens_reused - before.prefix_tokens_reused,
            tuple(answers),
        )

    def close(self) -> None:
        """Closes the engine; the model stays loaded."""
        self._engine.close()


def one_by_one(warm: WarmChain, texts: Sequence[str]) -> Run:
    """One question after another."""
    start = time.perf_counter()
    ends, answers = [], []
    for text in texts:
        answers.append(warm.chain.invoke(text)["answer"])
        ends.append(time.perf_counter() - start)
    return warm.run(ends, answers)


def batch(warm: WarmChain, texts: Sequence[str]) -> Run:
    """All questions at the same time, in threads."""
    return together(warm, warm.chain.batch(list(texts)))


def abatch(warm: WarmChain, texts: Sequence[str]) -> Run:
    """All questions at the same time, in tasks."""
    return together(warm, asyncio.run(warm.chain.abatch(list(texts))))


def together(warm: WarmChain, outputs: Sequence[Mapping[str, Any]]) -> Run:
    """The figures of answers that began together, by their own timings."""
    return warm.run([output["timings"]["total"] for output in outputs], [output["answer"] for output in outputs])


WAYS = {ONE_BY_ONE: one_by_one, "batch": batch, "abatch": abatch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--questions", type=_numbers, default=[1, 4, 16, 64], help="questions at a time, at most 64 (default 1,4,16,64)"
    )
    parser.add_argument("--points", type=int, default=4, help="the most points of an answer (default 4)")
    parser.add_argument("--point-tokens", type=int, default=32, help="the most tokens of a point (default 32)")
    parser.add_argument("--model", help="hub id, directory or GGUF file (default: the demo model)")
    args = parser.parse_args()

    with LocalEngine.from_pretrained(args.model) as loader:
        model, tokenizer = loader.model, loader.tokenizer

    table: dict[int, dict[str, Run]] = {}
    names = list(WAYS)
    for number, count in enumerate(args.questions):
        runs: dict[str, Run] = {}
        shift = number % len(names)
        for way in names[shift:] + names[:shift]:
            warm = WarmChain(model, tokenizer, points=args.points, point_tokens=args.point_tokens)
            runs[way] = WAYS[way](warm, questions(count))
            warm.close()
            print(f"{count} questions: {way} {runs[way].seconds:.1f} s, {runs[way].tokens} tokens", flush=True)
        table[count] = {way: runs[way] for way in names}
    show(table)
    print(json.dumps(report(table, args)))


def _numbers(text: str) -> list[int]:
    numbers = sorted({int(part) for part in text.split(",")})
    if not 1 <= numbers[0] <= numbers[-1] <= len(_WHO) * len(_WHAT):
        raise argparse.ArgumentTypeError(f"from 1 to {len(_WHO) * len(_WHAT)} questions, not {text}")
    return numbers


def show(table: dict[int, dict[str, Run]]) -> None:
    """Prints the table."""
    names = list(next(iter(table.values()))[ONE_BY_ONE].figures)
    print(f"\n{'questions':<10}{'method':<11}" + "".join(f"{name:>13}" for name in names) + f"{'speed-up':>10}")
    for count, runs in table.items():
        for way, run in runs.items():
            cells = "".join(f"{_text(value):>13}" for value in run.figures.values())
            print(f"{count:<10}{way:<11}{cells}{runs[ONE_BY_ONE].seconds / run.seconds:>9.2f}x")
    if 1 in table:
        print("(1 question is the same work for every method: its distance from 1.00x is noise)")


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def report(table: dict[int, dict[str, Run]], args: argparse.Namespace) -> dict[str, Any]:
    """The figures as JSON-safe data."""
    rows = []
    for count, runs in table.items():
        reference = runs[ONE_BY_ONE]
        for way, run in runs.items():
            same = sum(a == b for a, b in zip(run.answers, reference.answers, strict=True))
            rows.append(
                {
                    "questions": count,
                    "way": way,
                    "seconds": round(run.seconds, 3),
                    **{name: round(value, 3) for name, value in run.figures.items()},
                    "tokens": run.tokens,
                    "same_answers": same,
                    "speedup": round(reference.seconds / run.seconds, 3),
                }
            )
    return {
        "benchmark": "many",
        "points": args.points,
        "point_tokens": args.point_tokens,
        "torch_threads": torch.get_num_threads(),
        "runs": rows,
    }


if __name__ == "__main__":
    main()
