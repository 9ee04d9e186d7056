"""`router="auto"`: the gate, then the embedded router, then the cost guard."""

from __future__ import annotations

import dataclasses
from typing import Literal

from skeleton_of_thought.routers.base import (
    AnyRouter,
    BoundRouter,
    check_router,
    failure_decision,
    races,
    report_answer,
)
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.types import Answer, Conversation, ItemsDecision, RouteDecision

__all__ = ["AutoRouter", "as_router"]


class AutoRouter:
    """A skeleton where it helps and a direct answer where it would hurt, decided in well under a millisecond.

    The decision needs no call, unless `router` does. Where points may build on each other (`Request.graph`), a question
    whose answer compares, recommends, ranks or concludes gets a graph of points, if the router takes it for points.

    Args:
        router: Decides the questions that pass the gate; None for the embedded router.
        gate: The rules before the router; None for no rules.
        guard: Weighs cost against time after the router; None for no guard. It learns from `observe`.

    Raises:
        InvalidInput: `router` is no router.

    Example:
        >>> router = AutoRouter()
        >>> router.route(Conversation.of("What are the pros and cons of living on a boat?")).use_skeleton
        True
        >>> router.route(Conversation.of("What is 17 * 4?")).reason
        'gate (arithmetic): something to be calculated'
    """

    def __init__(
        self,
        router: AnyRouter | None = None,
        *,
        gate: Gate | None = Gate(),  # noqa: B008 - frozen
        guard: CostGuard | None = None,
    ) -> None:
        check_router(router)
        self.router: AnyRouter = EmbeddedRouter() if router is None else router
        self.gate = gate
        self.guard = guard

    def observe(self, answer: Answer) -> None:
        """Reports an answer to the guard, and to a router that learns."""
        if hasattr(self.router, "observe"):
            report_answer(self.router, answer)
        if self.guard is not None:
            self.guard.observe(answer)

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        if conversation.request.items and (found := self._items(conversation)) is not None:
            return found
        gated = None if self.gate is None else self.gate.route(conversation)
        if gated is not None and not gated.use_skeleton:
            return gated
        return self._guarded(conversation, BoundRouter(self.router, conversation).decide(), gated)

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        if conversation.request.items and (found := self._items(conversation)) is not None:
            return found
        gated = None if self.gate is None else self.gate.route(conversation)
        if gated is not None and not gated.use_skeleton:
            return gated
        return self._guarded(conversation, await BoundRouter(self.router, conversation).adecide(), gated)

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision if it needs no call: the gate and the embedded router need none, other routers may."""
        if conversation.request.items and (found := self._items(conversation)) is not None:
            return found
        gated = None if self.gate is None else self.gate.route(conversation)
        if gated is not None and not gated.use_skeleton:
            return gated
        at_once = getattr(self.router, "at_once", None)
        if at_once is None:
            return None
        try:
            decision = at_once(conversation)
        except Exception as error:
            return failure_decision(error)
        return None if decision is None else self._guarded(conversation, decision, gated)

    @property
    def races(self) -> bool:
        """Whether the skeleton is written while the router decides, see `Router`."""
        return races(self.router)

    def _items(self, conversation: Conversation) -> RouteDecision | None:
        """The decision on a question about several items, each for itself; None for another question."""
        request = conversation.request
        if request.tools or request.response_format or conversation.attachments:
            return None
        from skeleton_of_thought.routers.item_prompts import asks_otherwise
        from skeleton_of_thought.routers.items import find_items

        if (items := find_items(conversation.question)) is None or asks_otherwise(conversation, items):
            return None
        refused = None if self.guard is None else self.guard.items(conversation, items)
        return refused or ItemsDecision(True, reason=f"it asks the same of {len(items)} items", items=items)

    def _guarded(
        self, conversation: Conversation, decision: RouteDecision, gated: RouteDecision | None
    ) -> RouteDecision:
        if not decision.use_skeleton:
            return decision
        if gated is not None and gated.planning and not decision.planning:
            reason = "; ".join(filter(None, (decision.reason, gated.reason)))
            decision = dataclasses.replace(decision, reason=reason, planning=gated.planning)
        if self.guard is None:
            return decision
        guarded = (
            self.guard.route(conversation, decision.planning) if decision.planning else self.guard.route(conversation)
        )
        if guarded.use_skeleton and not self.guard.has_measured:
            return decision
        reason = "; ".join(filter(None, (decision.reason, guarded.reason)))
        planning = decision.planning if guarded.use_skeleton else None
        return dataclasses.replace(decision, use_skeleton=guarded.use_skeleton, reason=reason, planning=planning)


def as_router(router: AnyRouter | Literal["auto"] | None, *, guard: CostGuard | None = None) -> AnyRouter | None:
    """The router for an adapter's `router` argument: an `AutoRouter` with this guard for `"auto"`, else the argument.

    Raises:
        InvalidInput: The argument is no router.

    Example:
        >>> as_router("auto").route(Conversation.of("Why?")).use_skeleton
        False
        >>> as_router(None) is None
        True
    """
    if router == "auto":
        return AutoRouter(guard=guard)
    check_router(router)
    return router
