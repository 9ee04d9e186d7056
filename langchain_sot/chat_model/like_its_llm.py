"""A chat model over a chain that answers questions about itself as the chain's `llm` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import PrivateAttr

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model.call import ChatCall
from langchain_sot.models.resolution import find_model, rebound, resolve, with_bindings

__all__ = ["LikeItsLlm"]


class LikeItsLlm(BaseChatModel):
    """Has the tools, structured output, tokens, profile and parameters of the chain's `llm`.

    Attributes:
        chain: The chain.
    """

    chain: SkeletonOfThoughtChain

    _call: ChatCall | None = PrivateAttr(default=None)

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The chain's `llm` with these tools bound; it answers, and calls them, without a skeleton."""
        given = kwargs if tool_choice is None else {"tool_choice": tool_choice, **kwargs}
        return rebound(self.chain.llm, "bind_tools", tools, **given)

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """The chain's `llm` with this structured output."""
        return rebound(self.chain.llm, "with_structured_output", schema, include_raw=include_raw, **kwargs)

    @property
    def _inner(self) -> Runnable[Any, Any]:
        return find_model(self.chain.llm)

    def _chosen(
        self, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], RunnableConfig, dict[str, Any]]:
        """The `llm` that this config chooses, out of its bindings, with what is bound."""
        chosen = resolve(self.chain.llm, config, kwargs, adopts=False)
        return chosen.llm, with_bindings(chosen.bindings, config), dict(chosen.kwargs)

    def _name(self, kwargs: Mapping[str, Any]) -> str:
        return self._get_ls_params(**kwargs).get("ls_model_name") or self._llm_type

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """It is if the chain is."""
        return True

    @property
    def _llm_type(self) -> str:
        return str(getattr(self._inner, "_llm_type", type(self._inner).__name__))

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {
            **getattr(self._inner, "_identifying_params", {}),
            "skeleton_of_thought": {name: getattr(self.chain, name) for name in ("max_points", "min_points", "eager")},
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        config = ensure_config(self._call.config if self._call else None)
        llm, _, bound = self._chosen(config, kwargs)
        inner = find_model(llm)
        if not isinstance(inner, BaseLanguageModel):
            return super()._get_ls_params(stop=stop, **kwargs)
        params = inner._get_ls_params(stop=bound.pop("stop", None) if stop is None else stop, **bound)
        return cast(LangSmithParams, {**params, "ls_model_type": "chat"})

    def _resolve_model_profile(self) -> Any:
        return getattr(self._inner, "profile", None)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The chain's."""
        return self.chain.config_specs

    def get_token_ids(self, text: str) -> list[int]:
        """As the `llm` counts."""
        inner = self._inner
        return inner.get_token_ids(text) if isinstance(inner, BaseLanguageModel) else super().get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """As the `llm` counts."""
        inner = self._inner
        return inner.get_num_tokens(text) if isinstance(inner, BaseLanguageModel) else super().get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """As the `llm` counts."""
        inner = self._inner
        if isinstance(inner, BaseLanguageModel):
            return inner.get_num_tokens_from_messages(messages, tools)
        return super().get_num_tokens_from_messages(messages, tools)
