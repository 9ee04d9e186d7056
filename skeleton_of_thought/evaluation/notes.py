"""What weakens the figures of a run, in sentences for the reader of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from skeleton_of_thought.evaluation.quality import Quality
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.speed import Speed, Summary

__all__ = ["FEW", "Note", "notes_of"]

FEW = 10
"""Fewer questions than these make intervals too narrow."""
_LONGER = 1.15
"""How many times as long as the base's answers make a note."""


class Note(TypedDict):
    """A sentence on what weakens the figures.

    Attributes:
        kind: `"few"`, `"missing"`, `"failed"`, `"cut"`, `"estimated"`, `"busy"`, `"direct"`, `"lengths"`, `"points"`,
            `"judge"` or `"unread"`.
        way: The way that it is about; empty for all.
        text: The sentence, without marks.
    """

    kind: str
    way: str
    text: str


def notes_of(
    rows: Sequence[Row],
    *,
    base: str,
    questions: int,
    missing: int,
    summaries: Mapping[str, Summary],
    qualities: Mapping[str, Quality],
    speeds: Mapping[str, Speed],
) -> list[Note]:
    """The notes of a run.

    Args:
        rows: The rows that count, failed ones too.
        base: The way that others are compared to.
        questions: Questions with an answer of any way.
        missing: Answers that the run has not made yet.
        summaries: `speed.summary` of each way.
        qualities: `quality.quality` of each way.
        speeds: `speed.speed` of each other way.
    """
    notes: list[Note] = []

    def note(kind: str, text: str, way: str = "") -> None:
        notes.append({"kind": kind, "way": way, "text": text})

    if questions == 1:
        note("few", "One question was answered: its figures say nothing about other questions and have no intervals.")
    elif 1 < questions < FEW:
        note("few", f"{questions} questions are few: the intervals are too narrow, and one question can move a median.")
    if missing:
        note("missing", f"{_count(missing, 'answer')} of the run {_is(missing)} missing: it stopped before them.")
    busy = sum(bool(row.busy) for row in rows)
    if busy:
        note("busy", f"Other work used the processors during {busy} of {len(rows)} answers, so their seconds vary.")
    for way, each in summaries.items():
        answers, total = each["answers"], each["answers"] + each["failed"]
        found = qualities[way]
        if each["failed"]:
            text = (
                f"{each['failed']} of {total} answers failed. Figures are of the rest, speed-ups of pairs without them."
            )
            note("failed", text, way)
        if each["estimated"]:
            text = f"The model reports no tokens for {each['estimated']} of {answers} answers: they are estimated."
            note("estimated", text, way)
        if found["cut_answers"]:
            text = (
                f"The limit of tokens cut {found['cut_answers']} of {answers} answers: their lengths and seconds are "
                "those of the limit."
            )
            note("cut", text, way)
        lost = found["failed_points"] + found["empty_points"]
        if lost:
            note(
                "points",
                f"{lost} of {found['points']} points failed or are empty: a shorter answer takes less time.",
                way,
            )
        direct = found["routes"].get("direct", 0)
        if way != base and direct:
            note(
                "direct",
                f"{direct} of {answers} answers were direct, which saves no time: see the speed-up by route.",
                way,
            )
        if way in speeds and speeds[way]["pairs"] == 0:
            note("few", f"No question has an answer of both {way} and {base}: there is no speed-up.", way)
        ratio = found["words_ratio"]
        if ratio is not None and not 1 / _LONGER <= ratio <= _LONGER:
            text = f"Its answers have {ratio:.2f} times the words of {base}: look at the speed-up at equal length, too."
            note("lengths", text, way)
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
