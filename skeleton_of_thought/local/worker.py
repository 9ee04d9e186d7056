"""The engine's worker: one thread that takes requests from a queue and decodes all of them together.

One turn of its loop: receive submitted rows, drop cancelled rows, admit waiting rows, run one step.
"""

from __future__ import annotations

import atexit
import functools
import logging
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from skeleton_of_thought.errors import EngineClosed
from skeleton_of_thought.local.batch import BatchedLane, Lane
from skeleton_of_thought.local.failures import fail_rows, out_of_memory, release
from skeleton_of_thought.local.guard import Guard, holds_guard, reentry_error
from skeleton_of_thought.local.openmp import release_helpers
from skeleton_of_thought.local.prefix import PrefixStore, Strip, shared_tokens
from skeleton_of_thought.local.row import Row
from skeleton_of_thought.local.runner import CacheKind, ModelRunner
from skeleton_of_thought.local.separate import SeparateLane
from skeleton_of_thought.local.snapshots import Snapshot, SnapshotStore
from skeleton_of_thought.local.stats import Counters, EngineStats

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_CLOSED = "The local engine is closed: make a new one."
_EXIT_PATIENCE = 10.0
_ENDED = object()


class _Close:
    """The request to end the thread."""


@dataclass(frozen=True)
class _KeepOnly:
    """The request to keep only these beginnings of prompts, or none if the weights have changed since."""

    kept: Sequence[Strip | Snapshot]
    weights: int


_Item = Sequence[Row] | _Close | _KeepOnly | None


class Worker:
    """Decodes rows on a separate thread, which starts with the first row.

    The worker holds no reference to the engine, so that an engine without users is freed and ends its thread.

    Args:
        runner: The model.
        max_batch_size: The most rows decoded at once; others wait.
        prefix_cache_tokens: Prompt tokens whose keys and values are kept for later prompts.
        prefill_chunk: Prompt tokens that run between two steps.
        budget: The most tokens whose keys and values may be held at once.
    """

    def __init__(
        self, runner: ModelRunner, max_batch_size: int, prefix_cache_tokens: int, prefill_chunk: int, budget: int
    ) -> None:
        self._runner = runner
        self._max_rows = max_batch_size
        self._counters = Counters()
        snapshots = SnapshotStore(prefix_cache_tokens, runner.text_bytes)
        self._store = PrefixStore(
            prefix_cache_tokens, snapshots, stateful=runner.path.stateful, state_tokens=runner.state_tokens
        )
        self._weights = 0
        self._budget = budget
        self._lanes: dict[CacheKind, Lane] = {
            "batched": BatchedLane(runner, self._store, self._counters, prefill_chunk),
            "separate": SeparateLane(runner, snapshots, self._counters, prefill_chunk, "separate"),
            "none": SeparateLane(runner, snapshots, self._counters, prefill_chunk, "none"),
        }
        self._waiting: deque[Row] = deque()
        # The rows whose prompts are running, and the iterator that runs the next piece.
        self._joining: list[Row] = []
        self._joins: tuple[Lane, Iterator[None]] | None = None
        self._max_joining = max_batch_size
        self._full_at: int | None = None
        # A SimpleQueue because finalizers put into it, and its put is reentrant.
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._guard = Guard()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._ended = False

    def submit(self, rows: Sequence[Row]) -> None:
        """Submit rows for decoding; they are admitted together.

        Raises:
            EngineClosed: `close()` was called, or (`EngineForked`) this is a fork of the worker's process.
            EngineReentered: The call comes from the worker's thread, or interrupted another call on this thread.
        """
        self._guard.run(functools.partial(self._take, rows))

    def wake(self) -> None:
        """Wake the worker to drop cancelled rows. Safe in finalizers."""
        self._inbox.put(None)

    def close(self, timeout: float | None = None) -> None:
        """End all rows with `EngineClosed`, and the thread, after its current step.

        Waits for the end, except on the worker's own thread, in a forked process, and in a handler that interrupted a
        call on this thread: the step might wait for that call.
        """
        self.abandon()
        if self._guard.owner.forked or holds_guard():
            return
        # Through the guard, so that a thread that is just being started is joined too.
        thread = self._guard.run(lambda: self._thread)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def abandon(self) -> None:
        """Request the end of the thread, without waiting. Safe in finalizers."""
        self._closing = True
        self._inbox.put(_Close())

    def checkpoint(self) -> Callable[[], None]:
        """Remember the beginnings of prompts that are kept now; returns a function that drops all others.

        The worker does that before it receives the next rows. It drops all beginnings if the weights have changed.
        """
        kept = _KeepOnly((*self._store.strips, *self._store.snapshots.held), self._weights)
        return lambda: self._inbox.put(kept)

    @property
    def closed(self) -> bool:
        """Whether the worker refuses rows."""
        return self._closing or self._guard.owner.forked

    def check(self) -> None:
        """Raise the error that `submit` would raise now, before rows are made."""
        self._guard.owner.check()
        if self._closing:
            raise EngineClosed(_CLOSED)

    def stats(self) -> EngineStats:
        """A snapshot of the counts and times so far."""
        path = self._runner.path
        return EngineStats(
            forwards=self._runner.forwards, **asdict(self._counters), cache_kind=path.kind, reason=path.reason
        )

    def _take(self, rows: Sequence[Row]) -> None:
        self.check()
        if threading.current_thread() is self._thread:
            raise reentry_error()
        self._release_helpers()
        self._inbox.put(rows)
        if not self._ended and (self._thread is None or not self._thread.is_alive()):
            # A daemon, so that an unclosed engine does not keep the interpreter from ending.
            thread = threading.Thread(target=self._run, name="skeleton-of-thought-engine", daemon=True)
            thread.start()
            self._thread = thread
            _running.add(self)
        # Closing takes no lock, so it may have happened since the check.
        if self._ended:
            self._refuse()

    # --- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with torch.inference_mode():
            while self._receive():
                try:
                    self._turn()
                except BaseException as error:
                    # An error must not leave callers waiting, even if it is a mistake in this file.
                    logger.exception("The local engine failed between two steps")
                    self._end_all(error)
            self._end_all(EngineClosed(_CLOSED))
        # In this order: rows submitted after the last look see that the thread has ended.
        self._ended = True
        self._refuse()

    def _refuse(self) -> None:
        """End the rows that were submitted too late."""
        while True:
            try:
                rows = self._inbox.get_nowait()
            except queue.Empty:
                return
            if rows is not None and not isinstance(rows, _Close | _KeepOnly):
                for row in rows:
                    row.fail(EngineClosed(_CLOSED))
                self._report_ended(rows)

    def _turn(self) -> None:
        self._drop_cancelled()
        self._admit()
        for lane in self._lanes.values():
            if lane.rows:
                self._step(lane)

    def _receive(self) -> bool:
        """Process the inbox; wait for an item when there is nothing to do. Returns False when the thread must end."""
        if not self._has_work():
            self._free_resources()
            self._count()
        while True:
            try:
                item = self._inbox.get(block=not self._has_work())
            except queue.Empty:
                return True
            if isinstance(item, _Close):
                return False
            if isinstance(item, _KeepOnly):
                self._store.keep_only(item.kept if item.weights == self._weights else ())
            elif item is not None:
                self._waiting.extend(item)

    def _has_work(self) -> bool:
        return bool(self._waiting or self._joining or any(lane.rows for lane in self._lanes.values()))

    def _free_resources(self) -> None:
        """Free the batch's memory and end the OpenMP helpers, while there is nothing to decode."""
        for lane in self._lanes.values():
            lane.clear()
        self._release_helpers()

    def _release_helpers(self) -> None:
        """End this thread's OpenMP helpers, which slow down those of other threads, if the model runs on a CPU."""
        if self._runner.device.type == "cpu":
            release_helpers()

    def _drop_cancelled(self) -> None:
        gone = [row for row in (*self._waiting, *self._joining) if row.cancelled and not row.finished]
        if gone:
            self._waiting = deque(row for row in self._waiting if not row.cancelled)
            self._joining = [row for row in self._joining if not row.cancelled]
            if not self._joining:
                self._joins = None
        for lane in self._lanes.values():
            for row in [row for row in lane.rows if row.cancelled]:
                lane.drop(row)
                gone.append(row)
        for row in gone:
            row.cancel()
        self._report_ended(gone)

    def _admit(self) -> None:
        """Run the next piece of the joining rows' prompts; without joining rows, admit the next ones first."""
        if self._joins is None:
            self._start_admission()
        if self._joins is None:
            return
        rows, lane = list(self._joining), self._joins[0]
        began, forwards = time.perf_counter(), self._runner.seconds
        try:
            with self._runner.evaluating():
                ended = next(self._joins[1], _ENDED) is _ENDED
            if ended:
                for row in rows:
                    # Cancelled too late for the lane to see it.
                    if row.cancelled and row not in lane.rows:
                        row.cancel()
        except BaseException as error:
            self._requeue_or_fail(lane, error)
            ended = True
        self._joining = [row for row in rows if row not in lane.rows and not row.finished and not ended]
        if ended:
            self._joins = None
        counters = self._counters
        for row in rows:
            if row in lane.rows or row.finished:
                counters.prefill_tokens += len(row.prompt_ids) - row.reused
                counters.prefix_tokens_reused += row.reused
                counters.prefix_hits += row.reused > 0
        self._add_time("prefill_seconds", began, forwards)
        self._report_ended([row for row in rows if row.finished])

    def _start_admission(self) -> None:
        """Move waiting rows to the joining ones, first come, first served, as many as fit."""
        free = self._max_rows - sum(len(lane.rows) for lane in self._lanes.values())
        if not self._waiting or free <= 0 or self._short_of_memory():
            return
        kind = self._runner.kind_for(self._waiting[0].longest)
        # Assigned at once, so that a failure below ends these rows too.
        rows = self._joining = []
        most = min(free, self._max_joining)
        while self._waiting and len(rows) < most and self._runner.kind_for(self._waiting[0].longest) == kind:
            if not self._fits(rows, self._waiting[0]):
                break
            rows.append(self._waiting.popleft())
        if not rows:
            return
        if self._runner.refresh():
            self._store.clear()  # other weights give other keys and values
            self._weights += 1
            for other in self._lanes.values():
                for row in other.rows:
                    row.mixed = True
        now = time.perf_counter()
        for row in rows:
            row.admitted = row.admitted or now
        lane = self._lanes[kind]
        self._joins = (lane, self._in_halves(lane, rows))

    def _in_halves(self, lane: Lane, rows: Sequence[Row]) -> Iterator[None]:
        """Run the prompts of rows piece by piece; after a failure in halves, until the rows that fail alone are found.

        Raises:
            Exception: The error of a model without enough memory, which is no row's own.
        """
        groups = [list(rows)]
        while groups:
            group = groups.pop()
            failure: Exception | None = None
            try:
                yield from lane.admit(group)
            except Exception as error:
                if out_of_memory(error):
                    raise
                failure = error
            if failure is not None:
                # The others joined the batch, and perhaps left it, before the failure.
                left = [row for row in group if not row.finished and row not in lane.rows]
                half = len(left) // 2
                if half:
                    release(failure)
                    groups += [left[half:], left[:half]]
                else:
                    fail_rows(left, failure)
                yield

    def _short_of_memory(self) -> bool:
        """Whether memory ran out for one more row, and no row has left since."""
        if self._full_at is not None and sum(len(lane.rows) for lane in self._lanes.values()) >= self._full_at:
            return True
        self._full_at = None
        return False

    def _fits(self, joining: Sequence[Row], row: Row) -> bool:
        """Whether the budget for keys and values has room for one more row, if all rows reach their longest text."""
        rows = [*(row for lane in self._lanes.values() for row in lane.rows), *joining, row]
        tokens = sum(other.longest for other in rows)
        if self._runner.shares:
            tokens -= shared_tokens(sorted(row.prompt_ids for row in rows), self._runner.token_bytes)
        tokens = self._runner.memory_of(tokens, len(rows))
        if tokens <= self._budget or len(rows) == 1:
            # The beginnings kept for later prompts make room.
            self._store.shrink(max(0, self._budget - tokens))
            return True
        return False

    def _requeue_or_fail(self, lane: Lane, error: BaseException) -> None:
        """End the rows whose prompts failed. If memory ran out, they wait and try again, fewer at once."""
        # Older rows, and rows that joined the batch before the failure, go on.
        rows = [row for row in self._joining if row not in lane.rows and not row.finished]
        running = sum(len(other.rows) for other in self._lanes.values())
        if out_of_memory(error) and (len(rows) > 1 or running):
            logger.warning("Out of memory for the prompts of %d rows: they wait and try again", len(rows))
            release(error)
            self._store.clear()
            self._max_joining = max(1, len(rows) // 2)
            if len(rows) == 1:
                self._full_at = running
            self._waiting.extendleft(reversed(rows))
            return
        self._fail(rows, error)

    def _step(self, lane: Lane) -> None:
        rows = list(lane.rows)
        began, forwards = time.perf_counter(), self._runner.seconds
        try:
            with self._runner.evaluating():
                lane.step()
        except BaseException as error:
            lane.clear()
            self._fail(rows, error)
        self._add_time("decode_seconds", began, forwards)
        if any(row.finished for row in rows):
            self._max_joining = self._max_rows
            self._report_ended(rows)

    def _add_time(self, name: str, began: float, forwards: float) -> None:
        took = time.perf_counter() - began
        setattr(self._counters, name, getattr(self._counters, name) + took)
        self._counters.python_seconds += max(0.0, took - (self._runner.seconds - forwards))

    def _fail(self, rows: Sequence[Row], error: BaseException) -> None:
        fail_rows(rows, error)
        self._store.clear()

    def _end_all(self, error: BaseException) -> None:
        rows = [*self._waiting, *self._joining, *(row for lane in self._lanes.values() for row in lane.rows)]
        self._waiting.clear()
        self._joining, self._joins = [], None
        self._free_resources()
        self._store.clear()
        for row in rows:
            row.fail(error)
        self._report_ended(rows)

    def _report_ended(self, rows: Sequence[Row]) -> None:
        """Count the rows that ended, and pass their results to their consumers."""
        counters, ended = self._counters, [row for row in rows if row.result is not None]
        for row in ended:
            if isinstance(row.result, BaseException):
                counters.failed += 1
            elif row.result is not None and row.result.finish_reason == "cancelled":
                counters.cancelled += 1
            else:
                counters.completed += 1
        self._count()
        for row in ended:
            try:
                row.deliver()
            except BaseException:
                logger.exception("A consumer did not take the end of its text")

    def _count(self) -> None:
        counters = self._counters
        counters.rows = sum(len(lane.rows) for lane in self._lanes.values())
        counters.waiting = len(self._waiting) + len(self._joining)
        counters.kv_bytes = sum(lane.kv_bytes() for lane in self._lanes.values())
        counters.peak_kv_bytes = max(counters.peak_kv_bytes, counters.kv_bytes)
        counters.peak_batch_size = max(counters.peak_batch_size, counters.rows)


_running: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    # A daemon thread inside a forward at the end of the interpreter can crash the process.
    for worker in list(_running):
        worker.close(_EXIT_PATIENCE)
