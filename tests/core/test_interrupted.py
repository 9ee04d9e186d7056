"""Ctrl-C at any place of the drivers: no thread, no open call and no place in a budget is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.budget import Budget, Share
from skeleton_of_thought.drive import AsyncTogether, Together
from skeleton_of_thought.events import AnswerDone, AnswerFailed, PointDelta, PointDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Message, Point, Reply, Skeleton
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
from tests.shared.scripted_calls import PATIENCE, Watch

__all__ = ["nothing_stale"]

pytestmark = pytest.mark.usefixtures("nothing_stale")

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

    seen = at_each_line(answer, nothing_left(model.watch, budget), STARTS, step=1 + cancellable)
    assert {"drive.py", "board.py", "budget.py", "threading.py"} <= {line.partition(":")[0] for line in seen}
    assert len(model.watch.seen) > 100  # most of the interrupts came while calls were open


def test_an_interrupt_at_any_line_of_a_lone_direct_answer_closes_its_stream():
    model = Endless()

    class Stream:
        """A stream that no collector closes: it is open until `close` is called."""

        def __init__(self, call) -> None:
            self.call = contextlib.ExitStack()
            self.call.enter_context(model.watch.call(call))

        def __iter__(self):
            yield from ["word "] * 3

        def close(self) -> None:
            self.call.close()

    def answer():
        list(drive.run([flow(skeleton=None, router=lambda question: False)], lambda call, _: Stream(call)))

    assert len(at_each_line(answer, nothing_left(model.watch), DRIVERS)) > 50


def test_an_interrupt_at_any_line_leaves_none_of_the_calls_that_start_together():
    model, budget = Endless(), Budget(4)

    def together(calls):
        with model.watch.call(calls):
            time.sleep(0.002)
        return [("text", Reply())] * len(calls)

    def answer():
        own = Together(key=lambda call, _: call.point.index < 3 or None, answer=together)
        share = Share(budget, shared=True)
        with contextlib.closing(drive.run([flow()], model.open, together=own, max_concurrency=share)) as events:
            next(event for _, event in events if isinstance(event, PointDone))

    seen = at_each_line(answer, nothing_left(model.watch, budget), STARTS, step=2)
    assert "together.py" in {line.partition(":")[0] for line in seen}


@pytest.mark.parametrize("instead", [interrupt_before, interrupt_after, interrupt_that_becomes_an_error])
@pytest.mark.parametrize("which", [1, 2, 3, 4])
@pytest.mark.parametrize("batched", [False, True])
def test_an_interrupt_within_the_start_of_a_thread_leaves_no_call(monkeypatch, instead, which, batched):
    model, budget = Endless(), Budget(9)
    starts = Starts(monkeypatch, which, instead)
    wide = Skeleton(tuple(Point(i, f"Point {i}") for i in range(1, 9)))
    together = Together(
        key=lambda call, _: call.point.index // 2, answer=lambda calls: [("text", Reply())] * len(calls)
    )
    share = Share(budget, shared=True)
    with pytest.raises(KeyboardInterrupt):
        list(
            drive.run([flow(skeleton=wide)], model.open, together=together if batched else None, max_concurrency=share)
        )
    nothing_left(model.watch, budget)("start")
    assert starts.count == which


@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("batched", [False, True])
def test_one_of_several_calls_that_finds_no_thread_is_made_later(monkeypatch, which, batched):
    Starts(monkeypatch, which, no_thread)
    watch = Watch()

    def opened(call, position):
        with watch.call(call):
            yield f"text {call.point.index}"

    together = Together(
        key=lambda call, _: call.point.index > 2 or None,
        answer=lambda calls: [(f"text {call.point.index}", Reply()) for call, _ in calls],
    )
    wide = Skeleton(tuple(Point(i, f"Point {i}") for i in range(1, 5)))
    asked = flow(skeleton=wide, settings=Settings(backoff=0.0))
    events = list(drive.run([asked], opened, together=together if batched else None))
    (answer,) = [event.answer for _, event in events if isinstance(event, AnswerDone)]
    assert [expansion.text for expansion in answer.expansions] == [f"text {i}" for i in range(1, 5)]
    nothing_left(watch)("the end")


def test_a_lack_of_threads_while_an_interrupt_is_handled_is_a_lack_of_threads(monkeypatch):
    starts = Starts(monkeypatch, 2, no_thread)
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        asked = flow(settings=Settings(backoff=0.0))
        events = list(drive.run([asked], lambda call, position: iter(["text"])))
    assert isinstance(events[-1][1], AnswerDone)
    assert starts.count == 4


@pytest.mark.parametrize("policy", ["placeholder", "raise"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_point_that_never_finds_a_thread_follows_its_policy(monkeypatch, policy, retries):
    start = threading.Thread.start
    refused = []

    def patched(thread):
        if thread.name == "sot-point-0-2":
            refused.append(thread.name)
        if thread.name.startswith("sot-point") and not thread.name.endswith("-1"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", patched)
    settings = Settings(on_point_error=policy, max_retries=retries, backoff=0.0, placeholder="(none)")
    watch = Watch()

    def opened(call, position):
        with watch.call(call):
            yield "text"

    events = list(drive.run([flow(settings=settings)], opened))
    last = events[-1][1]
    if policy == "placeholder":
        assert isinstance(last, AnswerDone)
        assert [expansion.text for expansion in last.answer.expansions] == ["text", "(none)", "(none)"]
        assert [expansion.attempts for expansion in last.answer.expansions] == [1, retries + 1, retries + 1]
    else:
        assert isinstance(last, AnswerFailed)
        assert "could not start a thread" in str(last.error)
        assert last.error.answer.expansions[0].text == "text"
    nothing_left(watch)("the end")


def test_an_interrupt_while_calls_are_waited_for_does_not_lose_the_others():
    # The second Ctrl-C of somebody who finds the first one slow.
    watch, budget = Watch(), Budget(3)
    release = threading.Event()

    def opened(call, position):
        with watch.call(call):
            yield "word "
            release.wait(PATIENCE)
            while True:
                time.sleep(0.0002)
                yield "word "

    joined = []

    def second(frame, event, _):
        if event == "line" and frame.f_code.co_name == "_end" and not joined and len(watch.seen) == 3:
            joined.append(frame.f_lineno)
            release.set()
            raise KeyboardInterrupt
        return second

    events = drive.run([flow()], opened, max_concurrency=Share(budget, shared=True))
    while watch.open < 3:
        next(events)
        if len(watch.seen) == 3:
            break
    before = sys.gettrace()
    sys.settrace(second)
    try:
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt())
    finally:
        sys.settrace(before)
    assert joined
    nothing_left(watch, budget)("twice")


@pytest.mark.parametrize("batched", [False, True])
def test_an_interrupt_at_any_line_of_the_loops_driver_leaves_no_task(batched):
    model, budget, left = Endless(), Budget(4), []

    async def together(calls):
        with model.watch.call(calls):
            await asyncio.sleep(0)
        return [("text", Reply())] * len(calls)

    async def answers():
        own = AsyncTogether(key=lambda call, _: call.point.index < 3 or None, answer=together) if batched else None
        share = Share(budget, shared=True)
        heard = set()
        try:
            events = drive.arun([flow()], model.aopen, together=own, max_concurrency=share)
            async with contextlib.aclosing(events):
                async for _, event in events:
                    heard |= {event.point.index} if isinstance(event, PointDelta) else set()
                    if len(heard) == 3:
                        return
        finally:
            left.append([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])

    def answer():
        # As `asyncio.run` does, which would also cancel tasks that nobody knows.
        loop = asyncio.new_event_loop()
        try:
            task = loop.create_task(answers())
            try:
                loop.run_until_complete(task)
            except KeyboardInterrupt:
                sys.settrace(None)
                task.cancel()
                if not task.done():
                    loop.run_until_complete(asyncio.wait([task]))
                raise
        finally:
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def check(where: str) -> None:
        assert not model.watch.open, where
        assert budget.open == 0, where

    files = (f"{CORE}/drive.py", f"{CORE}/tasks.py")
    at_each_line(answer, check, files)
    assert len(left) > 50
    assert all(len(tasks) <= 1 for tasks in left), left


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this system")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_soak_of_real_interrupts_leaves_no_call():
    watch, budget, interrupted = Watch(), Budget(8), 0

    def opened(call, position):
        with watch.call(call):
            while True:
                time.sleep(0.001)
                yield "word "

    def stop(number, frame):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, stop)
    try:
        # Each round is interrupted 0.02 ms later than the last one, from before the first thread
        # starts to after the last one has. How long that takes is the machine's affair.
        for moment in range(3000):
            if moment >= 300 and len(watch.seen) > 300:
                break
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 * (moment + 1))
                short = Settings(max_point_chars=5000)
                asked = [flow(settings=short), flow(settings=short)]
                for _ in drive.run(asked, opened, max_concurrency=Share(budget, shared=True)):
                    pass
            except KeyboardInterrupt:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            nothing_left(watch, budget)(str(moment))
    finally:
        signal.signal(signal.SIGALRM, handler)
    # Python drops an exception of a signal that it handles within the callback of a weak reference.
    assert interrupted > 200
    assert len(watch.seen) > 300
