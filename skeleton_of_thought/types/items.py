"""Items: what a question asks the same of, each for itself. They are the points of such an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skeleton_of_thought.types.answer import Point, RouteDecision

__all__ = ["Item", "ItemForm", "ItemList", "ItemsDecision", "route_of"]

ItemForm = Literal["list", "targets", "different"]
"""Where items come from: a list in the question, several targets for one text ("into French and Spanish"), or a number
of separate texts ("five different poems")."""


@dataclass(frozen=True)
class Item(Point):
    """One item of a question.

    Its `title` is the item on one line, without list mark and quotes.

    Attributes:
        mark: What stands before its answer, as the list has it: `"1."`, `"-"`, `"French:"`; empty for nothing.
        tight: Whether its answer follows on the next line, without a blank line, as in the list that was given.
        ask: The last words of its prompt: the item word by word; for a target, what is asked for this target alone.
            Empty for the title.
    """

    mark: str = ""
    tight: bool = False
    ask: str = ""

    def gap_after(self, text: str) -> str:
        """The characters between this item's answer and the one before it, whose text is given."""
        return "\n" if self.tight and "\n" not in text else "\n\n"


@dataclass(frozen=True)
class ItemList:
    """What a question asks of several items, each for itself.

    Attributes:
        instruction: The words that all items share, which are the question without its items. For targets: the text
            that the question is about.
        points: The items, in their order.
        form: Where they come from.
        language: The question's language, one of `skeleton_of_thought.routers.question.LANGUAGES`.
    """

    instruction: str
    points: tuple[Item, ...]
    form: ItemForm = "list"
    language: str = "en"

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class ItemsDecision(RouteDecision):
    """The decision to answer a question item by item, each with a call of its own.

    Attributes:
        items: The items.
    """

    items: ItemList | None = None  # type: ignore[misc] # of the class in RouteDecision, so that others have no field


def route_of(decision: RouteDecision) -> Literal["skeleton", "direct", "items"]:
    """The route of an answer that follows this decision."""
    return "direct" if not decision.use_skeleton else "skeleton" if decision.items is None else "items"
