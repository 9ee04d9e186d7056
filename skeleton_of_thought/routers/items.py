"""Questions about several items, each for itself: an instruction and a list. Found by rules, without a call."""

from __future__ import annotations

import re

from skeleton_of_thought.types import Item, ItemList

__all__ = ["find_items"]

_NUMBERED = re.compile(r"^\s*(\d+[.)])\s+(\S.*)$", re.M)


def find_items(text: str) -> ItemList | None:
    """The items of a question and what it asks of each; None if it is no question about items, each for itself."""
    found = _NUMBERED.findall(text)
    if len(found) < 3 or not re.match(r"translate|rate|for each", text, re.I):
        return None
    items = tuple(Item(i, title, mark=mark, tight=True, ask=title) for i, (mark, title) in enumerate(found, 1))
    return ItemList(text[: text.index(found[0][0])].strip(), items)
