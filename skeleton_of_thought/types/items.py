"""The items of a question that asks the same of each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skeleton_of_thought.types.answer import Point

__all__ = ["Item", "ItemList"]


@dataclass(frozen=True)
class Item(Point):
    """A point that is an item of the question.

    Attributes:
        mark: Stands before its answer, as the list has it: "1.", "-", "(a)", "French:"; "" for nothing.
        tight: Whether its answer follows on the next line, without a blank line, as in the list given.
        ask: The last words of its prompt; "" for its title.
    """

    mark: str = ""
    tight: bool = False
    ask: str = ""


@dataclass(frozen=True)
class ItemList:
    """What a question asks of several items, each for itself.

    Attributes:
        instruction: The shared words of the question: instruction and context, without the items.
        points: The items, in the order of the question.
        form: A list of items, one thing for several targets, or several different texts.
        language: One of `routers.question.LANGUAGES`.
    """

    instruction: str
    points: tuple[Item, ...]
    form: Literal["list", "targets", "different"]
    language: str = "en"
