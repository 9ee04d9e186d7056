"""The chain as a chat model, for code that expects a chat model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import InitVar, replace
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from pydantic import ConfigDict, Field, model_validator

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model.batches import BatchingChatModel
from langchain_sot.chat_model.call import ChatCall, batch_call
from langchain_sot.chat_model.delegation import suits_chain
from langchain_sot.chat_model.message import AnswerMessages, joined_results, uncounted
from langchain_sot.chat_model.route import CallRoute, GenerateCall, route_call, side_by_side, with_stop
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import first_by_position

__all__ = ["SkeletonOfThoughtChatModel"]

_BOUND = ("temperature", "max_tokens", "stop", "timeout")
"""Standard parameters of LangChain that the constructor binds to the chain's models."""


class SkeletonOfThoughtChatModel(BatchingChatModel):
    """A chat model that answers by a `SkeletonOfThoughtChain`.

    The message has the whole answer as its text; streams give it in document order. `usage_metadata` is the sum over
    all calls, and `response_metadata` has:

    - `route`: `"skeleton"`, `"items"` or `"direct"`, `reason`: why, and `skeleton`: the titles of the points;
    - `errors`, `timings`: as in the chain's output; and `planning`, `plan`, if more than titles were asked for;
    - `sources`, if the chain has a retriever: `id` and `metadata` of each document that was found, without its text;
    - `usage_by_stage`, `usage_by_point`: the usage of all calls of each stage, and of each point;
    - `finish_reason`, `finish_reasons` by point: see `langchain_sot.results.AnswerDict`; and `model_name`.

    **Direct answers.** If the chain's router chooses the direct route without a call, as the default router does, the
    `llm` answers in a run of its own. The message and the chunks are those of the `llm`; only `route`, `reason`,
    `skeleton` and `errors` are added to the `response_metadata` of the message, or of the first chunk. A chain with a
    retriever retrieves for direct answers, too, so it makes them itself.

    **Calls that go to the chain's `llm` unchanged.** The `llm` answers alone if the last message is not a human's or is
    empty, and if a call has `stop`, `max_tokens`, tools, functions, a response format, or any other argument that is
    not in `langchain_sot.chat_model.delegation.PER_CALL_SETTINGS` (sampling and transport). Such arguments concern the
    text as a whole: for a single point a limit or a stop string would mean something else. To set one for every call,
    bind it to the chain's `llm`. `bind_tools` and `with_structured_output` are those of the `llm`.

    **Runs and usage.** The model's run is the parent of the runs of all calls. Usage callbacks, such as
    `get_usage_metadata_callback`, count tokens at the calls, under the name of the model that spent them. The result
    of the model's own run, as callbacks see it, has no usage, so no token is counted twice. The caller's message, the
    last chunk of a stream and the last event of version "v3" have the usage.

    **Limits and caches.** `max_concurrency` bounds the calls of one answer. In `batch` it bounds all calls together:
    the answers that run at once share it. Without it, `batch` and `agenerate` have the bound of the chain's `batch`.
    Caches and rate limiters are those of the `llm`; they serve each call of an answer, caches only where the answer is
    not streamed. A `rate_limiter` of this model counts answers.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_sot import SkeletonOfThoughtChain, SkeletonOfThoughtChatModel
        >>> llm = FakeListChatModel(responses=["1. Move", "A short walk helps."])
        >>> model = SkeletonOfThoughtChatModel(chain=SkeletonOfThoughtChain(llm=llm))
        >>> message = model.invoke([("human", "What are good ways to stay awake?")])
        >>> message.text
        '1. Move: A short walk helps.'
        >>> message.response_metadata["skeleton"]
        ['Move']

    The constructor also takes `temperature`, `max_tokens`, `stop` and `timeout`. It binds them to the chain's models,
    so they hold for each call of an answer.

    Attributes:
        chain: The chain that answers.
        streaming: Whether `invoke` streams the calls, so that callbacks see tokens.
        cache: Always False: set a cache on the chain's `llm`, or for all models with `set_llm_cache`.

    Raises:
        PointError, SkeletonError: From a call, depending on the chain's settings.
        NotImplementedError: From `bind_tools` and `with_structured_output`, if the `llm` does not have them.
    """

    chain: SkeletonOfThoughtChain = Field(kw_only=False)
    streaming: bool = False
    cache: Literal[False] = Field(default=False, exclude=True)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    if TYPE_CHECKING:  # the parameters in `_BOUND`, which are not fields
        temperature: InitVar[float | None] = None
        max_tokens: InitVar[int | None] = None
        stop: InitVar[str | list[str] | None] = None
        timeout: InitVar[Any] = None
    else:

        @first_by_position("chain", SkeletonOfThoughtChain)
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)

    @model_validator(mode="before")
    @classmethod
    def _bind_settings(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(chain := values.get("chain"), SkeletonOfThoughtChain):
            if isinstance(values, dict) and isinstance(values.get("chain"), Runnable):
                raise InvalidInput("chain must be a chain: SkeletonOfThoughtChatModel(SkeletonOfThoughtChain(llm)).")
            return values
        rest = {name: value for name, value in values.items() if name not in _BOUND}
        given = {name: values[name] for name in _BOUND if values.get(name) is not None}
        if not given:
            return rest
        models = {"llm": chain.llm, "point_llm": chain.point_llm}
        bound = {name: llm.bind(**given) for name, llm in models.items() if llm is not None}
        return {**rest, "chain": chain.model_copy(update=bound)}

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        own = cls is SkeletonOfThoughtChatModel
        return ["langchain_sot", "chat_model"] if own else super().get_lc_namespace()

    def call_route(
        self, messages: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> CallRoute:
        """The route of a call with these messages and arguments, as far as it can be known without a model call."""
        return self._route(messages, config, kwargs.pop("stop", None), kwargs)

    def with_route(self, route: CallRoute) -> Self:
        """A copy of the model for one call that takes this route."""
        return self._copy(ChatCall({}, route=route))

    def _route(
        self, value: LanguageModelInput, config: RunnableConfig | None, stop: Any, kwargs: Mapping[str, Any]
    ) -> CallRoute:
        messages = self._convert_input(value).to_messages()
        if stop or not suits_chain(messages, kwargs):
            return CallRoute(delegated=True)
        if self._call is not None and self._call.route is not None:
            return self._call.route
        return route_call(self.chain.plan(), messages, self._call_config(config), kwargs)

    # --- public methods: each call works on a copy that holds the call's config ---

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answers one question."""
        route = self._route(input, config, stop, kwargs)
        if route.delegated:
            return self._invoke_llm(route, input, config, with_stop(stop, kwargs))
        return BaseChatModel.invoke(self._copy_for(route, config), input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Async twin of `invoke`."""
        route = self._route(input, config, stop, kwargs)
        if route.delegated:
            return await self._ainvoke_llm(route, input, config, with_stop(stop, kwargs))
        return await BaseChatModel.ainvoke(self._copy_for(route, config), input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The answer in document order. Closing the iterator ends all calls, and returns when they have ended."""
        route = self._route(input, config, stop, kwargs)
        if route.delegated:
            yield from self._stream_llm(route, input, config, with_stop(stop, kwargs))
            return
        config = self._call_config(config)
        manager = get_callback_manager_for_config(config)
        model = self._copy_for(route, config, manager)
        yield from BaseChatModel.stream(model, input, {**config, "callbacks": manager}, stop=stop, **kwargs)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Async twin of `stream`."""
        route = self._route(input, config, stop, kwargs)
        if route.delegated:
            chunks = self._astream_llm(route, input, config, with_stop(stop, kwargs))
        else:
            config = self._call_config(config)
            manager = get_async_callback_manager_for_config(config)
            model = self._copy_for(route, config, manager)
            config = {**config, "callbacks": manager}
            chunks = cast(Any, BaseChatModel.astream(model, input, config, stop=stop, **kwargs))
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    if hasattr(BaseChatModel, "stream_events"):  # older versions of LangChain do not have it

        def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
            """LangChain's events. In version "v3" those of the whole answer, or of the `llm` if it answers alone."""
            if kwargs.get("version") != "v3":
                return super().stream_events(input, config, **kwargs)
            model, config, kwargs = self._for_events(input, config, kwargs, get_callback_manager_for_config)
            return model.stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangChain's events. In version "v3" those of the whole answer, or of the `llm` if it answers alone."""
        if kwargs.get("version") != "v3":
            return super().astream_events(input, config, **kwargs)
        model, config, kwargs = self._for_events(input, config, kwargs, get_async_callback_manager_for_config)
        return model.astream_events(input, config, **kwargs)

    def _for_events(
        self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any], manager_for: Any
    ) -> tuple[Any, RunnableConfig, dict[str, Any]]:
        settings = {name: setting for name, setting in kwargs.items() if name not in ("version", "stop")}
        route = self._route(value, config, kwargs.get("stop"), settings)
        if route.delegated:
            return self._chosen(route, self._call_config(config), kwargs)
        config = self._call_config(config)
        copy = self._copy_for(route, config, manager := manager_for(config))
        # The proxy calls the methods of `BaseChatModel`; those of the copy would lead back here.
        return super(SkeletonOfThoughtChatModel, copy), {**config, "callbacks": manager}, dict(kwargs)

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answers each list of messages in turn, see `BaseChatModel.generate`."""
        return joined_results([call.result() for call in list(self._split(messages, stop, callbacks, kwargs))])

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Async twin of `generate`; answers the lists of messages side by side, within the bound of a batch."""
        model, configs = self._for_batch(messages, None) if len(messages) > 1 else (self, [{}])
        calls = list(model._split(messages, stop, callbacks, kwargs))
        if len(calls) == 1:
            return joined_results([await calls[0].aresult()])
        return joined_results(await side_by_side(calls, configs[0].get("max_concurrency") or 1))

    def _split(
        self, messages: list[list[BaseMessage]], stop: list[str] | None, callbacks: Any, kwargs: Mapping[str, Any]
    ) -> Iterator[GenerateCall]:
        own = {name: kwargs.get(name) for name in ("tags", "metadata", "run_name", "run_id")}
        rest = {name: value for name, value in kwargs.items() if name not in own}
        call = self._call or ChatCall(self._call_config(None))
        for i, conversation in enumerate(messages):
            # Callbacks come from the argument alone, never from the context: so it is in `BaseChatModel.generate`.
            config = {**own, "run_id": own["run_id"] if i == 0 else None, "callbacks": callbacks or []}
            route = self._route(conversation, None, stop, rest)
            if route.delegated:
                whole = {**call.config, **config}
                yield self._delegated_call(route, conversation, whole, with_stop(stop, rest))
            else:
                model = self._copy(replace(call, route=route))
                yield GenerateCall(model, conversation, stop, config, rest, route)

    def _for_batch(self, inputs: Sequence[Any], config: Any) -> tuple[Self, list[RunnableConfig]]:
        configs = self.chain._configs(config, len(inputs))
        call, answers = batch_call(self.chain.plan(), configs)
        return self._copy(call), [{**c, "max_concurrency": answers} for c in configs]

    # --- copies for one call ---

    def _copy(self, call: ChatCall) -> Self:
        _ = self._serialized  # cached here, so that all copies have it
        model = self.model_copy()
        model._call = call
        return model

    def _copy_for(
        self,
        route: CallRoute,
        config: RunnableConfig | None,
        manager: CallbackManager | AsyncCallbackManager | None = None,
    ) -> Self:
        """A copy for a call that takes this route; a streamed call comes with its callback manager."""
        budget = None if self._call is None else self._call.budget
        call = ChatCall(self._call_config(config), route=route, budget=budget)
        if manager is not None:  # `BaseChatModel` does not pass its run to `_stream`
            call.listen(manager)
        return self._copy(call)

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # If a handler listens to tokens, `BaseChatModel` calls `_stream` here, but without the run.
        call = replace(self._call or ChatCall({}), run=run_manager)
        with contextlib.closing(call):  # `BaseChatModel` leaves the stream open if a handler fails
            result = BaseChatModel._generate_with_cache(self._copy(call), messages, stop, run_manager, **kwargs)
            return uncounted(result)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = replace(self._call or ChatCall({}), run=run_manager)
        try:
            async with contextlib.aclosing(call):
                model = self._copy(call)
                result = await BaseChatModel._agenerate_with_cache(model, messages, stop, run_manager, **kwargs)
                return uncounted(result)
        except asyncio.CancelledError as error:
            # `BaseChatModel.agenerate` does not end its runs when its task is cancelled.
            if run_manager is not None:
                await run_manager.on_llm_error(error, response=LLMResult(generations=[]))
            raise

    # --- the hooks of `BaseChatModel` ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._answer(messages, run_manager, kwargs).result()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, run_manager, kwargs).aresult()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks = self._answer(messages, run_manager, kwargs).chunks()
        if self._call is not None:
            self._call.source = chunks
        return chunks

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = self._answer(messages, run_manager, kwargs).achunks()
        if self._call is not None:
            self._call.source = chunks
        return chunks

    def _answer(self, messages: list[BaseMessage], run: Any, kwargs: Mapping[str, Any]) -> AnswerMessages:
        call = self._call or ChatCall({})
        plan = None if call.route is None else call.route.plan
        return AnswerMessages(
            plan=self.chain.plan() if plan is None else plan,
            models=None if plan is None or call.route is None else call.route.models,
            question=self._llm_input(messages),
            config=call.child_config(run),
            kwargs={name: value for name, value in kwargs.items() if name != "stream" and value is not None},
            model_name=self._model_name(kwargs),
            budget=call.budget,
        )
