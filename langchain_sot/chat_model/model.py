"""The chain as a chat model, for whatever expects one: graphs, agents, chains of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import InitVar, replace
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
    get_config_list,
)
from pydantic import ConfigDict, Field, model_validator

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model.call import ChatCall
from langchain_sot.chat_model.direct import Way, decide
from langchain_sot.chat_model.like_its_llm import LikeItsLlm
from langchain_sot.chat_model.message import answer_chunk, answer_message, without_usage
from langchain_sot.chat_model.one_of_many import OneOfMany
from langchain_sot.chat_model.passing_on import (
    CARRIED,
    aclosed,
    asks_a_question,
    closed,
    joined,
    with_stop,
)
from langchain_sot.models.resolution import find_model, read_traits
from langchain_sot.plan import AnswerBatch
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.events import AnswerDelta, AnswerDone, AnswerFailed, AnswerRestarted, Event
from skeleton_of_thought.settings import first_by_position
from skeleton_of_thought.types import Answer

__all__ = ["SkeletonOfThoughtChatModel"]

_BOUND = ("temperature", "max_tokens", "stop", "timeout")
"""LangChain's standard parameters that the constructor takes for the chain's models."""


class SkeletonOfThoughtChatModel(LikeItsLlm):
    """A chat model that answers by a `SkeletonOfThoughtChain`.

    The message has the whole answer as its text; streams give it in document order. `usage_metadata` is the sum over
    all calls, and `response_metadata` has:

    - `route`: `"skeleton"` or `"direct"`, `reason`: why, and `skeleton`: the titles of the points;
    - `errors`, `timings`: as in the chain's output;
    - `usage_by_stage`: the usage of the `route`, `skeleton`, `point` and `direct` calls, each summed;
    - `finish_reason`: `"length"` if a text of it was cut, and `model_name`.

    **Direct answers.** Where the chain's router sends a question the direct way without a call, as the default does,
    the `llm` is called as it is: the message and the chunks are its own, in a run of its own, with `route`, `reason`,
    `skeleton` and `errors` added to the `response_metadata` of the message, or of the first chunk.

    **What goes to the chain's `llm` untouched**, as if nothing were in between: a conversation whose last message is
    not a human's or is empty, and calls with `stop`, `max_tokens`, tools, functions, a response format, or with any
    other argument but those in `langchain_sot.chat_model.passing_on.CARRIED` (sampling and transport). They are about
    the text as a whole: a limit or a stop string of one point would mean something else. Settings for every call are
    bound to the chain's `llm`. `bind_tools` and `with_structured_output` are those of the `llm`.

    **Runs and usage.** The model's run is the parent of the runs of all calls. Usage callbacks, such as
    `get_usage_metadata_callback`, count at the calls, under the name of the model that spent the tokens; the result
    that callbacks see for the model's own run has no usage, so nothing counts twice. The message that the caller
    gets has it, as has the last chunk of a stream. Events of version "v3" are made of what callbacks see.

    **Limits and caches.** `max_concurrency` bounds the calls of one answer. In `batch` it bounds all calls together: it
    is shared out among the answers that run at once. Caches and rate limiters are those of the `llm`: its calls
    of an answer that is not streamed may come from its cache. A `rate_limiter` of this model counts answers.

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

    `temperature`, `max_tokens`, `stop` and `timeout` may be given to the constructor; they are bound to the models of
    the chain, so there they hold for each call.

    Attributes:
        chain: The chain that answers.
        streaming: Whether `invoke` streams the calls, so that callbacks see tokens.
        cache: False; set a cache on the chain's `llm`, or for all models with `set_llm_cache`.

    Raises:
        PointError, SkeletonError: With a call, as the chain's settings say.
        NotImplementedError: From `bind_tools` and `with_structured_output`, if the `llm` cannot.
    """

    chain: SkeletonOfThoughtChain = Field(kw_only=False)
    streaming: bool = False
    cache: Literal[False] = Field(default=False, exclude=True)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    if TYPE_CHECKING:  # `_BOUND`, which are no fields
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

    def _answers(self, messages: Sequence[BaseMessage], stop: Any, kwargs: Mapping[str, Any]) -> bool:
        given = {name for name, value in kwargs.items() if value is not None}
        return not stop and given <= CARRIED and asks_a_question(messages)

    def way(self, messages: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Way:
        """Which way a call with these messages and arguments would take, as far as that is known without a call."""
        return self._way(messages, config, kwargs.pop("stop", None), kwargs)

    def going(self, way: Way) -> Self:
        """A copy of the model for one call, whose way is known."""
        return self._copy(ChatCall({}, way=way))

    def _way(
        self, value: LanguageModelInput, config: RunnableConfig | None, stop: Any, kwargs: Mapping[str, Any]
    ) -> Way:
        return self._way_of(self._convert_input(value).to_messages(), self._shared(config), stop, kwargs)

    def _way_of(
        self, messages: Sequence[BaseMessage], config: RunnableConfig, stop: Any, kwargs: Mapping[str, Any]
    ) -> Way:
        """Whether it is passed on to the `llm`: for what is asked of it, or because the router says so at once."""
        if not self._answers(messages, stop, kwargs):
            return Way(passes=True)
        if self._call is not None and self._call.way is not None:
            return self._call.way
        return decide(self.chain.plan(), messages, config, kwargs)

    # --- the public ways in: each call works on a copy that knows the call's config ---

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answers one question."""
        way = self._way(input, config, stop, kwargs)
        if way.passes:
            sent = self._sent(input, way)
            return way.message(self.chain.llm.invoke(sent, self._shared(config), **with_stop(stop, kwargs)))
        return BaseChatModel.invoke(self._begin(config, way), input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Async twin of `invoke`."""
        way = self._way(input, config, stop, kwargs)
        if way.passes:
            sent = self._sent(input, way)
            return way.message(await self.chain.llm.ainvoke(sent, self._shared(config), **with_stop(stop, kwargs)))
        return await BaseChatModel.ainvoke(self._begin(config, way), input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The answer in document order. Closing the iterator ends all calls, and returns when they have ended."""
        way = self._way(input, config, stop, kwargs)
        if way.passes:
            # A binding's stream leaves that of its model open when it is closed early; see `models.streams`.
            llm, config, kwargs = self._chosen(ensure_config(config), with_stop(stop, kwargs))
            with closed(llm.stream(self._sent(input, way), config, **kwargs)) as chunks:
                yield from map(way.chunk, chunks)
            way.end()
            return
        config = ensure_config(config)
        manager = get_callback_manager_for_config(config)
        model = self._begun(config, manager, way)
        with closed(BaseChatModel.stream(model, input, {**config, "callbacks": manager}, stop=stop, **kwargs)) as own:
            yield from own

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Async twin of `stream`."""
        way = self._way(input, config, stop, kwargs)
        if way.passes:
            llm, config, kwargs = self._chosen(ensure_config(config), with_stop(stop, kwargs))
            async with aclosed(llm.astream(self._sent(input, way), config, **kwargs)) as chunks:
                async for chunk in chunks:
                    yield way.chunk(chunk)
            way.end()
            return
        config = ensure_config(config)
        manager = get_async_callback_manager_for_config(config)
        model = self._begun(config, manager, way)
        async with aclosed(
            BaseChatModel.astream(model, input, {**config, "callbacks": manager}, stop=stop, **kwargs)
        ) as own:
            async for own_chunk in own:
                yield own_chunk

    if hasattr(BaseChatModel, "stream_events"):  # as other models: without it where LangChain does not have it yet

        def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
            """LangChain's events; of version "v3", those of the whole answer or of the `llm`."""
            if kwargs.get("version") != "v3":
                return super().stream_events(input, config, **kwargs)
            model, config, kwargs = self._for_events(input, config, kwargs)
            return model.stream_events(input, config, **kwargs)

    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """LangChain's events; of version "v3", those of the whole answer or of the `llm`."""
        if kwargs.get("version") != "v3":
            return super().astream_events(input, config, **kwargs)
        model, config, kwargs = self._for_events(input, config, kwargs)
        return model.astream_events(input, config, **kwargs)

    def _for_events(
        self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> tuple[Any, RunnableConfig, dict[str, Any]]:
        settings = {name: setting for name, setting in kwargs.items() if name not in ("version", "stop")}
        way = self._way(value, config, kwargs.get("stop"), settings)
        if way.passes:
            return self._chosen(ensure_config(config), kwargs)
        config = ensure_config(config)
        # Only `BaseChatModel`'s own methods are used on it: the copy's would come here again.
        return super(SkeletonOfThoughtChatModel, self._begin(config, way)), config, dict(kwargs)

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """See `BaseChatModel.generate`; the lists of messages are answered one after another."""
        calls = self._split(messages, stop, callbacks, kwargs)
        return joined([call.result() for call in calls])

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Async twin of `generate`; all lists of messages are answered at once."""
        calls = self._split(messages, stop, callbacks, kwargs)
        if len(calls) == 1:
            return joined([await calls[0].aresult()])
        results = await asyncio.gather(*(call.aresult() for call in calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return joined(cast(list[LLMResult], results))

    def _split(
        self, messages: list[list[BaseMessage]], stop: list[str] | None, callbacks: Any, kwargs: Mapping[str, Any]
    ) -> list[OneOfMany]:
        own = {name: kwargs.get(name) for name in ("tags", "metadata", "run_name", "run_id")}
        rest = {name: value for name, value in kwargs.items() if name not in own}
        calls = []
        for i, conversation in enumerate(messages):
            config = {**own, "run_id": own["run_id"] if i == 0 else None, "callbacks": callbacks}
            way = self._way_of(conversation, self._shared({"callbacks": callbacks}), stop, rest)
            model = self.chain.llm if way.passes else self._copy(replace(self._call or ChatCall({}), way=way))
            calls.append(OneOfMany(model, self._sent(conversation, way), stop, config, rest, way))
        return calls

    # --- many at once, under one budget ---

    def batch(self, inputs: list[Any], config: Any = None, **kwargs: Any) -> list[Any]:
        """Answers many questions; `max_concurrency` bounds all their calls together."""
        model, configs = self._sharing(inputs, config)
        return BaseChatModel.batch(model, inputs, configs, **kwargs)

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """Async twin of `batch`; the first error cancels what is still running."""
        results = {i: out async for i, out in self._acompleted(inputs, config, return_exceptions, kwargs)}
        return [results[i] for i in range(len(inputs))]

    def batch_as_completed(self, inputs: Sequence[Any], config: Any = None, **kwargs: Any) -> Iterator[tuple[int, Any]]:
        """Like `batch`, but yields each answer with its position as soon as it is complete."""
        model, configs = self._sharing(inputs, config)
        yield from BaseChatModel.batch_as_completed(model, inputs, configs, **kwargs)

    async def abatch_as_completed(
        self, inputs: Sequence[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """Async twin of `batch_as_completed`."""
        async with contextlib.aclosing(self._acompleted(inputs, config, return_exceptions, kwargs)) as results:
            async for result in results:
                yield result

    async def _acompleted(
        self, inputs: Sequence[Any], config: Any, return_exceptions: bool, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, Any]]:
        # LangChain's own would leave the other answers to run on when one fails, or when it is closed.
        model, configs = self._sharing(inputs, config)
        room = asyncio.Semaphore(configs[0]["max_concurrency"] or 1 if configs else 1)

        async def answered(i: int) -> tuple[int, Any]:
            async with room:
                try:
                    return i, await model.ainvoke(inputs[i], configs[i], **kwargs)
                except Exception as error:
                    if not return_exceptions:
                        raise
                    return i, error

        tasks = [asyncio.create_task(answered(i)) for i in range(len(inputs))]
        try:
            for completed in asyncio.as_completed(tasks):
                yield await completed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _sharing(self, inputs: Sequence[Any], config: Any) -> tuple[Self, list[RunnableConfig]]:
        """A copy each of whose answers keeps to its share, and configs for as many answers at once as there are
        shares: LangChain's batches know of answers only, not of the calls in them.
        """
        configs = get_config_list(config, len(inputs)) if inputs else []
        limit = configs[0].get("max_concurrency") if configs else None
        answers = len(inputs) if limit is None else max(1, min(len(inputs), limit))
        share = None if limit is None else limit // answers
        model = self._copy(ChatCall({}, shared=True, share=share))
        return model, [{**c, "max_concurrency": answers} for c in configs]

    # --- what a call knows ---

    def _copy(self, call: ChatCall) -> Self:
        _ = self._serialized  # computed once, and copied
        model = self.model_copy()
        model._call = call
        return model

    def _begin(self, config: RunnableConfig | None, way: Way) -> Self:
        return self._copy(ChatCall(self._shared(config), way=way))

    def _begun(self, config: RunnableConfig, manager: CallbackManager | AsyncCallbackManager, way: Way) -> Self:
        # `BaseChatModel` does not tell `_stream` about its run.
        call = ChatCall(self._shared(config), way=way)
        call.listen(manager)
        return self._copy(call)

    def _shared(self, config: RunnableConfig | None) -> RunnableConfig:
        config = ensure_config(config)
        if self._call is not None and self._call.shared:
            return {**config, "max_concurrency": self._call.share}
        return config

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # Where a handler wants tokens, this calls `_stream` and does not tell it about the run.
        call = replace(self._call or ChatCall({}), run=run_manager)
        with contextlib.closing(call):  # it leaves the stream open if a handler fails
            return BaseChatModel._generate_with_cache(self._copy(call), messages, stop, run_manager, **kwargs)

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
                return await BaseChatModel._agenerate_with_cache(model, messages, stop, run_manager, **kwargs)
        except asyncio.CancelledError as error:
            # `BaseChatModel.agenerate` forgets its runs when its task is cancelled.
            if run_manager is not None:
                await run_manager.on_llm_error(error, response=LLMResult(generations=[]))
            raise

    # --- the work ---

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        work = self._work(messages, run_manager, kwargs, live=False)
        with contextlib.closing(work.run()) as events:
            (answer,) = [done for _, event in events if (done := _done(event)) is not None]
        return self._result(answer, work, kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        work = self._work(messages, run_manager, kwargs, live=False)
        async with contextlib.aclosing(work.arun()) as events:
            (answer,) = [done async for _, event in events if (done := _done(event)) is not None]
        return self._result(answer, work, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks = self._chunks(messages, run_manager, kwargs)
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
        chunks = self._achunks(messages, run_manager, kwargs)
        if self._call is not None:
            self._call.source = chunks
        return chunks

    def _chunks(
        self, messages: list[BaseMessage], run: CallbackManagerForLLMRun | None, kwargs: Mapping[str, Any]
    ) -> Generator[ChatGenerationChunk]:
        with contextlib.closing(self._work(messages, run, kwargs, live=True).run()) as events:
            for _, event in events:
                if (chunk := self._chunk(event, kwargs, usage=run is None)) is not None:
                    yield chunk
                    _shown(chunk, event)

    async def _achunks(
        self, messages: list[BaseMessage], run: AsyncCallbackManagerForLLMRun | None, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        async with contextlib.aclosing(self._work(messages, run, kwargs, live=True).arun()) as events:
            async for _, event in events:
                if (chunk := self._chunk(event, kwargs, usage=run is None)) is not None:
                    yield chunk
                    _shown(chunk, event)

    def _result(self, answer: Answer, work: AnswerBatch, kwargs: Mapping[str, Any]) -> ChatResult:
        message = answer_message(answer, self._name(kwargs), work.direct(0))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunk(self, event: Event, kwargs: Mapping[str, Any], *, usage: bool) -> ChatGenerationChunk | None:
        """What a stream shows of an event."""
        if isinstance(event, AnswerDelta):
            return ChatGenerationChunk(message=AIMessageChunk(content=event.text))
        if isinstance(event, AnswerRestarted):
            # A merge has broken off. A message's text cannot be taken back: the whole answer follows, set off.
            return ChatGenerationChunk(message=AIMessageChunk(content="\n\n"))
        answer = _done(event)
        return None if answer is None else answer_chunk(answer, self._name(kwargs), usage=usage)

    def _work(self, messages: list[BaseMessage], run: Any, kwargs: Mapping[str, Any], *, live: bool) -> AnswerBatch:
        call = self._call or ChatCall({})
        asked = self._as_text(messages)
        settings = {name: value for name, value in kwargs.items() if name != "stream" and value is not None}
        plan = self.chain.plan() if call.way is None else call.way.plan(self.chain.plan())
        return AnswerBatch(plan, [asked], [call.child_config(run)], settings, live=live)

    def _sent(self, value: LanguageModelInput, way: Way) -> LanguageModelInput:
        """What the `llm` gets of a call that is passed on: what it would get without us, but see `_as_text`."""
        return value if way.direct is None else self._as_text(value)

    def _as_text(self, value: Any) -> Any:
        """A question alone as a string for string LLMs: they would set a "Human:" before it."""
        if isinstance(value, str) or not read_traits(type(find_model(self.chain.llm))).text:
            return value
        messages = self._convert_input(value).to_messages()
        return messages[0].text if len(messages) == 1 and isinstance(messages[0], HumanMessage) else value


def _shown(chunk: ChatGenerationChunk, event: Event) -> None:
    """`BaseChatModel` has shown the chunk by now, and keeps it for the result of its run."""
    if isinstance(event, AnswerDone):
        chunk.message = without_usage(chunk.message)


def _done(event: Event) -> Answer | None:
    if isinstance(event, AnswerFailed):
        raise event.error
    return event.answer if isinstance(event, AnswerDone) else None
