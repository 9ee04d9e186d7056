"""A router as a runnable, for use outside of the chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import ensure_config
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from langchain_sot.interrupts import dropped
from langchain_sot.messages import read_messages, read_request
from langchain_sot.routers import ChildRunRouter
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import as_router
from skeleton_of_thought.routers.base import decide_at_once, failure_decision, races, report_answer
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.settings import first_by_position
from skeleton_of_thought.types import Answer, Conversation, Message, Request, RouteDecision

__all__ = ["SkeletonOfThoughtRouter"]


class SkeletonOfThoughtRouter(RunnableSerializable[Any, RouteDecision]):
    """Decides whether a question suits Skeleton-of-Thought: the chain's router as a runnable.

    The input is the chain's, the output a `RouteDecision` with `use_skeleton`, `score` (0 to 1, or None) and `reason`.
    Messages that do not end with a question take the direct route, and so do calls with tools or a response format
    among their arguments. If the router fails, the decision is the direct route and the reason has the error.

    A chain has a router already and needs no runnable in front of it. This class is also a `Router`, so a chain can
    take it as its `router`.

    Example:
        >>> from langchain_sot import SkeletonOfThoughtRouter
        >>> router = SkeletonOfThoughtRouter()
        >>> router.invoke("What are the pros and cons of living on a boat?").use_skeleton
        True
        >>> history = [("human", "Which kinds are there?"), ("ai", "Two: red and green.")]
        >>> router.invoke({"question": "And the second one?", "chat_history": history}).reason
        'gate (follow_up): it follows on what was said before'

    As a condition:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_core.runnables import RunnableBranch
        >>> llm = FakeListChatModel(responses=["42"])
        >>> chain = RunnableBranch((router | (lambda decision: decision.use_skeleton), lambda q: "points"), llm)
        >>> chain.invoke("What is 6 * 7?").content
        '42'

    Attributes:
        router: "auto", a runnable or function of the question, or a `Router`, as for the chain.

    Raises:
        ValueError: The router is None, or something that cannot route.
        InvalidInput: The input cannot be read.
    """

    router: Any = Field(default="auto", kw_only=False)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _router: Any = PrivateAttr()

    if not TYPE_CHECKING:

        @first_by_position("router", Any, "auto")
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    @model_validator(mode="after")
    def _resolve(self) -> Self:
        if self.router is None:
            raise InvalidInput("SkeletonOfThoughtRouter needs a router: without one it cannot decide.")
        self._router = self.router if isinstance(self.router, Runnable) else as_router(self.router)
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True; the dump is complete if the router can be serialised."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        return ["langchain_sot", "route_runnable"] if cls is SkeletonOfThoughtRouter else super().get_lc_namespace()

    @property
    def InputType(self) -> Any:
        """The chain's input."""
        return Any

    @property
    def OutputType(self) -> Any:
        """`RouteDecision`."""
        return RouteDecision

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RouteDecision:
        """Decides on a question."""

        def decide(value: Any, run_manager: CallbackManagerForChainRun, config: RunnableConfig) -> RouteDecision:
            read = _read(value, read_request(kwargs, config.get("max_concurrency")))
            return read if isinstance(read, RouteDecision) else self._decide(read, config)

        return self._call_with_config(decide, input, config)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> RouteDecision:
        """Async twin of `invoke`."""

        async def decide(
            value: Any, run_manager: AsyncCallbackManagerForChainRun, config: RunnableConfig
        ) -> RouteDecision:
            read = _read(value, read_request(kwargs, config.get("max_concurrency")))
            return read if isinstance(read, RouteDecision) else await self._adecide(read, config)

        return await self._acall_with_config(decide, input, config)

    def _decide(self, conversation: Conversation, config: RunnableConfig) -> RouteDecision:
        router = ChildRunRouter(self._router, config)
        with dropped():
            decision = decide_at_once(router, conversation)
            try:
                return router.route(conversation) if decision is None else decision
            except Exception as error:
                return failure_decision(error)

    async def _adecide(self, conversation: Conversation, config: RunnableConfig) -> RouteDecision:
        router = ChildRunRouter(self._router, config)
        with dropped():
            decision = decide_at_once(router, conversation)
            try:
                return await router.aroute(conversation) if decision is None else decision
            except Exception as error:
                return failure_decision(error)

    # --- the `Router` protocol ---

    def at_once(self, conversation: Conversation) -> RouteDecision | None:
        """The decision if it takes no call, else None, see `Router`."""
        return decide_at_once(self._router, conversation)

    def route(self, conversation: Conversation) -> RouteDecision:
        """Decides on the last message of the conversation."""
        return ChildRunRouter(self._router, ensure_config()).route(conversation)

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return await ChildRunRouter(self._router, ensure_config()).aroute(conversation)

    @property
    def races(self) -> bool:
        """Whether the skeleton is written while the router decides."""
        return races(self._router)

    def observe(self, answer: Answer) -> None:
        """Passes a complete answer to the router, which may learn from it."""
        report_answer(self._router, answer)


def _read(value: Any, request: Request) -> Conversation | RouteDecision:
    """The conversation, or the decision for the direct route if the messages do not end with a question."""
    messages: tuple[Message, ...] = read_messages(value)
    try:
        return Conversation(messages, request)
    except InvalidInput as error:
        return RouteDecision(False, 0.0, Gate().against(messages, request) or str(error))
