"""Errors and the values that hold them, through pickle, copies and pools of processes."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest

from skeleton_of_thought import events
from skeleton_of_thought.errors import (
    ForeignError,
    InvalidInput,
    MissingExtra,
    PointError,
    PointTimeout,
    ReplyError,
    SkeletonError,
)
from skeleton_of_thought.rate_limits import read_rate_limit
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import BoundRouter, all_of, any_of, first_sure, with_threshold
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.types import (
    Answer,
    Conversation,
    Expansion,
    Message,
    Point,
    Prompt,
    Reply,
    Skeleton,
    Span,
    Timings,
    Usage,
)

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)
POINT = Point(2, "Rest")


class Response:
    """A client's response: it holds a lock, as an open connection does."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code
        self.lock = threading.Lock()


class StatusError(Exception):
    """An error whose `__init__` wants more than its message, as those of OpenAI's client do."""

    def __init__(self, message: str, *, response: Response) -> None:
        super().__init__(message)
        self.response = response
        self.status_code = response.status_code


class Prefixed(Exception):
    """An error that would have its prefix twice if `__init__` ran again."""

    def __init__(self, text: str) -> None:
        super().__init__(f"The server said: {text}")


class FromResponse(StatusError):
    """An error whose text comes from what cannot be pickled."""

    def __str__(self) -> str:
        return f"status {self.response.status_code}"


class Refusing(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not picklable")


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def limited(message: str = "slow down") -> StatusError:
    return StatusError(message, response=Response(429))


def point_error(cause: BaseException | None, **changes: Any) -> PointError:
    expansions = (Expansion(Point(1, "Move"), "Walk."), Expansion(POINT, error=changes.pop("inner", None)))
    answer = Answer("1. Move: Walk.", "How?", "skeleton", Skeleton((Point(1, "Move"), POINT)), expansions, **changes)
    error = PointError('Point 2 ("Rest") failed', POINT, answer)
    error.__cause__ = cause
    return error


def through(value: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_keeps_its_attributes_cause_and_notes(protocol):
    error = point_error(ValueError("a", 1))
    error.add_note("while testing")
    again = through(error, protocol)
    assert type(again) is PointError
    assert again.args == error.args
    assert (again.point, again.answer) == (error.point, error.answer)
    assert repr(again.__cause__) == "ValueError('a', 1)"
    assert again.__notes__ == ["while testing"]


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (MissingExtra("It needs torch", "local"), ("extra", "msg", "name")),
        (ReplyError("blocked", "content_filter"), ("finish_reason",)),
        (SkeletonError("none", Skeleton((), "Well.")), ("skeleton",)),
        (PointTimeout(110, "too slow", "file"), ("errno", "strerror", "filename")),
        (InvalidInput(), ("args",)),
    ],
)
def test_each_kind_of_error_survives(error, attributes):
    again = [through(error, protocol) for protocol in PROTOCOLS]
    for each in (*again, copy.copy(error), copy.deepcopy(error)):
        assert type(each) is type(error)
        assert (each.args, str(each)) == (error.args, str(error))
        assert [getattr(each, name) for name in attributes] == [getattr(error, name) for name in attributes]
        assert each.__cause__ is None
        assert not each.__suppress_context__


def test_an_error_of_a_callers_own_subclass_survives():
    again = through(OwnError(POINT, why="because"), 4)
    assert (type(again), str(again), again.why) == (OwnError, "because: Rest", "because")


class OwnError(InvalidInput):
    def __init__(self, point: Point, *, why: str) -> None:
        super().__init__(f"{why}: {point.title}")
        self.why = why


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cause_with_an_open_connection_travels_without_it(protocol):
    again = through(point_error(limited(), inner=limited("first")), protocol)
    cause = again.__cause__
    assert (type(cause), cause.args, vars(cause)) == (StatusError, ("slow down",), {"status_code": 429})
    assert read_rate_limit(again, 0.0) is not None
    assert repr(again.answer.errors[2]) == "StatusError('first')"


def test_a_cause_that_refuses_to_be_pickled_is_made_anew():
    assert repr(through(point_error(Refusing("gone")), 4).__cause__) == "Refusing('gone')"


def test_a_cause_is_not_made_anew_by_its_init():
    assert str(through(point_error(Prefixed("no")), 4).__cause__) == "The server said: no"


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (FromResponse("x", response=Response(503)), f"{__name__}.FromResponse: status 503"),
        (Unreadable(), f"{__name__}.Unreadable"),
        (type("Nowhere", (OSError,), {"__module__": "its.module"})("lost"), "its.module.Nowhere: lost"),
    ],
)
def test_a_cause_that_cannot_travel_is_told_in_words(cause, text):
    again = through(point_error(cause), 4).__cause__
    assert type(again) is ForeignError
    assert str(again) == text


def test_a_stand_in_keeps_what_is_plain():
    cause = FromResponse("x", response=Response(503))
    cause.add_note("on Tuesday")
    again = through(point_error(cause), 4).__cause__
    assert vars(again) == {"status_code": 503, "__notes__": ["on Tuesday"]}


def test_a_process_without_the_errors_class_gets_its_text(monkeypatch):
    data = pickle.dumps(point_error(Prefixed("no")))
    monkeypatch.delattr(f"{__name__}.Prefixed")
    assert str(pickle.loads(data).__cause__) == f"{__name__}.Prefixed: The server said: no"


def test_all_causes_travel():
    first, second, third = point_error(None), limited(), ValueError("low")
    first.__cause__, second.__cause__, third.__cause__ = second, third, InvalidInput("lowest")
    again = through(first, 4)
    assert [type(each).__name__ for each in chain(again)] == ["PointError", "StatusError", "ValueError", "InvalidInput"]


def chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *chain(error.__cause__)]


def test_errors_that_hold_each_other_travel():
    one, other = InvalidInput("one"), InvalidInput("other")
    one.__cause__, other.__cause__ = other, one
    assert list(map(str, chain(through(one, 4)))) == ["one", "other"]
    holder = point_error(None)
    object.__setattr__(holder.answer, "merge_error", holder)
    assert str(holder) in str(through(holder, 4).answer.merge_error)


def test_a_long_chain_ends():
    error = last = InvalidInput("0")
    for n in range(1, 300):
        last.__cause__ = last = InvalidInput(str(n))
    assert list(map(str, chain(through(error, 4)))) == [str(n) for n in range(9)]


def test_sources_that_cannot_be_pickled_do_not_keep_an_error_from_travelling():
    lock = threading.Lock()
    error = point_error(None, sources=("a page", lock))
    error.client = Response(200)
    error.args = (*error.args, lock)
    again = through(error, 4)
    assert again.args == (error.args[0], repr(lock))
    assert again.answer.sources == ("a page", repr(lock))
    assert (again.answer.text, again.answer.expansions) == (error.answer.text, error.answer.expansions)
    assert again.client.startswith("<")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [200, 500, 100_000])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_attributes_that_are_nested_too_deep_do_not_keep_an_error_from_travelling(depth, protocol):
    error = point_error(ValueError(nested(depth)), inner=limited(), sources=("a page", nested(depth)))
    error.body = {"detail": nested(depth), "code": 7}
    again = through(error, protocol)
    assert again.args == error.args
    assert again.answer.expansions[0] == error.answer.expansions[0]
    assert (again.answer.text, repr(again.answer.errors[2])) == (error.answer.text, "StatusError('slow down')")
    assert again.body == error.body if depth == 200 else isinstance(again.body, (str, dict))
    assert again.__cause__ is not None
    assert copy.deepcopy(error).answer.text == copy.copy(error).answer.text == error.answer.text


def test_an_error_within_errors_travels_in_little_space():
    errors: list[Exception] = [limited("first")]
    while len(errors) < 11:
        errors.append(point_error(errors[-1], inner=errors[-1]))
    assert len(pickle.dumps(errors[10])) < 15 * len(pickle.dumps(errors[5]))  # it was more than 30 times as much
    again = pickle.loads(pickle.dumps(errors[10]))
    assert [type(each) for each in chain(again)] == [PointError] * 9
    assert type(again.answer.errors[2].answer.errors[2]) is PointError


def test_an_answer_says_that_its_sources_cannot_be_pickled():
    with pytest.raises(TypeError, match="lock"):
        pickle.dumps(Answer("a", "q", "direct", sources=(threading.Lock(),)))


def test_copies_share_errors_and_deep_copies_the_rest():
    cause = limited()
    error = point_error(cause, inner=cause, sources=(threading.Lock(),))
    shallow, deep = copy.copy(error), copy.deepcopy(error)
    assert shallow.__cause__ is deep.__cause__ is cause
    assert shallow.answer is error.answer
    assert deep.answer == error.answer
    shallow.add_note("only here")
    assert not hasattr(error, "__notes__")


VALUES = [
    Expansion(POINT, error=limited()),
    Answer("t", "q", "direct", merge_error=limited(), usage_by_stage=MappingProxyType({"direct": Usage(1, 2)})),
    Timings(stages=MappingProxyType({"point": Span(0.0, 1.0)})),
    Message("user", (MappingProxyType({"type": "text", "text": "Why?"}),), raw=MappingProxyType({"a": [1]})),
    Reply(sources=(MappingProxyType({"id": 1}),)),
    events.SourcesFound(None, (MappingProxyType({"id": 1}),)),
    events.PointRestarted(POINT, limited()),
    events.AnswerFailed(point_error(limited())),
    events.MergeDone("", limited()),
    events.AnswerDone(Answer("t", "q", "skeleton", expansions=(Expansion(POINT, error=limited()),))),
]


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_values_with_errors_and_read_only_mappings(value):
    assert copy.copy(value) == copy.deepcopy(value) == value
    for protocol in PROTOCOLS:
        again = through(value, protocol)
        assert repr(again) == repr(value)


def always(question: str) -> bool:
    return True


def in_words(prompt: Prompt) -> str:
    return "A" if len(prompt.messages[-1].text) % 2 else "B"


def measured() -> CostGuard:
    guard = CostGuard(min_speedup=2.0)
    guard.observe(Answer("t", "q", "direct", timings=Timings(1.0, stages={"direct": Span(0.0, 1.0, 0.5)})))
    return guard


ROUTERS = [
    AutoRouter(guard=measured()),
    EmbeddedRouter(0.3),
    Gate(off=("yes_no",), max_words=9),
    PromptRouter(in_words, max_tokens=7),
    with_threshold(EmbeddedRouter(), 0.9),
    all_of(Gate(), any_of(always, EmbeddedRouter())),
    first_sure(EmbeddedRouter(), always),
    measured(),
]


@pytest.mark.parametrize("router", ROUTERS, ids=[type(router).__name__ for router in ROUTERS])
def test_routers_decide_the_same(router):
    asked = [Conversation.of(text) for text in ("What are the benefits of tea?", "Is 7 a prime?", "Name a fruit.")]
    for each in (*(through(router, n) for n in PROTOCOLS), copy.copy(router), copy.deepcopy(router)):
        assert [BoundRouter(each, one).decide() for one in asked] == [
            BoundRouter(router, one).decide() for one in asked
        ]


# --- pools of processes -----------------------------------------------------------------------------


def fail(kind: str) -> None:
    if kind == "point":
        raise point_error(None, inner=limited()) from limited()
    if kind == "unreadable":
        raise point_error(None) from Unreadable()
    if kind == "extra":
        raise MissingExtra("It needs torch", "local")


KINDS = {"point": PointError, "unreadable": PointError, "extra": MissingExtra}


def test_an_executor_of_processes_goes_on():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind, expected in KINDS.items():
            error = pool.submit(fail, kind).exception()
            assert type(error) is expected
            if kind == "point":
                assert error.answer.text == "1. Move: Walk."
                assert "slow down" in str(error.__cause__)  # the traceback of the worker
        assert pool.submit(abs, -1).result() == 1


def test_a_pool_goes_on():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind, expected in KINDS.items():
            with pytest.raises(expected):
                pool.apply_async(fail, [kind]).get(60)
        assert pool.apply_async(abs, [-1]).get(60) == 1
