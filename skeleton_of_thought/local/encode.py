"""From prompts to tokens: raw text, or chat messages through the model's template, with exactly one BOS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from skeleton_of_thought.errors import EngineForked, EngineReentered, InvalidInput
from skeleton_of_thought.local.guard import Guard
from skeleton_of_thought.types import Message, Prompt

__all__ = ["ChatInput", "EncodedPrompt", "PromptInput", "TextCodec", "Tools"]

T = TypeVar("T")

ChatInput = Sequence[Message | Mapping[str, Any]]
PromptInput = str | Prompt | ChatInput
"""Raw text; or a chat, as a `Prompt` or as messages. A chat that ends with the assistant is continued.

A message that is a mapping has a role and content, and may have what chat templates know besides: `name`,
`tool_calls` and `tool_call_id`, as transformers documents them.
"""

Tools = Sequence[Mapping[str, Any]]
"""What the model may call: function descriptions as JSON schemas, in the form that chat templates take."""

_EXTRAS = ("name", "tool_calls", "tool_call_id")

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

    def exclusively(self, work: Callable[[], T]) -> T:
        """Call a function while nobody else uses the tokenizer."""
        return self._guard.run(work)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of some ids, without special tokens or with them."""
        if not ids:
            return ""
        return self._guard.run(
            lambda: str(
                self.tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
            )
        )

    def render(self, prompt: PromptInput, prefill: str = "", tools: Tools = ()) -> str:
        """The text of a prompt, as the model sees it. Arguments and errors as for `encode`."""
        return self._text(prompt, prefill, tools)[0]

    def encode(self, prompt: PromptInput, prefill: str = "", tools: Tools = ()) -> EncodedPrompt:
        """The tokens of a prompt.

        Args:
            prompt: Raw text, a `Prompt` or messages.
            prefill: Text to append, as the start of the assistant's turn or of the continuation.
            tools: What the model may call.

        Raises:
            InvalidInput: The prompt is empty, or is a chat that this model's template does not take.
            EngineForked: The codec was made before this process was forked.
            EngineReentered: The calling thread is using a tokenizer already, and was interrupted.
        """
        text, continued = self._text(prompt, prefill, tools)
        limit = prompt.hints.max_tokens if isinstance(prompt, Prompt) else None
        ids = self._tokenize(text)
        if not ids:
            raise InvalidInput("The prompt is empty: give it some text.")
        return EncodedPrompt(ids, ids[-_CONTEXT:] if continued else (), limit)

    def _text(self, prompt: PromptInput, prefill: str, tools: Tools) -> tuple[str, bool]:
        if isinstance(prompt, str):
            if tools:
                raise InvalidInput("Raw text shows the model no tools: give the prompt as messages.")
            return prompt + prefill, True
        if isinstance(prompt, Prompt):
            return self._render(_as_chat(prompt.messages), prompt.prefill + prefill, tools)
        return self._render(_as_chat(prompt), prefill, tools)

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

    def _render(self, chat: list[dict[str, Any]], prefill: str, tools: Tools) -> tuple[str, bool]:
        if chat and chat[-1]["role"] == "assistant" and not chat[-1].get("tool_calls"):
            prefill = chat.pop()["content"] + prefill
        if not chat:
            raise InvalidInput("The prompt has no messages: give at least the user's.")
        return self._apply_template(chat, tools) + prefill, bool(prefill)

    def _apply_template(self, chat: list[dict[str, Any]], tools: Tools) -> str:
        if not self.has_chat_template:
            raise InvalidInput(
                "The model has no chat template, so it takes no messages: pass raw text (a string), or set "
                "tokenizer.chat_template."
            )
        given = {"tools": [dict(tool) for tool in tools]} if tools else {}
        try:
            return self._guard.run(
                lambda: str(
                    self.tokenizer.apply_chat_template(
                        chat, **given, tokenize=False, add_generation_prompt=True, **self._template_kwargs
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


def _as_chat(prompt: ChatInput) -> list[dict[str, Any]]:
    """Messages as chat templates take them."""
    chat: list[dict[str, Any]] = []
    for item in prompt:
        extras: dict[str, Any] = {}
        if isinstance(item, Message):
            message = item
        elif isinstance(item, Mapping) and isinstance(item.get("role"), str) and "content" in item:
            content = item["content"] or ""
            message = Message(item["role"], content if isinstance(content, str) else tuple(content))
            extras = {name: item[name] for name in _EXTRAS if item.get(name)}
        else:
            raise InvalidInput(f"A prompt is text, a Prompt, or messages with role and content; it has {item!r:.80}.")
        chat.append({"role": message.role, "content": _text_of(message), **extras})
    return chat


def _text_of(message: Message) -> str:
    if message.attachments:
        kinds = sorted({str(block.get("type")) for block in message.attachments})
        raise InvalidInput(f"This model takes text only, but a message has content of type {', '.join(kinds)}.")
    return message.text
