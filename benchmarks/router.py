"""Every router against labelled questions: confusion, calibration, and the time that a decision takes.

What is labelled 1 has an answer of points that can be written independently. `train` is what the embedded router was
trained on, so its own line there says little: cross-validation says more, and so do files it has not seen (`test`).
Of these, the held-out questions are by the same hand as those trained on: strangers' questions fare worse. The majority
baseline gives the more frequent answer always. The encoder is one that `sot train-router --base` made.
The prompt router is asked of any server of OpenAI's protocol, or of a model on this machine.

    python benchmarks/router.py                                   # the files in ../shared/data and our own questions
    python benchmarks/router.py --test my_labels.csv --encoder out/encoder --prompt-model openai:NAME@http://host/v1
    python benchmarks/router.py --cross-validate                  # trains six times, one to two minutes

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from skeleton_of_thought.auto import AutoRouter
from skeleton_of_thought.embedded import EmbeddedRouter
from skeleton_of_thought.gate import Gate
from skeleton_of_thought.measures import Labelled, majority, measure, read_labels
from skeleton_of_thought.routing import Router
from skeleton_of_thought.types import Conversation

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
OWN = ROOT / "tests" / "data" / "router_questions.csv"
HELD_OUT = OWN.with_name("router_heldout.csv")


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    routers: dict[str, Router] = {
        "gate": Gate(),
        "embedded": EmbeddedRouter(),
        "auto": AutoRouter(),
    }
    if args.encoder:
        from skeleton_of_thought import ClassifierRouter

        routers["encoder"] = ClassifierRouter.from_pretrained(args.encoder)
        routers["auto, encoder"] = AutoRouter(routers["encoder"])
    close = None
    if args.prompt_model:
        routers["prompt"], close = prompt_router(args.prompt_model)
    sets = {Path(path).stem: read_labels(path) for path in [*args.train, *args.test] if Path(path).is_file()}
    if not sets:
        raise SystemExit("There are no labels: name files by --train and --test.")
    result: dict[str, Any] = {"sets": {}}
    try:
        for name, labelled in sets.items():
            result["sets"][name] = measured(name, labelled, routers, args.limit)
    finally:
        if close is not None:
            close()
    if args.cross_validate:
        result["cross_validation"] = cross_validated(args.train)
    print(json.dumps(result))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--train", nargs="*", default=[str(DATA / "lima_router.csv"), str(OWN)], help="what the routers were trained on"
    )
    unseen = [str(HELD_OUT), str(DATA / "vicuna_router.csv")]
    add("--test", nargs="*", default=unseen, help="what they have not seen")
    add("--encoder", help="a directory that sot train-router --base wrote")
    add("--prompt-model", help="a model for the prompt router, as sot ask --model takes it")
    add("--limit", type=int, help="so many questions of each file")
    add("--cross-validate", action="store_true", help="train the embedded router anew, fold by fold")
    return parser.parse_args(argv)


def prompt_router(model: str) -> tuple[Router, Any]:
    """A prompt router over a backend of `sot`, and what closes it."""
    from skeleton_of_thought import PromptRouter
    from skeleton_of_thought._cli.backends import ModelSpec
    from skeleton_of_thought._cli.loading import load
    from skeleton_of_thought.types import Call

    backend = load(ModelSpec.parse(model))
    return PromptRouter(lambda prompt: backend.open_call(Call(1, "route", prompt), 0)), backend.close


def measured(name: str, labelled: Sequence[Labelled], routers: dict[str, Router], limit: int | None) -> dict[str, Any]:
    """All routers on one file, printed as a table."""
    labelled = labelled[:limit]
    labels = [one.use_skeleton for one in labelled]
    rows = {"majority": majority(labels).to_dict()}
    for router_name, router in routers.items():
        rows[router_name] = decided(router, labelled, labels)
    print(f"{name}: {len(labels)} questions, {sum(labels)} labelled 1")
    heads = (("accuracy", 9), ("TP", 6), ("FP", 6), ("TN", 6), ("FN", 6), ("precision", 11), ("recall", 8), ("ECE", 7))
    print(" " * 18 + "".join(f"{head:>{width}}" for head, width in (*heads, ("ms", 9), ("p99", 8))))
    for row_name, row in rows.items():
        counts = "".join(f"{row[key]:>6}" for key in ("tp", "fp", "tn", "fn"))
        shares = f"{row['precision']:>11.3f}{row['recall']:>8.3f}{row.get('calibration', float('nan')):>7.3f}"
        times = f"{row['ms']:>9.3f}{row['ms_p99']:>8.3f}" if "ms" in row else ""
        print(f"  {row_name:16}{row['accuracy']:>9.3f}{counts}{shares}{times}")
    print(flush=True)
    return rows


def decided(router: Router, labelled: Sequence[Labelled], labels: Sequence[bool]) -> dict[str, Any]:
    """One router on all questions, one after the other."""
    decisions, seconds = [], []
    router.route(Conversation.of("The first question pays for what later ones find loaded."))
    for one in labelled:
        conversation = Conversation.of(one.question)
        began = time.perf_counter()
        decisions.append(router.route(conversation))
        seconds.append(time.perf_counter() - began)
    scores = [decision.score for decision in decisions]
    known = [score for score in scores if score is not None]
    found = measure([d.use_skeleton for d in decisions], labels, known if len(known) == len(scores) else None)
    late = quantiles(seconds, n=100)[-1] if len(seconds) > 1 else seconds[0]
    return {**found.to_dict(), "ms": round(median(seconds) * 1e3, 4), "ms_p99": round(late * 1e3, 4)}


def cross_validated(paths: Sequence[str]) -> dict[str, Any]:
    """The embedded router on questions that its model has not seen, fold by fold, with the majority baseline."""
    from skeleton_of_thought.embedded_training import train_embedded

    trained = train_embedded({Path(path).stem: read_labels(path) for path in paths if Path(path).is_file()})
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
