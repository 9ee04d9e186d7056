"""Runs, callbacks, context variables and events."""

from __future__ import annotations

import contextvars

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.runnables import RunnableLambda

TITLES = ["Take breaks", "Drink water", "Move"]


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


async def test_an_answer_is_one_root_run_with_a_child_per_call(kit, way, llm):
    runs = kit.Runs()
    await way(skeleton_chain(llm=llm), "Why?", {"callbacks": [runs], "run_name": "mine", "tags": ["t"]})
    (root,) = runs.roots
    assert root.name == "mine"
    children = {run.name: run for run in runs.children(root)}
    assert set(children) == {"skeleton", "point 1: Take breaks", "point 2: Drink water", "point 3: Move"}
    assert len(runs.started) == 5
    point = children["point 2: Drink water"]
    assert (point.metadata["sot_stage"], point.metadata["sot_point"]) == ("point", 2)
    assert {"sot:point", "t"} <= set(point.tags)
    runs.assert_all_ended_before_the_root()


async def test_a_direct_answer_is_a_child_named_answer(kit, way, llm):
    runs = kit.Runs()
    await way(skeleton_chain(llm=llm, router=lambda q: False), "Why?", {"callbacks": [runs]})
    (root,) = runs.roots
    assert [run.name for run in runs.children(root)] == ["answer"]


async def test_all_runs_end_before_the_root_when_a_point_fails(kit, way):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    runs = kit.Runs()
    chain = skeleton_chain(llm=kit.Chat(script=script), max_retries=0)
    with pytest.raises(Exception, match="boom"):
        await way(chain, "Why?", {"callbacks": [runs]})
    runs.assert_all_ended_before_the_root()
    assert runs.roots[0].id in runs.errors


@pytest.mark.parametrize("is_async", [False, True])
async def test_each_question_of_a_batch_has_its_own_root_run(kit, llm, is_async):
    runs, chain = kit.Runs(), skeleton_chain(llm=llm)
    config = {"callbacks": [runs]}
    if is_async:
        await chain.abatch(["A?", "B?"], config)
    else:
        chain.batch(["A?", "B?"], config)
    assert [len(runs.children(root)) for root in runs.roots] == [4, 4]
    runs.assert_all_ended_before_the_root()


async def test_usage_is_complete_and_the_same_for_every_method(ways, llm):
    totals = []
    for way in ways.values():
        with get_usage_metadata_callback() as usage:
            await way(skeleton_chain(llm=llm), "Why?")
        totals.append(usage.usage_metadata)
    assert totals[0]["scripted"]["output_tokens"] > 0
    assert all(total == totals[0] for total in totals)


async def test_context_variables_reach_every_call(kit, way):
    user = contextvars.ContextVar("user", default="nobody")
    found = []

    def script(seen):
        found.append(user.get())
        return kit.answering(TITLES)(seen)

    user.set("ada")
    await way(skeleton_chain(llm=kit.Chat(script=script), router=lambda q: user.get() == "ada"), "Why?")
    assert found == ["ada"] * 4


async def test_a_router_that_is_a_runnable_is_a_child_named_route(kit, way, llm):
    runs = kit.Runs()
    router = RunnableLambda(lambda question: question == "Why?")
    output = await way(skeleton_chain(llm=llm, router=router), "Why?", {"callbacks": [runs]})
    assert output["route"] == "skeleton"
    (root,) = runs.roots
    route = next(run for run in runs.children(root) if run.name == "route")
    assert route.metadata["sot_stage"] == "route"
    runs.assert_all_ended_before_the_root()


async def test_runs_of_a_plain_function_router_are_children_too(kit, way, llm):
    runs = kit.Runs()
    inner = RunnableLambda(lambda question: True, name="inner")
    await way(skeleton_chain(llm=llm, router=inner.invoke), "Why?", {"callbacks": [runs]})
    (root,) = runs.roots
    assert "inner" in [run.name for run in runs.children(root)]


async def test_events_are_attributable_to_their_point(llm):
    texts = {}
    async for event in skeleton_chain(llm=llm).astream_events("Why?", version="v2"):
        if event["event"] == "on_chat_model_stream" and event["metadata"]["sot_stage"] == "point":
            index = event["metadata"]["sot_point"]
            texts[index] = texts.get(index, "") + event["data"]["chunk"].text
    assert texts == {1: "All about take breaks.", 2: "All about drink water.", 3: "All about move."}


async def test_events_are_attributable_inside_a_sequence(llm):
    sequence = RunnableLambda(lambda q: {"question": q}) | skeleton_chain(llm=llm) | (lambda out: out["answer"])
    points = set()
    end = None
    async for event in sequence.astream_events("Why?", version="v2"):
        if event["event"] == "on_chat_model_end":
            points.add(event["metadata"].get("sot_point"))
        end = event
    assert points == {None, 1, 2, 3}
    assert end["data"]["output"].startswith("1. Take breaks: ")
