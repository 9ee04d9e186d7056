"""The endpoint over HTTP: what passes through, clients that go away, many at once, errors, the list of models."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import httpx
import pytest
from scripted_upstream import ScriptedUpstream
from serving import events_of, serving, text_of

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.serve.answers import ServedModel
from skeleton_of_thought.serve.app import create_app
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.limits import CallLimit
from skeleton_of_thought.serve.requests import ChatRequest, SotOptions
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings
from skeleton_of_thought.settings import Settings

SUITED = "What are the pros and cons of living on a boat?"
UNSUITED = "What is 17 * 4?"


def raw(content: bytes, path: str = "/v1/chat/completions") -> bytes:
    """A request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


async def connected(client):
    return await asyncio.open_connection("127.0.0.1", client.base_url.port)


# --- routes -----------------------------------------------------------------------------------------


async def test_the_plain_name_passes_through_byte_for_byte(serve, upstream, body):
    pieces = [b'data: {"odd":  1}\n\n', b": a comment\n\n", b"data: [DONE]\r\n\r\n"]
    upstream.script["passed"] = pieces
    client = await serve(upstream)
    request = body("m", SUITED, stream=True, temperature=0.1, made_up=[1])
    response = await client.post("/v1/chat/completions", json=request, headers={"authorization": "Bearer x"})
    assert response.content.startswith(b"".join(pieces))
    assert (response.headers["x-sot-route"], response.headers["x-upstream"]) == ("passed", "scripted")
    (passed,) = upstream.passed
    assert passed.body == {name: value for name, value in request.items() if name != "sot"}
    assert "authorization" not in passed.headers
    assert not upstream.calls


@pytest.mark.parametrize(("model", "fields"), [("m", {}), ("m-sot", {"max_tokens": 20}), ("m-sot", {"n": 2})])
async def test_events_are_not_told_of_what_passes_through(serve, upstream, body, model, fields):
    client = await serve(upstream)
    request = body(model, SUITED, stream=True, sot={"events": True, "show_skeleton": True}, **fields)
    response = await client.post("/v1/chat/completions", json=request)
    assert response.headers["x-sot-route"] == "passed"
    assert response.headers["x-sot-reason"]
    assert "sot" not in upstream.passed[0].body
    events = events_of(response.text)
    assert text_of(events) == "A passed answer."
    assert not any("sot" in event for event in events if isinstance(event, dict))


async def test_no_header_of_the_caller_but_the_listed_gets_past_the_reading(serve, upstream, body):
    client = await serve(upstream)
    own = {"authorization": "Bearer x", "cookie": "a=b", "x-openwebui-user-email": "a@example.org"}
    joining = {"traceparent": "00-1-2-01", "tracestate": "a=b", "x-request-id": "r-1", "x-session-id": "s-1"}
    for model in ("m", "m-sot"):
        await client.post("/v1/chat/completions", json=body(model), headers=own | joining)
    (passed,) = upstream.passed
    assert [passed.headers, *upstream.call_headers] == [joining] * 5


@pytest.mark.parametrize("stream", [False, True])
async def test_the_router_decides_where_the_request_says_nothing(serve, upstream, stream):
    client = await serve(upstream)

    async def ask(question):
        request = {"model": "m-sot", "messages": [{"role": "user", "content": question}], "stream": stream}
        return await client.post("/v1/chat/completions", json=request)

    suited = await ask(SUITED)
    assert suited.headers["x-sot-route"] == "skeleton"
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point"]
    unsuited = await ask(UNSUITED)
    assert unsuited.headers["x-sot-route"] == "direct"
    assert "arithmetic" in unsuited.headers["x-sot-reason"]
    assert "A passed " in unsuited.text
    assert len(upstream.passed) == 1


@pytest.mark.parametrize("setting", ["always", "never"])
async def test_the_request_overrules_the_setting_of_the_model(serve, upstream, setting):
    client = await serve(upstream, model={"router": setting})

    async def route(**sot):
        request = {"model": "m-sot", "messages": [{"role": "user", "content": SUITED}], "sot": sot}
        return (await client.post("/v1/chat/completions", json=request)).headers["x-sot-route"]

    assert await route() == {"always": "skeleton", "never": "direct"}[setting]
    assert await route(router=setting == "never") == {"always": "direct", "never": "skeleton"}[setting]
    assert await route(router="auto") == "skeleton"


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {}),
        ({"max_tokens": 20}, {}),
        ({"response_format": {"type": "json_object"}}, {}),
        ({}, {"x-openwebui-task": "tags_generation"}),
    ],
)
async def test_requests_that_points_do_not_suit_pass_through_untouched(serve, upstream, body, fields, headers):
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body(**fields), headers=headers)
    assert response.headers["x-sot-route"] == "passed"
    assert response.headers["x-sot-reason"]
    (passed,) = upstream.passed
    assert {name: passed.body[name] for name in fields} == fields
    assert not upstream.calls


SIDE_TASKS = [
    "Give this chat a title of at most five words. Reply with the title only.",
    "Name this conversation.",
    "Generate a title for this conversation.",
    "Tag this conversation with up to five topics.",
    "### Task:\nList three tags for the conversation as JSON.",
    "Suggest three follow-up questions that the user might ask next.",
    "Please propose some short follow-ups, one on each line.",
    "Generate three web search queries for the last question.",
    "Write four suggested replies that the user could tap.",
    "Complete the user's sentence with at most ten words. Output the continuation only.",
]


def uses_skeleton(*messages, of_model="auto", **sot):
    """Whether messages of a user and an assistant in turns get an answer by points."""
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, messages, strict=False)]
    model = ServedModel(ModelSettings("m", router=of_model), ScriptedUpstream(), 32)
    request = ChatRequest({"model": "m-sot", "messages": turns}, SotOptions(**sot))
    return model.decide(request, model.conversation(request)).use_skeleton


@pytest.mark.parametrize("task", SIDE_TASKS)
def test_a_client_s_own_tasks_go_direct_without_a_header_too(task):
    answer = "It is cheap, but damp."
    assert not uses_skeleton(SUITED, answer, task)
    assert not uses_skeleton(f"{task}\n\nUser: {SUITED}\nAssistant: {answer}")
    assert uses_skeleton(SUITED, answer, task, router="always")


def test_such_tasks_go_direct_where_the_server_takes_all_questions_for_points():
    assert uses_skeleton("What is two plus two?", of_model="always")
    assert not uses_skeleton(SUITED, "It is cheap.", "Suggest three follow-up questions.", of_model="always")


@pytest.mark.parametrize(
    "question",
    [
        "What are good ways to choose a title for a novel?",
        "What are the advantages and disadvantages of tags in a blog?",
        "How can I write better follow-up questions after a job interview?",
        "What should I keep in mind when I name a company?",
    ],
)
def test_questions_about_such_tasks_are_answered_by_points(question):
    assert uses_skeleton(question)


async def test_a_response_that_passes_and_breaks_off_says_so(serve, upstream, body):
    upstream.script["passed"] = ["Half ", ConnectionError("gone")]
    client = await serve(upstream)
    streamed = await client.post("/v1/chat/completions", json=body("m", stream=True))
    *chunks, last = events_of(streamed.text)
    assert text_of(chunks) == "Half "
    assert last["error"]["type"] == "upstream_error"
    upstream.script["passed"] = [b'{"half', ConnectionError("gone")]
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/v1/chat/completions", json=body("m"))
    upstream.script["passed"] = [ServeError("The model's server cannot be reached.", 502, "upstream_error")]
    response = await client.post("/v1/chat/completions", json=body("m", stream=True))
    assert (response.status_code, response.json()["error"]["type"]) == (502, "upstream_error")
    assert upstream.open_calls == 0


async def test_a_time_of_the_model_itself_is_not_told_as_the_server_s(serve, upstream, body):
    upstream.script["passed"] = [TimeoutError("too slow")]
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body("m"))
    assert (response.status_code, response.json()["error"]["type"]) == (504, "upstream_error")
    assert "The scripted model failed" in response.json()["error"]["message"]


async def test_what_passes_has_the_same_limit_of_time(serve, upstream, body):
    upstream.script["passed"] = ["Half ", asyncio.Event()]
    client = await serve(upstream, timeout=0.2)
    assert (await client.post("/v1/chat/completions", json=body("m"))).status_code == 504
    streamed = await client.post("/v1/chat/completions", json=body("m", stream=True))
    assert events_of(streamed.text)[-1]["error"]["code"] == "timeout"
    assert upstream.open_calls == 0


# --- clients that go away ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream", "waiting"),
    [
        ("m-sot", True, {"Diet", "Sleep"}),
        ("m-sot", False, {"Diet", "Sleep"}),
        ("m-sot", True, {"skeleton"}),
        ("m-sot", False, {"merge"}),
        ("m-sot", True, {"merge"}),
        ("m", True, {"passed"}),
        ("m", False, {"passed"}),
    ],
)
async def test_a_client_that_goes_away_ends_all_its_calls(serve, upstream, body, until, model, stream, waiting):
    for key in waiting:
        upstream.script[key] = ["1. ", asyncio.Event()]
    client = await serve(upstream)
    reader, writer = await connected(client)
    sot = {"router": True, "merge": "merge" in waiting}
    writer.write(raw(json.dumps(body(model, stream=stream, sot=sot)).encode()))
    await until(lambda: waiting <= set(upstream.open), "the calls are open")
    if stream:
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await until(lambda: not upstream.open, "all calls have ended")
    assert (await client.get("/health")).json()["open_calls"] == 0
    # The places are free again.
    upstream.script = ScriptedUpstream().script
    assert (await client.post("/v1/chat/completions", json=body(stream=stream))).status_code == 200


async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(serve, upstream, body, until):
    gate = asyncio.Event()
    upstream.script["passed"] = [gate, "Done."]
    client = await serve(upstream, max_open_calls=1)
    first = asyncio.create_task(client.post("/v1/chat/completions", json=body("m")))
    await until(lambda: upstream.open_calls == 1, "the first request has the only call")
    writers = []
    for model in ("m", "m-sot"):
        _, writer = await connected(client)
        writer.write(raw(json.dumps(body(model, stream=True)).encode()))
        writers.append(writer)

    async def waiting():
        return (await client.get("/health")).json()["waiting"]

    while await waiting() < 2:
        await asyncio.sleep(0.005)
    for writer in writers:
        writer.close()
    while await waiting() > 0:
        await asyncio.sleep(0.005)
    gate.set()
    assert (await first).status_code == 200
    assert len(upstream.passed) == 1
    assert not upstream.calls


async def test_a_client_that_stops_reading_keeps_no_call_open(serve, upstream, body, until):
    upstream.script["Diet"] = ["x" * 50_000 + " "] * 3
    upstream.script["Sleep"] = ["y" * 50_000 + " "] * 3
    client = await serve(upstream)
    _, writer = await connected(client)
    writer.write(raw(json.dumps(body(stream=True)).encode()))
    await until(lambda: len(upstream.calls) == 4 and not upstream.open, "all calls have ended")
    while (await client.get("/health")).json()["open_calls"]:
        await asyncio.sleep(0.005)
    writer.close()


async def test_half_a_request_does_no_harm(serve, upstream, body):
    client = await serve(upstream)
    _, writer = await connected(client)
    writer.write(raw(json.dumps(body()).encode())[:-10])
    await writer.drain()
    writer.close()
    assert (await client.post("/v1/chat/completions", json=body())).status_code == 200
    assert len(upstream.calls) == 4


# --- many at once -----------------------------------------------------------------------------------


async def test_many_clients_share_the_bound_on_open_calls(serve, upstream, body):
    client = await serve(upstream, max_open_calls=5, max_waiting=100)

    async def ask(i):
        response = await client.post(
            "/v1/chat/completions", json=body("m" if i % 3 == 0 else "m-sot", stream=i % 2 == 0), timeout=60
        )
        text = text_of(events_of(response.text)) if i % 2 == 0 else response.json()["choices"][0]["message"]["content"]
        return response.status_code, text

    points = "1. Diet: All about Diet.\n\n2. Sleep: All about Sleep.\n\n3. Exercise: All about Exercise."
    told = await asyncio.gather(*map(ask, range(24)))
    assert told == [(200, "A passed answer." if i % 3 == 0 else points) for i in range(24)]
    assert upstream.most <= 5
    assert upstream.open_calls == 0


async def test_past_the_queue_requests_are_refused_before_their_stream_begins(serve, upstream, body, until):
    gate = asyncio.Event()
    upstream.script["passed"] = [gate, "Done."]
    client = await serve(upstream, max_open_calls=1, max_waiting=0)
    first = asyncio.create_task(client.post("/v1/chat/completions", json=body("m")))
    await until(lambda: upstream.open_calls == 1, "the first request has the only call")
    for model, stream in (("m", False), ("m-sot", True), ("m-sot", False)):
        response = await client.post("/v1/chat/completions", json=body(model, stream=stream))
        assert response.status_code == 429
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert int(response.headers["retry-after"]) > 0
    gate.set()
    assert (await first).status_code == 200


async def test_a_stream_that_waits_for_room_is_kept_alive(serve, upstream, body, until):
    gate = asyncio.Event()
    upstream.script["passed"] = [gate, "Done."]
    client = await serve(upstream, max_open_calls=1, keep_alive=0.01)
    first = asyncio.create_task(client.post("/v1/chat/completions", json=body("m")))
    await until(lambda: upstream.open_calls == 1, "the first request has the only call")
    text = ""
    async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        assert response.headers["x-sot-route"] == "skeleton"
        async for part in response.aiter_text():
            text += part
            if text.count(": keep-alive") > 2:
                gate.set()
    events = [event for event in events_of(text) if event != ":keep-alive"]
    assert [event["choices"][0]["delta"].get("role") for event in events[:-1]].count("assistant") == 1
    assert text_of(events).endswith("3. Exercise: All about Exercise.")
    assert (await first).status_code == 200


def written_here(upstream, monkeypatch):
    """Has the scripted model's streams count as those that the server writes itself."""
    pass_through = upstream.pass_through

    async def own(request):
        return dataclasses.replace(await pass_through(request), own_events=True)

    monkeypatch.setattr(upstream, "pass_through", own)


async def test_a_stream_of_the_server_s_own_is_kept_alive_before_its_first_text(serve, upstream, body, monkeypatch):
    gate = asyncio.Event()
    upstream.script["passed"] = ["", gate, "Done."]
    written_here(upstream, monkeypatch)
    client = await serve(upstream, keep_alive=0.01)
    text = ""
    async with client.stream("POST", "/v1/chat/completions", json=body("m", stream=True)) as response:
        async for part in response.aiter_text():
            text += part
            # On a busy machine comments come before the first chunk, too.
            if text.partition('"role"')[2].count(": keep-alive\n\n") >= 3:
                gate.set()
    events = events_of(text)
    first, second, *_ = [at for at, event in enumerate(events) if event != ":keep-alive"]
    assert second - first > 3
    assert text_of(events) == "Done."
    assert events[-1] == "[DONE]"
    assert upstream.open_calls == 0


async def test_the_bytes_of_another_server_get_no_comments(serve, upstream, body):
    pieces = [b'data: {"odd":', 0.1, b"1}\n\n", 0.1, b"data: [DONE]\n\n"]
    upstream.script["passed"] = pieces
    client = await serve(upstream, keep_alive=0.01)
    response = await client.post("/v1/chat/completions", json=body("m", stream=True))
    assert response.content.startswith(b'data: {"odd":1}\n\ndata: [DONE]\n\n')
    assert b"keep-alive" not in response.content


async def test_a_stream_of_the_server_s_own_that_is_kept_alive_can_fail(serve, upstream, body, monkeypatch):
    upstream.script["passed"] = ["Some ", 0.05, ConnectionError("gone")]
    written_here(upstream, monkeypatch)
    client = await serve(upstream, keep_alive=0.01)
    response = await client.post("/v1/chat/completions", json=body("m", stream=True))
    assert ": keep-alive\n\n" in response.text
    (error,) = [event for event in events_of(response.text) if "error" in event]
    assert "gone" in error["error"]["message"]
    assert "[DONE]" not in response.text
    assert 'sot_answers_total{model="m",route="passed",status="502"} 1' in (await client.get("/metrics")).text


async def test_a_client_that_goes_away_ends_a_stream_that_is_kept_alive(serve, upstream, body, until, monkeypatch):
    upstream.script["passed"] = ["Some ", asyncio.Event(), "more."]
    written_here(upstream, monkeypatch)
    client = await serve(upstream, keep_alive=0.01)
    async with client.stream("POST", "/v1/chat/completions", json=body("m", stream=True)) as response:
        async for part in response.aiter_text():
            if "keep-alive" in part:
                break
    await until(lambda: upstream.open_calls == 0, "the call has ended")


async def test_a_server_that_stops_ends_its_answers_and_takes_no_new_ones(upstream, body, until):
    gate, limit = asyncio.Event(), CallLimit(8, 8)
    upstream.script["Diet"] = ["Eat ", gate, "well."]
    app = create_app(ServeSettings((ModelSettings("m"),), page=False), {"m": upstream}, limit=limit)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=body(stream=True), timeout=30))
        await until(lambda: "Diet" in upstream.open, "an answer is in flight")
        limit.close()
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "stopping")
        for model, stream in (("m", False), ("m-sot", True), ("m-sot", False)):
            response = await client.post("/v1/chat/completions", json=body(model, stream=stream))
            assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")
        gate.set()
        assert "Eat well." in text_of(events_of((await first).text))
    assert not upstream.closed, "whoever opened it closes it"


# --- errors and lists -------------------------------------------------------------------------------


async def test_errors_have_the_shape_of_openai_s(serve, upstream, body):
    client = await serve(upstream, max_request_bytes=2000)

    async def error(status, method, path, **how):
        response = await client.request(method, path, **how)
        assert response.status_code == status
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}
        return response.json()["error"]

    chat = "/v1/chat/completions"
    assert (await error(400, "POST", chat, content=b"{"))["code"] == "invalid_json"
    assert (await error(400, "POST", chat, json=body(stream="true")))["param"] == "stream"
    assert (await error(400, "POST", chat, json=body(sot={"min_points": 2})))["param"] == "sot.min_points"
    unknown = await error(404, "POST", chat, json=body("other-sot"))
    assert unknown["code"] == "model_not_found"
    assert "m, m-sot" in unknown["message"]
    assert (await error(404, "GET", "/v1/models/other"))["code"] == "model_not_found"
    assert "/v1" in (await error(404, "POST", "/chat/completions", json=body()))["message"]
    assert "POST" in (await error(405, "GET", chat))["message"]
    await error(413, "POST", chat, json=body(question="x" * 3000))
    assert not upstream.calls
    assert not upstream.passed


async def test_a_fault_of_the_server_itself_tells_nobody_what_was_asked(serve, upstream, body, caplog):
    def fail(sampling):
        raise RuntimeError("a secret question")

    upstream.check = fail
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body(stream=True))
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in response.text
    assert "RuntimeError" in caplog.text
    assert "in fail" in caplog.text
    assert "secret" not in caplog.text.replace('raise RuntimeError("a secret question")', "")


@pytest.mark.parametrize("texts", [False, True])
async def test_the_log_has_texts_only_where_they_are_asked_for(serve, upstream, body, until, caplog, texts):
    caplog.set_level("INFO", logger="skeleton_of_thought.serve.log")
    client = await serve(upstream, log_texts=texts)
    for model, stream in (("m-sot", False), ("m-sot", True), ("m", False), ("m", True)):
        caplog.clear()
        parts = [{"type": "text", "text": "Why so?"}]
        await client.post("/v1/chat/completions", json=body(model, parts, stream=stream))
        await until(lambda: f"model={model!r}" in caplog.text, "the line about the request")  # noqa: B023
        assert ("Why so?" in caplog.text) == texts
        answer = "All about Sleep." if model == "m-sot" else "A passed "
        assert (answer in caplog.text) == texts


async def test_options_that_do_not_go_with_the_model_are_refused(serve, upstream, body):
    client = await serve(upstream, model={"settings": Settings(min_points=3)})
    response = await client.post("/v1/chat/completions", json=body(sot={"router": True, "max_points": 2}))
    assert response.status_code == 400
    assert "min_points" in response.json()["error"]["message"]


async def test_a_field_that_no_call_takes_is_refused_before_the_first_one(serve, upstream, body):
    upstream.refused = {"temperature"}
    client = await serve(upstream)
    for stream in (False, True):
        response = await client.post("/v1/chat/completions", json=body(temperature="hot", stream=stream))
        assert (response.status_code, response.json()["error"]["param"]) == (400, "temperature")
    assert not upstream.calls


async def test_the_models_are_listed_with_and_without_points(serve, upstream):
    upstream.remark = "A small model."
    client = await serve(upstream)
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["m", "m-sot"]
    assert [card["sot"]["by_points"] for card in listed["data"]] == [False, True]
    card = (await client.get("/v1/models/m-sot")).json()
    assert card == listed["data"][1]
    assert (card["object"], card["owned_by"]) == ("model", "sot")
    assert card["sot"] == {"by_points": True, "model": "m", "local": False, "remark": "A small model."}
    health = (await client.get("/health")).json()
    assert health == {"status": "ok", "models": ["m"], "open_calls": 0, "waiting": 0}


async def test_a_model_s_name_may_have_slashes_and_colons():
    name = "org/model:7b"
    upstream = ScriptedUpstream()
    app = create_app(ServeSettings((ModelSettings(name),), page=False), {name: upstream})
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get(f"/v1/models/{name}-sot")).json()["id"] == f"{name}-sot"
        request = {"model": f"{name}-sot", "messages": [{"role": "user", "content": SUITED}]}
        assert (await client.post("/v1/chat/completions", json=request)).json()["model"] == f"{name}-sot"


@pytest.mark.parametrize("names", [(), ("m", "m"), ("m", "m-sot")])
def test_names_that_cannot_be_told_apart_are_refused(names):
    with pytest.raises(InvalidInput):
        create_app(ServeSettings(tuple(map(ModelSettings, names))), dict.fromkeys(names, ScriptedUpstream()))


async def test_answers_are_counted_by_route_and_status(serve, upstream, body):
    client = await serve(upstream, model={"settings": Settings(max_retries=0)})
    await client.post("/v1/chat/completions", json=body())
    await client.post("/v1/chat/completions", json=body("m"))
    await client.post("/v1/chat/completions", json=body(question=UNSUITED, sot={}))
    upstream.script["skeleton"] = [ValueError("odd")]
    await client.post("/v1/chat/completions", json=body(stream=True))
    text = (await client.get("/metrics")).text
    counted = {line for line in text.splitlines() if line.startswith("sot_answers_total{")}
    assert counted == {
        'sot_answers_total{model="m-sot",route="skeleton",status="200"} 1',
        'sot_answers_total{model="m",route="passed",status="200"} 1',
        'sot_answers_total{model="m-sot",route="direct",status="200"} 1',
        'sot_answers_total{model="m-sot",route="skeleton",status="502"} 1',
    }
    assert 'sot_output_tokens_total{model="m",route="passed"} 4' in text.splitlines()


async def test_requests_without_a_route_are_counted_under_no_model(serve, upstream, body):
    client = await serve(upstream)
    for name in ("made-up", "another", "m-sot-sot"):
        assert (await client.post("/v1/chat/completions", json=body(name))).status_code == 404
    for request in ([], {"model": "m"}, body(sot={"odd": 1}), body(stream="yes")):
        assert (await client.post("/v1/chat/completions", json=request)).status_code == 400
    assert (await client.post("/v1/chat/completions", content=b"{")).status_code == 400
    text = (await client.get("/metrics")).text
    assert {
        line for line in text.splitlines() if line.startswith(("sot_answers_total{", "sot_answer_seconds_count{"))
    } == {
        'sot_answers_total{model="(other)",route="none",status="404"} 3',
        'sot_answers_total{model="(other)",route="none",status="400"} 5',
        'sot_answer_seconds_count{model="(other)",route="none"} 8',
    }
    assert "made-up" not in text


# --- hostile texts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user\0\r\nX-Evil: 1", "content": "Why?"}]},
        {"guided_\x07\x1b[2J\x7f\r\nX-Evil: 1": True},
        {"guided_\u2028\U0001f600": "x"},
    ],
)
async def test_a_reason_that_quotes_the_caller_is_a_valid_header(serve, upstream, body, fields):
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body() | fields)
    assert response.status_code == 200
    assert response.headers["x-sot-route"] == "passed"
    assert response.headers["x-sot-reason"].isprintable()
    assert "x-evil" not in response.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/health/"])
async def test_no_path_redirects_to_the_host_that_the_caller_names(serve, upstream, path):
    client = await serve(upstream, keys=("key-of-callers",))
    headers = {"host": "elsewhere.example", "authorization": "Bearer key-of-callers"}
    response = await client.get(path, headers=headers)
    assert response.status_code == 404
    assert "location" not in response.headers
    assert response.json()["error"]["code"] == "not_found"
