"""Threads that work through a list together: they end together, whatever ends them."""

from __future__ import annotations

import itertools
import threading

import pytest

from skeleton_of_thought.evaluation import workers
from skeleton_of_thought.evaluation.workers import work_in_threads
from tests.shared.interrupting import (
    Starts,
    at_each_line,
    interrupt_after,
    interrupt_before,
    interrupt_that_becomes_an_error,
    no_thread,
    nothing_left,
    nothing_stale,
)
from tests.shared.scripted_calls import Watch

__all__ = ["nothing_stale"]

pytestmark = pytest.mark.usefixtures("nothing_stale")


class Work:
    """Items for threads, each of which takes a millisecond or so; without a count, there is no end of them."""

    def __init__(self, count=None):
        self.watch, self.done, self.cancelled = Watch(), [], threading.Event()
        self._items = itertools.count() if count is None else iter(range(count))
        self._lock = threading.Lock()

    def work(self):
        with self.watch.call("work"):
            while not self.cancelled.is_set():
                with self._lock:
                    if (item := next(self._items, None)) is None:
                        return
                self.cancelled.wait(0.001)
                self.done.append(item)

    def run(self, number=3):
        work_in_threads(self.work, self.cancelled.set, number, name="sot-work")


def test_an_interrupt_at_any_line_leaves_no_thread():
    works = []

    def answer():
        works.append(Work(count=6))
        works[-1].run()

    def check(where):
        work = works[-1]
        nothing_left(work.watch)(where)
        assert work.cancelled.is_set() or not work.watch.seen or len(work.done) == 6, where

    seen = at_each_line(answer, check, (workers.__file__, threading.__file__))
    assert {"workers.py", "threading.py"} <= {line.partition(":")[0] for line in seen}


@pytest.mark.parametrize("instead", [interrupt_before, interrupt_after, interrupt_that_becomes_an_error])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_interrupt_within_the_start_of_a_thread_is_that_interrupt(monkeypatch, instead, which):
    work = Work()
    Starts(monkeypatch, which, instead, names="sot-work")
    with pytest.raises(KeyboardInterrupt):
        work.run()
    nothing_left(work.watch)("start")


@pytest.mark.parametrize("which", [2, 3])
def test_a_machine_without_more_threads_uses_those_that_it_has(monkeypatch, which):
    work = Work(count=20)
    Starts(monkeypatch, which, no_thread, names="sot-work")
    work.run()
    assert sorted(work.done) == list(range(20))
    assert len(work.watch.seen) == which - 1
    nothing_left(work.watch)("the end")


def test_a_machine_without_any_thread_says_so(monkeypatch):
    work = Work(count=20)
    Starts(monkeypatch, 1, no_thread, names="sot-work")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        work.run()
    assert work.done == []


def test_the_first_error_ends_the_others():
    work = Work()
    first = threading.Lock()

    def fails_once():
        if first.acquire(blocking=False):
            raise ValueError("boom")
        work.work()

    with pytest.raises(ValueError, match="boom"):
        work_in_threads(fails_once, work.cancelled.set, 3, name="sot-work")
    assert work.watch.open == 0
