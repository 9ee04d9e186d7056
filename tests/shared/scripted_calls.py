"""Parts of the scripted models of all frameworks: steps that wait, and a record of calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 20.0
"""Seconds after which a wait fails the test, so that the test does not hang."""


class Gate:
    """A condition that a thread or a task can wait for."""

    def __init__(self, condition: Callable[[], bool] | None = None) -> None:
        self._open = threading.Event()
        self._condition = condition or self._open.is_set

    def open(self) -> None:
        self._open.set()

    def _checks(self) -> Iterator[None]:
        until = time.monotonic() + PATIENCE
        while not self._condition():
            assert time.monotonic() < until, "a gate was never opened"
            yield

    def wait(self) -> None:
        for _ in self._checks():
            time.sleep(0.001)

    async def await_(self) -> None:
        for _ in self._checks():
            await asyncio.sleep(0.001)


Step = str | Exception | Gate | Callable[[], Any]
Script = Callable[[Any], Iterable[Step]]


@dataclass
class Watch:
    """Records the calls of a model or a retriever, and how many are open."""

    seen: list[Any] = field(default_factory=list)
    open: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def call(self, seen: Any) -> Iterator[None]:
        with self.lock:
            self.seen.append(seen)
            self.open += 1
            self.peak = max(self.peak, self.open)
        try:
            yield
        finally:
            with self.lock:
                self.open -= 1

    def of(self, stage: str, point: int | None = None) -> list[Any]:
        return [s for s in self.seen if s.stage == stage and (point is None or s.point == point)]

    def together(self, count: int) -> Gate:
        """A gate that opens when this many calls have been open at once."""
        return Gate(lambda: self.peak >= count)
