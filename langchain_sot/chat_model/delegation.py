"""Calls that the chat model forwards to its chain's `llm`: without a skeleton, with tools, token counts, parameters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel, BaseLanguageModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import PrivateAttr

from langchain_sot.chat_model.call import ChatCall
from langchain_sot.messages import convert_message
from langchain_sot.models.resolution import find_model, read_traits, resolve, with_bindings
from langchain_sot.models.wrappers import rebound
from skeleton_of_thought.adapters.as_model import PER_CALL_SETTINGS, suits_points
from skeleton_of_thought.adapters.replies import aclosing_stream
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Conversation

if TYPE_CHECKING:
    from langchain_sot.chain import SkeletonOfThoughtChain
    from langchain_sot.chat_model.route import CallRoute, GenerateCall

__all__ = ["PER_CALL_SETTINGS", "DelegatingChatModel", "suits_chain"]


def suits_chain(messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> bool:
    """Whether the chain can answer a call; other calls go to the `llm` unchanged.

    Args:
        messages: The conversation; a human's message with text has to be the last.
        kwargs: The call's keyword arguments.
    """
    if not suits_points(kwargs):
        return False
    try:
        Conversation(tuple(convert_message(message) for message in messages))
    except InvalidInput:
        return False
    return True


class DelegatingChatModel(BaseChatModel):
    """A chat model whose tools, structured output, token counts, profile and parameters come from the chain's `llm`."""

    if TYPE_CHECKING:
        # The subclass declares the field.
        chain: SkeletonOfThoughtChain

    _call: ChatCall | None = PrivateAttr(default=None)

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The chain's `llm` with these tools bound. It answers, and calls tools, without a skeleton."""
        given = kwargs if tool_choice is None else {"tool_choice": tool_choice, **kwargs}
        return rebound(self.chain.llm, "bind_tools", tools, **given)

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """The chain's `llm` with this structured output."""
        return rebound(self.chain.llm, "with_structured_output", schema, include_raw=include_raw, **kwargs)

    # --- calls that the `llm` answers ---

    def _invoke_llm(
        self, route: CallRoute, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        llm, config, kwargs = self._chosen(route, self._call_config(config), kwargs)
        return route.invoke(llm, self._delegated_input(route, value), config, kwargs)

    async def _ainvoke_llm(
        self, route: CallRoute, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        llm, config, kwargs = self._chosen(route, self._call_config(config), kwargs)
        return await route.ainvoke(llm, self._delegated_input(route, value), config, kwargs)

    def _stream_llm(
        self, route: CallRoute, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> Generator[AIMessageChunk]:
        llm, config, kwargs = self._chosen(route, self._call_config(config), kwargs)
        yield from route.stream(llm, self._delegated_input(route, value), config, kwargs)

    async def _astream_llm(
        self, route: CallRoute, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[AIMessageChunk]:
        llm, config, kwargs = self._chosen(route, self._call_config(config), kwargs)
        async with aclosing_stream(route.astream(llm, self._delegated_input(route, value), config, kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _delegated_call(
        self, route: CallRoute, value: Any, config: Mapping[str, Any], kwargs: Mapping[str, Any]
    ) -> GenerateCall:
        given = cast(RunnableConfig, {name: value for name, value in config.items() if value is not None})
        llm, chosen, kwargs = self._chosen(route, given, kwargs)
        return route.generate_call(llm, self._delegated_input(route, value), chosen, kwargs)

    def _delegated_input(self, route: CallRoute, value: LanguageModelInput) -> LanguageModelInput:
        """The `llm`'s input: the caller's own, unless the router chose the direct route, see `_llm_input`."""
        return value if route.direct is None else self._llm_input(value)

    def _llm_input(self, value: Any) -> Any:
        """The input, with a lone question as a string for string LLMs, which prefix messages with "Human:"."""
        if isinstance(value, str) or not read_traits(find_model(self.chain.llm)).text:
            return value
        messages = self._convert_input(value).to_messages()
        return messages[0].text if len(messages) == 1 and isinstance(messages[0], HumanMessage) else value

    def _call_config(self, config: RunnableConfig | None) -> RunnableConfig:
        """The caller's config, filled up; in a batch with the share of this answer as its `max_concurrency`."""
        (config,) = self.chain._configs(config, 1)
        if self._call is not None and self._call.shared:
            return {**config, "max_concurrency": self._call.share}
        return config

    def _chosen(
        self, route: CallRoute | None, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], RunnableConfig, dict[str, Any]]:
        """The `llm` that this config chooses, unwrapped, with the config and keyword arguments of its bindings."""
        chosen = None
        if route is not None and route.models is not None:
            chosen = route.models.with_kwargs(kwargs).for_config(config).llm
        if chosen is None or any(read_traits(member).adopted for member, _ in chosen.members):
            # Calls that the chain does not answer go to the model itself, not to its engine.
            chosen = resolve(self.chain.llm, config, kwargs, adopts=False)
        return chosen.llm, with_bindings(chosen.bindings, config), dict(chosen.kwargs)

    # --- parameters, profile and token counts ---

    @property
    def _inner(self) -> Runnable[Any, Any]:
        """The `llm` without wrappers."""
        return find_model(self.chain.llm)

    def _model_name(self, kwargs: Mapping[str, Any]) -> str:
        return self._get_ls_params(**kwargs).get("ls_model_name") or self._llm_type

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True; the dump is complete if the chain can be serialised."""
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
        call = self._call or ChatCall({})
        llm, _, bound = self._chosen(call.route, ensure_config(call.config), kwargs)
        inner = find_model(llm)
        if not isinstance(inner, BaseLanguageModel):
            return super()._get_ls_params(stop=stop, **kwargs)
        params = inner._get_ls_params(stop=bound.pop("stop", None) if stop is None else stop, **bound)
        return cast(LangSmithParams, {**params, "ls_model_type": "chat"})

    def _resolve_model_profile(self) -> Any:
        """The profile of the `llm`, less what `point_llm` cannot take, which gets the question, too."""
        own = getattr(self._inner, "profile", None)
        writer = self.chain.point_llm and getattr(find_model(self.chain.point_llm), "profile", None)
        if not own or not writer:
            return own and {**own}
        least = {
            name: min(own[name], writer[name])
            for name in own.keys() & writer.keys()
            if name == "max_input_tokens" or name.endswith("_inputs")
        }
        return {**own, **least}

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable fields of the chain."""
        return self.chain.config_specs

    def get_token_ids(self, text: str) -> list[int]:
        """The token ids of the `llm`."""
        inner = self._inner
        return inner.get_token_ids(text) if isinstance(inner, BaseLanguageModel) else super().get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """The count of the `llm`."""
        inner = self._inner
        return inner.get_num_tokens(text) if isinstance(inner, BaseLanguageModel) else super().get_num_tokens(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """The count of the `llm`."""
        inner = self._inner
        if isinstance(inner, BaseLanguageModel):
            return inner.get_num_tokens_from_messages(messages, tools)
        return super().get_num_tokens_from_messages(messages, tools)
