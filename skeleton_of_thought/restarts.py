"""Takes back text that turns out to be the model's reasoning: a point, a merge, or a whole skeleton.

This happens if the chat template opens the block of reasoning in the prompt, so that the reply has only its end. Text
may have been shown by then. The functions change the draft, and return the events that void the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skeleton_of_thought.errors import ReasoningShown
from skeleton_of_thought.events import AnswerRestarted, Event, PointRestarted, SkeletonRestarted
from skeleton_of_thought.types import Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.draft import Draft, PointWriting
    from skeleton_of_thought.merging import MergeWriting

__all__ = ["void_merge", "void_point", "void_skeleton", "void_text"]

_WHY = "The model's text so far was its reasoning, which only a closing mark has shown."


def void_text(writing: PointWriting | MergeWriting) -> None:
    """Drops the text so far; the text that follows is the first."""
    writing.voided = writing.voided or bool(writing.pieces)
    writing.pieces = []
    if writing.loops is not None:
        writing.loops = writing.loops.fresh()


def void_point(draft: Draft, writing: PointWriting, offset: float) -> list[Event]:
    """Takes back the text of a point, and shows the text of the others again."""
    writing.voided = False
    error = ReasoningShown(_WHY)
    events: list[Event] = [PointRestarted(writing.point, error)]
    if writing.released:
        events.append(AnswerRestarted(error))
        draft.release.restart(draft.points.values())
        events += draft.release.points(offset)
    return events


def void_merge(draft: Draft, merge: MergeWriting) -> list[Event]:
    """Takes back the text of a merge."""
    merge.voided = False
    if not draft.release.live:
        return []
    draft.release.first_text = None
    return [AnswerRestarted(ReasoningShown(_WHY))]


def void_skeleton(draft: Draft) -> list[Event]:
    """Takes back the points that were found so far, with all that was written for them."""
    draft.reading.restarted = False
    void = draft.reading.voided
    events: list[Event] = [SkeletonRestarted(Skeleton(void))] if void else []
    if draft.release.first_text is not None:
        events.append(AnswerRestarted(ReasoningShown(_WHY)))
    draft.points.clear()
    draft.release.restart(())
    return events
