"""What a framework's model that answers by Skeleton-of-Thought needs: which calls suit it; a record of the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skeleton_of_thought.adapters.finish_reasons import reply_error
from skeleton_of_thought.adapters.replies import lacks_text
from skeleton_of_thought.routers.base import AnyRouter, RouterWrapper, report_answer
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Reply, RouteDecision, Span, Timings, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["PER_CALL_SETTINGS", "DirectRecord", "KnownDecision", "suits_points"]

logger = logging.getLogger(__name__)

PER_CALL_SETTINGS = frozenset(
    {
        "cache_control",
        "extra_headers",
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "model",
        "model_name",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "repeat_penalty",
        "repetition_penalty",
        "request_timeout",
        "safety_identifier",
        "seed",
        "service_tier",
        "stream",
        "stream_options",
        "stream_usage",
        "temperature",
        "timeout",
        "top_k",
        "top_p",
        "user",
    }
)
"""Keyword arguments with which a call may still be answered by points: each call of the answer can take them by itself.

All others concern the text as a whole, or are unknown. A call that has one goes to the wrapped model unchanged.
"""


def suits_points(kwargs: Mapping[str, Any]) -> bool:
    """Whether a call with these keyword arguments may be answered by points; arguments that are None do not count."""
    return {name for name, value in kwargs.items() if value is not None} <= PER_CALL_SETTINGS


@dataclass(frozen=True)
class KnownDecision(RouterWrapper):
    """A router that has already decided on the question.

    Attributes:
        router: The router that decided; it still learns from the answer.
        decision: Its decision.
    """

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
class DirectRecord:
    """The record of a direct answer that is passed from the wrapped model to the caller.

    Attributes:
        router: The router that chose the direct route; when the answer is complete, it learns from it.
        decision: Its decision.
        question: The question.
        settings: How often, and after what pause, a call whose reply has no text is made again.
        plans: What the model's plans have been like, which counts the answers since; None where nothing asks.
        shown: Whether the caller has a part of the reply.
    """

    router: AnyRouter
    decision: RouteDecision
    question: str
    settings: Settings
    plans: PlanMemory | None = None
    shown: bool = field(default=False, init=False)
    _attempt: int = field(default=1, init=False)
    _began: float = field(default_factory=time.perf_counter, init=False)
    _first: float | None = field(default=None, init=False)
    _chars: int = field(default=0, init=False)
    _text: list[str] = field(default_factory=list, init=False)
    _usage: Usage | None = field(default=None, init=False)

    def count(self, text: str, usage: Usage | None) -> str:
        """Adds a part of the answer, and the usage that came with it.

        Returns:
            The text, or as much of it as `max_answer_chars` allows.
        """
        if self._first is None:
            self._first = time.perf_counter() - self._began
        if (most := self.settings.max_answer_chars) is not None:
            text = text[: most - self._chars]
        self._chars += len(text)
        self._text.append(text)
        if usage is not None:
            self._usage = (self._usage or Usage()) + usage
        return text

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    def warn_of_cut(self) -> None:
        """Logs that the answer was cut."""
        most = self.settings.max_answer_chars
        logger.warning("The model's reply (direct) was cut at %d characters; see max_answer_chars.", most)

    def pause(self, reply: Reply, text: str = "") -> float | None:
        """Seconds after which the call is made again, because its reply has no text; None after a whole reply.

        Args:
            reply: How the reply ended.
            text: Its text, as far as it is not counted.

        Raises:
            ReplyError: The reply has no text, and no attempt is left, or the caller has a part of the reply.
        """
        if "".join([*self._text, text]).strip() or not lacks_text(reply):
            return None
        if self._attempt > self.settings.max_retries or self.shown:
            raise reply_error(reply)
        self._text.clear()
        self._chars = 0
        self._attempt += 1
        return self.settings.backoff * 2.0 ** (self._attempt - 2)

    def end(self) -> None:
        """Reports the complete answer to the router."""
        now = time.perf_counter() - self._began
        usage = self._usage or Usage()
        answer = Answer(
            text=self.text,
            question=self.question,
            route="direct",
            usage=usage,
            timings=Timings(now, self._first, {"direct": Span(0.0, now, self._first)}),
            decision=self.decision,
            reason=self.decision.reason,
            usage_by_stage={"direct": usage} if self._usage else {},
        )
        report_answer(self.router, answer)
        if self.plans is not None:
            self.plans.observe(answer)
