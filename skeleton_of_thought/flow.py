"""Skeleton-of-Thought for one question, as a state machine: the algorithm, written once.

`AnswerFlow` does no I/O and knows no thread, loop or clock. It is told what happened (`start`, `delta`,
`done`, `failed`) and answers with what to do: calls to open, calls to cancel, and events for the caller.
The drivers in `skeleton_of_thought.drive` pump it; adapters supply the calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from skeleton_of_thought.errors import InvalidInput, MergeError, PointError, SkeletonError
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    AnswerRestarted,
    Event,
    MergeDone,
    MergeStarted,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    Routed,
    SkeletonDone,
    SourcesDone,
    SourcesFound,
)
from skeleton_of_thought.parsing.parser import SkeletonParser, skeleton_of_titles
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import (
    BoundRouter,
    Router,
    check_router,
    decide_at_once,
    failure_decision,
    races,
    report_answer,
)
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import (
    POINT_BREAK,
    ExpansionText,
    PrefillEcho,
    WholeText,
    heading,
    render,
    separator,
)
from skeleton_of_thought.text.echoes import PromptEcho
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import (
    Answer,
    Call,
    Cancel,
    Conversation,
    Decoding,
    Expansion,
    Point,
    PointTimes,
    Prompt,
    Reply,
    Retrieval,
    RouteDecision,
    Skeleton,
    Span,
    Stage,
    Timings,
    Usage,
)

__all__ = ["REPEATED", "Action", "AnswerFlow", "Settings"]

Action = Call | Cancel | Event

_LOOP = 3
"""So many repeated titles in a row mean that the model loops: the rest of its skeleton is not waited for."""

REPEATED = "loop"
"""The reason to end of a text that was ended because it repeated itself."""

_CUT = frozenset({"length", "content_filter"})
"""Reasons to end that leave a text without its end."""


@dataclass
class _Writing:
    """A point on its way: its sources, the text of its present attempt, and what became of it."""

    point: Point
    cleaner: ExpansionText
    attempt: int = 0
    pieces: list[str] = field(default_factory=list)
    released: int = 0
    loops: LoopGuard | None = None
    usage: Usage = field(default_factory=Usage)
    sources: tuple[Any, ...] = ()
    context: str = ""
    start: float | None = None
    first: float | None = None
    sought: Span | None = None
    shown: float | None = None
    expansion: Expansion | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def times(self, now: float) -> PointTimes:
        """When what happened; what is under way has run until `now`."""
        done = self.expansion
        return PointTimes(
            index=self.point.index,
            title=self.point.title,
            written=None if self.start is None else done.span if done else Span(self.start, now, self.first),
            retrieved=self.sought,
            released=self.shown,
            attempts=self.attempt,
            failed=done is not None and done.error is not None,
        )


class AnswerFlow:
    """The life of one answer.

    `start`, `delta`, `done` and `failed` return the actions that follow, in order. Calls that were
    cancelled or have ended may still be reported; that is ignored. `now` is the driver's clock in
    seconds; the flow only subtracts.

    Args:
        conversation: The caller's messages; the last one is the question.
        prompts: What the model is asked.
        settings: How the answer is made.
        router: A `Router`, a function of the question, or None for a skeleton always.
        skeleton: Points to be expanded, if they are known: there is no route and no skeleton call then.
        prefill: The stages (`"skeleton"`, `"point"`) whose backend continues the start of an assistant's turn.
        live: Whether text is released while it is written. If not, the answer's text comes as one
            `AnswerDelta` at the end, and a point may be retried whatever it had written.
        structured: Whether the backend gives the skeleton as data (`Reply.titles`). A call that fails is tried
            again as text: its server may not take the schema.
        retrieval: What is retrieved, by calls of stage `sources`. `"once"`: for the question, before all that is
            written; every prompt shows the context (but the merge's, which changes no content). `"per_point"`: for
            each point, before it is written; its prompt alone shows the context. An answer that turns out direct
            has one retrieval for the question, unless that was made already.

    Raises:
        InvalidInput: The router, the given skeleton or `retrieval` cannot be used.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        prompts: PromptSet | None = None,
        settings: Settings | None = None,
        router: Router | Callable[[str], Any] | None = None,
        skeleton: Skeleton | None = None,
        prefill: Collection[Stage] = (),
        live: bool = True,
        structured: bool = False,
        retrieval: Retrieval = "none",
    ) -> None:
        check_router(router)
        if retrieval not in get_args(Retrieval):
            raise InvalidInput(f"retrieval must be {' or '.join(map(repr, get_args(Retrieval)))}, not {retrieval!r}.")
        if skeleton is not None and len({point.index for point in skeleton.points}) != max(len(skeleton), 1):
            raise InvalidInput(
                "The given skeleton needs at least one point, each with an index of its own; it has the indices "
                f"{[point.index for point in skeleton.points]}."
            )
        self.conversation = conversation
        self.prompts = prompts or PromptSet()
        self.settings = settings or Settings()
        self.finished = False
        self._router = router
        self._racing = False
        self._raced: list[Callable[[], None]] = []
        self._given = skeleton
        self._prefill = frozenset(prefill)
        self._live = live
        self._structured = structured
        self._retrieval: Retrieval = retrieval
        self._sources: tuple[Any, ...] | None = None
        self._context = ""
        self._sourced = 0
        self._calls: dict[int, Call] = {}
        self._echoes: dict[int, PrefillEcho] = {}
        self._next_call = 1
        self._actions: list[Action] = []
        self._parser = SkeletonParser()
        self._points: list[Point] = []
        self._announced = self._repeats = 0
        self._titles: set[str] = set()
        self._skeleton: Skeleton | None = None
        self._writing: dict[int, _Writing] = {}
        self._done = 0
        self._head = 0
        self._direct: list[str] = []
        self._headed = False
        self._loops = self._loop_guard()
        self._cleaner = WholeText()
        self._echo: PromptEcho | None = None
        self._merge: list[str] = []
        self._merged = False
        self._merge_error: Exception | None = None
        self._route: Literal["skeleton", "direct"] = "skeleton"
        self._decision: RouteDecision | None = None
        self._reason = "given skeleton" if skeleton else "no router" if router is None else "not decided yet"
        self._direct_finish: str | None = None
        self._usage: dict[str, Usage] = {}
        self._decoding: dict[Stage, Decoding] = {}
        self._spans: dict[str, Span] = {}
        self._began: float = 0.0
        self._now: float = 0.0
        self._first_text: float | None = None

    # --- what the driver tells ---

    def start(self, now: float = 0.0) -> list[Action]:
        """Begins the answer; returns the first calls."""
        self._began = self._now = now
        if self._given is not None or self._router is None:
            self._answer_by_points()
        elif (decision := decide_at_once(self._router, self.conversation)) is not None:
            self._routed(decision)
        else:
            self._open("route", None, router=BoundRouter(self._router, self.conversation))
            # A skeleton that is to be written from sources cannot begin before them.
            if races(self._router) and self._retrieval != "once":
                self._open_skeleton()
                self._racing = True
        return self._take()

    def opened(self, call_id: int, now: float = 0.0) -> None:
        """The driver has opened this call (it may have waited for room until now)."""
        self._now = now
        call = self._calls.get(call_id)
        if call is None:
            return
        self._spans.setdefault(call.stage, Span(self._offset, self._offset))
        if call.stage == "point" and call.point is not None:
            writing = self._writing[call.point.index]
            writing.start, writing.first = self._offset, None
        elif call.stage == "sources" and call.point is not None:
            writing = self._writing[call.point.index]
            writing.sought = writing.sought or Span(self._offset, self._offset)

    def delta(self, call_id: int, text: str, now: float = 0.0) -> list[Action]:
        """More text of a call."""
        self._now = now
        call = self._calls.get(call_id)
        # What is retrieved comes with the reply, and is no text of the answer.
        if call is None or not text or call.stage == "sources":
            return []
        span = self._spans.get(call.stage)
        if span is not None and span.first is None:
            self._spans[call.stage] = dataclasses.replace(span, first=self._offset)
        if (echo := self._echoes.get(call_id)) is not None:
            text = echo.feed(text)
        if call.stage == "skeleton":
            self._skeleton_event(lambda: self._read_skeleton(call, text))
        elif call.stage == "direct":
            self._read_direct(call, text)
        elif call.stage == "merge":
            self._read_merge(call, text)
        elif call.point is not None:
            self._read_point(call, self._writing[call.point.index], text)
        return self._take()

    def done(self, call_id: int, reply: Reply | None = None, now: float = 0.0) -> list[Action]:
        """A call has ended as it should."""
        self._now = now
        call = self._calls.pop(call_id, None)
        if call is None:
            return []
        reply = reply or Reply()
        self._account(call, reply.usage, reply.decoding)
        held = echo.close() if (echo := self._echoes.pop(call_id, None)) else ""
        if call.stage == "route":
            self._routed(reply.decision or RouteDecision(False, reason="the router gave no decision"))
        elif call.stage == "sources":
            self._found(call.point, tuple(reply.sources), reply.context)
        elif call.stage == "skeleton":
            self._skeleton_event(lambda: self._skeleton_written(held, reply))
        elif call.stage == "direct":
            self._release(_rest(self._loops))
            self._direct_finish = reply.finish_reason
            self._finish()
        elif call.stage == "merge":
            self._end_merge(reply.finish_reason)
        elif call.point is not None:
            self._write(self._writing[call.point.index], held)
            self._end_point(self._writing[call.point.index], reply.finish_reason)
        return self._take()

    def cancelled(
        self, call: Call, usage: Usage | None = None, now: float = 0.0, decoding: Decoding | None = None
    ) -> None:
        """A call that was cancelled has ended; `usage` and `decoding` are what it had cost, if the backend knows."""
        self._count(call, usage, decoding)

    def settled(self, event: Event) -> Event:
        """The last event, with what calls had cost that were cancelled before it and have ended since."""
        if isinstance(event, AnswerDone):
            return AnswerDone(self._settled(event.answer))
        if isinstance(event, AnswerFailed) and isinstance(event.error, PointError):
            event.error.answer = self._settled(event.error.answer)
        return event

    def _settled(self, answer: Answer) -> Answer:
        return dataclasses.replace(
            answer,
            expansions=tuple(
                dataclasses.replace(expansion, usage=self._writing[expansion.point.index].usage)
                for expansion in answer.expansions
            ),
            timings=dataclasses.replace(answer.timings, decoding=dict(self._decoding)),
            usage=sum(self._usage.values(), Usage()),
            usage_by_stage=dict(self._usage),
        )

    def failed(
        self,
        call_id: int,
        error: Exception,
        now: float = 0.0,
        usage: Usage | None = None,
        decoding: Decoding | None = None,
    ) -> list[Action]:
        """A call has failed; `usage` and `decoding` are what it had cost, if the backend knows."""
        self._now = now
        call = self._calls.pop(call_id, None)
        if call is None:
            return []
        self._echoes.pop(call_id, None)
        self._account(call, usage, decoding)
        if call.stage == "route":
            self._routed(failure_decision(error))
        elif call.stage == "sources":
            self._fail_sources(call, error)
        elif call.stage == "skeleton":
            self._skeleton_event(lambda: self._fail_skeleton(call, error))
        elif call.stage == "merge":
            self._fail_merge(error, call.attempt)
        elif call.point is not None:
            self._fail_point(self._writing[call.point.index], error)
        else:
            self._release(_rest(self._loops))
            self._fail(error)
        return self._take()

    # --- route ---

    def _routed(self, decision: RouteDecision) -> None:
        self._decision = decision
        self._reason = decision.reason or "the router decided"
        self._emit(Routed(decision))
        raced, self._racing = self._racing, False
        if not decision.use_skeleton:
            for call in [call for call in self._calls.values() if call.stage == "skeleton"]:
                self._cancel(call)
            self._answer_directly()
        elif raced:
            for event in self._raced:
                # Its end may be reached before all of it was read: a skeleton is cut where it has enough points.
                if self._skeleton is None and not self.finished:
                    event()
        else:
            self._answer_by_points()
        self._raced = []

    def _answer_by_points(self) -> None:
        if self._retrieval == "once" and self._sources is None:
            self._open_sources()
        elif self._given is not None:
            self._points = list(self._given.points)
            self._complete_skeleton(self._given)
        else:
            self._open_skeleton()

    def _answer_directly(self) -> None:
        self._route = "direct"
        if self._retrieval != "none" and self._sources is None:
            self._open_sources()
        else:
            self._open("direct", self.prompts.direct_prompt(self.conversation, context=self._context))

    def _read_direct(self, call: Call, text: str) -> None:
        self._release(_without_loop(self._loops, text))
        if _loops(self._loops):
            self._cancel(call)
            self._direct_finish = REPEATED
            self._finish()

    def _loop_guard(self) -> LoopGuard | None:
        return LoopGuard(self.conversation.question) if self.settings.stop_loops else None

    # --- sources ---

    def _open_sources(self, point: Point | None = None, attempt: int = 1) -> None:
        self._open(
            "sources",
            None,
            point=point,
            attempt=attempt,
            delay=self._backoff(attempt - 1) if attempt > 1 else 0.0,
            timeout=None if point is None else self.settings.point_timeout,
        )

    def _found(self, point: Point | None, sources: tuple[Any, ...], context: str) -> None:
        self._emit(SourcesFound(point, sources))
        if point is not None:
            writing = self._writing[point.index]
            writing.sources, writing.context = sources, context
            self._count_sources()
            self._write_point(writing)
            return
        self._sources, self._context = sources, context
        # One retrieval is all that "once" makes, and all that a direct answer has.
        self._emit(SourcesDone())
        if self._route == "direct":
            self._answer_directly()
        else:
            self._answer_by_points()

    def _fail_sources(self, call: Call, error: Exception) -> None:
        if call.attempt <= self.settings.max_retries:
            self._open_sources(call.point, call.attempt + 1)
        elif call.point is None:
            self._fail(error)
        else:
            if self.settings.on_point_error == "placeholder":
                self._count_sources()
            self._give_up_point(self._writing[call.point.index], error, call)

    def _count_sources(self) -> None:
        """The retrieval for one more point has ended."""
        self._sourced += 1
        self._end_sources_if_complete()

    def _end_sources_if_complete(self) -> None:
        """Tells that no more sources will come: the last of the points' and the skeleton's end is when."""
        if self._retrieval == "per_point" and self._skeleton is not None and self._sourced == len(self._skeleton):
            self._emit(SourcesDone())

    # --- skeleton ---

    def _open_skeleton(self, attempt: int = 1, delay: float = 0.0) -> None:
        structured = self._structured and attempt == 1
        prompt = self.prompts.skeleton_prompt(
            self.conversation,
            max_points=self.settings.max_points,
            words=self.settings.point_words,
            prefill="skeleton" in self._prefill,
            structured=structured,
            context=self._context,
        )
        self._open("skeleton", prompt, attempt=attempt, delay=delay, structured=structured)
        if prompt.prefill:
            self._accept(self._parser.feed(prompt.prefill))

    def _skeleton_event(self, event: Callable[[], None]) -> None:
        """Lets it happen; while the router is still deciding, once that has decided for the skeleton."""
        if self._racing:
            self._raced.append(event)
        else:
            event()

    def _read_skeleton(self, call: Call, text: str) -> None:
        self._accept(self._parser.feed(text))
        self._cut_skeleton(call)

    def _skeleton_written(self, held: str, reply: Reply) -> None:
        self._accept(self._parser.feed(held))
        self._end_skeleton(truncated=reply.finish_reason == "length", titles=reply.titles)

    def _fail_skeleton(self, call: Call, error: Exception) -> None:
        if call.attempt <= self.settings.max_retries and not self._points:
            self._parser = SkeletonParser()
            self._open_skeleton(call.attempt + 1, self._backoff(call.attempt))
        else:
            self._fail(error)

    def _accept(self, points: Collection[Point]) -> None:
        """Takes over points of the parser: numbered anew, repeats left out, no more than wanted."""
        for point in points:
            title = point.title.casefold()
            if title in self._titles:
                # Small models repeat themselves; the same title twice would be the same text twice.
                self._repeats += 1
                continue
            self._repeats = 0
            if len(self._points) < self.settings.max_points:
                self._titles.add(title)
                self._points.append(dataclasses.replace(point, index=len(self._points) + 1))
        if len(self._points) >= self.settings.min_points:
            self._announce()

    def _announce(self) -> None:
        # Before there are enough points nothing may show: the answer may still become a direct one.
        for point in self._points[self._announced :]:
            self._emit(PointFound(point))
            if self.settings.eager:
                self._open_point(point)
        self._announced = len(self._points)
        if self.settings.eager:
            self._release_ready()

    def _cut_skeleton(self, call: Call) -> None:
        if len(self._points) >= self.settings.max_points or self._repeats >= _LOOP:
            self._cancel(call)
            self._end_skeleton(truncated=True)

    def _end_skeleton(self, *, truncated: bool, titles: Collection[str] | None = None) -> None:
        if titles is not None:
            # As in a text: of a list that was cut off, the last title may be half a title.
            parsed = skeleton_of_titles(list(titles)[:-1] if truncated and len(titles) > 1 else titles)
            self._accept(parsed.points)
        else:
            seen = len(self._parser.points)
            parsed = self._parser.close(truncated=truncated)
            self._accept(parsed.points[seen:])
        if len(self._points) >= self.settings.min_points:
            self._complete_skeleton(Skeleton(tuple(self._points), parsed.text))
        elif self.settings.on_empty_skeleton == "raise":
            self._fail(
                SkeletonError(
                    f"The model's skeleton has {len(self._points)} usable point(s), fewer than min_points="
                    f"{self.settings.min_points}: {parsed.text[:80]!r}. Try another model or skeleton prompt, or "
                    'let on_empty_skeleton="direct" answer such questions directly.',
                    parsed,
                )
            )
        else:
            self._reason = f"the skeleton had {len(self._points)} usable point(s)"
            self._points = []
            self._answer_directly()

    def _complete_skeleton(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._emit(SkeletonDone(skeleton))
        # Of eager points all sources may have been found before the skeleton's end.
        self._end_sources_if_complete()
        for point in skeleton.points:
            if point.index not in self._writing:
                self._open_point(point)
        self._release_ready()
        # Eager points may all have ended before the skeleton did.
        self._finish_if_complete()

    # --- points ---

    def _open_point(self, point: Point) -> None:
        writing = self._writing[point.index] = _Writing(point, ExpansionText(point), loops=self._loop_guard())
        if self._retrieval == "per_point":
            self._open_sources(point)
        else:
            self._write_point(writing)

    def _write_point(self, writing: _Writing) -> None:
        point = writing.point
        writing.attempt += 1
        prompt = self.prompts.point_prompt(
            self.conversation,
            self._skeleton or Skeleton(tuple(self._points[: point.index])),
            point,
            max_points=self.settings.max_points,
            words=self.settings.point_words,
            prefill="point" in self._prefill,
            context=writing.context or self._context,
            own_context=self._retrieval == "per_point",
        )
        self._emit(PointStarted(point, writing.attempt))
        self._open(
            "point",
            prompt,
            point=point,
            attempt=writing.attempt,
            delay=self._backoff(writing.attempt - 1) if writing.attempt > 1 else 0.0,
            timeout=self.settings.point_timeout,
        )

    def _backoff(self, failures: int) -> float:
        return self.settings.backoff * 2.0 ** (failures - 1)

    def _read_point(self, call: Call, writing: _Writing, text: str) -> None:
        self._write(writing, text)
        if _loops(writing.loops):
            self._cancel(call)
            self._close_point(writing, finish_reason=REPEATED)

    def _write(self, writing: _Writing, text: str) -> None:
        if text and writing.first is None:
            writing.first = self._offset
        self._show(writing, _without_loop(writing.loops, writing.cleaner.feed(text)))

    def _show(self, writing: _Writing, text: str) -> None:
        if text:
            writing.pieces.append(text)
            self._emit(PointDelta(writing.point, text))
            self._release_ready()

    def _end_point(self, writing: _Writing, finish_reason: str | None) -> None:
        self._show_rest(writing)
        self._close_point(writing, finish_reason=REPEATED if _loops(writing.loops) else finish_reason)

    def _show_rest(self, writing: _Writing) -> None:
        """What cleaner and guard still hold of a text that has ended."""
        self._show(writing, _without_loop(writing.loops, writing.cleaner.close()) + _rest(writing.loops))

    def _close_point(
        self, writing: _Writing, *, error: Exception | None = None, finish_reason: str | None = None
    ) -> None:
        writing.expansion = self._expansion(writing, error, finish_reason)
        self._done += 1
        self._emit(PointDone(writing.expansion))
        self._release_ready()
        self._finish_if_complete()

    def _fail_point(self, writing: _Writing, error: Exception) -> None:
        if writing.attempt <= self.settings.max_retries and not writing.released:
            writing.cleaner, writing.loops = ExpansionText(writing.point), self._loop_guard()
            writing.pieces = []
            self._emit(PointRestarted(writing.point, error))
            self._write_point(writing)
            return
        self._give_up_point(writing, error)

    def _give_up_point(self, writing: _Writing, error: Exception, retrieval: Call | None = None) -> None:
        """A point has failed for good: itself, or the `retrieval` for it."""
        # What was written is kept: with its text already shown in order there is no other way, and
        # a reader of the stream and a caller of the whole answer shall get the same.
        self._show_rest(writing)
        if self.settings.on_point_error == "placeholder":
            gap = " " if writing.pieces else ""
            self._show(writing, gap + self.settings.placeholder if self.settings.placeholder else "")
            self._close_point(writing, error=error)
            return
        writing.expansion = self._expansion(writing, error, None)
        what, attempts = ("Point", writing.attempt)
        if retrieval is not None:
            what, attempts = ("The retrieval for point", retrieval.attempt)
        failure = PointError(
            f"{what} {writing.point.index} ({writing.point.title[:60]!r}) failed after {attempts} attempt(s): "
            f"{type(error).__name__}: {error}. The error's `answer` holds the rest; "
            'on_point_error="placeholder" keeps it as the result.',
            writing.point,
            self.answer,
        )
        failure.__cause__ = error
        self._fail(failure)

    def _expansion(self, writing: _Writing, error: Exception | None, finish_reason: str | None) -> Expansion:
        start = writing.start if writing.start is not None else self._offset
        return Expansion(
            point=writing.point,
            text=writing.text,
            error=error,
            usage=writing.usage,
            sources=writing.sources,
            attempts=writing.attempt,
            finish_reason=finish_reason,
            span=Span(start, self._offset, writing.first),
        )

    # --- the answer's text, in document order ---

    def _release_ready(self) -> None:
        """Releases what can be: all of the points that are done, and the first open one as far as it is."""
        if not self._live or self._may_merge:
            return
        while self._head < len(self._points):
            writing = self._writing.get(self._points[self._head].index)
            if writing is None:
                return
            fresh = writing.pieces[writing.released :]
            text = self._heading(writing.point, begun=bool(fresh))
            if fresh and not writing.released:
                text += separator(writing.point, self.settings.join)
                writing.shown = self._offset
            self._release(text + "".join(fresh))
            writing.released = len(writing.pieces)
            if writing.expansion is None:
                return
            self._head += 1
            self._headed = False

    def _heading(self, point: Point, *, begun: bool) -> str:
        """What stands before the text of the first open point, unless it was released already."""
        head = heading(point, self.settings.join)
        # A paragraph has no heading, so nothing of it shows before its text: it may stay without any.
        if self._headed or not (head or begun):
            return ""
        self._headed = True
        # The first text of an answer has nothing to be set off from, whichever point it belongs to.
        return (POINT_BREAK if self._first_text is not None else "") + head

    def _release(self, text: str) -> None:
        if not text:
            return
        if self._route == "direct":
            self._direct.append(text)
        if self._live:
            if self._first_text is None:
                self._first_text = self._offset
            self._emit(AnswerDelta(text))

    # --- merge ---

    @property
    def _may_merge(self) -> bool:
        """Whether the answer may become the text of a merge, so that the points' own must not show."""
        return self.settings.merge and (self._skeleton is None or len(self._skeleton) > 1)

    @property
    def _good(self) -> list[Expansion]:
        """The points that a merge is made of: those that have a text and did not fail."""
        written = (w.expansion for w in self._ordered() if w.expansion is not None)
        return [expansion for expansion in written if expansion.error is None and expansion.text]

    def _open_merge(self, attempt: int = 1, delay: float = 0.0) -> None:
        assert self._skeleton is not None
        draft = render(self._good, self.settings.join)
        self._cleaner, self._loops, self._merge = WholeText(), self._loop_guard(), []
        self._emit(MergeStarted(attempt))
        try:
            prompt = self.prompts.merge_prompt(
                self.conversation,
                self._skeleton,
                draft,
                max_points=self.settings.max_points,
                words=self.settings.point_words,
            )
        except Exception as error:  # of a template of the caller's: with all points written, no reason to lose them
            self._give_up_merge(error)
            return
        said = (message.text for message in self.conversation.messages)
        material = [*said, draft, str(self._skeleton), "; ".join(self._skeleton.titles)]
        self._echo = PromptEcho(prompt, material, quotable=self.prompts.merge != PromptSet.merge)
        self._open("merge", prompt, attempt=attempt, delay=delay)

    def _read_merge(self, call: Call, text: str) -> None:
        assert self._echo is not None
        self._write_merge(_without_loop(self._loops, self._echo.feed(self._cleaner.feed(text))))
        if (why := self._misled) is not None:
            self._cancel(call)
            self._give_up_merge(why)

    @property
    def _misled(self) -> MergeError | None:
        """Why the text of the merge is none, as far as it can be told while it is written."""
        if self._echo is not None and self._echo.found:
            return MergeError("The model repeated its instruction. Try a larger model, or a merge prompt of your own.")
        if _loops(self._loops):
            return MergeError("The model repeated the same passage again and again. Try a larger model.")
        return None

    def _write_merge(self, text: str) -> None:
        if text:
            self._merge.append(text)
            self._release(text)

    def _end_merge(self, finish_reason: str | None) -> None:
        assert self._echo is not None
        text = self._echo.feed(self._cleaner.close()) + self._echo.close()
        self._write_merge(_without_loop(self._loops, text) + _rest(self._loops))
        if (misled := self._misled) is not None:
            self._give_up_merge(misled)
        elif finish_reason in _CUT:
            why = f"The model ended its text before it was complete (finish reason {finish_reason!r})."
            self._give_up_merge(MergeError(f"{why} Allow it more tokens, or fewer or shorter points."))
        elif not self._merge:
            self._give_up_merge(MergeError("The model gave no text."))
        else:
            self._merged = True
            self._emit(MergeDone("".join(self._merge)))
            if failed := render((e for e in self.answer.expansions if e.error is not None), self.settings.join):
                self._release(POINT_BREAK + failed)
            self._finish()

    def _fail_merge(self, error: Exception, attempt: int) -> None:
        if attempt <= self.settings.max_retries and not (self._live and self._merge):
            self._open_merge(attempt + 1, self._backoff(attempt))
        else:
            self._give_up_merge(error)

    def _give_up_merge(self, error: Exception) -> None:
        """The answer is the points as they are: a merge may cost its call, never the answer."""
        self._merge_error = error
        self._emit(MergeDone("", error))
        if self._live and self._merge:
            self._emit(AnswerRestarted(error))
        self._release(self.answer.text)
        self._finish()

    # --- the end ---

    def _finish_if_complete(self) -> None:
        if self._skeleton is None or self._done < len(self._skeleton):
            return
        if self._may_merge:
            if len(self._good) > 1:
                self._open_merge()
                return
            self._release(self.answer.text)
        self._finish()

    def _finish(self) -> None:
        if not self._live and (text := self.answer.text):
            self._first_text = self._offset
            self._emit(AnswerDelta(text))
        answer = self.answer
        self._emit(AnswerDone(answer))
        self.finished = True
        if self._router is not None:
            report_answer(self._router, answer)

    def _fail(self, error: Exception) -> None:
        for call in list(self._calls.values()):
            self._cancel(call)
        self._emit(AnswerFailed(error))
        self.finished = True

    @property
    def answer(self) -> Answer:
        """The answer as far as it is: complete once `finished`, partial before."""
        expansions = tuple(w.expansion or self._expansion(w, None, None) for w in self._ordered())
        return Answer(
            text=self._text(expansions),
            question=self.conversation.question,
            route=self._route,
            skeleton=self._skeleton or Skeleton(tuple(self._points)),
            expansions=expansions,
            usage=sum(self._usage.values(), Usage()),
            timings=self._timings,
            decision=self._decision,
            reason=self._reason,
            usage_by_stage=dict(self._usage),
            finish_reason=self._direct_finish,
            merged=self._merged,
            merge_error=self._merge_error,
            sources=self._sources or (),
        )

    @property
    def _timings(self) -> Timings:
        points = tuple(writing.times(self._offset) for writing in self._ordered())
        return Timings(self._offset, self._first_text, dict(self._spans), dict(self._decoding), points)

    def _ordered(self) -> Iterator[_Writing]:
        return (self._writing[point.index] for point in self._points if point.index in self._writing)

    def _text(self, expansions: Collection[Expansion]) -> str:
        join = self.settings.join
        if self._route == "direct":
            return "".join(self._direct)
        if not self._merged:
            return render(expansions, join)
        failed = render((e for e in expansions if e.error is not None), join)
        return POINT_BREAK.join(filter(None, ("".join(self._merge), failed)))

    # --- small things ---

    @property
    def _offset(self) -> float:
        return self._now - self._began

    def _open(self, stage: Stage, prompt: Prompt | None, **details: Any) -> None:
        call = Call(self._next_call, stage, prompt, **details)
        self._next_call += 1
        self._calls[call.id] = call
        if prompt is not None and prompt.prefill:
            self._echoes[call.id] = PrefillEcho(prompt.prefill)
        self._actions.append(call)

    def _cancel(self, call: Call) -> None:
        self._calls.pop(call.id, None)
        self._echoes.pop(call.id, None)
        self._mark_end(call)
        self._actions.append(Cancel(call.id))

    def _emit(self, event: Event) -> None:
        self._actions.append(event)

    def _account(self, call: Call, usage: Usage | None, decoding: Decoding | None) -> None:
        self._mark_end(call)
        self._count(call, usage, decoding)

    def _count(self, call: Call, usage: Usage | None, decoding: Decoding | None) -> None:
        stage = call.stage
        if usage is not None:
            self._usage[stage] = self._usage.get(stage, Usage()) + usage
        if usage is not None and call.point is not None:
            writing = self._writing[call.point.index]
            writing.usage += usage
            if writing.expansion is not None:
                writing.expansion = dataclasses.replace(writing.expansion, usage=writing.usage)
        if decoding is not None:
            self._decoding[stage] = self._decoding.get(stage, Decoding()) + decoding

    def _mark_end(self, call: Call) -> None:
        span = self._spans.get(call.stage)
        if span is not None:
            self._spans[call.stage] = dataclasses.replace(span, end=self._offset)
        if call.stage == "sources" and call.point is not None:
            writing = self._writing[call.point.index]
            if writing.sought is not None:
                writing.sought = dataclasses.replace(writing.sought, end=self._offset)

    def _take(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions


def _without_loop(guard: LoopGuard | None, text: str) -> str:
    return text if guard is None else guard.feed(text)


def _rest(guard: LoopGuard | None) -> str:
    return "" if guard is None else guard.close()


def _loops(guard: LoopGuard | None) -> bool:
    return guard is not None and guard.looping
