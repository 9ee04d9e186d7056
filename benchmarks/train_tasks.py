"""Trains the weights with which the gate reads instructions, and measures them on authors that are new to them.

    python benchmarks/train_tasks.py --out skeleton_of_thought/routers/tasks.bin
    python benchmarks/train_tasks.py --cross-validate

With `--cross-validate` the prompts of each author are decided by "auto" with weights trained on all other authors, to
estimate the accuracy on the prompts of a new author. Prompts that are held out (`split=heldout`) never train.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from unittest.mock import patch

from skeleton_of_thought.routers import tasks
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.embedded import Weights
from skeleton_of_thought.routers.measures import LabelledTask, Measures, measure, read_tasks
from skeleton_of_thought.routers.training import train_tasks
from skeleton_of_thought.types import Conversation

DATA = Path(__file__).parent.parent / "tests" / "data"
FILES = (DATA / "router_tasks.csv", DATA / "router_instructions.csv")


def main() -> None:
    """Prints a report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=FILES, metavar="CSV", help="files of labelled prompts")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the weights are written")
    parser.add_argument("--cross-validate", action="store_true", help="leave each author out in turn")
    parser.add_argument("--threshold", type=float, default=0.55, help="lowest probability of a direct answer")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [
        dataclasses.replace(row, source=row.source or Path(file).stem)
        for file in args.data
        for row in read_tasks(file)
        if row.split != "heldout"
    ]
    report = {}
    if args.cross_validate:
        for source in sorted({row.source for row in rows}):
            others = [row for row in rows if row.source != source]
            weights = train_tasks(others, threshold=args.threshold, seed=args.seed)
            report[source] = decided([row for row in rows if row.source == source], weights).to_dict()
    if args.out is not None:
        weights = train_tasks(rows, threshold=args.threshold, seed=args.seed)
        weights.write(args.out)
        report["trained on"] = decided(rows, weights).to_dict()
    print(json.dumps(report, indent=2))


def decided(rows: list[LabelledTask], weights: Weights) -> Measures:
    """The measures of "auto" with these weights."""
    router = AutoRouter()
    tasks.read_instructions.cache_clear()
    with patch.object(tasks, "shipped_weights", lambda: weights):
        decisions = [router.route(Conversation.of(row.prompt, system=row.system)).use_skeleton for row in rows]
    tasks.read_instructions.cache_clear()
    return measure(decisions, [row.use_skeleton for row in rows])


if __name__ == "__main__":
    main()
