"""Figures of a way's answers that need no judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TypedDict

from skeleton_of_thought.evaluation.intervals import median
from skeleton_of_thought.evaluation.overlap import (
    bare_words,
    compression_ratio,
    distinct,
    shared_trigrams,
    similarity,
    title_echo,
)
from skeleton_of_thought.evaluation.rows import PointRow, Row
from skeleton_of_thought.evaluation.speed import Middle, middle, newest, pairs_of, ratio
from skeleton_of_thought.evaluation.vectors import Vectors

__all__ = ["CUT", "Quality", "quality"]

CUT = "length"
"""The finish reason of a text that the limit of tokens cut."""


class Quality(TypedDict):
    """Figures of a way's answers; means are over answers that have the figure, None where none has it.

    Attributes:
        answers: Answers that these figures are of; failed rows are not among them.
        words: Words of an answer: its median over questions.
        words_ratio: Words of the way over words of the base, paired and in the middle like `Speed.ratio_median`; None
            for the base itself.
        words_interval: Its interval at 95 %.
        shared_trigrams: Mean share of word trigrams that stand in two points or more (`overlap.shared_trigrams`), of
            answers with points.
        distinct_1: Mean share of different words among all; it falls with length.
        distinct_2: The same of pairs of words.
        compression: Mean compression ratio: the more a text repeats itself, the higher.
        similarity: Mean cosine of an answer's points to each other; None without vectors.
        points: Points of all answers.
        points_median: Points of an answer, of those with points.
        scoped_points: Points whose plan says what they cover.
        dependent_points: Points that build on others.
        waves: Mean waves of points, one after the other, of answers with points.
        plan_share: Mean share of the answer's seconds in which its skeleton was written, of answers with points.
        title_echo: Share of the points with text, items left out, that begin by repeating their title.
        cut: Points, and direct answers, that the limit of tokens cut.
        cut_answers: Answers with such an end.
        failed_points: Points that failed.
        empty_points: Points without text that did not fail.
        empty_answers: Answers without text.
        merged: Answers that a merge rewrote.
        routes: Answers by route: `"skeleton"`, `"items"`, `"direct"`.
    """

    answers: int
    words: Middle
    words_ratio: float | None
    words_interval: list[float] | None
    shared_trigrams: float | None
    distinct_1: float | None
    distinct_2: float | None
    compression: float | None
    similarity: float | None
    points: int
    points_median: float | None
    scoped_points: int
    dependent_points: int
    waves: float | None
    plan_share: float | None
    title_echo: float | None
    cut: int
    cut_answers: int
    failed_points: int
    empty_points: int
    empty_answers: int
    merged: int
    routes: dict[str, int]


def quality(rows: Iterable[Row], way: str, base: str, *, vectors: Vectors | None = None) -> Quality:
    """Figures of the answers of a way.

    Args:
        rows: All rows of the run, failed and outdated ones too.
        way: The name of the way.
        base: The way whose words are compared.
        vectors: The vectors of the points' texts (`vectors.vectors_of`); None for no similarity.
    """
    counted = [row for row in newest(rows) if row.ok and row.way in (way, base)]
    answers = [row for row in counted if row.way == way]
    words = {text: bare_words(text) for text in dict.fromkeys(row.text for row in counted)}
    points = [point for row in answers for point in row.points]
    sizes = [len(row.points) for row in answers if row.points]
    words_ratio, words_interval = (
        (None, None)
        if way == base
        else ratio(pairs_of(counted, way, base), lambda pair: _over(len(words[pair[0].text]), len(words[pair[1].text])))
    )
    return {
        "answers": len(answers),
        "words": middle(answers, lambda row: len(words[row.text])),
        "words_ratio": words_ratio,
        "words_interval": words_interval,
        "shared_trigrams": _mean(shared_trigrams(point.text for point in row.points) for row in answers),
        "distinct_1": _mean(distinct(words[row.text], 1) for row in answers),
        "distinct_2": _mean(distinct(words[row.text], 2) for row in answers),
        "compression": _mean(compression_ratio(row.text) for row in answers),
        "similarity": None if vectors is None else _mean(_similarity(row, vectors) for row in answers),
        "points": len(points),
        "points_median": median(sizes) if sizes else None,
        "scoped_points": sum(bool(point.scope) for point in points),
        "dependent_points": sum(bool(point.depends_on) for point in points),
        "waves": _mean(max(point.wave for point in row.points) for row in answers if row.points),
        "plan_share": _mean(map(_plan_share, answers)),
        "title_echo": _mean(title_echo(point) for row in answers for point in _titled(row)),
        "cut": sum(map(_cuts, answers)),
        "cut_answers": sum(_cuts(row) > 0 for row in answers),
        "failed_points": sum(bool(point.error) for point in points),
        "empty_points": sum(not point.error and not _written(point) for point in points),
        "empty_answers": sum(not row.text.strip() for row in answers),
        "merged": sum(row.merged for row in answers),
        "routes": dict(Counter(row.route for row in answers)),
    }


def _cuts(row: Row) -> int:
    """The texts of an answer that were cut; a skeleton or a merge that was cut shows in the answer alone."""
    return sum(point.finish_reason == CUT for point in row.points) or int(row.finish_reason == CUT)


def _plan_share(row: Row) -> float | None:
    start, end, _ = row.stages.get("skeleton", (0.0, 0.0, None))
    return _over(end - start, row.seconds) if row.points else None


def _titled(row: Row) -> list[PointRow]:
    """The points with text that have a title of their own; that of an item is the question's."""
    return [] if row.route == "items" else [point for point in row.points if _written(point)]


def _written(point: PointRow) -> bool:
    return bool(point.text.strip())


def _similarity(row: Row, vectors: Vectors) -> float | None:
    return similarity([vectors[point.text] for point in row.points if point.text in vectors])


def _over(above: float, below: float) -> float | None:
    return above / below if above > 0 and below > 0 else None


def _mean(found: Iterable[float | None]) -> float | None:
    values: Sequence[float] = [value for value in found if value is not None]
    return fmean(values) if values else None
