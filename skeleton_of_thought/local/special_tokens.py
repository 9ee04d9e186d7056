"""Tokens of a prompt with quoted texts: titles, drafts and contexts, in which no special token may be read.

Tokenizers find special tokens by their text, wherever it stands. So a prompt in which quoted texts may have added some
is rendered once more with a stand-in for each of them. That shows the special tokens that the template and the caller
have. If the prompt has others, its tokens are made again by a copy of the tokenizer that does not know the text of any:
those of the template and the caller have stand-ins there. All other text becomes the tokens that it always becomes.

Tokenizers that cannot be copied so, and models that have a special token among their ordinary ones, get quoted texts
with spaces in them. What the prompt then has is checked again, so none is left in any case.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tokenizers import AddedToken, Tokenizer

from skeleton_of_thought.local.chat_template import ChatTemplate, RenderedChat
from skeleton_of_thought.local.private_tokenizer import PrivateTokenizer
from skeleton_of_thought.parsing.special_tokens import SPECIAL

__all__ = ["SpecialTokenSplitter"]

Change = Callable[[str], str]
"""Changes a text of a prompt."""

_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id")


class SpecialTokenSplitter:
    """Keeps a tokenizer from reading special tokens in the quoted texts of prompts.

    Args:
        private: The tokenizer.
        exclusively: Calls a function while no other thread uses the tokenizer.
        template: Its chat template.
    """

    def __init__(self, private: PrivateTokenizer, exclusively: Callable[..., Any], template: ChatTemplate) -> None:
        self._private = private
        self._exclusively = exclusively
        self._template = template
        self._known: tuple[Any, str, TokenReader] | None = None

    def suspects(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts in which the tokenizer may read a special token."""
        reader: TokenReader = self._exclusively(self._reader)
        return reader.suspects(texts)

    def _reader(self) -> TokenReader:
        """What is known of the special tokens, until the tokenizer or its template changes."""
        latest, source = self._private.follow(), self._template.source
        if self._known is None or self._known[0] is not latest or self._known[1] != source:
            self._known = latest, source, TokenReader.of(latest, source)
        return self._known[2]

    def split(
        self,
        render: Callable[[Change], RenderedChat],
        tokenize: Callable[..., tuple[int, ...]],
        rendered: RenderedChat,
        quoted: Iterable[str] | None,
    ) -> tuple[RenderedChat, tuple[int, ...]]:
        """A prompt and its tokens, without special tokens from quoted texts.

        Args:
            render: Renders the prompt with each text of its messages changed.
            tokenize: Makes the tokens of a whole prompt, with those that the tokenizer itself adds; `made` are the
                others where they are known.
            rendered: The prompt as it is.
            quoted: The quoted texts; None for all texts of the messages.
        """
        texts: list[str] = []

        def keep(text: str) -> str:
            texts.append(text)
            return text

        if quoted is None:
            render(keep)
        suspects = self.suspects(texts if quoted is None else quoted)
        if suspects and quoted is not None:
            render(keep)
            suspects += self._exclusively(lambda: self._changed(suspects, texts))
        if not suspects:
            return rendered, tokenize(rendered.text)
        substitution = Substitution(suspects, rendered.text)
        marked = render(substitution.mark)
        made = self._exclusively(
            lambda: _without(self._reader(), self._private, rendered.text, marked.text, substitution)
        )
        if isinstance(made, str):
            return (rendered if made == rendered.text else marked), tokenize(made)
        return marked, tokenize(marked.text, made)

    def _changed(self, suspects: list[str], shown: list[str]) -> list[str]:
        """The special tokens, and words with some, of those texts that a template has changed or does not show."""
        reader = self._reader()
        lost = [text for text in suspects if not any(text.strip() in own for own in shown)]
        if not lost:
            return []
        words = reader.suspects({word for text in lost for word in text.split()})
        found = [word for word in words if reader.found(self._private.ids(word, special=False))]
        # A template may cut a text, or write it in lower case.
        names = {name for text in lost for name in reader.names(_squeezed(text))}
        return [*found, *{name for own in shown for name in reader.names(own) if _squeezed(name) in names}]


def _squeezed(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
"""The settings of an added token."""


@dataclass(frozen=True)
class TokenReader:
    """What is known of a tokenizer's special tokens.

    Attributes:
        tokens: The tokens that steer the model, by their ids.
        unknown: The id of unknown text, if it stands for nothing else; an empty set without one.
        first: Finds a character with which the text of one of the tokens may begin.
        any: Finds the text of one of the tokens, in upper or lower case.
        normalizer: The tokenizer's normalizer; None without one.
    """

    tokens: dict[int, AddedToken]
    unknown: frozenset[int]
    first: re.Pattern[str]
    any: re.Pattern[str]
    normalizer: Any = None

    @classmethod
    def of(cls, tokenizer: Any, template: str) -> TokenReader:
        """Reads a tokenizer.

        Args:
            tokenizer: A Hugging Face tokenizer.
            template: The source of its chat template.
        """
        special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=False)
        tokens = {id_: AddedToken(str(text), special=True) for text, id_ in special}
        try:
            added = tokenizer.added_tokens_decoder
        except (AttributeError, NotImplementedError):  # tokenizers outside transformers
            added = {}
        for id_, token in added.items():
            # Some tokenizers have words, tags of HTML and white space as tokens of their own: ordinary text.
            steers = any(not char.isalnum() for char in token.content.strip()) and (
                token.content in template or SPECIAL.fullmatch(token.content)
            )
            if token.special or id_ in tokens or steers:
                tokens[id_] = token
        backend = getattr(tokenizer, "backend_tokenizer", None)
        normalizer = backend.normalizer if isinstance(backend, Tokenizer) else None
        texts = [token.content.strip() for token in tokens.values()]
        if normalizer is not None:
            texts += [normalizer.normalize_str(text).strip() for text in texts]
        first = "".join(sorted({re.escape(text[0]) for text in texts if text}))
        named = {getattr(tokenizer, name, None) for name in _ROLES}
        unknown = {id_ for id_ in (getattr(tokenizer, "unk_token_id", None),) if id_ is not None} - named
        forms = {form for token in tokens.values() for form in (token.content.strip(), _squeezed(token.content))}
        every = "|".join(map(re.escape, sorted(forms - {""}, key=len, reverse=True)))
        return cls(
            tokens,
            frozenset(unknown),
            re.compile(f"[{first}]" if first else "(?!)"),
            re.compile(every or "(?!)", re.IGNORECASE),
            normalizer,
        )

    def names(self, text: str) -> list[str]:
        """The texts of special tokens in a text, in upper or lower case."""
        return self.any.findall(text)

    def suspects(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that may have a special token."""
        return [text for text in texts if self.first.search(text) or self.first.search(self._normalized(text))]

    def names_unknown(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts may have the text of the token for unknown text."""
        names = [self._normalized(self.tokens[id_].content).strip().casefold() for id_ in self.unknown]
        return any(name in self._normalized(text).casefold() for text in texts for name in names)

    def _normalized(self, text: str) -> str:
        if self.normalizer is not None:
            return str(self.normalizer.normalize_str(text))
        return text if text.isascii() else unicodedata.normalize("NFKC", text)

    def found(self, ids: Iterable[int], *, unknown: bool = False) -> list[int]:
        """The special tokens among some ids, in order; that of unknown text only if so wanted."""
        return [id_ for id_ in ids if id_ in self.tokens and (unknown or id_ not in self.unknown)]


class Substitution:
    """Puts stand-ins in the place of quoted texts: characters that the prompt does not have.

    Quoted texts that overlap somewhere have one stand-in there. So a title that ends with the beginning of a context
    does not hide the rest of the context.

    Args:
        quoted: The texts.
        prompt: The prompt with them, to choose the stand-ins.
    """

    def __init__(self, quoted: Iterable[str], prompt: str) -> None:
        self.texts = sorted({text.strip() for text in quoted} - {""})  # templates strip values
        self.by_mark: dict[str, str] = {}
        self._marks: dict[str, str] = {}
        self._free = unused_characters(prompt)

    def mark(self, text: str) -> str:
        """A text with stand-ins."""
        pieces, end = [], 0
        for start, stop in _united(span for part in self.texts for span in _spans(text, part)):
            pieces += [text[end:start], self._mark_of(text[start:stop])]
            end = stop
        return "".join([*pieces, text[end:]])

    def _mark_of(self, piece: str) -> str:
        if piece not in self._marks:
            # A prompt with every such character loses the piece.
            self._marks[piece] = next(self._free, "")
            self.by_mark[self._marks[piece]] = piece
        return self._marks[piece]

    def restore(self, text: str, change: Change = str) -> str:
        """A text with the quoted ones, changed, in place of their stand-ins."""
        return "".join([change(self.by_mark[char]) if char in self.by_mark else char for char in text])


def _spans(text: str, part: str) -> Iterator[tuple[int, int]]:
    """The places of a part, those that overlap as one."""
    start = text.find(part)
    while start >= 0:
        last = start
        while (later := text.rfind(part, last + 1, last + 2 * len(part) - 1)) >= 0:
            last = later
        yield start, last + len(part)
        start = text.find(part, last + len(part))


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    united: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if united and start < united[-1][1]:
            united[-1] = united[-1][0], max(stop, united[-1][1])
        else:
            united.append((start, stop))
    return united


def unused_characters(text: str) -> Iterator[str]:
    """Characters for private use that a text does not have."""
    used = set(text)
    codes = chain(range(0xF0000, 0xFFFFE), range(0xE000, 0xF900), range(0x100000, 0x10FFFE))
    return (char for char in map(chr, codes) if char not in used)


def _without(
    reader: TokenReader, private: PrivateTokenizer, whole: str, marked: str, substitution: Substitution
) -> str | tuple[int, ...]:
    """A prompt without special tokens from its quoted texts: a text to be made tokens of, or tokens.

    The tokens lack those that the tokenizer itself puts around a text.

    Args:
        reader: Knows the special tokens.
        private: The tokenizer, which no other thread uses meanwhile.
        whole: The prompt.
        marked: The prompt with stand-ins for the quoted texts.
        substitution: Knows the stand-ins.
    """
    wanted = reader.found(private.ids(marked, special=False))
    if reader.found(private.ids(whole, special=False)) == wanted and not reader.names_unknown(substitution.texts):
        return whole
    if (ids := _by_stand_ins(reader, private, marked, substitution)) is not None and reader.found(ids) == wanted:
        return tuple(ids)
    for change in _CHANGES:
        text = substitution.restore(marked, change)
        if reader.found(private.ids(text, special=False)) == wanted:
            return text
    return substitution.restore(marked, lambda _: "")


_CHANGES: tuple[Change, ...] = (
    lambda text: re.sub(r"(?<=[<\[|])(?=\S)", " ", text),
    lambda text: re.sub(r"(?<=[^\w\s])(?=\S)|(?<=\S)(?=[^\w\s])", " ", text),
    lambda text: " ".join(re.findall(r"\w+", text)),
    lambda text: " ".join(re.findall(r"\w", text)),
)
"""Changes of quoted texts that leave less and less of a special token's text."""


def _by_stand_ins(
    reader: TokenReader, private: PrivateTokenizer, marked: str, substitution: Substitution
) -> list[int] | None:
    """The tokens, made by a tokenizer that knows no special token; None where there is none such."""
    backend = getattr(private.latest, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return None
    backend.encode_special_tokens = False
    encoding = backend.encode(marked, add_special_tokens=False)
    free = unused_characters("".join((marked, *substitution.by_mark, *substitution.by_mark.values())))
    signs = dict(zip(sorted(set(reader.found(encoding.ids, unknown=True))), free, strict=False))
    pieces, end = [], 0
    for id_, (begin, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if id_ not in signs or begin < end:
            continue
        shown, text = marked[begin:stop], reader.tokens[id_].content
        if text not in shown and id_ in reader.unknown:
            continue  # text that the model does not know
        pieces += [marked[end:begin], shown.replace(text, signs[id_]) if text in shown else signs[id_]]
        end = stop
    text = substitution.restore("".join([*pieces, marked[end:]]))
    bare = Tokenizer(backend.model)
    for name in ("normalizer", "pre_tokenizer"):
        if (part := getattr(backend, name)) is not None:
            setattr(bare, name, part)
    originals: dict[str, int] = {}
    for id_, token in sorted(backend.get_added_tokens_decoder().items()):
        if id_ in signs or id_ not in reader.tokens:
            content = signs.get(id_, token.content)
            originals[content] = id_
            flags = {name: getattr(token, name) for name in _FLAGS}
            bare.add_tokens([AddedToken(content, **flags)])
    added = bare.get_added_tokens_decoder()
    # Vocabularies with gaps have ordinary tokens beyond their length.
    if any(bare.model.id_to_token(id_) not in (None, token.content) for id_, token in added.items()):
        return None
    own = {id_: originals[token.content] for id_, token in added.items()}
    return [own.get(id_, id_) for id_ in bare.encode(text, add_special_tokens=False).ids]
