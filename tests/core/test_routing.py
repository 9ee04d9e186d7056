"""Combined routers: the order of their calls, the decision that stands, and failures."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.events import Routed
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.base import BoundRouter, all_of, any_of, first_sure, with_threshold
from skeleton_of_thought.routers.prompt import PromptRouter
from skeleton_of_thought.types import Answer, Call, Conversation, RouteDecision, Usage

QUESTION = Conversation.of("How do I sleep better?")


class Says:
    """A router with a fixed decision that counts its calls."""

    def __init__(self, use: bool, score: float | None = None, *, reason: str = "", usage: Usage | None = None) -> None:
        self.decision = RouteDecision(use, score, reason, usage)
        self.asked = 0

    def route(self, conversation: Conversation) -> RouteDecision:
        self.asked += 1
        return self.decision

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        await asyncio.sleep(0)
        return self.route(conversation)


class Fails(Says):
    def __init__(self, error: BaseException) -> None:
        super().__init__(True)
        self.error = error

    def route(self, conversation: Conversation) -> RouteDecision:
        self.asked += 1
        raise self.error


@pytest.fixture(params=["sync", "async"])
def ask(request):
    if request.param == "sync":
        return lambda router: router.route(QUESTION)
    return lambda router: asyncio.run(router.aroute(QUESTION))


@pytest.mark.parametrize(
    ("combine", "votes", "use", "asked"),
    [
        (all_of, (True, True, True), True, (1, 1, 1)),
        (all_of, (True, False, True), False, (1, 1, 0)),
        (any_of, (False, True, True), True, (1, 1, 0)),
        (any_of, (False, False, False), False, (1, 1, 1)),
    ],
)
def test_all_and_any_stop_when_the_decision_stands(ask, combine, votes, use, asked):
    routers = [Says(vote, reason=f"router {i}") for i, vote in enumerate(votes)]
    decision = ask(combine(*routers))
    assert decision.use_skeleton is use
    assert tuple(router.asked for router in routers) == asked
    assert decision.reason == f"router {max(i for i, n in enumerate(asked) if n)}"


@pytest.mark.parametrize(
    ("scores", "use", "asked"),
    [
        ((0.95, 0.1), True, (1, 0)),
        ((0.05, 0.9), False, (1, 0)),
        ((0.6, 0.1), False, (1, 1)),
        ((0.6, 0.55), True, (1, 1)),
        ((None, 0.1), True, (1, 0)),
        ((0.8, 0.1), True, (1, 0)),
        ((0.2, 0.9), False, (1, 0)),
    ],
)
def test_the_first_sure_router_decides_and_else_the_last(ask, scores, use, asked):
    routers = [Says(score is None or score >= 0.5, score) for score in scores]
    assert ask(first_sure(*routers)).use_skeleton is use
    assert tuple(router.asked for router in routers) == asked


def test_usage_sums_all_routers_that_decided(ask):
    routers = [Says(True, usage=Usage(10, 1)), Says(True), Says(True, usage=Usage(5, 2))]
    assert ask(all_of(*routers)).usage == Usage(15, 3)


@pytest.mark.parametrize("combine", [all_of, any_of, first_sure])
def test_a_failing_router_votes_for_direct_and_is_reported(ask, combine):
    decision = ask(combine(Fails(RuntimeError("no weights"))))
    assert decision.use_skeleton is False
    assert decision.reason == "the router failed: RuntimeError: no weights"


def test_after_a_failure_any_and_sure_ask_the_next_router_and_all_stops(ask):
    for combine, asked in ((any_of, 1), (first_sure, 1), (all_of, 0)):
        other = Says(True, 0.9, reason="sure")
        decision = ask(combine(Fails(OSError("gone")), other))
        assert (other.asked, decision.use_skeleton) == (asked, bool(asked))
        assert "OSError: gone" in decision.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()])
def test_interrupts_and_cancellations_pass_through(error):
    with pytest.raises(type(error)):
        any_of(Fails(error)).route(QUESTION)


def test_functions_may_stand_among_routers_and_combinations_nest(ask):
    async def later(question: str) -> bool:
        return "sleep" in question

    assert ask(all_of(lambda question: question.endswith("?"), any_of(Says(False), later))).use_skeleton is True


def test_bad_combinations_are_refused():
    for wrong in (all_of, lambda: any_of(None), lambda: all_of(3), lambda: first_sure(Says(True), low=0.9)):
        with pytest.raises(InvalidInput):
            wrong()
    with pytest.raises(InvalidInput, match="threshold"):
        with_threshold(Says(True), 1.5)


def test_a_custom_threshold_decides_by_the_score(ask):
    assert ask(with_threshold(Says(True, 0.7), 0.8)).use_skeleton is False
    assert ask(with_threshold(Says(False, 0.7), 0.6)).use_skeleton is True
    assert ask(with_threshold(Says(True), 0.9)).use_skeleton is True


class AtOnce(Says):
    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        return self.decision if self.decision.score is not None else None


class TestAtOnce:
    def test_a_router_that_needs_no_call_gets_none(self):
        first, second = AnswerFlow(QUESTION, router=AtOnce(False, 0.1)).start()
        assert isinstance(first, Routed)
        assert isinstance(second, Call)
        assert second.stage == "direct"

    def test_an_undecided_router_makes_its_call(self):
        (call,) = AnswerFlow(QUESTION, router=AtOnce(True)).start()
        assert isinstance(call, Call)
        assert call.stage == "route"

    def test_a_failure_answers_directly_and_is_reported(self):
        class Broken(Says):
            def at_once(self, conversation: Conversation) -> RouteDecision | None:
                raise RuntimeError("no weights")

        flow = AnswerFlow(QUESTION, router=Broken(True))
        assert [a.stage for a in flow.start() if isinstance(a, Call)] == ["direct"]
        assert "no weights" in flow.answer.reason


# --- decisions without a call -----------------------------------------------------------------------


class Quick(Says):
    """A router that decides without a call, and may race or observe answers."""

    races = False

    def __init__(self, use: bool, score: float | None = None, *, races: bool = False) -> None:
        super().__init__(use, score)
        self.races = races
        self.heard: list[Answer] = []

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        return self.route(conversation)

    def observe(self, answer: Answer) -> None:
        self.heard.append(answer)


class FailsQuickly(Fails):
    at_once = Fails.route


@pytest.mark.parametrize(
    ("router", "stage"),
    [
        (all_of(Quick(True), Quick(False)), "direct"),
        (all_of(Quick(False), Says(True)), "direct"),
        (all_of(Quick(True), Says(True)), "route"),
        (any_of(Quick(False), Quick(True)), "skeleton"),
        (any_of(FailsQuickly(ValueError()), Quick(True)), "skeleton"),
        (any_of(Says(False), Quick(True)), "route"),
        (first_sure(Quick(True, 0.9), Says(False)), "skeleton"),
        (first_sure(Quick(True, 0.6), Says(False)), "route"),
        (first_sure(Quick(True, 0.6), FailsQuickly(ValueError())), "skeleton"),
        (with_threshold(Quick(True, 0.6), 0.7), "direct"),
        (with_threshold(Says(True, 0.6), 0.7), "route"),
    ],
)
def test_a_flow_opens_no_call_if_all_routers_decide_at_once(router, stage):
    flow = AnswerFlow(QUESTION, router=router)
    assert [action.stage for action in flow.start() if isinstance(action, Call)] == [stage]


def test_a_router_that_fails_at_once_is_reported():
    decision = all_of(FailsQuickly(ValueError("no weights")), Quick(True)).at_once(QUESTION)
    assert decision.use_skeleton is False
    assert decision.reason == "the router failed: ValueError: no weights"


@pytest.mark.parametrize(
    "around", [lambda router: any_of(Says(False), router), lambda router: with_threshold(router, 0.5)]
)
def test_combinations_pass_races_and_answers_on_to_their_routers(around):
    inner = Quick(True, races=True)
    assert around(inner).races is True
    assert around(Quick(True)).races is False
    answer = Answer("text", "?", "direct")
    around(inner).observe(answer)
    assert inner.heard == [answer]


@pytest.mark.parametrize("router", ["function", "prompt router"])
def test_the_end_of_a_loop_does_not_wait_for_a_router_that_hangs(router):
    began, go_on, ended = threading.Event(), threading.Event(), []

    def hangs(_):
        began.set()
        go_on.wait(3)
        ended.append(True)
        return "NONE"

    async def ask():
        given = hangs if router == "function" else PromptRouter(hangs)
        deciding = asyncio.ensure_future(BoundRouter(given, Conversation.of("Why?")).adecide())
        while not began.is_set():
            await asyncio.sleep(0)
        deciding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deciding

    asyncio.run(ask())  # ends with the loop's executor
    assert ended == []
    go_on.set()


async def test_sync_routers_of_many_questions_share_a_few_threads():
    open_now, peak, lock = 0, 0, threading.Lock()

    def router(question):
        nonlocal open_now, peak
        with lock:
            open_now += 1
            peak = max(peak, open_now)
        time.sleep(0.001)
        with lock:
            open_now -= 1
        if question == "17?":
            raise StopIteration
        return question == "5?"

    asked = [BoundRouter(router, Conversation.of(f"{i}?")).adecide() for i in range(100)]
    decisions = await asyncio.gather(*asked, return_exceptions=True)
    assert [i for i, decision in enumerate(decisions) if isinstance(decision, RuntimeError)] == [17]
    assert [i for i, decision in enumerate(decisions) if getattr(decision, "use_skeleton", False)] == [5]
    assert 1 <= peak <= 32
