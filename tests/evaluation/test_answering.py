"""Rows of answers: their calls, tokens, points and errors, by each way, with a scripted backend."""

from __future__ import annotations

import dataclasses
import threading

import pytest
from scripted_cli import SENTENCE, TITLES, Script

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.evaluation.answering import AnswerOnce, row_of
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import from_json, to_json
from skeleton_of_thought.evaluation.runner import Job
from skeleton_of_thought.evaluation.ways import WAYS, ways_of
from skeleton_of_thought.events import AnswerDone
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call

WORDS = len(SENTENCE.split())
FEW = Settings(backoff=0.0)


def job(way: str, question: str = "How do I sleep better?", **columns) -> Job:
    return Job(Question(3, question, "q3", **columns), WAYS[way], 1, f"key of {way}", 1)


def answered(script: Script, way: str, settings: Settings = FEW, **options):
    return AnswerOnce(script.backend(), model="scripted", settings=settings, **options)(job(way))


def stages(script: Script) -> list[str]:
    return [call.stage for call in script.calls]


def test_normal_is_one_call_with_the_plain_question():
    script = Script(sentences=2)
    row = answered(script, "normal", system="Be kind.")
    (call,) = script.calls
    assert [(each.role, each.text) for each in call.prompt.messages] == [
        ("system", "Be kind."),
        ("user", "How do I sleep better?"),
    ]
    assert (row.key, row.number, row.id, row.way, row.order) == ("key of normal", 3, "q3", "normal", 1)
    assert (row.route, row.reason, row.finish_reason, row.points) == ("direct", "one ordinary call", "stop", ())
    assert row.ok
    assert row.text.strip() == (SENTENCE * 10).strip() == row.plain
    assert (row.calls, row.input_tokens, row.output_tokens, row.answer_tokens) == (1, 50, 161, 161)
    assert not row.tokens_estimated
    assert 0 <= row.first_text <= row.seconds
    assert row.at.endswith("+00:00")
    assert from_json(to_json(row)) == row


def test_a_skeleton_counts_apart_from_the_text():
    script = Script()
    row = answered(script, "sot")
    assert sorted(stages(script)) == ["point"] * 5 + ["skeleton"]
    assert (row.route, row.calls, row.merged) == ("skeleton", 6, False)
    assert row.input_tokens == 6 * 50
    assert row.answer_tokens == sum(point.output_tokens for point in row.points) < row.output_tokens
    assert [point.title for point in row.points] == list(TITLES)
    for point in row.points:
        assert 0 <= point.start <= point.first <= point.end <= row.seconds
        assert (point.attempts, point.finish_reason, point.error) == (1, "stop", "")
        assert point.released is not None
        assert point.text in row.plain
        assert point.title not in row.plain
    assert set(row.stages) == {"skeleton", "point"}
    assert row.stages["skeleton"][1] <= row.stages["point"][1]
    assert from_json(to_json(row)) == row


def test_of_a_merge_the_text_is_that_of_its_call():
    script = Script()
    row = answered(script, "merge")
    assert stages(script).count("merge") == 1
    assert (row.merged, row.merge_error, row.calls) == (True, "", 7)
    assert row.answer_tokens == len((SENTENCE * 15).replace(" ", "| ").split("|"))
    assert row.plain.strip() == row.text.strip()
    assert len(row.points) == 5
    row = answered(Script(fail=lambda call: OSError("no merge") if call.stage == "merge" else None), "merge")
    assert row.ok
    assert not row.merged
    assert "no merge" in row.merge_error
    assert row.answer_tokens == sum(point.output_tokens for point in row.points)


def test_auto_takes_the_router_as_it_is_shipped_and_one_for_all_answers():
    script = Script()
    answer = AnswerOnce(script.backend(), model="scripted")
    row = answer(job("auto", "What is 17 * 4?"))
    assert (row.route, row.calls) == ("direct", 1)
    assert row.reason.startswith("gate (arithmetic)")
    row = answer(job("auto", "What are the pros and cons of living on a boat?"))
    assert row.route == "skeleton"


def test_the_settings_are_those_of_the_caller_but_for_the_way():
    script = Script()
    row = answered(script, "sot", Settings(max_points=2, merge=True))
    assert len(row.points) == 2
    assert "merge" not in stages(script)
    row = answered(script, "sot", FEW, max_concurrency=1)
    assert row.calls == 6


def test_tokens_are_estimated_where_the_model_reports_none():
    row = answered(Script(usage=False), "sot")
    assert row.tokens_estimated
    assert row.cached_tokens == 0
    written = sum(len(point.text.encode()) for point in row.points)
    assert written / 4 <= row.answer_tokens <= written / 4 + 10
    assert row.answer_tokens < row.output_tokens
    assert row.input_tokens > 0


def test_repeated_calls_count():
    def once(call: Call) -> Exception | None:
        return ConnectionError("gone") if call.stage == "skeleton" and call.attempt == 1 else None

    script = Script(fail=once)
    row = answered(script, "sot")
    assert row.ok
    assert row.calls == len(script.calls) == 7


@pytest.mark.parametrize("live", [True, False])
def test_only_text_that_nobody_has_read_yet_is_written_again(live):
    def once(call: Call) -> Exception | None:
        return ConnectionError("gone") if call.point and call.point.index == 1 and call.attempt == 1 else None

    row = answered(Script(fail=once), "sot", live=live)
    assert row.ok is not live
    assert row.points[0].attempts == (1 if live else 2)


def test_a_failed_answer_keeps_its_text_and_its_error():
    def fail(call: Call) -> Exception | None:
        return ConnectionError("no route to\nhttp://me:pw@host") if call.point and call.point.index == 2 else None

    script = Script(fail=fail)
    row = answered(script, "sot", Settings(backoff=0.0, max_retries=0))
    assert not row.ok
    assert row.error == "Point 2 ('Dim the lights') failed: no route to http://***@host"
    assert row.error_type == "ConnectionError"
    assert "Keep a schedule" in row.text
    assert row.calls == len(script.calls)
    row = answered(script, "sot", Settings(backoff=0.0, max_retries=0, on_point_error="placeholder"))
    assert row.ok
    assert [bool(point.error) for point in row.points] == [False, True, False, False, False]

    row = answered(Script(fail=lambda call: ConnectionError("")), "normal")
    assert (row.error, row.error_type, row.calls) == ("ConnectionError", "ConnectionError", 1)
    assert row.text == "This helps"


def test_what_fails_before_any_call_is_a_row_too():
    class Refusing(ModelBackend):
        def flow(self, conversation, **options):
            raise PromptTooLong("too long: shorten it")

    backend = Refusing("refusing", open_call=lambda call, index: [])
    row = AnswerOnce(backend, model="m")(job("sot"))
    assert (row.error, row.error_type, row.text, row.calls) == ("too long: shorten it", "PromptTooLong", "", 0)


def test_a_row_needs_nothing_but_the_answer():
    script = Script()
    backend = script.backend()
    flow = AnswerOnce(backend, model="m")._flow(job("sot"))
    with backend.run(flow) as events:
        (answer,) = [event.answer for _, event in events if isinstance(event, AnswerDone)]
    row = row_of(answer, job("sot", extra={"note": "x"}), model="m")
    assert (row.calls, row.answer_tokens, row.extra) == (6, answer.usage_by_stage["point"].output_tokens, {"note": "x"})
    unknown = dataclasses.replace(answer, usage=type(answer.usage)(), usage_by_stage={})
    row = row_of(unknown, job("sot"), model="m")
    assert row.tokens_estimated
    assert 0 < row.answer_tokens < row.output_tokens
    assert row_of(None, job("sot"), model="m", error=OSError("x")).error == "x"


def test_each_answer_begins_with_the_same_prefix_cache_and_is_measured():
    log = []

    def checkpoint():
        log.append("checkpoint")
        return lambda: log.append("reset")

    def meter():
        return lambda: "busy" if len(log) > 1 else None

    backend = dataclasses.replace(Script().backend(), checkpoint=checkpoint)
    answer = AnswerOnce(backend, model="m", reset_cache=True, meter=meter)
    assert [answer(job(way)).busy for way in ("normal", "sot", "normal")] == ["", "busy", "busy"]
    assert log == ["checkpoint", "reset", "reset"]


@pytest.mark.parametrize("way", ["normal", "sot"])
def test_cancel_ends_all_calls_at_once(way):
    script = Script(gate=threading.Event())
    answer, raised = AnswerOnce(script.backend(), model="m", settings=FEW), []

    def work() -> None:
        try:
            answer(job(way))
        except BaseException as error:
            raised.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    while script.open < (1 if way == "normal" else 5):
        thread.join(0.001)
    answer.cancel()
    thread.join(20)
    assert raised == [KeyboardInterrupt]
    assert script.open == 0
    opened = len(script.calls)
    with pytest.raises(KeyboardInterrupt):
        answer(job(way))
    assert len(script.calls) == opened


def test_a_way_sets_its_own_settings_and_keeps_the_others():
    caller = Settings(max_points=3, merge=True, planning="scoped", eager="auto")
    assert WAYS["auto"].settings(caller) == caller
    assert WAYS["sot"].settings(caller) == dataclasses.replace(caller, merge=False)
    assert WAYS["merge"].settings(Settings()) == Settings(merge=True)
    for way, changes in (
        ("scoped", {"planning": "scoped"}),
        ("graph", {"planning": "graph"}),
        ("eager", {"eager": True}),
    ):
        assert WAYS[way].settings(caller) == dataclasses.replace(caller, merge=False, **changes)
    assert len({*WAYS.values()}) == len(WAYS), "a way has a hash"


def test_ways_are_named():
    assert [way.name for way in ways_of("merge, normal")] == ["merge", "normal"]
    for names, message in (("sot,slow", "'slow'; the known"), ("", "no way"), ("sot,sot", "twice")):
        with pytest.raises(InvalidInput, match=message):
            ways_of(names)
