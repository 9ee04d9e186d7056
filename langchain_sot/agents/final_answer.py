"""The final answer of an agent with tools, from the call of `answer_in_points` to the message in the history.

The tool only accepts the points. The model's next turn writes them, in `wrap_model_call`. So approval, limits and
retries of tool calls hold for the tool. What other middleware does to the model's calls and answers holds for the
points and the answer. A checkpoint between the two turns has a history from which any model can go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.messages.ai import add_usage
from langchain_core.messages.tool import tool_call
from langchain_core.tools import BaseTool
from langgraph.graph.message import REMOVE_ALL_MESSAGES

from langchain_sot.agents.plain_history import plain_history
from langchain_sot.agents.points_tool import accepted_skeleton, call_ids, messages_of, own_calls
from langchain_sot.messages import message_usage, usage_metadata
from skeleton_of_thought.adapters.as_model import suits_points
from skeleton_of_thought.adapters.points_tool import TOOL_NAME
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Skeleton

__all__ = ["AcceptedPoints", "accepted_points", "has_tool", "offered", "with_readable_calls"]

_ASK = "Answer what I asked for."
"""The question in the prompts, where the conversation has none in words, or a long one: it is in the history, too."""

_LONG = 2000
"""Characters from which a question is long."""


def offered(request: ModelRequest, tool: BaseTool) -> ModelRequest:
    """The request as the model gets it: without the tool, unless the model may call it here.

    The model may call it if it has other tools, answers in plain text, is not made to call one of the others, and has
    no settings that concern the answer as a whole.

    Args:
        request: The request.
        tool: The middleware's tool.

    Raises:
        InvalidInput: The agent has another tool of that name.
    """
    named = [each for each in request.tools if _name(each) == TOOL_NAME]
    if any(each is not tool for each in named):
        raise InvalidInput(
            f"The agent has a tool of its own named {TOOL_NAME!r}, as SkeletonOfThoughtMiddleware(final='tool') adds "
            "one: rename that tool, or leave out final='tool'."
        )
    if not named:
        return request
    others = [each for each in request.tools if each is not tool]
    forced = _is_forced(request.tool_choice)
    if (forced or (others and request.tool_choice in (None, "auto"))) and _takes_points(request):
        return request
    return request.override(tools=others)


def has_tool(request: ModelRequest, tool: BaseTool) -> bool:
    """Whether the model may call this tool."""
    return any(each is tool for each in request.tools)


def accepted_points(request: ModelRequest) -> AcceptedPoints | None:
    """The points that are to be written in this turn; None for a turn of the model's own."""
    messages = messages_of(request.state)
    skeleton = accepted_skeleton(messages[-1]) if len(messages) > 1 else None
    if skeleton is None or not _takes_points(request):
        return None
    call, result = messages[-2:]
    assert isinstance(result, ToolMessage)
    if not isinstance(call, AIMessage) or result.tool_call_id not in call_ids(call):
        return None
    return AcceptedPoints(skeleton, call, result, request)


def with_readable_calls(response: ModelResponse | AIMessage) -> ModelResponse | AIMessage:
    """The response, in which a call of the tool whose arguments are no JSON is a call.

    An agent ends at a turn without calls, so the model would never learn of its mistake. The tool reads such arguments
    as well as it can, or replies with what is wrong.
    """
    if isinstance(response, AIMessage):
        return _with_readable_calls(response)
    result = [_with_readable_calls(each) if isinstance(each, AIMessage) else each for each in response.result]
    return replace(response, result=result)


@dataclass(frozen=True)
class AcceptedPoints:
    """The points of a final answer, accepted by the tool and not written yet.

    Attributes:
        skeleton: The points.
        call: The model's message with the call of the tool.
        result: The tool's result.
        request: The request of the turn in which they are written.
    """

    skeleton: Skeleton
    call: AIMessage
    result: ToolMessage
    request: ModelRequest

    def messages(self) -> list[BaseMessage]:
        """The conversation in which the points are asked for.

        In place of the call and its result stands the plan as the model's own words. The other calls and results are
        text, because no tools are bound for the points.
        """
        system = self.request.system_message
        history = self._history()
        question = self._question(history).strip()
        asked = HumanMessage(question if 0 < len(question) < _LONG else _ASK)
        return [*([system] if system is not None else []), *plain_history(history, str(self.skeleton)), asked]

    def response(self, answer: AIMessage) -> ModelResponse:
        """The answer in place of the call, of its result, and of calls that the tool refused."""
        return ModelResponse(result=[*self._cleared(), self._complete(answer)])

    def _complete(self, answer: AIMessage) -> AIMessage:
        """The answer with the usage of the call, which was the skeleton's."""
        metadata = {**answer.response_metadata, "reason": f"the model called {TOOL_NAME}"}
        if (usage := message_usage(self.call)) is None:
            return answer.model_copy(update={"response_metadata": metadata})
        metadata["usage_by_stage"] = {"skeleton": usage_metadata(usage), **metadata["usage_by_stage"]}
        total = add_usage(self.call.usage_metadata, answer.usage_metadata)
        return answer.model_copy(update={"response_metadata": metadata, "usage_metadata": total})

    def _cleared(self) -> Iterator[BaseMessage]:
        """Updates of the state's messages after which no call of the tool, and no result of it, is left."""
        messages = messages_of(self.request.state)
        updates = {update.id: update for update in self._updates(messages)}
        if not any(isinstance(each, AIMessage) and each.invalid_tool_calls for each in messages):
            yield from updates.values()
            return
        # The agent may put results of these calls into the history, which it then writes anew before this response:
        # removals would not be carried out. It does so again in the next turn.
        yield RemoveMessage(REMOVE_ALL_MESSAGES)
        for message in messages:
            if not isinstance(left := updates.get(message.id, message), RemoveMessage):
                yield left

    def _updates(self, messages: Sequence[BaseMessage]) -> Iterator[BaseMessage]:
        removed: list[BaseMessage] = []
        for place, own in own_calls(messages).items():
            message = messages[place]
            if not message.id:
                continue
            if isinstance(message, AIMessage) and (own != call_ids(message) or message.invalid_tool_calls):
                yield _without_calls(message, own)
            else:
                removed.append(RemoveMessage(message.id))
        yield from removed

    def _history(self) -> list[BaseMessage]:
        """The messages as other middleware left them, without the call and its result."""
        call_id = self.result.tool_call_id
        history = list(self.request.messages)
        calls = [i for i, each in enumerate(history) if isinstance(each, AIMessage) and call_id in call_ids(each)]
        place = calls[-1] if calls else len(history)
        rest = (each for each in history[place + 1 :] if getattr(each, "tool_call_id", None) != call_id)
        return [*history[:place], *rest]

    def _question(self, history: Sequence[BaseMessage]) -> str:
        """The user's last words; middleware may have replaced them by a summary in the request."""
        for message in (*reversed(history), *reversed(messages_of(self.request.state))):
            if isinstance(message, HumanMessage) and message.additional_kwargs.get("lc_source") is None:
                return str(message.text)
        return ""


def _takes_points(request: ModelRequest) -> bool:
    return request.response_format is None and suits_points(request.model_settings)


def _name(tool: Any) -> Any:
    if not isinstance(tool, Mapping):
        return getattr(tool, "name", None)
    function = tool.get("function")
    return function.get("name") if isinstance(function, Mapping) else tool.get("name")


def _is_forced(choice: Any) -> bool:
    """Whether `tool_choice`, in any provider's form, names the tool."""
    return choice == TOOL_NAME or (isinstance(choice, Mapping) and _name(choice) == TOOL_NAME)


def _without_calls(message: AIMessage, ids: set[str]) -> AIMessage:
    """The message without these calls, in the forms of all providers: adapters send the content as it is."""
    more = dict(message.additional_kwargs)
    if isinstance(raw := more.get("tool_calls"), list):
        more["tool_calls"] = [call for call in raw if call.get("id") not in ids]
    content: Any = message.content
    if isinstance(content, list):
        content = [block for block in content if not isinstance(block, dict) or ids.isdisjoint(_block_ids(block))]
    calls = [call for call in message.tool_calls if call["id"] not in ids]
    return message.model_copy(update={"content": content, "additional_kwargs": more, "tool_calls": calls})


def _block_ids(block: Mapping[str, Any]) -> set[Any]:
    return {block.get("id"), block.get("call_id")}


def _with_readable_calls(message: AIMessage) -> AIMessage:
    own = [call for call in message.invalid_tool_calls if call["name"] == TOOL_NAME and call["id"]]
    if not own:
        return message
    calls = [tool_call(name=TOOL_NAME, args={"points": call["args"]}, id=call["id"]) for call in own]
    rest = [call for call in message.invalid_tool_calls if call not in own]
    return message.model_copy(update={"tool_calls": [*message.tool_calls, *calls], "invalid_tool_calls": rest})
