"""How a chain makes its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import Runnable

from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Skeleton

__all__ = ["AnswerPlan"]


@dataclass(frozen=True)
class AnswerPlan:
    """How a chain makes its answers: the core's settings, and the models.

    Attributes:
        llm: Writes skeletons, merges and direct answers.
        point_llm: Writes points.
        prompts: The prompts of both.
        settings: The core's settings.
        router: A runnable, a function of the question, a core `Router`, or None.
        routes_by_runs: Whether the router may start runs, which are then children of the answer's run.
        prefill: Whether models are given the start of their turn; "auto" for where they are known to continue it.
        structured: Whether the skeleton is asked for as data, where the model can give it.
        skeleton: Points that are known already.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.
    """

    llm: Runnable[Any, Any]
    point_llm: Runnable[Any, Any]
    prompts: PromptSet
    settings: Settings
    router: Any
    routes_by_runs: bool
    prefill: Literal["auto"] | bool
    structured: bool
    skeleton: Skeleton | None
    adopts: bool
