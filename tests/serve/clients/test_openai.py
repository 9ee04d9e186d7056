"""The openai package as a client: whole answers and streams, in threads and tasks, given up halfway, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

openai = pytest.importorskip("openai", reason="the openai package is not installed")

from pydantic import BaseModel  # noqa: E402
from scripted_upstream import Attempts  # noqa: E402

from skeleton_of_thought.settings import Settings  # noqa: E402

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}


class Joke(BaseModel):
    setup: str
    punchline: str


@pytest.fixture
def connect():
    """`connect(server, **settings)`: a client."""
    with contextlib.ExitStack() as stack:

        def make(server, **settings):
            known = {"base_url": server.base_url, "api_key": "none", "max_retries": 0, "timeout": 20}
            return stack.enter_context(openai.OpenAI(**{**known, **settings}))

        yield make


@pytest.fixture
def client(server, connect):
    return connect(server)


@pytest.fixture
async def tasks(server):
    """The client for tasks."""
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture
def asked(question):
    """`asked(model="x-sot", **fields)`: the arguments of a request."""

    def make(model="x-sot", **fields):
        return {"model": model, "messages": [{"role": "user", "content": question}], **fields}

    return make


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


# --- answers ----------------------------------------------------------------------------------------


def test_a_whole_answer(client, upstream, asked, answer):
    raw = client.chat.completions.with_raw_response.create(**asked())
    assert raw.headers["x-sot-route"] == "skeleton"
    completion = raw.parse()
    assert completion.choices[0].message.content == answer
    assert (completion.choices[0].finish_reason, completion.model) == ("stop", "x-sot")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (40, 20)
    assert completion.usage.prompt_tokens_details.cached_tokens == 0
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point"]


async def test_a_whole_answer_for_a_task(tasks, asked, answer):
    assert (await tasks.chat.completions.create(**asked())).choices[0].message.content == answer


def test_text_streams_before_the_last_point_has_ended(client, server, upstream, asked, answer):
    gate = asyncio.Event()
    upstream.script["Sleep"] = [gate, "All about ", "Sleep."]
    with client.chat.completions.create(**asked(stream=True)) as stream:
        chunks = [next(stream)]
        assert chunks[0].choices[0].delta.role == "assistant"
        while "All about Diet." not in text_of(chunks):
            chunks.append(next(stream))
        assert upstream.open["Sleep"] == 1
        server.do(gate.set)
        chunks += stream
    assert text_of(chunks) == answer
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)


async def test_text_streams_to_a_task(tasks, server, upstream, asked, answer):
    gate = asyncio.Event()
    upstream.script["Sleep"] = [gate, "All about ", "Sleep."]
    async with await tasks.chat.completions.create(**asked(stream=True)) as stream:
        chunks = [await anext(stream)]
        while "All about Diet." not in text_of(chunks):
            chunks.append(await anext(stream))
        server.do(gate.set)
        chunks += [chunk async for chunk in stream]
    assert text_of(chunks) == answer


@pytest.mark.parametrize("model", ["x-sot", "x"])
def test_the_usage_comes_in_a_chunk_of_its_own(client, asked, model):
    *chunks, last = client.chat.completions.create(**asked(model, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage.total_tokens == {"x-sot": 60, "x": 7}[model]


def test_the_package_puts_the_chunks_together(client, asked, answer):
    with client.chat.completions.stream(**asked(stream_options={"include_usage": True})) as stream:
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert completion.choices[0].message.content == answer
    assert completion.usage.total_tokens == 60


def test_keep_alive_comments_are_no_chunks(start, connect, upstream, asked, answer):
    gate = asyncio.Event()
    upstream.script["skeleton"] = ["1. Diet\n2. Sleep\n", gate, "3. Exercise\n"]
    upstream.script["Diet"] = [gate, "All about ", "Diet."]
    server = start(upstream, model={"router": "always"}, keep_alive=0.005)
    stream = connect(server).chat.completions.create(**asked(stream=True))
    with stream:
        first = next(stream)
        threading.Timer(0.05, server.do, (gate.set,)).start()
        assert text_of([first, *stream]) == answer


def test_many_threads_and_many_tasks(client, server, upstream, asked, answer):
    told = []
    threads = [
        threading.Thread(target=lambda: told.append(text_of(client.chat.completions.create(**asked(stream=True)))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()

    async def ask():
        async with openai.AsyncOpenAI(base_url=server.base_url, api_key="none") as tasks:
            made = await asyncio.gather(*(tasks.chat.completions.create(**asked()) for _ in range(8)))
        return [completion.choices[0].message.content for completion in made]

    together = asyncio.run(ask())
    for thread in threads:
        thread.join()
    assert told + together == [answer] * 16
    assert len(upstream.calls) == 64


# --- fields of our own, and what passes through -----------------------------------------------------


def test_our_fields_ride_in_extra_body(client, upstream, asked):
    sot = {"max_points": 2, "join": "paragraphs", "show_skeleton": True, "events": True}
    chunks = [*client.chat.completions.create(**asked(stream=True, extra_body={"sot": sot}))]
    assert text_of(chunks) == "All about Diet.\n\nAll about Sleep."
    shown = [chunk.choices[0].delta.model_extra.get("reasoning_content") for chunk in chunks]
    assert [each for each in shown if each] == ["1. Diet\n", "2. Sleep\n"]
    assert [chunk.model_extra["sot"]["event"] for chunk in chunks[1:]].count("PointDone") == 2
    whole = client.chat.completions.create(**asked(extra_body={"sot": {"show_skeleton": True, "max_points": 2}}))
    assert whole.choices[0].message.model_extra["reasoning_content"] == "1. Diet\n2. Sleep\n"


def test_a_field_of_ours_that_is_wrong_names_itself(client, upstream, asked):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked(stream=True, extra_body={"sot": {"points": 2}}))
    assert caught.value.param == "sot.points"
    assert "max_points" in caught.value.message
    assert not upstream.calls


@pytest.mark.parametrize("stream", [False, True])
def test_tools_pass_through(client, upstream, asked, stream):
    reply = client.chat.completions.create(**asked(tools=[TOOL], stream=stream))
    if stream:
        (call,) = [call for chunk in reply for call in chunk.choices[0].delta.tool_calls or ()]
    else:
        (call,) = reply.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("add", '{"a": 1}')
    assert upstream.passed[0].body["tools"] == [TOOL]
    assert not upstream.calls


def test_a_form_passes_through(client, upstream, asked):
    completion = client.chat.completions.parse(**asked(response_format=Joke))
    assert completion.choices[0].message.parsed.punchline == "It was tired."
    with client.chat.completions.stream(**asked(response_format=Joke)) as stream:
        assert stream.get_final_completion().choices[0].message.parsed.setup.startswith("Why")
    assert not upstream.calls


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"stop": ["a"]}, {"n": 2}, {"logprobs": True}, {"seed": 1}])
def test_fields_for_the_whole_text_pass_through_and_others_go_with_each_call(client, upstream, asked, fields):
    raw = client.chat.completions.with_raw_response.create(**asked(**fields))
    if "seed" in fields:
        assert [sampling["seed"] for sampling in upstream.samplings] == [1] * 4
    else:
        assert raw.headers["x-sot-route"] == "passed"
        assert {name: upstream.passed[0].body[name] for name in fields} == fields


def test_the_key_and_headers_of_the_package_stay_here(client, upstream, asked):
    for model in ("x", "x-sot"):
        client.chat.completions.create(**asked(model), extra_headers={"X-Request-Id": "r1", "X-Other": "o"})
    assert upstream.passed[0].headers == {"x-request-id": "r1"}
    assert all(headers.keys() == {"x-request-id", "x-session-id"} for headers in upstream.call_headers)


def test_the_models(client):
    models = client.models.list()
    assert [model.id for model in models] == ["x", "x-sot"]
    assert client.models.retrieve("x-sot").owned_by == "sot"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("y")


# --- clients that give up ---------------------------------------------------------------------------


def hold(upstream):
    """A model that never ends; its first point has begun."""
    upstream.script |= {title: ["Begun ", asyncio.Event()] for title in ("Diet", "Sleep", "Exercise")}
    upstream.script["passed"] = ["Begun ", asyncio.Event()]


def all_ended(server, upstream):
    server.until(lambda: upstream.open_calls == 0, "all calls upstream end")
    assert len(upstream.calls) == 4, "none begins again"


@pytest.mark.parametrize("way", ["close", "break", "drop"])
def test_a_stream_that_is_left_ends_all_calls(client, server, upstream, asked, way):
    hold(upstream)
    stream = client.chat.completions.create(**asked(stream=True))
    for chunk in stream:
        if "Begun" in text_of([chunk]):
            break
    server.until(lambda: upstream.open_calls == 3, "three points are being written")
    if way == "close":
        stream.close()
    elif way == "break":
        stream.response.close()
    else:
        client.close()
    all_ended(server, upstream)
    stream.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", ["skeleton", "points"])
async def test_a_task_that_is_cancelled_ends_all_calls(tasks, server, upstream, asked, eventually, stream, at):
    hold(upstream)
    if at == "skeleton":
        upstream.script["skeleton"] = [asyncio.Event()]

    async def ask():
        reply = await tasks.chat.completions.create(**asked(stream=stream))
        async for _ in reply:
            pass

    task = asyncio.create_task(ask())
    await eventually(lambda: upstream.open_calls == (1 if at == "skeleton" else 3), "the calls are open")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: upstream.open_calls == 0, "all calls upstream end")


def test_a_client_that_times_out_ends_all_calls(connect, server, upstream, asked):
    hold(upstream)
    with pytest.raises(openai.APITimeoutError):
        connect(server, timeout=0.5).chat.completions.create(**asked())
    server.until(lambda: upstream.open_calls == 0, "all calls upstream end")


def test_the_next_request_is_answered_after_one_that_was_left(client, server, upstream, asked, answer):
    hold(upstream)
    with client.chat.completions.create(**asked(stream=True)) as stream:
        next(stream)
    server.until(lambda: upstream.open_calls == 0, "all calls upstream end")
    upstream.script = {"skeleton": upstream.script["skeleton"]}
    assert client.chat.completions.create(**asked()).choices[0].message.content == answer


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["none", "", "right-key-2"])
def test_a_wrong_key_is_an_authentication_error(start, connect, upstream, asked, answer, key):
    server = start(upstream, model={"router": "always"}, keys=("right-key", "other-key"))
    headers = {} if key else {"default_headers": {"authorization": "Basic bmFtZTprZXk="}}
    for call in (lambda client: client.chat.completions.create(**asked()), lambda client: client.models.list()):
        with pytest.raises(openai.AuthenticationError) as caught:
            call(connect(server, api_key=key or "none", **headers))
        assert caught.value.code == "invalid_api_key"
        assert "Bearer" in caught.value.message
    assert not upstream.calls
    for right in ("right-key", "other-key"):
        reply = connect(server, api_key=right).chat.completions.create(**asked())
        assert reply.choices[0].message.content == answer


def test_an_unknown_model_is_a_not_found_error_with_the_known_ones(client, asked):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**asked("gpt-4o", stream=True))
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "x, x-sot" in caught.value.message


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.responses.create(model="x", input="Hi"),
        lambda client: client.completions.create(model="x", prompt="Hi"),
        lambda client: client.embeddings.create(model="x", input="Hi"),
    ],
)
def test_other_endpoints_are_not_found_and_say_what_there_is(client, ask):
    with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions"):
        ask(client)


def test_a_full_queue_is_a_rate_limit_error_and_the_package_tries_again(start, connect, upstream, asked, answer):
    gate = asyncio.Event()
    upstream.script["Diet"] = ["All about ", gate, "Diet."]
    server = start(upstream, model={"router": "always"}, max_open_calls=1, max_waiting=0)
    client = connect(server)
    with client.chat.completions.create(**asked(stream=True)) as stream:
        next(stream)
        server.until(lambda: upstream.open["Diet"] == 1, "the only place is taken")
        for streamed in (True, False):
            with pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(**asked(stream=streamed))
            assert caught.value.code == "rate_limit_exceeded"
            assert int(caught.value.response.headers["retry-after"]) >= 1
        # The package waits as long as the server says; by then there is room.
        timer = threading.Timer(0.1, server.do, (gate.set,))
        timer.start()
        reply = connect(server, max_retries=3).chat.completions.create(**asked())
        assert reply.choices[0].message.content == answer
        timer.join()
        assert "Exercise" in text_of(stream)


def test_a_rate_limit_of_the_model_s_server_reaches_the_client(client, upstream, asked):
    body = {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    upstream.refusal = (429, {"retry-after": "7"}, body)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**asked("x", stream=True))
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.body == body["error"]


def test_bad_requests_are_bad_request_errors(client, asked):
    for fields, param in (({"messages": []}, "messages"), ({"extra_body": {"stream": "yes"}}, "stream")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**{**asked(), **fields})
        assert caught.value.param == param


def test_a_large_request_is_refused_with_its_status(start, connect, upstream, asked):
    client = connect(start(upstream, max_request_bytes=1000))
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**asked(user="x" * 2000))
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


def test_a_model_that_fails_is_a_server_error(start, connect, upstream, asked):
    upstream.script["skeleton"] = [ConnectionError("gone")]
    client = connect(start(upstream, model={"router": "always", "settings": Settings(max_retries=0)}))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**asked())
    assert (caught.value.status_code, caught.value.type) == (502, "upstream_error")


def test_an_error_in_the_middle_of_a_stream_is_an_api_error(start, connect, upstream, asked):
    upstream.script["Sleep"] = [ConnectionError("gone")]
    settings = Settings(max_retries=0, on_point_error="raise")
    client = connect(start(upstream, model={"router": "always", "settings": settings}))
    chunks = []
    with pytest.raises(openai.APIError, match="Point 2 failed") as caught:
        chunks.extend(client.chat.completions.create(**asked(stream=True)))
    assert (type(caught.value), caught.value.type) == (openai.APIError, "upstream_error")


async def test_an_error_in_the_middle_of_a_stream_keeps_the_text_before_it(tasks, server, upstream, asked):
    gate = asyncio.Event()
    upstream.script["skeleton"] = Attempts(["1. Diet\n", gate, ValueError("odd")])
    chunks = []

    async def read():
        async for chunk in await tasks.chat.completions.create(**asked(stream=True)):
            chunks.append(chunk)
            server.do(gate.set)

    with pytest.raises(openai.APIError, match="odd"):
        await read()
    assert chunks[0].choices[0].delta.role == "assistant"


def test_a_point_that_fails_leaves_a_placeholder(start, connect, upstream, asked):
    upstream.script["Sleep"] = [ConnectionError("gone")]
    client = connect(
        start(upstream, model={"router": "always", "settings": Settings(max_retries=0, on_point_error="placeholder")})
    )
    told = [client.chat.completions.create(**asked()).choices[0].message.content]
    told.append(text_of(client.chat.completions.create(**asked(stream=True))))
    assert told[0] == told[1]
    assert "2. Sleep" in told[0]
    assert told[0].endswith("3. Exercise: All about Exercise.")


def test_an_answer_that_takes_too_long_is_not_asked_for_again(start, connect, upstream, asked):
    upstream.script["skeleton"] = [asyncio.Event()]
    server = start(upstream, model={"router": "always"}, timeout=0.5)
    with pytest.raises(openai.InternalServerError) as caught:
        connect(server, max_retries=2).chat.completions.create(**asked())
    assert caught.value.status_code == 504
    assert len(upstream.calls) == 1


def test_a_server_that_stops_is_a_server_error(client, server, asked):
    server.do(server.limit.close)
    server.until(lambda: server.limit.closing, "it stops")
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**asked(stream=True))
    assert (caught.value.status_code, caught.value.code) == (503, "server_stopping")


def test_a_wrong_base_url_says_how_it_should_end(server, connect, asked):
    with pytest.raises(openai.NotFoundError, match="ends with /v1"):
        connect(server, base_url=server.url).chat.completions.create(**asked())
