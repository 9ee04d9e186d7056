"""Models in this process as chat completions, over engines with scripted or tiny random models."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import threading

import pytest

pytest.importorskip("torch", reason="the local engine needs torch")
pytest.importorskip("transformers", reason="the local engine needs transformers")

from scripted_calls import PATIENCE

from skeleton_of_thought.drive import arun
from skeleton_of_thought.errors import ModelLoadError, PromptTooLong
from skeleton_of_thought.events import AnswerDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.serve.errors import ServeError, explained
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstreams import local, open_upstream
from skeleton_of_thought.serve.upstreams.local import LocalUpstream
from skeleton_of_thought.serve.upstreams.threads import in_thread
from skeleton_of_thought.types import Call, Conversation, Hints, Message, Prompt

needs_grammars = pytest.mark.skipif(
    importlib.util.find_spec("llguidance") is None, reason="output by a grammar needs llguidance"
)
SETTINGS = ModelSettings("mine")
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}
NOW = {"type": "function", "function": {"name": "now"}}
SAID = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>{"name": "now"}</tool_call>'


@pytest.fixture
def scripted(local_models):
    """Makes a model that replies with this text."""
    engines = []

    def make(said, template=local_models.HERMES, settings=SETTINGS):
        engines.append(local_models.scripted_engine(said, template))
        return LocalUpstream(engines[-1], settings)

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def silent(local_models):
    """A model for requests that never reach it."""
    with local_models.scripted_engine("Yes.") as engine:
        yield LocalUpstream(engine, SETTINGS)


@pytest.fixture
def random_model(local_models):
    """A tiny model with random weights, which writes until its limit."""
    with LocalEngine(local_models.make_llama(), local_models.make_tokenizer(local_models.PLAIN)) as engine:
        yield LocalUpstream(engine, SETTINGS)


def request(**fields):
    messages = [{"role": "user", "content": "Hi"}]
    return ChatRequest({"model": "mine", "messages": messages, **fields})


async def answered(upstream, **fields):
    """The response to a request; an error is the one that the caller gets."""
    try:
        return await upstream.pass_through(request(**fields))
    except Exception as error:
        raise explained(error, upstream) from error


async def whole(upstream, **fields):
    passed = await answered(upstream, **fields)
    assert (passed.status, passed.headers) == (200, {"content-type": "application/json"})
    async with contextlib.aclosing(passed.body) as body:
        return json.loads(b"".join([chunk async for chunk in body]))


async def events(upstream, **fields):
    """The events of a stream."""
    passed = await upstream.pass_through(request(stream=True, **fields))
    assert passed.status == 200
    assert passed.headers["content-type"].startswith("text/event-stream")
    async with contextlib.aclosing(passed.body) as body:
        text = b"".join([chunk async for chunk in body]).decode()
    assert text.endswith("\n\n")
    lines = text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    read = [line.removeprefix("data: ") for line in lines]
    return [each if each == "[DONE]" else json.loads(each) for each in read]


async def said(upstream, **fields):
    return (await whole(upstream, **fields))["choices"][0]["message"]["content"]


def prompts(upstream):
    """The prompts that the scripted model got."""
    return upstream._engine.model.prompts


# --- replies ---


async def test_a_whole_completion(scripted):
    got = await whole(scripted("Blue, for it scatters."))
    assert got.pop("id").startswith("chatcmpl-")
    assert got.pop("created") > 1e9
    usage = got.pop("usage")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] == len("Blue, for it scatters.") + 1
    assert got == {
        "object": "chat.completion",
        "model": "mine",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Blue, for it scatters.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


@pytest.mark.parametrize("with_usage", [True, False])
async def test_a_stream(scripted, with_usage):
    options = {"stream_options": {"include_usage": True}} if with_usage else {}
    *chunks, done = await events(scripted("Blue\u2028sky."), **options)
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    if with_usage:
        *chunks, last = chunks
        assert last["choices"] == []
        assert last["usage"]["completion_tokens"] == len("Blue\u2028sky.".encode()) + 1
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert all("usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(choice["delta"]["content"] for choice in choices[1:-1]) == "Blue\u2028sky."
    assert choices[-1]["delta"] == {}
    assert [choice["finish_reason"] for choice in choices] == [*([None] * (len(choices) - 1)), "stop"]


async def test_openais_own_types_read_the_replies(scripted):
    types = pytest.importorskip("openai.types.chat")
    upstream = scripted(SAID)
    types.ChatCompletion.model_validate(await whole(upstream, tools=[ADD]), strict=True)
    for chunk in (await events(upstream, tools=[ADD], stream_options={"include_usage": True}))[:-1]:
        types.ChatCompletionChunk.model_validate(chunk, strict=True)


async def test_the_role_comes_before_the_first_text(scripted):
    begin = threading.Event()

    def say(prompt):
        assert begin.wait(PATIENCE)
        return "So."

    upstream = scripted(say)
    passed = await upstream.pass_through(request(stream=True))
    first = await anext(passed.body)
    assert not begin.is_set()
    assert passed.own_events, "the server may send comments meanwhile"
    begin.set()
    rest = b"".join([chunk async for chunk in passed.body])
    assert b'"role":"assistant"' in first
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in rest.split(b"\n\n") if line.startswith(b"data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "So."
    await passed.body.aclose()


async def test_parts_of_text_are_joined_and_roles_kept(scripted):
    upstream = scripted("Yes.")
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]
    asked = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": "Well"}, {"type": "refusal", "refusal": "!"}]},
        {"role": "user", "content": "So?"},
    ]
    await whole(upstream, messages=asked)
    assert prompts(upstream)[0] == "<developer>Be brief.</s><user>One\n\ntwo</s><assistant>Well!</s><user>So?</s>"


# --- settings ---


async def test_a_stop_string_ends_the_text(scripted):
    upstream = scripted("One. Two. Three.")
    assert await said(upstream, stop=" Two") == "One."
    assert await said(upstream, stop=["nothing", " Three"]) == "One. Two."
    assert await said(upstream, stop=[]) == "One. Two. Three."


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ({"max_tokens": 4}, 4),
        ({"max_completion_tokens": 3, "max_tokens": 9}, 3),
        ({}, 6),
        ({"max_tokens": -1}, 6),
        ({"max_tokens": None}, 6),
    ],
)
async def test_a_limit_cuts_the_text(scripted, fields, length):
    got = await whole(scripted("One. Two.", settings=ModelSettings("mine", max_tokens=6)), **fields)
    assert got["choices"][0]["finish_reason"] == "length"
    assert got["usage"]["completion_tokens"] == length


async def test_a_limit_past_the_window_is_the_rest_of_the_window(random_model):
    window = random_model._engine.context_window
    got = await whole(random_model, max_tokens=10 * window, messages=[{"role": "user", "content": "x" * (window - 40)}])
    assert got["usage"]["total_tokens"] <= window
    assert got["choices"][0]["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize("counted_first", [False, True])
async def test_a_prompt_past_the_window_is_refused(random_model, monkeypatch, counted_first):
    monkeypatch.setattr(local, "_LONG", 100 if counted_first else 10**9)
    asked = [{"role": "user", "content": "x" * (random_model._engine.context_window + 1)}]
    with pytest.raises(ServeError, match="window") as failed:
        await whole(random_model, messages=asked)
    assert (failed.value.status, failed.value.code) == (400, "context_length_exceeded")
    assert "max_new_tokens" not in str(failed.value)
    assert random_model._engine.stats().forwards == 0


async def test_sampling_follows_the_settings(random_model):
    async def text(**fields):
        return await said(random_model, max_tokens=24, **fields)

    greedy = await text()
    assert await text(temperature=0) == greedy
    assert await text(temperature=2.0, top_p=0) == greedy
    drawn = await text(temperature=2.0, seed=3)
    assert drawn != greedy
    assert await text(temperature=2.0, seed=3) == drawn
    assert await text(temperature=2.0, seed=4) != drawn
    assert await text(temperature=2.0, seed=4, top_k=1) == greedy
    assert await text(frequency_penalty=50.0) != greedy
    assert await text(presence_penalty=50.0) != greedy
    assert await text(frequency_penalty=0, presence_penalty=0, top_p=1, top_k=-1, min_tokens=0) == greedy
    ((first, *_),) = [done.token_ids for done in random_model._engine.generate([[Message("user", "Hi")]])]
    assert await text(logit_bias={str(first): -100}) != greedy


async def test_clients_of_llama_cpp_send_minus_one_for_any_seed(random_model):
    drawn = {await said(random_model, max_tokens=24, temperature=2.0, seed=-1) for _ in range(3)}
    assert len(drawn) == 3


async def test_unknown_fields_and_those_that_ask_for_nothing_are_ignored(scripted):
    nothing = {"n": 1, "logprobs": False, "top_logprobs": None, "tools": {}, "stop": None, "functions": None}
    unknown = {"user": "ann", "store": True, "metadata": {"a": "b"}, "reasoning_effort": "low", "mine": [1]}
    other = {"response_format": {"type": "text"}, "modalities": ["text"], "logit_bias": {}, "function_call": "none"}
    assert await said(scripted("Yes."), **nothing, **unknown, **other) == "Yes."


IMAGE = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 2}, "n", "one choice"),
        ({"n": "many"}, "n", "one choice"),
        ({"logprobs": True}, "logprobs", "log probabilities"),
        ({"top_logprobs": 3}, "top_logprobs", "log probabilities"),
        ({"functions": [{"name": "f"}]}, "functions", "send `tools`"),
        ({"function_call": "auto"}, "function_call", "send `tool_choice`"),
        ({"modalities": ["text", "audio"]}, "modalities", "text only"),
        ({"audio": {"voice": "x"}}, "audio", "text only"),
        ({"web_search_options": {"a": 1}}, "web_search_options", "no search"),
        ({"messages": [{"role": "user", "content": IMAGE}]}, "messages[0].content", "image_url.*text only"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content", "input_audio"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content", "a text or a list"),
        ({"messages": [{"role": "assistant", "tool_calls": [7]}]}, "messages[0].tool_calls", "list of"),
        ({"temperature": "hot"}, "temperature", "number of at least 0"),
        ({"temperature": -1}, "temperature", "number of at least 0"),
        ({"temperature": True}, "temperature", "number"),
        ({"temperature": float("nan")}, "temperature", "number"),
        ({"top_p": 2}, "top_p", "at most 1"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": [1]}, "logit_bias", "token ids"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": 1.5}, "max_tokens", "whole number"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "whole number"),
        ({"stop": 7}, "stop", "string"),
        ({"stop": ["a", ""]}, "stop", "none of them empty"),
        ({"tools": "add"}, "tools", "list"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "function"),
        ({"tools": [{"function": {"name": "f", "parameters": "x"}}]}, "tools[0].function.parameters", "schema"),
        ({"tools": [ADD], "response_format": {"type": "json_object"}}, "response_format", "exclude each other"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": "json"}, "response_format", "json_schema"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_followed_is_refused_before_any_call(silent, fields, param, words, stream):
    with pytest.raises(ServeError, match=words) as failed:
        await answered(silent, stream=stream, **fields)
    assert (failed.value.status, failed.value.param) == (400, param)
    assert prompts(silent) == []


# --- forms of the reply ---


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORMATS = [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}]


@needs_grammars
@pytest.mark.parametrize("response_format", FORMATS)
async def test_a_grammar_makes_the_reply_json(scripted, response_format):
    upstream = scripted("No JSON at all.")
    value = json.loads(await said(upstream, response_format=response_format, max_tokens=60))
    assert isinstance(value, dict)
    assert ("a" in value) == (response_format["type"] == "json_schema")
    assert "JSON" in prompts(upstream)[0]


@pytest.mark.parametrize("response_format", FORMATS)
async def test_without_llguidance_json_is_refused(scripted, monkeypatch, response_format):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "llguidance" else found(name, *a))
    upstream = scripted("{}")
    with pytest.raises(ServeError, match=r"needs llguidance.*pip install") as failed:
        await whole(upstream, response_format=response_format)
    assert (failed.value.status, failed.value.param) == (400, "response_format")
    assert prompts(upstream) == []


@needs_grammars
async def test_a_schema_that_no_grammar_can_express_is_refused(scripted):
    odd = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}
    with pytest.raises(ServeError, match="Invalid type") as failed:
        await whole(scripted("{}"), response_format=odd)
    assert (failed.value.status, failed.value.param) == (400, "response_format")


async def test_calls_of_tools(scripted):
    upstream = scripted(f"Let me see.\n{SAID}")
    got = (await whole(upstream, tools=[ADD, NOW]))["choices"][0]
    assert got["finish_reason"] == "tool_calls"
    assert got["message"]["content"] == "Let me see."
    calls = got["message"]["tool_calls"]
    assert [call["type"] for call in calls] == ["function", "function"]
    assert [call["function"] for call in calls] == [
        {"name": "add", "arguments": '{"a": 1}'},
        {"name": "now", "arguments": "{}"},
    ]
    assert len({call["id"] for call in calls}) == 2
    assert '"add"' in prompts(upstream)[0]


async def test_calls_of_tools_in_a_stream(scripted):
    *chunks, _ = await events(scripted(f"Let me see.\n{SAID}"), tools=[ADD, NOW])
    choices = [chunk["choices"][0] for chunk in chunks]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]["name"]) for call in calls] == [(0, "add"), (1, "now")]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Let me see."
    assert choices[-1]["finish_reason"] == "tool_calls"


async def test_a_reply_of_calls_alone_has_no_content(scripted):
    message = (await whole(scripted(SAID), tools=[ADD, NOW]))["choices"][0]["message"]
    assert message["content"] is None


@pytest.mark.parametrize(
    "reply",
    ['<tool_call>{"name": "add", </tool_call>', '<tool_call>{"name": "add", "arguments": [1]}', "<tool_call>[7]"],
)
async def test_a_call_that_cannot_be_read_is_text(scripted, reply):
    choice = (await whole(scripted(reply), tools=[ADD]))["choices"][0]
    assert choice["message"]["content"] == reply
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


@needs_grammars
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"add", "now"}), ({"type": "function", "function": {"name": "now"}}, {"now"})],
)
async def test_a_call_can_be_forced(scripted, choice, names):
    got = (await whole(scripted("No."), tools=[ADD, NOW], tool_choice=choice, max_tokens=99))["choices"][0]
    assert {call["function"]["name"] for call in got["message"]["tool_calls"]} <= names
    assert got["finish_reason"] == "tool_calls"


async def test_tools_can_be_switched_off_for_a_reply(scripted):
    upstream = scripted("So it is.")
    assert await said(upstream, tools=[ADD], tool_choice="none") == "So it is."
    assert "add" not in prompts(upstream)[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tool_choice": {"function": {"name": "sub"}}}, "tool_choice is 'sub'"),
        ({"tool_choice": 7}, "tool_choice is 7"),
    ],
)
async def test_a_choice_that_is_no_tool_is_refused(scripted, fields, words):
    with pytest.raises(ServeError, match=words) as failed:
        await whole(scripted("Yes."), tools=[ADD], **fields)
    assert failed.value.status == 400


async def test_a_model_without_tools_says_so(scripted, local_models):
    with pytest.raises(ServeError, match="does not support tools") as failed:
        await whole(scripted("Yes.", local_models.PLAIN), tools=[ADD])
    assert failed.value.status == 400


async def test_earlier_calls_and_their_results_reach_the_model(scripted):
    upstream = scripted("Three.")
    made = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a": '}}
    asked = [
        {"role": "user", "content": "1 + 2?"},
        {"role": "assistant", "content": None, "tool_calls": [made, broken]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    assert await said(upstream, messages=asked) == "Three."
    assert '<assistant>{"a": <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>' in prompts(upstream)[0]
    assert "<tool>3" in prompts(upstream)[0]


@pytest.mark.parametrize("odd", [[], {"a": 1}, 7, None])
async def test_ids_and_names_that_are_no_text_do_no_harm(scripted, odd):
    upstream = scripted("Three.")
    made = {"id": odd, "type": "function", "function": {"name": "add", "arguments": "{}"}}
    asked = [
        {"role": "user", "content": "1 + 2?", "name": odd},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": odd, "name": odd, "content": "3"},
    ]
    assert await said(upstream, messages=asked) == "Three."
    assert "<tool>3" in prompts(upstream)[0]


# --- ends ---


@pytest.mark.parametrize("begun", [False, True])
async def test_closing_a_stream_frees_its_row(random_model, begun):
    engine = random_model._engine
    passed = await random_model.pass_through(request(stream=True, max_tokens=3000, ignore_eos=True))
    if begun:
        for _ in range(2):
            await anext(passed.body)
    await passed.body.aclose()
    stats = engine.stats()
    assert (stats.rows, stats.waiting, stats.cancelled, stats.completed) == (0, 0, 1, 0)


async def test_cancelling_a_whole_completion_frees_its_row(random_model, eventually):
    engine = random_model._engine
    task = asyncio.create_task(whole(random_model, max_tokens=3000, ignore_eos=True))
    await eventually(lambda: engine.stats().rows == 1, "the row is decoded")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: engine.stats().rows == 0, "the row has left")
    assert engine.stats().completed == 0


@pytest.fixture
def broken(scripted):
    def say(prompt):
        raise RuntimeError("no more memory")

    return scripted(say)


async def test_a_model_that_fails_in_a_stream_raises_after_its_first_chunk(broken):
    passed = await answered(broken, stream=True)
    async with contextlib.aclosing(passed.body) as body:
        assert b'"role":"assistant"' in await anext(body)
        with pytest.raises(RuntimeError, match="no more memory"):
            await anext(body)


async def test_a_model_that_fails_has_the_status_of_a_fault(broken, caplog):
    with pytest.raises(ServeError, match="no more memory") as failed:
        await whole(broken)
    assert (failed.value.status, failed.value.kind) == (500, "server_error")
    assert [record.getMessage() for record in caplog.records if "serve" in record.name] == [
        "A call of a model failed: RuntimeError"
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_closed_model_is_not_there(scripted, stream):
    upstream = scripted("Yes.")
    await upstream.close()
    await upstream.close()
    with pytest.raises(ServeError, match="stopping") as failed:
        await answered(upstream, stream=stream)
    assert failed.value.status == 503


async def test_many_requests_are_decoded_at_once(random_model):
    await asyncio.gather(*(whole(random_model, max_tokens=30, ignore_eos=True) for _ in range(6)))
    assert random_model._engine.stats().peak_batch_size > 1


# --- calls of answers ---


def call(text="Hi", prefill="", **hints):
    return Call(1, "point", Prompt((Message("user", text),), prefill, Hints(**hints)))


async def text_of(upstream, call, **sampling):
    items = [item async for item in upstream.open_call(call, sampling)]
    return "".join(items[:-1]), items[-1]


async def test_a_call_streams_its_text_and_its_end(scripted):
    text, end = await text_of(scripted("All of it."), call())
    assert text == "All of it."
    assert end.finish_reason == "stop"
    assert end.usage.output_tokens == len("All of it.") + 1
    assert end.decoding.output_tokens == end.usage.output_tokens


async def test_a_call_continues_its_prefill_and_keeps_to_its_hints(scripted):
    assert (await text_of(scripted("So it is.\nMore"), call(prefill="So", stop=("\n",))))[0] == " it is."


async def test_a_call_takes_the_sampling_of_the_caller(random_model):
    greedy, end = await text_of(random_model, call(max_tokens=20))
    assert end.finish_reason == "length"
    drawn, _ = await text_of(random_model, call(max_tokens=20), temperature=2.0, seed=3, user="ann", tools_of_mine=[1])
    assert drawn != greedy
    assert (await text_of(random_model, call(max_tokens=20), temperature=2.0, seed=3))[0] == drawn


async def test_a_penalty_of_nothing_leaves_those_of_the_prompts(random_model):
    own = call(max_tokens=20, frequency_penalty=50.0)
    kept, _ = await text_of(random_model, own)
    assert kept != (await text_of(random_model, call(max_tokens=20)))[0]
    assert (await text_of(random_model, own, frequency_penalty=0))[0] == kept
    assert (await text_of(random_model, own, frequency_penalty=1e-9))[0] != kept


async def test_sampling_is_checked_before_the_first_call(scripted):
    upstream = scripted("Yes.")
    upstream.check({"temperature": 0.5, "mine": object()})
    for wrong in ({"temperature": "hot"}, {"top_p": 7}, {"logit_bias": 3}):
        with pytest.raises(ServeError, match=next(iter(wrong))):
            upstream.check(wrong)


async def test_a_long_call_that_does_not_fit_never_reaches_the_loop(random_model, monkeypatch):
    monkeypatch.setattr(local, "_LONG", 100)
    with pytest.raises(PromptTooLong, match="window"):
        await text_of(random_model, call("x" * 5000))


async def test_closing_a_call_frees_its_row(random_model):
    stream = random_model.open_call(call(), {"ignore_eos": True})
    await anext(stream)
    await stream.aclose()
    assert (random_model._engine.stats().rows, random_model._engine.stats().cancelled) == (0, 1)


async def test_an_answer_by_points(scripted, local_models):
    upstream = scripted(local_models.few_shot_script(["Light", "Air", "Eyes"]), local_models.PLAIN)
    assert set(upstream.prefill) == {"skeleton", "point"}
    flow = AnswerFlow(Conversation((Message("user", "Why is the sky blue?"),)), prefill=upstream.prefill)
    seen = [event async for _, event in arun([flow], lambda call, index: upstream.open_call(call, {}))]
    assert isinstance(seen[-1], AnswerDone)
    assert [point.title for point in seen[-1].answer.skeleton.points] == ["Light", "Air", "Eyes"]
    assert "All about air." in seen[-1].answer.text


# --- opening ---


async def test_work_in_a_thread_has_its_result_or_error():
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(KeyError, match="mine"):
        await in_thread(lambda: {}["mine"])


async def test_nothing_waits_for_work_in_a_thread_that_is_cancelled(eventually):
    go = threading.Event()
    task = asyncio.create_task(in_thread(lambda: go.wait(PATIENCE)))
    await eventually(lambda: any(t.name == "sot-load" for t in threading.enumerate()), "the thread has begun")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "sot-load")
    go.set()
    await eventually(lambda: all(t.name != "sot-load" for t in threading.enumerate()), "the thread has ended")


async def test_a_model_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match=r"openai:NAME@http"):
        await open_upstream(ModelSettings("mine", "no-such-model-here"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelLoadError):
        await open_upstream(ModelSettings("mine", str(tmp_path / "empty")))


@pytest.mark.model
async def test_the_demo_model():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    first, second = await asyncio.gather(open_upstream(ModelSettings("a")), open_upstream(ModelSettings("b", "demo")))
    ticking.cancel()
    assert ticks > 3, "loading blocked the event loop"
    assert first._engine is second._engine
    assert first.local
    assert "tiny" in first.remark
    try:
        asked = [{"role": "user", "content": "What is the capital of France?"}]
        assert "Paris" in await said(first, messages=asked, max_tokens=16)
        *chunks, done = await events(second, messages=asked, max_tokens=16)
        assert "Paris" in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert done == "[DONE]"
    finally:
        await first.close()
        await second.close()
