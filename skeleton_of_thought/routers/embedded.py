"""The embedded router: a small model that ships with the package. It needs no call, no GPU and no dependency.

The model is a logistic regression over features of the question: its classes in the lexicon of `question`, alone and in
pairs, its first words, its words, their stems and pairs, its last question where it has several sentences, its length,
and whether it follows a dialogue. Features are hashed, so the weights hold no words. `sot train-router --embedded`
trains such weights on labelled questions.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain, combinations, pairwise, starmap
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.question import Question, find_question, read_question
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["EmbeddedRouter", "Weights", "features"]

BUCKETS = 1 << 17
_FORMAT = "sot-embedded-router 2"
_WORDS = 120
"""The number of words of a question that count."""
_PLACED = 10
"""The number of first words that count with their place."""
_STEM = 5
"""Letters of a stem."""
_ENDS = frozenset(".!?。！？")
_COUNTED = frozenset(("what", "which", "some", "several", "various", "different", "main", "key", "common", "best"))
"""Words before a plural in questions for a list."""


class EmbeddedRouter:
    """Decides with a small model inside the package, in well under a millisecond.

    The score is a calibrated probability that the answer is a list of points which can be written independently.

    Args:
        threshold: The lowest score that means a skeleton; None for the threshold chosen in training.
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
        follows = any(message.role == "assistant" for message in conversation.messages)
        score = self.score(conversation.question, follows=follows)
        use = score >= self.threshold
        reason = "the embedded router takes it for " + (
            "independent points" if use else "a question without such points"
        )
        return RouteDecision(use, score, reason)

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`, without a thread: starting one takes longer."""
        return self.route(conversation)

    def score(self, question: str, *, follows: bool = False) -> float:
        """The probability (0 to 1) that a skeleton suits the question.

        Args:
            question: The text of the message.
            follows: Whether the conversation holds an earlier answer.
        """
        return self._weights.score(read_question(find_question(question)), follows=follows)


@dataclass(frozen=True)
class Weights:
    """The numbers of the model.

    Attributes:
        buckets: One byte per bucket: its weight in units, plus 128.
        unit: The weight of one unit.
        bias: Added to every sum.
        slope: Factor of the sum before it becomes a probability (Platt's calibration, as is `offset`).
        offset: Added after the slope.
        threshold: The lowest score that means a skeleton.
        about: Their origin: number of questions, figures of cross-validation.
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
        total = sum([value * (buckets[bucket] - 128) for bucket, value in features(question, follows=follows)])
        return sigmoid(self.slope * (total * self.unit + self.bias) + self.offset)

    def write(self, path: Path) -> None:
        """Writes the weights to a file: the length of a JSON head, the head with all other fields, packed bytes."""
        fields = ("unit", "bias", "slope", "offset", "threshold", "about")
        head = json.dumps({"format": _FORMAT, **{name: getattr(self, name) for name in fields}}).encode()
        path.write_bytes(struct.pack("<I", len(head)) + head + zlib.compress(self.buckets, 9))

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Reads a file that `write` made.

        Raises:
            InvalidInput: The file cannot be read or holds no weights.
        """
        try:
            return cls.from_bytes(path.read_bytes())
        except (OSError, ValueError, KeyError, struct.error, zlib.error) as error:
            raise InvalidInput(
                f"{str(path)!r} holds no weights of an embedded router ({error}): train some with "
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

_Group = tuple[Iterable[str], float]
"""Names of features with the value that they share."""


def features(question: Question, *, follows: bool = False) -> list[tuple[int, float]]:
    """The question's features as buckets and values."""
    classes, opening, words = sorted(question.classes), sorted(question.opening), question.words[:_WORDS]
    pairs = [f"x {first} {name}" for first in opening for name in classes if name != first]
    pairs += starmap("y {} {}".format, combinations(classes, 2))
    grams = chain(map("w {}".format, words), starmap("b {} {}".format, pairwise(words)))
    stems = sorted({word[:_STEM] for word in words if len(word) >= _STEM and word.isalpha()})
    groups: list[_Group] = [
        (map("c {}".format, classes), 1.0),
        (map("o {}".format, opening), 1.0),
        (pairs, _share(len(pairs))),
        (dict.fromkeys(grams), _share(len(words))),
        (map("s {}".format, stems), _share(len(stems))),
        (_beginnings("p", words), 1.0),
        ([f"t{min(i // 2, 2)} {word}" for i, word in enumerate(words[:_PLACED])], 0.6),
        *_last_question(question.words),
        (_shape(question, follows), 1.0),
    ]
    crc32 = zlib.crc32
    return [(crc32(name.encode()) & (BUCKETS - 1), value) for names, value in groups for name in names]


def _share(count: int) -> float:
    # Long questions have many words: together they must not outweigh the classes of the question.
    return math.sqrt(8 / max(count, 8))


def _beginnings(mark: str, words: Sequence[str]) -> list[str]:
    return [f"{mark}{n} {' '.join(words[:n])}" for n in (1, 2, 3)]


def _last_question(words: Sequence[str]) -> list[_Group]:
    """Features of the last question or sentence of several: after a long story, it alone tells the task."""
    sentences = list(_sentences(words))
    if len(sentences) < 2:
        return [(["one sentence"], 1.0)]
    last = next((sentence for sentence in reversed(sentences) if sentence[-1] in "?？"), sentences[-1])
    return [
        (["sentences", *_beginnings("q", last)], 1.0),
        (dict.fromkeys(map("q {}".format, last)), _share(len(last))),
    ]


def _sentences(words: Sequence[str]) -> Iterator[Sequence[str]]:
    begin = 0
    for i, word in enumerate(words):
        if word in _ENDS:
            if i > begin:
                yield words[begin : i + 1]
            begin = i + 1
    if begin < len(words):
        yield words[begin:]


def _shape(question: Question, follows: bool) -> list[str]:
    """Features of the question's length and form."""
    words = question.words
    names = [f"length {min(6, int(math.log2(max(question.length, 8) / 8)))}"]
    names.append("words few" if len(words) < 5 else "words enough")
    if any(word[-1] == "s" and len(word) > 3 for word in words[1:5]):
        names.append(f"plural {words[0]}")
    if words[:1] in (("what",), ("which",)) and words[1:2] in (("are",), ("were",)):
        names.append("what are")
    for i, word in enumerate(words[:40]):
        if word in _COUNTED and any(map(_is_plural, words[i + 1 : min(i + 4, 40)])):
            names.append(f"several {word}")
    if not question.language:
        names.append("language unknown")
    if follows:
        names += ["follows", f"follows {len(words) < 8}"]
        names += [f"follows {name}" for name in ("followup", "anaphora") if question.has(name) or question.opens(name)]
    return names


def _is_plural(word: str) -> bool:
    return len(word) > 3 and word[-1] == "s" and word[-2:] not in ("ss", "us", "is")
