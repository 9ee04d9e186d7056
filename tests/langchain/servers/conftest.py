"""A scripted server for `ChatOpenAI` that injects faults. `tests/conftest.py` starts llama.cpp's."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from scripted_calls import Watch

pytest.importorskip("langchain_openai", reason="the client is not installed: pip install langchain-openai")

import openai
from langchain_openai import ChatOpenAI

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0
"""Seconds after which a wait fails the test, so that the test does not hang."""
TITLES = ("Take breaks", "Move", "Drink water")


# --- a server with faults ---------------------------------------------------------------------


@dataclass
class Fault:
    """A fault in the requests for a point.

    Attributes:
        kind: The name of a method of `Handler`, without `_fault_`.
        times: The number of requests that fail. Later ones get a proper reply.
        headers: Added to the reply.
    """

    kind: str
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """One request that the server received.

    Attributes:
        stage: `"skeleton"`, `"point"` or `"direct"`.
        point: The point's number.
        path: The path and query.
        body: The JSON.
        headers: The headers, lower case.
    """

    stage: str
    point: int | None
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class FaultServer(Watch, ThreadingHTTPServer):
    """Serves chat completions and the Responses API by a script.

    Attributes:
        faults: Faults by the number of a point, or by `"skeleton"` or `"direct"`.
        holds: By the same keys, the condition that the server waits for before it replies.
        seen: All requests.
        open: The number of requests whose reply has not ended.
        peak: The highest number of open requests.
        usage: The tokens that the replies reported: input, output.
        width: How many requests it serves at a time; it refuses others with 429. None for any number.
        refused: The number of requests that it refused so.
        ends: Whether streams end with `[DONE]`.
        echo: Whether whole replies repeat the start of the turn that the request ended with.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        Watch.__init__(self)
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.faults: dict[Any, Fault] = {}
        self.holds: dict[Any, Callable[[], bool]] = {}
        self.usage = [0, 0]
        self.width: int | None = None
        self.refused = self.served = 0
        self.ends = True
        self.echo = True
        self.stopping = threading.Event()
        self.mistakes: list[Any] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that hang up, which the tests provoke. Any other error is a mistake in this file."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError | ValueError):  # ValueError: it wrote to a closed file
            self.mistakes.append(error)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = body.get("messages") or as_messages(body["input"])
        stage, point = stage_of([text_of(m) for m in messages if m["role"] == "user"][-1])
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(stage, point, self.path, body, headers)
        self.close_connection = True
        with self.server.call(request):
            self.streamed = bool(body.get("stream"))
            self.text = written(stage, point)
            if messages[-1]["role"] == "assistant":
                start = text_of(messages[-1])
                own = " " + self.text.removeprefix(start.split("\n")[-1]).lstrip()
                self.text = start + own if self.server.echo and not self.streamed else own
            self.newer = self.path.split("?")[0].endswith("/responses")
            self.counted = self.streamed is False or bool((body.get("stream_options") or {}).get("include_usage"))
            self.request_body = body
            key = point or stage
            if self.server.width is not None:
                self._serve_within(self.server.width, stage)
                return
            if hold := self.server.holds.get(key):
                self._wait(hold)
            fault = self.server.faults.get(key)
            if fault is not None and len(self.server.of(stage, point)) <= fault.times:
                self.extra = fault.headers
                getattr(self, f"_fault_{fault.kind}")()
            elif self.newer:
                self._respond()
            else:
                self._answer()

    def _serve_within(self, width: int, stage: str) -> None:
        """Answers the request, or refuses it if the server serves as many already."""
        with self.server.lock:
            full = self.server.served >= width
            self.server.refused += full
            self.server.served += not full
        if full:
            self.extra = {"Retry-After": "0.02"}
            self._refuse(429)
            return
        try:
            if stage == "point":  # so that the points meet, however slowly their threads start
                self._wait(lambda: self.server.refused > 0)
            time.sleep(0.005)
            self._answer()
        finally:
            with self.server.lock:
                self.server.served -= 1

    # --- proper replies ---

    def _answer(self) -> None:
        if not self.streamed:
            self._whole(200, json.dumps(self._completion()))
            return
        self._begin()
        self._deltas()
        self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        if self.counted:
            self._chunk([], usage=self._usage())
        self._end(b"data: [DONE]\n\n" if self.server.ends else b"")

    def _completion(self, **changes: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
        return {**self._frame("chat.completion"), "choices": [choice], "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        asked, wrote = len(json.dumps(self.request_body)) // 4, len(pieces(self.text))
        with self.server.lock:
            self.server.usage[0] += asked
            self.server.usage[1] += wrote
        details = {"cached_tokens": asked // 2}
        if self.newer:
            return {
                "input_tokens": asked,
                "output_tokens": wrote,
                "total_tokens": asked + wrote,
                "input_tokens_details": details,
                "output_tokens_details": {"reasoning_tokens": 0},
            }
        return {
            "prompt_tokens": asked,
            "completion_tokens": wrote,
            "total_tokens": asked + wrote,
            "prompt_tokens_details": details,
        }

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": "chat-1", "object": kind, "created": 1, "model": "fake"}

    def _chunk(self, choices: list[Any], **fields: Any) -> None:
        chunk = {**self._frame("chat.completion.chunk"), "choices": choices, **fields}
        self._send(f"data: {json.dumps(chunk)}\n\n".encode())

    def _delta(self, text: str) -> None:
        self._chunk([{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}])

    def _deltas(self) -> None:
        """Sends the text, a piece at a time."""
        for piece in pieces(self.text):
            self._delta(piece)

    # --- the Responses API ---

    def _respond(self, status: str = "completed", reason: str | None = None) -> None:
        part = {"type": "output_text", "text": self.text, "annotations": []}
        item = {"type": "message", "id": "msg-1", "role": "assistant", "status": status, "content": [part]}
        thought = {"type": "reasoning", "id": "rs-1", "summary": [{"type": "summary_text", "text": "1. A thought"}]}
        whole = {
            "id": "resp-1", "object": "response", "created_at": 1, "model": "fake", "status": status,
            "incomplete_details": {"reason": reason} if reason else None, "output": [thought, item],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": self._usage(),
        }  # fmt: skip
        if not self.streamed:
            self._whole(200, json.dumps(whole))
            return
        self._begin()
        where = self._created()
        self._event("response.output_item.added", output_index=0, item={**thought, "summary": []})
        self._event("response.reasoning_summary_part.added", output_index=0, item_id="rs-1", summary_index=0,
                    part={"type": "summary_text", "text": ""})  # fmt: skip
        self._event("response.reasoning_summary_text.delta", output_index=0, item_id="rs-1", summary_index=0,
                    delta="1. A thought")  # fmt: skip
        self._event("response.output_item.added", output_index=1, item={**item, "content": []})
        for piece in pieces(self.text):
            self._event("response.output_text.delta", delta=piece, logprobs=[], **where)
        self._event("response.output_text.done", text=self.text, logprobs=[], **where)
        self._event(f"response.{status}", response=whole)
        self._end(b"")

    def _created(self) -> dict[str, Any]:
        begun = {
            "id": "resp-1", "object": "response", "created_at": 1, "model": "fake", "status": "in_progress",
            "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        }  # fmt: skip
        self._event("response.created", response=begun)
        return {"output_index": 1, "item_id": "msg-1", "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> None:
        data = json.dumps({"type": kind, "sequence_number": 0, **fields})
        self._send(f"event: {kind}\ndata: {data}\n\n".encode())

    def _fault_incomplete(self) -> None:
        self.text = self.text[: self.text.rindex(" ")]
        self._respond("incomplete", "max_output_tokens")

    # --- on the wire ---

    def _whole(self, status: int, text: str, kind: str = "application/json", **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _begin(self, kind: str = "text/event-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _end(self, last: bytes) -> None:
        if last:
            self._send(last)
        self.wfile.write(b"0\r\n\r\n")

    def _wait(self, condition: Callable[[], bool] = lambda: False) -> bool:
        """Waits for the condition; returns False when the client has hung up."""
        while not self.server.stopping.is_set() and not condition():
            readable, _, _ = select.select([self.connection], [], [], 0.005)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
        return True

    # --- faults ---

    def _some(self) -> None:
        """Sends the first words of the reply."""
        if self.streamed:
            self._begin()
            where = self._created() if self.newer else {}
            for piece in pieces(self.text)[:2]:
                if self.newer:
                    self._event("response.output_text.delta", delta=piece, logprobs=[], **where)
                else:
                    self._delta(piece)
        else:
            self._begin("application/json")
            self._send(json.dumps(self._completion()).encode()[:60])

    def _refuse(self, status: int) -> None:
        error = {"message": f"refused with {status}", "type": "test", "code": None}
        self._whole(status, json.dumps({"error": error}), **self.extra)

    def _fault_429(self) -> None:
        self._refuse(429)

    def _fault_500(self) -> None:
        self._refuse(500)

    def _fault_reset(self) -> None:
        self._some()
        # A linger time of zero resets the connection on close.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for part in (self.wfile, self.rfile, self.connection):
            part.close()

    def _fault_hang_up(self) -> None:
        self._some()

    def _fault_cut(self) -> None:
        self._some()
        self._end(b"")

    def _fault_stall(self) -> None:
        self._some()
        self._wait()

    def _fault_silence(self) -> None:
        self._wait()

    def _fault_garbage(self) -> None:
        if self.streamed:
            self._some()
            self._send(b"data: \xff\xfe<html>no JSON</html>\n\n")
            self._end(b"data: [DONE]\n\n")
        else:
            self._whole(200, "<html>no JSON</html>", "text/html")

    def _fault_truncated(self) -> None:
        if self.streamed:
            self._some()
            self._send(b'data: {"id": "chat-1", "choices": [{"del\n\n')
            self._end(b"")
        else:
            self._whole(200, json.dumps(self._completion())[:60])

    def _fault_error(self) -> None:
        if self.streamed:
            self._some()
            self._send(b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')
            self._end(b"data: [DONE]\n\n")
        else:
            self._whole(200, '{"error": {"message": "out of memory", "code": 500}}')

    def _fault_endless(self) -> None:
        self._begin()
        while not self.server.stopping.wait(0.001):
            self._delta("more ")

    def _fault_empty(self) -> None:
        if self.streamed:
            self._begin()
            self._end(b"data: [DONE]\n\n")
        else:
            self._whole(200, json.dumps({**self._frame("chat.completion"), "choices": []}))

    def _fault_blank_choices(self) -> None:
        """Sends one chunk without choices, and no other."""
        if not self.streamed:
            self._fault_empty()
            return
        self._begin()
        self._chunk([])
        self._end(b"data: [DONE]\n\n")

    def _fault_null_content(self) -> None:
        """Sends null in place of the text, and a proper end."""
        message = {"role": "assistant", "content": None}
        if not self.streamed:
            self._whole(200, json.dumps(self._completion(message=message)))
            return
        self._begin()
        self._chunk([{"index": 0, "delta": message, "finish_reason": None}])
        self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self._end(b"data: [DONE]\n\n")

    def _fault_blank_stop(self) -> None:
        """Sends a proper reply without text."""
        self.text = ""
        self._answer()

    def _fault_no_reason(self) -> None:
        """Reports the usage but no reason for the end."""
        self._begin()
        self._deltas()
        self._chunk([], usage=self._usage())
        self._end(b"data: [DONE]\n\n")

    def _fault_null_delta(self) -> None:
        """Ends with a reason beside `"delta": null`, which the client drops."""
        self._ending([{"index": 0, "delta": None, "finish_reason": "stop"}])

    def _fault_empty_choices(self) -> None:
        """Ends with a chunk without choices."""
        self._ending([])

    def _fault_no_end(self) -> None:
        """Ends without a word on the end."""
        self._ending(None)

    def _ending(self, choices: list[Any] | None) -> None:
        if not self.streamed:
            self._whole(200, json.dumps(self._completion()))
            return
        self._begin()
        self._deltas()
        if choices is not None:
            self._chunk(choices)
        self._end(b"data: [DONE]\n\n")

    def _fault_usage_at_the_finish(self) -> None:
        """Sends the usage with the last choice, and no `[DONE]`."""
        self._begin()
        self._deltas()
        self._chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=self._usage())
        self._end(b"")

    def _fault_length(self) -> None:
        self.text = self.text[: self.text.rindex(" ")]
        if not self.streamed:
            self._whole(200, json.dumps(self._completion(finish_reason="length")))
            return
        self._begin()
        self._deltas()
        self._chunk([{"index": 0, "delta": {}, "finish_reason": "length"}])
        self._end(b"data: [DONE]\n\n")


def pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def as_messages(value: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def stage_of(asked: str) -> tuple[str, int | None]:
    if found := re.search(r'under the heading "(.*?)"|explain: (.*)$', asked):
        return "point", TITLES.index(found[1] or found[2]) + 1
    return ("skeleton" if "Write only the headings" in asked else "direct"), None


def written(stage: str, point: int | None) -> str:
    if stage == "skeleton":
        return "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
    return f"All about {TITLES[point - 1].lower()}, in so many words." if point else "Just so."


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield served
        served.stopping.set()
        served.shutdown()
        thread.join()
    assert not served.mistakes


@pytest.fixture
def fault() -> type[Fault]:
    return Fault


@pytest.fixture
async def nothing_left(server: FaultServer, clients: dict[str, Any], eventually: Any) -> AsyncIterator[None]:
    """Checks after the test, before its clients close, that no call is open on either side."""
    yield
    await eventually(lambda: server.open == 0, "the server sees every connection closed")
    threads = threading.enumerate
    await eventually(
        lambda: not [t for t in threads() if t.name.startswith("sot-") and t.is_alive()], "every call's thread ends"
    )


@pytest.fixture
async def clients() -> AsyncIterator[dict[str, Any]]:
    """HTTP clients for one test. LangChain's own are shared by all tests, whose event loops close."""
    sync, asynchronous = openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient()
    yield {"http_client": sync, "http_async_client": asynchronous}
    sync.close()
    await asynchronous.aclose()


@pytest.fixture
def chat(clients: dict[str, Any]) -> Callable[..., ChatOpenAI]:
    """`chat(address, **settings)`: a `ChatOpenAI` without retries."""

    def make(address: str, **settings: Any) -> ChatOpenAI:
        known = {"model": "model", "api_key": "none", "max_retries": 0, **clients}
        return ChatOpenAI(**{**known, "base_url": f"{address}/v1", **settings})

    return make
