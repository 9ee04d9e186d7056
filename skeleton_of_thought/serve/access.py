"""Who may call the server, from where, and with how much: keys, hosts, origins, sizes and time."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought.serve.chunks import event_stream_error, json_bytes
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.listening import is_loopback, is_loopback_address
from skeleton_of_thought.serve.log import AccessLog
from skeleton_of_thought.serve.settings import ServeSettings

__all__ = ["Sending", "client_headers", "middleware", "refusing"]

_PASSED_ON = frozenset({"traceparent", "tracestate", "x-request-id", "x-session-id"})
"""The headers of a caller that may reach the model's server: those that join traces, and that keep a session on one
replica."""
_LONGEST_HEADER = 1024
_LOCAL_NAMES = frozenset(
    # The last three are this machine's names within containers.
    {"localhost", "host.docker.internal", "gateway.docker.internal", "host.containers.internal"}
)
_OPEN = frozenset({"/", "/health", "/favicon.ico"})
_OPEN_FOLDER = "/page/"
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
_READ_AND_DROPPED = 8
"""So many times the largest request are read of one that is too large: a client that is cut off while it sends would
not see the error."""
_SILENCE = 60.0
"""Seconds within which more of a request has to come."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_CLOSE = (b"connection", b"close")
_HEADERS_OF = {401: [(b"www-authenticate", b"Bearer")], 403: [_CLOSE], 408: [_CLOSE], 413: [_CLOSE], 503: [_CLOSE]}
_SHOWN_HEADERS = ("x-request-id", "x-sot-route", "x-sot-reason", "retry-after")


def client_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that may reach the model's server.

    Args:
        headers: All headers of the caller; the case of names does not matter.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    return {
        name: value
        for name, value in lower.items()
        if name in _PASSED_ON and len(value) <= _LONGEST_HEADER and value.isascii() and value.isprintable()
    }


def middleware(settings: ServeSettings) -> list[Middleware]:
    """What each request passes before it reaches the application, the outermost first."""
    origins = [Middleware(_Origins, settings)]
    if settings.origins:
        origins.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=("GET", "POST"),
                # The openai package for browsers adds some of its own, which begin with x-stainless-.
                allow_headers=("*",),
                expose_headers=_SHOWN_HEADERS,
            )
        )
    return [Middleware(AccessLog, texts=settings.log_texts), *origins, Middleware(_Requests, settings)]


class Sending:
    """A response on its way, which can be ended before its time.

    Args:
        send: Sends a message of the response.

    Attributes:
        started: Whether its status has been sent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self._ended = self._events = False

    async def __call__(self, message: Message) -> None:
        """Sends a message."""
        if message["type"] == "http.response.start":
            self.started = True
            kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            self._events = any(value.startswith(b"text/event-stream") for value in kinds)
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, error: ServeError) -> None:
        """Ends the response with an error, in a stream too. Any other one that has begun stays incomplete."""
        if not self.started:
            body = json_bytes(error.to_dict())
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            headers += [(name.encode(), value.encode()) for name, value in error.headers().items()]
            headers += _HEADERS_OF.get(error.status, ())
            await self({"type": "http.response.start", "status": error.status, "headers": headers})
            await self({"type": "http.response.body", "body": body})
        elif self._events and not self._ended:
            await self({"type": "http.response.body", "body": event_stream_error(error)})


def refusing(error: ServeError) -> ASGIApp:
    """An ASGI application that answers every request with an error, and logs it."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await Sending(send).fail(error)

    return AccessLog(refuse)


class _Origins:
    """ASGI middleware: keeps pages of other origins out, and adds headers that protect the server's own.

    A page can have a browser send requests to this machine, without CORS too, and under a name of its own that leads
    here (DNS rebinding). It cannot know a key. So where there is none, the names are checked.

    Args:
        app: The application.
        settings: The server's settings.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app = app
        self._origins = frozenset(settings.origins)
        self._checks_origin = not settings.keys and "*" not in self._origins
        self._checks_host = not settings.keys and not settings.open_to_all and is_loopback(settings.host)
        self._own_name = settings.host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_missing(message.get("headers", ()))]}
            await send(message)

        if (error := self._refusal(scope)) is not None:
            await Sending(with_headers).fail(error)
        else:
            await self.app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> ServeError | None:
        host = _header(scope, b"host")
        if self._checks_host and host is not None and not self._is_local(host):
            return ServeError(
                "This server has no key, so it answers on names of this machine alone, such as 127.0.0.1 or "
                f"localhost, not on {as_line(repr(host), 200)}. Set SOT_API_KEY for the server, or have a proxy before "
                "it send Host: localhost.",
                403,
                code="host_not_allowed",
            )
        origin = _header(scope, b"origin")
        if self._checks_origin and origin is not None and scope["method"] not in _BODILESS:
            own = host is not None and _host_of(origin) == host.lower()
            if not own and origin not in self._origins:
                return ServeError(
                    "This server has no key, so pages of other origins may not call it, such as "
                    f"{as_line(repr(origin), 200)}. Name the origin (--origin), or set SOT_API_KEY for the server.",
                    403,
                    code="origin_not_allowed",
                )
        return None

    def _is_local(self, host: str) -> bool:
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif ":" in name:
            name = name.rpartition(":")[0]
        name = name.rstrip(".")
        if name in _LOCAL_NAMES or name == self._own_name or name.endswith(".localhost"):
            return True
        return is_loopback_address(name)


class _Requests:
    """ASGI middleware: asks for a key, and reads the request up to its bounds of size and time.

    Args:
        app: The application.
        settings: The server's settings.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app = app
        self._keys = [key.encode() for key in settings.keys]
        self._most = settings.max_request_bytes
        self._timeout = settings.timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if self._keys and not _is_open(scope["path"]):
                self._check_key(scope)
            if scope["method"] not in _BODILESS:
                async with asyncio.timeout(self._timeout):
                    receive = await self._read(scope, receive)
        except ServeError as error:
            await Sending(send).fail(error)
        except TimeoutError:
            text = f"The request did not come in time: {_SILENCE:g} seconds passed without more of it, or it took "
            text += f"longer than {self._timeout:g} seconds in all."
            await Sending(send).fail(ServeError(text, 408, code="timeout"))
        else:
            await self.app(scope, receive, send)

    def _check_key(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # All keys are compared, so that the time does not tell which one was nearly right.
        known = [hmac.compare_digest(key.strip(), each) for each in self._keys]
        if scheme.lower() == b"bearer" and any(known):
            return
        text = "This server does not know the key." if given else "This server needs a key."
        text = f"{text} Send one that it was started with as Authorization: Bearer KEY."
        raise ServeError(text, 401, code="invalid_api_key")

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the body; returns a function that gives it to the application, and then what follows it."""
        declared = _header(scope, b"content-length")
        size = int(declared) if declared is not None and declared.isdecimal() else 0
        if size > _READ_AND_DROPPED * self._most:
            raise self._too_large()
        parts: list[bytes] = []
        read = 0
        while True:
            async with asyncio.timeout(_SILENCE):
                message = await receive()
            if message["type"] != "http.request":
                return _replay(message, receive)
            read += len(message.get("body", b""))
            if read <= self._most:
                parts.append(message.get("body", b""))
            elif read > _READ_AND_DROPPED * self._most:
                raise self._too_large()
            else:
                parts.clear()
            if not message.get("more_body", False):
                break
        if read > self._most:
            raise self._too_large()
        return _replay({"type": "http.request", "body": b"".join(parts), "more_body": False}, receive)

    def _too_large(self) -> ServeError:
        text = f"The request has more than the {self._most:,} bytes that the server reads."
        return ServeError(text, 413, code="request_too_large")


def _replay(message: Message, receive: Receive) -> Receive:
    waiting: list[Any] = [message]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _missing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that protect a response, but for those that it has."""
    present = {name.lower(): value for name, value in headers}
    missing = [(name, value) for name, value in _HEADERS if name not in present]
    if present.get(b"content-type", b"").startswith(b"text/event-stream") and b"x-accel-buffering" not in present:
        missing.append((b"x-accel-buffering", b"no"))  # nginx would hold a stream back
    return missing


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def _is_open(path: str) -> bool:
    """Whether a path needs no key: the state of the server, and the page, which asks for the key itself."""
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


def _host_of(origin: str) -> str:
    """The host and port of an origin, in lower case; empty for an origin without one."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
