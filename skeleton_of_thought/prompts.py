"""The set of prompts that the user can replace, for skeleton, points, merge, route and direct answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from skeleton_of_thought.default_prompts import CONTEXT, DIRECT, MERGE, POINT, SKELETON, STRUCTURED
from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.examples import Example, FewShot
from skeleton_of_thought.prompt_files import read_prompt_file, template_of_file
from skeleton_of_thought.templates import (
    ALIASES,
    PLACEHOLDERS,
    AnswerPrompts,
    PromptTemplate,
    Template,
    begin_with,
    how_long,
    how_many,
    mentions,
)
from skeleton_of_thought.types import Conversation, Point, Prompt, Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.plan_prompts import PlannedPoint, PlannedStage

__all__ = [
    "ALIASES",
    "DEFAULT_PROMPTS",
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
        scoped: Asks for a skeleton with notes (`Settings.planning="scoped"`), as `skeleton` does for titles. The fields
            from here on are for planned answers, and None for the project's own.
        graph: Asks for a skeleton whose points also build on each other (`"graph"`).
        planned_point: Asks for one point of such a skeleton, as `point` does; with None and a `point` of the caller's
            own, that one does.
        parents: The wording for the texts that a point builds on, in prompts that do not mention `{parents}`
            themselves; a string with `{parents}`. It stands before the paragraph that first names the point, and
            before a context of its own. By example turns, these texts are turns, without this wording.
        missing: Added to the prompt of a point that is written without a point that it builds on; a string with
            `{missing}`, the titles of those.
        opening: Asks for the sentences before the points; a `Template`, or a string with `{draft}`.
        closing: Asks for the conclusion after them; the same.
        item: Asks for one item of a question that is answered item by item (`Settings.items`); a `Template`, or a
            string with `{instruction}`, the words that all items share, and `{item}`, which should come last; also
            `{index}` and `{count}`. None for the project's own, in the question's language.
        rewrite: Added to the prompt of a point that is written anew because it repeats another; a string with
            `{passage}`.

    Raises:
        PromptFileError: A template lacks a placeholder without which it cannot work.
    """

    skeleton: Template | str = field(default=SKELETON)
    point: Template | str = field(default=POINT)
    route: Template | str | None = None
    merge: Template | str = field(default=MERGE)
    direct: Template | str | None = None
    context: str = field(default=CONTEXT)
    scoped: Template | str | None = None
    graph: Template | str | None = None
    planned_point: Template | str | None = None
    parents: str | None = None
    missing: str | None = None
    opening: Template | str | None = None
    closing: Template | str | None = None
    rewrite: str | None = None
    item: Template | str | None = None

    def __post_init__(self) -> None:
        for name, needed in (
            ("skeleton", ["question"]),
            ("point", ["index", "title"]),
            ("route", ["question"]),
            ("merge", ["draft"]),
            ("direct", ["question"]),
            ("scoped", ["question"]),
            ("graph", ["question"]),
            ("planned_point", ["index", "title", "heading"]),
            ("opening", ["draft"]),
            ("closing", ["draft"]),
            ("item", ["item"]),
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
        for name, placeholder in (("parents", "parents"), ("missing", "missing"), ("rewrite", "passage")):
            wording = getattr(self, name)
            if wording is not None and (not isinstance(wording, str) or f"{{{placeholder}}}" not in wording):
                raise PromptFileError(
                    f"The wording {name} must be a string with {{{placeholder}}}, not {str(wording)[:60]!r}."
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
        stages = ["skeleton"] if prefill else []
        prompts = AnswerPrompts(self, conversation, max_points=max_points, words=words, prefill=stages)
        prompts.context = context
        return prompts.skeleton(structured=structured)

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
        stages = ["point"] if prefill else []
        prompts = AnswerPrompts(
            self, conversation, max_points=max_points, words=words, prefill=stages, own_context=own_context
        )
        return prompts.point(skeleton, point, context)

    def direct_prompt(self, conversation: Conversation, context: str = "") -> Prompt:
        """The prompt of a direct answer: the conversation as it is, or with a context both together."""
        prompts = AnswerPrompts(self, conversation, max_points=1, words=1)
        prompts.context = context
        return prompts.direct()

    def merge_prompt(
        self, conversation: Conversation, skeleton: Skeleton, draft: str, *, max_points: int, words: int
    ) -> Prompt:
        """The prompt that asks for one text in place of the points; `draft` is the points, joined."""
        return AnswerPrompts(self, conversation, max_points=max_points, words=words).merge(skeleton, draft)

    @property
    def structured_skeleton(self) -> Template | str:
        """Asks for the skeleton where the backend gives it as data. A template of the caller's serves for both."""
        return STRUCTURED if self.skeleton == SKELETON else self.skeleton

    def planned(self, stage: PlannedStage, *, structured: bool = False) -> Template:
        """The template of a stage of planned answers: the caller's, or the project's own.

        Args:
            stage: `"scoped"`, `"graph"`, `"planned_point"`, `"opening"` or `"closing"`.
            structured: Whether the backend gives a plan as data. A template of the caller's serves for both.
        """
        # Most answers have titles alone.
        from skeleton_of_thought.plan_prompts import planned_template

        return planned_template(self, stage, structured=structured)

    def laid_out(
        self, stage: Literal["point", "planned_point"], shared: Mapping[str, str], *needs: Any
    ) -> PlannedPoint:
        """The template for one point, with all that its prompt shows of other points.

        Args:
            stage: The template's field.
            shared: The values of every point, with the length of all points.
            needs: As `PlannedPoint` takes them.
        """
        from skeleton_of_thought.default_plans import MISSING, PARENTS, REWRITE
        from skeleton_of_thought.plan_prompts import PlannedPoint

        wordings = {
            "parents": self.parents or PARENTS,
            "missing": self.missing or MISSING,
            "rewrite": self.rewrite or REWRITE,
        }
        template = self.planned(stage) if stage == "planned_point" else cast(Template, self.point)
        return PlannedPoint(template, wordings, shared, *needs)

    @property
    def direct_with_context(self) -> Template | str:
        """Asks for a direct answer with a context."""
        return DIRECT if self.direct is None else self.direct

    @property
    def has_own_merge(self) -> bool:
        """Whether the caller has given a template for the merge."""
        return self.merge != MERGE


DEFAULT_PROMPTS = PromptSet()
"""The project's own prompts, made once for all answers."""
