"""Templates, and the prompts of one answer that they make.

Every point's prompt has the same order: the caller's system message, examples for backends that need them, the caller's
history, the question, the skeleton, and at the very end the words of this point alone. So the prompts of one answer
share the longest possible prefix, which providers and servers cache and the local engine computes once. Points that
start before the skeleton is complete share all but its last lines.

The context of the question stands before the question, in every prompt of the answer. The context of a point stands
right before the words of this point alone. A template can place either with `{context}`.

Skeletons, drafts and contexts are no text of the caller's, so no special token may come from them (`special_tokens`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from skeleton_of_thought.context import with_context
from skeleton_of_thought.parsing.special_tokens import MAY_BE_SPECIAL, break_special_tokens
from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.types import Conversation, Expansion, Hints, Message, Planning, Point, Prompt, Role, Skeleton
from skeleton_of_thought.types.calls import with_hints

if TYPE_CHECKING:
    from skeleton_of_thought.examples import FewShot
    from skeleton_of_thought.prompts import PromptSet

__all__ = [
    "ALIASES",
    "PLACEHOLDERS",
    "AnswerPrompts",
    "FilledTemplate",
    "PromptTemplate",
    "Template",
    "begin_with",
    "fill",
    "how_long",
    "how_many",
    "mentions",
    "skeleton_values",
    "unknown_placeholders",
    "with_history",
    "with_system",
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
            *("plan", "scope", "heading", "parents"),
            *("max_points", "how_many", "words", "how_long"),
        }
    ),
    "merge": frozenset(
        {
            *("question", "context", "skeleton", "titles", "count", "draft"),
            *("max_points", "how_many", "words", "how_long"),
        }
    ),
    "direct": frozenset({"question", "context"}),
    "item": frozenset({"question", "context", "instruction", "item", "index", "count"}),
}
"""The placeholders of each stage. `context` is empty without retrieval, and `parents` for points that need none.

The skeletons of planned answers have those of `skeleton`, their points those of `point`, their opening and closing
those of `merge`.
"""

_TEXTS = frozenset({"question", "context", "skeleton", "titles", "title", "draft", "plan", "heading", "parents"})

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_QUOTED = ("skeleton", "titles", "title", "scope", "parents", "passage", "draft", "context")
"""The placeholders whose values a model wrote or a retriever found."""
_OF_QUOTED = ("plan", "heading")
"""The placeholders whose values are made of those."""


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
class PromptTemplate:
    """A user turn with `{placeholders}`, and the start of the assistant's turn.

    Placeholders: `{question}`, `{max_points}`, `{how_many}` ("3 to 10"), `{words}` and `{how_long}` ("one or two
    sentences"); for points also `{skeleton}` (the numbered list), `{titles}` (the same in one line), `{count}`
    (the number of points), `{index}` and `{title}`; `{context}`, which is empty without retrieval. For points of a
    plan also `{scope}` (what the point covers), `{heading}` (the title with it), `{plan}` (the list with what each
    point covers, as `{skeleton}`) and `{parents}` (the texts that it builds on). All other braces stay as they are,
    also those in values.

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
            messages = tuple(self.few_shot.turns(self, conversation, values))
        else:
            text = fill(self.text if prefill else self.instruction, values)
            messages = (*conversation.history, Message("user", text))
        hints = self.hints
        if hints.max_tokens is None and self.tokens_per is not None:
            name, tokens = self.tokens_per
            value = values[name]
            # A number as it is; for a text, which may be all digits, the most tokens that it is likely to have.
            number = name not in _TEXTS and len(value) < 10 and value.isdecimal()
            units = int(value) if number else len(value.encode(errors="replace")) // 2 + 64
            hints = replace(hints, max_tokens=tokens * units)
        return Prompt(messages, fill(self.prefill, values) if prefill else "", hints)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(with_hints(state))

    @cached_property
    def instruction(self) -> str:
        """The user's turn, with its placeholders, for backends that do not continue a prefill."""
        if self.instead is not None:
            return self.text + self.instead
        return begin_with(self.text, self.prefill) if self.prefill else self.text


def begin_with(text: str, start: str) -> str:
    """The text of a user's turn that asks the model to begin as a prefill would."""
    return f"{text}\n\nBegin your answer with: {start.strip()}"


def with_history(turns: Sequence[Message], conversation: Conversation) -> tuple[Message, ...]:
    """A template's turns, with the caller's history after the template's system messages."""
    system, turns = with_system(turns, conversation)
    return (*system, *conversation.turns, *turns)


def with_system(
    turns: Sequence[Message], conversation: Conversation
) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The caller's system messages with those at the front of a template's turns, and the other turns.

    A template's system message and the caller's become one, because strict servers reject a second one.
    """
    count = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    messages = (*conversation.system, *turns[:count])
    if count and len(messages) > 1:
        contents = [message.content for message in messages if message.content]
        if all(isinstance(content, str) for content in contents):
            messages = (Message("system", "\n\n".join(map(str, contents))),)
        else:  # content blocks stay apart
            blocks = [({"type": "text", "text": c},) if isinstance(c, str) else c for c in contents]
            messages = (Message("system", tuple(chain.from_iterable(blocks))),)
    return messages, tuple(turns[count:])


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


def unknown_placeholders(template: PromptTemplate, known: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The placeholders of a template that are not known: those that need a value, and all of them.

    Braces in the middle of other text, as in `\\frac{a}{b}`, `${HOME}` or `{{name}}`, are probably no placeholder: a
    value fills them, but they need none.
    """
    needed: set[str] = set()
    names: set[str] = set()
    for text in (template.text, template.prefill, template.instead or ""):
        plain_end = -1  # of the braces before, if they are probably text
        for match in _PLACEHOLDER.finditer(text):
            name, before, after = match[1], text[: match.start()][-1:], text[match.end() :][:1]
            if not name.isidentifier() or ALIASES.get(name, name) in known:
                continue
            names.add(name)
            if match.start() == plain_end or before.isalnum() or before in tuple("\\{^_$") or after == "}":
                plain_end = match.end()
            else:
                needed.add(name)
    return frozenset(needed), frozenset(names)


@dataclass(frozen=True)
class FilledTemplate(Portable):
    """A template with values of the caller's for its own placeholders.

    Attributes:
        template: The template.
        values: The values by the placeholders' names. Values of the stage with the same name take precedence.
    """

    template: Template
    values: Mapping[str, str]

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, as `Template.render` describes."""
        return self.template.render(conversation, {**self.values, **values}, prefill=prefill)


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with values for its placeholders; a placeholder without a value stays as it is."""
    # The template is split once, so braces in values are never read as placeholders.
    parts = _PLACEHOLDER.split(text)
    for i in range(1, len(parts), 2):
        name = parts[i]
        parts[i] = values.get(ALIASES.get(name, name), f"{{{name}}}")
    return "".join(parts)


def skeleton_values(skeleton: Skeleton, point: Point | None = None) -> dict[str, str]:
    """The values of a stage that shows the skeleton, and perhaps one of its points."""
    values = {"skeleton": str(skeleton), "titles": "; ".join(skeleton.titles), "count": str(len(skeleton.points))}
    if point is not None:
        values |= {"index": str(point.index), "title": point.title, "scope": point.scope, "plan": values["skeleton"]}
        values["heading"] = f"{point.title}: {point.scope}" if point.scope else point.title
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


class AnswerPrompts:
    """The prompts of one answer.

    Args:
        prompts: The templates.
        conversation: The question and the turns before it.
        max_points: The most points.
        words: The length of a point.
        prefill: The stages whose backend continues the start of an assistant's turn.
        own_context: Whether each point has a context of its own.

    Attributes:
        prompts: As given; others for the items of a question.
        context: The context of the question; empty before its retrieval.
        planning: The kind of the skeleton. Set it for a skeleton that is not asked for.
    """

    def __init__(
        self,
        prompts: PromptSet,
        conversation: Conversation,
        max_points: int,
        words: int,
        *,
        prefill: Collection[str] = (),
        own_context: bool = False,
    ) -> None:
        self.context = ""
        self.planning: Planning = "titles"
        self._own_words: dict[int, int] = {}
        self.prompts = prompts
        self._conversation = conversation
        self._prefill = prefill
        self._own_context = own_context
        self._has_blocks = not isinstance(conversation.messages[-1].content, str)
        self._values = {
            "question": conversation.question,
            "max_points": str(max_points),
            "how_many": how_many(max_points),
            "words": str(words),
            "how_long": how_long(words),
        }

    def skeleton(self, *, structured: bool, planning: Planning = "titles") -> Prompt:
        """Asks for the skeleton; its kind is then that of the answer."""
        template = self.prompts.structured_skeleton if structured else self.prompts.skeleton
        self.planning = planning
        if planning != "titles":
            template = self.prompts.planned(planning, structured=structured)
        prefill = "skeleton" in self._prefill and not structured
        return self._render(template, {**self._values, "context": self.context}, prefill=prefill)

    def point(
        self,
        skeleton: Skeleton,
        point: Point,
        context: str,
        *,
        parents: Sequence[Expansion] = (),
        missing: Collection[int] = (),
        passage: str = "",
        words: int | None = None,
    ) -> Prompt:
        """Asks for a point.

        Args:
            skeleton: The points that are known by now.
            point: The point.
            context: Its own context, if it has one.
            parents: The points that it builds on and that are written, in document order.
            missing: The indices of those that failed.
            passage: A passage of another point that the text must not repeat.
            words: Its own length; None for that of all points.
        """
        values = {**self._values, **skeleton_values(skeleton, point), "context": context or self.context, "parents": ""}
        planned = self.planning != "titles" or point.scope or point.depends_on
        prefill, own_context = "point" in self._prefill, self._own_context
        if not (planned or parents or missing or passage or words):
            return self._render(self.prompts.point, values, prefill=prefill, own_context=own_context)
        if words:
            self._own_words[point.index] = words
            values |= {"words": str(words), "how_long": how_long(words)}
        needs = (skeleton, parents, missing, passage, self._own_words)
        laid_out = self.prompts.laid_out("planned_point" if planned else "point", self._values, *needs)
        values |= laid_out.values
        of_quoted = (*_OF_QUOTED, *laid_out.values)
        return self._render(laid_out, values, prefill=prefill, own_context=own_context, of_quoted=of_quoted)

    def direct(self) -> Prompt:
        """Asks for a direct answer: with the conversation as it is, or with a context both together."""
        if not self.context.strip():
            return Prompt(self._conversation.messages)
        values = {"question": self._conversation.question, "context": self.context}
        return self._render(self.prompts.direct_with_context, values)

    def merge(self, skeleton: Skeleton, draft: str) -> Prompt:
        """Asks for one text in place of the points; `draft` is the points, joined.

        A merge changes no content, so its prompt shows the context of the question only where the template asks for it.
        """
        values = {**self._values, **skeleton_values(skeleton), "draft": draft, "context": self.context}
        return self._render(self.prompts.merge, values, places_context=False)

    def role(self, role: Role, skeleton: Skeleton, draft: str, words: int = 40) -> Prompt:
        """Asks for the opening or the closing; `draft` is the points, joined, and `words` the length."""
        own = {"words": str(words), "how_long": how_long(words), "draft": draft, "context": self.context}
        values = {**self._values, **skeleton_values(skeleton), **own}
        return self._render(self.prompts.planned(role), values, prefill=role in self._prefill, places_context=False)

    @property
    def has_own_merge(self) -> bool:
        """Whether the caller has given a template for the merge."""
        return self.prompts.has_own_merge

    def merge_material(self, skeleton: Skeleton, draft: str) -> list[str]:
        """The texts that the prompt of a merge may hold besides its instruction."""
        texts = [message.text for message in self._conversation.messages]
        own = [draft, str(skeleton), "; ".join(skeleton.titles)]
        return [*texts, *own, *map(break_special_tokens, filter(MAY_BE_SPECIAL.search, own))]

    def _render(
        self,
        template: Template | str,
        values: Mapping[str, str],
        *,
        prefill: bool = False,
        own_context: bool = False,
        places_context: bool = True,
        checks: bool = True,
        of_quoted: tuple[str, ...] = _OF_QUOTED,
    ) -> Prompt:
        quoted = tuple(filter(None, map(values.get, _QUOTED)))
        if checks and MAY_BE_SPECIAL.search("\n".join(quoted)):
            safe = {
                **values,
                **{name: break_special_tokens(values[name]) for name in (*_QUOTED, *of_quoted) if name in values},
            }
            ways = {"prefill": prefill, "own_context": own_context, "places_context": places_context, "checks": False}
            prompt = self._render(template, safe, **ways, of_quoted=of_quoted)
            exact = None if safe == values else self._render(template, values, **ways, of_quoted=of_quoted)
            return replace(prompt, exact=exact)
        # `PromptSet` has made templates of strings; `isinstance` would look for each member of the protocol.
        own = cast(Template, template)
        context = values.get("context", "") if places_context else ""
        if not context.strip():
            prompt = own.render(self._conversation, values, prefill=prefill)
        else:

            def render(values: Mapping[str, str]) -> Prompt:
                return own.render(self._conversation, values, prefill=prefill)

            block = fill(self.prompts.context, {"context": context})
            prompt = with_context(render, values, block, own=own_context)
        prompt = replace(prompt, quoted=quoted)
        return self._with_blocks(prompt) if self._has_blocks else prompt

    def _with_blocks(self, prompt: Prompt) -> Prompt:
        # Most questions are plain texts.
        from skeleton_of_thought.blocks import with_blocks

        return with_blocks(prompt, self._conversation)
