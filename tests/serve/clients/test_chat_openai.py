"""LangChain's `ChatOpenAI` as a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

import openai  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage  # noqa: E402
from pydantic import BaseModel  # noqa: E402


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


def add(a: int) -> int:
    """Adds one."""
    return a + 1


@pytest.fixture
async def chat(server: Any) -> AsyncIterator[Callable[..., Any]]:
    """`chat(**settings)`: a chat model on the server. Clients of its own would stay open."""
    with openai.DefaultHttpxClient(verify=False) as sync:
        async with openai.DefaultAsyncHttpxClient(verify=False) as tasks:

            def make(**settings: Any) -> Any:
                known = {"model": "x-sot", "base_url": server.base_url, "api_key": "none", "max_retries": 0}
                clients = {"http_client": sync, "http_async_client": tasks}
                return langchain_openai.ChatOpenAI(**{**known, **clients, **settings})

            yield make


def test_invoke(chat, upstream, question, answer):
    message = chat().invoke(question)
    assert message.content == answer
    assert message.usage_metadata["total_tokens"] == 60
    assert (message.response_metadata["model_name"], message.response_metadata["finish_reason"]) == ("x-sot", "stop")
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point"]


async def test_ainvoke(chat, question, answer):
    assert (await chat().ainvoke(question)).content == answer


def test_stream(chat, server, upstream, question, answer):
    gate = asyncio.Event()
    upstream.script["Sleep"] = [gate, "All about ", "Sleep."]
    text = ""
    for chunk in chat(stream_usage=True).stream(question):
        text += chunk.content
        if "All about Diet." in text and not gate.is_set():
            assert upstream.open["Sleep"] == 1
            server.do(gate.set)
            server.until(gate.is_set, "the second point goes on")
        if chunk.usage_metadata:
            assert chunk.usage_metadata["total_tokens"] == 60
            break
    else:
        pytest.fail("no chunk had the usage")
    assert text == answer


async def test_astream(chat, question, answer):
    assert "".join([chunk.content async for chunk in chat().astream(question)]) == answer


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_batches(chat, upstream, question, answer, way):
    model = chat()
    replies = model.batch([question] * 5) if way == "batch" else await model.abatch([question] * 5)
    assert [reply.content for reply in replies] == [answer] * 5
    assert len(upstream.calls) == 20


async def test_a_stream_that_is_left_ends_all_calls(chat, upstream, question, eventually):
    upstream.script |= {title: ["Begun ", asyncio.Event()] for title in ("Diet", "Sleep", "Exercise")}
    stream = chat().astream(question)
    async for chunk in stream:
        if "Begun" in chunk.content:
            break
    await stream.aclose()
    await eventually(lambda: upstream.open_calls == 0, "all calls upstream end")
    task = asyncio.create_task(chat().ainvoke(question))
    await eventually(lambda: upstream.open_calls == 3, "the points are being written")
    task.cancel()
    await eventually(lambda: upstream.open_calls == 0, "all calls upstream end")
    await asyncio.wait({task})


def test_a_conversation_with_a_system_message_goes_by_points(chat, upstream, question, answer):
    messages = [SystemMessage("Be brief."), HumanMessage("Hi."), AIMessage("Hello."), HumanMessage(question)]
    assert chat().invoke(messages).content == answer
    assert all(call.prompt.messages[0].text == "Be brief." for call in upstream.calls)


@pytest.mark.parametrize("stream", [False, True])
def test_tools_pass_through(chat, upstream, question, stream):
    model = chat().bind_tools([add])
    first, *rest = model.stream(question) if stream else [model.invoke(question)]
    message = sum(rest, first)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("add", {"a": 1})]
    assert not upstream.calls


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_structured_output_passes_through(chat, upstream, question, method):
    model = chat().with_structured_output(Joke, method=method)
    assert isinstance(model.invoke(question), Joke)
    assert isinstance(await model.ainvoke(question), Joke)
    assert [passed.body["model"] for passed in upstream.passed] == ["x-sot"] * 2
    assert not upstream.calls


@pytest.mark.parametrize("settings", [{"max_tokens": 9}, {"stop": ["a"]}, {"n": 2}, {"logprobs": True}])
def test_fields_for_the_whole_text_pass_through(chat, upstream, question, settings):
    chat(**settings).invoke(question)
    assert len(upstream.passed) == 1
    assert not upstream.calls


def test_other_fields_go_with_each_call(chat, upstream, question):
    chat(temperature=0.3, seed=7, top_p=0.9).invoke(question)
    assert len(upstream.samplings) == 4
    assert all(sampling == {"temperature": 0.3, "seed": 7, "top_p": 0.9} for sampling in upstream.samplings)


def test_our_fields_ride_in_extra_body(chat, upstream, question):
    assert chat(extra_body={"sot": {"max_points": 2}}).invoke(question).content.count("All about") == 2
    assert chat(extra_body={"sot": {"router": False}}).invoke(question).content == "A passed answer."
    bound = chat().bind(extra_body={"sot": {"join": "paragraphs", "show_skeleton": True, "events": True}})
    expected = "All about Diet.\n\nAll about Sleep.\n\nAll about Exercise."
    assert bound.invoke(question).content == expected
    assert "".join(chunk.content for chunk in bound.stream(question)) == expected


def test_errors_keep_their_classes(chat, upstream, question):
    with pytest.raises(openai.NotFoundError, match="x, x-sot"):
        chat(model="y").invoke(question)
    with pytest.raises(openai.BadRequestError, match=r"sot\.points"):
        chat(extra_body={"sot": {"points": 1}}).invoke(question)
    upstream.script["skeleton"] = [ValueError("odd")]
    with pytest.raises(openai.InternalServerError):
        chat().invoke(question)
    with pytest.raises(openai.APIError, match="odd"):
        list(chat().stream(question))
