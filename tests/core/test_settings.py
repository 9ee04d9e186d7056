"""Invalid settings are refused by name, before any call."""

from __future__ import annotations

import math

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import Settings


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, None])
@pytest.mark.parametrize("name", ["max_points", "min_points", "point_words"])
def test_counts_are_whole_numbers(name, value):
    with pytest.raises(InvalidInput, match=rf"^{name} must be a whole number of at least 1, not {value!r}\.$"):
        Settings(**{name: value})


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, "1", True, None])
def test_a_wait_is_a_number_of_seconds(value):
    with pytest.raises(InvalidInput, match=rf"^backoff must be 0 or more seconds, not {value!r}\.$"):
        Settings(backoff=value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, "5", True])
def test_a_time_limit_is_a_number_of_seconds_or_none(value):
    with pytest.raises(InvalidInput, match=rf"^point_timeout must be more than 0 seconds, or None .*not {value!r}\.$"):
        Settings(point_timeout=value)
    assert Settings(point_timeout=None, backoff=0).point_timeout is None
