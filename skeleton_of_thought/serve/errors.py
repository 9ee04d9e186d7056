"""Errors of the server, in the shape of OpenAI's, and what the errors of models become for their callers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought.errors import (
    EngineClosed,
    InvalidInput,
    MissingExtra,
    PointError,
    PromptTooLong,
    ReplyError,
    without_secrets,
)
from skeleton_of_thought.rate_limits import read_rate_limit

if TYPE_CHECKING:
    from skeleton_of_thought.serve.upstream import Upstream

__all__ = ["ServeError", "explained", "refuse", "server_failed", "stopping", "timed_out", "without_key"]

logger = logging.getLogger(__name__)

_CALLER = range(400, 500)
_NOT_THE_CALLERS = (401, 402, 403, 404, 405, 407, 408)
"""Statuses of the model's server that concern this server: its key, its address. The caller can do nothing."""

_LONGEST_WAIT = 86_400
"""The most seconds that a caller is told to wait. A server that names more has sent nonsense."""

_SHORTEST_KEY = 6
"""Characters of a key that is one. Shorter ones are made up for servers without keys, and occur in other words."""


class ServeError(Exception):
    """A request that gets no answer.

    Args:
        message: One line that says what to do. It may quote the caller, so it is cut where it is very long.
        status: The HTTP status.
        kind: OpenAI's `type` of the error.
        param: The field of the request that is wrong.
        code: OpenAI's `code` of the error.
        retry_after: Seconds after which the same request may succeed.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(as_line(message))
        self.status, self.kind, self.param, self.code, self.retry_after = status, kind, param, code, retry_after

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """The headers of the response that say whether, and when, to ask again."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if self.status == 504:
            # OpenAI's clients would ask twice more, which takes three times as long and ends in the same way.
            headers["x-should-retry"] = "false"
        return headers


# --- errors of the request, and of the server itself ------------------------------------------------


def refuse(param: str, what: str, *, code: str | None = None) -> NoReturn:
    """Raises the error of a request whose field `param` cannot be followed."""
    raise ServeError(f"`{param}` {what}.", param=param, code=code)


def stopping() -> ServeError:
    """The error of a request that comes while the server stops."""
    text = "The server is stopping: ask another one, or try again later."
    return ServeError(text, 503, "server_error", code="server_stopping", retry_after=5)


def timed_out(seconds: float) -> ServeError:
    """The error of a request that took too long."""
    return ServeError(
        f"The answer took longer than {seconds:g} seconds, the server's limit.", 504, "timeout_error", code="timeout"
    )


def server_failed() -> ServeError:
    """The error of a request in which the server itself failed; the text of that failure may quote a question."""
    return ServeError("The server failed; its log says more.", 500, "server_error")


# --- errors of models -------------------------------------------------------------------------------


def explained(error: BaseException, upstream: Upstream) -> ServeError:
    """The error of a model, as the caller gets it: with the status of what it means here."""
    if isinstance(error, ServeError):
        return error
    cause: BaseException = (error.__cause__ or error) if isinstance(error, PointError) else error
    about = f"Point {error.point.index} failed: " if isinstance(error, PointError) else ""
    message = about + without_secrets(upstream.explain(cause))
    if isinstance(cause, ServeError):
        return ServeError(
            message, cause.status, cause.kind, param=cause.param, code=cause.code, retry_after=cause.retry_after
        )
    if (put_off := _rate_limited(cause, message)) is not None:
        return put_off
    if isinstance(cause, PromptTooLong):
        return ServeError(message, param="messages", code="context_length_exceeded")
    if isinstance(cause, InvalidInput | MissingExtra):
        return ServeError(message)
    if isinstance(cause, EngineClosed):
        return ServeError(message, 503, "server_error", code="server_stopping")
    if isinstance(cause, ReplyError):
        return ServeError(message, 502, "upstream_error", code=cause.finish_reason)
    # The clients of models have errors of their own, such as openai.APITimeoutError and httpx.ReadTimeout.
    if any("Timeout" in base.__name__ for base in type(cause).__mro__):
        return ServeError(message, 504, "upstream_error", code="timeout")
    status = getattr(cause, "status_code", None)
    if isinstance(status, int) and status in _CALLER and status not in _NOT_THE_CALLERS:
        return ServeError(message, status, code=_code(cause))
    if upstream.local:
        # Without the error's text, which may quote a question or an answer.
        logger.error("A call of a model failed: %s", type(cause).__name__)
        return ServeError(message, 500, "server_error")
    return ServeError(message, 502, "upstream_error")


def _rate_limited(error: BaseException, message: str) -> ServeError | None:
    """The error of a call that a model's server has put off; None for any other one."""
    if (limit := read_rate_limit(error, time.time())) is None:
        return None
    wait = None if limit.seconds is None else max(1, round(min(limit.seconds, _LONGEST_WAIT)))
    return ServeError(message, 429, "rate_limit_error", code="rate_limit_exceeded", retry_after=wait)


def _code(error: BaseException) -> str | None:
    code = getattr(error, "code", None)
    return code[:100] if isinstance(code, str) else None


def without_key(text: str, key: str | None) -> str:
    """The text with `***` in place of a key, and of logins in addresses: some servers repeat a key that they refuse."""
    text = without_secrets(text)
    return text.replace(key, "***") if key is not None and len(key) >= _SHORTEST_KEY else text
