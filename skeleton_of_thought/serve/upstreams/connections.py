"""Requests whose cancellation leaves no connection behind."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

__all__ = ["CancellingClient"]

_READY = ".send_request_headers.started"
_CONNECTING = (".connect_tcp.started", ".start_tls.started")
"""Events of httpcore: from one of the latter to the former, a connection may be open although nothing uses it yet."""


class CancellingClient:
    """A mixin for `httpx.AsyncClient`, and for that of the openai SDK, which is one of httpx2 since its version 3.

    httpcore keeps a connection for ever if its request is cancelled at two moments: after the connection was opened and
    before it is used, and while its response is being closed. So a request is sent in a task of its own: if it is
    cancelled while it connects, its caller goes at once, and the task ends when it could send. A response is closed in
    a task of its own, too.
    """

    async def send(self, request: Any, **options: Any) -> Any:
        """Sends a request."""
        client: Any = super()
        ready = left = False
        given = request.extensions.get("trace")

        async def trace(event: str, info: Mapping[str, Any]) -> None:
            nonlocal ready
            if given is not None:
                await given(event, info)
            if event.endswith(_CONNECTING):
                ready = False
            elif event.endswith(_READY):
                ready = True
                if left:
                    raise asyncio.CancelledError

        request.extensions = {**request.extensions, "trace": trace}
        task = asyncio.create_task(client.send(request, **options))
        try:
            response = await asyncio.shield(task)
        except asyncio.CancelledError:
            left = True
            if ready:
                task.cancel()
            ending = self._kept(_end(task))
            if ready:
                await asyncio.shield(ending)
            raise
        close = response.stream.aclose

        async def aclose() -> None:
            await asyncio.shield(self._kept(close()))

        response.stream.aclose = aclose
        return response

    def _kept(self, ending: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Starts the end of a request, which no cancellation breaks off."""
        task = asyncio.ensure_future(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task

    @property
    def _endings(self) -> set[asyncio.Future[None]]:
        """The ends that are on their way."""
        own: set[asyncio.Future[None]] = self.__dict__.setdefault("endings of sot", set())
        return own

    async def aclose(self) -> None:
        """Closes all connections, those included that are being opened."""
        client: Any = super()
        try:
            await client.aclose()
        finally:
            while self._endings:
                for ending in self._endings:
                    ending.cancel()
                await asyncio.wait(self._endings)


async def _end(task: asyncio.Task[Any]) -> None:
    """Waits for the end of a request that was left, and closes its response if it has come all the same."""
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        await task.result().aclose()
