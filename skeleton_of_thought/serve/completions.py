"""`POST /v1/chat/completions`: each request passes through to its model, or gets an answer by points."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from skeleton_of_thought.adapters.replies import aclosing_stream
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.serve import log
from skeleton_of_thought.serve.answers import PointsAnswer, ServedModel
from skeleton_of_thought.serve.chunks import (
    KEEP_ALIVE,
    Completion,
    CompletionChunks,
    event_stream_error,
    json_bytes,
)
from skeleton_of_thought.serve.errors import ServeError, explained, server_failed, timed_out
from skeleton_of_thought.serve.requests import ChatRequest, misfit, question_of, read_request
from skeleton_of_thought.serve.settings import SUFFIX, ServeSettings
from skeleton_of_thought.types import Answer, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.serve.limits import CallLimit
    from skeleton_of_thought.serve.metrics import Metrics
    from skeleton_of_thought.serve.upstream import Passed

__all__ = ["ChatCompletions", "unknown_model"]

logger = logging.getLogger(__name__)

_EVENT_STREAM = "text/event-stream"
_STREAM_HEADERS = {
    "content-type": f"{_EVENT_STREAM}; charset=utf-8",
    "cache-control": "no-cache",
    # nginx then passes each chunk on at once.
    "x-accel-buffering": "no",
}
_TAIL = 4096
"""Bytes at the end of a completion in which its usage stands."""
_LOGGED = 10_000
"""Bytes of a response that passed through for a log with texts."""
_TOKENS = re.compile(rb'"(prompt|completion)_tokens"\s*:\s*(\d{1,12})')


class ChatCompletions:
    """The endpoint, an ASGI app of one path.

    Args:
        settings: The server's settings.
        models: The models by their names.
        limit: The limit of all open calls.
        metrics: Counts the answers.
    """

    def __init__(
        self, settings: ServeSettings, models: Mapping[str, ServedModel], limit: CallLimit, metrics: Metrics
    ) -> None:
        self._settings, self._models, self._limit, self._metrics = settings, models, limit, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; ends all that it began as soon as the client goes away.

        Raises:
            ServeError: There is no answer, and nothing was sent yet.
        """
        response = _Response(send)
        request = Request(scope, receive)
        try:
            content = await request.body()
        except ClientDisconnect:
            return
        try:
            chat = read_request(content, request.headers)
            model, by_points = self._find(chat.model)
        except ServeError as error:
            self._metrics.refused(response.seconds, error.status)
            raise
        await _while_connected(self._answer(model, by_points, chat, response), receive)

    async def _answer(self, model: ServedModel, by_points: bool, request: ChatRequest, response: _Response) -> None:
        reason = misfit(request) if by_points else "the name of the model"
        route = "passed"
        if reason is None:
            conversation = model.conversation(request)
            decision = model.decide(request, conversation)
            route, reason = "skeleton" if decision.use_skeleton else "direct", decision.reason
            route = "items" if decision.items is not None else route
            if decision.use_skeleton or request.sot.events:
                response.route(route, reason)
                async with self._counted(request, route, response):
                    flow = model.flow(request, conversation, decision)
                    points = PointsAnswer(model, request, flow, self._limit, self._settings.timeout)
                    try:
                        await (self._stream if request.stream else self._whole)(request, points, response)
                    finally:
                        self._metrics.staged(request.model, points.answer)
                return
        response.route(route, reason)
        async with self._counted(request, route, response):
            await self._pass_through(model, request, response)

    def _find(self, name: str) -> tuple[ServedModel, bool]:
        """The model of this name, and whether it answers by points."""
        if (model := self._models.get(name)) is not None:
            return model, False
        if name.endswith(SUFFIX) and (model := self._models.get(name.removesuffix(SUFFIX))) is not None:
            return model, True
        raise unknown_model(name, self._models)

    @contextlib.asynccontextmanager
    async def _counted(self, request: ChatRequest, route: str, response: _Response) -> AsyncIterator[None]:
        """Counts an answer, however it ends."""
        status = log.GONE
        try:
            yield
            status = response.failed or response.status
        except Exception as error:
            failure = _as_serve_error(error)
            status = failure.status
            raise failure from error.__cause__
        finally:
            self._metrics.answered(request.model, route, response.usage, response.first, response.seconds, status)

    # --- answers by points ---

    async def _whole(self, request: ChatRequest, points: PointsAnswer, response: _Response) -> None:
        try:
            answer = await points.run(lambda: None, lambda event, at: None)
        finally:
            response.usage, response.first = points.usage, points.first
        log.note_texts(answer.question, answer.text)
        whole = Completion(request.model).whole(
            answer, skeleton=request.sot.show_skeleton, events=request.sot.events, at=points.seconds
        )
        response.route(answer.route, answer.reason)
        content = json_bytes(whole)
        await response.start(200, {"content-type": "application/json", "content-length": str(len(content))})
        await response.end(content)

    async def _stream(self, request: ChatRequest, points: PointsAnswer, response: _Response) -> None:
        sot = request.sot
        chunks = CompletionChunks(
            Completion(request.model),
            include_usage=request.include_usage,
            show_skeleton=sot.show_skeleton,
            events=sot.events,
        )
        inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        opened = False

        def begin() -> None:
            nonlocal opened
            if not opened:
                inbox.put_nowait(chunks.first())
            opened = True

        def show(event: Event, at: float) -> None:
            if chunk := chunks.read(event, at):
                inbox.put_nowait(chunk)

        # A task of its own makes the answer: a client that reads slowly then holds no place of a call that has ended.
        making = asyncio.create_task(points.run(begin, show))
        making.add_done_callback(lambda _: inbox.put_nowait(None))
        try:
            async with contextlib.aclosing(_pieces(inbox, self._settings.keep_alive)) as pieces:
                async for piece in pieces:
                    if not response.started:
                        await response.start(200, _STREAM_HEADERS)
                        begin()
                    await response.send(piece)
        finally:
            await _ended(making)
            response.usage, response.first = points.usage, points.first
        await self._end_stream(making, chunks, points, response)

    async def _end_stream(
        self, making: asyncio.Task[Answer], chunks: CompletionChunks, points: PointsAnswer, response: _Response
    ) -> None:
        if (error := making.exception()) is None:
            answer = making.result()
            log.note_texts(answer.question, answer.text)
            await response.end(chunks.read(AnswerDone(answer), points.seconds))
            return
        if not (response.started and isinstance(error, Exception)):
            raise error
        failure = _as_serve_error(error)
        cause = failure.__cause__
        response.failed = failure.status
        event = AnswerFailed(cause if isinstance(cause, Exception) else failure)
        await response.end(chunks.failed(failure, event, points.seconds))

    # --- what passes through ---

    async def _pass_through(self, model: ServedModel, request: ChatRequest, response: _Response) -> None:
        tail, read, own_events = b"", bytearray(), False
        clock = asyncio.timeout(self._settings.timeout)
        try:
            async with clock, self._limit.place(model.settings.name):
                passed = await model.upstream.pass_through(request)
                own_events = passed.own_events
                async with _kept_alive(passed, self._settings.keep_alive) as pieces:
                    await response.start(passed.status, passed.headers)
                    async for piece in pieces:
                        tail = (tail + piece)[-_TAIL:]
                        # The first event that the server writes itself has no text yet.
                        if response.first is None and (not own_events or b"\n\ndata: " in tail):
                            response.first = response.seconds
                        await response.send(piece)
                        if self._settings.log_texts and len(read) < _LOGGED:
                            read += piece
        except Exception as error:
            # A model has times of its own, which run out with the same error.
            failure = timed_out(self._settings.timeout) if clock.expired() else explained(error, model.upstream)
        else:
            response.usage = _usage_in(tail)
            # The text as it passed, since its form is the model's own.
            log.note_texts(question_of(request), read[:_LOGGED].decode(errors="replace"))
            await response.end()
            return
        if not response.started:
            raise failure
        response.failed = failure.status
        if response.is_event_stream:
            # The model's server may have broken off within a line; events of our own are whole.
            await response.end(b"\n\n" * (not own_events) + event_stream_error(failure))
        else:
            # The connection is closed before the response is complete, which tells the client that a part is missing.
            logger.warning("A response that passed through broke off: %s.", failure.code or failure.kind)


async def _while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Does work for a client; cancels it as soon as the client goes away, and waits for its end."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    # Tasks rather than a cancel scope, which would cancel each wait of the clean-up again.
    working, watching = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _ended(working, watching)
    if not working.cancelled():
        working.result()


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks, and waits for their ends."""
    for task in tasks:
        task.cancel()
        # asyncio would log an error that nobody has looked at, with its text, when a client leaves at that moment.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def _kept_alive(passed: Passed, keep_alive: float) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body of a response that passes through, with comments in its silences where the server writes it itself.

    What another server sends stays as it is, byte for byte.
    """
    async with aclosing_stream(passed.body) as body:
        if not passed.own_events:
            yield body
            return
        inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        # A task of its own: a wait that is cut short by a comment would break the body off.
        reading = asyncio.create_task(_read(body, inbox))
        reading.add_done_callback(lambda _: inbox.put_nowait(None))
        try:
            async with contextlib.aclosing(_pieces(inbox, keep_alive)) as pieces:
                yield pieces
            reading.result()
        finally:
            await _ended(reading)


async def _read(body: AsyncIterator[bytes], inbox: asyncio.Queue[bytes | None]) -> None:
    async for piece in body:
        inbox.put_nowait(piece)


async def _pieces(inbox: asyncio.Queue[bytes | None], keep_alive: float) -> AsyncGenerator[bytes]:
    """Yields all that has come, together, until None comes; a comment after each `keep_alive` seconds of silence."""
    piece: bytes | None = b""
    while piece is not None:
        try:
            async with asyncio.timeout(keep_alive):
                piece = await inbox.get()
        except TimeoutError:
            yield KEEP_ALIVE
            continue
        come = []
        while piece is not None:
            come.append(piece)
            if inbox.empty():
                break
            piece = inbox.get_nowait()
        if come:
            yield b"".join(come)


def _as_serve_error(error: Exception) -> ServeError:
    if isinstance(error, ServeError):
        return error
    # Without the error's text, which may quote a question or an answer.
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("The server itself failed: %s\n%s", type(error).__name__, where)
    return server_failed()


def _usage_in(tail: bytes) -> Usage | None:
    """The tokens in the last bytes of a completion; None if there are none."""
    found = {kind: int(count) for kind, count in _TOKENS.findall(tail)}
    return Usage(found.get(b"prompt", 0), found.get(b"completion", 0)) if found else None


def unknown_model(name: str, models: Mapping[str, ServedModel]) -> ServeError:
    """The error for a model that is not served, with the names of those that are."""
    names = ", ".join(f"{served}, {served}{SUFFIX}" for served in models)
    message = f"The model {name[:100]!r} is not served here. There are: {names}."
    return ServeError(message, 404, param="model", code="model_not_found")


class _Response:
    """The response to one request.

    Attributes:
        began: When the request came, on the monotonic clock.
        first: Seconds until the first text; None before.
        status: The HTTP status that was sent; 0 before.
        failed: The status that an error in the middle of the response would have had; 0 without one.
        usage: Tokens, as far as they are known.
        is_event_stream: Whether its body is a stream of events.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._route: dict[str, str] = {}
        self.began = time.monotonic()
        self.first: float | None = None
        self.status = self.failed = 0
        self.usage: Usage | None = None
        self.is_event_stream = False

    @property
    def started(self) -> bool:
        """Whether the status was sent."""
        return self.status > 0

    def route(self, route: str, reason: str) -> None:
        """Sets the headers that tell the route of the request."""
        # It may quote the caller, and a header takes no control characters.
        line = " ".join(reason.split())[:200].encode("ascii", "replace").decode()
        line = "".join(char if char.isprintable() else "?" for char in line)
        self._route = {"x-sot-route": route, "x-sot-reason": line}

    @property
    def seconds(self) -> float:
        """Seconds since the request came."""
        return time.monotonic() - self.began

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Sends the status and the headers."""
        headers = {name.lower(): value for name, value in headers.items()} | self._route
        self.is_event_stream = headers.get("content-type", "").startswith(_EVENT_STREAM)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        self.status = status

    async def send(self, piece: bytes) -> None:
        """Sends a part of the body."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self, piece: bytes = b"") -> None:
        """Sends the last part of the body."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": False})
