"""The failures of an answer's calls: what is written again, what is given up, and what ends the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from skeleton_of_thought import events
from skeleton_of_thought.draft import PointWriting
from skeleton_of_thought.errors import PointError, ReplyError, error_text
from skeleton_of_thought.restarts import restart_point, void_skeleton
from skeleton_of_thought.rewriting import RewritingFlow
from skeleton_of_thought.routers.base import failure_decision
from skeleton_of_thought.types import Answer, Call, RouteDecision

__all__ = ["FailingFlow"]


class FailingFlow(RewritingFlow):
    """The steps that follow a failed call. The steps before it are those of `AnswerFlow`."""

    _points_done: int
    _waits_for_sources: bool

    @abstractmethod
    def _when_routed(self, report: Callable[..., None], *arguments: Any) -> None:
        """Takes a report on the skeleton; while the router still decides, keeps it until then."""

    @abstractmethod
    def _take_route(self, decision: RouteDecision) -> None:
        """Follows the router's decision."""

    @abstractmethod
    def _open_skeleton(self, attempt: int = 1) -> None:
        """Opens a call for the skeleton."""

    def _can_repeat(self, call: Call) -> bool:
        """Whether the call may be made again: attempts are left, and the reader has no text of it."""
        if call.attempt > self.settings.max_retries:
            return False
        if call.point is not None:
            return not self._points[call.point.index].released
        if call.stage == "merge":
            return not self._shows_merge()
        if call.stage in ("opening", "closing"):
            return True
        return call.stage == "skeleton" and self._release.first_text is None

    def _fail(self, call: Call, error: Exception) -> None:
        if call.stage == "route":
            self._take_route(failure_decision(error))
        elif call.stage == "sources":
            self._fail_sources(call, error)
        elif call.stage == "skeleton":
            self._when_routed(self._fail_skeleton, call, error)
        elif call.stage == "merge":
            self._fail_merge(error, call.attempt)
        elif call.stage in ("opening", "closing"):
            self._fail_role(call, error)
        elif call.point is not None:
            writing = self._points[call.point.index]
            self._fail_point(writing, error, writing.close())
        else:
            self._show_text(self._draft.direct.close())
            self._fail_answer(error)

    def _fail_skeleton(self, call: Call, error: Exception) -> None:
        if self._can_repeat(call):
            self._draft.reading.void()
            if self._draft.reading.voided:
                self._void_skeleton()
            self._open_skeleton(call.attempt + 1)
        else:
            self._fail_answer(error)

    def _void_skeleton(self) -> None:
        for call in [call for call in self._ledger.calls.values() if call.point is not None]:
            self._cancel(call)
        self._points_done = self._points_sourced = 0
        self._waiting.clear()
        self._release.waiting = self._waits_for_sources
        self._actions += void_skeleton(self._draft)

    def _fail_point(self, writing: PointWriting, error: Exception, rest: str) -> None:
        """Ends an attempt that has failed; `rest` is text of it that was held back until now."""
        if writing.earlier_text is not None:
            self._keep_earlier_text(writing, error)
        elif writing.attempt <= self.settings.max_retries and not writing.released:
            self._actions += restart_point(writing, error, shown=bool(writing.pieces))
            writing.restart(self._draft.loop_guard())
            self._write_point(writing)
        else:
            # The text written so far is kept: a reader of the stream has it already, and a caller of the whole answer
            # gets the same.
            self._show(writing, rest)
            self._give_up_point(writing, error)

    def _give_up_point(self, writing: PointWriting, error: Exception, retrieval: Call | None = None) -> None:
        """Ends a point that has failed for good: itself, or the `retrieval` for it."""
        reason = error.finish_reason if isinstance(error, ReplyError) else "error"
        if self.settings.on_point_error == "placeholder":
            gap = " " if writing.pieces else ""
            self._show(writing, gap + self.settings.placeholder if self.settings.placeholder else "")
            self._close_point(writing, reason, error)
        else:
            writing.expansion = writing.result(self._offset, error, reason)
            self._fail_answer(point_failure(writing, error, retrieval, self.answer))

    def _fail_answer(self, error: Exception) -> None:
        for call in list(self._ledger.calls.values()):
            self._cancel(call)
        self._actions.append(events.AnswerFailed(error))
        self.finished = True


def point_failure(writing: PointWriting, error: Exception, retrieval: Call | None, answer: Answer) -> PointError:
    """The error of an answer whose point has failed for good.

    Args:
        writing: The point.
        error: The error of the last attempt.
        retrieval: The last retrieval for the point, if that has failed and not the point itself.
        answer: The answer as far as it is.
    """
    what, attempts = ("Point", writing.attempt)
    if retrieval is not None:
        what, attempts = ("The retrieval for point", retrieval.attempt)
    failure = PointError(
        f"{what} {writing.point.index} ({writing.point.title[:60]!r}) failed after {attempts} attempt(s): "
        f"{error_text(error)}. The error's `answer` holds the rest; "
        'on_point_error="placeholder" keeps it as the result.',
        writing.point,
        answer,
    )
    failure.__cause__ = error
    return failure
