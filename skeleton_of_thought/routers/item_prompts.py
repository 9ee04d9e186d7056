"""Prompts that hold items, but ask for something else: those that frameworks write around a question or a document.

`find_items` reads one text as a question. In a framework's prompt, that text may be a retrieved page with exercises, a
query that the prompt wants to have rewritten, or a request under a system message that wants one JSON object.
"""

from __future__ import annotations

import re

from skeleton_of_thought.routers.question import find_question
from skeleton_of_thought.routers.tasks import read_instructions
from skeleton_of_thought.types import Conversation, ItemList

__all__ = ["asks_otherwise"]

_SIGNS = frozenset({"format around", "short around"})
"""What the system message may want of the answer as a whole."""
_STEPS = re.compile(r"^\W*(?:action|observation)(?: input)?[*_ ]*:", re.I | re.M)
"""A step of an agent that calls tools by text: its replies have a form of their own."""
_LABEL = re.compile(r"(?:^|[\n.!?。！？])[^\w\n]*\w+(?:[ '’]\w+)?[*_ ]*[:：][\s\"'`*\[({<>]*\Z")
"""The label of the text that is to be written, at the end of a prompt: "Title:"."""
_RULE = re.compile(
    r"^\s*(?:[-=_#~]{4,}|\"{3}|'{3}|</?\w[\w -]*>|\[(?:The )?(?:Start|End) .*\]|"
    r"#+ .*\b(?:query|question|response|answer)|here (?:is|are) .*\b(?:query|question|response|answer)\b.*[:：])\s*$",
    re.I | re.M,
)
"""A line that sets off a document, or an answer and its question."""


def asks_otherwise(conversation: Conversation, items: ItemList) -> bool:
    """Whether the conversation asks for something else than each of these items, which its question holds."""
    systems = [message.text for message in conversation.system]
    if systems and (any(map(_STEPS.search, systems)) or not _SIGNS.isdisjoint(read_instructions(*systems).signs)):
        return True
    text = conversation.question.strip()
    if "\n" not in text:
        return False
    if _LABEL.search(text) or _RULE.search(text):
        return True
    asked = find_question(text)
    # One of several questions is an item, or the text for several targets; another one stands inside a prompt.
    titles = tuple(item.title for item in items.points)
    return asked != text and items.form != "targets" and ("\n" in asked or not asked.endswith(titles))
