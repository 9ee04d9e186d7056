"""The release of an answer's text to the reader, in document order."""

from __future__ import annotations

from collections import deque

from skeleton_of_thought.events import AnswerDelta
from skeleton_of_thought.text.assembly import POINT_BREAK, Join, heading, separator
from skeleton_of_thought.writing import PointWriting

__all__ = ["Release"]


class Release:
    """Releases points in document order: those that are done, and the first open one as far as it is written.

    Args:
        join: How the points stand in the answer.
        live: Whether text is released while it is written, or none before the end of the answer.
        held: Whether the points wait, because a merge may take their place.

    Attributes:
        live: As given; set at the end of the answer.
        held: As given; set once the skeleton is complete.
        first_text: Seconds from the start of the answer to its first text; None while there is none.
    """

    def __init__(self, join: Join, *, live: bool, held: bool) -> None:
        self.held = held
        self.first_text: float | None = None
        self._join: Join = join
        self.live = live
        self._points: deque[PointWriting] = deque()
        self._headed = False

    def add(self, writing: PointWriting) -> None:
        """Puts a point at the end of the answer."""
        self._points.append(writing)

    def text(self, text: str, offset: float) -> list[AnswerDelta]:
        """Releases a text as it is."""
        if not text or not self.live:
            return []
        if self.first_text is None:
            self.first_text = offset
        return [AnswerDelta(text)]

    def points(self, offset: float) -> list[AnswerDelta]:
        """Releases what of the points can be released by now, with their headings."""
        deltas: list[AnswerDelta] = []
        if self.held or not self.live:
            return deltas
        while self._points:
            writing = self._points[0]
            text = "".join(writing.pieces[writing.released :])
            if text and not writing.released:
                writing.shown = offset
                text = separator(writing.point, self._join) + text
            if not self._headed:
                text = self._heading(writing) + text
            if text:
                deltas.append(AnswerDelta(text))
                if self.first_text is None:
                    self.first_text = offset
            writing.released = len(writing.pieces)
            if writing.expansion is None:
                break
            self._points.popleft()
            self._headed = False
        return deltas

    def _heading(self, writing: PointWriting) -> str:
        head = heading(writing.point, self._join)
        # A paragraph has no heading, so nothing of it shows before its text: it may stay without any.
        if not head and not writing.pieces:
            return ""
        self._headed = True
        # The first text of an answer has nothing to be set off from, whichever point it belongs to.
        return head if self.first_text is None else POINT_BREAK + head
