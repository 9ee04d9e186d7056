"""`answer_in_points` as a tool of LangGraph's tool nodes: it accepts the points of an answer, or says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.prebuilt import ToolRuntime

from skeleton_of_thought.adapters.points_tool import DESCRIPTION, PARAMETERS, TOOL_NAME, alone, skeleton_of
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Point, Skeleton

__all__ = ["accepted_skeleton", "call_ids", "make_tool", "messages_of", "own_calls"]

_MARK = "skeleton_of_thought"
"""The key in the artifact of the tool's results: their content may change, as other middleware edits it."""


def make_tool(settings: Settings) -> BaseTool:
    """The tool. It writes nothing: the model's next turn does, which other middleware can see and change.

    Args:
        settings: How many points there may be.
    """

    def accept(runtime: ToolRuntime, **arguments: Any) -> ToolMessage:
        call_id = runtime.tool_call_id or ""
        counts = _counts(messages_of(runtime.state), call_id)
        try:
            if counts is not None and counts != (1, 1):
                raise InvalidInput(alone(counts[1]))
            found = skeleton_of(arguments, min_points=settings.min_points, max_points=settings.max_points)
        except InvalidInput as error:
            return _result(call_id, str(error), {"points": []}, status="error")
        points = [{"title": point.title, "note": point.scope} for point in found.points]
        return _result(call_id, "The points are accepted. The answer comes next.", {"points": points})

    async def aaccept(runtime: ToolRuntime, **arguments: Any) -> ToolMessage:
        return accept(runtime, **arguments)

    return StructuredTool(
        name=TOOL_NAME,
        description=f"{DESCRIPTION} It takes at most {settings.max_points} points.",
        args_schema={**PARAMETERS},
        func=accept,
        coroutine=aaccept,
    )


def messages_of(state: Any) -> Sequence[BaseMessage]:
    """The messages in the state of a graph, which may be a mapping, an object or the messages themselves."""
    if isinstance(state, Mapping):
        state = state.get("messages")
    elif not isinstance(state, Sequence):
        state = getattr(state, "messages", None)
    return state or ()


def call_ids(message: AIMessage) -> set[str]:
    """The ids of the calls in a message."""
    return {call["id"] for call in message.tool_calls if call["id"]}


def own_calls(messages: Sequence[BaseMessage]) -> dict[int, set[str]]:
    """The calls of the tool with a result of its own, and these results: their ids, by the places of their messages.

    A result belongs to the last call of its id before it, as some servers count ids anew in each turn.
    """
    places: dict[int, set[str]] = {}
    made: dict[str, int] = {}
    for place, message in enumerate(messages):
        if isinstance(message, AIMessage):
            made |= dict.fromkeys(call_ids(message), place)
        elif isinstance(message, ToolMessage) and _is_own_result(message):
            for at in {place, made.get(message.tool_call_id, place)}:
                places.setdefault(at, set()).add(message.tool_call_id)
    return places


def _is_own_result(message: BaseMessage) -> bool:
    """Whether this is a result of the tool, and not what a person or other middleware put in its place."""
    artifact = message.artifact if isinstance(message, ToolMessage) else None
    return isinstance(artifact, Mapping) and _MARK in artifact


def accepted_skeleton(message: BaseMessage) -> Skeleton | None:
    """The points that the tool accepted with this result; None for any other message."""
    if not isinstance(message, ToolMessage) or not _is_own_result(message) or message.status == "error":
        return None
    points = message.artifact[_MARK]["points"]
    return Skeleton(tuple(Point(i, each["title"], scope=each["note"]) for i, each in enumerate(points, 1)))


def _counts(messages: Sequence[BaseMessage], call_id: str) -> tuple[int, int] | None:
    """How many calls the turn with this call has, and how many of them are of the tool; None for an unknown turn."""
    for message in reversed(messages):
        if isinstance(message, AIMessage) and any(call["id"] == call_id for call in message.tool_calls):
            names = [call["name"] for call in (*message.tool_calls, *message.invalid_tool_calls)]
            return len(names), names.count(TOOL_NAME)
    return None


def _result(call_id: str, content: str, mark: Mapping[str, Any], status: Any = "success") -> ToolMessage:
    return ToolMessage(content, name=TOOL_NAME, tool_call_id=call_id, status=status, artifact={_MARK: {**mark}})
