"""Training of the embedded router: a logistic regression in plain Python, reproducible and without dependencies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.embedded import BUCKETS, Weights, features, sigmoid
from skeleton_of_thought.routers.measures import (
    LabelledQuestion,
    LabelledTask,
    Measures,
    best_threshold,
    majority,
    measure,
)
from skeleton_of_thought.routers.question import find_question, read_question
from skeleton_of_thought.routers.tasks import instruction_features, instructions

__all__ = ["Trained", "train_embedded", "train_tasks"]

_EPOCHS = 12
_RATE = 0.15
_DECAY = 4.0
"""The strength of weight decay over one pass through all questions."""
_FOLDS = 5
_LEAST = 2
"""A feature counts if at least this many questions have it."""

_Example = tuple[tuple[tuple[int, float], ...], float]
"""The features of a question, and its label."""


@dataclass(frozen=True)
class Trained:
    """Trained weights and their cross-validation, in which no model decides a question that it was trained on.

    Attributes:
        weights: The weights of a model trained on all questions.
        by_source: The measures of the router and of the majority baseline for each source of labels.
    """

    weights: Weights
    by_source: dict[str, tuple[Measures, Measures]]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON-safe data."""
        return {
            "threshold": self.weights.threshold,
            "cross_validation": {
                source: {"router": router.to_dict(), "majority": baseline.to_dict()}
                for source, (router, baseline) in self.by_source.items()
            },
        }


def train_embedded(
    sources: Mapping[str, Sequence[LabelledQuestion]], *, seed: int = 0, report: Callable[[str], None] | None = None
) -> Trained:
    """Trains on all sources together; threshold and calibration come from cross-validation on them.

    Args:
        sources: Labelled questions by the name of their source.
        seed: Seed for the order of questions and for the folds.
        report: Called with a line of text before each step.

    Raises:
        InvalidInput: There are fewer than five questions with either label.
    """
    report = report or (lambda line: None)
    labelled = [(name, one) for name, of in sources.items() for one in of]
    rows = [_row(one) for _, one in labelled]
    labels = [one.use_skeleton for _, one in labelled]
    if min(sum(labels), len(labels) - sum(labels)) < _FOLDS:
        raise InvalidInput(f"Training needs at least {_FOLDS} questions of either label.")
    sums = [0.0] * len(rows)
    for number, (seen, held) in enumerate(_folds(labels, seed), 1):
        report(f"cross-validation, fold {number} of {_FOLDS}")
        model = _fit([row for i in seen for row in _variants(labelled[i][1], rows[i])], seed)
        for i in held:
            sums[i] = model.sum(rows[i][0])
    sizes = Counter(name for name, _ in labelled)
    slope, offset = _calibrate(sums, labels, [len(rows) / len(sizes) / sizes[name] for name, _ in labelled])
    scores = [sigmoid(slope * total + offset) for total in sums]
    threshold = best_threshold(scores, labels)
    report("all questions together")
    model = _fit([row for (_, one), row in zip(labelled, rows, strict=True) for row in _variants(one, row)], seed)
    by_source = {}
    for name in sources:
        of = [i for i, (source, _) in enumerate(labelled) if source == name]
        mine = [labels[i] for i in of]
        decided = measure([scores[i] >= threshold for i in of], mine, [scores[i] for i in of])
        by_source[name] = (decided, majority(mine))
    about = {"questions": len(rows), "seed": seed}
    return Trained(model.weights(slope, offset, threshold, about), by_source)


def _row(one: LabelledQuestion, *, follows: bool = False) -> _Example:
    return tuple(features(read_question(one.question), follows=follows)), float(one.use_skeleton)


def _variants(one: LabelledQuestion, row: _Example) -> Iterator[_Example]:
    """The question by itself, and, if its form is labelled, the same question after an earlier answer.

    The second one teaches that most questions in a dialogue need no earlier answer.
    """
    yield row
    if one.form:
        yield _row(one, follows=True)


def _folds(labels: Sequence[bool], seed: int) -> Iterator[tuple[list[int], list[int]]]:
    order = random.Random(seed).sample(range(len(labels)), len(labels))
    order.sort(key=lambda i: labels[i])  # stable: both labels are spread over all folds
    for fold in range(_FOLDS):
        yield [i for n, i in enumerate(order) if n % _FOLDS != fold], order[fold::_FOLDS]


@dataclass
class _Model:
    values: list[float]
    bias: float

    def sum(self, row: Sequence[tuple[int, float]]) -> float:
        values = self.values
        return self.bias + sum(values[bucket] * value for bucket, value in row)

    def weights(self, slope: float, offset: float, threshold: float, about: dict[str, Any]) -> Weights:
        unit = max(map(abs, self.values)) / 127 or 1.0
        buckets = bytes(round(value / unit) + 128 for value in self.values)
        return Weights(buckets, unit, self.bias, slope, offset, threshold, about)


def _fit(rows: Sequence[_Example], seed: int, decay: float = _DECAY) -> _Model:
    """Stochastic gradient descent with a step size per feature (AdaGrad) and weight decay."""
    counts = Counter(bucket for row, _ in rows for bucket in {bucket for bucket, _ in row})
    used = [(tuple(f for f in row if counts[f[0]] >= _LEAST), label) for row, label in rows]
    model = _Model([0.0] * BUCKETS, 0.0)
    values, squares, bias_square = model.values, [1e-8] * BUCKETS, 1e-8
    shuffler = random.Random(seed)
    # Each question decays the weights of its own features only, so rare features decay as often as they learn.
    pull = {bucket: decay / count for bucket, count in counts.items()}
    for _ in range(_EPOCHS):
        shuffler.shuffle(used)
        for row, label in used:
            error = sigmoid(model.bias + sum(values[bucket] * value for bucket, value in row)) - label
            bias_square += error * error
            model.bias -= _RATE * error / bias_square**0.5
            for bucket, value in row:
                slope = error * value + pull[bucket] * values[bucket]
                squares[bucket] += slope * slope
                values[bucket] -= _RATE * slope / squares[bucket] ** 0.5
    return model


def _calibrate(sums: Sequence[float], labels: Sequence[bool], shares: Sequence[float]) -> tuple[float, float]:
    """Platt's slope and offset, by Newton's method.

    `shares` gives all sources the same weight: the largest may be the easiest, and scores that fit it alone would be
    overconfident on the others.
    """
    slope, offset = 1.0, 0.0
    for _ in range(50):
        g0 = g1 = h00 = h01 = h11 = 0.0
        for total, label, share in zip(sums, labels, shares, strict=True):
            p = sigmoid(slope * total + offset)
            d, w = share * (p - label), share * max(p * (1 - p), 1e-9)
            g0, g1 = g0 + d * total, g1 + d
            h00, h01, h11 = h00 + w * total * total, h01 + w * total, h11 + w
        determinant = h00 * h11 - h01 * h01
        if determinant < 1e-12:
            break
        slope -= (h11 * g0 - h01 * g1) / determinant
        offset -= (h00 * g1 - h01 * g0) / determinant
    return slope, offset


# --- instructions ---------------------------------------------------------------------------------

_TASK_DECAY = 2.0
"""Weaker than `_DECAY`: the words of instructions repeat more than those of questions."""


def train_tasks(tasks: Sequence[LabelledTask], *, threshold: float = 0.55, seed: int = 0) -> Weights:
    """Trains the weights of `tasks.bin`: the probability that instructions ask for something else than an answer.

    Args:
        tasks: Labelled prompts with instructions. Prompts without any teach nothing.
        threshold: The lowest probability that means a direct answer.
        seed: Seed for the order and for the pairs.
    """
    given = [(of, one.use_skeleton) for one in tasks if (of := instructions_of(one)) is not None]
    rows = [(tuple(instruction_features(*of)), 1.0 - label) for of, label in given]
    by_label = {label: [of for of, other in given if other is label] for label in (True, False)}
    chance = random.Random(seed)
    # A persona before a task leaves a task, and two personas are still none: a long text does not decide by its length.
    for _ in range(len(given)):
        label = chance.random() < 0.5
        (first, _), (second, end) = chance.choice(by_label[True]), chance.choice(by_label[label])
        lines = [*first, *second] if chance.random() < 0.5 else [*second, *first]
        rows.append((tuple(instruction_features(lines, end)), 1.0 - label))
    return _fit(rows, seed, _TASK_DECAY).weights(1.0, 0.0, threshold, {"prompts": len(tasks), "seed": seed})


def instructions_of(task: LabelledTask) -> tuple[list[str], str] | None:
    """The instructions of a labelled prompt, see `tasks.instructions`; None if there are none."""
    text = task.prompt.strip()
    asked = find_question(text)
    around = text if asked != text or text.endswith((":", "：")) else ""
    return instructions([task.system] if task.system else [], around, asked) if task.system or around else None
