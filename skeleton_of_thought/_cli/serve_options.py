"""The options of `sot serve` that no other command has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from skeleton_of_thought._cli.arguments import Choice, Flag, Number
from skeleton_of_thought._cli.backend import PREFILL

__all__ = ["KEY_VARIABLE", "add_served_models", "add_server_options", "has_config", "typed"]

KEY_VARIABLE = "SOT_API_KEY"
"""The environment variable with the keys that callers may use."""


def add_served_models(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which models are served."""
    add = parser.add_argument
    add(
        "--model",
        "-m",
        dest="models",
        action="append",
        metavar="[NAME=]MODEL",
        help="a model, see below, and the name that clients give it; may be repeated",
    )
    add("--config", metavar="FILE", help="a TOML file with models and settings; other options go before it")
    add(
        "--prefill",
        type=Choice({True: "yes", False: "no"}),
        choices=PREFILL,
        metavar="{auto,yes,no}",
        default="auto",
        help="whether models get the start of their turns, see sot ask --help (default: auto)",
    )
    add(
        "--router",
        type=Choice({True: "auto", False: "always"}),
        choices=("auto", "always", "never"),
        default="auto",
        help="which questions get a skeleton: those that suit it, all, or none (default: auto)",
    )
    add("--no-router", dest="router", action="store_const", const="always", help="the same as --router always")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how the server listens, and what it allows."""
    add = parser.add_argument_group("server").add_argument
    add("--host", metavar="ADDRESS", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    add("--port", type=Number(int, 0), metavar="N", default=8000, help="0 takes any free one (default: %(default)s)")
    add("--open", action="store_true", help="open the page in a browser")
    add("--page", action=Flag, default=True, help="serve no page at /")
    add(
        "--quiet", "-q", action=Flag, default=False, help="no progress messages, and no line for each request on stderr"
    )
    add = parser.add_argument_group("access").add_argument
    add(
        "--key-env",
        metavar="NAME",
        default=KEY_VARIABLE,
        help="the environment variable with the key that callers need, or with several, separated by commas "
        "(default: %(default)s)",
    )
    add(
        "--allow-anyone",
        action=Flag,
        default=False,
        help="serve without a key on an address that other machines reach: whoever reaches it may use the models",
    )
    add(
        "--origin",
        action="append",
        metavar="URL",
        help="let the pages of this origin call the server, such as https://chat.example.org; may be repeated",
    )
    add("--log-texts", action=Flag, default=False, help="log questions and answers; keys are never logged")
    _add_bounds(parser)


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("bounds").add_argument
    seconds = Number(float, 0, above=True)
    for name, kind, metavar, default, text in (
        ("max-open-calls", Number(int, 1), "N", 32, "the most calls of models at a time, over all clients"),
        ("max-waiting", Number(int, 0), "N", 64, "the most requests that wait for a call; others get status 429"),
        ("max-request-bytes", Number(int, 1), "N", 4_000_000, "the largest request; a larger one gets status 413"),
        ("timeout", seconds, "SECONDS", 600.0, "the longest time for a request"),
        ("keep-alive", seconds, "SECONDS", 15.0, "the silence after which a stream gets a comment line"),
        ("grace", Number(float, 0), "SECONDS", 30.0, "the time that open answers have to end after SIGTERM or Ctrl-C"),
    ):
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        add(f"--{name}", type=kind, metavar=metavar, default=default, help=f"{text} (default: {shown})")


def has_config(words: Sequence[str]) -> bool:
    """Whether a command line names a file of settings."""
    return any(word == "--config" or word.startswith("--config=") for word in words)


def typed(command: argparse.ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The options that stand on the command line, without the defaults of the others.

    Args:
        command: The parser, which has no defaults any more afterwards.
        words: A command line that it takes.
    """
    for action in command._actions:
        action.default = None
    command._defaults.clear()
    return {name: value for name, value in vars(command.parse_args(words)).items() if value is not None}
