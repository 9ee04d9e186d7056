"""A whole answer by the engine, against normal decoding of the same number of tokens.

The prompts are the project's own for a skeleton and its points. The outline is fixed, since a small model seldom writes
one of a given length. The engine keeps its defaults, as in use: it stores shared prefixes of prompts, and each answer
is to another question.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from decoding import Generate, bare, plan
from questions import load_questions

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.types import Conversation, Prompt

__all__ = ["measure_answers"]

_TITLES = (
    "Set clear goals",
    "Make a simple plan",
    "Start with the basics",
    "Ask others for advice",
    "Keep track of progress",
    "Learn from mistakes",
    "Take regular breaks",
    "Review the results",
)


@dataclass(frozen=True)
class _Outline:
    """An engine that answers every prompt with the outline, to make a plan."""

    titles: tuple[str, ...]

    @contextlib.contextmanager
    def stream(self, prompt: Prompt) -> Iterator[Iterator[str]]:
        # The prefill already begins the list.
        text = "\n".join(f"{number}. {title}" for number, title in enumerate(self.titles, start=1))
        yield iter([text.removeprefix(prompt.prefill.strip())])


def measure_answers(
    engine: LocalEngine, *, answers: int, skeleton_tokens: int, points: int, point_tokens: int
) -> dict[str, Any]:
    """Decodes answers by both methods, in turns.

    Args:
        engine: A new engine with its defaults.
        answers: The number of answers, each to another question.
        skeleton_tokens: Tokens of the skeleton.
        points: Points of each answer, at most 8.
        point_tokens: Tokens of each point.

    Returns:
        Seconds of each answer by each method, and the median ratio of normal decoding's to the engine's.
    """
    generate = Generate(engine)
    seconds: dict[str, list[float]] = {"normal": [], "engine": []}
    tokens = skeleton_tokens + points * point_tokens
    for number, question in enumerate(load_questions(None, answers)):
        planned = plan(_Outline(_TITLES[:points]), question.text, points)
        assert planned is not None
        assert len(planned[1]) == points
        skeleton, prompts = bare(planned[0]), [bare(prompt) for prompt in planned[1]]
        whole = Prompt(Conversation.of(question.text).messages)

        def ours(skeleton: Prompt = skeleton, prompts: list[Prompt] = prompts) -> int:
            done = engine.generate([skeleton], max_new_tokens=skeleton_tokens, ignore_eos=True)
            done += engine.generate(prompts, max_new_tokens=point_tokens, ignore_eos=True)
            return sum(completion.usage.output_tokens for completion in done)

        ways = {"normal": lambda whole=whole: generate([whole], tokens), "engine": ours}
        for name in sorted(ways, reverse=number % 2 == 0):
            start = time.perf_counter()
            decoded = ways[name]()
            seconds[name].append(time.perf_counter() - start)
            assert decoded == tokens, f"{name} decoded {decoded} tokens, not {tokens}"
    ratios = [n / e for n, e in zip(seconds["normal"], seconds["engine"], strict=True)]
    return {
        "tokens": tokens,
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "median_speedup": round(statistics.median(ratios), 3),
    }
