"""Points that build on others: which of them wait, and what they see of the points before them. Points of items."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING

from skeleton_of_thought import events
from skeleton_of_thought.draft import NO_SOURCES, PointWriting
from skeleton_of_thought.errors import ParentError
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.sources import SourcesFlow
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS
from skeleton_of_thought.types import Conversation, Expansion, ItemList, Planning, Point, Prompt, Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["ROLE_WORDS", "TOO_LONG", "WavesFlow", "allowing", "asking_items", "own_settings"]

TOO_LONG = "max_words"
"""The finish reason of a point that was ended because it was much longer than its plan or its question allows."""

ROLE_WORDS = 45
"""The most words of an opening or a closing."""


def own_settings(settings: Settings, question: str, *, eager_pays: bool) -> tuple[Settings, int | None]:
    """The settings of one answer, and the limit of words that its question sets; None where it sets none.

    Args:
        settings: The caller's settings.
        question: The question.
        eager_pays: What `eager="auto"` means.
    """
    from skeleton_of_thought.text.length import most_points, word_limit

    if settings.eager == "auto":
        settings = dataclasses.replace(settings, eager=eager_pays)
    limit = word_limit(question)
    if limit is not None:
        # The words of a point are known once the points are counted, so none starts before.
        most = most_points(limit, settings.max_points, settings.min_points)
        settings = dataclasses.replace(settings, eager=False, max_points=most)
    return settings, limit


def allowing(conversation: Conversation, **facts: bool) -> Conversation:
    """The conversation as a router sees it where these are allowed: `graph` or `items` of its request."""
    return dataclasses.replace(conversation, request=dataclasses.replace(conversation.request, **facts))


def asking_items(conversation: Conversation, settings: Settings) -> Conversation:
    """The conversation as a router sees it: with `Request.items` where the question may be answered item by item."""
    if settings.items == "auto" and MAY_HOLD_ITEMS.search(conversation.question):
        return allowing(conversation, items=True)
    return conversation


class WavesFlow(SourcesFlow):
    """The steps of points that wait for others, of points whose length is given, and of items in place of points."""

    _planning: Planning
    _plans: PlanMemory | None
    _waiting: dict[int, PointWriting]
    _word_limit: int | None
    _given: Skeleton | None
    _may_plan: bool
    _passing_on = False
    """Whether `_write_waiting` is at work."""

    @property
    def _may_reason(self) -> bool:
        """Whether a text that is long enough is read on, as it may turn out to be reasoning."""
        return self._draft.reasoned or self._draft.reading.reasoned

    def _take_advice(self, planning: Planning) -> None:
        """Plans as the router advises, unless the model's plans of this kind have been of no use."""
        if self._plans is None or self._plans.may(planning):
            self._planning = planning

    def _open_found(self) -> None:
        """Opens the points of a graph as they come, once some of them can be written side by side."""
        if self._draft.reading.parallel:
            for point in self._draft.reading.points:
                if point.index not in self._points:
                    self._open_point(point)

    def _answer_items(self, items: ItemList) -> None:
        """Answers item by item: the items are the points of a skeleton that nobody has to write."""
        from skeleton_of_thought.fan_out import settings_of_items, with_items

        self.settings, self._planning, self._may_plan = settings_of_items(self.settings), "titles", False
        self._draft.route = "items"
        self._release.held = self._release.whole = False
        self._prompts.prompts = with_items(self._prompts.prompts, items)
        self._given = Skeleton(items.points)
        self._answer_by_points()

    @abstractmethod
    def _open_point(self, point: Point) -> None:
        """Begins a point."""

    def _waits(self, writing: PointWriting) -> bool:
        """Whether a point that builds on others is not to be written now: it waits, or one of them has failed."""
        if not self._is_ready(writing):
            self._waiting[writing.point.index] = writing
            return True
        self._waiting.pop(writing.point.index, None)
        bad = [each for each in self._parents(writing) if not _has_text(each)]
        writing.missing = tuple(each.point.index for each in bad)
        errors = [each.error for each in bad if each.error is not None]
        if not errors or self.settings.on_parent_error == "write":
            return False
        failed = ", ".join(str(each.point.index) for each in bad if each.error is not None)
        error = ParentError(f"It builds on point {failed}, which failed.")
        error.__cause__ = errors[0]
        self._give_up_point(writing, error)
        return True

    def _write_waiting(self) -> None:
        """Writes the points that have waited for nothing but points that are done by now."""
        if self._passing_on:  # a point that fails for its parent ends at once; the loop below sees it
            return
        self._passing_on = True
        while ready := [each for each in self._waiting.values() if self._is_ready(each)]:
            for writing in ready:
                if not self.finished and self._waiting.pop(writing.point.index, None) is not None:
                    self._write_point(writing)
            if self.finished:
                break
        self._passing_on = False

    def _is_ready(self, writing: PointWriting) -> bool:
        return all(self._points[i].expansion is not None for i in writing.point.depends_on if i in self._points)

    def _parents(self, writing: PointWriting) -> list[Expansion]:
        """The points that a point builds on, as far as they are done."""
        parents = [self._points[i].expansion for i in writing.point.depends_on if i in self._points]
        return [each for each in parents if each is not None]

    def _planned_prompt(self, skeleton: Skeleton, writing: PointWriting) -> Prompt:
        """The prompt of a point with a scope, a length of its own, or points that it builds on."""
        from skeleton_of_thought.text.length import LengthGuard

        words, most = self._words_of(skeleton, writing)
        # Only a text that is far too long is cut, see `LengthGuard`.
        writing.length = None if most is None else LengthGuard(most)
        return self._prompts.point(
            skeleton,
            writing.point,
            writing.context,
            parents=list(filter(_has_text, self._parents(writing))),
            missing=writing.missing,
            passage=writing.passage,
            words=words,
        )

    def _words_of(self, skeleton: Skeleton, writing: PointWriting) -> tuple[int | None, int | None]:
        """The words that a point is asked for, and those that it is kept to: by the question's limit, or by its plan.

        Titles count among the words of an answer. Only where they take much of it, shorter points are asked for.
        """
        if self._word_limit is None or self._draft.skeleton is None:
            return writing.point.words, writing.point.words
        from skeleton_of_thought.text.assembly import heading
        from skeleton_of_thought.text.length import share_words
        from skeleton_of_thought.text.words import words_of

        index, points = writing.point.index, skeleton.points
        roles = bool(self.settings.opening) + self.settings.closing if len(points) > 1 else 0
        left = self._word_limit - roles * self._role_words
        titles = sum(len(words_of(heading(point, self.settings.join))) for point in points)
        asked, kept = (share_words(max(1, limit), points)[index] for limit in (left, left - titles))
        return (asked if 10 * asked <= 13 * kept else kept), kept

    @property
    def _role_words(self) -> int:
        """The words of an opening or a closing."""
        return ROLE_WORDS if self._word_limit is None else max(10, min(ROLE_WORDS, self._word_limit // 8))

    def _give_up_plan(self) -> None:
        """Answers directly, because no two points of the plan can be written side by side; none has begun yet."""
        draft = self._draft
        self._actions.append(events.SkeletonRestarted(draft.reading.skeleton))
        draft.reading.points = []
        draft.reason = "each point of the plan builds on the one before it, so none can be written side by side"
        self._answer_directly()


def _has_text(expansion: Expansion) -> bool:
    return expansion.error is None and bool(expansion.text) and expansion.finish_reason != NO_SOURCES
