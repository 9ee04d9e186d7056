"""Spans and events of an answer and its calls, for LlamaIndex's instrumentation and legacy callbacks."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.query_engine.sub_question_query_engine import SubQuestionAnswerPair
from llama_index.core.question_gen.types import SubQuestion
from llama_index.core.schema import QueryBundle, QueryType
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler
from llama_index_instrumentation.span import active_span_id

from skeleton_of_thought.routers.base import AnyRouter, BoundRouter, RouterWrapper
from skeleton_of_thought.types import Call, Conversation, Point, RouteDecision, Stage

__all__ = [
    "RouterWithSpan",
    "call_span",
    "dispatcher",
    "event_span",
    "has_handlers",
    "query_event",
    "synthesize_event",
    "traced",
]

dispatcher = get_dispatcher(__name__)
"""Emits the events and spans of this package."""

TOOL = "skeleton_of_thought"
"""The tool's name in the legacy callbacks of a point."""

PLAN = "skeleton_of_thought"
"""The key in the payload of these callbacks under which a planned point has its `index`, `scope` and `depends_on`."""


def has_handlers(dispatcher: Dispatcher) -> bool:
    """Whether any event handler listens to this dispatcher."""
    at: Dispatcher | None = dispatcher
    while at is not None:
        for handler in at.event_handlers:
            if type(handler) is not NullEventHandler:
                return True
        at = at.parent if at.propagate else None
    return False


# --- calls ---


@contextlib.contextmanager
def traced(call: Call, callbacks: CallbackManager, question: str) -> Iterator[list[str]]:
    """A span around one call, named by its stage and point; for a point's call, a `SUB_QUESTION` event, too.

    With a plan, both show what the point covers, and the points that it waited for.

    Runs within the call's own thread or task, whose context variables are its own.

    Yields:
        A list that collects the pieces of the call's text; the end of the event has them.
    """
    pieces: list[str] = []
    with call_span(call.stage, call.point, call.attempt):
        if call.stage != "point":
            yield pieces
            return
        sub_question = SubQuestion(sub_question=question, tool_name=TOOL)
        payload: dict[str, Any] = {EventPayload.SUB_QUESTION: SubQuestionAnswerPair(sub_q=sub_question)}
        if (point := call.point) is not None and (point.scope or point.depends_on):
            payload[PLAN] = {"index": point.index, **_plan(point)}
        with callbacks.event(CBEventType.SUB_QUESTION, payload=payload) as event:
            yield pieces
            pair = SubQuestionAnswerPair(sub_q=sub_question, answer="".join(pieces))
            event.on_end(payload={EventPayload.SUB_QUESTION: pair})


def _call_arguments(
    stage: str,
    point: int | None,
    title: str | None,
    attempt: int,
    *,
    scope: str = "",
    depends_on: Sequence[int] = (),
) -> None:
    """The arguments that a call's span shows; the last two of points with a plan."""


_CALL_SIGNATURE = inspect.signature(_call_arguments)


@contextlib.contextmanager
def call_span(stage: Stage, point: Point | None = None, attempt: int = 1) -> Iterator[None]:
    """A span around one call, the parent of all spans within it. The call needs context variables of its own."""
    name = stage if point is None else f"{stage}_{point.index}"
    span_id = f"SkeletonOfThought.{name}-{uuid4()}"
    index, title = (None, None) if point is None else (point.index, point.title)
    plan = _plan(point) if point is not None and (point.scope or point.depends_on) else {}
    arguments = _CALL_SIGNATURE.bind(stage, index, title, attempt, **plan)
    parent = active_span_id.get()
    dispatcher.span_enter(span_id, arguments, parent_id=parent)
    # Not reset: the call's context ends with the call.
    active_span_id.set(span_id)
    try:
        yield
    except BaseException as error:
        dispatcher.span_drop(span_id, arguments, err=error)
        raise
    dispatcher.span_exit(span_id, arguments)


def _plan(point: Point) -> dict[str, Any]:
    return {"scope": point.scope, "depends_on": list(point.depends_on)}


@dataclass(frozen=True)
class RouterWithSpan(RouterWrapper):
    """A router whose calls have a span in the answer's trace; a decision without a call has none."""

    router: AnyRouter

    def route(self, conversation: Conversation) -> RouteDecision:
        """Decides within a span."""
        with call_span("route"):
            return BoundRouter(self.router, conversation).decide()

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        with call_span("route"):
            return await BoundRouter(self.router, conversation).adecide()


# --- answers ---


@contextlib.contextmanager
def query_event(callbacks: CallbackManager, query: QueryBundle) -> Iterator[list[Any]]:
    """The legacy `QUERY` event around an answer.

    Yields:
        A list that receives the response; the end of the event has it.
    """
    responses: list[Any] = []
    payload: dict[str, Any] = {EventPayload.QUERY_STR: query.query_str}
    with callbacks.event(CBEventType.QUERY, payload=payload) as event:
        yield responses
        event.on_end(payload={EventPayload.RESPONSE: responses[-1]})


@contextlib.contextmanager
def synthesize_event(callbacks: CallbackManager, query: QueryType) -> Iterator[tuple[QueryBundle, list[Any]]]:
    """The events that `BaseSynthesizer.synthesize` emits.

    Yields:
        The query as a bundle, and a list that receives the response; the last events have it.
    """
    responses: list[Any] = []
    dispatcher.event(SynthesizeStartEvent(query=query))
    bundle = QueryBundle(query) if isinstance(query, str) else query
    payload: dict[str, Any] = {EventPayload.QUERY_STR: bundle.query_str}
    with callbacks.event(CBEventType.SYNTHESIZE, payload=payload) as event:
        yield bundle, responses
        event.on_end(payload={EventPayload.RESPONSE: responses[-1]})
    dispatcher.event(SynthesizeEndEvent(query=bundle, response=responses[-1]))


def _query_arguments(query: QueryType) -> None:
    """The arguments that the span of `astream_events` shows."""


@contextlib.asynccontextmanager
async def event_span(
    engine: BaseQueryEngine, query: QueryBundle
) -> AsyncIterator[tuple[contextvars.Context, list[Any]]]:
    """The events and the span of `astream_events`, the same as those of `aquery`.

    They have a context of their own, because a generator shares the context of its reader.

    Yields:
        The context in which the answer must run, and a list that receives the response.
    """
    context, responses = contextvars.copy_context(), list[Any]()
    arguments = inspect.signature(_query_arguments).bind(query)
    name = f"{type(engine).__name__}.astream_events-{uuid4()}"
    callbacks = engine.callback_manager
    dispatcher.span_enter(name, arguments, instance=engine, parent_id=context.get(active_span_id))
    context.run(active_span_id.set, name)
    context.run(lambda: dispatcher.event(QueryStartEvent(query=query)))
    context.run(lambda: callbacks.start_trace("query"))
    payload: dict[str, Any] = {EventPayload.QUERY_STR: query.query_str}
    event = context.run(lambda: callbacks.on_event_start(CBEventType.QUERY, payload))
    end: dict[str, Any] = {}
    try:
        yield context, responses
        end = {EventPayload.RESPONSE: responses[-1]}
        context.run(lambda: dispatcher.event(QueryEndEvent(query=query, response=responses[-1])))
        dispatcher.span_exit(name, arguments, instance=engine, result=responses[-1])
    except BaseException as error:
        end = end or {EventPayload.EXCEPTION: error}
        dispatcher.span_drop(name, arguments, instance=engine, err=error)
        raise
    finally:
        context.run(lambda: callbacks.on_event_end(CBEventType.QUERY, end, event))
        context.run(lambda: callbacks.end_trace("query"))
