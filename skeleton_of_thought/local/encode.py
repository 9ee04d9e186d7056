"""From prompts to tokens: raw text, or chat messages through the model's template, with exactly one BOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import EngineForked, EngineReentered, InvalidInput
from skeleton_of_thought.local.guard import Guard
from skeleton_of_thought.types import Message, Prompt

__all__ = ["ChatInput", "EncodedPrompt", "PromptInput", "TextCodec"]

ChatInput = Sequence[Message | Mapping[str, Any]]
PromptInput = str | Prompt | ChatInput
"""Raw text; or a chat, as a `Prompt` or as messages. A chat that ends with the assistant is continued."""

_CONTEXT = 8
"""Tokens of the prompt that decide how the first generated token is spaced."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in tokens, with the limits that came with it.

    Attributes:
        ids: All tokens of the prompt, its prefill included.
        context: The end of the ids, where generated text continues text; empty where a new turn begins.
        max_tokens: The prompt's own limit.
    """

    ids: tuple[int, ...]
    context: tuple[int, ...] = ()
    max_tokens: int | None = None


class TextCodec:
    """A tokenizer behind a guard, since fast tokenizers fail ("Already borrowed") when threads share them.

    Args:
        tokenizer: A Hugging Face tokenizer.
        template_kwargs: Extra variables for the chat template.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self._template_kwargs = dict(template_kwargs or {})
        self._guard = Guard()

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be given."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens."""
        if not ids:
            return ""
        return self._guard.run(
            lambda: str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        )

    def encode(self, prompt: PromptInput, prefill: str = "") -> EncodedPrompt:
        """The tokens of a prompt.

        Args:
            prompt: Raw text, a `Prompt` or messages.
            prefill: Text to append, as the start of the assistant's turn or of the continuation.

        Raises:
            InvalidInput: The prompt is empty, or is a chat that this model's template does not take.
            EngineForked: The codec was made before this process was forked.
            EngineReentered: The calling thread is using a tokenizer already, and was interrupted.
        """
        limit: int | None = None
        if isinstance(prompt, str):
            text, continued = prompt + prefill, True
        elif isinstance(prompt, Prompt):
            text, continued = self._render(prompt.messages, prompt.prefill + prefill)
            limit = prompt.max_tokens
        else:
            text, continued = self._render(_as_messages(prompt), prefill)
        ids = self._tokenize(text)
        if not ids:
            raise InvalidInput("The prompt is empty: give it some text.")
        return EncodedPrompt(ids, ids[-_CONTEXT:] if continued else (), limit)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        tokenizer = self.tokenizer
        bos, eos = tokenizer.bos_token, tokenizer.eos_token
        # Many templates write the BOS themselves; a tokenizer that adds its own would make it two.
        add = not (bos and text.startswith(bos))
        encoded = self._guard.run(lambda: tokenizer(text, add_special_tokens=add, verbose=False))
        ids: list[int] = list(encoded["input_ids"])
        # A tokenizer that also appends an end of sequence would have the model start a new text.
        if add and eos and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(eos):
            ids.pop()
        return tuple(ids)

    def _render(self, messages: Sequence[Message], prefill: str) -> tuple[str, bool]:
        chat = [{"role": message.role, "content": _text_of(message)} for message in messages]
        if chat and chat[-1]["role"] == "assistant":
            prefill = chat.pop()["content"] + prefill
        if not chat:
            raise InvalidInput("The prompt has no messages: give at least the user's.")
        return self._apply_template(chat) + prefill, bool(prefill)

    def _apply_template(self, chat: list[dict[str, str]]) -> str:
        if not self.has_chat_template:
            raise InvalidInput(
                "The model has no chat template, so it takes no messages: pass raw text (a string), or set "
                "tokenizer.chat_template."
            )
        try:
            return self._guard.run(
                lambda: str(
                    self.tokenizer.apply_chat_template(
                        chat, tokenize=False, add_generation_prompt=True, **self._template_kwargs
                    )
                )
            )
        except (ImportError, EngineForked, EngineReentered):
            raise
        except Exception as error:
            # Templates raise whatever their author wrote, of jinja2's types or Python's own.
            roles = ", ".join(message["role"] for message in chat)
            advice = (
                "; put the system message's text at the start of the first user message"
                if chat[0]["role"] == "system"
                else ""
            )
            raise InvalidInput(
                f"The model's chat template rejects messages with roles {roles}: {error}{advice}."
            ) from error


def _as_messages(prompt: ChatInput) -> list[Message]:
    messages = []
    for item in prompt:
        if isinstance(item, Message):
            messages.append(item)
        elif isinstance(item, Mapping) and isinstance(item.get("role"), str) and "content" in item:
            content = item["content"] or ""
            messages.append(Message(item["role"], content if isinstance(content, str) else tuple(content)))
        else:
            raise InvalidInput(f"A prompt is text, a Prompt, or messages with role and content; it has {item!r:.80}.")
    return messages


def _text_of(message: Message) -> str:
    if message.attachments:
        kinds = sorted({str(block.get("type")) for block in message.attachments})
        raise InvalidInput(f"This model takes text only, but a message has content of type {', '.join(kinds)}.")
    return message.text
