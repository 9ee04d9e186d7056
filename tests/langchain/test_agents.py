"""The chain in LangGraph's nodes, and in agents of `create_agent`."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest

pytest.importorskip("langchain", reason="the extra [agents] is not installed")

from always import skeleton_chain
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict

from langchain_sot import SkeletonOfThoughtChain, SkeletonOfThoughtMiddleware, interrupts
from skeleton_of_thought.errors import InvalidInput, PointError, ReplyError, install_line

TITLES = ["Take breaks", "Drink water", "Move"]
ANSWER = "1. Take breaks: All about take breaks.\n\n2. Drink water: All about drink water.\n\n3. Move: All about move."
QUESTION = {"messages": [HumanMessage("Why?")]}


@pytest.fixture
def llm(kit):
    return kit.Chat(script=kit.answering(TITLES))


async def run(graph: Any, value: Any, config: Any = None, *, is_async: bool) -> Any:
    return await (graph.ainvoke(value, config) if is_async else asyncio.to_thread(graph.invoke, value, config))


async def streamed(graph: Any, value: Any, config: Any = None, *, is_async: bool) -> list[Any]:
    if is_async:
        return [item async for item in graph.astream(value, config, stream_mode="messages")]
    return await asyncio.to_thread(lambda: list(graph.stream(value, config, stream_mode="messages")))


def answering_graph(model: Any, *, is_async: bool, **compiled: Any) -> Any:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aanswer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", aanswer if is_async else answer)
    builder.add_edge(START, "answer")
    return builder.compile(**compiled)


def text_of(tokens: list[Any]) -> str:
    return "".join(message.text for message, _ in tokens if isinstance(message, AIMessageChunk))


# --- the model in a node ---


async def test_a_graph_shows_the_answer_s_tokens_in_document_order_and_no_others(llm, is_async):
    graph = answering_graph(skeleton_chain(llm=llm).as_chat_model(), is_async=is_async)
    tokens = await streamed(graph, QUESTION, is_async=is_async)
    assert text_of(tokens) == ANSWER
    assert len(tokens) > 3, "the text did not come in pieces"
    assert {message.id for message, _ in tokens} == {tokens[0][0].id}, "the whole message is shown again"
    assert [bool(message.usage_metadata) for message, _ in tokens] == [False] * (len(tokens) - 1) + [True]
    assert {metadata["langgraph_node"] for _, metadata in tokens} == {"answer"}


async def test_the_message_in_the_state_has_the_usage_and_callbacks_count_it_once(llm, is_async):
    graph = answering_graph(skeleton_chain(llm=llm).as_chat_model(), is_async=is_async)
    with get_usage_metadata_callback() as usage:
        message = (await run(graph, QUESTION, is_async=is_async))["messages"][-1]
    assert message.text == ANSWER
    assert message.usage_metadata["total_tokens"] == usage.usage_metadata["scripted"]["total_tokens"]
    with get_usage_metadata_callback() as again:
        await streamed(graph, QUESTION, is_async=is_async)
    assert again.usage_metadata == usage.usage_metadata


async def test_a_stream_in_a_node_shows_the_same_tokens(llm, is_async):
    model = skeleton_chain(llm=llm).as_chat_model()

    class Streaming:
        def invoke(self, messages: Any) -> Any:
            chunks = list(model.stream(messages))
            return sum(chunks[1:], chunks[0])

        async def ainvoke(self, messages: Any) -> Any:
            chunks = [chunk async for chunk in model.astream(messages)]
            return sum(chunks[1:], chunks[0])

    tokens = await streamed(answering_graph(Streaming(), is_async=is_async), QUESTION, is_async=is_async)
    assert text_of(tokens) == ANSWER


async def test_the_second_turn_sees_the_first(kit, llm, is_async):
    graph = answering_graph(skeleton_chain(llm=llm).as_chat_model(), is_async=is_async, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await run(graph, QUESTION, thread, is_async=is_async)
    first = len(llm.watch.seen)
    state = await run(graph, {"messages": [HumanMessage("And then?")]}, thread, is_async=is_async)
    assert [m.text for m in state["messages"]] == ["Why?", ANSWER, "And then?", ANSWER]
    for seen in llm.watch.seen[first:]:
        assert [m.text for m in seen.messages][:2] == ["Why?", ANSWER]


async def test_an_interrupt_before_the_node_and_after_it_leaves_the_answer_whole(llm, is_async):
    model = skeleton_chain(llm=llm).as_chat_model()
    for moment, calls in (("interrupt_before", 0), ("interrupt_after", 4)):
        llm.watch.seen.clear()
        graph = answering_graph(model, is_async=is_async, checkpointer=InMemorySaver(), **{moment: ["answer"]})
        thread = {"configurable": {"thread_id": moment}}
        await run(graph, QUESTION, thread, is_async=is_async)
        assert len(llm.watch.seen) == calls
        state = await run(graph, None, thread, is_async=is_async)
        assert state["messages"][-1].text == ANSWER
        assert len(llm.watch.seen) == 4


async def test_an_interrupt_in_the_router_pauses_the_graph_and_its_answer_decides(kit, llm, is_async):
    def router(question: str) -> bool:
        return interrupt({"use a skeleton for": question}) == "yes"

    chain = skeleton_chain(llm=llm, router=router)
    graph = answering_graph(chain.as_chat_model(), is_async=is_async, checkpointer=InMemorySaver())
    for reply, text in (("yes", ANSWER), ("no", "Just so.")):
        thread = {"configurable": {"thread_id": reply}}
        state = await run(graph, QUESTION, thread, is_async=is_async)
        assert state["__interrupt__"][0].value == {"use a skeleton for": "Why?"}
        state = await run(graph, Command(resume=reply), thread, is_async=is_async)
        assert state["messages"][-1].text == text


@pytest.mark.parametrize("settings", [{}, {"on_point_error": "placeholder"}, {"max_retries": 3}])
async def test_an_interrupt_in_a_point_does_not_fail_the_point(kit, is_async, settings):
    def script(seen):
        return [GraphInterrupt(())] if seen.point == 2 else kit.answering(TITLES)(seen)

    runs, llm = kit.Runs(), kit.Chat(script=script)
    chain = skeleton_chain(llm=llm, backoff=0, **settings)
    for runnable in (chain, chain.as_chat_model()):
        llm.watch.seen.clear()
        with pytest.raises(GraphInterrupt):
            await run(runnable, "Why?", {"callbacks": [runs]}, is_async=is_async)
        assert len(llm.watch.of("point", 2)) == 1, "the point was retried"
        assert llm.watch.open == 0
        runs.assert_all_ended_before_the_root()


async def test_a_router_may_load_langgraph_itself(llm, is_async, monkeypatch):
    errors = sys.modules["langgraph.errors"]
    monkeypatch.delitem(sys.modules, "langgraph.errors")

    def pause(question: str) -> bool:
        monkeypatch.setitem(sys.modules, "langgraph.errors", errors)
        raise GraphInterrupt(())

    with pytest.raises(GraphInterrupt):
        await run(skeleton_chain(llm=llm, router=pause), "Why?", is_async=is_async)
    assert llm.watch.seen == []


async def test_without_langgraph_nothing_looks_for_its_exceptions(llm, is_async, monkeypatch):
    question, lifted = "What are good ways to stay awake at night?", []
    original = interrupts.lifting

    def lifting(*args: Any) -> Any:
        lifted.append(args)
        return original(*args)

    monkeypatch.setattr(interrupts, "lifting", lifting)
    for loaded in (True, False):
        if not loaded:
            monkeypatch.delitem(sys.modules, "langgraph.errors")
        output = await run(SkeletonOfThoughtChain(llm=llm), question, is_async=is_async)
        assert output["skeleton"] == TITLES
        assert len(lifted) == 1


async def test_errors_of_an_answer_reach_the_graph_s_caller(kit, is_async):
    def script(seen):
        return [ValueError("boom")] if seen.point == 2 else kit.answering(TITLES)(seen)

    chain = skeleton_chain(llm=kit.Chat(script=script), max_retries=0)
    with pytest.raises(PointError, match="boom"):
        await run(answering_graph(chain.as_chat_model(), is_async=is_async), QUESTION, is_async=is_async)


class Questions(TypedDict, total=False):
    questions: list[str]
    question: str
    answers: Annotated[list[str], operator.add]


@pytest.mark.parametrize(("own", "peak"), [(None, 4), (1, 2)])
async def test_a_fan_out_keeps_the_limits_of_the_graph_and_of_each_answer(llm, is_async, own, peak):
    chain = skeleton_chain(llm=llm)
    limits = {"max_concurrency": own} if own else None

    def write(state: Questions) -> Questions:
        return {"answers": [chain.invoke(state["question"], limits)["answer"]]}

    async def awrite(state: Questions) -> Questions:
        return {"answers": [(await chain.ainvoke(state["question"], limits))["answer"]]}

    builder = StateGraph(Questions)
    builder.add_node("write", awrite if is_async else write)
    builder.add_conditional_edges(START, lambda s: [Send("write", {"question": q}) for q in s["questions"]], ["write"])
    value = {"questions": ["A?", "B?", "C?", "D?"]}
    state = await run(builder.compile(), value, {"max_concurrency": 2}, is_async=is_async)
    assert state["answers"] == [ANSWER] * 4
    assert llm.watch.peak <= peak


async def test_closing_a_graph_s_stream_leaves_nothing_running(kit):
    def script(seen):
        return ["1. Move\n2. Rest"] if seen.stage == "skeleton" else iter(lambda: "on ", None)

    llm = kit.Chat(script=script)
    graph = answering_graph(skeleton_chain(llm=llm).as_chat_model(), is_async=True)
    stream = graph.astream(QUESTION, stream_mode="messages")
    await anext(stream)
    assert llm.watch.open > 0
    await stream.aclose()
    until = asyncio.get_running_loop().time() + kit.PATIENCE
    while llm.watch.open:  # the graph cancels its tasks, and does not wait for them
        assert asyncio.get_running_loop().time() < until
        await asyncio.sleep(0.001)


# --- agents ---


@tool
def weather(place: str) -> str:
    """The weather at a place."""
    return f"Sunny in {place}."


def tool_calling(kit: Any) -> type:
    class ToolChat(kit.Chat):
        """Calls its tool once, then reports the result."""

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=tools)

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            result = super()._generate(messages, stop, run_manager)
            if kwargs.get("tools") and messages[-1].type == "human":
                call = {"name": kwargs["tools"][0].name, "args": {"place": "Rome"}, "id": "c1", "type": "tool_call"}
                result.generations[0].message.tool_calls = [call]
            return result

        async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            return self._generate(messages, stop, run_manager, **kwargs)

    return ToolChat


async def test_an_agent_answers_by_the_chain_with_its_system_prompt_and_history(llm, is_async):
    agent = create_agent(
        llm, system_prompt="Be brief.", middleware=[SkeletonOfThoughtMiddleware(router=None)], name="helper"
    )
    history = [HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("Why?")]
    message = (await run(agent, {"messages": history}, is_async=is_async))["messages"][-1]
    assert message.text == ANSWER
    assert message.response_metadata["skeleton"] == TITLES
    assert message.usage_metadata["total_tokens"] > 0
    assert len(llm.watch.seen) == 4
    for seen in llm.watch.seen:
        assert [m.text for m in seen.messages][:3] == ["Be brief.", "Hi", "Hello"]
        assert isinstance(seen.messages[0], SystemMessage)


async def test_the_message_has_the_agent_s_name_as_in_langchains_own_agents(kit, llm, is_async):
    with_it = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware(router=None)], name="helper")
    plain = create_agent(kit.Chat(script=kit.answering(TITLES)), name="helper")
    names = [(await run(agent, QUESTION, is_async=is_async))["messages"][-1].name for agent in (with_it, plain)]
    assert names in (["helper"] * 2, [None] * 2)


async def test_an_agent_streams_one_answer_in_document_order(kit, is_async):
    slow = kit.Gate()

    def script(seen):
        if seen.point == 1:
            return [slow, *kit.answering(TITLES)(seen)]
        return [*kit.answering(TITLES)(seen), *([slow.open] if seen.point == 3 else [])]

    agent = create_agent(kit.Chat(script=script), middleware=[SkeletonOfThoughtMiddleware(router=None)])
    tokens = await streamed(agent, QUESTION, is_async=is_async)
    assert text_of(tokens) == ANSWER
    assert {message.id for message, _ in tokens} == {tokens[0][0].id}


async def test_an_agent_with_the_middleware_calls_its_tools_as_usual(kit, is_async):
    llm = tool_calling(kit)(script=kit.answering(TITLES))
    agent = create_agent(llm, tools=[weather], middleware=[SkeletonOfThoughtMiddleware(router=None)])
    plain = create_agent(llm, tools=[weather])
    with_it, without = [(await run(a, QUESTION, is_async=is_async))["messages"] for a in (agent, plain)]
    assert [m.type for m in with_it] == ["human", "ai", "tool", "ai"]
    assert [(m.text, getattr(m, "tool_calls", None)) for m in with_it] == [
        (m.text, getattr(m, "tool_calls", None)) for m in without
    ]
    assert {seen.stage for seen in llm.watch.seen} == {"direct"}


async def test_an_agent_over_the_chat_model_calls_tools_and_writes_skeletons(kit, is_async):
    llm = tool_calling(kit)(script=kit.answering(TITLES))
    model = skeleton_chain(llm=llm).as_chat_model()
    with_tools = (await run(create_agent(model, tools=[weather]), QUESTION, is_async=is_async))["messages"]
    assert [m.type for m in with_tools] == ["human", "ai", "tool", "ai"]
    for middleware in ([], [SkeletonOfThoughtMiddleware(router=None)]):
        llm.watch.seen.clear()
        agent = create_agent(model, middleware=middleware)
        assert (await run(agent, QUESTION, is_async=is_async))["messages"][-1].text == ANSWER
        assert len(llm.watch.seen) == 4, "one answer has more than one skeleton"


class Forecast(BaseModel):
    """A weather forecast."""

    place: str


UNSUITED = {
    "tools": {"tools": [weather]},
    "response format": {"response_format": Forecast},
    "tool choice": {"tool_choice": "any"},
    "stop": {"model_settings": {"stop": ["x"]}},
    "max_tokens": {"model_settings": {"max_tokens": 5}},
    "last message": {"messages": [HumanMessage("Why?"), AIMessage("So.")]},
    "empty question": {"messages": [HumanMessage("")]},
}


@pytest.mark.parametrize("change", UNSUITED.values(), ids=list(UNSUITED))
async def test_requests_unsuitable_for_points_reach_the_handler_unchanged(llm, is_async, change):
    request = ModelRequest(**{"model": llm, "messages": [HumanMessage("Why?")], **change})
    given: list[Any] = []
    reply = object()

    def handler(request: Any) -> Any:
        given.append(request)
        return reply

    async def ahandler(request: Any) -> Any:
        return handler(request)

    middleware = SkeletonOfThoughtMiddleware(router=None)
    if is_async:
        result = await middleware.awrap_model_call(request, ahandler)
    else:
        result = middleware.wrap_model_call(request, handler)
    assert result is reply
    assert given[0] is request
    assert llm.watch.seen == []


@pytest.mark.parametrize(("replies", "calls"), [(["", "Just so."], 2), (["", " "], 2), (["Just so."], 1)])
async def test_an_empty_direct_answer_of_the_agent_is_asked_for_again(kit, is_async, replies, calls):
    left = iter(replies)
    llm = kit.Chat(script=lambda seen: [next(left)])
    agent = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware(backoff=0)])
    question = {"messages": [HumanMessage("What is 17 * 4?")]}
    if replies[-1].strip():
        message = (await run(agent, question, is_async=is_async))["messages"][-1]
        assert (message.text, message.response_metadata["route"]) == ("Just so.", "direct")
    else:
        with pytest.raises(ReplyError):
            await run(agent, question, is_async=is_async)
    assert len(llm.watch.seen) == calls


async def test_a_long_direct_answer_of_the_agent_is_cut(kit, is_async):
    agent = create_agent(
        kit.Chat(script=lambda seen: ["word " * 100]), middleware=[SkeletonOfThoughtMiddleware(max_answer_chars=9)]
    )
    message = (await run(agent, {"messages": [HumanMessage("What is 17 * 4?")]}, is_async=is_async))["messages"][-1]
    assert (message.text, message.response_metadata["finish_reason"]) == ("word word", "max_chars")


class Hotter(AgentMiddleware):
    """Sets the temperature of the model's calls."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(model_settings={"temperature": 0.9, "seed": None}))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(model_settings={"temperature": 0.9, "seed": None}))


async def test_model_settings_reach_each_call(kit, llm, is_async):
    writer = kit.Chat(script=kit.answering(TITLES))
    agent = create_agent(
        llm, middleware=[Hotter(), SkeletonOfThoughtMiddleware(router=None, point_llm=writer, max_points=2)]
    )
    message = (await run(agent, QUESTION, is_async=is_async))["messages"][-1]
    assert message.response_metadata["skeleton"] == TITLES[:2]
    assert [s.kwargs["temperature"] for s in [*llm.watch.seen, *writer.watch.seen]] == [0.9] * 3
    assert {seen.stage for seen in writer.watch.seen} == {"point"}


async def test_an_agent_s_second_turn_sees_its_first(llm, is_async):
    agent = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware(router=None)], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await run(agent, QUESTION, thread, is_async=is_async)
    state = await run(agent, {"messages": [("human", "And then?")]}, thread, is_async=is_async)
    assert [m.text for m in state["messages"]] == ["Why?", ANSWER, "And then?", ANSWER]
    assert [m.text for m in llm.watch.seen[-1].messages][:2] == ["Why?", ANSWER]


async def test_an_interrupt_in_the_middleware_s_router_pauses_the_agent(llm, is_async):
    middleware = SkeletonOfThoughtMiddleware(router=lambda q: interrupt("skeleton?") == "yes")
    agent = create_agent(llm, middleware=[middleware], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    state = await run(agent, QUESTION, thread, is_async=is_async)
    assert state["__interrupt__"][0].value == "skeleton?"
    state = await run(agent, Command(resume="yes"), thread, is_async=is_async)
    assert state["messages"][-1].text == ANSWER


def test_settings_are_checked_when_the_middleware_is_made(llm):
    with pytest.raises(InvalidInput, match="point_llm"):
        SkeletonOfThoughtMiddleware(router=None, llm=llm)
    with pytest.raises(ValidationError, match="max_points must be"):
        SkeletonOfThoughtMiddleware(router=None, max_points=0)
    with pytest.raises(ValidationError, match="max_pionts"):
        SkeletonOfThoughtMiddleware(router=None, max_pionts=3)


WITHOUT_LANGCHAIN = """
import sys
sys.modules["langchain"] = None  # an import fails as without the package
from langchain_sot import *
import langchain_sot
try:
    langchain_sot.SkeletonOfThoughtMiddleware
except ImportError as error:
    print(type(error).__name__, error)
"""


def test_without_langchain_only_the_middleware_fails_and_gives_the_install_line():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LANGCHAIN], capture_output=True, text=True, check=True, cwd=root
    )
    wanted = f"MissingExtra SkeletonOfThoughtMiddleware needs langchain: {install_line('agents')}"
    assert done.stdout.strip() == wanted


# --- routers ----------------------------------------------------------------------------------------

SUITED = {"messages": [HumanMessage("What are the advantages of keeping chickens?")]}
UNSUITED = {"messages": [HumanMessage("What is 8 times 12?")]}
REASON = "gate (arithmetic): something to be calculated"


class Counting(AgentMiddleware):
    """Counts the agent's own model calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.calls += 1
        return handler(request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        self.calls += 1
        return await handler(request)


async def test_by_default_the_agent_makes_its_own_call_for_unsuitable_questions(llm, is_async):
    counting = Counting()
    agent = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware(), counting])
    message = (await run(agent, UNSUITED, is_async=is_async))["messages"][-1]
    assert (message.text, message.response_metadata["reason"]) == ("Just so.", REASON)
    assert message.usage_metadata["total_tokens"] > 0
    assert (counting.calls, [seen.stage for seen in llm.watch.seen]) == (1, ["direct"])
    message = (await run(agent, SUITED, is_async=is_async))["messages"][-1]
    assert message.response_metadata["skeleton"] == TITLES
    assert counting.calls == 1


async def test_the_middlewares_router_decides_once_a_turn_and_observes_every_turn(llm, is_async):
    middleware = SkeletonOfThoughtMiddleware()
    agent = create_agent(llm, middleware=[middleware])
    for _ in range(3):
        await run(agent, SUITED, is_async=is_async)
    guard = middleware._chain.model_copy(update={"llm": llm}).plan().router.guard
    assert guard.pace.answers == 3
    await run(agent, UNSUITED, is_async=is_async)
    assert guard.pace.get("direct_tokens", 0.0) > 0


@pytest.mark.parametrize("with_middleware", [False, True])
async def test_a_graph_shows_the_tokens_of_a_direct_answer_once(llm, is_async, with_middleware):
    if with_middleware:
        graph = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware()])
        plain = create_agent(llm)
    else:
        graph = answering_graph(SkeletonOfThoughtChain(llm=llm).as_chat_model(), is_async=is_async)
        plain = answering_graph(llm, is_async=is_async)
    shown, expected = [await streamed(one, UNSUITED, is_async=is_async) for one in (graph, plain)]
    assert [message.text for message, _ in shown] == [message.text for message, _ in expected]
    assert len({message.id for message, _ in shown}) == 1
    assert sum(bool(message.usage_metadata) for message, _ in shown) == 1
