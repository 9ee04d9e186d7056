"""Win rates at equal length and in equal style: judges with a known bias, and data that has no figure."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from skeleton_of_thought.evaluation.length_control import Controlled, ControlledRate, control
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.verdicts import FORMS, TIE, Verdict, tally

A, B = "normal", "sot"
QUESTIONS, SEEDS = 60, 6

Rule = Callable[[random.Random, bool, str, int, int, str], str]
"""Which way wins: from a source of chance, whether `a` is better, the way shown first, both lengths, and the form."""


def text(words: int, listed: bool) -> str:
    all_words = [f"w{n}" for n in range(words)]
    items = (all_words[n::4] for n in range(4))
    return "\n".join(f"- **{item[0]}** {' '.join(item[1:])}" for item in items) if listed else " ".join(all_words)


def judged(rule: Rule, seed: int, *, truth: float = 0.5, questions: int = QUESTIONS, lengths: str = "any"):
    """Rows and verdicts: `a` is better in a share `truth` of the questions, and `b` writes lists and often more."""
    source = random.Random(seed)
    rows, verdicts = [], []
    for number in range(1, questions + 1):
        one = source.randint(60, 160)
        other = {"any": int(one * source.uniform(0.6, 1.9)), "same": one, "longer": one + 20}[lengths]
        rows += [
            Row(f"{number} {way}", number, str(number), "Why?", way, "m", text=text(words, way == B))
            for way, words in ((A, one), (B, other))
        ]
        better = source.random() < truth
        for form in FORMS:
            for first in (A, B):
                winner = rule(source, better, first, one, other, form)
                key = f"{number} {form} {first}"
                verdicts.append(Verdict(key, number, str(number), A, B, first, form, "j", winner))
    return rows, verdicts


def way(better: bool) -> str:
    return A if better else B


def fair(source, better, first, one, other, form):
    return way(better)


def likes_the_first(source, better, first, one, other, form):
    return first if source.random() < 0.35 else way(better)


def likes_the_longer(source, better, first, one, other, form):
    return way(one > other) if source.random() < 0.5 else way(better)


def likes_lists(source, better, first, one, other, form):
    return B if form == "written" and source.random() < 0.6 else way(better)


def likes_long_lists(source, better, first, one, other, form):
    return (likes_the_longer if source.random() < 0.5 else likes_lists)(source, better, first, one, other, form)


def holds(rate: ControlledRate, truth: float) -> bool:
    return rate.interval is not None and rate.interval[0] <= truth <= rate.interval[1]


@pytest.mark.parametrize("truth", [0.5, 0.65])
@pytest.mark.parametrize(
    ("rule", "kind"), [(fair, "length"), (fair, "style"), (likes_the_first, "length"), (likes_the_first, "style"),
                       (likes_the_longer, "length"), (likes_lists, "style"),
                       (likes_the_longer, "both"), (likes_lists, "both"), (likes_long_lists, "both")],
)  # fmt: skip
def test_the_controlled_rate_holds_the_truth(rule, kind, truth):
    found = [control(*judged(rule, seed, truth=truth), A, B, judge="j") for seed in range(SEEDS)]
    rates = [getattr(each, kind) for each in found]
    assert sum(holds(rate, truth) for rate in rates) >= SEEDS - 1
    for rate in rates:
        low, high = rate.interval
        assert 0 <= low < rate.rate < high <= 1
        assert high - low < 0.55
        assert rate.questions == QUESTIONS


@pytest.mark.parametrize(
    ("rule", "kind", "causes"),
    [
        (likes_the_first, "length", ["order"]),
        (likes_the_longer, "length", ["longer", "length"]),
        # Lists and bold text always come together here: only their sum is known.
        (likes_lists, "style", ["items", "bold"]),
    ],
)
def test_the_bias_is_found_and_without_control_it_shows(rule, kind, causes):
    def effect(judge: Rule) -> float:
        effects = getattr(control(*judged(judge, 0), A, B, judge="j"), kind).effects
        return sum(effects[name] for name in causes)

    assert effect(rule) > 0.6 > abs(effect(fair))
    written = tally(judged(rule, 0)[1], A, B, form="written", judge="j")
    if rule is likes_the_first:
        assert written.first_place_interval[0] > 0.5
        assert written.flips > 10
    else:
        assert written.rate < 0.42, "the raw rate takes the bias for the way"


def test_a_judge_that_only_looks_at_the_place_says_nothing_about_the_ways():
    rows, verdicts = judged(lambda source, better, first, *_: first, 0)
    assert tally(verdicts, A, B, form="written", judge="j").first_place == 1
    for rate in as_rates(control(rows, verdicts, A, B, judge="j")):
        assert rate.rate == pytest.approx(0.5)
        assert rate.interval[0] < 0.1
        assert rate.interval[1] > 0.9


def as_rates(found: Controlled) -> tuple[ControlledRate, ControlledRate, ControlledRate]:
    return found.length, found.style, found.both


@pytest.mark.parametrize("winner", [A, B, TIE])
@pytest.mark.parametrize("lengths", ["any", "same"])
def test_verdicts_that_all_agree_have_a_rate_with_a_width(winner, lengths):
    for rate in as_rates(control(*judged(lambda *_: winner, 0, questions=40, lengths=lengths), A, B, judge="j")):
        truth = {A: 1.0, B: 0.0, TIE: 0.5}[winner]
        assert rate.rate == pytest.approx(truth, abs=0.02)
        assert holds(rate, truth)
        assert 0.01 < rate.interval[1] - rate.interval[0] < 0.6


def test_a_way_that_is_always_longer_has_no_rate_at_equal_length():
    found = control(*judged(fair, 0, lengths="longer"), A, B, judge="j")
    assert (found.length.rate, found.length.interval, found.length.questions) == (None, None, QUESTIONS)
    assert "always differ in the same way" in found.length.why
    assert found.both.why == found.length.why
    assert found.style.rate is not None


def test_few_questions_or_none_have_no_rate():
    for questions in (0, 1, 5):
        for rate in as_rates(control(*judged(fair, 0, questions=questions), A, B, judge="j")):
            assert (rate.rate, rate.questions) == (None, questions)
            assert "questions" in rate.why or "same way" in rate.why


def test_the_rate_of_b_is_what_a_lacks_and_other_verdicts_do_not_count():
    rows, verdicts = judged(likes_the_longer, 3, truth=0.7)
    other = [Verdict("x", 1, "1", A, B, A, "written", "k", A), Verdict("y", 1, "1", A, "auto", A, "written", "j", A)]
    gone = Verdict("z", 999, "999", A, B, A, "written", "j", A)
    found = control(rows, [*verdicts, *other, gone], A, B, judge="j")
    assert found == control(rows, verdicts, A, B, judge="j")
    turned = control(rows, verdicts, B, A, judge="j")
    for mine, its in zip(as_rates(found), as_rates(turned), strict=True):
        assert mine.rate == pytest.approx(1 - its.rate)
        assert mine.interval == pytest.approx((1 - its.interval[1], 1 - its.interval[0]))
