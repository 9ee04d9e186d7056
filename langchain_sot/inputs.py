"""Inputs with several keys: the question, its context, and values for the caller's own templates."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_sot.messages import ParsedInput, as_messages
from langchain_sot.templates import HISTORY_NAMES, LangChainTemplate, transcript
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.templates import PLACEHOLDERS, FilledTemplate, PromptTemplate, unknown_placeholders
from skeleton_of_thought.types import Conversation, Point, Prompt, Reply, Skeleton

if TYPE_CHECKING:
    from langchain_sot.plan import AnswerPlan

__all__ = [
    "KeyedInput",
    "OwnPlaceholders",
    "context_of",
    "filled_prompts",
    "find_placeholders",
    "input_type",
    "merged_documents",
    "read_mapping",
]

_QUESTIONS = ("question", "input")
"""The keys of a question, the first one before the others: LangChain's older chains have `input`."""


# --- the keys of an input ---


@dataclasses.dataclass(frozen=True)
class KeyedInput:
    """An input's keys besides the question and the history.

    Attributes:
        keys: All its keys.
        found: The context and its documents; None without any.
        values: The other keys, for the caller's own templates.
        is_state: Whether it is the state of a graph. That may have keys that are not meant for the chain.
    """

    keys: tuple[str, ...]
    found: Reply | None
    values: Mapping[str, Any]
    is_state: bool


def read_mapping(value: Any) -> tuple[list[BaseMessage], Any, KeyedInput | None]:
    """Reads an input with several keys: `question`, and optionally `chat_history` (or `history`), `context` and others.

    Args:
        value: A mapping; or the state of a graph with `messages`, which may also be an instance of a dataclass or of a
            pydantic model.

    Returns:
        The messages, the input of the model on the direct route, and the rest; None for a message as a dict.

    Raises:
        InvalidInput: It has no question, or a key that cannot be read.
    """
    is_state = not isinstance(value, Mapping)
    fields = _fields(value) if is_state else dict(value)
    keys = tuple(map(str, fields))
    if "content" in fields and not any(name in fields for name in (*_QUESTIONS, "messages")):
        messages = as_messages(value)
        return messages, messages, None
    found = context_of(fields.pop("context", None))
    untouched: Any
    if "question" not in fields and "messages" in fields:
        is_state = True
        untouched = messages = [*_state_history(fields), *_turns(fields.pop("messages"))]
    else:
        history = _history(fields)
        question = fields.pop(_question_key(fields))
        messages = [*history, *_question(question, alone=not history)]
        untouched = question if isinstance(question, str) and not history else messages
    return messages, untouched, KeyedInput(keys, found, fields, is_state)


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        names: Iterable[str] = [*type(value).model_fields, *(value.model_extra or {})]
    else:
        names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names}


def _question_key(fields: Mapping[str, Any]) -> str:
    found = [name for name in _QUESTIONS if name in fields]
    if not found:
        raise InvalidInput(
            f"The input has the keys {sorted(map(str, fields))}, but no 'question'. Give a string, messages, or "
            "{'question': ..., 'chat_history': [...], 'context': ...}."
        )
    if len(found) > 1 and found[0] != "question":
        raise InvalidInput(f"The input has {found[0]!r} and {found[1]!r}: call the one to be answered 'question'.")
    return found[0]


def _question(value: Any, *, alone: bool) -> list[BaseMessage]:
    """The question as a message, after earlier ones if the value has them and there is no history."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "role" not in part for part in value):
        return [HumanMessage(content=value)]
    if isinstance(value, list) and any(map(_is_system_data, value)):
        raise InvalidInput(
            "'question' holds a system message as plain data. A question is the user's, whose text gives itself no "
            "other role: put instructions into 'chat_history', or pass a SystemMessage."
        )
    messages = _turns(value)
    # `RunnableWithMessageHistory` without a key for the history puts it before the question; a prompt value may begin
    # with a system message. Several questions without an answer between them are not one question.
    questions = sum(isinstance(message, HumanMessage) for message in messages)
    is_conversation = alone and (questions == 1 or any(isinstance(message, AIMessage) for message in messages))
    if len(messages) != 1 and not is_conversation:
        raise InvalidInput(
            f"'question' holds {len(messages)} messages, but must be one question: put the earlier messages into "
            "'chat_history'."
        )
    return messages


def _is_system_data(part: Any) -> bool:
    """Whether this is a system message in a form that JSON has, as the body of a request may."""
    if isinstance(part, dict):
        role = part.get("role", part.get("type"))
    else:
        role = part[0] if isinstance(part, list) and part else None
    return role in ("system", "developer")


def _history(fields: dict[str, Any]) -> list[BaseMessage]:
    """The earlier messages; removes their keys."""
    found = [_earlier(fields.pop(name)) for name in HISTORY_NAMES if name in fields]
    given = [messages for messages in found if messages]
    if len(given) > 1:
        raise InvalidInput("The input has 'chat_history' and 'history'. They mean the same: give one of them.")
    return given[0] if given else []


def _earlier(value: Any) -> list[BaseMessage]:
    if value is None or value == "":
        return []
    if isinstance(value, str):
        # A memory as text has no speakers any more. Users wrote a part of it, so all of it has their rank.
        return [HumanMessage(f"The conversation so far:\n{value}")]
    return _turns(value)


def _state_history(fields: dict[str, Any]) -> list[BaseMessage]:
    """The history beside the messages of a state, if it is one: a graph may keep anything under that name."""
    for name in HISTORY_NAMES:
        value = fields.get(name)
        if isinstance(value, list) and value and all(isinstance(message, BaseMessage) for message in value):
            return list(fields.pop(name))
    return []


def _turns(value: Any) -> list[BaseMessage]:
    if isinstance(value, str):
        return [HumanMessage(value)]
    return value.to_messages() if isinstance(value, PromptValue) else as_messages(value)


# --- the context ---


def context_of(value: Any) -> Reply | None:
    """Reads a context: its text, and its documents as the sources.

    Args:
        value: Text, a document, or what a retriever found: a list of documents, of texts, of dicts with `page_content`
            or of pairs of a document and its score.

    Returns:
        None where there is no context: None, or nothing in it.

    Raises:
        InvalidInput: It is none of these.
    """
    if value is None or (isinstance(value, str | Sequence | Mapping) and not value):
        return None
    if isinstance(value, BaseMessage):
        value = str(value.text)
    elif isinstance(value, PromptValue):
        value = value.to_string()
    if isinstance(value, str):
        return Reply(context=value.strip()) if value.strip() else None
    documents = tuple(_documents(value))
    texts = [text for document in documents if (text := document.page_content.strip())]
    return Reply(sources=documents, context="\n\n".join(texts)) if documents else None


def _documents(value: Any) -> Iterable[Document]:
    if isinstance(value, Document):
        yield value
    elif isinstance(value, str):
        if value.strip():
            yield Document(page_content=value)
    elif isinstance(value, Mapping) and isinstance(value.get("page_content"), str):
        yield Document(**{name: value[name] for name in ("page_content", "metadata", "id") if value.get(name)})
    elif _is_scored(value):
        (document,) = _documents(value[0])
        metadata = {"score": float(value[1]), **document.metadata}
        yield document.model_copy(update={"metadata": metadata})
    elif isinstance(value, Iterable) and not isinstance(value, Mapping | bytes | bytearray | BaseModel):
        for one in value:
            yield from _documents(one)
    else:
        raise InvalidInput(
            f"A context is text, or documents, but it has {type(value).__name__} ({repr(value)[:60]}). Turn it into "
            "text, or into langchain_core.documents.Document objects."
        )


def _is_scored(value: Any) -> bool:
    """Whether this is a document and its score, as `similarity_search_with_score` finds them."""
    if not isinstance(value, tuple) or len(value) != 2 or not isinstance(value[0], Document | Mapping | str):
        return False
    try:
        float(value[1])
    except (TypeError, ValueError):
        return False
    return not isinstance(value[1], str)


def merged_documents(groups: Iterable[Iterable[Document]]) -> list[Document]:
    """The documents of all groups in order, each once."""
    found: list[Document] = []
    for document in (document for group in groups for document in group):
        if not any(_same(document, other) for other in found):
            found.append(document)
    return found


def _same(one: Document, other: Document) -> bool:
    if one.id is not None and other.id is not None:
        return one.id == other.id
    return one.page_content == other.page_content and one.metadata == other.metadata


# --- placeholders of the caller's own ---


@dataclasses.dataclass(frozen=True)
class OwnPlaceholders:
    """The placeholders of a prompt that the chain has no value for.

    Attributes:
        needed: Those that an input has to fill.
        names: All of them.
    """

    needed: frozenset[str]
    names: frozenset[str]


_KINDS = {stage: stage for stage in PLACEHOLDERS} | {
    **{"scoped": "skeleton", "graph": "skeleton", "planned_point": "point"},
    **{"opening": "merge", "closing": "merge"},
}
"""The stages of a `PromptSet`, with the stage whose placeholders each has."""

_OF_PLANS = frozenset({"plan", "scope", "heading", "parents"})
"""The values of points that an input may give itself: chains had placeholders of these names before points had them."""


@dataclasses.dataclass(frozen=True)
class _WithOwn:
    """A template whose caller gives some of the stage's values."""

    template: Any
    values: Mapping[str, Any]

    def render(self, conversation: Conversation, values: Mapping[str, str], *, prefill: bool) -> Prompt:
        """The template with the caller's values before those of the stage."""
        return cast(Prompt, self.template.render(conversation, {**values, **self.values}, prefill=prefill))


def find_placeholders(prompts: PromptSet, own: Iterable[str]) -> dict[str, OwnPlaceholders]:
    """The placeholders of the caller's own, by the names of the prompts that have any.

    Args:
        prompts: The prompts of a chain.
        own: The prompts that were given to the chain one by one. These need a context where they ask for it; a
            `PromptSet`, which serves other frameworks too, has an empty one.
    """
    found = {}
    for stage, kind in _KINDS.items():
        template, known = getattr(prompts, stage), PLACEHOLDERS[kind]
        if isinstance(template, LangChainTemplate):
            placeholders = OwnPlaceholders(*template.own_placeholders(known - {"context"}))
        elif isinstance(template, PromptTemplate):
            unknown = known - {"context"} if stage in own else known
            placeholders = OwnPlaceholders(*unknown_placeholders(template, unknown))
        else:
            continue
        if placeholders.names:
            found[stage] = placeholders
    return found


def filled_prompts(plan: AnswerPlan, parsed: ParsedInput) -> PromptSet:
    """The prompts of a plan with an input's values for the caller's own placeholders.

    Raises:
        InvalidInput: Nothing fills a placeholder, or nothing uses a key of the input.
    """
    keyed = parsed.keyed or KeyedInput((), None, {}, False)
    names = frozenset().union(*(own.names for own in plan.placeholders.values()))
    replaced = _replaced(plan.prompts, keyed)
    _check_use(keyed, names.union(*replaced.values()), plan.skeleton)
    values = {name: value for name, value in keyed.values.items() if name in names}
    # A template may call the question as the input does, and show the history in its own text.
    values |= {name: parsed.conversation.question for name in _QUESTIONS[1:] if name in names & {*keyed.keys}}
    if not names.isdisjoint(HISTORY_NAMES):
        values |= dict.fromkeys(HISTORY_NAMES, transcript(parsed.conversation.history))
    available = {*values, *(["context"] if "context" in keyed.keys or plan.retriever is not None else [])}
    for stage in _needed_stages(plan, keyed):
        if missing := plan.placeholders[stage].needed - available:
            raise InvalidInput(
                f"The {stage} prompt asks for {', '.join(map(repr, sorted(missing)))}, which nothing fills. "
                f"{_given(keyed)} Add a key of that name, or fill it in with .partial(...)."
            )
    filled = {stage: _filled(getattr(plan.prompts, stage), values) for stage in plan.placeholders}
    for stage, own in replaced.items():
        filled[stage] = _WithOwn(filled.get(stage) or getattr(plan.prompts, stage), own)
    return dataclasses.replace(plan.prompts, **filled)


def _replaced(prompts: PromptSet, keyed: KeyedInput) -> dict[str, dict[str, Any]]:
    """The values of points that the input gives itself, by the templates that mention them."""
    found: dict[str, dict[str, Any]] = {}
    given = _OF_PLANS & keyed.values.keys()
    for stage in ("point", "planned_point") if given else ():
        template = getattr(prompts, stage)
        if isinstance(template, LangChainTemplate):
            found[stage] = {name: keyed.values[name] for name in given & template.own_placeholders(())[1]}
        elif isinstance(template, PromptTemplate):
            found[stage] = {name: str(keyed.values[name]) for name in given & unknown_placeholders(template, ())[1]}
    return {stage: own for stage, own in found.items() if own}


def _check_use(keyed: KeyedInput, names: Collection[str], points: Skeleton | None) -> None:
    unused = [name for name in keyed.values if name not in names]
    if points is not None:
        # A chain that makes an expansion of one of its keys passes this key on to it.
        unused = [name for name in unused if not _are_points(keyed.values[name], points)]
    if keyed.is_state:
        # Messages beside a question may be the conversation, which must not be lost.
        unused = [name for name in unused if name == "messages" and keyed.values[name]]
    if unused:
        own = sorted({*names} - {*HISTORY_NAMES, "context", "messages"})
        raise InvalidInput(
            f"Nothing uses {', '.join(map(repr, unused))} of the input. The chain takes 'question', 'chat_history' (or "
            f"'history') and 'context', or 'messages' in place of a question"
            + (f", and for its own prompts {', '.join(map(repr, own))}." if own else ".")
        )


def _are_points(value: Any, points: Skeleton) -> bool:
    if isinstance(value, Skeleton):
        return value == points
    if not isinstance(value, list | tuple):
        return False
    return tuple(each.title if isinstance(each, Point) else each for each in value) == points.titles


def _given(keyed: KeyedInput) -> str:
    return f"The input has the keys {sorted(keyed.keys)}." if keyed.keys else "The input has text or messages alone."


def _needed_stages(plan: AnswerPlan, keyed: KeyedInput) -> list[str]:
    """The prompts with placeholders that the answer may need."""
    settings, asked = plan.settings, plan.skeleton is None
    unneeded = {
        "skeleton": not asked or settings.planning in ("scoped", "graph"),
        "scoped": not asked or settings.planning not in ("scoped", "auto"),
        "graph": not asked or settings.planning not in ("graph", "auto"),
        "planned_point": asked and settings.planning == "titles",
        "opening": not settings.opening,
        "closing": not settings.closing,
        "merge": not settings.merge,
        "item": not asked or settings.items == "off" or plan.router is None,
        "direct": keyed.found is None and plan.retriever is None,
    }
    return [stage for stage in plan.placeholders if not unneeded.get(stage)]


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, LangChainTemplate):
        return dataclasses.replace(template, values=values)
    return FilledTemplate(template, {name: str(value) for name, value in values.items()})


def input_type(plan: AnswerPlan) -> Any:
    """The type of inputs with several keys, for schemas: those of prompts that the answer may need are required."""
    stages = _needed_stages(plan, KeyedInput((), Reply(), {}, False))
    needed = frozenset().union(*(plan.placeholders[stage].needed for stage in stages))
    every = frozenset().union(*(own.names for own in plan.placeholders.values()))
    names, retrieves = every | {"context", *HISTORY_NAMES}, plan.retriever is not None
    fields: dict[str, Any] = {"question": Any}
    for name in sorted(names - {"question"}):
        optional = name not in needed or name in HISTORY_NAMES or (name == "context" and retrieves)
        fields[name] = NotRequired[Any] if optional else Any
    return TypedDict("ChainInput", fields)  # type: ignore[operator]
