"""A web server for tests, on a free port of this machine: on the event loop of the test, or in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import uvicorn

__all__ = ["ServerThread", "events_of", "serving", "serving_apart", "text_of"]

PATIENCE = 30.0


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Runs an ASGI app under uvicorn; gives the address, such as `http://127.0.0.1:43021`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", ws="none", http="h11", timeout_graceful_shutdown=5)
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


class ServerThread:
    """A server with a thread and an event loop of its own, for clients that block theirs.

    Args:
        url: Its address.
        loop: Its event loop.
    """

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self.url, self._loop = url, loop

    @property
    def base_url(self) -> str:
        """The base URL for clients."""
        return f"{self.url}/v1"

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    def do(self, function: Callable[[], object]) -> None:
        """Calls a function on the server's loop, such as `gate.set`."""
        self._loop.call_soon_threadsafe(function)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits until something holds on the server."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"this never came: {what}"
            time.sleep(0.002)


@contextlib.contextmanager
def serving_apart(opened: Callable[[], contextlib.AbstractAsyncContextManager[Any]]) -> Iterator[ServerThread]:
    """Runs a server in a thread of its own; `opened()` gives its ASGI app, on its loop."""
    begun: queue.SimpleQueue[Any] = queue.SimpleQueue()

    async def run() -> None:
        stop = asyncio.Event()
        async with opened() as app, serving(app) as url:
            loop = asyncio.get_running_loop()
            begun.put((ServerThread(url, loop), stop))
            await stop.wait()

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            begun.put(error)

    thread = threading.Thread(target=target)
    thread.start()
    started = begun.get()
    if isinstance(started, BaseException):
        thread.join()
        raise started
    server, stop = started
    try:
        yield server
    finally:
        server.do(stop.set)
        thread.join()
    if not begun.empty():
        raise begun.get()


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
