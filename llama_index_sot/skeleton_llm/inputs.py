"""What an LLM is called with: messages, or the text of a completion that still knows its messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM

from llama_index_sot.llm_calls import ResolvedLLM, core_message
from llama_index_sot.local.prompts import has_own_completion_format, has_own_messages_format
from skeleton_of_thought.adapters.as_model import suits_points
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Message

__all__ = ["LLMInput", "chat_input", "known_settings", "prompt_formats", "text_input", "tools_input"]

_TOOL_ROLES = frozenset({MessageRole.TOOL, MessageRole.FUNCTION})
_TOOL_ARGUMENTS = ("user_msg", "chat_history", "verbose", "allow_parallel_tool_calls", "tool_required")
"""The arguments of `chat_with_tools` after the tools, in their order."""
_TOOL_BLOCKS = frozenset({"tool_call", "tool_result"})


class _Formatted(str):
    """A prompt that was written for a text LLM, with the messages that it was made of.

    `LLM.predict` makes text of a template's messages before it calls `complete`. A skeleton needs the question apart
    from the format around it.
    """

    messages: tuple[ChatMessage, ...] = ()

    @classmethod
    def of(cls, text: str, messages: Sequence[ChatMessage]) -> _Formatted:
        prompt = cls(text)
        prompt.messages = tuple(messages)
        return prompt


def prompt_formats(llm: LLM, *, adopted: bool) -> dict[str, Any]:
    """The fields by which `LLM.predict` writes prompts, so that it writes those of the wrapped LLM.

    Args:
        llm: The wrapped LLM.
        adopted: Whether its model runs on an engine, which writes the prompts itself.
    """
    if llm.metadata.is_chat_model:
        # `predict` sends messages, with the system prompt before them.
        return {"system_prompt": llm.system_prompt}
    return {
        "messages_to_prompt": partial(_write_messages, llm, adopted),
        "completion_to_prompt": partial(_write_text, llm, adopted),
    }


def _write_messages(llm: LLM, adopted: bool, messages: Sequence[ChatMessage]) -> str:
    write = generic_messages_to_prompt if adopted or llm.messages_to_prompt is None else llm.messages_to_prompt
    return _Formatted.of(_extended(llm, write(messages)), messages)


def _write_text(llm: LLM, adopted: bool, prompt: str) -> str:
    write = None if adopted else llm.completion_to_prompt
    text = prompt if write is None else write(prompt)
    return _Formatted.of(_extended(llm, text), [ChatMessage(role=MessageRole.USER, content=prompt)])


def _extended(llm: LLM, text: str) -> str:
    """The text with the LLM's system prompt and wrapper, in the order of `LLM.predict`."""
    if llm.system_prompt:
        text = f"{llm.system_prompt}\n\n{text}"
    return llm.query_wrapper_prompt.format(query_str=text) if llm.query_wrapper_prompt is not None else text


@dataclass(frozen=True)
class LLMInput:
    """The input of one call.

    Attributes:
        method: `"chat"`, `"complete"` or `"chat_with_tools"`.
        messages: The chat; of a completion, what its prompt was made of.
        arguments: The method's first argument, and keyword arguments besides those for the model.
        formatted: Whether the prompt of a completion is formatted for the model.
        predicted: Whether `LLM.predict` wrote the prompt.
    """

    method: str
    messages: tuple[ChatMessage, ...]
    arguments: tuple[Any, dict[str, Any]]
    formatted: bool = False
    predicted: bool = False

    @property
    def prompt(self) -> str | None:
        """The prompt of a completion; None for a chat."""
        return str(self.arguments[0]) if self.method == "complete" else None

    def resolve(self, llm: ResolvedLLM, kwargs: Mapping[str, Any]) -> ResolvedLLM:
        """How an LLM gets the prompts of an answer to this input.

        Args:
            llm: The LLM.
            kwargs: The caller's keyword arguments for each call.
        """
        given = {name: value for name, value in known_settings(llm, kwargs).items() if value is not None}
        if self.method == "complete":
            return replace(llm, extends=self.predicted, kwargs=given)
        # Each prompt of the answer reaches the LLM as the chat itself would.
        return replace(llm, extends=False, kwargs=given, is_chat_model=True, takes_messages=llm.has_own_chat)

    def chat(self, llms: Sequence[ResolvedLLM], kwargs: Mapping[str, Any]) -> tuple[Message, ...] | None:
        """The chat if points can answer it; None for a call that goes to the LLM unchanged.

        Args:
            llms: The LLM and that of the points, resolved for this input.
            kwargs: The call's keyword arguments.
        """
        if self.method == "chat_with_tools" or not suits_points(kwargs) or any(map(_has_tools, self.messages)):
            return None
        if self.formatted and not self.predicted and _has_own_format(llms[0].llm):
            return None
        try:
            chat = tuple(map(core_message, self.messages))
        except InvalidInput:
            return None
        if not chat:
            return None
        last = chat[-1]
        if last.role != "user" or not (last.text.strip() or last.attachments):
            return None
        if any(message.attachments for message in chat) and not all(llm.takes_messages for llm in llms):
            return None
        return chat

    def open(self, llm: ResolvedLLM, prefix: str, kwargs: Mapping[str, Any]) -> Callable[[], Any]:
        """The call of the LLM's own method, unchanged.

        Args:
            llm: The LLM.
            prefix: `""`, `"a"`, `"stream_"` or `"astream_"`.
            kwargs: The call's keyword arguments.
        """
        method, (given, arguments) = self.method, self.arguments
        if llm.adopted and self.predicted:
            # The engine writes the prompt with the model's own template.
            many = len(self.messages) > 1
            method, arguments = "chat" if many else "complete", {}
            given = list(self.messages) if many else self.messages[0].content or ""
        return partial(getattr(llm.llm, f"{prefix}{method}"), given, **arguments, **known_settings(llm, kwargs))


def known_settings(llm: ResolvedLLM, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call that the LLM takes. An LLM that was adopted ignores others, as by itself."""
    if not llm.adopted or llm.native is None:
        return dict(kwargs)
    known = llm.native.call_settings()
    return {name: value for name, value in kwargs.items() if name in known}


def _has_tools(message: ChatMessage) -> bool:
    if message.role in _TOOL_ROLES or message.additional_kwargs.get("tool_calls"):
        return True
    return any(block.block_type in _TOOL_BLOCKS for block in message.blocks)


def _has_own_format(llm: LLM) -> bool:
    return has_own_completion_format(llm) or has_own_messages_format(llm)


def chat_input(messages: Sequence[ChatMessage]) -> LLMInput:
    """The input of `chat` and its twins."""
    given = list(messages)
    return LLMInput("chat", tuple(given), (given, {}))


def tools_input(tools: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> LLMInput:
    """The input of `chat_with_tools` and its twins.

    Args:
        tools: Their first argument.
        args: Their other positional arguments.
        kwargs: Their keyword arguments, with those for the model.
    """
    given = {**dict(zip(_TOOL_ARGUMENTS, args, strict=False)), **kwargs}
    asked = given.get("user_msg")
    asked = ChatMessage(role=MessageRole.USER, content=asked) if isinstance(asked, str) else asked
    messages = (*(given.get("chat_history") or ()), *([] if asked is None else [asked]))
    return LLMInput("chat_with_tools", messages, (tools, given))


def text_input(prompt: str, formatted: bool) -> LLMInput:
    """The input of `complete` and its twins."""
    if isinstance(prompt, _Formatted):
        messages = prompt.messages
    else:
        messages = (ChatMessage(role=MessageRole.USER, content=prompt),)
    predicted = formatted and isinstance(prompt, _Formatted)
    return LLMInput("complete", messages, (str(prompt), {"formatted": formatted}), formatted, predicted)
