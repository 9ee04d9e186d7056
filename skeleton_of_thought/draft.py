"""The draft of an answer: its texts under way, their release to the reader, and the answer as far as it is."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.errors import PointError
from skeleton_of_thought.events import AnswerDelta, AnswerDone, AnswerFailed, Event
from skeleton_of_thought.ledger import Ledger
from skeleton_of_thought.parsing.parser import SkeletonWriting
from skeleton_of_thought.restarts import void_text
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.assembly import (
    MAY_BEGIN_BLOCK,
    POINT_BREAK,
    DirectWriting,
    ExpansionText,
    ItemText,
    Join,
    heading,
    render,
    separator,
)
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import (
    Answer,
    Expansion,
    Item,
    Planning,
    Point,
    PointTimes,
    Role,
    RouteDecision,
    Skeleton,
    Span,
    Stage,
    Timings,
    Usage,
)

if TYPE_CHECKING:
    from skeleton_of_thought.merging import MergeWriting
    from skeleton_of_thought.text.length import LengthGuard

__all__ = ["NO_SOURCES", "REPEATED", "Draft", "PointWriting", "Release"]

REPEATED = "loop"
"""The finish reason of a text that was ended because it repeated itself."""

NO_SOURCES = "no_sources"
"""The finish reason of a text that stands in place of one whose sources were not found."""

_WORST: dict[str | None, int] = {"error": 0, "content_filter": 1, "refusal": 2, "length": 3, CUT: 4, REPEATED: 5}
"""The finish reasons of points that an answer takes over as its own, the worst first."""


class PointWriting:
    """A point under way: its sources, the text of its present attempt, its times, and in the end its expansion.

    Times are seconds since the answer began.

    Args:
        point: The point.
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        attempt: The number of calls that were made to write it.
        pieces: The cleaned text of the present attempt.
        loops: As given, for the present attempt.
        released, shown: The number of pieces that the reader has, and when the first one was shown.
        voided: Whether text that was shown turned out to be reasoning, and is still to be taken back.
        expansion: The result; None while the point is under way.
        missing: The points that it builds on and that have no text for it.
        length: Ends a text that is too long; None for any length. Set for each attempt.
        ended: Why its text ended, and its error, while it waits to be compared with others; else None.
        passage, rewritten: What it shares with another point, and whether it is written anew for that.
        repeated: The other point, and the share of its trigrams that stand there.
        earlier_text: Its pieces and the reason of their end, while it is written anew; else None.
    """

    def __init__(self, point: Point, loops: LoopGuard | None) -> None:
        self.point = point
        self.attempt = 0
        self.sources: tuple[Any, ...] = ()
        self.context = ""
        self.usage = Usage()
        self.released = 0
        self.shown: float | None = None
        self.expansion: Expansion | None = None
        self._start: float | None = None
        self._first: float | None = None
        self._retrieved: Span | None = None
        self.missing: tuple[int, ...] = ()
        self.ended: tuple[str | None, Exception | None] | None = None
        self.passage = ""
        self.rewritten = False
        self.repeated: tuple[PointWriting, float] | None = None
        self.earlier_text: tuple[list[str], str | None] | None = None
        self.restart(loops)

    def restart(self, loops: LoopGuard | None) -> None:
        """Drops the text of the present attempt."""
        self.pieces: list[str] = []
        self.voided = False
        self._cleaner = ExpansionText(self.point) if not isinstance(self.point, Item) else ItemText(self.point)
        self.loops = loops
        self.length: LengthGuard | None = None

    def feed(self, text: str, offset: float) -> str:
        """Takes more text of the model; returns the text that belongs to the point and is no loop."""
        if self._first is None and text:
            self._first = offset
        text = self._cleaner.feed(text)
        if self._cleaner.restarted:
            self._void()
        text = text if self.loops is None else self.loops.feed(text)
        return text if self.length is None else self.length.feed(text)

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        text = self._cleaner.close()
        if self._cleaner.restarted:
            self._void()
        text = text if self.loops is None else self.loops.feed(text) + self.loops.close()
        return text if self.length is None else self.length.feed(text) + self.length.close()

    def _void(self) -> None:
        void_text(self)
        self.length = None if self.length is None else self.length.fresh()

    def lacks_sources(self, nothing_found: str | None) -> bool:
        """Whether the point, not yet ended, is not written because nothing was retrieved for it."""
        ended = self.expansion is not None or self.ended is not None
        return nothing_found is not None and not self.sources and not self.attempt and not ended

    @property
    def begun(self) -> bool:
        """Whether the model has sent any text in the present attempt, whatever is left of it."""
        return self._first is not None

    @property
    def echoed(self) -> bool:
        """Whether the text began with the point's number or title, which were dropped."""
        return self._cleaner.echoed

    @property
    def looping(self) -> bool:
        """Whether the text repeats itself and is to be ended."""
        return self.loops is not None and self.loops.looping

    def start(self, stage: Stage, offset: float) -> None:
        """A call that writes the point or retrieves for it is open from now on."""
        if stage == "point":
            self._start, self._first = offset, None
        elif self._retrieved is None:
            self._retrieved = Span(offset, offset)

    def end_retrieval(self, offset: float) -> None:
        """A call that retrieves for the point has ended."""
        if self._retrieved is not None:
            self._retrieved = dataclasses.replace(self._retrieved, end=offset)

    def count(self, usage: Usage) -> None:
        """Adds the tokens of one of its calls, which may come after the point is done."""
        self.usage += usage
        if self.expansion is not None:
            self.expansion = dataclasses.replace(self.expansion, usage=self.usage)

    def result(self, offset: float, error: Exception | None = None, finish_reason: str | None = None) -> Expansion:
        """The expansion, as far as it is written."""
        return Expansion(
            point=self.point,
            text="".join(self.pieces),
            error=error,
            usage=self.usage,
            sources=self.sources,
            attempts=self.attempt,
            finish_reason=finish_reason,
            span=Span(offset if self._start is None else self._start, offset, self._first),
            missing=self.missing,
            rewritten=self.rewritten,
        )

    def times(self, offset: float) -> PointTimes:
        """When it was retrieved for, written and released; a call that is open has run until `offset`."""
        done = self.expansion
        written = None if self._start is None else done.span if done else Span(self._start, offset, self._first)
        return PointTimes(
            index=self.point.index,
            title=self.point.title,
            written=written,
            retrieved=self._retrieved,
            released=self.shown,
            attempts=self.attempt,
            failed=done is not None and done.error is not None,
            depends_on=self.point.depends_on,
        )


class Release:
    """Releases points in document order: those that are done, and the first open one as far as it is written.

    Args:
        join: How the points stand in the answer.
        live: Whether text is released while it is written, or none before the end of the answer.
        held: Whether the points wait, because a merge may take their place or an opening come before them.
        whole: Whether a point is released when it has ended, because it may be written anew until then.

    Attributes:
        live: As given; set at the end of the answer.
        held: As given; set once the skeleton is complete.
        whole: As given; unset for items.
        waiting: Whether the points wait until a point has sources.
        queue: The points that are not yet released as a whole, in document order.
        first_text: Seconds from the start of the answer to its first text; None while there is none.
    """

    def __init__(self, join: Join, *, live: bool, held: bool, whole: bool = False) -> None:
        self.held = held
        self.whole = whole
        self.waiting = False
        self.first_text: float | None = None
        self._join: Join = join
        self.live = live
        self.queue: deque[PointWriting] = deque()
        self._headed = False
        self._before = ""

    def restart(self, writings: Iterable[PointWriting]) -> None:
        """Begins again with these points, none of which counts as released."""
        self.queue, self._headed, self.first_text, self._before = deque(writings), False, None, ""
        for writing in self.queue:
            writing.released = 0

    def text(self, text: str, offset: float) -> list[AnswerDelta]:
        """Releases a text as it is."""
        if not text or not self.live:
            return []
        if self.first_text is None:
            self.first_text = offset
        return [AnswerDelta(text)]

    def points(self, offset: float) -> list[AnswerDelta]:
        """Releases all text of points that may show by now, with their headings."""
        deltas: list[AnswerDelta] = []
        while self.queue and self.live and not self.held and not self.waiting:
            writing = self.queue[0]
            if self.whole and writing.expansion is None:
                break
            text = "".join(writing.pieces[writing.released :])
            point = writing.point
            marked = self._join == "numbered" or isinstance(point, Item)
            fresh = not writing.released and marked and writing.expansion is None
            if waits := fresh and MAY_BEGIN_BLOCK.match(text):
                text = ""  # "-" may begin a list: the heading shows, and the text waits for more of it
            elif text and not writing.released:
                writing.shown = offset
                text = separator(point, self._join, text) + text
            if not text and writing.expansion is None and isinstance(point, Item):
                break  # the mark is the question's own: it is no text of the answer before the model has written
            head = "" if self._headed else heading(point, self._join)
            # A paragraph has no heading, so nothing of it shows before its text: it may stay without any.
            if not self._headed and (head or writing.pieces):
                self._headed = True
                # The first text of an answer has nothing to be set off from, whichever point it belongs to.
                if self.first_text is not None:
                    head = (POINT_BREAK if not isinstance(point, Item) else point.gap_after(self._before)) + head
                text = head + text
            if text:
                deltas.append(AnswerDelta(text))
                if self.first_text is None:
                    self.first_text = offset
            writing.released = 0 if waits else len(writing.pieces)
            if writing.expansion is None:
                break
            self.queue.popleft()
            self._headed = False
            if writing.pieces:
                self._before = writing.expansion.text
        return deltas


class Draft:
    """An answer under way.

    Args:
        question: The question's text.
        settings: How the answer is made.
        reason: Why the route is taken.
        live: Whether text is released while it is written.

    Attributes:
        route: The route that is taken.
        decision: The router's decision.
        sources: The sources of the question; None before its retrieval.
        reading: The skeleton under way.
        skeleton: The skeleton; None until it is complete.
        points: The points that were opened, by index, in document order.
        direct: The text of a direct answer.
        finish_reason: Why a direct answer ended; of an answer with points, why its skeleton failed although it has
            points.
        merge: The text of the merge; None where there is none.
        merged: Whether the merge has succeeded.
        merge_error: Why the merge failed.
        ledger: The calls and their cost.
        release: Releases the text to the reader.
        planning: The kind of skeleton that is asked for.
        roles: The opening and the closing, as far as they are written.
        role_errors: Why one of them could not be written.
        reasoned: Whether a text began with reasoning that only its closing mark has shown. Other texts may, too.
    """

    def __init__(self, question: str, settings: Settings, *, reason: str, live: bool) -> None:
        self.question = question
        self.reason = reason
        self.route: Literal["skeleton", "direct", "items"] = "skeleton"
        self.decision: RouteDecision | None = None
        self.sources: tuple[Any, ...] | None = None
        self.reading = SkeletonWriting(settings.min_points, settings.max_points)
        self.skeleton: Skeleton | None = None
        self.points: dict[int, PointWriting] = {}
        self.finish_reason: str | None = None
        self.merge: MergeWriting | None = None
        self.merged = False
        self.merge_error: Exception | None = None
        self.ledger = Ledger(self.points)
        self.release = Release(
            settings.join, live=live, held=settings.merge or settings.opening is True, whole=settings.rewrite_overlap
        )
        self.planning: Planning = "titles"
        self.roles: dict[Role, str] = {}
        self.role_errors: dict[Role, Exception] = {}
        self.reasoned = False
        self._settings = settings
        self.direct = DirectWriting(self.loop_guard())

    def loop_guard(self) -> LoopGuard | None:
        """A new guard for one text; None where the settings keep texts that repeat themselves."""
        return LoopGuard(self.question) if self._settings.stop_loops else None

    def add_point(self, point: Point) -> PointWriting:
        """Opens the next point of the answer."""
        writing = self.points[point.index] = PointWriting(point, self.loop_guard())
        self.release.queue.append(writing)
        return writing

    def written(self) -> list[Expansion]:
        """The points that have a text and did not fail, of which a merge is made."""
        expansions = (writing.expansion for writing in self.points.values())
        good = (each for each in expansions if each is not None and each.error is None and each.text)
        return [each for each in good if each.finish_reason != NO_SOURCES]

    def failed(self) -> str:
        """The text of the points that failed."""
        return self.join(e for w in self.points.values() if (e := w.expansion) is not None and e.error is not None)

    def join(self, expansions: Iterable[Expansion], *, roles: bool = False) -> str:
        """The text of these points, one after the other; with `roles`, between the opening and the closing."""
        text = render(expansions, self._settings.join)
        if not (roles and self.roles):
            return text
        return POINT_BREAK.join(filter(None, (self.roles.get("opening"), text, self.roles.get("closing"))))

    def answer(self, offset: float) -> Answer:
        """The answer as far as it is, `offset` seconds after its start."""
        ledger, expansions, times, ends = self.ledger, [], [], {self.finish_reason}
        for writing in self.points.values():
            expansion = writing.expansion or writing.result(offset)
            expansions.append(expansion)
            ends.add(expansion.finish_reason)
            times.append(writing.times(offset))
            if writing.point.depends_on:
                skeleton = self.skeleton or self.reading.skeleton
                times[-1] = dataclasses.replace(times[-1], wave=skeleton.waves.get(writing.point.index, 1))
        worst = min(ends & _WORST.keys(), key=_WORST.__getitem__, default="stop")
        return Answer(
            text=self._text(expansions),
            question=self.question,
            route=self.route,
            skeleton=Skeleton(tuple(self.reading.points)) if self.skeleton is None else self.skeleton,
            expansions=tuple(expansions),
            usage=sum(ledger.usage.values(), Usage()),
            timings=Timings(offset, self.release.first_text, dict(ledger.spans), dict(ledger.decoding), tuple(times)),
            decision=self.decision,
            reason=self.reason,
            usage_by_stage=dict(ledger.usage),
            finish_reason=self.finish_reason if self.route == "direct" else worst,
            merged=self.merged,
            merge_error=self.merge_error,
            sources=self.sources or (),
            planning=self.planning,
            opening=self.roles.get("opening", ""),
            closing=self.roles.get("closing", ""),
            role_errors=dict(self.role_errors),
        )

    def last_event(self, event: Event) -> Event:
        """The last event, with the cost of all calls that have ended by now."""
        if isinstance(event, AnswerDone):
            return AnswerDone(self._recount(event.answer))
        if isinstance(event, AnswerFailed) and isinstance(event.error, PointError):
            event.error.answer = self._recount(event.error.answer)
        return event

    def _recount(self, answer: Answer) -> Answer:
        expansions = []
        for expansion in answer.expansions:
            usage = self.points[expansion.point.index].usage
            expansions.append(dataclasses.replace(expansion, usage=usage))
        return dataclasses.replace(
            answer,
            expansions=tuple(expansions),
            timings=dataclasses.replace(answer.timings, decoding=dict(self.ledger.decoding)),
            usage=sum(self.ledger.usage.values(), Usage()),
            usage_by_stage=dict(self.ledger.usage),
        )

    def _text(self, expansions: Iterable[Expansion]) -> str:
        if self.route == "direct":
            return "".join(self.direct.pieces)
        if not self.merged or self.merge is None:
            return self.join(expansions, roles=True)
        return POINT_BREAK.join(filter(None, ("".join(self.merge.pieces), self.failed())))
