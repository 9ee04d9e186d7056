"""What a flow has said: its calls, and the text that a reader has."""

from __future__ import annotations

from skeleton_of_thought.board import Action
from skeleton_of_thought.events import AnswerDelta, AnswerRestarted
from skeleton_of_thought.types import Call


def calls(actions: list[Action]) -> list[Call]:
    return [action for action in actions if isinstance(action, Call)]


def released(actions: list[Action]) -> str:
    """The text since the last time that all was taken back."""
    text = ""
    for action in actions:
        if isinstance(action, AnswerRestarted):
            text = ""
        elif isinstance(action, AnswerDelta):
            text += action.text
    return text
