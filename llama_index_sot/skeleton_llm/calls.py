"""One call on the LLM: its route, the answer or the wrapped LLM's own response, whole or as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock
from llama_index.core.schema import QueryBundle

from llama_index_sot.answer import AnswerConfig, AnswerRun
from llama_index_sot.event_loop import call_in_thread, is_truly_async, stream_in_thread
from llama_index_sot.llm_calls import LLMResponse, ResponseReader
from llama_index_sot.skeleton_llm.events import USAGE_KEYS, CallEvents
from llama_index_sot.skeleton_llm.inputs import LLMInput
from llama_index_sot.templates import TemplateRouter
from skeleton_of_thought.adapters.as_model import DirectRecord, KnownDecision
from skeleton_of_thought.adapters.finish_reasons import CUT
from skeleton_of_thought.adapters.replies import aclosing_stream, closing_stream
from skeleton_of_thought.events import plain_value
from skeleton_of_thought.routers.base import decide_at_once
from skeleton_of_thought.types import Message, Usage

if TYPE_CHECKING:
    from llama_index_sot.skeleton_llm.llm import SkeletonOfThoughtLLM

__all__ = ["LLMCall"]


class LLMCall:
    """One call on the LLM.

    A router that decides without a call is asked at once. If it chooses a direct answer, the wrapped LLM's response is
    passed on, with the decision in its `additional_kwargs`. An `AnswerRun` does everything else.

    Args:
        owner: The LLM that was called.
        given: What it was called with.
        kwargs: The keyword arguments of the call.
        live: Whether the caller reads a stream.
        sync: Whether the caller has no event loop.
    """

    def __init__(
        self, owner: SkeletonOfThoughtLLM, given: LLMInput, kwargs: Mapping[str, Any], *, live: bool, sync: bool
    ) -> None:
        llm, point_llm = owner.resolved()
        self._given = given
        self._kwargs = kwargs
        self._owner = owner
        self._llm = given.resolve(llm, kwargs)
        self._run: AnswerRun | None = None
        self._record: DirectRecord | None = None
        points = self._llm if point_llm is llm else given.resolve(point_llm, kwargs)
        chat = given.chat((self._llm, points), kwargs)
        if chat is not None:
            self._route(owner.config(self._llm, points, chat), chat, live=live, sync=sync)
        wrapped = (self._llm.llm, points.llm)
        self._events = CallEvents(owner, wrapped, given, kwargs, answers=self._run is not None)

    def _route(self, config: AnswerConfig, chat: tuple[Message, ...], *, live: bool, sync: bool) -> None:
        router, conversation = config.router, config.conversation("", live=live, sync=sync)
        if router is not None:
            system_prompt = self._llm.system_prompt
            reader = TemplateRouter(router, system_prompt=system_prompt) if system_prompt else router
            decision = decide_at_once(reader, conversation)
            if decision is not None and not decision.use_skeleton:
                self._record = DirectRecord(router, decision, conversation.question, config.settings, config.plans)
                return
            if decision is not None:
                config = dataclasses.replace(config, router=KnownDecision(router, decision))
        query = QueryBundle(conversation.question)
        self._run = AnswerRun(config, query, self._owner.callback_manager, live=live, sync=sync)

    # --- whole responses ---

    def whole(self) -> Any:
        """The whole response."""
        with self._events.begun():
            if (limiter := getattr(self._owner, "rate_limiter", None)) is not None:
                limiter.acquire()
            if self._run is None:
                call = self._given.open(self._llm, "", self._kwargs)
                while (pause := self._pause_after(response := call())) is not None:
                    time.sleep(pause)
                response = self._told(response)
            else:
                self._run.whole()
                response = self._last(self._run, None)
        self._events.end(response)
        return response

    async def awhole(self) -> Any:
        """Async twin of `whole`."""
        with self._events.begun():
            if (limiter := getattr(self._owner, "rate_limiter", None)) is not None:
                await limiter.async_acquire()
            if self._run is not None:
                await self._run.awhole()
                response = self._last(self._run, None)
            else:
                response = await self._awhole()
                while (pause := self._pause_after(response)) is not None:
                    await asyncio.sleep(pause)
                    response = await self._awhole()
                response = self._told(response)
        self._events.end(response)
        return response

    async def _awhole(self) -> LLMResponse:
        if self._is_async("a"):
            response: LLMResponse = await self._given.open(self._llm, "a", self._kwargs)()
            return response
        return await call_in_thread(self._given.open(self._llm, "", self._kwargs), "sot-direct")

    def _pause_after(self, response: LLMResponse) -> float | None:
        """The pause before a direct answer is asked for again; None after a whole response."""
        if (record := self._record) is None:
            return None
        text, reply = ResponseReader(self._llm.reasons).whole(response)
        if (pause := record.pause(reply, text)) is not None:
            record.count("", reply.usage)
        return pause

    def _told(self, response: LLMResponse) -> LLMResponse:
        """The wrapped LLM's whole response, with the router's decision."""
        if (record := self._record) is None:
            return self._fitting(response)
        text, reply = ResponseReader(self._llm.reasons).whole(response)
        shown = record.count(text, reply.usage)
        record.end()
        response = _with_decision(response, record)
        return self._fitting(response if shown == text else _cut(response, record))

    def _fitting(self, response: LLMResponse) -> LLMResponse:
        """The response in the form of the method: an engine gets the prompt of a completion as messages."""
        if self._given.prompt is None or not isinstance(response, ChatResponse):
            return response
        fields = {name: getattr(response, name) for name in ("delta", "raw", "logprobs", "additional_kwargs")}
        return CompletionResponse(text=response.message.content or "", **fields)

    # --- streams ---

    def stream(self) -> Generator[Any, None, None]:
        """The response as it is written. Closing it ends all calls, and returns when they have ended."""
        with self._events.begun():
            if (limiter := getattr(self._owner, "rate_limiter", None)) is not None:
                limiter.acquire()
            if self._run is None:
                call = self._given.open(self._llm, "stream_", self._kwargs)
                responses: Iterator[LLMResponse] = call()
                source = responses if self._record is None else self._recorded(responses, call, self._record)
            else:
                source = self._written(self._run)
        return self._watched(source)

    def _watched(self, source: Iterator[LLMResponse]) -> Generator[Any, None, None]:
        last = None
        with self._events.streamed(), closing_stream(source):
            for response in source:
                last = self._fitting(response)
                self._events.progress(last)
                yield last
        self._events.end(last)

    def _written(self, run: AnswerRun) -> Generator[LLMResponse, None, None]:
        text = ""
        with contextlib.closing(run.texts()) as pieces:
            for piece in pieces:
                text += piece
                yield self._make(text, delta=piece)
        yield self._last(run, text)

    def _recorded(
        self, responses: Iterator[LLMResponse], call: Callable[[], Any], record: DirectRecord
    ) -> Iterator[LLMResponse]:
        """The responses of a direct answer, which is asked for again if it has no text.

        Responses are held back as long as they have no content.
        """
        while True:
            reader, held = self._reader(record), _Held(record)
            with closing_stream(responses):
                for response in responses:
                    text = reader.add(response)
                    yield from held.add(response, text, last=reader.end_of_reply.full)
                    if reader.end_of_reply.full:
                        break
            reply = reader.reply
            record.count("", reply.usage)
            if (pause := record.pause(reply)) is None:
                break
            time.sleep(pause)
            responses = call()
        yield from held.rest()
        record.end()

    async def astream(self) -> AsyncGenerator[Any, None]:
        """Async twin of `stream`."""
        with self._events.begun():
            if (limiter := getattr(self._owner, "rate_limiter", None)) is not None:
                await limiter.async_acquire()
            if self._run is not None:
                source: AsyncIterator[LLMResponse] = self._awritten(self._run)
            else:
                responses = await self._astream()
                source = responses if self._record is None else self._arecorded(responses, self._record)
        return self._awatched(source)

    def _reader(self, record: DirectRecord) -> ResponseReader:
        return ResponseReader(self._llm.reasons, record.settings.max_answer_chars)

    async def _astream(self) -> AsyncIterator[LLMResponse]:
        if self._is_async("astream_"):
            responses: AsyncIterator[LLMResponse] = await self._given.open(self._llm, "astream_", self._kwargs)()
            return responses
        return stream_in_thread(self._given.open(self._llm, "stream_", self._kwargs), "sot-direct")

    async def _awatched(self, source: AsyncIterator[LLMResponse]) -> AsyncGenerator[Any, None]:
        last = None
        with self._events.streamed():
            async with aclosing_stream(source):
                async for response in source:
                    last = self._fitting(response)
                    self._events.progress(last)
                    yield last
        self._events.end(last)

    async def _awritten(self, run: AnswerRun) -> AsyncGenerator[LLMResponse, None]:
        text = ""
        async with contextlib.aclosing(run.atexts()) as pieces:
            async for piece in pieces:
                text += piece
                yield self._make(text, delta=piece)
        yield self._last(run, text)

    async def _arecorded(
        self, responses: AsyncIterator[LLMResponse], record: DirectRecord
    ) -> AsyncGenerator[LLMResponse, None]:
        """Async twin of `_recorded`."""
        while True:
            reader, held = self._reader(record), _Held(record)
            async with aclosing_stream(responses):
                async for response in responses:
                    text = reader.add(response)
                    for shown in held.add(response, text, last=reader.end_of_reply.full):
                        yield shown
                    if reader.end_of_reply.full:
                        break
            reply = reader.reply
            record.count("", reply.usage)
            if (pause := record.pause(reply)) is None:
                break
            await asyncio.sleep(pause)
            responses = await self._astream()
        for shown in held.rest():
            yield shown
        record.end()

    def _is_async(self, prefix: str) -> bool:
        """Whether the wrapped LLM's own async method leaves the event loop free."""
        if self._llm.native is not None or self._llm.concurrency in ("async", "thread"):
            return self._llm.concurrency != "thread"
        # `chat_with_tools` calls `chat`, whose async twin may block.
        methods = {self._given.method, self._given.method.partition("_")[0]}
        return all(is_truly_async(self._llm.llm, f"{prefix}{method}") for method in methods)

    # --- responses ---

    def _last(self, run: AnswerRun, streamed: str | None) -> LLMResponse:
        """The response of a complete answer; for a stream, which has shown its text, the last one."""
        sot = {**run.metadata, "points": [_point(point) for point in run.points]}
        text, delta = (run.answer.text, None) if streamed is None else (streamed, "")
        if (direct := run.direct_response) is not None and run.answer.route == "direct":
            extra = {**direct.additional_kwargs, "sot": sot}
            response = self._make(text, delta=delta, raw=direct.raw, additional_kwargs=extra)
            if streamed is None and isinstance(direct, ChatResponse) and isinstance(response, ChatResponse):
                response.message = direct.message
            return response
        usage = _openai_usage(run.answer.usage) if run.answer.usage_by_stage else {}
        model = self._llm.llm.metadata.model_name
        raw: dict[str, Any] = {"model": model, "finish_reason": run.answer.finish_reason or "stop", "sot": sot}
        if usage:
            raw["usage"] = usage
        counts = {name: usage[name] for name in USAGE_KEYS if name in usage}
        return self._make(text, delta=delta, raw=raw, additional_kwargs={**counts, "sot": sot})

    def _make(self, text: str, **fields: Any) -> LLMResponse:
        if self._given.prompt is None:
            return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), **fields)
        return CompletionResponse(text=text, **fields)


class _Held:
    """Responses of a direct answer without any content so far, which are dropped if its call is made again."""

    def __init__(self, record: DirectRecord) -> None:
        self._record = record
        self._responses: list[LLMResponse] = []

    def add(self, response: LLMResponse, text: str, *, last: bool) -> list[LLMResponse]:
        """Takes the next response with its new text; returns those that may show now.

        Args:
            response: The response.
            text: Its new text.
            last: Whether the answer is cut here.
        """
        shown = self._record.count(text, None)
        self._responses.append(response)
        has_content = bool(text.strip() or response.additional_kwargs.keys() - USAGE_KEYS)
        if isinstance(response, ChatResponse):
            message = response.message
            has_content = has_content or bool(message.additional_kwargs)
            has_content = has_content or any(block.block_type != "text" for block in message.blocks)
        self._record.shown = self._record.shown or has_content
        if not self._record.shown:
            return []
        responses = self.rest()
        return [*responses[:-1], _cut(responses[-1], self._record, shown)] if last else responses

    def rest(self) -> list[LLMResponse]:
        """The responses that were held back."""
        responses, self._responses = self._responses, []
        return [_with_decision(response, self._record) for response in responses]


def _with_decision(response: LLMResponse, record: DirectRecord) -> LLMResponse:
    decision = record.decision
    sot = {"route": "direct", "reason": decision.reason, "decision": plain_value(decision), "points": []}
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, "sot": sot}})


def _cut(response: LLMResponse, record: DirectRecord, delta: str | None = None) -> LLMResponse:
    """The response with the text that `max_answer_chars` allows; for a stream with the part of it that is new."""
    record.warn_of_cut()
    sot = {**response.additional_kwargs["sot"], "finish_reason": CUT}
    fields = {"delta": delta, "additional_kwargs": {**response.additional_kwargs, "sot": sot}}
    if isinstance(response, ChatResponse):
        message = response.message.model_copy(update={"blocks": [TextBlock(text=record.text)]})
        return response.model_copy(update={**fields, "message": message})
    return response.model_copy(update={**fields, "text": record.text})


def _point(point: Any) -> dict[str, Any]:
    plan = {"scope": point.scope, "depends_on": list(point.depends_on), "missing": list(point.missing)}
    names = ("index", "title", "text", "error", "finish_reason", "rewritten")
    return {**{name: getattr(point, name) for name in names}, **plan}


def _openai_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
