"""The clients of the frameworks, on the fault server.

Every HTTP client here has a hook. It gives a request that meets a fault without an end a short timeout, and sends one
that is to be refused to a closed port. So the timeout of all other requests can be long, for a machine that is busy.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fault_matrix.cells import WAITS
from fault_matrix.server import ROUTE_MODEL, FaultServer, read_request

LONG = 60.0
"""The timeout of a client, in seconds, where nothing is to time out."""
SHORT = 0.4
"""The timeout of a request that meets a fault without an end."""
AFTER_THE_POINTS = 4.5
"""The same where `point_timeout` is what has to end it. A thread cannot: it waits for the client's timeout."""


@dataclass
class Steering:
    """What the hook does to requests."""

    server: FaultServer
    timeout: float = SHORT

    def __post_init__(self) -> None:
        # A bound port that does not listen refuses every connection, and no other process can get it.
        self._closed = socket.socket()
        self._closed.bind(("127.0.0.1", 0))

    def close(self) -> None:
        self._closed.close()

    def steer(self, request: Any) -> None:
        if request.method != "POST":
            return
        read = read_request(json.loads(request.content))
        if not self.server.is_due(read):
            return
        fault = self.server.due.fault if self.server.due else ""
        if fault == "refused":
            self.server.meet(read)
            request.url = request.url.copy_with(port=self._closed.getsockname()[1])
        elif fault in WAITS:
            # An adapter may have set a shorter one, which has to do.
            given = request.extensions.get("timeout", {}).get("read") or self.timeout
            kinds = ("connect", "read", "write", "pool")
            request.extensions["timeout"] = dict.fromkeys(kinds, min(given, self.timeout))

    async def asteer(self, request: Any) -> None:
        self.steer(request)

    def sync_hooks(self) -> dict[str, list[Callable[..., Any]]]:
        return {"request": [self.steer]}

    def async_hooks(self) -> dict[str, list[Callable[..., Any]]]:
        return {"request": [self.asteer]}


@contextlib.contextmanager
def sync_client(steering: Steering) -> Iterator[Any]:
    """An HTTP client of the installed openai, for threads."""
    import openai

    with openai.DefaultHttpxClient(event_hooks=steering.sync_hooks(), timeout=LONG, verify=False) as client:
        yield client


@contextlib.asynccontextmanager
async def async_client(steering: Steering) -> AsyncIterator[Any]:
    """The same for an event loop."""
    import openai

    async with openai.DefaultAsyncHttpxClient(event_hooks=steering.async_hooks(), timeout=LONG, verify=False) as client:
        yield client


def chat_openai(steering: Steering, *, sync: Any = None, asynchronous: Any = None, route: bool = False) -> Any:
    """LangChain's client, without retries of its own."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=ROUTE_MODEL if route else "model",
        api_key="none",
        base_url=steering.server.address,
        max_retries=0,
        timeout=LONG,
        http_client=sync,
        http_async_client=asynchronous,
    )


def open_ai_like(steering: Steering, *, sync: Any = None, asynchronous: Any = None, route: bool = False) -> Any:
    """LlamaIndex's client, without retries of its own."""
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model=ROUTE_MODEL if route else "model",
        api_key="none",
        api_base=steering.server.address,
        is_chat_model=True,
        context_window=8192,
        max_retries=0,
        timeout=LONG,
        http_client=sync,
        async_http_client=asynchronous,
    )


@contextlib.contextmanager
def command_client(steering: Steering) -> Iterator[None]:
    """Makes the client of `sot`, which has no options for it, like the others."""
    import openai

    original = openai.AsyncOpenAI

    class Steered(original):  # type: ignore[misc, valid-type]
        def __init__(self, **settings: Any) -> None:
            client = openai.DefaultAsyncHttpxClient(event_hooks=steering.async_hooks(), timeout=LONG, verify=False)
            super().__init__(**{"max_retries": 0, "timeout": LONG, "http_client": client, **settings})

    openai.AsyncOpenAI = Steered  # type: ignore[misc]
    try:
        yield
    finally:
        openai.AsyncOpenAI = original  # type: ignore[misc]
