"""The turn of an agent in which it calls a tool: the agent, its conversation so far, and the calls of the turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow, BaseWorkflowAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.workflow import Context

from llama_index_sot.llm_calls import core_message
from skeleton_of_thought.adapters.points_tool import TOOL_NAME, result_text
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Message

__all__ = ["AgentTurn", "agent_turn"]

_TOOL_ROLES = frozenset({MessageRole.TOOL, MessageRole.FUNCTION})


@dataclass(frozen=True)
class AgentTurn:
    """One turn of an agent, at a call of one of its tools.

    Attributes:
        agent: The agent.
        chat: What its LLM has seen, ending with the user's question: its system prompt, the turns before, and the
            results of tools as text. A strict server takes no tool's call or result in a call without tools.
        question: The text of the user's message.
        calls: The names of the tools that this turn calls; fewer than `count` where the LLM does not tell them.
        count: How many calls this turn has.
        wants_data: Whether the agent makes data (`output_cls`, `structured_output_fn`) of its last message.
    """

    agent: BaseWorkflowAgent
    chat: tuple[Message, ...]
    question: str
    calls: tuple[str, ...]
    count: int
    wants_data: bool


async def agent_turn(ctx: Context | None) -> AgentTurn:
    """The turn that calls a tool with this context.

    Raises:
        InvalidInput: The context is no agent's, or its conversation has no question.
    """
    # A tool gets the context of the run, and no context names its workflow in public.
    workflow: Any = getattr(getattr(ctx, "_face", ctx), "_workflow", None)
    agents = [workflow]
    if ctx is not None and isinstance(workflow, AgentWorkflow):
        agents.append(workflow.agents.get(await ctx.store.get("current_agent_name", default="")))
    agent = agents[-1]
    if ctx is None or not isinstance(agent, BaseWorkflowAgent):
        raise InvalidInput("This tool reads the conversation of the agent that calls it: give it to an agent's tools.")
    question = await ctx.store.get("user_msg_str", default="")
    memory = await ctx.store.get("memory", default=None)
    seen: list[ChatMessage] = [] if memory is None else list(await memory.aget(input=question))
    if agent.system_prompt:
        seen.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=agent.system_prompt))
    # Function agents keep the messages of the present run here, until the run ends or another agent takes over.
    written: list[ChatMessage] = await ctx.store.get(getattr(agent, "scratchpad_key", "scratchpad"), default=[])
    # The last step of ReAct agents, as the last message of function agents, is the call itself.
    steps: list[Any] = await ctx.store.get(getattr(agent, "reasoning_key", "current_reasoning"), default=[])
    return AgentTurn(
        agent,
        _plain_chat(agent.llm, [*seen, *written[:-1]], [step.get_content() for step in steps[:-1]], question),
        question,
        tuple(call.tool_name for message in written[-1:] for call in _calls(agent.llm, message)),
        await ctx.store.get("num_tool_calls", default=1),
        any(getattr(one, name, None) for one in agents for name in ("output_cls", "structured_output_fn")),
    )


def _plain_chat(llm: LLM, messages: Sequence[ChatMessage], steps: Iterable[str], question: str) -> tuple[Message, ...]:
    """The messages without tools, with the user's last message at the end.

    Args:
        llm: Knows how it writes calls.
        messages: The messages.
        steps: What a ReAct agent has written in this run, without its last step.
        question: The question, where the memory has no user's message any more.

    Raises:
        InvalidInput: There is no question.
    """
    chat: list[Message] = []
    calls: dict[str, ToolSelection] = {}
    media: list[Any] = []
    for place, message in enumerate(messages):
        call_id = _call_id(message)
        if message.role in _TOOL_ROLES:
            call = calls.get(str(call_id))
            # The result of a tool that returned directly stands there twice: as a result, and as the answer next.
            answer = next((each for each in messages[place:] if each.role is MessageRole.ASSISTANT), None)
            direct = call_id is not None and answer is not None and _call_id(answer) == call_id
            if direct or (call is not None and call.tool_name == TOOL_NAME):
                continue  # the latter is what the points' own tool refused
            name, arguments = (None, None) if call is None else (call.tool_name, call.tool_kwargs)
            _add_note(chat, result_text(name, arguments, message.content or ""))
            if shown := [block for block in message.blocks if not isinstance(block, TextBlock)]:
                media += [TextBlock(text=f"From the result of {name or 'a tool'}:"), *shown]
        elif message.role is MessageRole.ASSISTANT and ((found := _calls(llm, message)) or call_id is not None):
            calls |= {call.tool_id: call for call in found}
            _add_note(chat, message.content or "")
        elif message.role is MessageRole.USER and media:
            chat.append(core_message(ChatMessage(role=MessageRole.USER, blocks=[*media, *message.blocks])))
            media = []
        else:
            chat.append(core_message(message))
    for step in steps:
        _add_note(chat, step)
    places = [place for place, message in enumerate(chat) if message.role == "user"]
    if places and places[-1] == len(chat) - 1:
        return tuple(chat)
    asked = chat[places[-1]].text if places else ""
    if not (asked.strip() or question.strip()):
        raise InvalidInput("The agent's conversation has no question of the user's with text.")
    asked = asked if asked.strip() else question
    if not media:
        return (*chat, Message("user", asked))
    # A message of the assistant's cannot show them.
    return (*chat, core_message(ChatMessage(role=MessageRole.USER, blocks=[*media, TextBlock(text=asked)])))


def _call_id(message: ChatMessage) -> Any:
    return message.additional_kwargs.get("tool_call_id")


def _calls(llm: LLM, message: ChatMessage) -> list[ToolSelection]:
    """The calls in a message, as the agent reads them."""
    read: Any = getattr(llm, "get_tool_calls_from_response", None)
    if read is None:
        return []
    try:
        return list(read(ChatResponse(message=message), error_on_no_tool_call=False))
    except Exception:  # another agent's LLM may write calls in another way, or arguments that are no JSON
        return []


def _add_note(chat: list[Message], text: str) -> None:
    """Adds text to the assistant's turn; servers want turns to alternate."""
    if not text.strip():
        return
    if chat and chat[-1].role == "assistant" and isinstance(chat[-1].content, str):
        text = f"{chat.pop().content}\n\n{text}"
    chat.append(Message("assistant", text))
