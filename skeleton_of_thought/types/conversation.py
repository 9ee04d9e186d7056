"""Messages, and the conversation that ends with the question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

from skeleton_of_thought.errors import InvalidInput

__all__ = [
    "Content",
    "Conversation",
    "Message",
    "Request",
]

Content = str | tuple[Mapping[str, Any], ...]
"""Text, or content blocks as chat APIs take them (`{"type": "text", "text": ...}`, images, files)."""


@dataclass(frozen=True)
class Message:
    """One chat message.

    Attributes:
        role: `"system"`, `"user"`, `"assistant"`, or any other role that the backend knows.
        content: Text or content blocks.
        raw: The framework's own message object, if this is the caller's unchanged message. Adapters pass it on as it
            is, so that fields that the core does not know are kept.
    """

    role: str
    content: Content
    raw: Any = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The text of the content, its text blocks joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(block.get("text", "")) for block in self.content if _is_text(block))

    @property
    def attachments(self) -> tuple[Mapping[str, Any], ...]:
        """The content blocks that are not text: images, files, audio."""
        if isinstance(self.content, str):
            return ()
        return tuple(block for block in self.content if not _is_text(block))


def _is_text(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "text"


@dataclass(frozen=True)
class Request:
    """Facts about a request besides its messages, for routers.

    Attributes:
        tools: Whether tools are bound, of which the model may want to call one.
        response_format: Whether the answer has to fit a schema or another format of the backend.
        max_concurrency: The most calls that may be open at a time; None for as many as there are points.
    """

    tools: bool = False
    response_format: bool = False
    max_concurrency: int | None = None


@dataclass(frozen=True)
class Conversation:
    """A chat whose last message is the user's question.

    Attributes:
        messages: The chat.
        request: Facts about the request besides its messages; only routers read them.

    Raises:
        InvalidInput: The last message is not the user's, or holds neither text nor attachments.
    """

    messages: tuple[Message, ...]
    request: Request = Request()

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidInput("There is no question: give a question, or messages that end with the user's.")
        last = self.messages[-1]
        if last.role != "user":
            raise InvalidInput(
                f"The last message is of role {last.role!r}, but Skeleton-of-Thought answers the user's last "
                "message: let the conversation end with a user (human) message."
            )
        if not last.text.strip() and not last.attachments:
            raise InvalidInput("The question is empty: give a question with some text.")

    @classmethod
    def of(cls, question: str, *, system: str | None = None, history: Iterable[Message] = ()) -> Conversation:
        """A conversation from a question, with an optional system message and earlier turns before it."""
        head = (Message("system", system),) if system else ()
        return cls((*head, *history, Message("user", question)))

    @cached_property
    def question(self) -> str:
        """The text of the last message, stripped."""
        return self.messages[-1].text.strip()

    @cached_property
    def history(self) -> tuple[Message, ...]:
        """The messages before the question: system message and earlier turns."""
        return self.messages[:-1]

    @cached_property
    def system(self) -> tuple[Message, ...]:
        """The system messages at the front of the history."""
        return tuple(takewhile(lambda message: message.role == "system", self.history))

    @cached_property
    def turns(self) -> tuple[Message, ...]:
        """The history without the system messages at its front."""
        return self.history[len(self.system) :]

    @cached_property
    def attachments(self) -> tuple[Mapping[str, Any], ...]:
        """The question's content blocks that are not text."""
        return self.messages[-1].attachments
