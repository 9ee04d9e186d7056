"""The questions of the benchmarks."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["QUESTIONS", "Question", "load_questions"]

QUESTIONS = Path(__file__).parent.parent.parent / "shared" / "data" / "vicuna_router.csv"
"""The 80 questions of Vicuna-80 with their router labels, if they are beside the checkout."""


class Question(NamedTuple):
    """A question, and whether its answer is a list of independent points; None without a label."""

    text: str
    suited: bool | None = None


_OWN = (
    "How can I improve my time management skills?",
    "How can a small shop keep its customers?",
    "What helps a team of volunteers to stay together?",
    "How do I prepare a small garden for winter?",
    "What should a beginner know about baking bread?",
)


def load_questions(path: Path | None, count: int) -> Sequence[Question]:
    """The first questions of a CSV file with a column `question`, and a column `label` (1 for suited) if it has one.

    Args:
        path: The file; None for `QUESTIONS`, or for the questions in this file if there is no `QUESTIONS`.
        count: The number of questions.
    """
    if path is None and not QUESTIONS.is_file():
        print(f"There is no {QUESTIONS}; using {len(_OWN)} other questions.", file=sys.stderr)
        return [Question(text) for text in _OWN[:count]]
    questions = []
    try:
        with (path or QUESTIONS).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                label = row.get("label")
                questions.append(Question(row["question"], label == "1" if label in ("0", "1") else None))
    except (OSError, KeyError) as error:
        sys.exit(f"{path or QUESTIONS} holds no questions ({error!r}); --csv takes a file with a column `question`.")
    return questions[:count]
