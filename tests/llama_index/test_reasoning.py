"""Reasoning models under LlamaIndex: every method gives the answer alone, and events take reasoning back."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage, ChatResponse

from llama_index_sot import SkeletonOfThoughtWorkflow
from llama_index_sot.events import (
    AnswerDelta,
    AnswerRestarted,
    PointDelta,
    PointDone,
    PointRestarted,
    SkeletonReady,
    SkeletonRestarted,
)

SKELETON = "Options:\n1. talk about light\n2. talk about sound\n</think>\n1. Dark room\n2. Quiet room"
POINT = "Let me think.\n</think>\n\nIt helps."
ANSWER = "1. Dark room: It helps.\n\n2. Quiet room: It helps."


def thinking(kit, *, skeleton: str = SKELETON, point: str = POINT, merge: str = "Hm.\n</think>\nBoth help."):
    texts = {"skeleton": skeleton, "point": point, "merge": merge, "direct": "Hm.\n</think>\nSleep."}
    return lambda seen: kit.pieces(texts[seen.stage])


@pytest.mark.parametrize("eager", [False, True])
async def test_every_method_gives_the_answer_alone(ask, LLMClass, kit, eager):
    response = await ask(LLMClass(script=thinking(kit)), "How do I sleep?", eager=eager)
    assert str(response) == response.response == ANSWER
    assert [(point.title, point.text) for point in response.points] == [
        ("Dark room", "It helps."),
        ("Quiet room", "It helps."),
    ]


@pytest.mark.parametrize(
    "point",
    [
        "<think>Hm.</think>\nIt helps.",
        "[THINK]Hm.[/THINK]It helps.",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>It helps.",
        "analysisHm.assistantfinalIt helps.",
    ],
)
async def test_blocks_never_show(ask, LLMClass, kit, point, instrumented):
    response = await ask(LLMClass(script=thinking(kit, point=point)), "How do I sleep?")
    assert str(response) == ANSWER
    assert instrumented.events.of(AnswerRestarted, PointRestarted) == []


async def test_a_merge_is_free_of_reasoning(ask, LLMClass, kit):
    response = await ask(LLMClass(script=thinking(kit)), "How do I sleep?", merge=True)
    assert str(response) == "Both help."


async def test_a_direct_answer_is_the_models_own(ask, LLMClass, kit):
    response = await ask(LLMClass(script=thinking(kit)), "Hello", router=lambda question: False)
    assert str(response) == "Hm.\n</think>\nSleep."


async def test_a_mentioned_mark_stays(ask, LLMClass, kit):
    text = "A model writes `<think>` first and </think> last."
    script = thinking(kit, skeleton="1. Use of `<think>` tags\n2. Quiet room", point=text)
    response = await ask(LLMClass(script=script), "How?")
    assert [(p.title, p.text) for p in response.points] == [("Use of `<think>` tags", text), ("Quiet room", text)]


async def read(events: Any) -> tuple[list[Any], str, dict[int, str], dict[int, str]]:
    """The events, and the answer and the points as a reader adds them up."""
    seen, text, points, done = [], "", {}, {}
    async for event in events:
        seen.append(event)
        match event:
            case AnswerDelta():
                text += event.text
            case AnswerRestarted():
                text = ""
            case PointDelta():
                points[event.index] = points.get(event.index, "") + event.text
            case PointRestarted():
                points[event.index] = ""
            case PointDone():
                done[event.index] = event.text
            case SkeletonRestarted():
                points, done = {}, {}
    return seen, text, points, done


@pytest.mark.parametrize("eager", [False, True])
async def test_the_events_add_up(kit, eager):
    engine = kit.make(kit.ChatLLM(script=thinking(kit)), eager=eager)
    seen, text, points, done = await read(engine.astream_events("How do I sleep?"))
    assert text == ANSWER
    assert points == done == {1: "It helps.", 2: "It helps."}
    assert [e.titles for e in seen if isinstance(e, SkeletonReady)] == [["Dark room", "Quiet room"]]
    (void,) = [e for e in seen if isinstance(e, SkeletonRestarted)]
    assert void.titles == ["talk about light", "talk about sound"]
    assert all("ReasoningShown" in e.error for e in seen if isinstance(e, AnswerRestarted | PointRestarted))
    assert [e for e in seen if isinstance(e, PointRestarted)]


async def test_the_events_of_a_workflow_add_up(kit):
    handler = SkeletonOfThoughtWorkflow(kit.make(kit.ChatLLM(script=thinking(kit)))).run(query="How do I sleep?")
    _, text, points, done = await read(handler.stream_events())
    assert (text, str(await handler)) == (ANSWER, ANSWER)
    assert points == done


async def test_streamed_text_is_set_apart_and_the_response_has_the_answer_alone(kit):
    engine = kit.make(kit.ChatLLM(script=thinking(kit)), streaming=True)
    response = await engine.aquery("How do I sleep?")
    streamed = "".join([text async for text in response.async_response_gen()])
    assert "Let me think." in streamed
    assert streamed.endswith("\n\n" + ANSWER)
    assert (await response.get_response()).response == ANSWER

    response = kit.make(kit.SyncLLM(script=thinking(kit)), streaming=True).query("How do I sleep?")
    assert response.get_response().response == str(response) == ANSWER


async def test_nodes_of_points_of_the_reasoning_are_no_sources(ask, LLMClass, kit):
    retriever = kit.AsyncRetriever(lambda query: [kit.node(query.partition(" (")[0])])
    response = await ask(LLMClass(script=thinking(kit)), "How do I sleep?", eager=True, retriever=retriever)
    assert [source.node.node_id for source in response.source_nodes] == ["Dark room", "Quiet room"]


@pytest.mark.skipif(not hasattr(types, "ThinkingBlock"), reason="this LlamaIndex has no blocks of thinking")
async def test_blocks_of_thinking_are_no_text(ask, kit):
    class Thinking(kit.ChatLLM):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return _thoughtful(super().chat(messages, **kwargs))

        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return _thoughtful(await super().achat(messages, **kwargs))

    def _thoughtful(response: ChatResponse) -> ChatResponse:
        blocks = [types.ThinkingBlock(content="1. Hm"), types.TextBlock(text=response.message.content)]
        message = ChatMessage(role="assistant", blocks=blocks)
        return ChatResponse(message=message, delta=response.delta, raw=response.raw)

    llm = Thinking(script=thinking(kit, skeleton="1. Dark room\n2. Quiet room", point="It helps."))
    assert str(await ask(llm, "How do I sleep?")) == ANSWER
