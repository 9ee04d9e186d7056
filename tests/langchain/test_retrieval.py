"""The chain's own retrieval: once for a question, or for each point."""

from __future__ import annotations

import asyncio
import json
import operator
import threading
from typing import Any

import pytest
from always import skeleton_chain
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import FakeEmbeddings
from langchain_core.language_models import FakeListLLM
from langchain_core.load import dumpd
from langchain_core.messages import SystemMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_sot import SkeletonOfThoughtChain, load_chain
from langchain_sot.results import AnswerDict
from skeleton_of_thought.errors import InvalidInput, PointError

TITLES = ["Take breaks", "Move", "Sleep"]
POINTS = {"1": "All about take breaks.", "2": "All about move.", "3": "All about sleep."}
SHARED = Document("Known to all.", id="shared")
QUERIES = [f"{title} (Why?)" for title in TITLES]


class Library(BaseRetriever):
    """Finds a document that names the query, and one that it finds for every query.

    Attributes:
        script: Called with the query before each retrieval.
        found: How many of the two are returned.
        watch: Records the queries and how many retrievals are open.
    """

    script: Any = None
    found: int = 2
    watch: Any = None

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        with self.watch.call(query):
            if self.script is not None:
                self.script(query)
            return [Document(f"About {query}."), SHARED][: self.found]

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        with self.watch.call(query):
            await asyncio.sleep(0)
            if self.script is not None:
                self.script(query)
            return [Document(f"About {query}."), SHARED][: self.found]


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


@pytest.fixture
def library(kit):
    return Library(watch=kit.Watch())


# --- once ---


async def test_one_retrieval_for_the_question_is_shown_in_every_prompt(kit, way, llm, library):
    output = await way(skeleton_chain(llm=llm, retriever=library), "Why?")
    assert library.watch.seen == ["Why?"]
    assert [seen.stage for seen in llm.watch.seen] == ["skeleton", "point", "point", "point"]
    assert all(seen.text.count("About Why?.\n\nKnown to all.") == 1 for seen in llm.watch.seen)
    assert output["sources"] == [Document("About Why?."), SHARED]
    assert output["point_sources"] == {}
    assert output["points"] == POINTS
    assert list(output["timings"]["stages"]) == ["sources", "skeleton", "point"]
    assert list(output) == list(AnswerDict.__annotations__)


async def test_a_direct_answer_retrieves_once_for_the_question(way, llm, library):
    for retrieval in ("once", "per_point"):
        chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval, router=lambda question: False)
        output = await way(chain, [SystemMessage("Be kind."), ("human", "Why?")])
        assert output["sources"] == [Document("About Why?."), SHARED]
        assert output["point_sources"] == {}
        assert (output["route"], output["answer"]) == ("direct", "Just so.")
    assert library.watch.seen == ["Why?", "Why?"]
    for seen in llm.watch.seen:
        assert seen.messages[0].text == "Be kind."
        assert "About Why?." in seen.text


async def test_a_given_context_is_used_in_place_of_a_retrieval(way, llm, library):
    for retrieval in ("once", "per_point"):
        chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval)
        output = await way(chain, {"question": "Why?", "context": [SHARED]})
        assert output["sources"] == [SHARED]
    assert not library.watch.seen
    assert all("<context>\nKnown to all.\n</context>" in seen.text for seen in llm.watch.seen)
    await way(chain, {"question": "Why?", "context": []})
    assert sorted(library.watch.seen) == sorted(QUERIES)


async def test_the_context_fills_a_template_that_asks_for_it(way, llm, library):
    chain = skeleton_chain(llm=llm, retriever=library, point_prompt="{context}|The point to write: {index}. {title}")
    await way(chain, "Why?")
    assert llm.watch.of("point", 2)[0].text == "About Why?.\n\nKnown to all.|The point to write: 2. Move"


async def test_a_retrieval_that_finds_nothing_leaves_the_prompts_as_they_are(way, llm, library):
    library.found = 0
    output = await way(skeleton_chain(llm=llm, retriever=library), "Why?")
    assert output["sources"] == []
    assert not any("<context>" in seen.text for seen in llm.watch.seen)
    assert output["points"] == POINTS


# --- per point ---


@pytest.mark.parametrize("eager", [False, True])
async def test_each_point_shows_its_own_documents_alone(way, llm, library, eager):
    chain = skeleton_chain(llm=llm, retriever=library, retrieval="per_point", eager=eager)
    output = await way(chain, "Why?")
    assert sorted(library.watch.seen) == sorted(QUERIES)
    own = {str(i): Document(f"About {query}.") for i, query in enumerate(QUERIES, 1)}
    assert output["point_sources"] == {index: [document, SHARED] for index, document in own.items()}
    assert output["sources"] == [own["1"], SHARED, own["2"], own["3"]]
    assert output["points"] == POINTS
    assert "<context>" not in llm.watch.of("skeleton")[0].text
    for i, query in enumerate(QUERIES, 1):
        (seen,) = llm.watch.of("point", i)
        assert [other for other in QUERIES if f"About {other}." in seen.text] == [query]


async def test_the_chunks_have_each_document_once(kit, llm, library):
    for retrieval in ("once", "per_point"):
        chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval)
        chunks = [chunk async for chunk in chain.astream("Why?")]
        whole = await chain.ainvoke("Why?")
        assert kit.untimed(kit.total(chunks)) == kit.untimed(whole)
        assert list(kit.total(chunks)) == list(whole)
        assert [c async for c in chain.pick("point_sources").astream("Why?") if c] == [
            chunk["point_sources"] for chunk in chunks if chunk.get("point_sources")
        ]


@pytest.mark.parametrize("limit", [1, 2, None])
async def test_retrievals_keep_to_the_limit_of_open_calls(kit, way, llm, library, limit):
    together = kit.Gate(lambda: library.watch.peak >= (limit or 3))
    library.script = lambda query: None if limit == 1 else together.wait()
    chain = skeleton_chain(llm=llm, retriever=RunnableLambda(library.invoke), retrieval="per_point")
    await way(chain, "Why?", {"max_concurrency": limit} if limit else None)
    assert library.watch.peak == (limit or 3)
    assert llm.watch.peak <= (limit or 3)
    assert library.watch.open == 0


# --- retrievers of all kinds ---


async def asynchronous(query):
    await asyncio.sleep(0)
    return [Document(f"About {query}.")]


class Asynchronous:
    async def __call__(self, query):
        return await asynchronous(query)


KINDS = {
    "function": lambda query: [Document(f"About {query}.")],
    "async function": asynchronous,
    "async object": Asynchronous(),
    "runnable": RunnableLambda(lambda query: [Document(f"About {query}.")]),
    "async runnable": RunnableLambda(asynchronous),
    "texts": lambda query: [f"About {query}."],
    "pairs": lambda query: [(Document(f"About {query}."), 0.5)],
    "sequence": RunnablePassthrough() | RunnableLambda(lambda query: [Document(f"About {query}.")]),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_retriever_is_any_runnable_or_function(way, llm, name, retrieval):
    output = await way(skeleton_chain(llm=llm, retriever=KINDS[name], retrieval=retrieval), "Why?")
    found = [document.page_content for document in output["sources"]]
    assert found == (["About Why?."] if retrieval == "once" else [f"About {query}." for query in QUERIES])
    assert all("About " in seen.text for seen in llm.watch.of("point"))


async def test_a_retriever_of_texts_gives_a_context_without_sources(way, llm):
    output = await way(skeleton_chain(llm=llm, retriever=lambda query: f"About {query}."), "Why?")
    assert output["sources"] == []
    assert all("<context>\nAbout Why?.\n</context>" in seen.text for seen in llm.watch.seen)


async def test_a_vector_store_retrieves(way, llm):
    store = InMemoryVectorStore(FakeEmbeddings(size=4))
    store.add_documents([Document("Naps help.", id="naps")])
    output = await way(skeleton_chain(llm=llm, retriever=store.as_retriever(), retrieval="per_point"), "Why?")
    assert [document.id for document in output["sources"]] == ["naps"]
    assert set(output["point_sources"]) == {"1", "2", "3"}


async def test_string_models_write_with_a_retrieval(way, library):
    llm = FakeListLLM(responses=["1. Move\n2. Rest", "A.", "A."])
    output = await way(skeleton_chain(llm=llm, retriever=library, retrieval="per_point"), "Why?")
    assert output["points"] == {"1": "A.", "2": "A."}
    assert sorted(library.watch.seen) == ["Move (Why?)", "Rest (Why?)"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retrieval": "per_point"}, "needs a retriever"),
        ({"retriever": lambda query: [], "retrieval": "none"}, "never uses it"),
        ({"retriever": lambda query: [], "retrieval": "always"}, "retrieval"),
        ({"retriever": Library}, "the class Library"),
        ({"retriever": "store"}, "retriever is str"),
        ({"retriever": InMemoryVectorStore(FakeEmbeddings(size=4))}, "as_retriever"),
    ],
)
def test_retrievers_that_cannot_work_are_refused_when_the_chain_is_made(llm, settings, message):
    with pytest.raises(ValueError, match=message):
        skeleton_chain(llm=llm, **settings)


def test_another_retrieval_that_is_assigned_is_in_the_next_plan(llm, library):
    chain = skeleton_chain(llm=llm, retriever=library)
    assert chain.plan().retrieval == "once"
    chain.retrieval = "per_point"
    assert chain.plan().retrieval == "per_point"
    assert SkeletonOfThoughtChain(llm=llm, retrieval="none").plan().retrieval == "none"


# --- failures ---


def failing(times):
    """A script that fails as often as this for each query."""
    left: dict[str, int] = {}
    lock = threading.Lock()

    def script(query):
        with lock:
            left[query] = left.get(query, times) - 1
            if left[query] >= 0:
                raise ConnectionError(f"no answer for {query}")

    return script


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_a_failed_retrieval_is_tried_again(way, llm, library, retrieval):
    library.script = failing(1)
    chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval, backoff=0)
    output = await way(chain, "Why?")
    assert output["points"] == POINTS
    assert output["errors"] == {}
    assert len(library.watch.seen) == (2 if retrieval == "once" else 6)
    assert len(llm.watch.of("point")) == 3


async def test_a_retrieval_that_fails_for_good_fails_the_answer(way, llm, library):
    library.script = failing(9)
    with pytest.raises(ConnectionError, match="no answer for Why"):
        await way(skeleton_chain(llm=llm, retriever=library, backoff=0), "Why?")
    assert not llm.watch.seen
    with pytest.raises(PointError, match="no answer for"):
        await way(skeleton_chain(llm=llm, retriever=library, retrieval="per_point", backoff=0), "Why?")
    assert not llm.watch.of("point")


async def test_a_point_without_documents_has_its_placeholder(kit, way, llm, library):
    def script(query):
        if query.startswith("Move"):
            raise ConnectionError("no answer")

    library.script = script
    chain = skeleton_chain(
        llm=llm, retriever=library, retrieval="per_point", on_point_error="placeholder", backoff=0, max_retries=0
    )
    output = await way(chain, "Why?")
    assert list(output["errors"]) == ["2"]
    assert set(output["point_sources"]) == {"1", "3"}
    assert len(output["sources"]) == 3
    assert output["points"]["3"] == POINTS["3"]


async def test_a_retriever_that_finds_no_documents_says_so(way, llm):
    with pytest.raises(InvalidInput, match="A context is text, or documents"):
        await way(skeleton_chain(llm=llm, retriever=lambda query: 7, backoff=0), "Why?")
    assert not llm.watch.seen


# --- runs ---


class Retrievals(AsyncCallbackHandler):
    """Records the runs of retrievers: those that began, and how each ended."""

    def __init__(self) -> None:
        self.started: dict[Any, dict[str, Any]] = {}
        self.ended: dict[Any, Any] = {}

    async def on_retriever_start(self, serialized, query, *, run_id, parent_run_id=None, **kwargs):
        self.started[run_id] = {"query": query, "parent": parent_run_id, **kwargs}

    async def on_retriever_end(self, documents, *, run_id, **kwargs):
        self.ended[run_id] = documents

    async def on_retriever_error(self, error, *, run_id, **kwargs):
        self.ended[run_id] = error


async def test_retrievals_are_named_children_of_the_answers_run(kit, ways, llm, library):
    for name, retrieval in (("ainvoke", "per_point"), ("astream", "once"), ("invoke", "per_point")):
        runs, retrievals = kit.Runs(), Retrievals()
        chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval)
        await ways[name](chain, "Why?", {"callbacks": [runs, retrievals], "tags": ["mine"], "metadata": {"user": 7}})
        (root,) = runs.roots
        started = list(retrievals.started.values())
        assert all(run["parent"] == root.id for run in started)
        assert all({"mine", "sot:sources"} <= set(run["tags"]) for run in started)
        assert all(run["metadata"]["sot_stage"] == "sources" and run["metadata"]["user"] == 7 for run in started)
        expected = [f"retrieve for point {i}: {title}" for i, title in enumerate(TITLES, 1)]
        assert sorted(run["name"] for run in started) == (expected if retrieval == "per_point" else ["retrieve"])
        if retrieval == "per_point":
            assert sorted(run["metadata"]["sot_point"] for run in started) == [1, 2, 3]
        assert set(retrievals.ended) == set(retrievals.started)


async def test_custom_events_have_the_documents(llm, library):
    for retrieval in ("once", "per_point"):
        chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval)
        events = [event async for event in chain.astream_events("Why?", version="v2")]
        found = [event["data"] for event in events if event["name"] == "sot_sources"]
        assert sorted((each["index"], each["title"]) for each in found) == (
            [(None, "")] if retrieval == "once" else list(enumerate(TITLES, 1))
        )
        assert all(each["sources"][1] == SHARED for each in found)


async def test_a_cancelled_answer_ends_the_runs_of_its_retrievals(llm, eventually):
    class Endless(BaseRetriever):
        def _get_relevant_documents(self, query, *, run_manager):
            raise AssertionError("this test is async")

        async def _aget_relevant_documents(self, query, *, run_manager):
            await asyncio.Event().wait()

    retrievals = Retrievals()
    chain = skeleton_chain(llm=llm, retriever=Endless(), retrieval="per_point")
    task = asyncio.create_task(chain.ainvoke("Why?", {"callbacks": [retrievals]}))
    await eventually(lambda: len(retrievals.started) == 3, "three retrievals are open")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(retrievals.ended) == set(retrievals.started)
    assert all(isinstance(end, asyncio.CancelledError) for end in retrievals.ended.values())


async def test_a_stream_that_is_closed_early_leaves_no_retrieval_open(llm, library):
    chain = skeleton_chain(llm=llm, retriever=library, retrieval="per_point")
    stream = chain.stream("Why?")
    next(stream)
    stream.close()
    astream = chain.astream("Why?")
    await anext(astream)
    await astream.aclose()
    assert library.watch.open == llm.watch.open == 0


async def test_a_config_chooses_the_retriever(way, llm, kit):
    library = Library(watch=kit.Watch(), found=1)
    own = library.configurable_fields(found=ConfigurableField(id="found")).configurable_alternatives(
        ConfigurableField(id="library"), default_key="ours", other=RunnableLambda(lambda query: ["Elsewhere."])
    )
    chain = skeleton_chain(llm=llm, retriever=own)
    assert {"found", "library"} <= {spec.id for spec in chain.config_specs}
    assert len((await way(chain, "Why?"))["sources"]) == 1
    assert len((await way(chain, "Why?", {"configurable": {"found": 2}}))["sources"]) == 2
    output = await way(chain, "Why?", {"configurable": {"library": "other"}})
    assert [document.page_content for document in output["sources"]] == ["Elsewhere."]


# --- the chain's other forms ---


async def test_a_batch_retrieves_for_each_input(llm, library):
    chain = skeleton_chain(llm=llm, retriever=library)
    inputs = ["Why?", {"question": "How?", "context": "Given."}, "Where?"]
    for outputs in (chain.batch(inputs), await chain.abatch(inputs)):
        assert [len(output["sources"]) for output in outputs] == [2, 0, 2]
        assert outputs[2]["sources"][0] == Document("About Where?.")
    assert sorted(library.watch.seen) == ["Where?", "Where?", "Why?", "Why?"]


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
async def test_an_expansion_and_its_steps_retrieve(way, llm, library, retrieval):
    expansion = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval).expansion(TITLES)
    assert await way(expansion, "Why?") == POINTS
    queries = ["Why?"] if retrieval == "once" else sorted(QUERIES)
    assert sorted(library.watch.seen) == queries
    (whole,) = [seen.text for seen in llm.watch.of("point", 2)]
    llm.watch.seen.clear()
    step = expansion.steps__["2"]
    assert step.invoke("Why?") == await step.ainvoke("Why?") == POINTS["2"]
    assert [seen.text for seen in llm.watch.seen] == [whole, whole]
    assert library.watch.seen[-1] == ("Why?" if retrieval == "once" else "Move (Why?)")


async def test_a_chat_model_retrieves_on_both_routes(llm, library):
    for router in (None, lambda question: False):
        model = skeleton_chain(llm=llm, retriever=library, router=router).as_chat_model()
        for message in (model.invoke("Why?"), await model.ainvoke("Why?")):
            pages = message.response_metadata["sources"]
            assert pages == [{"id": None, "metadata": {}}, {"id": "shared", "metadata": {}}]
            assert json.dumps(message.response_metadata)
        parts = [chunk async for chunk in model.astream("Why?")]
        assert "".join(part.text for part in parts) == message.text
    assert all("Known to all." in seen.text for seen in llm.watch.seen)
    assert len(llm.watch.of("direct")) == 3


def test_a_chat_model_with_the_default_router_retrieves_for_direct_answers(llm, library):
    message = SkeletonOfThoughtChain(llm=llm, retriever=library).as_chat_model().invoke("What is 2 + 2?")
    assert message.response_metadata["route"] == "direct"
    assert library.watch.seen == ["What is 2 + 2?"]
    assert "About What is 2 + 2?." in llm.watch.seen[0].text


@pytest.mark.parametrize("router", [None, lambda question: True])
@pytest.mark.parametrize("retrieval", ["once", "per_point"])
def test_the_graph_shows_the_retriever(llm, library, router, retrieval):
    chain = skeleton_chain(llm=llm, retriever=library, retrieval=retrieval, router=router)
    graph = chain.get_graph()
    names = {node.id: node.name for node in graph.nodes.values()}
    edges = {(names[edge.source], names[edge.target]) for edge in graph.edges}
    before = "SkeletonOutputParser" if retrieval == "per_point" else "Input"
    if router is None:
        assert any(source.endswith(before) for source, target in edges if target == "Library")
    assert ("Library", "ChatPromptTemplate") in edges
    assert list(names.values()).count("Library") == (1 if router is None else 2)
    assert ("Library", "ScriptedChat") in edges if router else ("Library", "ScriptedChat") not in edges
    assert graph.draw_mermaid()


def test_a_dump_holds_the_retriever_if_it_can(llm):
    chain = skeleton_chain(llm=llm, retriever=RunnablePassthrough(), retrieval="per_point")
    dumped = dumpd(chain)
    # The scripted model is not serializable itself; it stands for one that is.
    dumped["kwargs"]["llm"] = llm
    again = load_chain(dumped)
    assert isinstance(again.retriever, RunnablePassthrough)
    assert again.retrieval == "per_point"
    assert again.invoke("Why?")["points"] == POINTS
    assert "<context>\nMove (Why?)\n</context>" in llm.watch.of("point", 2)[0].text
    dumped = dumpd(chain.model_copy(update={"retriever": RunnableLambda(operator.itemgetter(0))}))
    dumped["kwargs"]["llm"] = llm
    with pytest.raises(NotImplementedError, match="RunnableLambda"):
        load_chain(dumped)
