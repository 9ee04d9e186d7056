"""Points whose response is blocked, refused or empty, and how each point ended, in LlamaIndex's responses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.llms.custom import CustomLLM
from llama_index.core.llms.llm import LLM

from llama_index_sot import SkeletonOfThoughtLLM
from llama_index_sot.llm_calls import ResponseReader
from skeleton_of_thought.adapters.replies import FinishReasons
from skeleton_of_thought.errors import PointError, ReplyError
from skeleton_of_thought.types import RouteDecision

TITLES = ["Take breaks", "Drink water"]
TEXT = "1. Take breaks: It helps.\n\n2. Drink water: It helps."
TOKENS = {"prompt_tokens": 10, "completion_tokens": 2}
COUNTED = {"input_tokens": 10, "output_tokens": 2, "cached_tokens": 0, "total_tokens": 12}


def times(usage: dict[str, int], count: int) -> dict[str, int]:
    return {name: number * count for name, number in usage.items()}


def response(text: str = "", raw: Any = None, *, blocks: Sequence[Any] = (), **extras: Any) -> ChatResponse:
    raw = {"finish_reason": "stop"} if raw is None else raw
    message = ChatMessage(role="assistant", blocks=[*blocks, TextBlock(text=text)], additional_kwargs=extras)
    return ChatResponse(message=message, raw={**raw, "usage": TOKENS} if isinstance(raw, dict) else raw)


class ChatLLM(LLM):
    """A chat model whose script gives whole responses; streams give the text first, and then the rest."""

    script: Any
    watch: Any
    kit: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def _respond(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        seen = self.kit.seen_as(messages[-1].content or "", method="chat")
        with self.watch.call(seen):
            return self.script(seen)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._respond(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        def responses() -> Any:
            whole = self._respond(messages)
            if text := whole.message.content:
                yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta=text)
            yield whole.model_copy(update={"delta": ""})

        return responses()

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def responses() -> Any:
            for each in self.stream_chat(messages):
                yield each

        return responses()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise AssertionError("a chat model takes messages")

    stream_complete = acomplete = astream_complete = complete


class CompletionLLM(CustomLLM):
    """The same for a model that completes text; its async methods are those of `CustomLLM`."""

    script: Any
    watch: Any
    kit: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        seen = self.kit.seen_as(prompt, method="complete")
        with self.watch.call(seen):
            whole = self.script(seen)
        return CompletionResponse(
            text=whole.message.content or "", raw=whole.raw, additional_kwargs=whole.message.additional_kwargs
        )

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def responses() -> Any:
            whole = self.complete(prompt)
            if whole.text:
                yield CompletionResponse(text=whole.text, delta=whole.text)
            yield whole.model_copy(update={"delta": ""})

        return responses()


@pytest.fixture(params=[ChatLLM, CompletionLLM], ids=["chat", "complete"])
def responding(request: pytest.FixtureRequest, kit: Any) -> Callable[..., Any]:
    """Makes an LLM that answers point 2 by these responses, one for each attempt, and then by a good one."""

    def make(*faults: ChatResponse, stage: str = "point", **responses: ChatResponse) -> Any:
        left = list(faults)

        def script(seen: Any) -> ChatResponse:
            if left and seen.stage == stage and seen.point in (2, None):
                return left.pop(0)
            if seen.stage in responses:
                return responses[seen.stage]
            titles = "\n".join(f"{i}. {title}" for i, title in enumerate(TITLES, 1))
            return response(titles if seen.stage == "skeleton" else "It helps.")

        return request.param(script=script, watch=kit.Watch(), kit=kit)

    return make


def choice(reason: str, **message: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": reason, "message": message}]}


FAULTS = {
    "a filter": response("Half", choice("content_filter")),
    "a filter of Google": response("", {"finish_reason": "SAFETY"}),
    "a filter in the candidates of Google": response("Half", {"candidates": [{"finishReason": "SAFETY"}]}),
    "a filter of Bedrock": response("Sorry.", {"stopReason": "guardrail_intervened"}),
    "a refusal of Anthropic": response("", {"stop_reason": "refusal"}),
    "a refusal": response("", choice("stop", refusal="I cannot help with that.")),
    "a refusal beside the message": response("", refusal="I cannot help with that."),
    "an error": response("Half", {"finish_reason": "error"}),
    "nothing": response(),
    "white space": response(" \n"),
    "reasoning in tags": response("<think>Water is good.</think>"),
    "reasoning at the limit": response("", {"finish_reason": "length"}, blocks=[ThinkingBlock(content="Water")]),
    "a tool call": response("", choice("tool_calls"), tool_calls=[{"name": "search"}]),
}


def end_of(name: str) -> str:
    words = {"filter": "content_filter", "refusal": "refusal", "limit": "length"}
    return next((reason for word, reason in words.items() if word in name), "error")


@pytest.mark.parametrize("name", FAULTS)
async def test_a_failed_response_is_written_again(responding, ask, name):
    llm = responding(FAULTS[name])
    # With a merge no text of a point is shown before all are done, so no stream has to keep a part of a failed one.
    made = await ask(llm, "How?", backoff=0, merge=True)
    assert [point.text for point in made.points] == ["It helps.", "It helps."]
    assert len(llm.watch.of("point", 2)) == 2
    sot = made.metadata["sot"]
    assert (sot["finish_reason"], sot["finish_reasons"]) == ("stop", {"1": "stop", "2": "stop"})
    assert sot["usage_by_point"] == {"1": COUNTED, "2": times(COUNTED, 2)}
    assert sot["usage_by_stage"]["point"] == times(COUNTED, 3)
    assert [(point.error, point.finish_reason) for point in made.points] == [(None, "stop")] * 2


@pytest.mark.parametrize("name", FAULTS)
async def test_a_response_that_stays_failed_is_reported(responding, ask, name):
    llm = responding(FAULTS[name], FAULTS[name])
    made = await ask(llm, "How?", backoff=0, merge=True, on_point_error="placeholder", placeholder="(gone)")
    good, failed = made.points
    assert (good.text, good.error, good.finish_reason) == ("It helps.", None, "stop")
    assert failed.text.endswith("(gone)")
    assert failed.error.startswith("ReplyError: ")
    assert failed.finish_reason == end_of(name)
    assert made.metadata["sot"]["finish_reason"] == end_of(name)


@pytest.mark.parametrize("name", ["a filter of Google", "a refusal", "nothing"])
async def test_by_default_a_failed_response_raises(responding, ask, name):
    llm = responding(*[FAULTS[name]] * 9)
    with pytest.raises(PointError, match=r"Drink water.*after 2 attempt\(s\): ReplyError") as caught:
        await ask(llm, "How?", backoff=0)
    assert isinstance(caught.value.__cause__, ReplyError)
    assert llm.watch.open == 0


async def test_a_point_that_reached_its_limit_keeps_its_text(responding, ask):
    made = await ask(responding(response("It hel", {"finish_reason": "MAX_TOKENS"})), "How?")
    assert str(made).endswith("2. Drink water: It hel")
    sot = made.metadata["sot"]
    assert (sot["finish_reason"], sot["finish_reasons"]) == ("length", {"1": "stop", "2": "length"})
    assert [point.finish_reason for point in made.points] == ["stop", "length"]


async def test_after_a_failed_skeleton_the_llm_answers_as_it_does(responding, ask):
    llm = responding(
        FAULTS["a filter of Google"], stage="skeleton", direct=response("No.", {"stop_reason": "end_turn"})
    )
    made = await ask(llm, "How?")
    sot = made.metadata["sot"]
    assert (str(made), sot["route"], sot["finish_reason"]) == ("No.", "direct", "end_turn")
    assert sot["reason"] == "there is no skeleton: a content filter blocked the reply (finish reason 'SAFETY')"
    assert (sot["finish_reasons"], sot["usage_by_point"]) == ({}, {})


@pytest.mark.parametrize("raw", [{"finish_reason": "SAFETY"}, {"stop_reason": "refusal"}, {"finish_reason": "STOP"}])
async def test_a_direct_answer_keeps_its_own_end(responding, ask, raw):
    llm = responding(direct=response("Half", raw))
    made = await ask(llm, "How?", router=lambda query: False)
    assert (str(made), made.metadata["sot"]["finish_reason"]) == ("Half", next(iter(raw.values())))
    assert len(llm.watch.seen) == 1


EMPTY = ["nothing", "white space", "reasoning in tags"]
DIRECT: dict[str, Any] = {"router": lambda query: False, "backoff": 0}


@pytest.mark.parametrize("name", ["nothing", "white space"])
async def test_an_empty_direct_answer_is_asked_for_again(responding, ask, name):
    llm = responding(FAULTS[name], stage="direct", direct=response("Because."))
    made = await ask(llm, "How?", **DIRECT)
    assert (str(made).strip(), made.metadata["sot"]["finish_reason"]) == ("Because.", "stop")
    assert len(llm.watch.seen) == 2


@pytest.mark.parametrize("name", ["nothing", "white space"])
async def test_a_direct_answer_that_stays_empty_is_an_error(responding, ask, name):
    llm = responding(direct=FAULTS[name])
    with pytest.raises(ReplyError):
        await ask(llm, "How?", **DIRECT, max_retries=2)
    assert len(llm.watch.seen) == 3


@pytest.mark.parametrize("name", ["a refusal", "a filter of Google", "reasoning at the limit", "a tool call"])
async def test_a_direct_answer_may_be_something_else_than_text(responding, ask, name):
    llm = responding(direct=FAULTS[name])
    assert (str(await ask(llm, "How?", **DIRECT)), len(llm.watch.seen)) == ("", 1)


@pytest.mark.parametrize("stage", ["skeleton", "merge"])
@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_skeleton_or_merge_is_asked_for_again(responding, ask, name, stage):
    llm = responding(FAULTS[name], stage=stage)
    made = await ask(llm, "How?", backoff=0, merge=True)
    assert (str(made), made.metadata["sot"]["merge_error"]) == ("It helps.", None)
    assert len(llm.watch.of(stage)) == 2


class DecidesAtOnce:
    """Lets the LLM pass direct answers on from the wrapped one."""

    def __init__(self) -> None:
        self.observed: list[Any] = []

    def at_once(self, conversation: Any) -> RouteDecision:
        return RouteDecision(False, reason="by rule")

    route = at_once

    async def aroute(self, conversation: Any) -> RouteDecision:
        return self.at_once(conversation)

    def observe(self, answer: Any) -> None:
        self.observed.append(answer)


async def passed_on(llm: Any, name: str) -> ChatResponse:
    """The last response of an LLM's chat, asked in one of its ways."""
    given = [ChatMessage(role="user", content="How?")]
    if name == "chat":
        return await asyncio.to_thread(llm.chat, given)
    if name == "stream_chat":
        return (await asyncio.to_thread(lambda: list(llm.stream_chat(given))))[-1]
    if name == "achat":
        return await llm.achat(given)
    return [each async for each in await llm.astream_chat(given)][-1]


LLM_WAYS = pytest.mark.parametrize("name", ["chat", "achat", "stream_chat", "astream_chat"])


@LLM_WAYS
@pytest.mark.parametrize("fault", ["nothing", "white space"])
async def test_an_empty_answer_that_is_passed_on_is_asked_for_again(responding, name, fault):
    llm, router = responding(FAULTS[fault], stage="direct", direct=response("Because.")), DecidesAtOnce()
    given = await passed_on(SkeletonOfThoughtLLM(llm, router=router, backoff=0), name)
    assert given.message.content == "Because."
    assert given.additional_kwargs["sot"]["reason"] == "by rule"
    assert len(llm.watch.seen) == 2
    (answer,) = router.observed
    assert (answer.text, answer.usage.input_tokens) == ("Because.", 20)


@LLM_WAYS
@pytest.mark.parametrize("fault", ["nothing", "white space"])
async def test_an_answer_that_is_passed_on_and_stays_empty_is_an_error(responding, name, fault):
    llm, router = responding(direct=FAULTS[fault]), DecidesAtOnce()
    with pytest.raises(ReplyError):
        await passed_on(SkeletonOfThoughtLLM(llm, router=router, backoff=0), name)
    assert (len(llm.watch.seen), router.observed) == (2, [])


@LLM_WAYS
@pytest.mark.parametrize("fault", ["a refusal", "a refusal beside the message", "a filter of Google", "a tool call"])
async def test_an_answer_that_is_passed_on_may_be_something_else_than_text(responding, name, fault):
    llm = responding(direct=FAULTS[fault])
    given = await passed_on(SkeletonOfThoughtLLM(llm, router=DecidesAtOnce()), name)
    assert (given.message.content or "", len(llm.watch.seen)) == ("", 1)


# --- what the streams of the providers have -----------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (SimpleNamespace(type="message_delta", delta=SimpleNamespace(stop_reason="refusal")), "refusal"),
        ({"messageStop": {"stopReason": "guardrail_intervened"}}, "guardrail_intervened"),
        ({"candidates": [{"finishReason": "SAFETY"}]}, "SAFETY"),
        (SimpleNamespace(candidates=(SimpleNamespace(finish_reason="MAX_TOKENS"),)), "length"),
        (SimpleNamespace(response=SimpleNamespace(status="completed")), "stop"),
        (
            SimpleNamespace(
                response=SimpleNamespace(
                    status="incomplete", incomplete_details=SimpleNamespace(reason="max_output_tokens")
                )
            ),
            "length",
        ),
    ],
)
def test_events_of_raw_streams_have_the_finish_reason(raw, reason):
    reader = ResponseReader(FinishReasons())
    reader.add(ChatResponse(message=ChatMessage(content="It helps."), delta="It helps."))
    reader.add(ChatResponse(message=ChatMessage(content="It helps."), delta="", raw=raw))
    assert reader.reply.finish_reason == reason


def test_the_pieces_of_a_refusal_are_joined():
    reader = ResponseReader(FinishReasons())
    for piece, reason in (("I can", None), ("not.", None), (None, "stop")):
        raw = {"choices": [{"finish_reason": reason, "delta": {"refusal": piece}}]}
        reader.add(ChatResponse(message=ChatMessage(content=""), delta="", raw=raw))
    assert (reader.reply.refusal, reader.reply.finish_reason) == ("I cannot.", "stop")
