"""A server of chat completions in the process of the test, for commands that run in another one.

with CompletionServer() as server:                     # openai:NAME@{server.address} for NAME of any model
    server.reply = lambda asked, model: "a text"       # by default a skeleton, or a text about the question
    server.gate.clear()                                # holds replies until it is set
    server.status = 500                                # refuses requests
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from quiet_server import QuietServer

SKELETON = "1. Keep a schedule\n2. Dim the lights\n3. Cool the room\n"
PATIENCE = 60.0


def usual(asked: str, model: str) -> str:
    if "Write only the headings" in asked:
        return SKELETON
    return f"It helps to think about this with care ({len(asked)}), since a habit needs some weeks to form."


class CompletionServer(QuietServer):
    """Counts the requests that it gets and those that it has answered.

    Attributes:
        reply: The text for the messages of a request and its model.
        gate: Replies wait for it.
        status: The status of every reply.
        asked: The messages of all requests as text, with the model.
        bodies: The bodies of all requests.
        answered: The number of replies that have been sent whole.
        usage: Whether replies have tokens.
    """

    request_queue_size = 128

    def __init__(self, reply: Callable[[str, str], str] = usual) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.gate = threading.Event()
        self.gate.set()
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.answered = 0
        self.usage = True
        self.changed = threading.Condition()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self.shutdown()
        self.server_close()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds that a request or a reply may bring about."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE)


def _vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count("e")), 1.0]


class _Handler(BaseHTTPRequestHandler):
    server: CompletionServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = "\n".join(str(message["content"]) for message in body.get("messages", ()))
        with server.changed:
            server.asked.append((asked, body["model"]))
            server.bodies.append(body)
            server.changed.notify_all()
        server.gate.wait(PATIENCE)
        if server.status != 200:
            self._send(server.status, "application/json", '{"error": {"message": "refused by script"}}')
            return
        if self.path.endswith("/embeddings"):
            vectors = [
                {"object": "embedding", "index": at, "embedding": _vector(text)}
                for at, text in enumerate(body["input"])
            ]
            self._send(200, "application/json", json.dumps({"object": "list", "model": body["model"], "data": vectors}))
            return
        text = server.reply(asked, body["model"])
        tokens = {"prompt_tokens": len(asked) // 4, "completion_tokens": len(text) // 4}
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": text}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        ]
        if server.usage:
            chunks.append({"choices": [], "usage": {**tokens, "total_tokens": sum(tokens.values())}})
        head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        lines = [json.dumps({**head, **chunk}) for chunk in chunks]
        self._send(200, "text/event-stream", "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]))
        with server.changed:
            server.answered += 1
            server.changed.notify_all()

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
