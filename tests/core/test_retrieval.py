"""Retrieval as a stage of the flow: its order, its place in the prompts, its failures, and both drivers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from driving import Clock

from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import InvalidInput, PointError, PointTimeout
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    Routed,
    SkeletonDone,
    SkeletonRestarted,
    SourcesDone,
    SourcesFound,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import (
    Answer,
    Call,
    Cancel,
    Conversation,
    Point,
    Reply,
    RouteDecision,
    Skeleton,
    Usage,
)

QUESTION = Conversation.of("How do I sleep better?")
TWO = "1. Sleep\n2. Eat\n"
GIVEN = Skeleton((Point(2, "Sleep"), Point(5, "Eat")))
WAIT = 20.0
"""Seconds until a hanging test fails, far above the time that any of these needs."""


def found(what: object = "all") -> Reply:
    return Reply(sources=(f"node {what}",), context=f"Fact {what}.")


class DrivenFlow:
    """A flow driven by hand, with every action that it returned."""

    def __init__(self, *, settings: dict | None = None, start: float = 0.0, **options) -> None:
        self.flow = AnswerFlow(QUESTION, settings=Settings(**(settings or {})), **options)
        self.said: list[Action] = []
        self.open: list[Call] = []
        self._hear(self.flow.start(start))

    def _hear(self, actions: list[Action]) -> list[Action]:
        self.said += actions
        for action in actions:
            if isinstance(action, Call):
                self.open.append(action)
            elif isinstance(action, Cancel):
                self.open = [call for call in self.open if call.id != action.id]
        return actions

    def call(self, stage: str, index: int | None = None) -> Call:
        (call,) = [c for c in self.open if c.stage == stage and (c.point.index if c.point else None) == index]
        return call

    def write(self, stage: str, text: str, index: int | None = None) -> list[Action]:
        return self._hear(self.flow.delta(self.call(stage, index).id, text))

    def end(self, stage: str, index: int | None = None, reply: Reply | None = None, text: str = "") -> list[Action]:
        call = self.call(stage, index)
        actions = self._hear(self.flow.delta(call.id, text)) if text else []
        self.open.remove(call)
        return actions + self._hear(self.flow.done(call.id, reply))

    def fail(self, stage: str, index: int | None = None, error: Exception | None = None) -> list[Action]:
        call = self.call(stage, index)
        self.open.remove(call)
        return self._hear(self.flow.failed(call.id, error or ConnectionError("reset")))

    def skeleton(self, text: str = TWO) -> list[Action]:
        return self.end("skeleton", text=text)

    def find(self, *indices: int) -> None:
        for index in indices:
            self.end("sources", index, found(index))

    def finish(self) -> Answer:
        while self.open:
            call = self.open[0]
            point = call.point.index if call.point else None
            reply = found(point or "all") if call.stage == "sources" else None
            text = {"sources": "", "skeleton": TWO}.get(call.stage, "Well.")
            self.end(call.stage, point, reply, text)
        return self.answer

    @property
    def answer(self) -> Answer:
        (done,) = self.events(AnswerDone)
        assert self.said[-1] is done
        return done.answer

    @property
    def waiting(self) -> list[tuple[str, int | None]]:
        return [(call.stage, call.point.index if call.point else None) for call in self.open]

    def events(self, *kinds: type) -> list:
        return [action for action in self.said if isinstance(action, kinds)]

    def shown(self, stage: str, index: int | None = None) -> str:
        """Text of all prompts of these calls."""
        calls = [c for c in self.events(Call) if c.stage == stage and (index is None or c.point.index == index)]
        return "\n".join(message.text for call in calls for message in call.prompt.messages)


# --- once -----------------------------------------------------------------------------------------------


class TestOnce:
    def test_the_retrieval_comes_first_and_all_prompts_show_its_sources(self):
        driven = DrivenFlow(retrieval="once")
        assert driven.waiting == [("sources", None)]
        assert driven.call("sources").prompt is None
        assert driven.end("sources", reply=found())[:2] == [SourcesFound(None, ("node all",)), SourcesDone()]
        assert driven.waiting == [("skeleton", None)]
        driven.skeleton()
        assert driven.waiting == [("point", 1), ("point", 2)]
        answer = driven.finish()
        for stage, index in (("skeleton", None), ("point", 1), ("point", 2)):
            assert driven.shown(stage, index).count("Fact all.") == 1
        assert answer.sources == ("node all",)
        assert [e.sources for e in answer.expansions] == [(), ()]
        assert len(driven.events(SourcesDone)) == 1

    @pytest.mark.parametrize("eager", [False, True])
    def test_all_point_prompts_share_the_context(self, eager):
        driven = DrivenFlow(retrieval="once", settings={"eager": eager}, prefill={"skeleton", "point"})
        driven.finish()
        one, two = (driven.shown("point", index) for index in (1, 2))
        shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        assert "Fact all." in one[:shared]

    @pytest.mark.parametrize("use_skeleton", [True, False])
    def test_the_retrieval_follows_the_route(self, use_skeleton):
        driven = DrivenFlow(retrieval="once", router=lambda question: use_skeleton)
        assert driven.waiting == [("route", None)]
        driven.end("route", reply=Reply(decision=driven.call("route").router.decide()))
        assert driven.waiting == [("sources", None)]
        driven.end("sources", reply=found())
        assert driven.waiting == [("skeleton" if use_skeleton else "direct", None)]
        answer = driven.finish()
        assert "Fact all." in driven.shown("skeleton" if use_skeleton else "direct")
        assert (answer.sources, answer.route) == (("node all",), "skeleton" if use_skeleton else "direct")
        kinds = [type(event) for event in driven.events(Routed, SourcesFound, SourcesDone)]
        assert kinds == [Routed, SourcesFound, SourcesDone]

    def test_a_router_that_fails_leaves_a_direct_answer_with_its_sources(self):
        driven = DrivenFlow(retrieval="once", router=lambda question: True)
        driven.fail("route")
        answer = driven.finish()
        assert (answer.route, answer.sources) == ("direct", ("node all",))
        assert "Fact all." in driven.shown("direct")

    def test_given_points_wait_for_the_retrieval(self):
        driven = DrivenFlow(retrieval="once", skeleton=GIVEN)
        assert driven.waiting == [("sources", None)]
        assert driven.events(SkeletonDone) == []
        driven.end("sources", reply=found())
        assert driven.waiting == [("point", 2), ("point", 5)]
        answer = driven.finish()
        assert driven.shown("point", 5).count("Fact all.") == 1
        assert (answer.sources, answer.skeleton) == (("node all",), GIVEN)

    def test_an_unusable_skeleton_needs_no_second_retrieval(self):
        driven = DrivenFlow(retrieval="once")
        driven.end("sources", reply=found())
        driven.skeleton("It depends.")
        assert driven.waiting == [("direct", None)]
        answer = driven.finish()
        assert "Fact all." in driven.shown("direct")
        assert (answer.sources, len(driven.events(SourcesDone))) == (("node all",), 1)

    def test_a_retried_call_shows_the_context_again(self):
        driven = DrivenFlow(retrieval="once")
        driven.end("sources", reply=found())
        driven.fail("skeleton")
        driven.skeleton()
        driven.fail("point", 2)
        driven.finish()
        assert driven.shown("skeleton").count("Fact all.") == 2
        assert driven.shown("point", 2).count("Fact all.") == 2
        assert [call.stage for call in driven.events(Call)].count("sources") == 1

    def test_a_failed_retrieval_is_retried_after_a_delay(self):
        driven = DrivenFlow(retrieval="once", settings={"max_retries": 2, "backoff": 0.25, "point_timeout": 3.0})
        driven.fail("sources")
        driven.fail("sources")
        driven.end("sources", reply=found())
        calls = [call for call in driven.events(Call) if call.stage == "sources"]
        assert [(call.attempt, call.delay, call.timeout) for call in calls] == [
            (1, 0.0, None),
            (2, 0.25, None),
            (3, 0.5, None),
        ]
        assert driven.finish().sources == ("node all",)

    @pytest.mark.parametrize("policy", ["raise", "placeholder"])
    def test_a_retrieval_without_retries_left_raises_its_error(self, policy):
        driven = DrivenFlow(retrieval="once", settings={"max_retries": 0, "on_point_error": policy})
        error = ConnectionError("no index")
        assert driven.fail("sources", error=error) == [AnswerFailed(error)]
        assert driven.flow.finished

    def test_an_empty_retrieval_leaves_the_prompts_unchanged(self):
        driven, plain = DrivenFlow(retrieval="once"), DrivenFlow()
        driven.end("sources", reply=Reply(sources=(), context=" \n"))
        assert driven.events(SourcesFound) == [SourcesFound(None, ())]
        for one in (driven, plain):
            one.finish()
        assert [c.prompt for c in driven.events(Call)[1:]] == [c.prompt for c in plain.events(Call)]


# --- per point ------------------------------------------------------------------------------------------


class TestPerPoint:
    def test_each_point_prompt_shows_the_sources_of_its_point(self):
        driven = DrivenFlow(retrieval="per_point")
        assert driven.waiting == [("skeleton", None)]
        driven.skeleton()
        assert driven.waiting == [("sources", 1), ("sources", 2)]
        assert driven.events(PointStarted) == []
        driven.end("sources", 2, found(2))
        assert driven.waiting == [("sources", 1), ("point", 2)]
        answer = driven.finish()
        assert [e.sources for e in answer.expansions] == [("node 1",), ("node 2",)]
        assert answer.sources == ()
        assert "Fact" not in driven.shown("skeleton")
        for index, other in ((1, 2), (2, 1)):
            assert driven.shown("point", index).count(f"Fact {index}.") == 1
            assert f"Fact {other}." not in driven.shown("point", index)
        # Everything that the points share stands before the text of a single point.
        assert driven.shown("point", 2).index("Sleep; Eat") < driven.shown("point", 2).index("Fact 2.")

    def test_events_are_emitted_in_order(self):
        driven = DrivenFlow(retrieval="per_point")
        driven.skeleton()
        driven.find(2, 1)
        one, two = driven.flow.answer.skeleton.points
        assert driven.events(SkeletonDone, SourcesFound, SourcesDone, PointStarted)[1:] == [
            SourcesFound(two, ("node 2",)),
            PointStarted(two),
            SourcesFound(one, ("node 1",)),
            SourcesDone(),
            PointStarted(one),
        ]

    def test_an_eager_retrieval_starts_when_a_skeleton_line_is_complete(self):
        driven = DrivenFlow(retrieval="per_point", settings={"eager": True})
        driven.write("skeleton", "1. Sleep\n2. E")
        assert driven.waiting == [("skeleton", None), ("sources", 1)]
        driven.find(1)
        driven.end("point", 1, text="Long.")
        driven.write("skeleton", "at\n")
        driven.find(2)
        driven.end("point", 2, text="Well.")
        assert driven.events(SourcesDone) == [], "the skeleton may have more points"
        last = driven.end("skeleton")
        assert [type(action) for action in last] == [SkeletonDone, SourcesDone, AnswerDone]

    def test_an_eager_point_shows_the_skeleton_known_when_its_call_starts(self):
        driven = DrivenFlow(retrieval="per_point", settings={"eager": True})
        driven.write("skeleton", "1. Sleep\n2. Eat\n")
        driven.find(1)
        driven.end("skeleton", text="3. Walk\n")
        driven.find(2)
        assert "Walk" not in driven.shown("point", 1)
        assert "Walk" in driven.shown("point", 2)

    def test_no_retrieval_starts_while_the_skeleton_may_be_unusable(self):
        driven = DrivenFlow(retrieval="per_point", settings={"eager": True, "min_points": 2})
        driven.write("skeleton", "1. Sleep\n")
        assert driven.waiting == [("skeleton", None)]
        driven.end("skeleton")
        assert driven.waiting == [("sources", None)]

    def test_retrievals_for_given_points_start_at_once(self):
        driven = DrivenFlow(retrieval="per_point", skeleton=GIVEN)
        assert driven.waiting == [("sources", 2), ("sources", 5)]
        assert [e.sources for e in driven.finish().expansions] == [("node 2",), ("node 5",)]
        assert len(driven.events(SourcesDone)) == 1

    @pytest.mark.parametrize("way", ["routed", "empty skeleton"])
    def test_a_direct_answer_has_one_retrieval_for_the_question(self, way):
        driven = DrivenFlow(retrieval="per_point", router=(lambda question: False) if way == "routed" else None)
        if way == "routed":
            driven.fail("route")
        else:
            driven.skeleton("It depends.")
        assert driven.waiting == [("sources", None)]
        assert driven.end("sources", reply=found())[:2] == [SourcesFound(None, ("node all",)), SourcesDone()]
        assert driven.waiting == [("direct", None)]
        answer = driven.finish()
        assert (answer.route, answer.sources, answer.text) == ("direct", ("node all",), "Well.")
        assert "Fact all." in driven.shown("direct")
        assert len(driven.events(SourcesDone)) == 1

    def test_a_retried_point_keeps_its_first_retrieval(self):
        driven = DrivenFlow(retrieval="per_point")
        driven.skeleton()
        driven.find(1, 2)
        driven.fail("point", 2)
        assert driven.waiting == [("point", 1), ("point", 2)]
        assert driven.shown("point", 2).count("Fact 2.") == 2
        expansion = driven.finish().expansions[1]
        assert (expansion.sources, expansion.attempts) == (("node 2",), 2)
        assert len(driven.events(PointRestarted)) == 1

    def test_a_point_that_fails_keeps_its_sources(self):
        driven = DrivenFlow(retrieval="per_point", settings={"max_retries": 0, "on_point_error": "placeholder"})
        driven.skeleton()
        driven.find(1, 2)
        driven.fail("point", 2)
        expansion = driven.finish().expansions[1]
        assert isinstance(expansion.error, ConnectionError)
        assert expansion.sources == ("node 2",)

    def test_a_retried_retrieval_emits_no_event(self):
        driven = DrivenFlow(retrieval="per_point", settings={"max_retries": 2, "backoff": 0.25, "point_timeout": 3.0})
        driven.skeleton()
        assert [type(action) for action in driven.fail("sources", 2)] == [Call]
        driven.fail("sources", 2)
        calls = [c for c in driven.events(Call) if c.stage == "sources" and c.point.index == 2]
        assert [(c.attempt, c.delay, c.timeout) for c in calls] == [(1, 0.0, 3.0), (2, 0.25, 3.0), (3, 0.5, 3.0)]
        driven.find(1, 2)
        # Retries of a retrieval do not count as attempts of its point.
        driven.fail("point", 2)
        driven.fail("point", 2)
        assert [e.attempts for e in driven.finish().expansions] == [1, 3]

    def test_a_retrieval_without_retries_left_leaves_a_placeholder(self):
        settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gone)"}
        driven = DrivenFlow(retrieval="per_point", settings=settings)
        driven.skeleton()
        driven.find(1)
        assert driven.events(SourcesDone) == []
        error = ConnectionError("no index")
        kinds = [type(action) for action in driven.fail("sources", 2, error)]
        assert kinds[0] is SourcesDone, "the failed retrieval was the last"
        assert kinds.count(PointDone) == 1
        answer = driven.finish()
        assert answer.text == "1. Sleep: Well.\n\n2. Eat: (gone)"
        failed = answer.expansions[1]
        assert (failed.error, failed.sources, failed.attempts) == (error, (), 0)
        assert [event.point.index for event in driven.events(PointStarted)] == [1]
        assert len(driven.events(SourcesDone)) == 1

    def test_the_answer_ends_when_all_retrievals_have_failed(self):
        settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "", "eager": True}
        driven = DrivenFlow(retrieval="per_point", settings=settings)
        driven.write("skeleton", TWO)
        driven.fail("sources", 1)
        driven.fail("sources", 2)
        driven.end("skeleton")
        assert list(driven.answer.errors) == [1, 2]
        assert len(driven.events(SourcesDone)) == 1

    def test_a_retrieval_without_retries_left_raises_and_cancels_the_others(self):
        driven = DrivenFlow(retrieval="per_point", settings={"max_retries": 1})
        driven.skeleton("1. Sleep\n2. Eat\n3. Walk\n")
        driven.end("sources", 1, found(1))
        driven.write("point", "Long.", 1)
        error = ConnectionError("no index")
        driven.fail("sources", 2, ConnectionError("reset"))
        driven.fail("sources", 2, error)
        (failed,) = driven.events(AnswerFailed)
        assert driven.said[-1] is failed
        assert isinstance(failed.error, PointError)
        assert failed.error.__cause__ is error
        assert "The retrieval for point 2 ('Eat') failed after 2 attempt(s): ConnectionError: no index" in str(
            failed.error
        )
        assert failed.error.answer.expansions[0].sources == ("node 1",)
        assert failed.error.answer.text.startswith("1. Sleep: Long.")
        assert driven.open == []
        assert len(driven.events(Cancel)) == 2
        assert driven.events(SourcesDone) == []

    def test_the_retrieval_that_fails_the_answer_emits_no_sources_done(self):
        driven = DrivenFlow(retrieval="per_point", settings={"max_retries": 0})
        driven.skeleton()
        driven.find(1)
        assert [type(action) for action in driven.fail("sources", 2)] == [Cancel, AnswerFailed]
        assert driven.events(SourcesDone) == []

    def test_reports_after_the_end_of_the_answer_change_nothing(self):
        driven = DrivenFlow(retrieval="per_point", settings={"max_retries": 0})
        driven.skeleton()
        late = driven.call("sources", 1)
        driven.fail("sources", 2)
        assert driven.flow.done(late.id, found(1)) == driven.flow.failed(late.id, OSError()) == []
        assert driven.flow.answer.expansions[0].sources == ()

    def test_a_retrieval_has_no_text(self):
        driven = DrivenFlow(retrieval="per_point")
        driven.skeleton()
        assert driven.write("sources", "Looking it up ...", 1) == []
        assert driven.finish().text == "1. Sleep: Well.\n\n2. Eat: Well."

    def test_an_empty_reply_counts_as_a_retrieval_without_sources(self):
        driven = DrivenFlow(retrieval="per_point")
        driven.skeleton()
        driven.end("sources", 1)
        assert driven.events(SourcesFound)[0].sources == ()
        assert "context" not in driven.shown("point", 1)
        assert driven.finish().expansions[0].sources == ()

    @pytest.mark.parametrize("live", [True, False])
    def test_retrieval_does_not_change_the_merge(self, live):
        driven = DrivenFlow(retrieval="per_point", settings={"merge": True}, live=live)
        driven.skeleton()
        driven.find(1, 2)
        driven.end("point", 1, text="Long.")
        driven.end("point", 2, text="Well.")
        assert driven.waiting == [("merge", None)]
        assert "Fact" not in driven.shown("merge")
        answer = driven.finish()
        assert (answer.text, answer.merged) == ("Well.", True)
        assert [e.sources for e in answer.expansions] == [("node 1",), ("node 2",)]


# --- accounts -------------------------------------------------------------------------------------------


def test_without_retrieval_a_flow_emits_no_retrieval_event():
    for options in ({}, {"skeleton": GIVEN}, {"router": lambda question: False}):
        driven = DrivenFlow(**options)
        if "router" in options:
            driven.fail("route")
        answer = driven.finish()
        assert driven.events(SourcesFound, SourcesDone) == []
        assert "sources" not in {call.stage for call in driven.events(Call)}
        assert answer.sources == ()


def test_a_direct_answer_without_a_context_sends_the_callers_conversation():
    driven = DrivenFlow(
        retrieval="once", router=lambda question: False, prompts=PromptSet(direct="Say {question} {context}")
    )
    driven.fail("route")
    driven.end("sources", reply=Reply(sources=("node",)))
    assert driven.call("direct").prompt.messages is QUESTION.messages


def test_usage_counts_a_retrieval_that_reports_tokens():
    driven = DrivenFlow(retrieval="per_point")
    driven.skeleton()
    driven.end("sources", 1, Reply(Usage(7, 1), sources=("node",), context="Fact."))
    driven.find(2)
    driven.end("point", 1, Reply(Usage(20, 5)), "Long.")
    driven.end("point", 2, Reply(Usage(20, 5)), "Well.")
    assert driven.answer.usage_by_stage == {"sources": Usage(7, 1), "point": Usage(40, 10)}
    assert [e.usage for e in driven.answer.expansions] == [Usage(27, 6), Usage(20, 5)]


def test_timings_have_a_span_from_the_first_retrieval_to_the_last():
    flow = AnswerFlow(QUESTION, skeleton=GIVEN, retrieval="per_point")
    one, two = (a for a in flow.start(10.0) if isinstance(a, Call))
    flow.opened(one.id, 10.5)
    flow.opened(two.id, 11.0)
    (first,) = (a for a in flow.done(one.id, found(), 12.0) if isinstance(a, Call))
    flow.opened(first.id, 12.5)
    (second,) = (a for a in flow.done(two.id, found(), 13.0) if isinstance(a, Call))
    flow.opened(second.id, 14.0)
    flow.delta(first.id, "Long.", 14.5)
    flow.done(first.id, None, 15.0)
    flow.done(second.id, None, 16.0)
    spans = {stage: (span.start, span.first, span.end) for stage, span in flow.answer.timings.stages.items()}
    assert spans == {"sources": (0.5, None, 3.0), "point": (2.5, 4.5, 6.0)}
    # The span of a point covers the time while it was written.
    assert [(e.span.start, e.span.end) for e in flow.answer.expansions] == [(2.5, 5.0), (4.0, 6.0)]
    sought = [point.retrieved for point in flow.answer.timings.points]
    assert [(span.start, span.end) for span in sought] == [(0.5, 2.0), (1.0, 3.0)]


def test_a_retried_retrieval_has_one_time_span():
    flow = AnswerFlow(QUESTION, skeleton=GIVEN, retrieval="per_point")
    one, _ = (a for a in flow.start(10.0) if isinstance(a, Call))
    flow.opened(one.id, 11.0)
    (again,) = (a for a in flow.failed(one.id, ConnectionError("no index"), 12.0) if isinstance(a, Call))
    flow.opened(again.id, 13.0)
    flow.done(again.id, found(), 14.0)
    times = flow.answer.timings.points[0]
    assert (times.retrieved.start, times.retrieved.end, times.written) == (1.0, 4.0, None)


def test_a_point_that_was_never_written_took_no_time():
    settings = Settings(max_retries=0, on_point_error="placeholder")
    flow = AnswerFlow(QUESTION, skeleton=GIVEN, retrieval="per_point", settings=settings)
    one, _ = (a for a in flow.start(10.0) if isinstance(a, Call))
    flow.opened(one.id, 11.0)
    flow.failed(one.id, ConnectionError("no index"), 13.0)
    span = flow.answer.expansions[0].span
    assert (span.start, span.end, span.first) == (3.0, 3.0, None)
    times = flow.answer.timings.points[0]
    assert (times.retrieved.start, times.retrieved.end, times.written, times.failed) == (1.0, 3.0, None, True)


def test_an_answer_becomes_json_with_sources_of_any_type():
    driven = DrivenFlow(retrieval="per_point")
    driven.skeleton()
    driven.end("sources", 1, Reply(sources=(object(), object())))
    data = json.loads(json.dumps(driven.finish().to_dict()))
    assert data["sources"] == 0
    assert [e["sources"] for e in data["expansions"]] == [2, 1]
    assert data["timings"]["stages"].keys() <= {"sources", "skeleton", "point"}
    once = DrivenFlow(retrieval="once")
    once.end("sources", reply=Reply(sources=(object(),)))
    assert once.finish().to_dict()["sources"] == 1


def test_an_unknown_retrieval_mode_is_refused():
    with pytest.raises(InvalidInput, match="retrieval must be 'none' or 'once' or 'per_point', not 'always'"):
        AnswerFlow(QUESTION, retrieval="always")  # type: ignore[arg-type]


# --- both drivers ---------------------------------------------------------------------------------------

ENDLESS = object()


class Backend:
    """Retrieves and writes by a script, and counts its calls; `ENDLESS` waits until the call is closed."""

    def __init__(self, script: Callable[[Call], list[object]]) -> None:
        self.script = script
        self.opened: list[Call] = []
        self.live = self.peak = 0
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def _counted(self, call: Call) -> Iterator[list[object]]:
        with self.lock:
            self.opened.append(call)
            self.live += 1
            self.peak = max(self.peak, self.live)
        try:
            yield self.script(call)
        finally:
            with self.lock:
                self.live -= 1

    def open(self, call: Call, flow: int) -> Iterator[str | Reply]:
        with self._counted(call) as steps:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, threading.Barrier):
                    step.wait(WAIT)
                    continue
                while step is ENDLESS:
                    threading.Event().wait(0.001)
                    yield ""
                yield step  # type: ignore[misc]

    async def aopen(self, call: Call, flow: int) -> AsyncIterator[str | Reply]:
        with self._counted(call) as steps:
            for step in steps:
                await asyncio.sleep(0)
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, threading.Barrier):
                    await asyncio.to_thread(step.wait, WAIT)
                    continue
                while step is ENDLESS:
                    await asyncio.sleep(0.001)
                yield step  # type: ignore[misc]


def script(call: Call) -> list[object]:
    index = call.point.index if call.point else "all"
    if call.stage == "sources":
        return [found(index)]
    return [TWO] if call.stage == "skeleton" else [f"text {index}", Reply(Usage(5, 2))]


def but(stage: str, index: int | None, *steps: object) -> Callable[[Call], list[object]]:
    """The script with one call replaced."""

    def scripted(call: Call) -> list[object]:
        mine = call.stage == stage and (call.point.index if call.point else None) == index
        return list(steps) if mine else script(call)

    return scripted


def flow(retrieval: str = "per_point", question: str = "Why?", router=None, **settings) -> AnswerFlow:
    options = Settings(**{"backoff": 0.0, **settings})
    return AnswerFlow(Conversation.of(question), settings=options, retrieval=retrieval, router=router)  # type: ignore[arg-type]


def last(events: list, index: int = 0):
    return [event for i, event in events if i == index][-1]


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
@pytest.mark.parametrize("eager", [False, True])
def test_an_answer_has_its_sources_with_either_driver(pump, retrieval, eager):
    backend = Backend(script)
    events = pump(backend, [flow(retrieval, eager=eager)])
    answer = last(events).answer
    assert answer.text == "1. Sleep: text 1\n\n2. Eat: text 2"
    assert answer.usage_by_stage == {"point": Usage(10, 4)}
    assert answer.timings.stages.keys() == {"sources", "skeleton", "point"}
    per_point = [e.sources for e in answer.expansions]
    assert (answer.sources, per_point) == (
        (("node all",), [(), ()]) if retrieval == "once" else ((), [("node 1",), ("node 2",)])
    )
    assert [type(event) for _, event in events].count(SourcesDone) == 1
    assert backend.live == 0


def test_the_router_makes_the_route_call_and_the_backend_retrieves(pump):
    backend = Backend(script)
    flows = [flow(question="Why?", router=lambda q: q == "Why?"), flow(question="2 + 2?", router=lambda q: q == "Why?")]
    events = pump(backend, flows)
    assert [last(events, i).answer.route for i in (0, 1)] == ["skeleton", "direct"]
    assert last(events, 1).answer.sources == ("node all",)
    assert {call.stage for call in backend.opened} == {"sources", "skeleton", "point", "direct"}


def test_retrievals_run_side_by_side(pump):
    barrier = threading.Barrier(2)
    backend = Backend(lambda c: [barrier, *script(c)] if c.stage == "sources" else script(c))
    assert last(pump(backend, [flow()])).answer.errors == {}
    assert backend.peak >= 2


@pytest.mark.parametrize("limit", [1, 2])
def test_retrievals_count_against_the_concurrency_limit(pump, limit):
    together = threading.Barrier(limit)

    def scripted(call: Call) -> list[object]:
        if call.stage == "skeleton":
            return ["1. A\n2. B\n3. C\n4. D\n"]
        # As many calls as the limit allows wait for each other, so the limit is reached.
        waits = call.stage == "sources" and call.point is not None and call.point.index <= limit
        return [together, *script(call)] if waits else script(call)

    backend = Backend(scripted)
    events = pump(backend, [flow(), flow("once"), flow("once")], max_concurrency=limit)
    assert backend.peak == limit
    assert all(isinstance(last(events, i), AnswerDone) for i in range(3))


def test_a_retrieval_that_fails_cancels_those_that_wait_and_those_that_run(pump):
    def scripted(call: Call) -> list[object]:
        if call.stage == "sources":
            return [ENDLESS] if call.point.index == 1 else [ConnectionError("no index")]
        return ["1. A\n2. B\n3. C\n4. D\n"]

    backend = Backend(scripted)
    error = last(pump(backend, [flow(max_retries=0)], max_concurrency=2)).error
    assert isinstance(error, PointError)
    assert error.point.index == 2
    assert backend.live == 0
    assert sorted(call.point.index for call in backend.opened if call.point) == [1, 2], "the others waited for room"


def test_a_stalled_retrieval_times_out_and_fails_its_point_alone(pump):
    backend = Backend(but("sources", 2, ENDLESS))
    settings = {"point_timeout": 0.2, "max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gone)"}
    clock = Clock(after=1)
    answer = last(pump(backend, [flow(**settings)], until=clock.watch, clock=clock)).answer
    assert answer.text == "1. Sleep: text 1\n\n2. Eat: (gone)"
    assert isinstance(answer.errors[2], PointTimeout)
    assert backend.live == 0


def test_a_retrieval_that_fails_once_is_retried(pump):
    failed = []

    def scripted(call: Call) -> list[object]:
        if call.stage == "sources" and call.point.index == 2 and call.attempt == 1:
            failed.append(call)
            return [ConnectionError("reset")]
        return script(call)

    answer = last(pump(Backend(scripted), [flow()])).answer
    assert len(failed) == 1
    assert answer.expansions[1].sources == ("node 2",)


def test_closing_early_leaves_no_retrieval_running(pump):
    backend = Backend(lambda c: [ENDLESS] if c.stage == "sources" else script(c))
    pump(backend, [flow(eager=True)], until=lambda event: isinstance(event, PointFound))
    assert backend.live == 0


def test_a_batch_of_questions_keeps_their_sources_apart(pump):
    class Numbered(Backend):
        def open(self, call: Call, flow: int) -> Iterator[str | Reply]:
            for item in super().open(call, flow):
                yield Reply(sources=(flow,)) if call.stage == "sources" else item

        async def aopen(self, call: Call, flow: int) -> AsyncIterator[str | Reply]:
            async for item in super().aopen(call, flow):
                yield Reply(sources=(flow,)) if call.stage == "sources" else item

    events = pump(Numbered(script), [flow(), flow("once")])
    assert [e.sources for e in last(events, 0).answer.expansions] == [(0,), (0,)]
    assert last(events, 1).answer.sources == (1,)


# --- a context that the caller has ---


def test_a_context_that_was_found_before_is_in_every_prompt_and_retrieves_nothing() -> None:
    for retrieval in ("none", "once"):
        driven = DrivenFlow(retrieval=retrieval, found=found())
        (skeleton,) = driven.open
        assert skeleton.stage == "skeleton"
        assert "Fact all." in skeleton.prompt.messages[-1].text
        assert driven.flow.answer.sources == ("node all",)

    class Never:
        def at_once(self, conversation: Conversation) -> RouteDecision:
            return RouteDecision(False)

        route = aroute = at_once

    direct = DrivenFlow(router=Never(), retrieval="once", found=found())
    (call,) = direct.open
    assert call.stage == "direct"
    assert "Fact all." in call.prompt.messages[-1].text
    direct.end("direct", text="So.")
    assert direct.answer.sources == ("node all",)
    assert not direct.events(SourcesFound)


# --- nothing is found ---


EMPTY = Reply()


class TestNothingFound:
    """The flow is given a text for points, and answers, without sources."""

    def flow(self, **options) -> DrivenFlow:
        return DrivenFlow(**{"retrieval": "per_point", "nothing_found": "Nothing.", **options})

    @pytest.mark.parametrize("router", [None, lambda question: False])
    def test_without_sources_of_the_question_no_model_is_called(self, router):
        driven = self.flow(retrieval="once", router=router)
        if router is not None:
            driven.end("route", reply=Reply(decision=RouteDecision(False)))
        driven.end("sources", reply=EMPTY)
        assert (driven.answer.text, driven.answer.route) == ("Nothing.", "direct")
        assert (driven.answer.finish_reason, driven.answer.reason) == ("no_sources", "nothing was retrieved")
        assert {call.stage for call in driven.events(Call)} <= {"route", "sources"}
        assert len(driven.events(SourcesDone)) == 1

    @pytest.mark.parametrize("eager", [False, True])
    @pytest.mark.parametrize("live", [False, True])
    @pytest.mark.parametrize("merge", [False, True])
    def test_points_that_all_lack_sources_are_one_text(self, eager, live, merge):
        driven = self.flow(settings={"eager": eager, "merge": merge}, live=live)
        driven.skeleton()
        driven.end("sources", 2, EMPTY)
        assert driven.events(AnswerDelta) == []
        driven.end("sources", 1, EMPTY)
        assert driven.open == []
        assert (driven.answer.text, driven.answer.expansions) == ("Nothing.", ())
        assert [delta.text for delta in driven.events(AnswerDelta)] == ["Nothing."]
        assert driven.events(SkeletonRestarted) == [SkeletonRestarted(driven.events(SkeletonDone)[0].skeleton)]

    def test_so_they_are_if_all_sources_come_before_the_skeleton_ends(self):
        driven = self.flow(settings={"eager": True})
        driven.write("skeleton", TWO + "3. ")
        driven.end("sources", 1, EMPTY)
        driven.end("sources", 2, EMPTY)
        assert not driven.events(AnswerDone)
        driven.end("skeleton")
        assert driven.answer.text == "Nothing."

    @pytest.mark.parametrize("last", [1, 2])
    @pytest.mark.parametrize("early", [False, True])
    def test_a_point_without_sources_has_the_text(self, last, early):
        driven = self.flow(settings={"eager": early})
        driven.write("skeleton", TWO + "3. ") if early else driven.skeleton()
        for index in (3 - last, last):
            driven.end("sources", index, EMPTY if index == 1 else found(2))
        if early:
            driven.end("point", 2, text="Well.")
            driven.end("skeleton")
        answer = driven.finish()
        assert answer.text == "1. Sleep: Nothing.\n\n2. Eat: Well."
        assert "".join(delta.text for delta in driven.events(AnswerDelta)) == answer.text
        assert [e.finish_reason for e in answer.expansions] == ["no_sources", None]
        assert len(driven.events(SourcesDone)) == 1

    @pytest.mark.parametrize("first", [1, 2])
    def test_a_retrieval_that_fails_has_found_nothing_to_rely_on(self, first):
        settings = {"on_point_error": "placeholder", "placeholder": "(gone)", "max_retries": 0}
        driven = self.flow(settings=settings)
        driven.skeleton()
        for index in (first, 3 - first):
            if index == 1:
                driven.fail("sources", 1)
            else:
                driven.end("sources", 2, EMPTY)
        assert driven.answer.text == "1. Sleep: (gone)\n\n2. Eat: Nothing."
        assert [e.error is None for e in driven.answer.expansions] == [False, True]

    def test_a_merge_is_made_of_the_points_with_sources(self):
        driven = self.flow(settings={"merge": True})
        driven.skeleton("1. Sleep\n2. Eat\n3. Walk\n")
        driven.end("sources", 1, EMPTY)
        driven.find(2, 3)
        for index in (2, 3):
            driven.end("point", index, text=f"Well, {index}.")
        assert "Nothing." not in driven.shown("merge")
        driven.end("merge", text="Both.")
        assert driven.answer.text == "Both."

    def test_sources_without_a_context_are_sources(self):
        driven = self.flow(retrieval="once")
        driven.end("sources", reply=Reply(sources=("an image",)))
        assert driven.waiting == [("skeleton", None)]
