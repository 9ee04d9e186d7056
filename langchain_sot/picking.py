"""`chain.pick(...)`, whose streams can be closed early."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, cast

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.passthrough import RunnablePick
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from pydantic import ConfigDict

__all__ = ["PickedKeys"]


class PickedKeys(RunnableSerializable[Any, Any]):
    """Some keys of what the chain returns.

    LangChain's own `chain | RunnablePick(key)` reads the chain's stream to its end when it is closed, so a reader that
    stops early would wait for the whole answer. This runnable closes the chain's stream instead.

    Attributes:
        chain: The chain.
        keys: A key, for its value; or a list of keys, for a dict of them.
    """

    chain: Any
    keys: str | list[str]

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Serializable if the chain is."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        return ["langchain_sot", "picking"] if cls is PickedKeys else super().get_lc_namespace()

    @property
    def InputType(self) -> Any:
        """The chain's input type."""
        return self.chain.InputType

    @property
    def OutputType(self) -> Any:
        """Any value that the chain has under the keys."""
        return Any

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The chain's configurable fields."""
        return cast(list[ConfigurableFieldSpec], self.chain.config_specs)

    def get_graph(self, config: RunnableConfig | None = None) -> Any:
        """The chain's graph with the pick after it."""
        return (self.chain | RunnablePick(self.keys)).get_graph(config)

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The picked part of one answer."""
        return self._picked(self.chain.invoke(input, config, **kwargs))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Async twin of `invoke`."""
        return self._picked(await self.chain.ainvoke(input, config, **kwargs))

    def batch(self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any) -> Any:
        """The picked parts of many answers."""
        outputs = self.chain.batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return [self._picked(output) for output in outputs]

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Any:
        """Async twin of `batch`."""
        outputs = await self.chain.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return [self._picked(output) for output in outputs]

    def batch_as_completed(self, inputs: Any, config: Any = None, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        """The picked parts of many answers, each as soon as it is complete."""
        for i, output in self.chain.batch_as_completed(inputs, config, **kwargs):
            yield i, self._picked(output)

    async def abatch_as_completed(
        self, inputs: Any, config: Any = None, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        outputs = self.chain.abatch_as_completed(inputs, config, **kwargs)
        async with contextlib.aclosing(cast(AsyncGenerator[Any], outputs)) as results:
            async for i, output in results:
                yield i, self._picked(output)

    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """The picked part as it grows."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        """Async twin of `stream`."""

        async def given() -> AsyncIterator[Any]:
            yield input

        async with contextlib.aclosing(cast(AsyncGenerator[Any], self.atransform(given(), config, **kwargs))) as parts:
            async for part in parts:
                yield part

    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        """Like `stream`, for an input that is itself streamed."""
        with contextlib.closing(cast(Generator[Any], self.chain.transform(input, config, **kwargs))) as chunks:
            for chunk in chunks:
                if (part := self._picked(chunk)) is not None:
                    yield part

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Async twin of `transform`."""
        stream = cast(AsyncGenerator[Any], self.chain.atransform(input, config, **kwargs))
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                if (part := self._picked(chunk)) is not None:
                    yield part

    def _picked(self, output: Any) -> Any:
        if isinstance(output, Exception):
            return output
        if isinstance(self.keys, str):
            return output.get(self.keys)
        picked = {key: output[key] for key in self.keys if key in output}
        return AddableDict(picked) if picked else None
