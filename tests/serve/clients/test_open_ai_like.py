"""LlamaIndex's `OpenAILike` as a client. `make test-llama-index` runs it, since it needs another openai package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

library = pytest.importorskip("llama_index.llms.openai_like", reason="`make test-llama-index` installs OpenAILike")

import openai  # noqa: E402
from llama_index.core.base.llms.types import ChatMessage  # noqa: E402
from llama_index.core.tools import FunctionTool  # noqa: E402


@pytest.fixture
async def like(server: Any) -> AsyncIterator[Callable[..., Any]]:
    """`like(**settings)`: an LLM on the server. Clients of its own would stay open."""
    with openai.DefaultHttpxClient(verify=False) as sync:
        async with openai.DefaultAsyncHttpxClient(verify=False) as tasks:

            def make(**settings: Any) -> Any:
                known = {"model": "x-sot", "is_chat_model": True, "api_base": server.base_url, "api_key": "none"}
                clients = {"http_client": sync, "async_http_client": tasks, "max_retries": 0}
                return library.OpenAILike(**{**known, **clients, **settings})

            yield make


def add(a: int) -> int:
    """Adds one."""
    return a + 1


async def replies(llm: Any, method: str, given: Any, **more: Any) -> list[Any]:
    result = getattr(llm, method)(given, **more)
    if method.startswith("a"):
        result = await result
    if method.startswith("astream"):
        return [reply async for reply in result]
    return list(result) if method.startswith("stream") else [result]


@pytest.mark.parametrize("method", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_chats(like, upstream, question, answer, method):
    told = await replies(like(), method, [ChatMessage(role="user", content=question)])
    assert told[-1].message.content == answer
    if "stream" in method:
        assert "".join(reply.delta or "" for reply in told) == answer
        assert len(told) > 3
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point"]


@pytest.mark.parametrize("method", ["complete", "acomplete", "stream_complete", "astream_complete"])
async def test_completions(like, question, answer, method):
    assert (await replies(like(), method, question))[-1].text == answer


async def test_the_usage_of_a_stream(like, question):
    usage = {"stream_options": {"include_usage": True}}
    told = await replies(like(additional_kwargs=usage), "stream_complete", question)
    assert told[-1].raw.usage.total_tokens == 60


@pytest.mark.parametrize("method", ["achat", "astream_chat"])
async def test_a_task_that_is_cancelled_ends_all_calls(like, upstream, question, eventually, method):
    upstream.script |= {title: ["Begun ", asyncio.Event()] for title in ("Diet", "Sleep", "Exercise")}
    task = asyncio.create_task(replies(like(), method, [ChatMessage(role="user", content=question)]))
    await eventually(lambda: upstream.open_calls == 3, "the points are being written")
    task.cancel()
    await eventually(lambda: upstream.open_calls == 0, "all calls upstream end")
    await asyncio.wait({task})
    assert len(upstream.calls) == 4


async def test_tools_pass_through(like, upstream, question):
    llm = like(is_function_calling_model=True)
    tool = FunctionTool.from_defaults(add)
    for reply in (llm.chat_with_tools([tool], question), await llm.achat_with_tools([tool], question)):
        (call,) = llm.get_tool_calls_from_response(reply)
        assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 1})
    assert not upstream.calls


async def test_our_fields_ride_in_extra_body(like, question):
    llm = like(additional_kwargs={"extra_body": {"sot": {"max_points": 2}}})
    assert str(llm.complete(question)).count("All about") == 2


async def test_errors_keep_their_classes(like, upstream, question):
    with pytest.raises(openai.NotFoundError, match="x, x-sot"):
        like(model="y").complete(question)
    upstream.script["skeleton"] = [ValueError("odd")]
    with pytest.raises(openai.APIError, match="odd"):
        list(like().stream_complete(question))
