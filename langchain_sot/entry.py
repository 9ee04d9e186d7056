"""Where questions enter: the runs of answers, their streams, and the flows behind them, over one driver and one budget.

One `drive.run` runs all flows of a batch, so one bound holds for its open calls together. Each input has its own root
run, which ends with its answer.
"""

from __future__ import annotations

import contextlib
import sys
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
    patch_config,
)
from langchain_core.runnables.utils import AddableDict, Output
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from langchain_sot.batches import WholeAnswers

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langchain_sot.custom_events import CustomEventReporter
    from langchain_sot.messages import ParsedInput
    from langchain_sot.models.resolution import AnswerModels, ChainModels
    from langchain_sot.plan import AnswerPlan
    from langchain_sot.results import Chunks
    from langchain_sot.retrieval import RetrievingCalls
    from skeleton_of_thought.budget import Budget, Share
    from skeleton_of_thought.events import AnswerFailed, Event
    from skeleton_of_thought.flow import AnswerFlow
    from skeleton_of_thought.types import Answer

# Modules that run an answer are imported with the first answer: they would double the time of the package's import.

__all__ = ["AnswerBatch", "AnswerRunnable", "FlowRunnable"]

_Configs = Sequence[RunnableConfig]
_Kwargs = Mapping[str, Any]
_WRITTEN = frozenset({"skeleton", "point", "opening", "closing", "merge", "direct"})
"""The stages whose text a model writes."""


class AnswerRunnable(WholeAnswers[Output]):
    """A runnable that answers each question in one run of its own, which ends when all runs in it have ended."""

    _nothing: ClassVar[Any] = None  # the output of a stream without a chunk

    @abstractmethod
    def _parts(self, input: Any, config: RunnableConfig, kwargs: _Kwargs) -> Generator[Any]:
        """The output for an input in chunks."""

    @abstractmethod
    def _aparts(self, input: Any, config: RunnableConfig, kwargs: _Kwargs) -> AsyncGenerator[Any]:
        """Async twin of `_parts`."""

    # --- runs ---

    def _root(self, config: RunnableConfig, value: Any) -> CallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        return get_callback_manager_for_config(config).on_chain_start(None, value, name=name, run_id=run_id)

    async def _aroot(self, config: RunnableConfig, value: Any) -> AsyncCallbackManagerForChainRun:
        name, run_id = config.get("run_name") or self.get_name(), config.pop("run_id", None)
        manager = get_async_callback_manager_for_config(config)
        return await manager.on_chain_start(None, value, name=name, run_id=run_id)

    # --- streams; in LangChain's `_transform_stream_with_config` the runs of the calls would end after the root ---

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:
        """Answers one question in chunks that add up to what `invoke` returns.

        `close` on the iterator cancels all calls, and returns when they have ended.
        """
        (config,) = self._configs(config, 1)
        total = self._nothing
        root = self._root(config, input)
        try:
            tap = _tap(root)
            child = patch_config(config, callbacks=root.get_child())
            with contextlib.closing(self._parts(input, child, kwargs)) as own:
                for chunk in own if tap is None else tap.tap_output_iter(root.run_id, own):
                    if root.handlers:
                        total = _add(total, chunk)
                    yield chunk
        except GeneratorExit:
            root.on_chain_end(total)
            raise
        except BaseException as error:
            root.on_chain_error(error)
            raise
        else:
            root.on_chain_end(total)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Output]:
        """Async twin of `stream`."""
        (config,) = self._configs(config, 1)
        total = self._nothing
        root = await self._aroot(config, input)
        try:
            tap = _tap(root)
            child = patch_config(config, callbacks=root.get_child())
            async with contextlib.aclosing(self._aparts(input, child, kwargs)) as own:
                async for chunk in own if tap is None else tap.tap_output_aiter(root.run_id, own):
                    if root.handlers:
                        total = _add(total, chunk)
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
    ) -> Iterator[Any]:
        """Like `stream`, for an input that is itself streamed; the work begins when it is complete."""
        if chunks := list(input):
            yield from self.stream(reduce(_add, chunks), config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Any]:
        """Async twin of `transform`."""
        if chunks := [chunk async for chunk in input]:
            stream = cast(AsyncGenerator[Any], self.astream(reduce(_add, chunks), config, **kwargs))
            async with contextlib.aclosing(stream) as parts:
                async for part in parts:
                    yield part


class FlowRunnable(AnswerRunnable[dict[str, Any]]):
    """A runnable that answers by flows."""

    _nothing: ClassVar[Any] = AddableDict()

    @abstractmethod
    def plan(self) -> AnswerPlan:
        """The plan of the answers."""

    @abstractmethod
    def _output(self, answer: Answer) -> dict[str, Any]:
        """The output for an answer."""

    @abstractmethod
    def _chunks(self, parsed: ParsedInput) -> Chunks:
        """Makes the chunks for one input; their sum equals `_output`."""

    def _configs(self, config: Any, count: int) -> list[RunnableConfig]:
        configs = get_config_list(config, count) if count else []
        if config is None and any(each["configurable"] for each in configs):
            from langchain_sot.models.wrappers import without_own_values

            return [without_own_values(each, (self.plan().llm, self.plan().point_llm)) for each in configs]
        return configs

    def _answers(self, inputs: Sequence[Any], configs: _Configs, kwargs: _Kwargs) -> Generator[tuple[int, Any]]:
        batch = AnswerBatch(self.plan(), inputs, configs, kwargs, live=False)
        with contextlib.closing(batch.run()) as events:
            for i, event in events:
                if (output := self._whole(event)) is not None:
                    yield i, output

    async def _aanswers(
        self, inputs: Sequence[Any], configs: _Configs, kwargs: _Kwargs
    ) -> AsyncGenerator[tuple[int, Any]]:
        batch = AnswerBatch(self.plan(), inputs, configs, kwargs, live=False)
        async with contextlib.aclosing(batch.arun()) as events:
            async for i, event in events:
                if (output := self._whole(event)) is not None:
                    yield i, output

    def _whole(self, event: Event) -> dict[str, Any] | Exception | None:
        from skeleton_of_thought.events import AnswerDone, AnswerFailed

        if isinstance(event, AnswerDone):
            return self._output(event.answer)
        return event.error if isinstance(event, AnswerFailed) else None

    def _parts(self, input: Any, config: RunnableConfig, kwargs: _Kwargs) -> Generator[Any]:
        batch = AnswerBatch(self.plan(), [input], [config], kwargs, live=True)
        for _, failed in batch.unreadable:
            raise failed.error
        chunk_of = self._chunks(batch.inputs[0]).chunk
        with contextlib.closing(batch.run()) as events:
            for _, event in events:
                if (chunk := chunk_of(event)) is not None:
                    yield chunk

    async def _aparts(self, input: Any, config: RunnableConfig, kwargs: _Kwargs) -> AsyncGenerator[Any]:
        batch = AnswerBatch(self.plan(), [input], [config], kwargs, live=True)
        for _, failed in batch.unreadable:
            raise failed.error
        chunk_of = self._chunks(batch.inputs[0]).chunk
        async with contextlib.aclosing(batch.arun()) as events:
            async for _, event in events:
                if (chunk := chunk_of(event)) is not None:
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
        from langchain_sot.calls import ModelCalls
        from langchain_sot.messages import read_input
        from langchain_sot.models.resolution import ChainModels
        from skeleton_of_thought.events import AnswerFailed

        self._plan = plan
        limit = configs[0].get("max_concurrency") if configs else None
        self.unreadable: list[tuple[int, AnswerFailed]] = []
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
                self.unreadable.append((i, AnswerFailed(error)))
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
        eager = plan.settings.eager
        if eager == "auto":
            eager = any(map(_eager_pays, chosen))
        self._calls: ModelCalls | RetrievingCalls
        streamed = _WRITTEN if live else frozenset({"skeleton"} if eager else ())
        self._calls = ModelCalls(chosen, self.inputs, children, streamed)
        self._limit: int | Share | None = limit
        if budget is not None or (limit is None and len(self._flows) > 1):
            self._limit = plan.share(budget, chosen, self._calls.together, limit)
        if plan.retriever is not None:
            from langchain_sot.retrieval import RetrievingCalls

            self._calls = RetrievingCalls(self._calls, plan.retriever)

    def _flow(
        self, parsed: ParsedInput, config: RunnableConfig, models: AnswerModels, *, live: bool, learns: bool
    ) -> AnswerFlow:
        from langchain_sot.skeleton_schema import ask_structured
        from skeleton_of_thought.flow import AnswerFlow

        plan, router, conversation = self._plan, None, parsed.conversation
        prompts, keyed = plan.prompts, parsed.keyed
        if plan.placeholders or (keyed is not None and keyed.values):
            from langchain_sot.inputs import filled_prompts

            prompts = filled_prompts(plan, parsed)
        found = None if keyed is None else keyed.found
        more: dict[str, Any] = {}
        if plan.settings.eager == "auto":
            more["eager_pays"] = _eager_pays(models)
        if plan.plans is not None:
            more["plans"] = plan.plans
        if plan.router is not None and plan.skeleton is None:
            router = plan.router
            if plan.routes_by_runs or not learns:
                from langchain_sot.routers import ChildRunRouter

                router = ChildRunRouter(router, config, learns)
            conversation = replace(conversation, request=models.request(config.get("max_concurrency")))
        return AnswerFlow(
            conversation,
            prompts=prompts,
            settings=plan.settings,
            router=router,
            skeleton=plan.skeleton,
            prefill=models.continuing(plan.prefill),
            live=live,
            structured=plan.structured and ask_structured(models.llm.llm, models.llm.kwargs) is not None,
            retrieval=plan.retrieval if found is None else "none",
            found=found,
            **more,
        )

    def direct(self, position: int) -> AIMessage | None:
        """The model's message of this input's direct answer; of a streamed one without its text."""
        return self._calls.direct.get(self._positions.index(position))

    def run(self) -> Generator[tuple[int, Event]]:
        """The events, each with the position of its input. Handlers of the root runs get them as custom events."""
        from skeleton_of_thought import drive

        yield from self.unreadable
        with contextlib.closing(self._drive(drive.run, self._calls.open, self._calls.together)) as events:
            for position, event in events:
                if (reporter := self._reporters[position]) is not None:
                    reporter.report(event)
                yield self._positions[position], event

    async def arun(self) -> AsyncGenerator[tuple[int, Event]]:
        """Async twin of `run`."""
        from skeleton_of_thought import drive

        for unreadable in self.unreadable:
            yield unreadable
        async with contextlib.aclosing(self._drive(drive.arun, self._calls.aopen, self._calls.atogether)) as events:
            async for position, event in events:
                if (reporter := self._reporters[position]) is not None:
                    await reporter.areport(event)
                yield self._positions[position], event

    def _drive(self, run: Any, open_call: Any, together: Any) -> Any:
        # The exceptions of LangGraph cannot be raised before it is loaded. A router may load it.
        if "langgraph.errors" in sys.modules or self._plan.routes_by_runs:
            from langchain_sot.interrupts import lifting

            run, open_call = lifting(run, open_call)
        return run(self._flows, open_call, together=together, max_concurrency=self._limit)


def _eager_pays(models: AnswerModels) -> bool:
    """What `eager="auto"` means for the model of the points where no text is shown before the answer is complete."""
    from skeleton_of_thought.adapters.engines import EAGER_PAYS_LOCALLY

    return EAGER_PAYS_LOCALLY or not models.point_llm.native


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


def _add(total: Any, chunk: Any) -> Any:
    """The sum of two chunks, as LangChain adds: where they do not add up, the last one counts."""
    try:
        return total + chunk
    except TypeError:
        return chunk
