"""Prompts of exact lengths for the engine's benchmark: a prefix that all rows share, and a tail for each row.

The texts are random words of one token each, so that each text has an exact number of tokens. Every set of prompts
begins with another word, so that no server and no cache can reuse an earlier one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["TAILS", "Prompts", "Tails", "Workload", "longest_tail", "tail_lengths"]

Tails = Literal["equal", "mixed"]
TAILS: tuple[Tails, ...] = ("equal", "mixed")

_EQUAL = 15
_SHORTEST, _LONGEST = 5, 60
_MAX_WORDS = 2000


@dataclass(frozen=True)
class Prompts:
    """Prompts with a common prefix.

    Attributes:
        texts: The text of each row.
        ids: The tokens of each row, with a BOS if the tokenizer adds one.
        prefix: The number of tokens that all rows share.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    prefix: int


def tail_lengths(tails: Tails, rows: int) -> list[int]:
    """The tokens of each row's tail: 15 each, or from 5 to 60 in even steps and random order."""
    if tails == "equal" or rows == 1:
        return [_EQUAL] * rows
    spread = [_SHORTEST + round(i * (_LONGEST - _SHORTEST) / (rows - 1)) for i in range(rows)]
    random.Random(rows).shuffle(spread)
    return spread


def longest_tail() -> int:
    """The tokens of the longest possible tail."""
    return max(_EQUAL, _LONGEST)


class Workload:
    """Makes prompts with a new prefix each time; every run makes the same ones.

    Args:
        tokenizer: A Hugging Face tokenizer of the byte-level or sentencepiece kind.

    Raises:
        ValueError: The tokenizer has too few whole words.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(1)
        self._words, self._lead = _words(tokenizer)
        self._specials = len(tokenizer("")["input_ids"])
        self._made = 0

    def prompts(self, prefix: int, tails: Sequence[int]) -> Prompts:
        """A prompt for each tail.

        Args:
            prefix: The number of tokens that all rows share.
            tails: The tokens of each row's tail, at least 1.

        Raises:
            ValueError: The tokenizer merges words.
        """
        words, pick = self._words, self._random.choices
        opening = words[self._made % len(words)]
        # Tails differ in their first word, so that the shared prefix has the given length.
        branch = self._random.randrange(len(words))
        self._made += 1
        shared = [opening, *pick(words, k=max(0, prefix - self._specials - 1))]
        texts = []
        for row, length in enumerate(tails):
            tail = [words[(branch + row) % len(words)], *pick(words, k=length - 1)]
            texts.append(self._lead + " ".join(shared + tail))
        ids = [tuple(self._tokenizer(text)["input_ids"]) for text in texts]
        for row, length in zip(ids, tails, strict=True):
            if len(row) != prefix + length or row[:prefix] != ids[0][:prefix]:
                raise ValueError(f"A text of {prefix + length} words and marks has {len(row)} tokens")
        return Prompts(tuple(texts), tuple(ids), prefix)


def _words(tokenizer: Any) -> tuple[list[str], str]:
    """Words that are one token after a space, and the lead of a text that makes its first word one token too."""
    pieces = [piece for piece in tokenizer.get_vocab() if piece[:1] in "Ġ▁" and piece[1:].isascii()]
    words = sorted(piece[1:] for piece in pieces if piece[1:].isalpha() and piece[1:].islower())
    if len(words) < 2:
        raise ValueError(f"{type(tokenizer).__name__} has too few whole words for prompts of exact lengths")
    random.Random(0).shuffle(words)
    # Sentencepiece itself adds the space before the first word.
    return words[:_MAX_WORDS], " " if any(piece[0] == "Ġ" for piece in pieces) else ""
