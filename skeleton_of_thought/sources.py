"""The retrieval of an answer: its steps, and what an answer says where nothing was found."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from skeleton_of_thought import events
from skeleton_of_thought.draft import NO_SOURCES, PointWriting, Release
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.roles import RolesFlow
from skeleton_of_thought.types import Call, Point

__all__ = ["SourcesFlow"]


class SourcesFlow(RolesFlow):
    """The steps that retrieve for the question or for its points. The steps around them are those of `AnswerFlow`.

    Where `nothing_found` is a text, nothing is written without sources: a point for which nothing was found has this
    text, and an answer without any sources is this text alone. As long as that may still happen, no point is shown.
    """

    _points: dict[int, PointWriting]
    _release: Release
    _nothing_found: str | None
    _points_sourced: int

    @abstractmethod
    def _answer_directly(self) -> None:
        """Answers without a skeleton."""

    @abstractmethod
    def _answer_by_points(self) -> None:
        """Answers through a skeleton."""

    @abstractmethod
    def _write_point(self, writing: PointWriting) -> None:
        """Opens a call that writes a point."""

    @abstractmethod
    def _show(self, writing: PointWriting, text: str) -> None:
        """Shows more text of a point."""

    @abstractmethod
    def _close_point(self, writing: PointWriting, reason: str | None, error: Exception | None = None) -> None:
        """Ends a point."""

    @abstractmethod
    def _give_up_point(self, writing: PointWriting, error: Exception, retrieval: Call | None = None) -> None:
        """Ends a point that has failed for good."""

    @abstractmethod
    def _fail_answer(self, error: Exception) -> None:
        """Ends the answer with an error."""

    def _take_sources(self, point: Point | None, sources: tuple[Any, ...], context: str) -> None:
        self._actions.append(events.SourcesFound(point, sources))
        if point is not None:
            writing = self._points[point.index]
            writing.sources, writing.context = sources, replace_surrogates(context)
            self._points_sourced += 1
            if writing.lacks_sources(self._nothing_found):
                self._end_sources_if_complete()
                return
            self._release.waiting = False
            self._end_sources_if_complete()
            self._write_point(writing)
            return
        self._draft.sources, self._prompts.context = sources, replace_surrogates(context)
        self._actions.append(events.SourcesDone())
        if self._nothing_found is not None and not sources:
            self._answer_nothing_found()
        elif self._draft.route == "direct":
            self._answer_directly()
        else:
            self._answer_by_points()

    def _fail_sources(self, call: Call, error: Exception) -> None:
        if call.attempt <= self.settings.max_retries:
            self._open("sources", point=call.point, attempt=call.attempt + 1)
        elif call.point is None:
            self._fail_answer(error)
        else:
            failed = self._points[call.point.index]
            if self.settings.on_point_error == "placeholder":
                self._points_sourced += 1
                self._release.waiting = False
                self._end_sources_if_complete(failed)
            self._give_up_point(failed, error, retrieval=call)

    def _end_sources_if_complete(self, failed: PointWriting | None = None) -> None:
        skeleton = self._draft.skeleton
        if skeleton is None or self._points_sourced < len(skeleton):
            return
        self._actions.append(events.SourcesDone())
        if self._nothing_found is None:
            return
        if self._release.waiting:
            self._answer_nothing_found()
            return
        for writing in [
            one for one in self._points.values() if one is not failed and one.lacks_sources(self._nothing_found)
        ]:
            self._show(writing, self._nothing_found)
            self._close_point(writing, NO_SOURCES)

    def _answer_nothing_found(self) -> None:
        """Ends the answer with the text for nothing found, without a call."""
        draft = self._draft
        if draft.skeleton is not None:
            self._actions.append(events.SkeletonRestarted(draft.skeleton))
            draft.skeleton, draft.reading.points = None, []
        draft.route, draft.reason, draft.finish_reason = "direct", "nothing was retrieved", NO_SOURCES
        draft.points.clear()
        draft.direct.pieces.append(self._nothing_found or "")
        self._show_text(self._nothing_found or "")
        self._finish()
