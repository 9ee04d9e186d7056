"""Calls to models and retrievers: prompts, replies, completions, and the work of a local engine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.types.answer import Message, Planning, Point, RouteDecision, Stage, Usage

__all__ = [
    "Call",
    "Cancel",
    "Completion",
    "Decoding",
    "Hints",
    "PlanItem",
    "Prompt",
    "Reply",
    "Retrieval",
    "with_hints",
]

Retrieval = Literal["none", "once", "per_point"]
"""When calls of stage `sources` retrieve for an answer.

`"once"`: for the question, before anything is written. Every prompt shows the context, but for that of the merge, which
changes no content. `"per_point"`: for each point, before it is written; its prompt alone shows the context. A direct
answer has one retrieval for the question.
"""


@dataclass(frozen=True)
class Hints:
    """Settings that suit a prompt. A backend applies those that it has; the caller's own settings take precedence.

    Attributes:
        stop: Strings that end the completion once it has any text; not part of the text.
        max_tokens: The longest useful completion, in tokens; None for the backend's own limit.
        min_tokens: The shortest useful completion, in tokens: small models sometimes end before they have begun.
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
    """The input of one call to a model.

    Attributes:
        messages: The chat, ending with the user's turn.
        prefill: The start of the assistant's turn, which the model continues; empty if the backend does not continue
            it (the messages then hold an instruction instead).
        hints: Settings that suit this prompt.
        quoted: The texts in it that a model wrote or a retriever found: the skeleton, a draft, a context. A backend
            that makes the tokens itself reads no special token in them.
        exact: The same prompt for such a backend, with its quoted texts unchanged, where `messages` and `prefill` hold
            the text of a special token with a space in it; else None.
    """

    messages: tuple[Message, ...]
    prefill: str = ""
    hints: Hints = Hints()
    quoted: tuple[str, ...] = field(default=(), compare=False, repr=False)
    exact: Prompt | None = field(default=None, compare=False, repr=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(with_hints(state))


def with_hints(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a pickled prompt or template; those of 0.1 have the fields of `Hints` as fields of their own."""
    if "hints" in state:
        return state
    names = {field.name for field in dataclasses.fields(Hints)}
    hints = Hints(**{name: value for name, value in state.items() if name in names})
    return {**{name: value for name, value in state.items() if name not in names}, "hints": hints}


@dataclass(frozen=True)
class Call(Portable):
    """A call that the driver opens.

    Attributes:
        id: Unique within the flow.
        stage: The stage that the call belongs to.
        prompt: The input; None for calls without a model: the driver itself asks the `router` of a route call, and a
            call of stage `sources` retrieves and replies with `Reply.sources` and `Reply.context`.
        point: The point that is written or retrieved for; None for a retrieval for the question as a whole.
        attempt: 1, 2, ...
        delay: Seconds to wait before opening (backoff); a waiting call uses no part of the budget.
        timeout: Seconds from opening after which the driver gives up and reports `PointTimeout`.
        router: The router, for calls of stage `route`.
        structured: Whether the titles of a skeleton are wanted as data, see `Reply.titles`.
        planning: The kind of a skeleton that is wanted; a kind with more than titles is wanted as `Reply.plan`.
        max_chars: The most characters of text that are wanted; None for no limit.
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
    planning: Planning = "titles"
    max_chars: int | None = None


@dataclass(frozen=True)
class Cancel:
    """An open or waiting call whose text is no longer wanted."""

    id: int


@dataclass(frozen=True)
class Decoding:
    """The work of a local engine for one completion, or for several of them together.

    A sum adds seconds, steps and tokens of completions that may have been decoded side by side. So its seconds can be
    more than the time that passed, and its pace is the mean pace of one completion.

    Attributes:
        waiting: Seconds from the submission until the prompt began to run.
        prefill: Seconds from then until the completion joined the batch.
        decode: Seconds from then until its end.
        steps: Decoding steps that it took part in.
        mean_rows: The mean number of rows in the batch over its steps. A sum weighs by steps.
        output_tokens: Tokens generated.
    """

    waiting: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    steps: int = 0
    mean_rows: float = 0.0
    output_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Tokens over the time in the batch; 0.0 without any."""
        return self.output_tokens / self.decode if self.decode > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields and the pace as plain JSON-safe data."""
        return {**dataclasses.asdict(self), "tokens_per_second": self.tokens_per_second}

    def __add__(self, other: Decoding) -> Decoding:
        steps = self.steps + other.steps
        rows = self.mean_rows * self.steps + other.mean_rows * other.steps
        return Decoding(
            self.waiting + other.waiting,
            self.prefill + other.prefill,
            self.decode + other.decode,
            steps,
            rows / steps if steps else 0.0,
            self.output_tokens + other.output_tokens,
        )


@dataclass(frozen=True)
class PlanItem(Portable):
    """One point of a plan that a backend gives as data.

    Attributes:
        title: The point's title.
        scope: What the point covers; empty for nothing.
        after: The numbers of the points that it builds on, in any order; the first item of the plan is number 1.
        words: Its length in words; None for none.
    """

    title: str
    scope: str = ""
    after: tuple[int, ...] = ()
    words: int | None = None


@dataclass(frozen=True)
class Reply(Portable):
    """How a call ended, reported by the backend after its last text.

    Attributes:
        usage: Tokens, if the backend reports them.
        finish_reason: `"stop"`, `"length"`, or the backend's own word; None if it gives none. The meaning of other
            words is in `skeleton_of_thought.adapters.finish_reasons`.
        decision: The routing decision, for calls of stage `route`.
        decoding: The work of a local engine, if the backend is one and reports it.
        titles: The titles of a skeleton, if the backend gives them as data; they then count instead of the call's
            text. None for text alone.
        plan: The points of a plan, if the backend gives them as data; they then count instead of titles and text.
        sources: The sources found, best first, for calls of stage `sources`; any objects, which the core passes on.
        context: The text of the sources for the model, for calls of stage `sources`; empty if nothing was found: the
            prompts are then those without retrieval.
        refusal: The model's refusal, if its API keeps it apart from text. The reply then failed, whatever its finish
            reason.
        instead: The other content of a reply without text, if the backend knows it: `"reasoning"`, `"tool calls"`,
            `"other content"`.
        doubtful: Whether its stream may have broken off: it ended without a finish reason, and nobody knows yet
            whether the model gives any. A call that can be made again is; otherwise the reply counts as whole.
    """

    usage: Usage | None = None
    finish_reason: str | None = None
    decision: RouteDecision | None = None
    decoding: Decoding | None = None
    titles: tuple[str, ...] | None = None
    plan: tuple[PlanItem, ...] | None = None
    sources: tuple[Any, ...] = ()
    context: str = ""
    refusal: str = ""
    instead: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class Completion:
    """One finished completion of a local model.

    Attributes:
        text: The generated text, without the prompt and without the stop string.
        token_ids: The generated ids, the end-of-sequence id included when it was generated.
        finish_reason: `"stop"` (end of sequence or stop string), `"length"` or `"cancelled"`.
        usage: Tokens of the prompt and of the completion, and the tokens of the prompt that were reused.
        decoding: Its times, and how many rows were decoded beside it; None if these were not counted.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "cancelled"]
    usage: Usage
    decoding: Decoding | None = None
