"""A server of OpenAI's chat completions that breaks for one stage of one answer.

The server knows the stage of a request by marks in the prompts (`PROMPTS`) or by the model's name, and the answer by a
mark in the question. A fault is due for the questions with `BAD`; any other question is always answered well.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TITLES = ("Take breaks", "Move", "Drink water")
POINTS = tuple(f"All about how to {title.lower()}, told in so many words." for title in TITLES)
DIRECT = "Just so, and in no other way."
MERGED = "One text that tells of breaks, of moving and of water."
SKELETON = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
BAD, GOOD = "(marked)", "(spared)"
"""Marks in questions: the fault meets the first, and no other."""
ROUTE_MODEL = "route-model"
"""The name of the model that only routes."""
PROMPTS = {
    "skeleton": "[skeleton] {question}",
    "point": "[point {index}] {title}: {question}",
    "merge": "[merge] {question}\n\n{draft}",
}
"""Prompts by which the server knows the stages."""
FAULTY_POINT = 2
PATIENCE = 20.0
"""Seconds after which the server ends a request that its client left waiting, and notes it as `forgotten`."""
MOST_TEXT = 4 << 20
"""Characters of an endless text after which the server ends it, and notes it as `unbounded`."""
_HUGE = 2 << 20
"""Characters of a huge chunk."""
_STAGE = re.compile(r"\[(skeleton|merge|point (\d))\]")


@dataclass(frozen=True)
class Due:
    """A fault that is due.

    Attributes:
        fault: A method of `_Handler`, without `_fault_`; or `"refused"`, which the client's side sees to.
        stage: The stage whose requests it meets; of the points it is the second one.
        times: The number of requests that it meets.
    """

    fault: str
    stage: str
    times: int = 1_000_000


@dataclass
class Request:
    """A request as the server reads it."""

    stage: str
    point: int | None
    marked: bool
    streamed: bool


def read_request(body: dict[str, Any]) -> Request:
    """The stage of a request, and whether its question is marked."""
    texts = [text_of(message) for message in body["messages"]]
    asked = "\n".join(texts)
    found = _STAGE.search(texts[-1]) or _STAGE.search(asked)
    stage, point = (found[1], None) if found else ("direct", None)
    if found and found[2]:
        stage, point = "point", int(found[2])
    elif body.get("model") == ROUTE_MODEL:
        stage = "route"
    elif "were written separately" in asked:  # the command takes no prompt for a merge
        stage = "merge"
    return Request(stage, point, BAD in asked, bool(body.get("stream")))


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def written(request: Request) -> str:
    """The proper reply."""
    if request.point is not None:
        return POINTS[request.point - 1]
    return {"route": "INDEPENDENT", "skeleton": SKELETON, "merge": MERGED, "direct": DIRECT}[request.stage]


@dataclass
class Counts:
    """What a server has seen since the last `expect`.

    Attributes:
        stages: The stages of the requests.
        met: How many requests met the fault.
        forgotten: Requests that their client left waiting until the server ended them.
        unbounded: Endless texts that their client read until the server ended them.
    """

    stages: list[str] = field(default_factory=list)
    met: int = 0
    forgotten: int = 0
    unbounded: int = 0


class FaultServer(ThreadingHTTPServer):
    """Serves chat completions.

    Attributes:
        counts: What it has seen.
        open: The number of requests whose reply has not ended.
        mistakes: Errors of this file itself.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.due: Due | None = None
        self.counts = Counts()
        self.open = 0
        self.mistakes: list[BaseException] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultServer]:
        """Serves until the block ends."""
        thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="fault-server", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self.shutdown()
            thread.join()
            self.server_close()

    def expect(self, due: Due | None) -> None:
        """Sets the fault of the next answers, and forgets the counts."""
        with self.lock:
            self.due, self.counts = due, Counts()

    def is_due(self, request: Request) -> bool:
        """Whether the next request of this kind meets the fault."""
        due = self.due
        return (
            due is not None
            and request.marked
            and request.stage == due.stage
            and request.point in (None, FAULTY_POINT)
            and self.counts.met < due.times
        )

    def meet(self, request: Request) -> str | None:
        """Counts a request; returns the fault that it meets, if any."""
        with self.lock:
            self.counts.stages.append(request.stage)
            if not self.is_due(request):
                return None
            self.counts.met += 1
            assert self.due is not None
            return self.due.fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that hang up, which the cells provoke. Any other error is a mistake in this file."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError | ValueError):  # ValueError: it wrote to a closed file
            self.mistakes.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        self._whole(404, '{"error": {"message": "there is no such page"}}')

    def do_POST(self) -> None:
        self.close_connection = True
        with self.server.lock:
            self.server.open += 1
        try:
            # A client that is cancelled while it sends leaves half a request.
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.request_read = read_request(body)
            self.streamed = self.request_read.streamed
            self.counted = bool((body.get("stream_options") or {}).get("include_usage"))
            self.text = written(self.request_read)
            fault = self.server.meet(self.request_read)
            getattr(self, "_answer" if fault is None else f"_fault_{fault}")()
        finally:
            with self.server.lock:
                self.server.open -= 1

    # --- proper replies ---

    def _answer(self, finish: str | None = "stop", last: bytes = b"data: [DONE]\n\n", times: int = 1) -> None:
        """Sends the text; `times`, how often a stream says that it begins, that it ends, and why."""
        if not self.streamed:
            self._whole(200, self._completion(finish_reason=finish))
            return
        self._begin()
        for _ in range(times):
            self._chunk({"role": "assistant", "content": ""})
        self._deltas()
        for _ in range(times if finish else 0):
            self._chunk({}, finish)
        if self.counted:
            usage = {"prompt_tokens": 9, "completion_tokens": len(self.text) // 4, "total_tokens": 99}
            self._event({**self._frame("chat.completion.chunk"), "choices": [], "usage": usage})
        for _ in range(times if last else 0):
            self._send(last)
        self._end()

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": "chat-1", "object": kind, "created": 1, "model": "fake"}

    def _completion(self, **changes: Any) -> str:
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", **changes}
        return json.dumps({**self._frame("chat.completion"), "choices": [choice]})

    def _chunk(self, delta: Any, finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._event({**self._frame("chat.completion.chunk"), "choices": [choice]})

    def _event(self, data: Any) -> None:
        self._send(f"data: {json.dumps(data)}\n\n".encode())

    def _deltas(self) -> None:
        for piece in re.findall(r"\S+\s*|\s+", self.text):
            self._chunk({"content": piece})

    # --- on the wire ---

    def _whole(self, status: int, text: str | bytes, kind: str = "application/json", **headers: str) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        lines = {"Content-Type": kind, "Content-Length": str(len(data)), "Connection": "close", **headers}
        self._head(status, lines)
        self.wfile.write(data)

    def _begin(self, kind: str = "text/event-stream") -> None:
        self._head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked", "Connection": "close"})

    def _head(self, status: int, lines: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in lines.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _some(self) -> None:
        """Sends the first half of the reply: of a stream's text, or of a body's bytes."""
        if self.streamed:
            self._begin()
            self.text = self.text[: len(self.text) // 2]
            self._deltas()
        else:
            data = self._completion().encode()
            lines = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Connection": "close"}
            self._head(200, lines)
            self.wfile.write(data[: len(data) // 2])

    def _reset(self) -> None:
        # A linger time of zero resets the connection on close.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for part in (self.wfile, self.rfile, self.connection):
            part.close()

    def _wait(self) -> None:
        """Waits until the client hangs up."""
        until = time.monotonic() + PATIENCE
        while not self.server.stopping.is_set():
            if time.monotonic() > until:
                self.server.counts.forgotten += 1
                return
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    # --- faults ---

    def _refuse(self, status: int, **headers: str) -> None:
        error = {"message": f"refused with {status}", "type": "test", "code": None}
        self._whole(status, json.dumps({"error": error}), **headers)

    def _fault_busy(self) -> None:
        self._refuse(429)

    def _fault_busy_later(self) -> None:
        self._refuse(429, Retry_After="0.01")

    def _fault_broken(self) -> None:
        self._refuse(500)

    def _fault_unavailable(self) -> None:
        self._refuse(503)

    def _fault_silent(self) -> None:
        self._wait()

    def _fault_reset(self) -> None:
        self._reset()

    def _fault_reset_amid(self) -> None:
        self._some()
        self.wfile.flush()
        self._reset()

    def _fault_hung_up(self) -> None:
        self._some()

    def _fault_stalled(self) -> None:
        self._some()
        self._wait()

    def _fault_endless(self) -> None:
        """The text, and then more without an end; of a body, blanks."""
        if self.streamed:
            self._begin()
            self.text += "\n" if self.request_read.stage == "skeleton" else " "
            self._deltas()
            self._endless(lambda piece: self._chunk({"content": piece}))
        else:
            self._begin("application/json")
            self._endless(lambda piece: self._send(b" " * len(piece)))

    def _fault_trickle(self) -> None:
        """A word now and then, without an end, until the client hangs up."""
        self._begin("text/event-stream" if self.streamed else "application/json")
        until = time.monotonic() + PATIENCE
        while not self.server.stopping.wait(0.005):
            self._chunk({"content": "more "}) if self.streamed else self._send(b" ")
            if time.monotonic() > until:
                self.server.counts.forgotten += 1
                return

    def _endless(self, send: Any) -> None:
        sent = 0
        while not self.server.stopping.is_set() and sent < MOST_TEXT:
            # Large pieces reach a bound soon. Words differ, so that no guard against loops ends the text before.
            piece = "".join(f"more{sent + i} " for i in range(1000))
            send(piece)
            sent += len(piece)
            time.sleep(0.001)
        if sent >= MOST_TEXT:
            self.server.counts.unbounded += 1

    def _fault_garbage(self) -> None:
        if self.streamed:
            self._some()
            self._send(b"data: \xff\xfe no JSON\n\n")
            self._end()
        else:
            self._whole(200, b"\xff\xfe no JSON")

    def _fault_truncated(self) -> None:
        if self.streamed:
            self._some()
            self._send(b'data: {"id": "chat-1", "choices": [{"del\n\n')
            self._end()
        else:
            self._whole(200, self._completion()[:60])

    def _fault_html(self) -> None:
        self._whole(200, "<!doctype html>\n<title>Sign in</title>\n<p>Please sign in.\n", "text/html")

    def _fault_error_amid(self) -> None:
        error = {"error": {"message": "out of memory", "type": "server_error", "code": 500}}
        if self.streamed:
            self._some()
            self._event(error)
            self._send(b"data: [DONE]\n\n")
            self._end()
        else:
            self._whole(200, json.dumps(error))

    def _fault_cut(self) -> None:
        """A stream that ends after half of its text without any sign of an end; a body without its second half."""
        self._some()
        if self.streamed:
            self._end()

    def _fault_no_choices(self) -> None:
        if self.streamed:
            self._begin()
            self._event({**self._frame("chat.completion.chunk"), "choices": []})
            self._send(b"data: [DONE]\n\n")
            self._end()
        else:
            self._whole(200, json.dumps({**self._frame("chat.completion"), "choices": []}))

    def _fault_null(self) -> None:
        self._without_text(None)

    def _fault_empty(self) -> None:
        self._without_text("")

    def _without_text(self, content: str | None) -> None:
        if not self.streamed:
            message = {"role": "assistant", "content": content}
            self._whole(200, self._completion(message=message))
            return
        self._begin()
        self._chunk({"role": "assistant", "content": content})
        self._chunk({"content": content}, "stop")
        self._send(b"data: [DONE]\n\n")
        self._end()

    def _fault_length(self) -> None:
        self.text = self.text[: self.text.rindex(" ") if " " in self.text else 3]
        self._answer("length")

    def _fault_filtered(self) -> None:
        self.text = self.text[: self.text.rindex(" ") if " " in self.text else 3]
        self._answer("content_filter")

    def _fault_no_reason(self) -> None:
        self._answer(None)

    def _fault_no_mark(self) -> None:
        self._answer(last=b"")

    def _fault_duplicates(self) -> None:
        self._answer(times=2)

    def _fault_tiny(self) -> None:
        if not self.streamed:
            self._answer()
            return
        self._begin()
        for letter in self.text:
            self._chunk({"content": letter})
        self._chunk({}, "stop")
        self._send(b"data: [DONE]\n\n")
        self._end()

    def _fault_one_chunk(self) -> None:
        if not self.streamed:
            self._answer()
            return
        self._begin()
        self._chunk({"role": "assistant", "content": self.text}, "stop")
        self._send(b"data: [DONE]\n\n")
        self._end()

    def _fault_huge(self) -> None:
        """The text, and then very much more, in one chunk."""
        words = "".join(f" more{i}" for i in range(_HUGE // 8))
        self.text += "\n" + words if self.request_read.stage == "skeleton" else words
        self._fault_one_chunk()
