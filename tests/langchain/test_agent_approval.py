"""Approval of the points of an agent's final answer, interrupts, and the way on from a checkpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain", reason="the extra [agents] is not installed")

from agent_runs import ANSWER, QUESTION, agent_of, assert_plain, run, streamed, weather
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from tool_calling_chat import TITLES, Calls, call, check_history, in_points

from skeleton_of_thought.adapters.points_tool import TOOL_NAME

THREAD = {"configurable": {"thread_id": "1"}}
LOOK_UP = Calls(call("weather", place="Bonn"))
MODES = [("batched", "before"), ("batched", "after"), ("per_call", "before"), ("per_call", "after")]


class Reviewed:
    """An agent whose calls a person reviews.

    Args:
        mode: The mode of the interrupts.
        place: Whether the review stands before our middleware or after it.
        tools: The names of the tools that are reviewed.
        turns: The turns of the model.
    """

    def __init__(self, mode: str, place: str, tools: list[str], turns: list[Any]) -> None:
        try:
            review = HumanInTheLoopMiddleware(dict.fromkeys(tools, True), interrupt_mode=mode)
        except TypeError:
            if mode != "batched":
                pytest.skip("this langchain has no interrupts per call")
            review = HumanInTheLoopMiddleware(dict.fromkeys(tools, True))
        self.mode = mode
        self.agent, self.llm = agent_of(turns, **{place: [review]}, checkpointer=InMemorySaver())

    async def ask(self, value: Any, *, is_async: bool) -> dict[str, Any]:
        if is_async:
            return await self.agent.ainvoke(value, THREAD)
        return await asyncio.to_thread(self.agent.invoke, value, THREAD)

    async def decide(self, state: dict[str, Any], *decisions: dict[str, Any], is_async: bool) -> dict[str, Any]:
        """Answers the interrupts of this state."""
        interrupts = state["__interrupt__"]
        if self.mode == "batched":
            assert len(interrupts) == 1
            resume: Any = {"decisions": list(decisions)}
        else:
            assert len(interrupts) == len(decisions)
            resume = {one.id: decision for one, decision in zip(interrupts, decisions, strict=True)}
        return await self.ask(Command(resume=resume), is_async=is_async)


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_an_approved_answer_is_written_once(is_async, mode, place):
    reviewed = Reviewed(mode, place, [TOOL_NAME], [LOOK_UP, Calls(in_points())])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    assert reviewed.llm.of("point") == []
    assert state["messages"][-1].tool_calls[0]["name"] == TOOL_NAME
    messages = (await reviewed.decide(state, {"type": "approve"}, is_async=is_async))["messages"]
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert (len(reviewed.llm.of("turn")), len(reviewed.llm.of("point"))) == (2, 3)


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_edited_titles_are_those_that_are_written(is_async, mode, place):
    reviewed = Reviewed(mode, place, [TOOL_NAME], [Calls(in_points())])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    args = {"points": [{"title": "Sleep"}, {"title": "Eat", "note": "little and often"}]}
    decision = {"type": "edit", "edited_action": {"name": TOOL_NAME, "args": args}}
    messages = (await reviewed.decide(state, decision, is_async=is_async))["messages"]
    check_history(messages, ended=True)
    assert [message.type for message in messages] == ["human", "ai"]
    assert messages[-1].text == "1. Sleep: All about sleep.\n\n2. Eat: All about eat."
    assert all("little and often" in prompt[-1].text for _, _, prompt, _ in reviewed.llm.of("point"))


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_an_edit_that_cannot_be_used_goes_back_to_the_model(is_async, mode, place):
    reviewed = Reviewed(mode, place, [TOOL_NAME], [Calls(in_points()), "Rest."])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    decision = {"type": "edit", "edited_action": {"name": TOOL_NAME, "args": {"points": [{"title": "Sleep"}]}}}
    messages = (await reviewed.decide(state, decision, is_async=is_async))["messages"]
    check_history(messages, ended=True)
    assert messages[-1].text == "Rest."
    assert reviewed.llm.of("point") == []


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_after_a_rejection_the_model_goes_on_and_may_call_again(is_async, mode, place):
    turns = [Calls(in_points()), Calls(in_points("Sleep", "Eat", id="again"))]
    reviewed = Reviewed(mode, place, [TOOL_NAME], turns)
    state = await reviewed.ask(QUESTION, is_async=is_async)
    state = await reviewed.decide(state, {"type": "reject", "message": "Two points, please."}, is_async=is_async)
    assert "Two points, please." in reviewed.llm.of("turn")[1][2][-1].text
    messages = (await reviewed.decide(state, {"type": "approve"}, is_async=is_async))["messages"]
    check_history(messages, ended=True)
    assert messages[-1].response_metadata["skeleton"] == ["Sleep", "Eat"]
    assert len(reviewed.llm.of("point")) == 2
    # What the person said stays in the history.
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_after_a_rejection_the_model_may_answer_itself(is_async, mode, place):
    reviewed = Reviewed(mode, place, [TOOL_NAME], [Calls(in_points()), "Rest."])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    messages = (await reviewed.decide(state, {"type": "reject"}, is_async=is_async))["messages"]
    check_history(messages, ended=True)
    assert messages[-1].text == "Rest."
    assert reviewed.llm.of("point") == []


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_a_person_may_answer_in_place_of_the_tool(is_async, mode, place):
    reviewed = Reviewed(mode, place, [TOOL_NAME], [Calls(in_points()), "Rest."])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    decision = {"type": "respond", "message": "Better in one sentence."}
    try:
        messages = (await reviewed.decide(state, decision, is_async=is_async))["messages"]
    except ValueError as error:
        pytest.skip(f"this langchain has no such decision: {error}")
    check_history(messages, ended=True)
    assert (messages[-1].text, reviewed.llm.of("point")) == ("Rest.", [])


@pytest.mark.parametrize(("mode", "place"), MODES)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_the_review_of_another_tool_beside_the_call(is_async, mode, place, decision):
    both = Calls(in_points(id="early"), call("weather", place="Bonn"))
    reviewed = Reviewed(mode, place, ["weather"], [both, Calls(in_points())])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    messages = (await reviewed.decide(state, {"type": decision}, is_async=is_async))["messages"]
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert ("Rain in Bonn." in [message.text for message in messages]) is (decision == "approve")


@pytest.mark.parametrize(("mode", "place"), MODES)
async def test_both_calls_of_a_turn_are_reviewed(is_async, mode, place):
    both = Calls(in_points(id="early"), call("weather", place="Bonn"))
    reviewed = Reviewed(mode, place, [TOOL_NAME, "weather"], [both, Calls(in_points())])
    state = await reviewed.ask(QUESTION, is_async=is_async)
    state = await reviewed.decide(state, {"type": "approve"}, {"type": "approve"}, is_async=is_async)
    messages = (await reviewed.decide(state, {"type": "approve"}, is_async=is_async))["messages"]
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER


# --- interrupts ---


@pytest.mark.parametrize("moment", ["interrupt_before", "interrupt_after"])
@pytest.mark.parametrize("node", ["model", "tools"])
async def test_an_agent_that_stops_at_each_node_writes_each_point_once(is_async, moment, node):
    agent, llm = agent_of([LOOK_UP, Calls(in_points())], checkpointer=InMemorySaver(), **{moment: [node]})
    messages = await run(agent, QUESTION, THREAD, is_async=is_async)
    for _ in range(6):
        if not agent.get_state(THREAD).next:
            break
        assert llm.of("point") == []
        messages = await run(agent, None, THREAD, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    assert messages[-1].text == ANSWER
    assert (len(llm.of("turn")), len(llm.of("point"))) == (2, 3)


async def test_a_stream_that_goes_on_from_a_checkpoint_shows_the_answer_alone(is_async):
    agent, _ = agent_of([Calls(in_points())], checkpointer=InMemorySaver(), interrupt_after=["tools"])
    await run(agent, QUESTION, THREAD, is_async=is_async)
    shown = await streamed(agent, "messages", None, THREAD, is_async=is_async)
    assert "".join(message.text for message, _ in shown) == ANSWER
    assert {message.type for message, _ in shown} == {"AIMessageChunk"}


async def test_an_interrupt_within_another_tool_leaves_the_way_to_the_answer(is_async):
    @tool
    def ask_user(what: str) -> str:
        """Asks the user."""
        return str(interrupt(what))

    turns = [Calls(call("ask_user", what="Where?")), Calls(in_points())]
    agent, llm = agent_of(turns, tools=[weather, ask_user], checkpointer=InMemorySaver())
    await run(agent, QUESTION, THREAD, is_async=is_async)
    messages = await run(agent, Command(resume="In Bonn."), THREAD, is_async=is_async)
    assert_plain(messages, "human", "ai", "tool", "ai")
    told = 'The result of ask_user({"what": "Where?"}):\nIn Bonn.'
    assert all(told in prompt[1].text for _, _, prompt, _ in llm.of("point"))


async def test_the_user_may_go_on_in_place_of_the_answer(is_async):
    """A new question, asked while the points wait, is the model's turn; the accepted points are not written."""
    agent, llm = agent_of([Calls(in_points()), "Well then."], checkpointer=InMemorySaver(), interrupt_after=["tools"])
    llm.turns[1] = lambda messages: "Well then."
    await run(agent, QUESTION, THREAD, is_async=is_async)
    agent.update_state(THREAD, {"messages": [HumanMessage("Never mind.")]}, as_node="tools")
    llm.strict = False
    messages = await run(agent, None, THREAD, is_async=is_async)
    assert (messages[-1].text, llm.of("point")) == ("Well then.", [])


async def test_a_checkpoint_of_before_the_points_can_be_taken_again(is_async):
    agent, llm = agent_of([Calls(in_points())], checkpointer=InMemorySaver())
    await run(agent, QUESTION, THREAD, is_async=is_async)
    before = [s for s in agent.get_state_history(THREAD) if s.next == ("model",) and len(s.values["messages"]) == 3]
    messages = await run(agent, None, before[0].config, is_async=is_async)
    assert_plain(messages, "human", "ai")
    assert (len(llm.of("turn")), len(llm.of("point"))) == (1, 6)
    assert messages[-1].response_metadata["skeleton"] == TITLES
