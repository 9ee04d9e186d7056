"""Answers by points to requests: which requests get one, and one answer on its way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

from skeleton_of_thought.adapters.as_model import KnownDecision
from skeleton_of_thought.drive import arun
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.events import AnswerDelta, AnswerDone, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.plan_memory import PlanMemory
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import decide_at_once
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.serve.errors import ServeError, explained, timed_out
from skeleton_of_thought.serve.requests import ChatRequest, conversation_of, is_side_task, sampling_of
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.types import Answer, Call, Conversation, Reply, RouteDecision, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.serve.limits import CallLimit
    from skeleton_of_thought.serve.upstream import Upstream

__all__ = ["PointsAnswer", "ServedModel"]

logger = logging.getLogger(__name__)


class ServedModel:
    """A model that is served: its settings, its upstream, and what is learned from all its answers.

    Args:
        settings: The model's settings.
        upstream: The model.
        room: The most calls that the server opens at a time.
    """

    def __init__(self, settings: ModelSettings, upstream: Upstream, room: int) -> None:
        self.settings = settings
        self.upstream = upstream
        self._room = min(settings.max_concurrency or room, room)
        self._plans = PlanMemory()
        self._router = AutoRouter(guard=CostGuard(max_points=settings.settings.max_points))

    def conversation(self, request: ChatRequest) -> Conversation:
        """The conversation of a request that suits, with the room for its calls."""
        own, asked = self.settings.settings, request.sot.settings
        planning, items = asked.get("planning", own.planning), asked.get("items", own.items)
        # The router decides before there is a flow, which would say so itself.
        may = {"graph": planning in ("graph", "auto"), "items": items == "auto"}
        return conversation_of(request, max_concurrency=self._room, **may)

    def decide(self, request: ChatRequest, conversation: Conversation) -> RouteDecision:
        """Whether a request is answered through a skeleton."""
        router = request.sot.router or self.settings.router
        by = "by the request" if request.sot.router else "in the settings of the server"
        # A client that sets our fields does so for a question.
        if request.sot.router is None and is_side_task(request):
            return RouteDecision(False, reason="a side task of the client, by its words")
        if router == "always":
            return RouteDecision(True, reason=f"always, {by}")
        if router == "never":
            return RouteDecision(False, reason=f"never, {by}")
        # The embedded router needs no call.
        return decide_at_once(self._router, conversation) or RouteDecision(False, reason="the router gave no decision")

    def flow(self, request: ChatRequest, conversation: Conversation, decision: RouteDecision) -> AnswerFlow:
        """The flow of an answer.

        Raises:
            ServeError: The request's settings do not go with the model's, or no call could take one of its fields.
        """
        self.upstream.check(sampling_of(request))
        try:
            model = self.settings.with_options(request.sot.settings)
        except InvalidInput as error:
            raise ServeError(f"`sot` is invalid: {error}", param="sot") from error
        stop_loops = model.settings.stop_loops or self.upstream.stop_loops
        return AnswerFlow(
            conversation,
            prompts=model.prompts,
            settings=dataclasses.replace(model.settings, stop_loops=stop_loops),
            router=KnownDecision(self._router, decision),
            prefill=self.upstream.prefill,
            # A point of an answer that nobody reads along may be written again even after part of its text.
            live=request.stream,
            eager_pays=not self.upstream.local,
            plans=self._plans,
        )


class PointsAnswer:
    """One answer by points on its way.

    Args:
        model: The model.
        request: The request.
        flow: The flow of its answer.
        limit: The limit that all open calls of the server share.
        timeout: Seconds after which the answer is ended.

    Attributes:
        first: Seconds from the request to the first text; None before.
    """

    def __init__(
        self, model: ServedModel, request: ChatRequest, flow: AnswerFlow, limit: CallLimit, timeout: float
    ) -> None:
        self.first: float | None = None
        self._model, self._request, self._flow, self._limit, self._timeout = model, request, flow, limit, timeout
        self._sampling = sampling_of(request)
        # All calls of an answer share the beginning of their prompts, so one replica computes it once.
        self._headers = {"x-session-id": f"sot-{secrets.token_hex(8)}", **request.headers}
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the request came in."""
        return time.monotonic() - self._began

    @property
    def usage(self) -> Usage | None:
        """The tokens of the answer so far; None if its model has reported none."""
        return self.answer.usage if self.answer.usage_by_stage else None

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._flow.answer

    async def run(self, begun: Callable[[], object], show: Callable[[Event, float], object]) -> Answer:
        """Makes the answer. All its calls have ended when this returns, raises or is cancelled.

        Args:
            begun: Called when the answer has room for its first call.
            show: Called with each event but the last one, and with the seconds since the request came in.

        Raises:
            ServeError: There is no answer. Its cause is the error of the model, if it is one.
        """
        last: AnswerDone | AnswerFailed | None = None
        name, most = self._model.settings.name, self._model.settings.max_concurrency
        try:
            async with asyncio.timeout(self._timeout), self._limit.admitted(name, most) as share:
                begun()
                events = cast(
                    "AsyncGenerator[tuple[int, Event]]", arun([self._flow], self._open, max_concurrency=share)
                )
                async with contextlib.aclosing(events):
                    async for _, event in events:
                        if isinstance(event, AnswerDone | AnswerFailed):
                            last = event
                            continue
                        if self.first is None and isinstance(event, AnswerDelta):
                            self.first = self.seconds
                        show(event, self.seconds)
        except TimeoutError as error:
            raise timed_out(self._timeout) from error
        if isinstance(last, AnswerDone):
            _warn_of_failed_points(last.answer)
            return last.answer
        if last is None:
            raise ServeError("The answer ended without a result.", 500, "server_error")
        raise explained(last.error, self._model.upstream) from last.error

    def _open(self, call: Call, _: int) -> AsyncIterator[str | Reply]:
        return self._model.upstream.open_call(call, self._sampling, self._headers)


def _warn_of_failed_points(answer: Answer) -> None:
    for index, error in answer.errors.items():
        # Without the error's text, which may quote a prompt.
        cause = error.__cause__ or error
        logger.warning("Point %d of %d failed: %s.", index, len(answer.expansions), type(cause).__name__)
    for role, failure in answer.role_errors.items():
        logger.warning("The %s failed (%s): the answer goes without it.", role, type(failure).__name__)
    if answer.merge_error is not None:
        logger.warning("A merge failed (%s): the points stand as they are.", type(answer.merge_error).__name__)
