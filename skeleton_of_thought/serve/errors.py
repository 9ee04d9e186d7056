"""Errors of the server, in the shape of OpenAI's."""

from __future__ import annotations

import time
from typing import Any

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought.errors import without_secrets
from skeleton_of_thought.rate_limits import read_rate_limit

__all__ = ["ServeError", "rate_limited", "without_key"]

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


def rate_limited(error: BaseException, message: str) -> ServeError | None:
    """The error for the caller of a call that a model's server has put off; None if the error is another one.

    Args:
        error: The error of the call.
        message: The error in words.
    """
    if (limit := read_rate_limit(error, time.time())) is None:
        return None
    wait = None if limit.seconds is None else max(1, round(min(limit.seconds, _LONGEST_WAIT)))
    return ServeError(message, 429, "rate_limit_error", code="rate_limit_exceeded", retry_after=wait)


def without_key(text: str, key: str | None) -> str:
    """The text with `***` in place of a key, and of logins in addresses: some servers repeat a key that they refuse."""
    text = without_secrets(text)
    return text.replace(key, "***") if key is not None and len(key) >= _SHORTEST_KEY else text
