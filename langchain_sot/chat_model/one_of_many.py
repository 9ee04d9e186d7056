"""One list of messages of a `generate`: answered through a skeleton, or passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_sot.chat_model.direct import Way
from langchain_sot.chat_model.message import told_usage
from langchain_sot.chat_model.passing_on import with_stop

__all__ = ["OneOfMany"]


@dataclass(frozen=True)
class OneOfMany:
    """One list of messages of a `generate`.

    Attributes:
        model: What answers it, knowing the way; where that passes, the `llm`.
        sent: The messages, or what is sent in their place.
        stop: The stop strings.
        config: What the config of its run is made of.
        kwargs: Passed on to the model.
        way: Which way it takes.
    """

    model: Runnable[Any, Any]
    sent: Any
    stop: list[str] | None
    config: dict[str, Any]
    kwargs: Mapping[str, Any]
    way: Way

    def result(self) -> LLMResult:
        """What `generate` gives for it."""
        if self.way.passes:
            return self._as_result(self.model.invoke(self.sent, self._config, **with_stop(self.stop, self.kwargs)))
        return told_usage(BaseChatModel.generate(self._model, [self.sent], self.stop, **self.config, **self.kwargs))

    async def aresult(self) -> LLMResult:
        """Async twin of `result`."""
        if self.way.passes:
            message = await self.model.ainvoke(self.sent, self._config, **with_stop(self.stop, self.kwargs))
            return self._as_result(message)
        generated = BaseChatModel.agenerate(self._model, [self.sent], self.stop, **self.config, **self.kwargs)
        return told_usage(await generated)

    @property
    def _model(self) -> BaseChatModel:
        return cast(BaseChatModel, self.model)

    @property
    def _config(self) -> RunnableConfig:
        return cast(RunnableConfig, {name: value for name, value in self.config.items() if value is not None})

    def _as_result(self, output: Any) -> LLMResult:
        return LLMResult(generations=[[ChatGeneration(message=self.way.message(output))]])
