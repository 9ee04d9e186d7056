"""The `Router` protocol, functions as routers, and combinations of routers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import inspect
import logging
import os
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable
from weakref import WeakKeyDictionary

from skeleton_of_thought.errors import InvalidInput, error_text
from skeleton_of_thought.types import Answer, Conversation, Planning, RouteDecision, Usage

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
    "in_thread",
    "races",
    "report_answer",
    "with_threshold",
]


@runtime_checkable
class Router(Protocol):
    """Decides whether a conversation's question is answered through a skeleton (SoT-R in the paper).

    Three more attributes are optional. `at_once(conversation)` returns the decision, or None if it needs a call: a
    flow tries it first, and opens no call of stage `route` if there is a decision. It has to return within a
    millisecond, because it runs in the thread or on the loop of the flow. With `races=True` the skeleton's call
    runs beside the router's: the flow reads its text once the router has decided, and a direct decision cancels the
    call. `observe(answer)` receives every complete answer, for routers that learn from timings, except the answers
    of a batch, whose calls wait for each other.

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
"""A `Router`, or a function of the question, async or not."""


def check_router(router: object) -> None:
    """Raises `InvalidInput` unless the object is a `Router`, a function of the question, or None."""
    if router is None or isinstance(router, Router) or callable(router):
        return
    what = repr(router) if isinstance(router, str) else type(router).__name__
    raise InvalidInput(
        f"router is {what}, but must be a Router, a function of the question that returns whether to use a skeleton, "
        'or None to use one always. Chains and engines also take "auto"; here that is AutoRouter().'
    )


@dataclass(frozen=True)
class BoundRouter:
    """A router with its conversation. The drivers call it in the threads or on the loops of their other calls."""

    router: AnyRouter
    conversation: Conversation

    def decide(self) -> RouteDecision:
        """Asks the router. An async function runs on a new event loop in this thread."""
        if isinstance(self.router, Router):
            return self.router.route(self.conversation)
        result = self.router(self.conversation.question)
        if inspect.isawaitable(result):
            return _decision(asyncio.run(_awaited(result)))
        return _decision(result)

    async def adecide(self) -> RouteDecision:
        """Asks the router without blocking the event loop."""
        if isinstance(self.router, Router):
            return await self.router.aroute(self.conversation)
        if inspect.iscoroutinefunction(self.router) or inspect.iscoroutinefunction(
            getattr(self.router, "__call__", None)  # noqa: B004 - the method itself is inspected
        ):
            return _decision(await self.router(self.conversation.question))
        result = await in_thread(partial(self.router, self.conversation.question))
        return _decision(await result if inspect.isawaitable(result) else result)


_Result = TypeVar("_Result")
_MOST_THREADS = min(32, (os.cpu_count() or 1) + 4)  # as many as asyncio's own executor has
_SLOTS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """Runs a blocking function in a daemon thread, with the caller's context variables.

    The end of an event loop, and that of the interpreter, waits for the functions in `asyncio.to_thread`: after Ctrl-C
    a router whose server hangs would keep the program.
    """
    loop = asyncio.get_running_loop()
    async with _SLOTS.setdefault(loop, asyncio.Semaphore(_MOST_THREADS)):
        ended: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()

        def work() -> None:
            result, error = None, None
            try:
                result = function()
            except BaseException as caught:  # raised in the caller's task
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(ended.put_nowait, (result, error))

        threading.Thread(target=contextvars.copy_context().run, args=(work,), name="sot-route", daemon=True).start()
        result, error = await ended.get()
    if error is not None:
        raise error
    return cast(_Result, result)


def decide_at_once(router: AnyRouter, conversation: Conversation) -> RouteDecision | None:
    """The decision of a router that needs no call; None if it needs one."""
    try:
        return _at_once(router, conversation)
    except Exception as error:
        return failure_decision(error)


def _at_once(router: AnyRouter, conversation: Conversation) -> RouteDecision | None:
    at_once = getattr(router, "at_once", None)
    decision: RouteDecision | None = None if at_once is None else at_once(conversation)
    return decision


def races(router: AnyRouter) -> bool:
    """Whether the skeleton is written while the router decides, see `Router`."""
    return bool(getattr(router, "races", False))


def report_answer(router: AnyRouter, answer: Answer) -> None:
    """Reports a complete answer to a router that learns. An error there is logged, and the answer stands."""
    if (observe := getattr(router, "observe", None)) is not None:
        try:
            observe(answer)
        except Exception:
            logger.warning("The router could not learn from an answer.", exc_info=True)


class RouterWrapper:
    """A router around another one: passes on `at_once`, `races` and `observe`. Subclasses define `route`."""

    router: AnyRouter

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision of the inner router if it needs no call."""
        return decide_at_once(self.router, conversation)

    @property
    def races(self) -> bool:
        """Whether the inner router races."""
        return races(self.router)

    def observe(self, answer: Answer) -> None:
        """Reports an answer to the inner router, if it learns."""
        report_answer(self.router, answer)


FAILED = "the router failed: "
"""The start of the reason if a router raised an error."""


def failure_decision(error: Exception) -> RouteDecision:
    """The decision for a router that failed: direct, because a router must never cost the answer."""
    return RouteDecision(False, reason=FAILED + error_text(error))


# --- combinations ---------------------------------------------------------------------------------


def all_of(*routers: AnyRouter) -> Combined:
    """A skeleton if every router wants one. The first that wants none decides, and later ones are not asked.

    A router that fails counts as wanting none, and the reason says so. If any of them asks for a graph, it is one.

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
    """A skeleton if any router wants one. The first that wants one decides, and later ones are not asked.

    A router that fails counts as wanting none; the others are still asked.
    """
    return Combined(routers, "any")


def first_sure(*routers: AnyRouter, low: float = 0.2, high: float = 0.8) -> Combined:
    """The first sure router decides; if none is sure, the last one that did not fail.

    Put cheap routers first and expensive ones last: `first_sure(EmbeddedRouter(), PromptRouter(ask))` spends a call
    on doubtful questions only.

    Args:
        routers: The routers in their order.
        low: A score of at most this is sure.
        high: A score of at least this is sure. A decision without a score is sure.

    Raises:
        InvalidInput: Not 0 <= low <= high <= 1.
    """
    return Combined(routers, "sure", low, high)


@dataclass(frozen=True)
class Combined:
    """Routers that decide together, made by `all_of`, `any_of` and `first_sure`.

    Asks one after another and stops when the decision stands. Usage is the sum over the routers that were asked. An
    `Exception` counts as that router's vote for direct and shows in the reason; a cancellation or Ctrl-C is raised.
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
        poll = self._poll()
        router = next(poll)
        while True:
            try:
                decision = BoundRouter(router, conversation).decide()
            except Exception as error:
                decision = _Failed(error)
            if isinstance(step := _advance(poll, decision), RouteDecision):
                return step
            router = step

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        poll = self._poll()
        router = next(poll)
        while True:
            try:
                decision = await BoundRouter(router, conversation).adecide()
            except Exception as error:
                decision = _Failed(error)
            if isinstance(step := _advance(poll, decision), RouteDecision):
                return step
            router = step

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision, unless one of the routers on the way to it needs a call."""
        poll = self._poll()
        router = next(poll)
        while True:
            try:
                decision = _at_once(router, conversation)
            except Exception as error:
                decision = _Failed(error)
            if decision is None:
                return None
            if isinstance(step := _advance(poll, decision), RouteDecision):
                return step
            router = step

    @property
    def races(self) -> bool:
        """Whether any of the routers races."""
        return any(map(races, self.routers))

    def observe(self, answer: Answer) -> None:
        """Reports an answer to the routers that learn."""
        for router in self.routers:
            report_answer(router, answer)

    def _poll(self) -> Generator[AnyRouter, RouteDecision, RouteDecision]:
        """Yields the next router, receives its decision, and returns the decision that stands."""
        usage: Usage | None = None
        planning: Planning | None = None
        failures: list[str] = []
        decided: RouteDecision | None = None
        by_items: RouteDecision | None = None
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
            if decision.items is not None:
                by_items = decision
            if decision.planning == "graph" or planning is None:
                planning = decision.planning
            if self._stands(decision):
                break
        decided = decided or RouteDecision(False)
        if self.how == "all" and by_items is not None and decided.use_skeleton:
            decided = by_items  # a decision that names the items says more than the others
        reasons = [*filter(None, [decided.reason]), *failures]
        # Of routers that all want a skeleton, the one that asks for a graph may not be the last.
        kind = planning if self.how == "all" and decided.use_skeleton else decided.planning
        return dataclasses.replace(decided, reason="; ".join(reasons), usage=usage, planning=kind)

    def _stands(self, decision: RouteDecision) -> bool:
        if self.how == "sure":
            return decision.score is None or not self.low < decision.score < self.high
        return decision.use_skeleton == (self.how == "any")


class _Failed(RouteDecision):
    """The vote of a router that failed."""

    def __init__(self, error: Exception) -> None:
        failed = failure_decision(error)
        super().__init__(failed.use_skeleton, reason=failed.reason)


def _advance(
    poll: Generator[AnyRouter, RouteDecision, RouteDecision], decision: RouteDecision
) -> AnyRouter | RouteDecision:
    try:
        return poll.send(decision)
    except StopIteration as end:
        standing: RouteDecision = end.value
        return standing


@dataclass(frozen=True)
class with_threshold(RouterWrapper):
    """A router with another threshold of its score.

    A decision without a score stays unchanged.

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
        """The decision if it needs no call."""
        decision = super().at_once(conversation)
        return None if decision is None else self._decided(decision)

    def _decided(self, decision: RouteDecision) -> RouteDecision:
        if decision.score is None:
            return decision
        use = decision.score >= self.threshold
        return dataclasses.replace(decision, use_skeleton=use, planning=decision.planning if use else None)


async def _awaited(value: Any) -> Any:
    return await value


def _decision(result: Any) -> RouteDecision:
    if isinstance(result, RouteDecision):
        return result
    return RouteDecision(bool(result))
