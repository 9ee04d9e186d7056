"""Where questions enter: `invoke`, `batch`, `stream` and their twins, over one driver and one budget.

`invoke` is a batch of one, and `batch` collects `batch_as_completed`. One `drive.run` runs all flows of a batch, so
one bound holds for its open calls together. Each input has its own root run, which ends with its answer.
"""

from __future__ import annotations

import contextlib
import sys
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
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

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langchain_sot.calls import AnswerModels, ChainModels
    from langchain_sot.custom_events import CustomEventReporter
    from langchain_sot.messages import ParsedInput
    from langchain_sot.plan import AnswerPlan
    from langchain_sot.results import Chunks
    from skeleton_of_thought.budget import Budget, Share
    from skeleton_of_thought.events import AnswerFailed, Event
    from skeleton_of_thought.flow import AnswerFlow
    from skeleton_of_thought.types import Answer

# Modules that run an answer are imported with the first answer: they would double the time of the package's import.

__all__ = ["AnswerBatch", "FlowRunnable"]


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
            config: One config for all, or one each. The first one's `max_concurrency` bounds the calls; without it
                they are as many as one answer needs, or as LangChain has for a plain model if that is more.
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
        from skeleton_of_thought.events import AnswerDone, AnswerFailed

        configs = get_config_list(config, len(inputs)) if inputs else []
        roots: dict[int, CallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = self._root(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            batch = AnswerBatch(self.plan(), inputs, children, kwargs, live=False)
            with contextlib.closing(batch.run()) as events:
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
        from skeleton_of_thought.events import AnswerDone, AnswerFailed

        configs = get_config_list(config, len(inputs)) if inputs else []
        roots: dict[int, AsyncCallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = await self._aroot(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            batch = AnswerBatch(self.plan(), inputs, children, kwargs, live=False)
            async with contextlib.aclosing(batch.arun()) as events:
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
            child = patch_config(config, callbacks=root.get_child())
            batch = AnswerBatch(self.plan(), [input], [child], kwargs, live=True)
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
            child = patch_config(config, callbacks=root.get_child())
            batch = AnswerBatch(self.plan(), [input], [child], kwargs, live=True)
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


# --- the answers behind these methods ---


class AnswerBatch:
    """The answers to a batch of inputs, not started yet. An input that cannot be read fails alone.

    Args:
        plan: How the answers are made.
        inputs: The inputs.
        configs: One per input: a child of its root run. The first one's `max_concurrency` bounds the open calls.
        kwargs: Passed on to the models.
        live: Whether text is shown while it is written.
        models: The plan's models, if some are resolved already.
        budget: The budget that these answers share with others.
    """

    def __init__(
        self,
        plan: AnswerPlan,
        inputs: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        live: bool,
        models: ChainModels | None = None,
        budget: Budget | None = None,
    ) -> None:
        from langchain_sot.calls import ChainModels, ModelCalls
        from langchain_sot.messages import read_input
        from skeleton_of_thought.events import AnswerFailed

        self._plan = plan
        limit = configs[0].get("max_concurrency") if configs else None
        self._unreadable: list[tuple[int, AnswerFailed]] = []
        self._positions: list[int] = []
        self._flows: list[AnswerFlow] = []
        self._reporters: list[CustomEventReporter | None] = []
        self.inputs: list[ParsedInput] = []
        children: list[RunnableConfig] = []
        chosen: list[AnswerModels] = []
        if models is None:
            models = ChainModels(plan.llm, plan.point_llm, adopts=plan.adopts, kwargs=kwargs)
        else:
            models = models.with_kwargs(kwargs)
        for i, (value, config) in enumerate(zip(inputs, configs, strict=True)):
            try:
                parsed = read_input(value)
                own = models.for_config(config)
                # Answers of a batch slow each other down, so the router does not learn from them.
                flow = self._flow(parsed, config, own, live=live, learns=len(inputs) == 1)
            except Exception as error:  # of one input, not of the batch
                self._unreadable.append((i, AnswerFailed(error)))
                continue
            self.inputs.append(parsed)
            children.append(config)
            chosen.append(own)
            self._positions.append(i)
            self._flows.append(flow)
            self._reporters.append(_reporter(config))
            if own.serial:
                limit = 1
        # An eager skeleton is read while it is written, whoever waits for the answer.
        streamed = {"skeleton", "point", "merge", "direct"} if live else {"skeleton"} if plan.settings.eager else ()
        self._calls = ModelCalls(chosen, self.inputs, children, frozenset(streamed))
        self._limit: int | Share | None = limit
        if budget is not None or (limit is None and len(self._flows) > 1):
            self._limit = plan.share(budget, chosen, self._calls.together, limit)

    def _flow(
        self, parsed: ParsedInput, config: RunnableConfig, models: AnswerModels, *, live: bool, learns: bool
    ) -> AnswerFlow:
        from langchain_sot.skeleton_schema import ask_structured
        from skeleton_of_thought.flow import AnswerFlow

        plan, router, conversation = self._plan, None, parsed.conversation
        if plan.router is not None and plan.skeleton is None:
            router = plan.router
            if plan.routes_by_runs or not learns:
                from langchain_sot.routers import ChildRunRouter

                router = ChildRunRouter(router, config, learns)
            conversation = replace(conversation, request=models.request(config.get("max_concurrency")))
        return AnswerFlow(
            conversation,
            prompts=plan.prompts,
            settings=plan.settings,
            router=router,
            skeleton=plan.skeleton,
            prefill=models.continuing(plan.prefill),
            live=live,
            structured=plan.structured and ask_structured(models.llm.llm, models.llm.kwargs) is not None,
        )

    def direct(self, position: int) -> AIMessage | None:
        """The model's message of this input's direct answer, where that came whole."""
        return self._calls.direct.get(self._positions.index(position))

    def run(self) -> Generator[tuple[int, Event]]:
        """The events, each with the position of its input. Handlers of the root runs get them as custom events."""
        from skeleton_of_thought import drive

        yield from self._unreadable
        with contextlib.closing(self._drive(drive.run, self._calls.open, self._calls.together)) as events:
            for position, event in events:
                if (reporter := self._reporters[position]) is not None:
                    reporter.report(event)
                yield self._positions[position], event

    async def arun(self) -> AsyncGenerator[tuple[int, Event]]:
        """Async twin of `run`."""
        from skeleton_of_thought import drive

        for unreadable in self._unreadable:
            yield unreadable
        async with contextlib.aclosing(self._drive(drive.arun, self._calls.aopen, self._calls.atogether)) as events:
            async for position, event in events:
                if (reporter := self._reporters[position]) is not None:
                    await reporter.areport(event)
                yield self._positions[position], event

    def stream(self, chunks: Callable[[ParsedInput], Chunks]) -> Generator[AddableDict]:
        """The answer to the one input of this batch, in chunks.

        Args:
            chunks: Makes the converter from events to chunks.

        Raises:
            Exception: The answer failed.
        """
        for _, failed in self._unreadable:
            raise failed.error
        chunk_of = chunks(self.inputs[0]).chunk
        with contextlib.closing(self.run()) as events:
            for _, event in events:
                if (chunk := chunk_of(event)) is not None:
                    yield chunk

    async def astream(self, chunks: Callable[[ParsedInput], Chunks]) -> AsyncGenerator[AddableDict]:
        """Async twin of `stream`."""
        for _, failed in self._unreadable:
            raise failed.error
        chunk_of = chunks(self.inputs[0]).chunk
        async with contextlib.aclosing(self.arun()) as events:
            async for _, event in events:
                if (chunk := chunk_of(event)) is not None:
                    yield chunk

    def _drive(self, run: Any, open_call: Any, together: Any) -> Any:
        # The exceptions of LangGraph cannot be raised before it is loaded. A router may load it.
        if "langgraph.errors" in sys.modules or self._plan.routes_by_runs:
            from langchain_sot.interrupts import lifting

            run, open_call = lifting(run, open_call)
        return run(self._flows, open_call, together=together, max_concurrency=self._limit)


def _reporter(config: RunnableConfig) -> CustomEventReporter | None:
    """Reports the events of one answer to the handlers of its run; None where none wants custom events."""
    for handler in getattr(config.get("callbacks"), "handlers", None) or ():
        if not handler.ignore_custom_event:
            from langchain_sot.custom_events import CustomEventReporter

            return CustomEventReporter(config)
    return None


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
