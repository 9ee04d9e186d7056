"""Skeleton-of-Thought for one question, as a state machine: the algorithm, written once.

`AnswerFlow` does no I/O and knows no thread, loop or clock. A driver reports what happened (`start`, `delta`, `done`,
`failed`), and the flow returns what follows: calls to open, calls to cancel, and events. Adapters supply the calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, get_args

from skeleton_of_thought import events
from skeleton_of_thought.board import Action, CallFlow
from skeleton_of_thought.draft import REPEATED, Draft, PointWriting
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.parser import SkeletonWriting, check_skeleton
from skeleton_of_thought.prompts import DEFAULT_PROMPTS, PromptSet
from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, Router, check_router, failure_decision, races
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import AnswerPrompts
from skeleton_of_thought.text.assembly import POINT_BREAK
from skeleton_of_thought.types.answer import Answer, Conversation, Point, RouteDecision, Skeleton, Stage
from skeleton_of_thought.types.calls import Call, Reply, Retrieval

__all__ = ["AnswerFlow"]

logger = logging.getLogger(__name__)


class AnswerFlow(CallFlow):
    """The life of one answer.

    Args:
        conversation: The caller's messages; the last one is the question.
        prompts: The prompts.
        settings: How the answer is made.
        router: A `Router`, a function of the question, or None for a skeleton always.
        skeleton: Points to be expanded, if they are known: there is no route and no skeleton call then.
        prefill: The stages (`"skeleton"`, `"point"`) whose backend continues the start of an assistant's turn.
        live: Whether text is released while it is written. If not, the answer's text comes as one
            `AnswerDelta` at the end, and a point may be retried even after it wrote text.
        structured: Whether the backend gives the skeleton as data (`Reply.titles`); a failed call is repeated as text.
        retrieval: When calls of stage `sources` retrieve; see `Retrieval`.
        found: The context of the question and its sources, where the caller has them already.

    Attributes:
        finished: Whether the last event was emitted.

    Raises:
        InvalidInput: The router, the given skeleton or `retrieval` cannot be used.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        prompts: PromptSet | None = None,
        settings: Settings | None = None,
        router: AnyRouter | None = None,
        skeleton: Skeleton | None = None,
        prefill: Collection[Stage] = (),
        live: bool = True,
        structured: bool = False,
        retrieval: Retrieval = "none",
        found: Reply | None = None,
    ) -> None:
        if retrieval not in get_args(Retrieval):
            raise InvalidInput(f"retrieval must be {' or '.join(map(repr, get_args(Retrieval)))}, not {retrieval!r}.")
        check_skeleton(skeleton)
        if not (router is None or isinstance(router, Router)):
            check_router(router)
        settings = settings or Settings()
        reason = "given skeleton" if skeleton else "no router" if router is None else "not decided yet"
        self._draft = Draft(conversation.question, settings, reason=reason, live=live)
        super().__init__(settings, self._draft.ledger)
        self.conversation = conversation
        self.finished = False
        size, own_context = (settings.max_points, settings.point_words), retrieval == "per_point"
        prompts = prompts or DEFAULT_PROMPTS
        self._prompts = AnswerPrompts(prompts, conversation, *size, prefill=prefill, own_context=own_context)
        if found is not None:
            self._draft.sources, self._prompts.context = found.sources, found.context
        self._release, self._points = self._draft.release, self._draft.points
        self._router, self._given, self._retrieval, self._structured = router, skeleton, retrieval, structured
        self._racing = False
        self._raced: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._points_done = self._points_sourced = 0

    # --- start, and what calls report ---

    def start(self, now: float = 0.0) -> list[Action]:
        """Begins the answer; returns the first calls."""
        self._began, self._actions = now, []
        if self._given is not None or self._router is None:
            self._answer_by_points()
        else:
            self._route(self._router)
        return self._actions

    def _read(self, call: Call, text: str) -> None:
        if call.point is not None:
            writing = self._points[call.point.index]
            self._show(writing, writing.feed(text, self._offset))
            if writing.loops is not None and writing.loops.looping:
                self._cancel(call)
                self._close_point(writing, REPEATED)
        elif call.stage == "skeleton":
            self._when_routed(self._read_skeleton, call, text)
        elif call.stage == "direct":
            self._read_direct(call, text)
        elif call.stage == "merge":
            self._read_merge(call, text)

    def _end(self, call: Call, rest: str, reply: Reply) -> None:
        if call.stage == "route":
            self._take_route(reply.decision or RouteDecision(False, reason="the router gave no decision"))
        elif call.stage == "sources":
            self._take_sources(call.point, tuple(reply.sources), reply.context)
        elif call.stage == "skeleton":
            self._when_routed(self._end_skeleton, rest, reply.finish_reason == "length", reply.titles)
        elif call.stage == "direct":
            self._end_direct(reply.finish_reason)
        elif call.stage == "merge":
            self._end_merge(reply.finish_reason)
        elif call.point is not None:
            self._end_point(self._points[call.point.index], rest, reply.finish_reason)

    def _fail(self, call: Call, error: Exception) -> None:
        if call.stage == "route":
            self._take_route(failure_decision(error))
        elif call.stage == "sources":
            self._fail_sources(call, error)
        elif call.stage == "skeleton":
            self._when_routed(self._fail_skeleton, call, error)
        elif call.stage == "merge":
            self._fail_merge(error, call.attempt)
        elif call.point is not None:
            self._fail_point(self._points[call.point.index], error)
        else:
            self._show_text(self._draft.direct.close())
            self._fail_answer(error)

    # --- route ---

    def _route(self, router: AnyRouter) -> None:
        """Takes the decision of a router that needs no call, and opens a call for one that does."""
        at_once = getattr(router, "at_once", None)
        try:
            decision = None if at_once is None else at_once(self.conversation)
        except Exception as error:
            decision = failure_decision(error)
        if decision is not None:
            self._take_route(decision)
            return
        self._open("route", router=BoundRouter(router, self.conversation))
        # With retrieval, the skeleton waits for its sources.
        if races(router) and self._retrieval != "once":
            self._open_skeleton()
            self._racing = True

    def _take_route(self, decision: RouteDecision) -> None:
        self._draft.decision = decision
        self._draft.reason = decision.reason or "the router decided"
        self._actions.append(events.Routed(decision))
        racing, self._racing = self._racing, False
        if not decision.use_skeleton:
            for call in [call for call in self._ledger.calls.values() if call.stage == "skeleton"]:
                self._cancel(call)
            self._answer_directly()
        elif racing:
            for report, arguments in self._raced:
                # The skeleton may end before all of it was read: it is cut where it has enough points.
                if self._draft.skeleton is None and self._draft.route == "skeleton" and not self.finished:
                    report(*arguments)
        else:
            self._answer_by_points()

    def _when_routed(self, report: Callable[..., None], *arguments: Any) -> None:
        """Takes a report on the skeleton; while the router still decides, keeps it until then."""
        if self._racing:
            self._raced.append((report, arguments))
        else:
            report(*arguments)

    def _answer_by_points(self) -> None:
        if self._retrieval == "once" and self._draft.sources is None:
            self._open("sources")
        elif self._given is not None:
            self._complete_skeleton(self._given)
        else:
            self._open_skeleton()

    def _answer_directly(self) -> None:
        self._draft.route = "direct"
        if self._retrieval != "none" and self._draft.sources is None:
            self._open("sources")
        else:
            self._open("direct", self._prompts.direct())

    def _read_direct(self, call: Call, text: str) -> None:
        self._show_text(self._draft.direct.feed(text))
        if self._draft.direct.looping:
            self._cancel(call)
            self._end_direct(REPEATED)

    def _end_direct(self, finish_reason: str | None) -> None:
        self._show_text(self._draft.direct.close())
        self._draft.finish_reason = finish_reason
        self._finish()

    # --- sources ---

    def _take_sources(self, point: Point | None, sources: tuple[Any, ...], context: str) -> None:
        self._actions.append(events.SourcesFound(point, sources))
        if point is not None:
            writing = self._points[point.index]
            writing.sources, writing.context = sources, context
            self._points_sourced += 1
            self._end_sources_if_complete()
            self._write_point(writing)
            return
        self._draft.sources, self._prompts.context = sources, context
        self._actions.append(events.SourcesDone())
        if self._draft.route == "direct":
            self._answer_directly()
        else:
            self._answer_by_points()

    def _fail_sources(self, call: Call, error: Exception) -> None:
        if call.attempt <= self.settings.max_retries:
            self._open("sources", point=call.point, attempt=call.attempt + 1)
        elif call.point is None:
            self._fail_answer(error)
        else:
            if self.settings.on_point_error == "placeholder":
                self._points_sourced += 1
                self._end_sources_if_complete()
            self._give_up_point(self._points[call.point.index], error, retrieval=call)

    def _end_sources_if_complete(self) -> None:
        skeleton = self._draft.skeleton
        if skeleton is not None and self._points_sourced == len(skeleton):
            self._actions.append(events.SourcesDone())

    # --- skeleton ---

    def _open_skeleton(self, attempt: int = 1) -> None:
        self._draft.reading = SkeletonWriting(self.settings.min_points, self.settings.max_points)
        structured = self._structured and attempt == 1
        prompt = self._prompts.skeleton(structured=structured)
        self._open("skeleton", prompt, attempt=attempt, structured=structured)
        self._show_points(self._draft.reading.feed(prompt.prefill))

    def _read_skeleton(self, call: Call, text: str) -> None:
        if points := self._draft.reading.feed(text):
            self._show_points(points)
        if self._draft.reading.complete:
            self._cancel(call)
            self._end_skeleton(truncated=True)

    def _show_points(self, points: Collection[Point]) -> None:
        for point in points:
            self._actions.append(events.PointFound(point))
            if self.settings.eager:
                self._open_point(point)
        if self.settings.eager:
            self._actions += self._release.points(self._offset)

    def _end_skeleton(self, rest: str = "", truncated: bool = False, titles: Collection[str] | None = None) -> None:
        reading = self._draft.reading
        self._show_points(reading.feed(rest))
        self._show_points(reading.close(truncated=truncated, titles=titles))
        if len(reading.points) >= self.settings.min_points:
            self._complete_skeleton(reading.skeleton)
        elif self.settings.on_empty_skeleton == "raise":
            self._fail_answer(reading.error)
        else:
            self._draft.reason = f"the skeleton had {len(reading.points)} usable point(s)"
            reading.points = []
            self._answer_directly()

    def _fail_skeleton(self, call: Call, error: Exception) -> None:
        if call.attempt <= self.settings.max_retries and not self._draft.reading.points:
            self._open_skeleton(call.attempt + 1)
        else:
            self._fail_answer(error)

    def _complete_skeleton(self, skeleton: Skeleton) -> None:
        self._draft.skeleton = skeleton
        # One point has nothing to be merged with.
        self._release.held = self.settings.merge and len(skeleton) > 1
        self._actions.append(events.SkeletonDone(skeleton))
        if self._retrieval == "per_point":
            # Eager points may have all their sources before the skeleton ends.
            self._end_sources_if_complete()
        for point in skeleton.points:
            if point.index not in self._points:
                self._open_point(point)
        self._actions += self._release.points(self._offset)
        # Eager points may all end before the skeleton does.
        self._finish_if_complete()

    # --- points ---

    def _open_point(self, point: Point) -> None:
        writing = self._draft.add_point(point)
        if self._retrieval == "per_point":
            self._open("sources", point=point)
        else:
            self._write_point(writing)

    def _write_point(self, writing: PointWriting) -> None:
        writing.attempt += 1
        skeleton = self._draft.skeleton
        if skeleton is None:  # a point that starts early shows the points up to its own
            skeleton = Skeleton(tuple(self._draft.reading.points[: writing.point.index]))
        prompt = self._prompts.point(skeleton, writing.point, writing.context)
        self._actions.append(events.PointStarted(writing.point, writing.attempt))
        self._open("point", prompt, point=writing.point, attempt=writing.attempt)

    def _show(self, writing: PointWriting, text: str) -> None:
        if text:
            writing.pieces.append(text)
            self._actions.append(events.PointDelta(writing.point, text))
            self._actions += self._release.points(self._offset)

    def _end_point(self, writing: PointWriting, rest: str, finish_reason: str | None) -> None:
        if rest:
            self._show(writing, writing.feed(rest, self._offset))
        self._show(writing, writing.close())
        self._close_point(writing, REPEATED if writing.looping else finish_reason)

    def _close_point(self, writing: PointWriting, reason: str | None, error: Exception | None = None) -> None:
        writing.expansion = writing.result(self._offset, error, reason)
        self._points_done += 1
        self._actions.append(events.PointDone(writing.expansion))
        self._actions += self._release.points(self._offset)
        self._finish_if_complete()

    def _fail_point(self, writing: PointWriting, error: Exception) -> None:
        if writing.attempt <= self.settings.max_retries and not writing.released:
            writing.restart(self._draft.loop_guard())
            self._actions.append(events.PointRestarted(writing.point, error))
            self._write_point(writing)
        else:
            self._give_up_point(writing, error)

    def _give_up_point(self, writing: PointWriting, error: Exception, retrieval: Call | None = None) -> None:
        """Ends a point that has failed for good: itself, or the `retrieval` for it."""
        # The text written so far is kept: readers of the stream have it, and callers of the whole answer get the same.
        self._show(writing, writing.close())
        if self.settings.on_point_error == "placeholder":
            gap = " " if writing.pieces else ""
            self._show(writing, gap + self.settings.placeholder if self.settings.placeholder else "")
            self._close_point(writing, None, error)
        else:
            writing.expansion = writing.result(self._offset, error)
            self._fail_answer(writing.failure(error, retrieval, self.answer))

    # --- merge ---

    def _open_merge(self, attempt: int = 1) -> None:
        self._actions.append(events.MergeStarted(attempt))
        try:
            prompt = self._draft.open_merge(self._prompts)
        except Exception as error:  # of a template of the caller's: with all points written, no reason to lose them
            self._give_up_merge(error)
        else:
            self._open("merge", prompt, attempt=attempt)

    def _read_merge(self, call: Call, text: str) -> None:
        merge = self._draft.merge
        assert merge is not None
        self._show_text(merge.feed(text))
        if (fault := merge.fault) is not None:
            self._cancel(call)
            self._give_up_merge(fault)

    def _end_merge(self, finish_reason: str | None) -> None:
        merge = self._draft.merge
        assert merge is not None
        self._show_text(merge.close())
        if (fault := merge.final_fault(finish_reason)) is not None:
            self._give_up_merge(fault)
            return
        self._draft.merged = True
        self._actions.append(events.MergeDone("".join(merge.pieces)))
        if failed := self._draft.failed():
            self._show_text(POINT_BREAK + failed)
        self._finish()

    def _fail_merge(self, error: Exception, attempt: int) -> None:
        if attempt <= self.settings.max_retries and not self._draft.shows_merge():
            self._open_merge(attempt + 1)
        else:
            self._give_up_merge(error)

    def _give_up_merge(self, error: Exception) -> None:
        """Ends the answer with its points as they are: a failed merge never loses the answer."""
        self._draft.merge_error = error
        self._actions.append(events.MergeDone("", error))
        if self._draft.shows_merge():
            self._actions.append(events.AnswerRestarted(error))
        self._show_text(self.answer.text)
        self._finish()

    # --- the end ---

    def _show_text(self, text: str) -> None:
        self._actions += self._release.text(text, self._offset)

    def _finish_if_complete(self) -> None:
        if self._draft.skeleton is None or self._points_done < len(self._draft.skeleton):
            return
        if not self._release.held:
            self._finish()
        elif len(self._draft.written()) > 1:
            self._open_merge()
        else:
            self._show_text(self.answer.text)
            self._finish()

    def _finish(self) -> None:
        if not self._release.live:
            self._release.live = True
            self._show_text(self.answer.text)
        answer = self._draft.answer(self._offset)
        self._actions.append(events.AnswerDone(answer))
        self.finished = True
        if (observe := getattr(self._router, "observe", None)) is not None:
            try:
                observe(answer)
            except Exception:
                logger.warning("The router could not learn from an answer.", exc_info=True)

    def _fail_answer(self, error: Exception) -> None:
        for call in list(self._ledger.calls.values()):
            self._cancel(call)
        self._actions.append(events.AnswerFailed(error))
        self.finished = True

    def last_event(self, event: events.Event) -> events.Event:
        """The last event, with the costs of calls that were cancelled before it and have ended since."""
        return self._draft.last_event(event)

    @property
    def answer(self) -> Answer:
        """The answer as far as it is: complete once `finished`, partial before."""
        return self._draft.answer(self._offset)
