"""The time of a whole answer on a local model: two methods of normal decoding against four of Skeleton-of-Thought.

For each question the engine writes a skeleton once, which gives the points. Then each method decodes the same number of
tokens (skeleton + points x `--point-tokens`, greedily, ignoring end-of-text) from the same prompts. The prompts contain
examples, which the engine stores from question to question.

    normal      one answer of all tokens by `model.generate`
    single      one answer of all tokens as a single row of `LocalEngine`: the engine's gain without a skeleton
    sequential  the skeleton, then one point after another by `model.generate`
    threads     the skeleton, then all points by `model.generate` in a thread per point, like a fan-out of calls to a
                local pipeline
    padded      the skeleton, then all points by one left-padded `model.generate`
    engine      the skeleton, then all points, by `LocalEngine`

The order of the methods rotates from question to question, so that a machine that slows down favours none. Figures are
median seconds per answer. The speed-up is the median over questions of normal's time divided by the method's.

    python benchmarks/decoding.py --questions 4

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from questions import QUESTIONS, load_questions

from skeleton_of_thought.drive import run
from skeleton_of_thought.events import AnswerDone, SkeletonDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Conversation, Prompt


def plan(engine: LocalEngine, question: str, max_points: int) -> tuple[Prompt, list[Prompt]] | None:
    """The flow's prompts for the skeleton and for the points; None with fewer than 3 points."""
    prompts: dict[str, list[Prompt]] = {"skeleton": [], "point": []}

    def open_call(call: Call, _: int):
        assert call.prompt is not None
        prompts.setdefault(call.stage, []).append(call.prompt)
        if call.stage != "skeleton":
            yield "A point."
            return
        with engine.stream(call.prompt) as stream:
            yield from stream

    flow = AnswerFlow(
        Conversation.of(question), settings=Settings(max_points=max_points), prefill={"skeleton", "point"}
    )
    points = 0
    for _, event in run([flow], open_call):
        if isinstance(event, SkeletonDone):
            points = len(event.skeleton)
        if isinstance(event, AnswerDone) and points >= 3:
            return prompts["skeleton"][0], prompts["point"]
    return None


class Generate:
    """`model.generate`, greedy, for a fixed number of tokens."""

    def __init__(self, engine: LocalEngine) -> None:
        self.model, self.tokenizer = engine.model, engine.tokenizer

    def text(self, prompt: Prompt) -> str:
        """The prompt, rendered by the chat template."""
        chat = [{"role": m.role, "content": m.text} for m in prompt.messages]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + prompt.prefill

    def __call__(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """Decodes `tokens` per prompt; returns the number of tokens of all prompts."""
        self.tokenizer.padding_side = "left"
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        batch = self.tokenizer(
            [self.text(p) for p in prompts], return_tensors="pt", padding=len(prompts) > 1, add_special_tokens=False
        )
        with torch.inference_mode():
            out = self.model.generate(
                **batch,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return int((out.shape[1] - batch["input_ids"].shape[1]) * len(prompts))


def ways(engine: LocalEngine, point_tokens: int, skeleton_tokens: int) -> dict[str, Callable[..., int]]:
    """The methods to decode one answer; each returns the number of tokens that it decoded."""
    generate = Generate(engine)

    def normal(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        return generate([question], skeleton_tokens + point_tokens * len(points))

    def single(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        tokens = skeleton_tokens + point_tokens * len(points)
        return sum(c.usage.output_tokens for c in engine.generate([question], max_new_tokens=tokens, ignore_eos=True))

    def sequential(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        return generate([skeleton], skeleton_tokens) + sum(generate([p], point_tokens) for p in points)

    def threads(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        done = generate([skeleton], skeleton_tokens)
        with ThreadPoolExecutor(len(points)) as pool:
            return done + sum(pool.map(lambda p: generate([p], point_tokens), points))

    def padded(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        return generate([skeleton], skeleton_tokens) + generate(points, point_tokens)

    def ours(question: Prompt, skeleton: Prompt, points: list[Prompt]) -> int:
        done = engine.generate([bare(skeleton)], max_new_tokens=skeleton_tokens, ignore_eos=True)
        done += engine.generate([bare(p) for p in points], max_new_tokens=point_tokens, ignore_eos=True)
        return sum(c.usage.output_tokens for c in done)

    return {
        "normal": normal,
        "single": single,
        "sequential": sequential,
        "threads": threads,
        "padded": padded,
        "engine": ours,
    }


def bare(prompt: Prompt) -> Prompt:
    """The prompt without its own limits, so that every method decodes the same number of tokens."""
    return Prompt(prompt.messages, prompt.prefill)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=4, help="answer the first N questions (default 4)")
    parser.add_argument("--csv", type=Path, help=f"a CSV file with a column `question` (default {QUESTIONS})")
    parser.add_argument("--model", help="hub id, directory or GGUF file (default: the demo model)")
    parser.add_argument("--max-points", type=int, default=8)
    parser.add_argument("--skeleton-tokens", type=int, default=40)
    parser.add_argument("--point-tokens", type=int, default=64)
    args = parser.parse_args()

    engine = LocalEngine.from_pretrained(args.model)
    # The planner must not fill the prefix store of the measured engine.
    planner = LocalEngine(engine.model, engine.tokenizer, prefix_cache_tokens=0)
    table = ways(engine, args.point_tokens, args.skeleton_tokens)
    names = list(table)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    points: list[int] = []
    skipped = 0
    for number, question in enumerate(load_questions(args.csv, args.questions)):
        planned = plan(planner, question.text, args.max_points)
        if planned is None:
            skipped += 1
            print(f"question {number + 1}: fewer than 3 points, skipped", flush=True)
            continue
        skeleton, point_prompts = planned
        whole = Prompt(Conversation.of(question.text).messages)
        tokens = args.skeleton_tokens + args.point_tokens * len(point_prompts)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            decoded = table[name](whole, skeleton, point_prompts)
            seconds[name].append(time.perf_counter() - start)
            assert decoded == tokens, f"{name} decoded {decoded} tokens, not {tokens}"
        points.append(len(point_prompts))
        row = "  ".join(f"{name} {seconds[name][-1]:.1f}" for name in names)
        print(f"question {number + 1}: {points[-1]} points, {tokens} tokens, seconds: {row}", flush=True)
    planner.close()
    engine.close()
    if not points:
        sys.exit("No question gave a skeleton of 3 points or more; nothing was measured.")

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    speedups = {
        name: statistics.median(n / t for n, t in zip(seconds["normal"], values, strict=True))
        for name, values in seconds.items()
    }
    print(f"\n{'method':<12}{'median s':>10}{'speed-up':>10}")
    for name in names:
        print(f"{name:<12}{medians[name]:>10.2f}{speedups[name]:>9.2f}x")
    print(
        json.dumps(
            {
                "benchmark": "decoding",
                "questions": len(points),
                "skipped": skipped,
                "points": points,
                "skeleton_tokens": args.skeleton_tokens,
                "point_tokens": args.point_tokens,
                "torch_threads": torch.get_num_threads(),
                "median_seconds": {k: round(v, 3) for k, v in medians.items()},
                "median_speedup_over_normal": {k: round(v, 3) for k, v in speedups.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
