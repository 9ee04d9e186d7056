"""`sot eval` makes answers: from the plan to the runner."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.comparison import warm_up
from skeleton_of_thought._cli.cpu_load import CpuMeter
from skeleton_of_thought._cli.diagnostics import explain
from skeleton_of_thought._cli.eval_plan import Answers
from skeleton_of_thought._cli.eval_records import Records
from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.models import system_of, warn_if_slow
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.evaluation.answering import AnswerOnce
from skeleton_of_thought.evaluation.rows import Row, latest
from skeleton_of_thought.evaluation.runner import Job, Progress, cost_of, plan, run_all
from skeleton_of_thought.evaluation.spending import Spending

__all__ = ["done_and_total", "left_of", "make_answers"]


def left_of(answers: Answers, rows: Sequence[Row], *, retry: bool) -> list[Job]:
    """The answers that are left to be made."""
    return plan(answers.questions, answers.ways, answers.repeats, key=answers.key, done=rows, retry=retry)


def done_and_total(answers: Answers, rows: Sequence[Row]) -> tuple[int, int]:
    """How many answers of the run there are, and how many there will be."""
    keys = {job.key for job in answers.jobs}
    return sum(row.ok and row.key in keys for row in latest(rows)), len(keys)


def make_answers(
    answers: Answers,
    jobs: Sequence[Job],
    args: Namespace,
    backend: ModelBackend,
    *,
    records: Records,
    spending: Spending,
    view: EvalView,
) -> None:
    """Makes the answers that are left, until the budget is spent.

    Args:
        answers: The answers of the run.
        jobs: Those that are left.
        args: The options.
        backend: The model.
        records: Gets the rows.
        spending: Counts what is spent.
        view: Shows the progress.

    Raises:
        SotError: The rows cannot be written, the model cannot be reached, or every answer has failed.
    """
    assert records.rows is not None
    rows = records.all_rows()
    for row in rows:
        spending.learn(row.way, cost_of(row))
    warn_if_slow(backend, args)
    if args.parallel > 1:
        view.note(f"{args.parallel} answers at a time share the model, so their times say little")
    if args.warm_up:
        _warm_up(backend, view)
    done, total = done_and_total(answers, rows)
    with view.stage("answers", total=total, done=done, left=len(jobs)):
        run_all(
            jobs,
            AnswerOnce(
                backend,
                model=answers.model,
                settings=answers.options.settings,
                prompts=answers.options.prompts,
                system=system_of(args),
                max_concurrency=args.max_concurrency,
                reset_cache=args.parallel == 1,
                meter=_meter if backend.baselines else None,
            ),
            journal=records.rows,
            parallel=args.parallel,
            spending=spending,
            progress=_Shown(view),
        )
    failed = [row for row in latest(records.all_rows()) if not row.ok and row.key in {job.key for job in answers.jobs}]
    if failed and len(failed) == total:
        error = failed[-1].error.rstrip(".")
        raise SotError(f"All {total} answers failed, the last one so: {error}. With --retry they are asked once more.")


def _warm_up(backend: ModelBackend, view: EvalView) -> None:
    try:
        warm_up(backend, view.note)
    except Exception as error:
        raise SotError(explain(error, backend.explain)) from error


class _Shown(Progress):
    """Shows the progress of a run."""

    def __init__(self, view: EvalView) -> None:
        self._view = view

    def begins(self, job: Job) -> None:
        self._view.at(job.way.name)

    def ends(self, job: Job, row: Row) -> None:
        self._view.made(failed=not row.ok)


def _meter() -> Callable[[], str | None]:
    """Begins to measure what other work uses of the processors: of a local model, that changes the times."""
    meter = CpuMeter()
    return lambda: meter.read().warning
