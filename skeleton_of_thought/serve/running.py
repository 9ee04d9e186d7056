"""`sot serve`: checks the settings, loads the models, listens, and stops without breaking answers off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.drive import GRACE
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.serve.access import Sending, refusing
from skeleton_of_thought.serve.config_file import NAME
from skeleton_of_thought.serve.errors import ServeError, stopping
from skeleton_of_thought.serve.limits import CallLimit
from skeleton_of_thought.serve.listening import bind, is_loopback, url_of
from skeleton_of_thought.serve.log import log_loop_error, log_to_stderr
from skeleton_of_thought.serve.metrics import Metrics
from skeleton_of_thought.serve.protocol import BoundedProtocol
from skeleton_of_thought.serve.settings import SUFFIX, ModelSettings, ServeSettings
from skeleton_of_thought.serve.upstream import Upstream

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["check", "serve", "serve_app"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,]+\Z")
_ALWAYS_ANSWERED = frozenset({"/health", "/metrics"})
"""The paths that are answered while the server stops."""
_TOGETHER = 0.3
"""Seconds: signals that come closer together are one, as a terminal and a program around this one may both send it."""
_SPARE_CONNECTIONS = 500
"""Connections beyond those of requests that are answered or wait: idle ones, and those for the page and the state."""
_KEPT_ALIVE = 75
"""Seconds that an idle connection is kept, longer than proxies keep theirs."""


def check(settings: ServeSettings) -> None:
    """Checks what can be checked before a model is loaded.

    Raises:
        InvalidInput: The settings cannot be used, or would let anyone use the models.
    """
    _check_models(settings.models)
    if not 0 <= settings.port < 1 << 16:
        raise InvalidInput(f"port must be from 0 to 65535, not {settings.port}.")
    for key in settings.keys:
        if not key or not key.isprintable() or " " in key:
            raise InvalidInput("A key must be text without spaces and control characters: no client could send it.")
    for origin in settings.origins:
        if origin != "*" and not _ORIGIN.match(origin):
            raise InvalidInput(
                f"The origin {as_line(repr(origin), 200)} must be like https://chat.example.org, without a path."
            )
    if settings.keys:
        return
    if "*" in settings.origins:
        raise InvalidInput("The origin * lets every page that a browser shows use the models: set a key, SOT_API_KEY.")
    if not settings.open_to_all and not is_loopback(settings.host):
        raise InvalidInput(
            f"Other machines can reach {as_line(settings.host, 200)}, and there is no key: set SOT_API_KEY to one that "
            "callers have to send. (--allow-anyone serves without a key: whoever reaches the address may use "
            "the models, at your cost.)"
        )


def _check_models(models: tuple[ModelSettings, ...]) -> None:
    if not models:
        raise InvalidInput("There is no model to serve: name one by --model, or in a table [[models]].")
    seen: set[str] = set()
    for model in models:
        shown = as_line(repr(model.name), 200)
        if not NAME.match(model.name):
            raise InvalidInput(f"A model cannot have the name {shown}: it has letters, digits and . / : + - _ alone.")
        if model.name.endswith(SUFFIX):
            raise InvalidInput(
                f"A model cannot have the name {shown}: {SUFFIX} ends the names under which models answer by points."
            )
        if model.name in seen:
            raise InvalidInput(f"Two models have the name {shown}: give each its own, as in --model NAME=MODEL.")
        seen.add(model.name)
        try:
            ModelSpec.parse(model.spec)
        except InvalidInput as error:
            raise InvalidInput(f"The model {shown}: {error}") from error


def serve(settings: ServeSettings, *, open_page: bool = False, quiet: bool = False) -> int:
    """Serves until a signal comes.

    Args:
        settings: How to serve, and which models.
        open_page: Whether a browser opens the page.
        quiet: Whether to leave out progress and the lines about requests.

    Returns:
        The exit code: 0 if all answers have ended, else 128 and the number of the signal.

    Raises:
        InvalidInput: The settings cannot be used.
        SotError: A model cannot be loaded, or the port is in use.
    """
    check(settings)
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        return asyncio.run(_serve(settings, listener, open_page=open_page, quiet=quiet))


async def _serve(settings: ServeSettings, listener: Any, *, open_page: bool, quiet: bool) -> int:
    from skeleton_of_thought.serve.app import create_app

    limit, metrics = CallLimit(settings.max_open_calls, settings.max_waiting), Metrics()
    async with _opened(settings, quiet=quiet) as upstreams:
        app = create_app(settings, upstreams, limit=limit, metrics=metrics)
        log_to_stderr(requests=not quiet)
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        url = url_of(listener)

        def listens() -> None:
            for line in _welcome(settings, url):
                print(line, flush=True)
            if open_page:
                # Not a task: a browser in the terminal runs until it is left.
                threading.Thread(target=_open_page, args=(url,), daemon=True).start()

        return await serve_app(app, listener, limit, grace=settings.grace, listens=listens)


@contextlib.asynccontextmanager
async def _opened(settings: ServeSettings, *, quiet: bool) -> AsyncIterator[Mapping[str, Upstream]]:
    """The models, by their names."""
    from skeleton_of_thought.serve.upstreams import open_upstream

    opened: dict[str, Upstream] = {}
    try:
        for model in settings.models:
            if not quiet:
                print(f"sot: loading {model.name} ...", file=sys.stderr, flush=True)
            begun = time.perf_counter()
            with exit_at_once():
                opened[model.name] = await open_upstream(model)
            if not quiet:
                seconds = time.perf_counter() - begun
                print(f"sot: {model.name} is ready ({seconds:.1f} s)", file=sys.stderr, flush=True)
        yield opened
    finally:
        for upstream in opened.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(upstream.close(), GRACE)


def _welcome(settings: ServeSettings, url: str) -> list[str]:
    names = [model.name for model in settings.models]
    key = " -H 'Authorization: Bearer KEY'" if settings.keys else ""
    messages = [{"role": "user", "content": "How can I sleep better?"}]
    question = json.dumps({"model": f"{names[0]}{SUFFIX}", "messages": messages})
    lines = [
        f"Listening on {url} (base URL of clients: {url}/v1)",
        f"Models: {', '.join(f'{name}, {name}{SUFFIX}' for name in names)}",
        f"Try: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{question}'",
    ]
    if settings.page:
        lines.append(f"Page: {url}/")
    if settings.open_to_all and not settings.keys and not is_loopback(settings.host):
        lines.append("Anyone who reaches this address may use the models: there is no key.")
    return lines


def _open_page(url: str) -> None:
    try:
        opened = webbrowser.open(f"{url}/")
    except webbrowser.Error:
        opened = False
    if not opened:
        print(f"sot: no browser could be started: open {url}/ yourself", file=sys.stderr)


# --- listening and stopping -------------------------------------------------------------------------


async def serve_app(
    app: ASGIApp, listener: Any, limit: CallLimit, *, grace: float, listens: Callable[[], object]
) -> int:
    """Serves an application until a signal comes; then its answers end, and new requests get 503.

    A second signal ends the process at once.

    Args:
        app: The application.
        listener: The socket, which `bind` made.
        limit: Is closed when the signal comes.
        grace: Seconds that answers have to end.
        listens: Called when the server listens.

    Returns:
        The exit code, see `serve`.
    """
    draining = _Draining(app)
    config = uvicorn.Config(
        draining,
        http=cast(Any, partial(BoundedProtocol, most=limit.max_open + limit.max_waiting + _SPARE_CONNECTIONS)),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=_KEPT_ALIVE,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, draining, limit, grace, listens)
    with server.hangup_handled():
        await server.serve(sockets=[listener])
    if server.stopping is not None:
        await server.stopping
    return 128 + server.signal if draining.cut and server.signal is not None else 0


class _Draining:
    """ASGI application: another one, with its requests counted; once it closes, new ones get 503.

    Args:
        app: The other application.

    Attributes:
        closing: Whether new requests are refused.
        cut: Whether answers were broken off.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.closing = self.cut = False
        self._refusing = refusing(stopping())
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def closing_connections(message: Message) -> None:
            if self.closing and message["type"] == "http.response.start":
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        sending = Sending(closing_connections)
        if scope["path"] in _ALWAYS_ANSWERED:
            await self.app(scope, receive, sending)
            return
        if self.closing:
            await self._refusing(scope, receive, sending)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            if not self.cut:
                raise
            task.uncancel()
            text = "The server stopped before the answer had ended."
            await sending.fail(ServeError(text, 503, "server_error", code="server_stopping"))
        finally:
            self._tasks.discard(task)

    @property
    def open(self) -> int:
        """The number of requests that are being answered."""
        return len(self._tasks)

    async def close(self, grace: float) -> None:
        """Refuses new requests, and waits for the others; breaks those off that do not end within `grace` seconds."""
        self.closing = True
        if self._tasks:
            _, late = await asyncio.wait([*self._tasks], timeout=grace)
            if late:
                self.cut = True
                for task in late:
                    task.cancel()
                await asyncio.wait(late, timeout=GRACE)


class _Server(uvicorn.Server):
    """uvicorn's server, which stops listening only after the last answer.

    Attributes:
        signal: The first signal that came.
        stopping: The task that stops the server.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        draining: _Draining,
        limit: CallLimit,
        grace: float,
        listens: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self.signal: int | None = None
        self.stopping: Awaitable[None] | None = None
        self._came = 0.0
        self._draining, self._limit, self._grace, self._listens = draining, limit, grace, listens
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: Any = None) -> None:
        """Begins to listen."""
        await super().startup(sockets=sockets)
        if self.started:
            self._listens()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handles a signal. It runs between any two bytecodes of the main thread, so it does next to nothing."""
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._came = sig, now
            self._loop.call_soon_threadsafe(self._begin_to_stop)
        elif now - self._came > _TOGETHER:
            with contextlib.suppress(OSError):
                os.write(2, b"sot: stopped at once\n")
            os._exit(128 + sig)

    @contextlib.contextmanager
    def hangup_handled(self) -> Any:
        """Handles the signal of a terminal that closes like the others, which uvicorn handles itself."""
        number = getattr(signal, "SIGHUP", None)
        main = threading.current_thread() is threading.main_thread()
        if number is None or not main or signal.getsignal(number) in (signal.SIG_IGN, None):
            yield
            return
        before = signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            signal.signal(number, before)

    def _begin_to_stop(self) -> None:
        self.stopping = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        self._limit.close()
        after = ""
        if self._draining.open:
            after = (
                f" after {self._draining.open} open request(s), within {self._grace:g} s; a second signal stops at once"
            )
        # Also without open requests: it takes seconds to free a large model, and a second Ctrl-C would break that off.
        print(f"sot: stopping{after}", file=sys.stderr, flush=True)
        await self._draining.close(self._grace)
        self.should_exit = True
