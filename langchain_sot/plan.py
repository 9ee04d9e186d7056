"""How a chain makes its answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import Runnable

from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Skeleton

if TYPE_CHECKING:
    from langchain_sot.calls import AnswerModels
    from skeleton_of_thought.budget import Budget, Share
    from skeleton_of_thought.together import Together

__all__ = ["AnswerPlan", "rows_of"]


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

    def budget(self) -> Budget:
        """A budget for the open calls of a batch whose caller sets no `max_concurrency`."""
        from skeleton_of_thought.budget import Budget, default_limit

        return Budget(default_limit(self.settings, self.skeleton))

    def share(
        self, budget: Budget | None, models: Iterable[AnswerModels], together: Together | None, most: int | None
    ) -> Share:
        """The share of some answers in a budget.

        Without a limit of the caller's it does not slow down models that take many calls as one: a local engine gets as
        many as it decodes at once, and the prompts of a string LLM go into one `generate`, however many they are.

        Args:
            budget: The budget that they share with other answers; None for one of their own.
            models: The models of each answer.
            together: Makes calls together, where a model takes several at once.
            most: The most calls that these answers may have open; None without a limit of the caller's.
        """
        from skeleton_of_thought.budget import Share

        own, shared = budget or self.budget(), budget is not None
        if most is not None or together is None:
            exempt = None
        else:
            exempt = lambda call, position: together.key(call, position) is not None  # noqa: E731
        if most is None:
            own.allow(rows_of(models))
        return Share(own, exempt, most=most, shared=shared)


def rows_of(models: Iterable[AnswerModels]) -> int:
    """The most calls that the local engines among these models decode at once."""
    engines: dict[int, Any] = {}
    for own in models:
        engines |= {id(each.model): each.model for each in (own.llm, own.point_llm) if each.native}
    return sum(model.engine.parallel_rows for model in engines.values())
