"""The task around a question, read off the instructions to the model: system messages, and the text of a prompt.

"Translate the user's sentence" asks for another kind of text than an answer, "you are a patient teacher" does not.
A logistic regression decides, like the embedded router's. Its features are the words of the instructions, their stems
and pairs, the first words of each sentence, and the words' classes in `tasks.txt`, which languages share. Words after a
negation or in a condition are features of their own: "do not translate" is no task. Retrieved documents, examples and
earlier turns do not count.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from itertools import islice, pairwise

from skeleton_of_thought.routers.embedded import BUCKETS, Weights
from skeleton_of_thought.routers.instructions import ends_with_label, instruction_lines, sentences
from skeleton_of_thought.routers.question import WORD, lexicon, lexicon_words, read_question

__all__ = ["Instructions", "instruction_features", "instructions", "read_instructions", "shipped_weights"]

_FILE = "tasks.txt"
_SENTENCES = 40
"""The most sentences that are read, half of them at the end."""
_WORDS = 50
"""The most words of a sentence that are read."""
_STEM = 5
"""Letters of a stem."""
_FULL, _FEW = 8, 3
"""Features of one group that weigh one each: more share the weight of these, so that long texts do not outweigh all;
fewer weigh more, down to the second number."""
_UNSPACED = ("zh", "ja")
_LATIN = ("en", "de", "fr", "es", "it", "pt", "nl")
_FEW_WORDS = 14
"""Words of instructions whose language is not certain: few words do not tell Italian from Spanish."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STOPS = frozenset(",;:.!?()-–—•*|，。；：、\n")
_NOT = _words(
    "not never no don't avoid without cannot shouldn't mustn't nothing none nicht nie keine kein keinen nichts niemals "
    "ne n pas jamais sans rien non mai senza niente não nunca nada jamás sin niet nooit geen niets zonder не никогда "
    "без ничего"
)
_IF = _words(
    "if when whenever unless where wenn falls sofern si quand lorsque cuando se quando wanneer indien если когда"
)
_ELSE = _words("otherwise else sonst andernfalls sinon altrimenti anders иначе")


@dataclass(frozen=True)
class Instructions:
    """The kind of text that instructions ask for.

    Attributes:
        signs: "task" for another kind of text than an answer, "short around" for a short answer, "format around" for a
            form of answer that a list would break.
        form: The sentences that may speak of the length of the whole answer.
    """

    signs: frozenset[str] = frozenset()
    form: str = ""


@lru_cache(maxsize=64)
def read_instructions(*texts: str, prompt: str = "", question: str = "") -> Instructions:
    """Reads the kind of text that the instructions in all of these texts ask for.

    Args:
        texts: The system messages.
        prompt: A prompt with instructions around a question; "" for none.
        question: The question in the prompt, which is no instruction.

    Example:
        >>> sorted(read_instructions("Translate the user's sentence into French.").signs)
        ['task']
        >>> sorted(read_instructions("You are a patient teacher. Always answer in French.").signs)
        []
    """
    read = _read(*instructions(texts, prompt, question))
    weights, classes = shipped_weights(), read.groups["class"]
    signs = set[str]()
    if weights.probability(read.features()) >= weights.threshold:
        if not classes.isdisjoint(("short", "-short")):
            signs.add("short around")
        if not classes.isdisjoint(("shape", "filetype")):
            signs.add("format around")
        if not signs or not classes.isdisjoint(("task", "role")):
            signs.add("task")
    return Instructions(frozenset(signs), "\n".join(read.form))


@cache
def shipped_weights() -> Weights:
    """The weights in the package."""
    return Weights.from_bytes(resources.files(__package__).joinpath("tasks.bin").read_bytes())


def instructions(texts: Iterable[str], prompt: str, question: str) -> tuple[list[str], str]:
    """The lines that instruct the model, and the kind of text that the prompt wants at its end.

    Arguments as for `read_instructions`.
    """
    lines = [line for text in texts for line in instruction_lines(text)]
    if not prompt:
        return lines, "no prompt"
    return [*lines, *instruction_lines(prompt, question)], "another text" if ends_with_label(prompt) else "an answer"


def instruction_features(lines: Sequence[str], end: str) -> list[tuple[int, float]]:
    """The features of `instructions` as buckets and values."""
    return _read(lines, end).features()


def _read(lines: Sequence[str], end: str) -> _Read:
    whole = read_question(" ".join(lines))
    languages: tuple[str, ...] = (whole.language or "en",)
    if whole.size < _FEW_WORDS and languages[0] not in (*_UNSPACED, "ru"):
        languages = _LATIN
    read = _Read(languages)
    every = list(sentences(tuple(lines)))
    for sentence in every if len(every) <= _SENTENCES else every[: _SENTENCES // 2] + every[-_SENTENCES // 2 :]:
        read.add(sentence)
    read.groups["form"] = {f"ends with {end}", f"sentences {min(6, len(every).bit_length())}"}
    return read


@dataclass
class _Read:
    """The features of instructions, as far as they are read.

    Attributes:
        languages: Those that they may be in, of `question.LANGUAGES`.
        groups: Names of features by group.
        form: The sentences that may speak of the form of the whole answer.
    """

    languages: tuple[str, ...]
    groups: dict[str, set[str]] = field(
        default_factory=lambda: {name: set() for name in ("word", "pair", "stem", "first", "class", "next")}
    )
    form: list[str] = field(default_factory=list)

    def features(self) -> list[tuple[int, float]]:
        """The features as buckets and values. A group's share does not grow with the length of the text."""
        return [
            (zlib.crc32(f"{name} {feature}".encode(errors="surrogatepass")) % BUCKETS, share)
            for name, found in self.groups.items()
            for share in [math.sqrt(_FULL / max(_FEW, len(found)))]
            for feature in sorted(found)
        ]

    def add(self, sentence: str) -> None:
        """Adds the features of a sentence."""
        words = [match[0] for match in islice(WORD.finditer(sentence.casefold().replace("’", "'")), _WORDS)]
        if not words:
            return
        marked, before, found = list[str](), "", set[str]()
        for mark, word, classes in _marked(words, self.languages):
            for part in _parts(word):
                marked.append(f"{mark}{part}")
                if len(part) >= _STEM:
                    self.groups["stem"].add(f"{mark}{part[:_STEM]}")
            if classes:
                found.update(map(mark.__add__, classes))
                if before == "":
                    self.groups["first"].update(map("class {}".format, classes))
                name = f"{mark}{min(classes)}"
                self.groups["next"].add(f"{before} {name}")
                before = name
        if self.languages[0] in _UNSPACED:
            found = {name for name, pattern in _patterns(self.languages[0]).items() if pattern.search(sentence)}
        self.groups["word"].update(marked)
        self.groups["pair"].update(map(" ".join, pairwise(marked)))
        self.groups["first"].update((marked[0], " ".join(marked[:2])))
        self.groups["class"].update(found)
        if "aside" not in found:
            self.form.append(sentence)


def _marked(words: Sequence[str], languages: Sequence[str]) -> Iterator[tuple[str, str, Set[str]]]:
    """Yields words with a mark, "-" after a negation and "?" in a condition, and with the classes that begin there."""
    tables = [lexicon_words(language, _FILE) for language in languages if language not in _UNSPACED]
    negated = conditional = False
    for i, word in enumerate(words):
        if word in _STOPS:
            negated = False
            conditional = conditional and word not in ".;!?"
        conditional = (conditional or word in _IF) and word not in _ELSE
        mark = "-" if negated else "?" if conditional else ""
        negated = negated or word in _NOT
        classes = set[str]()
        for table in tables:
            classes.update(name for stem, name in table.stems.get(word[:3], ()) if word.startswith(stem))
            for phrase, name in table.phrases.get(word, ()):
                if len(phrase) == 1 or tuple(words[i : i + len(phrase)]) == phrase:
                    classes.add(name)
        yield mark, word, classes


def _parts(word: str) -> Sequence[str]:
    """The word, or its pairs of characters in writing without spaces."""
    if len(word) > 1 and "\u3040" <= word[0] <= "\u9fff":
        return [word[i : i + 2] for i in range(len(word) - 1)]
    return (word,)


@cache
def _patterns(language: str) -> Mapping[str, re.Pattern[str]]:
    """The patterns of a language without spaces, by class."""
    lines = (line.partition(":") for line in lexicon(_FILE)[language])
    return {name: re.compile(pattern.strip(), re.I) for name, _, pattern in lines}
