"""`sot batch`: answers a file of questions into a folder, and goes on with a folder that an earlier run has begun."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from skeleton_of_thought._cli.backend import ModelBackend, RemoteStream
from skeleton_of_thought._cli.batch_options import CONCURRENCY
from skeleton_of_thought._cli.diagnostics import as_options, explain, fail
from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.interrupts import INTERRUPTED
from skeleton_of_thought._cli.local_backend import DEMO
from skeleton_of_thought._cli.models import AnswerOptions, router_of, system_of, warn_if_slow
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.evaluation.answering import row_of
from skeleton_of_thought.evaluation.bulk import HOLD, Ended, Hold, answer_all
from skeleton_of_thought.evaluation.journal import key_of, key_settings
from skeleton_of_thought.evaluation.manifest import MANIFEST, Manifest
from skeleton_of_thought.evaluation.parts import Parts
from skeleton_of_thought.evaluation.questions import Question, iter_questions
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.runner import FailureStreak, Job, cost_of
from skeleton_of_thought.evaluation.spending import Budget, Cost, Spending
from skeleton_of_thought.evaluation.ways import WAYS, Way
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.types import Call, Conversation, Reply

if TYPE_CHECKING:
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["run_batch"]

_ROUTERS = {True: "auto", False: "always", "off": "always"}
"""Other words for a router: those of a configuration file, and `off`."""
_WAYS = {"auto": "auto", "always": "sot", "never": "normal"}
"""The way of all answers, by the word for the router."""
_GATHER = 0.25
"""Seconds for which the text of a call is gathered."""


def run_batch(args: Namespace, backend: ModelBackend | None) -> int:
    """Runs `sot batch`; returns the exit code.

    Raises:
        InvalidInput: The options or the questions cannot be used, or the folder is of another run.
        SotError: The model does not work, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        if backend is not None:
            stack.callback(backend.close)
        options = AnswerOptions.of(args)
        budget = Budget() if args.budget is None else Budget.parse(args.budget)
        batch = _Batch(args, options, model=backend.name if backend is not None else options.model.name or DEMO)
        folder = Path(args.out).expanduser()
        manifest = batch.manifest().joined(folder)

        def load() -> ModelBackend:
            if backend is not None:
                return backend
            loaded = options.load(args)
            stack.callback(loaded.close)
            return loaded

        new = not (folder / MANIFEST).exists()
        if args.ray is not None:
            from skeleton_of_thought._cli.batch_ray import check_ray

            check_ray(args.ray)
        elif new:
            # A model that cannot be loaded, because its name is wrong, leaves no folder behind.
            backend = load()
            manifest = dataclasses.replace(manifest, versions=batch.manifest().versions)
        if new:
            manifest.write(folder)
        # Before a manifest changes: another process may work in the folder, or a part may be damaged.
        parts = stack.enter_context(Parts(folder))
        if not new:
            manifest.write(folder)
        view = EvalView(quiet=args.quiet)
        if parts.notice:
            view.note(parts.notice)
        run = _Run(batch, parts, load, Spending(budget), view, stack)
        try:
            return run.run()
        except SotError as error:
            return fail(error, str(error))  # before Ray is closed, see `rows_on_ray`


class _Batch:
    """What is asked, and how.

    The file is read once for each purpose, because it may be too long to be kept in memory.

    Attributes:
        args: The options.
        options: The options that are checked already.
        model: The model's name.
        way: How all questions are answered.
        settings: What decides the answers, for keys and the manifest.
        count: The number of questions.

    Raises:
        InvalidInput: The file cannot be used.
    """

    def __init__(self, args: Namespace, options: AnswerOptions, *, model: str) -> None:
        self.args, self.options, self.model = args, options, model
        self._router = _ROUTERS.get(args.router, args.router)
        self.way: Way = WAYS[_WAYS[self._router]]
        self.settings = key_settings(
            options.settings,
            prompts=options.prompts,
            system=system_of(args),
            merge=options.settings.merge,
            router=self._router,
            threshold=args.threshold,
            **{name: getattr(args, name) for name in ("temperature", "seed", "max_tokens", "prefill")},
        )
        # Standard input can be read only once.
        self._kept = [*self._read()] if args.questions == "-" else None
        self.count, digest = 0, hashlib.sha256()
        for question in self.questions():
            self.count += 1
            digest.update(question.text.encode() + b"\0")
        self._digest = digest.hexdigest()

    def _read(self) -> Iterator[Question]:
        args = self.args
        return iter_questions(
            args.questions,
            column=args.column,
            category=args.category_column,
            id_column=args.id_column,
            limit=args.limit,
        )

    def questions(self) -> Iterator[Question]:
        """All questions in their order."""
        return self._read() if self._kept is None else iter(self._kept)

    def jobs(self) -> Iterator[Job]:
        """All answers in the order of the questions. The same question a second time is a repeat, with its own key."""
        times: Counter[str] = Counter()
        for question in self.questions():
            times[first := self._key(question, 1)] += 1
            repeat = times[first]
            yield Job(question, self.way, repeat, first if repeat == 1 else self._key(question, repeat))

    def _key(self, question: Question, repeat: int) -> str:
        return key_of(
            question.text,
            way=self.way.name,
            model=self.model,
            settings=self.settings,
            repeat=repeat,
            system=question.system,
        )

    def manifest(self) -> Manifest:
        """The manifest of this command."""
        file = "standard input" if self.args.questions == "-" else Path(self.args.questions).name
        about = {"file": file, "count": self.count, "sha256": self._digest}
        return Manifest.of(
            "batch",
            model=self.model,
            settings=self.settings,
            ways=[self.way.name],
            questions=about,
            arguments=self.args.arguments,
        )

    def router(self) -> AnyRouter | None:
        """The router of all answers, which learns from them."""
        if self._router == "auto":
            return router_of(self.args)
        return self.way.make_router(self.options.settings)


class _Run:
    """Answers what has no answer yet, and puts all together."""

    def __init__(  # noqa: PLR0917 - one caller
        self,
        batch: _Batch,
        parts: Parts,
        load: Callable[[], ModelBackend],
        spending: Spending,
        view: EvalView,
        stack: contextlib.ExitStack,
    ) -> None:
        self._batch, self._parts, self._load = batch, parts, load
        self._spending, self._view = spending, view
        self._stack = stack
        self._args = batch.args
        self._reserved: dict[str, Cost] = {}
        self._streak = FailureStreak()
        self._last_error = ""
        states = Counter(parts.state(job.key) for job in batch.jobs())
        self._answered, self._failed = states[True], states[False]
        self._left = states[None] + (self._failed if self._args.retry else 0)
        self._made = 0

    def run(self) -> int:
        """Runs the command; returns its exit code."""
        try:
            if self._left:
                answer = self._answer_on_ray if self._args.ray is not None else partial(self._answer, self._load())
                with self._view.stage("answers", total=self._batch.count, done=self._batch.count - self._left):
                    answer()
            return self._finish()
        except (KeyboardInterrupt, SystemExit) as ended:
            print(f"sot: stopped: {self._so_far()}", file=sys.stderr)
            if isinstance(ended, SystemExit):
                raise
            return INTERRUPTED

    def _answer(self, backend: ModelBackend) -> None:
        warn_if_slow(backend, self._args)
        limit = min(filter(None, (self._args.max_concurrency, backend.capacity)), default=CONCURRENCY)
        options, router, system = self._batch.options, self._batch.router(), system_of(self._args)
        plans = options.plans()

        def new_flow(job: Job) -> AnswerFlow:
            return backend.flow(
                Conversation.of(job.question.text, system=job.question.system or system),
                settings=options.settings,
                prompts=options.prompts,
                router=router,
                max_concurrency=limit,
                live=False,
                plans=plans,
            )

        def open_call(call: Call, index: int) -> Iterable[str | Reply]:
            stream = backend.open_call(call, index)
            # Nobody reads along, and to wake two threads for each token would take more than its call does. Points
            # begin while the skeleton is being written.
            if isinstance(stream, RemoteStream) and call.stage != "skeleton":
                stream.gather = _GATHER
            return stream

        answers = answer_all(self._items(), new_flow, open_call, concurrency=limit)
        with contextlib.closing(cast("Generator[Ended[Job]]", answers)):
            for ended in answers:
                self._keep(ended, backend)

    def _items(self) -> Iterator[Job | Hold]:
        """What is left to be answered, as far as the budget allows it."""
        for job in self._batch.jobs():
            if not self._is_left(job):
                continue
            while (reserved := self._reserve(job)) is None:
                if not self._reserved:
                    return
                yield HOLD
            self._reserved[job.key] = reserved
            yield job

    def _is_left(self, job: Job) -> bool:
        state = self._parts.state(job.key)
        return state is None or (state is False and self._args.retry)

    def _answer_on_ray(self) -> None:
        """Answers on a cluster. A budget that is spent gives up what is under way, which it does not count."""
        from skeleton_of_thought._cli.batch_ray import rows_on_ray

        batch, way = self._batch, self._batch.way.name
        jobs = [job for job in batch.jobs() if self._is_left(job)]
        reserved = self._spending.begin(way)
        if reserved is None:
            return
        rows = rows_on_ray(self._args, jobs, batch.options, batch.router(), model=batch.model)
        for row in self._stack.enter_context(rows):
            self._keep_row(row, reserved)
            if (reserved := self._spending.begin(way)) is None:
                return

    def _reserve(self, job: Job) -> Cost | None:
        # What an answer costs is known once the first one has ended.
        if self._spending.budget != Budget() and self._reserved and not self._made:
            return None
        return self._spending.begin(job.way.name)

    def _keep(self, ended: Ended[Job], backend: ModelBackend) -> None:
        job = ended.item
        row = row_of(
            ended.answer,
            job,
            model=self._batch.model,
            error=ended.error,
            explain=lambda error: as_options(explain(cast("Exception", error), backend.explain)),
            plain=lambda text: "",  # nobody judges these answers
            log=ended.log,
            at=ended.at,
        )
        self._keep_row(dataclasses.replace(row, seconds=ended.seconds), self._reserved.pop(job.key))

    def _keep_row(self, row: Row, reserved: Cost) -> None:
        self._failed -= self._parts.state(row.key) is False
        self._parts.append(row)
        self._made += 1
        self._left -= 1
        self._answered += row.ok
        self._failed += not row.ok
        self._spending.end(row.way, reserved, cost_of(row))
        self._view.made(failed=not row.ok)
        self._check(row)

    def _check(self, row: Row) -> None:
        """Ends the run if the model does not work at all."""
        self._last_error = row.error or self._last_error
        if self._streak.add(row):
            raise SotError(
                f"The last {self._streak.length} answers failed with the same error: {row.error} {self._so_far()}, and "
                "with --retry it asks the failed ones again."
            )

    def _finish(self) -> int:
        if self._left:
            budget = f"the budget is spent, {self._spending}" if self._spending.stopped else "the file has grown"
            print(f"sot: {budget}: {self._so_far()}", file=sys.stderr)
            return 0
        fields = (
            (job.key, {name: getattr(job.question, name) for name in ("number", "id", "category", "extra")})
            for job in self._batch.jobs()
        )
        path = self._parts.write_answers(fields)
        if not self._answered:
            raise SotError(f"No question has an answer: {self._last_error or 'all have failed'} {_RETRY}")
        self._view.note(f"{self._answered} of {self._batch.count} questions have an answer in {str(path)!r}")
        if self._failed:
            print(f"sot: {self._failed} of {self._batch.count} questions failed. {_RETRY}", file=sys.stderr)
        return 0

    def _so_far(self) -> str:
        return f"{self._answered} of {self._batch.count} questions have an answer in {self._args.out!r}; {_GOES_ON}"


_GOES_ON = "the same command goes on"
_RETRY = "The same command with --retry asks them again."
