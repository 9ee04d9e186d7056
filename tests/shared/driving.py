"""Flows driven to their end, or until something happens, by each of the two drivers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from skeleton_of_thought import drive
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
