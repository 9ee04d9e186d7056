"""The embedded router: a small model that ships with the package. No call, no GPU, no dependency, no wait.

A logistic regression over features of the question: what it asks for by the lexicon of `question`, alone and in pairs,
its first words, its words, their stems and pairs, what stands last where it has several sentences, its length, and
whether it follows on a dialogue. Features are hashed, so the weights are numbers alone. `sot train-router --embedded`
makes such weights from labelled questions.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.question import Question, find_question, read_question
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["EmbeddedRouter", "Weights", "features"]

BUCKETS = 1 << 17
_FORMAT = "sot-embedded-router 2"
_WORDS = 120
"""So many of a question's words count."""
_PLACED = 10
"""So many first words count with their place."""
_STEM = 5
_ENDS = frozenset(".!?。！？")
_COUNTED = frozenset(("what", "which", "some", "several", "various", "different", "main", "key", "common", "best"))
"""Words that a plural follows where a list is asked for."""


class EmbeddedRouter:
    """Decides by a small model inside the package, in well under a millisecond.

    The score is a calibrated probability that the answer is a list of points which can be written independently.

    Args:
        threshold: The score from which on a skeleton is used; None for the one that was chosen in training.
        weights: A file that `sot train-router --embedded` wrote; None for the package's own.

    Raises:
        InvalidInput: The threshold is not from 0 to 1, or the file holds no weights.

    Example:
        >>> router = EmbeddedRouter()
        >>> router.route(Conversation.of("What are the pros and cons of a wooden bicycle?")).use_skeleton
        True
        >>> router.route(Conversation.of("Write a poem about a wooden bicycle.")).use_skeleton
        False
    """

    def __init__(self, threshold: float | None = None, *, weights: str | Path | None = None) -> None:
        if threshold is not None and not 0 <= threshold <= 1:
            raise InvalidInput(f"threshold must be from 0 to 1, or None for the trained one, not {threshold!r}.")
        self._weights = _shipped() if weights is None else Weights.read(Path(weights))
        self.threshold = self._weights.threshold if threshold is None else threshold

    def __repr__(self) -> str:
        return f"EmbeddedRouter(threshold={self.threshold})"

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`."""
        score = self.score(conversation.question, follows=_follows(conversation))
        use = score >= self.threshold
        reason = "the embedded router takes it for " + (
            "independent points" if use else "a question without such points"
        )
        return RouteDecision(use, score, reason)

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`; it is over sooner than another thread would have started."""
        return self.route(conversation)

    def score(self, question: str, *, follows: bool = False) -> float:
        """The probability (0 to 1) that a skeleton suits the question; `follows` for one that follows on an answer."""
        return self._weights.score(read_question(find_question(question)), follows=follows)


def _follows(conversation: Conversation) -> bool:
    return any(message.role == "assistant" for message in conversation.turns)


@dataclass(frozen=True)
class Weights:
    """The numbers of the model.

    Attributes:
        buckets: One signed byte per bucket.
        unit: What one step of these bytes is worth.
        bias: Added to every sum.
        slope: The sum is multiplied by it before it becomes a probability (Platt's calibration, as is `offset`).
        offset: Added after that.
        threshold: The score from which on a skeleton is used.
        about: How they were made: number of questions, figures of cross-validation.
    """

    buckets: bytes
    unit: float
    bias: float
    slope: float
    offset: float
    threshold: float
    about: dict[str, Any]

    def score(self, question: Question, *, follows: bool = False) -> float:
        """The probability that a skeleton suits the question."""
        buckets = self.buckets
        # Bytes count from 0 to 255: what they mean lies 128 lower.
        total = sum(value * (buckets[bucket] - 128) for bucket, value in features(question, follows=follows))
        return sigmoid(self.slope * (total * self.unit + self.bias) + self.offset)

    def write(self, path: Path) -> None:
        """Writes them to a file: a length, the numbers that describe the rest as JSON, the bytes packed."""
        fields = ("unit", "bias", "slope", "offset", "threshold", "about")
        head = json.dumps({"format": _FORMAT, **{name: getattr(self, name) for name in fields}}).encode()
        path.write_bytes(struct.pack("<I", len(head)) + head + zlib.compress(self.buckets, 9))

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Reads what `write` wrote."""
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError, KeyError, struct.error, zlib.error) as error:
            raise InvalidInput(
                f"{str(path)!r} holds no weights of an embedded router ({error}): make some with "
                "sot train-router --embedded --data LABELS.csv --out FILE."
            ) from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Weights:
        """The weights in a file's bytes."""
        (length,) = struct.unpack_from("<I", data)
        head = json.loads(data[4 : 4 + length])
        buckets = zlib.decompress(data[4 + length :])
        if head.pop("format") != _FORMAT or len(buckets) != BUCKETS:
            raise ValueError("another format")
        return cls(buckets, **head)


@cache
def _shipped() -> Weights:
    return Weights.from_bytes(resources.files(__package__).joinpath("embedded_router.bin").read_bytes())


def sigmoid(value: float) -> float:
    """The logistic function, safe for large values."""
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, value))))


# --- features -------------------------------------------------------------------------------------


def features(question: Question, *, follows: bool = False) -> Iterator[tuple[int, float]]:
    """The question's features as buckets and values."""
    classes, opening = sorted(question.classes), sorted(question.opening)
    yield from _hashed((f"c {name}" for name in classes), 1.0)
    yield from _hashed((f"o {name}" for name in opening), 1.0)
    pairs = [f"x {first} {name}" for first in opening for name in classes if name != first]
    pairs += [f"y {first} {name}" for i, first in enumerate(classes) for name in classes[i + 1 :]]
    yield from _hashed(pairs, _share(len(pairs)))
    words = question.words[:_WORDS]
    grams = [f"w {word}" for word in words]
    grams += [f"b {first} {second}" for first, second in itertools.pairwise(words)]
    yield from _hashed(dict.fromkeys(grams), _share(len(words)))
    stems = {word[:_STEM] for word in words if len(word) >= _STEM and word.isalpha()}
    yield from _hashed((f"s {stem}" for stem in sorted(stems)), _share(len(stems)))
    yield from _hashed((f"p{n} {' '.join(words[:n])}" for n in (1, 2, 3)), 1.0)
    yield from _hashed((f"t{min(i // 2, 2)} {word}" for i, word in enumerate(words[:_PLACED])), 0.6)
    yield from _asked(question.words)
    yield from _hashed(_shape(question, follows), 1.0)


def _asked(words: Sequence[str]) -> Iterator[tuple[int, float]]:
    """What stands last in a text of several sentences: after a long story, that alone says what is asked for."""
    sentences = list(_sentences(words))
    if len(sentences) < 2:
        yield from _hashed(["one sentence"], 1.0)
        return
    asked = next((sentence for sentence in reversed(sentences) if sentence[-1] in "?？"), sentences[-1])
    yield from _hashed(["sentences", *(f"q{n} {' '.join(asked[:n])}" for n in (1, 2, 3))], 1.0)
    yield from _hashed(dict.fromkeys(f"q {word}" for word in asked), _share(len(asked)))


def _sentences(words: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = 0
    for i, word in enumerate(words):
        if word in _ENDS:
            if i > begin:
                yield words[begin : i + 1]
            begin = i + 1
    if begin < len(words):
        yield words[begin:]


def _shape(question: Question, follows: bool) -> Iterator[str]:
    yield f"length {min(6, int(math.log2(max(question.length, 8) / 8)))}"
    yield "words few" if len(question.words) < 5 else "words enough"
    if any(word[-1] == "s" and len(word) > 3 for word in question.words[1:5]):
        yield f"plural {question.words[0]}"
    if question.words[:1] in (("what",), ("which",)) and question.words[1:2] in (("are",), ("were",)):
        yield "what are"
    yield from _counted(question.words[:40])
    if not question.language:
        yield "language unknown"
    if follows:
        yield "follows"
        yield f"follows {len(question.words) < 8}"
        for name in ("followup", "anaphora"):
            if question.has(name) or question.opens(name):
                yield f"follows {name}"


def _counted(words: Sequence[str]) -> Iterator[str]:
    for i, word in enumerate(words):
        if word in _COUNTED and any(map(_is_plural, words[i + 1 : i + 4])):
            yield f"several {word}"


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word[-1] == "s" and word[-2:] not in ("ss", "us", "is")


def _share(count: int) -> float:
    # Long questions have many words: together they shall not outweigh what is asked for.
    return math.sqrt(8 / max(count, 8))


def _hashed(names: Any, value: float) -> Iterator[tuple[int, float]]:
    crc32 = zlib.crc32
    for name in names:
        yield crc32(name.encode()) & (BUCKETS - 1), value
