"""Skeleton-of-Thought in LangChain's agents. Needs `langchain`: the extra `agents`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import ensure_config

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model.delegation import suits_chain
from langchain_sot.chat_model.model import SkeletonOfThoughtChatModel
from langchain_sot.chat_model.route import CallRoute
from langchain_sot.models.resolution import ChainModels
from skeleton_of_thought.errors import InvalidInput, MissingExtra

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    # Releases of langchain before 1 have no middleware. The extra asks for a newer one, so the hint fits them too.
    raise MissingExtra("SkeletonOfThoughtMiddleware needs langchain", "agents") from error

from langchain_sot.agents.final_answer import AcceptedPoints, accepted_points, has_tool, offered, with_readable_calls
from langchain_sot.agents.points_tool import make_tool

__all__ = ["SkeletonOfThoughtMiddleware"]

Final = Literal["tool", "off"]


class SkeletonOfThoughtMiddleware(AgentMiddleware[Any, Any]):
    """Lets an agent of `create_agent` answer by Skeleton-of-Thought, with the model that it has.

    A `SkeletonOfThoughtChain` over the agent's model takes the model's turn, with the system prompt and the whole
    history. The message is that of `SkeletonOfThoughtChatModel`. With `stream_mode="messages"` its tokens come in
    document order; the tokens of the skeleton and of single points are not streamed.

    The agent makes its own model call where the router chooses the direct route; the reason is in the message's
    `response_metadata`. A reply without text is asked for again, up to `max_retries` times. The agent also makes the
    call, unchanged, if the request has tools or a response format, if the last message is not a human's, and for model
    settings that concern the text as a whole, such as `stop` or `max_tokens`: all that are not in
    `langchain_sot.chat_model.delegation.PER_CALL_SETTINGS`. Middleware after this one in the agent's list sees only
    these calls.

    With `final="tool"`, an agent that has tools gets one more, `answer_in_points`. When the model calls it, with the
    titles of the answer's points, the points are written side by side from the whole conversation, tool results
    included, by the agent's model without tools. Their text is the agent's final message, in place of the call and its
    result. `docs/agents.md` says what happens to calls beside others, and with approval, limits and retries.

    Example:
        >>> from langchain.agents import create_agent
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from langchain_sot import SkeletonOfThoughtMiddleware
        >>> llm = FakeListChatModel(responses=["1. Move", "A short walk helps."])
        >>> agent = create_agent(llm, middleware=[SkeletonOfThoughtMiddleware(max_points=6)])
        >>> agent.invoke({"messages": [("human", "What are good ways to stay awake?")]})["messages"][-1].text
        '1. Move: A short walk helps.'

    Args:
        final: "tool" for the tool `answer_in_points` in agents that have tools, "off" for none.
        settings: The settings of `SkeletonOfThoughtChain` but `llm`: `point_llm`, `router`, `max_points`, ...

    Raises:
        InvalidInput: `llm` is among the settings, or `final` is neither; from the agent's first request, if it has
            another tool named `answer_in_points`.
        ValueError: A setting that cannot work.
    """

    def __init__(self, *, final: Final = "off", **settings: Any) -> None:
        super().__init__()
        if final not in get_args(Final):
            raise InvalidInput(f"final must be {' or '.join(map(repr, get_args(Final)))}, not {final!r}.")
        if "llm" in settings:
            raise InvalidInput(
                "SkeletonOfThoughtMiddleware takes the agent's own model: give `llm` to create_agent as its model, and "
                "another model for the points as `point_llm`."
            )
        # A stand-in for the agent's model, so that invalid settings raise here and not with the first request.
        self._chain = SkeletonOfThoughtChain(llm=RunnableLambda(_no_model), **settings)
        self._tool = make_tool(self._chain.plan().settings) if final == "tool" else None
        self.tools = [] if self._tool is None else [self._tool]

    def wrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> ModelResponse | AIMessage:
        """Answers by the chain, or calls the handler."""
        if self._tool is not None:
            if (points := accepted_points(request)) is not None:
                answer = self._points_model(points).invoke(points.messages(), **request.model_settings)
                return points.response(_with_agent_name(answer))
            request = offered(request, self._tool)
            if has_tool(request, self._tool):
                return with_readable_calls(handler(request))
        if not _suits_chain(request):
            return handler(request)
        model, messages = self._model(request), _messages(request)
        route = model.call_route(messages, **request.model_settings)
        if route.delegated:
            response = handler(request)
            while (pause := _pause_after(response, request, route)) is not None:
                time.sleep(pause)
                response = handler(request)
            return _with_reason(response, route)
        return _with_agent_name(model.with_route(route).invoke(messages, **request.model_settings))

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> ModelResponse | AIMessage:
        """Async twin of `wrap_model_call`."""
        if self._tool is not None:
            if (points := accepted_points(request)) is not None:
                answer = await self._points_model(points).ainvoke(points.messages(), **request.model_settings)
                return points.response(_with_agent_name(answer))
            request = offered(request, self._tool)
            if has_tool(request, self._tool):
                return with_readable_calls(await handler(request))
        if not _suits_chain(request):
            return await handler(request)
        model, messages = self._model(request), _messages(request)
        route = model.call_route(messages, **request.model_settings)
        if route.delegated:
            response = await handler(request)
            while (pause := _pause_after(response, request, route)) is not None:
                await asyncio.sleep(pause)
                response = await handler(request)
            return _with_reason(response, route)
        return _with_agent_name(await model.with_route(route).ainvoke(messages, **request.model_settings))

    def _model(self, request: ModelRequest) -> SkeletonOfThoughtChatModel:
        return self._chain.model_copy(update={"llm": request.model}).as_chat_model()

    def _points_model(self, points: AcceptedPoints) -> SkeletonOfThoughtChatModel:
        """The agent's model, which writes these points."""
        llm: Runnable[Any, Any] = points.request.model
        if isinstance(llm, SkeletonOfThoughtChatModel):
            llm = llm.chain.llm  # that model would answer each prompt by points of its own
        chain = self._chain.model_copy(update={"llm": llm, "router": None})
        plan = replace(chain.plan(), skeleton=points.skeleton)
        if plan.settings.opening == "restart":
            # The text of a message cannot be taken back.
            plan = replace(plan, settings=replace(plan.settings, opening=True))
        models = ChainModels(plan.llm, plan.point_llm, adopts=plan.adopts, kwargs=points.request.model_settings)
        return chain.as_chat_model().with_route(CallRoute(delegated=False, plan=plan, models=models))


def _suits_chain(request: ModelRequest) -> bool:
    if request.tools or request.tool_choice is not None or request.response_format is not None:
        return False
    if isinstance(request.model, SkeletonOfThoughtChatModel):
        return False  # it answers by a chain of its own
    return suits_chain(request.messages, request.model_settings)


def _messages(request: ModelRequest) -> list[BaseMessage]:
    system = request.system_message
    return [*([system] if system is not None else []), *request.messages]


def _pause_after(response: ModelResponse | AIMessage, request: ModelRequest, route: CallRoute) -> float | None:
    """The pause before the agent's own call is made again, because a direct answer has no text; else None."""
    result = [response] if isinstance(response, AIMessage) else response.result
    messages = [message for message in result if isinstance(message, AIMessage)]
    if route.direct is None or len(messages) != 1:
        return None
    return route.direct.pause_after(request.model, messages[0])


def _with_reason(response: ModelResponse, route: CallRoute) -> ModelResponse | AIMessage:
    """The response of the agent's own call, with the router's reason in its messages."""
    if isinstance(response, AIMessage):  # other middleware may return one
        return route.message(response)
    result = [route.message(message) if isinstance(message, AIMessage) else message for message in response.result]
    return replace(response, result=result)


def _with_agent_name(message: AIMessage) -> AIMessage:
    # `create_agent` names the messages of its own calls like this, for graphs of several agents.
    name = ensure_config().get("metadata", {}).get("lc_agent_name")
    return message.model_copy(update={"name": name}) if name else message


def _no_model(_: Any) -> Any:
    raise RuntimeError("The middleware has no model of its own: each request has the agent's model.")
