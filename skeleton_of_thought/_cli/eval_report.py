"""`sot eval` writes the report, and the page to vote on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from skeleton_of_thought._cli.eval_judges import kept_prompts, numbered_verdicts, shown_prompts
from skeleton_of_thought._cli.eval_plan import EvalPlan
from skeleton_of_thought._cli.eval_records import Records
from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.evaluation.figures import figures_of
from skeleton_of_thought.evaluation.report import write_report
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.vectors import Vectors, vectors_of
from skeleton_of_thought.evaluation.votes import numbered_votes, write_vote_page

__all__ = ["VOTE_PAGE", "vote_page", "written_report"]

VOTE_PAGE = "vote.html"


def written_report(plan: EvalPlan, records: Records, view: EvalView, *, embeds: bool = True) -> Mapping[str, Any]:
    """Writes the report of all rows, verdicts and votes that there are; returns its figures.

    Args:
        plan: What the command does.
        records: The files of the run.
        view: Shows what happens.
        embeds: Whether the embedding model is asked, if there is one.

    Raises:
        SotError: The report cannot be written; or the embedding model fails, after a report without it was written.
    """
    rows = records.all_rows()
    prompts = kept_prompts(plan.folder)
    verdicts = numbered_verdicts(records.all_verdicts(), rows, prompts, plan.manifest.ways)
    votes = numbered_votes(records.all_votes(), rows)
    vectors: Vectors | None = None
    failure: SotError | None = None
    if plan.embeddings is not None and embeds:
        view.note(f"comparing points by {plan.embeddings.name}")
        try:
            vectors = vectors_of(rows, plan.embeddings.load())
        except SotError as error:
            failure = error
    manifest = plan.manifest.to_json()
    if (repeats := plan.manifest.questions.get("repeats")) is not None:
        manifest["repeats"] = repeats
    figures = figures_of(manifest, rows, verdicts, votes, vectors=vectors, missing=_missing(plan, rows))
    prompt = shown_prompts({name: prompt for name, prompt in prompts.items() if any(name == v.judge for v in verdicts)})
    write_report(plan.folder, figures, rows, [*verdicts, *votes], judge_prompt=prompt)
    if failure is not None:
        raise failure
    return figures


def _missing(plan: EvalPlan, rows: Sequence[Row]) -> int | None:
    """The answers to the questions of this command, by all ways of the run, that no row is of."""
    if plan.answers is None:
        return None
    # A question that the file has twice is asked once; its rows have the number of the first.
    numbers = {job.key: job.question.number for job in reversed(plan.answers.jobs)}
    wanted = itertools.product(set(numbers.values()), plan.manifest.ways, range(1, plan.answers.repeats + 1))
    return len(set(wanted) - {(row.number, row.way, row.repeat) for row in rows})


def vote_page(plan: EvalPlan, rows: Sequence[Row], view: EvalView) -> None:
    """Writes the blind page.

    Raises:
        InvalidInput: No question has different answers of two ways.
        SotError: It cannot be written.
    """
    path = plan.folder / VOTE_PAGE
    pairs = write_vote_page(path, rows, pairs=plan.pairs)
    noun = "pair" if pairs == 1 else "pairs"
    view.note(f"{pairs} {noun} to vote on in {path}; then: sot eval --votes FILE --out {plan.folder}")
