"""Many answers over one model: how many calls are open, whose go first, and what is left at the end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.bulk import HOLD, Hold, answer_all
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Conversation, Reply, RouteDecision

PATIENCE = 30.0


class Model:
    """Calls that wait for one another: none ends before `together` are open, or until `rest` is set."""

    def __init__(
        self, *, points: int = 3, together: int = 1, fail: Callable[[Call, int], Exception | None] = lambda *_: None
    ) -> None:
        self.points, self.fail = points, fail
        self.open = self.most = 0
        self.opened: list[tuple[int, str]] = []
        self._together, self._changed = together, threading.Condition()
        self.rest = threading.Event()

    def __call__(self, call: Call, index: int) -> Iterator[str | Reply]:
        with self._changed:
            self.open += 1
            self.most = max(self.most, self.open)
            self.opened.append((index, call.stage))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.open >= self._together or self.rest.is_set(), PATIENCE)
            self.rest.set()
        try:
            if (error := self.fail(call, index)) is not None:
                raise error
            if call.stage == "skeleton":
                yield "".join(f"{i}. Matter number {i}\n" for i in range(1, self.points + 1))
            else:
                yield "Some text."
            yield Reply(finish_reason="stop")
        finally:
            with self._changed:
                self.open -= 1


def by_points(item: str) -> AnswerFlow:
    return AnswerFlow(Conversation.of(item), settings=Settings(backoff=0), live=False)


class Never:
    def at_once(self, conversation: Conversation) -> RouteDecision:
        return RouteDecision(False)

    route = at_once

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        return RouteDecision(False)


def direct(item: str) -> AnswerFlow:
    return AnswerFlow(Conversation.of(item), router=Never(), live=False)


def questions(count: int) -> list[str]:
    return [f"Question {i}?" for i in range(count)]


@pytest.mark.parametrize("concurrency", [1, 3, 8, 64])
@pytest.mark.parametrize("flow", [by_points, direct])
def test_all_calls_that_may_be_open_are_open_and_no_more(concurrency, flow):
    model = Model(together=concurrency)
    ended = list(answer_all(questions(80), flow, model, concurrency=concurrency))
    assert model.most == concurrency
    assert sorted(each.item for each in ended) == sorted(questions(80))
    assert {len(each.log.calls) for each in ended} == {4 if flow is by_points else 1}
    assert model.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sot")]


def test_with_room_for_one_call_the_answers_come_one_after_the_other():
    model = Model()
    ended = list(answer_all(questions(5), by_points, model, concurrency=1))
    assert [each.item for each in ended] == questions(5)
    assert [index for index, _ in model.opened] == sorted([0, 1, 2, 3, 4] * 4)


def test_the_oldest_answer_goes_first_and_a_new_one_begins_only_when_no_call_waits():
    model = Model(points=4)
    begun: set[int] = set()
    ended: set[int] = set()
    most = 0

    def flow(item: int) -> AnswerFlow:
        nonlocal most
        begun.add(item)
        most = max(most, len(begun - ended))
        return by_points(f"Question {item}?")

    for each in answer_all(range(30), flow, model, concurrency=4):
        ended.add(each.item)
        # All that was begun earlier has ended, but for what may be open beside it.
        assert len({item for item in begun - ended if item < each.item}) < 4
    assert most <= 5


def test_items_are_read_as_they_are_needed():
    read = 0

    def items() -> Iterator[str]:
        nonlocal read
        for item in questions(1000):
            read += 1
            yield item

    with contextlib.closing(answer_all(items(), direct, Model(), concurrency=4)) as answers:
        for number, _ in enumerate(answers, 1):
            assert read <= number + 8
            if number == 20:
                break
    assert read < 40


def test_a_failed_answer_ends_alone_and_calls_that_were_tried_again_count():
    def fail(call: Call, index: int) -> Exception | None:
        if call.stage == "point" and index == 1:
            return ConnectionError("line cut")
        return ConnectionError("once") if call.stage == "point" and index == 2 and call.attempt == 1 else None

    ended = {each.item: each for each in answer_all(questions(4), by_points, Model(fail=fail), concurrency=2)}
    assert [type(ended[item].error).__name__ for item in questions(4)] == [
        "NoneType", "PointError", "NoneType", "NoneType"
    ]  # fmt: skip
    assert [point.text for point in ended["Question 1?"].answer.expansions if not point.error]
    assert len(ended["Question 0?"].log.calls) == 4
    assert len(ended["Question 2?"].log.calls) == 7


def test_an_item_without_a_flow_is_an_answer_that_failed():
    def flow(item: str) -> AnswerFlow:
        if item == "Question 1?":
            raise InvalidInput("no")
        return direct(item)

    ended = {each.item: each for each in answer_all(questions(3), flow, Model(), concurrency=2)}
    assert isinstance(ended["Question 1?"].error, InvalidInput)
    assert len(ended["Question 1?"].log.calls) == 0
    assert ended["Question 1?"].answer is None
    assert ended["Question 2?"].answer.text == "Some text."
    assert len(ended) == 3
    assert not list(answer_all([], flow, Model(), concurrency=2))


class RateLimited(Exception):
    status_code = 429


def test_a_rate_limit_slows_all_answers_down_and_fails_none():
    refused = threading.Event()

    def fail(call: Call, index: int) -> Exception | None:
        if refused.is_set():
            return None
        refused.set()
        return RateLimited("too many")

    with_backoff = Settings(backoff=0.01)
    ended = list(
        answer_all(
            questions(10),
            lambda item: AnswerFlow(Conversation.of(item), settings=with_backoff, router=Never()),
            Model(fail=fail),
            concurrency=4,
        )
    )
    assert [each.error for each in ended] == [None] * 10
    assert sum(len(each.log.calls) for each in ended) == 11


def test_leaving_ends_all_calls():
    held = threading.Event()

    class Held:
        def __init__(self) -> None:
            self.cancelled = threading.Event()

        def __iter__(self) -> Iterator[str | Reply]:
            held.set()
            self.cancelled.wait(PATIENCE)
            return iter(())

        def cancel(self) -> None:
            self.cancelled.set()

    streams: list[Held] = []

    def open_call(call: Call, index: int) -> Iterator[str | Reply]:
        if index == 0:
            return iter(["Done.", Reply(finish_reason="stop")])
        streams.append(Held())
        return streams[-1]  # type: ignore[return-value]

    with contextlib.closing(answer_all(questions(9), direct, open_call, concurrency=3)) as answers:
        assert next(answers).item == "Question 0?"
        assert held.wait(PATIENCE)
    assert streams
    assert all(stream.cancelled.is_set() for stream in streams)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sot")]


def test_items_may_hold_back_until_another_answer_has_ended():
    ended = most = 0

    def items() -> Iterator[str | Hold]:
        nonlocal most
        for number, item in enumerate(questions(6)):
            while number > ended:
                yield HOLD
            most = max(most, number + 1 - ended)
            yield item

    for each in answer_all(items(), by_points, Model(), concurrency=8):
        assert each.item == f"Question {ended}?"
        ended += 1
    assert (ended, most) == (6, 1)


def test_an_error_of_the_items_ends_all():
    def items() -> Iterator[str]:
        yield "Question 0?"
        raise InvalidInput("line 2")

    with pytest.raises(InvalidInput, match="line 2"):
        list(answer_all(items(), direct, Model(), concurrency=4))
