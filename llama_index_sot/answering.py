"""One answer on its way: its flow, the calls that serve it, and what is told of it on the way."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast

from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from llama_index_sot.backends import Backend, Used
from llama_index_sot.events import typed_event
from llama_index_sot.llm_responses import ResponseReader
from llama_index_sot.response import ResponsePoint, about, response_points, union
from llama_index_sot.retrieval import Finder, Packer, Readings, copy_of
from llama_index_sot.routers import TracedRouter
from llama_index_sot.tracing import is_heard, traced
from skeleton_of_thought import drive
from skeleton_of_thought.adapters.streams import aclosing_stream, closing_stream
from skeleton_of_thought.board import Board
from skeleton_of_thought.events import AnswerDelta, AnswerFailed, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Answer, Call, Conversation, Message, Reply, Request, Retrieval, Stage

__all__ = ["Answering", "Plan"]

dispatcher = get_dispatcher(__name__)


@dataclass(frozen=True)
class Plan:
    """How answers are made: the core's settings, and the models.

    Attributes:
        llm: Writes skeletons, merges and direct answers.
        point_llm: Writes points.
        prompts: What they are asked.
        settings: The core's.
        router: What decides between a skeleton and a direct answer; None for a skeleton always. It is told the answers.
        num_workers: The most calls that are open at a time in one answer; None for no limit.
        retrieval: What is retrieved.
        finder: What retrieves; None where nothing is.
        point_query: What is retrieved for a point: from the question and the point's title.
        packer: Makes a context fit the model's window; made of the question.
        citations: Whether sources have numbers, to be cited.
    """

    llm: Backend
    point_llm: Backend
    prompts: PromptSet
    settings: Settings
    router: AnyRouter | None = None
    num_workers: int | None = 8
    retrieval: Retrieval = "none"
    finder: Finder | None = None
    point_query: Callable[[str, str], QueryBundle] = lambda question, title: QueryBundle(f"{title} ({question})")
    packer: Callable[[str], Packer] | None = None
    citations: bool = False

    def backend(self, stage: Stage) -> Backend:
        """Who writes this stage, and how it is called."""
        return self.point_llm if stage == "point" else self.llm

    @property
    def prefilled(self) -> frozenset[Stage]:
        """The stages whose model continues the start of its turn."""
        stages: tuple[Stage, ...] = ("skeleton", "point")
        return frozenset(stage for stage in stages if self.backend(stage).native is not None)

    def conversation(self, question: str, *, live: bool, sync: bool) -> Conversation:
        """What is asked, and how many of its points could be written at a time."""
        limits = (self.num_workers, self.backend("point").room(streamed=live, sync=sync))
        known = [limit for limit in limits if limit is not None]
        return Conversation((Message("user", question),), Request(max_concurrency=min(known, default=None)))


class Answering:
    """One answer on its way.

    Nothing happens before `sources` or `events` (or their twins) are iterated, and nothing is under way between two of
    these: the next one may run in another thread or on another loop, and by the other kind of driver.

    Everything runs in the context in which this was made: spans and callbacks have their parents, wherever and
    whenever the answer is read.

    Args:
        plan: How it is made.
        query: What is asked.
        live: Whether text is shown while it is written.
        callback_manager: For the legacy callbacks.
        sync: Whether its calls are going to be made without an event loop.

    Raises:
        InvalidInput: There is no question.
    """

    def __init__(
        self, plan: Plan, query: QueryBundle, callback_manager: CallbackManager, *, live: bool, sync: bool
    ) -> None:
        self._plan = plan
        self._query = query
        self._callbacks = callback_manager
        self._live = live
        self._flow = AnswerFlow(
            plan.conversation(query.query_str, live=live, sync=sync),
            prompts=plan.prompts,
            settings=plan.settings,
            router=None if plan.router is None else TracedRouter(plan.router),
            prefill=plan.prefilled,
            live=live,
            retrieval=plan.retrieval,
        )
        packer = plan.packer(query.query_str) if plan.packer and plan.retrieval != "none" else None
        self._readings = Readings(packer, plan.citations)
        self._board = Board([self._flow], plan.num_workers, drive.GRACE)
        self._context = contextvars.copy_context()
        self._used: Used = "thread"
        self._begun = False
        self._finished: Answer | None = None
        # What has been told while the sources were looked for: for whoever reads the answer.
        self._early: list[Event] = []

    # --- what there is of it ---

    @property
    def begun(self) -> bool:
        """Whether its text has begun to be read."""
        return self._begun

    @property
    def answer(self) -> Answer:
        """The answer as far as it is."""
        if not self._flow.finished:
            return self._flow.answer
        # Made of all its parts each time; whoever makes a response asks for it again and again.
        if self._finished is None:
            self._finished = self._flow.answer
        return self._finished

    @property
    def source_nodes(self) -> list[NodeWithScore]:
        """All nodes that were retrieved, each once; those that are cited by number in the order of their numbers."""
        answer = self.answer
        groups = [answer.sources, *(expansion.sources for expansion in answer.expansions)]
        return union([self._readings.cited, *groups] if self._plan.citations else groups)

    @property
    def points(self) -> list[ResponsePoint]:
        """The points as far as they are."""
        return response_points(self.answer, self.source_nodes, citations=self._plan.citations)

    @property
    def metadata(self) -> dict[str, Any]:
        """What `metadata["sot"]` says of it."""
        return about(self.answer, concurrency=self._used, retrieval=self._plan.retrieval)

    # --- to its end ---

    def whole(self) -> str:
        """Makes the whole answer; returns its text."""
        for _ in self.events():
            pass
        return self.answer.text

    async def awhole(self) -> str:
        """Async twin of `whole`."""
        async with contextlib.aclosing(self.aevents()) as events:
            async for _ in events:
                pass
        return self.answer.text

    def texts(self) -> Generator[str]:
        """The answer's text as it is written, in document order."""
        with contextlib.closing(self.events()) as events:
            for event in events:
                if isinstance(event, AnswerDelta):
                    yield event.text

    async def atexts(self) -> AsyncGenerator[str]:
        """Async twin of `texts`."""
        async with contextlib.aclosing(self.aevents()) as events:
            async for event in events:
                if isinstance(event, AnswerDelta):
                    yield event.text

    def sources(self) -> None:
        """Goes on until all sources are found, and no further. The rest is for `events`, `texts` or `whole`."""
        if self._plan.retrieval != "none":
            self._early.extend(self._run(until_sources=True))

    async def asources(self) -> None:
        """Async twin of `sources`."""
        if self._plan.retrieval != "none":
            async with contextlib.aclosing(self._arun(until_sources=True)) as events:
                self._early += [event async for event in events]

    # --- its events ---

    def events(self) -> Generator[Event]:
        """Makes the answer, its calls in threads.

        Raises:
            Exception: The answer could not be completed.
        """
        self._begun = True
        yield from self._early
        yield from self._run()

    async def aevents(self) -> AsyncGenerator[Event]:
        """Makes the answer, its calls as tasks, or in threads beside the loop."""
        self._begun = True
        for early in self._early:
            yield early
        async with contextlib.aclosing(self._arun()) as events:
            async for event in events:
                yield event

    def _run(self, *, until_sources: bool = False) -> Generator[Event]:
        self._used = self._plan.backend("point").used(streamed=self._live, sync=True)
        events = cast(Generator[tuple[int, Event]], drive.run(self._board, self._open, until_sources=until_sources))
        try:
            while (item := self._context.run(next, events, None)) is not None:
                yield self._told(item[1])
        finally:
            self._context.run(events.close)

    async def _arun(self, *, until_sources: bool = False) -> AsyncGenerator[Event]:
        self._used = self._plan.backend("point").used(streamed=self._live, sync=False)
        events = cast(
            AsyncGenerator[tuple[int, Event]], drive.arun(self._board, self._aopen, until_sources=until_sources)
        )
        loop = asyncio.get_running_loop()
        try:
            while (item := await loop.create_task(_next(events), context=self._context)) is not None:
                yield self._told(item[1])
        finally:
            await loop.create_task(events.aclose(), context=self._context)

    def _told(self, event: Event) -> Event:
        """Tells the instrumentation of an event."""
        if isinstance(event, AnswerFailed):
            raise event.error
        # There is one for each piece of a stream, and making it costs as much as the piece.
        if is_heard(dispatcher) and (told := self._context.run(typed_event, event)) is not None:
            self._context.run(dispatcher.event, told)
        return event

    # --- its calls ---

    def _streamed(self, call: Call) -> bool:
        # An eager skeleton has to be read while it is written.
        return self._live or (call.stage == "skeleton" and self._plan.settings.eager)

    def _open(self, call: Call, position: int) -> Iterator[str | Reply]:
        with traced(call, self._callbacks, self._sought(call).query_str) as trace:
            if call.stage == "sources":
                nodes = self._finder.find(self._sought(call))
                yield trace.found(nodes, self._readings.text(nodes))
                return
            backend, reader = self._plan.backend(call.stage), ResponseReader()
            if not self._streamed(call):
                text, reply = reader.whole(backend.whole(call))
                yield trace.text(text)
                yield reply
                return
            with closing_stream(backend.stream(call)) as responses:
                for response in responses:
                    yield trace.text(reader.add(response))
            yield reader.reply

    async def _aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        with traced(call, self._callbacks, self._sought(call).query_str) as trace:
            if call.stage == "sources":
                nodes = await self._finder.afind(self._sought(call))
                yield trace.found(nodes, self._readings.text(nodes))
                return
            backend, reader = self._plan.backend(call.stage), ResponseReader()
            if not self._streamed(call):
                text, reply = reader.whole(await backend.awhole(call))
                yield trace.text(text)
                yield reply
                return
            async with aclosing_stream(await backend.astream(call)) as responses:
                async for response in responses:
                    yield trace.text(reader.add(response))
            yield reader.reply

    @property
    def _finder(self) -> Finder:
        assert self._plan.finder is not None, "there are calls for sources only where something is retrieved"
        return self._plan.finder

    def _sought(self, call: Call) -> QueryBundle:
        """What is retrieved for a call's point, or for the question; a bundle of its own."""
        if call.point is None:
            return copy_of(self._query)
        return self._plan.point_query(self._query.query_str, call.point.title)


async def _next(events: AsyncGenerator[tuple[int, Event]]) -> tuple[int, Event] | None:
    return await anext(events, None)
