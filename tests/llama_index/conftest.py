"""Scripted LLMs and retrievers that record their calls, and the methods that ask an engine."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import BaseSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import Field
from scripted_calls import PATIENCE, Gate, Script, Step, Watch

from llama_index_sot import SkeletonOfThoughtQueryEngine
from llama_index_sot.events import AnswerReady


@dataclass(frozen=True)
class Seen:
    """One call of the LLM."""

    stage: str
    point: int | None
    text: str
    messages: list[ChatMessage]
    kwargs: dict[str, Any]
    method: str
    thread: int
    on_loop: bool


def seen_as(text: str, **details: Any) -> Seen:
    """Reads the stage from the prompt."""
    try:
        asyncio.get_running_loop()
        on_loop = True
    except RuntimeError:
        on_loop = False
    details = {"messages": [], "kwargs": {}, **details, "thread": threading.get_ident(), "on_loop": on_loop}
    if point := re.search(r"The point to write: (\d+)\.", text):
        return Seen("point", int(point[1]), text, **details)
    if point := re.search(r'has these headings: (.*)\.\n\n(?:.*\n)*.*under the heading "(.*?)":', text):
        return Seen("point", point[1].split("; ").index(point[2]) + 1, text, **details)
    if point := re.search(r"Write only the text of point (\d+),", text):
        return Seen("point", int(point[1]), text, **details)
    if role := re.search(r"Write what stands (before|after) (?:it|them)", text):
        return Seen("opening" if role[1] == "before" else "closing", None, text, **details)
    if "were written separately" in text:
        return Seen("merge", None, text, **details)
    skeleton = any(word in text for word in ("headings", "outline", "Plan the answer"))
    return Seen("skeleton" if skeleton else "direct", None, text, **details)


def run_steps(watch: Watch, script: Script, seen: Seen) -> Iterator[str]:
    with watch.call(seen):
        for step in script(seen):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Gate):
                step.wait()
            elif isinstance(step, str):
                yield step
            else:
                step()


async def arun_steps(watch: Watch, script: Script, seen: Seen) -> AsyncIterator[str]:
    with watch.call(seen):
        for step in script(seen):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Gate):
                await step.await_()
            elif isinstance(step, str):
                yield step
            else:
                step()
            await asyncio.sleep(0)


def usage(prompt: str, written: int) -> dict[str, Any]:
    asked = len(prompt.split())
    counts = {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}
    return {"usage": counts, "finish_reason": "stop"}


class SyncLLM(CustomLLM):
    """An LLM with sync methods only. Its async methods are those of `CustomLLM`, which block the loop."""

    script: Any
    watch: Any = None
    meta: Any = None

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.watch = self.watch or Watch()

    @property
    def metadata(self) -> LLMMetadata:
        return self.meta or LLMMetadata()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        seen = seen_as(prompt, kwargs={"formatted": formatted, **kwargs}, method="complete")
        pieces = list(run_steps(self.watch, self.script, seen))
        return CompletionResponse(text="".join(pieces), raw=usage(prompt, len(pieces)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def responses() -> Iterator[CompletionResponse]:
            seen = seen_as(prompt, kwargs={"formatted": formatted, **kwargs}, method="stream_complete")
            pieces: list[str] = []
            with contextlib.closing(run_steps(self.watch, self.script, seen)) as steps:
                for piece in steps:
                    pieces.append(piece)
                    yield CompletionResponse(text="".join(pieces), delta=piece)
            yield CompletionResponse(text="".join(pieces), delta="", raw=usage(prompt, len(pieces)))

        return responses()


class ChatLLM(LLM):
    """A chat model with its own async methods, like clients of APIs."""

    script: Any
    watch: Any = None
    meta: Any = None

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.watch = self.watch or Watch()

    @property
    def metadata(self) -> LLMMetadata:
        return self.meta or LLMMetadata(is_chat_model=True)

    def _seen(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], method: str) -> Seen:
        return seen_as(messages[-1].content or "", messages=list(messages), kwargs=kwargs, method=method)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        pieces = list(run_steps(self.watch, self.script, self._seen(messages, kwargs, "chat")))
        return _chat_response(messages, pieces, None)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        seen = self._seen(messages, kwargs, "achat")
        return _chat_response(messages, [piece async for piece in arun_steps(self.watch, self.script, seen)], None)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        def responses() -> Iterator[ChatResponse]:
            pieces: list[str] = []
            seen = self._seen(messages, kwargs, "stream_chat")
            with contextlib.closing(run_steps(self.watch, self.script, seen)) as steps:
                for piece in steps:
                    pieces.append(piece)
                    yield _chat_response(messages, pieces, piece, raw={})
            yield _chat_response(messages, pieces, "")

        return responses()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def responses() -> AsyncIterator[ChatResponse]:
            pieces: list[str] = []
            seen = self._seen(messages, kwargs, "astream_chat")
            async with contextlib.aclosing(arun_steps(self.watch, self.script, seen)) as steps:
                async for piece in steps:
                    pieces.append(piece)
                    yield _chat_response(messages, pieces, piece, raw={})
            yield _chat_response(messages, pieces, "")

        return responses()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise AssertionError("a chat model takes messages")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise AssertionError("a chat model takes messages")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise AssertionError("a chat model takes messages")

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise AssertionError("a chat model takes messages")


class CompletingLLM(ChatLLM):
    """A chat model whose completions are chats, as those of LlamaIndex's own chat models."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _as_completion(self.chat([ChatMessage(role="user", content=prompt)], **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _as_completion(await self.achat([ChatMessage(role="user", content=prompt)], **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        with contextlib.closing(self.stream_chat([ChatMessage(role="user", content=prompt)], **kwargs)) as responses:
            yield from map(_as_completion, responses)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        async def responses() -> Any:
            chat = await self.astream_chat([ChatMessage(role="user", content=prompt)], **kwargs)
            async with contextlib.aclosing(chat):
                async for response in chat:
                    yield _as_completion(response)

        return responses()


def _as_completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=response.message.content or "", delta=response.delta, raw=response.raw)


def _chat_response(
    messages: Sequence[ChatMessage], pieces: list[str], delta: str | None, raw: Any = None
) -> ChatResponse:
    if raw is None:
        raw = usage(" ".join(m.content or "" for m in messages), len(pieces))
    return ChatResponse(message=ChatMessage(role="assistant", content="".join(pieces)), delta=delta, raw=raw)


def pieces(text: str) -> list[str]:
    """The text in chunks of five characters."""
    return [text[i : i + 5] for i in range(0, len(text), 5)]


def answering(titles: Iterable[str], *, direct: str = "Just so.", merge: str = "All in one.") -> Script:
    """A script that writes a skeleton of these titles, a sentence for each point, and the text of a merge."""
    names = list(titles)

    def script(seen: Seen) -> Iterable[Step]:
        if seen.stage == "skeleton":
            return pieces("\n".join(f"{i}. {title}" for i, title in enumerate(names, 1)))
        if seen.stage == "point":
            return pieces(f"All about {names[(seen.point or 0) - 1].lower()}.")
        if seen.stage == "merge":
            return pieces(merge)
        if seen.stage in ("opening", "closing"):
            return pieces(f"The {seen.stage}.")
        return pieces(direct)

    return script


# --- retrieval ------------------------------------------------------------------------------------


def node(name: str, text: str = "", score: float = 1.0) -> NodeWithScore:
    return NodeWithScore(node=TextNode(id_=name, text=text or f"The text of {name}."), score=score)


@dataclass(frozen=True)
class Sought:
    """One call of the retriever."""

    query: QueryBundle
    method: str
    on_loop: bool


Find = Callable[[str], Iterable[NodeWithScore]]


class SyncRetriever(BaseRetriever):
    """Returns `find(query)`. It has no async method of its own."""

    def __init__(self, find: Find, hook: Callable[[str], Any] | None = None) -> None:
        self.watch = Watch()
        self._find = find
        self._hook = hook or (lambda query: None)
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        seen = seen_as("", method="")
        with self.watch.call(Sought(query_bundle, "retrieve", seen.on_loop)):
            if isinstance(step := self._hook(query_bundle.query_str), Gate):
                step.wait()
            query_bundle.embedding = [0.5]  # vector retrievers write embeddings into it
            return list(self._find(query_bundle.query_str))


class AsyncRetriever(SyncRetriever):
    """A `SyncRetriever` with an async method of its own."""

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        with self.watch.call(Sought(query_bundle, "aretrieve", True)):
            if isinstance(step := self._hook(query_bundle.query_str), Gate):
                await step.await_()
            await asyncio.sleep(0)
            query_bundle.embedding = [0.5]
            return list(self._find(query_bundle.query_str))


# --- instrumentation and callbacks -----------------------------------------------------------------


class Events(BaseEventHandler):
    """Records every event of the instrumentation."""

    seen: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kinds)]


class Spans(BaseSpanHandler[BaseSpan]):
    """Records every span: its parent, its arguments, and whether it ended or was dropped."""

    parents: dict[str, Any] = Field(default_factory=dict)
    arguments: dict[str, Any] = Field(default_factory=dict)
    ended: list[str] = Field(default_factory=list)
    dropped: dict[str, Any] = Field(default_factory=dict)

    def new_span(self, id_: str, bound_args: Any, instance: Any = None, parent_span_id: Any = None, **_: Any) -> Any:
        self.parents[id_] = parent_span_id
        self.arguments[id_] = dict(bound_args.arguments)
        return BaseSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(self, id_: str, *args: Any, **kwargs: Any) -> Any:
        self.ended.append(id_)
        return self.open_spans.get(id_)

    def prepare_to_drop_span(self, id_: str, *args: Any, err: Any = None, **kwargs: Any) -> Any:
        self.dropped[id_] = err
        return self.open_spans.get(id_)

    def lineage(self, id_: str) -> list[str]:
        line = [id_]
        while (parent := self.parents.get(line[-1])) is not None:
            line.append(parent)
        return line


@pytest.fixture
def instrumented() -> Iterator[SimpleNamespace]:
    """The events and spans that LlamaIndex's instrumentation emits during the test."""
    root = get_dispatcher()
    before = list(root.event_handlers), list(root.span_handlers)
    found = SimpleNamespace(events=Events(), spans=Spans())
    root.event_handlers = [*before[0], found.events]
    root.span_handlers = [*before[1], found.spans]
    yield found
    root.event_handlers, root.span_handlers = before


class Legacy(BaseCallbackHandler):
    """Records every legacy callback."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.started: list[SimpleNamespace] = []
        self.ended: list[SimpleNamespace] = []
        self.traces: list[str] = []

    def on_event_start(self, event_type: Any, payload: Any = None, event_id: str = "", parent_id: str = "", **_: Any):
        self.started.append(SimpleNamespace(type=event_type, payload=payload, id=event_id, parent=parent_id))
        return event_id

    def on_event_end(self, event_type: Any, payload: Any = None, event_id: str = "", **_: Any) -> None:
        self.ended.append(SimpleNamespace(type=event_type, payload=payload, id=event_id))

    def start_trace(self, trace_id: Any = None) -> None:
        self.traces.append(f"start {trace_id}")

    def end_trace(self, trace_id: Any = None, trace_map: Any = None) -> None:
        self.traces.append(f"end {trace_id}")


# --- methods that ask an engine -----------------------------------------------------------------------------------

Make = Callable[..., SkeletonOfThoughtQueryEngine]
Ask = Callable[..., Awaitable[Any]]


def make(llm: LLM, **settings: Any) -> SkeletonOfThoughtQueryEngine:
    """An engine that writes a skeleton for every question and retries at once."""
    return SkeletonOfThoughtQueryEngine.from_defaults(llm, **{"router": None, "backoff": 0.0, **settings})


async def _query(llm: LLM, query: Any, **settings: Any) -> Any:
    return await asyncio.to_thread(make(llm, **settings).query, query)


async def _aquery(llm: LLM, query: Any, **settings: Any) -> Any:
    return await make(llm, **settings).aquery(query)


async def _stream(llm: LLM, query: Any, **settings: Any) -> Any:
    engine = make(llm, streaming=True, **settings)
    return await asyncio.to_thread(lambda: engine.query(query).get_response())


async def _astream(llm: LLM, query: Any, **settings: Any) -> Any:
    response = await make(llm, streaming=True, **settings).aquery(query)
    return await response.get_response()


async def _astream_str(llm: LLM, query: Any, **settings: Any) -> Any:
    """Reads a streaming response like `QueryEngineTool.acall`, which blocks the loop."""
    response = await make(llm, streaming=True, **settings).aquery(query)
    str(response)
    return await response.get_response()


async def _events(llm: LLM, query: Any, **settings: Any) -> Any:
    events = [event async for event in make(llm, **settings).astream_events(query)]
    assert isinstance(events[-1], AnswerReady)
    return events[-1].response


METHODS = {
    "query": _query,
    "aquery": _aquery,
    "stream": _stream,
    "astream": _astream,
    "astream_str": _astream_str,
    "events": _events,
}


@pytest.fixture(params=list(METHODS))
def ask(request: pytest.FixtureRequest) -> Ask:
    """`await ask(llm, query, **settings)`: the whole response. One test per method in `METHODS`."""
    return METHODS[request.param]


@pytest.fixture
def methods() -> dict[str, Ask]:
    return METHODS


@pytest.fixture(params=[SyncLLM, ChatLLM], ids=["sync", "chat"])
def LLMClass(request: pytest.FixtureRequest) -> type[LLM]:
    """An LLM with sync methods only, or a chat model with async methods of its own."""
    return request.param


@pytest.fixture
def kit() -> SimpleNamespace:
    """The classes and functions of this file, which test modules cannot import."""
    return SimpleNamespace(
        SyncLLM=SyncLLM,
        ChatLLM=ChatLLM,
        CompletingLLM=CompletingLLM,
        SyncRetriever=SyncRetriever,
        AsyncRetriever=AsyncRetriever,
        Gate=Gate,
        Legacy=Legacy,
        Watch=Watch,
        answering=answering,
        make=make,
        node=node,
        pieces=pieces,
        seen_as=seen_as,
        PATIENCE=PATIENCE,
    )
