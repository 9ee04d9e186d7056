"""The items of a question, each answered by itself: what such an answer takes over, and the prompts of its items.

Only questions that are answered item by item import this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from skeleton_of_thought.default_items import ITEM, NOTES, NUMBERED
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import Template, fill
from skeleton_of_thought.types import Conversation, ItemList, Prompt

if TYPE_CHECKING:
    from skeleton_of_thought.prompts import PromptSet

__all__ = ["ItemTemplate", "settings_of_items", "with_items"]


def settings_of_items(settings: Settings) -> Settings:
    """The settings of an answer by items: what a skeleton or the points' places in a text would need is left out."""
    return dataclasses.replace(
        settings, planning="titles", eager=False, opening=False, closing=False, rewrite_overlap=False, merge=False
    )


def with_items(prompts: PromptSet, items: ItemList) -> PromptSet:
    """The prompts of an answer whose points are these items."""
    template = cast(Template, ITEM if prompts.item is None else prompts.item)
    return dataclasses.replace(prompts, point=ItemTemplate(template, items))


@dataclass(frozen=True)
class ItemTemplate:
    """Makes the prompts of items: the words that all share, then the item.

    Attributes:
        template: The user's turn of one item.
        items: The items.
    """

    template: Template
    items: ItemList

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, as `Template.render` describes. Items have no start of an assistant's turn."""
        index, count = values["index"], len(self.items)
        # Another index stands for any item, to find the text that differs between items (`context.with_context`).
        own = [(item.ask or item.title) for item in self.items.points if str(item.index) == index] or [index]
        instruction, item = self.items.instruction, own[0]
        if self.items.form == "different":
            item = fill(NUMBERED[self.items.language], {"index": index, "count": str(count)})
        elif self.items.form == "list" and self.template is ITEM:
            instruction = f"{instruction}\n\n{NOTES[self.items.language]}"
        own_values = {"instruction": instruction, "item": item, "index": index, "count": str(count)}
        return self.template.render(conversation, {**values, **own_values}, prefill=False)
