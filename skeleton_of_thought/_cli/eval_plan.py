"""What `sot eval` is to do, checked before a model is loaded or a call is made."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from skeleton_of_thought._cli.embeddings import EmbeddingModel
from skeleton_of_thought._cli.eval_judges import Judging
from skeleton_of_thought._cli.eval_options import DEMO_FOLDER
from skeleton_of_thought._cli.local_backend import DEMO
from skeleton_of_thought._cli.models import AnswerOptions, system_of
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.demo import QUESTIONS
from skeleton_of_thought.evaluation.journal import key_of, key_settings
from skeleton_of_thought.evaluation.judging import pairs_of
from skeleton_of_thought.evaluation.manifest import Manifest, now, safe_arguments
from skeleton_of_thought.evaluation.questions import Question, digest, read_questions
from skeleton_of_thought.evaluation.report import check_plots
from skeleton_of_thought.evaluation.runner import Job, jobs_of
from skeleton_of_thought.evaluation.spending import Budget
from skeleton_of_thought.evaluation.ways import Way, ways_of

__all__ = ["Answers", "EvalPlan"]

_DEMO_TOKENS = 128
"""The most tokens of a call of the demo, so that it takes minutes on two processors."""


@dataclass(frozen=True)
class Answers:
    """The answers that are to be made.

    Attributes:
        questions: The questions.
        ways: How they are answered.
        repeats: How often by each way.
        options: The options of answers.
        settings: What decides the answers, for keys and the manifest.
    """

    questions: Sequence[Question]
    ways: Sequence[Way]
    repeats: int
    options: AnswerOptions
    settings: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name."""
        return self.options.model.name or DEMO

    def key(self, question: Question, way: Way, repeat: int) -> str:
        """The key of an answer."""
        return key_of(
            question.text,
            way=way.name,
            model=self.model,
            settings=self.settings,
            repeat=repeat,
            system=question.system,
        )

    @cached_property
    def different(self) -> int:
        """How many questions there are; those with the same text and system message count once, and are asked once."""
        return len({self.key(question, self.ways[0], 1) for question in self.questions})

    @cached_property
    def jobs(self) -> list[Job]:
        """All answers of the run; those that share a key, one after the other."""
        return jobs_of(self.questions, self.ways, self.repeats, key=self.key)


@dataclass(frozen=True)
class EvalPlan:
    """What a command does.

    Attributes:
        folder: The folder of the run.
        manifest: What the run is, with its earlier commands.
        answers: The answers that are to be made; None if nothing is asked but judges.
        judging: How answers are judged; None for no judge.
        budget: What the command may spend.
        pairs: The ways that judges and people compare, two at a time.
        votes: Files of votes to count.
        embeddings: The embedding model, if there is one.
    """

    folder: Path
    manifest: Manifest
    answers: Answers | None
    judging: Judging | None
    budget: Budget
    pairs: Sequence[tuple[str, str]]
    votes: Sequence[str]
    embeddings: EmbeddingModel | None

    def with_versions(self) -> EvalPlan:
        """The plan with the versions of the packages that have been imported by now."""
        versions = Manifest.of("eval", model="", settings={}).versions
        return replace(self, manifest=replace(self.manifest, versions={**self.manifest.versions, **versions}))

    @classmethod
    def of(cls, args: Namespace) -> EvalPlan:
        """Checks the options and the files that they name. Nothing is written.

        Raises:
            InvalidInput: An option or a file has a mistake, or the folder is of another run.
            MissingExtra: A package is not installed.
        """
        _check_options(args)
        if args.demo:
            _set_demo(args)
        folder = _folder(args.out)
        check_plots()
        answers = _answers(args)
        budget = Budget() if args.budget is None else Budget.parse(args.budget)
        embeddings = None if args.embeddings is None else EmbeddingModel.of(args.embeddings)
        manifest = _manifest_of_the_folder(folder, args) if answers is None else _manifest(answers, args)
        judging = Judging.of(args, manifest.model) if args.judge and not args.report_only else None
        if judging is not None:
            manifest = replace(manifest, judge=tuple(dict.fromkeys((*manifest.judge, *judging.judges))))
        if answers is not None:
            manifest = manifest.joined(folder)
        compared = judging is not None or args.human
        pairs = pairs_of(manifest.ways, every=args.pairs == "all") if compared else ()
        return cls(folder, manifest, answers, judging, budget, pairs, args.votes or (), embeddings)


def _check_options(args: Namespace) -> None:
    if args.demo and args.questions is not None:
        raise InvalidInput("--demo has its own questions: leave out QUESTIONS, or --demo.")
    if args.demo and args.report_only:
        raise InvalidInput(f"--report-only asks nothing: leave out --demo, and name the folder by --out {DEMO_FOLDER}.")
    old = args.report_only or args.human or args.votes or args.judge or args.embeddings
    if args.questions is None and not args.demo and not old:
        raise InvalidInput(
            "There are no questions: name a file, as in sot eval questions.txt --out DIR, or see how it works with "
            "sot eval --demo."
        )
    if args.out is None and not args.demo:
        raise InvalidInput("Name the folder of the rows and the report: --out DIR.")
    if args.judge_prompt is not None and not args.judge:
        raise InvalidInput("--judge-prompt goes with --judge MODEL.")


def _set_demo(args: Namespace) -> None:
    """The options of the demo: the demo model, unless the command line names another, and short texts."""
    default = args.defaults.settings.get("model")
    if default is not None and default.value == args.model:
        args.model = None
    args.out = DEMO_FOLDER if args.out is None else args.out
    args.max_tokens = args.max_tokens or _DEMO_TOKENS


def _folder(name: str) -> Path:
    if not name.strip():
        raise InvalidInput("--out has no name: name a folder.")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InvalidInput(f"--out {name}: there is no such home directory.") from error


def _answers(args: Namespace) -> Answers | None:
    if args.report_only or not (args.demo or args.questions is not None):
        return None
    ways = ways_of(args.ways)
    options = AnswerOptions.of(args)
    questions: Sequence[Question] = QUESTIONS[: args.limit]
    if not args.demo:
        questions = read_questions(
            args.questions,
            column=args.column,
            category=args.category_column,
            id_column=args.id_column,
            limit=args.limit,
        )
    settings = key_settings(
        options.settings,
        prompts=options.prompts,
        system=system_of(args),
        temperature=args.temperature,
        seed=args.seed,
        max_tokens=args.max_tokens,
        prefill=args.prefill,
        # It makes no other answer, but other times.
        max_concurrency=args.max_concurrency,
    )
    return Answers(questions, ways, args.repeats, options, settings)


def _manifest_of_the_folder(folder: Path, args: Namespace) -> Manifest:
    found = Manifest.read(folder)
    if found.kind != "eval":
        raise InvalidInput(f"{str(folder)!r} is a folder of sot {found.kind}: name one of sot eval.")
    if args.report_only:
        return found
    run = {"at": now(), "arguments": safe_arguments(args.arguments)}
    return replace(found, runs=(*found.runs, run))


def _manifest(answers: Answers, args: Namespace) -> Manifest:
    file = "the questions of --demo" if args.demo else "standard input" if args.questions == "-" else args.questions
    return Manifest.of(
        "eval",
        model=answers.model,
        settings=answers.settings,
        ways=[way.name for way in answers.ways],
        questions={
            "file": Path(file).name,
            "count": answers.different,
            "sha256": digest(answers.questions),
            "repeats": answers.repeats,
        },
        arguments=args.arguments,
    )
