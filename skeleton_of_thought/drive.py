"""Drivers: pump flows with bounded concurrency, in threads (`run`) or on the event loop (`arun`).

A driver only waits. It gets one function that opens a call and streams its text: that stream yields `str` for text, and
may yield one `Reply` for how the call ended. A backend that takes several calls at once gives a `Together` as well. The
flows decide everything; the state that both drivers share (the budget, waiting calls, deadlines) is one `Board`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.adapters.replies import close_stream
from skeleton_of_thought.board import Board, End, Key, Text
from skeleton_of_thought.events import Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.rate_limits import interrupt_behind
from skeleton_of_thought.tasks import BatchTask, CallTask
from skeleton_of_thought.together import (
    Apart,
    AsyncTogether,
    BatchThread,
    Together,
    WorkerReport,
    in_batches,
)
from skeleton_of_thought.types import Call, Reply

if TYPE_CHECKING:
    from skeleton_of_thought.budget import Share

__all__ = ["AsyncOpen", "AsyncTogether", "Open", "Together", "arun", "join_threads", "run", "start_threads"]

logger = logging.getLogger(__name__)

Open = Callable[[Call, int], Iterable[str | Reply]]
"""Opens a call of the flow at this position and streams its text."""
AsyncOpen = Callable[[Call, int], AsyncIterator[str | Reply]]
"""Async twin of `Open`."""

GRACE = 2.0
"""Seconds that a driver waits for a cancelled call.

Python cannot interrupt a thread that is blocked in a library. After this time the driver logs a warning, leaves the
call to end by itself, and gives its place to another one.
"""

_BEGINS = 0.1
"""Seconds to wait for a thread whose start was interrupted: it may still begin to run."""


class _Worker:
    """A thread that opens one call and passes its text on.

    The driver stores the worker before it starts the `thread`, because an interrupt during the start may leave a thread
    that runs.
    """

    def __init__(self, key: Key, call: Call, open_call: Open, inbox: queue.SimpleQueue[list[WorkerReport]]) -> None:
        self._key = key
        self._call = call
        self._open_call = open_call
        self._inbox = inbox
        # Not an `Event`, whose lock an interrupt within `set` may leave locked.
        self._cancelled = False
        self._stream: Any = None
        self._reply = Reply()  # kept if the call fails later: its usage counts, too
        # Callbacks and tracing live in context variables, which threads do not inherit.
        context = contextvars.copy_context()
        name = f"sot-{call.stage}-{key[0]}-{key[1]}"
        self.thread = threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True)

    def join(self, timeout: float) -> None:
        """Waits for the thread, which has reported its end."""
        self.thread.join(timeout)

    def cancel(self, key: Key) -> None:
        """Ends the worker: at once if its stream can be cancelled from here, else at its next text."""
        self._cancelled = True
        cancel = getattr(self._stream, "cancel", None)
        if cancel is not None:
            cancel()

    def _work(self) -> None:
        error = None
        try:
            self._pass_on()
        except BaseException as caught:  # the driver raises it in the caller's thread
            error = caught
        self._inbox.put([End(self._key, self._reply, error)])

    def _pass_on(self) -> None:
        if self._cancelled:
            return
        if self._call.router is not None:
            decision = self._call.router.decide()
            self._reply = Reply(decision=decision, usage=decision.usage)
            return
        stream = self._stream = self._open_call(self._call, self._key[0])
        try:
            # Checked again: a cancellation while the call was opened found no stream to cancel.
            if self._cancelled:
                return
            left = math.inf if self._call.max_chars is None else self._call.max_chars
            for item in stream:
                if isinstance(item, Reply):
                    self._reply = item
                elif item and not self._cancelled:
                    self._inbox.put([Text(self._key, item)])
                    left -= len(item)
                    if left < 0:  # the flow cuts the text, but may be slow to read it
                        self.cancel(self._key)
                # A stream that can be cancelled ends by itself now, and reports its usage.
                if self._cancelled and getattr(stream, "cancel", None) is None:
                    break
        finally:
            close_stream(stream)


def run(
    flows: Sequence[AnswerFlow] | Board,
    open_call: Open,
    *,
    together: Together | None = None,
    max_concurrency: float | Share | None = None,
    until_sources: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, Event]]:
    """Runs flows to their end, each call in a thread of its own.

    The single call of a lone direct answer runs in the caller's thread. The last event of each flow is an `AnswerDone`
    or an `AnswerFailed`, emitted once all calls of the flow are closed; errors of calls are raised in no other way.
    Closing the iterator cancels all calls and waits up to `GRACE` seconds for them, and so does an exception such as
    `KeyboardInterrupt`, wherever in this function it is raised.

    A call whose server limits its rate, or for which this machine has no thread, is opened again when there is room.

    Args:
        flows: Flows that have not been started; or the `Board` of such flows, which has a budget of its own.
        open_call: Opens a call; called in the call's thread, with the position of its flow.
        together: Answers several calls in one thread, if the backend takes them at once; each of them counts.
        max_concurrency: The most calls that are open at any time, over all flows; or a share in a budget
            (`skeleton_of_thought.budget`), for batches and for several drivers. None: no limit for a lone flow, and
            `default_limit` of that module for several. `math.inf`: no limit for any number of flows.
        until_sources: End as soon as every flow has all its sources (or has failed), before anything is written with
            them. No call is open then, and `run` or `arun` can go on with the same `Board`, in any thread or loop. Of
            no use for flows that retrieve nothing.
        clock: Seconds, monotonic.

    Yields:
        The position of a flow, and its event.
    """
    board = flows if isinstance(flows, Board) else Board(flows, max_concurrency, GRACE)
    inbox: queue.SimpleQueue[list[WorkerReport]] = queue.SimpleQueue()
    workers: dict[Key, _Worker | BatchThread] = {}
    opened: list[Any] = []

    try:
        try:
            board.go_on(clock(), until_sources=until_sources, wake=lambda: inbox.put([]))
            while True:
                for key in board.cancels():
                    # A call that was cancelled may have ended by itself in the meantime.
                    if (worker := workers.get(key)) is not None:
                        worker.cancel(key)
                openings = board.openings(clock())
                if not workers and board.is_direct(openings):
                    yield from board.events()
                    yield from _in_place(*openings[0], open_call, opened, board, clock)
                    continue
                if openings and (unopened := _start(openings, open_call, together, inbox, workers)):
                    board.unopened(*unopened, clock())
                    continue
                yield from board.events()
                if board.finished:
                    return
                for report in _wait_for_reports(inbox, board.seconds_to_wait(clock())):
                    if isinstance(report, Apart):
                        apart = list(board.still_open(report.openings))
                        if unopened := _start(apart, open_call, None, inbox, workers):
                            board.unopened(*unopened, clock())
                        continue
                    if isinstance(report, End):
                        workers[report.key].join(GRACE)
                        del workers[report.key]
                    board.handle(report, clock())
                # After the reports: a call that ended while the caller was busy elsewhere was not late.
                board.expire(clock())
        finally:
            if workers or opened or board.share is not None:
                _end(workers, opened, board)
    finally:
        # An interrupt may have broken off the first attempt.
        if workers or opened or board.share is not None:
            _end(workers, opened, board)


def _start(
    openings: list[tuple[Key, Call]],
    open_call: Open,
    together: Together | None,
    inbox: queue.SimpleQueue[list[WorkerReport]],
    workers: dict[Key, _Worker | BatchThread],
) -> tuple[list[tuple[Key, Call]], RuntimeError] | None:
    """Starts a thread for each call or batch; returns the calls from the first one on that got none, and why."""
    batches, singles = ([], openings) if together is None else in_batches(openings, together)
    try:
        while together is not None and batches:
            several = BatchThread(batches[0], together, inbox)
            workers.update(dict.fromkeys((key for key, _ in batches[0]), several))
            several.thread.start()
            del batches[0]
        while singles:
            key, call = singles[0]
            worker = workers[key] = _Worker(key, call, open_call, inbox)
            worker.thread.start()
            del singles[0]
    except RuntimeError as error:  # from the start of a thread, which does nothing else
        if (interrupt := interrupt_behind(error)) is not None:
            raise interrupt from None
        unopened = [*itertools.chain(*batches, singles)]
        for key, _ in unopened:
            workers.pop(key, None)
        failure = RuntimeError(
            f"This machine could not start a thread for a call ({error}). Set a lower max_concurrency, or use the "
            "async methods, whose calls need no threads."
        )
        failure.__cause__ = error
        return unopened, failure
    return None


def _in_place(  # noqa: PLR0917 - each is of the driver
    key: Key, call: Call, open_call: Open, opened: list[Any], board: Board, clock: Callable[[], float]
) -> Iterator[tuple[int, Event]]:
    """Makes the only call there is in the caller's own thread; its stream is in `opened` until it is closed."""
    reply, error = Reply(), None
    # Variables that the call sets stay with the call, as in a thread; each piece may be read in another context.
    context = contextvars.copy_context()
    items = _read(open_call, call, key[0], opened)
    try:
        while True:
            try:
                item = context.run(next, items)
            except StopIteration:
                break
            except Exception as caught:
                error = caught
                break
            if isinstance(item, Reply):
                reply = item
            elif item:
                board.handle(Text(key, item), clock())
                yield from board.events()
                if key in board.cancels():
                    if (cancel := getattr(opened[0], "cancel", None)) is None:
                        break
                    # The stream ends by itself now, and reports its usage.
                    cancel()
    finally:
        context.run(items.close)
    board.handle(End(key, reply, error), clock())


def _read(open_call: Open, call: Call, position: int, opened: list[Any]) -> Generator[str | Reply]:
    try:
        opened.append(open_call(call, position))
        yield from iter(opened[0])
    finally:
        try:
            if opened:
                close_stream(opened[0])
        except Exception:  # the stream's own; after an interrupt it is closed once more
            opened.clear()
            raise
        opened.clear()


def _wait_for_reports(inbox: queue.SimpleQueue[list[WorkerReport]], timeout: float | None) -> list[WorkerReport]:
    """The reports that have arrived by now; waits for the first one."""
    arrived: list[WorkerReport] = []
    with contextlib.suppress(queue.Empty):
        arrived += inbox.get(timeout=timeout)
        for _ in range(inbox.qsize()):
            arrived += inbox.get_nowait()
    return arrived


def _end(workers: dict[Key, _Worker | BatchThread], opened: list[Any], board: Board) -> None:
    """Cancels all calls, waits for their threads, and gives their places back; after an interrupt, once more."""
    while opened:
        close_stream(opened[0])
        opened.clear()
    for key, worker in workers.items():
        try:
            worker.cancel(key)
        except Exception:
            logger.warning("A %s could not be cancelled.", worker.thread.name, exc_info=True)
    join_threads(dict.fromkeys(worker.thread for worker in workers.values()), GRACE)
    workers.clear()
    if board.share is not None:
        board.share.end()


def start_threads(threads: Sequence[threading.Thread]) -> int:
    """Starts threads that work through a list together; returns how many, fewer if the machine has no more.

    Raises:
        BaseException: Not even the first thread started; or an interrupt came, after which any thread may run.
    """
    for i, thread in enumerate(threads):
        try:
            thread.start()
        except RuntimeError as error:
            if (interrupt := interrupt_behind(error)) is not None:
                raise interrupt from None
            if i == 0:
                raise
            return i
    return len(threads)


def join_threads(threads: Iterable[threading.Thread], seconds: float) -> None:
    """Waits for threads that were told to end; logs a warning for each that is still blocked.

    Args:
        threads: The threads. A start that was interrupted may have made one that has not begun yet; it opens no call.
        seconds: The longest wait, for all of them together.
    """
    now = time.monotonic()
    until, begun = now + seconds, now + _BEGINS
    for thread in threads:
        while thread.ident is None and time.monotonic() < begun:
            time.sleep(0.001)
        with contextlib.suppress(RuntimeError):  # the thread has not begun
            thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            message = "%s is still blocked in its backend after %g s; it is left to end by itself."
            logger.warning(message, thread.name, seconds)


async def arun(
    flows: Sequence[AnswerFlow] | Board,
    open_call: AsyncOpen,
    *,
    together: AsyncTogether | None = None,
    max_concurrency: float | Share | None = None,
    until_sources: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[int, Event]]:
    """Async twin of `run`: each call is a task. Close it with `contextlib.aclosing`, or exhaust it."""
    board = flows if isinstance(flows, Board) else Board(flows, max_concurrency, GRACE)
    inbox: asyncio.Queue[list[WorkerReport]] = asyncio.Queue()
    tasks: dict[Key, CallTask | BatchTask] = {}
    loop = asyncio.get_running_loop()

    try:
        try:
            wake = partial(loop.call_soon_threadsafe, inbox.put_nowait, [])
            board.go_on(clock(), until_sources=until_sources, wake=wake)
            while True:
                for key in board.cancels():
                    # A call that was cancelled may have ended by itself in the meantime.
                    if (task := tasks.get(key)) is not None:
                        task.cancel(key)
                openings = board.openings(clock())
                if together is not None:
                    batches, openings = in_batches(openings, together)
                    for batch in batches:
                        several = BatchTask(batch, together, inbox)
                        tasks.update(dict.fromkeys((key for key, _ in batch), several))
                        several.start()
                for key, call in openings:
                    task = tasks[key] = CallTask(key, call, open_call, inbox)
                    task.start()
                for event in board.events():
                    yield event
                if board.finished:
                    return
                for report in await _await_reports(inbox, board.seconds_to_wait(clock())):
                    if isinstance(report, Apart):
                        for key, call in board.still_open(report.openings):
                            single = tasks[key] = CallTask(key, call, open_call, inbox)
                            single.start()
                        continue
                    if isinstance(report, End):
                        tasks.pop(report.key, None)
                    board.handle(report, clock())
                board.expire(clock())
        finally:
            if tasks or board.share is not None:
                await _aend(tasks, board)
    finally:
        # An interrupt, or a second cancellation, may have broken off the first attempt.
        if tasks or board.share is not None:
            await _aend(tasks, board)


async def _aend(tasks: dict[Key, CallTask | BatchTask], board: Board) -> None:
    """Async twin of `_end`."""
    for key, task in tasks.items():
        task.cancel(key)
    if begun := {task.task for task in tasks.values() if task.task is not None}:
        _, stuck = await asyncio.wait(begun, timeout=GRACE)
        if stuck:
            logger.warning("%d cancelled call(s) do not end; they are left to end by themselves.", len(stuck))
    tasks.clear()
    if board.share is not None:
        board.share.end()


async def _await_reports(inbox: asyncio.Queue[list[WorkerReport]], seconds: float | None) -> list[WorkerReport]:
    """Async twin of `_wait_for_reports`."""
    arrived: list[WorkerReport] = []
    if inbox.empty():
        try:
            arrived += await (inbox.get() if seconds is None else asyncio.wait_for(inbox.get(), seconds))
        except TimeoutError:
            return []
    for _ in range(inbox.qsize()):
        arrived += inbox.get_nowait()
    return arrived
