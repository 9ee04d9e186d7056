"""The options of `sot batch`."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought._cli.arguments import (
    THRESHOLD,
    Choice,
    Flag,
    Formatter,
    Fraction,
    Number,
    Threshold,
    add_answer_options,
    add_call_options,
    add_model,
)
from skeleton_of_thought._cli.eval_options import add_columns
from skeleton_of_thought._cli.help_texts import BATCH, BATCH_EPILOG

__all__ = ["CONCURRENCY", "add_batch"]

CONCURRENCY = 8
"""The calls at a time, where neither the user nor the model says how many."""


def add_batch(commands: Any) -> None:
    """Adds `sot batch`."""
    parser = commands.add_parser(
        "batch",
        usage="sot batch [OPTION ...] QUESTIONS DIR",
        help="answer a file of questions into a folder",
        description=BATCH,
        epilog=BATCH_EPILOG,
        formatter_class=Formatter,
    )
    add = parser.add_argument
    add("questions", metavar="QUESTIONS", help="a file of questions: .txt, .csv, .tsv, .jsonl; - is stdin")
    add("out", metavar="DIR", help="the folder of the answers; one of an earlier run goes on")
    add(
        "--concurrency",
        dest="max_concurrency",
        type=Number(int, 1),
        metavar="N",
        help=f"the most calls at a time, over all answers, like --max-concurrency (default: {CONCURRENCY})",
    )
    add("--retry", action="store_true", help="ask again what has failed in an earlier run")
    add(
        "--budget",
        metavar="AMOUNT",
        help="stop before more is spent by this command: 500calls, 2Mtokens, or both with a comma",
    )
    add("--quiet", "-q", action=Flag, default=False, help="no progress messages")
    ray = parser.add_argument_group("several machines").add_argument
    ray(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="answer on a cluster of Ray: HOST:PORT of its head, auto for the one on this machine, local or nothing "
        "for a new one on this machine",
    )
    ray(
        "--actors",
        type=Number(int, 1),
        metavar="N",
        help="with --ray: the engines or clients (default: one for each GPU or node; two a node for a server's model)",
    )
    add_model(parser)
    add_columns(parser)
    router = parser.add_argument_group("router").add_mutually_exclusive_group().add_argument
    router(
        "--router",
        type=Choice({True: "auto", False: "always"}),
        choices=("auto", "always", "never", "off"),
        metavar="{auto,always,never}",
        default="auto",
        help="which questions get a skeleton: those that suit it, all, or none (default: auto)",
    )
    router("--no-router", dest="router", action="store_const", const="always", help="the same as --router always")
    router("--threshold", action=Threshold, type=Fraction(), metavar="T", help=THRESHOLD)
    add_answer_options(parser)
    add_call_options(parser)
