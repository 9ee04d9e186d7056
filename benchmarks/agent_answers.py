"""Agents that look something up and then answer at length, for `orchestration.py`: alone, and with `final="tool"`.

The model waits instead of computing. Its first turn calls a tool, which takes as long as a skeleton. Then it writes the
whole answer, which takes the time of all points one after the other. Or it calls `answer_in_points`, which takes as
long as a skeleton, and the points are written side by side.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from langchain_sot import SkeletonOfThoughtMiddleware
from skeleton_of_thought.adapters.points_tool import TOOL_NAME

__all__ = ["cells"]

_QUESTION = {"messages": [("human", "How do we plan the garden?")]}


@tool
def look_up(what: str) -> str:
    """Looks something up."""
    return f"What is known of {what}."


class WaitingAgent(BaseChatModel):
    """A chat model that calls a tool first, and waits as long as each of its turns takes.

    Attributes:
        points: The points of the answer.
        skeleton_seconds: Seconds of a turn that calls a tool.
        point_seconds: Seconds of a point.
    """

    points: int
    skeleton_seconds: float = 0.0
    point_seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "waiting"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[each.name for each in tools])

    def _turn(self, messages: list[BaseMessage], names: Any) -> tuple[AIMessage, float]:
        if names is None:
            return AIMessage("A sentence of a point."), self.point_seconds
        if not any(isinstance(message, ToolMessage) for message in messages):
            call = tool_call(name="look_up", args={"what": "gardens"}, id="1")
        elif TOOL_NAME in names:
            points = [{"title": f"Matter {i}"} for i in range(1, self.points + 1)]
            call = tool_call(name=TOOL_NAME, args={"points": points}, id="2")
        else:
            return AIMessage("All points, one after the other."), self.points * self.point_seconds
        return AIMessage("", tool_calls=[call]), self.skeleton_seconds

    def _generate(self, messages: list[BaseMessage], *args: Any, tools: Any = None, **kwargs: Any) -> ChatResult:
        message, seconds = self._turn(messages, tools)
        time.sleep(seconds)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, tools: Any = None, **kwargs: Any) -> ChatResult:
        message, seconds = self._turn(messages, tools)
        await asyncio.sleep(seconds)
        return ChatResult(generations=[ChatGeneration(message=message)])


def cells(points: int, skeleton_seconds: float, point_seconds: float) -> Iterator[dict[str, Any]]:
    """The seconds of one run of each agent, sync and async, and how many times as fast the second one is."""
    model = WaitingAgent(points=points, skeleton_seconds=skeleton_seconds, point_seconds=point_seconds)
    ideal = 2 * skeleton_seconds + point_seconds
    for sync in (True, False):
        alone = _seconds(model, [], sync=sync)
        ours = _seconds(model, [SkeletonOfThoughtMiddleware(final="tool")], sync=sync)
        yield {
            "points": points,
            "mode": "sync" if sync else "async",
            "alone": round(alone, 4),
            "seconds": round(ours, 4),
            "ideal": round(ideal, 4),
            "over_ms": round((ours - ideal) * 1e3, 1),
            "ratio": round(alone / ours, 2),
        }


def _seconds(model: WaitingAgent, middleware: list[Any], *, sync: bool) -> float:
    """The seconds of a run, after one with a model that does not wait."""
    for llm in (model.model_copy(update={"skeleton_seconds": 0.0, "point_seconds": 0.0}), model):
        agent = create_agent(llm, [look_up], middleware=middleware)
        start = time.perf_counter()
        done = agent.invoke(_QUESTION) if sync else asyncio.run(agent.ainvoke(_QUESTION))
        took = time.perf_counter() - start
        assert [message.type for message in done["messages"]] == ["human", "ai", "tool", "ai"]
    return took
