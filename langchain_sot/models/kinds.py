"""What kind of runnable something is, without importing what it is not.

Several of LangChain's classes take long to import, and most programs use none of them. An object's class is loaded, so
a class that is not loaded has no objects, and there is no need to load it in order to ask.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

from langchain_core.runnables import RunnableBinding

if TYPE_CHECKING:
    from langchain_core.language_models import BaseLLM
    from langchain_core.runnables import RunnableWithFallbacks
    from langchain_core.runnables.configurable import DynamicRunnable
    from langchain_core.runnables.retry import RunnableRetry

    from langchain_sot.local.chat_transformers import ChatTransformers

__all__ = [
    "has_fallbacks",
    "is_binding",
    "is_configurable",
    "is_native",
    "is_retry",
    "is_string_llm",
    "library_class",
    "may_be_adopted",
    "takes_text",
]

_LIBRARIES = ("langchain_huggingface", "langchain_community")
_PATHS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")


def _loaded(module: str, name: str) -> type[Any] | None:
    kind: type[Any] | None = getattr(sys.modules.get(module), name, None)
    return kind


def _is(llm: Any, kind: type[Any] | None) -> bool:
    return kind is not None and isinstance(llm, kind)


def _is_stock(llm: Any, kind: type[Any] | None) -> bool:
    # A subclass that does something of its own when it is called is called as it is. Others are subclasses by name
    # only, as what `BaseChatModel.bind` returns.
    return _is(llm, kind) and all(getattr(type(llm), name) is getattr(kind, name) for name in _PATHS)


def is_binding(llm: Any) -> TypeGuard[RunnableBinding[Any, Any]]:
    """Whether it is LangChain's own binding (or one that is called just as that)."""
    return _is_stock(llm, RunnableBinding)


def is_retry(llm: Any) -> TypeGuard[RunnableRetry[Any, Any]]:
    """Whether it is LangChain's own `with_retry`."""
    return _is_stock(llm, _loaded("langchain_core.runnables.retry", "RunnableRetry"))


def has_fallbacks(llm: Any, *, stock: bool = False) -> TypeGuard[RunnableWithFallbacks[Any, Any]]:
    """Whether it is something `with_fallbacks`; with `stock`, whether it is called just as LangChain's own."""
    kind = _loaded("langchain_core.runnables.fallbacks", "RunnableWithFallbacks")
    return _is_stock(llm, kind) if stock else _is(llm, kind)


def is_configurable(llm: Any) -> TypeGuard[DynamicRunnable[Any, Any]]:
    """Whether it has configurable fields or alternatives."""
    return _is(llm, _loaded("langchain_core.runnables.configurable", "DynamicRunnable"))


def is_string_llm(llm: Any) -> TypeGuard[BaseLLM]:
    """Whether it completes a string instead of answering a chat."""
    return _is(llm, _loaded("langchain_core.language_models.llms", "BaseLLM"))


def is_native(llm: Any) -> TypeGuard[ChatTransformers]:
    """Whether it is this package's own model."""
    return _is(llm, _loaded("langchain_sot.local.chat_transformers", "ChatTransformers"))


def takes_text(llm: Any) -> bool:
    """Whether it is an adopted string LLM, which is this package's own model and gets text all the same."""
    return is_native(llm) and not getattr(llm, "chat", True)


def may_be_adopted(llm: Any) -> bool:
    """Whether it is one of LangChain's Hugging Face classes, which may hold a model of this process."""
    return any(library_class(llm, name) is not None for name in ("HuggingFacePipeline", "ChatHuggingFace"))


def library_class(llm: Any, name: str) -> type | None:
    """LangChain's Hugging Face class of this name, if the object is of it."""
    for cls in type(llm).__mro__:
        if cls.__name__ == name and cls.__module__.partition(".")[0] in _LIBRARIES:
            return cls
    return None
