"""Errors of the server, in the shape of OpenAI's."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought.errors import without_secrets

__all__ = ["ServeError", "without_key"]

_SHORTEST_KEY = 6
"""Characters of a key that is one. Shorter ones are made up for servers without keys, and occur in other words."""


class ServeError(Exception):
    """A request that gets no answer.

    Args:
        message: One line that says what to do.
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
        super().__init__(message)
        self.status, self.kind, self.param, self.code, self.retry_after = status, kind, param, code, retry_after

    def to_dict(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def without_key(text: str, key: str | None) -> str:
    """The text with `***` in place of a key, and of logins in addresses: some servers repeat a key that they refuse."""
    text = without_secrets(text)
    return text.replace(key, "***") if key is not None and len(key) >= _SHORTEST_KEY else text
