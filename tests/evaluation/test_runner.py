"""Runs of many answers: their order, resume, retries, budget, and what ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from scripted_cli import Script

from skeleton_of_thought.errors import InvalidInput, PromptTooLong, ReplyError, SotError
from skeleton_of_thought.evaluation.answering import AnswerOnce, row_of
from skeleton_of_thought.evaluation.journal import Journal, key_of, read_journal
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row, from_json, latest
from skeleton_of_thought.evaluation.runner import (
    SAME_FAILURES,
    SAME_QUESTIONS,
    FailureStreak,
    Job,
    Progress,
    jobs_of,
    plan,
    run_all,
)
from skeleton_of_thought.evaluation.spending import Budget, Cost, Spending
from skeleton_of_thought.evaluation.ways import ways_of
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Span, Timings, Usage

PAIR = ways_of("normal,sot")


def questions(*texts: str) -> list[Question]:
    return [Question(number, text, f"id{number}") for number, text in enumerate(texts, 1)]


def key(question: Question, way, repeat: int) -> str:
    return key_of(question.text, way=way.name, model="m", settings={}, repeat=repeat)


def planned(count: int = 3, ways=PAIR, repeats: int = 1, **options) -> list[Job]:
    return plan(questions(*(f"Question {n}?" for n in range(count))), ways, repeats, key=key, **options)


def answer(job: Job, error: Exception | None = None) -> Row:
    usage = Usage(60, 40)
    direct = Answer(
        "text",
        job.question.text,
        "direct",
        usage=usage,
        usage_by_stage={"direct": usage},
        timings=Timings(2.0, 1.0, {"direct": Span(0.0, 2.0, 1.0)}),
    )
    return row_of(direct, job, model="m", error=error)


class Answering:
    """Answers at once, and fails for the numbers of questions that `errors` has."""

    def __init__(self, errors=None) -> None:
        self.errors = errors or {}
        self.asked: list[tuple[int, str, int]] = []

    def __call__(self, job: Job) -> Row:
        self.asked.append((job.question.number, job.way.name, job.repeat))
        return answer(job, self.errors.get(job.question.number))


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(tmp_path / "rows.jsonl") as journal:
        yield journal


def rows(journal: Journal) -> list[Row]:
    return [from_json(row) for row in journal.rows]


def test_the_first_way_changes_from_question_to_question():
    jobs = jobs_of(questions("a", "b"), ways_of("normal,sot,auto"), 2, key=key)
    assert [(job.repeat, job.question.number, job.way.name, job.order) for job in jobs] == [
        *((1, 1, "normal", 0), (1, 1, "sot", 1), (1, 1, "auto", 2)),
        *((1, 2, "sot", 0), (1, 2, "auto", 1), (1, 2, "normal", 2)),
        *((2, 1, "sot", 0), (2, 1, "auto", 1), (2, 1, "normal", 2)),
        *((2, 2, "auto", 0), (2, 2, "normal", 1), (2, 2, "sot", 2)),
    ]


def test_a_question_that_is_there_twice_is_asked_once(journal):
    twice = questions("a", "b", "a")
    asked = Answering()
    run_all(plan(twice, PAIR, key=key), asked, journal=journal)
    assert Counter(name for _, name, _ in asked.asked) == {"normal": 2, "sot": 2}


def test_a_run_goes_on_with_what_is_left(journal):
    outcome = run_all(planned(), Answering(), journal=journal, stop=lambda: len(journal.rows) == 4)
    assert (outcome.ended, len(outcome.rows), outcome.left) == ("stopped", 4, 2)
    rest = Answering()
    outcome = run_all(planned(done=rows(journal)), rest, journal=journal)
    assert (outcome.ended, outcome.left) == ("done", 0)
    assert rest.asked == [(3, "normal", 1), (3, "sot", 1)]
    assert planned(done=rows(journal)) == []
    more = planned(4, ways_of("normal,sot,auto"), 2, done=rows(journal))
    assert len(more) == 4 * 3 * 2 - 6


def test_failed_rows_stay_and_are_made_again_on_demand(journal):
    run_all(planned(), Answering({2: OSError("gone")}), journal=journal)
    assert planned(done=rows(journal)) == []
    again = planned(done=rows(journal), retry=True)
    assert [(job.question.number, job.way.name) for job in again] == [(2, "sot"), (2, "normal")]
    run_all(again, Answering(), journal=journal)
    assert [row.ok for row in rows(journal)].count(False) == 2
    assert [(row.number, row.order, row.ok) for row in latest(rows(journal))] == [
        (number, order, True) for number in (1, 2, 3) for order in (0, 1)
    ]
    assert planned(done=rows(journal), retry=True) == []


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_dead_server_stops_the_run_and_loses_nothing(journal, parallel):
    errors = {n: ConnectionError(f"no route, request 7f{n}a") for n in range(3, 100)}
    asked = Answering(errors)
    with pytest.raises(SotError, match=f"last {SAME_FAILURES} answers.*--retry.*no route"):
        run_all(planned(20), asked, journal=journal, parallel=parallel)
    failed = len([row for row in rows(journal) if not row.ok])
    # Those under way may end, too; and an answer that ends between the failures begins the count anew.
    assert SAME_FAILURES <= failed < (SAME_FAILURES + 1 if parallel == 1 else 2 * SAME_FAILURES + parallel)
    assert len([row for row in rows(journal) if row.ok]) == 4
    run_all(planned(20, done=rows(journal), retry=True), Answering(), journal=journal)
    assert len(latest(rows(journal))) == 40
    assert all(row.ok for row in latest(rows(journal)))


def test_errors_of_single_questions_do_not_stop_a_run(journal):
    def each(job: Job) -> Row:
        number = job.question.number
        kinds = {0: OSError("one"), 1: TimeoutError("two")}
        return answer(job, kinds[number % 2])

    assert run_all(planned(20, ways_of("sot")), each, journal=journal).ended == "done"


class BadRequestError(Exception):
    """Named like those of SDKs."""


def streak(*errors: Exception | None) -> list[bool]:
    jobs, found = planned(len(errors), ways_of("normal")), FailureStreak()
    return [found.add(answer(job, error)) for job, error in zip(jobs, errors, strict=True)]


FILTERED = "Error code: 400 - {'error': {'message': 'The prompt was filtered', 'code': 'content_filter'}}"
WINDOW = "This model's maximum context length is 4096 tokens, and the prompt has {} tokens."


@pytest.mark.parametrize(
    ("errors", "least"),
    [
        ([BadRequestError("temperature must be 1")] * 60, SAME_FAILURES),
        ([ConnectionError(f"call {n:08x} was cut") for n in range(60)], SAME_FAILURES),
        ([BadRequestError(FILTERED)] * 60, SAME_QUESTIONS),
        ([BadRequestError(WINDOW.format(n)) for n in range(60)], SAME_QUESTIONS),
        ([PromptTooLong(f"The prompt has {n} tokens") for n in range(60)], SAME_QUESTIONS),
        ([ReplyError("The model sent no text.")] * 60, SAME_QUESTIONS),
        ([ConnectionError("cut"), ReplyError("blocked")] * 30, 2 * SAME_FAILURES - 1),
        ([*[ConnectionError("cut")] * 4, None] * 12, None),
        ([ValueError("one"), ValueError("two")] * 30, None),
    ],
)
def test_errors_that_may_be_of_the_question_stop_a_run_later(errors, least):
    found = streak(*errors)
    assert (found.index(True) + 1 if True in found else None) == least


def test_a_budget_stops_before_it_is_passed(journal):
    spending = Spending(Budget.parse("5calls,350tokens"))
    outcome = run_all(planned(), Answering(), journal=journal, spending=spending)
    assert (outcome.ended, outcome.left, spending.stopped) == ("budget", 3, True)
    assert spending.spent == Cost(3, 300)
    assert str(spending) == "3 calls and 300 tokens of 5 calls and 350 tokens"
    outcome = run_all(planned(done=rows(journal)), Answering(), journal=journal, spending=Spending(Budget(calls=9)))
    assert outcome.ended == "done"


def test_budgets_are_read():
    assert Budget.parse("500") == Budget.parse("500calls") == Budget(calls=500)
    assert Budget.parse("1.5k tokens, 1Mcalls") == Budget(calls=1_000_000, tokens=1500)
    for text in ("", "many", "-1", "0", "5 euros", "5,6", "1tokens,2tokens"):
        with pytest.raises(InvalidInput):
            Budget.parse(text)


def test_what_was_learned_before_is_reserved():
    spending = Spending(Budget(calls=10))
    spending.learn("sot", Cost(6, 0))
    reserved = spending.begin("sot")
    assert reserved == Cost(6, 0)
    assert spending.begin("sot") is None
    spending.end("sot", reserved, None)
    assert spending.begin("sot") == Cost(6, 0)
    assert spending.spent == Cost()


def test_progress_is_told_in_order(journal):
    class Told(Progress):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def begins(self, job: Job) -> None:
            self.lines.append(f"{job.question.number} {job.way.name}")

        def ends(self, job: Job, row: Row) -> None:
            assert rows(journal)[-1] == row
            self.lines.append(f"{job.question.number} {row.ok}")

    told = Told()
    run_all(planned(1), Answering(), journal=journal, progress=told)
    assert told.lines == ["1 normal", "1 True", "1 sot", "1 True"]


def test_parallel_answers_run_side_by_side_and_all_are_kept(journal):
    together = threading.Barrier(4, timeout=20)

    def side_by_side(job: Job) -> Row:
        together.wait()
        return answer(job)

    outcome = run_all(planned(8, ways_of("sot")), side_by_side, journal=journal, parallel=4)
    assert (outcome.ended, len(outcome.rows)) == ("done", 8)
    assert {row.number for row in rows(journal)} == set(range(1, 9))
    assert run_all([], side_by_side, journal=journal, parallel=4).ended == "done"


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_exception_ends_the_run_with_all_its_calls(journal, parallel, monkeypatch):
    script = Script(gate=threading.Event())

    class FullDisk(AnswerOnce):
        def __call__(self, job: Job) -> Row:
            if job.question.number == 1:
                while script.open < (parallel - 1) * 5:
                    threading.Event().wait(0.001)
                raise SotError("the disk is full")
            return super().__call__(job)

    once = FullDisk(script.backend(), model="m", settings=Settings(backoff=0.0))
    before = set(threading.enumerate())
    with pytest.raises(SotError, match="the disk is full"):
        run_all(planned(4, ways_of("sot")), once, journal=journal, parallel=parallel)
    assert script.open == 0
    assert set(threading.enumerate()) <= before
    assert journal.rows == []


PROGRAM = """
import signal, sys, threading
from scripted_cli import Script
from skeleton_of_thought.evaluation.answering import AnswerOnce
from skeleton_of_thought.evaluation.journal import Journal, key_of
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import from_json
from skeleton_of_thought.evaluation.runner import plan, run_all
from skeleton_of_thought.evaluation.ways import ways_of

signal.signal(signal.SIGINT, signal.default_int_handler)
path, parallel, held = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
script, gate = Script(), threading.Event()
done = 0

class Once(AnswerOnce):
    def __call__(self, job):
        global done
        if done >= held:
            script.gate = gate
            sys.stdout.write("held\\n")  # at once: `print` writes the line end apart, and others are held, too
            sys.stdout.flush()
        row = super().__call__(job)
        done += 1
        return row

questions = [Question(n, f"Question {n}?", str(n)) for n in range(1, 11)]
key = lambda question, way, repeat: key_of(question.text, way=way.name, model="m", settings={}, repeat=repeat)
with Journal(path) as journal:
    jobs = plan(questions, ways_of("normal,sot"), key=key, done=map(from_json, journal.rows))
    try:
        run_all(jobs, Once(script.backend(), model="m"), journal=journal, parallel=parallel)
    except KeyboardInterrupt:
        print("interrupted", script.open, flush=True)
        sys.exit(130)
print("calls", len(script.calls), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9")
@pytest.mark.parametrize(("number", "parallel"), [("SIGKILL", 1), ("SIGINT", 1), ("SIGINT", 3)])
def test_a_run_that_is_killed_at_half_goes_on(tmp_path, number, parallel):
    path = tmp_path / "rows.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(
        [*command, str(parallel), "10"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(getattr(signal, number))
        rest = process.communicate(timeout=60)[0]
    if number == "SIGINT":
        assert process.returncode == 130
        assert rest.splitlines()[-1] == "interrupted 0"
    before = read_journal(path)
    assert len(before) >= 10
    run = subprocess.run([*command, "1", "99"], env=environment, capture_output=True, text=True, check=True)
    whole = [from_json(row) for row in read_journal(path)]
    assert len(whole) == len({row.key for row in whole}) == 20
    spent = sum(row.calls for row in whole[len(before) :])
    assert run.stdout == f"calls {spent}\n"
