"""Chains, picks and chat models inside of LangGraph: configs, streams, interrupts and fan-out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from always import skeleton_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import ConfigurableField
from langchain_core.runnables.base import coerce_to_runnable

pytest.importorskip("langgraph", reason="the graphs need langgraph, which comes with langchain")

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send, interrupt

TITLES = ["Take breaks", "Drink water"]
B: dict[str, Any] = {"configurable": {"llm": "b"}}
A_RUN: dict[str, Any] = {"configurable": {"llm": "a", "thread_id": "1"}}
FORMS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda chain: chain,
    "pick": lambda chain: chain.pick("answer"),
    "expansion": lambda chain: chain.expansion(TITLES),
    "chat model": lambda chain: chain.as_chat_model(),
    "binding": lambda chain: chain.with_config(tags=["mine"]).pick("answer"),
    "map": lambda chain: {"text": chain.pick("answer")},
}


class State(TypedDict, total=False):
    question: str
    llm: str
    answer: str
    texts: Annotated[list[str], operator.add]


def named(kit: Any, name: str) -> Any:
    """A model that says its name in each point."""
    return kit.Chat(script=lambda seen: kit.answering(TITLES)(seen) if seen.stage == "skeleton" else [f"By {name}."])


@pytest.fixture
def llm(kit: Any) -> Any:
    """Model A, or B where the config says so."""
    return named(kit, "A").configurable_alternatives(ConfigurableField(id="llm"), default_key="a", b=named(kit, "B"))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return FORMS[request.param]


def names(output: Any) -> set[str]:
    text = str(getattr(output, "text", output))
    return {name for name in "AB" if f"By {name}." in text}


def graph_of(node: Any, **settings: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph.compile(**settings)


async def test_a_node_answers_by_the_model_that_it_names(way, llm, form):
    runnable = coerce_to_runnable(form(skeleton_chain(llm=llm)))

    async def node(state: State) -> State:
        own, around = await way(runnable, "Why?", B), await way(runnable, "Why?")
        return {"texts": [str(own), str(around)]}

    inner = graph_of(node)
    state = await graph_of(inner, checkpointer=InMemorySaver()).ainvoke({"question": "Why?"}, A_RUN)
    assert [names(text) for text in state["texts"]] == [{"B"}, {"A"}]


def test_each_branch_of_a_fan_out_has_its_own_model(llm, form):
    runnable = coerce_to_runnable(form(skeleton_chain(llm=llm)))

    def node(state: State) -> State:
        return {"texts": [str(runnable.invoke("Why?", {"configurable": {"llm": state["llm"]}}))]}

    graph = StateGraph(State)
    graph.add_node("node", node)
    graph.add_conditional_edges(START, lambda _: [Send("node", {"llm": name}) for name in "abba"], ["node"])
    texts = graph.compile().invoke({"question": "Why?"}, A_RUN)["texts"]
    assert [names(text) for text in texts] == [{"A"}, {"B"}, {"B"}, {"A"}]


def test_a_task_of_a_workflow_answers_by_its_own_model(llm):
    pick = skeleton_chain(llm=llm).pick("answer")

    @task
    def answer(question: str) -> list[str]:
        return [pick.invoke(question), pick.invoke(question, B)]

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(question: str) -> list[str]:
        return answer(question).result()

    assert [names(text) for text in workflow.invoke("Why?", A_RUN)] == [{"A"}, {"B"}]


@pytest.mark.parametrize("name", ["chain", "pick", "chat model"])
async def test_the_messages_of_a_graph_have_each_point_once(way, llm, name):
    runnable = FORMS[name](skeleton_chain(llm=llm))

    async def node(state: State) -> State:
        output = await way(runnable, "Why?")
        await way(runnable, "Silent?", {"callbacks": []})
        return {"answer": str(output)}

    stream = graph_of(graph_of(node)).astream({"question": "Why?"}, stream_mode="messages", subgraphs=True)
    text = "".join([message.text async for _, (message, _) in stream])
    assert text.count("By A.") == 2


@pytest.mark.parametrize("retrieval", ["once", "per_point"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_interrupt_in_a_retriever_stops_the_graph_and_goes_on(llm, retrieval, is_async):
    # Points are retrieved for one after the other, as the values of a resumed node come in order.
    config: dict[str, Any] = {**A_RUN, "max_concurrency": 1}
    chain = skeleton_chain(llm=llm, retriever=lambda query: interrupt(str(query)), retrieval=retrieval)

    async def anode(state: State) -> State:
        return {"answer": (await chain.ainvoke(state["question"]))["answer"]}

    node: Any = anode if is_async else lambda state: {"answer": chain.invoke(state["question"])["answer"]}
    app = graph_of(node, checkpointer=InMemorySaver())

    async def go_on(value: Any) -> Any:
        return await app.ainvoke(value, config) if is_async else app.invoke(value, config)

    state = await go_on({"question": "Why?"})
    queries = []
    while "__interrupt__" in state:
        queries.append(state["__interrupt__"][0].value)
        state = await go_on(Command(resume="It is so."))
    assert queries == (["Why?"] if retrieval == "once" else [f"{title} (Why?)" for title in TITLES])
    assert names(state["answer"]) == {"A"}


def test_nodes_lead_context_and_question_into_the_chain(kit):
    llm = kit.Chat(script=kit.answering(TITLES))

    class Found(TypedDict, total=False):
        question: str
        context: list[Document]
        answer: str

    graph = StateGraph(Found)
    graph.add_node("find", lambda state: {"context": [Document(page_content="It rains in Bergen.")]})
    graph.add_node("answer", skeleton_chain(llm=llm))
    graph.add_edge(START, "find")
    graph.add_edge("find", "answer")
    assert graph.compile().invoke({"question": "Why?"})["answer"].startswith("1. Take breaks: ")
    assert ["Bergen" in seen.text for seen in llm.watch.seen] == [True, True, True]


class Counting(BaseChatModel):
    """A chat model without streams whose replies have tokens, each another number."""

    kit: Any
    counts: Any

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        is_skeleton = self.kit.seen_as(messages, kwargs).stage == "skeleton"
        count = 10 + len(self.counts)
        self.counts.append(count + 1)
        message = AIMessage(
            "1. Take breaks\n2. Drink water" if is_skeleton else "It helps.",
            usage_metadata={"input_tokens": count, "output_tokens": 1, "total_tokens": count + 1},
            response_metadata={"model_name": "m", "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


@pytest.mark.parametrize("name", ["chain", "pick", "expansion", "chat model"])
@pytest.mark.parametrize("settings", [{}, {"merge": True}, {"eager": True}, {"router": lambda question: False}])
async def test_a_node_counts_the_tokens_of_each_call_once(way, kit, name, settings):
    counts: list[int] = []
    runnable = FORMS[name](skeleton_chain(llm=Counting(kit=kit, counts=counts), **settings))
    outputs = []

    async def node(state: State) -> State:
        outputs.append(await way(runnable, state["question"]))
        return {}

    with get_usage_metadata_callback() as callback:
        await graph_of(node).ainvoke({"question": "Why?"})
    assert callback.usage_metadata["m"]["total_tokens"] == sum(counts)
    (output,) = outputs
    if name == "chain":
        assert output["usage"]["total_tokens"] == sum(counts)
        assert sum(usage["total_tokens"] for usage in output["usage_by_stage"].values()) == sum(counts)
    if name == "chat model":
        assert output.usage_metadata["total_tokens"] == sum(counts)
