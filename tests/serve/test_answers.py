"""One answer: its chunks, what it asks of the model, how it fails, and that nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json

import pytest
from scripted_upstream import Attempts, ScriptedUpstream
from serving import events_of, text_of

from skeleton_of_thought.errors import (
    EngineClosed,
    InvalidInput,
    MissingExtra,
    PointError,
    PointTimeout,
    PromptTooLong,
    ReplyError,
)
from skeleton_of_thought.events import AnswerDelta, AnswerDone, PointFound, SkeletonRestarted
from skeleton_of_thought.serve.chunks import Completion, CompletionChunks, finish_reason, json_bytes
from skeleton_of_thought.serve.completions import _while_connected
from skeleton_of_thought.serve.errors import ServeError, explained
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Point, Reply, Skeleton, Usage

ANSWER = Answer("Text", "Why?", "direct", usage=Usage(3, 4, 1), usage_by_stage={"direct": Usage(3, 4, 1)})


class Refused(Exception):
    """An error of a server, with the attributes of those of its SDK."""

    def __init__(self, status: int, code: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status_code, self.code = status, code


class ReadTimeout(Exception):
    """An error of a client of a server, by its name."""


def quick(**changes):
    """The default settings without a pause before a second attempt."""
    return Settings(**{"on_point_error": "placeholder", "backoff": 0.0, **changes})


# --- chunks -----------------------------------------------------------------------------------------


def test_the_chunks_of_a_stream_have_the_same_head():
    chunks = CompletionChunks(Completion("m-sot"))
    stream = chunks.first() + chunks.read(AnswerDelta("Hé"), 0.1) + chunks.read(AnswerDone(ANSWER), 0.2)
    *events, done = events_of(stream.decode())
    assert done == "[DONE]"
    heads = [{name: value for name, value in event.items() if name != "choices"} for event in events]
    assert heads[0] == heads[1] == heads[2]
    assert heads[0]["id"].startswith("chatcmpl-")
    assert (heads[0]["object"], heads[0]["model"]) == ("chat.completion.chunk", "m-sot")
    assert heads[0].keys() == {"id", "object", "created", "model", "system_fingerprint"}
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hé"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, "stop"]


def test_two_completions_have_different_ids():
    assert len({Completion("m").id for _ in range(100)}) == 100


def test_a_usage_chunk_has_no_choices_and_the_others_no_usage():
    chunks = CompletionChunks(Completion("m-sot"), include_usage=True)
    first, end, usage, done = events_of((chunks.first() + chunks.read(AnswerDone(ANSWER), 1.0)).decode())
    assert first["usage"] is None
    assert end["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert done == "[DONE]"


def test_tokens_that_nobody_reported_are_not_told_as_zero():
    assert Completion("m").whole(Answer("Text", "Why?", "direct"))["usage"] is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        *(("stop", "stop"), (None, "stop"), ("end", "stop"), ("error", "stop"), ("length", "length")),
        *(("max_chars", "length"), ("loop", "length")),
        *(("content_filter", "content_filter"), ("refusal", "content_filter")),
    ],
)
def test_finish_reasons_are_openai_s(reason, told):
    assert finish_reason(Answer("", "", "direct", finish_reason=reason)) == told


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\x85d", "\x0b\x0c\x1c\x1d\x1e\r\n", "😀 é 中", "\ud800", "\x7f\x00"])
def test_no_character_of_a_text_breaks_an_event(text):
    line = json_bytes({"text": text})
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == {"text": text}


def test_a_skeleton_is_shown_only_where_it_is_asked_for():
    found, restarted = PointFound(Point(1, "Diet")), SkeletonRestarted(Skeleton())
    assert CompletionChunks(Completion("m")).read(found, 0.0) == b""
    chunks = CompletionChunks(Completion("m"), show_skeleton=True)
    events = events_of((chunks.read(found, 0.0) + chunks.read(restarted, 0.0)).decode())
    assert [event["choices"][0]["delta"] for event in events] == [
        {"reasoning_content": "1. Diet\n"},
        {"reasoning_content": "\n"},
    ]
    answer = Answer("T", "Q", "skeleton", Skeleton((Point(1, "A"), Point(2, "B"))))
    assert Completion("m").whole(answer, skeleton=True)["choices"][0]["message"]["reasoning_content"] == "1. A\n2. B\n"
    assert "reasoning_content" not in Completion("m").whole(answer)["choices"][0]["message"]
    assert "reasoning_content" not in Completion("m").whole(ANSWER, skeleton=True)["choices"][0]["message"]


# --- errors -----------------------------------------------------------------------------------------


def point_error(cause: Exception) -> PointError:
    error = PointError("It failed.", Point(2, "Sleep"), ANSWER)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ConnectionError("gone"), 502, "upstream_error"),
        (RuntimeError("odd"), 502, "upstream_error"),
        (Refused(500), 502, "upstream_error"),
        (Refused(401), 502, "upstream_error"),
        (Refused(403), 502, "upstream_error"),
        (Refused(404), 502, "upstream_error"),
        (Refused(400, "context_length_exceeded"), 400, "invalid_request_error"),
        (Refused(422), 422, "invalid_request_error"),
        (Refused(429), 429, "rate_limit_error"),
        (TimeoutError(), 504, "upstream_error"),
        (PointTimeout("late"), 504, "upstream_error"),
        (ReadTimeout("late"), 504, "upstream_error"),
        (point_error(ReadTimeout("late")), 504, "upstream_error"),
        (InvalidInput("bad"), 400, "invalid_request_error"),
        (PromptTooLong("long"), 400, "invalid_request_error"),
        (ReplyError("empty"), 502, "upstream_error"),
        (point_error(Refused(400)), 400, "invalid_request_error"),
        (point_error(ConnectionError("gone")), 502, "upstream_error"),
        (point_error(ServeError("busy", 429, "rate_limit_error")), 429, "rate_limit_error"),
    ],
    ids=repr,
)
def test_an_error_of_the_model_gets_the_status_that_it_has_for_the_caller(error, status, kind):
    told = explained(error, ScriptedUpstream())
    assert (told.status, told.kind) == (status, kind)
    assert str(told).strip()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLong("The prompt is too long."), 400, "context_length_exceeded"),
        (point_error(PromptTooLong("The prompt is too long.")), 400, "context_length_exceeded"),
        (EngineClosed("closed"), 503, "server_stopping"),
        (MissingExtra("Grammars need llguidance", "structured"), 400, None),
        (RuntimeError("no more memory"), 500, None),
    ],
    ids=repr,
)
def test_an_error_of_a_model_in_this_process_is_none_of_a_server_below(error, status, code):
    upstream = ScriptedUpstream()
    upstream.local = True
    told = explained(error, upstream)
    assert (told.status, told.code) == (status, code)


def test_an_error_tells_the_point_the_code_and_the_time_to_wait_but_no_login():
    told = explained(point_error(ConnectionError("http://me:secret@host broke off")), ScriptedUpstream())
    assert "Point 2" in str(told)
    assert "secret" not in str(told)
    assert explained(Refused(400, "context_length_exceeded"), ScriptedUpstream()).code == "context_length_exceeded"
    long = explained(Refused(400, "x" * 10_000), ScriptedUpstream())
    assert len(json.dumps(long.to_dict())) < 1000
    limited = Refused(429)
    limited.retry_after = 3.2
    assert explained(limited, ScriptedUpstream()).retry_after == 3
    for nonsense in (1e23, 1e300):
        limited.retry_after = nonsense
        assert explained(limited, ScriptedUpstream()).retry_after == 86_400
    error = ServeError("no", 418)
    assert explained(error, ScriptedUpstream()) is error


# --- answers through the endpoint -------------------------------------------------------------------


async def test_each_call_gets_the_sampling_of_the_request(serve, upstream, body):
    client = await serve(upstream)
    fields = {"temperature": 0.7, "seed": 3, "made_up": {"deep": [1]}, "top_p": None, "stream": False}
    response = await client.post("/v1/chat/completions", json=body(**fields))
    assert response.status_code == 200
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point"]
    assert upstream.samplings == [{"temperature": 0.7, "seed": 3, "made_up": {"deep": [1]}}] * 4


async def test_all_calls_of_an_answer_are_of_one_session(serve, upstream, body):
    client = await serve(upstream)
    given = {"x-session-id": "s-1", "traceparent": "00-1", "cookie": "a=b", "x-own": "1"}
    for headers in ({}, {}, given):
        response = await client.post("/v1/chat/completions", json=body(stream=False), headers=headers)
        assert response.status_code == 200
    own, other, callers = (upstream.call_headers[i : i + 4] for i in (0, 4, 8))
    assert own == [own[0]] * 4
    assert other == [other[0]] * 4
    assert own[0].keys() == other[0].keys() == {"x-session-id"}
    assert own[0] != other[0]
    assert callers == [{"x-session-id": "s-1", "traceparent": "00-1"}] * 4


async def test_a_whole_answer_has_its_text_its_tokens_and_its_route(serve, upstream, body):
    client = await serve(upstream)
    response = await client.post("/v1/chat/completions", json=body())
    data = response.json()
    (choice,) = data["choices"]
    assert choice["message"]["content"] == (
        "1. Diet: All about Diet.\n\n2. Sleep: All about Sleep.\n\n3. Exercise: All about Exercise."
    )
    assert (choice["finish_reason"], data["object"], data["model"]) == ("stop", "chat.completion", "m-sot")
    assert (data["usage"]["prompt_tokens"], data["usage"]["completion_tokens"]) == (40, 20)
    assert response.headers["x-sot-route"] == "skeleton"
    assert "sot" not in data


async def test_the_settings_of_a_request_replace_those_of_the_model(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": True, "max_points": 2, "join": "headings", "merge": False}
    text = (await client.post("/v1/chat/completions", json=body(sot=sot))).json()["choices"][0]["message"]["content"]
    assert text.count("# ") == 2
    assert "Exercise" not in text
    text = (await client.post("/v1/chat/completions", json=body())).json()["choices"][0]["message"]["content"]
    assert "3. Exercise" in text, "the model's own settings have not changed"
    merged = await client.post("/v1/chat/completions", json=body(sot={**sot, "merge": True}))
    assert merged.json()["choices"][0]["message"]["content"] == "A merged answer."


async def test_text_comes_in_document_order_as_soon_as_it_is_there(serve, upstream, body):
    skeleton, diet, sleep = asyncio.Event(), asyncio.Event(), asyncio.Event()
    upstream.script["skeleton"] = ["1. Diet\n2. Sleep\n", skeleton]
    upstream.script["Diet"] = ["Eat ", diet, "well."]
    upstream.script["Sleep"] = ["Sleep ", sleep, "enough."]
    client = await serve(upstream)
    async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        lines = (line async for line in response.aiter_lines() if line)

        async def content() -> str:
            choice = json.loads((await anext(lines)).removeprefix("data: "))["choices"][0]
            return choice["delta"].get("content", choice["finish_reason"])

        assert response.headers["content-type"].startswith("text/event-stream")
        assert await content() == "", "the role comes before the skeleton has ended"
        skeleton.set()
        seen = ""
        while not seen.endswith("Eat"):
            seen += (await content()).rstrip()
        sleep.set()
        assert "Sleep" not in seen
        diet.set()
        while (piece := await content()) != "stop":
            seen += piece
        assert seen.replace("Eat well", "Eatwell").startswith("1. Diet:")
        assert seen.index("well.") < seen.index("2. Sleep:")
        assert await anext(lines) == "data: [DONE]"


async def test_silence_is_filled_with_comments(serve, upstream, body):
    gate = asyncio.Event()
    upstream.script["skeleton"] = [gate, "1. Diet\n2. Sleep\n"]
    client = await serve(upstream, keep_alive=0.01)
    async with client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        text = ""
        async for part in response.aiter_text():
            text += part
            # On a busy machine comments come before the first chunk, too.
            if text.partition('"role"')[2].count(": keep-alive\n\n") >= 3:
                gate.set()
    events = events_of(text)
    first, second, *_ = [at for at, event in enumerate(events) if event != ":keep-alive"]
    assert events[first]["choices"][0]["delta"]["role"] == "assistant"
    assert second - first > 3
    assert events[-1] == "[DONE]"


async def test_events_for_a_page_come_on_valid_chunks(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": "always", "events": True, "max_points": 2}
    text = (await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text
    *chunks, done = events_of(text)
    assert done == "[DONE]"
    told = [chunk["sot"] for chunk in chunks if "sot" in chunk]
    names = [event["event"] for event in told]
    assert names[0] == "Routed"
    assert told[0]["decision"]["use_skeleton"] is True
    for name in ("PointFound", "SkeletonDone", "PointStarted", "PointDelta", "PointDone", "AnswerDelta"):
        assert name in names
    assert all(each["at"] <= later["at"] for each, later in itertools.pairwise(told))
    for chunk in chunks:
        assert [choice["index"] for choice in chunk["choices"]] == [0]
        if chunk.get("sot", {}).get("event") == "AnswerDelta":
            assert chunk["choices"][0]["delta"] == {"content": chunk["sot"]["text"]}
    assert told[-1]["event"] == "AnswerDone"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["answer"]["text"] == text_of(chunks)
    assert told[-1]["answer"]["timings"]["stages"].keys() == {"skeleton", "point"}
    points = [event["point"] for event in told if event["event"] == "PointFound"]
    assert points == [{"index": 1, "title": "Diet"}, {"index": 2, "title": "Sleep"}]


async def test_events_of_a_direct_answer_come_from_the_same_flow(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": "never", "events": True}
    response = await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))
    chunks = events_of(response.text)
    told = [chunk["sot"] for chunk in chunks if "sot" in chunk]
    assert [event["event"] for event in told] == ["Routed", "AnswerDelta", "AnswerDelta", "AnswerDone"]
    assert told[-1]["answer"]["route"] == "direct"
    assert text_of(chunks) == "A direct answer."
    assert response.headers["x-sot-route"] == "direct"
    assert [call.stage for call in upstream.calls] == ["direct"]
    assert not upstream.passed


async def test_a_failed_point_leaves_a_placeholder_and_the_answer_goes_on(serve, upstream, body):
    upstream.script["Sleep"] = [ConnectionError("gone")]
    client = await serve(upstream, model={"settings": quick()})
    for stream in (False, True):
        response = await client.post("/v1/chat/completions", json=body(stream=stream))
        assert response.status_code == 200
        text = text_of(events_of(response.text)) if stream else response.json()["choices"][0]["message"]["content"]
        assert text == (
            "1. Diet: All about Diet.\n\n2. Sleep: (This point could not be completed.)\n\n"
            "3. Exercise: All about Exercise."
        )


async def test_a_point_that_fails_once_is_written_again(serve, upstream, body):
    upstream.script["Sleep"] = Attempts([ConnectionError("gone")], ["Sleep enough."])
    client = await serve(upstream, model={"settings": quick()})
    response = await client.post("/v1/chat/completions", json=body(stream=True))
    assert "2. Sleep: Sleep enough." in text_of(events_of(response.text))


async def test_a_point_that_fails_can_end_the_answer(serve, upstream, body):
    upstream.script["Sleep"] = ["Sleep ", ConnectionError("gone")]
    client = await serve(upstream, model={"settings": quick(on_point_error="raise", max_retries=0)})
    response = await client.post("/v1/chat/completions", json=body())
    assert response.status_code == 502
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].startswith("Point 2 failed: The scripted model failed: ConnectionError")
    streamed = await client.post("/v1/chat/completions", json=body(stream=True))
    assert streamed.status_code == 200
    *chunks, last = events_of(streamed.text)
    assert last == {"error": error}
    assert "[DONE]" not in chunks
    assert upstream.open_calls == 0


async def test_an_error_in_mid_stream_tells_a_page_what_failed(serve, upstream, body):
    upstream.script["skeleton"] = [Refused(400)]
    client = await serve(upstream, model={"settings": quick(max_retries=0)})
    sot = {"router": "always", "events": True}
    last = events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text)[-1]
    assert last["error"]["type"] == "invalid_request_error"
    assert last["sot"]["event"] == "AnswerFailed"
    assert last["sot"]["error"] == {"type": "Refused", "message": "status 400"}
    assert last["sot"]["at"] >= 0


async def test_a_rate_limit_of_the_model_is_told_with_its_time(serve, upstream, body):
    long = explained(Refused(400, "x" * 10_000), ScriptedUpstream())
    assert len(json.dumps(long.to_dict())) < 1000
    limited = Refused(429)
    limited.retry_after = 500.0  # longer than the flow waits
    upstream.script["skeleton"] = [limited]
    client = await serve(upstream, model={"settings": quick(max_retries=0)})
    response = await client.post("/v1/chat/completions", json=body())
    assert response.status_code == 429
    assert response.headers["retry-after"] == "500"
    assert response.json()["error"]["code"] == "rate_limit_exceeded"


async def test_an_answer_that_restarts_goes_on_after_a_blank_line(serve, upstream, body):
    upstream.script["merge"] = ["Half a merged ", ConnectionError("gone")]
    client = await serve(upstream, model={"settings": quick(max_retries=0)})
    sot = {"router": "always", "merge": True, "events": True}
    chunks = events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text)
    text = text_of(chunks)
    joined = "1. Diet: All about Diet.\n\n2. Sleep: All about Sleep.\n\n3. Exercise: All about Exercise."
    assert text.startswith("Half a merged")
    assert text.endswith(f"\n\n{joined}")
    assert "AnswerRestarted" in [chunk["sot"]["event"] for chunk in chunks if "sot" in chunk]
    whole = await client.post("/v1/chat/completions", json=body(sot={"router": "always", "merge": True}))
    assert whole.json()["choices"][0]["message"]["content"] == joined


async def test_a_point_that_was_cut_says_so(serve, upstream, body):
    upstream.script["Sleep"] = ["Sleep ", Reply(Usage(1, 1), "length")]
    client = await serve(upstream)
    data = (await client.post("/v1/chat/completions", json=body())).json()
    assert data["choices"][0]["finish_reason"] == "length"


async def test_an_answer_that_takes_too_long_is_ended_with_all_its_calls(serve, upstream, body):
    upstream.script["Sleep"] = ["Sleep ", asyncio.Event()]
    client = await serve(upstream, timeout=1.0)
    response = await client.post("/v1/chat/completions", json=body())
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    assert response.headers["x-should-retry"] == "false"
    assert upstream.open_calls == 0
    streamed = await client.post("/v1/chat/completions", json=body(stream=True))
    *chunks, last = events_of(streamed.text)
    assert text_of(chunks).startswith("1. Diet: All about Diet.\n\n2. Sleep")
    assert last["error"]["code"] == "timeout"
    assert upstream.open_calls == 0


async def test_an_unusable_skeleton_ends_in_a_direct_answer(serve, upstream, body):
    upstream.script["skeleton"] = [" "]
    client = await serve(upstream, model={"settings": quick(max_retries=0)})
    response = await client.post("/v1/chat/completions", json=body())
    assert response.json()["choices"][0]["message"]["content"] == "A direct answer."
    assert response.headers["x-sot-route"] == "direct"


async def test_a_whole_answer_tells_a_page_all_of_itself(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": "always", "events": True, "show_skeleton": True}
    data = (await client.post("/v1/chat/completions", json=body(sot=sot))).json()
    message = data["choices"][0]["message"]
    assert message["reasoning_content"] == "1. Diet\n2. Sleep\n3. Exercise\n"
    assert data["sot"]["event"] == "AnswerDone"
    assert data["sot"]["answer"]["text"] == message["content"]
    assert [point["title"] for point in data["sot"]["answer"]["expansions"]] == ["Diet", "Sleep", "Exercise"]


async def test_the_skeleton_comes_as_reasoning_before_the_text(serve, upstream, body):
    client = await serve(upstream)
    sot = {"router": "always", "show_skeleton": True, "max_points": 2}
    *chunks, done = events_of((await client.post("/v1/chat/completions", json=body(stream=True, sot=sot))).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("reasoning_content") for delta in deltas[1:3]] == ["1. Diet\n", "2. Sleep\n"]
    assert not any("reasoning_content" in delta for delta in deltas[3:])
    assert all(chunk.keys() == chunks[0].keys() for chunk in chunks)
    assert done == "[DONE]"


async def test_every_call_has_the_conversation_before_the_question(serve, upstream, body):
    client = await serve(upstream)
    history = [
        {"role": "developer", "content": [{"type": "text", "text": "Answer as a pirate."}]},
        {"role": "user", "content": "I am 80 years old.", "name": "alice"},
        {"role": "assistant", "content": "Ahoy!", "tool_calls": []},
    ]
    question = body()["messages"]
    for sot in ({"router": "always"}, {"router": "never", "events": True}):
        await client.post("/v1/chat/completions", json=body(messages=[*history, *question], sot=sot))
    assert [call.stage for call in upstream.calls] == ["skeleton", "point", "point", "point", "direct"]
    for call in upstream.calls:
        said = [(message.role, message.text) for message in call.prompt.messages]
        assert ("system", "Answer as a pirate.") in said
        assert ("user", "I am 80 years old.") in said
        assert ("assistant", "Ahoy!") in said
    assert said[-1] == ("user", question[0]["content"])


async def test_an_answer_is_made_as_its_model_allows(serve, upstream, body):
    upstream.prefill = frozenset({"skeleton", "point"})
    upstream.stop_loops = True
    upstream.script["Sleep"] = ["Sleep is good for you, so sleep well. "] * 100
    client = await serve(upstream, model={"max_concurrency": 2})
    data = (await client.post("/v1/chat/completions", json=body())).json()
    assert all(call.prompt.prefill for call in upstream.calls)
    assert upstream.most == 2
    assert data["choices"][0]["finish_reason"] == "length"
    assert data["choices"][0]["message"]["content"].count("Sleep is good for you") < 5


async def test_points_begin_with_their_lines_where_the_request_is_eager(serve, upstream, body, until):
    gate = asyncio.Event()
    upstream.script["skeleton"] = ["1. Diet\n", "2. Sleep\n", gate, "3. Exercise\n"]
    client = await serve(upstream)
    sot = {"router": "always", "eager": True}
    asked = asyncio.create_task(client.post("/v1/chat/completions", json=body(stream=True, sot=sot)))
    await until(lambda: len(upstream.calls) == 3, "two points while the skeleton is being written")
    gate.set()
    assert text_of(events_of((await asked).text)).endswith("3. Exercise: All about Exercise.")


async def test_a_failure_that_nobody_hears_of_any_more_leaves_no_error_to_asyncio():
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["message"]))
    begun = asyncio.Event()

    async def fail():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ServeError("a text that no log may have")

    task = asyncio.create_task(_while_connected(fail(), asyncio.Event().wait))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    del task  # and with it all that its traceback keeps
    gc.collect()
    assert unhandled == []
