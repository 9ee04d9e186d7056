"""`sot eval` has answers judged: from `--judge` to verdicts."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.local_backend import DEMO
from skeleton_of_thought._cli.models import ModelSpec, load_backend
from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.judge_prompt import DEFAULT_JUDGE_PROMPT, JudgePrompt, read_judge_prompt
from skeleton_of_thought.evaluation.judging import (
    Judge,
    Judgement,
    JudgeProgress,
    judge_all,
    judgements_of,
    plan_judgements,
)
from skeleton_of_thought.evaluation.manifest import write_atomically
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.spending import Cost, Spending
from skeleton_of_thought.evaluation.verdicts import FORMS, Form, Verdict
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.small_files import parse_json, read_bounded

if TYPE_CHECKING:
    from skeleton_of_thought._cli.eval_plan import EvalPlan
    from skeleton_of_thought._cli.eval_records import Records

__all__ = ["Judging", "kept_prompts", "make_verdicts", "numbered_verdicts", "shown_prompts", "verdicts_done"]

_PROMPTS = "judge-prompts.json"
"""The file of each judge's prompt in the folder of a run, for later reports."""
_MOST_BYTES = 64_000_000


@dataclass(frozen=True)
class Judging:
    """How answers are judged.

    Attributes:
        judges: The judges by their names.
        model: The name of the model that answers.
        prompt: The judges' prompt.
        forms: How the answers are shown.
        temperature: For sampling; None for the default of the judge's server.
        retries: How often a call that failed is made again.
        parallel: The most judgements at a time.
        quiet: Whether to leave out progress messages.
    """

    judges: dict[str, ModelSpec]
    model: str
    prompt: JudgePrompt
    forms: Sequence[Form]
    temperature: float | None
    retries: int
    parallel: int
    quiet: bool

    @classmethod
    def of(cls, args: Namespace, model: str) -> Judging:
        """Checks the options, and that there is what the judges' servers need.

        Raises:
            InvalidInput: A judge is no model, or named twice; or the prompt cannot be used.
            MissingExtra: A package is not installed.
        """
        judges: dict[str, ModelSpec] = {}
        for text in args.judge:
            try:
                spec = ModelSpec.parse(text)
            except InvalidInput as error:
                raise InvalidInput(f"--judge: {error}") from error
            name = spec.name or DEMO
            if name in judges:
                raise InvalidInput(f"--judge names {name!r} twice: verdicts are kept by the judge's name.")
            judges[name] = spec
        prompt = DEFAULT_JUDGE_PROMPT if args.judge_prompt is None else read_judge_prompt(args.judge_prompt)
        forms = FORMS if args.plain_form else FORMS[:1]
        made = cls(judges, model, prompt, forms, args.judge_temperature, args.retries, args.parallel, args.quiet)
        for spec in judges.values():
            if spec.source != "local":  # opening a client makes no call
                made.load(spec).close()
        return made

    def warn(self, note: Callable[[str], object]) -> None:
        """Says that a model judges its own answers."""
        if self.model in self.judges:
            note(f"the judge {self.model} has written the answers itself; models prefer their own texts")

    def load(self, spec: ModelSpec) -> ModelBackend:
        """Loads a judge."""
        return load_backend(spec, temperature=self.temperature, prefill="no", quiet=self.quiet)

    def judgements(self, rows: Iterable[Row], pairs: Iterable[tuple[str, str]], name: str) -> list[Judgement]:
        """All judgements of a judge."""
        return judgements_of(rows, pairs, judge=name, prompt=self.prompt, forms=self.forms)


def make_verdicts(plan: EvalPlan, records: Records, spending: Spending, view: EvalView, *, retry: bool) -> None:
    """Has all pairs of answers judged that are not, by one judge after the other, until the budget is spent.

    Args:
        plan: What the command does.
        records: Gets the verdicts.
        spending: Counts what is spent.
        view: Shows the progress.
        retry: Whether verdicts that could not be had are asked for once more.

    Raises:
        SotError: A judge cannot be loaded or always fails, or the verdicts cannot be written.
    """
    judging, journal = plan.judging, records.verdicts
    assert judging is not None
    assert journal is not None
    _keep_prompts(plan.folder, judging)
    rows = records.all_rows()
    for name, spec in judging.judges.items():
        found = records.all_verdicts()
        for verdict in found:
            if verdict.calls:
                spending.learn(f"judge:{verdict.judge}", _cost(verdict))
        judgements = judging.judgements(rows, plan.pairs, name)
        left = plan_judgements(judgements, done=found, retry=retry)
        if not left or spending.stopped:
            continue
        backend = judging.load(spec)
        try:
            judge = Judge(backend, name=name, prompt=judging.prompt, settings=Settings(max_retries=judging.retries))
            done = _done(judgements, found)
            with view.stage(f"verdicts of {name}", total=len(judgements), done=done, left=len(left)):
                judge_all(
                    left,
                    judge,
                    journal=journal,
                    parallel=judging.parallel,
                    spending=spending,
                    progress=_Shown(view),
                )
        finally:
            backend.close()
    _check(judging, {name: judging.judgements(rows, plan.pairs, name) for name in judging.judges}, records, view)


def _check(judging: Judging, judgements: Mapping[str, Sequence[Judgement]], records: Records, view: EvalView) -> None:
    """Says how many verdicts could not be had; raises if a judge gave none, in this command and those before."""
    for name, wanted in judgements.items():
        keys = {each.key for each in wanted}
        last = {each.key: each for each in records.all_verdicts() if each.key in keys}
        failed = [each for each in last.values() if not each.winner]
        if failed and len(failed) == len(last):
            why = failed[-1].error or "its replies could not be read"
            raise SotError(
                f"All {len(failed)} verdicts of {name} failed, the last one so: {why} --retry asks once more."
            )
        if failed:
            view.note(f"{len(failed)} verdicts of {name} failed; --retry asks for them once more")


class _Shown(JudgeProgress):
    """Shows the progress of a judge."""

    def __init__(self, view: EvalView) -> None:
        self._view = view

    def ends(self, judgement: Judgement, verdict: Verdict) -> None:
        self._view.made(failed=not verdict.winner)


def _cost(verdict: Verdict) -> Cost:
    return Cost(verdict.calls, verdict.input_tokens + verdict.output_tokens)


def _done(judgements: Sequence[Judgement], verdicts: Iterable[Verdict]) -> int:
    keys = {judgement.key for judgement in judgements}
    return len({verdict.key for verdict in verdicts if verdict.winner and verdict.key in keys})


def verdicts_done(plan: EvalPlan, records: Records) -> tuple[int, int]:
    """How many verdicts on the answers there are, and how many there will be, as far as answers have come."""
    assert plan.judging is not None
    rows, verdicts = records.all_rows(), records.all_verdicts()
    each = [plan.judging.judgements(rows, plan.pairs, name) for name in plan.judging.judges]
    return sum(_done(judgements, verdicts) for judgements in each), sum(map(len, each))


def numbered_verdicts(
    verdicts: Sequence[Verdict], rows: Iterable[Row], prompts: Mapping[str, JudgePrompt], ways: Sequence[str]
) -> list[Verdict]:
    """The verdicts on the present answers, with the numbers of their questions in the present file.

    Those about other texts, or by another prompt than the judge's last one, are left out.

    Args:
        verdicts: All verdicts of the folder.
        rows: All rows.
        prompts: The prompt of each judge; verdicts of other judges stay as they are.
        ways: The ways of the run.
    """
    rows = list(rows)
    pairs = [(a, b) for place, a in enumerate(ways) for b in ways[place + 1 :]]
    judges = {verdict.judge for verdict in verdicts}
    known = {
        each.key: each
        for name, prompt in prompts.items()
        if name in judges
        for each in judgements_of(rows, pairs, judge=name, prompt=prompt, forms=FORMS)
    }
    return [
        verdict
        if (about := known.get(verdict.key)) is None
        else dataclasses.replace(verdict, number=about.number, id=about.id, category=about.category)
        for verdict in verdicts
        if verdict.key in known or verdict.judge not in prompts
    ]


def kept_prompts(folder: Path) -> dict[str, JudgePrompt]:
    """The last prompt of each judge of a run.

    Raises:
        InvalidInput: Their file cannot be read.
    """
    path = folder / _PROMPTS
    try:
        found = parse_json(read_bounded(path, _MOST_BYTES))
        return {str(name): JudgePrompt(template) for name, template in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(
            f"{str(path)!r} does not hold the prompts of judges: {error}. Name another folder."
        ) from error


def _keep_prompts(folder: Path, judging: Judging) -> None:
    """Writes the prompts before the first verdict, since a later report counts verdicts by them and shows them."""
    prompts = kept_prompts(folder) | dict.fromkeys(judging.judges, judging.prompt)
    told = {name: prompt.template for name, prompt in prompts.items()}
    write_atomically(folder / _PROMPTS, json.dumps(told, indent=1) + "\n")


def shown_prompts(prompts: Mapping[str, JudgePrompt]) -> str:
    """The prompts for the reader of a report: each once, with the names of its judges if there are several."""
    judges: dict[str, list[str]] = {}
    for name, prompt in prompts.items():
        judges.setdefault(prompt.template, []).append(name)
    if len(judges) == 1:
        return next(iter(judges))
    return "\n\n".join(f"Of {', '.join(names)}:\n\n{template}" for template, names in judges.items())
