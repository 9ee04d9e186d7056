"""Calls that a backend takes several at once.

Some backends answer a list of prompts in one request. They give a driver a `Together` (or an `AsyncTogether`), which
takes calls that start at the same moment as one batch. Each of them stays a call of its own: it has its place in the
budget, its deadline and its error, and may be cancelled without the others. If the whole batch fails, the driver makes
its calls one at a time, so that one bad prompt does not cost the others their answers.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from skeleton_of_thought.board import End, Key, Text
from skeleton_of_thought.types import Call, Reply

__all__ = [
    "Apart",
    "AsyncTogether",
    "BatchThread",
    "Inbox",
    "Members",
    "Together",
    "Whole",
    "WorkerReport",
    "empty_ends",
    "in_batches",
]

logger = logging.getLogger(__name__)

Whole = tuple[str, Reply]
"""A call's whole text and its reply."""

Opening = tuple[Key, Call]

_AnswerFunction = TypeVar("_AnswerFunction", bound=Callable[..., object])


@dataclass(frozen=True)
class _Together(Generic[_AnswerFunction]):
    """A backend that takes several calls at once and answers all of them at once.

    Attributes:
        key: Called with a call and the position of its flow, before the call is opened. Calls with equal keys that
            start together make a batch; None opens the call by itself.
        answer: Answers a batch of two or more calls, each given with its flow's position. Returns the text and reply
            of each in their order, or an error in its place. If it raises, the calls are opened one at a time.
    """

    key: Callable[[Call, int], Hashable | None]
    answer: _AnswerFunction


Together = _Together[Callable[[Sequence[tuple[Call, int]]], Sequence[Whole | Exception]]]
"""For `drive.run`."""
AsyncTogether = _Together[Callable[[Sequence[tuple[Call, int]]], Awaitable[Sequence[Whole | Exception]]]]
"""For `drive.arun`."""


@dataclass(frozen=True)
class Apart:
    """A batch failed as a whole; these of its calls are still wanted, and the driver opens them one at a time."""

    openings: tuple[Opening, ...]


WorkerReport = Text | End | Apart
Inbox = Callable[[Sequence[WorkerReport]], None]
"""Takes reports that the driver handles at one moment, so that the calls that follow from them start together."""


def in_batches(
    openings: Iterable[Opening], together: _Together[_AnswerFunction]
) -> tuple[list[list[Opening]], list[Opening]]:
    """Splits the calls that start now into batches of two or more, and calls that are opened by themselves."""
    groups: dict[Hashable, list[Opening]] = {}
    for key, call in openings:
        shared = None if call.prompt is None else together.key(call, key[0])
        groups.setdefault((key, None) if shared is None else (None, shared), []).append((key, call))
    batches = [group for group in groups.values() if len(group) > 1]
    return batches, [group[0] for group in groups.values() if len(group) == 1]


class Members:
    """The calls of a batch that are still wanted. Thread-safe."""

    def __init__(self, openings: Sequence[Opening], inbox: Inbox) -> None:
        self._openings = openings
        self._inbox = inbox
        self._wanted = {key for key, _ in openings}
        self._last = openings[-1][0]
        self._ended = False
        self._lock = threading.Lock()

    def drop(self, key: Key) -> bool:
        """Cancels a call; returns whether it was the last one that was wanted."""
        with self._lock:
            if self._ended or key not in self._wanted:
                return False
            self._wanted.remove(key)
            if self._wanted:
                # The batch goes on for the others; this call has ended.
                self._inbox([End(key, Reply(), None)])
                return False
            # The last one ends with the batch. An earlier report would say that nothing runs while the batch does.
            self._last = key
            return True

    def end(self, reports: Callable[[Sequence[Opening]], Iterable[WorkerReport]]) -> None:
        """Ends the batch with the reports on the calls that are still wanted."""
        with self._lock:
            if self._ended:
                return
            if self._wanted:
                self._inbox(list(reports([opening for opening in self._openings if opening[0] in self._wanted])))
            else:
                self._inbox([End(self._last, Reply(), None)])
            # Not before: after an interrupt, or results of a wrong form, the batch has failed.
            self._ended = True

    @property
    def ended(self) -> bool:
        """Whether the batch has reported its end."""
        return self._ended

    @property
    def wanted(self) -> bool:
        """Whether any of the calls is still wanted."""
        return bool(self._wanted)

    @property
    def arguments(self) -> list[tuple[Call, int]]:
        """The calls as `Together.answer` takes them."""
        return [(call, key[0]) for key, call in self._openings]

    def succeed(self, results: Sequence[Whole | Exception]) -> None:
        """Ends the batch with a result for each call."""
        if len(results) != len(self._openings):
            raise RuntimeError(f"The backend gave {len(results)} results for {len(self._openings)} calls.")
        found = {key: result for (key, _), result in zip(self._openings, results, strict=True)}

        def reports(openings: Sequence[Opening]) -> Iterator[WorkerReport]:
            for key, _ in openings:
                result = found[key]
                if isinstance(result, Exception):
                    yield End(key, Reply(), result)
                    continue
                text, reply = result
                if text:
                    yield Text(key, text)
                yield End(key, reply, None)

        self.end(reports)

    def fail(self, error: BaseException) -> None:
        """Ends a batch that has failed as a whole."""
        if isinstance(error, Exception) and _has_no_room(error):
            # Opened one at a time, they would be refused all the more. The board opens them again together.
            self.end(lambda openings: [End(key, Reply(), error) for key, _ in openings])
        elif isinstance(error, Exception):
            logger.warning(
                "%d calls that were made together failed (%s: %s); they are made one at a time.",
                len(self._openings),
                type(error).__name__,
                error,
            )
            self.end(lambda openings: [Apart(tuple(openings))])
        else:
            self.end(lambda openings: [End(openings[0][0], Reply(), error)])


def _has_no_room(error: Exception) -> bool:
    from skeleton_of_thought.rate_limits import is_thread_shortage, read_rate_limit

    return read_rate_limit(error, time.time()) is not None or is_thread_shortage(error)


def empty_ends(openings: Sequence[Opening]) -> Iterator[WorkerReport]:
    """Ends that say nothing, of calls that were cancelled."""
    for key, _ in openings:
        yield End(key, Reply(), None)


class BatchThread:
    """A thread that makes several calls at once. The driver stores this object before it starts the `thread`."""

    def __init__(
        self, openings: Sequence[Opening], together: Together, inbox: queue.SimpleQueue[list[WorkerReport]]
    ) -> None:
        self._members = Members(openings, lambda messages: inbox.put(list(messages)))
        self._together = together
        context = contextvars.copy_context()
        self.thread = threading.Thread(
            target=context.run, args=(self._work,), name=f"sot-{openings[0][1].stage}-x{len(openings)}", daemon=True
        )

    def cancel(self, key: Key) -> None:
        """Drops one of its calls. The thread itself cannot be interrupted."""
        self._members.drop(key)

    def join(self, timeout: float) -> None:
        """Waits for the thread if it is about to end."""
        if self._members.ended:
            self.thread.join(timeout)

    def _work(self) -> None:
        if not self._members.wanted:  # all were cancelled before the thread began
            self._members.end(empty_ends)
            return
        try:
            self._members.succeed(self._together.answer(self._members.arguments))
        except BaseException as error:  # handled in the caller's thread
            self._members.fail(error)
