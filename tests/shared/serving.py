"""A web server for tests, on a free port of this machine and on the event loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import uvicorn

__all__ = ["events_of", "serving", "text_of"]


@contextlib.asynccontextmanager
async def serving(app: Any, http: Any = "h11") -> AsyncIterator[str]:
    """Runs an ASGI app under uvicorn, by its protocol `http`; gives the address, such as `http://127.0.0.1:43021`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", ws="none", http=http, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            assert not running.done(), "the server has not started"
            await asyncio.sleep(0.001)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def events_of(stream: str) -> list[Any]:
    """The events of a stream: chunks as data, `[DONE]` and comments as text."""
    assert stream.endswith("\n\n") or not stream, "the last event is not complete"
    events: list[Any] = []
    for block in stream.split("\n\n")[:-1]:
        name, _, data = block.partition(": ")
        assert "\n" not in block, "each event is one line"
        assert name in ("data", ""), block
        events.append(json.loads(data) if data.startswith("{") else data if name else f":{data}")
    return events


def text_of(events: list[Any]) -> str:
    """The content of all chunks."""
    chunks: list[Mapping[str, Any]] = [event for event in events if isinstance(event, dict)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))
