"""The workflow facade: the same answer, its events on the stream, and cancellation."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core.schema import QueryBundle
from llama_index.core.workflow import StopEvent

from llama_index_sot import SkeletonOfThoughtWorkflow
from llama_index_sot.events import AnswerDelta, PointDelta, PointDone, PointSources, SkeletonReady

TITLES = ["Move", "Drink water"]


@pytest.mark.parametrize("query", ["How?", QueryBundle("How?")], ids=["str", "bundle"])
async def test_a_workflow_streams_the_events_and_returns_the_response(LLMClass, kit, query):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query)])
    engine = kit.make(LLMClass(script=kit.answering(TITLES)), retriever=retriever)
    handler = SkeletonOfThoughtWorkflow(engine).run(query=query)
    events = [event async for event in handler.stream_events()]
    response = await handler
    assert str(response) == "1. Move: All about move.\n\n2. Drink water: All about drink water."
    assert "".join(event.text for event in events if isinstance(event, AnswerDelta)) == str(response)
    types = {type(event) for event in events}
    assert {SkeletonReady, PointSources, PointDelta, PointDone, AnswerDelta, StopEvent} == types
    assert len(response.source_nodes) == 2


async def test_a_workflow_takes_an_engines_options(kit):
    flow = SkeletonOfThoughtWorkflow(llm=kit.ChatLLM(script=kit.answering(TITLES)), max_points=1, router=None)
    assert len((await flow.run(query="How?")).points) == 1


async def test_an_error_of_the_llm_fails_the_run(LLMClass, kit):
    flow = SkeletonOfThoughtWorkflow(kit.make(LLMClass(script=lambda seen: [OSError("no route")]), max_retries=0))
    with pytest.raises(OSError, match="no route"):
        await flow.run(query="How?")


async def test_cancelling_a_run_cancels_its_calls(kit):
    def script(seen):
        return ["1. One\n2. Two"] if seen.stage == "skeleton" else ("and " for _ in iter(int, 1))

    llm = kit.ChatLLM(script=script)
    handler = SkeletonOfThoughtWorkflow(kit.make(llm)).run(query="How?")
    async for event in handler.stream_events():
        if isinstance(event, PointDelta):
            break
    await handler.cancel_run()
    until = asyncio.get_running_loop().time() + kit.PATIENCE
    while llm.watch.open:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.001)


async def test_invalid_settings_are_refused(kit):
    engine = kit.make(kit.ChatLLM(script=kit.answering(TITLES)))
    with pytest.raises(ValueError, match="not both"):
        SkeletonOfThoughtWorkflow(engine, max_points=3)
    with pytest.raises(ValueError, match="string or a QueryBundle"):
        await SkeletonOfThoughtWorkflow(engine).run(question="How?")
