"""The log of the server: a line for each request, without keys; questions and answers only where they are asked for."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought.types import Usage

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["GONE", "AccessLog", "Record", "log_loop_error", "log_to_stderr", "note", "note_texts"]

logger = logging.getLogger(__name__)

_ID = re.compile(rb"[\w.:-]{1,128}\Z", re.ASCII)
_LOGGERS = ("skeleton_of_thought", "uvicorn", "asyncio")
"""Their warnings are written in the form of the server's log, without the texts of exceptions."""
_MOST_TEXT = 10_000
"""The most characters of a question or an answer in the log."""
GONE = 499
"""The status of a request whose client went away, in the log and the metrics."""


@dataclass
class Record:
    """What the line about a request says.

    Attributes:
        id: Its id, the caller's `x-request-id` or a new one.
        method: The HTTP method.
        path: Its path.
        texts: Whether the line may have its question and its answer.
        status: The HTTP status; None until the response starts.
        model: The model's name, as the caller gave it.
        route: `"skeleton"`, `"items"`, `"direct"` or `"passed"`.
        usage: The tokens.
        first: Seconds until the first text.
        question: The question.
        answer: The answer.
    """

    id: str
    method: str
    path: str
    texts: bool = False
    status: int | None = None
    model: str | None = None
    route: str | None = None
    usage: Usage | None = None
    first: float | None = None
    question: str | None = None
    answer: str | None = None

    def line(self, seconds: float) -> str:
        """The line, which no text in it can break."""
        parts = [
            f"{as_line(self.method, 20)} {as_line(self.path, 200)}",
            str(self.status or GONE),
            f"{seconds:.3f}s",
            f"id={self.id}",
        ]
        if self.model is not None:
            parts.append(f"model={as_line(self.model, 200)!r}")
        if self.route is not None:
            parts.append(f"route={self.route}")
        if self.first is not None:
            parts.append(f"first={self.first:.3f}s")
        if self.usage is not None:
            parts.append(f"in={self.usage.input_tokens} out={self.usage.output_tokens}")
        if self.question is not None:
            parts.append(f"question={self.question[:_MOST_TEXT]!r}")
        if self.answer is not None:
            parts.append(f"answer={self.answer[:_MOST_TEXT]!r}")
        return " ".join(parts)


_record: ContextVar[Record | None] = ContextVar("sot_request", default=None)


def note(**fields: Any) -> None:
    """Adds fields to the line about the request that this task, or the task that started it, answers."""
    if (record := _record.get()) is not None:
        for name, value in fields.items():
            setattr(record, name, value)


def note_texts(question: str, answer: str) -> None:
    """Adds the texts to the line, if the server was started with the option for it."""
    if (record := _record.get()) is not None and record.texts:
        record.question, record.answer = question, answer


class AccessLog:
    """ASGI middleware: logs a line for each request when its response has ended, and gives it an `x-request-id`.

    Args:
        app: The application.
        texts: Whether lines have questions and answers.
    """

    def __init__(self, app: ASGIApp, texts: bool = False) -> None:
        self.app = app
        self.texts = texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        number = given.decode("ascii") if _ID.match(given) else f"req-{uuid4().hex}"
        record = Record(number, scope["method"], scope["path"], self.texts)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*headers, (b"x-request-id", number.encode())]}
            await send(message)

        token, begun = _record.set(record), time.perf_counter()
        try:
            await self.app(scope, receive, sent)
        except Exception:
            record.status = record.status or 500  # the web server sends it
            raise
        finally:
            _record.reset(token)
            logger.info(record.line(time.perf_counter() - begun))


class _Formatter(logging.Formatter):
    """Leaves the messages of exceptions out, as they may quote a prompt; the lines of code say where it was."""

    def formatException(self, ei: Any) -> str:
        """The type of an exception, and where it was raised."""
        kind, error, trace = ei
        if os.environ.get("SOT_TRACEBACK") or not isinstance(error, BaseException):
            return super().formatException(ei)
        return "".join(traceback.format_tb(trace)) + getattr(kind, "__name__", str(kind))


def log_loop_error(_: Any, context: Mapping[str, Any]) -> None:
    """Logs an error that nothing has handled, for `loop.set_exception_handler`; asyncio itself would show its text."""
    logger.error("%s", as_line(str(context["message"]), 200), exc_info=context.get("exception"))


def log_to_stderr(*, requests: bool = True) -> None:
    """Writes the log of the server, and warnings of what it runs on, to standard errors.

    Args:
        requests: Whether there is a line for each request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%S"))
    levels = dict.fromkeys((*_LOGGERS, __name__), logging.WARNING)
    if requests:
        levels[__name__] = logging.INFO
    for name, level in levels.items():
        target = logging.getLogger(name)
        target.handlers[:] = [handler]
        target.propagate = False
        target.setLevel(level)
