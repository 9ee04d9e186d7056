"""Closing streams of any library: some iterators have `close` or `aclose`, others have neither."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

__all__ = ["aclose_stream", "aclosing_stream", "close_stream", "closing_stream"]

StreamT = TypeVar("StreamT")


def close_stream(stream: Any) -> None:
    """Closes a stream that has a `close` method."""
    if (close := getattr(stream, "close", None)) is not None:
        close()


async def aclose_stream(stream: Any) -> None:
    """Closes a stream that has an `aclose` method."""
    if (aclose := getattr(stream, "aclose", None)) is not None:
        await aclose()


@contextmanager
def closing_stream(stream: StreamT) -> Iterator[StreamT]:
    """`contextlib.closing` for any iterator."""
    try:
        yield stream
    finally:
        close_stream(stream)


@asynccontextmanager
async def aclosing_stream(stream: StreamT) -> AsyncIterator[StreamT]:
    """`contextlib.aclosing` for any async iterator."""
    try:
        yield stream
    finally:
        await aclose_stream(stream)
