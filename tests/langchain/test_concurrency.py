"""The number of concurrent calls; no call stays open."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from always import skeleton_chain
from langchain_core.runnables import RunnableLambda

from skeleton_of_thought.errors import InvalidInput, PointError

SIXTEEN = [f"Topic {letter}" for letter in "abcdefghijklmnop"]


def chain_of(llm, **settings):
    return skeleton_chain(llm=llm, **{"max_points": 16, "max_retries": 0, **settings})


async def test_without_a_limit_all_sixteen_points_are_in_flight(kit, way):
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(16)
    answer = kit.answering(SIXTEEN)
    llm.script = lambda seen: [all_there, *answer(seen)] if seen.stage == "point" else answer(seen)
    assert len((await way(chain_of(llm), "Why?"))["points"]) == 16
    assert llm.watch.peak == 16


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_limit_holds_for_all_six_methods(kit, way, limit):
    llm = kit.Chat(script=None)
    enough = llm.watch.together(limit)
    answer = kit.answering(SIXTEEN)
    llm.script = lambda seen: [enough, *answer(seen)] if seen.stage == "point" else answer(seen)
    output = await way(chain_of(llm), "Why?", {"max_concurrency": limit})
    assert len(output["points"]) == 16
    assert llm.watch.peak == limit


@pytest.mark.parametrize("path", ["batch", "abatch", "batch_as_completed", "abatch_as_completed"])
async def test_a_limit_is_one_budget_for_a_whole_batch(kit, path):
    llm = kit.Chat(script=kit.answering(SIXTEEN))
    chain, questions, config = chain_of(llm), ["A?", "B?", "C?", "D?"], {"max_concurrency": 3}
    if path == "batch":
        outputs = await asyncio.to_thread(chain.batch, questions, config)
    elif path == "abatch":
        outputs = await chain.abatch(questions, config)
    elif path == "batch_as_completed":
        outputs = [out for _, out in await asyncio.to_thread(lambda: list(chain.batch_as_completed(questions, config)))]
    else:
        outputs = [out async for _, out in chain.abatch_as_completed(questions, config)]
    assert sorted(out["question"] for out in outputs) == questions
    assert len(llm.watch.seen) == 4 * 17
    assert llm.watch.peak <= 3


def test_batch_without_a_limit_runs_the_points_of_all_questions_together(kit):
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(8)
    answer = kit.answering(["One thing", "Two things"])
    llm.script = lambda seen: [all_there, *answer(seen)] if seen.stage == "point" else answer(seen)
    assert len(chain_of(llm).batch(["A?", "B?", "C?", "D?"])) == 4


async def test_a_limit_below_one_is_refused_before_any_call(kit, way):
    llm = kit.Chat(script=kit.answering(SIXTEEN))
    with pytest.raises(InvalidInput, match="max_concurrency"):
        await way(chain_of(llm), "Why?", {"max_concurrency": 0})
    assert not llm.watch.seen


# --- no call stays open ---


def failing_beside_open_ones(kit):
    """Point 3 fails once all others are open; the others never end."""
    llm = kit.Chat(script=None)
    all_there = llm.watch.together(4)

    def script(seen):
        if seen.stage == "skeleton":
            return kit.answering(SIXTEEN[:4])(seen)
        return [all_there, RuntimeError("boom")] if seen.point == 3 else endless(kit)

    llm.script = script
    return llm


def endless(kit):
    tick = threading.Event()
    while True:
        yield "and "
        tick.wait(0.001)


@pytest.mark.parametrize("way_name", ["stream", "astream"])
async def test_siblings_are_closed_when_one_point_fails(kit, ways, way_name):
    llm = failing_beside_open_ones(kit)
    with pytest.raises(PointError, match="boom"):
        await ways[way_name](chain_of(llm), "Why?")
    assert llm.watch.open == 0
    assert llm.watch.peak == 4


async def test_siblings_are_cancelled_when_one_point_of_ainvoke_fails(kit):
    llm = failing_beside_open_ones(kit)
    runs = kit.Runs()
    with pytest.raises(PointError, match="boom"):
        await chain_of(llm).ainvoke("Why?", {"callbacks": [runs]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


def endless_model(kit):
    return kit.Chat(script=lambda s: kit.answering(SIXTEEN[:4])(s) if s.stage == "skeleton" else endless(kit))


@pytest.mark.parametrize("pick", [None, "answer", "points"])
def test_closing_a_stream_closes_every_call(kit, pick):
    llm, runs = endless_model(kit), kit.Runs()
    chain = chain_of(llm).pick(pick) if pick else chain_of(llm)
    stream = chain.stream("Why?", {"callbacks": [runs]})
    while llm.watch.peak < 4:
        next(stream)
    stream.close()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()
    assert not [t for t in threading.enumerate() if t.name.startswith("sot-")]


@pytest.mark.parametrize("pick", [None, "answer", "points"])
async def test_closing_an_async_stream_closes_every_call(kit, pick):
    llm, runs = endless_model(kit), kit.Runs()
    chain = chain_of(llm).pick(pick) if pick else chain_of(llm)
    stream = chain.astream("Why?", {"callbacks": [runs]})
    while llm.watch.peak < 4:
        await anext(stream)
    await stream.aclose()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_closing_a_stream_closes_a_bound_model(kit):
    llm = endless_model(kit)
    stream = chain_of(llm.bind(user="me").with_config(tags=["mine"])).astream("Why?")
    while llm.watch.peak < 4:
        await anext(stream)
    await stream.aclose()
    assert llm.watch.open == 0
    assert llm.watch.seen[0].kwargs == {"user": "me"}


@pytest.mark.parametrize("way_name", ["ainvoke", "abatch", "astream"])
async def test_cancelling_the_task_closes_every_call(kit, ways, way_name):
    llm, runs = endless_model(kit), kit.Runs()
    task = asyncio.create_task(ways[way_name](chain_of(llm), "Why?", {"callbacks": [runs]}))
    await llm.watch.together(4).await_()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_sync_only_models_are_parallel_under_async(kit, ways):
    llm = kit.SyncOnlyChat(script=None)
    both = llm.watch.together(2)
    answer = kit.answering(["One thing", "Two things"])
    llm.script = lambda seen: [both, *answer(seen)] if seen.stage == "point" else answer(seen)
    for way in (ways["ainvoke"], ways["astream"]):
        assert len((await way(chain_of(llm), "Why?"))["points"]) == 2


async def test_any_runnable_that_gives_text_serves_as_a_model(kit, way):
    def reply(messages):
        return "1. Only this" if "Write only the headings" in messages[-1].content else "Its text."

    output = await way(skeleton_chain(llm=RunnableLambda(reply)), "Why?")
    assert output["points"] == {"1": "Its text."}
