"""Between the core's messages and LlamaIndex's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.llms.llm import LLM

from skeleton_of_thought.types import Message, Prompt

__all__ = ["as_text", "chat_messages", "core_message"]


def core_message(message: ChatMessage) -> Message:
    """A message of LlamaIndex as the core's. Blocks that are no text go through it as they are."""
    if all(isinstance(block, TextBlock) for block in message.blocks):
        return Message(_role(message), message.content or "", raw=message)
    blocks = tuple(
        {"type": "text", "text": block.text}
        if isinstance(block, TextBlock)
        else {"type": block.block_type, "block": block}
        for block in message.blocks
    )
    return Message(_role(message), blocks, raw=message)


def _role(message: ChatMessage) -> str:
    return message.role.value if isinstance(message.role, MessageRole) else str(message.role)


def chat_messages(prompt: Prompt, llm: LLM) -> list[ChatMessage]:
    """A prompt as messages for a chat model, its own system prompt first."""
    messages = [_chat_message(message) for message in prompt.messages]
    if llm.system_prompt:
        messages.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=llm.system_prompt))
    return messages


def _chat_message(message: Message) -> ChatMessage:
    if isinstance(message.raw, ChatMessage):
        return message.raw
    role = MessageRole(message.role)
    if isinstance(message.content, str):
        return ChatMessage(role=role, content=message.content)
    return ChatMessage(role=role, blocks=[_block(block) for block in message.content])


def _block(block: Mapping[str, Any]) -> Any:
    return TextBlock(text=str(block.get("text", ""))) if block.get("type") == "text" else block["block"]


def as_text(prompt: Prompt, llm: LLM, *, chat: bool = False) -> str:
    """A prompt as the text that a model completes, formatted as LlamaIndex formats it.

    Args:
        prompt: What is asked.
        llm: Who is asked.
        chat: Whether the model takes its text as a chat, even of one message.
    """
    if chat or len(prompt.messages) > 1:
        return _from_messages(llm, chat_messages(prompt, llm))
    text = prompt.messages[0].text
    if llm.completion_to_prompt is not None:
        text = llm.completion_to_prompt(text)
    # As `LLM.predict` has it: what the model's owner wants around every prompt.
    if llm.system_prompt:
        text = f"{llm.system_prompt}\n\n{text}"
    if llm.query_wrapper_prompt is not None:
        text = llm.query_wrapper_prompt.format(query_str=text)
    return text


def _from_messages(llm: LLM, messages: Sequence[ChatMessage]) -> str:
    assert llm.messages_to_prompt is not None, "LLM fills it in"
    return llm.messages_to_prompt(messages)
