"""LangChain's prompt templates as the core's, and the core's prompts as LangChain templates."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    StringPromptTemplate,
)

from langchain_sot.messages import convert_message
from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.prompts import ALIASES, PLACEHOLDERS, PromptSet, PromptTemplate, Template, begin_with
from skeleton_of_thought.templates import unknown_placeholders, with_history, with_system
from skeleton_of_thought.types import Conversation, Message, Prompt

__all__ = ["HISTORY_NAMES", "LangChainTemplate", "chat_prompt", "prompt_set", "stage_template", "transcript"]

HISTORY_NAMES = ("chat_history", "history")
"""The names of the messages before the question, as keys of an input and as placeholders."""
_SPEAKERS = {"user": "Human", "assistant": "AI", "system": "System"}
_KNOWN = frozenset().union(*PLACEHOLDERS.values())
_BRACED = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LangChainTemplate(Portable):
    """A LangChain template in the core's prompt set.

    The caller's earlier turns take the place of the template's `chat_history` placeholder; without one they follow
    the template's system messages. The caller's system message and the template's are one. An AI message at the end is
    the start of the model's turn: a prefill for a backend that continues it, else an instruction to begin this way.

    Attributes:
        template: The template; LangChain formats its values, so braces in them are safe.
        values: The input's values for placeholders of the caller's own.
    """

    template: BasePromptTemplate[Any]
    values: Mapping[str, Any] = field(default_factory=dict)

    def own_placeholders(self, known: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The placeholders that are not known: those that need a value, and all that take one.

        Args:
            known: The names of the values that `render` gets.
        """
        known = {*known, *HISTORY_NAMES}
        template = self.template
        names = {*template.input_variables, *template.optional_variables, *template.partial_variables}
        return frozenset({*template.input_variables} - known - {"messages"}), frozenset(names - known)

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The template with these values, as `skeleton_of_thought.prompts.Template.render` describes."""
        names = _variables(self.template)
        known: dict[str, Any] = {name: value for name, value in values.items() if name in names}
        placed = [name for name in (*HISTORY_NAMES, "messages") if name in names]
        for name in placed:
            # The system message comes first by itself.
            messages = (*conversation.turns, conversation.messages[-1]) if name == "messages" else conversation.turns
            as_text = name not in _message_names(self.template)
            known[name] = transcript(messages) if as_text else [message.raw or message for message in messages]
        if self.values:
            names |= {*self.template.partial_variables}
            own = {name: value for name, value in self.values.items() if name in names}
            known = {**own, **known} if "messages" not in own else {**own, **known, "messages": own["messages"]}
        value = self.template.format_prompt(**known)
        turns = [_core_message(message, conversation) for message in value.to_messages()]
        turns, start = _take_prefill(turns, prefill=prefill)
        if not placed:
            return Prompt(with_history(turns, conversation), prefill=start)
        system, others = with_system(turns, conversation)
        return Prompt((*system, *others), prefill=start)


def transcript(messages: Iterable[Message]) -> str:
    """Messages as text, a line each: `Human: Why?`."""
    return "\n".join(f"{_SPEAKERS.get(message.role, message.role)}: {message.text}" for message in messages)


def _message_names(template: BasePromptTemplate[Any]) -> set[str]:
    """The placeholders that take messages; all others are within text."""
    parts = template.messages if isinstance(template, ChatPromptTemplate) else []
    return {part.variable_name for part in parts if isinstance(part, MessagesPlaceholder)}


def _variables(template: BasePromptTemplate[Any]) -> set[str]:
    return {*template.input_variables, *template.optional_variables}


def _core_message(message: BaseMessage, conversation: Conversation) -> Message:
    own = next((m for m in conversation.messages if m.raw is message), None)
    return own or convert_message(message)


def _take_prefill(turns: list[Message], *, prefill: bool) -> tuple[list[Message], str]:
    if len(turns) < 2 or turns[-1].role != "assistant":
        return turns, ""
    *rest, last = turns
    if prefill:
        return rest, last.text
    # A backend that does not continue the turn would reply to it, or reject it.
    text = begin_with(rest[-1].text, last.text)
    blocks = ({"type": "text", "text": text}, *rest[-1].attachments)
    return [*rest[:-1], Message(rest[-1].role, blocks if rest[-1].attachments else text)], ""


_NEEDED = {
    **{"point": {"index", "title"}, "merge": {"draft"}, "opening": {"draft"}, "closing": {"draft"}},
    "item": {"item"},
}
"""The placeholders of which a template needs one; all others need the question."""


def prompt_set(
    base: PromptSet | None,
    skeleton: BasePromptTemplate[Any] | str | None,
    point: BasePromptTemplate[Any] | str | None,
    merge: BasePromptTemplate[Any] | str | None = None,
    **planned: BasePromptTemplate[Any] | str | None,
) -> PromptSet:
    """The prompts of a chain.

    Args:
        base: The prompts to start from; None for the project's own.
        skeleton: A template in place of its skeleton prompt.
        point: A template in place of its point prompt.
        merge: A template in place of its prompt of the merge.
        planned: The same for `scoped`, `graph`, `opening`, `closing` and `item`.

    Raises:
        PromptFileError: A template lacks a value that it needs.
    """
    given = {"skeleton": skeleton, "point": point, "merge": merge, **planned}
    own = {name: _template(template, name) for name, template in given.items() if template is not None}
    prompts = base or PromptSet()
    return replace(prompts, **own) if own else prompts


def _template(template: BasePromptTemplate[Any] | str, name: str) -> Any:
    if isinstance(template, str):
        return template
    needed = _NEEDED.get(name, {"question"})
    if not _variables(template) & {*needed, "messages"}:
        wanted = " or ".join(f"{{{n}}}" for n in sorted(needed))
        raise PromptFileError(f"The {name} prompt never mentions {wanted}. Put {wanted} into it.")
    return LangChainTemplate(template)


def stage_template(prompts: PromptSet, stage: str) -> Template | str:
    """The template of a stage; of those of planned answers and of items, which a set may leave out, the default."""
    template: Template | str | None = getattr(prompts, stage)
    if template is not None:
        return template
    if stage == "item":
        from skeleton_of_thought.default_items import ITEM

        return ITEM
    from skeleton_of_thought.plan_prompts import planned_template

    return planned_template(prompts, cast(Any, stage))


def chat_prompt(template: Template | str, **partial: str) -> ChatPromptTemplate:
    """A prompt of the core as a template of LangChain, for chains of your own.

    Args:
        template: A part of a `PromptSet`.
        partial: Values that are known already.

    Raises:
        PromptFileError: A prompt of this type cannot be written as a template.
    """
    if isinstance(template, LangChainTemplate):
        inner: BasePromptTemplate[Any] = template.template
        if isinstance(inner, StringPromptTemplate):
            inner = ChatPromptTemplate.from_messages([HumanMessagePromptTemplate(prompt=inner)])
        if isinstance(inner, ChatPromptTemplate):
            names = _variables(inner)
            return inner.partial(**{name: value for name, value in partial.items() if name in names})
    if isinstance(template, PromptTemplate):
        chat = ChatPromptTemplate.from_messages(
            [MessagesPlaceholder("chat_history", optional=True), ("human", _f_string(template))]
        )
        return chat.partial(**{name: value for name, value in partial.items() if name in chat.input_variables})
    raise PromptFileError(f"A prompt of type {type(template).__name__} cannot be shown as a ChatPromptTemplate.")


def _f_string(template: PromptTemplate) -> str:
    # All braces except those of placeholders are doubled, so that f-string formatting changes nothing else.
    text, names = template.instruction, _KNOWN | unknown_placeholders(template, _KNOWN)[0]

    def braces(match: re.Match[str]) -> str:
        name = ALIASES.get(match[1], match[1])
        return f"{{{name}}}" if name in names else f"{{{{{match[1]}}}}}"

    pieces: list[str] = []
    end = 0
    for match in _BRACED.finditer(text):
        pieces += [text[end : match.start()].replace("{", "{{").replace("}", "}}"), braces(match)]
        end = match.end()
    return "".join([*pieces, text[end:].replace("{", "{{").replace("}", "}}")])
