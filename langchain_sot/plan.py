"""How a chain makes its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import RootModel

from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Retrieval, Skeleton

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph, Node

    from langchain_sot.chain import SkeletonOfThoughtChain
    from langchain_sot.inputs import OwnPlaceholders
    from langchain_sot.models.resolution import AnswerModels
    from skeleton_of_thought.budget import Budget, Share
    from skeleton_of_thought.together import Together

__all__ = ["AnswerPlan", "chain_graph", "rows_of"]


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
        retriever: Finds documents for a query; None without retrieval.
        retrieval: When the retriever is asked.
        placeholders: The placeholders of the caller's own prompts that inputs fill, by the prompts that have any.
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
    retriever: Runnable[str, Any] | None = None
    retrieval: Retrieval = "none"
    placeholders: Mapping[str, OwnPlaceholders] = field(default_factory=dict)

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
    resolved = [each for own in models for each in (own.llm, own.point_llm) if each.native]
    engines = {id(each.model): cast(Any, each.model).engine for each in resolved}
    return sum(engine.parallel_rows for engine in engines.values())


def chain_graph(chain: SkeletonOfThoughtChain, config: RunnableConfig | None) -> Graph:
    """Input, retrieval, skeleton, points, merge and output of a chain, with the direct route beside them."""
    from langchain_core.runnables.graph import Graph

    from langchain_sot.skeleton_parser import SkeletonOutputParser

    graph, plan = Graph(), chain.plan()
    start = graph.add_node(cast(Any, chain.get_input_schema(config)))
    end = graph.add_node(cast(Any, chain.get_output_schema(config)))
    parts: list[Any] = [chain.get_skeleton_prompt(), plan.llm, SkeletonOutputParser(max_points=chain.max_points)]
    if plan.retriever is not None:
        parts.insert(0 if plan.retrieval == "once" else len(parts), plan.retriever)
    parts += [chain.get_point_prompt(), plan.point_llm]
    if chain.merge:
        parts += [chain.get_merge_prompt(), plan.llm]
    nodes = [graph.add_node(part) for part in parts]
    before = start
    if chain.router is not None:
        router = chain.router if isinstance(chain.router, Runnable) else RootModel[str]
        before = graph.add_node(router, metadata={"sot_stage": "route"})
        graph.add_edge(start, before, conditional=False)
        direct = [graph.add_node(part) for part in (plan.retriever, plan.llm) if part is not None]
        _connect(graph, [before, *direct, end], "direct")
    _connect(graph, [before, *nodes, end], conditional=before is not start)
    return graph


def _connect(graph: Graph, nodes: list[Node], data: str | None = None, *, conditional: bool = True) -> None:
    """Connects nodes in a row; the first edge may be one of several."""
    for source, target in pairwise(nodes):
        first = source is nodes[0]
        graph.add_edge(source, target, data if first else None, conditional=first and conditional)
