"""The `sot` command: asks a model questions and shows all points while they are written; a chat, and routers.

Exit codes: 0 for an answer, 1 for an error, 2 for bad input, 130 for Ctrl-C, 141 for a closed pipe,
128 + N for signal N.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from skeleton_of_thought._cli.backend import ModelBackend
from skeleton_of_thought._cli.comparison import compare, warm_up
from skeleton_of_thought._cli.cpu_load import CpuMeter
from skeleton_of_thought._cli.diagnostics import as_options, explain, fail, one_line, shortcomings
from skeleton_of_thought._cli.interrupts import INTERRUPTED, main_thread_woken
from skeleton_of_thought._cli.models import AnswerOptions, check_raw, load_backend, system_of, warn_if_slow
from skeleton_of_thought._cli.options import parse, parser
from skeleton_of_thought._cli.output import OutputFile
from skeleton_of_thought._cli.report import comparison_lines, figures, measurements, statistics
from skeleton_of_thought._cli.streams import (
    command_streams,
    is_piped,
    question_of,
    silence_stdout,
    surviving_stdout,
)
from skeleton_of_thought._cli.views import AnswerResult, JsonView, PlainView, View
from skeleton_of_thought.drive import GRACE
from skeleton_of_thought.errors import InvalidInput, PointError, SotError, install_line
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.types import Answer, Conversation

if TYPE_CHECKING:
    pass

__all__ = ["main"]

_PIPE_CLOSED = 141
_TRACEBACK = "SOT_TRACEBACK"


def main(argv: Sequence[str] | None = None, *, backend: ModelBackend | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments without the program's name; by default those of the process.
        backend: The backend to ask instead of the model that `--model` names.

    Returns:
        The exit code.
    """
    with command_streams():
        try:
            code = _run(argv, backend)
            sys.stdout.flush()
            return code
        except (KeyboardInterrupt, SystemExit) as ended:
            try:
                sys.stdout.flush()
            except OSError:
                silence_stdout()  # Ctrl-C has ended the pager too, or the terminal is gone
            if isinstance(ended, SystemExit):
                raise
            return INTERRUPTED
        except BrokenPipeError:
            silence_stdout()
            return _PIPE_CLOSED
        except Exception as error:
            return fail(error, _explained(error))


def _run(argv: Sequence[str] | None, backend: ModelBackend | None) -> int:
    try:
        args = parse(argv)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    with _signals_unwind():
        return _COMMANDS.get(args.command, _ask)(args, backend)


def _explained(error: Exception) -> str:
    if isinstance(error, SotError):
        return str(error)
    if isinstance(error, OSError) and error.filename is None and not isinstance(error, ConnectionError | TimeoutError):
        # Without the name of a file, the error is about stdout.
        silence_stdout()
        return f"the output could not be written: {error.strerror or error}"
    if os.environ.get(_TRACEBACK):
        raise error
    return f"{one_line(error)} ({_TRACEBACK}=1 in the environment shows where that happened.)"


@contextlib.contextmanager
def _signals_unwind() -> Iterator[None]:
    """Turns SIGTERM and SIGHUP into an exit that unwinds, so that the terminal is restored and all calls are closed.

    A process that ignores one of them, as under nohup, keeps ignoring it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, float]] = []

    def leave(number: int, _: object) -> None:
        now = time.monotonic()
        came.append((number, now))  # at once, since another signal may come between any two lines of this function
        # Both may come together, and the second one must not interrupt what restores the terminal.
        if came[0] == (number, now) or now - came[0][1] >= GRACE:
            sys.exit(128 + number)

    before = {}
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, leave)
    try:
        with main_thread_woken():
            yield
    except Exception:
        if came:
            sys.exit(128 + came[0][0])  # it was raised while leaving: the terminal may be gone
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- sot ask ----------------------------------------------------------------------------------------


def _ask(args: Namespace, backend: ModelBackend | None) -> int:
    check_raw(args)
    conversation = Conversation.of(question_of(args.question), system=system_of(args))
    file = None if args.output is None else OutputFile.of(args.output, json=args.json)
    options = AnswerOptions.of(args)
    backend = options.load(args, load_backend) if backend is None else backend
    try:
        # With a file, the answer is written to its end even if nobody reads stdout any more.
        with contextlib.nullcontext() if file is None else surviving_stdout() as stdout:
            view = _view(args, conversation.question)
            result = _answer_in_view(conversation, options, args, backend, view)
            view.finish(result)
        if result.error is not None:
            unwritten = "" if file is None else f" ({file.path} was not written.)"
            return fail(result.error, explain(result.error, backend.explain) + unwritten)
        if file is not None:
            file.write(result)
        if stdout is not None and stdout.lost is not None:
            raise stdout.lost
        _report(args, view, result, backend)
        return 0
    finally:
        backend.close()


def _view(args: Namespace, question: str) -> View:
    notes = sys.stderr.isatty() and not args.quiet and not is_piped()
    # With --output and --json, the file gets the JSON object, and stdout the text, which is for people.
    if args.json and (args.stream or args.output is None):
        return JsonView(events=args.stream, notes=notes)
    if args.plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainView(notes=notes)
    try:
        from skeleton_of_thought._cli.live_view import LiveView
    except ImportError:
        if not args.quiet:
            print(f"sot: for the live view: {install_line('demo')}", file=sys.stderr)
        return PlainView(notes=notes)
    return LiveView(question, join=args.join)


def _answer_in_view(
    conversation: Conversation, options: AnswerOptions, args: Namespace, backend: ModelBackend, view: View
) -> AnswerResult:
    """Answers the question, and compares the answer if the options say so."""
    # If nobody reads along, a point may be written again even after part of its text.
    new_flow = options.flows(args, backend, live=not isinstance(view, JsonView) or args.stream)
    warn_if_slow(backend, args)
    flow = new_flow(conversation)
    try:
        with view:
            if args.compare:
                return _answer_and_compare(flow, lambda: new_flow(conversation), backend, view)
            return _answer(flow, backend, view.show)
    except KeyboardInterrupt:
        view.interrupt(flow.answer)
        raise


def _answer(flow: AnswerFlow, backend: ModelBackend, show: Callable[[Event], None]) -> AnswerResult:
    result = AnswerResult(None)
    with backend.run(flow) as events:
        for _, event in events:
            show(event)
            if isinstance(event, AnswerDone):
                result = AnswerResult(event.answer)
            elif isinstance(event, AnswerFailed):
                result = AnswerResult(_partial_answer(flow, event.error), event.error)
    return result


def _partial_answer(flow: AnswerFlow, error: Exception) -> Answer | None:
    """The text so far of an answer that failed, since the view has shown it already."""
    if isinstance(error, PointError):
        return error.answer
    return flow.answer if flow.answer.text else None


def _answer_and_compare(
    flow: AnswerFlow, new_flow: Callable[[], AnswerFlow], backend: ModelBackend, view: View
) -> AnswerResult:
    """Answers the question, then compares the answer with the baselines. The answer survives their failure."""
    warm_up(backend, view.note)
    reset, meter = backend.checkpoint(), CpuMeter() if backend.baselines else None
    result = _answer(flow, backend, view.show)
    if result.error is not None or result.answer is None:
        return result

    def repeat() -> Answer:
        reset()
        repeated = _answer(new_flow(), backend, view.show_repetition)
        if repeated.error is not None:
            raise repeated.error
        assert repeated.answer is not None
        return repeated.answer

    try:
        comparison = compare(result.answer, flow.conversation, backend, view, repeat)
    except Exception as error:
        return dataclasses.replace(result, error=error)
    if meter is not None:
        comparison = dataclasses.replace(comparison, busy=meter.read().warning)
    return dataclasses.replace(result, comparison=comparison)


def _report(args: Namespace, view: View, result: AnswerResult, backend: ModelBackend) -> None:
    """Shows the figures, and on stderr what failed in the answer."""
    answer, comparison = result.answer, result.comparison
    assert answer is not None
    if not args.quiet:
        lines = []
        if args.stats or view.shows_figures:
            lines.append(figures(answer, loading=backend.loading, width=view.width))
        if comparison is not None and (args.stats or not (is_piped() and sys.stderr.isatty())):
            # The user asked for it, so it is shown wherever the answer goes, except on the screen of a pager.
            lines += comparison_lines(answer, comparison)
        if args.stats:
            lines += statistics(answer)
            if comparison is not None:
                lines += measurements(answer, comparison)
        if lines and backend.remark is not None:
            lines.append(backend.remark)
        view.report(lines)
    for line in shortcomings(answer, lambda error: explain(error, backend.explain), cuts=not args.json):
        print(f"sot: {line}", file=sys.stderr)


# --- other commands ---------------------------------------------------------------------------------


def _chat(args: Namespace, backend: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.chat import Chat

    options = AnswerOptions.of(args)
    backend = options.load(args, load_backend) if backend is None else backend
    try:
        warn_if_slow(backend, args)
        chat = Chat(
            backend,
            new_flow=options.flows(args, backend),
            explain=lambda error: as_options(explain(error, backend.explain)),
            system=system_of(args),
            quiet=args.quiet,
        )
        return chat.run()
    finally:
        backend.close()


def _serve(args: Namespace, _: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.serve import serve

    return serve(args)


def _eval(args: Namespace, backend: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.eval import run_eval

    return run_eval(args, backend)


def _batch(args: Namespace, backend: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.batch import run_batch

    return run_batch(args, backend)


def _route(args: Namespace, _: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.route import route

    if args.csv is not None and args.question:
        raise InvalidInput("Either a question, or --csv FILE.")
    return route(args, None if args.csv is not None else question_of(args.question, "route"))


def _train(args: Namespace, _: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.train import train

    return train(args)


def _config(args: Namespace, _: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.config import describe

    print(describe(args.defaults, args.options))
    return 0


def _completion(args: Namespace, _: ModelBackend | None) -> int:
    from skeleton_of_thought._cli.completion import script

    print(script(parser(), args.shell))
    return 0


_COMMANDS = {
    "chat": _chat,
    "serve": _serve,
    "eval": _eval,
    "batch": _batch,
    "route": _route,
    "train-router": _train,
    "config": _config,
    "completion": _completion,
}
