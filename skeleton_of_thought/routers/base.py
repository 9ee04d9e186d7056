"""Whether a question is answered through a skeleton: the `Router` protocol, functions as routers, and combinations."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Answer, Conversation, RouteDecision, Usage

__all__ = [
    "FAILED",
    "AnyRouter",
    "BoundRouter",
    "Combined",
    "Router",
    "RouterWrapper",
    "all_of",
    "any_of",
    "check_router",
    "decide_at_once",
    "failure_decision",
    "first_sure",
    "races",
    "report_answer",
    "with_threshold",
]


@runtime_checkable
class Router(Protocol):
    """Decides whether a conversation's question is answered through a skeleton (SoT-R in the paper).

    Three more attributes are optional. `at_once(conversation)` returns the decision, or None where it takes a call: a
    flow asks it first, and opens no call of stage `route` where it decides. It has to be over at once (below a
    millisecond), for it runs where the flow does. `races=True` has the skeleton's call run beside the router's; the
    skeleton waits for the decision, and is cancelled if that is direct. `observe(answer)` is told every answer that
    is complete, for routers that learn from timings (but those of a batch, which wait for each other).

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


logger = logging.getLogger(__name__)

AnyRouter = Router | Callable[[str], Any]
"""What may stand where a router is wanted: a `Router`, or a function of the question, async or not."""


def check_router(router: object) -> None:
    """Raises `InvalidInput` for what is neither a `Router`, a function of the question, nor None."""
    if router is None or isinstance(router, Router) or callable(router):
        return
    what = repr(router) if isinstance(router, str) else type(router).__name__
    raise InvalidInput(
        f"router is {what}, but must be a Router, a function of the question that returns whether to use a skeleton, "
        'or None to use one always. Chains and engines take "auto" besides; here that is AutoRouter().'
    )


@dataclass(frozen=True)
class BoundRouter:
    """A router together with what it is asked; the drivers call it wherever they make their calls."""

    router: AnyRouter
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


def decide_at_once(router: AnyRouter, conversation: Conversation) -> RouteDecision | None:
    """The decision of a router that needs no call for it; None where it does."""
    try:
        return _at_once(router, conversation)
    except Exception as error:
        return failure_decision(error)


def _at_once(router: AnyRouter, conversation: Conversation) -> RouteDecision | None:
    at_once = getattr(router, "at_once", None)
    decision: RouteDecision | None = None if at_once is None else at_once(conversation)
    return decision


def races(router: AnyRouter) -> bool:
    """Whether the skeleton is written while the router decides."""
    return bool(getattr(router, "races", False))


def report_answer(router: AnyRouter, answer: Answer) -> None:
    """Tells a router that learns of a complete answer; what goes wrong there is logged and costs no answer."""
    if (observe := getattr(router, "observe", None)) is not None:
        try:
            observe(answer)
        except Exception:
            logger.warning("The router could not learn from an answer.", exc_info=True)


class RouterWrapper:
    """A router around another, as which it decides at once, races and learns; how it is asked is up to the subclass."""

    router: AnyRouter

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision where it takes no call."""
        return decide_at_once(self.router, conversation)

    @property
    def races(self) -> bool:
        """Whether the skeleton is written while the router decides."""
        return races(self.router)

    def observe(self, answer: Answer) -> None:
        """Tells the router of an answer, if it learns."""
        report_answer(self.router, answer)


FAILED = "the router failed: "
"""How the reason of a decision begins that a router did not come to."""


def failure_decision(error: Exception) -> RouteDecision:
    """What a router that failed has decided: direct, for it is there to save time and must not cost the answer."""
    return RouteDecision(False, reason=f"{FAILED}{type(error).__name__}: {error}")


# --- combinations ---------------------------------------------------------------------------------


def all_of(*routers: AnyRouter) -> Combined:
    """A skeleton where every router wants one. The first that does not decides, and later ones are not asked.

    A router that fails wants none, and the reason says so.

    Example:
        >>> short = lambda question: RouteDecision(len(question) < 40, reason="is it short?")
        >>> router = all_of(short, lambda question: "tips" in question)
        >>> router.route(Conversation.of("Any tips for an interview?")).use_skeleton
        True
        >>> router.route(Conversation.of("What are good tips for somebody who has just begun to paint?")).reason
        'is it short?'
    """
    return Combined(routers, "all")


def any_of(*routers: AnyRouter) -> Combined:
    """A skeleton where any router wants one. The first that does decides, and later ones are not asked.

    A router that fails wants none; the others are asked all the same.
    """
    return Combined(routers, "any")


def first_sure(*routers: AnyRouter, low: float = 0.2, high: float = 0.8) -> Combined:
    """The first router that is sure decides; where none is, the last one that did not fail.

    Cheap routers go first, dear ones last: `first_sure(EmbeddedRouter(), PromptRouter(ask))` spends a call on the
    doubtful questions alone.

    Args:
        routers: Asked in this order.
        low: A score of at most this is sure.
        high: A score of at least this is sure. A decision without a score is sure.

    Raises:
        InvalidInput: Not 0 <= low <= high <= 1.
    """
    return Combined(routers, "sure", low, high)


@dataclass(frozen=True)
class Combined:
    """Routers that decide together: see `all_of`, `any_of` and `first_sure`, which make one.

    Asks one after another and stops when the decision stands. Usage is the sum over those that were asked. An
    `Exception` of one is that router's vote for direct and shows in the reason; what is none (a cancellation, Ctrl-C)
    goes through.
    """

    routers: tuple[AnyRouter, ...]
    how: Literal["all", "any", "sure"]
    low: float = 0.2
    high: float = 0.8

    def __post_init__(self) -> None:
        if not self.routers:
            raise InvalidInput("A combination of routers needs at least one router.")
        for router in self.routers:
            if router is None:
                raise InvalidInput("A combination of routers takes no None: leave it out.")
            check_router(router)
        if not 0 <= self.low <= self.high <= 1:
            raise InvalidInput(f"low and high must be 0 <= low <= high <= 1, not {self.low!r} and {self.high!r}.")

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        asking = self._asking()
        router = next(asking)
        while True:
            try:
                decision = BoundRouter(router, conversation).decide()
            except Exception as error:
                decision = _Failed(error)
            if isinstance(step := _sent(asking, decision), RouteDecision):
                return step
            router = step

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        asking = self._asking()
        router = next(asking)
        while True:
            try:
                decision = await BoundRouter(router, conversation).adecide()
            except Exception as error:
                decision = _Failed(error)
            if isinstance(step := _sent(asking, decision), RouteDecision):
                return step
            router = step

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision, as long as none of those that have to be asked for it takes a call."""
        asking = self._asking()
        router = next(asking)
        while True:
            try:
                decision = _at_once(router, conversation)
            except Exception as error:
                decision = _Failed(error)
            if decision is None:
                return None
            if isinstance(step := _sent(asking, decision), RouteDecision):
                return step
            router = step

    @property
    def races(self) -> bool:
        """Whether the skeleton is written meanwhile: as one of them says."""
        return any(map(races, self.routers))

    def observe(self, answer: Answer) -> None:
        """Tells all of them that learn."""
        for router in self.routers:
            report_answer(router, answer)

    def _asking(self) -> Generator[AnyRouter, RouteDecision, RouteDecision]:
        """Yields whom to ask next, is sent the decision, and returns the one that stands."""
        usage: Usage | None = None
        failures: list[str] = []
        decided: RouteDecision | None = None
        for router in self.routers:
            decision = yield router
            if decision.usage is not None:
                usage = (usage or Usage()) + decision.usage
            if isinstance(decision, _Failed):
                failures.append(decision.reason)
                if self.how == "all":
                    decided = None
                    break
                continue
            decided = decision
            if self._stands(decision):
                break
        reasons = [*filter(None, [decided.reason if decided else ""]), *failures]
        return dataclasses.replace(decided or RouteDecision(False), reason="; ".join(reasons), usage=usage)

    def _stands(self, decision: RouteDecision) -> bool:
        if self.how == "sure":
            return decision.score is None or not self.low < decision.score < self.high
        return decision.use_skeleton == (self.how == "any")


class _Failed(RouteDecision):
    """The vote of a router that failed."""

    def __init__(self, error: Exception) -> None:
        failed = failure_decision(error)
        super().__init__(failed.use_skeleton, reason=failed.reason)


def _sent(
    asking: Generator[AnyRouter, RouteDecision, RouteDecision], decision: RouteDecision
) -> AnyRouter | RouteDecision:
    try:
        return asking.send(decision)
    except StopIteration as end:
        standing: RouteDecision = end.value
        return standing


@dataclass(frozen=True)
class with_threshold(RouterWrapper):
    """A router that wants a skeleton from another score on than its own.

    A decision without a score stays as it is.

    Example:
        >>> keen = lambda question: RouteDecision(True, score=0.6)
        >>> with_threshold(keen, 0.75).route(Conversation.of("Why?")).use_skeleton
        False
    """

    router: AnyRouter
    threshold: float

    def __post_init__(self) -> None:
        check_router(self.router)
        if not 0 <= self.threshold <= 1:
            raise InvalidInput(f"threshold must be from 0 to 1, not {self.threshold!r}.")

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        return self._decided(BoundRouter(self.router, conversation).decide())

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self._decided(await BoundRouter(self.router, conversation).adecide())

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision where it takes no call."""
        decision = super().at_once(conversation)
        return None if decision is None else self._decided(decision)

    def _decided(self, decision: RouteDecision) -> RouteDecision:
        if decision.score is None:
            return decision
        return dataclasses.replace(decision, use_skeleton=decision.score >= self.threshold)


async def _awaited(value: Any) -> Any:
    return await value


def _decision(result: Any) -> RouteDecision:
    if isinstance(result, RouteDecision):
        return result
    return RouteDecision(bool(result))
