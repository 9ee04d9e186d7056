"""The command line of `sot`, read into plain values."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from skeleton_of_thought._cli.arguments import (
    Choice,
    Flag,
    Formatter,
    Number,
    Parser,
    Share,
    Threshold,
    Version,
)
from skeleton_of_thought._cli.backends import PREFILL
from skeleton_of_thought._cli.completion import SHELLS
from skeleton_of_thought._cli.config import Defaults, read_defaults, settable
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.flow import Settings

__all__ = ["parse", "parser"]

_DEFAULTS = Settings()
_THRESHOLD = "the score (0 to 1) from which on a skeleton is used"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line, over the defaults of file and environment.

    Exits for `--help`, `--version` and mistakes, as argparse does. The result has the attributes
    `defaults`, and `options`, those that may have one.

    Raises:
        InvalidInput: A mistake in the configuration file.
    """
    words = _prefill_alone(sys.argv[1:] if argv is None else argv)
    made = parser()
    commands = _commands(made)
    _check_command(made, words, commands)
    options = settable(commands["ask"])
    defaults = _defaults(words, options)
    if words[0] in _ASKING:
        _apply(commands[words[0]], options, defaults)
    args, unknown = made.parse_known_args(words)
    if unknown:
        _refuse(unknown, commands[args.command])
    args.defaults, args.options = defaults, options
    if args.command in ("ask", "compare"):
        _check_ask(args, commands[args.command])
    return args


_ASKING = frozenset({"ask", "compare", "chat"})


def _refuse(words: Sequence[str], command: argparse.ArgumentParser) -> NoReturn:
    """Says what an unknown option may have been meant to be."""
    known = [option for action in command._actions for option in action.option_strings]
    near = next(
        (found[0] for word in words if (found := difflib.get_close_matches(word.split("=")[0], known, n=1))), None
    )
    command.error(f"unrecognized arguments: {' '.join(words)}{f'; did you mean {near}?' if near else ''}")


def _prefill_alone(argv: Sequence[str]) -> list[str]:
    """Gives `--prefill` its value where it stands alone, as a flag does: argparse would take the question for one."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for at in range(end):
        if words[at] == "--no-prefill":
            words[at] = "--prefill=no"
        elif words[at] == "--prefill" and not {*words[at + 1 : at + 2]} & set(PREFILL):
            words[at] = "--prefill=yes"
    return words


def _defaults(words: Sequence[str], options: Mapping[str, argparse.Action]) -> Defaults:
    if words[0] not in {*_ASKING, "config"}:
        return Defaults()
    try:
        return read_defaults(options)
    except InvalidInput:
        if {"-h", "--help"} & set(words):
            return Defaults()
        raise


def _apply(command: argparse.ArgumentParser, options: Mapping[str, argparse.Action], defaults: Defaults) -> None:
    for name, setting in defaults.settings.items():
        dest = options[name].dest
        # Not every command has every option.
        if any(action.dest == dest for action in command._actions):
            command.set_defaults(**{dest: setting.value})


def _check_command(made: argparse.ArgumentParser, words: Sequence[str], commands: Sequence[str] | Any) -> None:
    """Says what to write for a command that is missing or mistyped, where argparse only lists what there is."""
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
    found = next(action for action in made._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    made = Parser(
        prog="sot",
        description="Skeleton-of-Thought: outline the answer, write all points in parallel.",
        epilog=_MAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_ask(commands)
    _add_chat(commands)
    _add_route(commands)
    _add_train(commands)
    _add_config(commands)
    _add_completion(commands)
    return made


def _add_ask(commands: Any) -> None:
    ask = commands.add_parser(
        "ask",
        help="answer a question",
        usage=f"sot ask {_USAGE}",
        description=_ASK,
        epilog=_ASK_EPILOG.format(examples=_ASK_EXAMPLES),
        formatter_class=Formatter,
    )
    compare = commands.add_parser(
        "compare",
        usage=f"sot compare {_USAGE}",
        help="answer a question, then again without a skeleton; the same as ask --compare",
        description="Answer a question, then answer it again without a skeleton, and compare. A local model does so by "
        "transformers' model.generate, which is what people have, and by one row of the engine, which is what the "
        "skeleton alone gains; at equal lengths, in turns, after a warm-up. A server is asked once more.",
        epilog=_ASK_EPILOG.format(examples=_COMPARE_EXAMPLES),
        formatter_class=Formatter,
    )
    for command in (ask, compare):
        _add_question(command)
        _add_model(command)
        _add_output(command)
        _add_options(command)
    ask.add_argument("--compare", action="store_true", help="answer again without a skeleton, and compare")
    _add_router(ask)
    compare.set_defaults(compare=True, router=False, threshold=None)


def _add_chat(commands: Any) -> None:
    chat = commands.add_parser(
        "chat",
        usage="sot chat [OPTION ...]",
        help="talk with a model that stays loaded",
        description="Talk with a model that stays loaded. Each question gets a skeleton where that pays, and every "
        "answer sees the questions and answers before it. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C at an empty line, "
        "ends the chat. /help lists the commands. Where standard input is no terminal, each of its lines is a turn.",
        epilog=_ASK_EPILOG.format(examples=_CHAT_EXAMPLES),
        formatter_class=Formatter,
    )
    _add_model(chat)
    chat.add_argument_group("output").add_argument(
        "--quiet", "-q", action=Flag, default=False, help="no figures, and no word on what is being done"
    )
    _add_options(chat)
    _add_router(chat)


def _add_config(commands: Any) -> None:
    commands.add_parser(
        "config",
        help="show the configuration file, and what is in force",
        description="Show where the configuration file is, and every option with its value and where that comes from. "
        "The output is what such a file may hold.",
    )


def _add_completion(commands: Any) -> None:
    completion = commands.add_parser(
        "completion",
        help="print a script that has a shell complete this command",
        description="Print a script that has a shell complete this command.",
        epilog='bash: add  eval "$(sot completion bash)"  to ~/.bashrc.\n'
        "zsh:  sot completion zsh > FOLDER/_sot, with a FOLDER of $fpath.\n"
        "fish: sot completion fish > ~/.config/fish/completions/sot.fish",
        formatter_class=Formatter,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="%(choices)s")


def _add_router(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("router", "What a list of points would answer badly, the model answers directly.")
    add = group.add_mutually_exclusive_group().add_argument
    add("--router", action=Flag, default=True, help="make a skeleton always, as --compare does")
    add("--threshold", action=Threshold, type=Share(), metavar="T", help=_THRESHOLD)


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
    add("--threshold", type=Share(), metavar="T", help=_THRESHOLD)
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
    add("--seed", type=Number(int, 0), default=0, metavar="N", help="default: %(default)s")
    add("--json", action="store_true", help="the report on one line")
    add = parser.add_argument_group("with --base").add_argument
    add("--epochs", type=Number(int, 1), default=6, metavar="N", help="at most so many (default: %(default)s)")
    add("--batch-size", type=Number(int, 1), default=16, metavar="N", help="default: %(default)s")
    add("--learning-rate", type=Number(float, 0), default=5e-5, metavar="X", help="default: %(default)s")
    add(
        "--max-length",
        type=Number(int, 8),
        default=128,
        metavar="N",
        help="tokens of a question (default: %(default)s)",
    )


_USAGE = "[OPTION ...] [QUESTION ...]"

_EXIT_CODES = """exit codes: 0 done, 1 an error on the way, 2 a mistake in what was asked for,
130 interrupted by Ctrl-C, 141 nobody reads the output any more"""

_MAIN_EPILOG = f"""examples:
  sot ask "How can I sleep better?"         on the small demo model
  sot ask -m openai:gpt-4o "How can I sleep better?"
  sot chat -m HuggingFaceTB/SmolLM2-360M-Instruct
  sot COMMAND --help                        its options, and what MODEL may be

{_EXIT_CODES}"""

_ASK = (
    "Answer a question: the model writes a list of short points first, then all points at the same time. What is no "
    "list of points gets a direct answer."
)

_MODELS = """MODEL is one of
  a Hugging Face hub id, a directory, a .gguf file
                                    runs here, needs the extra "local"
  openai:NAME                       OpenAI; the key is OPENAI_API_KEY
  openai:NAME@http://host:port/v1   any server that speaks OpenAI's protocol
  langchain:PROVIDER:NAME           any provider that LangChain has a package
                                    for, such as anthropic or ollama
Without it the small demo model is used, if it is installed."""

_FILE = """SOT_MODEL names a model for every call. Other options may have a default in
a file, see sot config; what is on there, --no-NAME switches off."""

_ASK_EPILOG = f"""{_MODELS}

{{examples}}

{_FILE}

{_EXIT_CODES}"""

_ASK_EXAMPLES = """examples:
  sot ask "How can I sleep better?"
  sot ask < question.txt
  git diff | sot ask -m openai:gpt-4o "What could break?" -
  sot ask --words 80 --merge -o answer.txt "Why do cities flood?\""""

_COMPARE_EXAMPLES = """examples:
  sot compare "How can I sleep better?"
  sot compare --json -o result.json "How can I sleep better?\""""

_CHAT_EXAMPLES = """examples:
  sot chat
  sot chat -m openai:gpt-4o --system "Answer in French."
  sot chat < questions.txt > answers.txt"""


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "question",
        nargs="*",
        metavar="QUESTION",
        help="the question. Standard input is read where there is none, and in the place of a -; else it is left alone",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", "-m", metavar="MODEL", help="what to ask, see below")
    add("--system", metavar="TEXT", help="a system message")
    add(
        "--prefill",
        type=Choice({True: "yes", False: "no"}),
        choices=PREFILL,
        metavar="{auto,yes,no}",
        default="auto",
        help="whether the model is given the start of its turns, which small models follow better; yes says that the "
        "server continues them. auto: local models, and servers that are llama.cpp, vLLM or SGLang (default: auto)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    add = group.add_mutually_exclusive_group().add_argument
    add(
        "--plain",
        action=Flag,
        default=False,
        against="json",
        help="the answer's text alone, in order; the default when piped",
    )
    add(
        "--json",
        action=Flag,
        default=False,
        against="plain",
        help="the answer and how it came about, as one JSON object",
    )
    group.add_argument(
        "--stream", action="store_true", help="with --json: every event as a line of JSON, the answer last"
    )
    group.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help="write the answer to a file, and show it here as ever; with --json the file gets the JSON object",
    )
    figures = parser.add_argument_group("figures").add_mutually_exclusive_group()
    figures.add_argument(
        "--stats", action=Flag, default=False, against="quiet", help="after the answer: times, tokens and steps in full"
    )
    figures.add_argument(
        "--quiet",
        "-q",
        action=Flag,
        default=False,
        against="stats",
        help="no figures, and no word on what is being done",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("answer").add_argument
    add("--max-points", type=Number(int, 1), metavar="N", default=_DEFAULTS.max_points, help="default: %(default)s")
    add(
        "--words",
        type=Number(int, 1),
        metavar="N",
        default=_DEFAULTS.point_words,
        help="about so many words a point (default: %(default)s)",
    )
    add(
        "--eager",
        action=Flag,
        default=_DEFAULTS.eager,
        help="start a point as soon as its line of the skeleton is written",
    )
    add(
        "--join",
        choices=("numbered", "headings", "paragraphs"),
        default=_DEFAULTS.join,
        help="how the points stand in the answer: with number and title, under Markdown headings, or the texts alone "
        "(default: %(default)s)",
    )
    add(
        "--merge",
        action=Flag,
        default=_DEFAULTS.merge,
        help="one more call at the end that makes one text of the points",
    )
    add("--prompts", metavar="FILE", help="prompts in the JSON format of the paper")
    add("--temperature", type=Number(float, 0), metavar="T", help="0 is greedy, the default of local models")
    add("--seed", type=Number(int, 0), metavar="N", help="repeat the same sampling")
    add("--max-tokens", type=Number(int, 1), metavar="N", help="the most tokens that one call may write")

    add = parser.add_argument_group("calls").add_argument
    add("--max-concurrency", type=Number(int, 1), metavar="N", help="the most calls that are open at a time")
    add("--retries", type=Number(int, 0), metavar="N", default=_DEFAULTS.max_retries, help="default: %(default)s")
    add(
        "--point-timeout",
        type=Number(float, 0, above=True),
        metavar="SECONDS",
        help="the longest that one try at a point may take",
    )
    add(
        "--on-point-error",
        choices=("raise", "placeholder"),
        default=_DEFAULTS.on_point_error,
        help="what a failed point does: end the answer, or leave a placeholder (default: %(default)s)",
    )
