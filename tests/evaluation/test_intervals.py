"""Intervals: what they hold, and what they say where there is little to say."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from skeleton_of_thought.evaluation.intervals import bootstrap, median, middle_ratio, wilson


def test_the_middle_of_ratios_is_the_same_in_both_directions():
    ratios = [0.5, 2.0, 3.0, 1.25]
    assert middle_ratio([0.5, 2.0]) == pytest.approx(1)
    assert middle_ratio(ratios) == pytest.approx(1 / middle_ratio([1 / ratio for ratio in ratios]))
    assert middle_ratio([3.0]) == pytest.approx(3)
    low, high = bootstrap(ratios, middle_ratio)
    assert bootstrap([1 / ratio for ratio in ratios], middle_ratio) == pytest.approx((1 / high, 1 / low), rel=0.3)


@pytest.mark.parametrize("count", [2, 3, 4, 9, 10, 31, 80])
def test_medians_are_drawn_as_resamples_would_have_them(count):
    """The quick way for medians and the slow way for any statistic draw from the same distribution."""
    values = [Random(count).expovariate(1) for _ in range(1)] + [Random(n).expovariate(1) for n in range(1, count)]
    quick = bootstrap(values, median, resamples=20_000, level=0.8)
    slow = bootstrap(values, statistics.median, resamples=20_000, level=0.8)
    room = 0.04 * (max(values) - min(values)) + 1e-9
    assert quick == pytest.approx(slow, abs=room)
    middle = (
        bootstrap(values, median, resamples=20_000, level=0.3),
        bootstrap(values, statistics.median, resamples=20_000, level=0.3),
    )
    assert middle[0] == pytest.approx(middle[1], abs=room)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    random = Random(7)
    held = 0
    for _ in range(300):
        ratios = [random.lognormvariate(0.5, 0.4) for _ in range(20)]
        low, high = bootstrap(ratios, middle_ratio, resamples=400)
        held += low <= 2.718281828**0.5 <= high
    assert 0.9 <= held / 300 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = [Random(1).random() + n for n in range(30)]
    assert bootstrap(values, median) == bootstrap(values, median)
    assert bootstrap(values, statistics.fmean) == bootstrap(values, statistics.fmean)
    assert bootstrap(values, statistics.fmean) != bootstrap(values, statistics.fmean, seed=1)


def test_any_statistic_of_pairs_or_groups_can_be_had():
    pairs = [(2.0 + n % 3, 1.0) for n in range(12)]
    low, high = bootstrap(pairs, lambda found: sum(a for a, _ in found) / sum(b for _, b in found))
    assert 2 <= low < 3 < high <= 4


@pytest.mark.parametrize("statistic", [median, middle_ratio, statistics.fmean])
def test_too_few_or_equal_values(statistic):
    assert bootstrap([], statistic) is None
    assert bootstrap([3.0], statistic) is None
    assert bootstrap([3.0] * 8, statistic) == pytest.approx((3, 3))


def test_many_values_take_no_time_that_grows_with_the_resamples():
    """Counted, not timed: no resample is drawn."""
    low, high = bootstrap(list(map(float, range(100_000))), median)
    assert 49_000 < low < 50_000 < high < 51_000


def test_a_share_keeps_a_width_where_all_agree():
    assert wilson(0, 0) is None
    low, high = wilson(20, 20)
    assert (low, high) == (pytest.approx(0.8389, abs=1e-3), 1)
    assert wilson(0, 20) == pytest.approx((0, 1 - low))
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert wilson(1, 1)[0] == pytest.approx(0.2065, abs=1e-3)
    assert wilson(5, 10, level=0.5)[0] > wilson(5, 10)[0]
