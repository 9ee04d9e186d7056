"""`chain.expansion(...)`: all points of a given skeleton as a `RunnableParallel`."""

from __future__ import annotations

import threading

import pytest
from always import skeleton_chain
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda, RunnableParallel

from skeleton_of_thought import parse_skeleton
from skeleton_of_thought.errors import InvalidInput, PointError
from skeleton_of_thought.types import Point

TITLES = [f"Topic {letter}" for letter in "abcdefgh"]
EXPECTED = {str(i): f"All about {title.lower()}." for i, title in enumerate(TITLES, 1)}


@pytest.mark.parametrize(
    "points",
    [
        TITLES,
        tuple(TITLES),
        parse_skeleton("\n".join(f"- {title}" for title in TITLES)),
        [Point(7, title) for title in TITLES],
    ],
)
async def test_an_expansion_writes_only_the_points(kit, way, points):
    llm = kit.Chat(script=kit.answering(TITLES))
    expansion = skeleton_chain(llm=llm).expansion(points)
    assert isinstance(expansion, RunnableParallel)
    output = await way(expansion, {"question": "Why?", "chat_history": [SystemMessage("Be kind.")]})
    assert output == EXPECTED
    assert list(output) == list(EXPECTED)
    assert {seen.stage for seen in llm.watch.seen} == {"point"}
    assert all(seen.messages[0].text == "Be kind." for seen in llm.watch.seen)


@pytest.mark.parametrize("points", [[], (), "1. Move", ["Move", "  "], [None]])
def test_unusable_titles_are_refused(kit, points):
    with pytest.raises(InvalidInput):
        skeleton_chain(llm=kit.Chat(script=None)).expansion(points)


@pytest.mark.parametrize("limit", [None, 2])
async def test_an_expansion_keeps_the_concurrency_limit(kit, way, limit):
    llm = kit.Chat(script=None)
    peak = limit or len(TITLES)
    enough = llm.watch.together(peak)
    llm.script = lambda seen: [enough, *kit.answering(TITLES)(seen)]
    config = {"max_concurrency": limit} if limit else None
    assert await way(skeleton_chain(llm=llm).expansion(TITLES), "Why?", config) == EXPECTED
    assert llm.watch.peak == peak


def endless():
    tick = threading.Event()
    while True:
        yield "and "
        tick.wait(0.001)


@pytest.mark.parametrize("way_name", ["stream", "astream", "ainvoke"])
async def test_siblings_are_closed_when_one_fails(kit, ways, way_name):
    llm, runs = kit.Chat(script=None), kit.Runs()
    all_there = llm.watch.together(len(TITLES))
    llm.script = lambda seen: [all_there, RuntimeError("boom")] if seen.point == 3 else endless()
    expansion = skeleton_chain(llm=llm, max_retries=0).expansion(TITLES)
    with pytest.raises(PointError, match="boom"):
        await ways[way_name](expansion, "Why?", {"callbacks": [runs]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_closing_the_stream_closes_all_siblings(kit):
    llm = kit.Chat(script=lambda seen: endless())
    expansion = skeleton_chain(llm=llm).expansion(TITLES)
    stream = expansion.stream("Why?")
    while llm.watch.peak < len(TITLES):
        next(stream)
    stream.close()
    assert llm.watch.open == 0
    astream = expansion.astream("Why?")
    while len(llm.watch.seen) < 2 * len(TITLES):
        await anext(astream)
    await astream.aclose()
    assert llm.watch.open == 0


def test_a_failed_point_has_its_placeholder(kit):
    llm = kit.Chat(script=lambda s: [OSError("no")] if s.point == 1 else kit.answering(TITLES)(s))
    chain = skeleton_chain(llm=llm, on_point_error="placeholder", placeholder="(gap)", max_retries=0)
    assert chain.expansion(TITLES[:2]).invoke("Why?") == {"1": "(gap)", "2": EXPECTED["2"]}


def test_a_custom_chain_can_be_built_from_the_parts(kit):
    from langchain_sot import SkeletonOutputParser

    llm = kit.Chat(script=kit.answering(TITLES[:3]))
    chain = skeleton_chain(llm=llm)
    own = (
        RunnableParallel(
            question=lambda value: value["question"],
            titles=chain.get_skeleton_prompt() | llm | SkeletonOutputParser(),
        )
        | RunnableLambda(lambda value: chain.expansion(value["titles"]))
        | (lambda points: " / ".join(points.values()))
    )
    assert own.invoke({"question": "Why?"}) == " / ".join(list(EXPECTED.values())[:3])


def test_each_step_is_a_separate_runnable(kit):
    llm = kit.Chat(script=kit.answering(TITLES))
    expansion = skeleton_chain(llm=llm).expansion(TITLES)
    assert list(expansion.steps__) == list(EXPECTED)
    assert expansion.steps__["2"].invoke([HumanMessage("Why?")]) == EXPECTED["2"]
    assert set(expansion.get_output_schema().model_json_schema()["properties"]) == set(EXPECTED)


def test_an_expansion_can_be_configured_bound_and_piped(kit):
    llm = kit.Chat(script=kit.answering(TITLES[:1]))
    expansion = skeleton_chain(llm=llm).expansion(TITLES[:1])
    piped = expansion.with_config(tags=["t"]) | RunnableLambda(lambda points: points["1"])
    assert piped.invoke("Why?") == EXPECTED["1"]
    assert expansion.with_retry().invoke("Why?") == {"1": EXPECTED["1"]}
