"""The connections of clients: how many there may be, and for how long they may neither send nor read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from skeleton_of_thought.serve.chunks import json_bytes
from skeleton_of_thought.serve.errors import ServeError

__all__ = ["BoundedProtocol"]

logger = logging.getLogger(__name__)

_Base: Any = AutoHTTPProtocol
_TO_SEND = 30.0
"""Seconds from a connection's beginning, or from the first byte of a later request, to the end of the headers."""
_TO_READ = 60.0
"""Seconds within which a client reads what fills the buffers of its connection."""


class BoundedProtocol(_Base):  # type: ignore[misc]
    """uvicorn's protocol, which by itself waits for ever for headers, and for a client that does not read.

    Bodies have a limit of their own, see `skeleton_of_thought.serve.access`.

    Args:
        args: Those of uvicorn's protocol; so are `options`.
        most: The most connections that are open at a time.
    """

    def __init__(self, *args: Any, most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._most = most
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            logger.warning("A connection was refused: %d are open.", self._most)
            self._refuse(
                ServeError(f"The server has {self._most} connections, and takes no more.", 503, "server_error")
            )
        else:
            self._sending = self._later(_TO_SEND, transport.close)

    def send_400_response(self, msg: str) -> None:
        """What has come is no request; uvicorn would answer with plain text."""
        self._refuse(ServeError("This is no request of HTTP/1.1 that the server can read.", code="invalid_request"))

    def _refuse(self, error: ServeError) -> None:
        """Ends the connection, with an error unless a response has begun."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json_bytes(error.to_dict())
            head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nContent-Type: application/json\r\n"
            self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
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
