"""The `sot` command: ask a model a question, and watch its points grow side by side; a chat, and routers.

Exit codes: 0 for an answer, 1 for an error on the way, 2 for bad input, 130 for Ctrl-C, 141 for a closed pipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import stat
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from skeleton_of_thought._cli.backends import Backend, one_line
from skeleton_of_thought._cli.comparing import compare, warm_up
from skeleton_of_thought._cli.interrupts import INTERRUPTED
from skeleton_of_thought._cli.loading import load
from skeleton_of_thought._cli.machine import Meter
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought._cli.options import parse, parser
from skeleton_of_thought._cli.output import Output
from skeleton_of_thought._cli.report import comparison, figures, measurements, statistics
from skeleton_of_thought._cli.standard_input import as_text, question_of
from skeleton_of_thought._cli.streams import LastingStdout, let_go_of_stdout, prepare_streams
from skeleton_of_thought._cli.views import JsonView, Outcome, PlainView, View
from skeleton_of_thought._cli.wording import as_options, shortcomings
from skeleton_of_thought.drive import run
from skeleton_of_thought.errors import InvalidInput, PointError, SotError, install_line
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow, Settings
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.text.assembly import Join
from skeleton_of_thought.types import Answer, Conversation, Request

if TYPE_CHECKING:
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["main"]

_PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None, *, backend: Backend | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments without the program's name; those of the process when None.
        backend: What to ask instead of the model that `--model` names.

    Returns:
        The exit code.
    """
    prepare_streams()
    try:
        code = _run(argv, backend)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        try:
            sys.stdout.flush()
        except OSError:
            let_go_of_stdout()  # Ctrl-C has ended the pager as well
        return INTERRUPTED
    except BrokenPipeError:
        let_go_of_stdout()
        return _PIPE_CLOSED
    except SotError as error:
        return _fail(error, str(error))
    except OSError as error:
        if error.filename is not None or isinstance(error, ConnectionError | TimeoutError):
            raise
        # Not about a file that has a name, so it is about stdout.
        let_go_of_stdout()
        return _fail(error, f"the output could not be written: {error.strerror or error}")


def _run(argv: Sequence[str] | None, backend: Backend | None) -> int:
    try:
        args = parse(argv)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    with _terminable():
        return _COMMANDS.get(args.command, _ask)(args, backend)


def _fail(error: BaseException, message: str) -> int:
    print(f"sot: error: {as_options(' '.join(message.split()))}", file=sys.stderr)
    return 2 if isinstance(error, InvalidInput) else 1


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into an exit that unwinds, so that the terminal is given back and the calls are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what is asked ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """All of the command line that can be wrong without a model: checked before one is loaded."""

    conversation: Conversation
    settings: Settings
    prompts: PromptSet
    model: ModelSpec
    output: Output | None = None

    @classmethod
    def of(cls, args: Namespace) -> _Request:
        conversation = Conversation.of(question_of(args.question), system=_system(args))
        output = None if args.output is None else Output.of(args.output, json=args.json)
        return cls(conversation, _settings(args), _prompts(args), _model(args), output)


def _settings(args: Namespace) -> Settings:
    return Settings(
        max_points=args.max_points,
        eager=args.eager,
        on_point_error=args.on_point_error,
        max_retries=args.retries,
        point_timeout=args.point_timeout,
        point_words=args.words,
        join=args.join,
        merge=args.merge,
    )


def _system(args: Namespace) -> str | None:
    return None if args.system is None else as_text(args.system, "The system message")


def _prompts(args: Namespace) -> PromptSet:
    return PromptSet() if args.prompts is None else PromptSet.from_json(args.prompts)


def _model(args: Namespace) -> ModelSpec:
    try:
        return ModelSpec.parse(args.model)
    except InvalidInput as error:
        setting = args.defaults.settings.get("model")
        if setting is None or setting.value != args.model:
            raise
        raise InvalidInput(f"{setting.origin}: {error}") from error


def _load(model: ModelSpec, args: Namespace) -> Backend:
    return load(
        model,
        temperature=args.temperature,
        seed=args.seed,
        max_tokens=args.max_tokens,
        prefill=args.prefill,
        quiet=getattr(args, "quiet", False),
    )


def _notify(backend: Backend) -> None:
    """Says what makes this model slower than others."""
    if reason := backend.notice():
        print(f"sot: this model's rows are not decoded in one batch: {reason}", file=sys.stderr)


def _ask(args: Namespace, backend: Backend | None) -> int:
    request = _Request.of(args)
    if backend is None:
        backend = _load(request.model, args)
    if request.output is not None and not args.stream:
        # The file is what programs read then, and this is for people.
        args = Namespace(**{**vars(args), "json": False})
    try:
        # Who wants the answer in a file gets it there, also where nobody reads it here any more.
        with contextlib.nullcontext() if request.output is None else LastingStdout() as lasting:
            view = _view(args, request.conversation.question)
            outcome = _watch(request, args, backend, view)
            view.finish(outcome)
        if outcome.error is not None:
            kept = "" if request.output is None else f" ({request.output.path} was not written.)"
            return _fail(outcome.error, _explain(outcome.error, backend) + kept)
        if request.output is not None:
            request.output.write(outcome)
        if lasting is not None and lasting.lost is not None:
            raise lasting.lost
        if outcome.answer is not None:
            _report(args, view, outcome, backend)
        return 0
    finally:
        backend.close()


def _piped() -> bool:
    """Whether another program reads the output: a pager, whose screen is not to be written on."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _view(args: Namespace, question: str) -> View:
    notes = sys.stderr.isatty() and not args.quiet and not _piped()
    if args.json:
        return JsonView(events=args.stream, notes=notes)
    join: Join = args.join
    if args.plain or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return PlainView(notes=notes)
    try:
        from skeleton_of_thought._cli.live import LiveView
    except ImportError:
        if not args.quiet:
            print(f"sot: for the live view: {install_line('demo')}", file=sys.stderr)
        return PlainView(notes=notes)
    return LiveView(question, join=join)


# --- asking -----------------------------------------------------------------------------------------


def _watch(request: _Request, args: Namespace, backend: Backend, view: View) -> Outcome:
    """Runs the answer, and other ways after it where that is wanted, in front of the view."""
    room = backend.room(args.max_concurrency)

    def flow() -> AnswerFlow:
        return AnswerFlow(
            dataclasses.replace(request.conversation, request=Request(max_concurrency=room)),
            prompts=request.prompts,
            settings=dataclasses.replace(request.settings, stop_loops=backend.stop_loops),
            router=_router(args),
            prefill=backend.prefill,
            # Where nobody reads along, a point may be written anew whatever it had written.
            live=not isinstance(view, JsonView) or args.stream,
        )

    if not args.quiet:
        _notify(backend)
    first = flow()
    try:
        with view:
            if not args.compare:
                return _answer(first, backend, view.show, room)
            warm_up(backend, view)
            back, meter = backend.checkpoint(), Meter() if backend.ways else None
            outcome = _answer(first, backend, view.show, room)

            def again() -> Answer:
                back()
                return _whole(_answer(flow(), backend, view.show_again, room))

            if outcome.error is None and outcome.answer is not None:
                outcome = _compare(outcome.answer, request.conversation, backend, view, again)
            if meter is not None and outcome.comparison is not None:
                busy = dataclasses.replace(outcome.comparison, busy=meter.read().busy)
                outcome = dataclasses.replace(outcome, comparison=busy)
            return outcome
    except KeyboardInterrupt:
        view.interrupt(first.answer)
        raise


def _router(args: Namespace) -> AnyRouter | None:
    """What decides whether there is a skeleton; None for one always. Loaded only where it is used."""
    if getattr(args, "compare", False) or not args.router:
        return None
    from skeleton_of_thought.routers.auto import AutoRouter, as_router
    from skeleton_of_thought.routers.cost import CostGuard
    from skeleton_of_thought.routers.embedded import EmbeddedRouter

    guard = CostGuard(max_points=args.max_points)
    if args.threshold is None:
        return as_router("auto", guard=guard)
    return AutoRouter(EmbeddedRouter(args.threshold), guard=guard)


def _answer(flow: AnswerFlow, backend: Backend, show: Callable[[Event], None], max_concurrency: int | None) -> Outcome:
    outcome = Outcome(None)
    running = cast("Generator[tuple[int, Event]]", run([flow], backend.open_call, max_concurrency=max_concurrency))
    with contextlib.closing(running) as events:
        for _, event in events:
            show(event)
            if isinstance(event, AnswerDone):
                outcome = Outcome(event.answer)
            elif isinstance(event, AnswerFailed):
                outcome = Outcome(_partial(flow, event.error), event.error)
    return outcome


def _partial(flow: AnswerFlow, error: Exception) -> Answer | None:
    """What there is of an answer that failed: what was shown already shall not vanish."""
    if isinstance(error, PointError):
        return error.answer
    return flow.answer if flow.answer.text else None


def _whole(outcome: Outcome) -> Answer:
    if outcome.error is not None:
        raise outcome.error
    assert outcome.answer is not None
    return outcome.answer


def _compare(
    answer: Answer, conversation: Conversation, backend: Backend, view: View, again: Callable[[], Answer]
) -> Outcome:
    """The answer beside other ways to it; it survives their failure."""
    try:
        return Outcome(answer, comparison=compare(answer, conversation, backend, view, again))
    except Exception as error:
        return Outcome(answer, error)


# --- other commands ---------------------------------------------------------------------------------


def _chat(args: Namespace, backend: Backend | None) -> int:
    from skeleton_of_thought._cli.chat import Chat

    settings, prompts, model = _settings(args), _prompts(args), _model(args)
    backend = backend or _load(model, args)
    try:
        if not args.quiet:
            _notify(backend)
        chat = Chat(
            backend,
            settings=dataclasses.replace(settings, stop_loops=backend.stop_loops),
            prompts=prompts,
            router=_router(args),
            system=_system(args),
            max_concurrency=args.max_concurrency,
            quiet=args.quiet,
            explain=lambda error: as_options(_explain(error, backend)),
        )
        return chat.run()
    finally:
        backend.close()


def _route(args: Namespace, _: Backend | None) -> int:
    from skeleton_of_thought._cli.route import route

    if args.csv is not None and args.question:
        raise InvalidInput("Either a question, or --csv FILE.")
    return route(args, None if args.csv is not None else question_of(args.question, "route"))


def _train(args: Namespace, _: Backend | None) -> int:
    from skeleton_of_thought._cli.train import train

    return train(args)


def _config(args: Namespace, _: Backend | None) -> int:
    from skeleton_of_thought._cli.config import describe

    print(describe(args.defaults, args.options))
    return 0


def _completion(args: Namespace, _: Backend | None) -> int:
    from skeleton_of_thought._cli.completion import script

    print(script(parser(), args.shell))
    return 0


_COMMANDS = {
    "chat": _chat,
    "route": _route,
    "train-router": _train,
    "config": _config,
    "completion": _completion,
}


# --- what is said about it --------------------------------------------------------------------------


def _report(args: Namespace, view: View, outcome: Outcome, backend: Backend) -> None:
    answer, compared = outcome.answer, outcome.comparison
    assert answer is not None
    if not args.quiet:
        lines = []
        if args.stats or view.shows_figures:
            lines.append(figures(answer, loading=backend.loading, width=view.width))
        if compared is not None and (args.stats or not (_piped() and sys.stderr.isatty())):
            # Whoever asks for a comparison wants it wherever the answer goes, but not on the screen of a pager.
            lines += comparison(answer, compared)
        if args.stats:
            lines += [*statistics(answer), *(measurements(answer, compared) if compared is not None else ())]
        if lines and backend.remark is not None:
            lines.append(backend.remark)
        view.report(lines)
    for line in shortcomings(answer, lambda error: _explain(error, backend)):
        print(f"sot: {line}", file=sys.stderr)


def _explain(error: Exception, backend: Backend) -> str:
    """What to tell the user, who has options instead of parameters and attributes."""
    if isinstance(error, PointError):
        cause = error.__cause__
        why = _explain(cause, backend) if isinstance(cause, Exception) else one_line(error)
        return (
            f"Point {error.point.index} ({error.point.title[:60]!r}) failed: {why} "
            "(--on-point-error placeholder keeps the others going.)"
        )
    return str(error) if isinstance(error, SotError) else backend.explain(error)
