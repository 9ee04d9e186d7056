"""`chain.pick(...)`: a runnable of its own, whose streams can be closed early."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, cast

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import RunnableSequence
from langchain_core.runnables.passthrough import RunnablePick
from langchain_core.runnables.utils import AddableDict, ConfigurableFieldSpec
from pydantic import ConfigDict

from langchain_sot.entry import AnswerRunnable

__all__ = ["PickedKeys"]


class PickedKeys(AnswerRunnable[Any], RunnableSerializable[Any, Any]):
    """Some keys of what the chain returns.

    Its run has the picked value as its output, and the chain's run as its child, which has all keys.

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

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        """The chain's input schema."""
        return self._sequence.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        """The part of the chain's output schema under the keys."""
        return self._sequence.get_output_schema(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The chain's configurable fields."""
        return cast(list[ConfigurableFieldSpec], self.chain.config_specs)

    def get_graph(self, config: RunnableConfig | None = None) -> Any:
        """The chain's graph with the pick after it."""
        return self._sequence.get_graph(config)

    @property
    def _sequence(self) -> RunnableSequence[Any, Any]:
        """The equivalent sequence of LangChain, for schemas and graphs."""
        return RunnableSequence(self.chain, RunnablePick(self.keys))

    def _configs(self, config: Any, count: int) -> list[RunnableConfig]:
        return cast(list[RunnableConfig], self.chain._configs(config, count))

    def _answers(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any]
    ) -> Generator[tuple[int, Any]]:
        answers = self.chain.batch_as_completed(inputs, configs, return_exceptions=True, **kwargs)
        with contextlib.closing(cast(Generator[Any], answers)) as outputs:
            for i, output in outputs:
                yield i, self._picked(output)

    async def _aanswers(
        self, inputs: Sequence[Any], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, Any]]:
        answers = self.chain.abatch_as_completed(inputs, configs, return_exceptions=True, **kwargs)
        async with contextlib.aclosing(cast(AsyncGenerator[Any], answers)) as outputs:
            async for i, output in outputs:
                yield i, self._picked(output)

    def _parts(self, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Generator[Any]:
        with contextlib.closing(cast(Generator[Any], self.chain.stream(input, config, **kwargs))) as chunks:
            for chunk in chunks:
                if (part := self._picked(chunk)) is not None:
                    yield part

    async def _aparts(self, input: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> AsyncGenerator[Any]:
        stream = cast(AsyncGenerator[Any], self.chain.astream(input, config, **kwargs))
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
