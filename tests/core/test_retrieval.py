"""Retrieval as a stage of the flow: what is retrieved when, what becomes of it, and how both drivers do it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from driving import Clock

from skeleton_of_thought.errors import InvalidInput, PointError, PointTimeout
from skeleton_of_thought.events import (
    AnswerDone,
    AnswerFailed,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    Routed,
    SkeletonDone,
    SourcesDone,
    SourcesFound,
)
from skeleton_of_thought.flow import Action, AnswerFlow, Settings
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.types import Answer, Call, Cancel, Conversation, Point, Reply, Skeleton, Usage

QUESTION = Conversation.of("How do I sleep better?")
TWO = "1. Sleep\n2. Eat\n"
GIVEN = Skeleton((Point(2, "Sleep"), Point(5, "Eat")))
WAIT = 20.0
"""A guard against hanging for ever, far above what any of this takes."""


def found(what: object = "all") -> Reply:
    return Reply(sources=(f"node {what}",), context=f"Fact {what}.")


class Told:
    """A flow that is driven by hand, and all that it said."""

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
        """What the prompts of such calls show, all of them."""
        calls = [c for c in self.events(Call) if c.stage == stage and (index is None or c.point.index == index)]
        return "\n".join(message.text for call in calls for message in call.prompt.messages)


# --- once -----------------------------------------------------------------------------------------------


class TestOnce:
    def test_it_comes_first_and_all_prompts_show_what_it_found(self):
        told = Told(retrieval="once")
        assert told.waiting == [("sources", None)]
        assert told.call("sources").prompt is None
        assert told.end("sources", reply=found())[:2] == [SourcesFound(None, ("node all",)), SourcesDone()]
        assert told.waiting == [("skeleton", None)]
        told.skeleton()
        assert told.waiting == [("point", 1), ("point", 2)]
        answer = told.finish()
        for stage, index in (("skeleton", None), ("point", 1), ("point", 2)):
            assert told.shown(stage, index).count("Fact all.") == 1
        assert answer.sources == ("node all",)
        assert [e.sources for e in answer.expansions] == [(), ()]
        assert len(told.events(SourcesDone)) == 1

    @pytest.mark.parametrize("eager", [False, True])
    def test_all_points_of_an_answer_share_it_in_their_prompts(self, eager):
        told = Told(retrieval="once", settings={"eager": eager}, prefill={"skeleton", "point"})
        told.finish()
        one, two = (told.shown("point", index) for index in (1, 2))
        shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        assert "Fact all." in one[:shared]

    @pytest.mark.parametrize("use_skeleton", [True, False])
    def test_it_comes_after_the_route(self, use_skeleton):
        told = Told(retrieval="once", router=lambda question: use_skeleton)
        assert told.waiting == [("route", None)]
        told.end("route", reply=Reply(decision=told.call("route").router.decide()))
        assert told.waiting == [("sources", None)]
        told.end("sources", reply=found())
        assert told.waiting == [("skeleton" if use_skeleton else "direct", None)]
        answer = told.finish()
        assert "Fact all." in told.shown("skeleton" if use_skeleton else "direct")
        assert (answer.sources, answer.route) == (("node all",), "skeleton" if use_skeleton else "direct")
        kinds = [type(event) for event in told.events(Routed, SourcesFound, SourcesDone)]
        assert kinds == [Routed, SourcesFound, SourcesDone]

    def test_a_router_that_fails_leaves_a_direct_answer_with_its_sources(self):
        told = Told(retrieval="once", router=lambda question: True)
        told.fail("route")
        answer = told.finish()
        assert (answer.route, answer.sources) == ("direct", ("node all",))
        assert "Fact all." in told.shown("direct")

    def test_points_that_are_given_wait_for_it(self):
        told = Told(retrieval="once", skeleton=GIVEN)
        assert told.waiting == [("sources", None)]
        assert told.events(SkeletonDone) == []
        told.end("sources", reply=found())
        assert told.waiting == [("point", 2), ("point", 5)]
        answer = told.finish()
        assert told.shown("point", 5).count("Fact all.") == 1
        assert (answer.sources, answer.skeleton) == (("node all",), GIVEN)

    def test_an_unusable_skeleton_needs_no_second_retrieval(self):
        told = Told(retrieval="once")
        told.end("sources", reply=found())
        told.skeleton("It depends.")
        assert told.waiting == [("direct", None)]
        answer = told.finish()
        assert "Fact all." in told.shown("direct")
        assert (answer.sources, len(told.events(SourcesDone))) == (("node all",), 1)

    def test_what_is_written_anew_shows_it_again(self):
        told = Told(retrieval="once")
        told.end("sources", reply=found())
        told.fail("skeleton")
        told.skeleton()
        told.fail("point", 2)
        told.finish()
        assert told.shown("skeleton").count("Fact all.") == 2
        assert told.shown("point", 2).count("Fact all.") == 2
        assert [call.stage for call in told.events(Call)].count("sources") == 1

    def test_it_is_tried_again_after_a_while(self):
        told = Told(retrieval="once", settings={"max_retries": 2, "backoff": 0.25, "point_timeout": 3.0})
        told.fail("sources")
        told.fail("sources")
        told.end("sources", reply=found())
        calls = [call for call in told.events(Call) if call.stage == "sources"]
        assert [(call.attempt, call.delay, call.timeout) for call in calls] == [
            (1, 0.0, None),
            (2, 0.25, None),
            (3, 0.5, None),
        ]
        assert told.finish().sources == ("node all",)

    @pytest.mark.parametrize("policy", ["raise", "placeholder"])
    def test_when_it_fails_for_good_so_does_the_answer_with_its_error(self, policy):
        told = Told(retrieval="once", settings={"max_retries": 0, "on_point_error": policy})
        error = ConnectionError("no index")
        assert told.fail("sources", error=error) == [AnswerFailed(error)]
        assert told.flow.finished

    def test_when_nothing_was_found_the_prompts_are_those_without_retrieval(self):
        told, plain = Told(retrieval="once"), Told()
        told.end("sources", reply=Reply(sources=(), context=" \n"))
        assert told.events(SourcesFound) == [SourcesFound(None, ())]
        for one in (told, plain):
            one.finish()
        assert [c.prompt for c in told.events(Call)[1:]] == [c.prompt for c in plain.events(Call)]


# --- per point ------------------------------------------------------------------------------------------


class TestPerPoint:
    def test_each_point_is_written_from_what_was_found_for_it(self):
        told = Told(retrieval="per_point")
        assert told.waiting == [("skeleton", None)]
        told.skeleton()
        assert told.waiting == [("sources", 1), ("sources", 2)]
        assert told.events(PointStarted) == []
        told.end("sources", 2, found(2))
        assert told.waiting == [("sources", 1), ("point", 2)]
        answer = told.finish()
        assert [e.sources for e in answer.expansions] == [("node 1",), ("node 2",)]
        assert answer.sources == ()
        assert "Fact" not in told.shown("skeleton")
        for index, other in ((1, 2), (2, 1)):
            assert told.shown("point", index).count(f"Fact {index}.") == 1
            assert f"Fact {other}." not in told.shown("point", index)
        # All that the points share stands before what is one point's own.
        assert told.shown("point", 2).index("Sleep; Eat") < told.shown("point", 2).index("Fact 2.")

    def test_what_happens_is_told_in_order(self):
        told = Told(retrieval="per_point")
        told.skeleton()
        told.find(2, 1)
        one, two = told.flow.answer.skeleton.points
        assert told.events(SkeletonDone, SourcesFound, SourcesDone, PointStarted)[1:] == [
            SourcesFound(two, ("node 2",)),
            PointStarted(two),
            SourcesFound(one, ("node 1",)),
            SourcesDone(),
            PointStarted(one),
        ]

    def test_eager_it_starts_when_a_line_of_the_skeleton_is_complete(self):
        told = Told(retrieval="per_point", settings={"eager": True})
        told.write("skeleton", "1. Sleep\n2. E")
        assert told.waiting == [("skeleton", None), ("sources", 1)]
        told.find(1)
        told.end("point", 1, text="Long.")
        told.write("skeleton", "at\n")
        told.find(2)
        told.end("point", 2, text="Well.")
        assert told.events(SourcesDone) == [], "the skeleton may have more points"
        last = told.end("skeleton")
        assert [type(action) for action in last] == [SkeletonDone, SourcesDone, AnswerDone]

    def test_an_eager_point_shows_the_skeleton_as_it_is_when_it_is_written(self):
        told = Told(retrieval="per_point", settings={"eager": True})
        told.write("skeleton", "1. Sleep\n2. Eat\n")
        told.find(1)
        told.end("skeleton", text="3. Walk\n")
        told.find(2)
        assert "Walk" not in told.shown("point", 1)
        assert "Walk" in told.shown("point", 2)

    def test_nothing_is_retrieved_for_points_of_a_skeleton_that_may_be_unusable(self):
        told = Told(retrieval="per_point", settings={"eager": True, "min_points": 2})
        told.write("skeleton", "1. Sleep\n")
        assert told.waiting == [("skeleton", None)]
        told.end("skeleton")
        assert told.waiting == [("sources", None)]

    def test_points_that_are_given_are_retrieved_for_at_once(self):
        told = Told(retrieval="per_point", skeleton=GIVEN)
        assert told.waiting == [("sources", 2), ("sources", 5)]
        assert [e.sources for e in told.finish().expansions] == [("node 2",), ("node 5",)]
        assert len(told.events(SourcesDone)) == 1

    @pytest.mark.parametrize("way", ["routed", "empty skeleton"])
    def test_an_answer_that_turns_out_direct_has_a_retrieval_for_the_question(self, way):
        told = Told(retrieval="per_point", router=(lambda question: False) if way == "routed" else None)
        if way == "routed":
            told.fail("route")
        else:
            told.skeleton("It depends.")
        assert told.waiting == [("sources", None)]
        assert told.end("sources", reply=found())[:2] == [SourcesFound(None, ("node all",)), SourcesDone()]
        assert told.waiting == [("direct", None)]
        answer = told.finish()
        assert (answer.route, answer.sources, answer.text) == ("direct", ("node all",), "Well.")
        assert "Fact all." in told.shown("direct")
        assert len(told.events(SourcesDone)) == 1

    def test_a_point_that_is_written_anew_is_not_retrieved_for_again(self):
        told = Told(retrieval="per_point")
        told.skeleton()
        told.find(1, 2)
        told.fail("point", 2)
        assert told.waiting == [("point", 1), ("point", 2)]
        assert told.shown("point", 2).count("Fact 2.") == 2
        expansion = told.finish().expansions[1]
        assert (expansion.sources, expansion.attempts) == (("node 2",), 2)
        assert len(told.events(PointRestarted)) == 1

    def test_a_point_that_fails_keeps_its_sources(self):
        told = Told(retrieval="per_point", settings={"max_retries": 0, "on_point_error": "placeholder"})
        told.skeleton()
        told.find(1, 2)
        told.fail("point", 2)
        expansion = told.finish().expansions[1]
        assert isinstance(expansion.error, ConnectionError)
        assert expansion.sources == ("node 2",)

    def test_a_retrieval_is_tried_again_without_a_word(self):
        told = Told(retrieval="per_point", settings={"max_retries": 2, "backoff": 0.25, "point_timeout": 3.0})
        told.skeleton()
        assert [type(action) for action in told.fail("sources", 2)] == [Call]
        told.fail("sources", 2)
        calls = [c for c in told.events(Call) if c.stage == "sources" and c.point.index == 2]
        assert [(c.attempt, c.delay, c.timeout) for c in calls] == [(1, 0.0, 3.0), (2, 0.25, 3.0), (3, 0.5, 3.0)]
        told.find(1, 2)
        # A point's own attempts are not used up by those of its retrieval.
        told.fail("point", 2)
        told.fail("point", 2)
        assert [e.attempts for e in told.finish().expansions] == [1, 3]

    def test_a_retrieval_that_fails_for_good_leaves_a_placeholder(self):
        settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gone)"}
        told = Told(retrieval="per_point", settings=settings)
        told.skeleton()
        told.find(1)
        assert told.events(SourcesDone) == []
        error = ConnectionError("no index")
        kinds = [type(action) for action in told.fail("sources", 2, error)]
        assert kinds[0] is SourcesDone, "the failed retrieval was the last"
        assert kinds.count(PointDone) == 1
        answer = told.finish()
        assert answer.text == "1. Sleep: Well.\n\n2. Eat: (gone)"
        failed = answer.expansions[1]
        assert (failed.error, failed.sources, failed.attempts) == (error, (), 0)
        assert [event.point.index for event in told.events(PointStarted)] == [1]
        assert len(told.events(SourcesDone)) == 1

    def test_the_answer_ends_when_all_retrievals_have_failed(self):
        settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "", "eager": True}
        told = Told(retrieval="per_point", settings=settings)
        told.write("skeleton", TWO)
        told.fail("sources", 1)
        told.fail("sources", 2)
        told.end("skeleton")
        assert list(told.answer.errors) == [1, 2]
        assert len(told.events(SourcesDone)) == 1

    def test_a_retrieval_that_fails_for_good_raises_and_cancels_the_others(self):
        told = Told(retrieval="per_point", settings={"max_retries": 1})
        told.skeleton("1. Sleep\n2. Eat\n3. Walk\n")
        told.end("sources", 1, found(1))
        told.write("point", "Long.", 1)
        error = ConnectionError("no index")
        told.fail("sources", 2, ConnectionError("reset"))
        told.fail("sources", 2, error)
        (failed,) = told.events(AnswerFailed)
        assert told.said[-1] is failed
        assert isinstance(failed.error, PointError)
        assert failed.error.__cause__ is error
        assert "The retrieval for point 2 ('Eat') failed after 2 attempt(s): ConnectionError: no index" in str(
            failed.error
        )
        assert failed.error.answer.expansions[0].sources == ("node 1",)
        assert failed.error.answer.text.startswith("1. Sleep: Long.")
        assert told.open == []
        assert len(told.events(Cancel)) == 2
        assert told.events(SourcesDone) == []

    def test_no_end_of_the_sources_is_told_by_the_one_that_fails_the_answer(self):
        told = Told(retrieval="per_point", settings={"max_retries": 0})
        told.skeleton()
        told.find(1)
        assert [type(action) for action in told.fail("sources", 2)] == [Cancel, AnswerFailed]
        assert told.events(SourcesDone) == []

    def test_what_comes_after_the_end_changes_nothing(self):
        told = Told(retrieval="per_point", settings={"max_retries": 0})
        told.skeleton()
        late = told.call("sources", 1)
        told.fail("sources", 2)
        assert told.flow.done(late.id, found(1)) == told.flow.failed(late.id, OSError()) == []
        assert told.flow.answer.expansions[0].sources == ()

    def test_a_retrieval_has_no_text(self):
        told = Told(retrieval="per_point")
        told.skeleton()
        assert told.write("sources", "Looking it up ...", 1) == []
        assert told.finish().text == "1. Sleep: Well.\n\n2. Eat: Well."

    def test_a_reply_without_anything_is_a_retrieval_that_found_nothing(self):
        told = Told(retrieval="per_point")
        told.skeleton()
        told.end("sources", 1)
        assert told.events(SourcesFound)[0].sources == ()
        assert "context" not in told.shown("point", 1)
        assert told.finish().expansions[0].sources == ()

    @pytest.mark.parametrize("live", [True, False])
    def test_a_merge_is_as_ever(self, live):
        told = Told(retrieval="per_point", settings={"merge": True}, live=live)
        told.skeleton()
        told.find(1, 2)
        told.end("point", 1, text="Long.")
        told.end("point", 2, text="Well.")
        assert told.waiting == [("merge", None)]
        assert "Fact" not in told.shown("merge")
        answer = told.finish()
        assert (answer.text, answer.merged) == ("Well.", True)
        assert [e.sources for e in answer.expansions] == [("node 1",), ("node 2",)]


# --- accounts -------------------------------------------------------------------------------------------


def test_without_retrieval_nothing_is_retrieved_and_nothing_told_of_it():
    for options in ({}, {"skeleton": GIVEN}, {"router": lambda question: False}):
        told = Told(**options)
        if "router" in options:
            told.fail("route")
        answer = told.finish()
        assert told.events(SourcesFound, SourcesDone) == []
        assert "sources" not in {call.stage for call in told.events(Call)}
        assert answer.sources == ()


def test_a_direct_answer_without_a_context_is_asked_for_as_the_caller_did():
    told = Told(retrieval="once", router=lambda question: False, prompts=PromptSet(direct="Say {question} {context}"))
    told.fail("route")
    told.end("sources", reply=Reply(sources=("node",)))
    assert told.call("direct").prompt.messages is QUESTION.messages


def test_usage_is_that_of_the_model_unless_a_retrieval_tells_its_own():
    told = Told(retrieval="per_point")
    told.skeleton()
    told.end("sources", 1, Reply(Usage(7, 1), sources=("node",), context="Fact."))
    told.find(2)
    told.end("point", 1, Reply(Usage(20, 5)), "Long.")
    told.end("point", 2, Reply(Usage(20, 5)), "Well.")
    assert told.answer.usage_by_stage == {"sources": Usage(7, 1), "point": Usage(40, 10)}
    assert [e.usage for e in told.answer.expansions] == [Usage(27, 6), Usage(20, 5)]


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
    # A point's span is that of its writing.
    assert [(e.span.start, e.span.end) for e in flow.answer.expansions] == [(2.5, 5.0), (4.0, 6.0)]
    sought = [point.retrieved for point in flow.answer.timings.points]
    assert [(span.start, span.end) for span in sought] == [(0.5, 2.0), (1.0, 3.0)]


def test_a_retrieval_that_is_tried_again_is_one_stretch_of_time():
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


def test_an_answer_becomes_json_whatever_its_sources_are():
    told = Told(retrieval="per_point")
    told.skeleton()
    told.end("sources", 1, Reply(sources=(object(), object())))
    data = json.loads(json.dumps(told.finish().to_dict()))
    assert data["sources"] == 0
    assert [e["sources"] for e in data["expansions"]] == [2, 1]
    assert data["timings"]["stages"].keys() <= {"sources", "skeleton", "point"}
    once = Told(retrieval="once")
    once.end("sources", reply=Reply(sources=(object(),)))
    assert once.finish().to_dict()["sources"] == 1


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInput, match="retrieval must be 'none' or 'once' or 'per_point', not 'always'"):
        AnswerFlow(QUESTION, retrieval="always")  # type: ignore[arg-type]


# --- both drivers ---------------------------------------------------------------------------------------

ENDLESS = object()


class Backend:
    """Retrieves and writes by a script, and keeps count; `ENDLESS` waits until the call is closed."""

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
    """The script, but for one call."""

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


def test_a_route_is_asked_of_the_router_and_a_retrieval_of_the_backend(pump):
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
def test_they_count_in_the_budget(pump, limit):
    together = threading.Barrier(limit)

    def scripted(call: Call) -> list[object]:
        if call.stage == "skeleton":
            return ["1. A\n2. B\n3. C\n4. D\n"]
        # The budget is used: so many of them wait for each other.
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


def test_one_that_stalls_times_out_and_costs_its_point_alone(pump):
    backend = Backend(but("sources", 2, ENDLESS))
    settings = {"point_timeout": 0.2, "max_retries": 0, "on_point_error": "placeholder", "placeholder": "(gone)"}
    clock = Clock(after=1)
    answer = last(pump(backend, [flow(**settings)], until=clock.watch, clock=clock)).answer
    assert answer.text == "1. Sleep: text 1\n\n2. Eat: (gone)"
    assert isinstance(answer.errors[2], PointTimeout)
    assert backend.live == 0


def test_one_that_fails_once_is_made_again(pump):
    failed = []

    def scripted(call: Call) -> list[object]:
        if call.stage == "sources" and call.point.index == 2 and call.attempt == 1:
            failed.append(call)
            return [ConnectionError("reset")]
        return script(call)

    answer = last(pump(Backend(scripted), [flow()])).answer
    assert len(failed) == 1
    assert answer.expansions[1].sources == ("node 2",)


def test_whoever_leaves_early_leaves_no_retrieval_running(pump):
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
