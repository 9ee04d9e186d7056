"""What the model is asked: the prompts for skeleton, points, merge and route, and the loading of prompt files.

Every point's prompt has the same order: the caller's system message, examples for backends that need them,
the caller's history, the question, the skeleton, and only at the very end what is particular to the point. So
the prompts of one answer share the longest possible prefix, which providers and servers cache and the local
engine computes once; and points that start before the skeleton is complete share all but its last lines.

What was retrieved for the question stands before the question, in every prompt of the answer; what was retrieved
for a point stands right before what is particular to the point. A template may say otherwise by `{context}`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from skeleton_of_thought.context import with_context
from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.types import Conversation, Hints, Message, Point, Prompt, Skeleton

__all__ = [
    "ALIASES",
    "PLACEHOLDERS",
    "Example",
    "FewShot",
    "PromptSet",
    "PromptTemplate",
    "Template",
    "begin_with",
    "how_long",
    "how_many",
]

_ROLE_SWITCH = "[ROLESWITCHING assistant:]"
"""How the paper's prompt files mark the place where the assistant's turn begins."""

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
            values |= _point_values(Skeleton(points), points[self.index - 1])
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
        text, start = self.instruction, ""
        messages: Iterable[Message] | None = None
        if prefill and self.prefill:
            text, start = self.text, _fill(self.prefill, values)
            if self.few_shot is not None:
                messages = self._turns(self.few_shot, conversation, values)
        if messages is None:
            messages = (*conversation.history, _user(_fill(text, values), conversation))
        return Prompt(tuple(messages), start, replace(self.hints, max_tokens=self._limit(values)))

    @property
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
                yield Message("user", _fill(opening[0], known))
                yield Message("assistant", _fill(opening[1], known))
            question = example.question
            yield Message("user", _fill(text, known))
            yield Message("assistant", example.turn(_fill(self.prefill, known), known))
        yield from conversation.turns
        asked = _fill(text, values)
        if opening is None:
            yield _user(asked, conversation)
        else:
            yield _user(_fill(opening[0], values), conversation)
            yield Message("assistant", _fill(opening[1], values))
            yield Message("user", asked)

    def _limit(self, values: Mapping[str, str]) -> int | None:
        if self.hints.max_tokens is not None or self.tokens_per is None:
            return self.hints.max_tokens
        name, tokens = self.tokens_per
        value = values[name]
        return (int(value) if value.isdecimal() else len(value.encode()) // 2 + 64) * tokens


def _point_values(skeleton: Skeleton, point: Point) -> dict[str, str]:
    return {**_skeleton_values(skeleton), "index": str(point.index), "title": point.title}


def _skeleton_values(skeleton: Skeleton) -> dict[str, str]:
    return {"skeleton": str(skeleton), "titles": "; ".join(skeleton.titles), "count": str(len(skeleton))}


def _shared_values(conversation: Conversation, max_points: int, words: int) -> dict[str, str]:
    return {
        "question": conversation.question,
        "max_points": str(max_points),
        "how_many": how_many(max_points),
        "words": str(words),
        "how_long": how_long(words),
    }


def how_many(max_points: int) -> str:
    """The number of points that a skeleton is asked for, in words."""
    return f"3 to {max_points}" if max_points > 3 else f"at most {max_points}"


def how_long(words: int) -> str:
    """The length of a point of so many words, in sentences: small models heed that better than a number."""
    lengths = ((20, "one sentence"), (60, "one or two sentences"), (150, "a short paragraph"))
    return next((length for most, length in lengths if words <= most), "a paragraph")


def begin_with(text: str, start: str) -> str:
    """The text of a user's turn that asks for what a prefill would have given."""
    return f"{text}\n\nBegin your answer with: {start.strip()}"


def _fill(text: str, values: Mapping[str, str]) -> str:
    # One pass over the template alone: what a value holds, braces included, is never read as a template.
    return _PLACEHOLDER.sub(lambda m: values.get(ALIASES.get(m[1], m[1]), m[0]), text)


def _user(text: str, conversation: Conversation) -> Message:
    attachments = conversation.attachments
    return Message("user", ({"type": "text", "text": text}, *attachments) if attachments else text)


def _mentions(template: PromptTemplate, names: Iterable[str]) -> Iterator[bool]:
    """Whether what a backend gets has one of these placeholders, for each kind of backend."""
    texts = [template.text + template.prefill + (template.instead or "")]
    if (shown := template.few_shot) is not None:
        texts.append("".join((shown.text or template.text, template.prefill, *(shown.opening or ()))))
    for text in texts:
        yield any(ALIASES.get(name, name) in names for name in _PLACEHOLDER.findall(text))


_BICYCLE = "What should I check before I buy a used bicycle?"
_BICYCLE_TITLES = (
    "Rust on the frame",
    "Worn brake pads",
    "Loose spokes and flat tyres",
    "Smooth gear changes",
    "The right size",
    "A fair price",
)
_PRINTING = "How did the printing press change Europe?"
_PRINTING_TITLES = (
    "Cheaper books",
    "More people who read",
    "Faster spread of science",
    "New religious movements",
    "Standard spelling",
    "The first newspapers",
    "Fears of the rulers",
)


_HEADINGS = (
    "{question}\n\nWrite only the headings of the answer: {how_many} different headings of 2 to 5 words, numbered."
)

_SKELETON = PromptTemplate(
    text=_HEADINGS,
    prefill="1.",
    instead="",
    hints=Hints(
        stop=("\n\n",),
        # Three headings have about as many.
        min_tokens=20,
        # Without them small models repeat a heading until they are stopped. A larger frequency penalty would make
        # them avoid the line ends, and so end the list early.
        frequency_penalty=0.2,
        presence_penalty=1.5,
    ),
    # A heading takes about half of that; a model that writes something else is stopped here.
    tokens_per=("max_points", 12),
    few_shot=FewShot(
        examples=(Example(_BICYCLE, _BICYCLE_TITLES), Example(_PRINTING, _PRINTING_TITLES)),
    ),
)

_STRUCTURED = PromptTemplate(
    text="{question}\n\nGive only the headings of the answer, in order: {how_many} different headings of 2 to 5 words.",
    # What follows no schema repeats itself for as long as it may.
    tokens_per=("max_points", 24),
)
"""The skeleton as data: the schema has the form, so the words ask for none."""

_MERGE = PromptTemplate(
    text=(
        "{question}\n\n"
        # The draft last: a small model then rewrites it, and else tends to reply to the instruction.
        "The parts of the answer below were written separately. Rewrite it as one text that reads smoothly: leave out "
        "what is said twice, keep all else, the order and the form. Write only the text.\n\n{draft}"
    ),
    # Well over the draft's length in most languages. A model that loops ends here.
    tokens_per=("draft", 1),
    hints=Hints(frequency_penalty=0.2),
)

_DIRECT = PromptTemplate("{question}")

_CONTEXT = "<context>\n{context}\n</context>\n\nKeep to the facts in the context."

_POINT = PromptTemplate(
    text=(
        "{question}\n\n"
        "The answer has these headings: {titles}.\n\n"
        'Write only what stands under the heading "{title}": {how_long}, at most {words} words.'
    ),
    prefill='"{title}" -',
    instead=" Begin with the text itself, without number or heading.",
    # A small model at times repeats the title and ends there.
    hints=Hints(stop=("\n",), min_tokens=10, frequency_penalty=0.5, presence_penalty=0.8),
    tokens_per=("words", 3),
    few_shot=FewShot(
        # The point as the next turn after the skeleton: nearer to the point's own title, a small model copies
        # the other titles; and the question with all that was given with it stands before what the model wrote.
        opening=(_HEADINGS, "{skeleton}"),
        text="In {how_long}, explain: {title}",
        # Two points of the same answer show that each text keeps to its own heading.
        examples=(
            Example(
                _BICYCLE,
                _BICYCLE_TITLES,
                (
                    "Brake pads wear thin with use and then scratch the rim, which costs far more than new pads.",
                    "Squeeze both levers hard and look for deep grooves along the rim before you pay.",
                    "Each pad should meet the metal flat and at the same time as the other.",
                    "A lever that touches the handlebar needs a new cable, which any shop fits in a few minutes.",
                    "Ride slowly downhill and stop with one brake, then with the other: a squeal is harmless, a "
                    "shudder is not.",
                    "Ask when the pads were last changed; a seller who knows has looked after the rest as well.",
                ),
                2,
            ),
            Example(
                _BICYCLE,
                _BICYCLE_TITLES,
                (
                    "The right size lets you stand over the top tube with both feet flat on the ground.",
                    "Too large a bicycle never becomes comfortable, whatever you adjust, so ride a few metres before "
                    "you decide.",
                    "With the saddle set, your knee stays slightly bent at the lowest point of the pedal.",
                    "Reach for the handlebar: your elbows should be soft, and your shoulders should not rise.",
                    "A saddle and a stem can be changed for little money, a frame that is too long cannot.",
                    "If you fall between two sizes, take the smaller one, which is easier to steer and to lift.",
                ),
                5,
            ),
        ),
    ),
)


@dataclass(frozen=True)
class PromptSet:
    """The prompts of Skeleton-of-Thought; the defaults are the project's own.

    Example:
        >>> from skeleton_of_thought import PromptSet
        >>> prompts = PromptSet(point="Q: {question}\\n{skeleton}\\nWrite point {index}, {title}.")

        What was retrieved is put into prompts that do not mention it:

        >>> from skeleton_of_thought.types import Conversation
        >>> prompts = PromptSet(context="Facts:\\n{context}")
        >>> print(prompts.direct_prompt(Conversation.of("Why?"), "It is warm.").messages[-1].text)
        Facts:
        It is warm.
        <BLANKLINE>
        Why?

    Attributes:
        skeleton: Asks for the skeleton; a `Template`, or a string with `{question}`.
        point: Asks for one point; a `Template`, or a string with `{question}` and `{index}` or `{title}`.
        route: Asks whether the question suits a skeleton; used by routers that ask a model.
        merge: Asks for one text in place of the points; a `Template`, or a string with `{draft}`.
        direct: Asks for a direct answer where something was retrieved; a `Template`, or a string with `{question}`.
            None for the question as it is, with the context. Without a context a direct answer is what the model
            says to the conversation as it is, and this has no part in it.
        context: How what was retrieved is shown by prompts for skeleton, points and direct answers that do not
            mention `{context}` themselves; a string with `{context}`. What was retrieved for the question comes
            before the turn that asks it, so that all prompts of an answer begin alike; what was retrieved for a point
            comes before the paragraph in which the point is first named.

    Raises:
        PromptFileError: A template lacks a placeholder without which it cannot work.
    """

    skeleton: Template | str = field(default=_SKELETON)
    point: Template | str = field(default=_POINT)
    route: Template | str | None = None
    merge: Template | str = field(default=_MERGE)
    direct: Template | str | None = None
    context: str = field(default=_CONTEXT)

    def __post_init__(self) -> None:
        for name, needed in (
            ("skeleton", ["question"]),
            ("point", ["index", "title"]),
            ("route", ["question"]),
            ("merge", ["draft"]),
            ("direct", ["question"]),
        ):
            template = getattr(self, name)
            if isinstance(template, str):
                template = PromptTemplate(template)
                object.__setattr__(self, name, template)
            if isinstance(template, PromptTemplate) and not all(_mentions(template, needed)):
                wanted = " or ".join(f"{{{n}}}" for n in needed)
                raise PromptFileError(
                    f"The {name} prompt never mentions {wanted}, so the model would not know what to write: "
                    f"{template.text[:60]!r}. Put {wanted} into it."
                )
        if not isinstance(self.context, str) or "{context}" not in self.context:
            raise PromptFileError(
                f"The wording for a context must be a string with {{context}}, not {str(self.context)[:60]!r}."
            )

    @classmethod
    def from_json(
        cls,
        source: str | os.PathLike[str] | Mapping[str, Any],
        *,
        route: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    ) -> PromptSet:
        """The prompts of a file in the JSON format that the paper's authors published.

        Keys are `outline_prompt` and `point_prompt`; text after the marker `[ROLESWITCHING assistant:]`
        becomes the prefill. Placeholders `{request}`, `{outline}`, `{point}` and `{point_outline}` are
        understood. A router's file has the one key `prompt`.

        Args:
            source: A path, or the file's content as a mapping.
            route: The same for the router's prompt.

        Raises:
            PromptFileError: The file cannot be read, is not JSON, or lacks a key or placeholder.
        """
        data = _load(source)
        return cls(
            skeleton=_switched(data, "outline_prompt", source),
            point=_switched(data, "point_prompt", source),
            route=None if route is None else _switched(_load(route), "prompt", route),
        )

    def skeleton_prompt(
        self,
        conversation: Conversation,
        *,
        max_points: int,
        words: int,
        prefill: bool,
        structured: bool = False,
        context: str = "",
    ) -> Prompt:
        """The prompt that asks for the skeleton.

        Args:
            conversation: The question and what was said before it.
            max_points: The most points.
            words: The length of a point.
            prefill: Whether the backend continues the start of the assistant's turn.
            structured: Whether the backend gives it as data. A prompt of the caller's own serves for both.
            context: What was retrieved for the question.
        """
        template = _STRUCTURED if structured and self.skeleton == _SKELETON else self.skeleton
        values = _shared_values(conversation, max_points, words) | {"context": context}
        return self._render(template, conversation, values, prefill=prefill and not structured)

    def point_prompt(
        self,
        conversation: Conversation,
        skeleton: Skeleton,
        point: Point,
        *,
        max_points: int,
        words: int,
        prefill: bool,
        context: str = "",
        own_context: bool = False,
    ) -> Prompt:
        """The prompt that asks for one point.

        Args:
            conversation: The question and what was said before it.
            skeleton: The points that are known by now.
            point: The point.
            max_points: The most points.
            words: The length of a point.
            prefill: Whether the backend continues the start of the assistant's turn.
            context: What was retrieved.
            own_context: Whether that was for this point alone. If not it was for the question, and all points show it.
        """
        values = _shared_values(conversation, max_points, words) | _point_values(skeleton, point)
        values["context"] = context
        return self._render(self.point, conversation, values, prefill=prefill, own_context=own_context)

    def direct_prompt(self, conversation: Conversation, context: str = "") -> Prompt:
        """The prompt of a direct answer: the conversation as it is; with a context, the question together with that."""
        if not context.strip():
            return Prompt(conversation.messages)
        template = _DIRECT if self.direct is None else self.direct
        values = {"question": conversation.question, "context": context}
        return self._render(template, conversation, values, prefill=False)

    def _render(
        self,
        template: Template | str,
        conversation: Conversation,
        values: Mapping[str, str],
        *,
        prefill: bool,
        own_context: bool = False,
    ) -> Prompt:
        def render(values: Mapping[str, str]) -> Prompt:
            return _made(template).render(conversation, values, prefill=prefill)

        block = _fill(self.context, {"context": values["context"]})
        return with_context(render, values, block, own=own_context)

    def merge_prompt(
        self, conversation: Conversation, skeleton: Skeleton, draft: str, *, max_points: int, words: int
    ) -> Prompt:
        """The prompt that asks for one text in place of the points; `draft` is the points, joined."""
        values = _shared_values(conversation, max_points, words) | _skeleton_values(skeleton) | {"draft": draft}
        return _made(self.merge).render(conversation, values, prefill=False)


def _made(template: Template | str) -> Template:
    # `PromptSet` has made templates of strings. `isinstance` would ask a protocol for its members with each call.
    return cast(Template, template)


def _load(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} holds no JSON object.")
    return data


def _switched(data: Mapping[str, Any], key: str, source: object) -> PromptTemplate:
    text = data.get(key)
    if not isinstance(text, str) or not text.strip():
        name = "" if isinstance(source, Mapping) else f" of {source}"
        hint = " (a router's prompt goes into `route=`)" if "prompt" in data and key != "prompt" else ""
        raise PromptFileError(
            f"The prompts{name} have no text under {key!r}; found keys: {sorted(map(str, data))}{hint}."
        )
    user, mark, assistant = text.partition(_ROLE_SWITCH)
    return PromptTemplate(user.rstrip() if mark else user, prefill=assistant.strip())
