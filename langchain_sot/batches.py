"""Answers that come whole: `invoke` is a batch of one, and `batch` collects `batch_as_completed`."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import patch_config
from langchain_core.runnables.utils import Output

__all__ = ["CollectedAnswers", "WholeAnswers"]

_Configs = Sequence[RunnableConfig]
_Kwargs = Mapping[str, Any]


class CollectedAnswers(Runnable[Any, Output]):
    """A runnable whose `batch` and `abatch` collect the answers of their twins that yield them as they are complete."""

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Output]:
        """Answers many questions under one budget; the calls of all of them run concurrently.

        Args:
            inputs: The questions.
            config: One config for all, or one each. The first one's `max_concurrency` bounds the calls; without it
                they are as many as one answer needs, or as LangChain has for a plain model if that is more.
            return_exceptions: Put errors into their places. Else the first one is raised, and all calls are cancelled.
            kwargs: Passed on to the models.
        """
        results = dict(self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs))
        return [results[i] for i in range(len(inputs))]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Output]:
        """Async twin of `batch`."""
        completed = self.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
        results = {i: output async for i, output in completed}
        return [results[i] for i in range(len(inputs))]

    @abstractmethod
    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Like `batch`, but yields each answer with its position as soon as it is complete."""

    @abstractmethod
    def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""


class WholeAnswers(CollectedAnswers[Output]):
    """A runnable that answers many questions together, each in a root run of its own, which ends with its answer."""

    @abstractmethod
    def _configs(self, config: Any, count: int) -> list[RunnableConfig]:
        """A config for each input, filled up from the context."""

    @abstractmethod
    def _root(self, config: RunnableConfig, value: Any) -> CallbackManagerForChainRun:
        """Begins the root run of an input."""

    @abstractmethod
    async def _aroot(self, config: RunnableConfig, value: Any) -> AsyncCallbackManagerForChainRun:
        """Async twin of `_root`."""

    @abstractmethod
    def _answers(self, inputs: Sequence[Any], configs: _Configs, kwargs: _Kwargs) -> Generator[tuple[int, Any]]:
        """The output for each input, or its error, with its position, as they are complete.

        Args:
            inputs: The inputs.
            configs: A config for each: for children of its root run.
            kwargs: Passed on to the models.
        """

    @abstractmethod
    def _aanswers(self, inputs: Sequence[Any], configs: _Configs, kwargs: _Kwargs) -> AsyncGenerator[tuple[int, Any]]:
        """Async twin of `_answers`."""

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Answers one question."""
        return self.batch([input], config, **kwargs)[0]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """Async twin of `invoke`."""
        return (await self.abatch([input], config, **kwargs))[0]

    def batch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """Like `batch`, but yields each answer with its position as soon as it is complete."""
        configs = self._configs(config, len(inputs))
        roots: dict[int, CallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = self._root(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            with contextlib.closing(self._answers(inputs, children, kwargs)) as answers:
                for i, output in answers:
                    if not isinstance(output, Exception):
                        roots.pop(i).on_chain_end(output)
                    elif return_exceptions:
                        roots.pop(i).on_chain_error(output)
                    else:
                        raise output
                    yield i, output
        except BaseException as error:
            for root in roots.values():
                root.on_chain_error(error)
            raise

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        configs = self._configs(config, len(inputs))
        roots: dict[int, AsyncCallbackManagerForChainRun] = {}
        try:
            for i, value in enumerate(inputs):
                roots[i] = await self._aroot(configs[i], value)
            children = [patch_config(c, callbacks=roots[i].get_child()) for i, c in enumerate(configs)]
            async with contextlib.aclosing(self._aanswers(inputs, children, kwargs)) as answers:
                async for i, output in answers:
                    if not isinstance(output, Exception):
                        await roots.pop(i).on_chain_end(output)
                    elif return_exceptions:
                        await roots.pop(i).on_chain_error(output)
                    else:
                        raise output
                    yield i, output
        except BaseException as error:
            for root in roots.values():
                await root.on_chain_error(error)
            raise
