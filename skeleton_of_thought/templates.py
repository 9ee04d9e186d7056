"""Templates, which make a prompt of a conversation and the values of a stage."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

from skeleton_of_thought.types import Conversation, Hints, Message, Point, Prompt, Skeleton

__all__ = [
    "ALIASES",
    "PLACEHOLDERS",
    "Example",
    "FewShot",
    "PromptTemplate",
    "Template",
    "begin_with",
    "fill",
    "how_long",
    "how_many",
    "mentions",
    "shared_values",
    "skeleton_values",
]

ALIASES: Mapping[str, str] = {
    "request": "question",
    "outline": "skeleton",
    "point": "index",
    "point_outline": "title",
}
"""Our placeholders by those of the paper's prompt files."""

PLACEHOLDERS: Mapping[str, frozenset[str]] = {
    "skeleton": frozenset({"question", "context", "max_points", "how_many", "words", "how_long"}),
    "point": frozenset(
        {
            *("question", "context", "skeleton", "titles", "count", "index", "title"),
            *("max_points", "how_many", "words", "how_long"),
        }
    ),
    "merge": frozenset(
        {"question", "skeleton", "titles", "count", "draft", "max_points", "how_many", "words", "how_long"}
    ),
    "direct": frozenset({"question", "context"}),
}
"""The placeholders of each stage. `context` is empty without retrieval."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@runtime_checkable
class Template(Protocol):
    """Makes a prompt of a conversation and the values of a stage.

    Adapters implement it over their framework's own template objects.
    """

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, the same for the same values.

        A template may leave `context` out; it is then put into the prompt, see `PromptSet`.

        Args:
            conversation: The caller's messages; all but the last are kept as they are.
            values: The values of the stage's `PLACEHOLDERS`.
            prefill: Whether the backend continues the start of an assistant's turn.
        """
        ...


@dataclass(frozen=True)
class Example:
    """A question of another conversation, and a good reply to it.

    Attributes:
        question: The question.
        titles: The titles of the skeleton.
        reply: The reply without the template's prefill; or its sentences, of which as many are shown as make no more
            than `{words}` words, because the model writes as much as the examples do. None for the skeleton itself, of
            no more than `{max_points}` points, as the whole reply.
        index: For a point's prompt: the number of the title that the reply is about, from 1.
        context: The value of `{context}`.
    """

    question: str
    titles: tuple[str, ...] = ()
    reply: str | tuple[str, ...] | None = None
    index: int = 1
    context: str = ""

    def values(self) -> dict[str, str]:
        """The values for the placeholders of the template."""
        values = {"question": self.question, "context": self.context}
        if self.titles:
            points = tuple(Point(i, title) for i, title in enumerate(self.titles, 1))
            values |= skeleton_values(Skeleton(points), points[self.index - 1])
        return values

    def turn(self, prefill: str, values: Mapping[str, str]) -> str:
        """The assistant's turn, of the length that the values ask for."""
        if self.reply is None:
            titles = self.titles[: int(values["max_points"])]
            return "\n".join(f"{i}. {title}" for i, title in enumerate(titles, 1))
        if isinstance(self.reply, str):
            return prefill + self.reply
        lengths = accumulate(len(sentence.split()) for sentence in self.reply)
        fitting = sum(length <= int(values["words"]) for length in lengths)
        return " ".join((prefill, *self.reply[: max(1, fitting)]))


@dataclass(frozen=True)
class FewShot:
    """Examples for backends that continue a prefill, as turns before the caller's own.

    Such a backend is likely to have a small model, and small models follow examples better than instructions. The
    examples are the same for every question, so an engine that keeps prefixes computes them once.

    Attributes:
        examples: Shown as turns: the text and prefill with the example's values, and its reply.
        text: The user's turn, in the examples and for the question; None for the template's own.
        opening: A user's turn and its reply that come before `text`, once for each question: of the examples (those of
            one question stand together) and of the caller.
    """

    examples: tuple[Example, ...]
    text: str | None = None
    opening: tuple[str, str] | None = None


@dataclass(frozen=True)
class PromptTemplate:
    """A user turn with `{placeholders}`, and the start of the assistant's turn.

    Placeholders: `{question}`, `{max_points}`, `{how_many}` ("3 to 10"), `{words}` and `{how_long}` ("one or two
    sentences"); for points also `{skeleton}` (the numbered list), `{titles}` (the same in one line), `{count}`
    (the number of points), `{index}` and `{title}`; `{context}`, which is empty without retrieval. All other braces
    stay as they are, also those in values.

    Attributes:
        text: The user's turn.
        prefill: The start of the assistant's turn, for backends that continue it.
        instead: Added to `text` for backends that do not continue a prefill; None for "Begin your answer with".
        hints: Settings that suit the prompt.
        tokens_per: `hints.max_tokens` as a number of tokens per unit of a value, for example `("words", 3)`; for a
            text, per two bytes of it, plus 64. Used if `hints` has no `max_tokens`.
        few_shot: Examples for backends that continue a prefill.
    """

    text: str
    prefill: str = ""
    instead: str | None = None
    hints: Hints = field(default_factory=Hints)
    tokens_per: tuple[str, int] | None = None
    few_shot: FewShot | None = None

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, as `Template.render` describes."""
        prefill = prefill and bool(self.prefill)
        if prefill and self.few_shot is not None:
            messages = tuple(self._turns(self.few_shot, conversation, values))
        else:
            text = fill(self.text if prefill else self.instruction, values)
            messages = (*conversation.history, _user(text, conversation))
        hints = self.hints
        if hints.max_tokens is None and self.tokens_per is not None:
            name, tokens = self.tokens_per
            hints = replace(hints, max_tokens=tokens * _size(values[name]))
        return Prompt(messages, fill(self.prefill, values) if prefill else "", hints)

    @cached_property
    def instruction(self) -> str:
        """The user's turn, with its placeholders, for backends that do not continue a prefill."""
        if self.instead is not None:
            return self.text + self.instead
        return begin_with(self.text, self.prefill) if self.prefill else self.text

    def _turns(self, few_shot: FewShot, conversation: Conversation, values: Mapping[str, str]) -> Iterator[Message]:
        """The caller's system message, the examples, the caller's history, the question."""
        text, opening = few_shot.text or self.text, few_shot.opening
        yield from conversation.system
        question = None
        for example in few_shot.examples:
            known = {**values, **example.values()}
            if opening is not None and example.question != question:
                yield Message("user", fill(opening[0], known))
                yield Message("assistant", fill(opening[1], known))
            question = example.question
            yield Message("user", fill(text, known))
            yield Message("assistant", example.turn(fill(self.prefill, known), known))
        yield from conversation.turns
        turn = fill(text, values)
        if opening is None:
            yield _user(turn, conversation)
        else:
            yield _user(fill(opening[0], values), conversation)
            yield Message("assistant", fill(opening[1], values))
            yield Message("user", turn)


def _size(value: str) -> int:
    """The number that the value is, or the most tokens that the text is likely to have."""
    return int(value) if value.isdecimal() else len(value.encode()) // 2 + 64


def begin_with(text: str, start: str) -> str:
    """The text of a user's turn that asks the model to begin as a prefill would."""
    return f"{text}\n\nBegin your answer with: {start.strip()}"


def _user(text: str, conversation: Conversation) -> Message:
    attachments = conversation.attachments
    return Message("user", ({"type": "text", "text": text}, *attachments) if attachments else text)


def mentions(template: PromptTemplate, names: Collection[str]) -> bool:
    """Whether the prompts for all backends have one of these placeholders."""
    texts = [template.text + template.prefill + (template.instead or "")]
    if (few_shot := template.few_shot) is not None:
        texts.append("".join((few_shot.text or template.text, template.prefill, *(few_shot.opening or ()))))
    for text in texts:
        found = _PLACEHOLDER.findall(text)
        if set(names).isdisjoint(map(ALIASES.get, found, found)):
            return False
    return True


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with values for its placeholders; a placeholder without a value stays as it is."""
    # The template is split once, so braces in values are never read as placeholders.
    parts = _PLACEHOLDER.split(text)
    for i in range(1, len(parts), 2):
        name = parts[i]
        parts[i] = values.get(ALIASES.get(name, name), f"{{{name}}}")
    return "".join(parts)


def shared_values(conversation: Conversation, max_points: int, words: int) -> dict[str, str]:
    """The values that all stages have."""
    return {
        "question": conversation.question,
        "max_points": str(max_points),
        "how_many": how_many(max_points),
        "words": str(words),
        "how_long": how_long(words),
    }


def skeleton_values(skeleton: Skeleton, point: Point | None = None) -> dict[str, str]:
    """The values of a stage that shows the skeleton, and perhaps one of its points."""
    values = {"skeleton": str(skeleton), "titles": "; ".join(skeleton.titles), "count": str(len(skeleton.points))}
    if point is not None:
        values |= {"index": str(point.index), "title": point.title}
    return values


def how_many(max_points: int) -> str:
    """The number of points in words, for the skeleton's prompt."""
    return f"3 to {max_points}" if max_points > 3 else f"at most {max_points}"


def how_long(words: int) -> str:
    """The length of a point in sentences, which small models follow better than a number of words."""
    if words <= 20:
        return "one sentence"
    if words <= 60:
        return "one or two sentences"
    return "a short paragraph" if words <= 150 else "a paragraph"
