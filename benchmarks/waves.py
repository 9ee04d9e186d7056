"""Plans of known waves and the least possible time of their answers, for `orchestration.py`.

As a program, the time line of one answer by a graph, with a conclusion. The model is a script:

    python benchmarks/waves.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence

from skeleton_of_thought.drive import run
from skeleton_of_thought.events import AnswerDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Call, Conversation

__all__ = ["POINTS", "SHAPES", "delays", "example", "ideal", "plan_lines"]

POINTS = 8
SHAPES: dict[int, Mapping[int, tuple[int, ...]]] = {
    1: {},
    2: {5: (1,), 6: (1, 2), 7: (3,), 8: (2, 4)},
    3: {4: (1,), 5: (2, 3), 6: (4,), 7: (4, 5), 8: (5,)},
}
"""By the number of waves: the points that build on others, of `POINTS`."""

_NOTE = "what only this matter has and what it leaves to the others"  # 12 words
_SEEN = 2
"""Lines after which a graph is known to be no chain: the second one builds on no other. Eager points wait for it."""


def plan_lines(kind: str, points: int, parents: Mapping[int, tuple[int, ...]] | None = None) -> list[str]:
    """The lines of a plan: titles of 3 words, and notes of 12 words for the kinds that have them."""
    lines = []
    for index in range(1, points + 1):
        note = "" if kind == "titles" else f": {_NOTE}"
        after = ", ".join(map(str, (parents or {}).get(index, ())))
        lines.append(f"{index}. Matter number {index}{note}{f' (after {after})' if after else ''}\n")
    return lines


def delays(seconds: float) -> list[float]:
    """Seconds of each point, from half of `seconds` to all of it, so that the longest path is not just any."""
    return [seconds * (0.5 + (index * 5) % POINTS / 14) for index in range(1, POINTS + 1)]


def ideal(
    parents: Mapping[int, tuple[int, ...]], points: Sequence[float], skeleton: float, *, eager: bool = False
) -> float:
    """The least possible seconds of an answer: its longest path.

    Args:
        parents: The points that each builds on.
        points: Seconds of each point.
        skeleton: Seconds of the plan, spread evenly over its lines.
        eager: Whether a point may start when its line is there, instead of the whole plan.
    """
    ends: dict[int, float] = {}
    for index, seconds in enumerate(points, 1):
        line = skeleton * max(index, _SEEN) / len(points) if eager else skeleton
        ends[index] = max([line, *(ends[parent] for parent in parents.get(index, ()))]) + seconds
    return max(skeleton, *ends.values())


_QUESTION = "Should we get a cat or a dog?"
_PLAN = """1. Daily care: feeding, walks and cleaning
2. Yearly costs: food, vet and insurance
3. Space at home: rooms, garden and neighbours
4. Which one to choose: who is better off with which (after 1, 2)
"""
_WORDS = {1: 60, 2: 45, 3: 70, 4: 40}
_CLOSING_WORDS = 20


def example(rate: float, *, eager: bool = False) -> Answer:
    """One answer by a graph of four points, with a conclusion, from a script.

    Args:
        rate: Words that the script writes a second.
        eager: Whether points start while the plan is written.
    """

    def open_call(call: Call, index: int) -> Iterator[str]:
        if call.stage == "skeleton":
            words = _PLAN.replace(" ", "| ").replace("\n", "\n|").split("|")
        else:
            count = _WORDS[call.point.index] if call.point else _CLOSING_WORDS
            words = [f"{call.stage}{at} " for at in range(count)]
        due = time.perf_counter()
        for word in words:
            due += 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            yield word

    settings = Settings(planning="graph", closing=True, eager=eager)
    flow = AnswerFlow(Conversation.of(_QUESTION), settings=settings)
    done = [event.answer for _, event in run([flow], open_call) if isinstance(event, AnswerDone)]
    return done[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=25.0, help="words a second (default 25)")
    parser.add_argument("--eager", action="store_true", help="points start while the plan is written")
    args = parser.parse_args()
    answer = example(args.rate, eager=args.eager)
    print(f"{answer.skeleton}\n\n{answer.timeline()}")


if __name__ == "__main__":
    main()
