"""LlamaIndex's prompt templates in the core's prompt sets, and the core's prompts as LlamaIndex templates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.llms.llm import LLM
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.schema import QueryBundle

from llama_index_sot.llm_calls import core_message
from skeleton_of_thought import prompts as core
from skeleton_of_thought.default_items import ITEM
from skeleton_of_thought.errors import InvalidInput, PromptFileError
from skeleton_of_thought.pickling import Portable
from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, RouterWrapper, decide_at_once
from skeleton_of_thought.templates import with_history
from skeleton_of_thought.types import Conversation, ItemsDecision, Message, Prompt, RouteDecision

if TYPE_CHECKING:
    from skeleton_of_thought.plan_prompts import PlannedStage

__all__ = ["KEYS", "LlamaIndexTemplate", "TemplateRouter", "Templates", "asked_question"]

_NAMES = {"question": "query_str", "context": "context_str"}
"""The core's placeholders with other names in LlamaIndex; templates may use either."""

_STAGES = {
    "skeleton_template": "skeleton",
    "scoped_template": "scoped",
    "graph_template": "graph",
    "point_template": "point",
    "item_template": "item",
    "opening_template": "opening",
    "closing_template": "closing",
    "merge_template": "merge",
    "direct_template": "direct",
}
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "skeleton_template": ("query_str", "question"),
    "scoped_template": ("query_str", "question"),
    "graph_template": ("query_str", "question"),
    "point_template": ("index", "title"),
    "item_template": ("item",),
    "opening_template": ("draft",),
    "closing_template": ("draft",),
    "merge_template": ("draft",),
    "direct_template": ("query_str", "question"),
    "context_template": ("context_str", "context"),
    "point_query_template": ("title",),
}
KEYS = tuple(_NEEDED)
"""The prompts, by their keys in `get_prompts()`."""

_OF_PLAN = frozenset({"heading", "parents", "plan", "scope"})
"""Placeholders that may be names of a caller's own variables, too, which then take precedence."""

_CITED = (
    "<context>\n{context_str}\n</context>\n\nKeep to the facts in the context, and put the number of its source after "
    "each of them, such as [1]."
)
# This text is for keyword search and rerankers; `Templates.point_query` sets others for embeddings.
_POINT_QUERY = PromptTemplate("{title} ({query_str})")
_RETRY = "Here is a previous bad answer.\n"
_AFTER_QUESTION = f"\n----------------\n{_RETRY}"
_BEFORE_QUESTION = "\nNow answer the question.\n"
"""The words of `RetryQueryEngine` around a question, an earlier answer to it and the evaluation of that."""
_BRACED = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LlamaIndexTemplate(Portable):
    """A LlamaIndex template in the core's prompt set.

    The caller's history stands right after the system message, which is the caller's and the template's in one. An
    assistant message at the end is the start of the model's turn: a prefill if the backend continues it, else an
    instruction to begin that way.

    Attributes:
        template: The template; it formats its values itself, so braces in them are safe.
        llm: Selects one template of a `SelectorPromptTemplate`.
        variables: The caller's own variables, which the template may mention.
    """

    template: BasePromptTemplate
    llm: LLM | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """Fills in the template, as `skeleton_of_thought.prompts.Template.render` requires."""
        if self.variables:
            values = {n: value for n, value in values.items() if n not in _OF_PLAN or n not in self.variables}
        messages = self.template.format_messages(llm=self.llm, **self.variables, **_with_aliases(values))
        turns = [core_message(message) for message in messages]
        start = ""
        if len(turns) > 1 and turns[-1].role == "assistant":
            last = turns.pop().text
            if prefill:
                start = last
            else:
                # Other backends would answer the assistant's message, or reject it.
                turns[-1] = _with_text(turns[-1], core.begin_with(turns[-1].text, last))
        return Prompt(with_history(turns, conversation), prefill=start)


def _with_text(message: Message, text: str) -> Message:
    if not message.attachments:
        return Message(message.role, text)
    return Message(message.role, ({"type": "text", "text": text}, *message.attachments))


def _with_aliases(values: Mapping[str, str]) -> dict[str, str]:
    return {**values, **{alias: values[name] for name, alias in _NAMES.items() if name in values}}


@dataclass
class Templates:
    """The prompts of an engine or synthesizer: the core's, and the user's templates that replace some of them.

    Attributes:
        base: The core's prompts.
        llm: Selects one template of a `SelectorPromptTemplate`.
        citations: Whether the wording for a context asks for citations.
        keys: The keys of the templates that can be replaced.
        own: The user's templates, by their keys.
        planned: Whether the settings ask for a plan, so that `point_template` is shown as planned points are asked for.
        warned: Whether the log has a line about nodes without text.
    """

    base: core.PromptSet
    llm: LLM
    citations: bool = False
    keys: tuple[str, ...] = KEYS
    own: dict[str, BasePromptTemplate] = field(default_factory=dict)
    planned: bool = False
    warned: bool = False

    def shown(self) -> dict[str, BasePromptTemplate]:
        """All prompts as LlamaIndex templates, without the core's examples for models that continue a prefill."""
        defaults = {key: self._default(key) for key in self.keys}
        return {key: self.own.get(key, default) for key, default in defaults.items() if default is not None}

    def update(self, templates: Mapping[str, BasePromptTemplate | str | None]) -> None:
        """Replaces prompts by the user's templates, except where a template is None.

        Raises:
            InvalidInput: A key is unknown, or its value is not a template.
            PromptFileError: A template lacks a placeholder that it needs.
        """
        checked = {key: self._checked(key, template) for key, template in templates.items() if template is not None}
        for key, template in checked.items():
            self.own.pop(key, None)
            # A prompt that was shown and put back unchanged stays the core's, with its examples.
            if template != self._default(key):
                self.own[key] = template

    def prompt_set(self, variables: Mapping[str, Any] | None = None) -> core.PromptSet:
        """The core's prompt set with the user's templates.

        Args:
            variables: The caller's own variables, which the user's templates may mention.
        """
        if not self.own:
            return self._default_set
        own = {key: template for key, template in self.own.items() if key in _STAGES}
        stages: dict[str, Any] = {
            _STAGES[key]: LlamaIndexTemplate(template, self.llm, variables or {}) for key, template in own.items()
        }
        if "point" in stages:
            stages["planned_point"] = None  # the user's template serves planned points, too
        return replace(self.base, context=self._context_wording(), **stages)

    @cached_property
    def _default_set(self) -> core.PromptSet:
        # Made once. Only the user's templates may compute values anew for each answer.
        wording = self._context_wording()
        return self.base if wording == self.base.context else replace(self.base, context=wording)

    def _context_wording(self) -> str:
        template = self.own.get("context_template") or self._default("context_template")
        assert template is not None, "only stages may have templates without a text"
        wording: str = template.format(llm=self.llm, context_str="{context}", context="{context}")
        return wording

    def point_query(self, query: QueryBundle, title: str) -> QueryBundle:
        """The query for a point's nodes.

        Texts that a transform wants to be embedded for the question, such as the hypothetical answers of HyDE, are
        embedded beside the point's own. A user's template is embedded as it is. The default is embedded as the mean of
        the title alone and of title and question: together with the question, every title finds the question's nodes,
        because the question is most of the text; without the question, "Storage" finds anything about storing
        (`benchmarks/retrieval.py`).
        """
        question, more = asked_question(query), _texts_to_embed(query)
        if "point_query_template" not in self.own:
            text = f"{title} ({question})"
            return QueryBundle(text, custom_embedding_strs=[title, text, *more])
        values = _with_aliases({"question": question, "title": title})
        text = self.own["point_query_template"].format(llm=self.llm, **values)
        return QueryBundle(text, custom_embedding_strs=[text, *more] if more else None)

    def _default(self, key: str) -> BasePromptTemplate | None:
        if key == "point_query_template":
            return _POINT_QUERY
        if key == "context_template":
            untouched = self.base.context == core.PromptSet().context
            return PromptTemplate(_CITED if self.citations and untouched else _renamed(self.base.context))
        template: Any = getattr(self.base, _STAGES[key])
        if key == "point_template" and self.planned:
            template = self.base.planned("planned_point")
        if template is None:
            if key == "direct_template":
                return PromptTemplate("{query_str}")
            if key == "item_template":
                return PromptTemplate(ITEM.text)
            template = self.base.planned(cast("PlannedStage", _STAGES[key]))
        if isinstance(template, LlamaIndexTemplate):
            return template.template
        if isinstance(template, core.PromptTemplate):
            return PromptTemplate(_renamed(template.instruction))
        return None  # other classes of templates have no text to show

    def _checked(self, key: str, template: BasePromptTemplate | str) -> BasePromptTemplate:
        if key not in self.keys:
            raise InvalidInput(f"There is no prompt {key!r}. The prompts are: {', '.join(self.keys)}.")
        if isinstance(template, str):
            template = PromptTemplate(template)
        if not isinstance(template, BasePromptTemplate):
            raise InvalidInput(f"The {key} must be a prompt template or a string, not {type(template).__name__}.")
        chosen = template.select(self.llm) if isinstance(template, SelectorPromptTemplate) else template
        renamed = chosen.template_var_mappings or {}
        needed = _NEEDED[key]
        computed = chosen.function_mappings or {}
        if not computed and not any(renamed.get(name, name) in chosen.template_vars for name in needed):
            wanted = " or ".join(f"{{{renamed.get(name, name)}}}" for name in needed)
            raise PromptFileError(
                f"The {key} never mentions {wanted}, so it cannot work: {chosen.get_template()[:60]!r}. "
                f"Put {wanted} into it."
            )
        return template


@dataclass(frozen=True)
class TemplateRouter(RouterWrapper):
    """A router that reads the question and the instructions around it: the LLM's system prompt, and the template.

    Attributes:
        router: The router.
        question: The question, where the query has more text than that.
        system_prompt: The LLM's own system prompt.
        direct: The caller's template of a direct answer, where that is used.
    """

    router: AnyRouter
    question: str | None = None
    system_prompt: str | None = None
    direct: core.Template | str | None = None

    @classmethod
    def around(
        cls, router: AnyRouter | None, query: QueryBundle, system_prompt: str | None, direct: core.Template | str | None
    ) -> AnyRouter | None:
        """The router for a query; unchanged if there is nothing but the question to read."""
        asked = asked_question(query)
        question = None if asked == query.query_str else asked
        if router is None or not (question or direct is not None or system_prompt):
            return router
        return cls(router, question, system_prompt, direct)

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision if it needs no call."""
        decision = decide_at_once(self.router, self._with_instructions(conversation))
        return None if decision is None else self._with_text_around(decision, conversation)

    def route(self, conversation: Conversation) -> RouteDecision:
        """Decides on the question and the instructions around it."""
        decision = BoundRouter(self.router, self._with_instructions(conversation)).decide()
        return self._with_text_around(decision, conversation)

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        decision = await BoundRouter(self.router, self._with_instructions(conversation)).adecide()
        return self._with_text_around(decision, conversation)

    def _with_instructions(self, conversation: Conversation) -> Conversation:
        texts = [self.system_prompt] if self.system_prompt else []
        if self.direct is not None:
            template = core.PromptTemplate(self.direct) if isinstance(self.direct, str) else self.direct
            prompt = template.render(Conversation.of("…"), {"question": "…", "context": "…"}, prefill=False)
            texts += [message.text for message in prompt.messages]
        asked = conversation.messages
        if self.question is not None:
            asked = (*asked[:-1], Message("user", self.question))
        return replace(conversation, messages=(*(Message("system", text) for text in texts), *asked))

    def _with_text_around(self, decision: RouteDecision, conversation: Conversation) -> RouteDecision:
        """The decision, by which the prompts of items show all that stands around the question, too."""
        if self.question is None or not isinstance(decision, ItemsDecision) or decision.items is None:
            return decision
        text = conversation.question.replace(self.question, decision.items.instruction, 1)
        return replace(decision, items=replace(decision.items, instruction=text))


def _renamed(text: str) -> str:
    def placeholder(match: re.Match[str]) -> str:
        core_name = core.ALIASES.get(match[1], match[1])
        return f"{{{_NAMES.get(core_name, core_name)}}}"

    return _BRACED.sub(placeholder, text)


def asked_question(query: QueryBundle) -> str:
    """The question in a query whose text holds more.

    Transforms such as that of `RetryQueryEngine` put an earlier answer and instructions around the question, and leave
    the question alone as the text to embed.
    """
    text = query.query_str
    if _RETRY not in text:
        return text
    inner = [part for part in query.custom_embedding_strs or () if part and part in text]
    text = min(inner, key=len, default=text)
    while True:  # a second retry stands around the first
        if text.startswith(_RETRY) and _BEFORE_QUESTION in text:
            text = text.rpartition(_BEFORE_QUESTION)[2]
        elif _AFTER_QUESTION in text:
            text = text.partition(_AFTER_QUESTION)[0]
        else:
            return text if text.strip() else query.query_str


def _texts_to_embed(query: QueryBundle) -> list[str]:
    """The texts that a transform wants to be embedded for a query besides its question, such as HyDE's answers."""
    known = ("", query.query_str, asked_question(query))
    return [text for text in query.custom_embedding_strs or () if text not in known and _RETRY not in text]
