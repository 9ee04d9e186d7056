"""Where a context goes in a prompt whose template does not mention it.

A template of any kind is only known by what it renders. So the place is found by what changes in the prompt when a
value changes: the turn that asks the question, or the paragraph from which on a point's prompt is its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import takewhile

from skeleton_of_thought.types import Message, Prompt

__all__ = ["with_context"]

_OTHER = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for a value where only what changes with it is looked at; nobody writes it."""


def with_context(
    render: Callable[[Mapping[str, str]], Prompt], values: Mapping[str, str], block: str, *, own: bool = False
) -> Prompt:
    """The prompt of a template, with the context in it.

    Args:
        render: Renders the template; called again with other values where the template leaves the context out.
        values: The template's values; `context` is among them, and not blank.
        block: How the context is shown where the template leaves it out.
        own: Whether it is the context of one point. It then stands before the paragraph that first differs from
            another point's prompt; a context of the question before the turn that asks it.
    """
    prompt = render(values)
    context = values["context"].strip()

    def otherwise(*names: str) -> tuple[Message, ...]:
        return render({name: _OTHER if name in names else value for name, value in values.items()}).messages

    # The ends are left out of it: template engines may take white space off them. That the text is there is not
    # enough, a short one may be there by chance.
    shown = any(context in message.text for message in prompt.messages)
    if shown and otherwise("context") != prompt.messages:
        return prompt
    turn, other = _first_change(prompt.messages, otherwise(*(("index", "title") if own else ("question",))))
    place = _paragraph(prompt.messages[turn].text, other) if own else 0
    return dataclasses.replace(prompt, messages=_inserted(prompt.messages, turn, place, f"{block}\n\n"))


def _first_change(messages: tuple[Message, ...], others: tuple[Message, ...]) -> tuple[int, str]:
    """The first user's turn that differs from the other prompt's, and its text there; else the last user's turn."""
    turns = [i for i, message in enumerate(messages) if message.role == "user"] or [len(messages) - 1]
    if len(messages) == len(others):
        for i in turns:
            if messages[i] != others[i]:
                return i, others[i].text
    return turns[-1], ""


def _paragraph(text: str, other: str) -> int:
    """Where the paragraph (of a single one, the line) begins in which a text first differs from another."""
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
