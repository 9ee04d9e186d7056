"""The prompts of planned answers: skeletons with notes, points that see others' texts, the opening and the closing.

A point's prompt keeps the order of all points' prompts: what the answer's points share, then the texts of the points
that it builds on, in document order, and at the very end its own words. So points that build on the same ones share
their texts, too. By example turns, these texts are turns after the skeleton, each as that point was asked for and
answered: such a prompt extends the prompt of the first of these points, and a local engine has computed it already.

Only planned answers import this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

from skeleton_of_thought import default_plans as defaults
from skeleton_of_thought.context import with_context
from skeleton_of_thought.default_prompts import POINT
from skeleton_of_thought.templates import PromptTemplate, Template, fill, how_long, skeleton_values
from skeleton_of_thought.types import Conversation, Expansion, Message, Prompt, Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.examples import FewShot
    from skeleton_of_thought.prompts import PromptSet

__all__ = ["PlannedPoint", "PlannedStage", "planned_template"]

PlannedStage = Literal["scoped", "graph", "planned_point", "opening", "closing"]
"""The fields of a `PromptSet` that planned answers use, and that are None for the defaults."""

_DEFAULTS: Mapping[str, PromptTemplate] = {
    "scoped": defaults.SCOPED,
    "graph": defaults.GRAPH,
    "planned_point": defaults.PLANNED_POINT,
    "opening": defaults.OPENING,
    "closing": defaults.CLOSING,
}
_STRUCTURED: Mapping[str, PromptTemplate] = {"scoped": defaults.STRUCTURED_SCOPED, "graph": defaults.STRUCTURED_GRAPH}


def planned_template(prompts: PromptSet, stage: PlannedStage, *, structured: bool = False) -> Template:
    """The template of a stage of planned answers: the caller's, or the default.

    A caller who has replaced the prompt for points, but not the one for planned points, gets their own for both.

    Args:
        prompts: The caller's prompts.
        stage: The field of the set.
        structured: Whether the backend gives the plan as data. A template of the caller's serves for both.
    """
    own = getattr(prompts, stage)
    if own is None and stage == "planned_point" and prompts.point != POINT:
        own = prompts.point
    if own is None:
        own = _STRUCTURED[stage] if structured else _DEFAULTS[stage]
    return cast(Template, own)


@dataclass(frozen=True)
class PlannedPoint:
    """A template for one point of a plan, which lays out the texts that the point builds on.

    Attributes:
        template: The template.
        wordings: The wordings of the set, by their fields: `parents`, `missing` and `rewrite`.
        shared: The values of every point, with the length of all points.
        skeleton: The points that are known by now.
        parents: The written points that this one builds on, in document order.
        missing: The indices of those that failed.
        passage: A passage of another point that the text must not repeat; empty if there is none.
        own_words: By index, the lengths of points that have lengths of their own.
    """

    template: Template
    wordings: Mapping[str, str]
    shared: Mapping[str, str]
    skeleton: Skeleton
    parents: Sequence[Expansion] = ()
    missing: Collection[int] = ()
    passage: str = ""
    own_words: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def values(self) -> dict[str, str]:
        """The values of this point besides those of every point, made of what a model wrote.

        The text of each parent has a name of its own, which no placeholder can have.
        """
        texts = [parent.text.strip() for parent in self.parents]
        values = {
            "parents": "\n\n".join(f"{e.point}\n{text}" for e, text in zip(self.parents, texts, strict=True)),
            "missing": "; ".join(str(point) for point in self.skeleton.points if point.index in self.missing),
            "passage": self.passage.strip(),
        }
        for i, (parent, text) in enumerate(zip(self.parents, texts, strict=True)):
            shown = {**skeleton_values(self.skeleton, parent.point), "text": text}
            values |= {_name(i, name): value for name, value in shown.items()}
        return values

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The prompt of one call, as `Template.render` describes."""
        plain = {name: value for name, value in values.items() if " " not in name}
        few_shot = _few_shot(self.template) if prefill else None
        as_turns = few_shot is not None and few_shot.opening is not None and "{parents}" not in (few_shot.text or "")

        def render(plain: Mapping[str, str]) -> Prompt:
            own = self.template.render(conversation, plain, prefill=prefill)
            if few_shot is None:
                return own
            # Examples of the length of all points, which points of other lengths share.
            usual = {**plain, "words": self.shared["words"], "how_long": self.shared["how_long"]}
            before = self.template.render(conversation, usual, prefill=prefill).messages[:-1]
            turns = self._turns(few_shot, usual, values) if as_turns else ()
            return dataclasses.replace(own, messages=(*before, *turns, own.messages[-1]))

        if as_turns or not plain["parents"]:
            prompt = render(plain)
        else:
            block = fill(self.wordings["parents"], plain)
            prompt = with_context(render, plain, block, own=True, key="parents")
        notes = [fill(self.wordings[name], plain) for name, value in _NOTES.items() if plain[value]]
        return _with_notes(prompt, notes) if notes else prompt

    def _turns(self, few_shot: FewShot, usual: Mapping[str, str], values: Mapping[str, str]) -> Iterator[Message]:
        """Each parent as it was asked for, and its text."""
        template = cast(PromptTemplate, self.template)
        for i, parent in enumerate(self.parents):
            # From the values, because special tokens may have been broken there.
            of_parent = {
                name: values[_name(i, name)] for name in (*skeleton_values(self.skeleton, parent.point), "text")
            }
            known = {**usual, **of_parent}
            if words := self.own_words.get(parent.point.index):
                known |= {"words": str(words), "how_long": how_long(words)}
            yield Message("user", fill(few_shot.text or template.text, known))
            yield Message("assistant", f"{fill(template.prefill, known)} {known['text']}")


_NOTES = {"missing": "missing", "rewrite": "passage"}
"""The wordings at the very end of a prompt, with the value without which they are left out."""


def _name(parent: int, name: str) -> str:
    return f"parent {parent} {name}"


def _few_shot(template: Template) -> FewShot | None:
    return template.few_shot if isinstance(template, PromptTemplate) and template.prefill else None


def _with_notes(prompt: Prompt, notes: Sequence[str]) -> Prompt:
    """The prompt with these paragraphs at the end of its last turn of the user."""
    users = [i for i, message in enumerate(prompt.messages) if message.role == "user"]
    turn = users[-1] if users else len(prompt.messages) - 1
    message, text = prompt.messages[turn], "\n\n".join(notes)
    if isinstance(message.content, str):
        changed = Message(message.role, f"{message.content}\n\n{text}")
    else:
        changed = Message(message.role, (*message.content, {"type": "text", "text": text}))
    return dataclasses.replace(prompt, messages=(*prompt.messages[:turn], changed, *prompt.messages[turn + 1 :]))
