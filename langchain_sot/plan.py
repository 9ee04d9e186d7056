"""How a chain answers: its settings as the core takes them, and the flows of a batch of inputs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict

from langchain_sot.calls import AnswerModels, ChainModels, ModelCalls
from langchain_sot.interrupts import alifting, dropped, lifting
from langchain_sot.messages import ParsedInput, read_input
from langchain_sot.results import Chunks
from langchain_sot.routers import ChildRunRouter, read_request
from langchain_sot.skeleton_schema import ask_structured
from skeleton_of_thought import drive
from skeleton_of_thought.events import AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Skeleton

if TYPE_CHECKING:
    from langchain_sot.custom_events import CustomEventReporter

__all__ = ["AnswerBatch", "AnswerPlan"]


@dataclass(frozen=True)
class AnswerPlan:
    """How a chain makes its answers: the core's settings, and the models.

    Attributes:
        llm: Writes skeletons, merges and direct answers.
        point_llm: Writes points.
        prompts: The prompts of both.
        settings: The core's settings.
        router: A runnable, a function of the question, a core `Router`, or None.
        prefill: Whether models are given the start of their turn; "auto" for where they are known to continue it.
        structured: Whether the skeleton is asked for as data, where the model can give it.
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

    def models(self, kwargs: Mapping[str, Any]) -> ChainModels:
        """The models, and the keyword arguments that each call passes on to them."""
        return ChainModels(self.llm, self.point_llm, adopts=self.adopts, kwargs=kwargs)

    def prepare(self) -> None:
        """Adopts local models now, rather than amid the first answer: an engine packs a model's weights."""
        self.models({}).for_config({})

    def flow(
        self, parsed: ParsedInput, config: RunnableConfig, models: AnswerModels, *, live: bool, learns: bool = True
    ) -> AnswerFlow:
        """The flow of one answer, not started yet.

        Args:
            parsed: The input.
            config: The config of the router's runs: a child of the answer's root run.
            models: The models of this answer.
            live: Whether text is shown while it is written.
            learns: Whether the answer is reported to the router.
        """
        router, conversation = None, parsed.conversation
        if self.router is not None and self.skeleton is None:
            router = ChildRunRouter(self.router, config, learns)
            conversation = with_request(conversation, config, models)
        return AnswerFlow(
            conversation,
            prompts=self.prompts,
            settings=self.settings,
            router=router,
            skeleton=self.skeleton,
            prefill=models.continuing(self.prefill),
            live=live,
            structured=self.structured and ask_structured(models.llm.llm, models.llm.kwargs) is not None,
        )

    def streamed(self, *, live: bool) -> frozenset[str]:
        """The stages whose text is needed while it is written; an eager skeleton always is."""
        if live:
            return frozenset({"skeleton", "point", "merge", "direct"})
        return frozenset({"skeleton"} if self.settings.eager else ())


def with_request(conversation: Conversation, config: RunnableConfig, models: AnswerModels) -> Conversation:
    """The conversation with what routers may know of the request besides."""
    room = models.room(config.get("max_concurrency"))
    return replace(conversation, request=read_request(models.llm.kwargs, room))


class AnswerBatch:
    """The answers to a batch of inputs, not started yet. An input that cannot be read fails alone.

    Args:
        plan: How the answers are made.
        inputs: The inputs.
        configs: One per input: a child of its root run. The first one's `max_concurrency` bounds the open calls of
            the whole batch.
        kwargs: Passed on to the models.
        live: Whether text is shown while it is written.
    """

    def __init__(
        self,
        plan: AnswerPlan,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        live: bool,
    ) -> None:
        self._limit = configs[0].get("max_concurrency") if configs else None
        self._unreadable: list[tuple[int, AnswerFailed]] = []
        self._positions: list[int] = []
        self._flows: list[AnswerFlow] = []
        self._reporters: list[CustomEventReporter | None] = []
        self.inputs: list[ParsedInput] = []
        children: list[RunnableConfig] = []
        chosen: list[AnswerModels] = []
        chain_models = plan.models(kwargs)
        for i, (value, config) in enumerate(zip(inputs, configs, strict=True)):
            try:
                parsed = read_input(value)
                models = chain_models.for_config(config)
                # Answers that wait for each other say nothing about the pace of one alone.
                flow = plan.flow(parsed, config, models, live=live, learns=len(inputs) == 1)
            except Exception as error:  # of one input, not of the batch
                self._unreadable.append((i, AnswerFailed(error)))
                continue
            self.inputs.append(parsed)
            children.append(config)
            chosen.append(models)
            self._positions.append(i)
            self._flows.append(flow)
            self._reporters.append(_reporter(config))
            if models.serial:
                self._limit = 1
        self._calls = ModelCalls(chosen, self.inputs, children, plan.streamed(live=live))

    def direct(self, position: int) -> AIMessage | None:
        """The model's message of this input's direct answer, where that came whole."""
        return self._calls.direct.get(self._positions.index(position))

    def run(self) -> Generator[tuple[int, Event]]:
        """The events, each with the position of its input. Handlers of the root runs get them as custom events."""
        yield from self._unreadable
        with dropped(), contextlib.closing(self._events()) as events:
            for position, event in events:
                if (reporter := self._reporters[position]) is not None:
                    reporter.report(event)
                yield self._positions[position], event

    async def arun(self) -> AsyncGenerator[tuple[int, Event]]:
        """Async twin of `run`."""
        for unreadable in self._unreadable:
            yield unreadable
        with dropped():
            async with contextlib.aclosing(self._aevents()) as events:
                async for position, event in events:
                    if (reporter := self._reporters[position]) is not None:
                        await reporter.areport(event)
                    yield self._positions[position], event

    def stream(self, chunks: Callable[[ParsedInput], Chunks]) -> Generator[AddableDict]:
        """The answer to the one input of this batch, in chunks.

        Args:
            chunks: Makes what turns events into chunks.

        Raises:
            Exception: The answer failed.
        """
        self._raise_unreadable()
        chunk_of, reporter = chunks(self.inputs[0]).chunk, self._reporters[0]
        with dropped(), contextlib.closing(self._events()) as events:
            for _, event in events:
                if reporter is not None:
                    reporter.report(event)
                if (chunk := chunk_of(event)) is not None:
                    yield chunk

    async def astream(self, chunks: Callable[[ParsedInput], Chunks]) -> AsyncGenerator[AddableDict]:
        """Async twin of `stream`."""
        self._raise_unreadable()
        chunk_of, reporter = chunks(self.inputs[0]).chunk, self._reporters[0]
        with dropped():
            async with contextlib.aclosing(self._aevents()) as events:
                async for _, event in events:
                    if reporter is not None:
                        await reporter.areport(event)
                    if (chunk := chunk_of(event)) is not None:
                        yield chunk

    def _raise_unreadable(self) -> None:
        for _, failed in self._unreadable:
            raise failed.error

    def _events(self) -> Generator[tuple[int, Event]]:
        calls = self._calls
        events = drive.run(self._flows, lifting(calls.open), together=calls.together, max_concurrency=self._limit)
        return cast(Generator[tuple[int, Event]], events)

    def _aevents(self) -> AsyncGenerator[tuple[int, Event]]:
        calls = self._calls
        events = drive.arun(self._flows, alifting(calls.aopen), together=calls.atogether, max_concurrency=self._limit)
        return cast(AsyncGenerator[tuple[int, Event]], events)


def _reporter(config: RunnableConfig) -> CustomEventReporter | None:
    """Reports the events of one answer to the handlers of its run; None where none wants custom events."""
    for handler in getattr(config.get("callbacks"), "handlers", None) or ():
        if not handler.ignore_custom_event:
            from langchain_sot.custom_events import CustomEventReporter

            return CustomEventReporter(config)
    return None
