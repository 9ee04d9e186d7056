"""What handlers see of a call on `SkeletonOfThoughtLLM`: spans, events, legacy callbacks, and tokens counted once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core import Settings as LlamaIndexSettings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, TokenCountingHandler
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.prompts import PromptTemplate

from llama_index_sot import SkeletonOfThoughtLLM
from llama_index_sot.events import PointDone, Routed, SkeletonReady
from skeleton_of_thought.errors import PointError

TITLES = ["Move", "Drink water", "Sleep more"]
ANSWER = "1. Move: All about move.\n\n2. Drink water: All about drink water.\n\n3. Sleep more: All about sleep more."
POINTS = "What are the main benefits of regular exercise?"
FACT = "What is 17 * 4?"


def asked(question: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=question)]


async def _chat(llm: Any, question: str) -> Any:
    return await asyncio.to_thread(llm.chat, asked(question))


async def _achat(llm: Any, question: str) -> Any:
    return await llm.achat(asked(question))


async def _stream_chat(llm: Any, question: str) -> Any:
    return (await asyncio.to_thread(lambda: list(llm.stream_chat(asked(question)))))[-1]


async def _astream_chat(llm: Any, question: str) -> Any:
    return [response async for response in await llm.astream_chat(asked(question))][-1]


WAYS = {"chat": _chat, "achat": _achat, "stream_chat": _stream_chat, "astream_chat": _astream_chat}


@pytest.fixture(params=list(WAYS))
def way(request):
    return WAYS[request.param]


@pytest.fixture
def inner(kit):
    return kit.CompletingLLM(script=kit.answering(TITLES))


def tokens(response: Any) -> int:
    return response.raw["usage"]["total_tokens"]


# --- instrumentation ---


async def test_the_call_has_one_span_and_its_calls_are_below_it(way, inner, instrumented):
    await way(SkeletonOfThoughtLLM(inner), POINTS)
    spans = instrumented.spans
    (own,) = [span for span in spans.parents if span.startswith("SkeletonOfThoughtLLM.")]
    calls = [span for span in spans.parents if span.startswith("CompletingLLM.")]
    assert len(calls) == 4
    assert all(own in spans.lineage(span) for span in calls)
    stages = sorted(span.split("-")[0] for span in spans.parents if span.startswith("SkeletonOfThought."))
    assert stages == [f"SkeletonOfThought.{name}" for name in ("point_1", "point_2", "point_3", "skeleton")]
    assert set(spans.ended) == set(spans.parents)
    assert spans.dropped == {}


async def test_the_call_has_one_start_and_one_end_without_usage(way, inner, instrumented):
    response = await way(SkeletonOfThoughtLLM(inner), POINTS)
    events = instrumented.events
    starts, ends = events.of(LLMChatStartEvent), events.of(LLMChatEndEvent)
    own = [event for event in starts if event.model_dict["class_name"] == "SkeletonOfThoughtLLM"]
    assert [event.messages[-1].content for event in own] == [POINTS]
    assert len(starts) == len(ends) == 5
    last = ends[-1]
    assert (last.response.message.content, last.span_id) == (ANSWER, own[0].span_id)
    assert last.response.additional_kwargs["sot"]["route"] == "skeleton"
    # Each token is counted at the call that spent it.
    counted = [e.response.raw["usage"]["total_tokens"] for e in ends if "usage" in (e.response.raw or {})]
    assert (len(counted), sum(counted)) == (4, tokens(response))
    assert len(events.of(Routed)) == len(events.of(SkeletonReady)) == 1
    assert len(events.of(PointDone)) == 3


async def test_a_direct_answer_has_the_events_of_the_wrapped_llm_alone(way, inner, instrumented):
    await way(SkeletonOfThoughtLLM(inner), FACT)
    (start,) = instrumented.events.of(LLMChatStartEvent)
    (end,) = instrumented.events.of(LLMChatEndEvent)
    assert start.messages == end.messages == asked(FACT)
    (own,) = [span for span in instrumented.spans.parents if span.startswith("SkeletonOfThoughtLLM.")]
    assert own in instrumented.spans.lineage(start.span_id)


async def test_pieces_of_the_answer_are_events_of_the_call(inner, instrumented):
    await _stream_chat(SkeletonOfThoughtLLM(inner), POINTS)
    own = [start for start in instrumented.events.of(LLMChatStartEvent) if start.messages == asked(POINTS)]
    pieces = [e.response.delta for e in instrumented.events.of(LLMChatInProgressEvent) if e.span_id == own[0].span_id]
    assert "".join(pieces) == ANSWER


def test_completions_have_events_of_completions(inner, instrumented):
    SkeletonOfThoughtLLM(inner).complete(POINTS)
    (start,) = instrumented.events.of(LLMCompletionStartEvent)
    (end,) = instrumented.events.of(LLMCompletionEndEvent)
    assert (start.prompt, end.prompt, end.response.text) == (POINTS, POINTS, ANSWER)


async def test_a_failed_call_drops_its_span(way, kit, instrumented):
    def script(seen: Any) -> Any:
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    llm = SkeletonOfThoughtLLM(kit.ChatLLM(script=script), max_retries=0)
    with pytest.raises(PointError):
        await way(llm, POINTS)
    assert set(instrumented.spans.parents) == {*instrumented.spans.ended, *instrumented.spans.dropped}
    if "stream" in way.__name__:
        assert any(isinstance(e.exception, PointError) for e in instrumented.events.of(ExceptionEvent))
    else:
        assert any(span.startswith("SkeletonOfThoughtLLM.") for span in instrumented.spans.dropped)


# --- legacy callbacks ---


@pytest.mark.parametrize("question", [POINTS, FACT])
async def test_a_handler_of_the_settings_hears_the_call_once_with_all_its_tokens(
    way, kit, inner, monkeypatch, question
):
    legacy, counter = kit.Legacy(), TokenCountingHandler(tokenizer=str.split)
    monkeypatch.setattr(LlamaIndexSettings, "_llm", None)
    monkeypatch.setattr(LlamaIndexSettings, "_callback_manager", CallbackManager([legacy, counter]))
    LlamaIndexSettings.llm = SkeletonOfThoughtLLM(inner)
    response = await way(LlamaIndexSettings.llm, question)
    (start,) = [event for event in legacy.started if event.type is CBEventType.LLM]
    (end,) = [event for event in legacy.ended if event.type is CBEventType.LLM]
    assert start.payload[EventPayload.MESSAGES] == asked(question)
    assert end.payload[EventPayload.RESPONSE] == response
    assert counter.total_llm_token_count == tokens(response)
    assert len(counter.llm_token_counts) == 1
    assert legacy.traces == ["start chat", "end chat"]


@pytest.mark.parametrize("question", [POINTS, FACT])
async def test_a_handler_of_both_hears_the_calls_of_the_wrapped_llm(way, kit, question):
    counter = TokenCountingHandler(tokenizer=str.split)
    inner = kit.ChatLLM(script=kit.answering(TITLES), callback_manager=CallbackManager([counter]))
    other = kit.Legacy()
    llm = SkeletonOfThoughtLLM(inner, callback_manager=CallbackManager([counter, other]))
    response = await way(llm, question)
    assert counter.total_llm_token_count == tokens(response)
    assert len(counter.llm_token_counts) == len(inner.watch.seen)
    assert [event.type for event in other.ended].count(CBEventType.LLM) == 1


async def test_a_handler_of_the_wrapped_llm_alone_hears_its_calls(way, kit):
    counter = TokenCountingHandler(tokenizer=str.split)
    inner = kit.ChatLLM(script=kit.answering(TITLES), callback_manager=CallbackManager([counter]))
    response = await way(SkeletonOfThoughtLLM(inner), POINTS)
    assert counter.total_llm_token_count == tokens(response)
    assert len(counter.llm_token_counts) == 4


async def test_a_failed_call_ends_its_legacy_event(way, kit):
    legacy = kit.Legacy()
    inner = kit.ChatLLM(script=lambda seen: [ValueError("boom")])
    with pytest.raises(ValueError, match="boom"):
        await way(SkeletonOfThoughtLLM(inner, callback_manager=CallbackManager([legacy])), FACT)
    (end,) = [event for event in legacy.ended if event.type is CBEventType.LLM]
    assert isinstance(end.payload[EventPayload.EXCEPTION], ValueError)


def test_predict_has_one_trace(kit, inner):
    legacy = kit.Legacy()
    llm = SkeletonOfThoughtLLM(inner, callback_manager=CallbackManager([legacy]))
    assert llm.predict(PromptTemplate("{query_str}"), query_str=POINTS) == ANSWER
    assert [event.type for event in legacy.started].count(CBEventType.LLM) == 1
    assert [event.type for event in legacy.started].count(CBEventType.SUB_QUESTION) == 3


@pytest.mark.parametrize("question", [POINTS, FACT])
async def test_a_rate_limiter_counts_its_answers(way, inner, question):
    class Counting:
        def __init__(self) -> None:
            self.acquired = 0

        def acquire(self) -> None:
            self.acquired += 1

        async def async_acquire(self) -> None:
            self.acquired += 1

    llm = SkeletonOfThoughtLLM(inner)
    if "rate_limiter" not in type(llm).model_fields:
        pytest.skip("LLMs of this llama-index-core have no rate limiter")
    llm.rate_limiter = limiter = Counting()
    await way(llm, question)
    assert limiter.acquired == 1
