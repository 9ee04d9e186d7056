"""The options of all commands that answer questions."""

from __future__ import annotations

import argparse

from skeleton_of_thought._cli.arguments import Choice, Flag, Number
from skeleton_of_thought._cli.backend import PREFILL
from skeleton_of_thought.settings import Settings

__all__ = ["add_answer_options", "add_call_options", "add_model"]

_DEFAULTS = Settings()


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model and what its turns begin with."""
    add = parser.add_argument
    add("--model", "-m", metavar="MODEL", help="the model, see below")
    add("--system", metavar="TEXT", help="a system message")
    add(
        "--prefill",
        type=Choice({True: "yes", False: "no"}),
        choices=PREFILL,
        metavar="{auto,yes,no}",
        default="auto",
        help="whether the model gets the start of its turns, which helps small models; yes if the server can continue "
        "them. auto: for local models, and for llama.cpp, vLLM and SGLang (default: auto)",
    )


def add_answer_options(parser: argparse.ArgumentParser, *, sampling: bool = True, merging: bool = True) -> None:
    """Adds how an answer is made; without `sampling` all but the settings of sampling, without `merging` no merge."""
    add = parser.add_argument_group("answer").add_argument
    add("--max-points", type=Number(int, 1), metavar="N", default=_DEFAULTS.max_points, help="default: %(default)s")
    add(
        "--words",
        type=Number(int, 1),
        metavar="N",
        default=_DEFAULTS.point_words,
        help="the approximate words of a point (default: %(default)s)",
    )
    add(
        "--eager",
        action=Flag,
        default=_DEFAULTS.eager,
        help="start each point as soon as its line of the skeleton is complete",
    )
    add(
        "--join",
        choices=("numbered", "headings", "paragraphs"),
        default=_DEFAULTS.join,
        help="the form of the points: with number and title, under Markdown headings, or texts only "
        "(default: %(default)s)",
    )
    if merging:
        add("--merge", action=Flag, default=_DEFAULTS.merge, help="rewrite the points as one text in a last call")
    add("--prompts", metavar="FILE", help="prompts in the JSON format of the paper")
    if sampling:  # clients of a server send it with each request
        add(
            "--temperature",
            type=Number(float, 0),
            metavar="T",
            help="0 is greedy decoding, the default of local models",
        )
        add("--seed", type=Number(int, 0), metavar="N", help="makes sampling repeatable")
    add("--max-tokens", type=Number(int, 1), metavar="N", help="the most tokens of a call")


def add_call_options(parser: argparse.ArgumentParser) -> None:
    """Adds how calls are made."""
    add = parser.add_argument_group("calls").add_argument
    add("--max-concurrency", type=Number(int, 1), metavar="N", help="the most calls at a time")
    add("--retries", type=Number(int, 0), metavar="N", default=_DEFAULTS.max_retries, help="default: %(default)s")
    add(
        "--point-timeout",
        type=Number(float, 0, above=True),
        metavar="SECONDS",
        help="the longest time for one attempt at a point",
    )
    add(
        "--on-point-error",
        choices=("raise", "placeholder"),
        default=_DEFAULTS.on_point_error,
        help="whether a failed point ends the answer or becomes a placeholder (default: %(default)s)",
    )
