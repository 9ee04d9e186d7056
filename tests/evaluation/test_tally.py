"""Counts of verdicts: orders, flips, ties, repeats, and intervals."""

from __future__ import annotations

import random

import pytest

from skeleton_of_thought.evaluation.verdicts import HUMAN, TIE, Tally, Verdict, share_interval, tally

A, B = "normal", "sot"


def verdict(
    number: int, first: str, winner: str, *, repeat: int = 1, judge: str = "j", key: str = "", a: str = A
) -> Verdict:
    other = {A: B, B: A}[a]
    return Verdict(
        key or f"{number} {first} {repeat}", number, f"id{number}", a, other, first, "written", judge, winner,
        repeat=repeat, category="" if number % 2 else "even",
    )  # fmt: skip


def count(*verdicts: Verdict, judge: str = "j") -> Tally:
    return tally(verdicts, A, B, form="written", judge=judge)


@pytest.mark.parametrize(
    ("winners", "expected"),
    [
        ((A, A), (1, 0, 0, 0, 0)),
        ((B, B), (0, 1, 0, 0, 0)),
        ((A, B), (0, 0, 1, 1, 0)),
        ((B, A), (0, 0, 1, 1, 0)),
        ((A, TIE), (0, 0, 1, 0, 1)),
        ((TIE, B), (0, 0, 1, 0, 1)),
        ((TIE, TIE), (0, 0, 1, 0, 0)),
    ],
)
def test_both_orders_count_as_one(winners, expected):
    found = count(verdict(1, A, winners[0]), verdict(1, B, winners[1]))
    assert (found.wins, found.losses, found.ties, found.flips, found.half_flips) == expected
    assert (found.questions, found.pairs, found.single, found.none) == (1, 1, 0, 0)
    assert found.rate == found.wins + found.ties / 2


def test_one_order_counts_where_the_other_could_not_be_read():
    found = count(verdict(1, A, B), verdict(1, B, ""), verdict(2, A, ""), verdict(2, B, ""))
    assert (found.questions, found.losses, found.pairs, found.single, found.none) == (1, 1, 0, 1, 3)
    assert found.rate == 0


def test_without_verdicts_there_is_no_figure():
    found = count(verdict(1, A, ""))
    assert (found.questions, found.rate, found.interval, found.first_place, found.none) == (0, None, None, None, 1)


def test_only_the_verdicts_asked_for_count_and_of_tries_the_last():
    other = Verdict("k", 1, "1", A, B, A, "plain", "j", B)
    found = count(
        verdict(1, A, ""), verdict(1, A, A), verdict(1, B, A, a=B), verdict(1, A, B, judge="other"), other,
        Verdict("k2", 1, "1", A, "merge", A, "written", "j", A),
    )  # fmt: skip
    assert (found.wins, found.pairs, found.none) == (1, 1, 0)


def test_repeats_share_the_weight_of_their_question():
    found = count(
        *(verdict(1, first, A, repeat=1) for first in (A, B)), *(verdict(1, first, B, repeat=2) for first in (A, B)),
        *(verdict(2, first, A) for first in (A, B)),
    )  # fmt: skip
    assert (found.questions, found.wins, found.losses, found.ties, found.pairs) == (2, 1.5, 0.5, 0, 3)
    assert found.rate == 0.75
    assert [(each.number, each.id, each.category, each.score) for each in found.by_question] == [
        (1, "id1", "", 0.5),
        (2, "id2", "even", 1.0),
    ]


def test_votes_have_one_order_and_each_counts():
    votes = [verdict(1, "", A, judge=HUMAN, key="x"), verdict(1, "", TIE, judge=HUMAN, key="y")]
    found = count(*votes, judge=HUMAN)
    assert (found.questions, found.wins, found.single, found.decided, found.first_place) == (1, 1, 1, 0, None)


def test_the_share_of_the_first_place_shows_a_judge_that_looks_at_nothing_else():
    always = count(*(verdict(n, first, first) for n in range(40) for first in (A, B)))
    assert (always.first_place, always.flips, always.rate) == (1.0, 40, 0.5)
    fair = count(*(verdict(n, first, A if n % 3 else B) for n in range(40) for first in (A, B)))
    assert (fair.first_place, fair.flips) == (0.5, 0)
    assert always.first_place_interval is not None
    assert fair.first_place_interval is not None
    assert always.first_place_interval[0] > 0.8
    assert fair.first_place_interval[0] < 0.5 < fair.first_place_interval[1]


@pytest.mark.parametrize("chances", [(0.5, 0.0), (0.9, 0.0), (0.3, 0.5), (0.02, 0.95), (0.97, 0.0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(chances):
    win, tie = chances
    truth = win + tie / 2
    held = 0
    for seed in range(200):
        source = random.Random(seed)
        draws = [source.random() for _ in range(50)]
        interval = share_interval([1.0 if draw < win else 0.5 if draw < win + tie else 0.0 for draw in draws])
        assert interval is not None
        assert 0 <= interval[0] < interval[1] <= 1
        held += interval[0] <= truth <= interval[1]
    assert held >= 180
