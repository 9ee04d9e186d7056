"""Prompts and replies between the core and LlamaIndex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock
from llama_index.core.llms.llm import LLM

from skeleton_of_thought.adapters.replies import ReplyEnd, read_decoding, read_finish_reason, read_usage
from skeleton_of_thought.types import Message, Prompt, Reply

__all__ = ["ResponseReader", "chat_messages", "completion_text", "core_message"]

# --- prompts ---


def core_message(message: ChatMessage) -> Message:
    """A LlamaIndex message as the core's. Blocks other than text are carried along unchanged."""
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


def completion_text(prompt: Prompt, llm: LLM, *, chat: bool = False) -> str:
    """A prompt as text for a completion, formatted as LlamaIndex formats it.

    Args:
        prompt: The prompt.
        llm: The LLM, whose own formats are used.
        chat: Whether the LLM formats even a single message as a chat.
    """
    if chat or len(prompt.messages) > 1:
        return _from_messages(llm, chat_messages(prompt, llm))
    text = prompt.messages[0].text
    if llm.completion_to_prompt is not None:
        text = llm.completion_to_prompt(text)
    # As in `LLM.predict`: the user's own text around every prompt.
    if llm.system_prompt:
        text = f"{llm.system_prompt}\n\n{text}"
    if llm.query_wrapper_prompt is not None:
        text = llm.query_wrapper_prompt.format(query_str=text)
    return text


def _from_messages(llm: LLM, messages: Sequence[ChatMessage]) -> str:
    assert llm.messages_to_prompt is not None, "LLM sets a default"
    return llm.messages_to_prompt(messages)


# --- replies ---


class ResponseReader:
    """Reads the text and the end of one call's responses."""

    def __init__(self) -> None:
        self._text = ""
        self._end = ReplyEnd()

    def whole(self, response: ChatResponse | CompletionResponse) -> tuple[str, Reply]:
        """The text and the end of a response that came at once."""
        self._read_end(response)
        return _text(response), self.reply

    def add(self, response: ChatResponse | CompletionResponse) -> str:
        """Reads the next response of a stream and returns its new text."""
        self._read_end(response)
        delta = response.delta
        if delta is None:
            # Some LLMs give only the text so far.
            text = _text(response)
            delta = text[len(self._text) :] if text.startswith(self._text) else ""
        self._text += delta
        return delta

    @property
    def reply(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: The stream broke off: some clients end it without an error then.
        """
        return self._end.reply()

    def _read_end(self, response: ChatResponse | CompletionResponse) -> None:
        raw, end = response.raw, self._end
        if (raw is None or (isinstance(raw, dict) and not raw)) and not response.additional_kwargs:
            return  # most pieces of a stream
        usage = read_usage(_get(raw, "usage") or _get(raw, "usage_metadata") or raw)
        # The last count replaces earlier ones: streams that send several send running totals.
        end.usage = usage or read_usage(response.additional_kwargs) or end.usage
        choices = _get(raw, "choices")
        if isinstance(choices, list | tuple) and choices:
            end.finish_reason = read_finish_reason(choices[0]) or end.finish_reason
            end.cut = end.finish_reason is None
        else:
            end.finish_reason = read_finish_reason(raw) or end.finish_reason
        end.decoding = read_decoding(_get(raw, "decoding")) or end.decoding


def _text(response: ChatResponse | CompletionResponse) -> str:
    return (response.message.content if isinstance(response, ChatResponse) else response.text) or ""


def _get(data: Any, name: str) -> Any:
    # Dicts first: the check for a `Mapping` costs more than everything else here, for every piece.
    if isinstance(data, dict | Mapping):
        return data.get(name)
    return getattr(data, name, None)
