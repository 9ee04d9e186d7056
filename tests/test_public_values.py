"""Every public value and error survives pickle, copy and deepcopy.

The classes are found by their modules' `__all__`, and their values are made from the annotations of their fields, so a
new class is tested as soon as it exists. A module whose classes are no values has a row in `MACHINERY`.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import os
import pickle
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from skeleton_of_thought import errors
from skeleton_of_thought.errors import InvalidInput, PointError, SotError
from skeleton_of_thought.prompts import DEFAULT_PROMPTS, PromptSet
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.types import Conversation

pydantic = pytest.importorskip("pydantic")
ChatPromptTemplate = pytest.importorskip("langchain_core.prompts").ChatPromptTemplate
NodeWithScore = pytest.importorskip("llama_index.core.schema").NodeWithScore
TextNode = pytest.importorskip("llama_index.core.schema").TextNode
SamplingParams = pytest.importorskip("skeleton_of_thought.local.sampling", reason="needs torch").SamplingParams
Grammar = pytest.importorskip("skeleton_of_thought.local.grammar", reason="needs torch").Grammar

MACHINERY = {
    "skeleton_of_thought._": "private",
    "skeleton_of_thought.cli": "the command",
    "skeleton_of_thought.adapters.adoption": "engines of models",
    "skeleton_of_thought.adapters.as_model": "calls under way",
    "skeleton_of_thought.budget": "calls under way",
    "skeleton_of_thought.ledger": "calls under way",
    "skeleton_of_thought.routers.item_lists": "what is read of a question",
    "skeleton_of_thought.routers.item_words": "what is read of a question",
    "skeleton_of_thought.plan_prompts": "templates of calls under way",
    "skeleton_of_thought.pickling": "what this file tests",
    "skeleton_of_thought.together": "calls under way",
    "skeleton_of_thought.local": "models, batches and caches; the values among them are in LOCAL_VALUES",
    "skeleton_of_thought.evaluation": "kept as JSON, which tests/evaluation reads back",
    "skeleton_of_thought.ray": "engines of models",
    "skeleton_of_thought.serve": "a server's requests and answers under way",
    "skeleton_of_thought.routers.question": "read afresh from each question",
    "langchain_sot.agents": "turns under way",
    "langchain_sot.calls": "calls under way",
    "langchain_sot.chat_model": "calls under way",
    "langchain_sot.inputs": "inputs under way",
    "langchain_sot.local": "calls under way",
    "langchain_sot.messages": "inputs under way",
    "langchain_sot.models": "models as they are called",
    "langchain_sot.plan": "answers under way",
    "langchain_sot.retrieval": "calls under way",
    "langchain_sot.routers": "answers under way",
    "llama_index_sot.agent_turn": "agents as they run",
    "llama_index_sot.answer": "answers under way",
    "llama_index_sot.context": "answers under way",
    "llama_index_sot.llm_calls": "models as they are called",
    "llama_index_sot.local": "calls under way",
    "llama_index_sot.retrieval": "retrievers; tests/llama_index/test_pickles.py has the engines that hold them",
    "llama_index_sot.skeleton_llm": "calls under way",
    "llama_index_sot.templates": "templates; tests/llama_index/test_pickles.py has the engines that hold them",
    "llama_index_sot.tracing": "answers under way",
}
"""Modules whose classes are no values, and why."""

LOCAL_VALUES = {
    "skeleton_of_thought.local.sampling": "SamplingParams",
    "skeleton_of_thought.local.stats": "EngineStats",
    "skeleton_of_thought.local.grammar": "Grammar",
}

STREAMS = {"SkeletonOfThoughtStreamingResponse", "AsyncSkeletonOfThoughtStreamingResponse"}
"""They hold the generator that writes the answer, which Python cannot copy."""

PACKAGES = ("skeleton_of_thought", "langchain_sot", "llama_index_sot")
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def public_classes() -> Iterator[type]:
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, package + "."):
            if not any(
                f"{module.name}.".startswith(each.rstrip("_.") + ("." if each[-1] != "_" else "._"))
                for each in MACHINERY
            ):
                found = importlib.import_module(module.name)
                for name in getattr(found, "__all__", ()):
                    kind = getattr(found, name)
                    if inspect.isclass(kind) and kind.__module__ == module.name and is_value(kind):
                        yield kind
    for module_name, name in LOCAL_VALUES.items():
        yield getattr(importlib.import_module(module_name), name)


def is_value(kind: type) -> bool:
    """Whether a class is data: a dataclass, a named tuple, an event or an error."""
    if kind.__name__ in STREAMS:
        return False
    data = dataclasses.is_dataclass(kind) or hasattr(kind, "_fields") or issubclass(kind, BaseException)
    return data or (
        kind.__module__ in ("llama_index_sot.events", "langchain_sot.skeleton_schema")
        and issubclass(kind, pydantic.BaseModel)
    )


VALUES = {f"{kind.__module__}.{kind.__name__}": kind for kind in public_classes()}
NAMES = {kind.__name__: kind for kind in VALUES.values()}

# --- values from annotations --------------------------------------------------------------------------


class Plain(Exception):
    """An error of another package that pickle can read."""


TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
ANYTHING = st.one_of(st.none(), st.integers(), TEXTS, st.lists(st.integers(), max_size=2))
FLOATS = st.floats(0, 100, allow_nan=False)


def always(question: str) -> bool:
    return True


EXAMPLES: dict[str, st.SearchStrategy[Any]] = {
    "Conversation": TEXTS.filter(str.strip).map(Conversation.of),
    "PromptSet": st.sampled_from([DEFAULT_PROMPTS, PromptSet(merge="Join: {draft}", route="Ask? {question}")]),
    "Template": st.just(DEFAULT_PROMPTS.point),
    "Router": st.sampled_from([always, Gate(), AutoRouter()]),
    "NodeWithScore": st.builds(
        lambda text: NodeWithScore(node=TextNode(text=text, id_="one"), score=0.5), st.text(max_size=4)
    ),
    "BasePromptTemplate": st.just(ChatPromptTemplate.from_messages([("human", "{question}")])),
    "Gate": st.sampled_from([Gate(), Gate(off=("yes_no",), max_words=9)]),
    "datetime": st.datetimes(),
    "Grammar": st.builds(Grammar.from_regex, st.sampled_from(["[0-9]+", "a|b"])),
    "SamplingParams": st.sampled_from([SamplingParams(), SamplingParams(temperature=0.5, stop=("a",))]),
}
"""Values of classes whose annotations say too little."""


def hints_of(kind: Any) -> dict[str, Any]:
    spaces = {**vars(typing), **vars(types), **NAMES, "Callable": Callable, "Mapping": Mapping}
    return typing.get_type_hints(kind, None, spaces)


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation."""
    if annotation in (Any, object):
        return ANYTHING
    simple = {str: TEXTS, int: st.integers(0, 9), float: FLOATS, bool: st.booleans(), bytes: st.binary(max_size=3)}
    if annotation in simple:
        return simple[annotation]
    if annotation is type(None):
        return st.none()
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(of, args))
    if origin is typing.Annotated:
        return of(args[0])
    if origin is tuple:
        return st.lists(of(args[0]), max_size=2).map(tuple) if args[-1] is ... else st.tuples(*map(of, args))
    if origin in (list, frozenset, set):
        return st.lists(of(args[0]), max_size=2).map(origin)
    if isinstance(origin, type) and issubclass(origin, Callable):
        return st.just(always)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        plain = st.dictionaries(of(args[0]), of(args[1]), max_size=2)
        return plain if origin is dict else st.one_of(plain, plain.map(MappingProxyType))
    return instances(annotation)


def instances(kind: type) -> st.SearchStrategy[Any]:
    """Instances of a class, from its signature."""
    name = getattr(kind, "__name__", "").partition("[")[0]
    if name in EXAMPLES:
        return EXAMPLES[name]
    if kind is Exception:
        return st.one_of(TEXTS.map(Plain), TEXTS.map(ValueError), st.sampled_from(ERRORS).flatmap(instances))
    if issubclass(kind, BaseException):
        return failures(kind)
    if issubclass(kind, pydantic.BaseModel):
        hints = {name: field.annotation for name, field in kind.model_fields.items()}
    else:
        hints = {name: hint for name, hint in hints_of(kind).items() if name in inspect.signature(kind).parameters}
    return st.deferred(lambda: made(kind, {name: of(hint) for name, hint in hints.items()}))


@st.composite
def made(draw: Any, kind: type, fields: dict[str, st.SearchStrategy[Any]]) -> Any:
    try:
        return kind(**{name: draw(values) for name, values in fields.items()})
    except InvalidInput:
        reject()


@st.composite
def failures(draw: Any, kind: type[BaseException]) -> Any:
    if not inspect.isfunction(kind.__init__):
        error = kind(*draw(st.lists(TEXTS, max_size=1)))
    else:
        hints = hints_of(kind.__init__)
        error = kind(**{name: draw(of(hint)) for name, hint in hints.items() if name != "return"})
    if draw(st.booleans()):
        error.__cause__ = draw(TEXTS.map(Plain))
        error.add_note(draw(TEXTS))
    return error


ERRORS = [
    kind for kind in VALUES.values() if issubclass(kind, SotError) and kind not in (PointError, errors.SkeletonError)
]


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal; errors are by their types, arguments, attributes and causes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseException):
        told = [(error.args, vars(error), error.__cause__, str(error)) for error in (one, other)]
        return same(*told)
    if dataclasses.is_dataclass(one) and type(one).__eq__ is not object.__eq__:
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or type(one) in (Gate, AutoRouter)


@pytest.mark.parametrize("name", sorted(VALUES))
@settings(
    max_examples=200 if os.environ.get("SOT_FAULTS_LONG") else 4,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(data=st.data())
def test_a_value_survives(name, data):
    value = data.draw(instances(VALUES[name]))
    for protocol in PROTOCOLS:
        assert same(value, pickle.loads(pickle.dumps(value, protocol)))
    assert same(value, copy.copy(value))
    assert same(value, copy.deepcopy(value))


def test_the_classes_are_found():
    assert len(VALUES) > 80
    assert {"Answer", "Skeleton", "Settings", "PointError", "ResponsePoint", "SkeletonSchema", "Estimate"} <= set(NAMES)
    for module in MACHINERY:
        assert list(Path(__file__).parents[1].glob(module.rstrip("_").rstrip(".").replace(".", "/") + "*")), module
