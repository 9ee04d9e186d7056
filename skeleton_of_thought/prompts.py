"""The prompts for skeleton, points, merge, route and direct answers.

Every point's prompt has the same order: the caller's system message, examples for backends that need them, the caller's
history, the question, the skeleton, and at the very end the words of this point alone. So the prompts of one answer
share the longest possible prefix, which providers and servers cache and the local engine computes once. Points that
start before the skeleton is complete share all but its last lines.

The context of the question stands before the question, in every prompt of the answer. The context of a point stands
right before the words of this point alone. A template can place either with `{context}`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from skeleton_of_thought.context import with_context
from skeleton_of_thought.default_prompts import CONTEXT, DIRECT, MERGE, POINT, SKELETON, STRUCTURED
from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.prompt_files import read_prompt_file, template_of_file
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.templates import (
    ALIASES,
    PLACEHOLDERS,
    Example,
    FewShot,
    PromptTemplate,
    Template,
    begin_with,
    fill,
    how_long,
    how_many,
    mentions,
    shared_values,
    skeleton_values,
)
from skeleton_of_thought.types import Conversation, Point, Prompt, Retrieval, Skeleton

__all__ = [
    "ALIASES",
    "PLACEHOLDERS",
    "AnswerPrompts",
    "Example",
    "FewShot",
    "PromptSet",
    "PromptTemplate",
    "Template",
    "begin_with",
    "how_long",
    "how_many",
]


@dataclass(frozen=True)
class PromptSet:
    """The prompts of Skeleton-of-Thought; the defaults are the project's own.

    Example:
        >>> from skeleton_of_thought import PromptSet
        >>> prompts = PromptSet(point="Q: {question}\\n{skeleton}\\nWrite point {index}, {title}.")

        A context is put into prompts that do not mention it:

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
        direct: Asks for a direct answer with a context; a `Template`, or a string with `{question}`. None for the
            question as it is, with the context. Without a context this is not used: the model gets the conversation
            as it is.
        context: The wording for a context in prompts for skeleton, points and direct answers that do not mention
            `{context}` themselves; a string with `{context}`. The context of the question comes before the turn that
            asks it, so that all prompts of an answer begin alike. The context of a point comes before the paragraph
            that first names the point.

    Raises:
        PromptFileError: A template lacks a placeholder without which it cannot work.
    """

    skeleton: Template | str = field(default=SKELETON)
    point: Template | str = field(default=POINT)
    route: Template | str | None = None
    merge: Template | str = field(default=MERGE)
    direct: Template | str | None = None
    context: str = field(default=CONTEXT)

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
            if isinstance(template, PromptTemplate) and not mentions(template, needed):
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
        data = read_prompt_file(source)
        return cls(
            skeleton=template_of_file(data, "outline_prompt", source),
            point=template_of_file(data, "point_prompt", source),
            route=None if route is None else template_of_file(read_prompt_file(route), "prompt", route),
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
            conversation: The question and the turns before it.
            max_points: The most points.
            words: The length of a point.
            prefill: Whether the backend continues the start of an assistant's turn.
            structured: Whether the backend gives the skeleton as data. A prompt of the caller's own serves for both.
            context: The context of the question.
        """
        template = STRUCTURED if structured and self.skeleton == SKELETON else self.skeleton
        values = shared_values(conversation, max_points, words) | {"context": context}
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
            conversation: The question and the turns before it.
            skeleton: The points that are known by now.
            point: The point.
            max_points: The most points.
            words: The length of a point.
            prefill: Whether the backend continues the start of an assistant's turn.
            context: The context of the point or of the question.
            own_context: Whether the context is of this point alone, and not of the question.
        """
        values = shared_values(conversation, max_points, words) | skeleton_values(skeleton, point)
        values["context"] = context
        return self._render(self.point, conversation, values, prefill=prefill, own_context=own_context)

    def direct_prompt(self, conversation: Conversation, context: str = "") -> Prompt:
        """The prompt of a direct answer: the conversation as it is, or with a context both together."""
        if not context.strip():
            return Prompt(conversation.messages)
        template = DIRECT if self.direct is None else self.direct
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
        # `__post_init__` has made templates of strings; `isinstance` would look for each member of the protocol.
        own = cast(Template, template)
        context = values.get("context", "")
        if not context.strip():
            return own.render(conversation, values, prefill=prefill)

        def render(values: Mapping[str, str]) -> Prompt:
            return own.render(conversation, values, prefill=prefill)

        return with_context(render, values, fill(self.context, {"context": context}), own=own_context)

    def merge_prompt(
        self, conversation: Conversation, skeleton: Skeleton, draft: str, *, max_points: int, words: int
    ) -> Prompt:
        """The prompt that asks for one text in place of the points; `draft` is the points, joined."""
        values = shared_values(conversation, max_points, words) | skeleton_values(skeleton) | {"draft": draft}
        return self._render(self.merge, conversation, values, prefill=False)


class AnswerPrompts:
    """The prompts of one answer.

    Args:
        prompts: The templates.
        conversation: The question and the turns before it.
        settings: How the answer is made.
        prefill: The stages whose backend continues the start of an assistant's turn.
        retrieval: When calls retrieve.

    Attributes:
        context: The context of the question; empty before its retrieval.
    """

    def __init__(
        self,
        prompts: PromptSet,
        conversation: Conversation,
        settings: Settings,
        *,
        prefill: Collection[str],
        retrieval: Retrieval,
    ) -> None:
        self.context = ""
        self._prompts = prompts
        self._conversation = conversation
        self._size = {"max_points": settings.max_points, "words": settings.point_words}
        self._prefill = frozenset(prefill)
        self._own_context = retrieval == "per_point"

    def skeleton(self, *, structured: bool) -> Prompt:
        """Asks for the skeleton."""
        return self._prompts.skeleton_prompt(
            self._conversation,
            prefill="skeleton" in self._prefill,
            structured=structured,
            context=self.context,
            **self._size,
        )

    def point(self, skeleton: Skeleton, point: Point, context: str) -> Prompt:
        """Asks for a point; `context` is its own, if it has one."""
        return self._prompts.point_prompt(
            self._conversation,
            skeleton,
            point,
            prefill="point" in self._prefill,
            context=context or self.context,
            own_context=self._own_context,
            **self._size,
        )

    def direct(self) -> Prompt:
        """Asks for a direct answer."""
        return self._prompts.direct_prompt(self._conversation, self.context)

    def merge(self, skeleton: Skeleton, draft: str) -> Prompt:
        """Asks for one text in place of the points."""
        return self._prompts.merge_prompt(self._conversation, skeleton, draft, **self._size)

    @property
    def has_own_merge(self) -> bool:
        """Whether the caller has given a template for the merge."""
        return self._prompts.merge != PromptSet.merge

    def merge_material(self, skeleton: Skeleton, draft: str) -> list[str]:
        """The texts that the prompt of a merge may hold besides its instruction."""
        texts = [message.text for message in self._conversation.messages]
        return [*texts, draft, str(skeleton), "; ".join(skeleton.titles)]
