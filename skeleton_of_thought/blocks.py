"""The content blocks of a question in a prompt: each stays as the caller gave it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from skeleton_of_thought.types import Conversation, Message, Prompt

__all__ = ["with_blocks"]

_Blocks = tuple[Mapping[str, Any], ...]


def with_blocks(prompt: Prompt, conversation: Conversation) -> Prompt:
    """The prompt with the question's content blocks.

    Several texts, or blocks with the marks of a provider's prompt cache, take the place of the question's text: they
    keep their order, their boundaries and their fields. Otherwise, and in a prompt that does not show the question, the
    attachments stand at the end of the user's turn.

    Args:
        prompt: A rendered prompt, whose template may have added the attachments itself.
        conversation: The conversation whose question has content blocks.
    """
    turns, question = list(_own_turns(prompt, conversation)), conversation.question
    shown = [block for i in turns for block in prompt.messages[i].attachments]
    if not turns or any(block in shown for block in conversation.attachments):
        return prompt
    # The last turn that shows it: examples and a context come before the question.
    turn = next((i for i in reversed(turns) if question in prompt.messages[i].text), turns[-1])
    message = prompt.messages[turn]
    content = _placed(message, question, conversation.blocks) if question else None
    if content is None:
        content = (*_as_blocks(message), *conversation.attachments)
    if content == _as_blocks(message):
        return prompt
    changed = dataclasses.replace(message, content=content, raw=None)
    return dataclasses.replace(prompt, messages=(*prompt.messages[:turn], changed, *prompt.messages[turn + 1 :]))


def _own_turns(prompt: Prompt, conversation: Conversation) -> Iterator[int]:
    """Yields the positions of the user's turns that are not the caller's history."""
    history = {id(message) for message in conversation.history}
    for i, message in enumerate(prompt.messages):
        if message.role == "user" and id(message) not in history:
            yield i


def _as_blocks(message: Message) -> _Blocks:
    return ({"type": "text", "text": message.content},) if isinstance(message.content, str) else message.content


def _placed(message: Message, question: str, blocks: _Blocks) -> _Blocks | None:
    """The content of a turn with the blocks in the place of the question's text; None if they need no place."""
    texts = [block for block in blocks if "text" in block]
    if len(texts) < 2 and not any(map(_is_marked, blocks)):
        return None
    # The instruction is a block of the same type as the question's.
    kind = {"type": texts[0]["type"]}
    pieces = _as_blocks(message)
    for i, piece in reversed(list(enumerate(pieces))):
        before, found, after = str(piece.get("text") or "").rpartition(question)
        if found:
            head = ({**kind, "text": before},) if before.strip() else ()
            tail = ({**piece, **kind, "text": after},) if after.strip() else ()
            return (*pieces[:i], *head, *blocks, *tail, *pieces[i + 1 :])
    return None


def _is_marked(block: Mapping[str, Any]) -> bool:
    # Anthropic has `cache_control`, Bedrock `cachePoint`.
    return any(name.lower().startswith("cache") for name in block)
