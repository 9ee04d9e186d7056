"""`sot chat`: a conversation with a model that stays loaded.

The history holds only questions and final answers, never the prompts of skeletons and points. Text is written in
document order as it is released, so that it stays in the terminal's scrollback, where users read a chat again.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.diagnostics import as_line, shortcomings
from skeleton_of_thought._cli.output import checked_path, write_atomically
from skeleton_of_thought._cli.streams import as_utf8
from skeleton_of_thought._cli.terminal_text import printable
from skeleton_of_thought._cli.typewriter import Typewriter, count_points
from skeleton_of_thought.errors import InvalidInput, PromptTooLong, SotError
from skeleton_of_thought.events import AnswerDone, AnswerFailed
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.types import Answer, Conversation, Message

__all__ = ["Chat"]

_HELP = """\
/new          forget the conversation, keep the system message
/retry        ask the last question again
/system TEXT  set the system message (/system shows it, /system - removes it)
/save FILE    write the conversation to a file
/help         show this
/exit, /quit  end the chat, like Ctrl-D
Ctrl-C stops an answer; the text so far stays in the conversation.
At an empty line, Ctrl-C ends the chat."""


class Chat:
    """A conversation.

    Args:
        backend: The backend that answers.
        new_flow: Makes the flow that answers a conversation.
        explain: Describes an error in one line.
        system: A system message.
        quiet: Whether to leave out figures and progress messages.
    """

    def __init__(
        self,
        backend: ModelBackend,
        *,
        new_flow: Callable[[Conversation], AnswerFlow],
        explain: Callable[[Exception], str],
        system: str | None = None,
        quiet: bool = False,
    ) -> None:
        self._backend = backend
        self._new_flow = new_flow
        self._explain = explain
        self._system = system
        self._turns: list[tuple[str, str]] = []
        self._question: str | None = None
        self._quiet = quiet
        self._attended = sys.stdin is not None and sys.stdin.isatty()

    def run(self) -> int:
        """Reads and answers lines until standard input ends; returns the exit code.

        Raises:
            KeyboardInterrupt: Ctrl-C, if standard input is no terminal.
        """
        if self._attended and not self._quiet:
            self._say(f"Model: {self._backend.name}. /help lists the commands, Ctrl-D ends the chat.")
            if self._backend.remark is not None:
                self._say(f"It is {self._backend.remark}.")
        failed = False
        for line in _lines(self._attended):
            text = line.strip()
            if text in ("/quit", "/exit"):
                break
            if text:
                try:
                    failed = not self._take(text) or failed
                except KeyboardInterrupt:
                    # It came just before or after an answer, or for a second time while an answer was being stopped.
                    if not self._attended:
                        raise
                    self._say("(stopped)")
        # A user at the keyboard has seen the error. A script sees only the exit code.
        return 1 if failed and not self._attended else 0

    # --- one line ---

    def _take(self, text: str) -> bool:
        """Handles a question or a command; returns whether that succeeded."""
        try:
            text = as_utf8(text, "The line")
        except InvalidInput as error:
            self._complain(str(error))
            return False
        name, _, rest = text.partition(" ")
        command = getattr(self, f"_do_{name[1:]}", None) if name[0] == "/" and name[1:].isalpha() else None
        try:
            if command is not None:
                command(rest.strip())
            elif name[0] == "/" and name[1:].isalpha():
                raise InvalidInput(f"There is no command {name}; /help lists them.")
            else:
                return self._ask(text)
        except SotError as error:
            self._complain(str(error))
            return False
        return True

    def _do_help(self, _: str) -> None:
        self._say(_HELP)

    def _do_new(self, _: str) -> None:
        self._turns.clear()
        self._question = None
        self._say("A new conversation begins.")

    def _do_retry(self, _: str) -> None:
        if self._question is None:
            raise InvalidInput("There is no question to ask again.")
        if self._turns and self._turns[-1][0] == self._question:
            self._turns.pop()
        self._say(self._question)
        self._ask(self._question)

    def _do_system(self, text: str) -> None:
        if text:
            self._system = None if text == "-" else text
        self._say(f"System message: {self._system}" if self._system else "There is no system message.")

    def _do_save(self, name: str) -> None:
        if not name:
            raise InvalidInput("Name a file: /save FILE")
        try:
            write_atomically(
                checked_path(name),
                printable("\n".join(f"## {question}\n\n{answer}\n" for question, answer in self._turns)),
            )
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from error
        except OSError as error:
            raise SotError(f"{name} cannot be written: {error.strerror}.") from error
        self._say(f"{len(self._turns)} answers are in {name}.")

    # --- one question ---

    def _ask(self, question: str) -> bool:
        """Answers a question; returns whether the answer is complete."""
        if self._question is not None and not self._attended:
            print()  # a line between two answers; at a terminal, the next question stands there
        self._question = question
        history = [
            message
            for earlier, answer in self._turns
            for message in (Message("user", earlier), Message("assistant", answer))
        ]
        flow = self._new_flow(Conversation.of(question, system=self._system, history=history))
        start = time.monotonic()
        with Typewriter(quiet=self._quiet) as writer:
            try:
                ended = self._write(flow, writer)
            except KeyboardInterrupt:
                if not self._attended:
                    raise
                writer.end()
                # The user continues from the text on the screen, so that is what the history keeps.
                self._keep(question, writer.text)
                self._say("(stopped)")
                return False
        if isinstance(ended, AnswerFailed):
            hint = " /new forgets the conversation." if isinstance(ended.error, PromptTooLong) and self._turns else ""
            self._complain(f"{self._explain(ended.error)}{hint}")
            return False
        self._keep(question, ended.answer.text)
        for line in shortcomings(ended.answer, self._explain):
            print(f"sot: {line}", file=sys.stderr, flush=True)
        if not self._quiet:
            self._say(_summary(ended.answer, time.monotonic() - start))
        return True

    def _write(self, flow: AnswerFlow, writer: Typewriter) -> AnswerDone | AnswerFailed:
        with self._backend.run(flow) as events:
            for _, event in events:
                writer.show(event)
                if isinstance(event, AnswerDone | AnswerFailed):
                    ended = event
        return ended

    def _keep(self, question: str, answer: str) -> None:
        if answer.strip():
            self._turns.append((question, answer.strip()))

    # --- messages beside the answers ---

    def _say(self, text: str) -> None:
        if self._attended:
            print(text, file=sys.stderr, flush=True)

    def _complain(self, text: str) -> None:
        print(f"sot: {'' if self._attended else 'error: '}{as_line(text)}", file=sys.stderr, flush=True)


def _summary(answer: Answer, seconds: float) -> str:
    what = "answered directly" if answer.route == "direct" else count_points(answer.skeleton.points)
    return f"({what}, {seconds:.1f} s)"


def _lines(attended: bool) -> Iterator[str]:
    """The lines of standard input, until it ends or the user ends the chat."""
    if sys.stdin is None:
        return
    if not attended:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - once it is loaded, `input` lets the user edit the line
    while True:
        try:
            yield _prompt_line()
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            if not _interrupted_line():
                return


def _prompt_line() -> str:
    if sys.stdout.isatty():
        return input("> ")
    # `input` would write its prompt to stdout, where the answers go.
    print("> ", end="", file=sys.stderr, flush=True)
    if line := sys.stdin.readline():
        return line
    raise EOFError


def _interrupted_line() -> str:
    """The text on the line that Ctrl-C ended."""
    readline = sys.modules.get("readline")
    return "" if readline is None else str(readline.get_line_buffer()).strip()
