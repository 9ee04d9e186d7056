"""The cost guard, its measurements, and the automatic router around them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.auto import AutoRouter, as_router
from skeleton_of_thought.routers.cost import CostGuard, Pace
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.types import (
    Answer,
    Call,
    Conversation,
    Expansion,
    Point,
    Reply,
    Request,
    RouteDecision,
    Skeleton,
    Span,
    Timings,
    Usage,
)

QUESTION = Conversation.of("What are the benefits of tea?")
ALONE = 0.05
"""Seconds per token of a call that runs alone."""


def answer(*, points: int = 5, tokens: int = 50, together: float = 1.0, usage: bool = True, cached: int = 0) -> Answer:
    """An answer whose points took `together` times as long as the same text alone."""
    text = "word " * tokens
    skeleton = Span(0.0, 1.0 + 39 * ALONE, 1.0)
    seconds = points * tokens * ALONE * together
    spent = Usage(100, tokens, cached) if usage else Usage()
    return Answer(
        text=text * points,
        question="?",
        route="skeleton",
        skeleton=Skeleton(tuple(Point(i, "t") for i in range(points)), "word " * 30),
        expansions=tuple(Expansion(Point(i, "t"), text, usage=spent) for i in range(points)),
        timings=Timings(
            stages={"skeleton": skeleton, "point": Span(skeleton.end, skeleton.end + seconds, skeleton.end)}
        ),
        usage_by_stage={"skeleton": Usage(90, 40), "point": Usage(100 * points, tokens * points, cached * points)}
        if usage
        else {},
    )


def direct(tokens: int = 200, pace: float = ALONE) -> Answer:
    return Answer(
        text="word " * tokens,
        question="?",
        route="direct",
        timings=Timings(stages={"direct": Span(0.0, 1.0 + (tokens - 1) * pace, 1.0)}),
        usage_by_stage={"direct": Usage(10, tokens)},
    )


def unstreamed(one: Answer) -> Answer:
    """The same answer, shown only at its end."""
    stages = {name: dataclasses.replace(span, first=span.end) for name, span in one.timings.stages.items()}
    return dataclasses.replace(one, timings=Timings(stages=stages))


def faster(one: Answer, times: float) -> Answer:
    """The same answer by a model that is `times` times as fast."""
    stages = {n: Span(s.start / times, s.end / times, s.first / times) for n, s in one.timings.stages.items()}
    return dataclasses.replace(one, timings=Timings(stages=stages))


def fed(guard: CostGuard, one: Answer, times: int = 3) -> CostGuard:
    for _ in range(times):
        guard.observe(one)
    return guard


class TestGuard:
    def test_without_measurements_the_guard_allows_a_skeleton(self):
        decision = CostGuard(min_speedup=5).route(QUESTION)
        assert decision.use_skeleton is True
        assert "too little was measured" in decision.reason

    def test_the_guard_allows_points_written_in_parallel(self):
        decision = fed(CostGuard(), answer(together=0.25)).route(QUESTION)
        assert decision.use_skeleton is True
        assert "s instead of" in decision.reason

    def test_the_guard_refuses_points_written_one_after_another(self):
        decision = fed(CostGuard(), answer(together=1.0)).route(QUESTION)
        assert decision.use_skeleton is False
        assert "min_speedup=1" in decision.reason

    def test_the_least_speedup_is_adjustable(self):
        estimate = fed(CostGuard(), answer(together=0.25)).estimate(QUESTION)
        assert estimate.speedup > 1.5
        assert (
            fed(CostGuard(min_speedup=estimate.speedup + 0.1), answer(together=0.25)).route(QUESTION).use_skeleton
            is False
        )
        assert fed(CostGuard(min_speedup=0), answer(together=2.0)).route(QUESTION).use_skeleton is True

    def test_estimates_follow_the_measurements(self):
        guard = fed(CostGuard(), answer(points=5, tokens=50, together=0.2), 20)
        estimate = guard.estimate(QUESTION)
        assert estimate.direct_seconds == pytest.approx(1.0 + 250 * ALONE)
        assert estimate.skeleton_seconds == pytest.approx(1.0 + 40 * ALONE + 250 * ALONE * 0.2)
        assert estimate.saved == pytest.approx(estimate.direct_seconds - estimate.skeleton_seconds)

    def test_without_usage_words_are_counted(self):
        with_usage, without = (fed(CostGuard(), answer(together=0.25, usage=usage)) for usage in (True, False))
        assert without.estimate(QUESTION).speedup == pytest.approx(with_usage.estimate(QUESTION).speedup, rel=0.3)

    def test_extra_prompt_tokens_have_a_limit_that_counts_at_once(self):
        long = Conversation.of("What follows from this? " + "All that is written here is context. " * 300)
        assert CostGuard(max_extra_tokens=3000).route(QUESTION).use_skeleton is True
        decision = CostGuard(max_extra_tokens=3000).route(long)
        assert decision.use_skeleton is False
        assert "max_extra_tokens=3,000" in decision.reason

    def test_cached_prompt_tokens_cost_nothing(self):
        fresh, cached = (fed(CostGuard(), answer(cached=n), 20).estimate(QUESTION) for n in (0, 90))
        assert cached.extra_tokens < fresh.extra_tokens / 2

    def test_no_room_for_two_calls_means_no_skeleton(self):
        room = [1]
        guard = CostGuard(capacity=lambda: room[0])
        assert guard.route(QUESTION).use_skeleton is False
        room[0] = 8
        assert fed(guard, answer(together=0.2)).route(QUESTION).use_skeleton is True

    def test_the_requests_limit_bounds_the_capacity(self):
        narrow, wide = (Conversation(QUESTION.messages, Request(max_concurrency=limit)) for limit in (1, 8))
        decision = CostGuard().route(narrow)
        assert decision.use_skeleton is False
        assert "room for one call" in decision.reason
        assert CostGuard(min_speedup=0).route(narrow).use_skeleton is True
        assert CostGuard(capacity=1).route(wide).use_skeleton is False
        guard = fed(CostGuard(), answer(together=0.2))
        four = Conversation(QUESTION.messages, Request(max_concurrency=4))
        assert guard.estimate(four).skeleton_seconds > guard.estimate(wide).skeleton_seconds

    def test_answers_that_come_in_one_piece_are_compared_as_wholes(self):
        guard = fed(CostGuard(), unstreamed(answer(together=0.2)), 20)
        estimate = guard.estimate(QUESTION)
        alone = (1.0 + 39 * ALONE) / 40
        assert estimate.direct_seconds == pytest.approx(250 * alone)
        assert estimate.skeleton_seconds == pytest.approx(40 * alone + 250 * ALONE * 0.2)
        assert fed(guard, unstreamed(direct(tokens=250, pace=0.001)), 20).route(QUESTION).use_skeleton is False
        assert fed(CostGuard(), unstreamed(answer(together=1.0)), 3).estimate(QUESTION).speedup < 1.5

    def test_inconsistent_measurements_allow_a_skeleton(self):
        agreed, mixed = CostGuard(), CostGuard()
        for i in range(12):
            fed(agreed, answer(together=1.0), 1)
            fed(mixed, answer(together=(0.3, 1.7)[i % 2]), 1)
        assert agreed.pace.doubt == pytest.approx(1.0)
        assert mixed.pace.doubt > 1.3
        assert mixed.estimate(QUESTION).speedup < 1
        assert mixed.route(QUESTION).use_skeleton is True
        assert agreed.route(QUESTION).use_skeleton is False

    def test_the_guard_does_not_refuse_a_very_short_answer(self):
        quick = fed(CostGuard(), faster(answer(together=2.0), 1000.0))
        assert quick.estimate(QUESTION).speedup < 1
        assert quick.route(QUESTION).use_skeleton is True

    def test_after_many_refusals_the_guard_allows_one_to_measure_again(self):
        guard = fed(CostGuard(retry=3), answer(together=1.0))
        assert [guard.route(QUESTION).use_skeleton for _ in range(8)] == [False, False, False, True] * 2
        fed(guard, answer(together=0.2), 20)
        assert guard.route(QUESTION).use_skeleton is True

    def test_bad_settings_are_refused(self):
        for wrong in (
            {"max_extra_tokens": -1},
            {"min_speedup": -1.0},
            {"max_points": 0},
            {"capacity": 0},
            {"retry": 0},
        ):
            with pytest.raises(InvalidInput):
                CostGuard(**wrong)


class TestPace:
    def test_direct_answers_update_latency_and_pace_but_no_point_figures(self):
        pace = Pace()
        pace.observe(direct(pace=0.02))
        assert pace.answers == 0
        assert pace.get("pace", 0.0) == pytest.approx(0.02)
        assert pace.get("latency", 0.0) == pytest.approx(1.0)

    def test_answers_without_text_or_timings_update_nothing(self):
        pace = Pace()
        for empty in (Answer("", "?", "direct"), Answer("", "?", "skeleton", expansions=(Expansion(Point(1, "t")),))):
            pace.observe(empty)
        assert pace.answers == 0
        assert pace.get("pace", 9.0) == 9.0

    def test_many_threads_may_observe_answers(self):
        pace = Pace()
        threads = [threading.Thread(target=lambda: [pace.observe(answer()) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pace.answers == 200
        assert pace.get("points", 0.0) == pytest.approx(5.0)


class TestAuto:
    def test_gate_then_router_then_guard(self):
        assert "gate" in AutoRouter().route(Conversation.of("What is 2 + 2?")).reason
        assert "embedded" in AutoRouter().route(QUESTION).reason
        decision = AutoRouter(guard=fed(CostGuard(), answer(together=1.0))).route(QUESTION)
        assert decision.use_skeleton is False
        assert "embedded" in decision.reason
        assert "cost guard" in decision.reason

    def test_each_part_can_be_left_out_or_replaced(self):
        assert AutoRouter(lambda question: False, gate=None).route(QUESTION).use_skeleton is False
        assert AutoRouter(lambda question: True, gate=None).route(Conversation.of("2 + 2?")).use_skeleton is True
        assert AutoRouter(gate=Gate(off=["yes_no"])).route(Conversation.of("Is tea good for me?")).score != 0.0

    def test_a_flow_opens_no_call_for_the_embedded_router(self):
        for question, stage in ((QUESTION, "skeleton"), (Conversation.of("What is 2 + 2?"), "direct")):
            flow = AnswerFlow(question, router=AutoRouter())
            assert [action.stage for action in flow.start() if isinstance(action, Call)] == [stage]
            assert flow.answer.decision is not None

    def test_a_slower_router_is_asked_by_a_call_and_only_past_the_gate(self):
        router = AutoRouter(lambda question: True)
        assert [a.stage for a in AnswerFlow(QUESTION, router=router).start() if isinstance(a, Call)] == ["route"]
        held = AnswerFlow(Conversation.of("What is 2 + 2?"), router=router)
        assert [a.stage for a in held.start() if isinstance(a, Call)] == ["direct"]

    async def test_the_async_method_decides_the_same(self):
        async def router(question: str) -> RouteDecision:
            return RouteDecision(True, 0.9, "async")

        auto = AutoRouter(router, guard=CostGuard())
        assert (await auto.aroute(QUESTION)).reason == "async"
        fed(auto.guard, answer(together=0.2))
        assert (await auto.aroute(QUESTION)).reason.startswith("async; cost guard: about ")
        assert (await auto.aroute(Conversation.of("Why?"))).use_skeleton is False

    def test_answers_reach_the_guard(self):
        guard = CostGuard()
        AutoRouter(guard=guard).observe(answer())
        AutoRouter().observe(answer())
        assert guard.pace.answers == 1

    def test_a_flow_reports_its_answer_to_the_router(self):
        guard = CostGuard()
        flow = AnswerFlow(QUESTION, router=AutoRouter(guard=guard))
        (call,) = [action for action in flow.start() if isinstance(action, Call)]
        flow.opened(call.id, 0.0)
        flow.delta(call.id, "1. It warms\n", 1.0)
        opened = [a for a in flow.done(call.id, Reply(Usage(50, 11)), 2.0) if isinstance(a, Call)]
        for point in opened:
            flow.opened(point.id, 2.0)
            flow.delta(point.id, "text", 2.5)
            flow.done(point.id, Reply(Usage(60, 20)), 4.0)
        assert flow.finished
        assert guard.pace.answers == 1
        assert guard.pace.get("latency", 0.0) == 1.0
        assert guard.pace.get("pace", 0.0) == pytest.approx(0.1)

    def test_a_router_that_cannot_learn_costs_no_answer(self, caplog):
        class Broken(AutoRouter):
            def observe(self, answer: Answer) -> None:
                raise RuntimeError("full")

        flow = AnswerFlow(Conversation.of("2 + 2?"), router=Broken())
        (call,) = [action for action in flow.start() if isinstance(action, Call)]
        flow.delta(call.id, "4")
        flow.done(call.id)
        assert flow.finished
        assert "could not learn" in caplog.text

    def test_an_adapters_router_argument_selects_the_router(self):
        auto = as_router("auto")
        assert isinstance(auto, AutoRouter)
        assert isinstance(auto.router, EmbeddedRouter)
        assert as_router(None) is None
        for wrong in ("always", 3):
            with pytest.raises(InvalidInput):
                as_router(wrong)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))])
def test_a_pickled_guard_keeps_its_measurements(copied):
    guard = CostGuard(max_points=5, enough=1)
    guard.observe(answer())
    other = copied(guard)
    assert other.pace.answers == 1
    assert other.route(Conversation.of("How?")) == guard.route(Conversation.of("How?"))
    other.observe(answer())
    # A shallow copy shares the measurements; deep copies and pickles have their own.
    assert guard.pace.answers == (2 if copied is copy.copy else 1)


def test_a_pickle_of_version_0_1_keeps_its_measurements():
    pickled = (Path(__file__).parent.parent / "data" / "dumps" / "guard.pickle").read_bytes()
    guard = pickle.loads(pickled)
    assert (guard.pace.answers, guard.pace.get("pace", 0.0)) == (1, pytest.approx(0.05))
    guard.observe(answer())
    assert guard.pace.answers == 2
