"""The connections of clients: how many there may be, and for how long they may neither send nor read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from skeleton_of_thought.serve.access import refusing
from skeleton_of_thought.serve.chunks import json_bytes
from skeleton_of_thought.serve.errors import ServeError

__all__ = ["BoundedProtocol"]

logger = logging.getLogger(__name__)

_Base: Any = AutoHTTPProtocol
_TO_SEND = 30.0
"""Seconds from a connection's beginning, or from the first byte of a later request, to the end of the headers."""
_TO_READ = 60.0
"""Seconds within which a client reads what fills the buffers of its connection."""
_TOLD = 100
"""Connections past the bound that get an error in answer to their request; further ones are closed at once."""
_TO_BE_TOLD = 5.0
"""Seconds that their headers may take."""


def _no_request() -> bytes:
    error = ServeError("This is no request of HTTP/1.1 that the server can read.", code="invalid_request")
    body = json_bytes(error.to_dict())
    head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


_NO_REQUEST = _no_request()
_FULL = ServeError(
    "The server has too many connections: end some, or try again later.",
    503,
    "server_error",
    code="too_many_connections",
    retry_after=1,
)


class BoundedProtocol(_Base):  # type: ignore[misc]
    """uvicorn's protocol, which by itself waits for ever for headers, and for a client that does not read.

    Bodies have a limit of their own, see `skeleton_of_thought.serve.access`.

    Args:
        args: Those of uvicorn's protocol; so are `options`.
        most: The most connections that are open at a time; requests on further ones are refused.
    """

    def __init__(self, *args: Any, most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._most = most
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        past = len(self.connections) - self._most
        if past > _TOLD:
            logger.warning("A connection was closed: %d are open.", len(self.connections) - 1)
            transport.abort()
            return
        if past > 0:
            # Not at once: a client that is still sending its request when the connection ends does not see an error.
            self.app = refusing(_FULL)
        self._sending = self._later(_TO_SEND if past <= 0 else _TO_BE_TOLD, transport.close)

    def send_400_response(self, msg: str) -> None:
        """What has come is no request. uvicorn would answer with plain text, also within a response that has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_NO_REQUEST)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes have come: a part of the headers or of a body."""
        super().data_received(data)
        # A request that has its headers has a cycle; what comes after its response belongs to the next one.
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_sending()
        elif self._sending is None:
            self._sending = self._later(_TO_SEND, self.transport.close)

    def pause_writing(self) -> None:
        """The buffers are full."""
        super().pause_writing()
        # A close would wait for the client, too. It also ends the answer, whose client counts as gone.
        self._reading = self._later(_TO_READ, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of what there was."""
        super().resume_writing()
        self._stop_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._stop_sending()
        self._stop_reading()

    def _later(self, seconds: float, function: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, function)

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        self._sending = None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = None
