"""The arguments of the tool `answer_in_points`."""

from __future__ import annotations

import json

import pytest

from skeleton_of_thought.adapters.points_tool import DESCRIPTION, PARAMETERS, TOOL_NAME, alone, skeleton_of
from skeleton_of_thought.errors import InvalidInput

PLAIN = {"points": [{"title": "Rest", "note": "how long and how often"}, {"title": "Water"}]}


@pytest.mark.parametrize(
    "arguments",
    [
        PLAIN,
        json.dumps(PLAIN),
        {"points": json.dumps(PLAIN["points"])},
        {"points": [{"title": "1. **Rest**", "note": "how long\nand how often"}, "2) Water"]},
        {"points": [{"title": "Rest", "scope": "how long and how often"}, {"title": "- Water", "more": 1}, "WATER"]},
    ],
)
def test_points_are_read_in_the_forms_that_models_send(arguments):
    skeleton = skeleton_of(arguments)
    assert [(p.index, p.title, p.scope) for p in skeleton.points] == [
        (1, "Rest", "how long and how often"),
        (2, "Water", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, "no list of points. Call it again"),
        ({"points": "Rest and water"}, "no list of points. Call it again"),
        ({"points": '[{"title": "Re'}, "no list of points. Call it again"),
        (None, "no list of points. Call it again"),
        ({"points": []}, "at least 2 points with different titles, and the call has 0"),
        ({"points": ["Rest"]}, "write the answer yourself, without this tool"),
        ({"points": ["Rest", "rest"]}, "the call has 1"),
        ({"points": ["Rest", {"note": "no title"}]}, "Point 2 in the call .* has no title"),
        ({"points": ["Rest", "  "]}, "Point 2"),
        ({"points": ["Rest", 3]}, "Point 2"),
        ({"points": [{"title": ["Rest"]}, "Water"]}, "Point 1"),
    ],
)
def test_arguments_that_cannot_be_used_tell_the_model_what_to_do(arguments, wanted):
    with pytest.raises(InvalidInput, match=wanted):
        skeleton_of(arguments)


def test_the_settings_bound_the_points():
    titles = {"points": list("abcdef")}
    assert len(skeleton_of(titles, max_points=3)) == 3
    with pytest.raises(InvalidInput, match="at least 7 points"):
        skeleton_of(titles, min_points=7)
    with pytest.raises(InvalidInput, match="at least 2 points"):
        skeleton_of({"points": ["a"]}, min_points=1)


def test_the_words_for_the_model_name_the_tool_and_its_rules():
    assert "only call of your turn" in DESCRIPTION
    assert "short" in DESCRIPTION
    assert TOOL_NAME in alone(1)
    assert "called 2 times" in alone(2)
    json.dumps(PARAMETERS)
