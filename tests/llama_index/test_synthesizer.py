"""The synthesizer: over given nodes, in LlamaIndex's engines and chat engines, and without any nodes."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import QueryBundle
from pydantic import BaseModel

from llama_index_sot import SkeletonOfThoughtSynthesizer

TITLES = ["Move", "Drink water"]
TEXT = "1. Move: All about move.\n\n2. Drink water: All about drink water."


@pytest.fixture
def nodes(kit):
    return [kit.node("a", "Fact A."), kit.node("b", "Fact B.")]


async def _synthesize(synthesizer, query, nodes, **more):
    return await asyncio.to_thread(lambda: synthesizer.synthesize(query, nodes, **more))


async def _asynthesize(synthesizer, query, nodes, **more):
    return await synthesizer.asynthesize(query, nodes, **more)


async def _stream(synthesizer, query, nodes, **more):
    synthesizer._streaming = True
    response = await _synthesize(synthesizer, query, nodes, **more)
    assert isinstance(response, StreamingResponse)
    return await asyncio.to_thread(response.get_response)


async def _astream(synthesizer, query, nodes, **more):
    synthesizer._streaming = True
    response = await synthesizer.asynthesize(query, nodes, **more)
    assert isinstance(response, AsyncStreamingResponse)
    return await response.get_response()


async def _astream_str(synthesizer, query, nodes, **more):
    synthesizer._streaming = True
    response = await synthesizer.asynthesize(query, nodes, **more)
    str(response)
    return await response.get_response()


WAYS = {
    "synthesize": _synthesize,
    "asynthesize": _asynthesize,
    "stream": _stream,
    "astream": _astream,
    "astream_str": _astream_str,
}


@pytest.fixture(params=list(WAYS))
def synthesize(request):
    return WAYS[request.param]


def synthesizer(llm, **settings):
    return SkeletonOfThoughtSynthesizer(llm, **{"router": None, "backoff": 0.0, **settings})


# --- by itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["How?", QueryBundle("How?")], ids=["str", "bundle"])
async def test_every_prompt_shows_all_nodes(synthesize, LLMClass, kit, nodes, query):
    llm = LLMClass(script=kit.answering(TITLES))
    response = await synthesize(synthesizer(llm), query, nodes, additional_source_nodes=[kit.node("c")])
    assert str(response) == TEXT
    assert [point.title for point in response.points] == TITLES
    assert [source.node.node_id for source in response.source_nodes] == ["a", "b", "c"]
    assert len(llm.watch.seen) == 3
    assert all("Fact A.\n\nFact B." in seen.text for seen in llm.watch.seen)
    assert response.metadata["sot"]["route"] == "skeleton"
    assert set(response.metadata) == {"sot", "a", "b", "c"}


@pytest.mark.parametrize("streaming", [False, True])
async def test_get_response_returns_the_text_alone(LLMClass, kit, streaming):
    made = synthesizer(LLMClass(script=kit.answering(TITLES)), streaming=streaming)
    text = await asyncio.to_thread(made.get_response, "How?", ["Fact A."])
    assert await asyncio.to_thread("".join, text) == TEXT
    text = await made.aget_response("How?", ["Fact A."])
    assert (text if isinstance(text, str) else "".join([piece async for piece in text])) == TEXT


async def test_without_nodes_the_empty_response_needs_no_call(synthesize, LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    response = await synthesize(synthesizer(llm), "How?", [])
    assert (str(response), response.source_nodes, response.points) == ("Empty Response", [], [])
    assert str(await synthesize(synthesizer(llm, empty_response="Nothing found."), "How?", [])) == "Nothing found."
    assert llm.watch.seen == []


async def test_without_nodes_the_llm_may_answer_alone(synthesize, LLMClass, kit):
    llm = LLMClass(script=kit.answering(TITLES))
    response = await synthesize(synthesizer(llm, on_no_nodes="answer"), "How?", [])
    assert str(response) == TEXT
    assert not any("<context>" in seen.text for seen in llm.watch.seen)


async def test_a_long_context_is_packed_into_the_window(synthesize, kit):
    meta = LLMMetadata(is_chat_model=True, context_window=1500, num_output=100)
    llm = kit.ChatLLM(script=kit.answering(TITLES), meta=meta)
    nodes = [kit.node(f"n{i}", f"word{i} " * 2000) for i in range(3)]
    response = await synthesize(synthesizer(llm), "How?", nodes)
    assert len(response.source_nodes) == 3
    count = synthesizer(llm)._prompt_helper._token_counter.get_string_tokens
    for seen in llm.watch.seen:
        assert count(seen.text) + 100 <= 1500
        assert all(f"word{i} word{i}" in seen.text for i in range(3))


async def test_numbered_nodes_are_cited_once_each(synthesize, kit, nodes):
    def script(seen):
        return ["1. Move\n2. Drink water"] if seen.stage == "skeleton" else ["So [2], [1], not [3]."]

    response = await synthesize(synthesizer(kit.ChatLLM(script=script), citations=True), "How?", [*nodes, nodes[0]])
    assert [point.citations for point in response.points] == [(2, 1), (2, 1)]
    assert [source.node.node_id for source in response.source_nodes] == ["a", "b"]


async def test_values_of_the_caller_reach_the_templates(synthesize, kit, nodes):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    made = synthesizer(llm, skeleton_template="outline {query_str} in {tone}")
    await synthesize(made, "How?", nodes, tone="verse")
    assert "outline How? in verse" in llm.watch.of("skeleton")[0].text


def test_the_synthesizers_prompts_round_trip(kit, nodes):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    made = synthesizer(llm)
    assert "point_query_template" not in made.get_prompts()
    made.update_prompts(made.get_prompts())
    assert made._templates.own == {}
    made.update_prompts({"context_template": PromptTemplate("KNOWN {context_str}")})
    made.synthesize("How?", nodes)
    assert all("KNOWN Fact A." in seen.text for seen in llm.watch.seen)


def test_the_llm_keeps_its_own_callbacks(kit, nodes):
    manager, legacy = CallbackManager([]), kit.Legacy()
    llm = kit.SyncLLM(script=kit.answering(TITLES), callback_manager=manager)
    made = synthesizer(llm, callback_manager=CallbackManager([legacy]))
    made.synthesize("How?", nodes)
    assert llm.callback_manager is manager
    (start,) = [e for e in legacy.started if e.type == CBEventType.SYNTHESIZE]
    (end,) = [e for e in legacy.ended if e.type == CBEventType.SYNTHESIZE]
    assert start.payload[EventPayload.QUERY_STR] == "How?"
    assert str(end.payload[EventPayload.RESPONSE]) == TEXT


async def test_the_instrumentation_gets_the_synthesizers_events_and_spans(
    synthesize, LLMClass, kit, nodes, instrumented
):
    await synthesize(synthesizer(LLMClass(script=kit.answering(TITLES))), "How?", nodes)
    assert len(instrumented.events.of(SynthesizeStartEvent)) == len(instrumented.events.of(SynthesizeEndEvent)) == 1
    spans = instrumented.spans
    assert len([parent for parent in spans.parents.values() if parent is None]) == 1
    assert spans.open_spans == {}


class Name(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_no_nodes": "guess"}, "on_no_nodes"),
        ({"max_points": 0}, "max_points"),
        ({"concurrency": "fast"}, "concurrency"),
        ({"num_workers": 0}, "num_workers"),
        ({"llm": StructuredLLM(llm=MockLLM(), output_cls=Name)}, "pass the LLM inside of it, MockLLM"),
        ({"skeleton_template": "Hm."}, "query_str"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SkeletonOfThoughtSynthesizer(**{"llm": MockLLM(), **settings})


# --- in LlamaIndex's engines -----------------------------------------------------------------------


@pytest.fixture
def index():
    documents = [Document(text="Bergen is rainy.", metadata={"city": "Bergen"}), Document(text="Oslo is dry.")]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=4))


async def test_an_indexs_query_engine_uses_the_synthesizer(LLMClass, kit, index):
    llm = LLMClass(script=kit.answering(TITLES))
    engine = index.as_query_engine(response_synthesizer=synthesizer(llm), llm=llm)
    for response in (engine.query("How?"), await engine.aquery("How?")):
        assert str(response) == TEXT
        assert len(response.source_nodes) == 2
        assert len(response.points) == 2
    assert all("Bergen is rainy." in seen.text for seen in llm.watch.seen)


async def test_the_synthesizer_streams_in_an_indexs_query_engine(LLMClass, kit, index):
    llm = LLMClass(script=kit.answering(TITLES))
    engine = index.as_query_engine(response_synthesizer=synthesizer(llm, streaming=True), llm=llm)
    response = engine.query("How?")
    assert len(response.source_nodes) == 2
    assert "".join(response.response_gen) == TEXT
    response = await engine.aquery("How?")
    assert "".join([text async for text in response.async_response_gen()]) == TEXT
    assert len(response.points) == 2
    assert len(response.source_nodes) == 2


async def test_a_condense_question_chat_engine_uses_the_synthesizer(kit, index):
    llm = kit.SyncLLM(script=kit.answering(TITLES))
    # The default memory keeps a database open until it is collected.
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    engine = index.as_chat_engine("condense_question", llm=llm, memory=memory, response_synthesizer=synthesizer(llm))
    assert isinstance(engine, CondenseQuestionChatEngine)
    response = engine.chat("How?")
    assert str(response) == TEXT
    assert len(response.source_nodes) == 2
    assert str(await engine.achat("How?")) == TEXT
    streamed = engine.stream_chat("How?")
    assert "".join(streamed.response_gen) == TEXT
    streamed = await engine.astream_chat("How?")
    assert "".join([text async for text in streamed.async_response_gen()]) == TEXT
    assert engine.chat_history[-1].content.strip() == TEXT


async def test_a_citation_engine_uses_the_synthesizer(kit, index):
    def script(seen):
        return ["1. Move\n2. Drink water"] if seen.stage == "skeleton" else ["It rains [1]."]

    llm = kit.ChatLLM(script=script)
    engine = CitationQueryEngine.from_args(index, llm=llm, response_synthesizer=synthesizer(llm))
    for response in (engine.query("How?"), await engine.aquery("How?")):
        assert str(response) == "1. Move: It rains [1].\n\n2. Drink water: It rains [1]."
        assert response.source_nodes[0].node.get_content().startswith("Source 1:")
    assert all("Source 1:" in seen.text and "Source 2:" in seen.text for seen in llm.watch.seen)
    assert "response_synthesizer:point_template" in engine.get_prompts()


async def test_an_engine_without_nodes_returns_the_empty_response(kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    engine = RetrieverQueryEngine(kit.AsyncRetriever(lambda query: []), response_synthesizer=synthesizer(llm))
    assert str(engine.query("How?")) == "Empty Response"
    assert str(await engine.aquery("How?")) == "Empty Response"
    assert llm.watch.seen == []
