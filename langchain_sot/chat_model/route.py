"""The route of a call on the chat model: to the `llm` unchanged, to the `llm` as a direct answer, or to the chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_sot.calls import ReplyReader
from langchain_sot.chat_model.message import as_chunk, as_message, with_usage
from langchain_sot.interrupts import dropped
from langchain_sot.messages import convert_message, message_usage
from langchain_sot.models.resolution import ChainModels, find_model
from langchain_sot.plan import AnswerPlan
from langchain_sot.routers import ChildRunRouter
from skeleton_of_thought.adapters.as_model import DirectRecord, KnownDecision
from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.adapters.replies import FinishReasons, ReplyEnd, aclosing_stream, closing_stream
from skeleton_of_thought.plan_memory import graph_allowed
from skeleton_of_thought.routers.base import decide_at_once
from skeleton_of_thought.types import Conversation
from skeleton_of_thought.waves import asking_items

__all__ = ["CallRoute", "DirectAnswer", "GenerateCall", "route_call", "side_by_side", "with_stop"]

_M = TypeVar("_M", bound=BaseMessage)


@dataclass
class DirectAnswer(DirectRecord):
    """A direct answer that is passed from the `llm` to the caller.

    The model's messages stay as they are, but for `route`, `reason`, `skeleton` and `errors`, which are added to the
    `response_metadata` of the message or of the first chunk. When the answer is complete, the router learns from it.

    A reply without any text is asked for again, as the chain does. So chunks are held back as long as they have no
    content.
    """

    _held: list[AIMessageChunk] = field(default_factory=list, init=False)

    def message(self, message: AIMessage) -> AIMessage:
        """The whole message with the decision in its metadata; completes the answer."""
        text = str(message.text)
        shown = self.count(text, message_usage(message))
        self.end()
        return self._annotated(message if shown == text else self._cut(message, shown))

    def pause_after(self, llm: Runnable[Any, Any], message: AIMessage) -> float | None:
        """The pause before the call is made again; None after a whole message.

        Raises:
            ReplyError, ConnectionError: See `DirectRecord.pause` and `ReplyEnd.reply`.
        """
        text, reply = self.reader(llm).whole(message)
        if (pause := self.pause(reply, text)) is not None:
            self.count("", message_usage(message))
        return pause

    def reader(self, llm: Runnable[Any, Any]) -> ReplyReader:
        """Reads the end of one reply."""
        end = ReplyEnd(reasons=FinishReasons.of(find_model(llm)), max_chars=self.settings.max_answer_chars)
        return ReplyReader(end)

    def chunks(self, chunk: AIMessageChunk, *, last: bool) -> list[AIMessageChunk]:
        """The chunks that may show now. The first one gets the decision into its metadata.

        Args:
            chunk: The next chunk.
            last: Whether the answer is cut here.
        """
        shown = self.count(str(chunk.text), message_usage(chunk))
        if last:
            chunk = self._cut(chunk, shown)
        self._held.append(chunk)
        has_content = str(chunk.text).strip() or not isinstance(chunk.content, str)
        if not (self.shown or has_content or chunk.additional_kwargs or chunk.tool_call_chunks):
            return []
        return self.rest(None)

    def rest(self, pause: float | None) -> list[AIMessageChunk]:
        """The chunks that were held back; they are dropped where the call is made again."""
        held, self._held = self._held, []
        if pause is not None or not held:
            return []
        shown, self.shown = self.shown, True
        return held if shown else [self._annotated(held[0]), *held[1:]]

    def _cut(self, message: _M, text: str) -> _M:
        self.warn_of_cut()
        metadata = {**message.response_metadata, "finish_reason": CUT}
        content = message.content if str(message.text) == text else text
        return message.model_copy(update={"content": content, "response_metadata": metadata})

    def _annotated(self, message: _M) -> _M:
        about = {"route": "direct", "reason": self.decision.reason, "skeleton": [], "errors": {}}
        return message.model_copy(update={"response_metadata": {**message.response_metadata, **about}})


@dataclass(frozen=True)
class CallRoute:
    """The route of one call on the chat model.

    Attributes:
        delegated: Whether the call goes to the `llm` itself.
        direct: The direct answer, if the router chose that route.
        plan: How the chain answers, with the decision in place of a router that has decided; None if it does not.
        models: The chain's models, as far as they are resolved for this call; None where the call itself says that the
            `llm` answers.
    """

    delegated: bool
    direct: DirectAnswer | None = None
    plan: AnswerPlan | None = None
    models: ChainModels | None = None

    def message(self, message: AIMessage) -> AIMessage:
        """A whole message of the model, with the decision if the answer is direct."""
        return message if self.direct is None else self.direct.message(message)

    def invoke(
        self, llm: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        """The message of the `llm`, whose call is made again if a direct answer has no text."""
        while True:
            message = as_message(llm.invoke(value, config, **kwargs))
            if self.direct is None or (pause := self.direct.pause_after(llm, message)) is None:
                return self.message(message)
            time.sleep(pause)
            config = _as_another_run(config)

    async def ainvoke(
        self, llm: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> AIMessage:
        """Async twin of `invoke`."""
        while True:
            message = as_message(await llm.ainvoke(value, config, **kwargs))
            if self.direct is None or (pause := self.direct.pause_after(llm, message)) is None:
                return self.message(message)
            await asyncio.sleep(pause)
            config = _as_another_run(config)

    def stream(
        self, llm: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> Generator[AIMessageChunk]:
        """The chunks of the `llm`, see `invoke`."""
        pause: float | None = 0.0
        while pause is not None:
            time.sleep(pause)
            # Unwrapped, because a binding that is closed early leaves its model's stream open.
            with closing_stream(llm.stream(value, config, **kwargs)) as outputs:
                if (direct := self.direct) is None:
                    yield from map(as_chunk, outputs)
                    return
                reader = direct.reader(llm)
                for output in outputs:
                    reader.add(output)
                    yield from direct.chunks(as_chunk(output), last=reader.end_of_reply.full)
                    if reader.end_of_reply.full:
                        break
            pause = direct.pause(reader.end())
            yield from direct.rest(pause)
            config = _as_another_run(config)
        if self.direct is not None:
            self.direct.end()

    async def astream(
        self, llm: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[AIMessageChunk]:
        """Async twin of `stream`."""
        pause: float | None = 0.0
        while pause is not None:
            if pause:
                await asyncio.sleep(pause)
            async with aclosing_stream(llm.astream(value, config, **kwargs)) as outputs:
                reader = None if self.direct is None else self.direct.reader(llm)
                async for output in outputs:
                    if reader is None or self.direct is None:
                        yield as_chunk(output)
                        continue
                    reader.add(output)
                    for chunk in self.direct.chunks(as_chunk(output), last=reader.end_of_reply.full):
                        yield chunk
                    if reader.end_of_reply.full:
                        break
            if reader is None or self.direct is None:
                return
            pause = self.direct.pause(reader.end())
            for chunk in self.direct.rest(pause):
                yield chunk
            config = _as_another_run(config)
        if self.direct is not None:
            self.direct.end()

    def generate_call(
        self, llm: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> GenerateCall:
        """One conversation of a `generate` that goes to this model."""
        return GenerateCall(llm, value, None, {**config}, kwargs, self)


def _as_another_run(config: RunnableConfig) -> RunnableConfig:
    # The caller's id is that of the first run.
    return cast(RunnableConfig, {name: value for name, value in config.items() if name != "run_id"})


def route_call(
    plan: AnswerPlan, messages: Sequence[BaseMessage], config: RunnableConfig, kwargs: Mapping[str, Any]
) -> CallRoute:
    """The route that the router chooses, if it decides without a call; else the route to the chain.

    Args:
        plan: How the chain answers.
        messages: A conversation that ends with a question.
        config: The caller's config.
        kwargs: Keyword arguments for the models.
    """
    models = ChainModels(plan.llm, plan.point_llm, adopts=plan.adopts, kwargs=kwargs)
    if plan.settings.opening == "restart":
        # The text of a message cannot be taken back, so the points wait for the opening.
        plan = replace(plan, settings=replace(plan.settings, opening=True))
    if plan.router is None:
        return CallRoute(delegated=False, plan=plan, models=models)
    request = models.for_config(config).request(config.get("max_concurrency"))
    if graph_allowed(plan.settings.planning, plan.plans):
        request = replace(request, graph=True)
    conversation = Conversation(tuple(convert_message(message) for message in messages), request)
    conversation = asking_items(conversation, plan.settings)
    with dropped():
        decision = decide_at_once(ChildRunRouter(plan.router, config), conversation)
    if decision is None:
        return CallRoute(delegated=False, plan=plan, models=models)
    # A direct answer shows the documents that the chain's retriever finds, too.
    if decision.use_skeleton or plan.retriever is not None:
        known = replace(plan, router=KnownDecision(plan.router, decision))
        return CallRoute(delegated=False, plan=known, models=models)
    direct = DirectAnswer(plan.router, decision, conversation.question, plan.settings, plan.plans)
    return CallRoute(delegated=True, direct=direct, models=models)


@dataclass(frozen=True)
class GenerateCall:
    """One conversation of a `generate` or `agenerate`.

    Attributes:
        model: The chain's `llm` as the config chooses it, where the route is delegated; else a copy of the chat model
            for this call.
        value: The messages, or the text that a string LLM gets in their place.
        stop: The stop strings.
        config: The parts of the run's config, as keyword arguments of `generate`.
        kwargs: Keyword arguments for the model.
        route: The route of the call.
    """

    model: Runnable[Any, Any]
    value: Any
    stop: list[str] | None
    config: dict[str, Any]
    kwargs: Mapping[str, Any]
    route: CallRoute

    def result(self) -> LLMResult:
        """The result for this conversation alone."""
        if self.route.delegated:
            kwargs = with_stop(self.stop, self.kwargs)
            return self._result(self.route.invoke(self.model, self.value, self._config, kwargs))
        return with_usage(BaseChatModel.generate(self._chat, [self.value], self.stop, **self.config, **self.kwargs))

    async def aresult(self) -> LLMResult:
        """Async twin of `result`."""
        if self.route.delegated:
            kwargs = with_stop(self.stop, self.kwargs)
            return self._result(await self.route.ainvoke(self.model, self.value, self._config, kwargs))
        generated = BaseChatModel.agenerate(self._chat, [self.value], self.stop, **self.config, **self.kwargs)
        return with_usage(await generated)

    @property
    def _chat(self) -> BaseChatModel:
        return cast(BaseChatModel, self.model)

    @property
    def _config(self) -> RunnableConfig:
        return cast(RunnableConfig, {name: value for name, value in self.config.items() if value is not None})

    def _result(self, message: AIMessage) -> LLMResult:
        return LLMResult(generations=[[ChatGeneration(message=message)]])


def with_stop(stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments with `stop`, if there is one: some runnables do not take `stop=None`."""
    return dict(kwargs) if stop is None else {"stop": stop, **kwargs}


async def side_by_side(calls: Sequence[GenerateCall], at_once: int) -> list[LLMResult]:
    """The results of these calls, of which at most `at_once` run at a time.

    Raises:
        BaseException: The error of the first call that failed, raised once all have ended.
    """
    slots = asyncio.Semaphore(at_once)

    async def result(call: GenerateCall) -> LLMResult:
        async with slots:
            return await call.aresult()

    results = await asyncio.gather(*map(result, calls), return_exceptions=True)
    for found in results:
        if isinstance(found, BaseException):
            raise found
    return cast(list[LLMResult], results)
