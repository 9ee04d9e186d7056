"""Makes one answer of a run, counts its calls, and turns it into a row."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from skeleton_of_thought.drive import Open, run
from skeleton_of_thought.errors import PointError, SotError, without_secrets
from skeleton_of_thought.evaluation.calls import CallLog, CountedStream, Logged, tokens_of
from skeleton_of_thought.evaluation.forms import plain as plain_of
from skeleton_of_thought.evaluation.manifest import now
from skeleton_of_thought.evaluation.rows import PointRow, Row
from skeleton_of_thought.evaluation.runner import Job
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.plan_memory import PlanMemory
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import render
from skeleton_of_thought.types import Answer, Call, Conversation, Reply, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.budget import Share
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["AnswerOnce", "Backend", "error_line", "row_of"]

_LONGEST_ERROR = 400


class Backend(Protocol):
    """What is needed of the backends of the `sot` command."""

    @property
    def open_call(self) -> Open:
        """Opens a call."""
        ...

    @property
    def explain(self) -> Callable[[BaseException], str]:
        """Describes an error of a call in one line."""
        ...

    @property
    def checkpoint(self) -> Callable[[], Callable[[], None]]:
        """Returns a function that resets the prefix cache to its present state."""
        ...

    def flow(
        self,
        conversation: Conversation,
        *,
        settings: Settings,
        prompts: PromptSet,
        router: AnyRouter | None = None,
        max_concurrency: int | None = None,
        live: bool = True,
        plans: PlanMemory | None = None,
    ) -> AnswerFlow:
        """Makes a flow that suits the backend."""
        ...


# --- rows ------------------------------------------------------------------------------------------------


def row_of(
    answer: Answer | None,
    job: Job,
    *,
    model: str,
    error: BaseException | None = None,
    explain: Callable[[BaseException], str] = str,
    log: CallLog | None = None,
    plain: Callable[[str], str] = plain_of,
    at: str = "",
    busy: str = "",
) -> Row:
    """The row of an answer, or of one that failed, with what was written until then.

    Args:
        answer: The answer, complete or partial; None if there is none.
        job: What it is the answer to.
        model: The model's name.
        error: Why it failed; None for an answer.
        explain: Describes the errors of calls.
        log: Its calls; None to count the attempts and stages of the answer, and to estimate tokens from its text.
        plain: Turns Markdown into plain paragraphs.
        at: When it began.
        busy: A warning about other work of the machine.
    """
    row = Row(
        key=job.key,
        number=job.question.number,
        id=job.question.id,
        question=job.question.text,
        way=job.way.name,
        model=model,
        repeat=job.repeat,
        category=job.question.category,
        error="" if error is None else error_line(error, explain),
        error_type="" if error is None else type(_root(error)).__name__,
        calls=len(log.calls) if log else 0,
        order=job.order,
        at=at,
        busy=busy,
        extra=job.question.extra,
    )
    if answer is None:
        return row
    estimates = log.estimates() if log else _estimates(answer)
    usage = sum(estimates.values(), answer.usage)
    by_stage = (found.get(stage) for stage in _stages_of_text(answer) for found in (answer.usage_by_stage, estimates))
    of_text = sum(filter(None, by_stage), Usage())
    times = answer.timings
    return dataclasses.replace(
        row,
        text=answer.text,
        route=answer.route,
        reason=answer.reason,
        seconds=times.total,
        first_text=times.first_text,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        answer_tokens=of_text.output_tokens,
        tokens_estimated=bool(estimates),
        calls=len(log.calls) if log else _calls(answer),
        finish_reason=answer.finish_reason,
        merged=answer.merged,
        merge_error="" if answer.merge_error is None else error_line(answer.merge_error, explain),
        role_errors={role: error_line(error, explain) for role, error in answer.role_errors.items()},
        points=_points(answer, explain),
        stages={name: (span.start, span.end, span.first) for name, span in times.stages.items()},
        plain=_plain(answer, plain),
    )


def _stages_of_text(answer: Answer) -> tuple[str, ...]:
    """The stages whose texts the answer consists of."""
    if answer.route == "direct" or answer.merged:
        return ("direct",) if answer.route == "direct" else ("merge",)
    return ("opening", "point", "closing")


def _points(answer: Answer, explain: Callable[[BaseException], str]) -> tuple[PointRow, ...]:
    times = {each.index: each for each in answer.timings.points}
    waves = answer.skeleton.waves
    rows = []
    for expansion in answer.expansions:
        point = expansion.point
        timed = times.get(point.index)
        span = expansion.span if timed is None else timed.written
        rows.append(
            PointRow(
                point.index,
                point.title,
                expansion.text,
                start=None if span is None else span.start,
                first=None if span is None else span.first,
                end=None if span is None else span.end,
                released=None if timed is None else timed.released,
                attempts=expansion.attempts,
                output_tokens=expansion.usage.output_tokens,
                finish_reason=expansion.finish_reason,
                error="" if expansion.error is None else error_line(expansion.error, explain),
                scope=point.scope,
                depends_on=point.depends_on,
                wave=waves.get(point.index, 1),
            )
        )
    return tuple(rows)


def _plain(answer: Answer, plain: Callable[[str], str]) -> str:
    # Titles are a mark of the form, too: a merge and a direct answer have none. Items are the question's own list.
    pointed = answer.route == "skeleton" and not answer.merged
    if not pointed:
        return plain(answer.text)
    parts = (answer.opening, render(answer.expansions, "paragraphs"), answer.closing)
    return plain("\n\n".join(filter(None, parts)))


def _calls(answer: Answer) -> int:
    single = [stage for stage in answer.timings.stages if stage not in {"point", "route", "sources"}]  # one call each
    return len(single) + sum(expansion.attempts for expansion in answer.expansions)


def _estimates(answer: Answer) -> dict[str, Usage]:
    """The tokens of an answer whose calls nobody has counted, from its texts alone."""
    if answer.usage.output_tokens:
        return {}
    # Items stand in the question: no call wrote them.
    skeleton = "" if answer.route == "items" else str(answer.skeleton)
    texts = {"skeleton": skeleton, "point": "".join(each.text for each in answer.expansions)}
    texts |= {"opening": answer.opening, "closing": answer.closing}
    if answer.route == "direct" or answer.merged:
        texts["direct" if answer.route == "direct" else "merge"] = answer.text
    sizes = {stage: len(text.encode("utf-8", "replace")) for stage, text in texts.items()}
    return {stage: Usage(output_tokens=tokens_of(size)) for stage, size in sizes.items() if size}


def error_line(error: BaseException, explain: Callable[[BaseException], str] = str) -> str:
    """An error in one line, without secrets; never empty.

    Args:
        error: The error.
        explain: Describes errors that are not of this package.
    """
    if isinstance(error, PointError) and error.__cause__ is not None:
        why = error_line(error.__cause__, explain)
        return f"Point {error.point.index} ({error.point.title[:60]!r}) failed: {why}"
    text = " ".join(without_secrets(str(error) if isinstance(error, SotError) else explain(error)).split())
    text = text or type(error).__name__
    return text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 1] + "…"


def _root(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, PointError) and error.__cause__ is not None else error


# --- answers -----------------------------------------------------------------------------------------------


class AnswerOnce:
    """Makes the answers of jobs, each by its way; see `runner.run_all`.

    Args:
        backend: The model.
        model: Its name, for the rows.
        settings: How answers are made; a way may set its own.
        prompts: The prompts; None for the default ones.
        system: The system message, for questions without their own.
        max_concurrency: The most calls of an answer at a time.
        share: Makes the share of an answer in a budget of calls that many answers have together; None for no such
            budget.
        live: Whether the text counts as read while it is written, as by people. If not, a point is written again even
            if its text has begun, and the first text comes at the end.
        reset_cache: Whether each answer begins with the prefix cache as it is now (at the first answer), so that no
            way profits from the one before. Only for answers that run one after the other.
        plain: Turns Markdown into plain paragraphs.
        meter: Begins to measure the machine's load; the function that it returns gives a warning, or None.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        model: str,
        settings: Settings | None = None,
        prompts: PromptSet | None = None,
        system: str | None = None,
        max_concurrency: int | None = None,
        share: Callable[[], Share] | None = None,
        live: bool = True,
        reset_cache: bool = False,
        plain: Callable[[str], str] = plain_of,
        meter: Callable[[], Callable[[], str | None]] | None = None,
    ) -> None:
        self._backend, self._model = backend, without_secrets(model)
        self._settings, self._prompts, self._system = settings or Settings(), prompts or PromptSet(), system
        self._max_concurrency, self._share = max_concurrency, share
        self._live, self._reset_cache, self._plain, self._meter = live, reset_cache, plain, meter
        self._reset: Callable[[], None] | None = None
        self._routers: dict[str, AnyRouter | None] = {}
        self._plans = PlanMemory()
        self._lock = threading.Lock()
        self._open: set[_Stream] = set()
        self._cancelled = False

    def __call__(self, job: Job) -> Row:
        """The row of a job. An error of the model is a row, too.

        Raises:
            KeyboardInterrupt: After `cancel`.
        """
        log, at, answer, error = CallLog(), now(), None, None
        self._begin_with_same_cache()
        read_load = None if self._meter is None else self._meter()
        try:
            flow = self._flow(job)
            answer, error = self._made(flow, log)
        except Exception as caught:  # such as a prompt that cannot be made of this question
            error = caught
        busy = "" if read_load is None else read_load() or ""
        return row_of(
            answer,
            job,
            model=self._model,
            error=error,
            explain=self._backend.explain,
            log=log,
            plain=self._plain,
            at=at,
            busy=busy,
        )

    def cancel(self) -> None:
        """Ends all calls at once, from any thread; answers under way and later ones raise `KeyboardInterrupt`."""
        with self._lock:
            self._cancelled = True
            streams = list(self._open)
        for stream in streams:
            with contextlib.suppress(Exception):
                stream.end()

    def _begin_with_same_cache(self) -> None:
        if not self._reset_cache:
            return
        if self._reset is None:
            self._reset = self._backend.checkpoint()
        else:
            self._reset()

    def _flow(self, job: Job) -> AnswerFlow:
        settings = job.way.settings(self._settings)
        with self._lock:
            if job.way.name not in self._routers:
                self._routers[job.way.name] = job.way.make_router(settings)
        return self._backend.flow(
            Conversation.of(job.question.text, system=job.question.system or self._system),
            settings=settings,
            prompts=self._prompts,
            router=self._routers[job.way.name],
            max_concurrency=self._max_concurrency,
            live=self._live,
            plans=self._plans,
        )

    def _made(self, flow: AnswerFlow, log: CallLog) -> tuple[Answer | None, Exception | None]:
        limit = flow.conversation.request.max_concurrency if self._share is None else self._share()
        events = run([flow], lambda call, _: self._opened(call, log), max_concurrency=limit)
        with contextlib.closing(cast("Generator[tuple[int, Event]]", events)):
            for _, event in events:
                if isinstance(event, AnswerDone):
                    return event.answer, None
                if isinstance(event, AnswerFailed):
                    error = event.error
                    return error.answer if isinstance(error, PointError) else flow.answer, error
        raise RuntimeError("the answer ended without an end")  # the driver never does that

    def _opened(self, call: Call, log: CallLog) -> _Stream:
        if self._cancelled:
            raise KeyboardInterrupt
        logged = log.open(call)
        stream = _Stream(self._backend.open_call(call, 0), logged, self._closed)
        with self._lock:
            self._open.add(stream)
            cancelled = self._cancelled
        if cancelled:  # meanwhile
            stream.close()
            raise KeyboardInterrupt
        return stream

    def _closed(self, stream: _Stream) -> None:
        with self._lock:
            self._open.discard(stream)


class _Stream(CountedStream):
    """A stream that can be ended for good from any thread."""

    def __init__(self, stream: Iterable[str | Reply], logged: Logged, closed: Callable[[_Stream], None]) -> None:
        super().__init__(stream, logged)
        self._closed = closed
        self._ended = False

    def __iter__(self) -> Iterator[str | Reply]:
        for item in super().__iter__():
            if self._ended:
                break
            yield item
        if self._ended:
            # No `Exception`: the driver ends the whole answer, without another attempt.
            raise KeyboardInterrupt

    def end(self) -> None:
        """Ends the call; its reader gets a `KeyboardInterrupt`."""
        self._ended = True
        if (cancel := getattr(self, "cancel", None)) is not None:
            cancel()

    def close(self) -> None:
        """Closes the stream; it is no longer one of those that `cancel` ends."""
        try:
            super().close()
        finally:
            self._closed(self)
