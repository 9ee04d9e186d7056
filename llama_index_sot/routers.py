"""Routers as a part of an answer: what they do stands in the answer's traces."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_sot.tracing import call_span
from skeleton_of_thought.routing import AnyRouter, BoundRouter, decided_at_once, races, told
from skeleton_of_thought.types import Answer, Conversation, RouteDecision

__all__ = ["TracedRouter"]


@dataclass(frozen=True)
class TracedRouter:
    """A router whose calls have a span of their own in the answer's, as the other calls have.

    A decision that takes no call has none.
    """

    router: AnyRouter

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        with call_span("route"):
            return BoundRouter(self.router, conversation).decide()

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        with call_span("route"):
            return await BoundRouter(self.router, conversation).adecide()

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision where it takes no call."""
        return decided_at_once(self.router, conversation)

    @property
    def races(self) -> bool:
        """As the router's own."""
        return races(self.router)

    def observe(self, answer: Answer) -> None:
        """Tells the router, if it learns."""
        told(self.router, answer)
