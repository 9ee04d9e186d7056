"""Ctrl-C at any place of the drivers: no thread, no open call and no place in a budget is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import linecache
import sys
import threading
import time
from pathlib import Path

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.budget import Budget, Share
from skeleton_of_thought.events import PointDelta
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.types import Conversation, Message, Point, Skeleton
from tests.shared.scripted_calls import PATIENCE, Watch

TITLES = Skeleton((Point(1, "Sleep"), Point(2, "Eat"), Point(3, "Walk")))
CORE = str(Path(drive.__file__).parent)
DRIVERS = tuple(f"{CORE}/{name}.py" for name in ("drive", "together", "tasks", "board", "budget"))
STARTS = (*DRIVERS, threading.__file__)


def flow(**options):
    options = {"skeleton": TITLES, **options}
    return AnswerFlow(Conversation((Message("user", "How do I stay awake?"),)), **options)


class Endless:
    """Calls that write until they are closed or cancelled."""

    def __init__(self, *, cancellable: bool = False) -> None:
        self.watch = Watch()
        self.cancellable = cancellable

    def open(self, call, position):
        stream = self._texts(call)
        return Cancellable(stream) if self.cancellable else stream

    def _texts(self, call):
        with self.watch.call(call):
            while True:
                time.sleep(0.0002)
                yield "word "

    async def aopen(self, call, position):
        with self.watch.call(call):
            while True:
                await asyncio.sleep(0)
                yield "word "


class Cancellable:
    """A stream that ends by itself once it is cancelled, as those of servers do."""

    def __init__(self, texts) -> None:
        self._texts, self._cancelled = texts, threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def __iter__(self):
        for text in self._texts:
            yield text
            if self._cancelled.is_set():
                return

    def close(self) -> None:
        self._texts.close()


def is_release(file: str, line: int) -> bool:
    """Whether this line is visited once more when its lock is released: no signal is handled just before that."""
    return linecache.getline(file, line).lstrip().startswith("with ") and "_lock" in linecache.getline(file, line)


def raise_at(moment: int, files: tuple[str, ...], seen: list[str]):
    """A trace function that raises KeyboardInterrupt at this line of these files, in this thread."""
    left = itertools.count(moment, -1)

    def trace(frame, event, _):
        code = frame.f_code
        # Of the standard library, the start of a thread alone: its locks are not ours to repair.
        if code.co_filename not in files or (code.co_filename == threading.__file__ and code.co_name != "start"):
            return None
        if event == "line" and not is_release(code.co_filename, frame.f_lineno) and next(left) == 0:
            seen.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            raise KeyboardInterrupt
        return trace

    return trace


def at_each_line(answer, check, files=STARTS, step: int = 1) -> list[str]:
    """Interrupts `answer` at each of its lines in turn, and checks what is left; returns the lines."""
    seen: list[str] = []
    before = sys.gettrace()
    for moment in itertools.count(0, step):
        count = len(seen)
        try:
            sys.settrace(raise_at(moment, files, seen))
            try:
                answer()
            finally:
                sys.settrace(before)
        except KeyboardInterrupt:
            check(seen[-1])  # while the exception holds all frames
        if len(seen) == count:
            check("the end")
            return seen
    raise AssertionError


def calls_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sot-") and thread.is_alive()]


def wait_until(what, *say) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, say
        time.sleep(0.0005)


def nothing_left(watch: Watch, *budgets: Budget):
    def check(where: str) -> None:
        wait_until(lambda: not calls_left() and not watch.open, where, calls_left())
        assert [budget.open for budget in budgets] == [0] * len(budgets), where

    return check


@pytest.mark.parametrize("cancellable", [False, True])
def test_an_interrupt_at_any_line_of_an_answer_leaves_no_call(cancellable):
    model, budget = Endless(cancellable=cancellable), Budget(3)

    def answer():
        share = Share(budget, shared=True)
        with contextlib.closing(drive.run([flow()], model.open, max_concurrency=share)) as events:
            heard = set()
            for _, event in events:
                if isinstance(event, PointDelta):
                    heard.add(event.point.index)
                if len(heard) == 3:
                    return

    seen = at_each_line(answer, nothing_left(model.watch, budget))
    assert {"drive.py", "board.py", "budget.py", "threading.py"} <= {line.partition(":")[0] for line in seen}
    assert len(model.watch.seen) > 100  # most of the interrupts came while calls were open
