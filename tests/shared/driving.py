"""The two drivers as functions that run flows to an end or a condition, and a clock for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from skeleton_of_thought import drive
from skeleton_of_thought.events import PointDone
from skeleton_of_thought.flow import AnswerFlow


def in_threads(model: Any, flows: list[AnswerFlow], until: Callable | None = None, **options) -> list:
    events = []
    stream = drive.run(flows, model.open, **options)
    with contextlib.closing(stream):
        for item in stream:
            events.append(item)
            if until is not None and until(item[1]):
                break
    return events


def on_the_loop(model: Any, flows: list[AnswerFlow], until: Callable | None = None, **options) -> list:
    async def main() -> list:
        events = []
        async with contextlib.aclosing(drive.arun(flows, model.aopen, **options)) as stream:
            async for item in stream:
                events.append(item)
                if until is not None and until(item[1]):
                    break
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return events

    return asyncio.run(main())


class Clock:
    """A clock that stands still on any machine and jumps ahead once: by `jump`, or after `after` points."""

    def __init__(self, after: int | None = None) -> None:
        self._now = 0.0
        self._left = after

    def __call__(self) -> float:
        return self._now

    def jump(self) -> None:
        self._now = 100.0

    def watch(self, event: Any) -> bool:
        """An `until` that is always false; it counts the points."""
        if self._left is not None and isinstance(event, PointDone):
            self._left -= 1
            if self._left == 0:
                self.jump()
        return False
