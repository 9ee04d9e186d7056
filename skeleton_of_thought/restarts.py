"""Takes back text: that of a call that is made again, and text that turns out to be the model's reasoning.

Reasoning may have been shown if the chat template opens its block in the prompt, so that the reply has only its end.
The functions change the draft, and return the events that void the text.

Before text that was shown is voided, a blank line is sent as its last piece. A reader that only joins the pieces, such
as one that writes them to a terminal, then sees the new text set apart from the old.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skeleton_of_thought.errors import ReasoningShown
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerRestarted,
    Event,
    PointDelta,
    PointRestarted,
    SkeletonRestarted,
)
from skeleton_of_thought.text.assembly import POINT_BREAK
from skeleton_of_thought.types import Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.draft import Draft, PointWriting
    from skeleton_of_thought.merging import MergeWriting

__all__ = ["restart_answer", "restart_point", "void_merge", "void_point", "void_skeleton", "void_text"]

_WHY = "The model's text so far was its reasoning, which only a closing mark has shown."


def restart_answer(error: Exception) -> list[Event]:
    """Takes back the text of the answer that was released."""
    return [AnswerDelta(POINT_BREAK), AnswerRestarted(error)]


def restart_point(writing: PointWriting, error: Exception, *, shown: bool) -> list[Event]:
    """Takes back the text of a point, of which some was `shown`."""
    gap: list[Event] = [PointDelta(writing.point, POINT_BREAK)] if shown else []
    return [*gap, PointRestarted(writing.point, error)]


def void_text(writing: PointWriting | MergeWriting) -> None:
    """Drops the text so far; the text that follows is the first."""
    writing.voided = writing.voided or bool(writing.pieces)
    writing.pieces = []
    if writing.loops is not None:
        writing.loops = writing.loops.fresh()


def void_point(draft: Draft, writing: PointWriting, offset: float) -> list[Event]:
    """Takes back the text of a point, and shows the text of the others again."""
    writing.voided, draft.reasoned = False, True
    error = ReasoningShown(_WHY)
    events = restart_point(writing, error, shown=True)
    if writing.released:
        events += restart_answer(error)
        draft.release.restart(draft.points.values())
        events += draft.release.points(offset)
    return events


def void_merge(draft: Draft, merge: MergeWriting) -> list[Event]:
    """Takes back the text of a merge."""
    merge.voided = False
    if not draft.release.live:
        return []
    draft.release.first_text = None
    return restart_answer(ReasoningShown(_WHY))


def void_skeleton(draft: Draft) -> list[Event]:
    """Takes back the points that were found so far, with all that was written for them."""
    draft.reading.restarted = False
    void = draft.reading.voided
    shown = draft.release.first_text is not None
    events: list[Event] = [AnswerDelta(POINT_BREAK)] if shown else []
    if void:
        events.append(SkeletonRestarted(Skeleton(void)))
    if shown:
        events.append(AnswerRestarted(ReasoningShown(_WHY)))
    draft.points.clear()
    draft.release.restart(())
    return events
