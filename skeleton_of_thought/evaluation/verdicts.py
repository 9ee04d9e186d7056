"""Verdicts on two answers to the same question, by a judge or a person, and how many each way has won."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.intervals import Interval, wilson

__all__ = [
    "FORMS",
    "FORM_WORDS",
    "HUMAN",
    "TIE",
    "Form",
    "QuestionTally",
    "Tally",
    "Verdict",
    "from_json",
    "newest",
    "share_interval",
    "tally",
    "to_json",
]

Form = Literal["written", "plain"]
FORMS: tuple[Form, ...] = get_args(Form)
"""How the answers are shown: as they were written, or as plain paragraphs without marks (`forms.plain`)."""
FORM_WORDS = {"written": "as written", "plain": "as plain paragraphs"}
"""The forms for readers."""
TIE = "tie"
HUMAN = "human"
"""The judge of votes."""


@dataclass(frozen=True)
class Verdict:
    """One try of a verdict.

    Attributes:
        key: What was judged: both texts, judge, prompt, form, order.
        number: The question's number.
        id: The file's own name for the question.
        a: One way.
        b: The other way.
        first: The way whose answer was shown first; empty where that is unknown.
        form: How the answers were shown.
        judge: The judge's model, or `HUMAN`.
        winner: A way, `TIE`, or empty for none: the judge failed, or its reply could not be read twice.
        repeat: Which repeat of the answers.
        category: The question's category.
        reason: The judge's reasons.
        error: Why there is none, in one line.
        tries: The replies that were asked for.
        calls: The calls opened.
        input_tokens: Tokens of the judge's prompts.
        cached_tokens: Those of them that its server had computed before.
        output_tokens: Tokens of its replies.
        seconds: How long it took.
        at: When it began, UTC, ISO 8601.
    """

    key: str
    number: int
    id: str
    a: str
    b: str
    first: str
    form: str
    judge: str
    winner: str
    repeat: int = 1
    category: str = ""
    reason: str = ""
    error: str = ""
    tries: int = 1
    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    at: str = ""


_FIELDS = {each.name for each in dataclasses.fields(Verdict)}


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data for `json.dumps`."""
    return dataclasses.asdict(verdict)


def from_json(data: Mapping[str, Any]) -> Verdict:
    """The verdict of plain data. Fields that are not known are left out.

    Raises:
        InvalidInput: A field is missing.
    """
    try:
        return Verdict(**{name: value for name, value in data.items() if name in _FIELDS})
    except TypeError as error:
        raise InvalidInput(f"a verdict has fields of another form: {error}") from error


# --- counts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuestionTally:
    """What the verdicts on a question say. Repeats of its answers share its weight of 1.

    Attributes:
        number: The question's number.
        id: The file's own name for it.
        category: Its category.
        score: 1 if `a` won, 0 if `b` won, 1/2 for a tie; the mean of its repeats.
        wins: The share of its repeats that `a` won.
        losses: The share that `b` won.
        ties: The share of ties.
        flips: Its repeats where the winner changed with the order.
    """

    number: int
    id: str
    category: str
    score: float
    wins: float
    losses: float
    ties: float
    flips: int


@dataclass(frozen=True)
class Tally:
    """How often `a` won against `b`.

    Both orders of two answers count as one: the way that wins in both has won; otherwise it is a tie. Where only one
    order has a verdict, that one counts.

    Attributes:
        a: One way.
        b: The other way.
        questions: The questions with a verdict.
        wins: Of them, those that `a` won; a fraction where repeats differ.
        losses: Those that `b` won.
        ties: The others.
        rate: `(wins + ties / 2) / questions`; None without questions.
        interval: Its interval at 95 %, over questions; None without questions.
        pairs: Pairs of answers with a verdict in both orders.
        flips: Of them, those where the order changed the winner.
        half_flips: Of them, those with a winner in one order and a tie in the other.
        single: Pairs of answers with a verdict in one order only, or in an order that is unknown, as votes have.
        none: Verdicts that could not be had.
        decided: Verdicts for one of the two, in a known order.
        first_place: Of them, the share for the answer that was shown first; None if there are none. A fair judge has
            1/2 where both orders were asked.
        first_place_interval: Its interval at 95 %, over questions.
        by_question: The questions with a verdict, in their order.
    """

    a: str
    b: str
    questions: int
    wins: float
    losses: float
    ties: float
    rate: float | None
    interval: Interval | None
    pairs: int
    flips: int
    half_flips: int
    single: int
    none: int
    decided: int
    first_place: float | None
    first_place_interval: Interval | None
    by_question: tuple[QuestionTally, ...]


def newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts that count: the last on each pair of answers in each form and order of a judge, and each vote."""
    last: dict[tuple[Any, ...], Verdict] = {}
    for each in verdicts:
        name: tuple[Any, ...] = (each.judge, each.key)
        if each.judge != HUMAN:
            name = (each.judge, each.form, each.a, each.b, each.first, each.number, each.repeat)
        last.pop(name, None)
        last[name] = each
    return list(last.values())


def tally(verdicts: Iterable[Verdict], a: str, b: str, *, form: str, judge: str) -> Tally:
    """Counts the verdicts of one judge on two ways.

    Args:
        verdicts: All verdicts. Those of other judges, forms and ways are left out; of several tries the last counts.
        a: A way.
        b: Another one; verdicts that name the two in the other order count, too.
        form: How the answers were shown.
        judge: The judge's name.
    """
    mine = [
        each for each in newest(verdicts) if (each.judge, each.form) == (judge, form) and {each.a, each.b} == {a, b}
    ]
    valid = [each for each in mine if each.winner in (a, b, TIE)]
    by_question: dict[int, dict[int, list[Verdict]]] = {}
    for each in valid:
        by_question.setdefault(each.number, {}).setdefault(each.repeat, []).append(each)
    questions: list[QuestionTally] = []
    pairs = flips = half_flips = single = 0
    for number, repeats in sorted(by_question.items()):
        outcomes: list[float] = []
        flips_before = flips
        for found in repeats.values():
            orders = [_mean_score(found, a, first) for first in (a, b)]
            if None in orders:
                single += 1
                outcomes.append(statistics.fmean(_score(each, a) for each in found))
                continue
            one, other = sorted(_winner(score) for score in orders if score is not None)
            pairs += 1
            flips += (one, other) == (0, 1)
            half_flips += one != other and 0.5 in (one, other)
            outcomes.append(one if one == other else 0.5)
        each = next(iter(repeats.values()))[0]
        wins, losses = (sum(_winner(outcome) == won for outcome in outcomes) / len(outcomes) for won in (1, 0))
        questions.append(
            QuestionTally(
                number,
                each.id,
                each.category,
                wins + (1 - wins - losses) / 2,
                wins,
                losses,
                1 - wins - losses,
                flips - flips_before,
            )
        )
    scores = [question.score for question in questions]
    shares = _first_shares(valid, a, b)
    decided = [each for each in valid if each.winner != TIE and each.first in (a, b)]
    first = sum(each.winner == each.first for each in decided) / len(decided) if decided else None
    return Tally(
        a=a,
        b=b,
        questions=len(questions),
        wins=sum(question.wins for question in questions),
        losses=sum(question.losses for question in questions),
        ties=sum(question.ties for question in questions),
        rate=statistics.fmean(scores) if scores else None,
        interval=share_interval(scores),
        pairs=pairs,
        flips=flips,
        half_flips=half_flips,
        single=single,
        none=len(mine) - len(valid),
        decided=len(decided),
        first_place=first,
        first_place_interval=share_interval(shares, first),
        by_question=tuple(questions),
    )


def _score(verdict: Verdict, a: str) -> float:
    return 0.5 if verdict.winner == TIE else float(verdict.winner == a)


def _mean_score(verdicts: Sequence[Verdict], a: str, first: str) -> float | None:
    scores = [_score(each, a) for each in verdicts if each.first == first]
    return statistics.fmean(scores) if scores else None


def _winner(score: float) -> float:
    return 0.5 if score == 0.5 else float(score > 0.5)


def _first_shares(verdicts: Iterable[Verdict], a: str, b: str) -> list[float]:
    """For each question with decided verdicts: the share of them for the answer that was shown first."""
    found: dict[int, list[bool]] = {}
    for each in verdicts:
        if each.winner != TIE and each.first in (a, b):
            found.setdefault(each.number, []).append(each.winner == each.first)
    return [statistics.fmean(each) for each in found.values()]


_PRIOR = 2
"""Questions with the spread of wins and losses that are added where most are ties, which have no spread."""


def share_interval(values: Sequence[float], share: float | None = None) -> Interval | None:
    """The interval at 95 % of a mean of values from 0 to 1: Wilson's, at as many questions as the spread is worth.

    With wins and losses alone it is Wilson's interval itself. Ties make it narrower. It keeps a width where all agree.

    Args:
        values: One for each question.
        share: The mean, if it is another than that of the values.
    """
    if not values:
        return None
    number = len(values)
    share = statistics.fmean(values) if share is None else share
    most = share * (1 - share)
    if most <= 0:
        low, high = wilson(share * number, number) or (0.0, 1.0)
        return (low, 1.0) if share else (0.0, high)
    spread = (statistics.pvariance(values) * number + most * _PRIOR) / (number + _PRIOR)
    worth = max(1, round(number * most / spread))
    return wilson(share * worth, worth)
