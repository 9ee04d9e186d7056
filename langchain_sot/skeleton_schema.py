"""Asks a model for a structured skeleton, and reads any form of reply."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk
from langchain_core.runnables import Runnable, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from pydantic import BaseModel, ConfigDict, Field

from langchain_sot.models.resolution import has_fallbacks
from skeleton_of_thought.parsing.data import json_value, plan_fields
from skeleton_of_thought.parsing.parser import without_reasoning
from skeleton_of_thought.types import PlanItem, Planning

__all__ = ["GraphSchema", "ScopedSchema", "SkeletonSchema", "StructuredReply", "ask_structured"]


class SkeletonSchema(BaseModel):
    """The skeleton of an answer."""

    model_config = ConfigDict(defer_build=True)

    points: list[str] = Field(description="The headings of the answer, in order, without numbers.")


class _ScopedPoint(BaseModel):
    """A point of the answer."""

    model_config = ConfigDict(defer_build=True)

    title: str = Field(description="The heading, without a number.")
    scope: str = Field(description="What the point covers, and what it leaves to others, in at most 12 words.")


class _GraphPoint(_ScopedPoint):
    """A point of the answer, and what it builds on."""

    after: list[int] = Field(description="The numbers, from 1, of earlier points that it builds on. Most have none.")


class ScopedSchema(BaseModel):
    """The plan of an answer."""

    model_config = ConfigDict(defer_build=True)

    points: list[_ScopedPoint] = Field(description="The points of the answer, in order.")


class GraphSchema(BaseModel):
    """The plan of an answer, in which points may build on others."""

    model_config = ConfigDict(defer_build=True)

    points: list[_GraphPoint] = Field(description="The points of the answer, in order.")


_SCHEMAS: Mapping[Planning, type[BaseModel]] = {
    "titles": SkeletonSchema,
    "scoped": ScopedSchema,
    "graph": GraphSchema,
}


def ask_structured(
    llm: Runnable[Any, Any], kwargs: Mapping[str, Any], planning: Planning = "titles"
) -> Runnable[Any, Any] | None:
    """The model with these keyword arguments, made to reply in the schema; None for a model that cannot.

    The result replies with the model's own message, which `with_structured_output(..., include_raw=True)` has under
    `raw`: it has the usage, and a reply that does not fit the schema can still be read. The rest of that chain is left
    out: it would add four runs to every trace, and it drops the bindings of the model and the call's arguments.

    Args:
        llm: The model.
        kwargs: The call's keyword arguments.
        planning: The kind of skeleton, which decides on the schema.
    """
    if has_fallbacks(llm):
        asking = [ask_structured(runnable, kwargs, planning) for runnable in llm.runnables]
        if None in asking:
            return None
        return llm.model_copy(update={"runnable": asking[0], "fallbacks": asking[1:]})
    if isinstance(llm, RunnableBindingBase):
        bound = ask_structured(llm.bound, {**llm.kwargs, **kwargs}, planning)
        return None if bound is None else llm.model_copy(update={"bound": bound, "kwargs": {}})
    if not isinstance(llm, BaseLanguageModel):
        return None
    try:
        made = llm.with_structured_output(_SCHEMAS[planning])
    except NotImplementedError:
        return None
    return _up_to_the_model(made, kwargs)


def _up_to_the_model(made: Runnable[Any, Any], kwargs: Mapping[str, Any]) -> Runnable[Any, Any] | None:
    """The steps of a runnable from `with_structured_output` up to the model, without those that read its reply."""
    steps = made.steps if isinstance(made, RunnableSequence) else [made]
    for i, step in enumerate(steps):
        if _is_model(step):
            model = _with(step, kwargs)
            return RunnableSequence(*steps[:i], model) if i else model
    return None


def _with(step: Runnable[Any, Any], kwargs: Mapping[str, Any]) -> Runnable[Any, Any]:
    # The schema's own arguments go before equal ones of the call: without them there is no data.
    if isinstance(step, RunnableBindingBase):
        return step.model_copy(update={"kwargs": {**kwargs, **step.kwargs}})
    return step.bind(**kwargs)


def _is_model(step: Runnable[Any, Any]) -> bool:
    while isinstance(step, RunnableBindingBase):
        step = step.bound
    return isinstance(step, BaseLanguageModel)


class StructuredReply:
    """Reads titles, or a plan, from the reply to a schema: from a tool call, or from JSON text.

    Args:
        planning: The kind of skeleton that was asked for.
    """

    def __init__(self, planning: Planning = "titles") -> None:
        self._plans = planning != "titles"
        self._pieces: list[str] = []
        # The arguments of each call as they came: a value, or the pieces of its JSON. LangChain would read all of the
        # JSON again for each chunk that it adds.
        self._calls: dict[object, Any] = {}
        self._read: tuple[str, list[Any]] | None = None

    def add(self, message: BaseMessage) -> None:
        """Takes the whole message, or its next chunk."""
        self._read = None
        if not isinstance(message, BaseMessageChunk):
            self._pieces, self._calls = [], {}
        self._pieces.append(str(message.text))
        if isinstance(message, AIMessageChunk):
            for piece in message.tool_call_chunks:
                index = piece.get("index")
                key = len(self._calls) if index is None else str(index)  # without an index, it is a call of its own
                self._calls.setdefault(key, []).append(piece.get("args") or "")
        elif isinstance(message, AIMessage):
            for call in (*message.tool_calls, *message.invalid_tool_calls):
                self._calls[len(self._calls)] = call["args"] or ""

    @property
    def titles(self) -> tuple[str, ...] | None:
        """The titles; None for a reply that does not fit the schema."""
        for points in self._lists():
            if all(isinstance(point, str) for point in points):
                return tuple(points)
        return None

    @property
    def plan(self) -> tuple[PlanItem, ...] | None:
        """The points of a plan; None where none was asked for, and for a reply that does not fit the schema."""
        for points in self._lists() if self._plans else ():
            items = [_item(point) for point in points]
            if items and None not in items:
                return cast(tuple[PlanItem, ...], tuple(items))
        return None

    def _lists(self) -> Iterator[list[Any]]:
        text, calls = self._parts()
        for data in (*calls, json_value(without_reasoning(text))):
            points = data.get("points") if isinstance(data, dict) else None
            if isinstance(points, list):
                yield points

    @property
    def text(self) -> str:
        """The reply as text: its own text, or else the arguments of its tool calls."""
        text, calls = self._parts()
        return text if text.strip() else "\n".join(map(_words, calls))

    def _parts(self) -> tuple[str, list[Any]]:
        """The text of the reply, and the arguments of its calls: a value, or a text that cannot be read."""
        if self._read is None:
            calls = ["".join(args) if isinstance(args, list) else args for args in self._calls.values()]
            self._read = "".join(self._pieces), [_arguments(args) for args in calls]
        return self._read


def _item(point: Any) -> PlanItem | None:
    """A point of a plan; None for anything else."""
    if not isinstance(point, dict) or not isinstance(title := point.get("title"), str):
        return None
    from skeleton_of_thought.parsing.plan_lines import read_numbers

    fields = plan_fields(point)
    after = fields.after if isinstance(fields.after, list | tuple) else [fields.after]
    numbers = [number for each in after for number in read_numbers(str(each))[0]]
    return PlanItem(title, fields.scope or "", tuple(numbers), fields.words)


def _arguments(args: Any) -> Any:
    value = json_value(args, cut=True) if isinstance(args, str) else args
    return value if isinstance(value, dict) else args


def _words(args: Any) -> str:
    # Some models send the list as one string, with a point on each line.
    points = args.get("points") if isinstance(args, dict) else args
    if isinstance(points, str):
        return points
    try:
        return json.dumps(args, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):  # nested too deep, or with values that are no JSON
        return ""
