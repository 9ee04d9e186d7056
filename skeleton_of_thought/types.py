"""The values that travel through a Skeleton-of-Thought answer. All are frozen; none knows a framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from skeleton_of_thought.errors import InvalidInput

if TYPE_CHECKING:
    from skeleton_of_thought.timeline import Timeline

__all__ = [
    "Answer",
    "Call",
    "Cancel",
    "Completion",
    "Content",
    "Conversation",
    "Decoding",
    "Expansion",
    "Hints",
    "Message",
    "Point",
    "PointTimes",
    "Prompt",
    "Reply",
    "Retrieval",
    "RouteDecision",
    "Skeleton",
    "Span",
    "Stage",
    "Timings",
    "Usage",
]

Content = str | tuple[Mapping[str, Any], ...]
"""Text, or content blocks as chat APIs take them (`{"type": "text", "text": ...}`, images, files)."""

Stage = Literal["route", "sources", "skeleton", "point", "merge", "direct"]

Retrieval = Literal["none", "once", "per_point"]
"""What is retrieved for an answer, see `skeleton_of_thought.flow.AnswerFlow`."""


# --- what goes to a model -------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One chat message.

    Attributes:
        role: `"system"`, `"user"`, `"assistant"`, or any other role that the backend knows.
        content: Text or content blocks.
        raw: The framework's own message object, when this message is the caller's and unchanged.
            Adapters hand it on as it is, so that nothing the core does not model is lost.
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
    """What an adapter knows of a request besides its messages, for routers to go by.

    Attributes:
        tools: Tools are bound: the model may want to call one.
        response_format: The answer has to fit a schema or another format of the backend.
        max_concurrency: The most calls that may be open at a time for it; None for as many as there are points.
    """

    tools: bool = False
    response_format: bool = False
    max_concurrency: int | None = None


@dataclass(frozen=True)
class Conversation:
    """What the caller asks: a chat whose last message is the user's question.

    Attributes:
        messages: The chat.
        request: What is known of the request besides; routers look at it, nothing else does.

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

    @property
    def question(self) -> str:
        """The text of the last message, stripped."""
        return self.messages[-1].text.strip()

    @property
    def history(self) -> tuple[Message, ...]:
        """Everything before the question: system message and earlier turns."""
        return self.messages[:-1]

    @property
    def system(self) -> tuple[Message, ...]:
        """The system messages at the front of the history."""
        return tuple(takewhile(lambda message: message.role == "system", self.history))

    @property
    def turns(self) -> tuple[Message, ...]:
        """The history without the system messages at its front."""
        return self.history[len(self.system) :]

    @property
    def attachments(self) -> tuple[Mapping[str, Any], ...]:
        """The question's content blocks that are not text."""
        return self.messages[-1].attachments


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
class Usage:
    """Tokens spent. `cached_tokens` is the share of `input_tokens` that the backend had cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True)
class Decoding:
    """What a local engine did for one completion, or for several of them together.

    A sum adds seconds, steps and tokens of completions that may have been decoded side by side, so its seconds
    can be more than the clock showed, and its pace is the mean pace of one completion.

    Attributes:
        waiting: Seconds from the submission until the prompt began to run.
        prefill: Seconds from then until the completion joined the batch.
        decode: Seconds from then until its end.
        steps: Decoding steps that it took part in.
        mean_rows: Rows in the batch, the mean over its steps: how parallel it really was. A sum weighs by steps.
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
        """Tokens over the time in the batch; 0.0 where there was none."""
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


# --- the parts of an answer -----------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One point of a skeleton.

    Attributes:
        index: 1, 2, ... in document order.
        title: The point's own words, without list marks.
        depends_on: Indices of the points that must be written before this one; empty for now.
    """

    index: int
    title: str
    depends_on: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.index}. {self.title}"


@dataclass(frozen=True)
class Skeleton:
    """The points of an answer, and the text that they were read from.

    `str(skeleton)` is the numbered list, one point a line, which `parse_skeleton` reads back.
    """

    points: tuple[Point, ...] = ()
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self._lines

    @cached_property
    def _lines(self) -> str:
        # Kept: each point's prompt shows it.
        return "\n".join(str(point) for point in self.points)

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """The titles in order."""
        return tuple(point.title for point in self.points)


@dataclass(frozen=True)
class RouteDecision:
    """Whether a question is answered through a skeleton, how sure that is (0 to 1), why, and what asking had cost."""

    use_skeleton: bool
    score: float | None = None
    reason: str = ""
    usage: Usage | None = None


@dataclass(frozen=True)
class Span:
    """When a piece of work ran: seconds since the answer began. `first` is its first text."""

    start: float
    end: float
    first: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True)
class PointTimes:
    """When one point was retrieved for, written and released, on the clock of `Span`.

    Attributes:
        index: The point's number.
        title: Its title.
        written: When its last call ran; None where none was opened.
        retrieved: When it was retrieved for, all attempts together; None without retrieval per point.
        released: When the reader got its first text, in document order. None where there was none, and where the
            answer's text comes at once, at its end.
        attempts: How many calls were made to write it.
        failed: Whether it failed for good.
    """

    index: int
    title: str
    written: Span | None = None
    retrieved: Span | None = None
    released: float | None = None
    attempts: int = 0
    failed: bool = False


@dataclass(frozen=True)
class Timings:
    """Where an answer's time went, in seconds.

    Attributes:
        total: From the start to the end of the answer.
        first_text: From the start to the first text of the answer; None when there was none.
        stages: A `Span` per stage that ran: `route`, `sources`, `skeleton`, `point` (of several calls, from the
            first one's start to the last one's end), `merge`, `direct`.
        decoding: What the local engine did for the calls of a stage, summed; no entry for a stage whose
            backend does not tell.
        points: When each point was written, in document order; see `skeleton_of_thought.timeline` for a picture.
    """

    total: float = 0.0
    first_text: float | None = None
    stages: Mapping[str, Span] = field(default_factory=dict)
    decoding: Mapping[Stage, Decoding] = field(default_factory=dict)
    points: tuple[PointTimes, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The timings as plain JSON-safe data."""
        return {
            "total": self.total,
            "first_text": self.first_text,
            "stages": {stage: dataclasses.asdict(span) for stage, span in self.stages.items()},
            "decoding": {stage: done.to_dict() for stage, done in self.decoding.items()},
            "points": [dataclasses.asdict(point) for point in self.points],
        }


@dataclass(frozen=True)
class Expansion:
    """A point, written out.

    Attributes:
        point: The point of the skeleton.
        text: Its text without number and title. For a failed point: what had been written, followed
            by the placeholder.
        error: Why the point failed; None for a point that succeeded.
        usage: Tokens of all its attempts, as far as the backend told. A `PointDone` may come before a cancelled
            attempt has told; the answer of the last event has its tokens.
        sources: What was retrieved for this point, with retrieval per point. A point that failed has them, too,
            unless it failed for want of them.
        attempts: How many calls were made to write it; 0 where its retrieval failed.
        finish_reason: The backend's word for why the text ended.
        span: When it was written; its retrieval is no part of that.
    """

    point: Point
    text: str = ""
    error: Exception | None = None
    usage: Usage = Usage()
    sources: tuple[Any, ...] = ()
    attempts: int = 0
    finish_reason: str | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Answer:
    """An answer and how it came about.

    Attributes:
        text: The whole answer. Equal to the join of all `AnswerDelta` texts since the last `AnswerRestarted`.
        question: The question's text.
        route: `"skeleton"`, or `"direct"` when the model answered as it would without us.
        skeleton: The points; empty for a direct answer.
        expansions: One per point, in document order.
        usage: Tokens of all calls, as far as the backend told.
        timings: Where the time went.
        decision: The router's decision; None when there was no router.
        reason: Why the route was taken, in words.
        usage_by_stage: `usage`, split by stage.
        finish_reason: The backend's word for why a direct answer ended; `"loop"` where we ended it, for it repeated
            itself (`Settings.stop_loops`).
        merged: Whether `text` is that of the merge, and not the points as they are.
        merge_error: Why the merge failed; None where it did not, or where there was none.
        sources: What was retrieved for the question as a whole: with retrieval once, and for a direct answer. What
            was retrieved for a point is in its expansion.
    """

    text: str
    question: str
    route: Literal["skeleton", "direct"]
    skeleton: Skeleton = Skeleton()
    expansions: tuple[Expansion, ...] = ()
    usage: Usage = Usage()
    timings: Timings = Timings()
    decision: RouteDecision | None = None
    reason: str = ""
    usage_by_stage: Mapping[str, Usage] = field(default_factory=lambda: MappingProxyType({}))
    finish_reason: str | None = None
    merged: bool = False
    merge_error: Exception | None = None
    sources: tuple[Any, ...] = ()

    @property
    def errors(self) -> dict[int, Exception]:
        """The errors of failed points, by point index."""
        return {e.point.index: e.error for e in self.expansions if e.error is not None}

    def timeline(self, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """A picture of when each call of this answer ran; notebooks show it, `str` of it is one for terminals.

        Args:
            normal: Seconds that normal decoding took for the same question, to be shown beside it; or several
                ways' by their names, such as `{"model.generate": 21.3, "one row": 18.0}`.

        Raises:
            InvalidInput: Seconds that are not positive and finite.
        """
        from skeleton_of_thought.timeline import Timeline  # most answers are never drawn

        return Timeline.of(self, normal)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain JSON-safe data. Of sources it has the number: the core does not know what they are."""
        return {
            "text": self.text,
            "question": self.question,
            "route": self.route,
            "reason": self.reason,
            "finish_reason": self.finish_reason,
            "decision": None if self.decision is None else dataclasses.asdict(self.decision),
            "skeleton": list(self.skeleton.titles),
            "merged": self.merged,
            "merge_error": _error_dict(self.merge_error),
            "sources": len(self.sources),
            "expansions": [_expansion_dict(e) for e in self.expansions],
            "usage": _usage_dict(self.usage),
            "usage_by_stage": {stage: _usage_dict(usage) for stage, usage in self.usage_by_stage.items()},
            "timings": self.timings.to_dict(),
        }


def _usage_dict(usage: Usage) -> dict[str, int]:
    return {**dataclasses.asdict(usage), "total_tokens": usage.total_tokens}


def _error_dict(error: Exception | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


def _expansion_dict(expansion: Expansion) -> dict[str, Any]:
    return {
        "index": expansion.point.index,
        "title": expansion.point.title,
        "text": expansion.text,
        "error": _error_dict(expansion.error),
        "usage": _usage_dict(expansion.usage),
        "sources": len(expansion.sources),
        "attempts": expansion.attempts,
        "finish_reason": expansion.finish_reason,
        "span": None if expansion.span is None else dataclasses.asdict(expansion.span),
    }


# --- what a flow asks of its driver ---------------------------------------------------------------


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
