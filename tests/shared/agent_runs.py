"""Agents with tools that answer in points, and how tests run them."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from tool_calling_chat import ANSWER, ToolCallingChat, check_history

from langchain_sot import SkeletonOfThoughtMiddleware
from skeleton_of_thought.adapters.points_tool import TOOL_NAME

__all__ = ["ANSWER", "QUESTION", "agent_of", "assert_plain", "run", "streamed", "weather"]

QUESTION = {"messages": [HumanMessage("What shall I do today?")]}


@tool
def weather(place: str) -> str:
    """The weather of a place."""
    return f"Rain in {place}."


def agent_of(turns: list[Any], *, settings: Any = None, before: Any = (), after: Any = (), **more: Any) -> Any:
    """An agent with the tool `weather`, and its model.

    Args:
        turns: The model's turns.
        settings: Settings of the middleware.
        before: Middleware before it.
        after: Middleware after it.
        more: Arguments of `create_agent`, `llm` and `tools` among them.
    """
    llm = more.pop("llm", None) or ToolCallingChat(turns=turns)
    own = SkeletonOfThoughtMiddleware(final="tool", **(settings or {}))
    agent = create_agent(llm, more.pop("tools", [weather]), middleware=[*before, own, *after], **more)
    return agent, llm


async def run(agent: Any, value: Any = QUESTION, config: Any = None, *, is_async: bool) -> list[Any]:
    """The messages after a run."""
    state = await (agent.ainvoke(value, config) if is_async else asyncio.to_thread(agent.invoke, value, config))
    return list(state["messages"])


async def streamed(agent: Any, modes: Any, value: Any = QUESTION, config: Any = None, *, is_async: bool) -> list[Any]:
    """The items of a stream."""
    if is_async:
        return [item async for item in agent.astream(value, config, stream_mode=modes)]
    return await asyncio.to_thread(lambda: list(agent.stream(value, config, stream_mode=modes)))


def assert_plain(messages: list[Any], *kinds: str) -> None:
    """The history is of these kinds, any provider takes it, and nothing of the tool is left."""
    check_history(messages, ended=True)
    assert [message.type for message in messages] == list(kinds)
    for message in messages:
        assert TOOL_NAME not in str(message.content)
        assert not any(each["name"] == TOOL_NAME for each in getattr(message, "tool_calls", ()))
