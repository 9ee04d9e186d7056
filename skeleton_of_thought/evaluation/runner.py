"""Runs many answers: what is left to do, in turns, within a budget, each row kept as soon as it is there."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from skeleton_of_thought.errors import SotError
from skeleton_of_thought.evaluation.journal import Journal
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row, latest, to_json
from skeleton_of_thought.evaluation.spending import Cost, Spending
from skeleton_of_thought.evaluation.ways import Way
from skeleton_of_thought.evaluation.workers import work_in_threads

__all__ = [
    "SAME_FAILURES",
    "SAME_QUESTIONS",
    "Answering",
    "Ended",
    "FailureStreak",
    "Job",
    "Outcome",
    "Progress",
    "cost_of",
    "jobs_of",
    "plan",
    "run_all",
]

SAME_FAILURES = 5
"""After so many failed answers in a row with the same error, a run stops: its model cannot be reached."""
SAME_QUESTIONS = 50
"""The same, where the error may be the question's own. A model that fails each question so is not asked them all."""

_OF_THE_QUESTION = frozenset({"PromptTooLong", "ReplyError", "SkeletonError"})
"""Errors that say little about the next question: too long, blocked or refused, no list."""
_ABOUT_THE_QUESTION = re.compile(
    r"content[ _-]?(filter|(management )?policy)|context[ _]?(length|window|size)|(prompt|input)\w* is too long",
    re.IGNORECASE,
)
"""The same of servers, which refuse such a question with the status of any bad request."""

_VARYING = re.compile(r"\b(?=\w*\d)[\w-]+")
"""Numbers and ids in errors, which differ from call to call."""

Ended = Literal["done", "budget", "stopped"]
"""Why a run ended: nothing is left to do, the budget is spent, or the caller stopped it."""


@dataclass(frozen=True)
class Job:
    """An answer that is to be made.

    Attributes:
        question: The question.
        way: How it is answered.
        repeat: Which repeat, from 1.
        key: See `journal.key_of`.
        order: Its place among the answers to this question and repeat, from 0.
    """

    question: Question
    way: Way
    repeat: int
    key: str
    order: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ended: Why.
        rows: The rows that this run has made, in the order in which they came.
        left: The answers that are still to be made.
    """

    ended: Ended
    rows: tuple[Row, ...]
    left: int


class Progress:
    """Gets told what a run does; one call at a time. This one tells nobody."""

    def begins(self, job: Job) -> None:
        """An answer begins."""

    def ends(self, job: Job, row: Row) -> None:
        """An answer has ended, and its row is on the disk."""


class FailureStreak:
    """Notices that a model does not work at all: answers in a row fail, all with the same error.

    `SAME_FAILURES` are enough, or `SAME_QUESTIONS` if the error may be the question's own. Errors of one kind do not
    break the streak of the other.

    Attributes:
        length: Of the streak that the last row went on with; 0 after an answer.
    """

    def __init__(self) -> None:
        self.length = 0
        self._streaks: dict[bool, tuple[str, int]] = {}

    def add(self, row: Row) -> bool:
        """Takes the next row, in the order in which they end; returns whether it completes such a streak."""
        if row.ok:
            self._streaks.clear()
            self.length = 0
            return False
        # Of a point's error its cause alone: each has its own title. Numbers and ids differ from call to call.
        error = f"{row.error_type}: {_VARYING.sub('#', row.error.rpartition(' failed: ')[2])}"
        own = row.error_type in _OF_THE_QUESTION or _ABOUT_THE_QUESTION.search(row.error) is not None
        before, length = self._streaks.get(own, ("", 0))
        self.length = length + 1 if error == before else 1
        self._streaks[own] = error, self.length
        return self.length >= (SAME_QUESTIONS if own else SAME_FAILURES)


class Answering(Protocol):
    """Makes the row of a job. It may have a method `cancel` that ends all calls at once, from any thread."""

    def __call__(self, job: Job, /) -> Row:
        """The row. An error of the model is a row, too; an exception ends the run."""
        ...


def jobs_of(
    questions: Iterable[Question],
    ways: Sequence[Way],
    repeats: int = 1,
    *,
    key: Callable[[Question, Way, int], str],
) -> list[Job]:
    """All answers of a run. Which way comes first changes from question to question, and from repeat to repeat.

    Args:
        questions: The questions.
        ways: The ways.
        repeats: How often each question is answered by each way. All questions come once before any comes again, so
            that a run that ends early has as many as possible.
        key: The key of an answer, see `journal.key_of`.
    """
    jobs = []
    questions = list(questions)
    for repeat in range(1, repeats + 1):
        for question in questions:
            first = (question.number + repeat - 2) % len(ways)
            for order, way in enumerate((*ways[first:], *ways[:first])):
                jobs.append(Job(question, way, repeat, key(question, way, repeat), order))
    return jobs


def plan(
    questions: Iterable[Question],
    ways: Sequence[Way],
    repeats: int = 1,
    *,
    key: Callable[[Question, Way, int], str],
    done: Iterable[Row] = (),
    retry: bool = False,
) -> list[Job]:
    """The answers that are left to be made, in the order of `jobs_of`; no key is there twice.

    Args:
        questions: The questions.
        ways: The ways.
        repeats: How often each question is answered by each way.
        key: The key of an answer.
        done: The rows that there are.
        retry: Whether answers that failed are made again.
    """
    kept = {row.key for row in latest(done) if row.ok or not retry}
    left: dict[str, Job] = {}
    for job in jobs_of(questions, ways, repeats, key=key):
        if job.key not in kept:
            left.setdefault(job.key, job)
    return list(left.values())


def cost_of(row: Row) -> Cost:
    """What an answer has cost."""
    return Cost(row.calls, row.input_tokens + row.output_tokens)


def run_all(
    jobs: Sequence[Job],
    answer: Answering,
    *,
    journal: Journal,
    parallel: int = 1,
    spending: Spending | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Makes the answers of jobs, one after the other or several side by side, and appends their rows at once.

    An exception such as `KeyboardInterrupt` ends all calls and is raised; rows that are in the journal stay.

    Args:
        jobs: The jobs, see `plan`.
        answer: Makes the row of a job. It is called in the caller's thread, or in those of `parallel` answers.
        journal: Gets the rows.
        parallel: The most answers at a time.
        spending: Counts what is spent; the run ends before its budget is passed.
        progress: Gets told what happens.
        stop: Asked before each answer; True ends the run once the answers under way have ended.

    Raises:
        SotError: The rows cannot be written; or too many answers in a row failed with the same error, see
            `FailureStreak`. The rows are kept, and the same command goes on.
    """
    spending, progress = spending or Spending(), progress or Progress()
    run = _Run(jobs, answer, journal=journal, spending=spending, progress=progress, stop=stop)
    work_in_threads(run.work, run.cancel, min(parallel, len(jobs)), name="sot-answers")
    return run.outcome()


class _Run:
    """A run under way."""

    def __init__(
        self,
        jobs: Sequence[Job],
        answer: Answering,
        *,
        journal: Journal,
        spending: Spending,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._answer, self._journal, self._spending = answer, journal, spending
        self._progress, self._stop = progress, stop
        self._jobs = jobs
        self._lock = threading.Lock()
        self._next = 0
        self._ended: Ended = "done"
        self._rows: list[Row] = []
        self._streak = FailureStreak()
        self._over = self._cancelled = False

    def outcome(self) -> Outcome:
        """How it has ended."""
        return Outcome(self._ended, tuple(self._rows), len(self._jobs) - len(self._rows))

    def cancel(self) -> None:
        """Begins no more answers, and ends the calls of those under way."""
        self._over = self._cancelled = True
        if (cancel := getattr(self._answer, "cancel", None)) is not None:
            cancel()

    def work(self) -> None:
        """Makes answers until none is left."""
        while (found := self._take()) is not None:
            job, reserved = found
            row = None
            try:
                row = self._answer(job)
                if self._cancelled:  # its calls may have been cut off
                    return
                self._keep(job, row)
            finally:
                self._spending.end(job.way.name, reserved, None if row is None else cost_of(row))

    def _take(self) -> tuple[Job, Cost] | None:
        with self._lock:
            if self._over or self._next == len(self._jobs):
                return None
            if self._stop():
                self._over, self._ended = True, "stopped"
                return None
            job = self._jobs[self._next]
            if (reserved := self._spending.begin(job.way.name)) is None:
                self._over, self._ended = True, "budget"
                return None
            self._next += 1
            self._progress.begins(job)
            return job, reserved

    def _keep(self, job: Job, row: Row) -> None:
        with self._lock:
            try:
                self._journal.append(to_json(row))
                self._rows.append(row)
                self._progress.ends(job, row)
                if self._streak.add(row):
                    raise SotError(
                        f"The last {self._streak.length} answers failed with the same error, so no more are made. "
                        "Nothing is lost: the same command goes on, and with --retry it makes the failed answers "
                        f"again. The error: {row.error}"
                    )
            except BaseException:
                self._over = True  # before any other thread takes a job
                raise
