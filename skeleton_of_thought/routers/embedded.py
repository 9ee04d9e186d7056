"""The embedded router: a small model that ships with the package. It needs no call, no GPU and no dependency.

The model is a logistic regression over features of the question: its classes in the lexicon of `question`, alone and in
pairs, its first words, its words, their stems and pairs, its last question where it has several sentences, its length,
and whether it follows a dialogue. Features are hashed, so the weights hold no words. `sot train-router --embedded`
trains such weights on labelled questions.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations, pairwise
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.comparisons import GRAPH, asks_for_graph
from skeleton_of_thought.routers.question import Question, find_question, read_question
from skeleton_of_thought.small_files import parse_json, read_bounded
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["EmbeddedRouter", "Weights", "features"]

BUCKETS = 1 << 17
_ENCODED = methodcaller("encode", errors="surrogatepass")
_FORMAT = "sot-embedded-router 2"
_NUMBERS = ("unit", "bias", "slope", "offset", "threshold")
_MOST = 1e9
"""More than any of these numbers."""
_LONGEST = 1 << 20
"""The most bytes of a file of weights: a byte for each bucket at most, and room for the head."""
_WORDS = 120
"""The number of words of a question that count."""
_PLACES = (0, 0, 1, 1, 2, 2, 2, 2, 2, 2)
"""The places of the first words, which count with their place."""
_STEM = 5
"""Letters of a stem."""
_ENDS = frozenset(".!?。！？")
_COUNTED = frozenset(("what", "which", "some", "several", "various", "different", "main", "key", "common", "best"))
"""Words before a plural in questions for a list."""

_WITH_FACTS = re.compile(
    r"(?:i|i'm|we|my|our|hi|hello|hey|bonjour|je|hallo|ich|wir|hola|soy|tengo|ciao|sono|olá|sou|ik|\()\b"
    r"[^?？:\n]{5,250}[.!)] "
    r"([^\n?？.!:]{25,200}[?？])|"
    r"(?:hi|hello|hey|bonjour|hallo|hola|ciao|olá)[\w ]{0,20} ?[.!,] ([^\n?？.!:]{25,200}[?？])",
    re.I,
)
"""A question after a few words of its author about themselves."""


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
        """See `Router.route`. Where points may build on each other, a comparison gets a graph, whatever its score."""
        if conversation.request.graph and asks_for_graph(conversation.question):
            return GRAPH
        follows = "assistant" in map(attrgetter("role"), conversation.messages)
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
        asked = find_question(question)
        score = self._weights.score(read_question(asked), follows=follows)
        if (found := _WITH_FACTS.fullmatch(asked.strip())) is not None:
            # A few facts about the author decide less than the question after them.
            score = max(score, (score + self._weights.score(read_question(found[1] or found[2]), follows=follows)) / 2)
        return score


@dataclass(frozen=True)
class Weights:
    """The numbers of the model.

    Attributes:
        buckets: One byte per bucket: its weight in units, plus 128.
        unit: The weight of one unit.
        bias: Added to every sum.
        slope: Factor of the sum before it becomes a probability (Platt's calibration, with `offset`).
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
        return self.probability(features(question, follows=follows))

    def probability(self, found: Iterable[tuple[int, float]]) -> float:
        """The probability of the label 1 for something with these features, as buckets and values."""
        total = 0.0
        for bucket, value in found:
            total += value * (self.buckets[bucket] - 128)
        return sigmoid(self.slope * (total * self.unit + self.bias) + self.offset)

    def write(self, path: Path) -> None:
        """Writes the weights to a file: the length of a JSON head, the head with all other fields, packed bytes."""
        fields = {name: getattr(self, name) for name in (*_NUMBERS, "about")}
        head = json.dumps({"format": _FORMAT, **fields}).encode()
        path.write_bytes(struct.pack("<I", len(head)) + head + zlib.compress(self.buckets, 9))

    @classmethod
    def read(cls, path: Path) -> Weights:
        """Reads a file that `write` made.

        Raises:
            InvalidInput: The file cannot be read or holds no weights.
        """
        try:
            return cls.from_bytes(read_bounded(path, _LONGEST))
        except (OSError, ValueError, struct.error, zlib.error) as error:
            raise InvalidInput(
                f"{str(path)!r} holds no weights of an embedded router ({error}): train some with "
                "sot train-router --embedded --data LABELS.csv --out FILE."
            ) from error

    @classmethod
    def from_bytes(cls, data: bytes) -> Weights:
        """The weights in a file's bytes. They are numbers alone: nothing in the file is run.

        Raises:
            ValueError, struct.error, zlib.error: The bytes are no weights.
        """
        (length,) = struct.unpack_from("<I", data)
        head = parse_json(data[4 : 4 + length])
        if not isinstance(head, dict) or head.get("format") != _FORMAT:
            raise ValueError("another format")
        numbers: dict[str, Any] = {name: head.get(name) for name in _NUMBERS}
        if not all(isinstance(value, int | float) and -_MOST < value < _MOST for value in numbers.values()):
            raise ValueError("it lacks a number, or has one that cannot be")
        # One byte more than the weights have, so that a small file cannot become a large one in memory.
        inflated = zlib.decompressobj()
        buckets = inflated.decompress(data[4 + length :], BUCKETS + 1)
        if len(buckets) != BUCKETS or not inflated.eof or inflated.unused_data:
            raise ValueError(f"it does not hold {BUCKETS:,} weights")
        return cls(buckets, **numbers, about=head.get("about", {}))


@cache
def _shipped() -> Weights:
    return Weights.from_bytes(resources.files(__package__).joinpath("embedded_router.bin").read_bytes())


def sigmoid(value: float) -> float:
    """The logistic function, safe for large values."""
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, value))))


# --- features -------------------------------------------------------------------------------------

_LIST_OPENINGS = frozenset((("what", "are"), ("what", "were"), ("which", "are"), ("which", "were")))


def features(question: Question, *, follows: bool = False) -> list[tuple[int, float]]:
    """The question's features as buckets and values."""
    classes, opening, words = sorted(question.classes), sorted(question.opening), question.words[:_WORDS]
    pairs, stems = list[str](), set[str]()
    for first in opening:
        for name in classes:
            if name != first:
                pairs.append(f"x {first} {name}")
    pairs += map("y ".__add__, map(" ".join, combinations(classes, 2)))
    for word in words:
        if len(word) >= _STEM and word.isalpha():
            stems.add(word[:_STEM])
    last = _last_sentence(question.words)
    # The names of a group, their value, and how many share it. Long questions have many words: together they must not
    # outweigh the classes of the question.
    groups: tuple[tuple[Iterable[str], float, int], ...] = (
        (map("c ".__add__, classes), 1.0, 1),
        (map("o ".__add__, opening), 1.0, 1),
        (pairs, 1.0, len(pairs)),
        (map("w ".__add__, dict.fromkeys(words)), 1.0, len(words)),
        (map("b ".__add__, map(" ".join, dict.fromkeys(pairwise(words)))), 1.0, len(words)),
        (map("s ".__add__, sorted(stems)), 1.0, len(stems)),
        (_beginnings("p", words), 1.0, 1),
        (map("t{} {}".format, _PLACES, words), 0.6, 1),
        (("sentences", *_beginnings("q", last)) if last else ("one sentence",), 1.0, 1),
        (map("q ".__add__, dict.fromkeys(last)), 1.0, len(last)),
        (_shape(question, follows), 1.0, 1),
    )
    return [
        (hashed % BUCKETS, share)
        for names, value, count in groups
        for share in [value * math.sqrt(8 / max(count, 8))]
        for hashed in map(zlib.crc32, map(_ENCODED, names))
    ]


def _beginnings(mark: str, words: tuple[str, ...]) -> tuple[str, str, str]:
    return f"{mark}1 {' '.join(words[:1])}", f"{mark}2 {' '.join(words[:2])}", f"{mark}3 {' '.join(words[:3])}"


def _last_sentence(words: tuple[str, ...]) -> tuple[str, ...]:
    """The last question of several sentences, or the last sentence if none is a question; () for a single sentence.

    After a long story, it alone states the task.
    """
    if _ENDS.isdisjoint(words[:-1]):
        return ()
    last: tuple[str, ...] = ()
    question: tuple[str, ...] = ()
    count = begin = 0
    for i, word in enumerate((*words, ".")):
        if word not in _ENDS:
            continue
        if i > begin:
            count += 1
            last = words[begin : i + 1]
            if word in "?？":
                question = last
        begin = i + 1
    return question or last if count > 1 else ()


def _shape(question: Question, follows: bool) -> list[str]:
    """Features of the question's length and form."""
    words = question.words
    names = [f"length {min(6, int(math.log2(max(question.length, 8) / 8)))}"]
    names.append("words few" if len(words) < 5 else "words enough")
    for word in words[1:5]:
        if word[-1] == "s" and len(word) > 3:
            names.append(f"plural {words[0]}")
            break
    if words[:2] in _LIST_OPENINGS:
        names.append("what are")
    for i, word in enumerate(words[:40]):
        if word in _COUNTED:
            for other in words[i + 1 : min(i + 4, 40)]:
                if len(other) > 3 and other[-1] == "s" and other[-2:] not in ("ss", "us", "is"):
                    names.append(f"several {word}")
                    break
    if not question.language:
        names.append("language unknown")
    if follows:
        names += ["follows", f"follows {len(words) < 8}"]
        for name in ("followup", "anaphora"):
            if name in question.classes or name in question.opening:
                names.append(f"follows {name}")
    return names
