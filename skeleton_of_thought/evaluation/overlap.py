"""Quality that needs no judge: how much the points of an answer repeat each other, and how a text repeats itself."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence

from skeleton_of_thought.evaluation.rows import PointRow
from skeleton_of_thought.text.overlap import bare_words, grams

__all__ = ["bare_words", "compression_ratio", "distinct", "distinct_n", "shared_trigrams", "similarity", "title_echo"]

_SET_OFF = r"[\W_]*{}[*_\s]*(?:[:.!?。：！？–—-]|\n|$)"
"""A title that stands alone before what follows it: "**Cost**: it is high", but not "Cost matters"."""


def shared_trigrams(points: Iterable[str]) -> float | None:
    """The share of word trigrams that stand in two points or more, of all different ones of the answer.

    Args:
        points: The text of each point, without its title.

    Returns:
        From 0 to 1; None for fewer than two points with a trigram.
    """
    found = [own for text in points if (own := set(grams(bare_words(text), 3)))]
    if len(found) < 2:
        return None
    seen: set[tuple[str, ...]] = set()
    shared: set[tuple[str, ...]] = set()
    for own in found:
        shared |= seen & own
        seen |= own
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
    return len(set(grams(words, n))) / total if total > 0 else None


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
