"""A server of OpenAI's chat completions for many questions: each has a number, and each request is kept by it."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any

from quiet_server import QuietServer

TITLES = ("Take breaks", "Move", "Drink water")
SKELETON = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
CALLS = 1 + len(TITLES)
"""Calls of an answer by points."""
BAD = "(bad)"
"""Marks a question that the server refuses."""
PROMPTS = {"skeleton": "[skeleton] {question}", "point": "[point {index}] {title}: {question}"}


def question(number: int, mark: str = "") -> str:
    return f"How does number {number} stay well at work? {mark}".strip()


class NumberedServer(QuietServer):
    """Serves until the block ends.

    Attributes:
        asked: How often each question's number was in a request.
        open: The requests that are being answered.
        most: The most of them at any time.
        delay: Seconds that a reply takes.
        gate: Replies wait for it.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay = delay
        self.gate = threading.Event()
        self.gate.set()
        self.asked: Counter[int] = Counter()
        self.open = self.most = 0
        self.lock = threading.Lock()

    @property
    def model(self) -> str:
        """For `--model`."""
        return f"openai:fake@http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> NumberedServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: NumberedServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        last = str(body["messages"][-1]["content"])
        number = re.search(r"number (\d+)", last)
        assert number is not None, last
        with server.lock:
            server.asked[int(number[1])] += 1
            server.open += 1
            server.most = max(server.most, server.open)
        try:
            server.gate.wait(30)
            threading.Event().wait(server.delay)
            if BAD in last:
                self._send(400, "application/json", json.dumps({"error": {"message": "I refuse this"}}))
            else:
                self._send(
                    200, "text/event-stream", _stream(SKELETON if "[skeleton]" in last else f"Said of {number[1]}.")
                )
        finally:
            with server.lock:
                server.open -= 1

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _stream(text: str) -> str:
    frame = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    usage = {"prompt_tokens": 9, "completion_tokens": len(text) // 4, "total_tokens": 99}
    chunks = [
        *({**frame, "choices": [{"index": 0, "delta": {"content": word}}]} for word in re.findall(r"\S+\s*", text)),
        {**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**frame, "choices": [], "usage": usage},
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
