"""Async methods that block their event loop, and threads in which blocking work runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dis
import functools
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeVar

from skeleton_of_thought.adapters.replies import closing_stream
from skeleton_of_thought.drive import GRACE

__all__ = ["call_in_thread", "is_truly_async", "next_or_none", "stream_in_thread"]

ItemT = TypeVar("ItemT")

_WAITS = frozenset({"GET_AWAITABLE", "GET_ANEXT", "BEFORE_ASYNC_WITH"})
"""Bytecode instructions that await something."""


# --- which methods block ---


def is_truly_async(thing: object, method: str) -> bool:
    """Whether an async method of this object, or class, awaits anything.

    LlamaIndex requires async methods of its integrations, and many have
    `async def aretrieve(...): return self.retrieve(...)`. A coroutine function blocks the event loop until it returns
    if its code awaits nothing and has no inner function that does.

    Methods are looked up statically: LlamaIndex wraps them in descriptors that give another object at each access.
    """
    found: Any = inspect.getattr_static(thing, method, None)
    functions = list(_functions(found))
    # Methods that are not written in Python have no code to read; they count as async.
    return not functions or any(_awaits(function.__code__) for function in functions)


def _functions(found: Any) -> Iterator[Any]:
    """The function inside a method's decorators; for an opaque decorator, all coroutine functions in its closure."""
    while callable(inner := getattr(found, "__wrapped__", None)):
        found = inner
    if not inspect.isfunction(found):
        return
    # LlamaIndex's decorators of LLMs keep the function in their closure.
    held = [cell.cell_contents for cell in found.__closure__ or () if _is_filled(cell)]
    inner_functions = [value for value in held if inspect.iscoroutinefunction(value)]
    if inner_functions:
        for function in inner_functions:
            yield from _functions(function)
    else:
        yield found


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


# Cached: every answer needs it, and reading code takes longer than everything else before a call.
@functools.lru_cache(maxsize=1024)
def _awaits(code: CodeType) -> bool:
    # Inner functions count, too: a stream is a generator that the method makes and returns.
    within = (part for part in code.co_consts if isinstance(part, CodeType))
    return any(step.opname in _WAITS for step in dis.get_instructions(code)) or any(map(_awaits, within))


# --- threads ---


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None


async def stream_in_thread(open_stream: Callable[[], Iterable[ItemT]], name: str) -> AsyncGenerator[ItemT]:
    """Iterates a blocking stream in a thread, with the caller's context variables.

    Each stream has a thread of its own: the loop's default executor has few workers (six on two cores), and ten points
    would wait for each other. Closing the iterator closes the stream at its next item, and waits until it is closed; a
    cancellation ends that wait within `GRACE` seconds.

    Args:
        open_stream: Called in the thread.
        name: The thread's name.
    """
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[tuple[ItemT] | _Ended] = asyncio.Queue()
    stop = threading.Event()

    def put(item: tuple[ItemT] | _Ended) -> None:
        # A closed loop raises; nobody waits for the item any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(inbox.put_nowait, item)

    def work() -> None:
        error: BaseException | None = None
        try:
            _pass_on(open_stream, lambda item: put((item,)), stop)
        except BaseException as caught:  # raised in the caller's task
            error = caught
        put(_Ended(error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True)
    ended, closed = True, False
    try:
        # Within the `try`: an interrupt within the start may leave a thread that runs. It opens no stream then.
        thread.start()
        ended = False
        while True:
            item = await inbox.get()
            if isinstance(item, _Ended):
                ended = True
                if item.error is not None:
                    raise item.error
                return
            yield item[0]
    except GeneratorExit:
        closed = True
        raise
    finally:
        stop.set()
        try:
            if not ended:
                await _end_of(inbox)
        except asyncio.CancelledError:
            # The adapter closes a stream at the reply's limit, and the driver cancels the call at the same limit. The
            # cancellation of a stream that is closed already should not leave its thread behind.
            if closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GRACE):
                        await _end_of(inbox)
            raise


async def _end_of(inbox: asyncio.Queue[Any]) -> None:
    while not isinstance(await inbox.get(), _Ended):
        pass


def _pass_on(open_stream: Callable[[], Iterable[ItemT]], put: Callable[[ItemT], None], stop: threading.Event) -> None:
    if stop.is_set():
        return
    with closing_stream(open_stream()) as stream:
        for item in stream:
            if stop.is_set():
                return
            put(item)


async def next_or_none(items: AsyncIterator[ItemT]) -> ItemT | None:
    """The next item, as a coroutine for a task; None at the end."""
    return await anext(items, None)


async def call_in_thread(function: Callable[[], ItemT], name: str) -> ItemT:
    """Calls a blocking function in a thread, with the caller's context variables."""
    results = [result async for result in stream_in_thread(lambda: [function()], name)]
    return results[0]
