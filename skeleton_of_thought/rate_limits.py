"""Errors of servers and machines that have no room for a call now: rate limits, overload, too few threads.

The clients of models have no common error for a rate limit. This module reads what they have in common without
importing any of them: a status, headers, a code, the name of the class, and the error that caused this one.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RateLimit", "interrupt_behind", "is_thread_shortage", "read_rate_limit"]

_NAMES = re.compile(r"RateLimit|TooManyRequests|ResourceExhausted|Throttl|Overloaded", re.IGNORECASE)
"""In the names of error classes: OpenAI's and Anthropic's, Cohere's and boto's, Google's, AWS's."""
_CODES = re.compile(
    r"rate_?limit|too_?many_?requests|resource_?exhausted|throttl|overloaded_error|^429$", re.IGNORECASE
)
"""In the code or type that an error states in words."""
_SPENT = re.compile(r"insufficient_quota|billing|credit_balance|payment", re.IGNORECASE)
"""A code for an account without credit: its status is 429 as well, but no waiting helps."""
_DURATION = re.compile(r"(?<![\d.])(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DEPTH = 8
"""The most errors that are followed from one to its cause."""


@dataclass(frozen=True)
class RateLimit:
    """A server takes no more calls for now.

    Attributes:
        seconds: How long it asks to wait; None where it does not say.
    """

    seconds: float | None


def read_rate_limit(error: BaseException, now: float) -> RateLimit | None:
    """The rate limit that this error reports, itself or through an error that caused it; None for any other error.

    A rate limit is a status of 429, or a class or code that is named after one. A status of 503 counts if the server
    says when to come back; 529, and a code for overload, count without. An account without credit is no rate limit.

    Args:
        error: Any error of a call.
        now: Seconds since the epoch, for a date in `Retry-After`.
    """
    chain = list(_causes(error))
    if any(_SPENT.search(word) for each in chain for word in _words(each)):
        return None
    headers: dict[str, str] = {}
    for each in reversed(chain):
        headers |= _headers(each)
    seconds = _seconds(headers, now)
    if seconds is None:
        seconds = next(
            (wait for each in chain if (wait := _number(getattr(each, "retry_after", None))) is not None), None
        )
    for each in chain:
        status = _status(each)
        if status in (429, 529) or (status == 503 and seconds is not None):
            return RateLimit(seconds)
        if status is None and (_NAMES.search(type(each).__name__) or any(map(_CODES.search, _words(each)))):
            return RateLimit(seconds)
        # A server may send its error in a stream that began with status 200.
        if status == 200 and any(map(_CODES.search, _words(each))):
            return RateLimit(seconds)
    return None


def is_thread_shortage(error: BaseException) -> bool:
    """Whether the machine could not start another thread."""
    return any(isinstance(each, RuntimeError) and "can't start new thread" in str(each) for each in _causes(error))


def interrupt_behind(error: BaseException) -> BaseException | None:
    """The Ctrl-C in place of which the start of a thread raised this error; None for an error of its own.

    An interrupt while `Thread.start` waits for its thread may leave a lock in a state that raises a second error. The
    thread runs then.
    """
    if is_thread_shortage(error):
        return None
    return next((each for each in _causes(error) if not isinstance(each, Exception)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that caused it, outermost first."""
    current: BaseException | None = error
    for _ in range(_DEPTH):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _response(error: BaseException) -> Any:
    return getattr(error, "response", None)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error or of its response."""
    response = _response(error)
    places = [(error, ("status_code", "status", "http_status", "code")), (response, ("status_code", "status"))]
    for place, names in places:
        for name in names:
            value = getattr(place, name, None)
            # An `HTTPStatus` is an `int`; a bool is one, too, but no status.
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return int(value)
            if isinstance(value, str) and re.fullmatch(r"[1-5]\d\d", value):
                return int(value)
    if isinstance(response, Mapping):  # boto
        metadata = response.get("ResponseMetadata")
        value = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        if isinstance(value, int):
            # boto states a throttled call as 400 at times; then its code says more.
            return None if value == 400 else value
    return None


def _words(error: BaseException) -> Iterator[str]:
    """What an error states as its code, type or status in words."""
    response = _response(error)
    stated = [error, getattr(error, "body", None), response]
    for value in list(stated):
        nested = _get(value, "error") if isinstance(value, Mapping) else None
        stated += [nested, _get(value, "Error") if isinstance(value, Mapping) else None]
    for value in stated:
        for name in ("code", "type", "status", "Code"):
            word = _get(value, name)
            if callable(word) and name == "code":  # of gRPC
                try:
                    word = getattr(word(), "name", None)
                except Exception:
                    word = None
            if isinstance(word, str):
                yield word


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _headers(error: BaseException) -> dict[str, str]:
    """The headers of a response, with names in lower case."""
    response = _response(error)
    found = getattr(error, "headers", None) or getattr(response, "headers", None)
    if isinstance(response, Mapping) and isinstance(metadata := response.get("ResponseMetadata"), Mapping):
        found = metadata.get("HTTPHeaders")
    items = getattr(found, "items", None)
    return {str(name).lower(): str(value).strip() for name, value in items()} if callable(items) else {}


def _seconds(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that a response asks to wait."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if after := headers.get("retry-after"):
        return _number(after) if _number(after) is not None else _until(after, now)
    resets = []
    for kind in ("requests", "tokens"):  # OpenAI's headers
        reset = headers.get(f"x-ratelimit-reset-{kind}", "")
        if headers.get(f"x-ratelimit-remaining-{kind}") == "0" and (parts := _DURATION.findall(reset)):
            resets.append(sum(float(number) * _UNITS[unit] for number, unit in parts))
    return _number(max(resets, default=None))


def _until(date: str, now: float) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError, LookupError, OSError):
        return None
    return max(0.0, moment - now)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, number) if math.isfinite(number) else None
