"""Skeleton-of-Thought for one question, as a state machine: the algorithm, written once.

`AnswerFlow` does no I/O and knows no thread, loop or clock. A driver reports what happened (`start`, `delta`, `done`,
`failed`), and the flow returns what follows: calls to open, calls to cancel, and events. Adapters supply the calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, get_args

from skeleton_of_thought import events
from skeleton_of_thought.adapters.finish_reasons import CUT, FAILED, FINAL, describe_failure, reply_error
from skeleton_of_thought.adapters.replies import BROKEN_OFF, ending, lacks_text
from skeleton_of_thought.board import Action
from skeleton_of_thought.draft import REPEATED, Draft, PointWriting
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.failing import FailingFlow
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.parsing.parser import SkeletonWriting, check_skeleton, first_titles, without_reasoning
from skeleton_of_thought.plan_memory import PlanMemory, graph_allowed
from skeleton_of_thought.planning import cut_plan, kind_of, safe_skeleton
from skeleton_of_thought.prompts import DEFAULT_PROMPTS, PromptSet
from skeleton_of_thought.restarts import void_point
from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, Router, check_router, failure_decision, races
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import AnswerPrompts
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS, SPEAKS_OF_WORDS
from skeleton_of_thought.types.answer import Answer, Conversation, Planning, Point, RouteDecision, Skeleton, Stage
from skeleton_of_thought.types.calls import Call, Reply, Retrieval
from skeleton_of_thought.waves import TOO_LONG, allowing, asking_items, own_settings

__all__ = ["AnswerFlow"]

logger = logging.getLogger(__name__)


class AnswerFlow(FailingFlow):
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
        nothing_found: The text in place of a point or a direct answer for which nothing was retrieved; None to have it
            written without sources.
        eager_pays: Whether `Settings.eager="auto"` starts points early in an answer that is not `live`, because the
            backend of the points then has the whole answer sooner.
        plans: What the model's plans have been like, for `Settings.planning="auto"`; it learns from this answer.

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
        nothing_found: str | None = None,
        eager_pays: bool = False,
        plans: PlanMemory | None = None,
    ) -> None:
        if retrieval not in get_args(Retrieval):
            raise InvalidInput(f"retrieval must be {' or '.join(map(repr, get_args(Retrieval)))}, not {retrieval!r}.")
        check_skeleton(skeleton)
        if not (router is None or isinstance(router, Router)):
            check_router(router)
        settings, self._word_limit = settings or Settings(), None
        if settings.eager == "auto" or SPEAKS_OF_WORDS.search(conversation.question):
            settings, self._word_limit = own_settings(settings, conversation.question, eager_pays=eager_pays or live)
        if skeleton is not None:
            skeleton = safe_skeleton(skeleton, settings.max_depth, settings.max_parents)
        reason = "given skeleton" if skeleton else "no router" if router is None else "not decided yet"
        self._draft = Draft(conversation.question, settings, reason=reason, live=live)
        super().__init__(settings, self._draft.ledger)
        self.conversation = conversation
        self.finished = False
        size, own_context = (settings.max_points, settings.point_words), retrieval == "per_point"
        prompts = prompts or DEFAULT_PROMPTS
        self._prompts = AnswerPrompts(prompts, conversation, *size, prefill=prefill, own_context=own_context)
        if skeleton is not None:
            self._prompts.planning = self._draft.planning = kind_of(skeleton)
        if found is not None:
            self._draft.sources, self._prompts.context = found.sources, replace_surrogates(found.context)
        self._release, self._points = self._draft.release, self._draft.points
        self._nothing_found = nothing_found
        self._waits_for_sources = self._release.waiting = own_context and nothing_found is not None
        self._router, self._given, self._retrieval, self._structured = router, skeleton, retrieval, structured
        self._planning: Planning = "titles" if settings.planning == "auto" else settings.planning
        self._may_plan = settings.planning != "titles" or settings.rewrite_overlap or self._word_limit is not None
        self._may_plan = self._may_plan or skeleton is not None
        self._asked = conversation
        if settings.planning in ("graph", "auto") and graph_allowed(settings.planning, plans):
            self._asked = allowing(conversation, graph=True)
        if router is not None and MAY_HOLD_ITEMS.search(conversation.question):  # of few questions
            self._asked = asking_items(self._asked, settings)
        self._plans, self._waiting, self._ending = plans, {}, False
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
            elif writing.length is not None and writing.length.full and not self._may_reason:
                self._cancel(call)
                self._close_point(writing, TOO_LONG)
        elif call.stage == "skeleton":
            self._when_routed(self._read_skeleton, call, text)
        elif call.stage == "direct":
            self._read_direct(call, text)
        elif call.stage == "merge":
            self._read_merge(call, text)
        elif call.stage in ("opening", "closing"):
            self._read_role(call, text)

    def _end(self, call: Call, rest: str, reply: Reply) -> None:
        if reply.finish_reason == CUT:
            what = f"point {call.point.index}" if call.point else call.stage
            name = f"max_{call.stage if call.stage in ('skeleton', 'point') else 'answer'}_chars"
            logger.warning("The model's reply (%s) was cut at %d characters; see %s.", what, call.max_chars, name)
        if reply.doubtful and self._can_repeat(call):
            self._fail(call, ConnectionError(BROKEN_OFF))
        elif call.stage == "route":
            self._take_route(reply.decision or RouteDecision(False, reason="the router gave no decision"))
        elif call.stage == "sources":
            self._take_sources(call.point, tuple(reply.sources), reply.context)
        elif call.stage == "skeleton":
            self._when_routed(self._end_skeleton, call, rest, reply)
        elif call.stage == "direct":
            self._end_direct(call, reply)
        elif call.stage == "merge":
            self._end_merge(call, reply)
        elif call.stage in ("opening", "closing"):
            self._take_role(call, reply)
        elif call.point is not None:
            self._end_point(self._points[call.point.index], rest, reply)

    # --- route ---

    def _route(self, router: AnyRouter) -> None:
        """Takes the decision of a router that needs no call, and opens a call for one that does."""
        at_once = getattr(router, "at_once", None)
        try:
            decision = None if at_once is None else at_once(self._asked)
        except Exception as error:
            decision = failure_decision(error)
        if decision is not None:
            self._take_route(decision)
            return
        self._open("route", router=BoundRouter(router, self._asked))
        # With retrieval, the skeleton waits for its sources; with "auto", for the kind that the router may ask for.
        if races(router) and self._retrieval != "once" and self.settings.planning != "auto":
            self._open_skeleton()
            self._racing = True

    def _take_route(self, decision: RouteDecision) -> None:
        self._draft.decision = decision
        self._draft.reason = decision.reason or "the router decided"
        self._actions.append(events.Routed(decision))
        racing, self._racing = self._racing, False
        if decision.planning is not None and self.settings.planning == "auto":
            self._take_advice(decision.planning)
        items = decision.items if decision.use_skeleton else None
        if items is not None or not decision.use_skeleton:
            for call in [call for call in self._ledger.calls.values() if call.stage == "skeleton"]:
                self._cancel(call)
            if items is None:
                self._answer_directly()
            else:
                self._answer_items(items)
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
            self._end_direct(call, Reply(finish_reason=REPEATED))

    def _end_direct(self, call: Call, reply: Reply) -> None:
        direct = self._draft.direct
        self._show_text(direct.close())
        if lacks_text(reply) and not "".join(direct.pieces).strip():
            if call.attempt <= self.settings.max_retries:
                direct.restart(self._draft.loop_guard())
                self._open("direct", self._prompts.direct(), attempt=call.attempt + 1)
            else:
                self._fail_answer(reply_error(reply))
            return
        self._draft.finish_reason = reply.finish_reason
        self._finish()

    # --- skeleton ---

    def _open_skeleton(self, attempt: int = 1) -> None:
        structured = self._structured and attempt == 1
        settings, planning = self.settings, self._planning
        prompt = self._prompts.skeleton(structured=structured, planning=planning)
        self._open("skeleton", prompt, attempt=attempt, structured=structured, planning=planning)
        size, depth = (settings.min_points, settings.max_points), (settings.max_depth, settings.max_parents)
        reading = SkeletonWriting(*size, prompt.prefill, planning, *depth)
        self._draft.planning = planning
        self._draft.reading = reading
        self._show_points(reading.feed(""))

    def _read_skeleton(self, call: Call, text: str) -> None:
        reading = self._draft.reading
        if (points := reading.feed(text)) or reading.restarted:
            self._show_points(points)
        if reading.complete:
            self._cancel(call)
            self._end_skeleton(call, "", Reply(finish_reason="length"))

    def _show_points(self, points: Collection[Point]) -> None:
        if self._draft.reading.restarted:
            self._void_skeleton()
        for point in points:
            self._actions.append(events.PointFound(point))
            if self.settings.eager and self._planning != "graph":
                self._open_point(point)
        if self.settings.eager:
            if self._planning == "graph" and points:
                self._open_found()
            self._actions += self._release.points(self._offset)

    def _end_skeleton(self, call: Call, rest: str, reply: Reply) -> None:
        reading, reason = self._draft.reading, ending(reply)
        most, titles, plan = self.settings.max_skeleton_chars, reply.titles, reply.plan
        if plan and most is not None:
            plan, reason = cut_plan(plan, most, reason)
        elif titles and most is not None and sum(map(len, titles)) > most:
            reason, titles = CUT, first_titles(titles, most)
        failed = reason in FAILED
        self._show_points(reading.feed(rest))
        # Half a title alone, which a limit may leave, is no skeleton of a reply that failed.
        if not failed or reading.points or len(plan or titles or ()) > 1:
            self._show_points(reading.close(truncated=failed or reason in ("length", CUT), titles=titles, plan=plan))
        given = call.prompt.prefill.strip() if call.prompt else ""
        if not reading.points and reply.titles is None and plan is None:
            failed = failed or without_reasoning(reading.written.text).strip() == given
        if failed and reason not in FINAL and not reading.points and call.attempt <= self.settings.max_retries:
            self._open_skeleton(call.attempt + 1)
        elif len(reading.points) >= self.settings.min_points:
            if self._planning == "graph" and reading.chain:
                self._give_up_plan()
                return
            self._draft.finish_reason = reason if failed else None
            self._complete_skeleton(reading.skeleton)
        elif self.settings.on_empty_skeleton == "raise":
            error = reading.error
            error.__cause__ = reply_error(reply) if failed else None
            self._fail_answer(error)
        else:
            # The model then answers, or does not, as it does without a skeleton.
            fault = f"there is no skeleton: {describe_failure(reply)[0]}" if failed else ""
            within = f" in its first {most} characters" if reason == CUT else ""
            self._draft.reason = fault or f"the skeleton had {len(reading.points)} usable point(s){within}"
            reading.points = []
            self._answer_directly()

    def _complete_skeleton(self, skeleton: Skeleton) -> None:
        self._draft.skeleton = skeleton
        # One point has nothing to be merged with, and needs no opening.
        self._release.held = (self.settings.merge or self.settings.opening is True) and len(skeleton) > 1
        self._actions.append(events.SkeletonDone(skeleton))
        done = self._points_done
        if self._retrieval == "per_point":
            # Eager points may have all their sources before the skeleton ends.
            self._end_sources_if_complete()
        if self.finished or self._points_done > done:
            return
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
        if writing.point.depends_on and self._waits(writing):
            return
        writing.attempt += 1
        skeleton = self._draft.skeleton
        if skeleton is None:  # a point that starts early shows the points up to its own
            skeleton = Skeleton(tuple(self._draft.reading.points[: writing.point.index]))
        if self._may_plan:
            prompt = self._planned_prompt(skeleton, writing)
        else:
            prompt = self._prompts.point(skeleton, writing.point, writing.context)
        self._actions.append(events.PointStarted(writing.point, writing.attempt))
        # Nothing has failed where a written point is written anew.
        details = {} if writing.earlier_text is None else {"delay": 0.0}
        self._open("point", prompt, point=writing.point, attempt=writing.attempt, **details)

    def _show(self, writing: PointWriting, text: str) -> None:
        if writing.voided:
            self._actions += void_point(self._draft, writing, self._offset)
        if text:
            writing.pieces.append(text)
            self._actions.append(events.PointDelta(writing.point, text))
            self._actions += self._release.points(self._offset)

    def _end_point(self, writing: PointWriting, rest: str, reply: Reply) -> None:
        text = (writing.feed(rest, self._offset) if rest else "") + writing.close()
        reason = REPEATED if writing.looping else ending(reply)
        if writing.length is not None and writing.length.full:
            reason = TOO_LONG
        if reason in FAILED or not (text or writing.pieces or writing.echoed):
            self._fail_point(writing, reply_error(reply, wrote=writing.begun), text)
        else:
            self._show(writing, text)
            self._close_point(writing, reason)

    def _close_point(
        self, writing: PointWriting, reason: str | None, error: Exception | None = None, *, compared: bool = False
    ) -> None:
        if self.settings.rewrite_overlap and not compared:
            self._compare(writing, reason, error)
            return
        writing.expansion = writing.result(self._offset, error, reason)
        self._points_done += 1
        self._actions.append(events.PointDone(writing.expansion))
        self._actions += self._release.points(self._offset)
        if self._waiting:
            self._write_waiting()
        self._finish_if_complete()

    # --- the end ---

    def _show_text(self, text: str) -> None:
        self._actions += self._release.text(text, self._offset)

    def _finish_if_complete(self) -> None:
        if self._draft.skeleton is None or self._points_done < len(self._draft.skeleton) or self._ending:
            return
        self._ending = True
        if (self.settings.opening or self.settings.closing) and len(self._draft.written()) > 1:
            self._open_roles()
        elif not self._release.held:
            self._finish()
        elif self.settings.merge and len(self._draft.written()) > 1:
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
        if self._plans is not None:
            self._plans.observe(answer)
        if (observe := getattr(self._router, "observe", None)) is not None:
            try:
                observe(answer)
            except Exception:
                logger.warning("The router could not learn from an answer.", exc_info=True)

    def last_event(self, event: events.Event) -> events.Event:
        """The last event, with the costs of calls that were cancelled before it and have ended since."""
        return self._draft.last_event(event)

    @property
    def answer(self) -> Answer:
        """The answer as far as it is: complete once `finished`, partial before."""
        return self._draft.answer(self._offset)
