"""From a chain's settings and inputs to flows and the calls that serve them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_sot.calls import Calls, Models
from langchain_sot.custom_events import Announcer
from langchain_sot.interrupts import alifting, dropped, lifting
from langchain_sot.messages import Asked, read_input
from langchain_sot.models.wrappers import unbound
from langchain_sot.routers import ChildRunRouter, read_request
from langchain_sot.skeleton_schema import ask_structured
from skeleton_of_thought import drive
from skeleton_of_thought.events import AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Skeleton, Stage

__all__ = ["Plan", "Work"]


@dataclass(frozen=True)
class Plan:
    """How answers are made: the core's settings, and the models.

    Attributes:
        llm: Writes skeletons, merges and direct answers.
        point_llm: Writes points.
        prompts: What they are asked.
        settings: The core's.
        router: A runnable, a function of the question, a core `Router`, or None.
        prefill: Whether models are given the start of their turn; "auto" for where they are known to continue it.
        structured: Whether the skeleton is asked for as data, where the model can.
        skeleton: Points that are known already.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.
    """

    llm: Runnable[Any, Any]
    point_llm: Runnable[Any, Any]
    prompts: PromptSet
    settings: Settings
    router: Any
    prefill: Literal["auto"] | bool
    structured: bool = False
    skeleton: Skeleton | None = None
    adopts: bool = True

    def models(self, kwargs: Mapping[str, Any]) -> Models:
        """The models, and what is passed on to them."""
        return Models(self.llm, self.point_llm, self.adopts, kwargs)

    def flow(
        self, asked: Asked, config: RunnableConfig, models: Models, *, live: bool, learns: bool = True
    ) -> AnswerFlow:
        """The flow of one answer, not started yet; `learns` says whether the router is told of it."""
        routed = self.router is not None and self.skeleton is None
        return AnswerFlow(
            self.requested(asked.conversation, config, models) if routed else asked.conversation,
            prompts=self.prompts,
            settings=self.settings,
            router=ChildRunRouter(self.router, config, learns) if routed else None,
            skeleton=self.skeleton,
            prefill=self._prefilled(config, models),
            live=live,
            structured=self.structured and ask_structured(models.settled("skeleton", config), {}) is not None,
        )

    def requested(self, conversation: Conversation, config: RunnableConfig, models: Models) -> Conversation:
        """The conversation with what routers may know of the request besides."""
        _, _, kwargs = unbound(models.settled("direct", config), config, models.kwargs)
        return replace(conversation, request=read_request(kwargs, models.room(config)))

    def _prefilled(self, config: RunnableConfig, models: Models) -> frozenset[Stage]:
        stages: tuple[Stage, ...] = ("skeleton", "point")
        if self.prefill == "auto":
            return frozenset(stage for stage in stages if models.continues_prefill(stage, config))
        return frozenset(stages if self.prefill else ())

    def calls(self, asked: Sequence[Asked], configs: Sequence[RunnableConfig], models: Models, *, live: bool) -> Calls:
        """What opens the calls of these answers."""
        # An eager skeleton has to be read while it is written.
        early = {"skeleton"} if self.settings.eager else set()
        streamed = frozenset({"skeleton", "point", "merge", "direct"} if live else early)
        return Calls(models, asked, configs, streamed)

    def work(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any], *, live: bool
    ) -> Work:
        """The answers to these inputs, not started yet: see `Work`."""
        return Work(self, inputs, configs, kwargs, live=live)


class Work:
    """The flows of many inputs under one budget; an input that cannot be read fails alone.

    What happens in them is told to the handlers of the root runs as custom events.

    Args:
        plan: How the answers are made.
        inputs: What is asked.
        configs: One per input: a child of its root run. The first one's `max_concurrency` is the budget.
        kwargs: Passed on to the models.
        live: Whether text is shown while it is written.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        live: bool,
    ) -> None:
        self._limit = configs[0].get("max_concurrency") if configs else None
        self._unreadable: list[tuple[int, Event]] = []
        self._positions: list[int] = []
        self._flows: list[AnswerFlow] = []
        self.asked: list[Asked] = []
        children: list[RunnableConfig] = []
        models = plan.models(kwargs)
        serial = False
        for i, (value, config) in enumerate(zip(inputs, configs, strict=True)):
            try:
                asked = read_input(value)
                # Answers that wait for each other say nothing of one alone.
                flow = plan.flow(asked, config, models, live=live, learns=len(inputs) == 1)
                serial = serial or models.serial(config)
            except Exception as error:  # of one input, not of the batch
                self._unreadable.append((i, AnswerFailed(error)))
                continue
            self.asked.append(asked)
            children.append(config)
            self._positions.append(i)
            self._flows.append(flow)
        self._announcers = [Announcer(config) for config in children]
        self._calls = plan.calls(self.asked, children, models, live=live)
        if serial:
            self._limit = 1

    def direct(self, position: int) -> AIMessage | None:
        """The model's message of this input's direct answer, where that came whole."""
        return self._calls.direct.get(self._positions.index(position))

    def run(self) -> Generator[tuple[int, Event]]:
        """The events, each with the position of its input."""
        yield from self._unreadable
        calls = self._calls
        events = drive.run(self._flows, lifting(calls.open), together=calls.together, max_concurrency=self._limit)
        with dropped(), contextlib.closing(cast(Generator[tuple[int, Event]], events)):
            for position, event in events:
                self._announcers[position].tell(event)
                yield self._positions[position], event

    async def arun(self) -> AsyncGenerator[tuple[int, Event]]:
        """Async twin of `run`."""
        for unreadable in self._unreadable:
            yield unreadable
        calls = self._calls
        events = drive.arun(self._flows, alifting(calls.aopen), together=calls.atogether, max_concurrency=self._limit)
        with dropped():
            async with contextlib.aclosing(cast(AsyncGenerator[tuple[int, Event]], events)):
                async for position, event in events:
                    await self._announcers[position].atell(event)
                    yield self._positions[position], event
