"""The chain as a chat model: messages, usage, runs, streams, limits, and calls that go to the `llm` unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import time
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel, FakeListChatModel, FakeListLLM
from langchain_core.load import dumpd, dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from langchain_sot import SkeletonOfThoughtChatModel, load_chain
from skeleton_of_thought.budget import default_limit
from skeleton_of_thought.errors import PointError
from skeleton_of_thought.settings import Settings

TITLES = ["Take breaks", "Drink water", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n3. Move: All about move."


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


@pytest.fixture
def model(llm):
    return skeleton_chain(llm=llm).as_chat_model()


@tool
def weather(place: str) -> str:
    """The weather at a place."""
    return f"Sunny in {place}."


class Forecast(BaseModel):
    """A weather forecast."""

    place: str


def tool_calling(kit: Any) -> type:
    class ToolChat(kit.Chat):
        """Calls the first of its tools, if it has any and the last message is a human's."""

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            names = [t["title"] if isinstance(t, dict) else getattr(t, "name", None) or t.__name__ for t in tools]
            return self.bind(tools=names, **kwargs)

        def _calls(self, messages: Any, kwargs: Any) -> list[ChatGenerationChunk]:
            if not kwargs.get("tools") or messages[-1].type != "human":
                return []
            call = {"name": kwargs["tools"][0], "args": '{"place": "Rome"}', "id": "c1", "index": 0}
            return [ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))]

        def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            yield from self._calls(messages, kwargs)
            yield from super()._stream(messages, stop, run_manager, **kwargs)

        async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            for chunk in self._calls(messages, kwargs):
                yield chunk
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            result = super()._generate(messages, stop, run_manager, **kwargs)
            if calls := self._calls(messages, kwargs):
                result.generations[0].message.tool_calls = calls[0].message.tool_calls
            return result

        async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            result = await super()._agenerate(messages, stop, run_manager, **kwargs)
            if calls := self._calls(messages, kwargs):
                result.generations[0].message.tool_calls = calls[0].message.tool_calls
            return result

    return ToolChat


# --- the message ---


async def test_every_method_returns_the_chain_s_answer_as_a_message(way, model):
    message = await way(model, "Why?")
    assert isinstance(message, AIMessage)
    assert message.text == ANSWER
    metadata = message.response_metadata
    assert metadata["skeleton"] == TITLES
    assert (metadata["route"], metadata["errors"], metadata["finish_reason"]) == ("skeleton", {}, "stop")
    assert metadata["model_name"] == "scripted"
    assert set(metadata["timings"]["stages"]) == {"skeleton", "point"}
    assert message.id


async def test_usage_is_the_sum_over_all_calls(kit, way, llm):
    runs = Usages()
    message = await way(skeleton_chain(llm=llm).as_chat_model(), "Why?", {"callbacks": [runs]})
    assert len(runs.seen) == 4
    assert message.usage_metadata["output_tokens"] == sum(usage["output_tokens"] for usage in runs.seen)
    assert message.usage_metadata["input_tokens"] == sum(usage["input_tokens"] for usage in runs.seen)
    stages = message.response_metadata["usage_by_stage"]
    assert set(stages) == {"skeleton", "point"}
    assert sum(usage["total_tokens"] for usage in stages.values()) == message.usage_metadata["total_tokens"]


class Usages(BaseCallbackHandler):
    """The usage of each model run, as callbacks see it."""

    run_inline = True

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_llm_end(self, response: Any, **_: Any) -> None:
        message = getattr(response.generations[0][0], "message", None)
        if message is not None and message.usage_metadata:
            self.seen.append(message.usage_metadata)


async def test_usage_callbacks_count_no_token_twice(way, model):
    with get_usage_metadata_callback() as usage:
        message = await way(model, "Why?")
    assert list(usage.usage_metadata) == ["scripted"]
    assert usage.usage_metadata["scripted"]["total_tokens"] == message.usage_metadata["total_tokens"]


async def test_usage_callbacks_count_no_token_twice_with_token_callbacks(model):
    with get_usage_metadata_callback() as usage:
        end = [event async for event in model.astream_events("Why?", version="v2")][-1]
    assert end["data"]["output"].text == ANSWER
    stages = end["data"]["output"].response_metadata["usage_by_stage"].values()
    assert usage.usage_metadata["scripted"]["total_tokens"] == sum(stage["total_tokens"] for stage in stages)


@pytest.mark.skipif(
    not hasattr(BaseChatModel, "stream_events"), reason="this langchain-core has no events of version 3"
)
@pytest.mark.filterwarnings("ignore:.*v3.*:Warning")
def test_events_of_version_3_count_no_token_twice(model):
    with get_usage_metadata_callback() as usage:
        stream = model.stream_events("Why?", version="v3")
        text = stream.output.text
    assert text == ANSWER
    stages = stream.output.response_metadata["usage_by_stage"].values()
    assert usage.usage_metadata["scripted"]["total_tokens"] == sum(stage["total_tokens"] for stage in stages)


async def test_unknown_event_versions_are_refused(llm, model):
    assert hasattr(model, "stream_events") == hasattr(llm, "stream_events")
    versions = ["v0"] if hasattr(llm, "stream_events") else ["v0", "v3"]
    for version in versions:
        with pytest.raises(NotImplementedError) as theirs:
            await anext(llm.astream_events("Why?", version=version))
        with pytest.raises(NotImplementedError) as ours:
            await anext(model.astream_events("Why?", version=version))
        assert str(ours.value) == str(theirs.value)
    assert llm.watch.seen == []


async def test_usage_includes_the_router(kit, way, llm):
    judge = kit.Chat(script=lambda seen: ["yes"])
    for router in (judge | RunnableLambda(lambda m: m.text == "yes"), lambda question: bool(judge.invoke(question))):
        with get_usage_metadata_callback() as usage:
            message = await way(skeleton_chain(llm=llm, router=router).as_chat_model(), "Why?")
        stages = message.response_metadata["usage_by_stage"]
        assert set(stages) == {"route", "skeleton", "point"}
        assert stages["route"]["total_tokens"] > 0
        assert usage.usage_metadata["scripted"]["total_tokens"] == message.usage_metadata["total_tokens"]


async def test_a_direct_answer_is_marked_in_the_metadata(way, llm):
    message = await way(skeleton_chain(llm=llm, router=lambda q: False).as_chat_model(), "Why?")
    assert message.text == "Just so."
    assert (message.response_metadata["route"], message.response_metadata["skeleton"]) == ("direct", [])
    assert message.usage_metadata["total_tokens"] > 0


async def test_usage_is_none_where_the_model_reports_none(way):
    llm = FakeListChatModel(responses=["1. Move", "A walk helps."])
    message = await way(skeleton_chain(llm=llm).as_chat_model(), "Why?")
    assert message.text == "1. Move: A walk helps."
    assert message.usage_metadata is None


async def test_a_string_llm_returns_messages(way):
    llm = FakeListLLM(responses=["1. Move", "A walk helps."])
    model = skeleton_chain(llm=llm).as_chat_model()
    assert (await way(model, "Why?")).text == "1. Move: A walk helps."
    passed = await way(model.bind(stop=["x"]), "Why?")
    assert isinstance(passed, AIMessage)
    assert passed.text == "1. Move"


async def test_failed_points_are_in_the_metadata(kit, way):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    chain = skeleton_chain(llm=kit.Chat(script=script), max_retries=0, on_point_error="placeholder")
    message = await way(chain.as_chat_model(), "Why?")
    assert message.response_metadata["errors"] == {"2": "ValueError: boom"}
    assert "All about move." in message.text


async def test_a_truncated_answer_is_marked_in_the_metadata(kit, way):
    class Short(kit.Chat):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for chunk in super()._stream(*args, **kwargs):
                if "explain: Move" in str(args[0]) or 'heading "Move"' in str(args[0]):
                    chunk.message.response_metadata = {
                        key: "length" if key == "finish_reason" else value
                        for key, value in chunk.message.response_metadata.items()
                    }
                yield chunk

        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            for chunk in self._stream(*args, **kwargs):
                yield chunk

    message = await way(skeleton_chain(llm=Short(script=kit.answering(TITLES))).as_chat_model(), "Why?")
    assert message.response_metadata["finish_reason"] == "length"


# --- runs ---


async def test_the_model_s_run_is_the_parent_of_all_calls(kit, way, model):
    runs = kit.Runs()
    await way(model, "Why?", {"callbacks": [runs], "run_name": "mine", "tags": ["t"], "metadata": {"m": 1}})
    (root,) = runs.roots
    assert root.name == "mine"
    children = {run.name: run for run in runs.children(root)}
    assert set(children) == {"skeleton", "point 1: Take breaks", "point 2: Drink water", "point 3: Move"}
    assert len(runs.started) == 5
    point = children["point 2: Drink water"]
    assert {"sot:point", "t"} <= set(point.tags)
    assert (point.metadata["m"], point.metadata["sot_point"]) == (1, 2)
    runs.assert_all_ended_before_the_root()


async def test_the_models_own_callbacks_do_not_reach_its_calls(kit, way, llm):
    own = kit.Runs()
    await way(SkeletonOfThoughtChatModel(chain=skeleton_chain(llm=llm), callbacks=[own]), "Why?")
    assert len(own.started) == 1
    assert len(own.ended) == 1


async def test_all_runs_end_before_the_root_when_a_point_fails(kit, way):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    runs = kit.Runs()
    model = skeleton_chain(llm=kit.Chat(script=script), max_retries=0).as_chat_model()
    with pytest.raises(PointError, match="boom"):
        await way(model, "Why?", {"callbacks": [runs]})
    runs.assert_all_ended_before_the_root()
    assert runs.roots[0].id in runs.errors


async def test_events_of_the_answer_come_in_document_order(model):
    texts: dict[Any, str] = {}
    async for event in model.astream_events("Why?", version="v2"):
        if event["event"] == "on_chat_model_stream":
            texts[event["run_id"]] = texts.get(event["run_id"], "") + event["data"]["chunk"].text
    assert ANSWER in texts.values()
    assert len(texts) == 5


# --- streams ---


def test_text_comes_in_document_order_while_later_points_are_written(kit):
    slow = kit.Gate()

    def script(seen):
        text = list(kit.answering(TITLES)(seen))
        return [*text[:1], slow, *text[1:]] if seen.point == 3 else text

    stream = skeleton_chain(llm=kit.Chat(script=script)).as_chat_model().stream("Why?")
    text = ""
    for chunk in stream:
        text += chunk.text
        if "All about drink water." in text:
            slow.open()
    assert text == ANSWER


@pytest.mark.parametrize("is_async", [False, True])
async def test_only_the_last_chunk_has_usage(model, is_async):
    chunks = [c async for c in model.astream("Why?")] if is_async else list(model.stream("Why?"))
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].chunk_position == "last"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_that_is_closed_early_leaves_nothing_running(kit):
    llm = kit.Chat(script=endless)
    runs = kit.Runs()
    stream = skeleton_chain(llm=llm).as_chat_model().stream("Why?", {"callbacks": [runs]})
    while "on and" not in next(stream).text:
        pass
    assert llm.watch.open > 0
    await asyncio.to_thread(stream.close)
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_an_async_stream_that_is_closed_early_leaves_nothing_running(kit):
    llm = kit.Chat(script=endless)
    runs = kit.Runs()
    stream = skeleton_chain(llm=llm).as_chat_model().astream("Why?", {"callbacks": [runs]})
    while "on and" not in (await anext(stream)).text:
        pass
    assert llm.watch.open > 0
    await stream.aclose()
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


def endless(seen: Any) -> Any:
    if seen.stage == "skeleton":
        yield "1. Move\n2. Rest"
        return
    while True:
        yield "on and "


@pytest.mark.parametrize("way_in", ["ainvoke", "astream", "abatch"])
async def test_a_task_that_is_cancelled_leaves_nothing_running(kit, way_in):
    llm = kit.Chat(script=endless)
    runs = kit.Runs()
    model, config = skeleton_chain(llm=llm).as_chat_model(), {"callbacks": [runs]}

    async def use() -> None:
        if way_in == "astream":
            async for _ in model.astream("Why?", config):
                pass
        else:
            await (model.ainvoke("Why?", config) if way_in == "ainvoke" else model.abatch(["Why?"], config))

    task = asyncio.create_task(use())
    while len(llm.watch.of("point")) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


class Interrupted(AsyncCallbackHandler):
    """Never finishes its work on the first piece of a point in the answer."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def on_llm_new_token(self, token: str, *, parent_run_id: Any = None, **_: Any) -> None:
        if parent_run_id is None and "on" in token:
            self.begun.set()
            await asyncio.Event().wait()


async def streamed(model: Any, config: Any) -> None:
    async for _ in model.astream("Why?", config):
        pass


async def invoked(model: Any, config: Any) -> None:
    await SkeletonOfThoughtChatModel(chain=model.chain, streaming=True).ainvoke("Why?", config)


@pytest.mark.parametrize("use", [streamed, invoked])
async def test_a_task_that_is_cancelled_while_a_handler_works_ends_the_calls_first(kit, use):
    llm, runs, handler = kit.Chat(script=endless), kit.Runs(), Interrupted()
    model = skeleton_chain(llm=llm).as_chat_model()
    task = asyncio.create_task(use(model, {"callbacks": [runs, handler]}))
    await asyncio.wait_for(handler.begun.wait(), kit.PATIENCE)
    assert llm.watch.open > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


@pytest.mark.parametrize("use", [streamed, invoked])
async def test_a_task_that_is_cancelled_twice_still_ends_the_calls(kit, use):
    closing, gate = asyncio.Event(), asyncio.Event()

    class Slow(kit.Chat):
        """Ends a call slowly."""

        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            try:
                async for chunk in super()._astream(*args, **kwargs):
                    yield chunk
            finally:
                closing.set()
                await gate.wait()

    def script(seen):
        if seen.stage == "skeleton":
            gate.set()
            return ["1. Move\n2. Rest"]
        gate.clear()
        closing.clear()
        return iter(lambda: "on ", None)

    llm, runs, handler = Slow(script=script), kit.Runs(), Interrupted()
    model = skeleton_chain(llm=llm).as_chat_model()
    task = asyncio.create_task(use(model, {"callbacks": [runs, handler]}))
    await asyncio.wait_for(handler.begun.wait(), kit.PATIENCE)
    task.cancel()
    await asyncio.wait_for(closing.wait(), kit.PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    until = asyncio.get_running_loop().time() + kit.PATIENCE
    while set(runs.ended) != set(runs.started) or llm.watch.open:
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.001)


class Failing(BaseCallbackHandler):
    """Fails at the answer's first token, when the calls of its points have just begun."""

    raise_error = True

    def on_llm_new_token(self, token: str, *, parent_run_id: Any = None, **_: Any) -> None:
        if parent_run_id is None and token:
            raise ValueError("full")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("way_in", ["stream", "invoke"])
async def test_a_handler_that_fails_ends_the_calls_first(kit, ways, way_in, is_async):
    llm, runs = kit.Chat(script=endless), kit.Runs()
    model = SkeletonOfThoughtChatModel(chain=skeleton_chain(llm=llm), streaming=True)
    way = ways[f"a{way_in}" if is_async else way_in]
    with pytest.raises(ValueError, match="full"):
        await way(model, "Why?", {"callbacks": [runs, Failing()]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


async def test_streaming_can_be_disabled(way, llm):
    model = SkeletonOfThoughtChatModel(chain=skeleton_chain(llm=llm), disable_streaming=True)
    assert len([chunk async for chunk in model.astream("Why?")]) == 1
    message = await way(model, "Why?")
    assert message.text == ANSWER
    assert message.usage_metadata["total_tokens"] > 0


async def test_the_v1_format_of_content_is_kept(way, llm):
    model = SkeletonOfThoughtChatModel(chain=skeleton_chain(llm=llm), output_version="v1")
    message = await way(model, "Why?")
    assert [block["type"] for block in message.content] == ["text"]
    assert message.text == ANSWER


# --- calls that go to the `llm` unchanged ---

CONVERSATIONS = {
    "tool result": [
        HumanMessage("Is it sunny?"),
        AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}]),
        ToolMessage("Sunny.", tool_call_id="1"),
    ],
    "ends with the assistant": [HumanMessage("Go on:"), AIMessage("Once")],
    "system only": [SystemMessage("Say hello.")],
    "empty question": [HumanMessage(" ")],
}


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=list(CONVERSATIONS))
async def test_a_conversation_without_a_question_goes_to_the_llm(kit, way, llm, model, messages):
    runs = kit.Runs()
    message = await way(model, messages, {"callbacks": [runs]})
    assert message.text == "Just so."
    (seen,) = llm.watch.seen
    assert [id(m) for m in seen.messages] == [id(m) for m in messages]
    assert len(runs.started) == 1, "there is another run than the model's"
    assert "route" not in message.response_metadata
    assert message.usage_metadata == (await way(llm, messages)).usage_metadata


@pytest.mark.parametrize(
    "kwargs",
    [
        {"stop": ["x"]},
        {"max_tokens": 9},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"functions": [{"name": "f"}]},
        {"never_heard_of": 1},
    ],
    ids=lambda kwargs: next(iter(kwargs)),
)
async def test_calls_about_the_text_as_a_whole_go_to_the_llm(kit, way, kwargs):
    class Stopping(kit.Chat):
        def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kw: Any) -> Any:
            with self.watch.call(kit.seen_as(messages, {**kw, **({"stop": stop} if stop else {})})):
                yield kit.last_chunk(messages, 0)

        async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kw: Any) -> Any:
            for chunk in self._stream(messages, stop, run_manager, **kw):
                yield chunk

    llm = Stopping(script=None)
    await way(skeleton_chain(llm=llm).as_chat_model().bind(**kwargs), "Why?")
    (seen,) = llm.watch.seen
    assert seen.stage == "direct"
    assert {name: seen.kwargs[name] for name in kwargs} == kwargs


async def test_sampling_settings_reach_each_call_of_the_answer(way, llm, model):
    message = await way(model.bind(temperature=0.3, seed=1, tools=None), "Why?")
    assert message.text == ANSWER
    assert [(s.kwargs["temperature"], s.kwargs["seed"]) for s in llm.watch.seen] == [(0.3, 1)] * 4


async def test_bound_tools_are_called_by_the_llm(kit, way):
    llm = tool_calling(kit)(script=kit.answering(TITLES))
    bound = skeleton_chain(llm=llm).as_chat_model().bind_tools([weather])
    message = await way(bound, "Is it sunny?")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("weather", {"place": "Rome"})]
    assert [seen.stage for seen in llm.watch.seen] == ["direct"]


async def test_the_llm_makes_structured_output(kit, way):
    llm = tool_calling(kit)(script=kit.answering(TITLES))
    model = skeleton_chain(llm=llm).as_chat_model()
    assert model.with_structured_output(Forecast).invoke("Is it sunny?") == Forecast(place="Rome")
    assert llm.watch.seen[0].kwargs["tool_choice"] == "any"


@pytest.mark.parametrize("include_raw", [False, True])
def test_earlier_bindings_stay_with_tools_and_structured_output(kit, include_raw):
    llm = tool_calling(kit)(script=kit.answering(TITLES))
    other = tool_calling(kit)(script=lambda seen: [ValueError("down")])
    wrapped = other.bind(seed=2).with_fallbacks([llm.bind(seed=1).with_retry(stop_after_attempt=2)])
    model = skeleton_chain(llm=wrapped).as_chat_model()
    assert model.bind_tools([weather]).invoke("Is it sunny?").tool_calls
    output = model.with_structured_output(Forecast, include_raw=include_raw).invoke("Is it sunny?")
    assert (output["parsed"] if include_raw else output) == Forecast(place="Rome")
    assert [seen.kwargs["seed"] for seen in llm.watch.seen] == [1, 1]
    assert [seen.kwargs["seed"] for seen in other.watch.seen] == [2, 2]


def test_a_model_without_tools_is_named_in_the_error():
    model = skeleton_chain(llm=RunnableLambda(lambda x: AIMessage("hi"))).as_chat_model()
    with pytest.raises(NotImplementedError, match="RunnableLambda, which has no bind_tools"):
        model.bind_tools([weather])


async def test_streams_that_pass_through_are_closed_early_too(kit):
    llm = kit.Chat(script=lambda seen: iter(lambda: "on ", None))
    model = skeleton_chain(llm=llm.bind(seed=1)).as_chat_model()
    stream = model.astream("Why?", max_tokens=5)
    await anext(stream)
    await stream.aclose()
    assert llm.watch.open == 0
    sync = model.stream("Why?", max_tokens=5)
    next(sync)
    sync.close()
    assert llm.watch.open == 0


async def test_generate_takes_questions_and_other_conversations_together(model):
    lists = [[HumanMessage("Why?")], [SystemMessage("Say hello.")]]
    for result in (await asyncio.to_thread(model.generate, lists), await model.agenerate(lists)):
        assert [row[0].text for row in result.generations] == [ANSWER, "Just so."]
        assert all(row[0].message.usage_metadata["total_tokens"] > 0 for row in result.generations)


# --- limits, caches, rate limiters ---


@pytest.mark.parametrize("limit", [1, 2])
async def test_the_limit_bounds_the_calls_of_an_answer(way, llm, model, limit):
    await way(model, "Why?", {"max_concurrency": limit})
    assert llm.watch.peak <= limit


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 4, 7])
async def test_the_limit_bounds_the_calls_of_a_whole_batch(kit, is_async, limit):
    def script(seen):
        return [lambda: time.sleep(0.005), *kit.answering(TITLES)(seen)]  # long enough to meet other calls

    llm = kit.Chat(script=script)
    model, config = skeleton_chain(llm=llm).as_chat_model(), {"max_concurrency": limit}
    for questions in (["A?", "B?", "C?", "D?"], ["A?", "B?"]):
        llm.watch.peak = 0
        messages = await model.abatch(questions, config) if is_async else model.batch(questions, config)
        assert [message.text for message in messages] == [ANSWER] * len(questions)
        assert 1 <= llm.watch.peak <= limit


@pytest.mark.parametrize("way", ["batch", "abatch", "batch_as_completed", "abatch_as_completed", "agenerate"])
async def test_without_a_limit_a_batch_opens_as_many_calls_as_one_answer_needs(kit, way):
    bound = default_limit(Settings())
    watch = kit.Watch()
    together = watch.together(bound)
    titles = [f"Topic {letter}" for letter in "abcdefghij"]
    llm = kit.Chat(script=lambda seen: [together, *kit.answering(titles)(seen)], watch=watch)
    model, questions = skeleton_chain(llm=llm).as_chat_model(), [f"{i}?" for i in range(2 * bound)]
    if way == "abatch_as_completed":
        messages = [message async for _, message in model.abatch_as_completed(questions)]
    elif way == "batch_as_completed":
        messages = [m for _, m in await asyncio.to_thread(lambda: list(model.batch_as_completed(questions)))]
    elif way == "agenerate":
        result = await model.agenerate([[HumanMessage(question)] for question in questions])
        messages = [row[0].message for row in result.generations]
    else:
        messages = await (model.abatch(questions) if way == "abatch" else asyncio.to_thread(model.batch, questions))
    assert [message.response_metadata["skeleton"] for message in messages] == [titles] * len(questions)
    assert watch.peak == bound
    assert len(watch.seen) == len(questions) * 11


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_batch_returns_errors_in_place(kit, is_async):
    def script(seen):
        asked = " ".join(m.text for m in seen.messages)
        return [ValueError("boom")] if "B?" in asked else kit.answering(TITLES)(seen)

    model = skeleton_chain(llm=kit.Chat(script=script), max_retries=0).as_chat_model()
    given = {"return_exceptions": True}
    results = await model.abatch(["A?", "B?"], **given) if is_async else model.batch(["A?", "B?"], **given)
    assert results[0].text == ANSWER
    assert isinstance(results[1], ValueError)
    assert model.batch([]) == []


async def test_an_error_in_an_async_batch_cancels_the_other_answers(kit):
    runs = kit.Runs()

    def script(seen):
        asked = " ".join(m.text for m in seen.messages)
        return [writing, ValueError("boom")] if "B?" in asked else endless(seen)

    llm = kit.Chat(script=script)
    writing = kit.Gate(lambda: len(llm.watch.of("point")) == 2)
    model = skeleton_chain(llm=llm, max_retries=0).as_chat_model()
    with pytest.raises(ValueError, match="boom"):
        await model.abatch(["A?", "B?"], {"callbacks": [runs]})
    assert llm.watch.open == 0
    runs.assert_all_ended_before_the_root()


@pytest.mark.parametrize("is_async", [False, True])
async def test_answers_are_yielded_as_they_are_completed(kit, is_async):
    first = kit.Gate()

    def script(seen):
        asked = " ".join(m.text for m in seen.messages)
        return [first, *kit.answering(TITLES)(seen)] if "A?" in asked else kit.answering(TITLES)(seen)

    model = skeleton_chain(llm=kit.Chat(script=script)).as_chat_model()
    order = []
    if is_async:
        async for position, _ in model.abatch_as_completed(["A?", "B?"]):
            order.append(position)
            first.open()
    else:
        for position, _ in model.batch_as_completed(["A?", "B?"]):
            order.append(position)
            first.open()
    assert order == [1, 0]


async def test_the_llm_s_cache_answers_its_calls_and_the_chat_model_has_no_cache(kit, llm):
    llm.cache = InMemoryCache()
    model = skeleton_chain(llm=llm).as_chat_model()
    first, second = model.invoke("Why?"), await model.ainvoke("Why?")
    assert first.text == second.text == ANSWER
    assert len(llm.watch.seen) == 4
    with pytest.raises(ValidationError, match="cache"):
        SkeletonOfThoughtChatModel(chain=model.chain, cache=True)


class Counting(BaseRateLimiter):
    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.acquired += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


async def test_the_llm_s_rate_limiter_counts_calls_and_the_model_s_answers(way, llm):
    calls, answers = Counting(), Counting()
    llm.rate_limiter = calls
    await way(SkeletonOfThoughtChatModel(chain=skeleton_chain(llm=llm), rate_limiter=answers), "Why?")
    assert (calls.acquired, answers.acquired) == (4, 1)


# --- composition, configuration, serialisation ---


async def test_the_chat_model_composes_like_any_other(way, model):
    pipe = RunnableLambda(lambda q: [("system", "Be brief."), ("human", q)]) | model | RunnableLambda(lambda m: m.text)
    assert await way(pipe, "Why?") == ANSWER
    assert (await way(model.with_retry(), "Why?")).text == ANSWER
    assert (await way(model.with_fallbacks([model]), "Why?")).text == ANSWER


async def test_system_message_and_history_reach_every_call(way, llm, model):
    history = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Why?")]
    await way(model, history)
    assert all([m.text for m in seen.messages][:3] == ["Be brief.", "Hi", "Hello"] for seen in llm.watch.seen)


async def test_configurable_fields_of_the_llm_are_configurable_in_the_chat_model(way):
    llm = FakeListChatModel(responses=["1. Move", "A walk."]).configurable_fields(
        responses=ConfigurableField(id="responses")
    )
    model = skeleton_chain(llm=llm).as_chat_model()
    assert "responses" in [spec.id for spec in model.config_specs]
    configured = model.with_config(configurable={"responses": ["1. Rest", "1. Rest"]})
    assert (await way(configured, "Why?")).response_metadata["skeleton"] == ["Rest"]


async def test_the_chosen_alternative_gives_the_model_name(kit, way):
    class Named(kit.Chat):
        model_name: str = "one"

    other = Named(script=kit.answering(TITLES), model_name="two")
    llm = Named(script=None).configurable_alternatives(ConfigurableField(id="llm"), two=other)
    message = await way(skeleton_chain(llm=llm).as_chat_model(), "Why?", {"configurable": {"llm": "two"}})
    assert (message.text, message.response_metadata["model_name"]) == (ANSWER, "two")


def test_the_chain_itself_is_configurable(llm):
    one, two = (skeleton_chain(llm=llm, max_points=n) for n in (1, 2))
    model = one.as_chat_model().configurable_fields(chain=ConfigurableField(id="chain"))
    assert model.invoke("Why?").response_metadata["skeleton"] == TITLES[:1]
    assert model.invoke("Why?", {"configurable": {"chain": two}}).response_metadata["skeleton"] == TITLES[:2]


def test_the_chat_model_is_dumped_and_loaded_without_secrets():
    openai = pytest.importorskip("langchain_openai", reason="a model that can be dumped and loaded is needed")
    llm = openai.ChatOpenAI(model="m", api_key="hush", base_url="http://127.0.0.1:1/v1", temperature=0.5)
    model = skeleton_chain(llm=llm, max_points=4).as_chat_model()
    assert "hush" not in dumps(model)
    loaded = load_chain(dumpd(model), secrets_map={"OPENAI_API_KEY": "hush"})
    assert isinstance(loaded, SkeletonOfThoughtChatModel)
    assert (loaded.chain.max_points, loaded.chain.llm.temperature) == (4, 0.5)
    assert dumpd(loaded) == dumpd(model)


def test_the_chat_model_is_pickled_like_the_chain():
    model = skeleton_chain(llm=FakeListChatModel(responses=["1. Move", "A walk."])).as_chat_model()
    assert pickle.loads(pickle.dumps(model)).invoke("Why?").text == "1. Move: A walk."


def test_the_llm_gives_parameters_and_token_counts(kit):
    class Known(kit.Chat):
        model_name: str = "known"

        def get_num_tokens(self, text: str) -> int:
            return 7

    llm = Known(script=None)
    model = skeleton_chain(llm=llm.bind(temperature=0.5)).as_chat_model()
    assert model._llm_type == "scripted"
    assert model.get_num_tokens("x") == 7
    assert model.get_num_tokens_from_messages([HumanMessage("x")]) == 7
    params = model._get_ls_params(stop=["x"])
    assert (params["ls_model_name"], params["ls_temperature"], params["ls_stop"]) == ("known", 0.5, ["x"])
    assert model._get_ls_params(model="other")["ls_model_name"] == "other"


def test_the_llm_gives_the_profile(kit):
    llm = kit.Chat(script=None, profile={"max_input_tokens": 9})
    model = skeleton_chain(llm=llm.bind(temperature=0.5)).as_chat_model()
    assert model.profile == {"max_input_tokens": 9}


def test_settings_of_the_constructor_are_bound_to_both_models(kit):
    llm, writer = (kit.Chat(script=kit.answering(TITLES)) for _ in range(2))
    chain = skeleton_chain(llm=llm, point_llm=writer)
    model = SkeletonOfThoughtChatModel(chain=chain, temperature=0.1, max_tokens=30)
    assert model.invoke("Why?").text == ANSWER
    assert [s.kwargs for s in [*llm.watch.seen, *writer.watch.seen]] == [{"temperature": 0.1, "max_tokens": 30}] * 4
    with pytest.raises(ValidationError, match="temprature"):
        SkeletonOfThoughtChatModel(chain=chain, temprature=0.1)


def test_context_variables_and_nested_configs_reach_the_calls(kit, llm):
    runs = kit.Runs()
    model = skeleton_chain(llm=llm).as_chat_model()
    RunnableLambda(model.invoke).invoke("Why?", {"callbacks": [runs], "max_concurrency": 1})
    assert llm.watch.peak == 1
    (root,) = runs.roots
    (own,) = runs.children(root)
    assert len(runs.children(own)) == 4


def test_a_stream_that_is_never_read_opens_nothing(llm, model):
    with contextlib.closing(model.stream("Why?")):
        pass
    assert llm.watch.seen == []
