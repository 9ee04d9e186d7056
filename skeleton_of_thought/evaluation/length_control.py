"""Win rates without what judges are biased by: the length of an answer, its marks, and the place where it is shown.

A logistic model says how likely `a` wins from the way itself (the intercept), the order, and the difference of the
answers in length or in marks. Its win rate where these differences are zero is the controlled one. AlpacaEval 2 and
Arena-Hard have the idea; the model here also uses the verdicts on plain paragraphs, which have no marks, so that it can
tell the way from its marks even where all of its answers are lists.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from skeleton_of_thought.evaluation.forms import Marks, marks
from skeleton_of_thought.evaluation.intervals import Interval
from skeleton_of_thought.evaluation.judging import shown
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.verdicts import TIE, Verdict, newest
from skeleton_of_thought.text.words import plain, words_of

__all__ = ["Controlled", "ControlledRate", "Logistic", "Observation", "control", "fit"]

_RIDGE = 0.05
"""Pulls each coefficient towards 0, so that verdicts that the model can tell apart completely have finite ones."""
_STEPS = 60
_LEVEL = 0.95
_SPARE = 4
"""Questions that there must be beyond the coefficients."""
_MARKS = ("items", "headings", "bold")


@dataclass(frozen=True)
class Observation:
    """What a verdict tells the model.

    Attributes:
        question: The question's number: verdicts on the same one resemble each other.
        score: 1 if `a` won, 0 if `b` won, 1/2 for a tie.
        causes: The order and the differences of the answers, by name; 0 means no difference.
    """

    question: int
    score: float
    causes: Mapping[str, float]


@dataclass(frozen=True)
class Logistic:
    """A fitted model.

    Attributes:
        names: Its coefficients, `"way"` (the intercept) first.
        values: Their values, as logarithms of odds.
        error: The standard error of the first.
        freedom: Questions less coefficients.
    """

    names: tuple[str, ...]
    values: tuple[float, ...]
    error: float
    freedom: int

    @property
    def rate(self) -> float:
        """The probability that `a` wins where nothing else differs."""
        return _chance(self.values[0])

    @property
    def interval(self) -> Interval:
        """Its interval at 95 %."""
        normal = statistics.NormalDist().inv_cdf((1 + _LEVEL) / 2)
        # Close to the quantile of Student's distribution.
        reach = normal * (1 + (normal * normal + 1) / (4 * self.freedom)) * self.error
        return _chance(self.values[0] - reach), _chance(self.values[0] + reach)


@dataclass(frozen=True)
class ControlledRate:
    """A win rate with a control.

    Attributes:
        rate: The win rate of `a` where nothing else differs; None if the verdicts do not say.
        interval: Its interval at 95 %, over questions.
        questions: The questions with a verdict.
        effects: What else the model found, as logarithms of odds: `"order"` for the answer shown first; `"longer"` for
            the longer one and `"length"` more for one that is much longer; `"items"`, `"headings"` and `"bold"` for one
            that alone has them.
        why: Why there is no rate; empty if there is one.
    """

    rate: float | None
    interval: Interval | None
    questions: int
    effects: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Controlled:
    """The controlled win rates of `a` against `b`.

    Attributes:
        length: At equal length, from the verdicts on the answers as written (or as shown, if there are no such).
        style: With the same marks of lists, headings and bold text, from the verdicts on both forms.
        both: At equal length and with the same marks, from the verdicts on both forms.
    """

    length: ControlledRate
    style: ControlledRate
    both: ControlledRate


def control(rows: Iterable[Row], verdicts: Iterable[Verdict], a: str, b: str, *, judge: str) -> Controlled:
    """The controlled win rates of two ways.

    Args:
        rows: The answers that were judged; of several tries the last counts.
        verdicts: All verdicts; those of other judges and ways are left out.
        a: A way.
        b: Another one.
        judge: The judge's name.
    """
    answers = {(row.number, row.repeat, row.way): row for row in rows if row.ok and row.way in (a, b)}
    texts = {(*key, form): shown(row, form) for key, row in answers.items() for form in ("written", "plain")}
    # Marks of lists and headings are no words.
    words = {key: len(plain(words_of(text))) for key, text in texts.items()}
    counted = {key: marks(text) for key, text in texts.items() if key[-1] == "written"}
    valid = [
        each
        for each in newest(verdicts)
        if each.judge == judge
        and {each.a, each.b} == {a, b}
        and each.winner in (a, b, TIE)
        and all((each.number, each.repeat, way) in answers for way in (a, b))
    ]
    form = "written" if any(each.form == "written" for each in valid) else "plain"
    by_length: list[Observation] = []
    by_style: list[Observation] = []
    by_both: list[Observation] = []
    for each in valid:
        one, other = ((each.number, each.repeat, way, each.form) for way in (a, b))
        score = 0.5 if each.winner == TIE else float(each.winner == a)
        order = {"order": {a: 1.0, b: -1.0}.get(each.first, 0.0)}
        length = {"length": float(words[one] - words[other])}
        if each.form == form:
            by_length.append(Observation(each.number, score, order | length))
        signs = _differences(counted[one], counted[other]) if each.form == "written" else dict.fromkeys(_MARKS, 0.0)
        by_style.append(Observation(each.number, score, order | signs))
        by_both.append(Observation(each.number, score, order | signs | length))
    return Controlled(_rate(_scaled(by_length)), _rate(by_style), _rate(_scaled(by_both)))


def _differences(one: Marks, other: Marks) -> dict[str, float]:
    """From -1 (only the other answer has such marks) to 1."""
    counts = {name: (getattr(one, name), getattr(other, name)) for name in _MARKS}
    return {name: (left - right) / max(1, left + right) for name, (left, right) in counts.items()}


def _scaled(observations: Sequence[Observation]) -> list[Observation]:
    """The observations with the difference of the lengths as two causes: which answer is longer, and how much.

    A judge may prefer the longer answer at any difference. One cause for both would take such a preference for one of
    the way that usually writes more. "How much" is in units of the usual difference, from -1 to 1.
    """
    usual = math.sqrt(statistics.fmean(each.causes["length"] ** 2 for each in observations)) if observations else 0.0
    found = []
    for each in observations:
        words = each.causes["length"]
        longer = math.copysign(1.0, words) if words else 0.0
        much = math.tanh(words / usual) if usual else 0.0
        found.append(Observation(each.question, each.score, {**each.causes, "longer": longer, "length": much}))
    return found


def _rate(observations: Sequence[Observation]) -> ControlledRate:
    questions = len({each.question for each in observations})
    names = [
        name
        for name in (observations[0].causes if observations else ())
        if any(each.causes[name] for each in observations)
    ]
    if stuck := [name for name in names if _is_constant([each.causes[name] for each in observations])]:
        why = (
            f"The answers always differ in the same way ({', '.join(stuck)}), so the verdicts do not tell what it does."
        )
        return ControlledRate(None, None, questions, why=why)
    needed = 1 + len(names) + _SPARE
    if questions < needed:
        return ControlledRate(None, None, questions, why=f"It takes verdicts on {needed} questions.")
    model = fit(observations, names)
    low, high = model.interval
    scores = {each.score for each in observations}
    # Verdicts that all agree do not rule out that the way always wins.
    interval = (0.0 if scores == {0.0} else low, 1.0 if scores == {1.0} else high)
    effects = dict(zip(model.names[1:], model.values[1:], strict=True))
    return ControlledRate(model.rate, interval, questions, effects)


def _is_constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) < 1e-9


# --- the model ------------------------------------------------------------------------------------------


def fit(observations: Sequence[Observation], names: Sequence[str]) -> Logistic:
    """Fits the model by Newton's method. Each question has the same weight.

    The error is the larger of two: the one that follows from how questions differ from each other, and the one that
    the model expects, which stays honest where all verdicts agree.

    Args:
        observations: At least one.
        names: The causes that the model has beside the way.
    """
    per_question: dict[int, int] = {}
    for each in observations:
        per_question[each.question] = per_question.get(each.question, 0) + 1
    usual = len(observations) / len(per_question)
    data = [
        ((1.0, *(each.causes[name] for name in names)), each.score, usual / per_question[each.question], each.question)
        for each in observations
    ]
    size = 1 + len(names)
    values = [0.0] * size
    for _ in range(_STEPS):
        gradient, curvature = _slopes(data, values)
        step = _solve(curvature, gradient)
        # A step that is too long may jump over the top.
        longest = max(map(abs, step))
        values = [
            value + each * min(1.0, 2.0 / longest) if longest else value
            for value, each in zip(values, step, strict=True)
        ]
        if longest < 1e-9:
            break
    _, curvature = _slopes(data, values)
    first = _solve(curvature, [1.0] + [0.0] * (size - 1))
    pulls: dict[int, float] = {}
    for causes, score, weight, question in data:
        residual = weight * (score - _chance(_dot(causes, values)))
        pulls[question] = pulls.get(question, 0.0) + residual * _dot(causes, first)
    freedom = max(1, len(pulls) - size)
    between = sum(pull * pull for pull in pulls.values()) * len(pulls) / freedom
    return Logistic(("way", *names), tuple(values), math.sqrt(max(between, first[0])), freedom)


_Datum = tuple[tuple[float, ...], float, float, int]


def _slopes(data: Sequence[_Datum], values: Sequence[float]) -> tuple[list[float], list[list[float]]]:
    """The gradient and the curvature of the logarithm of the likelihood, with the ridge."""
    size = len(values)
    gradient = [-_RIDGE * value for value in values]
    curvature = [[_RIDGE if row == column else 0.0 for column in range(size)] for row in range(size)]
    for causes, score, weight, _ in data:
        chance = _chance(_dot(causes, values))
        pull, bend = weight * (score - chance), weight * chance * (1 - chance)
        for row, cause in enumerate(causes):
            gradient[row] += pull * cause
            for column in range(row + 1):
                curvature[row][column] += bend * cause * causes[column]
    for row in range(size):
        for column in range(row):
            curvature[column][row] = curvature[row][column]
    return gradient, curvature


def _chance(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else 1 - 1 / (1 + math.exp(logit))


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(left * right for left, right in zip(one, other, strict=True))


def _solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """The solution of linear equations; the ridge makes the matrix positive definite."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(rows[row][at]))
        rows[at], rows[pivot] = rows[pivot], rows[at]
        for below in range(at + 1, size):
            factor = rows[below][at] / rows[at][at]
            rows[below] = [mine - factor * its for mine, its in zip(rows[below], rows[at], strict=True)]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][column] * found[column] for column in range(at + 1, size))
        found[at] = (rows[at][size] - known) / rows[at][at]
    return found
