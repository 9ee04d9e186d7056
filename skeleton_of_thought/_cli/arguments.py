"""Argument types, error reports and help formatting of the `sot` command, and the options that its commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from skeleton_of_thought._cli.backend import PREFILL
from skeleton_of_thought.settings import Settings

__all__ = [
    "OPTIONAL",
    "SWITCHES",
    "THRESHOLD",
    "Choice",
    "Flag",
    "Formatter",
    "Fraction",
    "Number",
    "Parser",
    "Threshold",
    "Version",
    "add_answer_options",
    "add_call_options",
    "add_model",
    "add_router",
]

_DEFAULTS = Settings()
THRESHOLD = "the least score (0 to 1) that gets a skeleton"
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "--prefill": PREFILL,
    "--eager": ("auto", "yes", "no"),
    "--opening": ("restart", "yes", "no"),
}
"""Options that go without a value, too, which means yes."""
SWITCHES: Mapping[str | bool, bool] = {"yes": True, "no": False}
"""What the words of those options stand for in `Settings`; other words stand for themselves."""


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sot: error: {' '.join(message.split())} (see {self.prog} --help)\n")


class Version(argparse.Action):
    """Prints the version, which is looked up only when needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata  # slow to import

        try:
            version = metadata.version("skeleton-of-thought")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"sot {version}")
        parser.exit()


class Flag(argparse.BooleanOptionalAction):
    """An option that can be switched off again, since a file may have switched it on."""

    def __init__(self, *args: Any, against: str | None = None, **kwargs: Any) -> None:
        self.against = against
        super().__init__(*args, **kwargs)
        # The default without a file, which decides which of the two names the help shows.
        self.usual = bool(self.default)

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        super().__call__(parser, namespace, values, option)
        if self.against is not None and getattr(namespace, self.dest):
            setattr(namespace, self.against, False)


class Threshold(argparse.Action):
    """Sets the threshold, and switches the router on if a file has switched it off."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        namespace.threshold, namespace.router, namespace.threshold_is_typed = values, True, True


class Number:
    """Reads a number that is at least `least`, or more than it if `above` is true."""

    def __init__(self, kind: type[int] | type[float], least: float, *, above: bool = False) -> None:
        self.kind = kind
        self._least = least
        self._above = above

    def __call__(self, text: str) -> float:
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not self._least <= value < math.inf or (self._above and value == self._least):
            what = "a whole number" if self.kind is int else "a number"
            bound = f"of more than {self._least:g}" if self._above else f"of at least {self._least:g}"
            raise argparse.ArgumentTypeError(f"must be {what} {bound}, not {text!r}")
        return value


class Choice:
    """Reads one of several words. A file may have true or false in place of some of them."""

    def __init__(self, booleans: Mapping[bool, str]) -> None:
        self.booleans = booleans

    def __call__(self, text: str) -> str:
        return text


class Fraction(Number):
    """Reads a number from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(float, 0)

    def __call__(self, text: str) -> float:
        value = super().__call__(text)
        if value > 1:
            raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text!r}")
        return value


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of epilogs, wraps descriptions, and shows only the name of a flag that changes its default."""

    def add_text(self, text: str | None) -> None:
        """Wraps a text of one line, and keeps the lines of others."""
        wrapped = argparse.HelpFormatter._fill_text(self, text, self._width, "") if text and "\n" not in text else text
        super().add_text(wrapped)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Flag):
            short = [name for name in action.option_strings if not name.startswith("--")]
            return ", ".join([action.option_strings[1 if action.usual else 0], *short])
        return super()._format_action_invocation(action)


# --- options that several commands have ---


def add_router(parser: argparse.ArgumentParser) -> None:
    """Adds whether the router decides, to a command that answers."""
    group = parser.add_argument_group("router", "The model answers directly if a list of points would be a bad answer.")
    add = group.add_mutually_exclusive_group().add_argument
    add("--router", action=Flag, default=True, help="always make a skeleton, as --compare does")
    add("--threshold", action=Threshold, type=Fraction(), metavar="T", help=THRESHOLD)


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
        type=Choice({True: "yes", False: "no"}),
        choices=OPTIONAL["--eager"],
        metavar="{auto,yes,no}",
        default="no",
        help="start each point as soon as its line of the skeleton is complete; auto: where that pays (default: no)",
    )
    add(
        "--join",
        choices=("numbered", "headings", "paragraphs"),
        default=_DEFAULTS.join,
        help="the form of the points: with number and title, under Markdown headings, or texts only "
        "(default: %(default)s)",
    )
    add(
        "--planning",
        choices=("titles", "scoped", "graph", "auto"),
        default=_DEFAULTS.planning,
        help="what the skeleton says of its points: titles; scoped: also what each covers; graph: also which points "
        "each builds on; auto: titles, or a graph where the router asks for one (default: %(default)s)",
    )
    add(
        "--items",
        choices=("auto", "off"),
        default=_DEFAULTS.items,
        help="auto: a question that asks the same of several items, each for itself, is answered item by item, where "
        "there is a router (default: %(default)s)",
    )
    add(
        "--max-depth",
        type=Number(int, 1),
        metavar="N",
        default=_DEFAULTS.max_depth,
        help="the most waves of points that wait for each other (default: %(default)s)",
    )
    add(
        "--opening",
        type=Choice({True: "yes", False: "no"}),
        choices=OPTIONAL["--opening"],
        metavar="{yes,no,restart}",
        default="no",
        help="have a sentence or two written that lead into the answer, which begins with them; restart: show the "
        "points at once, and the answer once more when they are written (default: no)",
    )
    add("--closing", action=Flag, default=_DEFAULTS.closing, help="have a conclusion written from the points")
    add(
        "--rewrite-overlap",
        action=Flag,
        default=_DEFAULTS.rewrite_overlap,
        help="write a point anew, once, that repeats another one",
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
