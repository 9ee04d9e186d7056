"""Finds the model that a config chooses, behind its bindings, retries, fallbacks and alternatives.

LangChain's runnables are known by the names of their classes, because importing `configurable`, `llms`, `retry` and
`fallbacks` costs several milliseconds each, and most programs use few of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import starmap
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase, RunnableParallel, RunnableSequence
from langchain_core.runnables.config import merge_configs

from skeleton_of_thought.adapters.replies import FinishReasons

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableWithFallbacks

__all__ = [
    "ResolvedModel",
    "RunnableTraits",
    "find_model",
    "has_fallbacks",
    "makes_configs",
    "models_in",
    "read_traits",
    "rebound",
    "resolve",
    "turn_flag",
    "unbind",
    "with_bindings",
]

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
        has_turn_flags: Whether a member has settings that tell its server to continue the last message.
        reasons: Whether its replies have had finish reasons so far.
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
        continues_turn=traits.native or all(flags),
        has_turn_flags=any(flags),
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
        merged = merge_configs(binding.config, config)
        config = merge_configs(merged, *(make(merged) for make in binding.config_factories))
    return config


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
        chosen, config = (wrapper.default, None) if config is None else wrapper.prepare(config)
        yield from models_in(chosen, config, kwargs)
    elif isinstance(llm, RunnableBindingBase):
        inner = None if config is None else merge_configs(llm.config, config)
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
        chosen, prepared = wrapper.prepare(config)
        bound = _choose(chosen, prepared, kwargs, adopts=adopts)
        # Alternatives may rename what is configurable inside of them; the rest of the config comes with the call.
        own = {**(wrapper.config or {}), "configurable": prepared.get("configurable") or {}}
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


# --- methods of the model, called on its wrappers ---


def rebound(llm: Runnable[Any, Any], method: str, /, *args: Any, **kwargs: Any) -> Runnable[Any, Any]:
    """The result of a model's method, such as `bind_tools`, in the model's wrappers.

    LangChain's own wrappers either have no such methods (`with_retry`) or hand them to the bare model, so that
    what was bound before is lost (`llm.bind(...).with_structured_output(...)`).

    Args:
        llm: A chat model, or bindings, retries and fallbacks around it.
        method: The name of the method; it returns a runnable.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Raises:
        NotImplementedError: The model has no such method.
    """
    if isinstance(llm, RunnableBindingBase):
        return _wrapped_again(rebound(llm.bound, method, *args, **kwargs), llm)
    if has_fallbacks(llm):
        runnable, *fallbacks = (rebound(r, method, *args, **kwargs) for r in llm.runnables)
        return llm.model_copy(update={"runnable": runnable, "fallbacks": fallbacks})
    call = getattr(llm, method, None)
    if call is None:
        raise NotImplementedError(
            f"The chain's llm is {type(llm).__name__}, which has no {method}: give the chain a chat model that has it."
        )
    result: Runnable[Any, Any] = call(*args, **kwargs)
    return result


def _wrapped_again(result: Runnable[Any, Any], wrapper: RunnableBindingBase[Any, Any]) -> Runnable[Any, Any]:
    """The result with the wrapper around the model in it, and not around the parsers that may follow."""
    if isinstance(result, RunnableSequence):
        return RunnableSequence(_wrapped_again(result.first, wrapper), *result.middle, result.last, name=result.name)
    if isinstance(result, RunnableParallel):
        return RunnableParallel({key: _wrapped_again(step, wrapper) for key, step in result.steps__.items()})
    return wrapper.model_copy(update={"bound": result})
