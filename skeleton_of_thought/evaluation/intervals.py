"""Intervals of figures: bootstrap for medians and other statistics, Wilson's for shares.

The questions are what is drawn at random, not the answers: repeats of a question resemble each other. So each question
gives one value, that of all its repeats, and the bootstrap draws questions with theirs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

__all__ = ["Interval", "bootstrap", "median", "middle_ratio", "wilson"]

Interval = tuple[float, float]
"""The lower and the upper end."""
T = TypeVar("T")


def median(values: Sequence[float]) -> float:
    """The median; the mean of the two middle values where their number is even.

    Raises:
        statistics.StatisticsError: There is no value.
    """
    return float(statistics.median(values))


def middle_ratio(ratios: Sequence[float]) -> float:
    """The median of ratios (all above 0); the geometric mean of the two middle ones where their number is even.

    The geometric mean makes 2 and 1/2 meet at 1, and the middle of `b / a` is 1 over the middle of `a / b`.
    """
    return math.exp(median([math.log(ratio) for ratio in ratios]))


def bootstrap(
    values: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval | None:
    """The percentile interval of a statistic; the same for the same values and seed.

    Args:
        values: One value (or pair, or group of repeats) for each question.
        statistic: What is computed of them. `median` and `middle_ratio` take the same time for any number of values.
        seed: Seeds the draws.
        resamples: How often as many values are drawn.
        level: How often the interval is meant to hold the truth, between 0 and 1. With fewer than about 10 values it
            holds it less often.

    Returns:
        None for fewer than two values: one question says nothing about others. Equal values have an interval without
        width; shares that may all agree need `wilson`.
    """
    if len(values) < 2:
        return None
    random = Random(seed)
    kind: object = statistic  # compared as an object: mypy takes functions of other types for never equal
    if kind is median:
        drawn = _medians([float(value) for value in values], resamples, random)  # type: ignore[arg-type]
    elif kind is middle_ratio:
        logarithms = [math.log(ratio) for ratio in values]  # type: ignore[arg-type]
        drawn = [math.exp(value) for value in _medians(logarithms, resamples, random)]
    else:
        drawn = [statistic(random.choices(values, k=len(values))) for _ in range(resamples)]
    drawn.sort()
    return _quantile(drawn, (1 - level) / 2), _quantile(drawn, (1 + level) / 2)


def wilson(count: float, total: int, *, level: float = 0.95) -> Interval | None:
    """Wilson's interval of a share. It keeps a width where all agree, where the bootstrap has none.

    Args:
        count: How many did; ties may count half.
        total: Of how many.
        level: How often the interval holds the truth.

    Returns:
        None for a total of 0.
    """
    if total < 1:
        return None
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / total / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def _medians(values: list[float], resamples: int, random: Random) -> list[float]:
    """Medians of resamples, drawn without the resamples themselves.

    A resample draws n places at random. Its median needs only its middle places, and the middle one of n uniform
    numbers has a beta distribution, from which it can be drawn directly.
    """
    ordered = sorted(values)
    n, half = len(ordered), len(ordered) // 2

    def at(place: float) -> float:
        return ordered[min(int(place * n), n - 1)]

    if n % 2:
        return [at(random.betavariate(half + 1, half + 1)) for _ in range(resamples)]
    drawn = []
    for _ in range(resamples):
        lower = random.betavariate(half, half + 1)
        # The upper of the two middle places is the least of the `half` places above the lower one.
        upper = lower + (1 - lower) * (1 - random.random() ** (1 / half))
        drawn.append((at(lower) + at(upper)) / 2)
    return drawn


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
