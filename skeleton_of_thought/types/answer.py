"""The values that an answer is made of, from the conversation to its text, tokens and times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from skeleton_of_thought.errors import InvalidInput, without_secrets
from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.types.facts import Planning, PointTimes, Request, Role, Span, Stage

if TYPE_CHECKING:
    from skeleton_of_thought.timeline import Timeline
    from skeleton_of_thought.types.calls import Decoding
    from skeleton_of_thought.types.items import ItemList

__all__ = [
    "Answer",
    "Content",
    "Conversation",
    "Expansion",
    "Message",
    "Planning",
    "Point",
    "PointTimes",
    "Request",
    "Role",
    "RouteDecision",
    "Skeleton",
    "Span",
    "Stage",
    "Timings",
    "Usage",
]

Content = str | tuple[Mapping[str, Any], ...]
"""Text, or content blocks as chat APIs take them (`{"type": "text", "text": ...}`, images, files)."""


@dataclass(frozen=True)
class Message(Portable):
    """One chat message.

    Attributes:
        role: `"system"`, `"user"`, `"assistant"`, or any other role that the backend knows.
        content: Text or content blocks.
        raw: The framework's own object of a message that is unchanged. Adapters pass it on, with all its fields.
    """

    role: str
    content: Content
    raw: Any = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The text of the content. A blank line separates its text blocks, except in a model's reply."""
        if isinstance(self.content, str):
            return self.content
        texts = [str(block.get("text") or "") for block in self.content if _is_text(block)]
        if self.role == "assistant":
            return "".join(texts)
        text = ""
        for piece in texts:
            apart = text and piece and "\n" not in text[-1] + piece[0]
            text += f"\n\n{piece}" if apart else piece
        return text

    @property
    def attachments(self) -> tuple[Mapping[str, Any], ...]:
        """The content blocks that are not text: images, files, audio."""
        if isinstance(self.content, str):
            return ()
        return tuple(block for block in self.content if not _is_text(block))


def _is_text(block: Mapping[str, Any]) -> bool:
    # OpenAI's Responses API calls them "input_text".
    return block.get("type") in ("text", "input_text")


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
    request: Request = field(default_factory=Request)

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

    @property
    def blocks(self) -> tuple[Mapping[str, Any], ...]:
        """The question's content blocks; empty for a plain text."""
        return () if isinstance(self.messages[-1].content, str) else self.messages[-1].content


@dataclass(frozen=True)
class Point:
    """One point of a skeleton.

    Attributes:
        index: 1, 2, ... in document order.
        title: The point's own words, without list marks.
        depends_on: Indices of the points that this one builds on, and that are written before it, in document order.
        scope: What the point covers, and perhaps what it leaves to others; empty where the skeleton has titles alone.
        words: The length that the plan gives the point, in words; None where it gives none.
    """

    index: int
    title: str
    depends_on: tuple[int, ...] = ()
    scope: str = ""
    words: int | None = None

    def __str__(self) -> str:
        return f"{self.index}. {self.title}"

    @property
    def line(self) -> str:
        """The point as a line of its plan: number, title, scope, and the points that it builds on."""
        scope = f": {self.scope}" if self.scope else ""
        after = f" (after {', '.join(map(str, self.depends_on))})" if self.depends_on else ""
        return f"{self.index}. {self.title}{scope}{after}"


@dataclass(frozen=True)
class Skeleton:
    """The points of an answer, and the text that they were parsed from.

    `str(skeleton)` is the numbered list, one point a line, which `parse_skeleton` reads back; with what each point
    covers and builds on, where the skeleton says it.
    """

    points: tuple[Point, ...] = ()
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self._lines

    @cached_property
    def _lines(self) -> str:
        # Cached, because the prompt of each point shows it.
        lines = [p.line if p.scope or p.depends_on else f"{p.index}. {p.title}" for p in self.points]
        return "\n".join(lines)

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """The titles in order."""
        return tuple([point.title for point in self.points])

    @cached_property
    def waves(self) -> Mapping[int, int]:
        """By index, the wave in which a point is written: 1, or one more than the last point that it builds on."""
        waves: dict[int, int] = {}
        for point in self.points:
            waves[point.index] = 1 + max((waves.get(parent, 0) for parent in point.depends_on), default=0)
        return waves

    @property
    def plan(self) -> list[dict[str, Any]]:
        """The points as plain data: the fields of each, and the `wave` in which it is written."""
        points = map(dataclasses.asdict, self.points)
        return [{**p, "depends_on": list(p["depends_on"]), "wave": self.waves[p["index"]]} for p in points]


@dataclass(frozen=True)
class RouteDecision:
    """The decision of a router.

    Attributes:
        use_skeleton: Whether the question is answered through a skeleton.
        score: How sure the router is, from 0 to 1; None if it does not say.
        reason: Why, in words.
        usage: Tokens that the decision took; None if it took none.
        planning: The kind of skeleton that suits the question; None for no advice. `Settings.planning="auto"` follows.
        items: The items of the question, if it is answered item by item (`ItemsDecision`); else None.
    """

    use_skeleton: bool
    score: float | None = None
    reason: str = ""
    usage: Usage | None = None
    planning: Planning | None = None

    items: ClassVar[ItemList | None] = None


@dataclass(frozen=True)
class Usage:
    """Tokens. `cached_tokens` is the share of `input_tokens` that the backend had cached."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def to_dict(self) -> dict[str, int]:
        """The tokens as plain data, with their total."""
        return {**vars(self), "total_tokens": self.input_tokens + self.output_tokens}

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True)
class Timings(Portable):
    """The times of an answer, in seconds.

    Attributes:
        total: From the start to the end of the answer.
        first_text: From the start to the first text of the answer; None if there was none.
        stages: A `Span` per stage that ran: `route`, `sources`, `skeleton`, `point` (of several calls, from the
            first one's start to the last one's end), `opening`, `closing`, `merge`, `direct`.
        decoding: The local engine's work for the calls of a stage, summed; no entry where a backend reports none.
        points: When each point was written, in document order; see `skeleton_of_thought.timeline` for a picture.
    """

    total: float = 0.0
    first_text: float | None = None
    stages: Mapping[str, Span] = field(default_factory=dict)
    decoding: Mapping[Stage, Decoding] = field(default_factory=dict)
    points: tuple[PointTimes, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The timings as plain JSON-safe data."""
        points = list(map(dataclasses.asdict, self.points))
        for point in points:
            point["depends_on"] = list(point["depends_on"])
        return {
            "total": self.total,
            "first_text": self.first_text,
            "stages": {stage: dataclasses.asdict(span) for stage, span in self.stages.items()},
            "decoding": {stage: done.to_dict() for stage, done in self.decoding.items()},
            "points": points,
        }


@dataclass(frozen=True)
class Expansion(Portable):
    """A point, written out.

    Attributes:
        point: The point of the skeleton.
        text: Its text without number and title. For a failed point: the text that had been written, followed by the
            placeholder.
        error: Why the point failed; None for a point that succeeded.
        usage: Tokens of all its attempts, as far as the backend reported them. A `PointDone` may come before the usage
            of a cancelled attempt; the answer of the last event includes it.
        sources: The sources retrieved for this point, with retrieval per point. A failed point has them, too, unless
            its retrieval failed.
        attempts: The number of calls made to write it; 0 if its retrieval failed.
        finish_reason: Why the text ended: `"stop"`, `"length"` (cut by a token limit), `"max_chars"`, `"loop"` (both by
            `Settings`), `"tool_calls"`, or the backend's own word where it means none of these; None if the backend
            says nothing. Of a failed point: `"content_filter"`, `"refusal"`, `"length"` (the limit was reached before
            any text), or `"error"`.
        span: When it was written, without its retrieval.
        missing: Points that it builds on and that failed, so that it was written without their texts.
        rewritten: Whether it was written anew because it shared too much with another point.
    """

    point: Point
    text: str = ""
    error: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    sources: tuple[Any, ...] = ()
    attempts: int = 0
    finish_reason: str | None = None
    span: Span | None = None
    missing: tuple[int, ...] = ()
    rewritten: bool = False


@dataclass(frozen=True)
class Answer(Portable):
    """An answer, its parts, and how it was made.

    Attributes:
        text: The whole answer. Equal to the join of all `AnswerDelta` texts since the last `AnswerRestarted`.
        question: The question's text.
        route: `"skeleton"`; `"items"` if the points are items of the question, each answered by itself; `"direct"` if
            the model answered as it does without Skeleton-of-Thought.
        skeleton: The points; empty for a direct answer.
        expansions: One per point, in document order.
        usage: Tokens of all calls, as far as the backend reported them.
        timings: The times of its stages and points.
        decision: The router's decision; None without a router.
        reason: Why the route was taken, in words.
        usage_by_stage: `usage`, split by stage.
        finish_reason: Of a direct answer: the backend's word for its end, or None; `"loop"` or `"max_chars"` if its
            call was cancelled (`Settings.stop_loops`, `Settings.max_answer_chars`). With points: the worst end of any
            of them (`"error"`, `"content_filter"`, `"refusal"`, `"length"`, `"max_chars"` or `"loop"`, in this order),
            or `"stop"`. A skeleton that broke off after some points counts, too.
        merged: Whether `text` is that of the merge instead of the joined points.
        merge_error: Why the merge failed; None if it did not, or if there was none.
        sources: The sources retrieved for the question as a whole: with retrieval once, and for a direct answer. The
            sources of a point are in its expansion.
        planning: The kind of skeleton that was asked for.
        opening, closing: The texts around the points; empty where there are none.
        role_errors: Why the opening or the closing could not be written.
    """

    text: str
    question: str
    route: Literal["skeleton", "direct", "items"]
    skeleton: Skeleton = Skeleton()
    expansions: tuple[Expansion, ...] = ()
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    decision: RouteDecision | None = None
    reason: str = ""
    usage_by_stage: Mapping[str, Usage] = field(default_factory=dict)
    finish_reason: str | None = None
    merged: bool = False
    merge_error: Exception | None = None
    sources: tuple[Any, ...] = ()
    planning: Planning = "titles"
    opening: str = ""
    closing: str = ""
    role_errors: Mapping[Role, Exception] = field(default_factory=dict)

    @property
    def errors(self) -> dict[int, Exception]:
        """The errors of failed points, by point index."""
        return {e.point.index: e.error for e in self.expansions if e.error is not None}

    def timeline(self, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """A picture of when each call of this answer ran; notebooks show it, `str` of it is one for terminals.

        Args:
            normal: Seconds that normal decoding took for the same question, shown beside it; or seconds by name, such
                as `{"model.generate": 21.3, "one row": 18.0}`.

        Raises:
            InvalidInput: Seconds that are not positive and finite.
        """
        # Most answers are never drawn. By name, because that module imports this one.
        timeline: type[Timeline] = import_module("skeleton_of_thought.timeline").Timeline
        return timeline.of(self, normal)

    def to_dict(self) -> dict[str, Any]:
        """The answer as plain JSON-safe data. Sources are counted; `plan` is empty where there are titles alone."""
        if decision := dataclasses.asdict(self.decision) if self.decision else None:
            decision = {k: v for k, v in decision.items() if k != "items" and (v or k != "planning")}
        return {
            "text": self.text,
            "question": self.question,
            "route": self.route,
            "reason": self.reason,
            "finish_reason": self.finish_reason,
            "decision": decision,
            "planning": self.planning,
            "skeleton": list(self.skeleton.titles),
            "plan": self.skeleton.plan if self.planning != "titles" else [],
            "opening": self.opening,
            "closing": self.closing,
            "role_errors": {role: _error_dict(error) for role, error in self.role_errors.items()},
            "merged": self.merged,
            "merge_error": _error_dict(self.merge_error),
            "sources": len(self.sources),
            "expansions": [_expansion_dict(e) for e in self.expansions],
            "usage": self.usage.to_dict(),
            "usage_by_stage": {stage: usage.to_dict() for stage, usage in self.usage_by_stage.items()},
            "timings": self.timings.to_dict(),
        }


def _error_dict(error: Exception | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": without_secrets(str(error))}


def _expansion_dict(expansion: Expansion) -> dict[str, Any]:
    return {
        "index": expansion.point.index,
        "title": expansion.point.title,
        "text": expansion.text,
        "error": _error_dict(expansion.error),
        "usage": expansion.usage.to_dict(),
        "sources": len(expansion.sources),
        "attempts": expansion.attempts,
        "finish_reason": expansion.finish_reason,
        "span": None if expansion.span is None else dataclasses.asdict(expansion.span),
        "scope": expansion.point.scope,
        "depends_on": list(expansion.point.depends_on),
        "missing": list(expansion.missing),
        "rewritten": expansion.rewritten,
    }
