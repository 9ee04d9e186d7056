"""The options of the commands about routers: `sot route`, `sot train-router`."""

from __future__ import annotations

from typing import Any

from skeleton_of_thought._cli.arguments import THRESHOLD, Fraction, Number

__all__ = ["add_route", "add_train"]


def add_route(commands: Any) -> None:
    """Adds `sot route`."""
    parser = commands.add_parser(
        "route",
        help="tell whether a question would get a skeleton",
        description="Tell whether a question would get a skeleton. No language model is asked.",
    )
    add = parser.add_argument
    add("question", nargs="*", metavar="QUESTION", help="the question; - stands for standard input")
    add("--system", metavar="TEXT", help="a system message, which the router reads, too")
    add("--json", action="store_true", help="print each decision as a JSON object in a line of its own")
    add(
        "--csv",
        metavar="FILE",
        help="decide every row of a CSV file (- for standard input), and print CSV or, with --json, JSON lines",
    )
    add("--column", metavar="NAME", default="question", help="the column of the questions (default: %(default)s)")
    add(
        "--planning",
        choices=("titles", "scoped", "graph", "auto"),
        default="titles",
        help="what the skeleton would say of its points, as in sot ask; with graph or auto, a comparison or a "
        "recommendation gets a graph of points (default: %(default)s)",
    )
    add(
        "--items",
        choices=("auto", "off"),
        default="auto",
        help="whether a question that asks the same of several items would be answered item by item, as in sot ask "
        "(default: %(default)s)",
    )
    add("--threshold", type=Fraction(), metavar="T", help=THRESHOLD)
    add("--no-gate", dest="gate", action="store_false", help="ask the router only, without the rules before it")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", metavar="FILE", help="weights that train-router --embedded wrote")
    weights.add_argument("--model", metavar="MODEL", help="a Hugging Face sequence classification model")


def add_train(commands: Any) -> None:
    """Adds `sot train-router`."""
    parser = commands.add_parser(
        "train-router",
        help="train a router on labelled questions",
        description="Train a router on CSV files with the columns label and question. A label of 1 marks a question "
        "whose answer is a list of independent points. Prints a report as JSON.",
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="CSV", help="labelled questions; may be repeated")
    add("--out", required=True, metavar="PATH", help="the file of weights, or the directory of the model")
    add("--test", metavar="CSV", help="labelled questions for a test, not for training")
    add("--embedded", action="store_true", help="train the small embedded router; needs no extra")
    add("--base", metavar="MODEL", help="train this Hugging Face encoder (hub id or directory)")
    add("--seed", type=Number(int, 0), default=0, metavar="N", help="default: %(default)s")
    add("--json", action="store_true", help="print the report in one line")
    add = parser.add_argument_group("with --base").add_argument
    add("--epochs", type=Number(int, 1), default=6, metavar="N", help="the most epochs (default: %(default)s)")
    add("--batch-size", type=Number(int, 1), default=16, metavar="N", help="default: %(default)s")
    add("--learning-rate", type=Number(float, 0), default=5e-5, metavar="X", help="default: %(default)s")
    add(
        "--max-length",
        type=Number(int, 8),
        default=128,
        metavar="N",
        help="the most tokens of a question (default: %(default)s)",
    )
