"""An LLM that answers by Skeleton-of-Thought: its methods, routes, streams, settings, and what it passes on."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
)
from llama_index.core.chat_engine.context import DEFAULT_CONTEXT_TEMPLATE
from llama_index.core.llms import CustomLLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from llama_index_sot import PromptRouter, SkeletonOfThoughtLLM, SkeletonOfThoughtQueryEngine
from skeleton_of_thought.errors import InvalidInput, PointError
from skeleton_of_thought.types import RouteDecision

TITLES = ["Move", "Drink water", "Sleep more"]
ANSWER = "1. Move: All about move.\n\n2. Drink water: All about drink water.\n\n3. Sleep more: All about sleep more."
POINTS = "What are the main benefits of regular exercise?"
FACT = "What is 17 * 4?"

Ways = Callable[..., Awaitable[Any]]


def _messages(asked: Any) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=asked)] if isinstance(asked, str) else list(asked)


async def _chat(llm, asked, **kwargs):
    return await asyncio.to_thread(lambda: llm.chat(_messages(asked), **kwargs))


async def _achat(llm, asked, **kwargs):
    return await llm.achat(_messages(asked), **kwargs)


async def _stream_chat(llm, asked, **kwargs):
    return _joined(await asyncio.to_thread(lambda: list(llm.stream_chat(_messages(asked), **kwargs))))


async def _astream_chat(llm, asked, **kwargs):
    return _joined([response async for response in await llm.astream_chat(_messages(asked), **kwargs)])


async def _complete(llm, asked, **kwargs):
    return await asyncio.to_thread(lambda: llm.complete(asked, **kwargs))


async def _acomplete(llm, asked, **kwargs):
    return await llm.acomplete(asked, **kwargs)


async def _stream_complete(llm, asked, **kwargs):
    return _joined(await asyncio.to_thread(lambda: list(llm.stream_complete(asked, **kwargs))))


async def _astream_complete(llm, asked, **kwargs):
    return _joined([response async for response in await llm.astream_complete(asked, **kwargs)])


def _joined(responses):
    """The last response of a stream, whose pieces add up to its text."""
    assert text(responses[-1]) == "".join(response.delta for response in responses)
    return responses[-1]


def text(response: Any) -> str:
    return response.message.content if isinstance(response, ChatResponse) else response.text


CHATS = {"chat": _chat, "achat": _achat, "stream_chat": _stream_chat, "astream_chat": _astream_chat}
TEXTS = {
    "complete": _complete,
    "acomplete": _acomplete,
    "stream_complete": _stream_complete,
    "astream_complete": _astream_complete,
}


@pytest.fixture(params=[*CHATS, *TEXTS])
def way(request) -> Ways:
    """`await way(llm, question, **kwargs)`: the last response. One test for each method."""
    return {**CHATS, **TEXTS}[request.param]


@pytest.fixture(params=list(CHATS))
def chat_way(request) -> Ways:
    return CHATS[request.param]


@pytest.fixture
def inner(LLMClass, kit):
    """The wrapped LLM. A chat model's `complete` is a chat, as that of LlamaIndex's own chat models."""
    return made(LLMClass, kit, kit.answering(TITLES))


def made(LLMClass: type, kit: Any, script: Any) -> Any:
    return (kit.CompletingLLM if LLMClass is kit.ChatLLM else LLMClass)(script=script)


def points_llm(llm: Any, **options: Any) -> SkeletonOfThoughtLLM:
    """An LLM that writes a skeleton for every question, and retries at once."""
    return SkeletonOfThoughtLLM(llm, **{"router": None, "backoff": 0.0, **options})


# --- answers and direct answers ---


async def test_every_method_returns_the_answer(way, inner):
    response = await way(SkeletonOfThoughtLLM(inner), POINTS)
    assert text(response) == ANSWER
    sot = response.additional_kwargs["sot"]
    assert sot["route"] == "skeleton"
    assert [(p["index"], p["title"], p["text"]) for p in sot["points"]][1] == (
        2,
        "Drink water",
        "All about drink water.",
    )
    assert [(p["error"], p["finish_reason"]) for p in sot["points"]] == [(None, "stop")] * 3
    assert json.loads(json.dumps(response.raw)) == response.raw
    assert (response.raw["finish_reason"], response.raw["sot"]) == ("stop", sot)
    assert [seen.stage for seen in inner.watch.seen].count("point") == 3
    assert len(inner.watch.seen) == 4
    if isinstance(response, ChatResponse):
        assert response.message == ChatMessage(role="assistant", content=ANSWER)


async def test_the_usage_is_the_sum_over_all_calls(way, inner):
    response = await way(SkeletonOfThoughtLLM(inner), POINTS)
    stages = response.additional_kwargs["sot"]["usage_by_stage"]
    assert set(stages) == {"skeleton", "point"}
    usage = response.raw["usage"]
    assert usage["prompt_tokens"] == sum(stage["input_tokens"] for stage in stages.values())
    assert usage["completion_tokens"] == sum(stage["output_tokens"] for stage in stages.values())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert {name: response.additional_kwargs[name] for name in usage if name in response.additional_kwargs} == {
        name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }


async def test_an_llm_without_usage_has_none(chat_way):
    class Plain(CustomLLM):
        @property
        def metadata(self):
            return LLMMetadata()

        def complete(self, prompt, formatted=False, **kwargs):
            return CompletionResponse(text="1. Move" if "Write only the headings" in prompt else "It helps.")

        def stream_complete(self, prompt, formatted=False, **kwargs):
            yield CompletionResponse(text=(given := self.complete(prompt).text), delta=given)

    response = await chat_way(points_llm(Plain()), POINTS)
    assert text(response) == "1. Move: It helps."
    assert "usage" not in response.raw
    assert "total_tokens" not in response.additional_kwargs


async def test_a_direct_answer_is_the_wrapped_llm_s_own(way, inner):
    plain = await way(inner, FACT)
    response = await way(SkeletonOfThoughtLLM(inner), FACT)
    assert text(response) == "Just so."
    assert response.raw == plain.raw
    sot = response.additional_kwargs["sot"]
    assert (sot["route"], sot["points"]) == ("direct", [])
    assert "arithmetic" in sot["reason"]
    assert response.model_copy(update={"additional_kwargs": {}}) == plain
    first, second = inner.watch.seen
    assert (first.text, first.messages, first.kwargs) == (second.text, second.messages, second.kwargs)
    assert first.method == second.method or not second.on_loop


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_router_that_takes_time_decides_too(way, inner, is_async):
    asked = []

    def decide(question):
        asked.append(question)
        return "benefits" in question

    async def adecide(question):
        return decide(question)

    llm = SkeletonOfThoughtLLM(inner, router=adecide if is_async else decide)
    assert text(await way(llm, POINTS)) == ANSWER
    response = await way(llm, FACT)
    assert (text(response), response.additional_kwargs["sot"]["route"]) == ("Just so.", "direct")
    assert response.raw["usage"]["completion_tokens"] > 0
    assert asked == [POINTS, FACT]


async def test_the_router_learns_from_both_routes(way, inner):
    class Learning:
        def __init__(self):
            self.answers = []

        def route(self, conversation):
            return self.at_once(conversation)

        async def aroute(self, conversation):
            return self.at_once(conversation)

        def at_once(self, conversation):
            return RouteDecision("benefits" in conversation.question, reason="by a word")

        def observe(self, answer):
            self.answers.append(answer)

    router = Learning()
    llm = SkeletonOfThoughtLLM(inner, router=router)
    await way(llm, POINTS)
    await way(llm, FACT)
    points, direct = router.answers
    assert (points.route, points.text, len(points.expansions)) == ("skeleton", ANSWER, 3)
    assert (direct.route, direct.text, direct.question) == ("direct", "Just so.", FACT)
    assert direct.usage.output_tokens > 0
    assert direct.timings.stages["direct"].first is not None


async def test_a_prompt_router_asks_the_wrapped_llm_and_never_the_llm_around_it(inner, monkeypatch):
    llm = SkeletonOfThoughtLLM(inner, router=PromptRouter())
    monkeypatch.setattr(LlamaIndexSettings, "_llm", llm)
    assert text(await llm.achat(_messages(POINTS))) == "Just so."  # the scripted reply is no clear yes
    assert [seen.stage for seen in inner.watch.seen] == ["direct", "direct"]


async def test_no_skeleton_in_the_reply_leads_to_a_direct_answer(way, LLMClass, kit):
    inner = made(LLMClass, kit, lambda seen: ["Just so."])
    response = await way(points_llm(inner), POINTS)
    assert (text(response), response.additional_kwargs["sot"]["route"]) == ("Just so.", "direct")


async def test_settings_and_prompts_are_those_of_the_engine(chat_way, inner):
    llm = points_llm(inner, max_points=2, join="paragraphs", skeleton_template="headings, please: {query_str}")
    response = await chat_way(llm, POINTS)
    assert text(response) == "All about move.\n\nAll about drink water."
    assert inner.watch.of("skeleton")[0].text.endswith(f"headings, please: {POINTS}") or inner.watch.seen


async def test_a_merge_is_one_more_call(way, inner):
    response = await way(points_llm(inner, merge=True), POINTS)
    assert text(response) == "All in one."
    assert response.additional_kwargs["sot"]["merged"] is True


async def test_another_llm_writes_the_points(chat_way, LLMClass, kit, inner):
    writer = made(LLMClass, kit, kit.answering(TITLES))
    assert text(await chat_way(points_llm(inner, point_llm=writer), POINTS, temperature=0.5)) == ANSWER
    assert {seen.stage for seen in inner.watch.seen} == {"skeleton"}
    assert {seen.stage for seen in writer.watch.seen} == {"point"}
    assert {seen.kwargs["temperature"] for seen in [*inner.watch.seen, *writer.watch.seen]} == {0.5}


# --- chats ---


async def test_system_message_and_history_reach_every_call_as_they_are(chat_way, kit):
    inner = kit.ChatLLM(script=kit.answering(TITLES), system_prompt="The LLM's own.")
    history = [
        ChatMessage(role="system", content="Be brief."),
        ChatMessage(role="user", content="Hi"),
        ChatMessage(role="assistant", content="Hello"),
    ]
    chat = [*history, ChatMessage(role="user", content=POINTS)]
    assert text(await chat_way(points_llm(inner), chat)) == ANSWER
    for seen in inner.watch.seen:
        assert seen.messages[:3] == history
        assert [message.role.value for message in seen.messages].count("system") == 1
    # As with the wrapped LLM: `chat` adds no system prompt.
    assert text(await chat_way(SkeletonOfThoughtLLM(inner), [*history, ChatMessage(role="user", content=FACT)]))
    assert inner.watch.seen[-1].messages[:3] == history


async def test_instructions_in_the_system_message_decide(chat_way, inner):
    for system, route in (
        ("You are a kind trainer.", "skeleton"),
        ("Translate the user's text into French.", "direct"),
    ):
        chat = [ChatMessage(role="system", content=system), ChatMessage(role="user", content=POINTS)]
        response = await chat_way(SkeletonOfThoughtLLM(inner), chat)
        assert response.additional_kwargs["sot"]["route"] == route


CHATS_WITHOUT_A_QUESTION = {
    "tool result": [
        ChatMessage(role="user", content=POINTS),
        ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [{"id": "1"}]}),
        ChatMessage(role="tool", content="Sunny.", additional_kwargs={"tool_call_id": "1"}),
    ],
    "earlier tool result": [
        ChatMessage(role="user", content="Is it sunny?"),
        ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [{"id": "1"}]}),
        ChatMessage(role="tool", content="Sunny.", additional_kwargs={"tool_call_id": "1"}),
        ChatMessage(role="user", content=POINTS),
    ],
    "function result": [ChatMessage(role="function", content="Sunny."), ChatMessage(role="user", content=POINTS)],
    "ends with the assistant": [
        ChatMessage(role="user", content=POINTS),
        ChatMessage(role="assistant", content="Once"),
    ],
    "system only": [ChatMessage(role="system", content=POINTS)],
    "empty question": [ChatMessage(role="user", content=" ")],
}


@pytest.mark.parametrize("name", CHATS_WITHOUT_A_QUESTION)
async def test_chats_without_a_question_go_to_the_llm_unchanged(chat_way, inner, name):
    chat = CHATS_WITHOUT_A_QUESTION[name]
    plain = await chat_way(inner, chat)
    response = await chat_way(points_llm(inner), chat)
    assert response == plain
    first, second = inner.watch.seen
    assert (first.text, first.messages, first.kwargs) == (second.text, second.messages, second.kwargs)


async def test_images_reach_every_call_of_a_chat_model(chat_way, kit):
    inner = kit.ChatLLM(script=kit.answering(TITLES))
    image = ImageBlock(url="https://example.org/a.png")
    chat = [ChatMessage(role="user", blocks=[TextBlock(text=POINTS), image])]
    assert text(await chat_way(points_llm(inner), chat)) == ANSWER
    assert all(image in seen.messages[-1].blocks for seen in inner.watch.seen)


async def test_images_for_a_text_llm_are_its_own_affair(chat_way, kit):
    inner = kit.SyncLLM(script=kit.answering(TITLES))
    blocks = [TextBlock(text=POINTS), ImageBlock(url="https://example.org/a.png")]
    assert text(await chat_way(points_llm(inner), [ChatMessage(role="user", blocks=blocks)])) == "Just so."
    assert len(inner.watch.seen) == 1


# --- prompts that LlamaIndex writes ---

TEMPLATE = ChatPromptTemplate.from_messages([("system", DEFAULT_CONTEXT_TEMPLATE), ("user", "{query_str}")])


def tagged(messages: Any) -> str:
    return "".join(f"<{message.role.value}>{message.content}</>" for message in messages) + "<assistant>"


@pytest.mark.parametrize("own_format", [False, True])
async def test_predict_of_a_text_llm_writes_each_prompt_in_the_llm_s_format(kit, own_format):
    formats = {"messages_to_prompt": tagged, "completion_to_prompt": "<user>{}</><assistant>".format}
    inner = kit.SyncLLM(script=kit.answering(TITLES), system_prompt="Kind words.", **(formats if own_format else {}))
    llm = SkeletonOfThoughtLLM(inner)
    values = {"context_str": "Bees fly.", "query_str": POINTS}
    assert llm.predict(TEMPLATE, **values) == ANSWER
    assert await llm.apredict(TEMPLATE, **values) == ANSWER
    assert "".join(llm.stream(TEMPLATE, **values)) == ANSWER
    assert "".join([piece async for piece in await llm.astream(TEMPLATE, **values)]) == ANSWER
    assert llm.predict(PromptTemplate("{query_str}"), query_str=POINTS) == ANSWER
    for seen in inner.watch.seen:
        assert seen.text.count("Kind words.") == 1
        if own_format:
            assert seen.text.count("<user>") == 1
    inner.watch.seen.clear()
    # A direct answer gets the prompt that the wrapped LLM's own `predict` makes.
    values["query_str"] = FACT
    for given in (inner, llm):
        assert given.predict(TEMPLATE, **values) == "Just so."
    first, second = inner.watch.seen
    assert (first.text, first.kwargs) == (second.text, second.kwargs)


async def test_predict_of_a_chat_model_has_one_system_message(kit):
    inner = kit.ChatLLM(script=kit.answering(TITLES), system_prompt="Kind words.")
    llm = SkeletonOfThoughtLLM(inner)
    assert llm.predict(PromptTemplate("{query_str}"), query_str=POINTS) == ANSWER
    assert await llm.apredict(PromptTemplate("{query_str}"), query_str=POINTS) == ANSWER
    for seen in inner.watch.seen:
        assert [m.content for m in seen.messages if m.role is MessageRole.SYSTEM] == ["Kind words."]


async def test_a_prompt_that_the_user_formatted_goes_to_the_llm_unchanged(kit):
    inner = kit.SyncLLM(script=kit.answering(TITLES), completion_to_prompt="<user>{}</>".format)
    llm = points_llm(inner)
    assert llm.complete(f"<user>{POINTS}</>", formatted=True).text == "Just so."
    assert (await llm.acomplete(f"<user>{POINTS}</>", formatted=True)).text == "Just so."
    assert [seen.text for seen in inner.watch.seen] == [f"<user>{POINTS}</>"] * 2
    # Without a format of the LLM's own, the text is the question.
    assert points_llm(kit.SyncLLM(script=kit.answering(TITLES))).complete(POINTS, formatted=True).text == ANSWER


# --- keyword arguments ---


@pytest.mark.parametrize(
    "kwargs", [{"max_tokens": 9}, {"stop": ["x"]}, {"tools": [{}]}, {"never_heard_of": 1}], ids=str
)
async def test_calls_about_the_text_as_a_whole_go_to_the_llm(way, inner, kwargs):
    assert text(await way(points_llm(inner), POINTS, **kwargs)) == "Just so."
    (seen,) = inner.watch.seen
    assert {name: seen.kwargs[name] for name in kwargs} == kwargs
    assert "sot" not in (await way(points_llm(inner), POINTS, **kwargs)).additional_kwargs


async def test_sampling_settings_reach_each_call_of_the_answer(way, inner):
    assert text(await way(points_llm(inner), POINTS, temperature=0.3, seed=1, tools=None)) == ANSWER
    assert [(s.kwargs["temperature"], s.kwargs["seed"], "tools" in s.kwargs) for s in inner.watch.seen] == [
        (0.3, 1, False)
    ] * 4


# --- streams ---


@pytest.mark.parametrize("is_async", [False, True])
async def test_text_comes_in_document_order_while_later_points_are_written(LLMClass, kit, is_async):
    slow = kit.Gate()

    def script(seen):
        steps = list(kit.answering(TITLES)(seen))
        return [*steps[:1], slow, *steps[1:]] if seen.point == 3 else steps

    llm = points_llm(made(LLMClass, kit, script))
    shown = ""

    def show(piece):
        nonlocal shown
        shown += piece
        if "All about drink water." in shown:
            slow.open()

    if is_async:
        async for response in await llm.astream_chat(_messages(POINTS)):
            show(response.delta)
    else:
        await asyncio.to_thread(lambda: [show(response.delta) for response in llm.stream_chat(_messages(POINTS))])
    assert shown == ANSWER


def endless(seen: Any) -> Any:
    if seen.stage == "skeleton":
        yield "1. Move\n2. Rest"
        return
    while True:
        yield "on and "


@pytest.mark.parametrize("router", [None, lambda question: False], ids=["points", "direct"])
async def test_a_stream_that_is_closed_early_leaves_nothing_running(LLMClass, kit, router):
    inner = made(LLMClass, kit, endless)
    for method in ("stream_chat", "stream_complete"):
        given = _messages(POINTS) if method == "stream_chat" else POINTS
        stream = getattr(SkeletonOfThoughtLLM(inner, router=router), method)(given)
        while "on and" not in next(stream).delta:
            pass
        assert inner.watch.open > 0
        await asyncio.to_thread(stream.close)
        assert inner.watch.open == 0


@pytest.mark.parametrize("router", [None, lambda question: False], ids=["points", "direct"])
async def test_an_async_stream_that_is_closed_early_leaves_nothing_running(LLMClass, kit, router):
    inner = made(LLMClass, kit, endless)
    for method in ("astream_chat", "astream_complete"):
        given = _messages(POINTS) if method == "astream_chat" else POINTS
        stream = await getattr(SkeletonOfThoughtLLM(inner, router=router), method)(given)
        while "on and" not in (await anext(stream)).delta:
            pass
        assert inner.watch.open > 0
        await stream.aclose()
        assert inner.watch.open == 0


async def test_a_task_that_is_cancelled_leaves_nothing_running(kit):
    inner = kit.ChatLLM(script=endless)
    task = asyncio.create_task(points_llm(inner).achat(_messages(POINTS)))
    while len(inner.watch.of("point")) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.watch.open == 0


def test_a_stream_that_is_never_read_opens_no_call_of_an_answer(inner):
    with contextlib.closing(points_llm(inner).stream_chat(_messages(POINTS))):
        pass
    assert inner.watch.seen == []


@pytest.mark.parametrize("question", [POINTS, FACT])
async def test_an_llm_without_async_methods_never_blocks_the_loop(kit, question):
    inner = kit.SyncLLM(script=kit.answering(TITLES))
    llm = SkeletonOfThoughtLLM(inner)
    assert text(await llm.achat(_messages(question)))
    assert text(await llm.acomplete(question))
    assert [piece async for piece in await llm.astream_chat(_messages(question))]
    assert [piece async for piece in await llm.astream_complete(question)]
    assert inner.watch.seen
    assert not any(seen.on_loop for seen in inner.watch.seen)


# --- errors ---


async def test_a_point_that_fails_fails_the_call(way, LLMClass, kit):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    with pytest.raises(PointError, match="boom"):
        await way(points_llm(made(LLMClass, kit, script), max_retries=0), POINTS)


async def test_a_failed_point_may_leave_a_placeholder(way, LLMClass, kit):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    options = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(missing)"}
    response = await way(points_llm(made(LLMClass, kit, script), **options), POINTS)
    assert "2. Drink water: (missing)" in text(response)
    assert [p["error"] for p in response.additional_kwargs["sot"]["points"]] == [None, "ValueError: boom", None]


async def test_the_error_of_a_direct_answer_is_the_llm_s_own(way, LLMClass, kit):
    inner = made(LLMClass, kit, lambda seen: [KeyError("quota")])
    with pytest.raises(KeyError, match="quota"):
        await way(SkeletonOfThoughtLLM(inner), FACT)


# --- construction ---


def test_bad_options_are_refused_before_any_call(inner):
    with pytest.raises(InvalidInput, match="llm must be an LLM of LlamaIndex, not str"):
        SkeletonOfThoughtLLM("gpt")
    with pytest.raises(InvalidInput, match="point_llm must be an LLM"):
        SkeletonOfThoughtLLM(inner, point_llm=3)
    with pytest.raises(InvalidInput, match="max_points"):
        SkeletonOfThoughtLLM(inner, max_points=0)
    with pytest.raises(InvalidInput, match="router"):
        SkeletonOfThoughtLLM(inner, router="never")
    with pytest.raises(InvalidInput, match="num_workers"):
        SkeletonOfThoughtLLM(inner, num_workers=0)
    with pytest.raises(InvalidInput, match="concurrency"):
        SkeletonOfThoughtLLM(inner, concurrency="fast")
    with pytest.raises(InvalidInput, match="title"):
        SkeletonOfThoughtLLM(inner, point_template="Write it.")
    with pytest.raises(TypeError, match="SkeletonOfThoughtLLM has no option retriever"):
        SkeletonOfThoughtLLM(inner, retriever=None)
    assert inner.watch.seen == []


def test_an_llm_that_answers_by_points_is_not_wrapped_again(inner, monkeypatch):
    llm = SkeletonOfThoughtLLM(inner)
    with pytest.raises(InvalidInput, match="llm is a SkeletonOfThoughtLLM already"):
        SkeletonOfThoughtLLM(llm)
    with pytest.raises(InvalidInput, match="point_llm is a SkeletonOfThoughtLLM already"):
        SkeletonOfThoughtLLM(inner, point_llm=llm)
    monkeypatch.setattr(LlamaIndexSettings, "_llm", llm)
    with pytest.raises(InvalidInput, match=r"Settings\.llm is one"):
        SkeletonOfThoughtLLM()


async def test_without_an_llm_the_present_one_of_the_settings_is_wrapped(inner, monkeypatch):
    monkeypatch.setattr(LlamaIndexSettings, "_llm", inner)
    LlamaIndexSettings.llm = llm = SkeletonOfThoughtLLM()
    assert llm.llm is inner
    assert (await LlamaIndexSettings.llm.achat(_messages(POINTS))).message.content == ANSWER


async def test_an_engine_over_it_answers_once(inner, monkeypatch):
    monkeypatch.setattr(LlamaIndexSettings, "_llm", SkeletonOfThoughtLLM(inner, router=None))
    engine = SkeletonOfThoughtQueryEngine.from_defaults(router=None)
    assert str(engine.query(POINTS)) == str(await engine.aquery(POINTS)) == ANSWER
    assert len(inner.watch.seen) == 8


def test_the_metadata_are_the_wrapped_llm_s(kit):
    meta = LLMMetadata(
        context_window=99, num_output=7, is_chat_model=True, model_name="m", system_role=MessageRole.DEVELOPER
    )
    llm = SkeletonOfThoughtLLM(kit.ChatLLM(script=None, meta=meta))
    assert llm.metadata == meta
    assert llm.class_name() == "SkeletonOfThoughtLLM"
    assert not isinstance(llm, FunctionCallingLLM)


def test_copies_and_pickles_answer():
    llm = points_llm(MockLLM(), skeleton_template="1. Rain ({query_str})", point_template="All about {title}")
    answer = llm.complete("Bergen").text
    assert answer == "1. Rain (Bergen): All about Rain (Bergen)"
    for other in (pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm), copy.copy(llm), llm.model_copy()):
        assert type(other) is SkeletonOfThoughtLLM
        assert other.complete("Bergen").text == answer
        assert other.predict(PromptTemplate("{q}"), q="Bergen") == answer


def test_plain_data_hold_no_secrets(kit):
    class Keyed(kit.ChatLLM):
        api_key: str = "hush"

    llm = points_llm(Keyed(script=None), max_points=4, point_llm=Keyed(script=None))
    for given in (llm.to_json(), str(llm.to_payload()), str(llm.model_dump())):
        assert "hush" not in given
    data = json.loads(llm.to_json())
    assert (data["class_name"], data["max_points"], data["llm"]["is_chat_model"]) == ("SkeletonOfThoughtLLM", 4, True)


def test_help_shows_all_options():
    assert "max_points (default 10)" in (SkeletonOfThoughtLLM.__doc__ or "")
    assert "retriever" not in (SkeletonOfThoughtLLM.__doc__ or "")
