"""Quality that needs no judge: how much the points of an answer repeat each other, and how a text repeats itself."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

from skeleton_of_thought.evaluation.rows import PointRow
from skeleton_of_thought.text.words import plain, words_of

__all__ = ["bare_words", "compression_ratio", "distinct", "distinct_n", "shared_trigrams", "similarity", "title_echo"]

_SHORT = 32
"""Characters of parts of a text whose words are kept."""
_SET_OFF = r"[\W_]*{}[*_\s]*(?:[:.!?。：！？–—-]|\n|$)"
"""A title that stands alone before what follows it: "**Cost**: it is high", but not "Cost matters"."""


def bare_words(text: str) -> list[str]:
    """The words of the text without case and punctuation; in scripts without spaces, its characters."""
    found: list[str] = []
    for part in text.split():  # no word goes across white space, and most of them come again
        found += _short(part) if len(part) <= _SHORT else plain(words_of(part))
    return found


@lru_cache(maxsize=1 << 15)
def _short(part: str) -> tuple[str, ...]:
    return tuple(plain(words_of(part)))


def shared_trigrams(points: Iterable[str]) -> float | None:
    """The share of word trigrams that stand in two points or more, of all different ones of the answer.

    Args:
        points: The text of each point, without its title.

    Returns:
        From 0 to 1; None for fewer than two points with a trigram.
    """
    found = [grams for text in points if (grams := set(_grams(bare_words(text), 3)))]
    if len(found) < 2:
        return None
    seen: set[tuple[str, ...]] = set()
    shared: set[tuple[str, ...]] = set()
    for grams in found:
        shared |= seen & grams
        seen |= grams
    return len(shared) / len(seen)


def distinct_n(text: str, n: int) -> float | None:
    """The share of different n-grams of words among all of a text; it falls as a text grows.

    Returns:
        Above 0, up to 1; None for a text of fewer than n words.
    """
    return distinct(bare_words(text), n)


def distinct(words: Sequence[str], n: int) -> float | None:
    """`distinct_n` of words."""
    total = len(words) - n + 1
    return len(set(_grams(words, n))) / total if total > 0 else None


def compression_ratio(text: str) -> float | None:
    """How many times smaller zlib makes a text (its bytes in UTF-8): the more it repeats, the higher.

    Returns:
        None for an empty text.
    """
    data = text.encode("utf-8", errors="surrogatepass")
    return len(data) / len(zlib.compress(data, 9)) if data else None


def title_echo(point: PointRow) -> bool:
    """Whether the point's text begins by repeating its title.

    A title of one word counts only where it is set off: a sentence may well begin with its subject.
    """
    title = bare_words(point.title)
    if len(title) == 1:
        return re.match(_SET_OFF.format(re.escape(title[0])), point.text, re.IGNORECASE) is not None
    head = point.text[: 4 * len(point.title) + 80]
    return bool(title) and bare_words(head)[: len(title)] == title


def similarity(vectors: Sequence[Sequence[float]]) -> float | None:
    """The mean cosine of all pairs of vectors, such as embeddings of an answer's points.

    Returns:
        From -1 to 1; None for fewer than two vectors that are not zero.
    """
    units = [[x / length for x in vector] for vector in vectors if (length := math.hypot(*vector)) > 0]
    n = len(units)
    if n < 2:
        return None
    # The square of the sum holds each pair twice and each vector with itself once, which gives 1.
    square = sum(math.fsum(column) ** 2 for column in zip(*units, strict=True))
    return max(-1.0, min(1.0, (square - n) / (n * (n - 1))))


def _grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(n)), strict=False)
