"""Points whose call succeeds and whose reply is of no use: blocked, refused, broken or empty."""

from __future__ import annotations

import enum
import pickle
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from driving import in_threads, on_the_loop

from skeleton_of_thought._cli.diagnostics import shortcomings
from skeleton_of_thought.adapters.finish_reasons import FAILED, FINISH_REASONS, describe_failure, reply_error
from skeleton_of_thought.adapters.replies import ReplyEnd, ending, read_finish_reason
from skeleton_of_thought.board import Action
from skeleton_of_thought.errors import MergeError, PointError, ReplyError, SkeletonError, SotError
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    PointDelta,
    PointFound,
    PointRestarted,
    SkeletonDone,
    SkeletonRestarted,
)
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet, PromptTemplate
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Call, Cancel, Conversation, Expansion, Point, Reply, RouteDecision, Usage

QUESTION = Conversation.of("How do I sleep better?")
GONE = Settings(on_point_error="placeholder", placeholder="(gone)")


def calls(actions: list[Action]) -> list[Call]:
    return [a for a in actions if isinstance(a, Call)]


def only(actions: list[Action], kind: type) -> list:
    return [a for a in actions if isinstance(a, kind)]


def started(text: str = "1. Sleep\n2. Eat\n", settings: Settings | None = None, **details) -> tuple[AnswerFlow, list]:
    """A flow whose skeleton has been written, and its point calls."""
    flow = AnswerFlow(QUESTION, settings=settings, **details)
    (skeleton,) = calls(flow.start())
    return flow, calls(flow.delta(skeleton.id, text) + flow.done(skeleton.id))


def end(flow: AnswerFlow, call: Call, text: str = "Well.", reply: Reply | None = None) -> list[Action]:
    flow.opened(call.id)
    return flow.delta(call.id, text) + flow.done(call.id, reply or Reply(finish_reason="stop"))


def the_answer(actions: list[Action]) -> Answer:
    (done,) = only(actions, AnswerDone)
    return done.answer


# --- which replies failed -------------------------------------------------------------------------

BLOCKED = ["content_filter", "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"]
BLOCKED += ["guardrail_intervened", "content_filtered", "ERROR_TOXIC", "sensitive", "MODEL_ARMOR", "Content_Filter"]
BROKEN = ["error", "ERROR", "OTHER", "LANGUAGE", "MALFORMED_FUNCTION_CALL", "malformed_model_output", "failed"]
BROKEN += ["cancelled", "abort", "insufficient_system_resource", "network_error"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *[(word, "content_filter") for word in BLOCKED],
        *[(word, "error") for word in BROKEN],
        ("refusal", "refusal"),
        ("REFUSAL", "refusal"),
    ],
)
def test_a_reply_that_ends_by_such_a_word_is_a_failed_attempt(word, kind):
    flow, (one, two) = started()
    end(flow, two)
    actions = end(flow, one, "", Reply(finish_reason=word))
    (restarted,) = only(actions, PointRestarted)
    assert isinstance(restarted.error, ReplyError)
    assert restarted.error.finish_reason == kind
    assert word in str(restarted.error)
    (again,) = calls(actions)
    answer = the_answer(end(flow, again))
    assert (answer.text, answer.errors) == ("1. Sleep: Well.\n\n2. Eat: Well.", {})
    assert (answer.finish_reason, [e.attempts for e in answer.expansions]) == ("stop", [2, 1])


@pytest.mark.parametrize("word", ["stop", "end_turn", "STOP", "COMPLETE", "eos_token", "stop_sequence"])
def test_a_reply_that_ends_by_itself_is_a_good_one(word):
    flow, (one, two) = started()
    answer = the_answer(end(flow, one, reply=Reply(finish_reason=word)) + end(flow, two))
    assert [e.finish_reason for e in answer.expansions] == ["stop", "stop"]
    assert [e.attempts for e in answer.expansions] == [1, 1]


@pytest.mark.parametrize("word", ["pause_turn", "FINISH_REASON_UNSPECIFIED", "something new"])
def test_an_unknown_word_is_no_failure_and_stays_as_it_is(word):
    flow, (one, two) = started()
    answer = the_answer(end(flow, one, reply=Reply(finish_reason=word)) + end(flow, two))
    assert ([e.finish_reason for e in answer.expansions], answer.finish_reason) == ([word, "stop"], "stop")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "<think>I should write about sleep.</think>",
        "<think>I should wri",
        "<think>Hm.</think>\n\n",
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_a_reply_without_text_is_a_failed_attempt(text, live):
    flow, (one, _) = started(live=live)
    actions = end(flow, one, text)
    (restarted,) = only(actions, PointRestarted)
    assert isinstance(restarted.error, ReplyError)
    assert [(call.point.index, call.attempt) for call in calls(actions)] == [(1, 2)]
    assert only(actions, PointDelta) == []


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_pieces_of_a_reply_do_not_matter(size):
    flow, (one, _) = started()
    text = "<think>Sleep is good.</think> \n"
    for i in range(0, len(text), size):
        flow.delta(one.id, text[i : i + size])
    assert len(only(flow.done(one.id), PointRestarted)) == 1


@pytest.mark.parametrize("text", ["1. Sleep", "**Sleep**:\n", "Sleep.", "1.", "<think>Hm.</think>Sleep"])
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_reply_that_only_repeats_the_title_is_a_good_one(text, live, size):
    flow, (one, two) = started(live=live)
    for i in range(0, len(text), size):
        flow.delta(one.id, text[i : i + size])
    answer = the_answer(flow.done(one.id) + end(flow, two))
    assert (answer.text, answer.errors, answer.finish_reason) == ("1. Sleep\n\n2. Eat: Well.", {}, "stop")
    assert [e.attempts for e in answer.expansions] == [1, 1]


def test_a_title_in_the_reasoning_is_no_text():
    flow, (one, _) = started()
    assert len(only(end(flow, one, "1. Sleep</think>\n"), PointRestarted)) == 1


def test_a_reply_that_only_repeats_the_prefill_is_a_failed_attempt():
    prompts = PromptSet(point=PromptTemplate("Write {title}", prefill="As asked:"))
    flow, (one, _) = started(prompts=prompts, prefill={"point"})
    assert len(only(end(flow, one, "As asked:"), PointRestarted)) == 1


def test_a_refusal_counts_whatever_the_finish_reason_says():
    flow, (_, two) = started()
    (restarted,) = only(end(flow, two, "I am", Reply(finish_reason="stop", refusal="No, sorry.")), PointRestarted)
    assert restarted.error.finish_reason == "refusal"
    assert "No, sorry." in str(restarted.error)


@pytest.mark.parametrize(
    ("reply", "wrote", "words"),
    [
        (Reply(finish_reason="SAFETY"), True, ["content filter", "'SAFETY'", "safety settings"]),
        (Reply(finish_reason="refusal"), False, ["refused", "'refusal'"]),
        (Reply(finish_reason="length"), False, ["token limit", "raise max_tokens", "reasoning"]),
        (Reply(finish_reason="stop", instead="tool calls"), False, ["called a tool", "without tools"]),
        (Reply(finish_reason="tool_use"), False, ["called a tool"]),
        (Reply(finish_reason="stop", instead="reasoning"), False, ["has reasoning, but no text"]),
        (Reply(), True, ["no text"]),
        (Reply(), False, ["empty"]),
    ],
)
def test_the_message_says_what_happened_and_what_to_do(reply, wrote, words):
    message = str(reply_error(reply, wrote=wrote))
    assert all(word in message for word in words), message
    assert message[0].isupper()
    assert message.endswith(".")


def test_the_error_is_one_of_ours_and_can_be_pickled():
    error = reply_error(Reply(finish_reason="SAFETY"))
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, SotError)
    assert (str(copy), copy.finish_reason) == (str(error), "content_filter")


def test_every_word_has_a_meaning_that_the_core_knows():
    assert set(FINISH_REASONS.values()) == {"stop", "length", "tool_calls", *FAILED}
    assert all(word == word.lower() for word in FINISH_REASONS)


# --- the policy for points ------------------------------------------------------------------------


@pytest.mark.parametrize("live", [True, False])
def test_a_point_that_stays_blocked_raises_with_the_reply_as_its_cause(live):
    flow, (one, _) = started(live=live, settings=Settings(max_retries=2))
    for attempt in (1, 2, 3):
        actions = end(flow, one, "", Reply(Usage(9, attempt), "SAFETY"))
        if attempt < 3:
            (one,) = calls(actions)
    (failed,) = only(actions, AnswerFailed)
    assert isinstance(failed.error, PointError)
    assert isinstance(failed.error.__cause__, ReplyError)
    assert "3 attempt(s)" in str(failed.error)
    answer = failed.error.answer
    assert (answer.finish_reason, answer.expansions[0].finish_reason) == ("content_filter", "content_filter")
    assert answer.expansions[0].usage == Usage(27, 6)


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (Reply(finish_reason="SAFETY"), "", "content_filter"),
        (Reply(refusal="No."), "", "refusal"),
        (Reply(finish_reason="ERROR"), "", "error"),
        (Reply(finish_reason="MAX_TOKENS"), "<think>Hm", "length"),
        (Reply(finish_reason="stop"), "", "error"),
        (Reply(finish_reason="tool_calls"), "", "error"),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_a_placeholder_keeps_the_place_and_the_answer_tells_it(reply, text, reason, live):
    flow, (one, two) = started(live=live, settings=GONE)
    (again,) = calls(end(flow, one, text, reply))
    actions = end(flow, again, text, reply) + end(flow, two)
    answer = the_answer(actions)
    assert answer.text == "1. Sleep: (gone)\n\n2. Eat: Well."
    assert answer.text.endswith("".join(a.text for a in only(actions, AnswerDelta))[-20:])
    assert [e.finish_reason for e in answer.expansions] == [reason, "stop"]
    assert answer.finish_reason == reason
    assert isinstance(answer.errors[1], ReplyError)


def test_a_point_that_raised_ends_as_an_error():
    flow, (one, two) = started(settings=Settings(max_retries=0, on_point_error="placeholder"))
    answer = the_answer(end(flow, two) + flow.failed(one.id, ConnectionError("reset")))
    assert ([e.finish_reason for e in answer.expansions], answer.finish_reason) == (["error", "stop"], "error")


def test_text_that_the_reader_has_is_not_written_again():
    flow, (one, two) = started(settings=GONE)
    shown = flow.delta(one.id, "At ten, on all days. And")
    assert only(shown, AnswerDelta)
    actions = flow.done(one.id, Reply(finish_reason="content_filter"))
    assert (calls(actions), only(actions, PointRestarted)) == ([], [])
    answer = the_answer(end(flow, two))
    assert answer.expansions[0].text == "At ten, on all days. And (gone)"
    assert (answer.expansions[0].attempts, answer.finish_reason) == (1, "content_filter")


def test_text_that_was_held_back_is_not_shown_before_the_reply_is_judged():
    # The cleaner holds this text back until the end, as it may be an echo of the title.
    flow, (one, _) = started()
    assert only(flow.delta(one.id, "Sle"), AnswerDelta) == []
    actions = flow.done(one.id, Reply(finish_reason="content_filter"))
    assert only(actions, PointDelta) == []
    assert [call.attempt for call in calls(actions)] == [2]


def test_a_blocked_text_that_no_reader_has_is_written_again():
    flow, (one, two) = started()
    actions = end(flow, two, "Half a", Reply(finish_reason="content_filter"))
    (again,) = calls(actions)
    answer = the_answer(end(flow, again, "All of it.") + end(flow, one))
    assert answer.text == "1. Sleep: Well.\n\n2. Eat: All of it."


def test_without_live_a_blocked_text_is_written_again_and_kept_in_the_end():
    flow, (one, two) = started(live=False, settings=GONE)
    (again,) = calls(end(flow, one, "Half a", Reply(finish_reason="content_filter")))
    answer = the_answer(end(flow, again, "Half", Reply(finish_reason="content_filter")) + end(flow, two))
    assert answer.text == "1. Sleep: Half (gone)\n\n2. Eat: Well."


def test_a_failed_point_is_left_out_of_the_merge():
    settings = Settings(merge=True, max_retries=0, on_point_error="placeholder", placeholder="(gone)")
    flow, (one, two, three) = started("1. Sleep\n2. Eat\n3. Walk\n", settings=settings)
    end(flow, one, "", Reply(finish_reason="SAFETY"))
    end(flow, two)
    (merge,) = calls(end(flow, three))
    assert "Sleep" not in merge.prompt.messages[-1].text.split("Eat")[-1]
    answer = the_answer(end(flow, merge, "All in one."))
    assert (answer.text, answer.finish_reason) == ("All in one.\n\n1. Sleep: (gone)", "content_filter")


# --- texts that are cut ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["length", "MAX_TOKENS", "max_tokens", "model_length", "max_output_tokens"])
def test_a_cut_text_is_kept_and_shows_in_the_answer(word):
    flow, (one, two) = started()
    answer = the_answer(end(flow, one, "At te", Reply(finish_reason=word)) + end(flow, two))
    assert answer.text == "1. Sleep: At te\n\n2. Eat: Well."
    assert [e.finish_reason for e in answer.expansions] == ["length", "stop"]
    assert (answer.finish_reason, answer.errors) == ("length", {})


def test_the_answer_takes_over_the_worst_end():
    ends = ["stop", "length", "refusal", "SAFETY", "error"]
    seen = []
    for count in range(1, len(ends) + 1):
        settings = Settings(max_retries=0, on_point_error="placeholder")
        flow, opened = started("".join(f"{i}. Point {i}\n" for i in range(1, count + 1)), settings)
        for call, word in zip(opened, ends, strict=False):
            actions = end(flow, call, reply=Reply(finish_reason=word))
        seen.append(the_answer(actions).finish_reason)
    assert seen == ["stop", "length", "refusal", "content_filter", "error"]


def test_a_loop_shows_in_the_answer():
    flow, (one, two) = started(settings=Settings(stop_loops=True))
    end(flow, two)
    answer = the_answer(flow.delta(one.id, "It is a good day to be outside. " * 9))
    assert ([e.finish_reason for e in answer.expansions], answer.finish_reason) == (["loop", "stop"], "loop")


def test_a_backend_that_says_nothing_leaves_the_ends_open():
    flow, (one, two) = started()
    answer = the_answer(end(flow, one, reply=Reply()) + end(flow, two, reply=Reply()))
    assert ([e.finish_reason for e in answer.expansions], answer.finish_reason) == ([None, None], "stop")


# --- direct answers keep their own end ------------------------------------------------------------


def asked_directly(**options: Any) -> tuple[AnswerFlow, Call]:
    flow = AnswerFlow(QUESTION, router=lambda question: False, **options)
    (route,) = calls(flow.start())
    (direct,) = calls(flow.done(route.id, Reply(decision=RouteDecision(False))))
    return flow, direct


@pytest.mark.parametrize(
    ("text", "word"),
    [*[("Half", word) for word in ("SAFETY", "end_turn", "length", "error", None)], ("", "SAFETY"), ("", "length")],
)
def test_a_direct_answer_keeps_its_own_end(word, text):
    flow, direct = asked_directly()
    answer = the_answer(end(flow, direct, text, Reply(finish_reason=word)))
    assert (answer.text, answer.finish_reason, answer.route) == (text, word, "direct")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(finish_reason="stop", refusal="No."),
        Reply(finish_reason="tool_calls"),
        Reply(finish_reason="stop", instead="tool calls"),
        Reply(finish_reason="stop", instead="other content"),
        Reply(finish_reason="length", instead="reasoning"),
    ],
)
def test_a_direct_answer_may_have_something_else_than_text(reply):
    flow, direct = asked_directly()
    answer = the_answer(flow.done(direct.id, reply))
    assert (answer.text, answer.finish_reason) == ("", reply.finish_reason)


EMPTY = [Reply(), Reply(finish_reason="stop"), Reply(finish_reason="stop", instead="reasoning"), Reply(Usage(3, 0))]
EMPTY += [Reply(finish_reason="error"), Reply(finish_reason="end_turn"), Reply(doubtful=True)]


@pytest.mark.parametrize("reply", EMPTY)
@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("live", [True, False])
def test_an_empty_direct_answer_is_asked_for_again_and_then_an_error(reply, text, live):
    flow, direct = asked_directly(live=live, settings=Settings(max_retries=2, backoff=0.5))
    delays = []
    for _ in range(2):
        (direct,) = calls(end(flow, direct, text, reply))
        delays.append((direct.stage, direct.attempt, direct.delay))
    assert delays == [("direct", 2, 0.5), ("direct", 3, 1.0)]
    (failed,) = only(end(flow, direct, text, reply), AnswerFailed)
    assert isinstance(failed.error, ReplyError)
    assert failed.error.finish_reason == "error"
    assert flow.finished


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("stop_loops", [True, False])
def test_the_second_reply_is_the_answer_after_an_empty_one(live, stop_loops):
    flow, direct = asked_directly(live=live, settings=Settings(stop_loops=stop_loops))
    actions = end(flow, direct, "\n", Reply(finish_reason="stop"))
    (again,) = calls(actions)
    actions += end(flow, again, "Yes.", Reply(finish_reason="stop"))
    answer = the_answer(actions)
    assert (answer.text.strip(), answer.finish_reason) == ("Yes.", "stop")
    assert "".join(delta.text for delta in only(actions, AnswerDelta)) == answer.text


def test_an_error_of_a_direct_call_is_raised_at_once():
    flow, direct = asked_directly()
    (failed,) = only(flow.failed(direct.id, OSError("down")), AnswerFailed)
    assert isinstance(failed.error, OSError)


# --- streams that may have broken off ---------------------------------------------------------------

DOUBTFUL = Reply(doubtful=True)


@pytest.mark.parametrize("stage", ["skeleton", "point", "merge"])
@pytest.mark.parametrize("live", [True, False])
def test_a_doubtful_reply_is_asked_for_again_and_then_taken(stage, live):
    texts = {"skeleton": "1. Sleep\n2. Ea", "point": "Well.", "merge": "All in one."}
    flow = AnswerFlow(QUESTION, settings=Settings(merge=True, backoff=0.5), live=live)
    todo, doubts, stages = [a for a in flow.start() if isinstance(a, Call)], [DOUBTFUL], []
    while todo:
        call = todo.pop(0)
        stages.append((call.stage, call.attempt, call.delay))
        reply = doubts.pop() if doubts and call.stage == stage else Reply(finish_reason="stop")
        text = texts[call.stage] + ("t" if call.stage == "skeleton" and reply is not DOUBTFUL else "")
        held = call.stage == "merge" and reply is DOUBTFUL
        actions = end(flow, call, "" if held else text, reply)
        todo += calls(actions)
    answer = the_answer(actions)
    assert (answer.text, answer.skeleton.titles) == ("All in one.", ("Sleep", "Eat"))
    assert stages.count((stage, 2, 0.5)) == 1
    assert len(stages) == 5


def test_without_attempts_a_doubtful_reply_is_whole():
    flow, actions = after_skeleton("1. Sleep\n2. Eat", DOUBTFUL, settings=Settings(max_retries=0))
    one, two = calls(actions)
    answer = the_answer(end(flow, one, reply=DOUBTFUL) + end(flow, two, reply=DOUBTFUL))
    assert answer.text == "1. Sleep: Well.\n\n2. Eat: Well."


def test_a_doubtful_point_that_was_shown_is_whole():
    flow, (one, two) = started()
    actions = flow.delta(one.id, "It is well ") + flow.delta(one.id, "known. ")
    assert only(actions, AnswerDelta)
    assert calls(flow.done(one.id, DOUBTFUL)) == []
    assert the_answer(end(flow, two)).text.startswith("1. Sleep: It is well known.")


def test_a_doubtful_direct_answer_is_whole():
    flow, direct = asked_directly()
    assert the_answer(end(flow, direct, "Yes.", DOUBTFUL)).text == "Yes."


# In a live answer the heading of an eager point shows at once.
@pytest.mark.parametrize(("live", "eager"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("how", ["fails", "doubtful"])
def test_a_broken_skeleton_takes_its_points_back(live, eager, how):
    flow = AnswerFlow(QUESTION, settings=Settings(eager=eager), live=live)
    (call,) = calls(flow.start())
    found = flow.delta(call.id, "1. Sleep\n2. Ea")
    points = calls(found)
    assert [p.title for p in (event.point for event in only(found, PointFound))] == ["Sleep"]
    assert len(points) == eager
    broken = flow.failed(call.id, OSError("reset")) if how == "fails" else flow.done(call.id, DOUBTFUL)
    assert [cancel.id for cancel in broken if isinstance(cancel, Cancel)] == [p.id for p in points]
    assert [event.skeleton.titles for event in only(broken, SkeletonRestarted)] == [("Sleep",)]
    (again,) = calls(broken)
    opened = calls(end(flow, again, "1. Rest\n2. Eat", Reply(finish_reason="stop")))
    actions = [action for point in opened for action in end(flow, point)]
    assert the_answer(actions).text == "1. Rest: Well.\n\n2. Eat: Well."


def test_a_broken_skeleton_whose_point_was_shown_fails():
    flow = AnswerFlow(QUESTION, settings=Settings(eager=True))
    (call,) = calls(flow.start())
    (point,) = calls(flow.delta(call.id, "1. Sleep\n2. Ea"))
    assert only(flow.delta(point.id, "It is well known. "), AnswerDelta)
    (failed,) = only(flow.failed(call.id, OSError("reset")), AnswerFailed)
    assert isinstance(failed.error, OSError)


# --- skeletons ------------------------------------------------------------------------------------


def after_skeleton(text: str, *replies: Reply, settings: Settings | None = None) -> tuple[AnswerFlow, list[Action]]:
    flow = AnswerFlow(QUESTION, settings=settings)
    (call,) = calls(flow.start())
    for i, reply in enumerate(replies):
        actions = flow.delta(call.id, text) + flow.done(call.id, reply)
        if i + 1 < len(replies):
            (call,) = calls(actions)
    return flow, actions


@pytest.mark.parametrize(
    ("text", "reply", "words"),
    [
        ("", Reply(finish_reason="SAFETY"), "a content filter blocked the reply (finish reason 'SAFETY')"),
        ("I cannot", Reply(finish_reason="refusal"), "the model refused"),
        ("", Reply(finish_reason="stop", refusal="No."), "the model refused: 'No.'"),
        ("", Reply(finish_reason="length"), "token limit"),
        ("", Reply(finish_reason="tool_calls"), "called a tool"),
    ],
)
def test_a_skeleton_that_failed_is_left_to_the_model_and_the_reason_says_so(text, reply, words):
    flow, actions = after_skeleton(text, reply)
    (direct,) = calls(actions)
    assert direct.stage == "direct"
    answer = the_answer(end(flow, direct, "", Reply(finish_reason="SAFETY")))
    assert answer.reason.startswith("there is no skeleton: ")
    assert words in answer.reason
    assert (answer.text, answer.finish_reason, answer.skeleton.points) == ("", "SAFETY", ())


@pytest.mark.parametrize("reply", [reply for reply in EMPTY if reply.instead != "reasoning"])
@pytest.mark.parametrize("structured", [True, False])
def test_an_empty_skeleton_is_asked_for_again_and_then_left_to_the_model(reply, structured):
    flow = AnswerFlow(QUESTION, settings=Settings(backoff=0.5), structured=structured)
    (call,) = calls(flow.start())
    (again,) = calls(flow.done(call.id, reply))
    assert (again.stage, again.attempt, again.delay, again.structured) == ("skeleton", 2, 0.5, False)
    (direct,) = calls(flow.done(again.id, reply))
    assert direct.stage == "direct"
    answer = the_answer(end(flow, direct, "No."))
    assert answer.reason.startswith("there is no skeleton: ")
    assert answer.text == "No."


@pytest.mark.parametrize("word", ["content_filter", "refusal", "SAFETY"])
def test_half_a_title_alone_is_no_skeleton(word):
    _, actions = after_skeleton("1. Hal", Reply(finish_reason=word))
    assert [call.stage for call in calls(actions)] == ["direct"]
    flow = AnswerFlow(QUESTION, structured=True)
    (call,) = calls(flow.start())
    actions = flow.done(call.id, Reply(titles=("Hal",), finish_reason=word))
    assert [call.stage for call in calls(actions)] == ["direct"]


def test_prose_is_still_a_skeleton_without_points():
    flow, actions = after_skeleton("It depends.", Reply(finish_reason="stop"))
    assert the_answer(end(flow, *calls(actions))).reason == "the skeleton had 0 usable point(s)"


def test_a_skeleton_that_ended_by_an_error_is_asked_for_again():
    _, actions = after_skeleton("1. Sl", Reply(finish_reason="error"))
    (again,) = calls(actions)
    assert (again.stage, again.attempt) == ("skeleton", 2)
    _, actions = after_skeleton("1. Sl", Reply(finish_reason="error"), Reply(finish_reason="error"))
    assert [call.stage for call in calls(actions)] == ["direct"]


@pytest.mark.parametrize("word", ["content_filter", "SAFETY", "refusal", "error"])
def test_a_skeleton_that_broke_off_loses_its_last_line_and_the_answer_tells_it(word):
    flow, actions = after_skeleton("1. Sleep\n2. Eat\n3. Wal", Reply(finish_reason=word))
    assert only(actions, SkeletonDone)[0].skeleton.titles == ("Sleep", "Eat")
    one, two = calls(actions)
    assert the_answer(end(flow, one) + end(flow, two)).finish_reason == ending(Reply(finish_reason=word))


def test_on_request_a_blocked_skeleton_raises_and_names_the_filter():
    _, actions = after_skeleton("", Reply(finish_reason="SAFETY"), settings=Settings(on_empty_skeleton="raise"))
    (failed,) = only(actions, AnswerFailed)
    assert isinstance(failed.error, SkeletonError)
    assert isinstance(failed.error.__cause__, ReplyError)


def test_titles_as_data_need_no_text():
    flow = AnswerFlow(QUESTION, structured=True)
    (call,) = calls(flow.start())
    actions = flow.done(call.id, Reply(titles=("Sleep", "Eat"), finish_reason="tool_calls"))
    assert [call.point.title for call in calls(actions)] == ["Sleep", "Eat"]


# --- merges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["SAFETY", "refusal", "error", "MAX_TOKENS", "length", "Content_Filter"])
def test_a_merge_that_was_blocked_or_cut_leaves_the_points(word):
    flow, (one, two) = started(settings=Settings(merge=True))
    end(flow, one)
    (merge,) = calls(end(flow, two))
    answer = the_answer(end(flow, merge, "All in", Reply(finish_reason=word)))
    assert answer.text == "1. Sleep: Well.\n\n2. Eat: Well."
    assert isinstance(answer.merge_error, MergeError)
    assert repr(word) in str(answer.merge_error)
    assert (answer.merged, answer.finish_reason) == (False, "stop")


def test_a_merge_with_a_refusal_leaves_the_points():
    flow, (one, two) = started(settings=Settings(merge=True))
    end(flow, one)
    (merge,) = calls(end(flow, two))
    answer = the_answer(end(flow, merge, "", Reply(finish_reason="stop", refusal="No.")))
    assert "'No.'" in str(answer.merge_error)


# --- what the providers send ----------------------------------------------------------------------


class StringReason(enum.StrEnum):
    SAFETY = "SAFETY"


class NumberedReason(enum.IntEnum):
    STOP = 1
    SAFETY = 3


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"stopReason": "guardrail_intervened"}, "guardrail_intervened"),
        ({"stopReason": "max_tokens"}, "length"),
        ({"finishReason": "SAFETY"}, "SAFETY"),
        ({"completionReason": "CONTENT_FILTERED"}, "CONTENT_FILTERED"),
        ({"finish_reason": StringReason.SAFETY}, "SAFETY"),
        ({"finish_reason": NumberedReason.SAFETY}, "SAFETY"),
        (SimpleNamespace(finish_reason=NumberedReason.STOP), "STOP"),
        ({"prompt_feedback": {"block_reason": "PROHIBITED_CONTENT"}}, "PROHIBITED_CONTENT"),
        ({"prompt_feedback": SimpleNamespace(block_reason=StringReason.SAFETY)}, "SAFETY"),
        ({"prompt_feedback": {"block_reason": 0, "safety_ratings": []}, "finish_reason": "STOP"}, "STOP"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "failed"}, "failed"),
        ({"status": "cancelled"}, "cancelled"),
        ({"status": "in_progress"}, None),
        ({"status": {"code": 3}}, None),
        ({"finish_reason": "model_context_window_exceeded"}, "length"),
        ({"finish_reason": "FinishReason.SAFETY"}, "SAFETY"),
        ({"finish_reason": "FinishReason.MAX_TOKENS"}, "length"),
    ],
)
def test_the_end_is_found_where_the_providers_have_it(data, word):
    found = read_finish_reason(data)
    assert (found, type(found)) == (word, str if word else type(None))


def test_a_refusal_and_other_content_are_part_of_the_reply():
    reply = ReplyEnd(finish_reason="stop", refusal="No.", instead="reasoning").reply()
    assert (reply.refusal, reply.instead, ending(reply)) == ("No.", "reasoning", "refusal")
    assert describe_failure(reply)[0] == "the model refused: 'No.'"


# --- both drivers, and the command ----------------------------------------------------------------


class Model:
    """Writes its second point only on the second attempt."""

    def items(self, call: Call) -> list[str | Reply]:
        if call.stage == "skeleton":
            return ["1. Sleep\n2. Eat\n"]
        if call.point is not None and (call.point.index, call.attempt) == (2, 1):
            return ["<think>Hm.</think>", Reply(Usage(5, 3), "stop")]
        return ["Well.", Reply(Usage(5, 1), "stop")]

    def open(self, call: Call, position: int) -> Iterator[str | Reply]:
        yield from self.items(call)

    async def aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        for item in self.items(call):
            yield item


@pytest.mark.parametrize("run", [in_threads, on_the_loop])
@pytest.mark.parametrize("live", [True, False])
def test_both_drivers_write_a_failed_point_again(run, live):
    events = run(Model(), [AnswerFlow(QUESTION, settings=Settings(backoff=0), live=live)])
    answer = the_answer([event for _, event in events])
    assert answer.text == "1. Sleep: Well.\n\n2. Eat: Well."
    assert [e.attempts for e in answer.expansions] == [1, 2]
    assert answer.expansions[1].usage == Usage(10, 4)
    assert answer.usage_by_stage["point"] == Usage(15, 5)


def lines(answer: Answer) -> list[str]:
    return list(shortcomings(answer, str))


def test_the_command_reports_texts_that_are_cut():
    points = (Point(1, "Sleep"), Point(2, "Eat"))
    error = reply_error(Reply(finish_reason="SAFETY"))
    expansions = (
        Expansion(points[0], "At te", finish_reason="length"),
        Expansion(points[1], "(gone)", error=error, finish_reason=error.finish_reason),
    )
    cut, failed = lines(Answer("", "Q", "skeleton", expansions=expansions, finish_reason="content_filter"))
    assert cut == "point 1 was cut at the token limit (--max-tokens)"
    assert failed.startswith("point 2 failed: A content filter blocked the reply")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("length", "the answer was cut at the token limit (--max-tokens)"),
        ("SAFETY", "the answer was ended by the provider (finish reason 'SAFETY')"),
        ("loop", "the model repeated itself, so its answer was ended"),
        ("STOP", None),
        (None, None),
    ],
)
def test_the_command_reports_how_a_direct_answer_ended(word, line):
    assert lines(Answer("Half", "Q", "direct", finish_reason=word)) == ([line] if line else [])
