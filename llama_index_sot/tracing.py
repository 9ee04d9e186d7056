"""The calls of an answer in LlamaIndex's instrumentation, and in its legacy callbacks."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.query_engine.sub_question_query_engine import SubQuestionAnswerPair
from llama_index.core.question_gen.types import SubQuestion
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler
from llama_index_instrumentation.span import active_span_id

from skeleton_of_thought.types import Call, Point, Reply, Stage

__all__ = ["Trace", "call_span", "is_heard", "outer_span", "query_event", "traced"]

dispatcher = get_dispatcher(__name__)

TOOL = "skeleton_of_thought"
"""What the legacy callbacks get as the name of the tool that answers a point."""


def is_heard(dispatcher: Dispatcher) -> bool:
    """Whether there is anybody who handles the events of this dispatcher."""
    at: Dispatcher | None = dispatcher
    while at is not None:
        if any(type(handler) is not NullEventHandler for handler in at.event_handlers):
            return True
        at = at.parent if at.propagate else None
    return False


@dataclass
class Trace:
    """What has come of a call."""

    pieces: list[str] = field(default_factory=list)
    nodes: Sequence[NodeWithScore] = ()

    def text(self, text: str) -> str:
        """More text."""
        self.pieces.append(text)
        return text

    def found(self, nodes: Sequence[NodeWithScore], context: str) -> Reply:
        """What was retrieved, and how the model reads it."""
        self.nodes = nodes
        return Reply(sources=tuple(nodes), context=context)


@contextlib.contextmanager
def traced(call: Call, callbacks: CallbackManager, question: str) -> Iterator[Trace]:
    """A span around one call, named by its stage and point; of a point's call, a `SUB_QUESTION` event besides.

    Runs within the call's own thread or task, whose context variables are its own.
    """
    trace = Trace()
    with call_span(call.stage, call.point, call.attempt), contextlib.ExitStack() as stack:
        if call.stage != "point":
            yield trace
            return
        asked = SubQuestion(sub_question=question, tool_name=TOOL)
        event = stack.enter_context(
            callbacks.event(
                CBEventType.SUB_QUESTION, payload={EventPayload.SUB_QUESTION: SubQuestionAnswerPair(sub_q=asked)}
            )
        )
        yield trace
        answered = SubQuestionAnswerPair(sub_q=asked, answer="".join(trace.pieces))
        event.on_end(payload={EventPayload.SUB_QUESTION: answered})


def _enter(stage: str, point: int | None, title: str | None, attempt: int) -> None:
    """The arguments that a call's span shows."""


_ENTER = inspect.signature(_enter)


@contextlib.contextmanager
def call_span(stage: Stage, point: Point | None = None, attempt: int = 1) -> Iterator[None]:
    """A span around one call, the parent of what is called within; the call has its context to itself."""
    name = stage if point is None else f"{stage}_{point.index}"
    span_id = f"SkeletonOfThought.{name}-{uuid4()}"
    index, title = (None, None) if point is None else (point.index, point.title)
    arguments = _ENTER.bind(stage, index, title, attempt)
    parent = active_span_id.get()
    dispatcher.span_enter(span_id, arguments, parent_id=parent)
    # Not reset: the call's context ends with it.
    active_span_id.set(span_id)
    try:
        yield
    except BaseException as error:
        dispatcher.span_drop(span_id, arguments, err=error)
        raise
    dispatcher.span_exit(span_id, arguments)


@contextlib.contextmanager
def query_event(callbacks: CallbackManager, query: QueryBundle) -> Iterator[list[Any]]:
    """The legacy `QUERY` event around an answer; it ends with the response that is put into the list."""
    told: list[Any] = []
    payload: dict[str, Any] = {EventPayload.QUERY_STR: query.query_str}
    with callbacks.event(CBEventType.QUERY, payload=payload) as event:
        yield told
        event.on_end(payload={EventPayload.RESPONSE: told[-1]})


def _asked(query: QueryType) -> None:
    """The arguments that the span of `astream_events` shows."""


@contextlib.asynccontextmanager
async def outer_span(
    engine: BaseQueryEngine, query: QueryBundle
) -> AsyncIterator[tuple[contextvars.Context, list[Any]]]:
    """What `aquery` does around `_aquery`, for a generator: in a context of its own, for it shares that of its reader.

    Yields:
        The context, in which all that belongs to the answer is to run; and a list for the response.
    """
    context, told = contextvars.copy_context(), list[Any]()
    name, arguments = f"{type(engine).__name__}.astream_events-{uuid4()}", inspect.signature(_asked).bind(query)
    callbacks = engine.callback_manager
    dispatcher.span_enter(name, arguments, instance=engine, parent_id=context.get(active_span_id))
    context.run(active_span_id.set, name)
    context.run(lambda: dispatcher.event(QueryStartEvent(query=query)))
    context.run(lambda: callbacks.start_trace("query"))
    payload: dict[str, Any] = {EventPayload.QUERY_STR: query.query_str}
    event = context.run(lambda: callbacks.on_event_start(CBEventType.QUERY, payload))
    end: dict[str, Any] = {}
    try:
        yield context, told
        end = {EventPayload.RESPONSE: told[-1]}
        context.run(lambda: dispatcher.event(QueryEndEvent(query=query, response=told[-1])))
        dispatcher.span_exit(name, arguments, instance=engine, result=told[-1])
    except BaseException as error:
        end = end or {EventPayload.EXCEPTION: error}
        dispatcher.span_drop(name, arguments, instance=engine, err=error)
        raise
    finally:
        context.run(lambda: callbacks.on_event_end(CBEventType.QUERY, end, event))
        context.run(lambda: callbacks.end_trace("query"))
