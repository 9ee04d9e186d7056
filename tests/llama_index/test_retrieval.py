"""Retrieval once and per point: its queries, the contexts of prompts, and the sources of responses."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.schema import QueryBundle

from llama_index_sot import SkeletonOfThoughtQueryEngine
from skeleton_of_thought.errors import PointError

TITLES = ["Move", "Drink water", "Sleep more"]


def by_point(kit):
    """Two nodes for each query: its own, and one that all queries share."""

    def find(query):
        name = query.partition(" (")[0]
        return [kit.node(f"own-{name}", f"A fact about {name}."), kit.node("shared", "A fact for all.")]

    return find


@pytest.fixture(params=["SyncRetriever", "AsyncRetriever"])
def retriever(request, kit):
    return getattr(kit, request.param)(by_point(kit))


@pytest.fixture
def llm(kit):
    return kit.ChatLLM(script=kit.answering(TITLES))


def ids(nodes):
    return [node.node.node_id for node in nodes]


# --- per point -------------------------------------------------------------------------------------


async def test_a_point_is_embedded_by_its_title_alone_and_beside_the_question(ask, llm, retriever):
    await ask(llm, "How?", retriever=retriever)
    embedded = sorted(seen.query.embedding_strs for seen in retriever.watch.seen)
    assert embedded == sorted([title, f"{title} (How?)"] for title in TITLES)


async def test_each_point_has_one_retrieval_and_sees_its_own_nodes_only(ask, llm, retriever):
    response = await ask(llm, "How?", retriever=retriever)
    assert sorted(seen.query.query_str for seen in retriever.watch.seen) == sorted(f"{t} (How?)" for t in TITLES)
    for i, title in enumerate(TITLES, 1):
        (seen,) = llm.watch.of("point", i)
        assert f"A fact about {title}." in seen.text
        assert "A fact for all." in seen.text
        assert not any(f"A fact about {other}." in seen.text for other in TITLES if other != title)
        assert response.points[i - 1].node_ids == (f"own-{title}", "shared")
    assert "A fact" not in llm.watch.of("skeleton")[0].text
    assert response.metadata["sot"]["retrieval"] == "per_point"


async def test_the_union_of_all_nodes_has_each_once_in_document_order(ask, llm, retriever):
    response = await ask(llm, "How?", retriever=retriever)
    assert ids(response.source_nodes) == ["own-Move", "shared", "own-Drink water", "own-Sleep more"]


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
@pytest.mark.parametrize("eager", [False, True])
async def test_sources_are_complete_before_a_stream_is_read(llm, retriever, kit, retrieval, eager):
    engine = kit.make(llm, retriever=retriever, retrieval=retrieval, streaming=True, eager=eager)
    wanted = len(TITLES) + 1 if retrieval == "per_point" else 2
    response = await engine.aquery("How?")
    sync = await asyncio.to_thread(engine.query, "How?")
    for early in (response, sync):
        assert len(early.source_nodes) == wanted
        if retrieval == "per_point":
            assert [(point.title, len(point.node_ids)) for point in early.points] == [(t, 2) for t in TITLES]
    assert llm.watch.of("point") == []
    before = ids(response.source_nodes)
    whole = await response.get_response()
    assert ids(whole.source_nodes) == before
    assert str(whole).startswith("1. Move: All about move.")
    assert await asyncio.to_thread(str, sync) == str(whole)


async def test_a_retrieval_that_fails_is_a_failure_of_its_point(ask, llm, kit):
    def find(query):
        if "water" in query:
            raise LookupError("no such index")
        return [kit.node(query)]

    retriever = kit.AsyncRetriever(find)
    with pytest.raises(PointError, match="retrieval for point 2") as caught:
        await ask(llm, "How?", retriever=retriever, max_retries=0)
    assert isinstance(caught.value.__cause__, LookupError)
    response = await ask(llm, "How?", retriever=retriever, on_point_error="placeholder")
    assert [point.error for point in response.points] == [None, "LookupError: no such index", None]
    assert len(response.source_nodes) == 2


async def test_a_direct_answer_has_one_retrieval_for_the_query(ask, llm, retriever):
    response = await ask(llm, "What?", retriever=retriever, router=lambda query: False)
    assert [seen.query.query_str for seen in retriever.watch.seen] == ["What?"]
    assert "A fact about What?." in llm.watch.of("direct")[0].text
    assert ids(response.source_nodes) == ["own-What?", "shared"]


# --- once ------------------------------------------------------------------------------------------


async def test_once_every_prompt_shows_the_nodes(ask, llm, retriever):
    response = await ask(llm, "How?", retriever=retriever, retrieval="once")
    assert [seen.query.query_str for seen in retriever.watch.seen] == ["How?"]
    assert all("A fact about How?." in seen.text for seen in llm.watch.seen)
    assert ids(response.source_nodes) == ["own-How?", "shared"]


async def test_the_bundle_reaches_the_retriever_and_is_not_written_into(ask, llm, retriever):
    bundle = QueryBundle("How?", custom_embedding_strs=["a", "b"])
    await ask(llm, bundle, retriever=retriever, retrieval="once")
    (seen,) = retriever.watch.seen
    assert seen.query.embedding_strs == ["a", "b"]
    assert bundle.embedding is None


async def test_a_retrieval_that_fails_fails_the_answer(ask, llm, kit):
    def find(query):
        raise LookupError("no such index")

    with pytest.raises(LookupError, match="no such index"):
        await ask(llm, "How?", retriever=kit.AsyncRetriever(find), retrieval="once", max_retries=0)
    assert llm.watch.seen == []


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_without_nodes_the_prompts_are_those_without_retrieval(ask, llm, kit, retrieval):
    nothing = kit.AsyncRetriever(lambda query: [])
    response = await ask(llm, "How?", retriever=nothing, retrieval=retrieval, on_no_nodes="answer")
    assert response.source_nodes == []
    assert not any("<context>" in seen.text for seen in llm.watch.seen)
    assert len(response.points) == 3


# --- postprocessors --------------------------------------------------------------------------------


class Marking(BaseNodePostprocessor):
    """Records the query, and keeps the first node."""

    queries: list

    def _postprocess_nodes(self, nodes, query_bundle=None):
        self.queries.append(query_bundle.query_str)
        return nodes[:1]


class AsyncMarking(Marking):
    async def _apostprocess_nodes(self, nodes, query_bundle=None):
        self.queries.append(query_bundle.query_str)
        return nodes[:1]


@pytest.mark.parametrize("kind", [Marking, AsyncMarking])
@pytest.mark.parametrize(("retrieval", "wanted"), [("once", ["How?"]), ("per_point", [f"{t} (How?)" for t in TITLES])])
async def test_postprocessors_get_the_query_that_was_retrieved_for(ask, llm, retriever, kind, retrieval, wanted):
    marking = kind(queries=[])
    response = await ask(llm, "How?", retriever=retriever, retrieval=retrieval, node_postprocessors=[marking])
    assert sorted(marking.queries) == sorted(wanted)
    assert "shared" not in ids(response.source_nodes)
    assert not any("A fact for all." in seen.text for seen in llm.watch.seen)


async def test_postprocessors_run_in_order_and_know_the_callbacks(ask, llm, kit):
    manager = CallbackManager([kit.Legacy()])
    cutoff, marking = SimilarityPostprocessor(similarity_cutoff=0.5), Marking(queries=[])
    retriever = kit.AsyncRetriever(lambda query: [kit.node("low", score=0.1), kit.node("high", score=0.9)])
    response = await ask(
        llm, "How?", retriever=retriever, node_postprocessors=[cutoff, marking], callback_manager=manager
    )
    assert ids(response.source_nodes) == ["high"]
    assert marking.callback_manager is manager


# --- engines as retrievers -------------------------------------------------------------------------


async def test_an_engine_that_retrieves_takes_the_place_of_a_retriever(ask, kit, retriever, llm):
    marking = Marking(queries=[])
    inner = RetrieverQueryEngine(
        retriever, response_synthesizer=CompactAndRefine(llm=kit.SyncLLM(script=None)), node_postprocessors=[marking]
    )
    response = await ask(llm, "How?", query_engine=inner)
    assert [point.node_ids for point in response.points] == [(f"own-{title}",) for title in TITLES]
    assert sorted(marking.queries) == sorted(f"{title} (How?)" for title in TITLES)


def test_the_llm_of_an_engine_is_the_default(kit, retriever, llm):
    inner = RetrieverQueryEngine(retriever, response_synthesizer=CompactAndRefine(llm=llm))
    SkeletonOfThoughtQueryEngine.from_defaults(query_engine=inner, router=None).query("How?")
    assert len(llm.watch.seen) == 4


def test_an_engine_that_cannot_retrieve_is_refused(kit, llm):
    class Plain(BaseQueryEngine):
        def _query(self, query_bundle):
            raise AssertionError

        async def _aquery(self, query_bundle):
            raise AssertionError

        def _get_prompt_modules(self):
            return {}

    with pytest.raises(ValueError, match="does not retrieve"):
        kit.make(llm, query_engine=Plain(None))


def test_a_retriever_and_an_engine_or_a_retriever_for_nothing_are_refused(kit, llm, retriever):
    inner = RetrieverQueryEngine(retriever, response_synthesizer=CompactAndRefine(llm=llm))
    with pytest.raises(ValueError, match="not both"):
        kit.make(llm, query_engine=inner, retriever=retriever)
    with pytest.raises(ValueError, match="never uses it"):
        kit.make(llm, retriever=retriever, retrieval="none")


def test_from_args_takes_the_retriever_first(kit, llm, retriever, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", llm)
    response = SkeletonOfThoughtQueryEngine.from_args(retriever, max_points=2, router=None).query("How?")
    assert len(response.points) == 2
    assert response.metadata["sot"]["retrieval"] == "per_point"


async def test_the_engine_retrieves_for_others(kit, llm, retriever):
    engine = kit.make(llm, retriever=retriever, node_postprocessors=[Marking(queries=[])])
    assert ids(engine.retrieve(QueryBundle("How?"))) == ["own-How?"]
    assert ids(await engine.aretrieve(QueryBundle("How?"))) == ["own-How?"]
    with pytest.raises(NotImplementedError):
        kit.make(llm).retrieve(QueryBundle("How?"))


# --- citations -------------------------------------------------------------------------------------


async def test_markers_resolve_to_source_nodes(ask, kit, retriever):
    def script(seen):
        if seen.stage == "skeleton":
            return ["1. Move\n2. Drink water\n3. Sleep more"]
        own = seen.text.split("] A fact about ")[0].rsplit("[", 1)[1]
        shared = seen.text.split("] A fact for all")[0].rsplit("[", 1)[1]
        return [f"So it is [{own}, {shared}] and so [{own}], not [99]."]

    llm = kit.ChatLLM(script=script)
    response = await ask(llm, "How?", retriever=retriever, citations=True)
    assert len(response.source_nodes) == 4
    for point, title in zip(response.points, TITLES, strict=True):
        cited = ids(response.source_nodes[number - 1] for number in point.citations)
        assert cited == [f"own-{title}", "shared"]
    assert all("the number of its source" in seen.text for seen in llm.watch.of("point"))


async def test_once_the_numbers_are_those_of_the_source_nodes(ask, kit, retriever):
    llm = kit.ChatLLM(script=kit.answering(["Move [2]"]))
    response = await ask(llm, "How?", retriever=retriever, retrieval="once", citations=True)
    assert "[1] A fact about How?.\n\n[2] A fact for all." in llm.watch.of("point")[0].text
    assert ids(response.source_nodes) == ["own-How?", "shared"]


async def test_without_citations_there_are_no_numbers(ask, llm, retriever):
    response = await ask(llm, "How?", retriever=retriever)
    assert not any("[1]" in seen.text for seen in llm.watch.seen)
    assert all(point.citations == () for point in response.points)


# --- the window ------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_context_longer_than_the_window_is_cut_and_each_node_keeps_a_share(ask, kit, retrieval):
    window, output = 1500, 100
    llm = kit.ChatLLM(
        script=kit.answering(TITLES),
        meta=LLMMetadata(is_chat_model=True, context_window=window, num_output=output),
    )
    retriever = kit.AsyncRetriever(lambda query: [kit.node(f"n{i}", f"word{i} " * 2000) for i in range(3)])
    count = PromptHelper()._token_counter.get_string_tokens
    await ask(llm, "How?", retriever=retriever, retrieval=retrieval)
    for seen in llm.watch.of("point"):
        assert count(seen.text) + output <= window
        assert all(f"word{i} word{i}" in seen.text for i in range(3))


async def test_a_context_that_fits_is_left_as_it_is(ask, kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    texts = ["short", "long " * 600]
    retriever = kit.AsyncRetriever(lambda query: [kit.node(f"n{i}", text) for i, text in enumerate(texts)])
    await ask(llm, "How?", retriever=retriever)
    assert all("\n\n".join(text.strip() for text in texts) in seen.text for seen in llm.watch.of("point"))


async def test_a_prompt_helper_of_ones_own_counts(ask, kit):
    llm = kit.ChatLLM(script=kit.answering(TITLES))
    retriever = kit.AsyncRetriever(lambda query: [kit.node("n", "word " * 500)])
    helper = PromptHelper(context_window=3900, num_output=100, chunk_size_limit=50)
    await ask(llm, "How?", retriever=retriever, prompt_helper=helper)
    assert all(10 < seen.text.count("word ") < 60 for seen in llm.watch.of("point"))
