"""Work that blocks, beside an event loop: each piece in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from skeleton_of_thought.adapters.streams import closing_stream

__all__ = ["call_in_thread", "stream_in_thread"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


async def stream_in_thread(open_stream: Callable[[], Iterable[T]], name: str) -> AsyncGenerator[T]:
    """Iterates a blocking stream in a thread, with the caller's context variables.

    A thread for each stream, for the loop's default executor has few workers: with two cores six, and ten points
    would wait for each other. Closing the iterator closes the stream, at its next item, and waits for that.

    Args:
        open_stream: Called in the thread.
        name: The thread's name.
    """
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[tuple[T] | _Ended] = asyncio.Queue()
    stop = threading.Event()

    def tell(item: tuple[T] | _Ended) -> None:
        # A loop that is closed has nobody who listens.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(inbox.put_nowait, item)

    def work() -> None:
        error: BaseException | None = None
        try:
            _pass_on(open_stream, lambda item: tell((item,)), stop)
        except BaseException as caught:  # raised where the caller is
            error = caught
        tell(_Ended(error))

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    ended = False
    try:
        while True:
            item = await inbox.get()
            if isinstance(item, _Ended):
                ended = True
                if item.error is not None:
                    raise item.error
                return
            yield item[0]
    finally:
        stop.set()
        while not ended:
            ended = isinstance(await inbox.get(), _Ended)


def _pass_on(open_stream: Callable[[], Iterable[T]], tell: Callable[[T], None], stop: threading.Event) -> None:
    if stop.is_set():
        return
    with closing_stream(open_stream()) as stream:
        for item in stream:
            if stop.is_set():
                return
            tell(item)


async def call_in_thread(function: Callable[[], T], name: str) -> T:
    """Calls a blocking function in a thread, with the caller's context variables."""
    results = [result async for result in stream_in_thread(lambda: [function()], name)]
    return results[0]
