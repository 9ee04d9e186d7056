"""The models of a chain: finds the one that a config chooses, behind bindings, retries, fallbacks and alternatives.

LangChain's runnables are known by the names of their classes, because importing `configurable`, `llms`, `retry` and
`fallbacks` costs several milliseconds each, and most programs use few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import starmap
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, TypeVar, cast

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs, var_child_runnable_config

from langchain_sot.messages import read_request
from skeleton_of_thought.adapters.replies import FinishReasons
from skeleton_of_thought.types import Request, Stage

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableWithFallbacks

    from langchain_sot.local.chat_transformers import ChatTransformers

__all__ = [
    "AnswerModels",
    "ChainModels",
    "ResolvedModel",
    "RunnableTraits",
    "find_model",
    "has_fallbacks",
    "makes_configs",
    "merged_configs",
    "models_in",
    "prepared",
    "read_traits",
    "resolve",
    "turn_flag",
    "unbind",
    "with_bindings",
]

_T = TypeVar("_T")

_RUNNABLES = "langchain_core.runnables"
_CALL_METHODS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
_HUGGING_FACE_CLASSES = frozenset({"HuggingFacePipeline", "ChatHuggingFace"})
_ONE_CALL_AT_A_TIME = frozenset({"ChatLlamaCpp", "LlamaCpp"})


# --- what a runnable is, by its class ---


@dataclass(frozen=True)
class RunnableTraits:
    """The properties of a runnable that its class determines.

    Attributes:
        binding: Whether it is LangChain's own binding, or a subclass that is called the same way.
        retry: The same for `with_retry`.
        fallbacks: Whether it is any kind of `with_fallbacks`.
        stock_fallbacks: Whether it is LangChain's own `with_fallbacks`, or a subclass that is called the same way.
        configurable: Whether it has configurable fields or alternatives.
        text: Whether the model completes a string instead of answering a chat.
        native: Whether the model is this package's own, which takes a prefill, stop strings and a limit with each call.
        adopted: Whether the model is one of LangChain's Hugging Face models over an engine.
        adoptable: Whether the model has the name of one of LangChain's Hugging Face classes, which may hold a model of
            this process.
        serial: Whether two calls at a time would break the model: llama-cpp-python's in this process has one state.
    """

    binding: bool = False
    retry: bool = False
    fallbacks: bool = False
    stock_fallbacks: bool = False
    configurable: bool = False
    text: bool = False
    native: bool = False
    adopted: bool = False
    adoptable: bool = False
    serial: bool = False


def read_traits(llm: object) -> RunnableTraits:
    """The traits of a runnable, read once for its class."""
    return _traits_of(type(llm))  # type: ignore[arg-type]  # mypy takes no class for hashable


@lru_cache(maxsize=256)
def _traits_of(cls: type) -> RunnableTraits:
    bases = {f"{base.__module__}.{base.__qualname__}": base for base in cls.__mro__}
    names = {base.__name__ for base in cls.__mro__}
    fallbacks = bases.get(f"{_RUNNABLES}.fallbacks.RunnableWithFallbacks")
    return RunnableTraits(
        binding=_called_like(cls, bases.get(f"{_RUNNABLES}.base.RunnableBinding")),
        retry=_called_like(cls, bases.get(f"{_RUNNABLES}.retry.RunnableRetry")),
        fallbacks=fallbacks is not None,
        stock_fallbacks=_called_like(cls, fallbacks),
        configurable=f"{_RUNNABLES}.configurable.DynamicRunnable" in bases,
        text="langchain_core.language_models.llms.BaseLLM" in bases,
        native="langchain_sot.local.chat_transformers.ChatTransformers" in bases,
        adopted="langchain_sot.local.adoption.AdoptedModel" in bases,
        adoptable=not names.isdisjoint(_HUGGING_FACE_CLASSES),
        serial=not names.isdisjoint(_ONE_CALL_AT_A_TIME),
    )


def _called_like(cls: type, stock: type | None) -> bool:
    # Many subclasses differ by name only, such as the result of `BaseChatModel.bind`. A subclass with call methods of
    # its own has to be called itself.
    return stock is not None and all(getattr(cls, name) is getattr(stock, name) for name in _CALL_METHODS)


def has_fallbacks(llm: object) -> TypeGuard[RunnableWithFallbacks[Any, Any]]:
    """Whether it is something `with_fallbacks`."""
    return read_traits(llm).fallbacks


# --- the model that a config chooses ---


@dataclass(frozen=True)
class ResolvedModel:
    """A model as one config chooses it. Nothing in it is configurable any more, and local models are adopted.

    Attributes:
        llm: The runnable to call: the model with its retries and fallbacks, without the bindings around them.
        bindings: These bindings, outermost first.
        kwargs: The call's keyword arguments and those of the bindings.
        members: Each model that may get the call, with the keyword arguments that come with it.
        model: The model that the prompts are made for. All fallbacks get the same input, so it is the one with the
            fewest features.
        native: Whether the model is this package's own, which takes a prefill, stop strings and a limit with each call.
        text: Whether the model completes a string instead of answering a chat.
        takes_text: Whether the prompt is a string: for a model that completes a string, and for an adopted string LLM.
        serial: Whether two calls at a time would break the model.
        continues_turn: Whether the model is known to continue the start of its turn, which it gets as the last message.
            False for a local model whose chat template begins each turn with reasoning.
        has_turn_flags: Whether a member has settings that tell its server to continue the last message.
        reasons: Whether its streams have had finish reasons so far.
    """

    llm: Runnable[Any, Any]
    bindings: tuple[RunnableBinding[Any, Any], ...]
    kwargs: Mapping[str, Any]
    members: tuple[tuple[Runnable[Any, Any], Mapping[str, Any]], ...]
    model: Runnable[Any, Any]
    native: bool
    text: bool
    takes_text: bool
    serial: bool
    continues_turn: bool
    has_turn_flags: bool
    reasons: FinishReasons = field(default_factory=FinishReasons, compare=False)


def resolve(
    llm: Runnable[Any, Any], config: RunnableConfig, kwargs: Mapping[str, Any], *, adopts: bool
) -> ResolvedModel:
    """The model that this config chooses.

    Args:
        llm: A model with its wrappers.
        config: The config of an answer.
        kwargs: Passed on to the model with each call.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.

    Raises:
        ValueError: The config names an alternative that does not exist.
    """
    llm = _choose(llm, config, kwargs, adopts=adopts)
    llm, bindings, merged = unbind(llm, kwargs)
    members = tuple(models_in(llm, config, merged))
    model = _most_limited(members)
    traits = read_traits(model)
    flags = list(starmap(turn_flag, members))
    continues = flags
    if traits.native:  # then all members are
        continues = [cast("ChatTransformers", member).engine.takes_prefill for member, _ in members]
    return ResolvedModel(
        llm=llm,
        bindings=bindings,
        kwargs=merged,
        members=members,
        model=model,
        native=traits.native,
        text=traits.text,
        takes_text=traits.text or (traits.native and not getattr(model, "chat", True)),
        serial=traits.serial,
        continues_turn=all(continues),
        has_turn_flags=any(flags),
        reasons=FinishReasons.of(model),
    )


def unbind(
    llm: Runnable[Any, Any], kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], tuple[RunnableBinding[Any, Any], ...], dict[str, Any]]:
    """The runnable without the bindings around it, the bindings, and all keyword arguments together."""
    bindings: list[RunnableBinding[Any, Any]] = []
    merged = dict(kwargs)
    while read_traits(llm).binding:
        binding = cast(RunnableBinding[Any, Any], llm)
        bindings.append(binding)
        merged = {**binding.kwargs, **merged}
        llm = binding.bound
    return llm, tuple(bindings), merged


def with_bindings(bindings: Iterable[RunnableBindingBase[Any, Any]], config: RunnableConfig) -> RunnableConfig:
    """The config of a call with those of the bindings around its model, whose listeners are made for each call."""
    for binding in bindings:
        config = merged_configs(binding.config, config)
        made = [make(config) for make in binding.config_factories]
        config = merged_configs(config, *made) if made else config
    return config


def merged_configs(*configs: RunnableConfig | None) -> RunnableConfig:
    """These configs merged, later ones first in rank, without the config of the context.

    LangChain's `merge_configs` fills up each of them from the context, and lets that win over the configs before it.
    """
    return _out_of_context(merge_configs, *configs)


def _out_of_context(function: Callable[..., _T], *args: Any) -> _T:
    context = copy_context()
    context.run(var_child_runnable_config.set, None)
    return context.run(function, *args)


def prepared(llm: Any, config: RunnableConfig) -> tuple[Runnable[Any, Any], RunnableConfig]:
    """What this config chooses of configurable fields or alternatives, and the config for it."""
    chosen: tuple[Runnable[Any, Any], RunnableConfig] = _out_of_context(llm.prepare, config)
    return chosen


def turn_flag(model: Any, kwargs: Mapping[str, Any]) -> Any:
    """The value of `continue_final_message` in `extra_body`, as vLLM, SGLang and llama.cpp take it."""
    body = kwargs["extra_body"] if "extra_body" in kwargs else getattr(model, "extra_body", None)
    return body.get("continue_final_message") if isinstance(body, Mapping) else None


def find_model(llm: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model behind its wrappers; where there is a choice, the default."""
    return _most_limited(models_in(llm, None, {}))


def _most_limited(members: Iterable[tuple[Runnable[Any, Any], Mapping[str, Any]]]) -> Runnable[Any, Any]:
    (first, _), *others = members
    if read_traits(first).native:
        return next((model for model, _ in others if not read_traits(model).native), first)
    return first


def makes_configs(llm: Any) -> bool:
    """Whether a binding in or around a model makes a config for each call, and with it may choose the model."""
    if isinstance(llm, RunnableBindingBase) and llm.config_factories:
        return True
    inner = [getattr(llm, name, None) for name in ("bound", "runnable", "default")]
    inner += [*(getattr(llm, "fallbacks", None) or ())]
    alternatives = getattr(llm, "alternatives", None)
    inner += alternatives.values() if isinstance(alternatives, dict) else ()
    return any(isinstance(each, Runnable) and makes_configs(each) for each in inner)


def models_in(
    llm: Runnable[Any, Any], config: RunnableConfig | None, kwargs: Mapping[str, Any]
) -> Iterator[tuple[Runnable[Any, Any], Mapping[str, Any]]]:
    """The models behind bindings, retries, fallbacks and what is configurable.

    Args:
        llm: A model with its wrappers.
        config: The config that chooses where there is a choice; None for the defaults.
        kwargs: Passed on to the model with each call.

    Returns:
        Each model that may get the call, with the keyword arguments that come with it.
    """
    traits = read_traits(llm)
    wrapper: Any = llm
    if traits.configurable:
        chosen, config = (wrapper.default, None) if config is None else prepared(llm, config)
        yield from models_in(chosen, config, kwargs)
    elif isinstance(llm, RunnableBindingBase):
        inner = None if config is None else merged_configs(llm.config, config)
        yield from models_in(llm.bound, inner, {**llm.kwargs, **kwargs})
    elif traits.fallbacks:
        for runnable in wrapper.runnables:
            yield from models_in(runnable, config, kwargs)
    else:
        yield llm, kwargs


def _choose(
    llm: Runnable[Any, Any], config: RunnableConfig, kwargs: Mapping[str, Any], *, adopts: bool
) -> Runnable[Any, Any]:
    """The runnable without what is configurable in it, and with local models adopted."""
    traits = read_traits(llm)
    wrapper: Any = llm
    if traits.binding or traits.retry:
        inner = with_bindings([wrapper], config)
        bound = _choose(wrapper.bound, inner, {**wrapper.kwargs, **kwargs}, adopts=adopts)
        return llm if bound is wrapper.bound else _copied(wrapper, bound=bound)
    if traits.configurable:
        chosen, config = prepared(llm, config)
        bound = _choose(chosen, config, kwargs, adopts=adopts)
        # Alternatives may rename what is configurable inside of them; the rest of the config comes with the call.
        own = {**(wrapper.config or {}), "configurable": config.get("configurable") or {}}
        return RunnableBinding(bound=bound, kwargs={}, config=cast(RunnableConfig, own))
    if traits.stock_fallbacks:
        first, *others = (_choose(runnable, config, kwargs, adopts=adopts) for runnable in wrapper.runnables)
        return _copied(wrapper, runnable=first, fallbacks=others)
    if not traits.adoptable:
        return llm
    from langchain_sot.local.adoption import adopt_runnable, with_async_methods

    return adopt_runnable(llm, kwargs) if adopts else with_async_methods(llm)


def _copied(wrapper: Any, **fields: Any) -> Runnable[Any, Any]:
    copy: Runnable[Any, Any] = wrapper.model_copy(update=fields)
    return copy


# --- the models of a chain, and of one of its answers ---


@dataclass(frozen=True)
class AnswerModels:
    """The models of one answer, as its config chooses them.

    Attributes:
        llm: Writes the skeleton, the opening, the closing, the merge and a direct answer.
        point_llm: Writes the points.
    """

    llm: ResolvedModel
    point_llm: ResolvedModel

    def of(self, stage: Stage) -> ResolvedModel:
        """The model that writes this stage."""
        return self.point_llm if stage == "point" else self.llm

    @property
    def serial(self) -> bool:
        """Whether two calls at a time would break one of the models."""
        return self.llm.serial or self.point_llm.serial

    def request(self, max_concurrency: int | None) -> Request:
        """The request's tools, format and limits, for routers.

        Args:
            max_concurrency: The most calls that may be open; fewer where the models cannot run that many side by side.
        """
        room = 1 if self.serial else max_concurrency
        if self.point_llm.native and not self.serial:
            rows: int = cast("ChatTransformers", self.point_llm.model).engine.parallel_rows
            room = rows if max_concurrency is None else min(rows, max_concurrency)
        return read_request(self.llm.kwargs, room)

    def continuing(self, prefill: Literal["auto"] | bool) -> frozenset[Stage]:
        """The stages whose model gets the start of its turn."""
        stages: set[Stage] = set()
        if prefill is True or (prefill and self.llm.continues_turn):
            stages.add("skeleton")
        if prefill is True or (prefill and self.point_llm.continues_turn):
            stages.add("point")
        return frozenset(stages)


class ChainModels:
    """The two models of a chain, for the answers of one batch: answers with equal configs share the resolved models.

    Args:
        llm: Writes the skeletons, the openings, the closings, the merges and the direct answers.
        point_llm: Writes the points.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.
        kwargs: Passed on to the models.
    """

    def __init__(
        self,
        llm: Runnable[Any, Any],
        point_llm: Runnable[Any, Any],
        *,
        adopts: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._llm = llm
        self._point_llm = point_llm
        self._adopts = adopts
        self._kwargs = kwargs or {}
        self._resolved: list[tuple[RunnableConfig, AnswerModels]] = []

    def with_kwargs(self, kwargs: Mapping[str, Any]) -> ChainModels:
        """The same models for calls with these keyword arguments; equal ones share the resolved models."""
        if _equal(self._kwargs, kwargs):
            return self
        return ChainModels(self._llm, self._point_llm, adopts=self._adopts, kwargs=kwargs)

    def for_config(self, config: RunnableConfig) -> AnswerModels:
        """The models that this config chooses.

        Raises:
            ValueError: The config names an alternative that does not exist.
        """
        for known, models in self._resolved:
            if self._choose_alike(known, config):
                return models
        llm = resolve(self._llm, config, self._kwargs, adopts=self._adopts)
        point_llm = llm
        if self._point_llm is not self._llm:
            point_llm = resolve(self._point_llm, config, self._kwargs, adopts=self._adopts)
        models = AnswerModels(llm, point_llm)
        self._resolved.append((config, models))
        return models

    def _choose_alike(self, *configs: RunnableConfig) -> bool:
        # Only the values named in `config_specs` choose a model, unless a binding makes configs of its own.
        try:
            if self._names is None:
                return False
            one, other = ([(c.get("configurable") or {}).get(name) for name in self._names] for c in configs)
        except Exception:  # contradictory specs: resolve for each config
            return False
        return _equal(one, other)

    @cached_property
    def _names(self) -> list[str] | None:
        if makes_configs(self._llm) or makes_configs(self._point_llm):
            return None
        return sorted({spec.id for llm in (self._llm, self._point_llm) for spec in llm.config_specs})


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # values that cannot be compared
        return False
