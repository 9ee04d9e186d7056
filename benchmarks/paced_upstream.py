"""A chat model of known pace behind OpenAI's protocol, in a process of its own; `benchmarks/serve.py` starts it.

    python benchmarks/paced_upstream.py

The first line on standard output is its address. Each request says in a field `pace` how its reply is written:

    {"tokens": 100, "seconds": 2.0}                                a text; 0 seconds for as fast as it can be sent
    {"points": [1.0, 2.0], "tokens": 50, "skeleton": 0.5}          for an answer by points: seconds of each point, its
                                                                   tokens, and seconds of the skeleton

Prompts are told apart by their beginnings, those of `PROMPTS`. Tokens are due at even distances, so that a delay of one
does not add to that of the next. `GET /stats` tells how many requests are open, and since the last time: how many
there were at most, how many callers left early, and each call that was made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from typing import Any

import uvicorn

__all__ = ["PROMPTS", "WORD"]

PROMPTS = {"outline_prompt": "Skeleton of: {request}", "point_prompt": "Point {point} of: {request}\n{outline}"}
"""The prompts of answers by points, as a file for `--prompts`."""
WORD = "word "
"""A token."""
_POINT = re.compile(r"Point (\d+) of: ")
_KEPT_ALIVE = 2
"""Seconds that an idle connection is kept."""


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    about = {"id": "chatcmpl-paced", "object": "chat.completion.chunk", "created": 1, "model": "paced"}
    return b"data: %b\n\n" % json.dumps({**about, "choices": [choice]}, separators=(",", ":")).encode()


_FIRST, _WORD, _LAST = _chunk({"role": "assistant", "content": ""}), _chunk({"content": WORD}), _chunk({}, "stop")


def _reply(body: dict[str, Any]) -> tuple[str, list[str], float]:
    """What a request is for, and its reply: the tokens, and the seconds from the first to the last."""
    text, pace = body["messages"][-1]["content"], body["pace"]
    if text.startswith("Skeleton of: "):
        lines = [f"{i}. Matter number {i}\n" for i in range(1, len(pace["points"]) + 1)]
        return "skeleton", lines, pace["skeleton"]
    if found := _POINT.match(text):
        return f"point {found[1]}", [WORD] * pace["tokens"], pace["points"][int(found[1]) - 1]
    return "text", [WORD] * pace["tokens"], pace["seconds"]


class PacedUpstream:
    """The ASGI app."""

    def __init__(self) -> None:
        self._open = 0
        self._new_stats()

    def _new_stats(self) -> None:
        self._most, self._left, self._calls = self._open, 0, list[dict[str, Any]]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request. A caller that leaves ends its reply."""
        if scope["type"] != "http":
            return
        if scope["path"] == "/stats":
            stats = {"open": self._open, "most": self._most, "left": self._left, "calls": self._calls}
            self._new_stats()
            await _send_json(send, stats)
            return
        if scope["path"] != "/v1/chat/completions":  # the server asks what is behind an address
            await _send_json(send, {"error": {"message": "There is no such path."}}, 404)
            return
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message.get("body", b""), message.get("more_body", False)
        body = json.loads(content)
        self._open += 1
        self._most = max(self._most, self._open)
        working = asyncio.ensure_future(self._write(body, send))
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            self._left += not working.done()
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.wait({working, leaving})
            self._open -= 1
        if not working.cancelled():
            working.result()

    async def _write(self, body: dict[str, Any], send: Any) -> None:
        kind, tokens, seconds = _reply(body)
        call = {"kind": kind, "began": time.monotonic(), "ended": None}
        self._calls.append(call)
        if body.get("stream"):
            await _stream(send, tokens, seconds)
        else:
            await asyncio.sleep(seconds)
        call["ended"] = time.monotonic()
        if body.get("stream"):
            await send({"type": "http.response.body", "body": _LAST + b"data: [DONE]\n\n"})
            return
        message = {"role": "assistant", "content": "".join(tokens)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await _send_json(send, {"id": "chatcmpl-paced", "object": "chat.completion", "created": 1, "model": "paced",
                                "choices": [choice]})  # fmt: skip


async def _stream(send: Any, tokens: list[str], seconds: float) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _FIRST, "more_body": True})
    began = time.monotonic()
    for i, token in enumerate(tokens, 1):
        chunk = _WORD if token == WORD else _chunk({"content": token})
        if seconds:
            await asyncio.sleep(max(0.0, began + seconds * i / len(tokens) - time.monotonic()))
        elif i % 16 == 0:
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _send_json(send: Any, value: Any, status: int = 200) -> None:
    content = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def main() -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of callers that left
    # asyncio sends small parts at once only if the socket names its protocol.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(PacedUpstream(), log_level="critical", ws="none", lifespan="off", access_log=False,
                                timeout_keep_alive=_KEPT_ALIVE, timeout_graceful_shutdown=1)  # fmt: skip
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
