"""`OpenAILike` on llama.cpp's server with the demo model, checked against the server's own counts."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from skeleton_of_thought.adapters.replies import aclose_stream

pytestmark = pytest.mark.model

QUESTION = "What is the capital of France?"
USAGE = {"stream_options": {"include_usage": True}}
METHODS = ("chat", "achat", "stream_chat", "astream_chat")


def asking(text: str = QUESTION) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


async def responses(llm: Any, method: str, messages: list[ChatMessage], **kwargs: Any) -> list[Any]:
    result = getattr(llm, method)(messages, **kwargs)
    if method.startswith("a"):
        result = await result
    if method == "astream_chat":
        return [response async for response in result]
    return list(result) if method == "stream_chat" else [result]


@pytest.mark.parametrize("method", METHODS[1:])
async def test_all_methods_write_the_same(open_ai_like, method):
    expected = open_ai_like().chat(asking()).message.content
    assert expected
    replies = await responses(open_ai_like(), method, asking())
    assert replies[-1].message.content == expected
    if "stream" in method:
        assert "".join(response.delta for response in replies) == expected
        assert len(replies) > 3


@pytest.mark.parametrize("method", METHODS)
async def test_usage_is_what_the_server_counted(llama, open_ai_like, method):
    before = llama.metrics()
    options = {"additional_kwargs": USAGE} if "stream" in method else {}
    replies = await responses(open_ai_like(**options), method, asking())
    after = llama.metrics()
    usage = replies[-1].raw.usage
    assert usage.prompt_tokens == after["prompt_tokens_total"] - before["prompt_tokens_total"] > 0
    assert usage.completion_tokens == after["tokens_predicted_total"] - before["tokens_predicted_total"] > 0


@pytest.mark.parametrize("method", ["achat", "astream_chat"])
async def test_tasks_are_served_side_by_side(llama, open_ai_like, method):
    # Without an end token each answer lasts long enough to be observed.
    llm = open_ai_like(max_tokens=24, extra_body={"ignore_eos": True})
    with llama.watched() as samples:
        answers = await asyncio.gather(*(responses(llm, method, asking(f"What is {i}?")) for i in range(4)))
    assert max(samples) == 4
    assert all(answer[-1].message.content for answer in answers)
    assert llama.busy() == 0


def test_threads_are_served_side_by_side(llama, open_ai_like):
    llm = open_ai_like(max_tokens=24, extra_body={"ignore_eos": True})
    threads = [threading.Thread(target=llm.chat, args=(asking(f"What is {i}?"),)) for i in range(4)]
    with llama.watched() as samples:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(samples) == 4


async def test_a_last_message_of_the_assistant_is_continued(open_ai_like):
    begun = [*asking(), ChatMessage(role=MessageRole.ASSISTANT, content="The capital of France is")]
    replies = await responses(open_ai_like(), "astream_chat", begun)
    assert "Paris" in replies[-1].message.content


async def test_a_stream_that_is_closed_early_frees_its_slot(llama, open_ai_like, eventually):
    llm = open_ai_like(max_tokens=900, extra_body={"ignore_eos": True})
    stream = await llm.astream_chat(asking())
    await anext(stream)
    assert llama.busy() == 1
    # As the engine closes it: the stream's own `aclose` leaves the connection to the garbage collector.
    await aclose_stream(stream)
    await eventually(lambda: llama.busy() == 0, "the server stops what nobody reads")
