"""Interruptions between any two bytecodes: no text is lost or reordered, and no thread hangs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from skeleton_of_thought.errors import EngineClosed, EngineReentered
from skeleton_of_thought.local import LocalEngine, guard, worker
from skeleton_of_thought.local import stream as stream_module
from skeleton_of_thought.local.stream import AsyncSink, QueueSink
from skeleton_of_thought.types import Completion, Usage

STORY = "The small boat crossed the wide river before the evening came."
DONE = Completion("ab", (5, 6), "length", Usage(1, 2))

Step = Callable[[], object]


class Interruptions:
    """Runs steps between the bytecodes of some modules' functions, as signals and other threads do.

    Args:
        modules: The modules whose functions are interrupted.
        steps: Functions to run, in this order.
        at: The number of the bytecode before which each step runs; ascending.
    """

    def __init__(self, modules: tuple[Any, ...], steps: list[Step], at: tuple[int, ...]) -> None:
        self._files = {module.__file__ for module in modules}
        self._steps = list(zip(at, steps, strict=True))
        self.count = 0

    def next(self) -> bool:
        """Run the next step now; False when there is none left."""
        if not self._steps:
            return False
        step = self._steps.pop(0)[1]
        before = sys.gettrace()
        sys.settrace(None)  # a step is not interrupted by the next: outside of tests it runs on another thread
        try:
            step()
        finally:
            sys.settrace(before)
        return True

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            while self._steps and self._steps[0][0] <= self.count:
                self.next()
            self.count += 1
        return self._trace


class WouldWait(Exception):
    """Raised in place of waiting, in tests where no other thread runs."""


class Latch:
    """The lock of a sink that calls a function in place of waiting."""

    def __init__(self, while_waiting: Callable[[], bool]) -> None:
        self._free = False
        self._while_waiting = while_waiting

    def locked(self) -> bool:
        return not self._free

    def release(self) -> None:
        if self._free:
            raise RuntimeError("release unlocked lock")
        self._free = True

    def acquire(self) -> None:
        while not self._free:
            if not self._while_waiting():
                raise WouldWait
        self._free = False


LATE = (10_000, 10_000, 10_000)
"""Steps that run only while a reader waits."""


def moments(count: int, apart: int) -> Iterator[tuple[int, int]]:
    """Pairs of moments: each one with itself, with every `apart`-th later one, and with none."""
    assert count > 20
    for first in range(count):
        yield from ((first, second) for second in (*range(first, count, apart), LATE[0]))


# --- sinks ----------------------------------------------------------------------------------------


def read_all(source: QueueSink) -> list[str]:
    pieces = []
    while piece := source.take():
        pieces.append(piece)
    return pieces


def test_a_reader_gets_all_text_in_order_whenever_it_is_written() -> None:
    def read(at: tuple[int, int], *, begun: bool) -> tuple[str, int]:
        source = QueueSink()
        steps: list[Step] = [lambda: source.text("b"), lambda: source.end(DONE)]
        interruptions = Interruptions((stream_module,), steps, at)
        source._ready = Latch(interruptions.next)  # type: ignore[assignment]
        if begun:
            source.text("a")
        with interruptions.running():
            text = "".join(read_all(source))
        return text, interruptions.count

    for begun, text in ((False, "b"), (True, "ab")):
        _, count = read(LATE[:2], begun=begun)
        for moment in moments(count, apart=7):
            assert read(moment, begun=begun)[0] == text, moment


def test_a_writer_wakes_the_reader_whenever_the_reader_reads() -> None:
    def write(at: int) -> tuple[str, int]:
        source = QueueSink()
        source._ready = Latch(lambda: False)  # type: ignore[assignment]
        source.text("a")
        read: list[str] = []
        blocked: list[WouldWait] = []

        def reading() -> None:
            try:
                while True:
                    read.append(source.take())
            except WouldWait as wait:
                blocked.append(wait)

        interruptions = Interruptions((stream_module,), [reading], (at,))
        with interruptions.running():
            source.text("b")
        # A waiting reader must find a wake-up, unless it had read all text before.
        assert not source._ready.locked() or "".join(read) == "ab", at
        source.end(DONE)
        assert not source._ready.locked()
        return "".join([*read, *read_all(source)]), interruptions.count

    _, count = write(LATE[0])
    assert count > 10
    for at in range(count):
        assert write(at)[0] == "ab", at


async def test_a_task_gets_all_text_in_order_whenever_it_is_written() -> None:
    async def read(*at: int) -> tuple[str, int]:
        source = AsyncSink(asyncio.get_running_loop())
        pieces: list[str] = []

        async def reading() -> None:
            while piece := await source.take():
                pieces.append(piece)

        steps: list[Step] = [lambda: source.text("a"), lambda: source.text("b"), lambda: source.end(DONE)]
        interruptions = Interruptions((stream_module,), steps, at)
        with interruptions.running():
            task = asyncio.create_task(reading())
            while not task.done():
                count = interruptions.count
                for _ in range(4):  # turns of the loop, enough for a wake-up to arrive
                    await asyncio.sleep(0)
                if interruptions.count == count and not task.done():
                    assert interruptions.next(), f"{at}: a wake-up was lost"
        await task
        return "".join(pieces), interruptions.count

    _, count = await read(*LATE)
    for first, second in moments(count, apart=23):
        assert (await read(first, first, second))[0] == "ab", (first, second)
        assert (await read(first, second, second))[0] == "ab", (first, second)


# --- the engine -----------------------------------------------------------------------------------


@pytest.fixture
def cold(gate: Any, tokenizer: Any) -> Iterator[Callable[[], LocalEngine]]:
    """Makes engines whose thread has not started."""
    made: list[LocalEngine] = []

    def make() -> LocalEngine:
        made.append(LocalEngine(gate, tokenizer))
        made[-1]._eos_ids = frozenset()
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.mark.parametrize("moment", ["not begun", "over before the handler", "over after the call"])
def test_a_handler_may_close_the_engine_wherever_it_interrupts(
    cold: Callable[[], LocalEngine], tiny: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The engine's thread has not started; or it ends before the handler returns; or it ends after the call returns."""

    def closed(at: int) -> tuple[str, int]:
        engine, returned = cold(), threading.Event()
        running = engine._worker
        if moment != "not begun":
            engine.generate([STORY], max_new_tokens=1)
        if moment == "over after the call":
            end = running._end_all
            monkeypatch.setattr(running, "_end_all", lambda error: (end(error), returned.wait(60)))

        def handler() -> None:
            if not guard.holds_guard():
                returned.set()  # outside the guard, closing waits for the thread
            engine.close()
            if moment == "over before the handler":
                tiny.eventually(lambda: not tiny.runs(engine))

        interruptions = Interruptions((guard, worker), [handler], (at,))
        try:
            with interruptions.running():
                stream = engine.stream(STORY, max_new_tokens=400)
        except EngineClosed:
            return "refused", interruptions.count
        finally:
            returned.set()
        engine.close()
        tiny.eventually(lambda: engine.stats().failed == 1)
        with pytest.raises(EngineClosed):
            list(stream)
        assert (engine.stats().rows, engine.stats().waiting, tiny.runs(engine)) == (0, 0, False), at
        return "failed", interruptions.count

    _, count = closed(LATE[0])
    assert {closed(at)[0] for at in range(0, count, 2)} == {"refused", "failed"}


def test_a_handler_that_reads_text_gets_it_or_an_error(cold: Callable[[], LocalEngine]) -> None:
    engine = cold()
    expected = engine.generate([STORY], max_new_tokens=3)[0].text

    def asked(at: int) -> tuple[str, int]:
        got: list[str] = []

        def handler() -> None:
            try:
                got.append(engine.generate([STORY], max_new_tokens=3)[0].text)
            except EngineReentered:
                got.append("refused")

        interruptions = Interruptions((guard, worker), [handler], (at,))
        with interruptions.running():
            stream = engine.stream(STORY, max_new_tokens=3)
        assert "".join(stream) == expected
        return got[0] if got else "", interruptions.count

    _, count = asked(LATE[0])
    assert {asked(at)[0] for at in range(0, count, 2)} == {"refused", expected}
