"""Figures of texts: by hand, in scripts without spaces, and of nothing."""

from __future__ import annotations

import math

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.overlap import (
    bare_words,
    compression_ratio,
    distinct_n,
    shared_trigrams,
    similarity,
    title_echo,
)
from skeleton_of_thought.evaluation.rows import PointRow, Row
from skeleton_of_thought.evaluation.vectors import vectors_of
from skeleton_of_thought.text.words import plain, words_of


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        "Don't *stop* — now_then!",
        "茶は体に良い、and tea too。",
        "ß İstanbul\u00a0x\u3000y",
        "long" * 50 + "、一",
    ],
)
def test_words_are_those_of_the_rest_of_the_package(text):
    assert bare_words(text) == plain(words_of(text))


def test_shared_trigrams_are_those_of_two_points_or_more():
    # a b c, b c d / a b c, b c x / none: 3 different ones, of which one is in two points.
    assert shared_trigrams(["A b, c d", "a B c x", "c d"]) == pytest.approx(1 / 3)
    assert shared_trigrams(["a b c a b c", "d e f"]) == 0, "a point that repeats itself shares nothing"
    assert shared_trigrams(["a b c", "a b c", "A B C!"]) == 1
    assert shared_trigrams(["茶は体に良い", "茶は苦い"]) == 0
    assert shared_trigrams(["茶は体に良い", "茶は体"]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("points", [[], ["a b c d"], ["a b c d", ""], ["a b", "c d"]])
def test_no_share_without_two_points_with_a_trigram(points):
    assert shared_trigrams(points) is None


def test_distinct_n():
    assert distinct_n("a b A b", 1) == 0.5
    assert distinct_n("a b a b", 2) == pytest.approx(2 / 3)
    assert distinct_n("茶茶茶", 1) == pytest.approx(1 / 3)
    assert distinct_n("a", 2) is None
    assert distinct_n("", 1) is None


def test_a_text_that_repeats_itself_compresses_better():
    assert compression_ratio("tea " * 200) > 10 > compression_ratio("Tea wakes, calms and warms.") > 0
    assert compression_ratio("\ud800") > 0, "half a surrogate pair, as a cut reply may hold"
    assert compression_ratio("") is None


@pytest.mark.parametrize(
    ("title", "text", "echo"),
    [
        ("Drink tea daily", "**Drink tea daily:** it wakes.", True),
        ("Drink tea daily", "drink TEA, daily, and sleep.", True),
        ("Drink tea daily", "Tea wakes.", False),
        ("Drink tea daily", "Drink tea", False),
        ("Cost", "Cost matters most.", False),
        ("Cost", "**Cost**: it is high.", True),
        ("Cost", "Cost\nIt is high.", True),
        ("Cost", "Costs: they are high.", False),
        ("茶の味", "茶の味は苦い。", True),
        ("", "Tea wakes.", False),
        ("...", "Tea wakes.", False),
        ("Cost", "", False),
    ],
)
def test_a_title_echoes_where_the_text_begins_with_it(title, text, echo):
    assert title_echo(PointRow(1, title, text)) is echo


def test_similarity_is_the_mean_of_all_pairs():
    vectors = [[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]
    assert similarity(vectors) == pytest.approx((0 + 2 * math.sqrt(0.5)) / 3)
    assert similarity([[1.0, 2.0], [2.0, 4.0]]) == pytest.approx(1)
    assert similarity([[1.0], [-1.0]]) == pytest.approx(-1)
    assert similarity([[1.0, 0.0], [0.0, 0.0]]) is None


def _row(*texts: str, error: str = "") -> Row:
    points = tuple(PointRow(index, "t", text) for index, text in enumerate(texts, 1))
    return Row("k", 1, "1", "q", "sot", "m", points=points, error=error)


def test_each_text_of_a_point_is_embedded_once_and_in_batches():
    asked: list[list[str]] = []

    def embed(texts):
        asked.append(list(texts))
        return [[len(text), 1] for text in texts]

    rows = [_row("aa", "b", " "), _row("b", "ccc"), _row("alone"), _row("x", "y", error="no")]
    assert vectors_of(rows, embed, batch=2) == {"aa": [2, 1], "b": [1, 1], "ccc": [3, 1]}
    assert asked == [["aa", "b"], ["ccc"]]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [([[1.0]], "1 vectors for 2"), ([[1.0], [1.0, 2.0]], "different lengths"), ([[1.0], [math.nan]], "not finite")],
)
def test_vectors_of_no_use_are_refused(vectors, message):
    with pytest.raises(InvalidInput, match=message):
        vectors_of([_row("a", "b")], lambda texts: vectors)
