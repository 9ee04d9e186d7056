"""`sot train-router`: trains a router on labelled questions."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from skeleton_of_thought._cli.terminal_text import json_text
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.measures import LabelledQuestion, Measures, measure, read_labels

__all__ = ["train"]


def train(args: Namespace) -> int:
    """Trains a router, writes it to `--out`, and prints a report.

    Raises:
        InvalidInput: The labels cannot be used, or options exclude each other.
        MissingExtra: `--base` is given, but torch or transformers is not installed.
    """
    if args.embedded == (args.base is not None):
        raise InvalidInput("Either --embedded, or --base MODEL to train a Hugging Face encoder.")
    # The stem only, so that the report does not depend on the folder of the files.
    sources = {Path(path).stem: read_labels(path) for path in args.data}
    test = None if args.test is None else read_labels(args.test)
    report = _embedded(args, sources, test) if args.embedded else _encoder(args, sources, test)
    print(json_text(json.dumps(report, indent=None if args.json else 2)))
    return 0


def _report(line: str) -> None:
    print(f"sot: {line}", file=sys.stderr)


def _embedded(
    args: Namespace, sources: dict[str, list[LabelledQuestion]], test: list[LabelledQuestion] | None
) -> dict[str, Any]:
    from skeleton_of_thought.routers.embedded import EmbeddedRouter
    from skeleton_of_thought.routers.training import train_embedded

    trained = train_embedded(sources, seed=args.seed, report=_report)
    trained.weights.write(Path(args.out))
    report = trained.to_dict()
    if test is not None:
        router = EmbeddedRouter(weights=args.out)
        scores = [router.score(labelled.question) for labelled in test]
        report["test"] = _measured(test, scores, router.threshold).to_dict()
    return report


def _encoder(
    args: Namespace, sources: dict[str, list[LabelledQuestion]], test: list[LabelledQuestion] | None
) -> dict[str, Any]:
    from skeleton_of_thought.routers.classifier import train_classifier

    labelled = [question for questions in sources.values() for question in questions]
    return train_classifier(
        labelled,
        base=args.base,
        out=args.out,
        test=test,
        seed=args.seed,
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        max_length=args.max_length,
        report=_report,
    )


def _measured(test: list[LabelledQuestion], scores: list[float], threshold: float) -> Measures:
    return measure([score >= threshold for score in scores], [labelled.use_skeleton for labelled in test], scores)
