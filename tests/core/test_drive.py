"""The drivers, with scripted streams: slow, failing, endless and stalled ones, in threads and on the loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from driving import Clock, in_threads, on_the_loop

from skeleton_of_thought import drive
from skeleton_of_thought.board import Board, End, Text
from skeleton_of_thought.budget import MAX_WAITS, Budget, Share
from skeleton_of_thought.errors import InvalidInput, PointError, PointTimeout
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    PointDelta,
    PointFound,
    PointStarted,
    Routed,
    SkeletonDone,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Conversation, Decoding, Point, Prompt, Reply, RouteDecision, Skeleton, Usage

WAIT = 20.0
"""Seconds until a hanging test fails, far above the time that any of these needs."""


def skeleton_of(n: int) -> list[str]:
    return [f"{i}. Title {i}\n" for i in range(1, n + 1)]


class Barrier:
    """Lets its parties pass once enough of them wait at the same time, in threads or tasks."""

    def __init__(self, parties: int) -> None:
        self._left = parties
        self._lock = threading.Lock()
        self.open = threading.Event()

    def arrive(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.open.set()


@dataclass
class Model:
    """A scripted model: for each call, a list of texts, exceptions, replies, and things to wait for.

    A `Barrier` waits until its parties have arrived, an `Event` until it is set, `ENDLESS` never ends.
    """

    script: Callable[[Call], list[object]]
    live: int = 0
    peak: int = 0
    opened: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def counted(self, call: Call) -> Iterator[None]:
        with self.lock:
            self.opened.append(call)
            self.live += 1
            self.peak = max(self.peak, self.live)
        try:
            yield
        finally:
            with self.lock:
                self.live -= 1

    def open(self, call: Call, flow: int) -> Iterator[str | Reply]:
        with self.counted(call):
            for step in self.script(call):
                if step is ENDLESS:
                    pause = threading.Event()
                    while True:
                        pause.wait(0.001)
                        yield "on and "
                elif isinstance(step, Barrier | threading.Event):
                    if isinstance(step, Barrier):
                        step.arrive()
                    assert (step.open if isinstance(step, Barrier) else step).wait(WAIT)
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step  # type: ignore[misc]

    async def aopen(self, call: Call, flow: int) -> AsyncIterator[str | Reply]:
        with self.counted(call):
            for step in self.script(call):
                await asyncio.sleep(0)
                if step is ENDLESS:
                    while True:
                        await asyncio.sleep(0.001)
                        yield "on and "
                elif isinstance(step, Barrier | threading.Event):
                    if isinstance(step, Barrier):
                        step.arrive()
                    event = step.open if isinstance(step, Barrier) else step
                    while not event.is_set():
                        await asyncio.sleep(0.001)
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step  # type: ignore[misc]


ENDLESS = object()


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and t.name.startswith("sot-")]
    for thread in left:
        thread.join(WAIT)
    assert not [t.name for t in left if t.is_alive()]


def flow(**options) -> AnswerFlow:
    settings = Settings(**{"backoff": 0.0, **options.pop("settings", {})})
    return AnswerFlow(Conversation.of("How do I sleep better?"), settings=settings, **options)


def answer_of(events: list, index: int = 0):
    (done,) = [e for i, e in events if i == index and isinstance(e, AnswerDone)]
    return done.answer


def error_of(events: list, index: int = 0) -> Exception:
    (failed,) = [e for i, e in events if i == index and isinstance(e, AnswerFailed)]
    return failed.error


def points(n: int, write: Callable[[Call], list[object]]) -> Callable[[Call], list[object]]:
    return lambda call: skeleton_of(n) if call.stage == "skeleton" else write(call)


def test_an_answer_comes_in_document_order_whatever_the_order_of_the_points(pump):
    done = [threading.Event() for _ in range(4)]

    def write(call: Call) -> list[object]:
        index = call.point.index
        # Point 3 ends first, point 1 last.
        waits = [] if index == 3 else [done[index + 1]]
        return [*waits, f"text {index}", Reply(Usage(5, 2))]

    model = Model(points(3, write))
    order: list[int] = []

    def until(event):
        if isinstance(event, PointDelta):
            order.append(event.point.index)
            done[event.point.index].set()
        return False

    events = pump(model, [flow()], until=until)
    answer = answer_of(events)
    assert order == [3, 2, 1]
    assert answer.text == "1. Title 1: text 1\n\n2. Title 2: text 2\n\n3. Title 3: text 3"
    assert "".join(e.text for _, e in events if isinstance(e, AnswerDelta)) == answer.text
    assert answer.usage_by_stage["point"] == Usage(15, 6)
    assert isinstance(events[-1][1], AnswerDone)


def test_without_a_limit_all_points_are_in_flight_whatever_the_cores(pump):
    barrier = Barrier(64)
    model = Model(points(64, lambda call: [barrier, "text"]))
    answer_of(pump(model, [flow(settings={"max_points": 64})]))
    assert model.peak == 64


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_holds_over_all_flows_and_is_used(pump, limit):
    barriers = {n: Barrier(limit) for n in range(limit)}
    model = Model(points(6, lambda call: [barriers[0] if call.point.index <= limit else "", "text"]))
    events = pump(model, [flow(), flow(), flow()], max_concurrency=limit)
    assert model.peak == limit
    assert [answer_of(events, i).text.count("text") for i in range(3)] == [6, 6, 6]


def test_an_answer_that_has_begun_goes_before_one_that_has_not(pump):
    model = Model(points(3, lambda call: ["text"]))
    pump(model, [flow(), flow()], max_concurrency=1)
    assert [call.stage for call in model.opened] == ["skeleton", *["point"] * 3] * 2


@pytest.mark.parametrize("limit", [0, -1, "4", 2.5])
def test_a_limit_below_one_is_refused_before_any_call(pump, limit):
    model = Model(points(3, lambda call: ["text"]))
    with pytest.raises(InvalidInput, match="max_concurrency"):
        pump(model, [flow()], max_concurrency=limit)
    assert model.opened == []


def test_eager_points_run_while_the_skeleton_is_still_written(pump):
    first_point_done = threading.Event()

    def script(call: Call) -> list[object]:
        if call.stage == "skeleton":
            return ["1. Title 1\n", first_point_done, "2. Title 2\n"]
        return ["text"]

    def until(event):
        if isinstance(event, PointDelta) and event.point.index == 1:
            first_point_done.set()
        return False

    answer = answer_of(pump(Model(script), [flow(settings={"eager": True})], until=until))
    assert [e.text for e in answer.expansions] == ["text", "text"]


def test_siblings_are_closed_before_a_points_failure_is_emitted(pump):
    barrier = Barrier(4)
    model = Model(points(4, lambda c: [barrier, ValueError("boom") if c.point.index == 2 else ENDLESS]))
    live_when_emitted: list[int] = []

    def until(event):
        if isinstance(event, AnswerFailed):
            live_when_emitted.append(model.live)
        return False

    error = error_of(pump(model, [flow(settings={"max_retries": 0})], until=until))
    assert isinstance(error, PointError)
    assert isinstance(error.__cause__, ValueError)
    assert live_when_emitted == [0]


def test_one_failing_flow_leaves_the_others_alone(pump):
    def script(call: Call) -> list[object]:
        return skeleton_of(2) if call.stage == "skeleton" else ["text"]

    bad = AnswerFlow(Conversation.of("bad"), settings=Settings(max_retries=0))
    model = Model(lambda c: [ValueError("boom")] if "bad" in c.prompt.messages[-1].text else script(c))
    events = pump(model, [flow(), bad, flow()])
    assert isinstance(error_of(events, 1), ValueError)
    assert answer_of(events, 0).text == answer_of(events, 2).text


def test_a_failed_point_is_retried_and_its_partial_text_discarded(pump):
    first_done = threading.Event()

    def write(call: Call) -> list[object]:
        if call.point.index == 1:
            return [first_done, "text"]
        return ["half", ConnectionError("reset")] if call.attempt == 1 else ["whole"]

    def until(event):
        if isinstance(event, PointStarted) and event.attempt == 2:
            first_done.set()
        return False

    answer = answer_of(pump(Model(points(2, write)), [flow(settings={"backoff": 0.01})], until=until))
    assert [e.text for e in answer.expansions] == ["text", "whole"]
    assert [e.attempts for e in answer.expansions] == [1, 2]


def test_the_usage_of_a_failed_call_is_counted(pump):
    work = Decoding(1.0, 0.5, 2.0, steps=4, mean_rows=2.0, output_tokens=4)

    def write(call: Call) -> list[object]:
        reply = Reply(Usage(5, 2), decoding=work)
        return [reply, ConnectionError("reset")] if call.attempt == 1 else ["whole", reply]

    answer = answer_of(pump(Model(points(2, write)), [flow()]))
    assert answer.usage_by_stage["point"] == Usage(20, 8)
    assert answer.timings.decoding["point"].output_tokens == 16
    assert answer.timings.decoding["point"].decode == 8.0


def test_a_call_that_waits_for_its_retry_uses_no_part_of_the_budget(pump):
    def write(call: Call) -> list[object]:
        return [ConnectionError("reset")] if (call.point.index, call.attempt) == (1, 1) else ["text"]

    model = Model(points(3, write))
    clock = Clock(after=2)
    answer_of(pump(model, [flow(settings={"backoff": 0.2})], until=clock.watch, max_concurrency=1, clock=clock))
    order = [(c.point.index, c.attempt) for c in model.opened if c.point]
    assert order == [(1, 1), (2, 1), (3, 1), (1, 2)]


def test_a_point_that_takes_too_long_times_out_and_the_others_stay(pump):
    model = Model(points(3, lambda c: [ENDLESS] if c.point.index == 3 else ["text"]))
    settings = {"point_timeout": 0.2, "max_retries": 0, "on_point_error": "placeholder"}
    clock = Clock(after=2)
    answer = answer_of(pump(model, [flow(settings=settings)], until=clock.watch, clock=clock))
    assert [type(e.error) for e in answer.expansions] == [type(None), type(None), PointTimeout]
    assert "point_timeout=0.2" in str(answer.errors[3])
    assert model.live == 0


def stalls_once(clock: Clock, stalled: threading.Event) -> Callable[[Call], list[object]]:
    """Two points; only the first attempt at point 1 times out, as soon as it has begun."""

    def write(call: Call) -> list[object]:
        if (call.point.index, call.attempt) != (1, 1):
            return ["text"]
        clock.jump()
        return [stalled]

    return points(2, write)


def test_a_stalled_thread_is_left_behind_with_a_warning_and_its_place_given_away(monkeypatch, caplog):
    monkeypatch.setattr(drive, "GRACE", 0.0)
    released, clock = threading.Event(), Clock()
    model = Model(stalls_once(clock, released))
    events = in_threads(model, [flow(settings={"point_timeout": 0.1})], max_concurrency=1, clock=clock)
    assert [e.text for e in answer_of(events).expansions] == ["text", "text"]
    assert "still blocked in its backend" in caplog.text
    released.set()


def test_a_stalled_task_is_cancelled_at_once():
    clock = Clock()
    model = Model(stalls_once(clock, threading.Event()))
    events = on_the_loop(model, [flow(settings={"point_timeout": 0.1})], max_concurrency=1, clock=clock)
    assert [e.text for e in answer_of(events).expansions] == ["text", "text"]
    assert model.live == 0


def test_closing_early_closes_every_stream(pump):
    barrier = Barrier(8)
    model = Model(points(8, lambda c: [barrier, ENDLESS]))
    pump(model, [flow()], until=lambda event: isinstance(event, PointDelta))
    assert model.peak == 8
    assert model.live == 0


def test_a_blocked_stream_with_a_cancel_method_is_cancelled():
    class Stream:
        def __init__(self) -> None:
            self.gone = threading.Event()

        def __iter__(self) -> Iterator[str]:
            yield "a"
            assert self.gone.wait(WAIT)

        def cancel(self) -> None:
            self.gone.set()

    streams: list[Stream] = []

    def opener(call: Call, index: int):
        if call.stage == "skeleton":
            return iter(skeleton_of(3))
        streams.append(Stream())
        return streams[-1]

    with contextlib.closing(drive.run([flow()], opener)) as events:
        for _, event in events:
            if isinstance(event, PointDelta):
                break
    assert streams
    assert all(s.gone.is_set() for s in streams)


async def test_cancelling_the_task_that_consumes_closes_every_stream():
    barrier = Barrier(4)
    model = Model(points(4, lambda c: [barrier, ENDLESS]))
    writing = asyncio.Event()

    async def consume() -> None:
        async with contextlib.aclosing(drive.arun([flow()], model.aopen)) as events:
            async for _, event in events:
                if isinstance(event, PointDelta):
                    writing.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(writing.wait(), WAIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.live == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_swallows_the_cancellation_is_still_closed():
    ended = []

    async def deaf(call: Call, flow: int) -> AsyncIterator[str | Reply]:
        if call.stage == "skeleton":
            yield "".join(skeleton_of(2))
            return
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
                yield "on and "
        finally:
            ended.append(call.point.index)

    events = drive.arun([flow()], deaf)
    async for _, event in events:
        if isinstance(event, PointDelta):
            break
    await events.aclose()
    assert sorted(ended) == [1, 2]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_steps_may_run_in_different_tasks():
    """As in `asyncio.wait_for(anext(...))` and LangChain's async streams."""
    model = Model(points(3, lambda c: ["te", "xt"]))
    events = drive.arun([flow()], model.aopen)
    seen = []
    while True:
        try:
            seen.append(await asyncio.create_task(anext(events)))
        except StopAsyncIteration:
            break
    assert answer_of(seen).text.count("text") == 3


def test_context_variables_reach_every_call(pump):
    user = contextvars.ContextVar("user", default="nobody")
    seen: Counter[str] = Counter()

    def script(call: Call) -> list[object]:
        seen[user.get()] += 1
        return skeleton_of(3) if call.stage == "skeleton" else ["text"]

    user.set("ada")
    pump(Model(script), [flow()])
    assert seen == {"ada": 4}
    user.set("nobody")


def test_a_base_exception_ends_the_run_and_closes_the_rest():
    class Exit(BaseException):
        pass

    barrier = Barrier(3)
    model = Model(points(3, lambda c: [barrier, Exit() if c.point.index == 1 else ENDLESS]))
    with pytest.raises(Exit):
        in_threads(model, [flow()])
    gc.collect()
    assert model.live == 0


def test_a_backend_that_cancels_itself_is_a_failure_like_any_other():
    model = Model(points(2, lambda c: [asyncio.CancelledError()] if c.attempt == 1 else ["text"]))
    answer = answer_of(on_the_loop(model, [flow()]))
    assert [e.attempts for e in answer.expansions] == [2, 2]


async def _aroute(question: str) -> bool:
    await asyncio.sleep(0)
    return "sleep" in question


class _Router:
    def route(self, conversation: Conversation) -> RouteDecision:
        return RouteDecision("sleep" in conversation.question, 0.75, "by hand")

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        return self.route(conversation)


@pytest.mark.parametrize("router", [lambda q: "sleep" in q, _aroute, _Router()], ids=["function", "async", "Router"])
def test_any_kind_of_router_works_with_either_driver(pump, router):
    model = Model(points(2, lambda c: ["text"]))
    asked = [flow(router=router), AnswerFlow(Conversation.of("2 + 2?"), router=router)]
    model = Model(lambda c: ["4"] if c.stage == "direct" else points(2, lambda c: ["text"])(c))
    events = pump(model, asked)
    assert [answer_of(events, i).route for i in (0, 1)] == ["skeleton", "direct"]
    assert answer_of(events, 1).text == "4"


def test_a_router_that_raises_is_reported_and_costs_no_answer(pump):
    def broken(question: str) -> bool:
        raise RuntimeError("no weights")

    answer = answer_of(pump(Model(lambda c: ["4"]), [flow(router=broken)]))
    assert (answer.text, answer.route) == ("4", "direct")
    assert "no weights" in answer.reason


async def test_a_slow_function_as_router_does_not_hold_up_the_loop():
    asked, go = threading.Event(), threading.Event()

    def slow(question: str) -> bool:
        asked.set()
        return go.wait(WAIT)

    model = Model(points(2, lambda c: ["text"]))

    async def consume() -> list:
        return [item async for item in drive.arun([flow(router=slow)], model.aopen)]

    task = asyncio.create_task(consume())
    while not asked.is_set():
        await asyncio.sleep(0.001)
    go.set()
    assert answer_of(await asyncio.wait_for(task, WAIT)).route == "skeleton"


def test_a_call_that_ended_while_the_caller_was_busy_is_not_late():
    ended = threading.Event()

    class Watched(Model):
        def open(self, call: Call, flow: int) -> Iterator[str | Reply]:
            yield from super().open(call, flow)
            if call.stage == "point":
                ended.set()

    model = Watched(points(1, lambda c: ["text"]))
    now = [0.0]
    stream = drive.run([flow(settings={"point_timeout": 5.0})], model.open, clock=lambda: now[0])
    events = []
    for item in stream:
        events.append(item)
        if isinstance(item[1], PointStarted):
            continue
        if isinstance(item[1], AnswerDelta) and not ended.is_set():
            assert ended.wait(WAIT)
            now[0] = 100.0
    assert answer_of(events).errors == {}


class TestADirectAnswer:
    """A direct answer makes its one call in the caller's thread or task."""

    @staticmethod
    def flow() -> AnswerFlow:
        return flow(router=_AtOnce())

    def test_a_direct_answer_streams_in_the_callers_thread(self):
        threads, read = [], []

        def open_call(call: Call, position: int) -> Iterator[str | Reply]:
            for piece in ("It ", "is ", "4"):
                threads.append(threading.current_thread())
                yield piece
                assert read[-1] == piece, "the next piece is asked for when this one has been read"
            yield Reply(Usage(3, 3), "stop")

        for _, event in drive.run([self.flow()], open_call):
            if isinstance(event, AnswerDelta):
                read.append(event.text)
        assert read == ["It ", "is ", "4"]
        assert set(threads) == {threading.current_thread()}
        assert event.answer.usage == Usage(3, 3)
        assert event.answer.finish_reason == "stop"

    @pytest.mark.parametrize("where", ["open", "next", "close"])
    def test_an_error_of_any_step_is_emitted(self, where):
        class Stream:
            def __init__(self) -> None:
                self._items = iter(["4", Reply(Usage(3, 1))])

            def __iter__(self) -> Iterator[str | Reply]:
                return self

            def __next__(self) -> str | Reply:
                item = next(self._items, None)
                if item is None:
                    if where == "next":
                        raise ConnectionError("next")
                    raise StopIteration
                return item

            def close(self) -> None:
                if where == "close":
                    raise ConnectionError("close")

        def open_call(call: Call, position: int) -> Stream:
            if where == "open":
                raise ConnectionError("open")
            return Stream()

        events = list(drive.run([self.flow()], open_call))
        error = error_of(events)
        assert (type(error), str(error)) == (ConnectionError, where)

    def test_a_direct_answer_keeps_its_own_context(self):
        name = contextvars.ContextVar("name", default="outside")
        seen = []

        def open_call(call: Call, position: int) -> Iterator[str | Reply]:
            token = name.set("inside")
            for piece in ("It ", "is ", "4"):
                seen.append(name.get())
                yield piece
            name.reset(token)

        events = drive.run([self.flow()], open_call)
        while (item := contextvars.copy_context().run(next, events, None)) is not None:
            assert name.get() == "outside"
        assert seen == ["inside"] * 3
        list(drive.run([self.flow()], open_call))
        assert name.get() == "outside"
        assert item is None

    def test_stopping_to_read_closes_the_stream(self, pump):
        model = Model(lambda c: [ENDLESS])
        pump(model, [self.flow()], until=lambda event: isinstance(event, AnswerDelta))
        assert model.live == 0

    def test_a_base_exception_passes_through(self):
        model = Model(lambda c: ["4", KeyboardInterrupt()])
        with pytest.raises(KeyboardInterrupt):
            list(drive.run([self.flow()], model.open))
        assert model.live == 0

    def test_two_direct_answers_run_side_by_side(self, pump):
        both = Barrier(2)
        events = pump(Model(lambda c: [both, "4"]), [self.flow(), self.flow()])
        assert [answer_of(events, i).text for i in (0, 1)] == ["4", "4"]


class _AtOnce:
    def at_once(self, conversation: Conversation) -> RouteDecision:
        return RouteDecision(False, reason="at once")

    route = at_once

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        return self.route(conversation)


class Ending(Model):
    """A model that signals the end of a skeleton's call, by success or failure."""

    def __init__(self, script: Callable[[Call], list[object]], end: Callable[[], None]) -> None:
        super().__init__(script)
        self.end = end

    @contextlib.contextmanager
    def counted(self, call: Call) -> Iterator[None]:
        try:
            with super().counted(call):
                yield
        finally:
            if call.stage == "skeleton":
                self.end()


class TestRace:
    """A router that makes a call while the skeleton is written."""

    @staticmethod
    def router(word: str, gate: threading.Event | None = None) -> PromptRouter:
        def ask(prompt: Prompt) -> str:
            if gate is not None:
                assert gate.wait(WAIT)
            return word

        return PromptRouter(ask, race=True)

    def test_the_skeleton_is_written_during_the_race_and_its_points_wait(self, pump):
        go = threading.Event()

        def script(call: Call) -> list[object]:
            return [*skeleton_of(3), Reply(Usage(9, 9))] if call.stage == "skeleton" else ["text", Reply(Usage(1, 1))]

        def end() -> None:
            assert [call.stage for call in model.opened] == ["skeleton"]
            go.set()

        model = Ending(script, end)
        events = pump(model, [flow(router=self.router("INDEPENDENT", go), settings={"eager": True})])
        answer = answer_of(events)
        assert (answer.route, len(answer.expansions)) == ("skeleton", 3)
        assert answer.usage_by_stage == {"skeleton": Usage(9, 9), "point": Usage(3, 3)}
        first = next(i for i, (_, event) in enumerate(events) if isinstance(event, PointStarted))
        assert isinstance(events[0][1], Routed)
        assert first > 0

    def test_a_direct_decision_cancels_the_skeleton_and_shows_nothing_of_it(self, pump):
        begun = threading.Event()

        class Watched(Model):
            @contextlib.contextmanager
            def counted(self, call: Call) -> Iterator[None]:
                with super().counted(call):
                    if call.stage == "skeleton":
                        begun.set()
                    yield

        model = Watched(lambda call: ["1. One\n2. Two\n", ENDLESS] if call.stage == "skeleton" else ["4"])
        events = pump(model, [flow(router=self.router("NONE", begun))])
        answer = answer_of(events)
        assert (answer.text, answer.route, len(answer.skeleton)) == ("4", "direct", 0)
        assert not [e for _, e in events if isinstance(e, PointFound | SkeletonDone)]
        assert model.live == 0

    def test_a_skeleton_that_failed_during_the_race_is_retried_only_if_wanted(self, pump):
        for word, stages in (("INDEPENDENT", ["skeleton", "skeleton", "point"]), ("NONE", ["skeleton", "direct"])):
            failed = threading.Event()
            tries: list[int] = []

            def script(call: Call, failed: threading.Event = failed, tries: list[int] = tries) -> list[object]:
                if call.stage != "skeleton":
                    return ["text"]
                tries.append(call.attempt)
                return [ConnectionError("line cut")] if call.attempt == 1 else ["1. One\n"]

            model = Ending(script, failed.set)
            answer = answer_of(pump(model, [flow(router=self.router(word, failed))]))
            assert [call.stage for call in model.opened] == stages
            assert answer.text.endswith("text")

    def test_a_router_that_fails_during_the_race_leads_to_a_direct_answer(self, pump):
        def ask(prompt: Prompt) -> str:
            raise RuntimeError("no such model")

        model = Model(lambda call: ["1. One\n", ENDLESS] if call.stage == "skeleton" else ["4"])
        answer = answer_of(pump(model, [flow(router=PromptRouter(ask, race=True))]))
        assert (answer.text, answer.route) == ("4", "direct")
        assert "no such model" in answer.reason
        assert model.live == 0

    def test_without_race_the_skeleton_waits(self, pump):
        asked: list[int] = []
        model = Model(points(1, lambda call: ["text"]))

        def ask(prompt: Prompt) -> str:
            asked.append(len(model.opened))
            return "INDEPENDENT"

        assert answer_of(pump(model, [flow(router=PromptRouter(ask))])).route == "skeleton"
        assert asked == [0]

    def test_with_one_call_at_a_time_router_and_skeleton_take_turns(self, pump):
        model = Model(points(2, lambda call: ["text"]))
        events = pump(model, [flow(router=self.router("INDEPENDENT"))], max_concurrency=1)
        assert answer_of(events).route == "skeleton"
        assert model.peak == 1

    def test_a_long_skeleton_that_ended_during_the_race_is_cut(self, pump):
        go = threading.Event()
        model = Ending(points(6, lambda call: ["text"]), go.set)
        events = pump(model, [flow(router=self.router("INDEPENDENT", go), settings={"max_points": 2})])
        answer = answer_of(events)
        assert [expansion.text for expansion in answer.expansions] == ["text", "text"]
        assert [call.stage for call in model.opened] == ["skeleton", "point", "point"]
        assert sum(isinstance(event, SkeletonDone) for _, event in events) == 1


# --- texts that loop ---

AGAIN = "It is a good day to be outside. "
TWICE = (AGAIN * 2).strip()


def loops(read: list[str], last: Reply | None = None) -> Iterator[object]:
    """A text that never ends; it counts the pieces that were read."""
    for _ in range(100_000):
        read.append(AGAIN)
        yield AGAIN
    yield last or Reply()


@pytest.mark.parametrize("many", [1, 2], ids=["alone", "beside another"])
def test_a_direct_answer_that_loops_is_ended_and_says_so(pump, many):
    read: list[str] = []
    model = Model(lambda c: loops(read))
    asked = [flow(router=lambda q: False, settings={"stop_loops": True}) for _ in range(many)]
    events = pump(model, asked)
    for index in range(many):
        answer = answer_of(events, index)
        assert (answer.text, answer.route, answer.finish_reason) == (TWICE, "direct", "loop")
        assert "".join(e.text for i, e in events if i == index and isinstance(e, AnswerDelta)) == TWICE
        assert isinstance([e for i, e in events if i == index][-1], AnswerDone)
    assert model.live == 0
    assert len(read) < 100_000


def test_without_the_loop_setting_a_direct_answer_is_unchanged(pump):
    answer = answer_of(pump(Model(lambda c: [AGAIN] * 20), [flow(router=lambda q: False)]))
    assert (answer.text, answer.finish_reason) == (AGAIN * 20, None)


def test_a_point_that_loops_is_ended_and_the_others_go_on(pump):
    read: list[str] = []
    model = Model(points(3, lambda c: loops(read) if c.point.index == 2 else ["text"]))
    answer = answer_of(pump(model, [flow(settings={"stop_loops": True})]))
    assert [e.text for e in answer.expansions] == ["text", TWICE, "text"]
    assert [e.finish_reason for e in answer.expansions] == [None, "loop", None]
    assert (answer.errors, model.live) == ({}, 0)


def test_a_merge_that_loops_gives_way_to_the_points(pump):
    read: list[str] = []
    model = Model(points(2, lambda c: loops(read) if c.stage == "merge" else ["text"]))
    answer = answer_of(pump(model, [flow(settings={"stop_loops": True, "merge": True})]))
    assert (answer.text, answer.merged) == ("1. Title 1: text\n\n2. Title 2: text", False)
    assert "again and again" in str(answer.merge_error)
    assert model.live == 0


class _Cancellable:
    """A stream like an engine's: after `cancel` it ends by itself and reports its usage."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[str | Reply]:
        while not self.cancelled.is_set():
            yield AGAIN
        yield Reply(Usage(7, 40), "cancelled", decoding=Decoding(steps=40))

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize("many", [1, 2], ids=["alone", "beside another"])
def test_the_usage_of_an_ended_loop_is_counted(many, monkeypatch):
    # On a busy machine the streams may not get to their end within the usual time.
    monkeypatch.setattr(drive, "GRACE", 60.0)
    asked = [flow(router=lambda q: False, settings={"stop_loops": True}) for _ in range(many)]
    events = list(drive.run(asked, lambda call, index: _Cancellable()))
    for index in range(many):
        answer = answer_of(events, index)
        assert (answer.text, answer.finish_reason) == (TWICE, "loop")
        assert (answer.usage, answer.usage_by_stage) == (Usage(7, 40), {"direct": Usage(7, 40)})
        assert answer.timings.decoding == {"direct": Decoding(steps=40)}


def test_the_usage_of_a_points_loop_is_counted_for_the_point(monkeypatch):
    monkeypatch.setattr(drive, "GRACE", 60.0)
    asked = flow(skeleton=Skeleton((Point(1, "Sleep"), Point(2, "Eat"))), settings={"stop_loops": True})

    def open_call(call: Call, index: int) -> Iterable[str | Reply]:
        return _Cancellable() if call.point.index == 2 else ["text", Reply(Usage(7, 1))]

    answer = answer_of(list(drive.run([asked], open_call)))
    assert [e.usage for e in answer.expansions] == [Usage(7, 1), Usage(7, 40)]
    assert answer.usage_by_stage == {"point": Usage(14, 41)}


# --- merges that repeat their instruction ---


def instruction(call: Call) -> list[str]:
    """The words of the call's prompt, in small pieces."""
    text = call.prompt.messages[-1].text
    text = text[text.index("The parts of the answer") :]
    return [text[start : start + 3] for start in range(0, len(text), 3)]


@pytest.mark.parametrize("begin", ["", "Sleep well.\n\n"])
def test_a_merge_that_repeats_its_instruction_gives_way_to_the_points(pump, begin):
    model = Model(points(2, lambda c: [begin, *instruction(c), ENDLESS] if c.stage == "merge" else ["text"]))
    events = pump(model, [flow(settings={"merge": True})])
    answer = answer_of(events)
    assert (answer.text, answer.merged) == ("1. Title 1: text\n\n2. Title 2: text", False)
    assert "repeated its instruction" in str(answer.merge_error)
    shown = "".join(e.text for _, e in events if isinstance(e, AnswerDelta))
    assert shown.split() == [*begin.split(), *answer.text.split()], "no word of the instruction"
    assert sum(isinstance(e, AnswerRestarted) for _, e in events) == bool(begin)
    assert [c.stage for c in model.opened].count("merge") == 1
    assert model.live == 0


# --- servers that limit their rate, and machines that have no more threads ---------------------------------


class RateLimitError(Exception):
    """A rate limit, as clients of servers name it."""

    def __init__(self, retry_after: float | None = 0.0) -> None:
        super().__init__("too many requests")
        self.status_code = 429
        self.retry_after = retry_after


class Narrow:
    """A model whose server takes `width` calls at a time and refuses all others. Points go on once one was refused."""

    def __init__(self, model: Model, width: int) -> None:
        self.model = model
        self.width = width
        self.inside = 0
        self.asked = 0
        self.patience = time.monotonic() + 30.0
        self.refused: list[Call] = []

    def _enter(self, call: Call) -> None:
        with self.model.lock:
            self.asked += 1
            if self.inside >= self.width:
                self.refused.append(call)
                raise RateLimitError
            self.inside += 1

    def _leave(self) -> None:
        with self.model.lock:
            self.inside -= 1

    def open(self, call: Call, flow: int) -> Iterator[str | Reply]:
        self._enter(call)
        try:
            while self._waits(call):
                time.sleep(0.001)
            time.sleep(0.003)
            yield from self.model.open(call, flow)
        finally:
            self._leave()

    async def aopen(self, call: Call, flow: int) -> AsyncIterator[str | Reply]:
        self._enter(call)
        try:
            while self._waits(call):
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.003)
            async for item in self.model.aopen(call, flow):
                yield item
        finally:
            self._leave()

    def _waits(self, call: Call) -> bool:
        """Whether a call waits, so that the calls meet however slowly their threads start."""
        return call.stage == "point" and not self.refused and time.monotonic() < self.patience


@pytest.mark.parametrize("live", [False, True])
def test_a_burst_of_refused_points_costs_no_retry(pump, live):
    narrow = Narrow(Model(points(10, lambda call: [f"text {call.point.index}"])), 3)
    answer = answer_of(pump(narrow, [flow(live=live)]))
    assert [e.text for e in answer.expansions] == [f"text {i}" for i in range(1, 11)]
    assert [e.attempts for e in answer.expansions] == [1] * 10
    assert 1 <= len(narrow.refused) <= 20
    # Whatever was refused was asked once more, and nothing else was.
    assert narrow.asked == 11 + len(narrow.refused)


@pytest.mark.parametrize(("settings", "limit", "asked"), [({"max_retries": 0}, None, 1), ({}, 1, 2)])
def test_a_lone_answer_without_retries_or_side_by_side_calls_fails_as_after_any_error(pump, settings, limit, asked):
    model = Model(points(2, lambda call: [RateLimitError(0.0)] if call.point.index == 1 else ["text"]))
    flows = [flow(settings={"on_point_error": "placeholder", **settings})]
    answer = answer_of(pump(model, flows, **({"max_concurrency": limit} if limit else {})))
    assert [e.attempts for e in answer.expansions] == [asked, 1]
    assert isinstance(answer.expansions[0].error, RateLimitError)


def test_a_whole_batch_slows_down_together(pump):
    narrow = Narrow(Model(points(10, lambda call: ["text"])), 4)
    flows = [flow(settings={"max_retries": 0}) for _ in range(20)]
    events = pump(narrow, flows, max_concurrency=12)
    assert [len(answer_of(events, i).expansions) for i in range(20)] == [10] * 20
    # Each of the 220 calls by itself would be refused again and again.
    assert len(narrow.refused) <= 60
    assert narrow.model.peak <= 4


@pytest.mark.parametrize("stage", ["skeleton", "point", "merge", "sources", "route"])
def test_a_refused_call_of_any_stage_is_opened_again(pump, stage):
    refusals = [RateLimitError(), RateLimitError(None)]

    class Reads:
        def route(self, conversation):
            if refusals:
                raise refusals.pop()
            return RouteDecision(True)

        async def aroute(self, conversation):
            return self.route(conversation)

    def script(call):
        if call.stage == stage and refusals:
            return [refusals.pop()]
        if call.stage == "sources":
            return [Reply(context="A fact.")]
        return skeleton_of(2) if call.stage == "skeleton" else [f"{call.stage} text"]

    model = Model(script)
    retrieval = {"retrieval": "per_point"} if stage == "sources" else {}
    router = {"router": Reads()} if stage == "route" else {}
    settings = {"max_retries": 1, "merge": stage == "merge"}
    answer = answer_of(pump(model, [flow(settings=settings, **retrieval, **router)]))
    assert not refusals
    assert answer.route == "skeleton"
    assert answer.text == ("merge text" if stage == "merge" else "1. Title 1: point text\n\n2. Title 2: point text")
    assert answer.merge_error is None


def test_a_server_that_refuses_one_point_for_ever_fails_that_point(pump, caplog):
    model = Model(points(3, lambda call: [RateLimitError()] if call.point.index == 2 else ["text"]))
    error = error_of(pump(model, [flow(settings={"max_retries": 1})]))
    assert isinstance(error, PointError)
    assert isinstance(error.__cause__, RateLimitError)
    # The first attempt waits as often as a call may, the second one does not wait at all.
    asked = [call for call in model.opened if call.point and call.point.index == 2]
    assert [call.attempt for call in asked] == [*[1] * (1 + MAX_WAITS), 2]


def test_a_refused_point_that_fails_for_good_follows_the_policy(pump):
    model = Model(points(3, lambda call: [RateLimitError()] if call.point.index == 2 else ["text"]))
    settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(none)"}
    answer = answer_of(pump(model, [flow(settings=settings)]))
    assert [e.text for e in answer.expansions] == ["text", "(none)", "text"]
    assert isinstance(answer.expansions[1].error, RateLimitError)


def test_a_server_that_refuses_everything_ends_a_batch_with_its_errors(pump):
    model = Model(lambda call: [RateLimitError()])
    events = pump(model, [flow(settings={"max_retries": 0}) for _ in range(5)], max_concurrency=4)
    assert all(isinstance(error_of(events, i), RateLimitError) for i in range(5))
    assert len(model.opened) <= 4 * (MAX_WAITS + 1) + 5


@pytest.mark.parametrize("error", [RateLimitError(1000.0), ConnectionError("reset"), RuntimeError("boom")])
def test_what_no_waiting_helps_is_not_waited_for(pump, error):
    model = Model(points(2, lambda call: [error] if call.point.index == 2 else ["text"]))
    assert isinstance(error_of(pump(model, [flow(settings={"max_retries": 0})])), PointError)
    assert len(model.opened) == 3


def test_a_refused_point_that_the_reader_has_text_of_is_not_written_again(pump):
    model = Model(points(2, lambda call: ["begun ", RateLimitError()] if call.point.index == 1 else ["text"]))
    error = error_of(pump(model, [flow(settings={"max_retries": 1})]))
    assert isinstance(error.__cause__, RateLimitError)
    assert len([call for call in model.opened if call.point and call.point.index == 1]) == 1


def test_a_lone_direct_answer_fails_as_the_model_does(pump):
    model = Model(lambda call: [RateLimitError()])
    assert isinstance(error_of(pump(model, [flow(router=lambda question: False)])), RateLimitError)
    assert len(model.opened) == 1


def test_direct_answers_of_a_batch_wait_with_the_others(pump):
    narrow = Narrow(Model(lambda call: ["Just so."]), 2)
    flows = [flow(router=lambda question: False) for _ in range(8)]
    events = pump(narrow, flows, max_concurrency=8)
    assert [answer_of(events, i).text for i in range(8)] == ["Just so."] * 8
    assert narrow.refused


def board_of_points(n: int, **settings) -> tuple[Board, list]:
    """A board whose points have just been opened, at 0 seconds, and those calls."""
    board = Board([flow(settings=settings)], None, drive.GRACE)
    board.go_on(0.0)
    ((key, _),) = board.openings(0.0)
    board.handle(Text(key, "".join(skeleton_of(n))), 0.0)
    board.handle(End(key, Reply(), None), 0.0)
    return board, board.openings(0.0)


def test_no_call_is_opened_before_the_server_takes_calls_again():
    board, opened = board_of_points(4)
    for key, _ in opened[:3]:
        board.handle(End(key, Reply(), RateLimitError(100.0)), 1.0)
    assert board.openings(1.0) == []
    assert board.seconds_to_wait(1.0) == 100.0
    assert board.openings(100.9) == []
    # Half as many as were open: one of them is still open.
    assert board.openings(101.0) == opened[:1]
    assert not board.finished


def test_a_pause_that_ends_before_the_driver_waits_is_not_slept_through():
    board, opened = board_of_points(1)
    board.handle(End(opened[0][0], Reply(), RateLimitError(1.0)), 1.0)
    assert board.openings(1.999) == []
    assert board.seconds_to_wait(2.001) == 0.0
    assert board.openings(2.001) == opened
    assert board.seconds_to_wait(2.001) is None


def test_a_retry_waits_for_the_server_as_well():
    board, opened = board_of_points(2)
    board.handle(End(opened[0][0], Reply(), RateLimitError(100.0)), 0.0)
    board.handle(End(opened[1][0], Reply(), ConnectionError("reset")), 0.0)
    assert board.openings(99.0) == []
    refused, (_, again) = board.openings(100.0)
    assert refused == opened[0]
    assert (again.point, again.attempt) == (opened[1][1].point, 2)


def test_a_refused_point_has_its_whole_time_again():
    board, opened = board_of_points(1, point_timeout=50.0)
    board.handle(End(opened[0][0], Reply(), RateLimitError(100.0)), 40.0)
    board.expire(139.0)
    assert board.openings(139.0) == []
    assert board.seconds_to_wait(139.0) == 1.0
    assert board.openings(140.0) == opened
    assert board.seconds_to_wait(140.0) == 50.0
    board.handle(Text(opened[0][0], "text"), 189.0)
    board.handle(End(opened[0][0], Reply(), None), 189.0)
    (answer,) = [event.answer for _, event in board.events() if isinstance(event, AnswerDone)]
    assert (answer.expansions[0].span.start, answer.expansions[0].span.end) == (140.0, 189.0)


def test_a_point_that_waits_for_the_server_is_dropped_with_its_answer():
    board, opened = board_of_points(2)
    board.handle(End(opened[1][0], Reply(), ConnectionError("reset")), 0.0)
    ((retry, _),) = board.openings(0.0)
    board.handle(End(opened[0][0], Reply(), RateLimitError(100.0)), 0.0)
    board.handle(End(retry, Reply(), ConnectionError("reset")), 0.0)
    assert isinstance([event for _, event in board.events()][-1], AnswerFailed)
    assert board.finished


def test_the_tokens_of_a_refused_call_count():
    board, opened = board_of_points(1)
    board.handle(End(opened[0][0], Reply(Usage(7, 0)), RateLimitError(0.0)), 0.0)
    ((key, _),) = board.openings(0.0)
    board.handle(Text(key, "text"), 0.0)
    board.handle(End(key, Reply(Usage(7, 2)), None), 0.0)
    (answer,) = [event.answer for _, event in board.events() if isinstance(event, AnswerDone)]
    assert answer.usage == Usage(14, 2)


def test_a_long_call_of_a_lone_answer_holds_no_refused_call_back():
    board, opened = board_of_points(3)
    (first, _), (second, _), (third, _) = opened
    for now in (1.0, 2.0, 3.0):  # the first point goes on all the time
        board.handle(End(second, Reply(), RateLimitError(0.5)), now)
        if now == 1.0:
            board.handle(Text(third, "text"), now)
            board.handle(End(third, Reply(), None), now)
        assert board.openings(now + 0.5) == [opened[1]]
    board.handle(Text(second, "text"), 4.0)
    board.handle(End(second, Reply(), None), 4.0)
    board.handle(Text(first, "text"), 4.0)
    board.handle(End(first, Reply(), None), 4.0)
    (answer,) = [event.answer for _, event in board.events() if isinstance(event, AnswerDone)]
    assert [e.text for e in answer.expansions] == ["text"] * 3


def test_a_task_that_waits_for_a_server_can_be_cancelled():
    async def main():
        model = Model(points(2, lambda call: [RateLimitError(60.0)]))
        events = drive.arun([flow()], model.aopen)

        async def read():
            async with contextlib.aclosing(events) as stream:
                return [event async for event in stream]

        task = asyncio.create_task(read())
        while len(model.opened) < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(model.opened) == 3

    asyncio.run(main())


class FewThreads:
    """Lets threads of calls start only while fewer than `most` of them run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.refused = 0
        self.refusal = threading.Event()
        start = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            running = [t for t in threading.enumerate() if t.name.startswith("sot-")]
            if thread.name.startswith("sot-") and len(running) >= most:
                self.refused += 1
                self.refusal.set()
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.mark.parametrize("most", [1, 3, 7])
def test_calls_without_a_thread_wait_for_another_call_to_end(monkeypatch, most):
    threads = FewThreads(monkeypatch, most)
    model = Model(
        lambda call: [threads.refusal, *(skeleton_of(8) if call.stage == "skeleton" else [f"text {call.point.index}"])]
    )
    events = in_threads(model, [flow(settings={"max_retries": 0}) for _ in range(8)])
    for i in range(8):
        assert [e.text for e in answer_of(events, i).expansions] == [f"text {n}" for n in range(1, 9)]
    assert threads.refused
    assert model.peak <= most
    assert len(model.opened) == 8 * 9


def test_without_any_thread_every_answer_has_its_error(monkeypatch):
    FewThreads(monkeypatch, 0)
    model = Model(points(2, lambda call: ["text"]))
    events = in_threads(model, [flow() for _ in range(3)])
    for i in range(3):
        assert isinstance(error_of(events, i), RuntimeError)
        assert "could not start a thread" in str(error_of(events, i))
        assert "max_concurrency" in str(error_of(events, i))
    assert not model.opened


def test_a_call_that_finds_no_thread_is_retried(monkeypatch):
    threads = FewThreads(monkeypatch, 0)
    start = threading.Thread.start

    def once(thread: threading.Thread) -> None:
        if threads.refused and thread.name.startswith("sot-"):
            monkeypatch.undo()
            threading.Thread.start(thread)
        else:
            start(thread)

    monkeypatch.setattr(threading.Thread, "start", once)
    assert len(answer_of(in_threads(Model(points(2, lambda call: ["text"])), [flow()])).expansions) == 2
    assert threads.refused == 1


def test_a_backend_that_finds_no_thread_of_its_own_waits_too(pump):
    failures = [RuntimeError("can't start new thread")]
    other = threading.Event()

    def write(call):
        if call.point.index == 1 and failures:
            return [failures.pop()]
        if call.point.index == 1:
            return ["text 1"]
        return [other, "text 2"]

    model = Model(points(2, write))

    def until(event):
        if not failures:
            other.set()
        return False

    threading.Timer(0.05, other.set).start()
    answer = answer_of(pump(model, [flow(settings={"max_retries": 0})], until=until))
    assert [e.text for e in answer.expansions] == ["text 1", "text 2"]


def test_boards_that_share_a_budget_open_no_more_than_it_has(monkeypatch):
    budget = Budget(3)
    model = Model(points(6, lambda call: ["text"]))
    events: dict[int, list] = {}

    def answer(i: int) -> None:
        events[i] = in_threads(model, [flow()], max_concurrency=Share(budget, shared=True))

    threads = [threading.Thread(target=answer, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert [len(answer_of(events[i]).expansions) for i in range(5)] == [6] * 5
    assert model.peak <= 3
    assert budget.open == 0


def test_a_driver_that_is_closed_leaves_its_room_to_the_others():
    async def main():
        budget = Budget(2)
        stuck = Model(points(2, lambda call: [ENDLESS]))
        events = drive.arun([flow()], stuck.aopen, max_concurrency=Share(budget, shared=True))
        async for _ in events:
            if stuck.live == 2:
                break
        other = drive.arun(
            [flow()], Model(points(3, lambda call: ["text"])).aopen, max_concurrency=Share(budget, shared=True)
        )

        async def read():
            return [event async for event in other]

        waiting = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await events.aclose()
        assert len(answer_of(await asyncio.wait_for(waiting, WAIT)).expansions) == 3
        assert budget.open == 0

    asyncio.run(main())
