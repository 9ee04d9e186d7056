"""Many answers over one model: as many in flight as keep its calls open, the oldest first."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from skeleton_of_thought.board import Board, CallFlow, Key
from skeleton_of_thought.budget import Budget, Share
from skeleton_of_thought.drive import GRACE, Open, run
from skeleton_of_thought.errors import PointError
from skeleton_of_thought.evaluation.calls import CallLog, CountedStream
from skeleton_of_thought.evaluation.manifest import now as utc_now
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.types import Answer, Call

__all__ = ["HOLD", "Ended", "Hold", "answer_all"]

T = TypeVar("T")


class Hold(enum.Enum):
    """What an iterator of items gives instead of one while it wants no answer to begin."""

    HOLD = "hold"


HOLD = Hold.HOLD


@dataclass(frozen=True)
class Ended(Generic[T]):
    """An answer that has ended, with or without success.

    Attributes:
        item: What the answer was made for.
        answer: The answer; of one that failed, what there was until then, or None.
        error: Why it failed; None if it did not.
        log: The calls of the model that were opened for it, retries included.
        seconds: From its start to its end.
        at: When it began, UTC, ISO 8601.
    """

    item: T
    answer: Answer | None
    error: Exception | None
    log: CallLog
    seconds: float
    at: str


def answer_all(
    items: Iterable[T | Hold], new_flow: Callable[[T], AnswerFlow], open_call: Open, *, concurrency: int
) -> Iterator[Ended[T]]:
    """Answers all items, in threads, with `concurrency` calls open over all answers wherever there is work for them.

    A new answer begins only when no call of an earlier one waits for room, and calls of the oldest answer go first. So
    few answers are in flight, and they end about in the order of the items. The items are read as they are needed, and
    nothing is kept of an answer that has ended. A server that limits its rate slows all answers down together.

    Args:
        items: What to answer; `HOLD` for nothing until another answer has ended, of those that are in flight.
        new_flow: Makes the flow of an item. If it raises an error, that is how the item's answer ends.
        open_call: Opens a call, see `skeleton_of_thought.drive.run`.
        concurrency: The most calls that are open at any time.

    Yields:
        Each answer when it has ended and all its calls are closed. Closing the iterator ends the calls of all others.

    Raises:
        Exception: As raised by `items`.
    """
    intake = _Intake(items, new_flow, concurrency)

    def open_counted(call: Call, index: int) -> CountedStream:
        logged = intake.log(index).open(call)
        return CountedStream(open_call(call, index), logged)

    with contextlib.closing(cast("Any", run(intake, open_counted))) as events:
        for index, event in events:
            if isinstance(event, AnswerDone | AnswerFailed):
                yield intake.end(index, event)


@dataclass
class _Begun(Generic[T]):
    item: T
    began: float
    at: str
    log: CallLog = field(default_factory=CallLog)


class _Intake(Board, Generic[T]):
    """A board that takes a new flow whenever it has room for a call and none is waiting."""

    def __init__(self, items: Iterable[T | Hold], new_flow: Callable[[T], AnswerFlow], concurrency: int) -> None:
        # The board's own limit lets no call wait for room that the budget does not have.
        share = Share(Budget(concurrency), most=concurrency, shared=True)
        self._all: list[CallFlow] = []
        super().__init__(self._all, share, GRACE)
        self._items = iter(items)
        self._new_flow = new_flow
        self._most = concurrency
        self._exhausted = self._pausing = self._asks_again = False
        self._begun: dict[int, _Begun[T]] = {}

    def openings(self, now: float) -> list[tuple[Key, Call]]:
        """The calls that the driver opens now, those of new answers included."""
        openings = super().openings(now)
        self._pausing = self._asks_again = False
        while (
            not (self._ready or self._exhausted or self._pausing) and len(self._open) + len(self._closing) < self._most
        ):
            self._take_one(now)
            openings += super().openings(now)
        return openings

    def log(self, index: int) -> CallLog:
        """The calls of a flow; called in the threads of its calls, which may begin late, when it has ended."""
        begun = self._begun.get(index)
        return CallLog() if begun is None else begun.log

    def _take_one(self, now: float) -> None:
        try:
            item = next(self._items)
        except StopIteration:
            self._exhausted = True
            return
        if isinstance(item, Hold):
            if not self._begun:
                raise RuntimeError("There is no answer in flight to wait for.")
            self._pausing = True
            return
        index = len(self._all)
        self._begun[index] = _Begun(item, time.monotonic(), utc_now())
        try:
            flow = self._new_flow(item)
        except Exception as error:
            self._all.append(_NONE)
            self._events.append((index, AnswerFailed(error)))
            return
        self._all.append(flow)
        self._follow(index, flow.start(now), now)

    def end(self, index: int, event: Event) -> Ended[T]:
        """Forgets a flow whose last event this is."""
        flow, self._all[index] = self._all[index], _NONE
        self._asks_again = True
        begun = self._begun.pop(index)
        seconds = time.monotonic() - begun.began
        if isinstance(event, AnswerDone):
            return Ended(begun.item, event.answer, None, begun.log, event.answer.timings.total, begun.at)
        assert isinstance(event, AnswerFailed)
        error = event.error
        answer = (
            error.answer if isinstance(error, PointError) else flow.answer if isinstance(flow, AnswerFlow) else None
        )
        return Ended(begun.item, answer, error, begun.log, seconds, begun.at)

    def is_direct(self, openings: Any) -> bool:
        """No call is made in the caller's thread, where it would hold up all others."""
        return False

    def seconds_to_wait(self, now: float) -> float | None:
        """No time if an answer has ended since the items were asked for more; its caller may now want another one."""
        return 0.0 if self._asks_again and not self._exhausted else super().seconds_to_wait(now)

    @property
    def finished(self) -> bool:
        """Whether all items are answered, and every call is closed."""
        return self._exhausted and super().finished

    def _wait_for_room(self, order: int, key: Key, call: Call) -> None:
        super()._wait_for_room(key[0], key, call)  # the oldest answer first


_NONE = cast("CallFlow", None)
"""In the place of a flow that has ended: a late report on a call that was given up does not reach it."""
