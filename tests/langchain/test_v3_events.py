"""LangChain's events of version "v3": of the chain as a chat model, of `ChatTransformers`, and in graphs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from scripted_calls import Gate

from langchain_sot import ChatTransformers, SkeletonOfThoughtChain
from skeleton_of_thought.errors import PointError

if not hasattr(BaseChatModel, "stream_events"):
    pytest.skip("this langchain-core has no events of version 3", allow_module_level=True)

graphs = pytest.importorskip("langgraph.graph", reason="the extra [agents] is not installed")

# They are in beta, and say so at each call.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

TITLES = ["Take breaks", "Drink water", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n3. Move: All about move."


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    return request.param


async def events_of(model: Any, value: Any, config: Any = None, *, is_async: bool, **kwargs: Any) -> tuple[Any, Any]:
    """All events of a call, and its message."""
    if is_async:
        # Leaving the stream waits for the callbacks, which come after the message.
        async with await model.astream_events(value, config, version="v3", **kwargs) as stream:
            return [event async for event in stream], await stream.output

    def read() -> tuple[Any, Any]:
        stream = model.stream_events(value, config, version="v3", **kwargs)
        return list(stream), stream.output

    return await asyncio.to_thread(read)


def kinds(events: Iterable[Any]) -> list[str]:
    """The events in order, repeated ones once."""
    names = [event["event"] for event in events]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def text_of(events: Iterable[Any]) -> str:
    deltas = [event["delta"] for event in events if event["event"] == "content-block-delta"]
    return "".join(delta["text"] for delta in deltas if delta["type"] == "text-delta")


WHOLE = ["message-start", "content-block-start", "content-block-delta", "content-block-finish", "message-finish"]


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


# --- the chain as a chat model ---


async def test_the_text_comes_once_and_in_document_order_with_the_usage_of_all_calls(kit, llm, is_async):
    runs = kit.Runs()
    model = skeleton_chain(llm=llm).as_chat_model()
    with get_usage_metadata_callback() as counted:
        events, message = await events_of(model, "Why?", {"callbacks": [runs]}, is_async=is_async)
    assert kinds(events) == WHOLE
    assert text_of(events) == message.text == ANSWER
    assert sum(event["event"] == "content-block-delta" for event in events) > len(TITLES)
    usage = events[-1]["usage"]
    assert usage == message.usage_metadata
    assert counted.usage_metadata["scripted"]["total_tokens"] == usage["total_tokens"] > 0
    metadata = message.response_metadata
    assert (metadata["route"], metadata["skeleton"], metadata["finish_reason"]) == ("skeleton", TITLES, "stop")
    assert sum(stage["total_tokens"] for stage in metadata["usage_by_stage"].values()) == usage["total_tokens"]
    assert len(llm.watch.seen) == 4
    runs.assert_all_ended_before_the_root()


class Results(BaseCallbackHandler):
    """The message of each model's run, as callbacks see it."""

    run_inline = True

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.messages.append(response.generations[0][0].message)


async def test_callbacks_see_the_answer_without_usage(llm, is_async):
    seen = Results()
    await events_of(skeleton_chain(llm=llm).as_chat_model(), "Why?", {"callbacks": [seen]}, is_async=is_async)
    own = [message for message in seen.messages if message.text == ANSWER]
    assert [message.usage_metadata for message in own] == [None]
    assert sum(message.usage_metadata is not None for message in seen.messages) == 4


async def test_a_direct_answer_has_the_events_of_the_llm(llm, is_async):
    model = SkeletonOfThoughtChain(llm=llm).as_chat_model()
    events, message = await events_of(model, "What is 2 + 2?", is_async=is_async)
    assert text_of(events) == message.text == "Just so."
    assert message.usage_metadata["total_tokens"] > 0
    assert [seen.stage for seen in llm.watch.seen] == ["direct"]


async def test_the_first_point_comes_before_the_last_is_written(kit):
    gate = Gate()

    def script(seen: Any) -> list[Any]:
        waits = [gate] if seen.point == 3 else []
        return [*waits, *kit.answering(TITLES)(seen)]

    stream = await skeleton_chain(llm=kit.Chat(script=script)).as_chat_model().astream_events("Why?", version="v3")
    text = ""
    async for delta in stream.text:
        text += delta
        if "All about drink water." in text:
            gate.open()
    assert text == ANSWER


async def test_an_answer_that_fails_raises_its_error_and_ends_its_runs(kit, is_async):
    def script(seen: Any) -> list[Any]:
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    llm, runs = kit.Chat(script=script), kit.Runs()
    model = skeleton_chain(llm=llm, max_retries=0).as_chat_model()
    with pytest.raises(PointError, match="boom"):
        await events_of(model, "Why?", {"callbacks": [runs]}, is_async=is_async)
    assert llm.watch.open == 0
    # LangChain cancels its wait for the callbacks of a failed stream that is left; they run to their end.
    await Gate(lambda: len(runs.ended) == len(runs.started)).await_()
    runs.assert_all_ended_before_the_root()


async def test_nothing_runs_on_after_a_stream_is_closed(kit):
    def script(seen: Any) -> list[Any]:
        said = kit.answering(TITLES)(seen)
        return [*said[:1], Gate(), *said[1:]] if seen.point == 2 else said

    llm, runs = kit.Chat(script=script), kit.Runs()
    model = skeleton_chain(llm=llm).as_chat_model()
    async with await model.astream_events("Why?", {"callbacks": [runs]}, version="v3") as stream:
        async for _ in stream.text:
            break
        assert llm.watch.open > 0
    assert llm.watch.open == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    runs.assert_all_ended_before_the_root()


async def test_a_stream_that_nobody_reads_makes_no_call(llm):
    model = skeleton_chain(llm=llm).as_chat_model()
    model.stream_events("Why?", version="v3")
    await (await model.astream_events("Why?", version="v3")).aclose()
    assert llm.watch.seen == []


async def test_the_chain_itself_has_no_events_of_version_3(llm):
    chain = skeleton_chain(llm=llm)
    with pytest.raises(NotImplementedError):
        chain.stream_events("Why?", version="v3")
    with pytest.raises(NotImplementedError):
        await chain.astream_events("Why?", version="v3")
    assert llm.watch.seen == []


# --- in a graph ---


def graph_of(model: Any, *, is_async: bool) -> Any:
    def answer(state: Any) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aanswer(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = graphs.StateGraph(graphs.MessagesState)
    builder.add_node("answer", aanswer if is_async else answer)
    builder.add_edge(graphs.START, "answer")
    return builder.compile()


QUESTION = {"messages": [("human", "Why?")]}


async def test_a_graph_has_one_message_of_events_and_the_same_in_its_state(llm, is_async):
    graph = graph_of(skeleton_chain(llm=llm).as_chat_model(), is_async=is_async)
    with get_usage_metadata_callback() as counted:
        if is_async:
            async with await graph.astream_events(QUESTION, version="v3") as run:
                streamed = [
                    ([delta async for delta in stream.text], await stream.output) async for stream in run.messages
                ]
                state = await run.output()
        else:
            with graph.stream_events(QUESTION, version="v3") as run:
                streamed = [(list(stream.text), stream.output) for stream in run.messages]
                state = run.output
    ((deltas, message),) = streamed
    assert "".join(deltas) == message.text == ANSWER
    assert len(deltas) > len(TITLES)
    last = state["messages"][-1]
    assert (last.id, last.text, last.usage_metadata) == (message.id, ANSWER, message.usage_metadata)
    assert counted.usage_metadata["scripted"]["total_tokens"] == last.usage_metadata["total_tokens"] > 0


async def test_nothing_runs_on_after_a_graph_s_run_is_left(kit):
    def script(seen: Any) -> list[Any]:
        said = kit.answering(TITLES)(seen)
        return [*said[:1], Gate(), *said[1:]] if seen.point == 2 else said

    llm = kit.Chat(script=script)
    graph = graph_of(skeleton_chain(llm=llm).as_chat_model(), is_async=True)
    async with await graph.astream_events(QUESTION, version="v3") as run:
        async for stream in run.messages:
            async for _ in stream.text:
                break
            break
        assert llm.watch.open > 0
    assert llm.watch.open == 0


# --- local models ---


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def scripted(local_models):
    pytest.importorskip("torch", reason="the local engine needs torch")
    engines = []

    def make(script: str) -> ChatTransformers:
        engines.append(local_models.scripted_engine(script))
        return ChatTransformers(engine=engines[-1])

    yield make
    for engine in engines:
        engine.close()


def written(a: int, b: int) -> str:
    return f"<tool_call>\n{json.dumps({'name': 'add', 'arguments': {'a': a, 'b': b}})}\n</tool_call>"


async def test_tool_calls_of_a_local_model_are_blocks_of_their_own(scripted, is_async):
    model = scripted(f"I add. {written(1, 2)}\n{written(3, 4)}").bind_tools([add])
    events, message = await events_of(model, "Go", is_async=is_async)
    assert kinds(events)[0] == "message-start"
    assert text_of(events) == message.text == "I add."
    calls = [event["content"] for event in events if event["event"] == "content-block-finish"][-2:]
    assert [(call["type"], call["name"], call["args"]) for call in calls] == [
        ("tool_call", "add", {"a": 1, "b": 2}),
        ("tool_call", "add", {"a": 3, "b": 4}),
    ]
    assert [call["id"] for call in calls] == [call["id"] for call in message.tool_calls]
    assert len({call["id"] for call in calls}) == 2
    assert message.usage_metadata["output_tokens"] > 0
    assert message.response_metadata["model_provider"] == "transformers"
    assert message.response_metadata["finish_reason"] == "stop"


async def test_a_call_that_cannot_be_read_stays_invalid(scripted, is_async):
    model = scripted('<tool_call>\n{"name": "add", "arguments": {"a": 1').bind_tools([add])
    _, message = await events_of(model, "Go", is_async=is_async)
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert '{"name": "add"' in invalid["args"]


async def test_the_engine_stops_when_a_stream_is_closed(scripted):
    model = scripted("word " * 400)
    async with await model.astream_events("Go", version="v3", max_tokens=2000) as stream:
        async for _ in stream.text:
            break
    stats = model.engine.stats()
    assert (stats.rows, stats.waiting, stats.cancelled) == (0, 0, 1)
