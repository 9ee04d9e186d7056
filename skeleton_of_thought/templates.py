"""Templates: what turns a question and the values of a stage into a prompt."""

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
"""The placeholders of the paper's prompt files, and ours for the same thing."""

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
"""What the prompts of a stage may mention. `context` is empty where nothing was retrieved."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@runtime_checkable
class Template(Protocol):
    """Anything that turns a conversation and the values of a stage into a prompt.

    Adapters implement it over their framework's own template objects.
    """

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, the same for the same values.

        A template need not know of `context`: what it leaves out is put into its prompt, see `PromptSet`.

        Args:
            conversation: The caller's messages; all but the last are kept as they are.
            values: The values of the stage's `PLACEHOLDERS`.
            prefill: Whether the backend continues the start of an assistant's turn.
        """
        ...


@dataclass(frozen=True)
class Example:
    """A question of another conversation and what a model should have replied.

    Attributes:
        question: The question.
        titles: The titles of the skeleton.
        reply: The reply, from where the template's prefill ends; or its sentences, of which as many are shown as
            make no more than `{words}` words: the model writes as much as the examples do. None for the
            skeleton itself, of no more than `{max_points}` points, as the whole reply.
        index: For a point's prompt: which of the titles the reply is about, from 1.
        context: What stands for `{context}`, where the template mentions it.
    """

    question: str
    titles: tuple[str, ...] = ()
    reply: str | tuple[str, ...] | None = None
    index: int = 1
    context: str = ""

    def values(self) -> dict[str, str]:
        """What stands for the placeholders of the template."""
        values = {"question": self.question, "context": self.context}
        if self.titles:
            points = tuple(Point(i, title) for i, title in enumerate(self.titles, 1))
            values |= skeleton_values(Skeleton(points), points[self.index - 1])
        return values

    def turn(self, prefill: str, values: Mapping[str, str]) -> str:
        """The assistant's turn, as long as the values ask for."""
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
    """How a backend that continues a prefill is asked: by examples, in turns before the caller's own.

    There a small model is likely, and small models follow examples better than instructions. The examples are
    the same for every question, so an engine that keeps prefixes computes them once.

    Attributes:
        examples: Shown as turns: the text and prefill with the example's values, and its reply.
        text: The user's turn, in the examples and for the question; None for the template's own.
        opening: A user's turn and the reply to it that come before `text`, once for each question: of the
            examples (those of one question stand together) and of the caller.
    """

    examples: tuple[Example, ...]
    text: str | None = None
    opening: tuple[str, str] | None = None


@dataclass(frozen=True)
class PromptTemplate:
    """A user turn with `{placeholders}`, and the start of the assistant's turn.

    Placeholders: `{question}`, `{max_points}`, `{how_many}` ("3 to 10"), `{words}` and `{how_long}` ("one or two
    sentences"); for points also `{skeleton}` (the numbered list), `{titles}` (the same in one line), `{count}`
    (the number of points), `{index}` and `{title}`; `{context}` for what was retrieved, empty where nothing was. Any
    other braces stay as they are, and braces in the values are never looked at.

    Attributes:
        text: The user's turn.
        prefill: The start of the assistant's turn, for backends that continue it.
        instead: What is added to `text` for backends that do not; None for a plain
            "begin your answer with".
        hints: Settings that suit the prompt, for backends that follow them.
        tokens_per: `hints.max_tokens` as so many tokens per unit of a value, for example `("words", 3)`; for a value
            that is a text, per two bytes of it, and 64 more. It counts where `hints` has no `max_tokens`.
        few_shot: What backends that continue a prefill get instead of `text` alone.
    """

    text: str
    prefill: str = ""
    instead: str | None = None
    hints: Hints = field(default_factory=Hints)
    tokens_per: tuple[str, int] | None = None
    few_shot: FewShot | None = None

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """See `Template.render`."""
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
        asked = fill(text, values)
        if opening is None:
            yield _user(asked, conversation)
        else:
            yield _user(fill(opening[0], values), conversation)
            yield Message("assistant", fill(opening[1], values))
            yield Message("user", asked)


def _size(value: str) -> int:
    """A number, or about the number of tokens that a text has at the most."""
    return int(value) if value.isdecimal() else len(value.encode()) // 2 + 64


def begin_with(text: str, start: str) -> str:
    """The text of a user's turn that asks for what a prefill would have given."""
    return f"{text}\n\nBegin your answer with: {start.strip()}"


def _user(text: str, conversation: Conversation) -> Message:
    attachments = conversation.attachments
    return Message("user", ({"type": "text", "text": text}, *attachments) if attachments else text)


def mentions(template: PromptTemplate, names: Collection[str]) -> bool:
    """Whether every kind of backend gets a prompt that has one of these placeholders."""
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
    # The template is split once: what a value holds, braces included, is never read as a template.
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
    """The number of points that a skeleton is asked for, in words."""
    return f"3 to {max_points}" if max_points > 3 else f"at most {max_points}"


def how_long(words: int) -> str:
    """The length of a point of so many words, in sentences: small models heed that better than a number."""
    if words <= 20:
        return "one sentence"
    if words <= 60:
        return "one or two sentences"
    return "a short paragraph" if words <= 150 else "a paragraph"
