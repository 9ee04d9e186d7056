"""Open calls over all clients: room, the queue before it, and what is left after an end of any kind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import pytest

from skeleton_of_thought import drive
from skeleton_of_thought.events import AnswerDone
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.limits import CallLimit
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Conversation, Reply

CALL = Call(1, "skeleton", None)


class RateLimited(Exception):
    status_code = 429


class Model:
    """Writes a skeleton of `points` points, and points that wait until `gate` is set."""

    def __init__(self, points: int = 3, *, open_gate: bool = True) -> None:
        self.points = points
        self.open = self.peak = 0
        self.log: list[str] = []
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    def flow(self, name: str) -> AnswerFlow:
        return AnswerFlow(Conversation.of(name), prompts=PromptSet(), settings=Settings(backoff=0.0))

    async def call(self, call: Call, name: str):
        self.open += 1
        self.peak = max(self.peak, self.open)
        self.log.append(f"{name} {call.stage}")
        try:
            await asyncio.sleep(0)
            if call.stage == "skeleton":
                yield "".join(f"{n}. Title {n}\n" for n in range(1, self.points + 1))
            else:
                await self.gate.wait()
                yield "A text. "
            yield Reply()
        finally:
            self.open -= 1

    async def answer(self, limit: CallLimit, name: str, model: str = "") -> list:
        events = []
        async with limit.admitted(model) as share:
            run = drive.arun([self.flow(name)], lambda call, _: self.call(call, name), max_concurrency=share)
            async with contextlib.aclosing(run) as stream:
                async for _, event in stream:
                    events.append(event)
        return events


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def started(limit: CallLimit, times: int, model: str = "") -> list[asyncio.Task]:
    """Tasks that each wait for a place, and keep it until they are cancelled."""

    async def hold() -> None:
        async with limit.place(model):
            await asyncio.Event().wait()

    return [asyncio.create_task(hold()) for _ in range(times)]


async def end(*tasks: asyncio.Task) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_all_answers_together_keep_to_the_bound_and_all_end():
    limit, model = CallLimit(4, 100), Model(points=6)
    answers = await asyncio.gather(*(model.answer(limit, f"a{n}") for n in range(12)))
    assert [type(events[-1]) for events in answers] == [AnswerDone] * 12
    assert all(len(events[-1].answer.expansions) == 6 for events in answers)
    assert model.peak == 4
    assert (limit.open_calls, limit.waiting, model.open) == (0, 0, 0)


async def test_calls_that_pass_through_and_answers_share_the_bound():
    limit, model = CallLimit(3, 100), Model(points=5)
    held = started(limit, 2)
    await until(lambda: limit.open_calls == 2)
    await model.answer(limit, "a")
    assert model.peak == 1
    await end(*held)
    assert limit.open_calls == 0


async def test_points_of_an_answer_go_before_an_answer_that_waits():
    limit, short, long = CallLimit(2, 10), Model(points=1), Model(points=6)
    long.log = short.log
    await asyncio.gather(short.answer(limit, "a"), long.answer(limit, "b"), short.answer(limit, "c"))
    # The place that the first answer left was the second one's, not that of the third one's skeleton.
    assert short.log[: short.log.index("c skeleton")].count("b point") == 6


@contextlib.asynccontextmanager
async def refused(limit: CallLimit, model: str = ""):
    """A share with one open call, whose second one found no room, since a call outside of it is open; and a way to end
    that."""
    woken = asyncio.Event()
    async with limit.admitted("first") as share:
        share.begin(woken.set)
        assert share.open((0, 1), CALL, 0.0)
        outside = contextlib.AsyncExitStack()
        await outside.enter_async_context(limit.place(model))
        assert not share.open((0, 2), CALL, 0.0)
        yield share, outside, woken


async def test_a_place_that_is_free_is_not_taken_from_an_answer_that_waits_for_it(monkeypatch):
    # Longer than a busy machine lets this test wait.
    monkeypatch.setattr("skeleton_of_thought.serve.limits._HEAD_START", 0.2)
    limit = CallLimit(2, 10)
    async with refused(limit, "first") as (share, outside, _):
        await outside.aclose()
        (late,) = started(limit, 1, "first")
        await asyncio.sleep(0)  # a longer wait could outlast the head start of the answer
        assert limit.waiting == 1
        assert share.open((0, 2), CALL, 0.0)
        await asyncio.sleep(0.3)
        assert (limit.open_calls, limit.waiting) == (2, 1)
        await end(late)


async def test_an_answer_that_wants_its_place_no_more_does_not_keep_others_waiting():
    limit = CallLimit(2, 10)
    async with refused(limit, "first") as (_, outside, _):
        (late,) = started(limit, 1, "first")
        await until(lambda: limit.waiting == 1)
        await outside.aclose()
        await until(lambda: limit.waiting == 0)
        assert limit.open_calls == 2
        await end(late)


async def test_an_answer_is_woken_when_a_call_of_another_model_ends():
    limit = CallLimit(2, 10)
    async with refused(limit, "second") as (share, outside, woken):
        assert not woken.is_set()
        await outside.aclose()
        await asyncio.wait_for(woken.wait(), 10)
        assert share.open((0, 2), CALL, 0.0)


async def test_requests_are_admitted_in_the_order_in_which_they_came():
    limit, order = CallLimit(1, 10), []

    async def one(number: int) -> None:
        async with limit.place():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(one(number) for number in range(8)))
    assert order == list(range(8))


async def test_a_full_queue_refuses_with_429_and_says_when_to_come_back():
    limit = CallLimit(1, 2)
    held = started(limit, 3)
    await until(lambda: limit.waiting == 2)
    for enter in (limit.place, limit.admitted):
        with pytest.raises(ServeError) as refused:
            async with enter():
                pytest.fail("it was admitted")
        assert refused.value.status == 429
        assert 1 <= refused.value.retry_after <= 60
        assert refused.value.to_dict()["error"]["type"] == "rate_limit_error"
    assert (limit.open_calls, limit.waiting) == (1, 2)
    await end(*held)
    assert (limit.open_calls, limit.waiting) == (0, 0)


async def test_without_a_queue_a_request_is_admitted_or_refused_at_once():
    limit = CallLimit(1, 0)
    async with limit.place():
        with pytest.raises(ServeError, match="busy"):
            async with limit.place():
                pytest.fail("it was admitted")
    async with limit.place():
        assert limit.open_calls == 1


async def test_a_waiter_that_is_cancelled_leaves_no_hole():
    limit = CallLimit(1, 10)
    first, second, third = started(limit, 3)
    await until(lambda: limit.waiting == 2)
    await end(second)
    assert limit.waiting == 1
    await end(first)
    await until(lambda: limit.open_calls == 1)
    assert limit.waiting == 0
    await end(third)
    assert limit.open_calls == 0


async def test_a_waiter_that_is_cancelled_just_when_its_place_comes_gives_it_on():
    limit = CallLimit(1, 10)
    async with limit.place():
        second, third = started(limit, 2)
        await until(lambda: limit.waiting == 2)
    limit._give_away()
    assert (limit.open_calls, limit.waiting) == (1, 1)
    second.cancel()  # before its task has run
    await until(lambda: second.done() and limit.waiting == 0)
    assert not third.done()
    assert limit.open_calls == 1
    await end(third)
    assert limit.open_calls == 0


@pytest.mark.parametrize("moment", ["before its first call", "in its points"])
async def test_an_answer_that_is_cancelled_gives_all_its_places_back(moment):
    limit, model = CallLimit(3, 10), Model(points=5, open_gate=False)
    if moment == "before its first call":
        async with limit.admitted() as share:
            assert share.budget.open == 1
    else:
        task = asyncio.create_task(model.answer(limit, "a"))
        await until(lambda: model.open == 3)
        await end(task)
    assert (limit.open_calls, model.open) == (0, 0)
    model.gate.set()
    assert isinstance((await model.answer(limit, "b"))[-1], AnswerDone)


async def test_an_answer_has_a_limit_of_its_own_within_the_bound():
    limit, model = CallLimit(8, 0), Model(points=6)
    async with limit.admitted(most=2) as share:
        async for _ in drive.arun([model.flow("a")], lambda call, _: model.call(call, "a"), max_concurrency=share):
            pass
    assert model.peak == 2


async def test_after_closing_all_that_wait_and_all_that_come_get_503():
    limit = CallLimit(1, 10)
    first, second = started(limit, 2)
    await until(lambda: limit.waiting == 1)
    limit.close()
    with pytest.raises(ServeError) as refused:
        await asyncio.wait_for(second, 10)
    assert refused.value.status == 503
    with pytest.raises(ServeError, match="stopping"):
        async with limit.admitted():
            pytest.fail("it was admitted")
    assert not first.done()
    assert (limit.open_calls, limit.waiting) == (1, 0)
    await end(first)
    assert limit.open_calls == 0


async def test_models_share_the_bound_and_wake_each_other():
    limit, model = CallLimit(2, 10), Model(points=4)
    answers = await asyncio.gather(*(model.answer(limit, name, model=name) for name in ("a", "b", "c")))
    assert [type(events[-1]) for events in answers] == [AnswerDone] * 3
    assert model.peak == 2
    assert limit.open_calls == 0


async def test_a_rate_limit_of_one_model_does_not_stop_another():
    limit = CallLimit(4, 10)
    async with limit.admitted("slow") as share:
        assert share.open((0, 1), CALL, time.monotonic())
        assert share.opens_again((0, 1), CALL, RateLimited("try again in 100 s"), 100.0, time.monotonic())
        assert not share.open((0, 2), CALL, time.monotonic())
        waits = started(limit, 1, "slow")
        await until(lambda: limit.waiting == 1)
        async with limit.place("fast"):
            assert (limit.open_calls, limit.waiting) == (2, 1)
        await end(*waits)
    assert (limit.open_calls, limit.waiting) == (0, 0)


async def test_a_pause_of_a_model_ends_by_itself():
    limit = CallLimit(4, 10)
    async with limit.admitted("slow") as share:
        share.open((0, 1), CALL, time.monotonic())
        share.opens_again((0, 1), CALL, RateLimited("slow down"), 0.05, time.monotonic())
    admitted = asyncio.Event()

    async def one() -> None:
        async with limit.place("slow"):
            admitted.set()

    await asyncio.gather(one(), asyncio.wait_for(admitted.wait(), 10))
    assert limit.open_calls == 0


async def test_calls_that_pass_through_lift_a_lowered_limit_again():
    limit = CallLimit(2, 10)
    async with limit.admitted() as share:
        share.open((0, 1), CALL, time.monotonic())
        share.opens_again((0, 1), CALL, RateLimited("slow down"), 0.0, time.monotonic())
    for _ in range(4):
        async with limit.place():
            pass
    held = started(limit, 2)
    await until(lambda: limit.open_calls == 2)
    await end(*held)


async def test_nothing_stays_open_after_many_answers_and_calls_that_leave_at_any_moment():
    limit, models = CallLimit(3, 1000), [Model(points=4), Model(points=2)]
    chance = random.Random(7)

    async def one(number: int) -> str:
        model = models[number % 2]
        try:
            if number % 5:
                await model.answer(limit, str(number), model=str(number % 2))
            else:
                async with limit.place(str(number % 2)):
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "left"
        return "answered"

    tasks = [asyncio.create_task(one(number)) for number in range(120)]
    leaving = 50  # A busy machine needs more turns for an answer: without a bound, hardly any would be left.
    while left := [task for task in tasks if not task.done()]:
        if leaving and chance.random() < 0.1:
            leaving -= 1
            chance.choice(left).cancel()
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        assert limit.open_calls <= 3
        assert sum(model.open for model in models) <= 3
    ends = [task.result() for task in tasks if not task.cancelled()]
    assert ends.count("answered") > 10
    assert len(ends) - ends.count("answered") + sum(task.cancelled() for task in tasks) > 10
    assert (limit.open_calls, limit.waiting, models[0].open, models[1].open) == (0, 0, 0, 0)
    assert not limit._shares
