"""The options of `sot`, and the parsing of its command line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from skeleton_of_thought._cli.arguments import (
    OPTIONAL,
    Flag,
    Formatter,
    Parser,
    Version,
    add_answer_options,
    add_call_options,
    add_model,
    add_router,
)
from skeleton_of_thought._cli.batch_options import add_batch
from skeleton_of_thought._cli.completion import SHELLS
from skeleton_of_thought._cli.config import Defaults, Options, read_defaults, settable
from skeleton_of_thought._cli.eval_options import add_eval
from skeleton_of_thought._cli.help_texts import (
    ASK,
    ASK_EPILOG,
    ASK_EXAMPLES,
    CHAT_EXAMPLES,
    COMPARE_EXAMPLES,
    MAIN_EPILOG,
    SERVE,
    SERVE_EPILOG,
    USAGE,
)
from skeleton_of_thought._cli.router_options import add_route, add_train
from skeleton_of_thought._cli.serve_options import add_served_models, add_server_options, has_config, typed
from skeleton_of_thought.errors import InvalidInput

__all__ = ["parse", "parser", "served_options"]

_ANSWERING = frozenset({"ask", "compare", "chat"})
"""The commands that answer a person, whose options may have defaults."""
_MANY = frozenset({"eval", "batch"})
"""The commands that answer many questions. Options that they share with `sot ask` have its defaults."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line, with defaults from the configuration file and the environment.

    Exits on `--help`, `--version` and mistakes, like argparse. The result has two more attributes: `defaults`, and
    `options`, which are the options that may have a default. Commands for many questions also get `arguments`, the
    command line.

    Raises:
        InvalidInput: The configuration file has a mistake.
    """
    words = _with_values(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["batch"]:
        words = _with_ray_value(words)
    made = parser(every=not words or words[0] not in _ANSWERING)
    commands = _commands(made)
    _check_command(made, words, commands)
    options = settable(commands["ask"])
    defaults = _defaults(words, options)
    if words[0] in {*_ANSWERING, *_MANY, "serve"}:
        _set_defaults(commands[words[0]], options, defaults)
    args, unknown = made.parse_known_args(words)
    if unknown:
        _refuse(unknown, commands[args.command])
    args.defaults, args.options = defaults, options
    if args.command in ("ask", "compare"):
        _check_ask(args, commands[args.command])
    elif args.command == "serve":
        args.typed = typed(commands["serve"], words[1:])
    elif args.command in _MANY:
        args.arguments = words
    return args


def _refuse(words: Sequence[str], command: argparse.ArgumentParser) -> NoReturn:
    """Reports an unknown option, with the known option that is most like it."""
    known = [option for action in command._actions for option in action.option_strings]
    near = next(
        (found[0] for word in words if (found := difflib.get_close_matches(word.split("=")[0], known, n=1))), None
    )
    command.error(f"unrecognized arguments: {' '.join(words)}{f'; did you mean {near}?' if near else ''}")


def _with_values(argv: Sequence[str]) -> list[str]:
    """Adds a value to options like `--prefill` without one, since argparse would take the question for their value."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for at, word in enumerate(words[:end]):
        if word in OPTIONAL and not {*words[at + 1 : at + 2]} & {*OPTIONAL[word]}:
            words[at] = f"{word}=yes"
        elif word.startswith("--no-") and f"--{word[5:]}" in OPTIONAL:
            words[at] = f"--{word[5:]}=no"
    return words


_RAY = re.compile(r"auto|local|ray://.*|[^/\\]*:\d+", re.I)


def _with_ray_value(words: list[str]) -> list[str]:
    """Adds a value to a `--ray` of `sot batch` without one, since argparse would take the file for it."""
    ends = [*words[1:], ""]
    return [
        f"{word}=" if word == "--ray" and not _RAY.fullmatch(after) else word
        for word, after in zip(words, ends, strict=True)
    ]


def _defaults(words: Sequence[str], options: Options) -> Defaults:
    # A file for the server is all of its configuration.
    if words[0] not in {*_ANSWERING, *_MANY, "config", "serve"} or (words[0] == "serve" and has_config(words)):
        return Defaults()
    try:
        return read_defaults(options)
    except InvalidInput:
        if {"-h", "--help"} & set(words):
            return Defaults()
        raise


def _set_defaults(command: argparse.ArgumentParser, options: Options, defaults: Defaults) -> None:
    for name, setting in defaults.settings.items():
        dest = options[name].dest
        # Not every command has every option.
        if any(action.dest == dest for action in command._actions):
            command.set_defaults(**{dest: setting.value})


def _check_command(made: argparse.ArgumentParser, words: Sequence[str], commands: Sequence[str] | Any) -> None:
    """Reports a missing or mistyped command with the right one, where argparse would only list all commands."""
    if not words:
        made.error('there is no command: write sot ask "QUESTION", or sot chat')
    first = words[0]
    if first in commands or first.startswith("-"):
        return
    near = difflib.get_close_matches(first, list(commands), n=1)
    if near:
        made.error(f"there is no command {first!r}; did you mean sot {near[0]}?")
    if len(words) > 1 or " " in first:
        made.error(f'there is no command {first[:40]!r}; to ask a question: sot ask "QUESTION"')
    made.error(f"there is no command {first!r}, but {', '.join(commands)}")


def _check_ask(args: argparse.Namespace, command: argparse.ArgumentParser) -> None:
    if args.stream and not args.json:
        command.error("--stream goes with --json")
    if args.command == "ask" and args.compare and args.threshold is not None:
        if getattr(args, "threshold_is_typed", False):
            command.error("--threshold goes without --compare, which always makes a skeleton")
        args.threshold = None


def _commands(made: argparse.ArgumentParser) -> dict[str, Any]:
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def parser(*, every: bool = True) -> argparse.ArgumentParser:
    """The parser of the command; only with those commands that answer a person if `every` is false."""
    made = Parser(
        prog="sot",
        description="Skeleton-of-Thought: outline the answer, write all points in parallel.",
        epilog=MAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_ask(commands)
    _add_chat(commands)
    if every:
        _add_serve(commands)
        add_eval(commands)
        add_batch(commands)
        add_route(commands)
        add_train(commands)
        _add_config(commands)
        _add_completion(commands)
    return made


def _add_ask(commands: Any) -> None:
    ask = commands.add_parser(
        "ask",
        help="answer a question",
        usage=f"sot ask {USAGE}",
        description=ASK,
        epilog=ASK_EPILOG.format(examples=ASK_EXAMPLES),
        formatter_class=Formatter,
    )
    compare = commands.add_parser(
        "compare",
        usage=f"sot compare {USAGE}",
        help="answer a question with and without a skeleton, like ask --compare",
        description="Answer a question, then answer it again without a skeleton, and compare the times. A local model "
        "is measured against transformers' model.generate, and against one row of the engine, which shows what the "
        "skeleton alone gains. All answers have the same length and are made in turns, after a warm-up. A server is "
        "asked once more.",
        epilog=ASK_EPILOG.format(examples=COMPARE_EXAMPLES),
        formatter_class=Formatter,
    )
    for command in (ask, compare):
        _add_question(command)
        add_model(command)
        _add_output(command)
        add_answer_options(command)
        add_call_options(command)
    ask.add_argument(
        "--raw",
        action="store_true",
        help="let a local model continue the question's text as it is, without a chat, a system message or a skeleton",
    )
    ask.add_argument("--compare", action="store_true", help="answer again without a skeleton, and compare")
    add_router(ask)
    compare.set_defaults(compare=True, router=False, threshold=None)


def _add_chat(commands: Any) -> None:
    chat = commands.add_parser(
        "chat",
        usage="sot chat [OPTION ...]",
        help="chat with a model that stays loaded",
        description="Chat with a model that stays loaded. The router decides which answers get a skeleton, and the "
        "model sees all earlier questions and answers. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C at an empty line, "
        "ends the chat. /help lists the commands. If standard input is no terminal, each of its lines is a turn.",
        epilog=ASK_EPILOG.format(examples=CHAT_EXAMPLES),
        formatter_class=Formatter,
    )
    add_model(chat)
    chat.add_argument_group("output").add_argument(
        "--quiet", "-q", action=Flag, default=False, help="no figures and no progress messages"
    )
    add_answer_options(chat)
    add_call_options(chat)
    add_router(chat)


def _add_serve(commands: Any) -> argparse.ArgumentParser:
    serve: argparse.ArgumentParser = commands.add_parser(
        "serve",
        usage="sot serve [OPTION ...]",
        help="serve models to any client of OpenAI's interface, and a page that compares",
        description=SERVE,
        epilog=SERVE_EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    add_served_models(serve)
    add_server_options(serve)
    add_answer_options(serve, sampling=False)
    add_call_options(serve)
    serve.set_defaults(on_point_error="placeholder")
    return serve


def served_options() -> tuple[Options, Options]:
    """The options of `sot serve` that its file may have, by their long names: those of the server, those of a model."""
    made = parser()
    server = argparse.ArgumentParser(add_help=False)
    add_server_options(server)
    of_server = settable(server)
    of_models = {name: action for name, action in settable(_commands(made)["serve"]).items() if name not in of_server}
    for name in ("origin", "key-env", "quiet"):
        del of_server[name]
    for name in ("model", "no-router"):
        del of_models[name]
    return of_server, of_models


def _add_config(commands: Any) -> None:
    commands.add_parser(
        "config",
        help="show the configuration file and all options in effect",
        description="Show the path of the configuration file, and every option with its value and the origin of the "
        "value. The output has the format of the file.",
    )


def _add_completion(commands: Any) -> None:
    completion = commands.add_parser(
        "completion",
        help="print a script for completion by the shell",
        description="Print a script by which a shell completes this command.",
        epilog='bash: add  eval "$(sot completion bash)"  to ~/.bashrc.\n'
        "zsh:  sot completion zsh > FOLDER/_sot, with a FOLDER of $fpath.\n"
        "fish: sot completion fish > ~/.config/fish/completions/sot.fish",
        formatter_class=Formatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="%(choices)s")


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="*",
        metavar="QUESTION",
        help="the question; without one, standard input. A - stands for standard input, which is otherwise not read",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    add = group.add_mutually_exclusive_group().add_argument
    add(
        "--plain",
        action=Flag,
        default=False,
        against="json",
        help="print only the text of the answer; the default in a pipe",
    )
    add(
        "--json",
        action=Flag,
        default=False,
        against="plain",
        help="print the answer with all figures as one JSON object",
    )
    group.add_argument(
        "--stream", action="store_true", help="with --json: print each event as a line of JSON, the answer last"
    )
    group.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help="write the answer to a file too; with --json the file gets the JSON object",
    )
    figures = parser.add_argument_group("figures").add_mutually_exclusive_group()
    figures.add_argument(
        "--stats", action=Flag, default=False, against="quiet", help="print times, tokens and steps after the answer"
    )
    figures.add_argument(
        "--quiet",
        "-q",
        action=Flag,
        default=False,
        against="stats",
        help="no figures and no progress messages",
    )
