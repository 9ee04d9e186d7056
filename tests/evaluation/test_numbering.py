"""Numbers of questions in a folder whose file of questions changed between commands."""

from __future__ import annotations

from skeleton_of_thought.evaluation.numbering import numbered
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row


def row(number, question, way="normal", **more):
    named = {"key": f"{question} {way}", "id": str(number)}
    return Row(**(named | {"number": number, "question": question, "way": way, "model": "m"} | more))


def told(rows):
    return [(row.number, row.id, row.question, row.way) for row in rows]


def test_without_the_file_the_newest_row_of_a_number_keeps_it():
    rows = [row(1, "old"), row(2, "kept"), row(1, "new"), row(1, "old", "sot")]
    assert told(numbered(rows)) == [
        (1, "1", "old", "normal"), (2, "2", "kept", "normal"), (3, "3", "new", "normal"), (1, "1", "old", "sot"),
    ]  # fmt: skip
    assert told(numbered(rows[:3]))[0] == (3, "3", "old", "normal")


def test_a_question_that_moved_has_one_number_for_all_its_ways():
    rows = [row(1, "kept"), row(1, "new"), row(2, "kept", "sot")]
    assert told(numbered(rows)) == [(2, "2", "kept", "normal"), (1, "1", "new", "normal"), (2, "2", "kept", "sot")]


def test_with_the_file_its_numbers_come_first_and_those_of_removed_questions_are_free_ones():
    rows = [row(1, "gone"), row(2, "kept"), row(3, "gone too", id="own")]
    file = [Question(1, "kept", "a", "cook"), Question(2, "new", "b")]
    found = numbered(rows, file)
    assert told(found) == [(4, "4", "gone", "normal"), (1, "a", "kept", "normal"), (3, "own", "gone too", "normal")]
    assert [each.category for each in found] == ["", "cook", ""]


def test_a_text_that_stands_for_two_questions_stays_two():
    rows = [row(1, "same", key="x"), row(2, "same", key="y"), row(2, "same", "sot", key="z")]
    assert [each.number for each in numbered(rows)] == [1, 2, 2]
    file = [Question(5, "same", "a", system="one"), Question(6, "same", "b", system="two")]
    by_key = {"x": file[0], "y": file[1], "z": file[1]}
    assert [each.number for each in numbered(rows, file, by_key=by_key)] == [5, 6, 6]
