"""`sot eval`: answers questions in several ways, has the answers judged, and reports what a skeleton gains."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.eval_job import done_and_total, left_of, make_answers
from skeleton_of_thought._cli.eval_judges import make_verdicts, verdicts_done
from skeleton_of_thought._cli.eval_plan import Answers, EvalPlan
from skeleton_of_thought._cli.eval_records import Records, opened
from skeleton_of_thought._cli.eval_report import vote_page, written_report
from skeleton_of_thought._cli.eval_summary import summary_lines
from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.interrupts import INTERRUPTED, last_words
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.evaluation.rows import latest
from skeleton_of_thought.evaluation.spending import Spending
from skeleton_of_thought.evaluation.verdicts import Verdict, to_json
from skeleton_of_thought.evaluation.votes import voters

__all__ = ["run_eval"]


def run_eval(args: Namespace, backend: ModelBackend | None) -> int:
    """Runs the command; returns the exit code.

    Args:
        args: The options.
        backend: The model that answers; None for the one that the options name.

    Raises:
        InvalidInput: An option or a file has a mistake. Nothing was asked then, and nothing is overwritten.
        SotError: The model cannot be reached, all answers failed, or a file cannot be written.
    """
    plan = EvalPlan.of(args)
    view = EvalView(quiet=args.quiet)
    if plan.judging is not None:
        plan.judging.warn(view.note)
    if plan.answers is not None and (twice := len(plan.answers.questions) - plan.answers.different):
        of = f"{twice} of the {len(plan.answers.questions)} questions"
        view.note(f"{of} {'repeats' if twice == 1 else 'repeat'} another one: a question is asked and counted once")
    with opened(plan, view.note) as records:
        run = _Run(plan, args, records, view)
        return run.go(backend)


@dataclass
class _Run:
    """A run of the command, whose files are open."""

    plan: EvalPlan
    args: Namespace
    records: Records
    view: EvalView

    def go(self, backend: ModelBackend | None) -> int:
        """Makes what is left, and the report of what there is, however that ended."""
        votes = self.records.count(self.plan.votes, self.plan.manifest.ways)
        spending = Spending(self.plan.budget)
        stopped, failure = False, None
        try:
            # A model that loads is not waited for, and nothing here runs then.
            with last_words(self._stopped()):
                self._make(backend, spending)
        except KeyboardInterrupt:
            stopped = True
        except SotError as error:
            failure = error
        self._keep(votes)
        if stopped or failure is not None:
            # The report of what there is; why it ended matters more than a report that cannot be written.
            try:
                self._report(whole=False)
            except SotError as error:
                self.view.note(f"there is no new report: {as_line(str(error))}")
            if failure is not None:
                raise failure
            print(self._stopped(), file=sys.stderr)
            return INTERRUPTED
        lines = self._report()
        if spending.stopped:
            self.view.note(f"the budget is spent ({spending}); the same command goes on")
        print("\n".join(lines))
        return 0

    def _make(self, backend: ModelBackend | None, spending: Spending) -> None:
        if self.plan.answers is not None:
            self._answer(self.plan.answers, backend, spending)
        if self.plan.judging is not None:
            self.plan.manifest.write(self.plan.folder)
            make_verdicts(self.plan, self.records, spending, self.view, retry=self.args.retry)

    def _answer(self, answers: Answers, backend: ModelBackend | None, spending: Spending) -> None:
        jobs = left_of(answers, self.records.all_rows(), retry=self.args.retry)
        if jobs and backend is None:
            backend = answers.options.load(self.args)
        try:
            # After the model was loaded, so that the versions of the packages that it needs are known.
            self.plan = self.plan.with_versions()
            self.plan.manifest.write(self.plan.folder)
            if jobs:
                assert backend is not None
                make_answers(answers, jobs, self.args, backend, records=self.records, spending=spending, view=self.view)
        finally:
            if backend is not None:
                backend.close()

    def _keep(self, votes: list[Verdict]) -> None:
        for vote in votes:
            assert self.records.votes is not None
            self.records.votes.append(to_json(vote))
        if self.plan.votes:
            new, people = len(votes), voters(self.records.all_votes())
            who = "1 person has" if people == 1 else f"{people} people have"
            self.view.note(f"{new} new {'vote' if new == 1 else 'votes'}; {who} voted")

    def _report(self, *, whole: bool = True) -> list[str]:
        """Writes the report, if there are rows; returns the last lines.

        Args:
            whole: Whether to ask the embedding model and write the page to vote on, if the user wants these.
        """
        rows = self.records.all_rows()
        if not rows:
            return [f"There are no answers in {self.plan.folder} yet, so there is no report."]
        figures = written_report(self.plan, self.records, self.view, embeds=whole)
        if self.args.human and whole:
            vote_page(self.plan, rows, self.view)
        failed = sum(not row.ok for row in latest(rows))
        if failed:
            self.view.note(f"{failed} answers failed; --retry asks for them once more")
        return [*summary_lines(figures), f"Report: {self.plan.folder / 'report.html'}"]

    def _stopped(self) -> str:
        there = []
        if self.plan.answers is not None:
            done, total = done_and_total(self.plan.answers, self.records.all_rows())
            there.append(f"{done} of {total} answers")
        if self.plan.judging is not None:
            done, total = verdicts_done(self.plan, self.records)
            there += [f"{done} of {total} verdicts"] if done else []
        kept = f"{' and '.join(there)} are in {self.plan.folder}; " if there else ""
        return f"Stopped: {kept}the same command goes on."
