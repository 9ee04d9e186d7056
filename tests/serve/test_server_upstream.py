"""Models on OpenAI-compatible servers: what reaches a real server over HTTP, and what comes back of it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from dataclasses import dataclass, field

import pytest

pytest.importorskip("openai")
pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from skeleton_of_thought.drive import arun
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.events import AnswerDelta, AnswerDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.rate_limits import read_rate_limit
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import ChatRequest, conversation_of, read_request
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstreams import open_upstream
from skeleton_of_thought.types import Call, Conversation, Message, Prompt, Reply, Usage

KEY = "sk-of-the-server"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
ODD = b'{ "id" : "x",\n\t"n": 1.10, "text": "\xc3\xa9\\u00e9", "choices": [ ] }\n\n'
PARTS = [b'data: {"a": "\xc3', b'\xa9"}\n\n', b": a comment\n\ndata: 2\n\n", b"data: [DONE]\n\n"]
SKELETON = "1. Light\n2. Air\n3. Eyes\n"


@dataclass
class Served:
    """A server of chat completions: what it got, and what it does."""

    url: str = ""
    bodies: list = field(default_factory=list)
    raw: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    owner: str | None = None
    reply: object = None
    request: object = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    open: int = 0
    gone: int = 0

    async def chat(self, request):
        self.raw.append(await request.body())
        self.bodies.append(json.loads(self.raw[-1]))
        self.headers.append(dict(request.headers))
        self.request = request
        return await self.reply(self.bodies[-1])

    async def models(self, request):
        if self.owner is None:
            return JSONResponse({"error": {"message": "no list"}}, 404)
        return JSONResponse({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": self.owner}]})

    @contextlib.asynccontextmanager
    async def answering(self):
        """Counts an answer, and whether its client left."""
        self.open += 1
        try:
            yield
        except BaseException:
            self.gone += 1
            raise
        finally:
            self.open -= 1

    async def gated(self, body):
        """The parts, of which all but the first wait for the gate."""

        async def parts():
            async with self.answering():
                yield PARTS[0]
                await self.gate.wait()
                for part in PARTS[1:]:
                    yield part

        return StreamingResponse(parts(), media_type="text/event-stream")

    async def silent(self, body):
        self.open += 1
        while not await self.request.is_disconnected():
            await asyncio.sleep(0.001)
        self.open, self.gone = self.open - 1, self.gone + 1
        return Response(ODD)

    async def writes(self, body):
        """A chat completion: the headings, or a text."""
        text = SKELETON if "Write only the headings" in body["messages"][-1]["content"] else "It scatters."
        if body["messages"][-1]["role"] == "assistant":
            text = SKELETON.removeprefix("1.")
        chunks = [
            {"choices": [{"index": 0, "delta": {"content": word}}]} for word in text.replace(" ", " |").split("|")
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})

        async def events():
            async with self.answering():
                for chunk in chunks:
                    yield f"data: {json.dumps({'object': 'chat.completion.chunk', **chunk})}\n\n"
                yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def gives(content=ODD, status=200, **headers):
    async def reply(body):
        return Response(content, status, {name.replace("_", "-"): value for name, value in headers.items()})

    return reply


class Uvicorn(uvicorn.Server):
    """A server within a test, which keeps the test's signals."""

    def capture_signals(self):
        return contextlib.nullcontext()


@pytest.fixture
async def served(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    state = Served(reply=gives())
    routes = [Route("/v1/chat/completions", state.chat, methods=["POST"]), Route("/v1/models", state.models)]
    config = uvicorn.Config(Starlette(routes=routes), port=0, ws="none", lifespan="off", log_config=None)
    server = Uvicorn(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    yield state
    state.gate.set()
    server.should_exit = server.force_exit = True
    await task


@contextlib.asynccontextmanager
async def upstream_of(url, **settings):
    made = await open_upstream(ModelSettings("mine", f"openai:m@{url}", **{"key": KEY, "prefill": "no", **settings}))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def upstream(served):
    async with upstream_of(served.url) as made:
        yield made


def request(headers=(), **fields):
    return ChatRequest({"model": "mine", "messages": MESSAGES, **fields}, headers=dict(headers))


async def read(passed):
    async with contextlib.aclosing(passed.body) as body:
        return b"".join([chunk async for chunk in body])


def call(text="hi", prefill="", stage="point"):
    return Call(1, stage, Prompt((Message("user", text),), prefill))


async def text_of(stream):
    items = [item async for item in stream]
    return "".join(items[:-1]), items[-1]


# --- passing through ---


async def test_the_request_passes_with_the_model_of_the_server(served, upstream):
    fields = {"temperature": 0.30, "stream": False, "tools": [{"x": None}], "mine": {"own": [1, 2.5, "é", True, None]}}
    passed = await upstream.pass_through(request(**fields))
    assert await read(passed) == ODD
    assert served.bodies == [{"model": "m", "messages": MESSAGES, **fields}]
    assert list(served.bodies[0]) == ["model", "messages", *fields]


async def test_the_fields_of_this_server_do_not_pass(served, upstream):
    await read(await upstream.pass_through(request(sot={"router": "never"})))
    assert "sot" not in served.bodies[0]


async def test_half_a_character_passes(served, upstream):
    await read(await upstream.pass_through(request(stop="\ud83d")))
    assert b'"stop":"\\ud83d"' in served.raw[0]


async def test_of_the_callers_headers_only_the_listed_pass(served, upstream):
    own = {"authorization": "Bearer of-the-caller", "cookie": "a=b", "x-api-key": "k", "x-forwarded-for": "1.2.3.4"}
    joining = {"traceparent": "00-1-2-01", "tracestate": "a=b", "x-request-id": "r-1", "x-session-id": "s-1"}
    given = {**own, **joining, "host": "evil", "content-length": "3", "accept-encoding": "gzip"}
    content = json.dumps({"model": "mine", "messages": MESSAGES}).encode()
    await read(await upstream.pass_through(read_request(content, given)))
    got = served.headers[0]
    assert got["authorization"] == f"Bearer {KEY}"
    assert {name: got[name] for name in joining} == joining
    assert got["accept-encoding"] == "identity"
    assert got["host"] in served.url
    assert got["content-length"] == str(len(served.raw[0]))
    assert not {"cookie", "x-api-key", "x-forwarded-for"} & got.keys()
    assert "of-the-caller" not in str(got)


async def test_a_server_without_a_key_gets_none(served):
    async with upstream_of(served.url, key=None) as upstream:
        await read(await upstream.pass_through(request()))
    assert "authorization" not in served.headers[0]


async def test_the_key_of_the_environment_is_the_default(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    async with upstream_of(served.url, key=None) as upstream:
        await read(await upstream.pass_through(request()))
    assert served.headers[0]["authorization"] == "Bearer sk-environment"


async def test_a_stream_passes_byte_by_byte_as_it_comes(served, upstream):
    served.reply = served.gated
    passed = await upstream.pass_through(request(stream=True))
    assert passed.status == 200
    assert passed.headers["content-type"].startswith("text/event-stream")
    async with contextlib.aclosing(passed.body) as body:
        first = await anext(body)
        assert not served.gate.is_set()
        served.gate.set()
        rest = [chunk async for chunk in body]
    assert first == PARTS[0]
    assert first + b"".join(rest) == b"".join(PARTS)
    assert served.gone == 0


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_an_error_of_the_server_passes_with_its_status_and_body(served, upstream, status):
    said = b'{"error": {"message": "no luck today",  "type": "x"}}'
    served.reply = gives(
        said, status, retry_after="7", x_ratelimit_reset_requests="1s", openai_version="2020", x_request_id="r-1",
        content_type="application/json", set_cookie="a=b", server="theirs", x_own="1", retry_after_ms="7000",
    )  # fmt: skip
    passed = await upstream.pass_through(request(stream=True))
    assert (passed.status, await read(passed)) == (status, said)
    assert passed.headers == {
        "content-type": "application/json",
        "retry-after": "7",
        "retry-after-ms": "7000",
        "x-ratelimit-reset-requests": "1s",
        "openai-version": "2020",
        "x-request-id": "r-1",
    }
    assert len(served.bodies) == 1


async def test_what_the_server_compresses_all_the_same_passes_as_it_is(served, upstream):
    served.reply = gives(gzip.compress(ODD), content_encoding="gzip", content_type="application/json")
    passed = await upstream.pass_through(request())
    assert passed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(await read(passed)) == ODD


async def test_cookies_of_the_server_are_not_kept_for_other_callers(served, upstream):
    served.reply = gives(set_cookie="who=ann; Path=/")
    for _ in range(2):
        await read(await upstream.pass_through(request()))
    assert all("cookie" not in headers for headers in served.headers)


async def test_cookies_of_the_server_are_not_kept_for_other_answers(served, upstream):
    async def reply(body):
        response = await served.writes(body)
        response.headers["set-cookie"] = "who=ann; Path=/"
        return response

    served.reply = reply
    for _ in range(2):
        await text_of(upstream.open_call(call(), {}))
    assert len(served.headers) == 2
    assert all("cookie" not in headers for headers in served.headers)


@pytest.mark.parametrize("value", ["caf\u00e9", "\u65e5", "\u0663", "1\tday"])
async def test_a_header_that_could_not_be_sent_on_is_left_out(served, upstream, value):
    served.reply = gives(x_ratelimit_policy=value.encode().decode("latin-1"), retry_after="1")
    passed = await upstream.pass_through(request())
    assert await read(passed) == ODD
    assert passed.headers == {"retry-after": "1"}


@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_that_there_is_not_is_an_error(status):
    async with Breaking(status) as server, upstream_of(server.url) as made:
        with pytest.raises(ServeError, match=f"the status {status}") as failed:
            await made.pass_through(request())
        assert failed.value.status == 502


async def test_any_number_of_streams_is_open_at_a_time(served, upstream):
    served.reply = served.gated
    passed = await asyncio.gather(*(upstream.pass_through(request(stream=True)) for _ in range(120)))
    assert served.open == 120
    served.gate.set()
    assert {await read(each) for each in passed} == {b"".join(PARTS)}


# --- clients that leave ---


@pytest.mark.parametrize("begun", [False, True])
async def test_closing_the_body_hangs_up(served, upstream, eventually, begun):
    served.reply = served.gated
    passed = await upstream.pass_through(request(stream=True))
    if begun:
        await anext(passed.body)
    await passed.body.aclose()
    await eventually(lambda: served.gone == 1, "the server sees that the client left")
    assert served.open == 0


async def test_a_cancelled_reader_hangs_up(served, upstream, eventually):
    served.reply = served.gated
    passed = await upstream.pass_through(request(stream=True))
    task = asyncio.create_task(read(passed))
    await eventually(lambda: served.open == 1, "the stream is open")
    await asyncio.sleep(0.01)
    task.cancel()
    await eventually(lambda: served.gone == 1, "the server sees that the client left")
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_request_that_is_cancelled_before_its_response_hangs_up(upstream, served, eventually):
    served.reply = served.silent
    task = asyncio.create_task(upstream.pass_through(request()))
    await eventually(lambda: served.open == 1, "the server has the request")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: served.gone == 1, "the server sees that the client left")


# --- servers that fail ---


class Breaking:
    """A server that does with its n-th request what the n-th of its acts says, and closes the connection if asked."""

    def __init__(self, *acts):
        self.acts = list(acts)
        self.connections = self.requests = 0
        self.url = ""
        self.tasks = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        await asyncio.gather(*self.tasks)

    async def _serve(self, reader, writer):
        self.connections += 1
        self.tasks.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                act = self.acts[self.requests]
                self.requests += 1
                if act == "close":
                    break
                if isinstance(act, int):
                    writer.write(b"HTTP/1.1 %d Odd\r\nContent-Length: 0\r\n\r\n" % act)
                    await writer.drain()
                    break
                if act == "cut":
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata:"
                    )
                    await writer.drain()
                    await asyncio.sleep(0.02)  # else both are read at once
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if act == "ok" else b"no http\r\n\r\n")
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_connection_that_was_closed_while_idle_is_replaced():
    async with Breaking("ok", "close", "ok") as server, upstream_of(server.url) as upstream:
        assert await read(await upstream.pass_through(request())) == b"ok"
        assert await read(await upstream.pass_through(request())) == b"ok"
    assert (server.connections, server.requests) == (2, 3)


@pytest.mark.parametrize("act", ["close", "garbage"])
async def test_a_new_connection_that_breaks_is_an_error(act):
    async with Breaking(act, "ok") as server, upstream_of(server.url) as upstream:
        with pytest.raises(ServeError, match="cannot be reached, or broke off") as failed:
            await upstream.pass_through(request())
    assert (server.connections, server.requests) == (1, 1)
    assert (failed.value.status, failed.value.kind, failed.value.code) == (
        502,
        "upstream_error",
        "upstream_unreachable",
    )


async def test_a_body_that_breaks_is_an_error_after_its_beginning():
    async with Breaking("cut") as server, upstream_of(server.url) as upstream:
        passed = await upstream.pass_through(request(stream=True))
        assert await anext(passed.body) == b"data:"
        with pytest.raises(ServeError, match="broke off") as failed:
            await anext(passed.body)
        await passed.body.aclose()
    assert failed.value.status == 502


async def test_a_server_that_is_not_there_is_named_without_login_or_key(served):
    async with Breaking() as server:
        url = server.url
    secret = url.replace("http://", "http://me:hunter2@") + "?api_key=hidden"
    async with upstream_of(secret.partition("?")[0]) as upstream:
        with pytest.raises(ServeError) as failed:
            await upstream.pass_through(request())
    said = str(failed.value)
    assert failed.value.status == 502
    assert url.removeprefix("http://") in said
    assert "\n" not in said
    assert not [word for word in ("me:", "hunter2", KEY) if word in said]


@pytest.mark.parametrize(
    ("error", "status"), [(httpx.ConnectTimeout, 504), (httpx.ReadTimeout, 504), (httpx.ConnectError, 502)]
)
async def test_errors_of_the_connection_have_a_status(served, upstream, error, status):
    class Fails(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise error("luck", request=request)

    await upstream._http.aclose()
    upstream._http = httpx.AsyncClient(transport=Fails())
    with pytest.raises(ServeError) as failed:
        await upstream.pass_through(request())
    assert failed.value.status == status
    assert served.bodies == []


def test_only_connecting_has_a_limit_of_its_own():
    from skeleton_of_thought._cli.openai_backend import ChatCompletions
    from skeleton_of_thought.serve.upstreams.server import ServerUpstream

    timeout = ServerUpstream(ChatCompletions.of("m", "http://127.0.0.1:9/v1", "k"), "m")._http.timeout
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (10.0, None, None, None)


# --- calls of answers ---


async def test_a_call_streams_its_text_and_its_end(served, upstream):
    served.reply = served.writes
    text, end = await text_of(upstream.open_call(call(), {}))
    assert text == "It scatters."
    assert end == Reply(Usage(7, 3), "stop")
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_fields_of_the_caller_go_with_a_call_known_or_not(served):
    sampling = {"temperature": 0.5, "seed": 7, "top_k": 3, "timeout": 9, "extra_body": {"a": 1}, "user": "ann"}
    served.reply = served.writes
    async with upstream_of(served.url, max_tokens=40) as upstream:
        await text_of(upstream.open_call(call(), sampling))
        await text_of(upstream.open_call(call(), {}))
    own = {"model": "m", "stream": True, "max_tokens": 40, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": "hi"}]
    assert served.bodies == [{**own, "messages": messages, **sampling}, {**own, "messages": messages}]


async def test_headers_go_with_a_call(served, upstream):
    served.reply = served.writes
    async with contextlib.aclosing(upstream.open_call(call(), {}, {"x-session-id": "s-1"})) as stream:
        assert [item async for item in stream]
    assert served.headers[0]["x-session-id"] == "s-1"
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_messages_before_the_question_keep_their_fields_in_calls(served, upstream):
    served.reply = served.writes
    cached = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
    messages = [
        {"role": "developer", "name": "house", "content": "Be brief."},
        {"role": "system", "content": cached},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": [], "audio": None, "name": ""},
        {"role": "user", "name": "ann", "content": "How can I sleep better?"},
    ]
    body = {"model": "m", "messages": messages}
    flow = AnswerFlow(conversation_of(read_request(json.dumps(body).encode(), {})))
    events = [event async for _, event in arun([flow], lambda call, _: upstream.open_call(call, {}))]
    assert isinstance(events[-1], AnswerDone)
    assert len(served.bodies) > 2
    for sent in served.bodies:
        *before, question = sent["messages"]
        assert before == [
            {"role": "system", "name": "house", "content": "Be brief."},
            {"role": "system", "content": cached},
            {"role": "user", "name": "ann", "content": "Hello."},
            {"role": "assistant", "content": ""},
        ]
        assert question.keys() == {"role", "content"}


async def test_the_limit_of_the_caller_comes_before_the_models(served):
    served.reply = served.writes
    async with upstream_of(served.url, max_tokens=40) as upstream:
        await text_of(upstream.open_call(call(), {"max_tokens": 9}))
    assert served.bodies[0]["max_tokens"] == 9


async def test_a_rate_limit_says_when_to_come_back(served, upstream):
    served.reply = gives(b'{"error": {"message": "slow down"}}', 429, retry_after="7", x_should_retry="false")
    with pytest.raises(Exception, match="slow down") as failed:
        await text_of(upstream.open_call(call(), {}))
    assert read_rate_limit(failed.value, time.time()).seconds == 7


async def test_an_error_is_explained_without_the_key(served, upstream):
    said = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    served.reply = gives(said, 401)
    with pytest.raises(Exception, match="Incorrect") as failed:
        await text_of(upstream.open_call(call(), {}))
    line = upstream.explain(failed.value)
    assert "does not accept the key that `sot serve` has for it" in line
    assert KEY not in line
    assert "***" in line
    assert upstream.explain(ServeError("as it is")) == "as it is"


@pytest.mark.parametrize(
    ("owner", "prefill", "stages", "calls"),
    [
        ("vllm", "auto", {"skeleton", "point"}, 1),
        ("library", "auto", set(), 0),
        (None, "auto", set(), 0),
        (None, "yes", {"skeleton", "point"}, 0),
        ("vllm", "no", set(), 0),
    ],
)
async def test_prefills_are_found_out_as_for_the_command(served, owner, prefill, stages, calls):
    served.owner, served.reply = owner, served.writes
    async with upstream_of(served.url, prefill=prefill) as upstream:
        assert set(upstream.prefill) == stages
    assert len(served.bodies) == calls


async def test_closing_a_call_hangs_up(served, upstream, eventually):
    served.reply = served.gated
    stream = upstream.open_call(call(), {})
    reader = asyncio.create_task(text_of(stream))
    await eventually(lambda: served.open == 1, "the call is open")
    reader.cancel()
    await eventually(lambda: served.gone == 1, "the server sees that the client left")
    with pytest.raises(asyncio.CancelledError):
        await reader


async def test_a_call_that_is_cancelled_before_its_response_hangs_up(served, upstream, eventually):
    served.reply = served.silent
    reader = asyncio.create_task(text_of(upstream.open_call(call(), {})))
    await eventually(lambda: served.open == 1, "the server has the call")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await eventually(lambda: served.gone == 1, "the server sees that the client left")


async def test_an_answer_by_points(served, upstream):
    served.reply = served.writes
    flow = AnswerFlow(Conversation((Message("user", "Why is the sky blue?"),)), prefill=upstream.prefill)
    events = arun([flow], lambda call, index: upstream.open_call(call, {"temperature": 0.1}))
    seen = [event async for _, event in events]
    assert isinstance(seen[-1], AnswerDone)
    assert [point.title for point in seen[-1].answer.skeleton.points] == ["Light", "Air", "Eyes"]
    assert seen[-1].answer.text.count("It scatters.") == 3
    assert "".join(event.text for event in seen if isinstance(event, AnswerDelta)) == seen[-1].answer.text
    assert [body["temperature"] for body in served.bodies] == [0.1] * 4


# --- opening ---


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openai:m", "OPENAI_API_KEY is not set"),
        ("openai:m@http://", "must be like"),
        ("openai:", "names no model"),
        ("openai:m@http://me:hunter2@host:99999/v1", "cannot be used"),
    ],
)
async def test_a_server_that_cannot_be_used_is_refused(served, spec, message):
    with pytest.raises(InvalidInput, match=message) as failed:
        await open_upstream(ModelSettings("mine", spec))
    assert "hunter2" not in str(failed.value)
