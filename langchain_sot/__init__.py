"""Skeleton-of-Thought for LangChain: outline the answer first, then write all points in parallel.

`SkeletonOfThoughtMiddleware` is here too; it needs `langchain` (extra `agents`), which is imported when the name is
first used.
"""

from typing import TYPE_CHECKING, Any

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model import SkeletonOfThoughtChatModel
from langchain_sot.chat_transformers import ChatTransformers
from langchain_sot.loading import load_chain
from langchain_sot.skeleton_parser import SkeletonOutputParser

if TYPE_CHECKING:
    from langchain_sot.middleware import SkeletonOfThoughtMiddleware as SkeletonOfThoughtMiddleware

# Without the middleware: `from langchain_sot import *` works whatever is installed.
__all__ = [
    "ChatTransformers",
    "SkeletonOfThoughtChain",
    "SkeletonOfThoughtChatModel",
    "SkeletonOutputParser",
    "load_chain",
]


def __getattr__(name: str) -> Any:
    if name == "SkeletonOfThoughtMiddleware":
        from langchain_sot.middleware import SkeletonOfThoughtMiddleware

        return SkeletonOfThoughtMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
