"""Backends of the `sot` command: an OpenAI-compatible server over real HTTP, and streams of the local engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
from quiet_server import QuietServer

from skeleton_of_thought._cli.backend import LoopThread, RemoteStream
from skeleton_of_thought._cli.local_backend import local_backend
from skeleton_of_thought._cli.openai_backend import openai_backend
from skeleton_of_thought.cli import main
from skeleton_of_thought.types import Call, Completion, Decoding, Message, Prompt, Reply, Usage

openai = pytest.importorskip("openai")

SKELETON = "1. First thing\n2. Second thing\n3. Third thing\n"


@dataclass
class Fault:
    """A fault of the server for `times` requests whose last message contains `match`."""

    match: str
    kind: str
    times: int = 10**6


@dataclass
class Served:
    """The state of a chat-completions server: its settings, the requests that it got, and its faults."""

    url: str = ""
    requests: list[dict] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    usage: bool = True
    owner: str | None = None
    listed: int = 0
    gone: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stalled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def fault(self, text):
        for fault in self.faults:
            if fault.match in text and fault.times > 0:
                fault.times -= 1
                return fault.kind
        return None


TOOL = {"index": 0, "id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
INSTEAD = {
    "refusal": [{"refusal": "I can"}, {"refusal": "not."}],
    "tools": [{"tool_calls": [TOOL]}],
    "reasoning": [{"reasoning_content": "Well."}],
    "empty": [],
    "parts": [{"content": [THINKING]}, {"content": [{"type": "text", "text": "Yes."}]}],
}
"""Replies that have something else than text."""
WORDS = ("content_filter", "length", "model_length")
"""Finish reasons other than `stop`."""


ODD = {
    "array": "[1, 2]",
    "text": '"x"',
    "number": "7",
    "choices are a mapping": '{"choices": {"a": 1}}',
    "choices are texts": '{"choices": ["x"]}',
    "delta is a text": '{"choices": [{"index": 0, "delta": "x"}]}',
    "content is a number": '{"choices": [{"index": 0, "delta": {"content": 7}}]}',
    "content is true": '{"choices": [{"index": 0, "delta": {"content": true}}]}',
    "content is a mapping": '{"choices": [{"index": 0, "delta": {"content": {"a": "b"}}}]}',
    "parts are numbers": '{"choices": [{"index": 0, "delta": {"content": [7]}}]}',
    "part has no type": '{"choices": [{"index": 0, "delta": {"content": [{"a": "b"}]}}]}',
    "part has no text": '{"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": 7}]}}]}',
    "refusal is a number": '{"choices": [{"index": 0, "delta": {"refusal": 7}}]}',
    "deep": '{"choices": ' + "[" * 100_000,
    "huge number": '{"created": ' + "7" * 5000 + "}",
}
"""Chunks that are JSON and no chunks of a chat completion, or nearly JSON."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.served.listed += 1
        if self.served.owner is None:
            return self.refuse(404, "no list here")
        return self.reply(200, {"object": "list", "data": [{"id": "m", "owned_by": self.served.owner}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.served.requests.append(body)
        self.served.keys.append(self.headers.get("Authorization", ""))
        text = body["messages"][-1]["content"]
        kind = self.served.fault(text)
        if kind == "silent":
            return self.stall()
        if kind == "options" and "stream_options" in body:
            return self.refuse(400, "unknown field stream_options")
        if kind == "strict" and "continue_final_message" in body:
            return self.refuse(422, "extra fields: continue_final_message")
        if kind == "strict":
            kind = None
        if kind is not None and kind.isdigit():
            return self.refuse(int(kind), "no luck today")
        return self.answer(
            SKELETON if "Write only the headings" in text or text == "1." else "Some text of this.", kind
        )

    def refuse(self, status, message):
        self.reply(status, {"error": {"message": message}})

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-should-retry", "false")
        self.end_headers()
        self.wfile.write(data)

    def answer(self, text, kind):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        words = text.replace(" ", "| ").split("|")
        for written, word in enumerate(words):
            if written == 2 and kind == "cut":
                return
            if written == 2 and kind == "stall":
                self.stall()
                return
            if written == 2 and kind == "garbage":
                self.wfile.write(b"data: {broken\n\n")
            if kind not in INSTEAD:
                self.chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        if kind == "no finish":
            return
        if kind in ODD:
            self.wfile.write(f"data: {ODD[kind]}\n\n".encode())
        for delta in INSTEAD.get(kind, ()):
            self.chunk([{"index": 0, "delta": delta, "finish_reason": None}])
        self.chunk([{"index": 0, "delta": {}, "finish_reason": kind if kind in WORDS else "stop"}])
        if self.served.usage:
            details = {"cached_tokens": 4}
            usage = {"prompt_tokens": 20, "completion_tokens": len(words), "total_tokens": 20 + len(words)}
            self.chunk([], usage={**usage, "prompt_tokens_details": details})
        self.wfile.write(b"data: [DONE]\n\n")

    def chunk(self, choices, **more):
        data = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **more}
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def stall(self):
        self.served.stalled.release()
        # Sends nothing more, and returns when the client closes the connection.
        with contextlib.suppress(ConnectionError):
            self.connection.recv(1)
        self.served.gone.release()
        self.close_connection = True


@pytest.fixture
def served(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Served()
    handler = type("BoundHandler", (Handler,), {"served": state})
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def backend(served):
    made = openai_backend("m", base_url=served.url)
    yield made
    made.close()


def call(text="hi", **details):
    return Call(1, "direct", Prompt((Message("user", text),), **details))


def read(backend, text="hi"):
    items = list(backend.open_call(call(text), 0))
    return "".join(i for i in items if isinstance(i, str)), [i for i in items if isinstance(i, Reply)]


def ask(served, *options, capsys):
    code = main(["ask", "What now?", "--no-router", "--model", f"openai:m@{served.url}", *options])
    out, err = capsys.readouterr()
    return code, out, err


# --- one call ---


def test_text_usage_and_finish_reason_are_read(backend):
    text, replies = read(backend)
    assert text == "Some text of this."
    assert replies == [Reply(Usage(20, 4, 4), "stop")]


def test_a_stream_may_lack_usage(served, backend):
    served.usage = False
    assert read(backend)[1] == [Reply(None, "stop")]


def test_without_a_key_a_dummy_is_sent(served, backend):
    read(backend)
    assert served.keys == ["Bearer none"]
    assert served.requests[0]["stream_options"] == {"include_usage": True}
    assert "max_tokens" not in served.requests[0]


def test_the_sdk_alone_is_enough(served, monkeypatch):
    # Since version 3 it comes with httpx2, and httpx may be missing.
    monkeypatch.setitem(sys.modules, "httpx", None)
    made = openai_backend("m", base_url=served.url)
    assert read(made)[0] == "Some text of this."
    made.close()


def test_an_error_shows_no_login_of_the_address(served):
    made = openai_backend("m", base_url=served.url.replace("://", "://me:hunter2@"))
    served.faults.append(Fault("hi", "500"))
    with pytest.raises(openai.InternalServerError) as failed:
        read(made)
    made.close()
    line = made.explain(failed.value)
    assert served.url.replace("://", "://***@") in line
    assert "hunter2" not in line


def test_the_key_of_the_environment_and_the_settings_are_sent(served, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    backend = openai_backend("m", base_url=served.url, temperature=0.5, seed=7, max_tokens=9)
    read(backend)
    backend.close()
    assert served.keys == ["Bearer secret"]
    sent = served.requests[0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.5, 7, 9)


def test_a_server_that_rejects_the_usage_option_gets_requests_without_it(served, backend):
    served.faults.append(Fault("hi", "options"))
    assert read(backend)[0] == "Some text of this."
    assert read(backend)[0] == "Some text of this."
    assert ["stream_options" in request for request in served.requests] == [True, False, False]


@pytest.mark.parametrize("kind", ["cut", "garbage", "400"])
def test_a_broken_stream_is_an_error(served, backend, kind):
    served.faults.append(Fault("hi", kind))
    with pytest.raises((openai.APIError, ValueError, ConnectionError)) as caught:
        read(backend)
    assert "\n" not in backend.explain(caught.value)


def test_a_stream_without_a_finish_reason_has_broken_off(served, backend):
    served.usage = False
    served.faults.append(Fault("hi", "no finish"))
    with pytest.raises(ConnectionError, match="before its answer was complete"):
        read(backend)


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("refusal", Reply(Usage(20, 4, 4), "stop", refusal="I cannot.")),
        ("tools", Reply(Usage(20, 4, 4), "stop", instead="tool calls")),
        ("reasoning", Reply(Usage(20, 4, 4), "stop", instead="reasoning")),
        ("content_filter", Reply(Usage(20, 4, 4), "content_filter")),
        ("model_length", Reply(Usage(20, 4, 4), "length")),
    ],
)
def test_what_a_reply_has_besides_text_is_read(served, backend, kind, reply):
    served.faults.append(Fault("hi", kind))
    assert read(backend)[1] == [reply]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("refusal", "The model refused: 'I cannot.'"),
        ("content_filter", "A content filter blocked the reply"),
        ("empty", "The reply is empty"),
    ],
)
def test_the_command_reports_points_of_no_use_after_another_try(served, kind, words, capsys):
    served.faults.append(Fault('heading "Second thing"', kind, times=9))
    # With a merge no text of a point is shown before all are done: a point whose text is shown is not written again.
    code, _, err = ask(served, "--plain", "--merge", "--on-point-error", "placeholder", capsys=capsys)
    sent = [request for request in served.requests if 'heading "Second thing"' in request["messages"][-1]["content"]]
    assert (code, len(sent)) == (0, 2)
    assert any(line.startswith("sot: point 2 failed: ") and words in line for line in err.splitlines())


def test_the_command_reports_a_cut_point(served, capsys):
    served.faults.append(Fault('heading "Second thing"', "length", times=2))
    _, _, err = ask(served, "--plain", capsys=capsys)
    assert "sot: point 2 was cut at the token limit (--max-tokens)" in err.splitlines()
    code, out, err = ask(served, "--json", capsys=capsys)
    data = json.loads(out)
    assert (data["finish_reason"], data["expansions"][1]["finish_reason"]) == ("length", "length")
    # The JSON says it already, and nothing failed.
    assert (code, err) == (0, "")


def test_content_blocks_are_sent_unchanged(served, backend):
    blocks = ({"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}})
    message = Message("user", blocks)
    list(backend.open_call(Call(1, "direct", Prompt((message,))), 0))
    assert served.requests[0]["messages"] == [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize("kind", ["silent", "stall"])
def test_cancel_from_another_thread_hangs_up_at_once(served, backend, kind):
    served.faults.append(Fault("hi", kind))
    stream = backend.open_call(call(), 0)
    got = []
    reader = threading.Thread(target=lambda: got.extend(stream))
    reader.start()
    assert served.stalled.acquire(timeout=60)
    stream.cancel()
    reader.join()
    assert served.gone.acquire(timeout=60)
    assert not any(isinstance(item, Reply) for item in got)


def test_cancel_before_the_first_piece_ends_the_stream(backend):
    for _ in range(20):
        stream = backend.open_call(call(), 0)
        stream.cancel()
        assert not any(isinstance(item, Reply) for item in stream)


def test_closing_the_backend_hangs_up_and_ends_its_thread(served):
    backend = openai_backend("m", base_url=served.url)
    served.faults.append(Fault("hi", "silent"))
    stream = backend.open_call(call(), 0)
    assert served.stalled.acquire(timeout=60)
    backend.close()
    backend.close()
    assert served.gone.acquire(timeout=60)
    assert list(stream) == []
    assert not [t for t in threading.enumerate() if t.name == "sot-calls"]


# --- the start of the model's turn ---


def last_turns(served):
    return [(request["messages"][-1]["role"], "continue_final_message" in request) for request in served.requests]


@pytest.mark.parametrize("owner", ["llamacpp", "vllm", "sglang"])
def test_a_server_that_continues_turns_gets_their_start(served, capsys, owner):
    served.owner = owner
    assert ask(served, capsys=capsys)[0] == 0
    assert last_turns(served) == [("assistant", True)] * 5  # the probe, the skeleton, three points
    assert served.requests[0]["max_tokens"] == 1
    assert served.requests[1]["messages"][-1]["content"] == "1."


@pytest.mark.parametrize("owner", [None, "library", "openai"])
def test_other_servers_get_no_prefill(served, capsys, owner):
    served.owner = owner
    assert ask(served, capsys=capsys)[0] == 0
    assert last_turns(served) == [("user", False)] * 4


def test_a_server_that_rejects_a_prefill_gets_none(served, capsys):
    served.owner = "llamacpp"
    served.faults.append(Fault("1, 2,", "400"))
    assert ask(served, capsys=capsys)[0] == 0
    assert last_turns(served) == [("assistant", True)] + [("user", False)] * 4


@pytest.mark.parametrize(
    ("options", "role"),
    [
        (["--prefill"], "assistant"),
        (["--prefill", "yes"], "assistant"),
        (["--prefill=no"], "user"),
        (["--no-prefill"], "user"),
    ],
)
def test_the_prefill_option_decides_without_a_probe(served, capsys, options, role):
    served.owner = "vllm"
    code = main(["ask", "--no-router", "--model", f"openai:m@{served.url}", *options, "What now?"])
    assert code == 0
    assert {turn for turn, _ in last_turns(served)} == {role}
    assert served.listed == 0


def test_a_server_that_rejects_the_fields_for_continuing_gets_none(served, capsys):
    served.faults += [Fault(text, "strict") for text in ("1.", '"First thing" -')]
    assert ask(served, "--prefill", capsys=capsys)[0] == 0
    assert ("assistant", False) in last_turns(served)
    assert last_turns(served)[0] == ("assistant", True)


# --- whole answers ---


def test_an_answer_from_a_server(served, capsys):
    code, out, err = ask(served, "--json", capsys=capsys)
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer["text"].startswith("1. First thing: Some text of this.\n\n2. Second thing")
    assert answer["usage_by_stage"]["point"]["input_tokens"] == 60
    assert all("prefill" not in request for request in served.requests)


def test_the_baseline_of_a_server_has_its_own_length(served, capsys):
    code, _, err = ask(served, "--compare", "--plain", capsys=capsys)
    assert code == 0
    assert served.requests[-1]["messages"] == [{"role": "user", "content": "What now?"}]
    assert "the lengths differ" in err


def test_a_point_that_is_cut_is_written_again(served, capsys):
    served.faults.append(Fault('under the heading "Second thing"', "cut", times=1))
    code, out, _ = ask(served, "--json", capsys=capsys)
    answer = json.loads(out)
    assert code == 0
    assert [e["attempts"] for e in answer["expansions"]] == [1, 2, 1]


def test_a_stalled_point_is_given_up_and_its_connection_closed(served, capsys):
    served.faults.append(Fault('under the heading "Second thing"', "stall"))
    options = ("--json", "--retries", "0", "--point-timeout", "1.5", "--on-point-error", "placeholder")
    code, out, err = ask(served, *options, capsys=capsys)
    assert served.gone.acquire(timeout=60)
    assert code == 0
    assert json.loads(out)["expansions"][1]["error"]["type"] == "PointTimeout"
    assert "sot: point 2 failed" in err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("400", "rejects this call"),
        ("401", "OPENAI_API_KEY"),
        ("404", "does not know the model 'm'"),
        ("429", "--max-concurrency"),
        ("500", "no luck today"),
        ("503", "failed; try again later"),
        ("no finish", "broke off"),
    ],
)
def test_an_error_of_the_server_is_one_clear_line(served, capsys, kind, words):
    served.faults.append(Fault("", kind))
    code, out, err = ask(served, "--plain", "--retries", "0", capsys=capsys)
    assert code == 1
    assert out == "" or kind == "no finish"
    assert err.startswith(f"sot: error: The server at {served.url}/ ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("kind", ODD)
def test_a_chunk_that_is_none_fails_its_call_alone(served, capsys, kind):
    served.faults.append(Fault('under the heading "Second thing"', kind))
    options = ("--plain", "--retries", "0", "--on-point-error", "placeholder")
    code, out, err = ask(served, *options, capsys=capsys)
    assert code == 0
    assert "Some text of this." in out
    assert err.startswith("sot: point ")
    assert f"failed: The server at {served.url}/ sent something that is not a chat completion: " in err
    assert err.count("\n") == 1


def test_content_in_parts_is_read_without_its_reasoning(served, backend):
    served.faults.append(Fault("hi", "parts"))
    assert read(backend)[0] == "Yes."


@pytest.mark.parametrize("kind", ["401", "500"])
def test_json_has_only_the_error_if_there_is_no_answer(served, capsys, kind):
    served.faults.append(Fault("", kind))
    code, out, _ = ask(served, "--json", "--retries", "0", capsys=capsys)
    assert code == 1
    assert list(json.loads(out)) == ["error"]
    assert "no luck today" in json.loads(out)["error"]["message"]


def test_an_unreachable_server_is_named(capsys, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    code = main(["ask", "q", "--model", f"openai:m@{url}", "--retries", "0"])
    err = capsys.readouterr().err
    assert code == 1
    assert err.startswith(f"sot: error: The server at {url}/ cannot be reached")


# --- the local engine ---

DECODING = Decoding(waiting=0.5, prefill=0.25, decode=2.0, steps=8, mean_rows=3.0, output_tokens=9)


class Engine:
    """The part of `LocalEngine` that the backend uses."""

    takes_prefill = True

    def __init__(self):
        self.asked = []
        self.closed = False

    def stream(self, prompt, **settings):
        self.asked.append((prompt, settings))
        return Stream()

    def checkpoint(self):
        return lambda: None

    def stats(self):
        return SimpleNamespace(reason="its cache cannot be cut")

    def close(self):
        self.closed = True


class Stream:
    """Endless until it is closed, like a completion without a limit."""

    def __init__(self):
        self._closed = threading.Event()
        self._written = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed.is_set():
            raise StopIteration
        time.sleep(0.001)
        self._written += 1
        return "word "

    @property
    def completion(self):
        return Completion("word " * self._written, (), "cancelled", Usage(3, self._written), DECODING)

    def close(self):
        self._closed.set()


def test_a_cancelled_local_call_reports_its_cost():
    engine = Engine()
    backend = local_backend(engine, temperature=0.3)
    stream = backend.open_call(call(prefill="1."), 0)
    items = iter(stream)
    assert next(items) == "word "
    stream.cancel()
    rest = list(items)
    assert isinstance(rest[-1], Reply)
    assert rest[-1].usage.output_tokens >= 1
    assert rest[-1].decoding == DECODING
    assert engine.asked[0][0].prefill == "1."
    assert engine.asked[0][1] == {"temperature": 0.3}
    assert set(backend.prefill) == {"skeleton", "point"}
    assert backend.notice() == "its cache cannot be cut"
    backend.close()
    assert engine.closed


@pytest.mark.parametrize(("prefill", "stages"), [("auto", 2), ("yes", 2), ("no", 0)])
def test_a_local_model_gets_the_start_of_its_turns_by_default(prefill, stages):
    assert len(local_backend(Engine(), prefill=prefill).prefill) == stages


def test_text_that_nobody_watches_is_gathered_and_all_of_it_arrives():
    thread, step = LoopThread(), threading.Event()

    async def items(error: Exception | None) -> AsyncIterator[str | Reply]:
        while not step.is_set():
            await asyncio.sleep(0)
        for text in ("one ", "two ", "three "):
            yield text
        if error is not None:
            raise error
        yield Reply(finish_reason="stop")

    try:
        for error in (None, ConnectionError("cut")):
            step.clear()
            stream, got = RemoteStream(items(error), thread), []
            stream.gather = 60.0
            step.set()
            with pytest.raises(ConnectionError) if error else contextlib.nullcontext():
                got.extend(stream)  # keeps what came before the error
            assert got == ["one ", "two three ", *([] if error else [Reply(finish_reason="stop")])]
    finally:
        thread.stop()


def test_gathered_text_comes_while_the_stream_is_silent():
    thread, rest = LoopThread(), threading.Event()

    async def items() -> AsyncIterator[str | Reply]:
        while not rest.is_set():
            for text in ("one ", "two "):
                yield text
            while not rest.is_set():
                await asyncio.sleep(0.001)

    try:
        stream = RemoteStream(items(), thread)
        stream.gather = 0.01
        texts = iter(stream)
        got = ""
        while got != "one two ":  # none of it waits for the end
            got += next(texts)
        rest.set()
        assert list(texts) == []
    finally:
        rest.set()
        thread.stop()
