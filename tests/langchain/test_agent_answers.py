"""Final answers of agents with tools, by `answer_in_points`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("langchain", reason="the extra [agents] is not installed")

from agent_runs import QUESTION, agent_of, assert_plain, run, streamed, weather
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel
from scripted_calls import Gate
from tool_calling_chat import ANSWER, TITLES, Calls, ToolCallingChat, call, check_history, in_points

from langchain_sot import SkeletonOfThoughtChain, SkeletonOfThoughtMiddleware
from langchain_sot.agents.plain_history import plain_history
from skeleton_of_thought.adapters.points_tool import TOOL_NAME
from skeleton_of_thought.errors import InvalidInput, PointError

LOOK_UP = Calls(call("weather", place="Bonn"))


@tool(return_direct=True)
def tide(place: str) -> str:
    """The tide of a place."""
    return f"High tide in {place}."


# --- one run ---


async def test_the_call_is_the_skeleton_and_the_points_are_written_from_the_whole_conversation(is_async):
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], system_prompt="Be kind.")
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert [each["tools"] for _, _, _, each in llm.of("turn")] == [[TOOL_NAME, "weather"]] * 2
    points = llm.of("point")
    assert sorted(title for _, title, _, _ in points) == sorted(TITLES)
    for _, _, prompt, kwargs in points:
        assert [message.type for message in prompt] == ["system", "human", "ai", "human"]
        assert prompt[0].text == "Be kind."
        assert prompt[2].text.startswith('The result of weather({"place": "Bonn"}):\nRain in Bonn.\n\n1. Take breaks')
        assert "What shall I do today?" in prompt[-1].text
        assert "tools" not in kwargs


async def test_the_points_are_written_side_by_side(is_async):
    llm = ToolCallingChat(turns=[Calls(in_points())])
    llm.point = lambda title: [llm.watch.together(3), f"All about {title.lower()}."]
    agent, _ = agent_of([], llm=llm)
    assert (await run(agent, is_async=is_async))[-1].text == ANSWER
    assert llm.watch.peak == 3


async def test_the_message_says_how_it_was_made_and_what_it_took(is_async):
    agent, _ = agent_of([LOOK_UP, Calls(in_points())])
    with get_usage_metadata_callback() as usage:
        messages = await run(agent, is_async=is_async)
    about = messages[-1].response_metadata
    assert (about["route"], about["skeleton"]) == ("skeleton", TITLES)
    assert TOOL_NAME in about["reason"]
    assert list(about["usage_by_stage"]) == ["skeleton", "point"]
    total = sum(message.usage_metadata["total_tokens"] for message in messages if message.type == "ai")
    assert total == usage.usage_metadata["scripted"]["total_tokens"]


async def test_notes_reach_the_prompts_and_the_plan(is_async):
    agent, llm = agent_of([Calls(in_points({"title": "Rest", "note": "how often"}, "Water"))])
    message = (await run(agent, is_async=is_async))[-1]
    assert message.text == "1. Rest: All about rest.\n\n2. Water: All about water."
    assert all("how often" in prompt[-1].text for _, _, prompt, _ in llm.of("point"))
    assert [each["scope"] for each in message.response_metadata["plan"]] == ["how often", ""]


async def test_a_stream_shows_the_answer_in_document_order_and_no_point_twice(is_async):
    llm = ToolCallingChat(turns=[LOOK_UP, Calls(in_points())])
    agent, _ = agent_of([], llm=llm)
    tokens = await streamed(agent, "messages", is_async=is_async)
    chunks = [message for message, _ in tokens if isinstance(message, AIMessageChunk)]
    assert "".join(str(chunk.text) for chunk in chunks) == ANSWER
    answer = [chunk for chunk in chunks if chunk.text]
    assert len(answer) > 5, "the text did not come in pieces"
    assert len({chunk.id for chunk in answer}) == 1
    assert {about["langgraph_node"] for message, about in tokens if message.type == "AIMessageChunk"} == {"model"}
    assert not [message for message, _ in tokens if message.type in ("remove", "ai")]


async def test_updates_show_the_call_its_acceptance_and_the_answer(is_async):
    agent, _ = agent_of([LOOK_UP, Calls(in_points())])
    updates = await streamed(agent, "updates", is_async=is_async)
    assert [list(update) for update in updates] == [["model"], ["tools"], ["model"], ["tools"], ["model"]]
    accepted = updates[3]["tools"]["messages"][-1]
    assert (accepted.status, accepted.name) == ("success", TOOL_NAME)
    assert "accepted" in accepted.text
    assert updates[4]["model"]["messages"][-1].text == ANSWER


async def test_every_checkpoint_has_a_history_that_a_model_can_go_on_from(is_async):
    agent, _ = agent_of([LOOK_UP, Calls(in_points())], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await run(agent, config=thread, is_async=is_async)
    states = [state for state in agent.get_state_history(thread) if state.values.get("messages")]
    for state in states:
        messages = state.values["messages"]
        if not getattr(messages[-1], "tool_calls", None):
            check_history(messages, ended=messages[-1].type == "ai")
    assert_plain(states[0].values["messages"], "human", "ai", "tool", "ai")


async def test_the_next_turn_goes_on_from_the_answer(is_async):
    turns = [LOOK_UP, Calls(in_points()), "Gladly.", Calls(in_points("Sleep", "Eat"))]
    agent, llm = agent_of(turns, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    await run(agent, config=thread, is_async=is_async)
    messages = await run(agent, {"messages": [HumanMessage("Thanks!")]}, thread, is_async=is_async)
    assert messages[-1].text == "Gladly."
    messages = await run(agent, {"messages": [HumanMessage("And tonight?")]}, thread, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai", "human", "ai", "human", "ai")
    assert messages[-1].response_metadata["skeleton"] == ["Sleep", "Eat"]
    for _, _, prompt, _ in llm.of("point")[3:]:
        assert [message.type for message in prompt] == ["human", "ai"] * 3 + ["human"]
        assert prompt[1].text == f'The result of weather({{"place": "Bonn"}}):\nRain in Bonn.\n\n{ANSWER}'


async def test_a_model_that_does_not_call_the_tool_answers_as_ever(is_async):
    agent, llm = agent_of([LOOK_UP, "Stay at home."])
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == "Stay at home."
    assert "route" not in messages[-1].response_metadata
    assert len(llm.watch.seen) == 2


async def test_text_before_the_call_does_not_stay_beside_the_answer(is_async):
    agent, _ = agent_of([Calls(in_points(), text="Here is my plan.")])
    assert [message.text for message in await run(agent, is_async=is_async)] == ["What shall I do today?", ANSWER]


@pytest.mark.parametrize(
    "content",
    ["Read this: " + "word " * 500, [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]],
)
async def test_a_long_question_and_one_without_words_are_not_repeated(is_async, content):
    agent, llm = agent_of([Calls(in_points())])
    llm.strict = isinstance(content, str)
    await run(agent, {"messages": [HumanMessage(content)]}, is_async=is_async)
    for _, _, prompt, _ in llm.of("point"):
        assert prompt[0].content == content
        assert prompt[-1].text.startswith("Answer what I asked for.")


async def test_a_model_that_answers_by_points_itself_writes_each_point_once(is_async):
    llm = ToolCallingChat(turns=[LOOK_UP, Calls(in_points())])
    model = SkeletonOfThoughtChain(llm, router=None).as_chat_model()
    agent, _ = agent_of([], llm=model)
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert (len(llm.of("turn")), len(llm.of("point"))) == (2, 3)


async def test_a_batch_answers_each_question(is_async):
    agent, llm = agent_of([Calls(in_points())] * 4)
    values = [{"messages": [HumanMessage(f"Question {i}?")]} for i in range(4)]
    states = await (agent.abatch(values) if is_async else asyncio.to_thread(agent.batch, values))
    assert [state["messages"][-1].text for state in states] == [ANSWER] * 4
    for i in range(4):
        assert sum(f"Question {i}?" in prompt[-1].text for _, _, prompt, _ in llm.of("point")) == 3


async def test_max_concurrency_bounds_the_points(is_async):
    agent, llm = agent_of([Calls(in_points())])
    await run(agent, config={"max_concurrency": 1}, is_async=is_async)
    assert llm.watch.peak == 1


# --- tools in the prompts of the points ---


@tool
def camera(place: str) -> Any:
    """A picture of a place, and data on it."""
    return [{"type": "text", "text": "Taken today."}, PICTURE, {"type": "json", "json": {"light": "dim"}}]


@tool
def closed(place: str) -> str:
    """Fails."""
    raise ToolException("closed on Mondays")


closed.handle_tool_error = True
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
TOLD = """\
Let me see.

The result of camera({"place": "Bonn"}):
Taken today.
{"type": "json", "json": {"light": "dim"}}

The error of closed({"place": "Bonn"}):
closed on Mondays"""


async def test_calls_and_results_are_text_and_pictures_are_the_users(is_async):
    looks = Calls(call("camera", place="Bonn"), call("closed", place="Bonn"), text="Let me see.")
    llm = ToolCallingChat(turns=[looks, Calls(in_points()), "Gladly."])
    agent, _ = agent_of([], llm=llm, tools=[camera, closed], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    messages = await run(agent, config=thread, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "tool", "ai")
    assert PICTURE in messages[2].content, "the agent's own history changed"
    for _, _, prompt, _ in llm.of("point"):
        assert [message.type for message in prompt] == ["human", "ai", "human", "ai", "human"]
        assert prompt[1].content == TOLD
        assert prompt[2].content == [{"type": "text", "text": "From the result of camera:"}, PICTURE]
    await run(agent, {"messages": [HumanMessage("Thanks!")]}, thread, is_async=is_async)
    assert [message.type for message in llm.of("turn")[-1][2]] == ["human", "ai", "tool", "tool", "ai", "human"]


def test_a_plain_history_keeps_what_others_have_written():
    reasoning = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    broken = {"name": "weather", "args": '{"place": Bonn', "id": "b", "error": None, "type": "invalid_tool_call"}
    written = [
        HumanMessage("One?"),
        AIMessage([{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "a"}], tool_calls=[read("a")]),
        ToolMessage([PICTURE], tool_call_id="a"),
        AIMessage([reasoning, {"type": "text", "text": "Rain."}]),
        HumanMessage("Two?"),
        AIMessage("", invalid_tool_calls=[broken]),
        HumanMessage("Three?"),
        AIMessage("", tool_calls=[read("a", place="Köln")]),  # some servers count ids anew in each turn
        ToolMessage("Sun.", tool_call_id="a"),
        ToolMessage("Lost.", tool_call_id="of no call", name="other"),
    ]
    plain = plain_history(written, "1. Go out")
    assert [message.type for message in plain] == ["human", "ai"] * 3
    told = {"type": "text", "text": "I look.\n\nThe result of weather({}):\n"}
    assert plain[1].content == [reasoning, told, {"type": "text", "text": "Rain."}]
    assert plain[2].content[1:] == [PICTURE, {"type": "text", "text": "Two?"}]
    assert plain[3].text == 'A call of weather({"place": Bonn) has no result.'
    assert (
        plain[5].text == 'The result of weather({"place": "Köln"}):\nSun.\n\nThe result of other:\nLost.\n\n1. Go out'
    )


def read(id: str, **args: Any) -> Any:
    return {"name": "weather", "args": args, "id": id}


async def test_ids_that_each_turn_counts_anew_tell_calls_apart(is_async):
    same = {"id": "0"}
    turns = [Calls({**call("weather", place="Bonn"), **same}), Calls({**in_points(), **same}), "Gladly."]
    agent, llm = agent_of(turns, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    assert_plain(await run(agent, config=thread, is_async=is_async), "human", "ai", "tool", "ai")
    assert all("Rain in Bonn." in prompt[1].text for _, _, prompt, _ in llm.of("point"))
    assert (await run(agent, {"messages": [HumanMessage("Thanks!")]}, thread, is_async=is_async))[-1].text == "Gladly."


async def test_a_history_that_langchain_repairs_in_the_turn_of_the_answer_keeps_nothing_of_the_call(is_async):
    """A person puts a call that is no JSON into the history between acceptance and answer."""
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], checkpointer=InMemorySaver(), interrupt_after=["tools"])
    llm.strict = False
    thread = {"configurable": {"thread_id": "1"}}
    await run(agent, config=thread, is_async=is_async)
    await run(agent, None, thread, is_async=is_async)
    broken = {"name": "weather", "args": "{", "id": "b", "error": None, "type": "invalid_tool_call"}
    first = agent.get_state(thread).values["messages"][1].model_copy(update={"invalid_tool_calls": [broken]})
    agent.update_state(thread, {"messages": [first]}, as_node="tools")
    messages = await run(agent, None, thread, is_async=is_async)
    assert [message.type for message in messages if message.type != "tool"] == ["human", "ai", "ai"]
    assert not [message for message in messages if getattr(message, "name", None) == TOOL_NAME]
    assert messages[-1].text == ANSWER


# --- calls that a user would not expect ---


async def test_beside_other_calls_these_run_and_the_model_gets_another_turn(is_async):
    both = Calls(in_points("Guess", "Hope", id="early"), call("weather", place="Bonn"))
    agent, llm = agent_of([both, Calls(in_points())])
    messages = await run(agent, is_async=is_async)
    results = {m.tool_call_id: m for m in llm.of("turn")[1][2] if isinstance(m, ToolMessage)}
    assert results["weather-1"].text == "Rain in Bonn."
    assert results["early"].status == "error"
    assert "only call of a turn" in results["early"].text
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert [each["name"] for each in messages[1].tool_calls] == ["weather"]
    assert messages[-1].text == ANSWER
    assert len(llm.of("point")) == 3


async def test_beside_a_tool_that_returns_directly_the_model_still_gets_another_turn(is_async):
    both = Calls(in_points(id="early"), call("tide", place="Bonn"))
    agent, _ = agent_of([both, Calls(in_points())], tools=[weather, tide])
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER


async def test_provider_forms_of_a_refused_call_leave_the_history_with_it(is_async):
    blocks = [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "early", "name": TOOL_NAME, "input": {}},
        {"type": "tool_use", "id": "weather-1", "name": "weather", "input": {"place": "Bonn"}},
    ]
    raw = [
        {"id": id, "type": "function", "function": {"name": "x", "arguments": "{}"}} for id in ("early", "weather-1")
    ]
    calls = [
        {"name": TOOL_NAME, "args": {}, "id": "early"},
        {"name": "weather", "args": {"place": "Bonn"}, "id": "weather-1"},
    ]
    turn = AIMessage(content=blocks, tool_calls=calls, additional_kwargs={"tool_calls": raw}, id="turn")
    history = [
        HumanMessage("And?", id="a"),
        turn,
        ToolMessage("No.", name=TOOL_NAME, tool_call_id="early", artifact={"skeleton_of_thought": {"points": []}}),
        ToolMessage("Rain.", name="weather", tool_call_id="weather-1"),
    ]
    agent, _ = agent_of([Calls(in_points())])
    messages = await run(agent, {"messages": history}, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    left = messages[1]
    assert [block.get("id") for block in left.content] == [None, "weather-1"]
    assert [each["id"] for each in left.additional_kwargs["tool_calls"]] == ["weather-1"]


async def test_twice_in_one_turn_nothing_is_written_and_the_model_is_told(is_async):
    twice = Calls(in_points(id="one"), in_points("Sleep", "Eat", id="two"))
    agent, llm = agent_of([twice, Calls(in_points())])
    messages = await run(agent, is_async=is_async)
    told = [m.text for m in llm.of("turn")[1][2] if isinstance(m, ToolMessage)]
    assert ["called 2 times" in text for text in told] == [True, True]
    assert_plain(messages, "human", "ai")
    assert len(llm.of("point")) == 3


BAD = {
    "none": call(TOOL_NAME, "bad"),
    "other names": call(TOOL_NAME, "bad", titles=["a", "b"]),
    "too few": in_points("Rest", id="bad"),
    "no list": call(TOOL_NAME, "bad", points={"title": "Rest"}),
    "no JSON": {"name": TOOL_NAME, "args": '{"points": [{"title": Rest}', "id": "bad"},
    "forged": call(TOOL_NAME, "bad", runtime={"state": {}}, points=[]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
async def test_bad_arguments_give_the_model_an_error_that_it_can_read(is_async, bad):
    agent, llm = agent_of([Calls(bad), Calls(in_points())])
    messages = await run(agent, is_async=is_async)
    told = llm.of("turn")[1][2][-1]
    assert told.status == "error"
    assert "Call it again" in told.text or "Call it once" in told.text
    assert_plain(messages, "human", "ai")
    assert messages[-1].text == ANSWER


async def test_beside_a_call_of_another_tool_that_is_no_json_the_model_is_told_of_both(is_async):
    broken = {"name": "weather", "args": '{"place": Bonn', "id": "broken"}
    agent, llm = agent_of([Calls(in_points(id="early"), broken), Calls(in_points())])
    llm.strict = False  # older versions of LangChain leave the broken call to the provider's adapter
    messages = await run(agent, is_async=is_async)
    assert "only call of a turn" in next(m.text for m in llm.of("turn")[1][2] if m.type == "tool")
    assert messages[-1].text == ANSWER
    assert not [m for m in messages if m.type == "remove" or getattr(m, "name", None) == TOOL_NAME]
    called = [each["id"] for m in messages if m.type == "ai" for each in (*m.tool_calls, *m.invalid_tool_calls)]
    assert called == ["broken"]
    assert {m.tool_call_id for m in messages if m.type == "tool"} <= {"broken"}


async def test_after_bad_arguments_the_model_may_answer_itself(is_async):
    agent, llm = agent_of([Calls(in_points("Rest")), "Rest."])
    messages = await run(agent, is_async=is_async)
    check_history(messages, ended=True)
    assert messages[-1].text == "Rest."
    assert llm.of("point") == []


async def test_more_points_than_max_points_are_cut_and_the_description_says_so(is_async):
    agent, llm = agent_of([Calls(in_points())], settings={"max_points": 2})
    message = (await run(agent, is_async=is_async))[-1]
    assert message.response_metadata["skeleton"] == TITLES[:2]
    assert len(llm.of("point")) == 2
    own = SkeletonOfThoughtMiddleware(final="tool", max_points=2).tools[0]
    assert "at most 2 points" in own.description


async def test_the_settings_of_the_chain_hold_for_the_answer(is_async):
    llm = ToolCallingChat(turns=[Calls(in_points()), "In short: live well."])
    writer = ToolCallingChat(turns=[], name_="writer")
    agent, _ = agent_of([], llm=llm, settings={"closing": True, "join": "headings", "point_llm": writer})
    text = (await run(agent, is_async=is_async))[-1].text
    assert text.startswith("## Take breaks")
    assert text.endswith("In short: live well.")
    assert (len(writer.of("point")), len(llm.of("point"))) == (3, 0)


async def test_a_retriever_finds_documents_for_each_point(is_async):
    def find(query: str) -> list[Document]:
        return [Document(f"A fact about {query.splitlines()[0].lower()}", metadata={"of": query})]

    agent, llm = agent_of([Calls(in_points())], settings={"retriever": find, "retrieval": "per_point"})
    message = (await run(agent, is_async=is_async))[-1]
    assert len(message.response_metadata["sources"]) == 3
    assert all("A fact about" in prompt[-1].text for _, _, prompt, _ in llm.of("point"))


# --- where the tool is not offered ---


class Forecast(BaseModel):
    """A weather forecast."""

    place: str


class Changed(AgentMiddleware):
    """Changes the requests."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes = changes

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(request.override(**self.changes))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(request.override(**self.changes))


async def test_under_a_response_format_the_tool_is_not_offered(is_async):
    agent, llm = agent_of([LOOK_UP, Calls(call("Forecast", place="Bonn"))], response_format=Forecast)
    state = await (agent.ainvoke(QUESTION) if is_async else asyncio.to_thread(agent.invoke, QUESTION))
    assert state["structured_response"] == Forecast(place="Bonn")
    assert [kwargs["tools"] for _, _, _, kwargs in llm.of("turn")] == [["weather", "Forecast"]] * 2


@pytest.mark.parametrize(
    ("changes", "tools"),
    [
        ({"tool_choice": "any"}, ["weather"]),
        ({"tool_choice": "weather"}, ["weather"]),
        ({"tool_choice": "auto"}, [TOOL_NAME, "weather"]),
        ({"tool_choice": TOOL_NAME}, [TOOL_NAME, "weather"]),
        ({"tool_choice": {"type": "function", "function": {"name": TOOL_NAME}}}, [TOOL_NAME, "weather"]),
        ({"tool_choice": {"type": "tool", "name": "weather"}}, ["weather"]),
        ({"model_settings": {"max_tokens": 5}}, ["weather"]),
        ({"model_settings": {"temperature": 0.5}}, [TOOL_NAME, "weather"]),
        ({"tools": [weather]}, ["weather"]),
    ],
)
async def test_the_tool_is_offered_only_where_the_model_may_choose_it(is_async, changes, tools):
    agent, llm = agent_of(["Yes."], before=[Changed(**changes)])
    await run(agent, is_async=is_async)
    assert llm.of("turn")[0][3]["tools"] == tools


async def test_a_forced_call_is_answered(is_async):
    agent, llm = agent_of([Calls(in_points())], before=[Changed(tool_choice=TOOL_NAME)])
    assert (await run(agent, is_async=is_async))[-1].text == ANSWER
    assert len(llm.of("turn")) == 1


async def test_the_points_get_the_model_and_settings_that_other_middleware_chose(is_async):
    other = ToolCallingChat(turns=[Calls(in_points())], name_="other")
    changed = Changed(model=other, model_settings={"temperature": 0.3})
    agent, llm = agent_of([], before=[changed], llm=ToolCallingChat(turns=[]))
    assert (await run(agent, is_async=is_async))[-1].text == ANSWER
    assert llm.watch.seen == []
    assert [kwargs.get("temperature") for _, _, _, kwargs in other.of("point")] == [0.3] * 3


async def test_an_agent_without_tools_answers_as_without_the_setting(is_async):
    agent, llm = agent_of(["1. Rest\n2. Water"], tools=[], settings={"router": None})
    message = (await run(agent, is_async=is_async))[-1]
    assert message.text == "1. Rest: All about rest.\n\n2. Water: All about water."
    assert all("tools" not in kwargs for _, _, _, kwargs in llm.watch.seen)


async def test_a_tool_of_the_provider_is_a_tool(is_async):
    agent, llm = agent_of([Calls(in_points())], tools=[{"type": "web_search", "name": "web_search"}])
    assert (await run(agent, is_async=is_async))[-1].text == ANSWER
    assert llm.of("turn")[0][3]["tools"] == [TOOL_NAME, "web_search"]


def test_off_is_the_default_and_adds_nothing():
    assert SkeletonOfThoughtMiddleware().tools == []
    with pytest.raises(InvalidInput, match="final must be 'tool' or 'off', not 'yes'"):
        SkeletonOfThoughtMiddleware(final="yes")


async def test_a_tool_of_the_same_name_is_an_error_before_any_call(is_async):
    @tool
    def answer_in_points(points: list[str]) -> str:
        """Something else."""
        return ""

    for name in (answer_in_points, {"type": "function", "function": {"name": TOOL_NAME}}):
        agent, llm = agent_of([], tools=[weather, name])
        with pytest.raises(InvalidInput, match="rename that tool"):
            await run(agent, is_async=is_async)
        assert llm.watch.seen == []


# --- failures ---


async def test_a_failed_point_fails_the_run_and_the_run_can_be_resumed(is_async):
    failing = [True]

    def point(title: str) -> Any:
        return [ValueError("broken")] if failing and title == "Move" else f"All about {title.lower()}."

    llm = ToolCallingChat(turns=[LOOK_UP, Calls(in_points())], point=point)
    agent, _ = agent_of([], llm=llm, settings={"max_retries": 0}, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(PointError):
        await run(agent, config=thread, is_async=is_async)
    assert llm.watch.open == 0
    failing.clear()
    messages = await run(agent, None, thread, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert len(llm.of("turn")) == 2


async def test_a_failed_point_may_have_a_placeholder(is_async):
    llm = ToolCallingChat(
        turns=[Calls(in_points())],
        point=lambda title: [ValueError("broken")] if title == "Move" else f"All about {title.lower()}.",
    )
    settings = {"max_retries": 0, "on_point_error": "placeholder", "placeholder": "(missing)"}
    agent, _ = agent_of([], llm=llm, settings=settings)
    messages = await run(agent, is_async=is_async)
    assert_plain(messages, "human", "ai")
    assert messages[-1].text.endswith("3. Move: (missing)")
    assert list(messages[-1].response_metadata["errors"]) == ["3"]


async def test_a_cancelled_run_leaves_nothing_running():
    held = Gate()
    llm = ToolCallingChat(turns=[Calls(in_points())], point=lambda title: ["All", held])
    agent, _ = agent_of([], llm=llm)
    task = asyncio.create_task(agent.ainvoke(QUESTION))
    await llm.watch.together(3).await_()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert llm.watch.open == 0


async def test_a_closed_stream_leaves_nothing_running():
    held = Gate()
    llm = ToolCallingChat(turns=[Calls(in_points())], point=lambda title: ["All about", held])
    agent, _ = agent_of([], llm=llm)
    stream = agent.astream(QUESTION, stream_mode="messages")
    async for message, _ in stream:
        if message.text.startswith("1. Take"):
            break
    await stream.aclose()
    await Gate(lambda: llm.watch.open == 0).await_()


# --- agents in agents, and graphs of one's own ---


async def test_of_nested_agents_only_the_outermost_streams_its_answer(is_async):
    inner, inner_llm = agent_of([Calls(in_points("Sun", "Rain"))])

    if is_async:

        @tool
        async def ask(question: str) -> str:
            """Asks another agent."""
            return (await inner.ainvoke({"messages": [("human", question)]}))["messages"][-1].text

    else:

        @tool
        def ask(question: str) -> str:
            """Asks another agent."""
            return inner.invoke({"messages": [("human", question)]})["messages"][-1].text

    outer, llm = agent_of([Calls(call("ask", question="Weather?")), Calls(in_points())], tools=[ask])
    tokens = await streamed(outer, "messages", is_async=is_async)
    assert "".join(m.text for m, _ in tokens if isinstance(m, AIMessageChunk)) == ANSWER
    (told,) = [m.text for m in llm.of("turn")[1][2] if isinstance(m, ToolMessage)]
    assert told == "1. Sun: All about sun.\n\n2. Rain: All about rain."
    assert len(inner_llm.of("point")) == 2


async def test_an_agent_is_a_node_of_a_graph(is_async):
    agent, _ = agent_of([LOOK_UP, Calls(in_points())], name="helper")
    graph = StateGraph(MessagesState).add_node("helper", agent).add_edge(START, "helper").compile()
    messages = await run(graph, is_async=is_async)
    # The outer graph gets the messages by their ids: what the agent removed never reached it.
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER


async def test_the_tool_in_a_tool_node_accepts_points_and_tells_of_mistakes(is_async):
    own = SkeletonOfThoughtMiddleware(final="tool").tools[0]
    llm = ToolCallingChat(turns=[Calls(in_points("Rest", id="bad")), Calls(in_points()), "Done."])
    bound = llm.bind_tools([own])

    def ask(state: MessagesState) -> Any:
        return {"messages": [bound.invoke(state["messages"])]}

    async def aask(state: MessagesState) -> Any:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState).add_node("ask", aask if is_async else ask).add_node("tools", ToolNode([own]))
    builder.add_edge(START, "ask").add_conditional_edges("ask", tools_condition).add_edge("tools", "ask")
    messages = await run(builder.compile(), is_async=is_async)
    told = [message for message in messages if message.type == "tool"]
    assert [message.status for message in told] == ["error", "success"]
    assert "accepted" in told[1].text
    json.dumps(told[1].artifact)
