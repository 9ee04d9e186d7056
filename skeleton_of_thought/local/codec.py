"""From prompts to tokens, through the model's chat template, and from tokens back to text, piece by piece."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.chat_template import FIRST_OF_MARKS, OPENING, ChatTemplate, RenderedChat
from skeleton_of_thought.local.guard import Guard
from skeleton_of_thought.local.private_tokenizer import PrivateTokenizer
from skeleton_of_thought.types import Message, Prompt

if TYPE_CHECKING:
    from skeleton_of_thought.local.special_tokens import SpecialTokenSplitter

__all__ = [
    "ChatInput",
    "Detokenizer",
    "EncodedPrompt",
    "PromptInput",
    "SplitTokens",
    "StopStrings",
    "TextCodec",
    "Tools",
]

_T = TypeVar("_T")

ChatInput = Sequence[Message | Mapping[str, Any]]
PromptInput = str | Prompt | ChatInput
"""Raw text; or a chat, as a `Prompt` or as messages. A chat that ends with the assistant's turn is continued.

A message can be a mapping with a role and content. It may also have `name`, `tool_calls` and `tool_call_id`, in the
form that transformers documents for chat templates.
"""

Tools = Sequence[Mapping[str, Any]]
"""Descriptions of the functions that the model may call: JSON schemas in the form that chat templates take."""

SplitTokens = bool | Sequence[str] | None
"""Whether the text of a special token is ordinary text in a prompt; or the texts in which it is."""

_EXTRAS = ("name", "tool_calls", "tool_call_id")

_CONTEXT = 8
"""Tokens at the end of the prompt that decide whether the first generated token begins with a space."""

_UNFINISHED = "\ufffd"
_MAX_HELD = 32
"""The most tokens held back for an unfinished character; after these the text counts as broken."""
_WINDOW = 6
"""The most tokens decoded together, those of an unfinished character aside. A longer window makes each decoding slower,
a shorter one needs a second decoding more often."""


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt in tokens.

    Attributes:
        ids: All tokens of the prompt, its prefill included.
        context: The last ids, if the generated text continues a text; empty if it begins a new turn.
        thought_ends: The marks that end the reasoning with which the generated text begins, if the prompt opens it.
        reasons: Whether the generated text may begin with reasoning.
        stops: Strings with which the model would go on to the next turn.
    """

    ids: tuple[int, ...]
    context: tuple[int, ...] = ()
    thought_ends: tuple[str, ...] = ()
    reasons: bool = False
    stops: tuple[str, ...] = ()


class TextCodec:
    """A private copy of a tokenizer, behind a guard: fast tokenizers fail ("Already borrowed") when threads share them.

    Args:
        tokenizer: A Hugging Face tokenizer.
        template_kwargs: Extra variables for the chat template.
        split_special_tokens: As below.

    Attributes:
        template: The tokenizer's chat template.
        split_special_tokens: Whether the text of a special token is ordinary text in all messages.
    """

    def __init__(
        self, tokenizer: Any, template_kwargs: Mapping[str, Any] | None = None, split_special_tokens: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.split_special_tokens = split_special_tokens
        self._private = PrivateTokenizer(tokenizer)
        self._guard = Guard()
        self.template = ChatTemplate(tokenizer, self._guard.run, template_kwargs or {})

    def exclusively(self, work: Callable[[], _T]) -> _T:
        """Call a function while no other thread uses the tokenizer."""
        return self._guard.run(work)

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of some ids, without special tokens or with them."""
        if not ids:
            return ""
        return self._guard.run(
            lambda: str(
                self._private.latest.decode(
                    list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
                )
            )
        )

    def token(self, token: int) -> object:
        """The token of an id, for messages; None if there is none."""
        return self._guard.run(lambda: self._private.token(token))

    def render(self, prompt: PromptInput, prefill: str = "", tools: Tools = ()) -> str:
        """The text of a prompt, as the model reads it. Arguments and errors as for `encode`."""
        return self._text(prompt, prefill, tools).text

    def encode(
        self,
        prompt: PromptInput,
        prefill: str = "",
        tools: Tools = (),
        *,
        at_once: bool = False,
        split_special_tokens: SplitTokens = None,
    ) -> EncodedPrompt:
        """The tokens of a prompt.

        Args:
            prompt: Raw text, a `Prompt` or messages.
            prefill: Text to append, as the start of the assistant's turn or of the continuation.
            tools: Descriptions of the functions that the model may call.
            at_once: Whether the answer begins with the first generated token, so that there is no room for reasoning.
            split_special_tokens: The texts in which no special token is read, besides those that the prompt quotes;
                True for all texts of its messages, None for the codec's default.

        Raises:
            InvalidInput: The prompt is empty, or the model's template does not accept the chat.
            EngineForked: The codec was made before this process was forked.
            EngineReentered: The call interrupted another use of a tokenizer on the same thread.
        """
        rendered = self._text(prompt, prefill, tools, at_once)
        every = split_special_tokens is True or (self.split_special_tokens and split_special_tokens is not False)
        quoted = (prompt.exact or prompt).quoted if isinstance(prompt, Prompt) else ()
        if every or quoted or split_special_tokens:
            texts = None if every else (*quoted, *(split_special_tokens or ()))
            rendered, ids = self._splitter.split(
                functools.partial(self._text, prompt, prefill, tools, at_once), self._tokenize, rendered, texts
            )
        else:
            ids = self._tokenize(rendered.text)
        if not ids:
            raise InvalidInput("The prompt is empty: give it some text.")
        context = ids[-_CONTEXT:] if rendered.continued else ()
        return EncodedPrompt(ids, context, rendered.thought_ends, rendered.reasons, rendered.stops)

    def with_special_tokens(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts in which the tokenizer may read a special token."""
        return self._splitter.suspects(texts)

    @functools.cached_property
    def _splitter(self) -> SpecialTokenSplitter:
        # Few prompts hold text of a model or a retriever.
        from skeleton_of_thought.local.special_tokens import SpecialTokenSplitter

        return SpecialTokenSplitter(self._private, self._guard.run, self.template)

    def _text(
        self,
        prompt: PromptInput,
        prefill: str,
        tools: Tools,
        at_once: bool = False,
        change: Callable[[str], str] | None = None,
    ) -> RenderedChat:
        if isinstance(prompt, str):
            if tools:
                raise InvalidInput("Raw text shows the model no tools: give the prompt as messages.")
            text = prompt + prefill
            return RenderedChat(text if change is None else change(text), True)
        if isinstance(prompt, Prompt):
            prompt = prompt.exact or prompt
            chat, prefill = _as_chat(prompt.messages), prompt.prefill + prefill
        else:
            chat = _as_chat(prompt)
        if chat and chat[-1]["role"] == "assistant" and not chat[-1].get("tool_calls"):
            prefill = chat.pop()["content"] + prefill
        if not chat:
            raise InvalidInput("The prompt has no messages: give at least the user's.")
        if change is not None:
            chat = [{**message, "content": change(message["content"])} for message in chat]
            prefill = change(prefill)
        return self.template.render(chat, prefill, tools, at_once=at_once)

    def _tokenize(self, text: str, made: Sequence[int] | None = None) -> tuple[int, ...]:
        """The tokens of a whole prompt; `made` are those of its text where they are known."""
        tokenizer = self.tokenizer
        bos, eos = tokenizer.bos_token, tokenizer.eos_token
        # Many templates write the BOS themselves; the tokenizer must not add a second one.
        add = not (bos and text.startswith(bos))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"Character {error.start + 1} of the prompt, {text[error.start]!r}, is half of a surrogate pair, which "
                "no tokenizer reads: decode the text with its own encoding, or with errors='replace'."
            ) from error
        ids = self._guard.run(lambda: self._private.ids(text, special=add, made=made))
        # After an end of sequence, which some tokenizers append, the model would begin a new text.
        if add and eos and ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(eos):
            ids.pop()
        return tuple(ids)


class Detokenizer:
    """Turns tokens into text one by one. The joined pieces are the text of all tokens.

    A token may hold half a character, and a token's text can depend on the token before it (leading spaces of
    sentencepiece models). So each piece is the difference between two decodings of a short window, and a window whose
    text ends in U+FFFD waits for the rest of its character. The window grows for a few tokens, because each decoding is
    also the one that the next is compared with; then it starts again with the tokens of the last piece.

    Args:
        decode: Ids to text.
        context: The last tokens of the text to continue; empty when a new text begins.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(context)
        self._known = len(self._ids)
        self._known_text = decode(self._ids) if context else ""
        self._sent = 0  # characters after _known_text that were already returned

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        ids = self._ids
        ids.append(token)
        text = self._decode(ids)
        fresh = len(ids) - self._known
        if text.endswith(_UNFINISHED) and fresh <= _MAX_HELD:
            return self._whole_part(text)
        piece = text[len(self._known_text) + self._sent :]
        if fresh == 1 and len(ids) < _WINDOW:
            self._known, self._known_text = len(ids), text
        else:
            self._advance()
        return piece

    def flush(self) -> str:
        """The text that is still held back, at the end."""
        if len(self._ids) == self._known:
            return ""
        piece = self._decode(self._ids)[len(self._known_text) + self._sent :]
        self._advance()
        return piece

    def _whole_part(self, text: str) -> str:
        # The characters before the unfinished one can be returned, unless the decoder shows the whole run of bytes as
        # broken until it is complete (byte fallback): then the known text no longer matches.
        whole = text.rstrip(_UNFINISHED)
        fresh = whole[len(self._known_text) :]
        if not whole.startswith(self._known_text) or _UNFINISHED in fresh or len(fresh) <= self._sent:
            return ""
        piece, self._sent = fresh[self._sent :], len(fresh)
        return piece

    def _advance(self) -> None:
        self._ids = self._ids[self._known :]
        self._known = len(self._ids)
        self._known_text = self._decode(self._ids)
        self._sent = 0


class StopStrings:
    """Passes text on up to the first stop string, and holds back a possible start of one.

    Args:
        stops: Strings that end the text anywhere.
        after_text: Strings that end the text only after visible characters: small models often begin with the line
            break that would end them.
        thought_ends: Marks that end the reasoning inside which the text begins, if it does. The strings of `after_text`
            are for the answer: they count only after the reasoning, also where the text itself opens it.
    """

    def __init__(self, stops: Sequence[str], after_text: Sequence[str] = (), thought_ends: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._after_text = tuple(after_text)
        self._thought_ends = tuple(thought_ends) if after_text else ()
        self._every = tuple({*self._stops, *self._after_text})
        self._begun = False
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can be passed on, and whether a stop string was found."""
        if not text or not self._every:
            return text, False
        held = self._held + text
        if self._after_text and not self._begun and not self._thought_ends and held.lstrip()[:1] in FIRST_OF_MARKS:
            own = held.lstrip()
            self._thought_ends = next((ends for mark, ends in OPENING.items() if own.startswith(mark)), ())
            if not self._thought_ends and any(mark.startswith(own) for mark in OPENING):
                self._held = held  # it may become a mark
                return "", False
        if self._thought_ends:
            return self._push_thought(held)
        end = self._end(held)
        if end >= 0:
            self._held = ""
            return held[:end], True
        cut = len(held) - max([_overlap(held, stop) for stop in self._every])
        out, self._held = held[:cut], held[cut:]
        self._begun = self._begun or bool(out.strip())
        return out, False

    def _push_thought(self, held: str) -> tuple[str, bool]:
        """`push` for text that begins inside reasoning."""
        marks, after_text = self._thought_ends, self._after_text
        found = [(at, mark) for mark in marks if (at := held.find(mark)) >= 0]
        self._thought_ends, self._after_text, self._held = (), (), ""
        if not found:
            self._begun, self._every = True, (*self._stops, *marks)
            out, met = self.push(held)
            self._thought_ends, self._after_text = marks, after_text
            return out, met
        at, mark = min(found)
        end = self._end(held[: at + len(mark)])
        if end >= 0:
            return held[:end], True
        self._begun, self._after_text, self._every = False, after_text, tuple({*self._stops, *after_text})
        out, met = self.push(held[at + len(mark) :])
        return held[: at + len(mark)] + out, met

    def flush(self) -> str:
        """The text that is still held back, at the end."""
        out, self._held = self._held, ""
        return out

    def _end(self, held: str) -> int:
        """The place where the first stop string begins; -1 where there is none."""
        ends = [held.find(stop) for stop in self._stops]
        if self._after_text:
            start = 0 if self._begun else len(held) - len(held.lstrip())
            ends += [held.find(stop, start) for stop in self._after_text]
        return min([at for at in ends if at >= 0], default=-1)


def _as_chat(prompt: ChatInput) -> list[dict[str, Any]]:
    """Messages in the form that chat templates take."""
    chat: list[dict[str, Any]] = []
    if not isinstance(prompt, Iterable):
        raise InvalidInput(f"A prompt is text, a Prompt, or messages with role and content, not {prompt!r:.80}.")
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
        types = sorted({str(block.get("type")) for block in message.attachments})
        raise InvalidInput(f"This model takes text only, but a message has content of type {', '.join(types)}.")
    if isinstance(message.content, str):
        return message.content
    # As chat templates join them.
    return "".join(str(block.get("text") or "") for block in message.content)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
