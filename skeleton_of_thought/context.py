"""The place of a context in a prompt whose template does not mention it.

Templates of other frameworks can only be rendered. So the place is found by rendering them with other values: the
context goes before the turn that changes with the question, or before the paragraph that changes with the point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import takewhile

from skeleton_of_thought.types import Message, Prompt

__all__ = ["with_context"]

_OTHER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for a value, to find the text that changes with it; nobody writes this character.

Twice where a value is that already, because `render` finds the place of another text in the same way.
"""

_OF_POINT = ("index", "title", "scope", "heading")
"""The values that differ between the points of an answer."""


def with_context(
    render: Callable[[Mapping[str, str]], Prompt],
    values: Mapping[str, str],
    block: str,
    *,
    own: bool = False,
    key: str = "context",
) -> Prompt:
    """The prompt of a template with the context in it.

    Args:
        render: Renders the template; called again with other values if the template leaves the context out.
        values: The template's values, with a context that is not blank.
        block: The text to insert if the template leaves the context out.
        own: Whether it is the context of one point, which goes before the paragraph that first differs from another
            point's prompt. The context of the question goes before the turn that asks it.
        key: The name of the context among the values.
    """
    prompt = render(values)
    context = values[key].strip()

    def otherwise(*names: str) -> tuple[Message, ...]:
        others = {name: _OTHER if values[name] != _OTHER else _OTHER * 2 for name in names if name in values}
        return render({**values, **others}).messages

    # Without the white space at the ends, which template engines may remove. Finding the text is not enough: a short
    # context may be there by chance.
    shown = any(context in message.text for message in prompt.messages)
    if shown and otherwise(key) != prompt.messages:
        return prompt
    turn, other = _first_change(prompt.messages, otherwise(*(_OF_POINT if own else ("question",))))
    place = _paragraph(prompt.messages[turn].text, other) if own else 0
    return dataclasses.replace(prompt, messages=_inserted(prompt.messages, turn, place, f"{block}\n\n"))


def _first_change(messages: tuple[Message, ...], others: tuple[Message, ...]) -> tuple[int, str]:
    """The first user's turn that differs in the other prompt, and its text there; else the last user's turn."""
    turns = [i for i, message in enumerate(messages) if message.role == "user"] or [len(messages) - 1]
    if len(messages) == len(others):
        for i in turns:
            if messages[i] != others[i]:
                return i, others[i].text
    return turns[-1], ""


def _paragraph(text: str, other: str) -> int:
    """The start of the paragraph in which a text first differs from another; with a single paragraph, of the line."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    for mark in ("\n\n", "\n"):
        if (end := text.rfind(mark, 0, same)) >= 0:
            return end + len(mark)
    return 0


def _inserted(messages: tuple[Message, ...], turn: int, place: int, block: str) -> tuple[Message, ...]:
    message = messages[turn]
    text = message.text[:place] + block + message.text[place:]
    content = ({"type": "text", "text": text}, *message.attachments) if message.attachments else text
    return (*messages[:turn], Message(message.role, content), *messages[turn + 1 :])
