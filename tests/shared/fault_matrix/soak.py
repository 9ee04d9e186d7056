"""Many answers, of which many are left early at random moments: by Ctrl-C, by a cancelled task, by a closed stream."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from fault_matrix.cells import Cell, Policy
from fault_matrix.clients import Steering
from fault_matrix.leftovers import Before
from fault_matrix.server import Due, FaultServer
from fault_matrix.surfaces import ask_async, ask_sync

LATEST = 0.08
"""Seconds from the beginning of an answer until it is left, at most. Most answers end sooner on an idle machine."""
_SIDE_BY_SIDE = 6
_FAULTS = (None, "trickle", "stalled", "reset_amid", "busy_later", "empty")
"""A trickle ends only when it is left. A thread can leave it only if it is a stream."""
_PLACEHOLDER = Policy(on_point_error="placeholder")
_STAGES = ("skeleton", "point", "direct")


def soak(server: FaultServer, surface: str, answers: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Asks for answers in threads, one after another, then for as many on an event loop, several side by side.

    Args:
        server: The server.
        surface: `"chain"`, `"chat"` or `"engine"`.
        answers: How many, in threads and on the loop each.
        seed: Of the random choices.

    Returns:
        How many answers ended how; and what is left behind at the end.
    """
    source, ends = random.Random(f"{surface} {seed}"), Counter[str]()
    steering = Steering(server)
    try:
        before = Before(server)
        _soak_in_threads(steering, surface, answers, source, ends)
        left = _collected(before.settled)
        left += asyncio.run(_soak_on_a_loop(steering, surface, answers, source, ends))
    finally:
        steering.close()
    return ends, left + _collected(before.settled)


def _collected(settled: Callable[[], list[str]]) -> list[str]:
    """What is left, apart from what the garbage collector takes.

    Ctrl-C or a cancellation inside of an HTTP client, while it connects, leaves a socket to the collector.
    """
    gc.collect()
    return settled()


def _soak_in_threads(steering: Steering, surface: str, answers: int, source: random.Random, ends: Counter[str]) -> None:
    ways = ("query", "stream") if surface == "engine" else ("invoke", "stream", "batch")
    for _ in range(answers):
        cell = _cell(steering.server, surface, source.choice(ways), source)
        closing, ask = ask_sync(cell, steering)
        with closing:
            left_early = cell.fault == "trickle" or source.random() < 0.5
            ends[_interrupted(ask, source.uniform(0, LATEST)) if left_early else _ended(ask())] += 1


async def _soak_on_a_loop(
    steering: Steering, surface: str, answers: int, source: random.Random, ends: Counter[str]
) -> list[str]:
    before = Before(steering.server)
    ways = ("aquery", "astream", "events") if surface == "engine" else ("ainvoke", "astream", "abatch")
    left: list[str] = []
    for _ in range(0, answers, _SIDE_BY_SIDE):
        async with contextlib.AsyncExitStack() as stack:
            tasks = []
            first = _cell(steering.server, surface, source.choice(ways), source)
            for _ in range(_SIDE_BY_SIDE):
                cell = Cell(surface, source.choice(ways), first.fault, first.stage, first.policy)
                ask = await ask_async(cell, steering, stack)
                left_early = cell.fault == "trickle" or source.random() < 0.5
                tasks.append(_cancelled(ask, source.uniform(0, LATEST)) if left_early else _awaited(ask))
            ends.update(await asyncio.gather(*tasks))
        # After the clients are closed: a cancellation that meets httpx as it closes a connection leaves the socket to
        # its client. The cells of the matrix look at sockets before that.
        gc.collect()
        left += await before.asettled()
    return left


def _cell(server: FaultServer, surface: str, way: str, source: random.Random) -> Cell:
    """An answer, and the fault that it meets."""
    fault, stage = source.choice(_FAULTS), source.choice(_STAGES)
    if fault == "trickle" and way in ("invoke", "batch", "query"):
        fault = "stalled"
    server.expect(None if fault is None else Due(fault, stage))
    return Cell(surface, way, fault or "none", stage, _PLACEHOLDER)


def _ended(seen: Any) -> str:
    return "answered" if seen.error is None else "failed"


async def _awaited(ask: Callable[[], Any]) -> str:
    return _ended(await ask())


async def _cancelled(ask: Callable[[], Any], seconds: float) -> str:
    task = asyncio.ensure_future(ask())
    done, _ = await asyncio.wait([task], timeout=seconds)
    if done:
        return _ended(task.result())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return _ended(await task)
    return "cancelled"


class _Interrupt(KeyboardInterrupt):
    """Ctrl-C at a moment that the soak chose."""


def _interrupted(ask: Callable[[], Any], seconds: float) -> str:
    try:
        with _interrupt_after(seconds):
            return _ended(ask())
    except _Interrupt:
        return "interrupted"


@contextlib.contextmanager
def _interrupt_after(seconds: float) -> Iterator[None]:
    """Interrupts the block as Ctrl-C does, once and never after it."""
    assert threading.current_thread() is threading.main_thread(), "only the main thread can be interrupted"
    armed = True

    def interrupt(signum: int, frame: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise _Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
