"""Whether a question is answered through a skeleton: the `Router` protocol, and plain functions as routers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["BoundRouter", "Router", "check_router"]


@runtime_checkable
class Router(Protocol):
    """Decides whether a conversation's question is answered through a skeleton (SoT-R in the paper).

    Example:
        >>> class NoProofs:
        ...     def route(self, conversation):
        ...         return RouteDecision("prove" not in conversation.question.lower(), reason="is it a proof?")
        ...
        ...     async def aroute(self, conversation):
        ...         return self.route(conversation)
        >>> NoProofs().route(Conversation.of("Prove that 2 is even.")).use_skeleton
        False
    """

    def route(self, conversation: Conversation) -> RouteDecision:
        """The decision for the last message of the conversation."""
        ...

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        ...


def check_router(router: object) -> None:
    """Raises `InvalidInput` for what is neither a `Router`, a function of the question, nor None."""
    if router is None or isinstance(router, Router) or callable(router):
        return
    raise InvalidInput(
        f"router is {type(router).__name__}, but must be a Router, a function of the question that returns "
        "whether to use a skeleton, or None to use one always."
    )


@dataclass(frozen=True)
class BoundRouter:
    """A router together with what it is asked; the drivers call it wherever they make their calls."""

    router: Router | Callable[[str], Any]
    conversation: Conversation

    def decide(self) -> RouteDecision:
        """Asks the router. An async function is run to its end on a loop of this thread's own."""
        if isinstance(self.router, Router):
            return self.router.route(self.conversation)
        result = self.router(self.conversation.question)
        if inspect.isawaitable(result):
            return _decision(asyncio.run(_awaited(result)))
        return _decision(result)

    async def adecide(self) -> RouteDecision:
        """Asks the router without holding up the event loop."""
        if isinstance(self.router, Router):
            return await self.router.aroute(self.conversation)
        if inspect.iscoroutinefunction(self.router) or inspect.iscoroutinefunction(
            getattr(self.router, "__call__", None)  # noqa: B004 - the method itself is looked at
        ):
            return _decision(await self.router(self.conversation.question))
        result = await asyncio.to_thread(self.router, self.conversation.question)
        return _decision(await result if inspect.isawaitable(result) else result)


async def _awaited(value: Any) -> Any:
    return await value


def _decision(result: Any) -> RouteDecision:
    if isinstance(result, RouteDecision):
        return result
    return RouteDecision(bool(result))
