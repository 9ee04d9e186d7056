"""A scripted chat model that records its calls, and the six methods that run a chain."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from scripted_calls import PATIENCE, Gate, Script, Step, Watch


@dataclass(frozen=True)
class Seen:
    """One call of the model."""

    stage: str
    point: int | None
    messages: list[BaseMessage]
    kwargs: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.messages[-1].text)


def seen_as(messages: list[BaseMessage], kwargs: dict[str, Any]) -> Seen:
    """Reads the stage from the prompt: `BaseChatModel` passes no run to `_stream`."""
    text = next((m.text for m in reversed(messages) if m.type == "human"), "")
    if point := re.search(r"The point to write: (\d+)\.", text):
        return Seen("point", int(point[1]), messages, kwargs)
    if point := re.search(r'has these headings: (.*)\.\n\n(?:[^"]*\n\n)?.*under the heading "(.*?)":', text):
        return Seen("point", point[1].split("; ").index(point[2]) + 1, messages, kwargs)
    if point := re.search(r", explain: (.*)$", text):  # with examples, the skeleton is the turn before
        skeleton = [m.text for m in messages if m.type == "ai" and m.text.startswith("1. ")][-1]
        found = re.search(rf"^(\d+)\. {re.escape(point[1])}$", skeleton, re.M)
        assert found, f"{point[1]!r} is not in the skeleton {skeleton!r}"
        return Seen("point", int(found[1]), messages, kwargs)
    if "were written separately" in text:
        return Seen("merge", None, messages, kwargs)
    marks = ("outline of an answer", "Write only the headings", "Give only the headings")
    return Seen("skeleton" if any(mark in text for mark in marks) else "direct", None, messages, kwargs)


class ScriptedChat(BaseChatModel):
    """A chat model that runs its script: it yields text, raises, waits, or calls a function."""

    script: Any
    watch: Any = None

    def model_post_init(self, context: Any, /) -> None:
        self.watch = self.watch or Watch()

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        seen = seen_as(messages, kwargs)
        written = 0
        with self.watch.call(seen):
            for step in self.script(seen):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Gate):
                    step.wait()
                elif isinstance(step, str):
                    written += 1
                    yield ChatGenerationChunk(message=AIMessageChunk(content=step))
                else:
                    step()
            yield last_chunk(messages, written)

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        seen = seen_as(messages, kwargs)
        written = 0
        with self.watch.call(seen):
            for step in self.script(seen):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, Gate):
                    await step.await_()
                elif isinstance(step, str):
                    written += 1
                    yield ChatGenerationChunk(message=AIMessageChunk(content=step))
                else:
                    step()
                await asyncio.sleep(0)
            yield last_chunk(messages, written)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with contextlib.closing(self._stream(messages, stop, run_manager, **kwargs)) as stream:
            return whole([chunk.message for chunk in stream])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        async with contextlib.aclosing(self._astream(messages, stop, run_manager, **kwargs)) as stream:
            return whole([chunk.message async for chunk in stream])


class SyncOnlyChat(ScriptedChat):
    """A model that defines no async methods."""

    _agenerate = BaseChatModel._agenerate
    _astream = BaseChatModel._astream


def last_chunk(messages: list[BaseMessage], written: int) -> ChatGenerationChunk:
    asked = sum(len(m.text.split()) for m in messages)
    usage = {"input_tokens": asked, "output_tokens": written, "total_tokens": asked + written}
    metadata = {"model_name": "scripted", "finish_reason": "stop"}
    return ChatGenerationChunk(
        message=AIMessageChunk(content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last")
    )


def whole(chunks: list[BaseMessage]) -> ChatResult:
    last = chunks[-1]
    message = AIMessage(
        content="".join(chunk.text for chunk in chunks),
        usage_metadata=last.usage_metadata,
        response_metadata=last.response_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])


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
            return pieces(f"All about {names[seen.point - 1].lower()}.")
        if seen.stage == "merge":
            return pieces(merge)
        return pieces(direct)

    return script


class Runs(BaseCallbackHandler):
    """Records every run: its name, its parent, and the order in which runs started and ended."""

    run_inline = True

    def __init__(self) -> None:
        self.started: dict[Any, SimpleNamespace] = {}
        self.ended: list[Any] = []
        self.errors: dict[Any, BaseException] = {}
        self._lock = threading.Lock()

    def _start(self, run_id: Any, parent_run_id: Any, kwargs: dict[str, Any]) -> None:
        with self._lock:
            self.started[run_id] = SimpleNamespace(
                id=run_id,
                parent=parent_run_id,
                name=kwargs.get("name"),
                tags=kwargs.get("tags") or [],
                metadata=kwargs.get("metadata") or {},
            )

    def _end(self, run_id: Any) -> None:
        with self._lock:
            assert run_id not in self.ended, "a run ended twice"
            self.ended.append(run_id)

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any
    ) -> None:
        self._start(run_id, parent_run_id, kw)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: Any, parent_run_id: Any = None, **kw: Any
    ) -> None:
        self._start(run_id, parent_run_id, kw)

    def on_chain_end(self, outputs: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id)

    def on_llm_end(self, response: Any, *, run_id: Any, **kw: Any) -> None:
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: Any, **kw: Any) -> None:
        self.errors[run_id] = error
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: Any, **kw: Any) -> None:
        self.errors[run_id] = error
        self._end(run_id)

    @property
    def roots(self) -> list[SimpleNamespace]:
        return [run for run in self.started.values() if run.parent is None]

    def children(self, root: SimpleNamespace) -> list[SimpleNamespace]:
        return [run for run in self.started.values() if run.parent == root.id]

    def assert_all_ended_before_the_root(self) -> None:
        assert set(self.ended) == set(self.started)
        for root in self.roots:
            for child in self.children(root):
                assert self.ended.index(child.id) < self.ended.index(root.id), child.name


def untimed(output: dict[str, Any]) -> dict[str, Any]:
    """The output without its timings, which differ from run to run."""
    return {key: value for key, value in output.items() if key != "timings"}


END = ("finish_reason", "finish_reasons", "usage", "usage_by_stage", "usage_by_point", "timings")
"""The keys of an output that only its end has, in their order."""


def texts(output: dict[str, Any]) -> dict[str, Any]:
    """The output without the keys that only its end has."""
    return {key: value for key, value in output.items() if key not in END}


def total(chunks: Iterable[Any]) -> Any:
    chunks = iter(chunks)
    result = next(chunks)
    for chunk in chunks:
        result = result + chunk
    return result


Way = Callable[..., Awaitable[Any]]


async def _invoke(chain: Any, value: Any, config: Any = None) -> Any:
    return await asyncio.to_thread(chain.invoke, value, config)


async def _ainvoke(chain: Any, value: Any, config: Any = None) -> Any:
    return await chain.ainvoke(value, config)


async def _batch(chain: Any, value: Any, config: Any = None) -> Any:
    return (await asyncio.to_thread(chain.batch, [value], config))[0]


async def _abatch(chain: Any, value: Any, config: Any = None) -> Any:
    return (await chain.abatch([value], config))[0]


async def _stream(chain: Any, value: Any, config: Any = None) -> Any:
    return await asyncio.to_thread(lambda: total(chain.stream(value, config)))


async def _astream(chain: Any, value: Any, config: Any = None) -> Any:
    return total([chunk async for chunk in chain.astream(value, config)])


WAYS = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "batch": _batch,
    "abatch": _abatch,
    "stream": _stream,
    "astream": _astream,
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    """`await way(chain, input, config)`: the output of the chain. One test per method in `WAYS`."""
    return WAYS[request.param]


@pytest.fixture
def ways() -> dict[str, Way]:
    return WAYS


@pytest.fixture
def kit() -> SimpleNamespace:
    """The classes and functions of this file, which test modules cannot import."""
    return SimpleNamespace(
        Chat=ScriptedChat,
        SyncOnlyChat=SyncOnlyChat,
        Gate=Gate,
        Runs=Runs,
        Watch=Watch,
        answering=answering,
        last_chunk=last_chunk,
        seen_as=seen_as,
        pieces=pieces,
        total=total,
        texts=texts,
        untimed=untimed,
        whole=whole,
        END=END,
        PATIENCE=PATIENCE,
    )


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Whether a test calls the async methods."""
    return bool(request.param)
