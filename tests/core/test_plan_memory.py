"""What a model made of each kind of plan, and which kinds it is asked for again."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.plan_memory import PlanMemory, is_usable_plan
from skeleton_of_thought.types import Answer, Expansion, Point, RouteDecision, Skeleton, Span, Timings

PLANNED = Timings(stages={"skeleton": Span(0.0, 1.0), "direct": Span(1.0, 2.0)})


def skeleton(*parents: tuple[int, ...], scopes: int = 0) -> Skeleton:
    points = enumerate(parents, 1)
    return Skeleton(tuple(Point(i, f"Point {i}", after, "what" if i <= scopes else "") for i, after in points))


def planned(*parents: tuple[int, ...], planning="graph", scopes: int = 0) -> Answer:
    return Answer("text", "?", "skeleton", skeleton(*parents, scopes=scopes), reason="no router", planning=planning)


def direct(reason: str, decision: RouteDecision | None = None, timings: Timings = PLANNED) -> Answer:
    return Answer("text", "?", "direct", reason=reason, decision=decision, planning="graph", timings=timings)


GOOD = planned((), (), (1, 2))
FLAT = planned((), (), ())
CHAIN = direct("each point builds on the one before")


@pytest.mark.parametrize(
    ("plan", "kind", "usable"),
    [
        (skeleton((), (), (1,)), "graph", True),
        (skeleton((), (1,), (1,)), "graph", True),
        (skeleton((), (), ()), "graph", False),
        (skeleton((), (1,)), "graph", False),
        (skeleton((), (1,), (2,)), "graph", False),
        (skeleton(()), "graph", False),
        (skeleton(), "graph", False),
        (skeleton((), (), (), scopes=2), "scoped", True),
        (skeleton((), (), (), (), scopes=2), "scoped", True),
        (skeleton((), (), (), scopes=1), "scoped", False),
        (skeleton(), "scoped", False),
        (skeleton((), ()), "titles", True),
    ],
)
def test_a_plan_is_usable_if_it_says_what_its_kind_is_for(plan, kind, usable):
    assert is_usable_plan(plan, kind) is usable


@pytest.mark.parametrize("bad", [FLAT, CHAIN], ids=["flat", "chain"])
def test_a_kind_that_failed_twice_in_a_row_is_not_chosen(bad):
    memory = PlanMemory()
    for answer, may in ((bad, True), (GOOD, True), (bad, True), (bad, False), (bad, False)):
        memory.observe(answer)
        assert memory.may("graph") is may
    assert [memory.may("scoped"), memory.may("titles")] == [True, True]


def test_kinds_are_learned_apart():
    memory = PlanMemory()
    for answer in (planned((), (), planning="scoped"), FLAT, planned((), (), planning="scoped")):
        memory.observe(answer)
    assert (memory.may("scoped"), memory.may("graph")) == (False, True)


def test_a_kind_is_tried_again_once_after_further_answers_of_any_kind():
    memory = PlanMemory(retry=20)
    memory.observe(FLAT)
    memory.observe(FLAT)
    for answer in 10 * [planned((), (), planning="titles"), direct("gate (fact)", RouteDecision(False))]:
        assert memory.may("graph") is False
        memory.observe(answer)
    assert memory.may("graph") is True
    memory.observe(FLAT)
    assert memory.may("graph") is False
    for _ in range(20):
        memory.observe(planned((), (), planning="titles"))
    memory.observe(GOOD)
    memory.observe(FLAT)
    assert memory.may("graph") is True


@pytest.mark.parametrize(
    "answer",
    [
        dataclasses.replace(FLAT, reason="given skeleton"),
        dataclasses.replace(FLAT, planning="titles"),
        direct("the gate is against it", RouteDecision(False)),
        direct("there is no skeleton: the server is down"),
        direct("each point builds on the one before", timings=Timings(stages={"direct": Span(0.0, 1.0)})),
        dataclasses.replace(FLAT, finish_reason="content_filter"),
    ],
    ids=["given", "titles", "routed direct", "no reply", "given chain", "broke off"],
)
def test_answers_that_tell_nothing_of_plans_do_not_count(answer):
    memory = PlanMemory(failures=1)
    memory.observe(answer)
    assert memory.may("graph") is True


def test_a_failed_point_does_not_excuse_a_plan():
    failed = Expansion(Point(1, "Point 1"), error=ValueError("x"), finish_reason="error")
    memory = PlanMemory(failures=1)
    memory.observe(dataclasses.replace(FLAT, expansions=(failed,), finish_reason="error"))
    assert memory.may("graph") is False


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_copies_know_what_the_original_learned_and_learn_by_themselves(again):
    memory = PlanMemory()
    memory.observe(FLAT)
    other = again(memory)
    other.observe(FLAT)
    assert (memory.may("graph"), other.may("graph")) == (True, False)


def test_no_answer_is_lost_among_threads():
    memory = PlanMemory(failures=401)
    threads = [threading.Thread(target=lambda: [memory.observe(FLAT) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.may("graph") is True
    memory.observe(FLAT)
    assert memory.may("graph") is False


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"retry": 0}, {"failures": True}, {"retry": 1.5}])
def test_bad_numbers_are_refused(wrong):
    with pytest.raises(InvalidInput, match="whole number"):
        PlanMemory(**wrong)
