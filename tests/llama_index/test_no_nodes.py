"""Queries for which nothing is retrieved, nodes without text, texts that a transform adds, and windows without room."""

from __future__ import annotations

import asyncio
import base64
import logging

import numpy as np
import pytest
from llama_index.core.base.llms.types import ImageBlock, LLMMetadata, TextBlock
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine, RetryQueryEngine, TransformQueryEngine
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle

from llama_index_sot import SkeletonOfThoughtQueryEngine, SkeletonOfThoughtSynthesizer
from llama_index_sot.events import AnswerDelta, AnswerRestarted, SkeletonRestarted
from llama_index_sot.templates import asked_question
from skeleton_of_thought.errors import InvalidInput, PromptTooLong

TITLES = ["Move", "Drink water", "Sleep more"]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def windowed(kit, window):
    """A chat LLM with a window of so many tokens, of which 200 are kept for its reply."""
    meta = LLMMetadata(is_chat_model=True, context_window=window, num_output=200)
    return kit.ChatLLM(script=kit.answering(TITLES), meta=meta)


@pytest.fixture
def llm(kit):
    return kit.ChatLLM(script=kit.answering(TITLES))


@pytest.fixture
def nothing(kit):
    return kit.AsyncRetriever(lambda query: [])


def stages(llm):
    return [seen.stage for seen in llm.watch.seen]


# --- nothing is retrieved ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_an_answer_without_any_node_is_the_empty_response(ask, llm, nothing, retrieval):
    response = await ask(llm, "How?", retriever=nothing, retrieval=retrieval)
    assert str(response) == "Empty Response"
    assert response.source_nodes == []
    assert response.points == []
    assert stages(llm) == ([] if retrieval == "once" else ["skeleton"])
    sot = response.metadata["sot"]
    assert (sot["route"], sot["reason"], sot["finish_reason"]) == ("direct", "nothing was retrieved", "no_sources")


@pytest.mark.parametrize("settings", [{"eager": True}, {"merge": True}, {"join": "headings"}, {"citations": True}])
async def test_so_it_is_with_other_settings(ask, llm, nothing, settings):
    response = await ask(llm, "How?", retriever=nothing, empty_response="I do not know.", **settings)
    assert str(response) == "I do not know."
    assert "point" not in stages(llm)
    assert "merge" not in stages(llm)


async def test_so_it_is_for_a_direct_answer(ask, llm, nothing):
    response = await ask(llm, "How?", retriever=nothing, router=lambda query: False)
    assert str(response) == "Empty Response"
    assert llm.watch.seen == []
    assert len(nothing.watch.seen) == 1


async def test_a_point_without_nodes_has_the_empty_response(ask, llm, kit):
    found = kit.AsyncRetriever(lambda query: [] if query.startswith("Drink") else [kit.node(query)])
    response = await ask(llm, "How?", retriever=found, eager=True)
    assert str(response) == (
        "1. Move: All about move.\n\n2. Drink water: Empty Response\n\n3. Sleep more: All about sleep more."
    )
    assert sorted(seen.point for seen in llm.watch.seen if seen.stage == "point") == [1, 3]
    assert [point.finish_reason for point in response.points] == ["stop", "no_sources", "stop"]
    assert [point.error for point in response.points] == [None, None, None]


async def test_a_merge_leaves_out_points_without_nodes(ask, llm, kit):
    found = kit.AsyncRetriever(lambda query: [] if query.startswith("Drink") else [kit.node(query)])
    response = await ask(llm, "How?", retriever=found, merge=True)
    assert str(response) == "All in one."
    [merge] = [seen for seen in llm.watch.seen if seen.stage == "merge"]
    assert "All about move." in merge.text
    assert "Empty Response" not in merge.text


async def test_a_failed_retrieval_is_not_an_empty_one(ask, llm, kit):
    def find(query):
        if query.startswith("Drink"):
            raise LookupError("no such index")
        return []

    settings = {"on_point_error": "placeholder", "placeholder": "(missing)", "max_retries": 0}
    response = await ask(llm, "How?", retriever=kit.AsyncRetriever(find), **settings)
    assert str(response) == "1. Move: Empty Response\n\n2. Drink water: (missing)\n\n3. Sleep more: Empty Response"


async def test_a_stream_shows_nothing_of_points_that_all_lack_nodes(llm, nothing):
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=nothing, router=None, eager=True)
    events = [event async for event in engine.astream_events("How?")]
    assert [event.text for event in events if isinstance(event, AnswerDelta)] == ["Empty Response"]
    assert not any(isinstance(event, AnswerRestarted) for event in events)
    # All events about the points are void.
    [restarted] = [event for event in events if isinstance(event, SkeletonRestarted)]
    assert restarted.titles == TITLES


async def test_the_first_point_with_nodes_is_streamed_before_the_others_are_searched_for(llm, kit):
    gate = kit.Gate()
    found = kit.AsyncRetriever(
        lambda query: [kit.node(query)], lambda query: gate if query.startswith("Sleep") else None
    )
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=found, router=None)
    text = ""
    async for event in engine.astream_events("How?"):
        if isinstance(event, AnswerDelta):
            text += event.text
            if "All about move." in text:
                gate.open()
    assert text.endswith("3. Sleep more: All about sleep more.")


async def test_the_engine_and_the_synthesizer_agree_with_llamaindex(llm, nothing):
    own = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=nothing, retrieval="once", router=None)
    over = RetrieverQueryEngine(nothing, SkeletonOfThoughtSynthesizer(llm, router=None))
    theirs = RetrieverQueryEngine.from_args(nothing, llm=MockLLM())
    assert {str(await one.aquery("How?")) for one in (own, over, theirs)} == {"Empty Response"}
    for made in (SkeletonOfThoughtSynthesizer, SkeletonOfThoughtQueryEngine.from_defaults):
        with pytest.raises(InvalidInput, match="on_no_nodes must be"):
            made(llm, on_no_nodes="nothing")
        with pytest.raises(InvalidInput, match="empty_response must be a text"):
            made(llm, empty_response=3)


async def test_a_chat_engine_over_the_engine_gives_the_empty_response(llm, nothing):
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=nothing, router=None)
    memory = ChatMemoryBuffer.from_defaults(llm=llm)  # the default memory has a database
    chat = CondenseQuestionChatEngine.from_defaults(engine, memory=memory, llm=llm)
    assert str(await chat.achat("How?")) == "Empty Response"


# --- nodes without text --------------------------------------------------------------------------------------------


def image(name="plan", **fields):
    return NodeWithScore(node=ImageNode(id_=name, image=base64.b64encode(PIXEL).decode(), **fields), score=1.0)


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_node_without_text_is_reported_once(ask, llm, kit, retrieval, caplog):
    found = kit.AsyncRetriever(lambda query: [image(), kit.node("a")])
    with caplog.at_level(logging.WARNING, "llama_index_sot"):
        response = await ask(llm, "How?", retriever=found, retrieval=retrieval)
    [line] = [record.getMessage() for record in caplog.records if "have no text" in record.getMessage()]
    assert "1 of 2" in line
    assert "ImageNode plan" in line
    assert "plan" in [node.node.node_id for node in response.source_nodes]


async def test_each_synthesizer_reports_it(llm, caplog):
    for _ in range(2):
        synthesizer = SkeletonOfThoughtSynthesizer(llm, router=None)
        for _ in range(2):
            await synthesizer.asynthesize("How?", [image()])
    assert sum("have no text" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_chat_llm_sees_the_images_of_its_nodes(ask, llm, kit, retrieval, caplog):
    found = kit.AsyncRetriever(
        lambda query: [kit.node("a", "A fact."), *([] if query.startswith("Drink") else [image(text="A plan.")])]
    )
    await ask(llm, "How?", retriever=found, retrieval=retrieval, multimodal=True)
    shown = {}
    for seen in llm.watch.seen:
        blocks = seen.messages[-1].blocks
        assert isinstance(blocks[0], TextBlock)
        shown[seen.point or seen.stage] = [type(block) for block in blocks[1:]]
    per_point = retrieval == "per_point"
    other = [] if per_point else [ImageBlock]
    assert shown == {"skeleton": other, 1: [ImageBlock], 2: other, 3: [ImageBlock]}
    assert not any("have no text" in record.getMessage() for record in caplog.records)


async def test_a_direct_answer_sees_the_images_too(llm, kit):
    found = kit.AsyncRetriever(lambda query: [image()])
    engine = SkeletonOfThoughtQueryEngine.from_defaults(
        llm, retriever=found, router=lambda query: False, multimodal=True
    )
    assert str(await engine.aquery("How?")) == "Just so."
    [seen] = llm.watch.seen
    assert [type(block) for block in seen.messages[-1].blocks] == [TextBlock, ImageBlock]


def test_images_are_refused_for_llms_that_take_text(kit):
    for made in (SkeletonOfThoughtSynthesizer, SkeletonOfThoughtQueryEngine.from_defaults):
        with pytest.raises(InvalidInput, match="needs a chat LLM that takes images"):
            made(kit.SyncLLM(script=kit.answering(TITLES)), multimodal=True)


# --- texts that a transform wants to be embedded -------------------------------------------------------------------


@pytest.mark.parametrize("include_original", [True, False])
async def test_a_hypothetical_answer_is_embedded_beside_each_points_own_query(llm, kit, include_original):
    found = kit.AsyncRetriever(lambda query: [kit.node(query)])
    engine = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=found, router=None)
    hyde = HyDEQueryTransform(kit.ChatLLM(script=lambda seen: ["One should run."]), include_original=include_original)
    await TransformQueryEngine(engine, hyde).aquery("How?")
    embedded = sorted(seen.query.embedding_strs for seen in found.watch.seen)
    assert embedded == sorted([title, f"{title} (How?)", "One should run."] for title in TITLES)


async def test_so_it_is_for_a_template_of_the_users(ask, llm, kit):
    found = kit.AsyncRetriever(lambda query: [kit.node(query)])
    query = QueryBundle("How?", custom_embedding_strs=["One should run."])
    await ask(llm, query, retriever=found, point_query_template="{title}!")
    assert sorted(seen.query.embedding_strs for seen in found.watch.seen) == sorted(
        [f"{title}!", "One should run."] for title in TITLES
    )
    assert query == QueryBundle("How?", custom_embedding_strs=["One should run."])


async def test_with_one_retrieval_the_whole_query_is_searched_for(ask, llm, kit):
    found = kit.AsyncRetriever(lambda query: [kit.node(query)])
    query = QueryBundle("How?", custom_embedding_strs=["One should run.", "How?"])
    await ask(llm, query, retriever=found, retrieval="once")
    [sought] = found.watch.seen
    assert sought.query.embedding_strs == ["One should run.", "How?"]


# --- retries -------------------------------------------------------------------------------------------------------


class Fails(BaseEvaluator):
    """Rejects the first answers."""

    def __init__(self, feedback, times):
        self.feedback, self.times = feedback, times

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    async def aevaluate(self, query=None, response=None, contexts=None, **kwargs):
        self.times -= 1
        return EvaluationResult(query=query, response=response, passing=self.times < 0, feedback=self.feedback)


@pytest.mark.parametrize("feedback", ["NO", "It is too vague.\nName three things."])
@pytest.mark.parametrize(
    "question", ["What is 17 * 4?", "What are good ways to stay awake during long drives at night?"]
)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_retry_keeps_the_route_of_its_question(llm, question, feedback, times, monkeypatch):
    monkeypatch.setattr("llama_index.core.Settings._llm", MockLLM())
    asked = []
    made = SkeletonOfThoughtQueryEngine.from_defaults(llm)
    routes = []
    original = made._query
    made._query = lambda query: asked.append(query) or (routes.append(original(query)) or routes[-1])
    engine = RetryQueryEngine(made, Fails(feedback, times), max_retries=3)
    await asyncio.to_thread(engine.query, question)
    assert len(asked) == times + 1
    assert {asked_question(query) for query in asked} == {question}
    assert len({response.metadata["sot"]["route"] for response in routes}) == 1
    # The LLM sees the earlier answer.
    assert "previous bad answer" in llm.watch.seen[-1 if len(stages(llm)) <= times + 1 else -4].text


async def test_a_retry_searches_for_its_question(llm, kit, monkeypatch):
    monkeypatch.setattr("llama_index.core.Settings._llm", MockLLM())
    found = kit.SyncRetriever(lambda query: [kit.node(query)])
    made = SkeletonOfThoughtQueryEngine.from_defaults(llm, retriever=found, router=None)
    await asyncio.to_thread(RetryQueryEngine(made, Fails("NO", 1)).query, "How?")
    assert sorted({seen.query.query_str for seen in found.watch.seen}) == sorted(f"{title} (How?)" for title in TITLES)


def test_the_text_to_embed_is_not_taken_for_the_question():
    query = QueryBundle("How does a heat pump work in winter?", custom_embedding_strs=["heat pump"])
    assert asked_question(query) == query.query_str
    assert asked_question(QueryBundle("Here is a previous bad answer.\n")) == "Here is a previous bad answer.\n"


# --- windows and numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_window_without_room_is_an_error_before_any_call(ask, kit, retrieval):
    llm = windowed(kit, 256)
    found = kit.AsyncRetriever(lambda query: [kit.node(query)])
    with pytest.raises(PromptTooLong, match=r"256 tokens, 200 of them for its reply.*max_points"):
        await ask(llm, "How?", retriever=found, retrieval=retrieval)
    assert llm.watch.seen == found.watch.seen == []


async def test_so_it_is_for_the_synthesizer(kit):
    llm = windowed(kit, 256)
    with pytest.raises(PromptTooLong):
        await SkeletonOfThoughtSynthesizer(llm, router=None).asynthesize("How?", [kit.node("a")])
    assert llm.watch.seen == []


async def test_a_direct_answer_needs_less_room(ask, kit):
    llm = windowed(kit, 290)
    found = kit.AsyncRetriever(lambda query: [kit.node(query)])
    response = await ask(llm, "What is 17 * 4?", retriever=found, router="auto")
    assert str(response) == "Just so."
    with pytest.raises(PromptTooLong):
        await ask(llm, "What is 17 * 4?", retriever=found, router=None)


async def test_chunks_without_a_share_of_the_window_are_left_out(ask, kit):
    llm = windowed(kit, 520)
    found = kit.AsyncRetriever(lambda query: [kit.node(f"n{i}", f"Fact {i}. " * 50) for i in range(300)])
    response = await ask(llm, "How?", retriever=found, retrieval="once")
    assert len(response.points) == 3
    assert 0 < llm.watch.seen[0].text.count("Fact") < 300


async def test_numbers_of_numpy_are_numbers(ask, llm):
    settings = {
        "max_points": np.int64(2), "min_points": np.int8(1), "max_retries": np.int32(0), "point_words": np.int16(9),
        "num_workers": np.int64(2), "backoff": np.float32(0.5), "point_timeout": np.float64(60),
    }  # fmt: skip
    response = await ask(llm, "How?", **settings)
    assert [point.title for point in response.points] == TITLES[:2]


@pytest.mark.parametrize(
    "option", [{"max_points": np.int64(0)}, {"num_workers": np.float64(2)}, {"max_points": np.True_}]
)
def test_bad_numbers_of_numpy_are_refused(llm, option):
    with pytest.raises(InvalidInput, match="must be"):
        SkeletonOfThoughtQueryEngine.from_defaults(llm, **option)
