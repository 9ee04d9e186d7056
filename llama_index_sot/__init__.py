"""Skeleton-of-Thought for LlamaIndex: outline the answer first, then write all points in parallel.

The names are imported when they are first used: this import alone loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._moved import keep_old_names
from skeleton_of_thought.errors import MissingExtra, is_missing

if TYPE_CHECKING:
    from llama_index_sot.local.transformers_llm import TransformersLLM as TransformersLLM
    from llama_index_sot.points_tool import answer_in_points_tool as answer_in_points_tool
    from llama_index_sot.prompt_router import PromptRouter as PromptRouter
    from llama_index_sot.query_engine import SkeletonOfThoughtQueryEngine as SkeletonOfThoughtQueryEngine
    from llama_index_sot.selector import SkeletonOfThoughtSelector as SkeletonOfThoughtSelector
    from llama_index_sot.skeleton_llm import SkeletonOfThoughtLLM as SkeletonOfThoughtLLM
    from llama_index_sot.synthesizer import SkeletonOfThoughtSynthesizer as SkeletonOfThoughtSynthesizer
    from llama_index_sot.workflow import SkeletonOfThoughtWorkflow as SkeletonOfThoughtWorkflow

__all__ = [
    "PromptRouter",
    "SkeletonOfThoughtLLM",
    "SkeletonOfThoughtQueryEngine",
    "SkeletonOfThoughtSelector",
    "SkeletonOfThoughtSynthesizer",
    "SkeletonOfThoughtWorkflow",
    "TransformersLLM",
    "answer_in_points_tool",
]

keep_old_names(__name__, {"transformers_llm": "local.transformers_llm"})

_MODULES = {
    "PromptRouter": "prompt_router",
    "SkeletonOfThoughtLLM": "skeleton_llm",
    "SkeletonOfThoughtQueryEngine": "query_engine",
    "SkeletonOfThoughtSelector": "selector",
    "SkeletonOfThoughtSynthesizer": "synthesizer",
    "SkeletonOfThoughtWorkflow": "workflow",
    "TransformersLLM": "local.transformers_llm",
    "answer_in_points_tool": "points_tool",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"llama_index_sot.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        # Every integration installs a folder `llama_index`, even without LlamaIndex's core.
        if not is_missing(error, "llama_index.core"):
            raise
        raise MissingExtra(f"{name} needs llama-index-core, which is not installed", "llama-index") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
