"""What every runnable here has in common: all six ways to run it, over one driver and one budget.

`invoke` is a batch of one, `batch` collects `batch_as_completed`, and that runs all its flows in one
`drive.run`, so `max_concurrency` bounds the open calls of the whole. Each input has a root run of its own,
which ends when its answer does.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
    patch_config,
)
from langchain_core.runnables.utils import AddableDict
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from langchain_sot.messages import Asked
from skeleton_of_thought.events import AnswerDone, AnswerFailed, Event
from skeleton_of_thought.types import Answer

if TYPE_CHECKING:
    # Loaded with the first chain, for what runs an answer is half of the import's time.
    from langchain_sot.plan import Plan

__all__ = ["Chunks", "FlowRunnable"]


class Chunks(Protocol):
    """Turns the events of one answer into what is streamed."""

    def chunk(self, event: Event) -> AddableDict | None:
        """The chunk that tells this event; None for an event without one."""
        ...


class FlowRunnable(Runnable[Any, dict[str, Any]]):
    """A runnable whose work is done by flows."""

    @abstractmethod
    def _plan(self) -> Plan:
        """How answers are made."""

    @abstractmethod
    def _output(self, answer: Answer) -> dict[str, Any]:
        """What is returned for an answer."""

    @abstractmethod
    def _chunks(self, asked: Asked) -> Chunks:
        """What is streamed for a question; the sum equals `_output`."""

    # --- whole answers ---

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Answers one question."""
        return self.batch([input], config, **kwargs)[0]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """Async twin of `invoke`."""
        return (await self.abatch([input], config, **kwargs))[0]

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """Answers many questions under one budget; the calls of all of them run concurrently.

        Args:
            inputs: The questions.
            config: One config for all, or one each. The first one's `max_concurrency` bounds the calls.
            return_exceptions: Put the error of a question into its place. Without it the first error is
                raised at once, and what is still running is cancelled.
            kwargs: Passed on to the models.
        """
        results = dict(self._as_completed(inputs, config, return_exceptions, kwargs))
        return [cast(dict[str, Any], results[i]) for i in range(len(inputs))]

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[dict[str, Any]]:
        """Async twin of `batch`."""
        results = {i: out async for i, out in self._aas_completed(inputs, config, return_exceptions, kwargs)}
        return [cast(dict[str, Any], results[i]) for i in range(len(inputs))]

    def batch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, dict[str, Any] | Exception]]:
        """Like `batch`, but yields each answer with its position as soon as it is complete."""
        yield from self._as_completed(inputs, config, return_exceptions, kwargs)

    async def abatch_as_completed(  # type: ignore[override]
        self,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, dict[str, Any] | Exception]]:
        """Async twin of `batch_as_completed`."""
        async with contextlib.aclosing(self._aas_completed(inputs, config, return_exceptions, kwargs)) as results:
            async for result in results:
                yield result

    def _as_completed(
        self, inputs: Sequence[Any], config: Any, return_exceptions: bool, kwargs: Mapping[str, Any]
    ) -> Generator[tuple[int, dict[str, Any] | Exception]]:
        configs = get_config_list(config, len(inputs)) if inputs else []
        roots: dict[int, CallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = self._root(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            with contextlib.closing(self._plan().work(inputs, children, kwargs, live=False).run()) as events:
                for i, event in events:
                    if isinstance(event, AnswerFailed):
                        if not return_exceptions:
                            raise event.error
                        roots.pop(i).on_chain_error(event.error)
                        yield i, event.error
                    elif isinstance(event, AnswerDone):
                        output = self._output(event.answer)
                        roots.pop(i).on_chain_end(output)
                        yield i, output
        except BaseException as error:
            for root in roots.values():
                root.on_chain_error(error)
            raise

    async def _aas_completed(
        self, inputs: Sequence[Any], config: Any, return_exceptions: bool, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, dict[str, Any] | Exception]]:
        configs = get_config_list(config, len(inputs)) if inputs else []
        roots: dict[int, AsyncCallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = await self._aroot(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            async with contextlib.aclosing(self._plan().work(inputs, children, kwargs, live=False).arun()) as events:
                async for i, event in events:
                    if isinstance(event, AnswerFailed):
                        if not return_exceptions:
                            raise event.error
                        await roots.pop(i).on_chain_error(event.error)
                        yield i, event.error
                    elif isinstance(event, AnswerDone):
                        output = self._output(event.answer)
                        await roots.pop(i).on_chain_end(output)
                        yield i, output
        except BaseException as error:
            for root in roots.values():
                await root.on_chain_error(error)
            raise

    def _root(self, config: RunnableConfig, value: Any) -> CallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        return get_callback_manager_for_config(config).on_chain_start(None, value, name=name, run_id=run_id)

    async def _aroot(self, config: RunnableConfig, value: Any) -> AsyncCallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        manager = get_async_callback_manager_for_config(config)
        return await manager.on_chain_start(None, value, name=name, run_id=run_id)

    # --- streams ---

    # LangChain's `_transform_stream_with_config` ends the root run before it closes what it iterates, so the
    # calls' runs would end after their parent's. Here the calls are closed first.

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Answers one question in chunks that add up to what `invoke` returns.

        Closing the iterator cancels all calls, and returns when they have ended.
        """
        config = ensure_config(config)
        root = self._root(config, input)
        shown = _Shown(root)
        try:
            with contextlib.closing(
                self._stream(input, patch_config(config, callbacks=root.get_child()), kwargs)
            ) as own:
                for chunk in shown.tapped(own):
                    shown.add(chunk)
                    yield chunk
        except GeneratorExit:
            root.on_chain_end(shown.total)
            raise
        except BaseException as error:
            root.on_chain_error(error)
            raise
        else:
            root.on_chain_end(shown.total)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Async twin of `stream`."""
        config = ensure_config(config)
        root = await self._aroot(config, input)
        shown = _Shown(root)
        child = patch_config(config, callbacks=root.get_child())
        try:
            async with contextlib.aclosing(self._astream(input, child, kwargs)) as own:
                async for chunk in shown.atapped(own):
                    shown.add(chunk)
                    yield chunk
        except GeneratorExit:
            await root.on_chain_end(shown.total)
            raise
        except BaseException as error:
            await root.on_chain_error(error)
            raise
        else:
            await root.on_chain_end(shown.total)

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> Iterator[dict[str, Any]]:
        """Like `stream`, for an input that is itself streamed; the work begins when it is complete."""
        for whole in _sum(list(input)):
            yield from self.stream(whole, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[dict[str, Any]]:
        """Async twin of `transform`."""
        for whole in _sum([chunk async for chunk in input]):
            async with contextlib.aclosing(cast(AsyncGenerator[Any], self.astream(whole, config, **kwargs))) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _stream(self, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Generator[AddableDict]:
        work = self._plan().work([input], [config], kwargs, live=True)
        chunks = [self._chunks(asked) for asked in work.asked]
        with contextlib.closing(work.run()) as events:
            for _, event in events:
                if isinstance(event, AnswerFailed):
                    raise event.error
                if (chunk := chunks[0].chunk(event)) is not None:
                    yield chunk

    async def _astream(
        self, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[AddableDict]:
        work = self._plan().work([input], [config], kwargs, live=True)
        chunks = [self._chunks(asked) for asked in work.asked]
        async with contextlib.aclosing(work.arun()) as events:
            async for _, event in events:
                if isinstance(event, AnswerFailed):
                    raise event.error
                if (chunk := chunks[0].chunk(event)) is not None:
                    yield chunk


class _Shown:
    """What a stream has shown so far, for those who trace it."""

    def __init__(self, root: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun) -> None:
        self._root = root
        self._tap = next((h for h in root.handlers if isinstance(h, _StreamingCallbackHandler)), None)
        self.total = AddableDict()

    def add(self, chunk: AddableDict) -> None:
        if self._root.handlers:
            self.total = self.total + chunk

    def tapped(self, chunks: Iterator[AddableDict]) -> Iterator[AddableDict]:
        """The chunks; `astream_events` hears of them too."""
        return chunks if self._tap is None else self._tap.tap_output_iter(self._root.run_id, chunks)

    def atapped(self, chunks: AsyncIterator[AddableDict]) -> AsyncIterator[AddableDict]:
        """Async twin of `tapped`."""
        return chunks if self._tap is None else self._tap.tap_output_aiter(self._root.run_id, chunks)


def _sum(chunks: list[Any]) -> list[Any]:
    """The sum of a streamed input, as LangChain adds: where chunks do not add up, the last one counts."""
    if not chunks:
        return []
    total = chunks[0]
    for chunk in chunks[1:]:
        try:
            total = total + chunk
        except TypeError:
            total = chunk
    return [total]
