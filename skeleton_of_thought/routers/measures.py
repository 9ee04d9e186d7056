"""The quality of a router on labelled questions: confusion, precision, recall, calibration, and best threshold."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import InvalidInput

__all__ = [
    "LabelledQuestion",
    "LabelledTask",
    "Measures",
    "best_threshold",
    "majority",
    "measure",
    "read_labels",
    "read_tasks",
]

FALSE_POSITIVE, FALSE_NEGATIVE = 0.7, 0.3
"""The weights of both mistakes, as in the paper: a harmful skeleton is worse than a missed one."""

_BINS = 10
"""Bins of the calibration error."""


@dataclass(frozen=True)
class LabelledQuestion:
    """A question, and whether its answer is a list of points that can be written independently."""

    question: str
    use_skeleton: bool
    form: str = ""
    language: str = ""


@dataclass(frozen=True)
class LabelledTask:
    """A prompt with a question in it, and whether the text around the question leaves it one for a skeleton.

    Attributes:
        prompt: The user's message: the question, perhaps with a text around it.
        use_skeleton: Whether a skeleton suits the whole.
        system: The system message, "" for none.
        split: `"train"` for rows to tune rules on, `"heldout"` for rows to measure on.
        kind: What the text around the question is: `"translate"`, `"persona"`, ...
        language: The question's language.
        source: Its author, whose other prompts resemble it.
    """

    prompt: str
    use_skeleton: bool
    system: str = ""
    split: str = ""
    kind: str = ""
    language: str = ""
    source: str = ""


def read_labels(path: str | Path) -> list[LabelledQuestion]:
    """Reads a CSV file with the columns `label` (0 or 1) and `question`, and optionally `form` and `language`.

    Raises:
        InvalidInput: The file cannot be read, a column is missing, or a label is neither 0 nor 1.
    """
    return [
        LabelledQuestion(row["question"], row["label"] == "1", row.get("form") or "", row.get("language") or "")
        for row in _labelled_rows(path, "question")
    ]


def read_tasks(path: str | Path) -> list[LabelledTask]:
    """Reads a CSV file with the columns `label` (0 or 1) and `prompt`, and the other fields of `LabelledTask`.

    The columns of the other fields (`system`, `split`, `kind`, `language`, `source`) may be missing.

    Raises:
        InvalidInput: The file cannot be read, a column is missing, or a label is neither 0 nor 1.
    """
    others = ("system", "split", "kind", "language", "source")
    return [
        LabelledTask(row["prompt"], row["label"] == "1", **{name: row.get(name) or "" for name in others})
        for row in _labelled_rows(path, "prompt")
    ]


def _labelled_rows(path: str | Path, text: str) -> list[dict[str, str]]:
    """The rows of a CSV file, each with a label and a text in the column of that name."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput(f"The labels {str(path)!r} cannot be read: {error}") from error
    if not rows or not {"label", text} <= rows[0].keys():
        raise InvalidInput(f"The labels {str(path)!r} need the columns label and {text}, and at least one row.")
    for number, row in enumerate(rows, 1):
        if row["label"] not in ("0", "1") or not row[text]:
            raise InvalidInput(
                f"Row {number} of {str(path)!r} has the label {row['label']!r}; it must be 0 or 1, with a {text}."
            )
    return rows


@dataclass(frozen=True)
class Measures:
    """Counts of right and wrong decisions, and measures of the scores.

    Attributes:
        true_positives: Skeletons for questions with the label 1.
        false_positives: Skeletons for questions with the label 0.
        true_negatives: Direct answers to questions with the label 0.
        false_negatives: Direct answers to questions with the label 1.
        brier: Mean squared distance of scores and labels; None without scores.
        calibration: Expected calibration error: the distance of scores from the share of labels, over ten bins; None
            without scores.
    """

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    brier: float | None = None
    calibration: float | None = None

    @property
    def total(self) -> int:
        """The number of questions."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives

    @property
    def accuracy(self) -> float:
        """The share of decisions that agree with the labels."""
        return (self.true_positives + self.true_negatives) / self.total

    @property
    def precision(self) -> float:
        """The share of skeletons that were right; 0 without skeletons."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """The share of questions with the label 1 that got a skeleton."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)

    @property
    def tversky(self) -> float:
        """The Tversky index: true positives against weighted mistakes."""
        wrong = FALSE_POSITIVE * self.false_positives + FALSE_NEGATIVE * self.false_negatives
        return self.true_positives / (self.true_positives + wrong) if self.true_positives else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All measures as JSON-safe data."""
        counts = (
            ("tp", self.true_positives),
            ("fp", self.false_positives),
            ("tn", self.true_negatives),
            ("fn", self.false_negatives),
        )
        shares = ("accuracy", "precision", "recall", "tversky")
        rounded = {name: round(getattr(self, name), 4) for name in shares}
        for name in ("brier", "calibration"):
            if (value := getattr(self, name)) is not None:
                rounded[name] = round(value, 4)
        return {"questions": self.total, **dict(counts), **rounded}


def measure(decisions: Sequence[bool], labels: Sequence[bool], scores: Sequence[float] | None = None) -> Measures:
    """Measures decisions, and scores if there are any, against labels.

    Example:
        >>> measure([True, True, False], [True, False, False]).to_dict()["accuracy"]
        0.6667
    """
    pairs = list(zip(decisions, labels, strict=True))
    tp, fp, tn, fn = (pairs.count(pair) for pair in ((True, True), (True, False), (False, False), (False, True)))
    if scores is None:
        return Measures(tp, fp, tn, fn)
    brier = sum((score - label) ** 2 for score, label in zip(scores, labels, strict=True)) / len(pairs)
    return Measures(tp, fp, tn, fn, brier, _calibration(scores, labels))


def _calibration(scores: Sequence[float], labels: Sequence[bool]) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for score, label in zip(scores, labels, strict=True):
        bins.setdefault(min(int(score * _BINS), _BINS - 1), []).append((score, label))
    return sum(abs(sum(s for s, _ in of) - sum(label for _, label in of)) for of in bins.values()) / len(scores)


def majority(labels: Sequence[bool]) -> Measures:
    """The measures of the baseline that always gives the more frequent answer; any router has to beat it."""
    frequent = 2 * sum(labels) > len(labels)
    return measure([frequent] * len(labels), labels)


def best_threshold(scores: Sequence[float], labels: Sequence[bool], *, careful: bool = True) -> float:
    """The threshold with the least weighted error, to two digits; with `careful` the highest of equal thresholds.

    The error is `FALSE_POSITIVE` times the share of questions with the label 0 that get a skeleton, plus
    `FALSE_NEGATIVE` times the share of questions with the label 1 that get none. Shares make it independent of the
    number of questions with either label. Thresholds within half a standard error of the least error count as equal,
    because such a difference is chance. With few questions the standard error is large: use `careful=False` there.
    """
    positives = max(1, sum(labels))
    negatives = max(1, len(labels) - sum(labels))

    def cost(threshold: float) -> tuple[float, float]:
        found = measure([score >= threshold for score in scores], labels)
        hurt, missed = found.false_positives / negatives, found.false_negatives / positives
        spread = (
            FALSE_POSITIVE**2 * hurt * (1 - hurt) / negatives + FALSE_NEGATIVE**2 * missed * (1 - missed) / positives
        )
        return FALSE_POSITIVE * hurt + FALSE_NEGATIVE * missed, spread**0.5

    costs = {step / 100: cost(step / 100) for step in range(5, 96)}
    least, error = min(costs.values())
    error = error / 2 if careful else 0.0
    return max(threshold for threshold, (value, _) in costs.items() if value <= least + error)
