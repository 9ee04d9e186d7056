"""Skeleton-of-Thought (SoT): outline the answer first, then write all points in parallel.

The idea is from Ning et al., "Skeleton-of-Thought: Prompting LLMs for Efficient Parallel Generation"
(ICLR 2024, arXiv 2307.15337). This package is the framework-free core and needs the standard library
alone; `langchain_sot` and `llama_index_sot` are its adapters, `skeleton_of_thought.local` decodes the
points of a local Hugging Face model as one batch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._moved import keep_old_names
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.parsing.parser import parse_skeleton
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import Router, all_of, any_of, first_sure, with_threshold
from skeleton_of_thought.types import Answer, Conversation, Expansion, Point, RouteDecision, Skeleton, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.routers.auto import AutoRouter
    from skeleton_of_thought.routers.classifier import ClassifierRouter
    from skeleton_of_thought.routers.cost import CostGuard, Pace
    from skeleton_of_thought.routers.embedded import EmbeddedRouter
    from skeleton_of_thought.routers.gate import Gate
    from skeleton_of_thought.routers.prompt import PromptRouter
    from skeleton_of_thought.timeline import Timeline

__all__ = [
    "Answer",
    "AutoRouter",
    "ClassifierRouter",
    "Conversation",
    "CostGuard",
    "EmbeddedRouter",
    "Expansion",
    "Gate",
    "Pace",
    "Point",
    "PromptRouter",
    "PromptSet",
    "RouteDecision",
    "Router",
    "Skeleton",
    "SotError",
    "Timeline",
    "Usage",
    "all_of",
    "any_of",
    "first_sure",
    "parse_skeleton",
    "with_threshold",
]


keep_old_names(
    __name__,
    {
        "auto": "routers.auto",
        "cost": "routers.cost",
        "embedded": "routers.embedded",
        "local.classifier": "routers.classifier",
        "prompt_router": "routers.prompt",
        "routing": "routers.base",
    },
)

_LAZY = {
    "AutoRouter": "routers.auto",
    "ClassifierRouter": "routers.classifier",
    "CostGuard": "routers.cost",
    "EmbeddedRouter": "routers.embedded",
    "Gate": "routers.gate",
    "Pace": "routers.cost",
    "PromptRouter": "routers.prompt",
    "Timeline": "timeline",
}
"""Imported at their first use: one needs torch, and many programs never use the others."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"skeleton_of_thought.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
