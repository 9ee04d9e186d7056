"""Points that repeat each other: the later of two is written anew, once."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from skeleton_of_thought import events
from skeleton_of_thought.draft import NO_SOURCES, PointWriting
from skeleton_of_thought.errors import PointOverlap
from skeleton_of_thought.restarts import restart_point
from skeleton_of_thought.waves import WavesFlow

if TYPE_CHECKING:
    from skeleton_of_thought.text.overlap import Overlap

__all__ = ["RewritingFlow"]


class RewritingFlow(WavesFlow):
    """The steps between a point's last text and its end, with `rewrite_overlap`.

    A point ends in document order, once all points before it have ended, so that it can be compared with each of them.
    """

    @abstractmethod
    def _close_point(
        self, writing: PointWriting, reason: str | None, error: Exception | None = None, *, compared: bool = False
    ) -> None:
        """Ends a point, unless it is still to be compared."""

    def _compare(self, writing: PointWriting, reason: str | None, error: Exception | None) -> None:
        """Takes the end of a point's text: writes anew what repeats it or is repeated by it; ends what may end."""
        if writing.earlier_text is not None and self._repeats_as_much(writing):
            self._keep_earlier_text(writing, PointOverlap("Written anew, it repeats as much of the other point."))
            return
        writing.ended = (reason, error)
        writing.earlier_text = None
        if _is_written(writing):
            place = list(self._points).index(writing.point.index)
            for i, other in enumerate(list(self._points.values())):
                if other is not writing and _is_written(other):
                    self._compare_pair(*((other, writing) if i < place else (writing, other)))
        self._end_all()

    def _end_all(self) -> None:
        """Ends the points that may end: those with no point before them that is under way."""
        for each in list(self._points.values()):
            if each.expansion is None:
                if each.ended is None or self.finished:
                    break
                self._close_point(each, *each.ended, compared=True)

    def _repeats_as_much(self, writing: PointWriting) -> bool:
        """Whether a rewritten point shares no less than before with the point that it repeated."""
        assert writing.repeated is not None
        other, share = writing.repeated
        return self._shared(writing, other).share >= share

    def _shared(self, writing: PointWriting, other: PointWriting) -> Overlap:
        """What the text of a point shares with that of another one."""
        from skeleton_of_thought.text.overlap import shared_with

        return shared_with("".join(writing.pieces), "".join(other.pieces), ignore=self._draft.question)

    def _compare_pair(self, earlier: PointWriting, later: PointWriting) -> None:
        # A point that builds on another one may well quote it.
        free = earlier.ended is not None and later.ended is not None and later.expansion is None
        if not free or later.passage or earlier.point.index in later.point.depends_on:
            return
        found = self._shared(later, earlier)
        if found.share <= self.settings.max_overlap:
            return
        self._actions.append(events.OverlapFound(later.point, earlier.point, found.share, found.passage))
        assert later.ended is not None
        later.earlier_text, later.ended = (later.pieces, later.ended[0]), None
        later.rewritten, later.passage = True, found.passage
        later.repeated = (earlier, found.share)
        error = PointOverlap(f"It shares {found.share:.0%} of its word trigrams with point {earlier.point.index}.")
        self._actions += restart_point(later, error, shown=True)
        later.restart(self._draft.loop_guard())
        self._write_point(later)

    def _keep_earlier_text(self, writing: PointWriting, error: Exception) -> None:
        """Ends a point that could not be written anew with the text that it had before."""
        assert writing.earlier_text is not None
        (pieces, reason), writing.earlier_text = writing.earlier_text, None
        self._actions += restart_point(writing, error, shown=bool(writing.pieces))
        writing.restart(None)
        writing.rewritten = False
        self._show(writing, "".join(pieces))
        # Compared already, and not to be written anew again.
        writing.ended = (reason, None)
        self._end_all()


def _is_written(writing: PointWriting) -> bool:
    """Whether the model's text of a point is complete."""
    if writing.ended is None or not writing.pieces:
        return False
    reason, error = writing.ended
    return error is None and reason != NO_SOURCES
