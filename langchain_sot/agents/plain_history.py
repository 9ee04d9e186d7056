"""An agent's conversation without tools: the calls and their results as text in the assistant's turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, FunctionMessage, HumanMessage, ToolMessage

from langchain_sot.agents.points_tool import own_calls
from skeleton_of_thought.adapters.points_tool import result_text

__all__ = ["plain_history"]

_MEDIA = frozenset(
    {"audio", "document", "file", "image", "image_url", "input_audio", "input_file", "input_image", "media", "video"}
)
"""Types of content, in the forms of all providers, that only a user's message can show."""


def plain_history(messages: Sequence[BaseMessage], last: str) -> list[BaseMessage]:
    """The messages without calls and results of tools, with a last turn of the assistant's.

    Many servers refuse calls and results in a request that gives no tools. Names, arguments, results and errors stay,
    as text. Pictures and other media of a result go to the next message of the user's, as an assistant's cannot have
    any. What the points' own tool refused is left out, and so are the calls of it.

    Args:
        messages: The conversation.
        last: The text of the last turn.
    """
    own = own_calls(messages)
    answered = {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    calls: dict[str | None, tuple[str | None, Any]] = {}
    media: list[Any] = []
    plain: list[BaseMessage] = []
    for place, message in enumerate(messages):
        if isinstance(message, AIMessage) and (made := [*message.tool_calls, *message.invalid_tool_calls]):
            _say(plain, message.text)
            for call in made:
                if call["id"] in own.get(place, ()):
                    continue
                calls[call["id"]] = name, arguments = call["name"], call["args"]
                if call["id"] not in answered:
                    _say(plain, result_text(name, arguments, None))
        elif isinstance(message, ToolMessage | FunctionMessage):
            if place in own:
                continue
            name, arguments = calls.get(getattr(message, "tool_call_id", None), (message.name, None))
            text, shown = _content(message)
            _say(plain, result_text(name, arguments, text, failed=getattr(message, "status", None) == "error"))
            if shown:
                media += [{"type": "text", "text": f"From the result of {name or 'a tool'}:"}, *shown]
        elif isinstance(message, HumanMessage) and media:
            plain.append(message.model_copy(update={"content": [*media, *_blocks(message)]}))
            media = []
        else:
            _add(plain, message)
    if media:
        plain.append(HumanMessage(media))
    _say(plain, last)
    return plain


def _say(plain: list[BaseMessage], text: Any) -> None:
    if text.strip():
        _add(plain, AIMessage(str(text)))


def _add(plain: list[BaseMessage], message: BaseMessage) -> None:
    """Adds a message; one of the assistant's joins the one before it, as servers want turns to alternate."""
    if not (plain and isinstance(message, AIMessage) and isinstance(plain[-1], AIMessage)):
        plain.append(message)
        return
    before = plain.pop()
    if isinstance(before.content, str) and isinstance(message.content, str):
        content: Any = "\n\n".join(text for text in (before.content, message.content) if text)
    else:
        blocks = list(_blocks(message))
        # Some servers want the reasoning of a turn at its start.
        at = next((i for i, block in enumerate(blocks) if _is_text(block)), len(blocks))
        content = [*blocks[:at], *_blocks(before), *blocks[at:]]
    plain.append(message.model_copy(update={"content": content}))


def _content(message: BaseMessage) -> tuple[str, list[Any]]:
    """The text of a result, with data as JSON; and its media."""
    blocks = list(_blocks(message))
    media = [block for block in blocks if isinstance(block, Mapping) and block.get("type") in _MEDIA]
    return "\n".join(_text(block) for block in blocks if block not in media), media


def _blocks(message: BaseMessage) -> Iterator[Any]:
    if not isinstance(message.content, str):
        yield from message.content
    elif message.content:
        yield {"type": "text", "text": message.content}


def _text(block: Any) -> str:
    if _is_text(block):
        return block if isinstance(block, str) else str(block["text"])
    return json.dumps(block, ensure_ascii=False, default=str)


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or (block.get("type") == "text" and isinstance(block.get("text"), str))
