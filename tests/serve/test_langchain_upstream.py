"""LangChain's chat models as chat completions."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, convert_to_messages
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from pydantic import ConfigDict, Field
from serving import events_of

from skeleton_of_thought._cli.backend import prompt_dicts
from skeleton_of_thought.serve.errors import ServeError, explained
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstreams.langchain import LangChainUpstream
from skeleton_of_thought.types import Call, Message, Prompt, Reply, Usage

USAGE = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}


class Provider(BaseChatModel):
    """A chat model as partner packages have it, with a script of chunks."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = Field(default=None, alias="limit")
    script: list[Any] = Field(default_factory=list)
    seen: list[Any] = Field(default_factory=list)
    state: Any = None

    model_config = ConfigDict(populate_by_name=True)

    @property
    def _llm_type(self):
        return "provider"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        raise AssertionError("replies come as streams")

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        settings = (self.temperature, self.top_p, self.max_output_tokens)
        self.seen.append(([(m.type, m.content) for m in messages], stop, settings, kwargs))
        self.state.open += 1
        try:
            for item in self.script:
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    await asyncio.Event().wait()
                yield ChatGenerationChunk(message=item)
        finally:
            self.state.open -= 1

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools, **kwargs)


class WithoutTools(Provider):
    def bind_tools(self, tools, **kwargs):
        raise NotImplementedError


def text(*words, reason="stop", usage=USAGE):
    end = AIMessageChunk("", response_metadata={"finish_reason": reason}, usage_metadata=usage)
    return [*(AIMessageChunk(word) for word in words), end]


def made(*script, kind=Provider, **settings):
    chat = kind(script=list(script), seen=[], state=SimpleNamespace(open=0))
    return LangChainUpstream(chat, "fake:m", ModelSettings("mine", **settings)), chat


def request(**fields):
    return ChatRequest({"model": "mine", "messages": [{"role": "user", "content": "Hi"}], **fields})


async def read(upstream, **fields):
    """The bytes of a response; an error before them is the one that the caller gets."""
    try:
        passed = await upstream.pass_through(request(**fields))
    except Exception as error:
        raise explained(error, upstream) from error
    async with contextlib.aclosing(passed.body) as body:
        return b"".join([chunk async for chunk in body])


async def events(upstream, **fields):
    content = (await read(upstream, stream=True, **fields)).decode().removesuffix("\n\n")
    lines = [line.removeprefix("data: ") for line in content.split("\n\n")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_whole_completion():
    upstream, chat = made(*text("Blue ", "sky."))
    got = json.loads(await read(upstream))
    assert got["choices"][0]["message"]["content"] == "Blue sky."
    assert got["choices"][0]["finish_reason"] == "stop"
    assert got["usage"]["total_tokens"] == 7
    assert chat.seen == [([("human", "Hi")], None, (None, None, None), {})]
    assert chat.state.open == 0


async def test_a_stream_with_its_usage():
    upstream, _ = made(*text("Blue ", "sky."))
    *chunks, usage, done = await events(upstream, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 2)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Blue "}, {"content": "sky."}, {}]


async def test_settings_reach_the_model_by_its_own_names():
    upstream, chat = made(*text("So."))
    await read(upstream, temperature=0.5, top_p=0.9, max_tokens=9, seed=3, stop="x", mine=1)
    assert chat.seen[0][1:] == (["x"], (0.5, 0.9, 9), {})
    await read(upstream)
    assert chat.seen[1][1:] == (None, (None, None, None), {})


async def test_messages_of_all_kinds_reach_the_model():
    upstream, chat = made(*text("So."))
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    asked = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": image},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    ]
    await read(upstream, messages=asked)
    assert chat.seen[0][0] == [("system", "Be brief."), ("human", image), ("ai", ""), ("tool", "3")]


@pytest.mark.parametrize(
    ("choice", "given"),
    [
        (None, {}),
        ("required", {"tool_choice": "any"}),
        ("auto", {"tool_choice": "auto"}),
        ({"type": "function", "function": {"name": "add"}}, {"tool_choice": "add"}),
    ],
)
async def test_calls_of_tools_pass(choice, given):
    parts = [
        tool_call_chunk(name="add", args='{"a"', id="c", index=0),
        tool_call_chunk(name=None, args=": 1}", id=None, index=0),
    ]
    script = [AIMessageChunk("", tool_call_chunks=[part]) for part in parts]
    upstream, chat = made(*script, *text(reason="tool_use"))
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    got = json.loads(await read(upstream, tools=tools, tool_choice=choice))["choices"][0]
    assert got["finish_reason"] == "tool_calls"
    assert got["message"]["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    ]
    assert chat.seen[0][3] == {"tools": tools, **given}
    *chunks, _ = await events(upstream, tools=tools)
    deltas = [part for chunk in chunks for part in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [part["function"]["arguments"] for part in deltas] == ['{"a"', ": 1}"]
    assert [part.get("id") for part in deltas] == ["c", None]


@pytest.mark.parametrize(("reason", "word"), [("max_tokens", "length"), ("SAFETY", "content_filter"), ("odd", "stop")])
async def test_ends_have_openais_words(reason, word):
    upstream, _ = made(*text("So.", reason=reason))
    assert json.loads(await read(upstream))["choices"][0]["finish_reason"] == word


async def test_reasoning_comes_apart():
    thought = AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm."})
    message = json.loads(await read(made(thought, *text("So."))[0]))["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("So.", "Hm.")


class TooMany(Exception):
    status_code = 429
    response = SimpleNamespace(headers={"Retry-After": "7"}, status_code=429)


class Refused(Exception):
    status_code = 400


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [(TooMany("slow down"), 429, 7), (Refused("no such field"), 400, None), (OSError("sk-secret-key"), 502, None)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_text_has_its_status(error, status, wait, stream):
    upstream, chat = made(error, key="sk-secret-key")
    with pytest.raises(ServeError) as failed:
        await read(upstream, stream=stream)
    assert (failed.value.status, failed.value.retry_after) == (status, wait)
    assert "sk-secret-key" not in str(failed.value)
    assert chat.state.open == 0


async def test_a_later_error_ends_the_stream():
    upstream, chat = made(AIMessageChunk("Blue"), OSError("broken"))
    passed = await upstream.pass_through(request(stream=True))
    async with contextlib.aclosing(passed.body) as body:
        assert b'"role":"assistant"' in await anext(body)
        assert b'"content":"Blue"' in await anext(body)
        with pytest.raises(OSError, match="broken"):
            await anext(body)
    assert chat.state.open == 0


async def test_an_error_in_mid_stream_is_told_and_counted_as_one(serve, body):
    upstream, _ = made(AIMessageChunk("Blue"), OSError("broken"))
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body("m", stream=True))
    *_, text_chunk, error = events_of(response.text)
    assert text_chunk["choices"][0]["delta"] == {"content": "Blue"}
    assert (error["error"]["type"], "broken" in error["error"]["message"]) == ("upstream_error", True)
    counted = (await client.get("/metrics")).text
    assert 'sot_answers_total{model="m",route="passed",status="502"} 1' in counted.splitlines()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 7}, "stop"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        *(
            ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": odd}, "tool_choice")
            for odd in (7, "f", [], {"type": "allowed_tools"}, {"function": {"name": 7}}, {"function": "f"})
        ),
        ({"messages": [{"role": "nobody", "content": "x"}]}, None),
    ],
)
async def test_what_cannot_be_followed_is_refused_before_any_call(fields, param):
    upstream, chat = made(*text("So."), kind=WithoutTools)
    with pytest.raises(ServeError) as failed:
        await read(upstream, **fields)
    assert (failed.value.status, failed.value.param) == (400, param)
    assert chat.seen == []


@pytest.mark.parametrize("begun", [False, True])
async def test_closing_the_body_ends_the_call(begun):
    upstream, chat = made(AIMessageChunk("Blue"), None)
    passed = await upstream.pass_through(request(stream=True))
    assert chat.state.open == 1
    if begun:
        await anext(passed.body)
        await anext(passed.body)
    await passed.body.aclose()
    assert chat.state.open == 0


async def test_cancelling_a_whole_completion_ends_the_call(eventually):
    upstream, chat = made(AIMessageChunk("Blue"), None)
    task = asyncio.create_task(read(upstream))
    await eventually(lambda: chat.state.open == 1, "the call is open")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert chat.state.open == 0


async def test_a_call_of_an_answer():
    upstream, chat = made(*text("Blue ", "sky."))
    call = Call(1, "point", Prompt((Message("user", "Hi"),)))
    items = [item async for item in upstream.open_call(call, {"temperature": 0.5, "mine": 1})]
    assert items == ["Blue ", "sky.", Reply(Usage(5, 2), "stop")]
    assert chat.seen[0][2:] == ((0.5, None, None), {})
    upstream.check({"temperature": 0.5})
    with pytest.raises(ServeError, match="temperature"):
        upstream.check({"temperature": "hot"})


def test_the_name_of_a_message_reaches_langchain():
    given = {"role": "user", "name": "ann", "content": "Hi", "refusal": None, "tool_calls": []}
    (message,) = convert_to_messages(prompt_dicts(Prompt((Message("user", "Hi", raw=given),))))
    assert (message.type, message.content, message.name) == ("human", "Hi", "ann")
    assert message.additional_kwargs == {}
