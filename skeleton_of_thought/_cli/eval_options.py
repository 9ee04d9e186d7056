"""The options of `sot eval`."""

from __future__ import annotations

import argparse
from typing import Any

from skeleton_of_thought._cli.arguments import Flag, Formatter, Number, add_answer_options, add_call_options, add_model
from skeleton_of_thought._cli.help_texts import EVAL, EVAL_EPILOG

__all__ = ["DEMO_FOLDER", "add_columns", "add_eval"]

DEMO_FOLDER = "sot-eval-demo"
"""The folder of `--demo`, unless `--out` names another."""


def add_eval(commands: Any) -> None:
    """Adds `sot eval`."""
    parser = commands.add_parser(
        "eval",
        usage="sot eval [OPTION ...] [QUESTIONS]",
        help="measure on your questions whether a skeleton pays, and write a report",
        description=EVAL,
        epilog=EVAL_EPILOG,
        formatter_class=Formatter,
    )
    _add_run(parser)
    add_model(parser)
    add_columns(parser)
    _add_judges(parser)
    _add_report(parser)
    add_answer_options(parser, merging=False)
    add_call_options(parser)
    parser.set_defaults(merge=False)  # it is one of the ways


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("questions", nargs="?", metavar="QUESTIONS", help="a file of questions: .txt, .csv, .tsv, .jsonl; - is stdin")
    add("--out", "-o", metavar="DIR", help="the folder of the rows and the report; one of an earlier run goes on")
    add(
        "--ways",
        metavar="LIST",
        default="normal,sot,auto",
        help="what is compared, see below; the others are measured against normal (default: %(default)s)",
    )
    add("--repeats", type=Number(int, 1), metavar="N", default=1, help="answers of a way to a question (default: 1)")
    add(
        "--parallel",
        type=Number(int, 1),
        metavar="N",
        default=1,
        help="answers at a time; with more than one, times say little (default: %(default)s)",
    )
    add("--warm-up", action=Flag, default=True, help="do not make a local model ready before what is timed")
    add("--retry", action="store_true", help="ask again what has failed in an earlier run")
    add(
        "--budget",
        metavar="AMOUNT",
        help="stop before more is spent by this command: 500calls, 2Mtokens, or both with a comma",
    )
    add("--demo", action="store_true", help=f"six questions on the demo model; DIR is {DEMO_FOLDER} unless given")
    add("--quiet", "-q", action=Flag, default=False, help="no progress messages")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds what is read of a file of questions."""
    add = parser.add_argument_group("questions").add_argument
    add("--limit", type=Number(int, 1), metavar="N", help="take the first N questions only")
    for name, default, what in (
        ("column", "question", "questions"),
        ("category-column", "category", "categories, if there are any"),
        ("id-column", "id", "names of questions, if there are any"),
    ):
        add(f"--{name}", metavar="NAME", default=default, help=f"the column of the {what} (default: %(default)s)")


def _add_judges(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("quality").add_argument
    add(
        "--judge",
        action="append",
        metavar="MODEL",
        help="a model that compares the answers, two at a time, blind and in both orders; of another family than "
        "MODEL for choice; may be repeated",
    )
    add("--judge-prompt", metavar="FILE", help="your own prompt for judges, with {question}, {first} and {second}")
    add(
        "--judge-temperature",
        type=_temperature,
        metavar="T",
        default=0.0,
        help="0 is greedy decoding; server leaves it to the judge's server (default: 0)",
    )
    add(
        "--pairs",
        choices=("base", "all"),
        default="base",
        help="judge each way against normal, or every pair of ways (default: %(default)s)",
    )
    # Not `plain`, which is an option of `sot ask` that a file may set.
    add(
        "--no-plain",
        dest="plain_form",
        action="store_false",
        help="do not judge the answers as plain paragraphs, too",
    )
    add(
        "--embeddings",
        metavar="MODEL",
        help="an embedding model for how similar points are: a hub id or directory, openai:NAME, or "
        "openai:NAME@http://host:port/v1",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("report").add_argument
    add("--human", action="store_true", help="write a blind page to vote on in a browser, DIR/vote.html")
    add("--votes", action="append", metavar="FILE", help="count the votes that the page has saved; may be repeated")
    add("--report-only", action="store_true", help="write the report of DIR anew, and ask no model for text")


def _temperature(text: str) -> float | None:
    return None if text == "server" else Number(float, 0)(text)
