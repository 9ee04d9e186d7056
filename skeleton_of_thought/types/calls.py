"""A call to a model or a retriever: the prompt that goes out, and the reply that comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from skeleton_of_thought.types.answer import Point, RouteDecision
from skeleton_of_thought.types.conversation import Message
from skeleton_of_thought.types.usage import Decoding, Stage, Usage

__all__ = [
    "Call",
    "Cancel",
    "Completion",
    "Hints",
    "Prompt",
    "Reply",
    "Retrieval",
]

Retrieval = Literal["none", "once", "per_point"]
"""What is retrieved for an answer, by calls of stage `sources`.

`"once"`: for the question, before anything is written. Every prompt shows the context, but for that of the merge, which
changes no content. `"per_point"`: for each point, before it is written; its prompt alone shows the context. A direct
answer has one retrieval for the question.
"""


@dataclass(frozen=True)
class Hints:
    """Settings that suit a prompt. A backend follows those that it can; the caller's own settings go first.

    Attributes:
        stop: Strings that end the completion once it has any text; not part of the text.
        max_tokens: The longest completion that makes sense, in tokens; None for the backend's own limit.
        min_tokens: The shortest completion that makes sense, in tokens: small models at times end before they
            have begun.
        frequency_penalty: Subtracted from a token's logit for each time that it was generated; it keeps small models
            from looping.
        presence_penalty: Subtracted once from the logit of each token that was generated.
    """

    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    min_tokens: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True)
class Prompt:
    """What one call sends to a model.

    Attributes:
        messages: The chat, ending with the user's turn.
        prefill: The start of the assistant's turn, which the model is to continue; empty where the
            backend does not continue it (the messages then hold an instruction instead).
        hints: Settings that suit this prompt; a backend follows those that it can.
    """

    messages: tuple[Message, ...]
    prefill: str = ""
    hints: Hints = Hints()


@dataclass(frozen=True)
class Call:
    """A call that the driver is to open.

    Attributes:
        id: Unique within the flow.
        stage: What the call is for.
        prompt: What to send; None where no model is asked: a route call asks `router`, and a call of stage `sources`
            retrieves and replies with `Reply.sources` and `Reply.context`.
        point: The point to be written or to be retrieved for; None for a retrieval for the question as a whole.
        attempt: 1, 2, ...
        delay: Seconds to wait before opening (backoff); a waiting call uses no part of the budget.
        timeout: Seconds from opening after which the driver gives up and reports `PointTimeout`.
        router: The router to ask, for calls of stage `route`; the driver asks it by itself.
        structured: Whether the titles of a skeleton are wanted as data, see `Reply.titles`.
    """

    id: int
    stage: Stage
    prompt: Prompt | None
    point: Point | None = None
    attempt: int = 1
    delay: float = 0.0
    timeout: float | None = None
    router: Any = field(default=None, compare=False, repr=False)
    structured: bool = False


@dataclass(frozen=True)
class Cancel:
    """An open or waiting call whose text is no longer wanted."""

    id: int


@dataclass(frozen=True)
class Reply:
    """How a call ended, told by the backend after its last text.

    Attributes:
        usage: Tokens spent, where the backend says so.
        finish_reason: `"stop"`, `"length"`, or the backend's own word; None where it says nothing.
        decision: The routing decision, for calls of stage `route`.
        decoding: What a local engine did for it, where the backend is one and says so.
        titles: The titles of a skeleton, where the backend gives them as data; they then count instead of the
            call's text. None for text alone.
        sources: What was found, best first, for calls of stage `sources`; any objects, the core hands them on.
        context: The text of the sources as the model is to read it, for calls of stage `sources`; empty where
            nothing was found: the prompts are then those without retrieval.
    """

    usage: Usage | None = None
    finish_reason: str | None = None
    decision: RouteDecision | None = None
    decoding: Decoding | None = None
    titles: tuple[str, ...] | None = None
    sources: tuple[Any, ...] = ()
    context: str = ""


@dataclass(frozen=True)
class Completion:
    """One finished completion of a local model.

    Attributes:
        text: The generated text, without the prompt and without the stop string.
        token_ids: The generated ids, the end-of-sequence id included when it was generated.
        finish_reason: `"stop"` (end of sequence or stop string), `"length"` or `"cancelled"`.
        usage: Tokens of the prompt, of the completion, and how many of the prompt were reused.
        decoding: Where its time went, and how many were decoded beside it; None where nobody kept count.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    decoding: Decoding | None = None
