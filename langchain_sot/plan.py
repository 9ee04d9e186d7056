"""How a chain makes its answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.runnables import Runnable, RunnableConfig
from pydantic import RootModel

from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import Router
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Retrieval, Skeleton

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph, Node

    from langchain_sot.chain import PlanCache, SkeletonOfThoughtChain
    from langchain_sot.inputs import OwnPlaceholders
    from langchain_sot.models.resolution import AnswerModels
    from skeleton_of_thought.budget import Budget, Share
    from skeleton_of_thought.plan_memory import PlanMemory
    from skeleton_of_thought.together import Together

__all__ = ["STAGES", "AnswerPlan", "chain_graph", "make_plan", "rows_of"]

STAGES = ("skeleton", "point", "merge", "scoped", "graph", "opening", "closing", "item")
"""The stages whose prompts a chain takes one by one, as `skeleton_prompt` and so on."""


@dataclass(frozen=True)
class AnswerPlan:
    """How a chain makes its answers: the core's settings, and the models.

    Attributes:
        llm: Writes skeletons, openings, closings, merges and direct answers.
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
        planned: Whether outputs say what the plan and the roles are.
        plans: Which kinds of plan `llm` could not write, for `planning="auto"`.
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
    planned: bool = False
    plans: PlanMemory | None = None

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


def make_plan(chain: SkeletonOfThoughtChain, cache: PlanCache, skeleton: Skeleton | None = None) -> AnswerPlan:
    """The plan of a chain.

    Args:
        chain: The chain.
        cache: What the chain and its copies have learned of their models.
        skeleton: Points that are known already.

    Raises:
        InvalidInput: A setting, prompt or retriever that cannot work.
    """
    router, is_auto = chain.router, isinstance(chain.router, str)
    if is_auto:
        router = cache.auto_router(chain.llm, chain.point_llm, chain.max_points)
    prompts, templates = chain.prompts or PromptSet(), [getattr(chain, f"{stage}_prompt") for stage in STAGES]
    more: dict[str, Any] = {}
    own = [stage for stage, template in zip(STAGES, templates, strict=True) if template is not None]
    if own or chain.prompts is not None:
        from langchain_sot.inputs import find_placeholders
        from langchain_sot.templates import prompt_set

        prompts = prompt_set(prompts, **dict(zip(STAGES, templates, strict=True)))
        more["placeholders"] = find_placeholders(prompts, own)
    if chain.retriever is not None or chain.retrieval is not None:
        from langchain_sot.retrieval import as_retriever, check_retrieval

        more["retrieval"] = check_retrieval(chain.retriever, chain.retrieval)
        more["retriever"] = None if chain.retriever is None else as_retriever(chain.retriever)
    settings = {each.name: getattr(chain, each.name) for each in fields(Settings)}
    if skeleton is not None:  # its points stay apart: the caller gets each of them
        settings |= {"merge": False, "opening": False, "closing": False}
    if chain.planning == "auto":
        more["plans"] = cache.memory(chain.llm)
    return AnswerPlan(
        llm=chain.llm,
        point_llm=chain.point_llm if chain.point_llm is not None else chain.llm,
        prompts=prompts,
        settings=Settings(**settings),
        router=router,
        routes_by_runs=router is not None and not is_auto,
        prefill=chain.prefill,
        structured=chain.skeleton_mode == "structured",
        skeleton=skeleton,
        adopts=chain.adopt,
        planned=settings["planning"] != "titles" or bool(settings["opening"]) or settings["closing"],
        **more,
    )


def rows_of(models: Iterable[AnswerModels]) -> int:
    """The most calls that the local engines among these models decode at once."""
    resolved = [each for own in models for each in (own.llm, own.point_llm) if each.native]
    engines = {id(each.model): cast(Any, each.model).engine for each in resolved}
    return sum(engine.parallel_rows for engine in engines.values())


def chain_graph(chain: SkeletonOfThoughtChain, config: RunnableConfig | None) -> Graph:
    """Input, retrieval, skeleton, points, roles, merge and output of a chain, with its other routes beside them."""
    from langchain_core.runnables.graph import Graph

    from langchain_sot.skeleton_parser import SkeletonOutputParser

    graph, plan = Graph(), chain.plan()
    start = graph.add_node(cast(Any, chain.get_input_schema(config)))
    end = graph.add_node(cast(Any, chain.get_output_schema(config)))
    planning = "titles" if chain.planning == "auto" else chain.planning
    parser = SkeletonOutputParser(max_points=chain.max_points, planning=planning)
    parts: list[Any] = [chain.get_skeleton_prompt(), plan.llm, parser]
    if plan.retriever is not None:
        parts.insert(0 if plan.retrieval == "once" else len(parts), plan.retriever)
    parts += [chain.get_point_prompt(), plan.point_llm]
    for role in ("opening", "closing"):
        if getattr(plan.settings, role):
            parts += [chain.get_role_prompt(role), plan.llm]
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
        # A runnable or a function of the question does not tell of items.
        if chain.items == "auto" and (chain.router == "auto" or isinstance(chain.router, Router)):
            by_items = (plan.retriever, chain.get_item_prompt(), plan.point_llm)
            own = [graph.add_node(part) for part in by_items if part is not None]
            _connect(graph, [before, *own, end], "items")
    _connect(graph, [before, *nodes, end], conditional=before is not start)
    return graph


def _connect(graph: Graph, nodes: list[Node], data: str | None = None, *, conditional: bool = True) -> None:
    """Connects nodes in a row; the first edge may be one of several."""
    for source, target in pairwise(nodes):
        first = source is nodes[0]
        graph.add_edge(source, target, data if first else None, conditional=first and conditional)
