"""The prompts of a second wave extend those of the first, so the engine has computed most of them already."""

from __future__ import annotations

import pytest

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.templates import AnswerPrompts
from skeleton_of_thought.types import Conversation, Expansion, Point, Skeleton

SKELETON = Skeleton(
    (
        Point(1, "Trains", scope="speed, prices, luggage"),
        Point(2, "Planes", scope="airports, delays, prices"),
        Point(3, "Cars", scope="freedom, fuel, tolls"),
        Point(4, "Which one to choose", (1, 2), scope="families, business, students"),
        Point(5, "What matters most", (1, 3), scope="time, money, comfort"),
    )
)


@pytest.mark.model
@pytest.mark.parametrize("prefill", [True, False], ids=["turns", "instruction"])
def test_most_tokens_of_a_second_wave_were_computed_in_the_first(demo_engine: LocalEngine, prefill: bool) -> None:
    conversation = Conversation.of("How should I travel across Europe in summer?")
    prompts = AnswerPrompts(PromptSet(), conversation, 6, 40, prefill=["skeleton", "point"] if prefill else [])
    prompts.planning = "graph"
    demo_engine.generate([prompts.point(SKELETON, SKELETON.points[0], "")], max_new_tokens=1)  # the shared beginning
    first = [prompts.point(SKELETON, point, "") for point in SKELETON.points[:3]]
    written = [
        Expansion(point, done.text.strip())
        for point, done in zip(SKELETON.points, demo_engine.generate(first, max_new_tokens=60), strict=False)
    ]
    second = [
        prompts.point(SKELETON, point, "", parents=[written[parent - 1] for parent in point.depends_on])
        for point in SKELETON.points[3:]
    ]
    done = demo_engine.generate(second, max_new_tokens=4)
    reused = sum(each.usage.cached_tokens for each in done) / sum(each.usage.input_tokens for each in done)
    assert reused >= (0.8 if prefill else 0.4)
