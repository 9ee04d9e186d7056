"""All figures of a run, as plain data: what `report.json` holds and the report shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from skeleton_of_thought.evaluation.judged import (
    Controlled,
    JudgedPair,
    controlled_of,
    judge_notes,
    judged_pairs,
    plain_data,
)
from skeleton_of_thought.evaluation.notes import Note, notes_of
from skeleton_of_thought.evaluation.quality import Quality, quality
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.speed import Speed, Summary, newest, speed, summary
from skeleton_of_thought.evaluation.vectors import Vectors
from skeleton_of_thought.evaluation.verdicts import HUMAN, Verdict
from skeleton_of_thought.evaluation.votes import voters

__all__ = ["Failed", "Figures", "Spent", "base_of", "figures_of"]

_NORMAL = "normal"


class Failed(TypedDict):
    """A row that counts and has no answer."""

    number: int
    id: str
    question: str
    way: str
    repeat: int
    error: str


class Spent(TypedDict):
    """What calls took, those of failed and outdated rows and verdicts too.

    Attributes:
        rows: Lines of `rows.jsonl`, or of `verdicts.jsonl`.
        calls: Calls opened.
        input_tokens: Tokens of all prompts.
        cached_tokens: Those of them that the server had computed before.
        output_tokens: Tokens that all calls wrote.
        seconds: The sum of the seconds of all rows.
    """

    rows: int
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds: float


class Figures(TypedDict):
    """All figures of a run. Numbers are not rounded; None (`null`) is a figure that these rows do not have.

    Attributes:
        version: 1.
        manifest: What the run is, as in `manifest.json`.
        ways: Names of the ways, in the order of the run.
        base: The way that the others are compared to; empty where there is no way.
        questions: Questions with a row that counts.
        answers: Rows that count and are answers.
        missing: Answers of the run that no row is of; 0 where the manifest does not say how many there are.
        repeats: The most repeats of a question.
        level: The level of all intervals: 0.95.
        categories: Names of the categories, in the order of the questions; empty where no question has one.
        speed: `speed.Speed` of each way but the base.
        summary: `speed.Summary` of each way.
        quality: `quality.Quality` of each way.
        verdicts: `judged.JudgedPair` of each judge, form and pair of ways.
        voters: How many people voted.
        controlled: `judged.Controlled` of each judge and pair of ways.
        spent: What it took: `"answers"` of all ways, `"way:NAME"` of each, `"judge:NAME"` of each judge.
        failed: The rows that count and have no answer.
        notes: What weakens these figures.
    """

    version: int
    manifest: dict[str, Any]
    ways: list[str]
    base: str
    questions: int
    answers: int
    missing: int
    repeats: int
    level: float
    categories: list[str]
    speed: dict[str, Speed]
    summary: dict[str, Summary]
    quality: dict[str, Quality]
    verdicts: list[JudgedPair]
    voters: int
    controlled: list[Controlled]
    spent: dict[str, Spent]
    failed: list[Failed]
    notes: list[Note]


def base_of(ways: Sequence[str]) -> str:
    """The way that others are compared to: normal, else the first; empty for none."""
    return _NORMAL if _NORMAL in ways else next(iter(ways), "")


def figures_of(
    manifest: Mapping[str, Any],
    rows: Iterable[Row],
    verdicts: Iterable[Verdict] = (),
    votes: Iterable[Verdict] = (),
    *,
    vectors: Vectors | None = None,
    missing: int | None = None,
) -> Figures:
    """All figures of a run. The same input gives the same figures.

    Args:
        manifest: What the run is; its `ways`, `repeats` and `count` of questions are used
            where they are there.
        rows: All rows, failed and outdated ones too, in the order in which they were written.
        verdicts: All verdicts of judges, in that order.
        votes: Verdicts of people.
        vectors: Vectors of the points' texts (`vectors.vectors_of`); None for no similarity.
        missing: Answers of the run that no row is of, where the caller knows them; None to compute them from the
            manifest, which does not know of questions that were taken out of the file.
    """
    rows, judged = list(rows), [*verdicts, *votes]
    counted = newest(rows)
    found = dict.fromkeys(row.way for row in counted)
    ways = list(dict.fromkeys([*manifest.get("ways", ()), *found]))
    base = base_of([way for way in ways if way in found] or ways)
    summaries = {way: summary(counted, way) for way in ways}
    qualities = {way: quality(counted, way, base, vectors=vectors) for way in ways}
    speeds = {way: speed(counted, way, base) for way in ways if way != base}
    repeats = max((row.repeat for row in counted), default=0)
    questions = len({(row.number, row.question) for row in counted})
    if missing is None:
        missing = _missing(manifest, ways, repeats, len(counted))
    pairs = judged_pairs(judged, base)
    notes = notes_of(
        counted,
        base=base,
        questions=len({(row.number, row.question) for row in counted if row.ok}),
        missing=missing,
        summaries=summaries,
        qualities=qualities,
        speeds=speeds,
    )
    return {
        "version": 1,
        "manifest": plain_data(manifest),
        "ways": ways,
        "base": base,
        "questions": questions,
        "answers": sum(row.ok for row in counted),
        "missing": missing,
        "repeats": repeats,
        "level": 0.95,
        "categories": [name for name in dict.fromkeys(row.category for row in counted) if name],
        "speed": speeds,
        "summary": summaries,
        "quality": qualities,
        "verdicts": pairs,
        "voters": voters(judged),
        "controlled": controlled_of(counted, judged, base),
        "spent": _spent(rows, judged),
        "failed": [_failed(row) for row in counted if not row.ok],
        "notes": [*notes, *judge_notes(pairs, model=manifest.get("model"))],
    }


def _missing(manifest: Mapping[str, Any], ways: Sequence[str], repeats: int, there: int) -> int:
    questions = manifest.get("questions")
    count = questions.get("count") if isinstance(questions, Mapping) else None
    wanted = manifest.get("repeats") or repeats
    return max(0, count * len(ways) * wanted - there) if isinstance(count, int) and isinstance(wanted, int) else 0


def _failed(row: Row) -> Failed:
    return {
        "number": row.number,
        "id": row.id,
        "question": row.question,
        "way": row.way,
        "repeat": row.repeat,
        "error": row.error,
    }


def _spent(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Spent]:
    by_way = {way: [row for row in rows if row.way == way] for way in dict.fromkeys(row.way for row in rows)}
    judges = dict.fromkeys(verdict.judge for verdict in verdicts if verdict.judge != HUMAN)
    by_judge = {judge: [verdict for verdict in verdicts if verdict.judge == judge] for judge in judges}
    return {
        "answers": _sum(rows),
        **{f"way:{way}": _sum(each) for way, each in by_way.items()},
        **{f"judge:{judge}": _sum(each) for judge, each in by_judge.items()},
    }


def _sum(rows: Sequence[Row] | Sequence[Verdict]) -> Spent:
    return {
        "rows": len(rows),
        "calls": sum(row.calls for row in rows),
        "input_tokens": sum(row.input_tokens for row in rows),
        "cached_tokens": sum(row.cached_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "seconds": sum(row.seconds for row in rows),
    }
