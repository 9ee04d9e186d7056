"""The command line of `sot`, read into plain values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NoReturn

from skeleton_of_thought.flow import Settings

__all__ = ["parse"]

_DEFAULTS = Settings()
_THRESHOLD = "the score (0 to 1) from which on a skeleton is used"


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong on one line, as every other error is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sot: error: {message} (see {self.prog} --help)\n")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            version = metadata.version("skeleton-of-thought")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"sot {version}")
        parser.exit()


def _at_least(least: float, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} of at least {least:g}, not {text!r}")
        return value

    return read


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line. Exits for `--help`, `--version` and mistakes, as argparse does."""
    parser = _Parser(prog="sot", description="Skeleton-of-Thought: outline the answer, write all points in parallel.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    ask = commands.add_parser("ask", help="answer a question", description="Answer a question.", epilog=_EPILOG)
    compare = commands.add_parser(
        "compare",
        help="answer a question, then again with normal decoding; the same as ask --compare",
        description="Answer a question, then answer it again with normal decoding, and compare.",
        epilog=_EPILOG,
    )
    for command in (ask, compare):
        _add_options(command)
    ask.add_argument("--compare", action="store_true", help="answer again with normal decoding, and compare")
    _add_router(ask)
    compare.set_defaults(compare=True, router=False, threshold=None)
    _add_route(commands)
    _add_train(commands)
    args = parser.parse_args(argv)
    if getattr(args, "stream", False) and not args.json:
        commands.choices[args.command].error("--stream goes with --json")
    if args.command == "ask" and args.compare and args.threshold is not None:
        ask.error("--threshold goes without --compare, which always makes a skeleton")
    return args


def _add_router(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("router", "What a list of points would answer badly, the model answers directly.")
    add = group.add_mutually_exclusive_group().add_argument
    add("--no-router", dest="router", action="store_false", help="make a skeleton always, as --compare does")
    add("--threshold", type=_share, metavar="T", help=_THRESHOLD)


def _add_route(commands: Any) -> None:
    parser = commands.add_parser(
        "route",
        help="say whether a question would be answered through a skeleton",
        description="Say whether a question would be answered through a skeleton. No model is asked.",
    )
    add = parser.add_argument
    add("question", nargs="*", metavar="QUESTION", help="the question; - reads it from standard input")
    add("--json", action="store_true", help="the decision as one JSON object")
    add("--csv", metavar="FILE", help="decide every row of a CSV file (- for standard input), and print CSV")
    add("--column", metavar="NAME", default="question", help="the column of the questions (default: %(default)s)")
    add("--threshold", type=_share, metavar="T", help=_THRESHOLD)
    add("--no-gate", dest="gate", action="store_false", help="ask the router alone, without the rules before it")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--weights", metavar="FILE", help="weights that train-router --embedded wrote")
    weights.add_argument("--model", metavar="MODEL", help="a Hugging Face sequence classification model")


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train-router",
        help="train a router on labelled questions",
        description="Train a router on CSV files with the columns label and question. A label of 1 is a question whose "
        "answer is points that can be written independently. Prints a report as JSON.",
    )
    add = parser.add_argument
    add("--data", action="append", required=True, metavar="CSV", help="labelled questions; may be given repeatedly")
    add("--out", required=True, metavar="PATH", help="the file of weights, or the directory of the model")
    add("--test", metavar="CSV", help="labelled questions that are only measured on")
    add("--embedded", action="store_true", help="train the small model of the embedded router; needs nothing else")
    add("--base", metavar="MODEL", help="train this Hugging Face encoder (hub id or directory)")
    add("--seed", type=_at_least(0), default=0, metavar="N", help="default: %(default)s")
    add("--json", action="store_true", help="the report on one line")
    add = parser.add_argument_group("with --base").add_argument
    add("--epochs", type=_at_least(1), default=6, metavar="N", help="at most so many (default: %(default)s)")
    add("--batch-size", type=_at_least(1), default=16, metavar="N", help="default: %(default)s")
    add("--learning-rate", type=_at_least(0, float), default=5e-5, metavar="X", help="default: %(default)s")
    add("--max-length", type=_at_least(8), default=128, metavar="N", help="tokens of a question (default: %(default)s)")


def _share(text: str) -> float:
    value: float = _at_least(0, float)(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text!r}")
    return value


_EPILOG = (
    "MODEL is a Hugging Face hub id, a directory, a .gguf file, openai:NAME, or "
    "openai:NAME@http://host:port/v1 for any OpenAI-compatible server (the key is OPENAI_API_KEY). "
    "Without it the small demo model is used, if it is installed."
)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("question", nargs="*", metavar="QUESTION", help="the question; - reads it from standard input")
    add("--model", "-m", metavar="MODEL", help="what to ask, see below")
    add("--system", metavar="TEXT", help="a system message")

    shown = parser.add_argument_group("output").add_mutually_exclusive_group()
    shown.add_argument("--plain", action="store_true", help="the answer's text alone, in order; the default when piped")
    shown.add_argument("--json", action="store_true", help="the answer and how it came about, as one JSON object")
    add("--stream", action="store_true", help="with --json: every event as a line of JSON, the answer last")
    figures = parser.add_mutually_exclusive_group()
    figures.add_argument("--stats", action="store_true", help="after the answer: times, tokens and steps in full")
    figures.add_argument("--quiet", "-q", action="store_true", help="no figures, and no word on what is being done")

    add = parser.add_argument_group("answer").add_argument
    add("--max-points", type=_at_least(1), metavar="N", default=_DEFAULTS.max_points, help="default: %(default)s")
    add(
        "--words",
        type=_at_least(1),
        metavar="N",
        default=_DEFAULTS.point_words,
        help="about so many words a point (default: %(default)s)",
    )
    add("--eager", action="store_true", help="start a point as soon as its line of the skeleton is written")
    add(
        "--join",
        choices=("numbered", "headings", "paragraphs"),
        default=_DEFAULTS.join,
        help="how the points stand in the answer: with number and title, under Markdown headings, or the texts alone "
        "(default: %(default)s)",
    )
    add("--merge", action="store_true", help="one more call at the end that makes one text of the points")
    add("--prompts", metavar="FILE", help="prompts in the JSON format of the paper")
    add("--temperature", type=_at_least(0, float), metavar="T", help="0 is greedy, the default of local models")
    add("--seed", type=_at_least(0), metavar="N", help="repeat the same sampling")
    add("--max-tokens", type=_at_least(1), metavar="N", help="the most tokens that one call may write")

    add = parser.add_argument_group("calls").add_argument
    add("--max-concurrency", type=_at_least(1), metavar="N", help="the most calls that are open at a time")
    add("--retries", type=_at_least(0), metavar="N", default=_DEFAULTS.max_retries, help="default: %(default)s")
    add(
        "--point-timeout",
        type=_at_least(0, float),
        metavar="SECONDS",
        help="the longest that one try at a point may take",
    )
    add(
        "--on-point-error",
        choices=("raise", "placeholder"),
        default=_DEFAULTS.on_point_error,
        help="what a failed point does: end the answer, or leave a placeholder (default: %(default)s)",
    )
