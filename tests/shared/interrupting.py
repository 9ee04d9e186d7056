"""Ctrl-C at a chosen place of code that starts threads, and what it leaves."""

from __future__ import annotations

import gc
import itertools
import linecache
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.budget import Budget
from tests.shared.scripted_calls import PATIENCE, Watch


@pytest.fixture
def nothing_stale() -> Iterator[None]:
    """Leaves nothing to other tests.

    Python lists threads that an interrupt kept from being made, and other tests count threads. The loop reports tasks
    that an interrupt has ended when they are collected; Python 3.11 parses source for that report, which breaks an
    `ast.parse` that is under way (python/cpython#106905).
    """
    yield
    gc.collect()
    for thread in threading.enumerate():
        if not thread.is_alive():
            threading._limbo.pop(thread, None)
            threading._active.pop(thread.ident, None)


def is_release(file: str, line: int) -> bool:
    """Whether this line is visited once more when its lock is released: no signal is handled just before that."""
    return linecache.getline(file, line).lstrip().startswith("with ") and "_lock" in linecache.getline(file, line)


def raise_at(moment: int, files: tuple[str, ...], seen: list[str]) -> Callable[..., Any]:
    """A trace function that raises KeyboardInterrupt at this line of these files, in this thread."""
    left = itertools.count(moment, -1)

    def trace(frame: Any, event: str, _: Any) -> Any:
        code = frame.f_code
        # Of the standard library, the start of a thread alone: its locks are not ours to repair.
        if code.co_filename not in files or (code.co_filename == threading.__file__ and code.co_name != "start"):
            return None
        if event == "line" and not is_release(code.co_filename, frame.f_lineno) and next(left) == 0:
            seen.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            raise KeyboardInterrupt
        return trace

    return trace


def at_each_line(
    answer: Callable[[], object], check: Callable[[str], None], files: tuple[str, ...], step: int = 1
) -> list[str]:
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


def wait_until(what: Callable[[], bool], *say: object) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, say
        time.sleep(0.0005)


def nothing_left(watch: Watch, *budgets: Budget) -> Callable[[str], None]:
    """Waits until no thread and no call is left, and checks that no place in a budget is taken."""

    def check(where: str) -> None:
        wait_until(lambda: not calls_left() and not watch.open, where, calls_left())
        assert [budget.open for budget in budgets] == [0] * len(budgets), where

    return check


class Starts:
    """The starts of the threads whose names begin with `names`; start number `which` does something else."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        which: int,
        instead: Callable[[Callable[[], None]], None],
        names: str = "sot-",
    ) -> None:
        self.count = 0
        start = threading.Thread.start

        def patched(thread: threading.Thread) -> None:
            if thread.name.startswith(names):
                self.count += 1
                if self.count == which:
                    instead(lambda: start(thread))
                    return
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", patched)


def interrupt_before(start: Callable[[], None]) -> None:
    raise KeyboardInterrupt


def interrupt_after(start: Callable[[], None]) -> None:
    start()
    raise KeyboardInterrupt


def interrupt_that_becomes_an_error(start: Callable[[], None]) -> None:
    # As in `Condition.wait`, which then releases a lock that the interrupt kept it from taking.
    start()
    try:
        raise KeyboardInterrupt
    finally:
        threading.Lock().release()


def no_thread(start: Callable[[], None]) -> None:
    raise RuntimeError("can't start new thread")
