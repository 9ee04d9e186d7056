"""Answers over a server that breaks: every cell of the fault matrix of `tests/faults`, and a soak.

A cell is one answer: a fault, the stage that meets it, the settings for failures, and the way to ask. Its outcome is
right if the rules allow it (`tests/shared/fault_matrix/rules.py`) and if no thread, task, socket or request is left. In
the soak, half of the answers are left early, by Ctrl-C, by a cancelled task, or by a closed stream.

    python benchmarks/faults.py
    python benchmarks/faults.py --sample --surfaces chain,command --answers 200

    --surfaces  of chain, chat, engine, openai_like, command; by default all whose client is installed
    --sample    the sample of `make test` in place of all cells
    --answers   answers of the soak, in threads and on an event loop each; 0 for none
    --seed      of the soak

Printed are the cells that are wrong, then for each surface the number of cells by outcome. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# This folder has a file with the name of a package that is imported here.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "shared")]

from fault_matrix.cells import WAYS, all_cells, sample  # noqa: E402
from fault_matrix.matrix import run_cell  # noqa: E402
from fault_matrix.server import FaultServer  # noqa: E402
from fault_matrix.soak import soak  # noqa: E402

CLIENTS = {
    "chain": ("langchain_openai",),
    "chat": ("langchain_openai",),
    "engine": ("llama_index.core", "httpx"),
    "openai_like": ("llama_index.llms.openai_like",),
    "command": ("openai",),
}


def installed(surface: str) -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in CLIENTS[surface])
    except ModuleNotFoundError:
        return False


def run_matrix(surface: str, server: FaultServer, *, sampled: bool) -> dict[str, Any]:
    """Runs the cells of a surface; prints those that are wrong."""
    outcomes, wrong = Counter[str](), 0
    for cell in (sample if sampled else all_cells)((surface,)):
        result = run_cell(cell, server)
        outcomes[result.outcome] += 1
        if result.wrong:
            wrong += 1
            print(cell, *result.wrong, sep="\n    ", flush=True)
    return {"cells": outcomes.total(), "wrong": wrong, "outcomes": dict(outcomes.most_common())}


def run_soak(surface: str, server: FaultServer, answers: int, seed: int) -> dict[str, Any]:
    ends, left = soak(server, surface, answers, seed)
    return {"answers": ends.total(), "left_behind": left, "ends": dict(ends.most_common())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", default=",".join(filter(installed, WAYS)))
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    surfaces = [surface for surface in args.surfaces.split(",") if surface]
    if unknown := set(surfaces) - set(WAYS):
        parser.error(f"there is no surface {', '.join(sorted(unknown))}, but {', '.join(WAYS)}")
    os.environ["SOT_CONFIG"] = os.devnull
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"matrix": {}, "soak": {}}
    with FaultServer().running() as server:
        for surface in surfaces:
            found = result["matrix"][surface] = run_matrix(surface, server, sampled=args.sample)
            print(f"{surface}: {found['cells']} cells, {found['wrong']} wrong")
            print(*(f"{count:7} {outcome}" for outcome, count in found["outcomes"].items()), sep="\n", flush=True)
        for surface in [each for each in surfaces if each != "command" and args.answers]:
            found = result["soak"][surface] = run_soak(surface, server, args.answers, args.seed)
            print(f"{surface}: {found['ends']}, left behind: {found['left_behind'] or 'nothing'}", flush=True)
    result["cells"] = sum(each["cells"] for each in result["matrix"].values())
    result["wrong"] = sum(each["wrong"] for each in result["matrix"].values())
    result["answers"] = sum(each["answers"] for each in result["soak"].values())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
