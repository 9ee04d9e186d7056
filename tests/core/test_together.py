"""Backends that take several calls at once: the grouping of calls, and the result of each call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.drive import AsyncTogether, Together
from skeleton_of_thought.errors import InvalidInput, PointError, PointTimeout
from skeleton_of_thought.events import AnswerDone, AnswerFailed
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Conversation, Reply

WAIT = 20.0
"""Seconds until a hanging test fails, far above the time that any of these needs."""

Asked = Sequence[tuple[Call, int]]


def text_of(call: Call) -> str:
    return "1. One\n2. Two\n3. Three\n" if call.stage == "skeleton" else f"Text {call.point.index}."


class Backend:
    """Answers lists of calls and single calls; `lists` holds their lengths, `singles` the stages of single calls."""

    def __init__(self, answer: Callable[[Asked], Any] | None = None) -> None:
        self.lists: list[list[str]] = []
        self.singles: list[str] = []
        self.started = threading.Event()
        self._answer = answer or (lambda calls: [(text_of(call), Reply()) for call, _ in calls])

    def key(self, call: Call, position: int) -> str:
        return "all"

    def answer(self, calls: Asked) -> Any:
        self.lists.append([name(call) for call, _ in calls])
        self.started.set()
        return self._answer(calls)

    async def aanswer(self, calls: Asked) -> Any:
        found = self.answer(calls)
        return await found if asyncio.iscoroutine(found) else found

    def open(self, call: Call, position: int) -> Any:
        self.singles.append(name(call))
        yield text_of(call)

    async def aopen(self, call: Call, position: int) -> Any:
        self.singles.append(name(call))
        yield text_of(call)


def name(call: Call) -> str:
    return call.stage if call.point is None else f"{call.stage} {call.point.index}"


def flows(count: int, **settings: Any) -> list[AnswerFlow]:
    return [
        AnswerFlow(Conversation.of(f"Question {i}?"), settings=Settings(**{"max_retries": 0, **settings}), live=False)
        for i in range(count)
    ]


def _run(flows: list[AnswerFlow], backend: Backend, limit: int | None = None) -> list[tuple[int, Any]]:
    together = Together(backend.key, backend.answer)
    return list(drive.run(flows, backend.open, together=together, max_concurrency=limit))


def _arun(flows: list[AnswerFlow], backend: Backend, limit: int | None = None) -> list[tuple[int, Any]]:
    async def collect() -> list[tuple[int, Any]]:
        together = AsyncTogether(backend.key, backend.aanswer)
        events = drive.arun(flows, backend.aopen, together=together, max_concurrency=limit)
        return [event async for event in events]

    return asyncio.run(asyncio.wait_for(collect(), WAIT))


@pytest.fixture(params=[_run, _arun], ids=["sync", "async"])
def run(request):
    return request.param


def answers(events: list[tuple[int, Any]]) -> dict[int, Any]:
    return {i: event.answer for i, event in events if isinstance(event, AnswerDone)}


def test_the_calls_of_all_flows_that_start_together_are_answered_together(run):
    backend = Backend()
    done = answers(run(flows(3), backend))
    assert backend.lists == [["skeleton"] * 3, ["point 1", "point 2", "point 3"] * 3]
    assert backend.singles == []
    assert {answer.text for answer in done.values()} == {"1. One: Text 1.\n\n2. Two: Text 2.\n\n3. Three: Text 3."}


def test_a_single_call_is_opened_by_itself(run):
    backend = Backend()
    run(flows(1), backend)
    assert backend.singles == ["skeleton"]
    assert backend.lists == [["point 1", "point 2", "point 3"]]


def test_a_group_is_no_larger_than_the_limit(run):
    backend = Backend()
    done = answers(run(flows(2), backend, 2))
    assert len(done) == 2
    assert [len(calls) for calls in backend.lists] + [1] * len(backend.singles) == [2] * 4
    assert all(len(answer.expansions) == 3 for answer in done.values())


def test_keys_keep_calls_apart(run):
    backend = Backend()
    backend.key = lambda call, position: None if position == 0 else position
    run(flows(3), backend)
    assert backend.singles[0] == "skeleton"
    assert backend.singles.count("skeleton") == 3  # each position has another key, so no calls are grouped
    assert backend.lists == [["point 1", "point 2", "point 3"]] * 2


def test_an_error_in_place_of_a_result_fails_that_call_alone(run):
    def answer(calls):
        return [
            ValueError("bad") if call.point and call.point.index == 2 else (text_of(call), Reply()) for call, _ in calls
        ]

    backend = Backend(answer)
    [answer] = answers(run(flows(1, on_point_error="placeholder"), backend)).values()
    assert [str(e.error) for e in answer.expansions] == ["None", "bad", "None"]
    assert backend.singles == ["skeleton"]


@pytest.mark.parametrize("fault", ["error", "too few"])
def test_when_a_whole_list_fails_its_calls_are_made_one_at_a_time(run, fault, caplog):
    def answer(calls):
        if fault == "error":
            raise ConnectionError("lost")
        return [("only one", Reply())]

    backend = Backend(answer)
    [answer] = answers(run(flows(1), backend)).values()
    assert sorted(backend.singles) == ["point 1", "point 2", "point 3", "skeleton"]
    assert [e.text for e in answer.expansions] == ["Text 1.", "Text 2.", "Text 3."]
    assert ("lost" if fault == "error" else "1 results for 3 calls") in caplog.text


def test_calls_made_one_at_a_time_fail_one_at_a_time(run):
    def answer(calls):
        raise ConnectionError("lost")

    backend = Backend(answer)
    opened, aopened = backend.open, backend.aopen

    def open_call(call, position):
        if name(call) == "point 2":
            raise ValueError("bad")
        return opened(call, position)

    async def aopen_call(call, position):
        if name(call) == "point 2":
            raise ValueError("bad")
        async for item in aopened(call, position):
            yield item

    backend.open, backend.aopen = open_call, aopen_call
    [answer] = answers(run(flows(1, on_point_error="placeholder"), backend)).values()
    assert [str(e.error) for e in answer.expansions] == ["None", "bad", "None"]


def test_an_exception_that_is_no_backend_error_reaches_the_caller(run):
    def answer(calls):
        raise InterruptedByUser

    with pytest.raises(InterruptedByUser):
        run(flows(1), Backend(answer))


class InterruptedByUser(BaseException):
    pass


def test_points_that_failed_together_are_retried_together(run):
    tries = []

    def answer(calls):
        tries.append(len(calls))
        if len(tries) == 1:
            return [OSError("busy") for _ in calls]
        return [(text_of(call), Reply()) for call, _ in calls]

    backend = Backend(answer)
    [answer] = answers(run(flows(1, max_retries=1, backoff=0.0), backend)).values()
    assert tries == [3, 3]
    assert [e.attempts for e in answer.expansions] == [2, 2, 2]


def test_a_call_that_is_given_up_does_not_wait_for_the_others():
    going_on = threading.Event()

    def answer(calls):
        if calls[0][0].stage == "point":
            assert going_on.wait(WAIT)
        return [(text_of(call), Reply()) for call, _ in calls]

    backend = Backend(answer)
    hasty, patient = flows(1, point_timeout=0.02), flows(1)
    events = drive.run([*hasty, *patient], backend.open, together=Together(backend.key, backend.answer))
    with contextlib.closing(events):
        for position, event in events:
            if isinstance(event, AnswerFailed):
                assert position == 0
                assert isinstance(event.error, PointError)
                assert isinstance(event.error.__cause__, PointTimeout)
                assert not going_on.is_set()
                going_on.set()
            if isinstance(event, AnswerDone):
                assert position == 1
                assert len(event.answer.expansions) == 3
    assert [len(calls) for calls in backend.lists] == [2, 6]


async def test_a_given_up_call_leaves_the_task_to_the_others():
    going_on = asyncio.Event()

    async def answer(calls):
        if calls[0][0].stage == "point":
            await asyncio.wait_for(going_on.wait(), WAIT)
        return [(text_of(call), Reply()) for call, _ in calls]

    backend = Backend(answer)
    hasty, patient = flows(1, point_timeout=0.02), flows(1)
    seen = []
    events = drive.arun([*hasty, *patient], backend.aopen, together=AsyncTogether(backend.key, backend.aanswer))
    async with contextlib.aclosing(events):
        async for position, event in events:
            if isinstance(event, AnswerFailed):
                going_on.set()
            if isinstance(event, AnswerFailed | AnswerDone):
                seen.append((position, type(event)))
    assert seen == [(0, AnswerFailed), (1, AnswerDone)]


def sleeper():
    """Never answers; records the number of its calls when it is cancelled."""
    ended = []

    async def answer(calls):
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            ended.append(len(calls))
            raise

    return ended, answer


async def test_closing_cancels_the_task():
    ended, answer = sleeper()
    backend = Backend(answer)
    before = asyncio.all_tasks()
    events = drive.arun(flows(1), backend.aopen, together=AsyncTogether(backend.key, backend.aanswer))
    async with contextlib.aclosing(events):
        async for _ in events:
            await asyncio.sleep(0)
            if backend.lists:
                break
    assert ended == [3]
    assert asyncio.all_tasks() == before


async def test_calls_that_all_time_out_cancel_the_task():
    ended, answer = sleeper()
    backend = Backend(answer)
    [flow] = flows(1, point_timeout=0.02, on_point_error="placeholder")
    events = drive.arun([flow], backend.aopen, together=AsyncTogether(backend.key, backend.aanswer))
    [answer] = answers([event async for event in events]).values()
    assert ended == [3]
    assert all(isinstance(e.error, PointTimeout) for e in answer.expansions)


async def test_a_backend_that_cancels_itself_has_failed():
    async def answer(calls):
        raise asyncio.CancelledError

    backend = Backend(answer)
    events = drive.arun(flows(1), backend.aopen, together=AsyncTogether(backend.key, backend.aanswer))
    [answer] = answers([event async for event in events]).values()
    assert [e.text for e in answer.expansions] == ["Text 1.", "Text 2.", "Text 3."]
    assert sorted(backend.singles) == ["point 1", "point 2", "point 3", "skeleton"]


def test_invalid_limits_are_refused(run):
    with pytest.raises(InvalidInput):
        run(flows(1), Backend(), 0)


def test_results_of_a_wrong_form_are_the_failure_of_the_batch(run, caplog):
    backend = Backend()
    backend.answer = lambda calls: ["no pair of a text and its reply"] * len(calls)

    async def aanswer(calls):
        return backend.answer(calls)

    backend.aanswer = aanswer
    done = answers(run(flows(2), backend))
    assert {answer.text for answer in done.values()} == {"1. One: Text 1.\n\n2. Two: Text 2.\n\n3. Three: Text 3."}
    assert "they are made one at a time" in caplog.text
