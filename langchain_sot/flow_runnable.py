"""The methods that run a chain: `invoke`, `batch`, `stream` and their twins, over one driver and one budget.

`invoke` is a batch of one, and `batch` collects `batch_as_completed`. One `drive.run` runs all flows of a batch, so
`max_concurrency` bounds its open calls together. Each input has its own root run, which ends with its answer.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

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

from langchain_sot.messages import ParsedInput
from langchain_sot.results import Chunks
from skeleton_of_thought.events import AnswerDone, AnswerFailed
from skeleton_of_thought.types import Answer

if TYPE_CHECKING:
    # Loaded with the first chain: these modules would double the time of the import.
    from langchain_sot.plan import AnswerBatch, AnswerPlan

__all__ = ["FlowRunnable"]


class FlowRunnable(Runnable[Any, dict[str, Any]]):
    """A runnable that answers by flows."""

    @abstractmethod
    def plan(self) -> AnswerPlan:
        """The plan of the answers."""

    @abstractmethod
    def _output(self, answer: Answer) -> dict[str, Any]:
        """The output for an answer."""

    @abstractmethod
    def _chunks(self, parsed: ParsedInput) -> Chunks:
        """Makes the chunks for one input; their sum equals `_output`."""

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
                raised at once, and all open calls are cancelled.
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
            with contextlib.closing(self._batch(inputs, children, kwargs, live=False).run()) as events:
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
            async with contextlib.aclosing(self._batch(inputs, children, kwargs, live=False).arun()) as events:
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

    def _batch(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any], *, live: bool
    ) -> AnswerBatch:
        from langchain_sot.plan import AnswerBatch

        return AnswerBatch(self.plan(), inputs, configs, kwargs, live=live)

    def _root(self, config: RunnableConfig, value: Any) -> CallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        return get_callback_manager_for_config(config).on_chain_start(None, value, name=name, run_id=run_id)

    async def _aroot(self, config: RunnableConfig, value: Any) -> AsyncCallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        manager = get_async_callback_manager_for_config(config)
        return await manager.on_chain_start(None, value, name=name, run_id=run_id)

    # --- streams ---

    # LangChain's `_transform_stream_with_config` ends the root run before it closes its iterator, so the runs of the
    # calls would end after their parent's. Here the calls are closed first.

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Answers one question in chunks that add up to what `invoke` returns.

        `close` on the iterator cancels all calls, and returns when they have ended.
        """
        config = ensure_config(config)
        root = self._root(config, input)
        tap = _tap(root)
        total = AddableDict()
        try:
            batch = self._batch([input], [patch_config(config, callbacks=root.get_child())], kwargs, live=True)
            with contextlib.closing(batch.stream(self._chunks)) as own:
                for chunk in own if tap is None else tap.tap_output_iter(root.run_id, own):
                    if root.handlers:
                        total = total + chunk
                    yield chunk
        except GeneratorExit:
            root.on_chain_end(total)
            raise
        except BaseException as error:
            root.on_chain_error(error)
            raise
        else:
            root.on_chain_end(total)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Async twin of `stream`."""
        config = ensure_config(config)
        root = await self._aroot(config, input)
        tap = _tap(root)
        total = AddableDict()
        try:
            batch = self._batch([input], [patch_config(config, callbacks=root.get_child())], kwargs, live=True)
            async with contextlib.aclosing(batch.astream(self._chunks)) as own:
                async for chunk in own if tap is None else tap.tap_output_aiter(root.run_id, own):
                    if root.handlers:
                        total = total + chunk
                    yield chunk
        except GeneratorExit:
            await root.on_chain_end(total)
            raise
        except BaseException as error:
            await root.on_chain_error(error)
            raise
        else:
            await root.on_chain_end(total)

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


def _tap(root: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun) -> _StreamingCallbackHandler[Any] | None:
    """The handler of `astream_events`, to which the chunks of a run are reported."""
    for handler in root.handlers:
        if isinstance(handler, _StreamingCallbackHandler):
            return handler
    return None


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
