"""How long each way takes, and how many times faster it is than another on the same questions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypedDict

from skeleton_of_thought.evaluation.intervals import bootstrap, median, middle_ratio, wilson
from skeleton_of_thought.evaluation.rows import Row

__all__ = [
    "Middle",
    "Part",
    "QuestionSpeed",
    "Speed",
    "Summary",
    "middle",
    "newest",
    "pairs_of",
    "ratio",
    "speed",
    "summary",
]

Pair = tuple[Row, Row]
"""The answer of a way and that of the base, to the same question and repeat."""
Place = tuple[int, str]
"""A question: its number and its text."""


class Middle(TypedDict):
    """A median over questions.

    Attributes:
        median: None where no answer has the figure.
        interval: The lower and upper end at 95 %; None for fewer than two questions.
        questions: How many questions it is of.
    """

    median: float | None
    interval: list[float] | None
    questions: int


class Part(TypedDict):
    """Speed-ups over some questions: above 1, the way is faster than the base.

    Attributes:
        questions: Questions with a pair of answers.
        pairs: Pairs of answers, one for each repeat.
        ratio_median: Seconds of the base over seconds of the way. The ratio of a question is the middle of its repeats,
            and this is the middle over questions (`intervals.middle_ratio`). None without a pair.
        interval: Of `ratio_median`, at 95 %; None for fewer than two questions.
        ratio_equal_length: The same of seconds per token of the answer's text.
        interval_equal_length: Its interval.
        ratio_first_text: The same of the seconds to the first text.
        interval_first_text: Its interval.
    """

    questions: int
    pairs: int
    ratio_median: float | None
    interval: list[float] | None
    ratio_equal_length: float | None
    interval_equal_length: list[float] | None
    ratio_first_text: float | None
    interval_first_text: list[float] | None


class QuestionSpeed(TypedDict):
    """The speed-up on one question, as in `Part`; `seconds` and `base_seconds` are medians of its repeats."""

    number: int
    id: str
    question: str
    category: str
    routes: list[str]
    pairs: int
    seconds: float
    base_seconds: float
    ratio: float | None
    ratio_equal_length: float | None
    ratio_first_text: float | None


class Speed(Part):
    """The speed-up of a way.

    Attributes:
        way: The way.
        base: The way it is compared to.
        unpaired: Repeats of questions without a pair: an answer failed, or is missing.
        faster: Questions on which it was faster.
        faster_share: Their share of the questions.
        faster_interval: Wilson's interval of the share, at 95 %; None for fewer than two questions.
        by_category: The same for each category of the file; empty where no question has one.
        by_route: The same for the answers that took each route.
        by_question: In the order of the questions.
    """

    way: str
    base: str
    unpaired: int
    faster: int
    faster_share: float | None
    faster_interval: list[float] | None
    by_category: dict[str, Part]
    by_route: dict[str, Part]
    by_question: list[QuestionSpeed]


class Summary(TypedDict):
    """What the answers of a way took: medians over questions of the medians of each question's repeats.

    Attributes:
        answers: Answers that these figures are of.
        failed: Rows without an answer. No figure but this holds them.
        questions: Questions with an answer.
        estimated: Answers whose tokens are estimated.
        tokens_per_second: Tokens that all calls wrote, per second.
        answer_tokens_per_second: Tokens of the answer's text alone, per second.
    """

    answers: int
    failed: int
    questions: int
    estimated: int
    seconds: Middle
    first_text: Middle
    input_tokens: Middle
    cached_tokens: Middle
    output_tokens: Middle
    answer_tokens: Middle
    calls: Middle
    tokens_per_second: Middle
    answer_tokens_per_second: Middle


def newest(rows: Iterable[Row]) -> list[Row]:
    """The rows that count: the last of each key, and of each question, way and repeat, by question, repeat and way.

    Ways keep the order in which they first come.
    """
    rows = list(rows)
    by_key = _last(rows, lambda row: row.key)
    # A question whose settings changed has several keys.
    last = _last(by_key.values(), lambda row: (row.number, row.question, row.way, row.repeat))
    places = {way: place for place, way in enumerate(dict.fromkeys(row.way for row in rows))}
    return sorted(last.values(), key=lambda row: (row.number, row.question, row.repeat, places[row.way]))


def pairs_of(rows: Iterable[Row], way: str, base: str) -> list[Pair]:
    """Answers of both ways to the same question (number, text) and repeat; without those where either failed."""
    counted = [row for row in newest(rows) if row.ok]
    bases = {(row.number, row.question, row.repeat): row for row in counted if row.way == base}
    found = ((row, bases.get((row.number, row.question, row.repeat))) for row in counted if row.way == way)
    return [(row, other) for row, other in found if other is not None]


def speed(rows: Iterable[Row], way: str, base: str = "normal") -> Speed:
    """The speed-up of a way over the base, from answers to the same questions.

    Args:
        rows: All rows of the run, failed and outdated ones too.
        way: The name of the way.
        base: The name of the way to compare it to.
    """
    rows = newest(rows)
    pairs = pairs_of(rows, way, base)
    places = {(*_place(row), row.repeat) for row in rows if row.way in (way, base)}
    grouped: dict[Place, list[Pair]] = {}
    for pair in pairs:
        grouped.setdefault((pair[0].number, pair[0].question), []).append(pair)
    questions = [_question(each) for each in grouped.values()]
    ratios = [each["ratio"] for each in questions if each["ratio"] is not None]
    faster = sum(ratio > 1 for ratio in ratios)
    interval = wilson(faster, len(ratios)) if len(ratios) > 1 else None
    return {
        **_part(pairs),
        "way": way,
        "base": base,
        "unpaired": len(places) - len(pairs),
        "faster": faster,
        "faster_share": faster / len(ratios) if ratios else None,
        "faster_interval": None if interval is None else list(interval),
        "by_category": _parts(pairs, lambda pair: pair[0].category) if any(pair[0].category for pair in pairs) else {},
        "by_route": _parts(pairs, lambda pair: pair[0].route),
        "by_question": questions,
    }


def summary(rows: Iterable[Row], way: str) -> Summary:
    """What the answers of a way took.

    Args:
        rows: All rows of the run, failed and outdated ones too.
        way: The name of the way.
    """
    mine = [row for row in newest(rows) if row.way == way]
    answers = [row for row in mine if row.ok]
    return {
        "answers": len(answers),
        "failed": len(mine) - len(answers),
        "questions": len({_place(row) for row in answers}),
        "estimated": sum(row.tokens_estimated for row in answers),
        "seconds": middle(answers, lambda row: row.seconds),
        "first_text": middle(answers, lambda row: row.first_text),
        "input_tokens": middle(answers, lambda row: row.input_tokens),
        "cached_tokens": middle(answers, lambda row: row.cached_tokens),
        "output_tokens": middle(answers, lambda row: row.output_tokens),
        "answer_tokens": middle(answers, lambda row: row.answer_tokens),
        "calls": middle(answers, lambda row: row.calls),
        "tokens_per_second": middle(answers, lambda row: _over(row.output_tokens, row.seconds)),
        "answer_tokens_per_second": middle(answers, lambda row: _over(row.answer_tokens, row.seconds)),
    }


def middle(answers: Sequence[Row], measure: Callable[[Row], float | None]) -> Middle:
    """The median over questions of a measure of answers; answers for which it is None are left out."""
    found = ((_place(row), value) for row in answers if (value := measure(row)) is not None)
    values = _per_question(found, median)
    interval = bootstrap(values, median)
    return {
        "median": median(values) if values else None,
        "interval": None if interval is None else list(interval),
        "questions": len(values),
    }


def _per_question(found: Iterable[tuple[Place, float]], statistic: Callable[[Sequence[float]], float]) -> list[float]:
    """One value for each question, that of its repeats: the bootstrap draws questions with all their repeats."""
    groups: dict[Place, list[float]] = {}
    for place, value in found:
        groups.setdefault(place, []).append(value)
    return [statistic(group) for group in groups.values()]


def _last(rows: Iterable[Row], name: Callable[[Row], Hashable]) -> dict[Hashable, Row]:
    """The last row of each name, in the order of these rows."""
    found: dict[Hashable, Row] = {}
    for row in rows:
        found.pop(name(row), None)
        found[name(row)] = row
    return found


def _place(row: Row) -> Place:
    return row.number, row.question


def _over(above: float, below: float) -> float | None:
    return above / below if above > 0 and below > 0 else None


def _ratio(pair: Pair) -> float | None:
    way, base = pair
    return _over(base.seconds, way.seconds)


def _ratio_equal_length(pair: Pair) -> float | None:
    costs = [_over(row.seconds, row.answer_tokens) for row in pair]
    return None if costs[0] is None or costs[1] is None else costs[1] / costs[0]


def _ratio_first_text(pair: Pair) -> float | None:
    way, base = pair
    return _over(base.first_text or 0.0, way.first_text or 0.0)


def ratio(pairs: Sequence[Pair], measure: Callable[[Pair], float | None]) -> tuple[float | None, list[float] | None]:
    """The middle over questions of a ratio of pairs, and its interval; pairs for which it is None are left out."""
    found = ((_place(pair[0]), value) for pair in pairs if (value := measure(pair)) is not None)
    values = _per_question(found, middle_ratio)
    interval = bootstrap(values, middle_ratio)
    return middle_ratio(values) if values else None, None if interval is None else list(interval)


def _part(pairs: Sequence[Pair]) -> Part:
    as_came, interval = ratio(pairs, _ratio)
    equal, interval_equal = ratio(pairs, _ratio_equal_length)
    first, interval_first = ratio(pairs, _ratio_first_text)
    return {
        "questions": len({_place(pair[0]) for pair in pairs}),
        "pairs": len(pairs),
        "ratio_median": as_came,
        "interval": interval,
        "ratio_equal_length": equal,
        "interval_equal_length": interval_equal,
        "ratio_first_text": first,
        "interval_first_text": interval_first,
    }


def _parts(pairs: Iterable[Pair], name: Callable[[Pair], str]) -> dict[str, Part]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(name(pair), []).append(pair)
    return {key: _part(group) for key, group in groups.items()}


def _question(pairs: Sequence[Pair]) -> QuestionSpeed:
    row = pairs[0][0]
    return {
        "number": row.number,
        "id": row.id,
        "question": row.question,
        "category": row.category,
        "routes": list(dict.fromkeys(pair[0].route for pair in pairs)),
        "pairs": len(pairs),
        "seconds": median([pair[0].seconds for pair in pairs]),
        "base_seconds": median([pair[1].seconds for pair in pairs]),
        "ratio": ratio(pairs, _ratio)[0],
        "ratio_equal_length": ratio(pairs, _ratio_equal_length)[0],
        "ratio_first_text": ratio(pairs, _ratio_first_text)[0],
    }
