"""Embeddings of points, for how similar the points of an answer are to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.rows import Row

__all__ = ["Embedder", "Vectors", "vectors_of"]

Vectors = Mapping[str, Sequence[float]]
"""The vector of each text."""


class Embedder(Protocol):
    """Turns texts into vectors of one length."""

    def __call__(self, texts: Sequence[str], /) -> Sequence[Sequence[float]]:
        """The vectors, one for each text, in the order of the texts."""


def vectors_of(rows: Iterable[Row], embed: Embedder, *, batch: int = 64) -> dict[str, list[float]]:
    """The vectors of all points of the rows; each text is embedded once.

    Args:
        rows: Answers; only those with two points or more count.
        embed: The embedding model.
        batch: The most texts of a call, from 1.

    Raises:
        InvalidInput: The model returns another number of vectors, vectors of different lengths, or no finite numbers.
    """
    found = (point.text for row in rows if row.ok and len(row.points) > 1 for point in row.points)
    texts = [text for text in dict.fromkeys(found) if text.strip()]
    vectors: dict[str, list[float]] = {}
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        made = [[float(x) for x in vector] for vector in embed(part)]
        if len(made) != len(part):
            raise InvalidInput(f"The embedding model returned {len(made)} vectors for {len(part)} texts.")
        vectors.update(zip(part, made, strict=True))
    if len({len(vector) for vector in vectors.values()}) > 1:
        raise InvalidInput("The embedding model returned vectors of different lengths.")
    if not all(math.isfinite(x) for vector in vectors.values() for x in vector):
        raise InvalidInput("The embedding model returned vectors with numbers that are not finite.")
    return vectors
