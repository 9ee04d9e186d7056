"""The flow, driven by scripted events: no model, no thread, no clock."""

from __future__ import annotations

import pytest

from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import InvalidInput, MergeError, PointError, SkeletonError, SotError
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    MergeDone,
    MergeStarted,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    Routed,
    SkeletonDone,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet, PromptTemplate
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import (
    Answer,
    Call,
    Cancel,
    Conversation,
    Decoding,
    Message,
    Point,
    PointTimes,
    Reply,
    RouteDecision,
    Skeleton,
    Span,
    Usage,
)

QUESTION = Conversation.of("How do I sleep better?")
THREE = "1. Keep regular hours\n2. Dim the lights\n3. Avoid coffee\n"


def calls(actions: list[Action]) -> list[Call]:
    return [a for a in actions if isinstance(a, Call)]


def released(actions: list[Action]) -> str:
    return "".join(a.text for a in actions if isinstance(a, AnswerDelta))


def only(actions: list[Action], kind: type) -> list:
    return [a for a in actions if isinstance(a, kind)]


def with_points(text: str = THREE, *, settings: Settings | None = None, live: bool = True):
    """A flow whose skeleton has been written, and its point calls."""
    flow = AnswerFlow(QUESTION, settings=settings, live=live)
    (call,) = calls(flow.start())
    actions = flow.delta(call.id, text) + flow.done(call.id)
    return flow, {c.point.index: c for c in calls(actions)}, actions


def finish(flow: AnswerFlow, open_calls: dict[int, Call]) -> list[Action]:
    actions: list[Action] = []
    for index in sorted(open_calls):
        actions += flow.delta(open_calls[index].id, f" text {index}. ")
        actions += flow.done(open_calls[index].id)
    return actions


def the_answer(actions: list[Action]) -> Answer:
    (done,) = only(actions, AnswerDone)
    return done.answer


class TestSkeleton:
    def test_without_a_router_the_skeleton_is_asked_for_at_once(self):
        (call,) = AnswerFlow(QUESTION).start()
        assert call.stage == "skeleton"
        assert "How do I sleep better?" in call.prompt.messages[-1].text

    def test_all_points_start_together_when_the_skeleton_is_complete(self):
        flow = AnswerFlow(QUESTION)
        (call,) = calls(flow.start())
        assert calls(flow.delta(call.id, THREE)) == []
        actions = flow.done(call.id)
        assert [c.point.title for c in calls(actions)] == [
            "Keep regular hours",
            "Dim the lights",
            "Avoid coffee",
        ]
        assert {c.stage for c in calls(actions)} == {"point"}
        assert [a.skeleton.titles for a in only(actions, SkeletonDone)] == [
            ("Keep regular hours", "Dim the lights", "Avoid coffee")
        ]

    def test_points_are_announced_as_their_lines_complete(self):
        flow = AnswerFlow(QUESTION)
        (call,) = calls(flow.start())
        assert only(flow.delta(call.id, "1. Keep regular"), PointFound) == []
        assert only(flow.delta(call.id, " hours\n2. D"), PointFound) == [PointFound(Point(1, "Keep regular hours"))]

    def test_every_point_prompt_shows_the_whole_skeleton(self):
        _, open_calls, _ = with_points()
        for call in open_calls.values():
            text = call.prompt.messages[-1].text
            assert all(t in text for t in ("Keep regular hours", "Dim the lights", "Avoid coffee"))

    def test_eager_points_start_while_the_skeleton_is_written(self):
        flow = AnswerFlow(QUESTION, settings=Settings(eager=True))
        (skeleton,) = calls(flow.start())
        first = flow.delta(skeleton.id, "1. Keep regular hours\n2. Dim")
        (call,) = calls(first)
        assert call.point == Point(1, "Keep regular hours")
        assert "Dim" not in call.prompt.messages[-1].text
        assert released(first) == "1. Keep regular hours"
        assert released(flow.delta(call.id, " Go to bed")) == ": Go to bed"
        rest = flow.delta(skeleton.id, " the lights\n") + flow.done(skeleton.id)
        assert [c.point.index for c in calls(rest)] == [2]

    def test_eager_shows_nothing_before_there_are_enough_points(self):
        flow = AnswerFlow(QUESTION, settings=Settings(eager=True, min_points=2))
        (skeleton,) = calls(flow.start())
        assert flow.delta(skeleton.id, "1. Keep regular hours\n") == []
        assert [c.point.index for c in calls(flow.delta(skeleton.id, "2. Dim the lights\n"))] == [1, 2]

    def test_a_skeleton_longer_than_max_points_is_cut_and_its_call_cancelled(self):
        flow = AnswerFlow(QUESTION, settings=Settings(max_points=2))
        (skeleton,) = calls(flow.start())
        actions = flow.delta(skeleton.id, THREE)
        assert Cancel(skeleton.id) in actions
        assert [c.point.index for c in calls(actions)] == [1, 2]
        assert flow.delta(skeleton.id, "4. More\n") == []
        assert flow.done(skeleton.id) == []

    def test_repeated_titles_are_dropped_and_the_rest_renumbered(self):
        _, open_calls, actions = with_points("1. Sleep\n2. SLEEP\n3. Eat\n")
        assert only(actions, SkeletonDone)[0].skeleton.points == (Point(1, "Sleep"), Point(2, "Eat"))
        assert sorted(open_calls) == [1, 2]

    def test_a_looping_skeleton_is_not_waited_for(self):
        flow = AnswerFlow(QUESTION)
        (skeleton,) = calls(flow.start())
        actions = flow.delta(skeleton.id, "1. Sleep\n2. Eat\n3. Eat\n4. Eat\n5. Eat\n")
        assert Cancel(skeleton.id) in actions
        assert [c.point.title for c in calls(actions)] == ["Sleep", "Eat"]

    def test_the_last_line_of_a_skeleton_at_its_token_limit_is_dropped(self):
        flow = AnswerFlow(QUESTION)
        (skeleton,) = calls(flow.start())
        flow.delta(skeleton.id, "1. Sleep\n2. Ea")
        actions = flow.done(skeleton.id, Reply(finish_reason="length"))
        assert only(actions, SkeletonDone)[0].skeleton.titles == ("Sleep",)

    @pytest.mark.parametrize("echo", ["", "1.", "1. "])
    def test_a_prefill_is_read_as_the_start_of_the_skeleton_whether_repeated_or_not(self, echo):
        flow = AnswerFlow(QUESTION, prefill={"skeleton"})
        (skeleton,) = calls(flow.start())
        assert skeleton.prompt.prefill
        flow.delta(skeleton.id, echo)
        flow.delta(skeleton.id, " Sleep\n2. Eat\n")
        actions = flow.done(skeleton.id)
        assert only(actions, SkeletonDone)[0].skeleton.titles == ("Sleep", "Eat")

    @pytest.mark.parametrize("size", [1, 7, 1000])
    @pytest.mark.parametrize("echo", ["", "Well:\n1.", "As asked:"])
    def test_a_custom_prefill_that_the_backend_repeats_is_removed(self, echo, size):
        prompts = PromptSet(
            skeleton=PromptTemplate("Outline {question}", prefill="Well:\n1."),
            point=PromptTemplate("Write {title}", prefill="As asked:"),
        )
        flow = AnswerFlow(QUESTION, prompts=prompts, prefill={"skeleton", "point"})
        (skeleton,) = calls(flow.start())

        def write(call: Call, text: str) -> list[Action]:
            text = echo * (echo == call.prompt.prefill) + text
            actions = [a for i in range(0, len(text), size) for a in flow.delta(call.id, text[i : i + size])]
            return actions + flow.done(call.id)

        (point,) = calls(write(skeleton, " Sleep"))
        assert point.point.title == "Sleep"
        flow.delta(point.id, "As as")
        (again,) = calls(flow.failed(point.id, OSError("gone")))
        assert the_answer(write(again, " it helps.")).text == "1. Sleep: it helps."

    def test_a_reply_that_equals_part_of_the_prefill_is_kept(self):
        flow = AnswerFlow(QUESTION, skeleton=Skeleton((Point(1, "Sleep"),)), prefill={"point"})
        (point,) = calls(flow.start())
        assert point.prompt.prefill == '"Sleep" -'
        assert released(flow.delta(point.id, '"')) == ""
        assert the_answer(flow.done(point.id)).expansions[0].text == '"'

    def test_no_usable_skeleton_falls_back_to_a_direct_answer_to_the_untouched_question(self):
        flow = AnswerFlow(QUESTION)
        (skeleton,) = calls(flow.start())
        flow.delta(skeleton.id, "I cannot make a list of that.")
        (direct,) = calls(flow.done(skeleton.id))
        assert direct.stage == "direct"
        assert direct.prompt.messages == QUESTION.messages
        text = released(flow.delta(direct.id, " Sleep\n") + flow.delta(direct.id, "more. "))
        answer = the_answer(flow.done(direct.id, Reply(finish_reason="stop")))
        assert answer.text == text == " Sleep\nmore. "
        assert answer.route == "direct"
        assert answer.skeleton.points == answer.expansions == ()
        assert "0 usable point" in answer.reason

    def test_nothing_of_a_skeleton_with_too_few_points_ever_shows(self):
        flow = AnswerFlow(QUESTION, settings=Settings(min_points=3))
        (skeleton,) = calls(flow.start())
        actions = flow.delta(skeleton.id, "1. Sleep\n2. Eat\n") + flow.done(skeleton.id)
        assert only(actions, PointFound) == []
        assert [c.stage for c in calls(actions)] == ["direct"]

    def test_no_usable_skeleton_can_be_an_error(self):
        flow = AnswerFlow(QUESTION, settings=Settings(on_empty_skeleton="raise"))
        (skeleton,) = calls(flow.start())
        flow.delta(skeleton.id, "Just prose.")
        (failed,) = only(flow.done(skeleton.id), AnswerFailed)
        assert isinstance(failed.error, SkeletonError)
        assert failed.error.skeleton.text == "Just prose."
        assert flow.finished

    def test_a_failed_skeleton_is_asked_for_again_while_no_line_is_complete(self):
        flow = AnswerFlow(QUESTION, settings=Settings(backoff=2.0))
        (skeleton,) = calls(flow.start())
        flow.delta(skeleton.id, "1. Sle")
        (again,) = calls(flow.failed(skeleton.id, ConnectionError("reset")))
        assert (again.stage, again.attempt, again.delay) == ("skeleton", 2, 2.0)
        flow.delta(again.id, "1. Eat\n")
        assert only(flow.done(again.id), SkeletonDone)[0].skeleton.titles == ("Eat",)

    def test_a_skeleton_without_retries_left_raises_the_models_own_error(self):
        flow = AnswerFlow(QUESTION, settings=Settings(max_retries=0))
        (skeleton,) = calls(flow.start())
        error = ConnectionError("reset")
        assert flow.failed(skeleton.id, error) == [AnswerFailed(error)]

    def test_a_given_skeleton_needs_no_skeleton_call(self):
        given = Skeleton((Point(2, "Eat"), Point(5, "Sleep")))
        flow = AnswerFlow(QUESTION, skeleton=given)
        actions = flow.start()
        opened = {c.point.index: c for c in calls(actions)}
        assert sorted(opened) == [2, 5]
        actions += finish(flow, opened)
        assert the_answer(actions).text == released(actions) == "2. Eat: text 2.\n\n5. Sleep: text 5."


class TestRoute:
    def test_a_router_is_asked_before_anything_else(self):
        flow = AnswerFlow(QUESTION, router=lambda question: True)
        (call,) = calls(flow.start())
        assert (call.stage, call.prompt) == ("route", None)
        assert call.router.decide() == RouteDecision(True)
        actions = flow.done(call.id, Reply(decision=RouteDecision(True, 0.9, "a list")))
        assert only(actions, Routed) == [Routed(RouteDecision(True, 0.9, "a list"))]
        assert [c.stage for c in calls(actions)] == ["skeleton"]

    def test_a_question_routed_away_is_answered_directly(self):
        flow = AnswerFlow(QUESTION, router=lambda question: False)
        (call,) = calls(flow.start())
        (direct,) = calls(flow.done(call.id, Reply(decision=RouteDecision(False, reason="maths"))))
        assert direct.stage == "direct"
        flow.delta(direct.id, "42")
        answer = the_answer(flow.done(direct.id))
        assert (answer.text, answer.route, answer.reason) == ("42", "direct", "maths")

    def test_a_failing_router_costs_no_answer_and_is_reported(self):
        flow = AnswerFlow(QUESTION, router=lambda question: True)
        (call,) = calls(flow.start())
        (direct,) = calls(flow.failed(call.id, ValueError("no weights")))
        assert direct.stage == "direct"
        answer = the_answer(flow.delta(direct.id, "Yes.") + flow.done(direct.id))
        assert "ValueError: no weights" in answer.reason

    def test_an_object_that_is_no_router_is_refused(self):
        with pytest.raises(InvalidInput, match="function of the question"):
            AnswerFlow(QUESTION, router=3)  # type: ignore[arg-type]


class TestOrder:
    def test_text_of_a_later_point_waits_for_the_earlier_ones(self):
        flow, opened, _ = with_points()
        two = flow.delta(opened[2].id, " Dark rooms help.") + flow.done(opened[2].id)
        assert only(two, PointDelta) == [PointDelta(Point(2, "Dim the lights"), "Dark rooms help.")]
        assert released(two) == ""
        one = flow.delta(opened[1].id, " Same time daily.")
        assert released(one) == ": Same time daily."
        assert released(flow.done(opened[1].id)) == ("\n\n2. Dim the lights: Dark rooms help.\n\n3. Avoid coffee")

    def test_the_first_heading_is_released_as_soon_as_the_skeleton_is_known(self):
        _, _, actions = with_points()
        assert released(actions) == "1. Keep regular hours"

    def test_the_join_of_what_was_released_is_the_answer(self):
        flow, opened, actions = with_points()
        actions += finish(flow, opened)
        answer = the_answer(actions)
        assert released(actions) == answer.text
        assert answer.text == (
            "1. Keep regular hours: text 1.\n\n2. Dim the lights: text 2.\n\n3. Avoid coffee: text 3."
        )
        assert [e.text for e in answer.expansions] == ["text 1.", "text 2.", "text 3."]
        assert flow.finished

    def test_an_echo_of_number_and_title_is_removed(self):
        flow, opened, _ = with_points()
        shown = flow.delta(opened[1].id, "**1. Keep Regular") + flow.delta(opened[1].id, " Hours:** At ten.")
        assert released(shown) == ": At ten."

    def test_a_point_without_text_keeps_its_heading(self):
        settings = Settings(max_retries=0, on_point_error="placeholder", placeholder="")
        flow, opened, actions = with_points("1. Sleep\n2. Eat\n", settings=settings)
        actions += flow.done(opened[1].id)
        actions += flow.delta(opened[2].id, "Well.") + flow.done(opened[2].id)
        assert the_answer(actions).text == released(actions) == "1. Sleep\n\n2. Eat: Well."

    def test_without_live_all_text_comes_at_the_end_in_one_piece(self):
        flow, opened, actions = with_points(live=False)
        assert released(actions) == ""
        actions = finish(flow, opened)
        assert [a.text for a in only(actions, AnswerDelta)] == [the_answer(actions).text]


class TestFailures:
    def test_a_point_that_fails_before_its_first_token_is_retried(self):
        flow, opened, actions = with_points()
        error = ConnectionError("reset")
        actions += (again := flow.failed(opened[2].id, error))
        assert only(again, PointRestarted) == [PointRestarted(Point(2, "Dim the lights"), error)]
        assert only(again, PointStarted) == [PointStarted(Point(2, "Dim the lights"), 2)]
        (opened[2],) = calls(again)
        actions += finish(flow, opened)
        answer = the_answer(actions)
        assert [e.attempts for e in answer.expansions] == [1, 2, 1]
        assert answer.errors == {}
        assert released(actions) == answer.text

    def test_the_partial_text_of_a_failed_attempt_is_discarded(self):
        flow, opened, actions = with_points()
        flow.delta(opened[2].id, "Dark ro")
        (opened[2],) = calls(flow.failed(opened[2].id, ConnectionError("reset")))
        actions += finish(flow, opened)
        assert the_answer(actions).expansions[1].text == "text 2."
        assert "Dark ro" not in released(actions)

    def test_text_that_was_released_is_not_taken_back(self):
        flow, opened, actions = with_points(settings=Settings(on_point_error="placeholder", placeholder="(gone)"))
        actions += flow.delta(opened[1].id, "At te")
        failed = flow.failed(opened[1].id, ConnectionError("reset"))
        assert calls(failed) == []
        actions += failed
        del opened[1]
        actions += finish(flow, opened)
        answer = the_answer(actions)
        assert answer.expansions[0].text == "At te (gone)"
        assert released(actions) == answer.text

    def test_without_live_even_a_first_point_with_text_is_retried(self):
        flow, opened, _ = with_points(live=False)
        flow.delta(opened[1].id, "At te")
        (opened[1],) = calls(flow.failed(opened[1].id, ConnectionError("reset")))
        assert the_answer(finish(flow, opened)).expansions[0].text == "text 1."

    def test_the_wait_before_a_retry_doubles(self):
        flow, opened, _ = with_points(settings=Settings(max_retries=3, backoff=0.25))
        call, delays = opened[3], []
        for _ in range(3):
            (call,) = calls(flow.failed(call.id, ConnectionError("reset")))
            delays.append(call.delay)
        assert delays == [0.25, 0.5, 1.0]

    def test_each_attempt_carries_the_timeout(self):
        flow, opened, _ = with_points(settings=Settings(point_timeout=3.0))
        (again,) = calls(flow.failed(opened[1].id, TimeoutError()))
        assert [opened[1].timeout, again.timeout] == [3.0, 3.0]

    def test_a_point_without_retries_left_cancels_its_siblings_and_carries_the_partial_answer(self):
        flow, opened, _ = with_points(settings=Settings(max_retries=0))
        flow.delta(opened[1].id, "At ten.")
        flow.done(opened[1].id)
        flow.delta(opened[3].id, "No")
        actions = flow.failed(opened[2].id, ConnectionError("reset"))
        assert only(actions, Cancel) == [Cancel(opened[3].id)]
        (failed,) = only(actions, AnswerFailed)
        error = failed.error
        assert isinstance(error, PointError)
        assert isinstance(error, SotError)
        assert isinstance(error.__cause__, ConnectionError)
        assert error.point.index == 2
        assert [e.text for e in error.answer.expansions] == ["At ten.", "", "No"]
        assert list(error.answer.errors) == [2]
        assert error.answer.text.startswith("1. Keep regular hours: At ten.\n\n2. Dim the lights")
        assert flow.finished
        assert flow.done(opened[3].id) == []

    def test_with_placeholders_a_failing_point_never_loses_the_others(self):
        settings = Settings(max_retries=0, on_point_error="placeholder", placeholder="(gone)")
        flow, opened, actions = with_points(settings=settings)
        error = ConnectionError("reset")
        actions += flow.failed(opened.pop(2).id, error)
        actions += finish(flow, opened)
        answer = the_answer(actions)
        assert [e.text for e in answer.expansions] == ["text 1.", "(gone)", "text 3."]
        assert answer.errors == {2: error}
        assert [e.expansion.error for e in only(actions, PointDone)] == [error, None, None]
        assert released(actions) == answer.text

    def test_a_direct_answer_that_fails_raises_the_models_own_error(self):
        flow = AnswerFlow(QUESTION, router=lambda question: False)
        (route,) = calls(flow.start())
        (direct,) = calls(flow.done(route.id, Reply(decision=RouteDecision(False))))
        error = ConnectionError("reset")
        assert flow.failed(direct.id, error) == [AnswerFailed(error)]

    def test_reports_of_calls_that_are_over_change_nothing(self):
        flow, opened, _ = with_points()
        flow.done(opened[1].id)
        assert flow.delta(opened[1].id, "late") == []
        assert flow.done(opened[1].id) == []
        assert flow.failed(opened[1].id, ConnectionError("late")) == []
        assert flow.delta(999, "unknown") == []


class TestJoin:
    def test_headings_stream_in_order(self):
        flow, opened, actions = with_points("1. Sleep\n2. Eat\n", settings=Settings(join="headings"))
        actions += flow.delta(opened[2].id, "Well.")
        assert released(actions) == "## Sleep"
        actions += flow.delta(opened[1].id, "Long")
        assert released(actions) == "## Sleep\n\nLong"
        actions += flow.delta(opened[1].id, " enough.") + flow.done(opened[1].id) + flow.done(opened[2].id)
        assert released(actions) == the_answer(actions).text == "## Sleep\n\nLong enough.\n\n## Eat\n\nWell."

    def test_paragraphs_stream_in_order_and_an_empty_one_leaves_no_gap(self):
        settings = Settings(join="paragraphs", max_retries=0, on_point_error="placeholder", placeholder="")
        flow, opened, actions = with_points("1. Sleep\n2. Eat\n3. Walk\n", settings=settings)
        assert released(actions) == ""
        actions += flow.done(opened[1].id) + flow.delta(opened[2].id, "Well.")
        assert released(actions) == "Well."
        actions += flow.done(opened[2].id)
        assert released(actions) == "Well."
        actions += flow.delta(opened[3].id, "A lot.") + flow.done(opened[3].id)
        assert released(actions) == the_answer(actions).text == "Well.\n\nA lot."

    @pytest.mark.parametrize(
        ("join", "text"),
        [
            ("numbered", "1. Sleep: At te (gone)\n\n2. Eat: (gone)\n\n3. Walk: text 3."),
            ("headings", "## Sleep\n\nAt te (gone)\n\n## Eat\n\n(gone)\n\n## Walk\n\ntext 3."),
            ("paragraphs", "At te (gone)\n\n(gone)\n\ntext 3."),
        ],
    )
    @pytest.mark.parametrize("live", [True, False])
    def test_placeholders_stand_where_the_text_would(self, join, text, live):
        settings = Settings(join=join, max_retries=0, on_point_error="placeholder", placeholder="(gone)")
        flow, opened, actions = with_points("1. Sleep\n2. Eat\n3. Walk\n", settings=settings, live=live)
        actions += flow.delta(opened[1].id, "At te") + flow.failed(opened.pop(1).id, ConnectionError())
        actions += flow.failed(opened.pop(2).id, ConnectionError())
        actions += finish(flow, opened)
        assert released(actions) == the_answer(actions).text == text

    def test_the_text_of_a_point_does_not_depend_on_the_form(self):
        for join in ("numbered", "headings", "paragraphs"):
            flow, opened, _ = with_points("1. Sleep\n", settings=Settings(join=join))
            flow.delta(opened[1].id, "**1. Sleep**: Long.")
            assert the_answer(flow.done(opened[1].id)).expansions[0].text == "Long."


def merging(*, live: bool = True, **settings):
    """A flow whose points are written, its merge call, and the actions so far."""
    flow, opened, actions = with_points("1. Sleep\n2. Eat\n", settings=Settings(merge=True, **settings), live=live)
    actions += (last := finish(flow, opened))
    (call,) = calls(last)
    return flow, call, actions


JOINED = "1. Sleep: text 1.\n\n2. Eat: text 2."


class TestMerge:
    def test_one_merge_call_makes_the_answer_from_the_points(self):
        flow, call, actions = merging()
        assert (call.stage, call.point, call.timeout) == ("merge", None, None)
        prompt = call.prompt.messages[-1].text
        assert QUESTION.question in prompt
        assert JOINED in prompt
        assert released(actions) == "", "the points show under their own names only"
        assert [d.text for d in only(actions, PointDelta)] == ["text 1.", "text 2."]
        actions += flow.delta(call.id, " Restful ni")
        assert released(actions) == "Restful ni"
        actions += flow.delta(call.id, "ght. \n") + flow.done(call.id, Reply(finish_reason="stop"))
        answer = the_answer(actions)
        assert released(actions) == answer.text == "Restful night."
        assert (answer.merged, answer.merge_error, answer.errors) == (True, None, {})
        assert [e.text for e in answer.expansions] == ["text 1.", "text 2."]
        assert only(actions, MergeStarted) == [MergeStarted(1)]
        assert only(actions, MergeDone) == [MergeDone("Restful night.")]

    def test_the_draft_has_the_form_of_the_answer(self):
        _, call, _ = merging(join="headings")
        assert "## Sleep\n\ntext 1.\n\n## Eat\n\ntext 2." in call.prompt.messages[-1].text

    def test_without_live_the_merged_text_comes_in_one_piece(self):
        flow, call, actions = merging(live=False)
        actions += flow.delta(call.id, "One ") + flow.delta(call.id, "text.") + flow.done(call.id)
        assert [a.text for a in only(actions, AnswerDelta)] == ["One text."]

    def test_a_merges_reasoning_is_not_shown(self):
        flow, call, actions = merging()
        actions += flow.delta(call.id, "<think>Hm.</think>\n\nOne.") + flow.done(call.id)
        assert released(actions) == the_answer(actions).text == "One."

    @pytest.mark.parametrize("live", [True, False])
    def test_a_failed_merge_leaves_the_points_as_the_answer(self, live):
        flow, call, actions = merging(live=live, max_retries=0)
        error = ConnectionError("reset")
        actions += flow.failed(call.id, error)
        answer = the_answer(actions)
        assert released(actions) == answer.text == JOINED
        assert (answer.merged, answer.merge_error) == (False, error)
        assert only(actions, MergeDone) == [MergeDone("", error)]
        assert only(actions, AnswerRestarted) == [], "nothing had shown"

    def test_a_merge_that_breaks_in_its_text_restarts_the_answer(self):
        flow, call, actions = merging()
        actions += flow.delta(call.id, "Restful ni")
        assert released(actions) == "Restful ni"
        error = ConnectionError("reset")
        last = flow.failed(call.id, error)
        assert only(last, AnswerRestarted) == [AnswerRestarted(error)]
        assert calls(last) == [], "shown text is not written twice"
        assert released(last[last.index(AnswerRestarted(error)) :]) == the_answer(last).text == JOINED

    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    @pytest.mark.parametrize("live", [True, False])
    def test_a_truncated_merge_is_not_used(self, reason, live):
        flow, call, actions = merging(live=live)
        actions += flow.delta(call.id, "Restful ni") + flow.done(call.id, Reply(finish_reason=reason))
        answer = the_answer(actions)
        assert answer.text == JOINED
        assert isinstance(answer.merge_error, MergeError)
        assert reason in str(answer.merge_error)

    @pytest.mark.parametrize("text", ["", " \n", "<think>Nothing to do.</think>"])
    def test_a_merge_without_text_is_not_used(self, text):
        flow, call, actions = merging(backoff=0.25)
        again = flow.delta(call.id, text) + flow.done(call.id)
        (call,) = calls(again)
        assert (call.stage, call.attempt, call.delay) == ("merge", 2, 0.25)
        actions += again + flow.delta(call.id, text) + flow.done(call.id)
        answer = the_answer(actions)
        assert released(actions) == answer.text == JOINED
        assert only(actions, AnswerRestarted) == []
        assert isinstance(answer.merge_error, MergeError)

    def test_a_merge_without_shown_text_is_retried(self):
        flow, call, actions = merging(backoff=0.25)
        last = flow.failed(call.id, ConnectionError("reset"))
        (again,) = calls(last)
        assert (again.stage, again.attempt, again.delay) == ("merge", 2, 0.25)
        assert only(last, MergeStarted) == [MergeStarted(2)]
        actions += flow.delta(again.id, "Rest.") + flow.done(again.id)
        assert released(actions) == the_answer(actions).text == "Rest."

    def test_without_live_a_merge_with_text_is_retried(self):
        flow, call, _ = merging(live=False)
        flow.delta(call.id, "Restful ni")
        (again,) = calls(flow.failed(call.id, ConnectionError("reset")))
        flow.delta(again.id, "Two.")
        assert the_answer(flow.done(again.id)).text == "Two."

    @pytest.mark.parametrize("live", [True, False])
    def test_failed_points_follow_the_merged_text_unchanged(self, live):
        settings = Settings(merge=True, max_retries=0, on_point_error="placeholder", placeholder="(gone)")
        flow, opened, actions = with_points(settings=settings, live=live)
        actions += flow.failed(opened.pop(2).id, ConnectionError())
        actions += (last := finish(flow, opened))
        (call,) = calls(last)
        assert "(gone)" not in call.prompt.messages[-1].text
        actions += flow.delta(call.id, "One.") + flow.done(call.id)
        answer = the_answer(actions)
        assert released(actions) == answer.text == "One.\n\n2. Dim the lights: (gone)"
        assert answer.merged
        assert list(answer.errors) == [2]

    def test_a_sentence_that_a_custom_prompt_asks_for_is_no_echo(self):
        closing = "Please talk to your doctor before you change anything."
        prompts = PromptSet(merge=f"Make one text of this. End with this sentence: {closing}\n\n{{draft}}")
        flow = AnswerFlow(QUESTION, settings=Settings(merge=True), prompts=prompts)
        (call,) = calls(flow.start())
        flow.delta(call.id, THREE)
        (merge,) = calls(finish(flow, {c.point.index: c for c in calls(flow.done(call.id))}))
        text = f"Go to bed at ten. {closing}"
        answer = the_answer(flow.delta(merge.id, text) + flow.done(merge.id))
        assert (answer.text, answer.merged) == (text, True)

    def test_a_single_good_point_is_not_merged(self):
        settings = Settings(merge=True, max_retries=0, on_point_error="placeholder", placeholder="(gone)")
        flow, opened, actions = with_points("1. Sleep\n2. Eat\n", settings=settings)
        actions += flow.failed(opened.pop(2).id, ConnectionError())
        actions += (last := finish(flow, opened))
        assert calls(last) == []
        answer = the_answer(actions)
        assert released(actions) == answer.text == "1. Sleep: text 1.\n\n2. Eat: (gone)"
        assert (answer.merged, answer.merge_error) == (False, None)

    def test_a_template_that_cannot_be_rendered_leaves_the_points(self):
        class Broken:
            def render(self, conversation, values, *, prefill):
                raise KeyError(values["draft"])

        flow = AnswerFlow(
            QUESTION,
            settings=Settings(merge=True),
            prompts=PromptSet(merge=Broken()),
            skeleton=Skeleton((Point(1, "Sleep"), Point(2, "Eat"))),
        )
        opened = {call.point.index: call for call in calls(flow.start())}
        answer = the_answer(finish(flow, opened))
        assert answer.text == JOINED
        assert isinstance(answer.merge_error, KeyError)

    def test_a_skeleton_of_one_point_streams_without_a_merge(self):
        flow, opened, actions = with_points("1. Sleep\n", settings=Settings(merge=True))
        actions += flow.delta(opened[1].id, "Lo")
        assert released(actions) == "1. Sleep: Lo"
        assert calls(flow.done(opened[1].id)) == []

    def test_eager_points_show_nothing_before_the_merge(self):
        flow = AnswerFlow(QUESTION, settings=Settings(merge=True, eager=True))
        (skeleton,) = calls(flow.start())
        actions = flow.delta(skeleton.id, "1. Sleep\n")
        (one,) = calls(actions)
        actions += flow.delta(one.id, "Long.") + flow.done(one.id) + flow.delta(skeleton.id, "2. Eat\n")
        two = calls(actions)[-1]
        actions += flow.delta(two.id, "Well.") + flow.done(two.id)
        assert calls(actions)[-1] is two, "the skeleton is still being written"
        assert released(actions) == ""
        assert [c.stage for c in calls(flow.done(skeleton.id))] == ["merge"]

    def test_a_direct_answer_is_not_merged(self):
        flow = AnswerFlow(QUESTION, settings=Settings(merge=True))
        (skeleton,) = calls(flow.start())
        (direct,) = calls(flow.delta(skeleton.id, "It depends.") + flow.done(skeleton.id))
        actions = flow.delta(direct.id, "So.")
        assert released(actions) == "So."
        assert the_answer(flow.done(direct.id)).merged is False

    def test_a_point_that_raises_prevents_the_merge(self):
        flow, opened, _ = with_points(settings=Settings(merge=True, max_retries=0))
        flow.delta(opened[1].id, "At ten.")
        (failed,) = only(flow.failed(opened[2].id, ConnectionError()), AnswerFailed)
        assert failed.error.answer.text.startswith("1. Keep regular hours: At ten.")

    def test_the_usage_of_a_merge_counts_failed_attempts(self):
        flow = AnswerFlow(QUESTION, settings=Settings(merge=True), skeleton=Skeleton((Point(1, "a"), Point(2, "b"))))
        one, two = calls(flow.start(0.0))
        for call in (one, two):
            flow.opened(call.id, 0.0)
            flow.delta(call.id, "Text.", 1.0)
        flow.done(one.id, Reply(Usage(10, 5)), 1.0)
        (merge,) = calls(flow.done(two.id, Reply(Usage(10, 5)), 2.0))
        flow.opened(merge.id, 2.0)
        (again,) = calls(flow.failed(merge.id, ConnectionError(), 3.0, Usage(40, 0)))
        flow.opened(again.id, 3.5)
        flow.delta(again.id, "Rest.", 4.0)
        answer = the_answer(flow.done(again.id, Reply(Usage(40, 9), decoding=Decoding(steps=9)), 6.0))
        assert answer.usage_by_stage == {"point": Usage(20, 10), "merge": Usage(80, 9)}
        assert answer.usage == Usage(100, 19)
        span = answer.timings.stages["merge"]
        assert (span.start, span.first, span.end) == (2.0, 4.0, 6.0)
        assert answer.timings.first_text == 4.0
        assert answer.timings.decoding == {"merge": Decoding(steps=9)}
        assert answer.to_dict()["merged"] is True

    def test_the_dict_has_the_error_of_the_merge(self):
        flow, call, _ = merging(max_retries=0)
        data = the_answer(flow.failed(call.id, ConnectionError("reset"))).to_dict()
        assert (data["merged"], data["merge_error"]) == (False, {"type": "ConnectionError", "message": "reset"})


class TestStructured:
    def structured(self, **settings):
        flow = AnswerFlow(QUESTION, settings=Settings(**settings), structured=True, prefill={"skeleton", "point"})
        (call,) = calls(flow.start())
        assert call.structured
        return flow, call

    def test_the_prompt_asks_for_no_form(self):
        _, call = self.structured()
        assert "numbered" not in call.prompt.messages[-1].text
        assert (call.prompt.prefill, len(call.prompt.messages)) == ("", 1)

    def test_titles_come_as_data(self):
        flow, call = self.structured()
        titles = ("Say: 1. do 2. go", "1. Numbered", "**Bold**", "3.5 tips", "Two\nlines", "", "bold")
        actions = flow.done(call.id, Reply(titles=titles))
        (done,) = only(actions, SkeletonDone)
        assert done.skeleton.titles == ("Say: 1. do 2. go", "Numbered", "Bold", "3.5 tips", "Two lines")
        assert [p.point.index for p in only(actions, PointFound)] == [1, 2, 3, 4, 5]
        assert len(calls(actions)) == 5

    def test_no_more_than_max_points_are_taken(self):
        flow, call = self.structured(max_points=2)
        assert len(calls(flow.done(call.id, Reply(titles=("a", "b", "c"))))) == 2

    def test_a_truncated_list_loses_its_last_title(self):
        flow, call = self.structured()
        actions = flow.done(call.id, Reply(titles=("Sleep", "Eat we"), finish_reason="length"))
        assert [c.point.title for c in calls(actions)] == ["Sleep"]
        flow, call = self.structured()
        assert len(calls(flow.done(call.id, Reply(titles=("Sleep",), finish_reason="length")))) == 1

    def test_structured_titles_come_at_once_eager_or_not(self):
        flow, call = self.structured(eager=True)
        assert [c.point.title for c in calls(flow.done(call.id, Reply(titles=("a", "b"))))] == ["a", "b"]

    def test_a_reply_without_data_is_read_as_text(self):
        flow, call = self.structured()
        actions = flow.delta(call.id, THREE) + flow.done(call.id)
        assert len(calls(actions)) == 3

    @pytest.mark.parametrize("titles", [(), ("", " ")])
    def test_no_titles_are_no_skeleton(self, titles):
        flow, call = self.structured()
        assert [c.stage for c in calls(flow.done(call.id, Reply(titles=titles)))] == ["direct"]

    def test_a_failed_structured_call_is_retried_as_text(self):
        flow, call = self.structured()
        (again,) = calls(flow.failed(call.id, ValueError("unknown field response_format")))
        assert not again.structured
        assert again.prompt.prefill == "1."


class TestAccounts:
    def test_usage_is_summed_per_stage_failed_attempts_included(self):
        flow = AnswerFlow(QUESTION)
        (skeleton,) = calls(flow.start())
        flow.delta(skeleton.id, "1. Sleep\n2. Eat\n")
        one, two = calls(flow.done(skeleton.id, Reply(Usage(10, 5))))
        (again,) = calls(flow.failed(two.id, ConnectionError("reset"), usage=Usage(20, 1)))
        flow.delta(one.id, "Well.")
        flow.done(one.id, Reply(Usage(20, 7, cached_tokens=15)))
        flow.delta(again.id, "Well.")
        answer = the_answer(flow.done(again.id, Reply(Usage(20, 8))))
        assert answer.usage_by_stage == {"skeleton": Usage(10, 5), "point": Usage(60, 16, 15)}
        assert answer.usage == Usage(70, 21, 15)
        assert [e.usage for e in answer.expansions] == [Usage(20, 7, 15), Usage(40, 9)]

    def test_known_usage_of_a_cancelled_skeleton_is_counted(self):
        flow = AnswerFlow(QUESTION, settings=Settings(max_points=1))
        (skeleton,) = calls(flow.start())
        (point,) = calls(flow.delta(skeleton.id, "1. Sleep\n"))
        flow.cancelled(skeleton, Usage(10, 3))
        flow.delta(point.id, "Well.")
        assert the_answer(flow.done(point.id, Reply(Usage(20, 4)))).usage == Usage(30, 7)

    def test_decoding_is_summed_per_stage_failed_and_cancelled_calls_included(self):
        flow = AnswerFlow(QUESTION, settings=Settings(max_points=2))
        (skeleton,) = calls(flow.start())
        one, two = calls(flow.delta(skeleton.id, THREE))
        flow.cancelled(skeleton, None, decoding=Decoding(0.0, 0.5, 1.0, 8, 1.0, 8))
        failed = flow.failed(two.id, ConnectionError("reset"), decoding=Decoding(0.25, 0.5, 1.0, 4, 2.0, 4))
        (again,) = calls(failed)
        flow.delta(one.id, "Well.")
        flow.delta(again.id, "Well.")
        flow.done(one.id, Reply(decoding=Decoding(0.25, 0.5, 2.0, 12, 2.0, 12)))
        answer = the_answer(flow.done(again.id, Reply(decoding=Decoding(0.0, 0.0, 1.0, 8, 1.0, 9))))
        assert answer.timings.decoding == {
            "skeleton": Decoding(0.0, 0.5, 1.0, 8, 1.0, 8),
            "point": Decoding(0.5, 1.0, 4.0, 24, 40 / 24, 25),
        }
        assert answer.usage_by_stage == {}

    def test_decoding_is_reported_for_the_stages_whose_backend_reports_it(self):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n")
        flow.delta(opened[1].id, "Well.")
        flow.delta(opened[2].id, "Well.")
        flow.done(opened[1].id, Reply(Usage(10, 5)))
        decoding = Decoding(0.0, 0.5, 1.0, 8, 1.0, 8)
        assert the_answer(flow.done(opened[2].id, Reply(decoding=decoding))).timings.decoding == {"point": decoding}

    def test_the_last_event_counts_the_usage_of_a_cancelled_call(self):
        flow = AnswerFlow(QUESTION, settings=Settings(max_points=1))
        (skeleton,) = calls(flow.start())
        (point,) = calls(flow.delta(skeleton.id, THREE))
        flow.delta(point.id, "Well.")
        (last,) = only(flow.done(point.id, Reply(Usage(20, 5))), AnswerDone)
        assert last.answer.usage_by_stage == {"point": Usage(20, 5)}
        flow.cancelled(skeleton, Usage(10, 3), decoding=Decoding(steps=3))
        settled = flow.last_event(last).answer
        assert settled.usage_by_stage == {"point": Usage(20, 5), "skeleton": Usage(10, 3)}
        assert (settled.usage, settled.timings.decoding) == (Usage(30, 8), {"skeleton": Decoding(steps=3)})
        assert (settled.text, settled.timings.total) == (last.answer.text, last.answer.timings.total)

    def test_the_usage_of_an_ended_loop_is_counted_for_its_point(self):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n", settings=Settings(stop_loops=True))
        assert Cancel(opened[2].id) in flow.delta(opened[2].id, "It is a good day to be outside. " * 9)
        flow.cancelled(opened[2], Usage(20, 90))
        flow.delta(opened[1].id, "Well.")
        answer = the_answer(flow.done(opened[1].id, Reply(Usage(20, 5))))
        assert [e.usage for e in answer.expansions] == [Usage(20, 5), Usage(20, 90)]
        assert answer.usage_by_stage == {"point": Usage(40, 95)}

    def test_the_usage_of_the_last_ended_loop_is_counted_for_its_point(self):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n", settings=Settings(stop_loops=True))
        flow.delta(opened[1].id, "Well.")
        flow.done(opened[1].id, Reply(Usage(20, 5)))
        (last,) = only(flow.delta(opened[2].id, "It is a good day to be outside. " * 9), AnswerDone)
        flow.cancelled(opened[2], Usage(20, 90))
        answer = flow.last_event(last).answer
        assert [e.usage for e in answer.expansions] == [Usage(20, 5), Usage(20, 90)]
        assert answer.usage == Usage(40, 95)

    def test_the_answer_of_an_error_counts_the_usage_of_cancelled_points(self):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n", settings=Settings(max_retries=0))
        (last,) = only(flow.failed(opened[1].id, ConnectionError("reset"), usage=Usage(20, 1)), AnswerFailed)
        flow.cancelled(opened[2], Usage(20, 9), decoding=Decoding(steps=9))
        settled = flow.last_event(last)
        answer = settled.error.answer
        assert (settled, answer.usage) == (last, Usage(40, 10))
        assert answer.usage_by_stage == {"point": Usage(40, 10)}
        assert [e.usage for e in answer.expansions] == [Usage(20, 1), Usage(20, 9)]
        assert answer.timings.decoding == {"point": Decoding(steps=9)}

    def test_timings_are_seconds_since_the_start(self):
        flow = AnswerFlow(QUESTION)
        (skeleton,) = calls(flow.start(100.0))
        flow.opened(skeleton.id, 100.5)
        flow.delta(skeleton.id, "1. Sleep\n", 101.0)
        (point,) = calls(flow.done(skeleton.id, None, 102.0))
        flow.opened(point.id, 103.0)
        flow.delta(point.id, "Well.", 104.0)
        answer = the_answer(flow.done(point.id, None, 106.0))
        assert answer.timings.total == 6.0
        assert answer.timings.first_text == 2.0
        spans = {stage: (s.start, s.first, s.end) for stage, s in answer.timings.stages.items()}
        assert spans == {"skeleton": (0.5, 1.0, 2.0), "point": (3.0, 4.0, 6.0)}
        span = answer.expansions[0].span
        assert (span.start, span.first, span.end, span.seconds) == (3.0, 4.0, 6.0, 3.0)

    def test_timings_record_when_each_point_was_written_and_shown(self):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n3. Move\n", settings=Settings(on_point_error="placeholder"))
        for index, call in opened.items():
            flow.opened(call.id, float(index))
        flow.delta(opened[2].id, "Well.", 4.0)
        flow.delta(opened[1].id, "Long.", 5.0)
        flow.done(opened[2].id, None, 6.0)
        flow.done(opened[1].id, None, 7.0)
        (again,) = calls(flow.failed(opened[3].id, ConnectionError("reset"), 8.0))
        flow.opened(again.id, 9.0)
        assert flow.answer.timings.points[2] == PointTimes(3, "Move", Span(9.0, 9.0), attempts=2)
        answer = the_answer(flow.failed(again.id, ConnectionError("reset"), 10.0))
        assert answer.timings.points == (
            PointTimes(1, "Sleep", Span(1.0, 7.0, 5.0), None, 5.0, 1),
            # Its text arrived before its turn.
            PointTimes(2, "Eat", Span(2.0, 6.0, 4.0), None, 7.0, 1),
            PointTimes(3, "Move", Span(9.0, 10.0), None, 10.0, 2, failed=True),
        )
        assert answer.timings.points[0].written == answer.expansions[0].span

    @pytest.mark.parametrize(("live", "settings"), [(False, Settings()), (True, Settings(merge=True))])
    def test_points_that_are_held_back_are_not_shown_one_by_one(self, live, settings):
        flow, opened, _ = with_points("1. Sleep\n2. Eat\n", live=live, settings=settings)
        for call in opened.values():
            flow.opened(call.id, 1.0)
            flow.delta(call.id, "Well.", 2.0)
            flow.done(call.id, None, 3.0)
        assert [point.released for point in flow.answer.timings.points] == [None, None]


class TestBadInput:
    @pytest.mark.parametrize(
        "bad",
        [
            {"max_points": 0},
            {"max_points": -1},
            {"max_points": 2.5},
            {"max_points": True},
            {"min_points": 0},
            {"min_points": 5, "max_points": 4},
            {"max_retries": -1},
            {"backoff": -0.1},
            {"backoff": float("nan")},
            {"point_timeout": 0},
            {"point_words": 0},
            {"on_point_error": "ignore"},
            {"on_empty_skeleton": "ignore"},
            {"join": "bullets"},
            {"merge": "yes"},
        ],
        ids=str,
    )
    def test_settings_that_cannot_work_are_refused_by_name(self, bad):
        with pytest.raises(InvalidInput, match=next(iter(bad))):
            Settings(**bad)

    @pytest.mark.parametrize("question", ["", "  \n\t"])
    def test_an_empty_question_is_refused(self, question):
        with pytest.raises(InvalidInput, match="question is empty"):
            Conversation.of(question)

    def test_a_conversation_must_end_with_the_user(self):
        with pytest.raises(InvalidInput, match="'assistant'"):
            Conversation((Message("user", "hi"), Message("assistant", "hello")))
        with pytest.raises(InvalidInput, match="no question"):
            Conversation(())

    @pytest.mark.parametrize("points", [(), (Point(1, "a"), Point(1, "b"))])
    def test_a_given_skeleton_must_have_points_with_indices_of_their_own(self, points):
        with pytest.raises(InvalidInput, match="given skeleton"):
            AnswerFlow(QUESTION, skeleton=Skeleton(points))
