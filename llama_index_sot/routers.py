"""Routers as a part of an answer: what they do stands in the answer's traces."""

from __future__ import annotations

from dataclasses import dataclass

from llama_index_sot.tracing import call_span
from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, RouterWrapper
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["TracedRouter"]


@dataclass(frozen=True)
class TracedRouter(RouterWrapper):
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
