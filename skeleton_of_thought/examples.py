"""Examples in prompts, for backends that continue the start of an assistant's turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from skeleton_of_thought.templates import PromptTemplate, fill, skeleton_values
from skeleton_of_thought.types import Conversation, Message, Point, Skeleton

__all__ = ["Example", "FewShot"]


@dataclass(frozen=True)
class Example:
    """A question of another conversation, and a good reply to it.

    Attributes:
        question: The question.
        titles: The titles of the skeleton, or its points where a plan says more of them.
        reply: The reply without the template's prefill; or its sentences, of which as many are shown as make no more
            than `{words}` words, because the model writes as much as the examples do. None for the skeleton itself, of
            no more than `{max_points}` points, as the whole reply.
        index: For a point's prompt: the number of the title that the reply is about, from 1.
        context: The value of `{context}`.
    """

    question: str
    titles: tuple[str | Point, ...] = ()
    reply: str | tuple[str, ...] | None = None
    index: int = 1
    context: str = ""

    def values(self) -> dict[str, str]:
        """The values for the placeholders of the template."""
        values = {"question": self.question, "context": self.context, "parents": ""}
        if self.titles:
            points = tuple(t if isinstance(t, Point) else Point(i, t) for i, t in enumerate(self.titles, 1))
            values |= skeleton_values(Skeleton(points), points[self.index - 1])
        return values

    def turn(self, prefill: str, values: Mapping[str, str]) -> str:
        """The assistant's turn, of the length that the values ask for."""
        if self.reply is None:
            titles = self.titles[: int(values["max_points"])]
            return "\n".join(t.line if isinstance(t, Point) else f"{i}. {t}" for i, t in enumerate(titles, 1))
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

    def turns(
        self, template: PromptTemplate, conversation: Conversation, values: Mapping[str, str]
    ) -> Iterator[Message]:
        """The caller's system message, the examples, the caller's history, the question."""
        text, opening = self.text or template.text, self.opening
        yield from conversation.system
        question = None
        for example in self.examples:
            known = {**values, **example.values()}
            if opening is not None and example.question != question:
                yield Message("user", fill(opening[0], known))
                yield Message("assistant", fill(opening[1], known))
            question = example.question
            yield Message("user", fill(text, known))
            yield Message("assistant", example.turn(fill(template.prefill, known), known))
        yield from conversation.turns
        turn = fill(text, values)
        if opening is None:
            yield Message("user", turn)
        else:
            yield Message("user", fill(opening[0], values))
            yield Message("assistant", fill(opening[1], values))
            yield Message("user", turn)
