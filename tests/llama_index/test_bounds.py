"""What one reply may hold, for every kind of LLM and every way to ask."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ThinkingBlock

from llama_index_sot import SkeletonOfThoughtLLM, SkeletonOfThoughtQueryEngine
from skeleton_of_thought.errors import InvalidInput, ReplyError
from skeleton_of_thought.types import RouteDecision

LONG = "word " * 4000


def scripted(LLMClass, *, skeleton="1. Sleep\n2. Eat\n", point="text", direct="Just so."):
    texts = {"skeleton": skeleton, "point": point, "direct": direct}
    return LLMClass(script=lambda seen: [text] if isinstance(text := texts[seen.stage], str) else text)


async def test_a_skeleton_without_list_lines_leads_to_a_direct_answer(ask, LLMClass):
    llm = scripted(LLMClass, skeleton=LONG)
    response = await ask(llm, "Why?", max_skeleton_chars=1000)
    assert (str(response), response.metadata["sot"]["route"]) == ("Just so.", "direct")
    assert llm.watch.open == 0


async def test_a_long_point_is_cut(ask, LLMClass):
    llm = scripted(LLMClass, point=LONG)
    response = await ask(llm, "Why?", max_point_chars=999)
    assert [(point.text, point.finish_reason) for point in response.points] == [(LONG[:999], "max_chars")] * 2


async def test_a_long_direct_answer_is_cut(ask, LLMClass):
    response = await ask(scripted(LLMClass, direct=LONG), "Q", router=lambda query: False, max_answer_chars=999)
    assert str(response) == LONG[:999]
    assert response.metadata["sot"]["finish_reason"] == "max_chars"


async def test_streams_of_endless_replies_end(LLMClass):
    llm = scripted(LLMClass, skeleton=itertools.repeat("word "), direct=itertools.repeat("word "))
    options = {"streaming": True, "router": None, "max_skeleton_chars": 500, "max_answer_chars": 700}
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm=llm, **options)
    assert len("".join(engine.query("Why?").response_gen)) == 700
    response = await engine.aquery("Why?")
    assert len("".join([text async for text in response.async_response_gen()])) == 700
    await collected()
    assert llm.watch.open == 0


async def test_a_stream_that_is_slow_to_end_after_its_limit_is_closed_with_the_answer(kit):
    def endless():
        for _ in range(210):
            yield "word "
        # The thread is here when the adapter has read as much as it may, and the driver cancels the call.
        yield lambda: time.sleep(0.1)
        yield from itertools.repeat("word ")

    llm = kit.SyncLLM(script=lambda seen: endless())
    options = {"streaming": True, "router": None, "max_skeleton_chars": 1000, "max_answer_chars": 1000}
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm=llm, **options)
    response = await engine.aquery("Why?")
    assert len("".join([text async for text in response.async_response_gen()])) == 1000
    await collected()
    assert llm.watch.open == 0


@pytest.mark.parametrize("name", ["max_skeleton_chars", "max_point_chars", "max_answer_chars"])
def test_a_limit_that_cannot_work_is_refused_when_the_engine_is_made(kit, name):
    with pytest.raises(InvalidInput, match=name):
        SkeletonOfThoughtQueryEngine.from_defaults(llm=scripted(kit.SyncLLM), **{name: 0})


# --- answers that the LLM passes on, and reasoning in fields of its own ------------------------------------


class DecidesAtOnce:
    def at_once(self, conversation):
        return RouteDecision(False, reason="by rule")

    def route(self, conversation):
        return self.at_once(conversation)

    async def aroute(self, conversation):
        return self.at_once(conversation)


async def responses_of(llm, name):
    given = [ChatMessage(role="user", content="Why?")] if "chat" in name else "Why?"
    called = getattr(llm, name)(given)
    called = await called if name.startswith("a") else called
    if "stream" not in name:
        return [called]
    return [each async for each in called] if name.startswith("a") else list(called)


async def collected():
    """LlamaIndex's own wrapper of a stream leaves the stream inside of it to the collector."""
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)


WAYS = [f"{a}{stream}{kind}" for a in ("", "a") for stream in ("", "stream_") for kind in ("chat", "complete")]


@pytest.mark.parametrize("name", WAYS)
async def test_a_direct_answer_that_is_passed_on_is_cut(kit, name, caplog):
    llm = scripted(kit.CompletingLLM, direct=LONG)
    outer = SkeletonOfThoughtLLM(llm, router=DecidesAtOnce(), max_answer_chars=999)
    responses = await responses_of(outer, name)
    last = responses[-1]
    assert (last.message.content if "chat" in name else last.text) == LONG[:999]
    if "stream" in name:
        assert "".join(each.delta for each in responses) == LONG[:999]
    assert last.additional_kwargs["sot"]["finish_reason"] == "max_chars"
    assert caplog.text.count("was cut at 999 characters; see max_answer_chars") == 1
    await collected()
    assert llm.watch.open == 0


@pytest.mark.parametrize("name", WAYS)
async def test_a_direct_answer_as_long_as_the_limit_is_whole(kit, name, caplog):
    llm = scripted(kit.CompletingLLM, direct="x" * 999)
    last = (await responses_of(SkeletonOfThoughtLLM(llm, router=DecidesAtOnce(), max_answer_chars=999), name))[-1]
    assert (last.message.content if "chat" in name else last.text) == "x" * 999
    assert "finish_reason" not in last.additional_kwargs["sot"]
    assert caplog.text == ""


@pytest.mark.parametrize("name", [name for name in WAYS if "stream" in name])
async def test_an_endless_direct_answer_that_is_passed_on_ends(kit, name):
    llm = scripted(kit.CompletingLLM, direct=itertools.repeat("word "))
    responses = await responses_of(SkeletonOfThoughtLLM(llm, router=DecidesAtOnce(), max_answer_chars=702), name)
    assert "".join(each.delta for each in responses) == LONG[:702]
    await collected()
    assert llm.watch.open == 0


def thinking(form):
    """A chat LLM that reasons in this form, longer than anybody wants; `made` counts its responses."""
    made = []

    def responses():
        for i in range(1, 1000):
            made.append(i)
            block = ThinkingBlock(content="hm " * 10 * i)
            message = ChatMessage(role="assistant", blocks=[block] if form == "blocks" else [])
            extra = {"thinking_delta": "hm " * 10} if form == "deltas" else {}
            yield ChatResponse(message=message, delta="", additional_kwargs=extra)

    return made, responses


@pytest.mark.parametrize("form", ["blocks", "deltas"])
@pytest.mark.parametrize("passed_on", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_answer_that_never_comes_to_its_text_ends(kit, form, passed_on, asynchronous):
    made, responses = thinking(form)

    class Thinking(kit.ChatLLM):
        def stream_chat(self, messages, **kwargs):
            return responses()

        async def astream_chat(self, messages, **kwargs):
            async def as_async():
                for response in responses():
                    await asyncio.sleep(0)
                    yield response

            return as_async()

    router = DecidesAtOnce() if passed_on else lambda query: False
    llm = SkeletonOfThoughtLLM(Thinking(script=None), router=router, max_retries=0, max_answer_chars=900)
    with pytest.raises(ReplyError):
        await responses_of(llm, "astream_chat" if asynchronous else "stream_chat")
    assert len(made) == 31
