"""`OpenAILike` on a real server, llama.cpp with the demo model, checked against the server's own counts."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole

pytestmark = pytest.mark.model

QUESTION = "What is the capital of France?"
USAGE = {"stream_options": {"include_usage": True}}
WAYS = ("chat", "achat", "stream_chat", "astream_chat")


def asking(text: str = QUESTION) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


async def responses(llm: Any, way: str, messages: list[ChatMessage], **kwargs: Any) -> list[Any]:
    result = getattr(llm, way)(messages, **kwargs)
    if way.startswith("a"):
        result = await result
    if way == "astream_chat":
        return [response async for response in result]
    return list(result) if way == "stream_chat" else [result]


@pytest.mark.parametrize("way", WAYS[1:])
async def test_all_methods_return_the_same_text(open_ai_like, way):
    expected = open_ai_like().chat(asking()).message.content
    assert expected
    said = await responses(open_ai_like(), way, asking())
    assert said[-1].message.content == expected
    if "stream" in way:
        assert "".join(response.delta for response in said) == expected
        assert len(said) > 3


@pytest.mark.parametrize("way", WAYS)
async def test_usage_equals_the_servers_own_counts(llama, open_ai_like, way):
    before = llama.metrics()
    settings = {"additional_kwargs": USAGE} if "stream" in way else {}
    said = await responses(open_ai_like(**settings), way, asking())
    after = llama.metrics()
    usage = said[-1].raw.usage
    assert usage.prompt_tokens == after["prompt_tokens_total"] - before["prompt_tokens_total"] > 0
    assert usage.completion_tokens == after["tokens_predicted_total"] - before["tokens_predicted_total"] > 0


@pytest.mark.parametrize("way", ["achat", "astream_chat"])
async def test_the_server_decodes_tasks_in_parallel(llama, open_ai_like, way):
    # Without an end of text every answer lasts long enough for the check.
    llm = open_ai_like(max_tokens=24, extra_body={"ignore_eos": True})
    with llama.watched() as samples:
        answers = await asyncio.gather(*(responses(llm, way, asking(f"What is {i}?")) for i in range(4)))
    assert max(samples) == 4
    assert all(answer[-1].message.content for answer in answers)
    assert llama.busy() == 0


def test_the_server_decodes_threads_in_parallel(llama, open_ai_like):
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
    said = await responses(open_ai_like(), "astream_chat", begun)
    assert "Paris" in said[-1].message.content


async def test_closing_a_stream_early_frees_its_slot(llama, open_ai_like, eventually):
    llm = open_ai_like(max_tokens=900, extra_body={"ignore_eos": True})
    stream = await llm.astream_chat(asking())
    await anext(stream)
    assert llama.busy() == 1
    await stream.aclose()
    await eventually(lambda: llama.busy() == 0, "the server stops the unread answer")
