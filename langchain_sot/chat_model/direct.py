"""Questions that a router sends to the model as they are: what comes back is the model's own, with the reason."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_sot.calls import message_usage
from langchain_sot.chat_model.passing_on import as_chunk, as_message
from langchain_sot.interrupts import dropped
from langchain_sot.messages import convert_message
from langchain_sot.plan import Plan
from langchain_sot.router import TracedRouter
from skeleton_of_thought.routers.base import AnyRouter, RouterWrapper, decide_at_once, report_answer
from skeleton_of_thought.types import Answer, Conversation, RouteDecision, Span, Timings, Usage

__all__ = ["Decided", "Directly", "Way", "decide"]

_M = TypeVar("_M", bound=BaseMessage)


@dataclass(frozen=True)
class Decided(RouterWrapper):
    """A router whose decision on the question is known already."""

    router: AnyRouter
    decision: RouteDecision

    def at_once(self, _: Any) -> RouteDecision:
        """The decision."""
        return self.decision

    def route(self, _: Any) -> RouteDecision:
        """The decision."""
        return self.decision

    async def aroute(self, _: Any) -> RouteDecision:
        """The decision."""
        return self.decision


@dataclass
class Directly:
    """One direct answer on its way from the model to the caller.

    Nothing of the model's message is changed; `route`, `reason`, `skeleton` and `errors` are added to the
    `response_metadata` of the message, or of the first chunk. The router that decided is told of the answer.

    Attributes:
        router: Who decided.
        decision: What.
        question: The question.
    """

    router: AnyRouter
    decision: RouteDecision
    question: str
    _began: float = field(default_factory=time.perf_counter)
    _first: float | None = None
    _text: list[str] = field(default_factory=list)
    _usage: Usage | None = None

    def message(self, message: AIMessage) -> AIMessage:
        """The whole message, with the reason."""
        self._count(message)
        self.end()
        return self._annotated(message)

    def chunk(self, chunk: _M) -> _M:
        """The next chunk; the first one has the reason."""
        first = self._first is None
        self._count(chunk)
        return self._annotated(chunk) if first else chunk

    def end(self) -> None:
        """It is complete."""
        now = time.perf_counter() - self._began
        span = Span(0.0, now, self._first)
        usage = self._usage or Usage()
        answer = Answer(
            text="".join(self._text),
            question=self.question,
            route="direct",
            usage=usage,
            timings=Timings(now, self._first, {"direct": span}),
            decision=self.decision,
            reason=self.decision.reason,
            usage_by_stage={"direct": usage} if self._usage else {},
        )
        report_answer(self.router, answer)

    def _count(self, message: BaseMessage) -> None:
        if self._first is None:
            self._first = time.perf_counter() - self._began
        self._text.append(str(message.text))
        if (usage := message_usage(message)) is not None:
            self._usage = (self._usage or Usage()) + usage

    def _annotated(self, message: _M) -> _M:
        about = {"route": "direct", "reason": self.decision.reason, "skeleton": [], "errors": {}}
        return message.model_copy(update={"response_metadata": {**message.response_metadata, **about}})


@dataclass(frozen=True)
class Way:
    """Which way a call of the chat model takes.

    Attributes:
        passes: Whether it is passed on to the `llm`.
        decision: What the router has decided; None where it was not asked, or needs a call to decide.
        direct: What becomes of the `llm`'s answer where the router has sent it there.
    """

    passes: bool
    decision: RouteDecision | None = None
    direct: Directly | None = None

    def message(self, output: Any) -> AIMessage:
        """What the `llm` gave, as a message."""
        message = as_message(output)
        return message if self.direct is None else self.direct.message(message)

    def chunk(self, output: Any) -> AIMessageChunk:
        """What the `llm`'s stream gave, as a chunk."""
        chunk = as_chunk(output)
        return chunk if self.direct is None else self.direct.chunk(chunk)

    def end(self) -> None:
        """The `llm`'s stream is complete."""
        if self.direct is not None:
            self.direct.end()

    def plan(self, plan: Plan) -> Plan:
        """How the answer is made where it is not passed on: the router is not asked twice."""
        if self.decision is None:
            return plan
        return replace(plan, router=Decided(plan.router, self.decision))


def decide(plan: Plan, messages: Sequence[BaseMessage], config: RunnableConfig, kwargs: Mapping[str, Any]) -> Way:
    """The way that the router chooses without a call, if it can.

    Args:
        plan: How answers are made.
        messages: A conversation that ends with a question.
        config: The caller's config.
        kwargs: What the call passes on to the models.
    """
    if plan.router is None:
        return Way(passes=False)
    models = plan.models(kwargs)
    conversation = Conversation(tuple(convert_message(message) for message in messages))
    conversation = plan.requested(conversation, config, models)
    with dropped():
        decision = decide_at_once(TracedRouter(plan.router, config), conversation)
    if decision is None or decision.use_skeleton:
        return Way(passes=False, decision=decision)
    return Way(passes=True, decision=decision, direct=Directly(plan.router, decision, conversation.question))
