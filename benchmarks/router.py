"""All routers on labelled questions: confusion, calibration, and the time of a decision.

A question with the label 1 has an answer of points that can be written independently. The embedded router was trained
on the files of `--train`, so its own line there means little: look at cross-validation and at the files of `--test`,
which it has not seen. The held-out questions among these have the same authors as the training questions, and routers
do worse on questions of strangers. The majority baseline always gives the more frequent answer. The encoder comes from
`sot train-router --base`. The prompt router uses any server with OpenAI's protocol, or a model on this machine (`demo`
is the small one). An unclear reply counts as direct, as in use, and so does a call that fails.

The section `tasks` measures "auto" and the gate alone on prompts with a question in them: the text around the question
decides. A third of the rows, `heldout`, was drawn by chance within each label and kind of text after the rows were
written; rules may be tuned on the others only.

The section `overhead` measures a direct answer against the same call without this project, see `direct.py`.

    python benchmarks/router.py                                   # all files of labels that are there
    python benchmarks/router.py --test my_labels.csv --encoder out/encoder --prompt-model openai:NAME@http://host/v1
    python benchmarks/router.py --train --prompt-model demo --limit 30
    python benchmarks/router.py --cross-validate                  # trains six times, one to two minutes

The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

from direct import PAIRS, overhead
from direct_frameworks import framework_pairs

from skeleton_of_thought._cli.diagnostics import one_line
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import Router, failure_decision
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.routers.measures import (
    LabelledQuestion,
    LabelledTask,
    majority,
    measure,
    read_labels,
    read_tasks,
)
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply, RouteDecision

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
OWN = ROOT / "tests" / "data" / "router_questions.csv"
HELD_OUT = OWN.with_name("router_heldout.csv")
TASKS = OWN.with_name("router_tasks.csv")
Row = TypeVar("Row")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    result: dict[str, Any] = {"sets": {}, "tasks": {}, "skipped": {}}
    with contextlib.ExitStack() as stack:
        try:
            sets = {Path(path).stem: read_labels(path) for path in [*args.train, *args.test]}
            tasks = {Path(path).stem: read_tasks(path) for path in args.tasks}
            candidates = routers(args, stack) if sets or tasks else []
        except SotError as error:
            raise SystemExit(f"router.py: {error}") from error
        for candidate in candidates[:]:
            if (why := refused(candidate)) is not None:
                candidates.remove(candidate)
                result["skipped"][candidate.name] = why
                print(f"{candidate.name}: skipped: {why}\n")
        for name, labelled in sets.items():
            result["sets"][name] = measured(name, some(labelled, args.limit), candidates)
        for name, pairs in tasks.items():
            gated = [candidate for candidate in candidates if candidate.name.startswith(("gate", "auto"))]
            result["tasks"][name] = measured_tasks(name, some(pairs, args.limit), gated)
    if args.cross_validate:
        result["cross_validation"] = cross_validated(args.train)
    if args.overhead:
        result["overhead"] = overhead(PAIRS | framework_pairs(), args.overhead)
    print(json.dumps(result))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--train", nargs="*", metavar="CSV", default=_there(DATA / "lima_router.csv", OWN), help="training files")
    unseen = _there(HELD_OUT, DATA / "vicuna_router.csv")
    add("--test", nargs="*", metavar="CSV", default=unseen, help="files that no router was trained on")
    add("--tasks", nargs="*", metavar="CSV", default=_there(TASKS), help="files of prompts with a question in them")
    add("--encoder", help="a directory made by sot train-router --base")
    add("--prompt-model", metavar="MODEL", help="a model for the prompt router, as for sot ask --model")
    add("--prompt-tokens", type=int, default=16, help="the most tokens of its reply; reasoning models need hundreds")
    add("--limit", type=int, help="the number of questions of each file, evenly spread")
    add("--cross-validate", action="store_true", help="cross-validate the embedded router")
    add("--overhead", type=int, default=300, metavar="RUNS", help="runs of each direct call; 0 for none")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit must be at least 1, not {args.limit}")
    if args.overhead < 0 or args.prompt_tokens < 1:
        parser.error("--overhead must be at least 0, and --prompt-tokens at least 1")
    if not (args.train or args.test or args.tasks or args.overhead):
        parser.error("there is nothing to measure: give files of labels with --train and --test, or with --tasks")
    return args


def _there(*paths: Path) -> list[str]:
    """The files that exist: not every checkout has all of them."""
    return [str(path) for path in paths if path.is_file()]


# --- the routers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A router with its name in the tables.

    Attributes:
        name: The name.
        router: The router.
        explain: Describes an error of the router's backend in a line.
    """

    name: str
    router: Router
    explain: Callable[[BaseException], str] = one_line


def routers(args: argparse.Namespace, stack: contextlib.ExitStack) -> list[Candidate]:
    """The routers to measure; the stack closes their backends."""
    candidates = [Candidate("gate", Gate()), Candidate("embedded", EmbeddedRouter()), Candidate("auto", AutoRouter())]
    if args.encoder is not None:
        from skeleton_of_thought import ClassifierRouter

        encoder = ClassifierRouter.from_pretrained(args.encoder)
        candidates += [Candidate("encoder", encoder), Candidate("auto, encoder", AutoRouter(encoder))]
    if args.prompt_model is not None:
        candidates.append(prompt_candidate(args.prompt_model, args.prompt_tokens, stack))
    return candidates


def prompt_candidate(model: str, tokens: int, stack: contextlib.ExitStack) -> Candidate:
    """A prompt router over a backend of `sot`, greedy if the backend supports that."""
    from skeleton_of_thought import PromptRouter
    from skeleton_of_thought._cli.models import ModelSpec, load_backend

    # Servers take the limit from the backend, the local engine from the prompt.
    backend = load_backend(ModelSpec.parse(model), temperature=0.0, max_tokens=tokens)
    stack.callback(backend.close)

    def ask(prompt: Prompt) -> Iterable[str | Reply]:
        return backend.open_call(Call(1, "route", prompt), 0)

    return Candidate("prompt", PromptRouter(ask, max_tokens=tokens), backend.explain)


def refused(candidate: Candidate) -> str | None:
    """The reason why a router cannot decide at all. This first question also warms it up."""
    try:
        candidate.router.route(Conversation.of("Which question comes first?"))
    except Exception as error:
        return candidate.explain(error)
    return None


# --- measuring --------------------------------------------------------------------------------------------


def some(labelled: Sequence[Row], limit: int | None) -> Sequence[Row]:
    """At most `limit` rows, evenly spread, since files may be sorted by label."""
    count = len(labelled) if limit is None else min(limit, len(labelled))
    return [labelled[at * len(labelled) // count] for at in range(count)]


def measured(name: str, labelled: Sequence[LabelledQuestion], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Measures all routers on one file, and prints a line of the table after each."""
    labels = [one.use_skeleton for one in labelled]
    rows: dict[str, Any] = {"majority": majority(labels).to_dict()}
    _print_head(f"{name}: {len(labels)} questions, {sum(labels)} labelled 1", rows["majority"])
    for candidate in candidates:
        decided = [decide(candidate, Conversation.of(one.question)) for one in labelled]
        rows[candidate.name] = figures(decided, labels)
        _print_row(candidate.name, rows[candidate.name])
    print()
    return rows


def measured_tasks(name: str, tasks: Sequence[LabelledTask], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Measures routers on prompts with a question in them: all, each split, and the mistakes of each kind of text."""
    labels = [task.use_skeleton for task in tasks]
    rows: dict[str, Any] = {"majority": majority(labels).to_dict()}
    _print_head(f"{name}: {len(labels)} prompts with a question in them, {sum(labels)} labelled 1", rows["majority"])
    splits = sorted({task.split for task in tasks if task.split})
    for candidate in candidates:
        decided = [decide(candidate, Conversation.of(task.prompt, system=task.system)) for task in tasks]
        rows[candidate.name] = row = figures(decided, labels)
        _print_row(candidate.name, row)
        for split in splits:
            places = [at for at, task in enumerate(tasks) if task.split == split]
            row[split] = figures([decided[at] for at in places], [labels[at] for at in places])
            _print_row(f"  {split}", row[split])
        row["kinds"] = by_kind(tasks, decided)
        wrong = (f"{kind} {of['wrong']}/{of['prompts']}" for kind, of in row["kinds"].items() if of["wrong"])
        print(f"    mistakes by label and kind: {', '.join(wrong) or 'none'}")
    print()
    return rows


def by_kind(tasks: Sequence[LabelledTask], decided: Sequence[Decided]) -> dict[str, dict[str, int]]:
    """The prompts and the mistakes of each label and kind, for example of `"0 translate"`."""
    kinds: dict[str, dict[str, int]] = {}
    for task, one in zip(tasks, decided, strict=True):
        row = kinds.setdefault(f"{int(task.use_skeleton)} {task.kind}", {"prompts": 0, "wrong": 0})
        row["prompts"] += 1
        row["wrong"] += one.decision.use_skeleton != task.use_skeleton
    return dict(sorted(kinds.items()))


def _print_head(title: str, baseline: Mapping[str, Any]) -> None:
    print(title)
    heads = (("accuracy", 9), ("TP", 6), ("FP", 6), ("TN", 6), ("FN", 6), ("precision", 11), ("recall", 8), ("ECE", 7))
    print(" " * 18 + "".join(f"{head:>{width}}" for head, width in (*heads, ("ms", 11), ("p99", 11))))
    _print_row("majority", baseline)


def _print_row(name: str, row: Mapping[str, Any]) -> None:
    counts = "".join(f"{row[key]:>6}" for key in ("tp", "fp", "tn", "fn"))
    calibration = f"{row['calibration']:>7.3f}" if "calibration" in row else f"{'-':>7}"
    times = f"{row['ms']:>11.3f}{row['ms_p99']:>11.3f}" if "ms" in row else ""
    notes = "".join(f"  {row[key]} {key.replace('_', ' ')}" for key in ("not_understood", "failed") if key in row)
    shares = f"{row['precision']:>11.3f}{row['recall']:>8.3f}{calibration}"
    print(f"  {name:16}{row['accuracy']:>9.3f}{counts}{shares}{times}{notes}", flush=True)


@dataclass(frozen=True)
class Decided:
    """A router's decision on one conversation.

    Attributes:
        decision: The decision.
        seconds: How long it took.
        failure: The router's error in a line, "" if it did not fail.
    """

    decision: RouteDecision
    seconds: float
    failure: str = ""


def decide(candidate: Candidate, conversation: Conversation) -> Decided:
    """Asks a router and takes the time; a router that fails counts as direct, as in use."""
    began, failure = time.perf_counter(), ""
    try:
        decision = candidate.router.route(conversation)
    except Exception as error:
        decision, failure = failure_decision(error), candidate.explain(error)
    return Decided(decision, time.perf_counter() - began, failure)


def figures(decided: Sequence[Decided], labels: Sequence[bool]) -> dict[str, Any]:
    """The figures of one router: its decisions against the labels, and their times."""
    decisions, seconds = [one.decision for one in decided], [one.seconds for one in decided]
    scores = [decision.score for decision in decisions]
    known = [score for score in scores if score is not None]
    found = measure([d.use_skeleton for d in decisions], labels, known if len(known) == len(scores) else None)
    # Inclusive, so that a percentile never exceeds the measurements.
    late = quantiles(seconds, n=100, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    row = {**found.to_dict(), "ms": round(median(seconds) * 1e3, 4), "ms_p99": round(late * 1e3, 4)}
    if usage := [decision.usage for decision in decisions if decision.usage is not None]:
        row["tokens_per_question"] = round(sum(one.total_tokens for one in usage) / len(usage), 1)
    if unclear := sum("not understood" in decision.reason for decision in decisions):
        row["not_understood"] = unclear
    if failures := [one.failure for one in decided if one.failure]:
        row |= {"failed": len(failures), "first_error": failures[0]}
    return row


def cross_validated(paths: Sequence[str]) -> dict[str, Any]:
    """Cross-validation of the embedded router, with the majority baseline."""
    from skeleton_of_thought.routers.training import train_embedded

    trained = train_embedded({Path(path).stem: read_labels(path) for path in paths})
    figures = trained.to_dict()
    for name, row in figures["cross_validation"].items():
        router, baseline = row["router"], row["majority"]
        print(
            f"{name}, cross-validated: accuracy {router['accuracy']:.3f} (majority {baseline['accuracy']:.3f}), "
            f"FP {router['fp']}, FN {router['fn']}, ECE {router['calibration']:.3f}"
        )
    return figures


if __name__ == "__main__":
    main()
