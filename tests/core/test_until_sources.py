"""A driver that ends once the sources are complete, and a second driver that continues the same flow."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.board import Board
from skeleton_of_thought.errors import PointError
from skeleton_of_thought.events import AnswerDone, AnswerFailed, PointDone, SourcesDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Reply

RETRIEVALS = ("once", "per_point")


class Backend:
    """Writes three points; finds one source for any query."""

    def __init__(self, failing: int | None = None) -> None:
        self.opened: list[tuple[str, int | None]] = []
        self.live = 0
        self.failing = failing

    def open(self, call, position):
        self.opened.append((call.stage, call.point and call.point.index))
        self.live += 1
        try:
            if call.stage == "sources":
                if call.point is not None and call.point.index == self.failing:
                    raise OSError("no such index")
                yield Reply(sources=(f"source of {call.point}",), context="A fact.")
            elif call.stage == "skeleton":
                yield from ["1. One\n", "2. Two\n", "3. Three"]
            else:
                yield f"Text of {call.point}."
        finally:
            self.live -= 1

    async def aopen(self, call, position):
        for item in self.open(call, position):
            await asyncio.sleep(0)
            yield item


def run(board, backend, **options):
    return list(drive.run(board, backend.open, **options))


def arun(board, backend, **options):
    async def collect():
        async with contextlib.aclosing(drive.arun(board, backend.aopen, **options)) as events:
            return [event async for event in events]

    return asyncio.run(collect())


DRIVERS = {"threads": run, "loop": arun}


@pytest.fixture(params=list(itertools.product(DRIVERS, DRIVERS)), ids="-".join)
def drivers(request):
    """The first and the second driver: each `asyncio.run` has another event loop."""
    return tuple(DRIVERS[name] for name in request.param)


def board_of(retrieval, *, limit=None, router=None, **settings):
    settings = Settings(backoff=0.0, **settings)
    flow = AnswerFlow(Conversation.of("How?"), retrieval=retrieval, settings=settings, router=router)
    return Board([flow], limit, drive.GRACE)


@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_the_first_ends_with_the_sources_and_the_second_writes_the_answer(drivers, retrieval, eager, limit):
    first, second = drivers
    backend, board = Backend(), board_of(retrieval, eager=eager, limit=limit)
    early = [event for _, event in first(board, backend, until_sources=True)]
    assert any(isinstance(event, SourcesDone) for event in early)
    assert backend.live == 0
    assert not any(stage == "point" for stage, _ in backend.opened)
    if retrieval == "once":
        assert backend.opened == [("sources", None)]

    late = [event for _, event in second(board, backend)]
    assert isinstance(late[-1], AnswerDone)
    whole = run(board_of(retrieval, eager=eager), Backend())[-1][1]
    assert late[-1].answer.text == whole.answer.text
    assert [e.sources for e in late[-1].answer.expansions] == [e.sources for e in whole.answer.expansions]
    assert sorted(backend.opened, key=str) == sorted(set(backend.opened), key=str), "nothing is made twice"


@pytest.mark.parametrize("retrieval", RETRIEVALS)
def test_a_direct_answer_waits_for_the_second_too(drivers, retrieval):
    first, second = drivers
    backend, board = Backend(), board_of(retrieval, router=lambda question: False)
    first(board, backend, until_sources=True)
    assert backend.opened == [("sources", None)]
    assert isinstance(second(board, backend)[-1][1], AnswerDone)
    assert backend.opened[1:] == [("direct", None)]


def test_the_first_driver_reports_a_failure_before_the_sources_are_complete(drivers):
    first, second = drivers
    backend, board = Backend(failing=2), board_of("per_point", max_retries=0)
    last = first(board, backend, until_sources=True)[-1][1]
    assert isinstance(last, AnswerFailed)
    assert isinstance(last.error, PointError)
    assert second(board, backend) == []
    assert not any(stage == "point" for stage, _ in backend.opened)


def test_a_point_without_sources_by_policy_is_done_early_and_the_others_wait(drivers):
    first, second = drivers
    backend, board = Backend(failing=2), board_of("per_point", max_retries=1, on_point_error="placeholder")
    early = [event for _, event in first(board, backend, until_sources=True)]
    assert [event.expansion.point.index for event in early if isinstance(event, PointDone)] == [2]
    assert backend.opened.count(("sources", 2)) == 2
    answer = second(board, backend)[-1][1].answer
    assert [expansion.error is None for expansion in answer.expansions] == [True, False, True]


def test_without_the_second_driver_nothing_is_left_running(drivers):
    backend = Backend()
    drivers[0](board_of("per_point"), backend, until_sources=True)
    assert backend.live == 0
