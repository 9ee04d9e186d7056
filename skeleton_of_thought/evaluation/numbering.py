"""One number for each question of a run, whatever happened to its file since its rows were written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row

__all__ = ["numbered"]


def numbered(
    rows: Sequence[Row], questions: Iterable[Question] = (), *, by_key: Mapping[str, Question] | None = None
) -> list[Row]:
    """The rows with the number, id and category that their question has now; no two questions share a number.

    A question that is not in the file any more keeps its number if that is free, else it comes after all others.
    Without the file, the newest row of a question says its number.

    Args:
        rows: All rows, in the order in which they were written.
        questions: The questions of the present file; none where it is not at hand.
        by_key: Which of them is behind the key of a row.
    """
    by_key = by_key or {}
    questions = list(questions)
    by_text: dict[str, list[Question]] = {}
    for question in questions:
        by_text.setdefault(question.text, []).append(question)
    twins = _twins(rows)
    places: list[Question | tuple[str, int]] = []
    for row in rows:
        found = by_key.get(row.key) or _of_text(by_text.get(row.question, ()), row.number)
        places.append(found or (row.question, row.number if row.question in twins else 0))
    taken = {question.number for question in questions}
    last = max([*taken, *(row.number for row in rows)], default=0)
    others: dict[tuple[str, int], tuple[int, str, str]] = {}
    # From the newest row on: a question that was put in another's place keeps the place.
    for row, place in zip(reversed(rows), reversed(places), strict=True):
        if isinstance(place, Question) or place in others:
            continue
        number = row.number
        if number in taken:
            number = last = last + 1
        taken.add(number)
        # The id of a question without one is its number.
        others[place] = (number, str(number) if row.id == str(row.number) else row.id, row.category)
    found_rows = []
    for row, place in zip(rows, places, strict=True):
        number, name, category = (
            (place.number, place.id, place.category) if isinstance(place, Question) else others[place]
        )
        found_rows.append(dataclasses.replace(row, number=number, id=name, category=category))
    return found_rows


def _of_text(questions: Sequence[Question], number: int) -> Question | None:
    """The question of a text; if the file has the text several times, the one at that number."""
    if len(questions) == 1:
        return questions[0]
    return next((question for question in questions if question.number == number), None)


def _twins(rows: Iterable[Row]) -> set[str]:
    """The texts that stand for several questions, which have messages of the system of their own.

    They have two keys for the same way and repeat under two numbers. A question that has moved keeps its key.
    """
    keys: dict[tuple[str, str, int], dict[str, int]] = {}
    for row in rows:
        keys.setdefault((row.question, row.way, row.repeat), {})[row.key] = row.number
    return {question for (question, *_), found in keys.items() if len(set(found.values())) > 1}
