"""One answer, from its question to its response: drives the flow and makes its calls."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from llama_index_sot.context import ContextPacker, ContextWriter
from llama_index_sot.event_loop import next_or_none
from llama_index_sot.events import typed_event
from llama_index_sot.llm_calls import LLMResponse, ResolvedLLM, ResponseReader, UsedConcurrency
from llama_index_sot.response import Responding, ResponsePoint, response_metadata, response_points, union
from llama_index_sot.retrieval import NodeFinder
from llama_index_sot.templates import TemplateRouter
from llama_index_sot.tracing import RouterWithSpan, dispatcher, has_handlers, traced
from skeleton_of_thought import drive
from skeleton_of_thought.adapters.engines import EAGER_PAYS_LOCALLY
from skeleton_of_thought.adapters.replies import aclosing_stream, closing_stream
from skeleton_of_thought.board import Board
from skeleton_of_thought.events import AnswerDelta, AnswerFailed, AnswerRestarted, Event
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.plan_memory import graph_allowed
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.base import AnyRouter
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.text.words import MAY_HOLD_ITEMS
from skeleton_of_thought.types import (
    Answer,
    Call,
    Conversation,
    Item,
    Message,
    Reply,
    Request,
    Retrieval,
    Skeleton,
    Stage,
)

if TYPE_CHECKING:
    from skeleton_of_thought.plan_memory import PlanMemory

__all__ = ["AnswerConfig", "AnswerRun"]

_PointQuery = Callable[[QueryBundle, str], QueryBundle]


@dataclass(frozen=True)
class AnswerConfig:
    """The LLMs, prompts, settings and retrieval of one answer, resolved when the answer begins.

    Attributes:
        llm: Writes skeletons, openings, closings, merges and direct answers.
        point_llm: Writes points.
        prompts: The prompts.
        settings: The core's settings.
        router: Decides between a skeleton and a direct answer, and learns from finished answers; None for a skeleton
            always.
        num_workers: The most calls that are open at a time in one answer; None for no limit.
        retrieval: Whether nodes are retrieved for the question, for each point, or not at all.
        finder: Retrieves the nodes; None where nothing is retrieved.
        point_query: Makes the query for a point from that of the answer and the point's title.
        packer: Makes the `ContextPacker` for a question; None where no context has to fit.
        citations: Whether sources have numbers for citations.
        nothing_found: The text in place of what has no nodes; None to have it written without nodes.
        multimodal: Whether the LLMs see the images and other media of nodes.
        chat: A chat that ends with the question, in place of the question alone.
        plans: What the LLM made of each kind of plan; None where the settings choose the kind.
        skeleton: The points, where they are known; there is no route and no skeleton call then.
    """

    llm: ResolvedLLM
    point_llm: ResolvedLLM
    prompts: PromptSet
    settings: Settings
    router: AnyRouter | None = None
    num_workers: int | None = 8
    retrieval: Retrieval = "none"
    finder: NodeFinder | None = None
    point_query: _PointQuery = lambda query, title: QueryBundle(f"{title} ({query.query_str})")
    packer: Callable[[str], ContextPacker] | None = None
    citations: bool = False
    nothing_found: str | None = None
    multimodal: bool = False
    chat: tuple[Message, ...] = ()
    plans: PlanMemory | None = None
    skeleton: Skeleton | None = None

    def writer(self, stage: Stage) -> ResolvedLLM:
        """The LLM that writes this stage."""
        return self.point_llm if stage == "point" else self.llm

    @property
    def eager_pays(self) -> bool:
        """What `eager="auto"` means for the LLM of the points."""
        local = self.point_llm.native is not None or self.point_llm.serial
        return EAGER_PAYS_LOCALLY or not local

    def reading_router(self, query: QueryBundle) -> AnyRouter | None:
        """The router, which reads the instructions around the question in the query, too."""
        # Without nodes the question is asked as it is, without the template.
        direct = self.prompts.direct if self.retrieval != "none" else None
        return TemplateRouter.around(self.router, query, self.llm.system_prompt, direct)

    def flow(self, query: QueryBundle, *, live: bool, sync: bool) -> AnswerFlow:
        """The flow of an answer to this query.

        Args:
            query: The query.
            live: Whether text is shown while it is written.
            sync: Whether calls are made without an event loop.
        """
        writers: dict[Stage, ResolvedLLM] = {"skeleton": self.llm, "point": self.point_llm}
        router = self.reading_router(query)
        return AnswerFlow(
            self.conversation(query.query_str, live=live, sync=sync),
            prompts=self.prompts,
            settings=self.settings,
            router=None if router is None else RouterWithSpan(router),
            prefill=frozenset(stage for stage, llm in writers.items() if llm.continues_turn),
            live=live,
            retrieval=self.retrieval,
            nothing_found=self.nothing_found,
            eager_pays=self.settings.eager == "auto" and self.eager_pays,
            plans=self.plans,
            skeleton=self.skeleton,
        )

    def conversation(self, question: str, *, live: bool, sync: bool) -> Conversation:
        """The chat or the question alone, with the most calls that are open at a time; see `flow`."""
        limits = (self.num_workers, self.point_llm.room(streamed=live, sync=sync))
        # A router that is not told of graphs sends what needs one the direct way.
        planning = self.settings.planning
        graph = planning in ("graph", "auto") and graph_allowed(planning, self.plans)
        messages = self.chat or (Message("user", question),)
        items = self.settings.items == "auto" and MAY_HOLD_ITEMS.search(messages[-1].text) is not None
        request = Request(max_concurrency=min(filter(None, limits), default=None), graph=graph, items=items)
        return Conversation(messages, request)


class AnswerRun(Responding):
    """One answer while it is made.

    Nothing runs before `find_sources` or `events` (or an async twin) is iterated. No call is open between two of these,
    so the second may run in another thread, on another event loop, or async after a sync one.

    Everything runs in the context variables of the code that made this object, so spans and callbacks keep their
    parents wherever and whenever the answer is read.

    Args:
        config: The LLMs, prompts, settings and retrieval.
        query: The question.
        callback_manager: Receives the legacy callbacks.
        live: Whether text is shown while it is written.
        sync: Whether calls are made without an event loop.

    Attributes:
        direct_response: The LLM's last response of a direct answer, for callers that pass it on.
        waves: By index, the waves of the points that the typed events so far have shown.

    Raises:
        InvalidInput: There is no question, or the prompts do not fit the LLM's window; no call was made.
    """

    def __init__(
        self, config: AnswerConfig, query: QueryBundle, callback_manager: CallbackManager, *, live: bool, sync: bool
    ) -> None:
        self._config = config
        self._query = query
        self._callbacks = callback_manager
        self._live = live
        self._flow = config.flow(query, live=live, sync=sync)
        packer = config.packer(query.query_str) if config.packer and config.retrieval != "none" else None
        if packer is not None:
            packer.check(config.reading_router(query), self._flow.conversation)
        self._contexts = ContextWriter(packer, config.citations, config.multimodal)
        self._board = Board([self._flow], config.num_workers, drive.GRACE)
        self._context = contextvars.copy_context()
        self._used: UsedConcurrency = "thread"
        self._begun = self._restarted = False
        self._finished: Answer | None = None
        self.direct_response: LLMResponse | None = None
        self.waves: dict[int, int] = {}
        # Emitted while the sources were found; `events` yields them first.
        self._early: list[Event] = []

    # --- the answer so far ---

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        if not self._flow.finished:
            return self._flow.answer
        # Cached: the flow assembles it anew at each access, and a response reads it several times.
        if self._finished is None:
            self._finished = self._flow.answer
        return self._finished

    @property
    def source_nodes(self) -> list[NodeWithScore]:
        """All retrieved nodes, each once; nodes with citation numbers come first, by their numbers."""
        answer = self.answer
        cited = self._contexts.cited if self._config.citations else ()
        return union([cited, answer.sources, *(one.sources for one in answer.expansions)])

    @property
    def points(self) -> list[ResponsePoint]:
        """The points so far."""
        return response_points(self.answer, self.source_nodes, citations=self._config.citations)

    @property
    def metadata(self) -> dict[str, Any]:
        """The entry `metadata["sot"]` so far."""
        return response_metadata(self.answer, concurrency=self._used, retrieval=self._config.retrieval)

    # --- the whole answer, and its text ---

    def whole(self) -> str:
        """Makes the whole answer and returns its text."""
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
        """The answer's text as it is written, in document order.

        After an `AnswerRestarted` the answer follows from its beginning, after a blank line: text cannot be taken back.
        """
        with contextlib.closing(self.events()) as events:
            for event in events:
                if isinstance(event, AnswerDelta):
                    yield event.text
                elif isinstance(event, AnswerRestarted):
                    self._restarted = True

    async def atexts(self) -> AsyncGenerator[str]:
        """Async twin of `texts`."""
        async with contextlib.aclosing(self.aevents()) as events:
            async for event in events:
                if isinstance(event, AnswerDelta):
                    yield event.text
                elif isinstance(event, AnswerRestarted):
                    self._restarted = True

    def find_sources(self) -> None:
        """Runs the answer until all its sources are found. `events`, `texts` or `whole` run the rest."""
        if self._config.retrieval != "none":
            self._early.extend(self._run(until_sources=True))

    async def afind_sources(self) -> None:
        """Async twin of `find_sources`."""
        if self._config.retrieval != "none":
            async with contextlib.aclosing(self._arun(until_sources=True)) as events:
                self._early += [event async for event in events]

    # --- events ---

    def events(self) -> Generator[Event]:
        """Runs the answer, with its calls in threads.

        Raises:
            Exception: The answer could not be completed.
        """
        self._begun = True
        yield from self._early
        yield from self._run()

    async def aevents(self) -> AsyncGenerator[Event]:
        """Runs the answer, with its calls as tasks, or in threads beside the loop."""
        self._begun = True
        for early in self._early:
            yield early
        async with contextlib.aclosing(self._arun()) as events:
            async for event in events:
                yield event

    def _run(self, *, until_sources: bool = False) -> Generator[Event]:
        self._used = self._config.point_llm.used(streamed=self._live, sync=True)
        events = cast(Generator[tuple[int, Event]], drive.run(self._board, self._open, until_sources=until_sources))
        has_listener = has_handlers(dispatcher)
        try:
            while (item := self._context.run(next, events, None)) is not None:
                yield self._emit(item[1], has_listener)
        finally:
            self._context.run(events.close)

    async def _arun(self, *, until_sources: bool = False) -> AsyncGenerator[Event]:
        self._used = self._config.point_llm.used(streamed=self._live, sync=False)
        events = cast(
            AsyncGenerator[tuple[int, Event]], drive.arun(self._board, self._aopen, until_sources=until_sources)
        )
        loop = asyncio.get_running_loop()
        has_listener = has_handlers(dispatcher)
        try:
            while (item := await loop.create_task(next_or_none(events), context=self._context)) is not None:
                yield self._emit(item[1], has_listener)
        finally:
            await loop.create_task(events.aclose(), context=self._context)

    def _emit(self, event: Event, has_listener: bool) -> Event:
        """Emits an event to the instrumentation if a handler listens."""
        if isinstance(event, AnswerFailed):
            raise event.error
        # To make a typed event takes as long as to read a piece of a stream.
        if has_listener and (typed := self._context.run(typed_event, event, self.waves)) is not None:
            self._context.run(dispatcher.event, typed)
        return event

    # --- calls ---

    def _streamed(self, call: Call) -> bool:
        # An eager skeleton has to be read while it is written.
        return self._live or (call.stage == "skeleton" and bool(self._flow.settings.eager))

    def _open(self, call: Call, position: int) -> Iterator[str | Reply]:
        query = self._node_query(call)
        with traced(call, self._callbacks, query.query_str) as pieces:
            if call.stage == "sources":
                yield self._found(call, self._finder.find(query))
                return
            llm = self._config.writer(call.stage)
            if self._config.multimodal:
                call = self._contexts.with_media(call)
            reader = ResponseReader(llm.reasons, call.max_chars)
            if not self._streamed(call):
                text, reply = reader.whole(response := llm.whole(call))
                pieces.append(text)
                if call.stage == "direct":
                    self.direct_response = response
                yield text
                yield reply
                return
            with closing_stream(llm.stream(call)) as responses:
                for response in responses:
                    pieces.append(reader.add(response))
                    if call.stage == "direct":
                        self.direct_response = response
                    yield pieces[-1]
                    if reader.end_of_reply.full:
                        break
            yield reader.reply

    async def _aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        query = self._node_query(call)
        with traced(call, self._callbacks, query.query_str) as pieces:
            if call.stage == "sources":
                yield self._found(call, await self._finder.afind(query))
                return
            llm = self._config.writer(call.stage)
            if self._config.multimodal:
                call = self._contexts.with_media(call)
            reader = ResponseReader(llm.reasons, call.max_chars)
            if not self._streamed(call):
                text, reply = reader.whole(response := await llm.awhole(call))
                pieces.append(text)
                if call.stage == "direct":
                    self.direct_response = response
                yield text
                yield reply
                return
            async with aclosing_stream(await llm.astream(call)) as responses:
                async for response in responses:
                    pieces.append(reader.add(response))
                    if call.stage == "direct":
                        self.direct_response = response
                    yield pieces[-1]
                    if reader.end_of_reply.full:
                        break
            yield reader.reply

    @property
    def _finder(self) -> NodeFinder:
        assert self._config.finder is not None, "only answers with retrieval call for sources"
        return self._config.finder

    def _found(self, call: Call, nodes: list[NodeWithScore]) -> Reply:
        direct = call.point is None and self._flow.answer.route == "direct"
        return Reply(sources=tuple(nodes), context=self._contexts.write(call.point, nodes, direct=direct))

    def _node_query(self, call: Call) -> QueryBundle:
        """The query for a call's nodes: its point's, or the question's."""
        if call.point is None:
            # A copy: some retrievers write an embedding into it.
            return replace(self._query)
        query = self._query if not isinstance(call.point, Item) else self._query_of_items()
        return self._config.point_query(query, call.point.title)

    def _query_of_items(self) -> QueryBundle:
        """The query without its items: an item's query would otherwise name all of them, and find their nodes."""
        decision, query = self._flow.answer.decision, self._query
        if decision is None or decision.items is None:
            return query
        more = [text for text in query.custom_embedding_strs or () if text != query.query_str]
        return QueryBundle(decision.items.instruction, custom_embedding_strs=more or None)
