"""How much a text repeats another one, by its word trigrams: no call, linear in the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from skeleton_of_thought.text.words import PIECES, is_unspaced, plain, words_of

__all__ = ["Overlap", "bare_words", "grams", "shared_with"]

_SHORT = 32
"""Characters of parts of a text whose words are kept."""
_GRAM = 3
_LEAST = 8
"""Words of the shortest text that counts: a few shared words of a short one would be a large share of it."""
_UNSPACED = 3 / 7
"""The share of a word that a character stands for in scripts without spaces."""
_SKIPPED = re.compile(
    r"^[ >]*(?:(?:[-*+]|\d{1,3}[.)]) +)?(?P<fence>`{3,}|~{3,})[^`\n]*\n(?:.*?^[ >]*(?P=fence)[`~]*[ \t]*$|.*)"
    r"|^[ \t>*_-]*\d{1,3}[.)](?=[\s*_])",
    re.M | re.S,
)
"""What is no prose: code in fences, which points may well need twice, and the numbers of a list."""


@dataclass(frozen=True)
class Overlap:
    """What a text shares with another one.

    Attributes:
        share: The share of its different word trigrams that stand in the other text, from 0 to 1.
        passage: The longest run of words that both have, as it is written in the text; empty for a share of 0.
    """

    share: float = 0.0
    passage: str = ""


def bare_words(text: str) -> list[str]:
    """The words of the text without case and punctuation; in scripts without spaces, its characters."""
    found: list[str] = []
    for part in text.split():  # no word goes across white space, and most of them come again
        found += _short(part) if len(part) <= _SHORT else plain(words_of(part))
    return found


@lru_cache(maxsize=1 << 15)
def _short(part: str) -> tuple[str, ...]:
    return tuple(plain(words_of(part)))


def grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """All runs of `n` words, from first to last."""
    return zip(*(words[start:] for start in range(n)), strict=False)


def shared_with(text: str, other: str, ignore: str = "") -> Overlap:
    """What `text` shares with `other`.

    Code in fences and the numbers of lists do not count. A text of fewer than eight words shares nothing.

    Args:
        text: The text that may repeat the other, such as the later one of two points.
        other: The other text.
        ignore: A text that both may repeat, such as the question: its trigrams are no overlap.

    Example:
        >>> shared_with("So drink water, because it keeps you awake all day.", "It keeps you awake all day if you sip.")
        Overlap(share=0.5, passage='it keeps you awake all day.')
    """
    own, theirs = _read(text), _read(other)
    if not (own.counts and theirs.counts):
        return Overlap()
    shared = (own.grams & theirs.grams) - _read(ignore).grams
    if not shared:
        return Overlap()
    first, last = _longest_run(own.words, theirs.words, shared)
    return Overlap(len(shared) / len(own.grams), text[own.spans[first][0] : own.spans[last][1]])


# --- reading a text -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Read:
    """The words of a text, with the place of each in it, and its trigrams."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    grams: AbstractSet[tuple[str, ...]]
    counts: bool


# A point is compared with each one before it.
@lru_cache(maxsize=64)
def _read(text: str) -> _Read:
    words: list[str] = []
    spans: list[tuple[int, int]] = []
    dense = start = 0
    for found in [*_SKIPPED.finditer(text), None]:
        for piece in PIECES.finditer(text, start, len(text) if found is None else found.start()):
            for word in plain((piece[0],)):
                words.append(word)
                spans.append(piece.span())
                dense += is_unspaced(word)
        start = 0 if found is None else found.end()
    counts = len(words) - dense * (1 - _UNSPACED) >= _LEAST
    return _Read(tuple(words), tuple(spans), frozenset(grams(words, _GRAM)), counts)


def _longest_run(words: Sequence[str], other: Sequence[str], shared: AbstractSet[tuple[str, ...]]) -> tuple[int, int]:
    """The first and the last place in `words` of the run that `other` has, too, with the most shared trigrams."""
    counted = [0, 0, *accumulate(gram in shared for gram in grams(words, _GRAM))]
    links, steps, lengths = _automaton(other)
    most, best = (0, 0), (0, 0)
    state = length = 0
    for place, word in enumerate(words):
        while state and word not in steps[state]:
            state = links[state]
            length = lengths[state]
        if word in steps[state]:
            state, length = steps[state][word], length + 1
        first = place - length + 1
        # Trigrams that end in the run but begin before it are not part of it.
        found = counted[place] - counted[min(first + _GRAM - 2, place)] if length >= _GRAM else 0
        if (found, length) > most:
            most, best = (found, length), (first, place)
    return best


def _automaton(words: Sequence[str]) -> tuple[list[int], list[dict[str, int]], list[int]]:
    """The suffix automaton of the words, of at most two states a word: their suffix links, steps, and longest runs."""
    links, steps, lengths = [-1], [dict[str, int]()], [0]
    last = 0
    for word in words:
        new = len(links)
        links.append(0)
        steps.append({})
        lengths.append(lengths[last] + 1)
        state, last = last, new
        while state >= 0 and word not in steps[state]:
            steps[state][word] = new
            state = links[state]
        if state < 0:
            continue
        target = steps[state][word]
        if lengths[target] == lengths[state] + 1:
            links[new] = target
            continue
        links.append(links[target])
        steps.append(dict(steps[target]))
        lengths.append(lengths[state] + 1)
        links[target] = links[new] = copy = len(links) - 1
        while state >= 0 and steps[state].get(word) == target:
            steps[state][word] = copy
            state = links[state]
    return links, steps, lengths
