"""Skeleton-of-Thought for LangChain: outline the answer first, then write all points in parallel.

Names that few programs use are imported at their first use. `SkeletonOfThoughtMiddleware` is one of them; it needs
`langchain` (extra `agents`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._moved import keep_old_names
from skeleton_of_thought.errors import MissingExtra, is_missing

try:
    from langchain_sot.chain import SkeletonOfThoughtChain
except ModuleNotFoundError as _error:
    if not is_missing(_error, "langchain_core"):
        raise
    raise MissingExtra("langchain_sot needs langchain-core, which is not installed", "langchain") from _error

if TYPE_CHECKING:
    from langchain_sot.chat_model.model import SkeletonOfThoughtChatModel
    from langchain_sot.loading import load_chain
    from langchain_sot.local.chat_transformers import ChatTransformers
    from langchain_sot.middleware import SkeletonOfThoughtMiddleware as SkeletonOfThoughtMiddleware
    from langchain_sot.prompt_router import PromptRouter
    from langchain_sot.route_runnable import SkeletonOfThoughtRouter
    from langchain_sot.skeleton_parser import SkeletonOutputParser

# Without the middleware: `from langchain_sot import *` must work without the extras.
__all__ = [
    "ChatTransformers",
    "PromptRouter",
    "SkeletonOfThoughtChain",
    "SkeletonOfThoughtChatModel",
    "SkeletonOfThoughtRouter",
    "SkeletonOutputParser",
    "load_chain",
]

keep_old_names(
    __name__,
    {
        "automatic": "chain",
        "chat_transformers": "local.chat_transformers",
        "structured": "local.structured_output",
    },
)

_MODULES = {
    "ChatTransformers": "local.chat_transformers",
    "PromptRouter": "prompt_router",
    "SkeletonOfThoughtChatModel": "chat_model",
    "SkeletonOfThoughtMiddleware": "middleware",
    "SkeletonOfThoughtRouter": "route_runnable",
    "SkeletonOutputParser": "skeleton_parser",
    "load_chain": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
