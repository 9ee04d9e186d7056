"""Prompts of exact lengths for the engine's benchmark: a beginning that all rows share, and a tail for each.

The texts are random words of one token each, so that their tokens can be counted out, and every workload begins with
another word: no server and no cache can take anything over from the one before.
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
    """Prompts that begin alike.

    Attributes:
        texts: One for each row.
        ids: The tokens of each, a BOS included where the tokenizer adds one.
        prefix: How many of the tokens all rows share.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    prefix: int


def tail_lengths(tails: Tails, rows: int) -> list[int]:
    """The tokens of each row's own tail: 15 each, or from 5 to 60 in even steps, in no order."""
    if tails == "equal" or rows == 1:
        return [_EQUAL] * rows
    spread = [_SHORTEST + round(i * (_LONGEST - _SHORTEST) / (rows - 1)) for i in range(rows)]
    random.Random(rows).shuffle(spread)
    return spread


def longest_tail() -> int:
    """The tokens of the longest tail that there can be."""
    return max(_EQUAL, _LONGEST)


class Workload:
    """Makes prompts, each time with a new beginning; the same ones in every run.

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
            prefix: The tokens that all share.
            tails: The tokens of each row's own, at least 1.

        Raises:
            ValueError: The tokenizer does not keep the words apart.
        """
        words, pick = self._words, self._random.choices
        opening = words[self._made % len(words)]
        # Tails that differ in their first word end the shared beginning where it is said to end.
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
    """Words that are one token after a space, and what a text has to begin with for its first word to be one too."""
    pieces = [piece for piece in tokenizer.get_vocab() if piece[:1] in "Ġ▁" and piece[1:].isascii()]
    words = sorted(piece[1:] for piece in pieces if piece[1:].isalpha() and piece[1:].islower())
    if len(words) < 2:
        raise ValueError(f"{type(tokenizer).__name__} has too few whole words for prompts of exact lengths")
    random.Random(0).shuffle(words)
    # Sentencepiece adds the space before the first word by itself.
    return words[:_MAX_WORDS], " " if any(piece[0] == "Ġ" for piece in pieces) else ""
