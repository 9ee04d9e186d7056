"""Who may call the server, from where, and with how much."""

from __future__ import annotations

import asyncio
import gc
import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from skeleton_of_thought.serve import access, log
from skeleton_of_thought.serve.access import Sending, client_headers, middleware
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.metrics import Metrics
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings
from skeleton_of_thought.types import Usage

PATH = "/v1/chat/completions"
LOCAL = "http://127.0.0.1:8000"
SECRET = "sk-of-the-caller"


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"size": len(await request.body())})


async def stream(request: Request) -> StreamingResponse:
    async def events():
        yield b"data: {}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def answered(request: Request) -> PlainTextResponse:
    Metrics().answered("a-sot", "skeleton", Usage(3, 4), 0.5, 1.0, 200)
    log.note_texts("What is\nup?", "Not much.")
    return PlainTextResponse("done")


async def fine(request: Request) -> PlainTextResponse:
    return PlainTextResponse("fine")


def app(**settings) -> Starlette:
    routes = [Route(path, fine) for path in ("/", "/health", "/metrics", "/v1/models", "/page/app.js")]
    routes += [Route(PATH, echo, methods=["POST"]), Route("/answered", answered, methods=["POST"])]
    routes.append(Route("/stream", stream))
    return Starlette(routes=routes, middleware=middleware(ServeSettings((ModelSettings("a"),), **settings)))


async def ask(method: str = "POST", path: str = PATH, *, base: str = LOCAL, headers=None, content=None, **settings):
    if content is None and method == "POST":
        content = b"{}"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app(**settings)), base_url=base) as client:
        return await client.request(method, path, headers=headers, content=content)


async def exchange(path: str, incoming=(), *, method: str = "GET", headers=(), **settings) -> list[dict]:
    """The messages of a response, without an HTTP server."""
    messages, sent = list(incoming), []

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": list(headers), "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"}}
    await asyncio.wait_for(app(**settings)(scope, receive, send), 10)
    return sent


def is_error(response: httpx.Response, status: int, code: str) -> bool:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return (response.status_code, error["code"]) == (status, code)


# --- keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["one", "two", "schlüssel"])
async def test_any_of_the_keys_is_enough(key):
    headers = [(b"authorization", b"Bearer " + key.encode())]
    assert (await ask(headers=headers, keys=("one", "two", "schlüssel"))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"one")],
        [(b"authorization", b"Basic one")],
        [(b"authorization", b"Bearer on")],
        [(b"authorization", b"Bearer one2")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer one"), (b"authorization", b"Bearer wrong")],
        [(b"api-key", b"one")],
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/models", "/metrics", "/nowhere"])
async def test_without_a_key_that_it_knows_the_server_answers_401(headers, path):
    response = await ask("POST" if path == PATH else "GET", path, headers=headers, keys=("one",))
    assert is_error(response, 401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"
    assert "one" not in response.text.replace("one that", "")


async def test_the_scheme_may_have_any_case():
    assert (await ask(headers={"Authorization": "bEARER one"}, keys=("one",))).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/page/app.js"])
async def test_the_page_and_the_state_need_no_key(path):
    assert (await ask("GET", path, keys=("one",))).text == "fine"


@pytest.mark.parametrize("path", ["/page/../v1/models", "/health/../metrics", "//v1/models", "/page"])
async def test_no_way_of_writing_a_path_leads_around_the_key(path):
    sent = await exchange(path, keys=("one",))
    assert sent[0]["status"] in (401, 404)


# --- hosts and origins ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8000", "127.0.0.2", "localhost:1234", "LOCALHOST", "localhost.", "[::1]:8000", "app.localhost"),
        "host.docker.internal:8000",
    ],
)
async def test_names_of_this_machine_are_answered(host):
    assert (await ask(headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[2001:db8::1]", "x" * 9999],
)
async def test_other_names_are_refused_without_a_key(host):
    response = await ask(headers={"Host": host})
    assert is_error(response, 403, "host_not_allowed")
    assert "SOT_API_KEY" in response.text
    assert len(response.text) < 1000


async def test_other_names_are_answered_with_a_key_or_for_all():
    headers = {"Host": "chat.example.org", "Authorization": "Bearer one"}
    assert (await ask(headers=headers, keys=("one",))).status_code == 200
    assert (await ask(headers=headers, open_to_all=True)).status_code == 200
    assert (await ask(headers=headers, host="0.0.0.0", open_to_all=True)).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "http://[", "file://"])
async def test_a_page_of_another_origin_cannot_have_the_browser_ask(origin):
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    assert is_error(await ask(headers=headers), 403, "origin_not_allowed")
    # It has no key, and cannot read what it gets.
    response = await ask(headers={**headers, "Authorization": "Bearer one"}, keys=("one",))
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


async def test_the_servers_own_page_may_ask():
    assert (await ask(headers={"Origin": LOCAL})).status_code == 200


async def test_named_origins_may_ask_and_read_and_no_others():
    named = "https://chat.example.org"
    response = await ask(headers={"Origin": named}, origins=(named,))
    assert response.headers["access-control-allow-origin"] == named
    assert "x-request-id" in response.headers["access-control-expose-headers"]
    other = await ask("GET", "/v1/models", headers={"Origin": "https://evil.example"}, origins=(named,))
    assert "access-control-allow-origin" not in other.headers


async def test_a_preflight_needs_no_key_but_its_answer_does():
    named = "https://chat.example.org"
    asked = {
        "Origin": named,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    allowed = await ask("OPTIONS", headers=asked, origins=(named,), keys=("one",))
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-headers"] == "authorization,content-type,x-stainless-os"
    refused = await ask(headers={"Origin": named}, origins=(named,), keys=("one",))
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == named  # so that the page can show why


async def test_without_origins_a_preflight_gets_no_permission():
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = await ask("OPTIONS", headers=asked)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


# --- sizes and time ---------------------------------------------------------------------------------


async def test_a_request_of_the_largest_size_is_read_and_a_larger_one_is_not():
    assert (await ask(content=b"x" * 100, max_request_bytes=100)).json() == {"size": 100}
    assert is_error(await ask(content=b"x" * 101, max_request_bytes=100), 413, "request_too_large")


def chunks(*sizes: int) -> list[dict]:
    parts = [{"type": "http.request", "body": b"x" * size, "more_body": True} for size in sizes]
    return [*parts, {"type": "http.request", "body": b"", "more_body": False}]


@pytest.mark.parametrize(
    ("sizes", "status"), [((50, 50), 200), ((50, 51), 413), ((1,) * 101, 413), ((10**6,) * 9, 413)]
)
async def test_the_bound_holds_for_requests_that_do_not_tell_their_size(sizes, status):
    sent = await exchange(PATH, chunks(*sizes), method="POST", max_request_bytes=100)
    assert sent[0]["status"] == status


async def test_a_request_without_an_end_is_refused_once_it_is_far_too_large():
    sent = await exchange(PATH, chunks(*(100,) * 9)[:-1], method="POST", max_request_bytes=100)
    assert sent[0]["status"] == 413


@pytest.mark.parametrize("length", [b"99999999999", b"-1", b"many", b"\xb2"])
async def test_a_size_that_is_told_cannot_be_trusted(length):
    headers = [(b"content-length", length)]
    sent = await exchange(PATH, chunks(101), method="POST", headers=headers, max_request_bytes=100)
    assert sent[0]["status"] == 413


async def test_the_key_comes_before_the_body():
    sent = await exchange(PATH, [], method="POST", keys=("one",))  # the body never comes
    assert sent[0]["status"] == 401


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_told_to_the_application():
    seen = []

    async def application(scope, receive, send):
        seen.append(await receive())

    wrapped = application
    for each in reversed(middleware(ServeSettings((ModelSettings("a"),)))):
        wrapped = each.cls(wrapped, *each.args, **each.kwargs)
    incoming = [chunks(5)[0], {"type": "http.disconnect"}]

    async def receive() -> dict:
        return incoming.pop(0)

    async def send(message: dict) -> None:
        raise AssertionError

    await wrapped({"type": "http", "method": "POST", "path": PATH, "headers": []}, receive, send)
    assert seen == [{"type": "http.disconnect"}]


async def test_a_body_that_never_ends_gets_408():
    sent = await exchange(PATH, chunks(5)[:1], method="POST", timeout=0.05)
    assert sent[0]["status"] == 408
    assert json.loads(sent[1]["body"])["error"]["code"] == "timeout"


async def test_a_body_of_which_nothing_more_comes_gets_408_before_the_limit_of_the_whole(monkeypatch):
    monkeypatch.setattr(access, "_SILENCE", 0.05)
    sent = await exchange(PATH, chunks(5)[:1], method="POST")
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def sending() -> tuple[Sending, list[dict]]:
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    return Sending(send), sent


def begun(media_type: bytes) -> list[dict]:
    return [
        {"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", media_type)]},
        {"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True},
    ]


async def test_a_stream_that_is_ended_gets_an_error_and_no_done():
    response, sent = sending()
    for message in begun(b"text/event-stream; charset=utf-8"):
        await response(message)
    await response.fail(ServeError("It was ended.", 503))
    await response.fail(ServeError("Again.", 503))
    (last,) = sent[2:]
    assert json.loads(last["body"].removeprefix(b"data: "))["error"]["message"] == "It was ended."
    assert not last.get("more_body", False)


async def test_another_response_that_is_ended_stays_incomplete():
    response, sent = sending()
    for message in begun(b"application/json"):
        await response(message)
    await response.fail(ServeError("It was ended.", 503))
    assert sent == begun(b"application/json")


async def test_a_response_that_has_not_begun_gets_the_status_and_when_to_come_back():
    response, sent = sending()
    await response.fail(ServeError("Later.", 429, retry_after=7))
    assert sent[0]["status"] == 429
    assert (b"retry-after", b"7") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["message"] == "Later."


# --- headers and log --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1/models", "/nowhere"])
async def test_all_responses_have_headers_that_protect_them(path):
    headers = (await ask("GET", path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"


async def test_proxies_are_told_not_to_hold_a_stream_back():
    sent = await exchange("/stream")
    assert (b"x-accel-buffering", b"no") in sent[0]["headers"]


def test_only_listed_headers_reach_the_models_server():
    given = {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": "a=b",
        "X-OpenWebUI-User-Email": "a@example.org",
        "Host": "h",
        "Traceparent": "00-1-2-01",
        "X-Session-Id": "s1",
        "X-Request-Id": "bad\r\nInjected: 1",
        "tracestate": "x" * 5000,
    }
    assert client_headers(given) == {"traceparent": "00-1-2-01", "x-session-id": "s1"}


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger=log.logger.name)
    return lambda: [record.getMessage() for record in caplog.records if record.name == log.logger.name]


async def test_the_log_has_a_line_for_each_request_without_keys_and_texts(lines):
    headers = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": "abc-1"}
    response = await ask(path=f"/answered?key={SECRET}", headers=headers, content=b"A question", keys=(SECRET,))
    assert response.headers["x-request-id"] == "abc-1"
    (line,) = lines()
    assert line.startswith("POST /answered 200 ")
    assert line.endswith("id=abc-1 model='a-sot' route=skeleton first=0.500s in=3 out=4")
    assert SECRET not in line
    assert "question" not in line


async def test_the_log_has_texts_in_the_same_line_if_they_are_asked_for(lines):
    await ask(path="/answered", log_texts=True)
    (line,) = lines()
    assert line.endswith("question='What is\\nup?' answer='Not much.'")


@pytest.mark.parametrize("given", ["a b", "x" * 200, "a;b", ""])
async def test_an_id_that_could_break_a_line_is_replaced(lines, given):
    response = await ask("GET", "/health", headers={"X-Request-Id": given})
    assert response.headers["x-request-id"].startswith("req-")
    assert len(lines()[0].split()) == 5


async def test_a_path_cannot_break_a_line(lines):
    await exchange("/a\nGET /forged 200\n" + "x" * 5000)
    (line,) = lines()
    assert "\n" not in line
    assert len(line) < 400


async def test_a_refused_request_is_logged_too(lines):
    await ask(keys=("one",))
    assert " 401 " in lines()[0]


@pytest.fixture
def to_stderr(monkeypatch):
    monkeypatch.delenv("SOT_TRACEBACK", raising=False)
    names = (log.logger.name, "skeleton_of_thought", "uvicorn", "asyncio")
    handlers = {name: logging.getLogger(name).handlers[:] for name in names}
    try:
        yield log.log_to_stderr
    finally:
        for name, before in handlers.items():
            logging.getLogger(name).handlers[:] = before
            logging.getLogger(name).propagate = True
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.parametrize("name", ["uvicorn.error", "asyncio", "skeleton_of_thought.drive"])
def test_tracebacks_in_the_log_have_no_messages(capsys, to_stderr, name):
    to_stderr()
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # another test may have run a quiet server
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger(name).exception("It failed")
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert "ValueError" in shown
    assert "test_access.py" in shown


async def test_an_error_that_nobody_handles_is_logged_without_its_text(capsys, to_stderr):
    to_stderr()

    async def fail():
        raise ValueError(SECRET)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log.log_loop_error)
    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    del task
    gc.collect()
    shown = capsys.readouterr().err
    assert SECRET not in shown
    assert "ValueError" in shown
    assert "never retrieved" in shown
