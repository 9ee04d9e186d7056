"""A router as a selector between two engines: one answers by Skeleton-of-Thought, the other does not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.schema import QueryBundle
from llama_index.core.tools.types import ToolMetadata

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, decide_at_once, failure_decision
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["SkeletonOfThoughtSelector"]


class SkeletonOfThoughtSelector(BaseSelector):
    """Selects the engine that answers through a skeleton if a router decides for one, else the other engine.

    The engine behind `skeleton` needs no router of its own: give it `router=None`. A router that fails selects
    `direct`, and the selection's reason says so.

    Example:
        >>> from llama_index_sot import SkeletonOfThoughtSelector
        >>> selector = SkeletonOfThoughtSelector()
        >>> selector.select(["points", "as it is"], "What are the pros and cons of living on a boat?").ind
        0
        >>> result = selector.select(["points", "as it is"], "What is 17 * 4?")
        >>> result.ind, result.reason
        (1, 'gate (arithmetic): something to be calculated')

    Args:
        router: Decides: `"auto"`, a function of the query, sync or async, or a core `Router`, as for
            `SkeletonOfThoughtQueryEngine`.
        skeleton: The index of the engine with points among the choices, from 0.
        direct: The index of the other engine.

    Raises:
        InvalidInput: The router or an index cannot work. `select` raises it if there is no choice at an index.
    """

    def __init__(self, router: AnyRouter | Literal["auto"] = "auto", *, skeleton: int = 0, direct: int = 1) -> None:
        from skeleton_of_thought.routers.auto import as_router

        found = as_router(router)
        if found is None:
            raise InvalidInput('A selector needs a router: "auto", a function of the query, or a Router, not None.')
        for name, index in (("skeleton", skeleton), ("direct", direct)):
            if not isinstance(index, int) or isinstance(index, bool) or index < 0:
                raise InvalidInput(f"{name} must be the index of a choice, 0 or more, not {index!r}.")
        if skeleton == direct:
            raise InvalidInput(f"skeleton and direct are both {skeleton}: there would be nothing to select.")
        self._router = found
        self._skeleton = skeleton
        self._direct = direct

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if prompts:
            raise InvalidInput(f"A router has no prompts to update, and these are given: {', '.join(prompts)}.")

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        self._check(choices)
        conversation = Conversation.of(query.query_str)
        decision = decide_at_once(self._router, conversation)
        if decision is None:
            try:
                decision = _decide(BoundRouter(self._router, conversation))
            except Exception as error:
                decision = failure_decision(error)
        return self._selection(decision)

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        self._check(choices)
        conversation = Conversation.of(query.query_str)
        decision = decide_at_once(self._router, conversation)
        if decision is None:
            try:
                decision = await BoundRouter(self._router, conversation).adecide()
            except Exception as error:
                decision = failure_decision(error)
        return self._selection(decision)

    def _check(self, choices: Sequence[ToolMetadata]) -> None:
        for name, index in (("skeleton", self._skeleton), ("direct", self._direct)):
            if index >= len(choices):
                raise InvalidInput(
                    f"{name}={index} is none of the {len(choices)} choices, whose indices begin with 0. Give both "
                    "engines as tools, and their indices as skeleton and direct."
                )

    def _selection(self, decision: RouteDecision) -> SelectorResult:
        index = self._skeleton if decision.use_skeleton else self._direct
        return SelectorResult(selections=[SingleSelection(index=index, reason=decision.reason or "the router decided")])


def _decide(router: BoundRouter) -> RouteDecision:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return router.decide()
    # A notebook has a running loop: an async router needs another one, in a thread. After Ctrl-C nothing waits for it.
    decision: Future[RouteDecision] = Future()

    def work() -> None:
        try:
            decision.set_result(router.decide())
        except BaseException as error:  # raised in the caller's thread
            decision.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="sot-route", daemon=True).start()
    return decision.result()
