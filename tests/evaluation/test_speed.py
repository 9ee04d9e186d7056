"""Speed-ups: which answers are compared, in which figures, and what does not count."""

from __future__ import annotations

from itertools import count

import pytest

from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.speed import newest, pairs_of, speed, summary

_KEYS = count()


def row(number: int, way: str, seconds: float, *, key: str = "", repeat: int = 1, **fields: object) -> Row:
    fields = {"question": f"q{number}", "id": f"id{number}", "first_text": seconds / 10, "answer_tokens": 100} | fields
    key = key or f"{number} {way} {repeat} {next(_KEYS)}"
    return Row(key=key, number=number, way=way, model="m", repeat=repeat, seconds=seconds, **fields)


def test_answers_are_paired_by_question_and_repeat():
    rows = [
        row(1, "sot", 2, repeat=2),
        row(1, "normal", 9, repeat=2),
        row(1, "normal", 4),
        row(1, "sot", 1),
        row(2, "normal", 5),
        row(3, "sot", 5),
        row(4, "normal", 5),
        row(4, "sot", 5, question="another one at this place"),
    ]
    assert [(a.seconds, b.seconds) for a, b in pairs_of(rows, "sot", "normal")] == [(1, 4), (2, 9)]
    found = speed(rows, "sot")
    assert (found["questions"], found["pairs"], found["unpaired"]) == (1, 2, 4)
    assert found["ratio_median"] == pytest.approx(18**0.5), "the middle of 4 and 4.5"
    assert found["interval"] is None, "one question says nothing about others"
    assert found["faster_interval"] is None


def test_the_newest_row_of_a_key_counts_whatever_it_says():
    rows = [
        row(1, "sot", 1, key="a", error="busy"),
        row(1, "normal", 8, key="b"),
        row(2, "sot", 1, key="c"),
        row(2, "normal", 8, key="d"),
        row(1, "sot", 4, key="a"),
        row(2, "sot", 1, key="c", error="gone"),
    ]
    assert [(each.key, each.ok) for each in newest(rows)] == [("a", True), ("b", True), ("c", False), ("d", True)]
    found = speed(rows, "sot")
    assert (found["ratio_median"], found["pairs"], found["unpaired"]) == (pytest.approx(2), 1, 1)
    took = summary(rows, "sot")
    assert (took["answers"], took["failed"], took["questions"]) == (1, 1, 1)
    assert took["seconds"] == {"median": 4, "interval": None, "questions": 1}


def test_repeats_of_a_question_count_as_one_question():
    """A question of many repeats does not outvote the others, and does not narrow the interval."""
    rows = [each for n in (1, 2, 3) for each in (row(n, "normal", 4.0), row(n, "sot", 4.0 / n))]
    once = speed(rows, "sot")
    for repeat in range(2, 40):
        rows += [row(3, "normal", 4.0, repeat=repeat), row(3, "sot", 4 / 3, repeat=repeat)]
    often = speed(rows, "sot")
    assert once["ratio_median"] == often["ratio_median"] == pytest.approx(2)
    assert once["interval"] == often["interval"] == pytest.approx([1, 3])
    assert summary(rows, "sot")["seconds"]["median"] == 2
    assert (often["pairs"], often["questions"]) == (41, 3)


def test_equal_length_compares_seconds_of_an_answered_token():
    rows = [row(1, "normal", 10, answer_tokens=200), row(1, "sot", 2, answer_tokens=50)]
    found = speed(rows, "sot")
    assert found["ratio_median"] == pytest.approx(5)
    assert found["ratio_equal_length"] == pytest.approx((10 / 200) / (2 / 50))
    assert found["ratio_first_text"] == pytest.approx(5)


def test_figures_that_cannot_be_had_are_none_and_do_not_spoil_others():
    rows = [
        row(1, "normal", 0.0, first_text=None, answer_tokens=0),
        row(1, "sot", 3.0, answer_tokens=0),
        row(2, "normal", 6.0, answer_tokens=0),
        row(2, "sot", 3.0, first_text=None),
    ]
    found = speed(rows, "sot")
    assert (found["pairs"], found["ratio_median"]) == (2, pytest.approx(2))
    assert (found["ratio_equal_length"], found["ratio_first_text"]) == (None, None)
    assert [each["ratio"] for each in found["by_question"]] == [None, pytest.approx(2)]
    assert (found["faster"], found["faster_share"]) == (1, 1)
    nothing = speed([], "sot")
    assert (nothing["pairs"], nothing["ratio_median"], nothing["faster_share"]) == (0, None, None)
    assert summary([], "sot")["seconds"] == {"median": None, "interval": None, "questions": 0}


def test_a_way_against_itself_turned_round_is_one_over_the_speed_up():
    rows = [each for n in range(1, 9) for each in (row(n, "normal", 5.0 + n), row(n, "sot", 9.0 - n / 2))]
    there, back = speed(rows, "sot"), speed(rows, "normal", "sot")
    assert there["ratio_median"] == pytest.approx(1 / back["ratio_median"])
    low, high = there["interval"]
    assert low < there["ratio_median"] < high
    assert (there["faster"], back["faster"]) == (6, 2)
    assert there["faster_share"] == 6 / 8
    assert there["faster_interval"][0] < 6 / 8 < there["faster_interval"][1]


def test_categories_and_routes_have_figures_of_their_own():
    rows = [
        *(row(1, "normal", 4, category="food"), row(1, "auto", 2, category="food", route="skeleton")),
        *(row(2, "normal", 4, category="math"), row(2, "auto", 4, category="math", route="direct")),
        *(row(3, "normal", 8, category="food"), row(3, "auto", 2, category="food", route="skeleton")),
    ]
    found = speed(rows, "auto")
    assert {name: part["ratio_median"] for name, part in found["by_category"].items()} == pytest.approx(
        {"food": 8**0.5, "math": 1}
    )
    assert {name: part["questions"] for name, part in found["by_route"].items()} == {"skeleton": 2, "direct": 1}
    assert found["by_category"]["math"]["interval"] is None
    assert [(each["id"], each["category"], each["routes"]) for each in found["by_question"]] == [
        ("id1", "food", ["skeleton"]),
        ("id2", "math", ["direct"]),
        ("id3", "food", ["skeleton"]),
    ]
    assert speed([row(1, "normal", 4), row(1, "sot", 2)], "sot")["by_category"] == {}


def test_a_summary_counts_tokens_and_their_pace():
    fields = {"input_tokens": 30, "cached_tokens": 10, "output_tokens": 80, "answer_tokens": 60, "calls": 4}
    found = summary([row(1, "sot", 2.0, **fields), row(2, "sot", 2.0, **fields, tokens_estimated=True)], "sot")
    assert {name: found[name]["median"] for name in fields} == fields
    assert (found["tokens_per_second"]["median"], found["answer_tokens_per_second"]["median"]) == (40, 30)
    assert found["estimated"] == 1
    assert found["calls"]["interval"] == [4, 4]
