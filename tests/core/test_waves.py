"""Plans: points that wait for each other, openings and closings, lengths, and points that are written anew."""

from __future__ import annotations

import pytest
from said import released

from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import InvalidInput, OpeningWritten, ParentError, PointOverlap, RoleError
from skeleton_of_thought.events import (
    AnswerDone,
    AnswerRestarted,
    OverlapFound,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    RoleDone,
    RoleStarted,
    SkeletonDone,
    SkeletonRestarted,
    event_dict,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.plan_memory import PlanMemory
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call, Cancel, Conversation, PlanItem, Point, Reply, RouteDecision, Skeleton

QUESTION = Conversation.of("Which heating suits an old house?")
GRAPH = (
    "1. Gas boilers: price and fuel\n"
    "2. Heat pumps: price and noise\n"
    "3. Wood stoves: work each day\n"
    "4. Which one to choose: by house and budget (after 1, 3)\n"
)


def only(actions: list[Action], kind: type) -> list:
    return [action for action in actions if isinstance(action, kind)]


def text_of(call: Call) -> str:
    assert call.prompt is not None
    return "\n".join(message.text for message in call.prompt.messages)


class Answering:
    """A flow, its open calls, and all that it has said."""

    def __init__(self, *, settings: Settings, **options) -> None:
        self.flow = AnswerFlow(options.pop("question", QUESTION), settings=settings, **options)
        self.said: list[Action] = []
        self.open: list[Call] = []
        self.see(self.flow.start())

    def see(self, actions: list[Action]) -> list[Action]:
        self.said += actions
        for action in actions:
            if isinstance(action, Call):
                self.open.append(action)
            elif isinstance(action, Cancel):
                self.open = [call for call in self.open if call.id != action.id]
        return actions

    def call(self, what: int | str) -> Call:
        (found,) = [call for call in self.open if what in (call.stage, call.point and call.point.index)]
        return found

    def write(self, what: int | str, text: str, *, done: bool = True) -> list[Action]:
        call = self.call(what)
        actions = self.see(self.flow.delta(call.id, text)) if text else []
        if done and call in self.open:
            self.open.remove(call)
            actions = actions + self.see(self.flow.done(call.id, Reply(finish_reason="stop")))
        return actions

    def fail(self, what: int | str) -> list[Action]:
        call = self.call(what)
        self.open.remove(call)
        return self.see(self.flow.failed(call.id, ConnectionError("it broke")))

    @property
    def waiting(self) -> list[int | str]:
        return [call.point.index if call.point else call.stage for call in self.open]


def planned(text: str = GRAPH, **settings) -> Answering:
    answering = Answering(settings=Settings(**{"planning": "graph", "max_retries": 0, **settings}))
    answering.write("skeleton", text)
    return answering


class TestWaves:
    def test_a_point_starts_when_the_points_that_it_builds_on_are_written(self):
        answering = planned()
        assert answering.waiting == [1, 2, 3]
        answering.write(3, "Wood is work.")
        assert answering.waiting == [1, 2]
        answering.write(1, "Gas is cheap to install.")
        assert answering.waiting == [2, 4]
        prompt = text_of(answering.call(4))
        assert "Gas is cheap to install." in prompt
        assert "Wood is work." in prompt
        assert prompt.index("Gas is cheap") < prompt.index("Wood is work.") < prompt.rindex("Which one to choose")
        assert "by house and budget" in prompt

    def test_prompts_of_a_wave_share_all_but_their_last_words(self):
        answering = planned(GRAPH + "5. What it costs in all: by years (after 1, 3)\n")
        first = [text_of(answering.call(i)) for i in (1, 2, 3)]
        assert all("by house and budget" in text for text in first)
        answering.write(1, "Gas is cheap to install.")
        answering.write(3, "Wood is work.")
        fourth, fifth = text_of(answering.call(4)), text_of(answering.call(5))
        shared = len([1 for a, b in zip(fourth, fifth, strict=False) if a == b])
        start = next(i for i, (a, b) in enumerate(zip(fourth, fifth, strict=False)) if a != b)
        assert start > fourth.index("Wood is work.")
        assert shared >= start

    def test_events_and_the_answer_have_the_plan(self):
        answering = planned()
        found = [event_dict(event) for event in only(answering.said, PointFound)]
        assert found[3]["point"]["depends_on"] == [1, 3]
        assert found[0]["point"]["scope"] == "price and fuel"
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text {index}.")
        answer = answering.said[-1].answer
        assert [(p["scope"], p["depends_on"], p["wave"]) for p in answer.to_dict()["plan"]] == [
            ("price and fuel", [], 1),
            ("price and noise", [], 1),
            ("work each day", [], 1),
            ("by house and budget", [1, 3], 2),
        ]
        assert answer.planning == "graph"
        assert [times.wave for times in answer.timings.points] == [1, 1, 1, 2]
        assert answer.text == released(answering.said)

    def test_eager_points_start_once_two_of_them_can_be_written_side_by_side(self):
        answering = Answering(settings=Settings(planning="graph", eager=True))
        answering.write("skeleton", "1. Gas: price\n", done=False)
        assert answering.waiting == ["skeleton"]
        answering.write("skeleton", "2. Heat pumps: noise\n", done=False)
        assert answering.waiting == ["skeleton", 1, 2]
        answering.write(1, "It is cheap.")
        answering.write("skeleton", "3. The choice: by budget (after 1)\n", done=False)
        assert answering.waiting == ["skeleton", 2, 3]

    @pytest.mark.parametrize("eager", [False, True])
    def test_a_plan_without_points_side_by_side_is_answered_directly(self, eager):
        chain = "1. Mix flour: how much\n2. Knead: how long (after 1)\n3. Bake: how hot (after 2)\n"
        answering = planned(chain, eager=eager)
        assert answering.waiting == ["direct"]
        assert not only(answering.said, SkeletonDone)
        assert not only(answering.said, PointStarted)
        assert [len(event.skeleton) for event in only(answering.said, SkeletonRestarted)] == [3]
        answering.write("direct", "Bake it.")
        answer = answering.said[-1].answer
        assert answer.route == "direct"
        assert "builds on the one before" in answer.reason
        assert not answer.skeleton

    def test_a_failed_parent_by_policy(self):
        answering = planned(on_point_error="placeholder")
        answering.fail(1)
        answering.write(3, "Wood is work.")
        assert answering.waiting == [2, 4]
        prompt = text_of(answering.call(4))
        assert "Wood is work." in prompt
        assert "could not be completed" not in prompt
        answering.write(2, "Pumps hum.")
        answering.write(4, "Take wood.")
        answer = answering.said[-1].answer
        assert answer.expansions[3].missing == (1,)
        assert set(answer.errors) == {1}

        answering = planned(on_point_error="placeholder", on_parent_error="fail")
        answering.fail(1)
        answering.write(3, "Wood is work.")
        answering.write(2, "Pumps hum.")
        answer = answering.said[-1].answer
        assert isinstance(answer.errors[4], ParentError)
        assert isinstance(answer.errors[4].__cause__, ConnectionError)
        assert answer.expansions[3].attempts == 0

    def test_a_parent_of_very_many_points_may_fail(self):
        points = (Point(1, "Gas"), *(Point(i, f"Use {i}", (1,)) for i in range(2, 600)))
        settings = Settings(max_retries=0, on_point_error="placeholder", on_parent_error="fail")
        answering = Answering(settings=settings, skeleton=Skeleton(points))
        answering.fail(1)
        assert len(answering.said[-1].answer.errors) == 599

    def test_titles_stay_as_they_are(self):
        answering = planned(planning="titles")
        assert answering.waiting == [1, 2, 3, 4]
        assert not any(call.point.depends_on or call.point.scope for call in answering.open)


class TestRoles:
    def test_opening_and_closing_are_written_from_the_points(self):
        answering = planned(opening=True, closing=True)
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        assert released(answering.said) == ""
        assert answering.waiting == ["opening", "closing"]
        assert [event.role for event in only(answering.said, RoleStarted)] == ["opening", "closing"]
        for role in ("opening", "closing"):
            assert all(f"Text of point {index}." in text_of(answering.call(role)) for index in (1, 2, 3, 4))
        answering.write("closing", "So choose by budget.")
        assert released(answering.said) == ""
        answering.write("opening", "Old houses are cold.")
        answer = answering.said[-1].answer
        assert answer.text == released(answering.said)
        assert answer.text.startswith("Old houses are cold.\n\n1. Gas boilers: Text of point 1.")
        assert answer.text.endswith("\n\nSo choose by budget.")
        assert (answer.opening, answer.closing) == ("Old houses are cold.", "So choose by budget.")

    def test_an_opening_may_come_as_a_restart(self):
        answering = planned(opening="restart")
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        shown = released(answering.said)
        assert "Text of point 4." in shown
        actions = answering.write("opening", "Old houses are cold.")
        (restart,) = only(actions, AnswerRestarted)
        assert isinstance(restart.error, OpeningWritten)
        assert released(answering.said) == "Old houses are cold.\n\n" + shown == answering.said[-1].answer.text

    @pytest.mark.parametrize("live", [True, False])
    def test_a_failed_role_never_loses_the_answer(self, live):
        answering = Answering(settings=Settings(opening=True, closing=True, max_retries=1), live=live)
        answering.write("skeleton", "1. Gas\n2. Wood\n")
        answering.write(1, "It burns.")
        answering.write(2, "It burns, too.")
        answering.fail("opening")
        answering.fail("opening")
        answering.write("closing", "")
        assert answering.waiting == ["closing"]
        answering.write("closing", "")
        answer = answering.said[-1].answer
        assert answer.text == "1. Gas: It burns.\n\n2. Wood: It burns, too." == released(answering.said)
        assert isinstance(answer.role_errors["opening"], ConnectionError)
        assert "closing" in answer.role_errors
        assert [event.error is None for event in only(answering.said, RoleDone)] == [False, False]

    def test_a_role_is_short(self):
        answering = planned(closing=True)
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        answering.write("closing", "A sentence of six words here. " * 40)
        words = len(answering.said[-1].answer.closing.split())
        assert 10 < words <= 1.3 * 45

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("So take gas. It is cheap and", "So take gas."),
            ("Ask Dr. No about 3.5 kW! He knows e.g", "Ask Dr. No about 3.5 kW!"),
            ("选燃气。它很便", "选燃气。"),
            ("So take gas because it is", ""),
        ],
    )
    def test_a_closing_that_was_cut_ends_with_its_last_whole_sentence(self, text, kept):
        answering = planned(closing=True, max_retries=1)
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        answering.write("closing", text, done=False)
        answering.see(answering.flow.done(answering.call("closing").id, Reply(finish_reason="length")))
        answer = answering.said[-1].answer
        assert answer.closing == kept
        assert isinstance(answer.role_errors.get("closing"), RoleError) == (not kept)

    def test_long_reasoning_that_its_closing_mark_shows_is_no_closing(self):
        reasoning = "".join(f"I wonder about thing {i} of it. " for i in range(40))
        answering = planned("1. First I think.\n</think>\n1. Gas: price\n2. Wood: work\n", closing=True)
        for index in (1, 2):
            answering.write(index, f"Text of point {index}.")
        answering.write("closing", reasoning, done=False)
        answering.write("closing", "</think>\nSo take gas.")
        assert answering.said[-1].answer.closing == "So take gas."

    def test_one_point_needs_none(self):
        answering = planned("1. Gas\n", planning="titles", opening=True, closing=True)
        answering.write(1, "It burns.")
        assert answering.said[-1].answer.text == "1. Gas: It burns." == released(answering.said)

    def test_a_merge_takes_the_roles_as_part_of_the_draft(self):
        answering = planned(opening=True, closing=True, merge=True)
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        answering.write("opening", "Old houses are cold.")
        answering.write("closing", "So choose by budget.")
        prompt = text_of(answering.call("merge"))
        assert "Old houses are cold.\n\n1. Gas" in prompt
        assert "So choose by budget." in prompt
        answering.write("merge", "All in one text.")
        assert answering.said[-1].answer.text == "All in one text." == released(answering.said)

    def test_a_template_of_the_callers_that_fails_is_a_failed_role(self):
        class Broken:
            def render(self, conversation, values, *, prefill):
                raise KeyError("season")

        settings = Settings(closing=True)
        answering = Answering(settings=settings, prompts=PromptSet(closing=Broken()))
        answering.write("skeleton", "1. Gas\n2. Wood\n")
        answering.write(1, "It burns.")
        answering.write(2, "It burns, too.")
        answer = answering.said[-1].answer
        assert isinstance(answer.role_errors["closing"], KeyError)
        assert answer.text == "1. Gas: It burns.\n\n2. Wood: It burns, too."

    def test_an_echo_of_the_prompt_is_no_closing(self):
        answering = planned(closing=True)
        for index in (1, 2, 3, 4):
            answering.write(index, f"Text of point {index}.")
        prompt = answering.call("closing").prompt
        last = prompt.messages[-1].text
        instruction = last[last.rindex("Text of point 4.") :] if len(last) - last.rindex("4.") > 90 else last
        answering.write("closing", instruction.replace("Text of point 4.", "").strip()[:400])
        assert isinstance(answering.said[-1].answer.role_errors["closing"], RoleError)


SAME = "The price of such a system falls each year because more of them are built."


class TestRewriting:
    def test_the_later_of_two_points_that_repeat_each_other_is_written_anew_once(self):
        answering = planned("1. Gas: price\n2. Heat pumps: noise\n3. Wood: work\n", rewrite_overlap=True)
        answering.write(2, f"{SAME} Pumps hum.")
        assert not only(answering.said, PointDone)
        actions = answering.write(1, f"Gas is old. {SAME}")
        (found,) = only(actions, OverlapFound)
        assert (found.point.index, found.other.index) == (2, 1)
        assert found.share > 0.3
        assert "falls each year because more" in found.passage
        (restarted,) = only(actions, PointRestarted)
        assert isinstance(restarted.error, PointOverlap)
        assert "falls each year because more" in text_of(answering.call(2))
        assert released(answering.said).startswith("1. Gas: Gas is old.")
        assert answering.waiting == [3, 2]
        assert answering.call(2).delay == 0
        answering.write(3, "Wood is work.")
        answering.write(2, "They hum day and night, which neighbours of small gardens may not like.")
        answer = answering.said[-1].answer
        assert [each.rewritten for each in answer.expansions] == [False, True, False]
        assert answer.expansions[1].attempts == 2
        assert answer.text == released(answering.said)
        assert [event.expansion.point.index for event in only(answering.said, PointDone)] == [1, 2, 3]

    def test_a_rewrite_that_repeats_as_much_is_not_taken(self):
        answering = planned("1. Gas: price\n2. Heat pumps: noise\n", rewrite_overlap=True)
        answering.write(1, f"Gas is old. {SAME}")
        answering.write(2, f"{SAME} Pumps hum.")
        answering.write(2, f"{SAME} They hum.")
        answer = answering.said[-1].answer
        assert answer.expansions[1].text == f"{SAME} Pumps hum."
        assert (answer.expansions[1].rewritten, answer.expansions[1].attempts) == (False, 2)
        assert answer.text == released(answering.said)

    def test_a_rewrite_that_fails_keeps_the_first_text(self):
        answering = planned("1. Gas: price\n2. Heat pumps: noise\n", rewrite_overlap=True)
        answering.write(1, f"Gas is old. {SAME}")
        answering.write(2, f"{SAME} Pumps hum.")
        answering.fail(2)
        answer = answering.said[-1].answer
        assert answer.expansions[1].text == f"{SAME} Pumps hum."
        assert answer.errors == {}
        assert answer.text == released(answering.said)

    def test_a_child_may_quote_its_parent(self):
        answering = planned("1. Gas: price\n2. Wood: work\n3. The choice: by budget (after 1)\n", rewrite_overlap=True)
        answering.write(1, SAME)
        answering.write(2, "Wood is work.")
        answering.write(3, SAME)
        assert not only(answering.said, OverlapFound)
        assert isinstance(answering.said[-1], AnswerDone)

    def test_off_by_default(self):
        answering = planned("1. Gas: price\n2. Heat pumps: noise\n")
        answering.write(1, SAME)
        answering.write(2, SAME)
        assert isinstance(answering.said[-1], AnswerDone)
        assert not only(answering.said, OverlapFound)


class TestLength:
    def test_the_limit_of_the_question_is_divided_over_the_points(self):
        question = Conversation.of("Which heating suits an old house? Answer in 120 words.")
        answering = Answering(settings=Settings(), question=question)
        answering.write("skeleton", "1. Gas\n2. Pumps\n3. Wood\n4. The choice\n")
        assert all("30 words" in text_of(answering.call(index)) for index in (1, 2, 3, 4))
        for index in (1, 2, 3, 4):
            answering.write(index, "A sentence of six words here. " * 30)
        answer = answering.said[-1].answer
        assert all(20 <= len(each.text.split()) <= 39 for each in answer.expansions)
        assert {each.finish_reason for each in answer.expansions} == {"max_words"}
        assert answer.finish_reason == "stop"
        assert answer.text == released(answering.said)

    @pytest.mark.parametrize("planning", ["titles", "graph"])
    @pytest.mark.parametrize("join", ["numbered", "headings", "paragraphs"])
    @pytest.mark.parametrize("roles", [False, True])
    def test_an_answer_stays_within_the_limit_with_its_titles(self, planning, join, roles):
        question = Conversation.of("Which heating suits an old house? Answer in 100 words.")
        settings = Settings(planning=planning, join=join, opening=roles, closing=roles, eager=True)
        answering = Answering(settings=settings, question=question)
        lines = [f"{i}. The heating number {i} of all those that exist: its price\n" for i in range(1, 9)]
        answering.write("skeleton", "".join(lines))
        while answering.open:
            answering.write(answering.waiting[0], "words without any end of a sentence, " * 60)
        assert 70 <= len(answering.said[-1].answer.text.split()) <= 130

    def test_long_reasoning_that_its_closing_mark_shows_is_no_text(self):
        question = Conversation.of("Which heating suits an old house? Answer in 120 words.")
        answering = Answering(settings=Settings(), question=question)
        answering.write("skeleton", "I think first.\n</think>\n1. Gas\n2. Wood\n")
        answering.write(1, "".join(f"I wonder about thing {i} of it. " for i in range(40)), done=False)
        answering.write(1, "</think>\nIt burns.")
        answering.write(2, "It burns, too.")
        assert answering.said[-1].answer.text == "1. Gas: It burns.\n\n2. Wood: It burns, too."

    @pytest.mark.parametrize("words", [-5, 0, 1, True, 80])
    def test_a_plan_as_data_has_lengths_that_a_point_can_have(self, words):
        answering = Answering(settings=Settings(planning="scoped"), structured=True)
        plan = (PlanItem("Gas", "price", words=words), PlanItem("Wood", "work"))
        answering.see(answering.flow.done(answering.call("skeleton").id, Reply(plan=plan)))
        assert answering.call(1).point.words == (80 if words == 80 else None)


class TestAuto:
    def test_the_router_chooses_the_graph(self):
        router = _Advising("graph")
        answering = Answering(settings=Settings(planning="auto"), router=router)
        assert router.asked.graph
        assert "after" in text_of(answering.call("skeleton"))
        answering.write("skeleton", GRAPH)
        assert answering.waiting == [1, 2, 3]
        answering = Answering(settings=Settings(planning="auto"), router=_Advising(None))
        answering.write("skeleton", GRAPH)
        assert answering.waiting == [1, 2, 3, 4]
        answering = Answering(settings=Settings(planning="titles"), router=_Advising("graph"))
        answering.write("skeleton", GRAPH)
        assert answering.waiting == [1, 2, 3, 4]

    def test_a_model_that_failed_twice_is_not_asked_for_a_graph_again(self):
        memory = PlanMemory()
        for _ in range(2):
            answering = Answering(settings=Settings(planning="auto"), router=_Advising("graph"), plans=memory)
            answering.write("skeleton", "1. Gas\n2. Wood\n")
            answering.write(1, "It burns.")
            answering.write(2, "It burns, too.")
        router = _Advising("graph")
        answering = Answering(settings=Settings(planning="auto"), router=router, plans=memory)
        assert not router.asked.graph
        answering.write("skeleton", GRAPH)
        assert answering.waiting == [1, 2, 3, 4]


class _Advising:
    def __init__(self, planning):
        self.decision = RouteDecision(True, planning=planning, reason="as the test says")

    def at_once(self, conversation):
        self.asked = conversation.request
        return self.decision

    route = at_once

    async def aroute(self, conversation):
        return self.decision


def test_a_given_skeleton_may_be_a_graph():
    points = (Point(1, "Gas"), Point(2, "Wood"), Point(3, "The choice", (2, 1, 3, 9)))
    answering = Answering(settings=Settings(), skeleton=Skeleton(points))
    assert answering.waiting == [1, 2]
    answering.write(2, "It burns.")
    answering.write(1, "It costs.")
    assert answering.call(3).point.depends_on == (1, 2)
    assert "It costs." in text_of(answering.call(3))
    answering.write(3, "Take gas.")
    assert answering.said[-1].answer.planning == "graph"


@pytest.mark.parametrize(
    "odd", [{"depends_on": None}, {"depends_on": 1}, {"depends_on": "1"}, {"words": 0}, {"words": "80"}, {"scope": 5}]
)
def test_a_given_point_that_cannot_be_used_is_refused(odd):
    with pytest.raises(InvalidInput, match=f"Point 2 of the given skeleton: {next(iter(odd))} must be"):
        AnswerFlow(QUESTION, skeleton=Skeleton((Point(1, "Gas"), Point(2, "Wood", **odd))))


def test_a_failed_retrieval_is_not_taken_for_one_that_found_nothing():
    settings = Settings(rewrite_overlap=True, on_point_error="placeholder", max_retries=0)
    answering = Answering(settings=settings, retrieval="per_point", nothing_found="Nothing was found.")
    answering.write("skeleton", "1. Gas\n2. Wood\n3. Pumps\n")
    first, second, third = answering.open
    answering.see(answering.flow.done(first.id, Reply(sources=("a",), context="On gas.")))
    answering.see(answering.flow.failed(second.id, ConnectionError("it broke")))
    answering.see(answering.flow.done(third.id, Reply(sources=("c",), context="On pumps.")))
    answering.open = [call for call in answering.open if call.stage == "point"]
    answering.write(1, "Gas burns.")
    answering.write(3, "Pumps hum.")
    answer = answering.said[-1].answer
    assert isinstance(answer.errors[2], ConnectionError)
    assert "Nothing was found." not in answer.text == released(answering.said)
