"""The classes of words in `items.txt`, and where an instruction has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from skeleton_of_thought.routers.question import LANGUAGES, WORD, lexicon, read_question

__all__ = ["FILE", "Words", "entries_of", "language_of", "read_words"]

FILE = "items.txt"
_GAP = "…"
_WIDEST = 7
"""Words that "…" in an entry stands for, at most."""
_SHORTEST = 3
"""Letters of the shortest stem."""
_DENSE = ("zh", "ja")
_MOST = 3000
"""Characters of a longer text that are read, half of them at its end."""
_LINE_END = "¶"
_STOPS = frozenset((".", ":", "：", "!", "?", ";", "。", "！", "？", "；", _LINE_END))
_ELLIPSIS = re.compile(r"\.{2,9}|…")


@dataclass(frozen=True)
class Words:
    """The words of a text.

    Attributes:
        words: Each word or mark; of Chinese and Japanese each character.
        hits: Where words of each class begin, in order.
        sentence: The number of the sentence of each word.
    """

    words: Sequence[str]
    hits: Mapping[str, Sequence[int]]
    sentence: Sequence[int]

    def has(self, *names: str) -> bool:
        """Whether it has a word of one of these classes."""
        return any(self.hits.get(name) for name in names)

    @property
    def unspaced(self) -> bool:
        """Whether the language has no spaces between words."""
        return isinstance(self.words, str)

    @property
    def comma(self) -> str:
        """The comma of its script."""
        return "，" if "，" in self.words else ","

    def is_length(self, at: int) -> bool:
        """Whether a plural is the length of an answer, "in two sentences"."""
        numbers = [place for place in self.hits.get("number", ()) if at - 2 <= place < at]
        numbers += [place for place in range(max(0, at - 2), at) if self.words[place].isdecimal()]
        near = self.hits.get("within", ())
        return any(place in near for number in numbers for place in (number - 2, number - 1))

    def within(self, name: str, sentence: int) -> list[int]:
        """Where words of a class stand in a sentence."""
        return [at for at in self.hits.get(name, ()) if self.sentence[at] == sentence]


@lru_cache(maxsize=16)
def read_words(text: str, language: str) -> Words:
    """The words of a text with their classes in a language and, but for Chinese and Japanese, in no other."""
    if len(text) > _MOST:
        text = f"{text[: _MOST // 2]}\n{text[-_MOST // 2 :]}"
    text = _ELLIPSIS.sub(" ", text).replace("\n", f" {_LINE_END} ").casefold().replace("’", "'")
    found: list[tuple[int, int, str]] = []
    words: Sequence[str]
    if language in _DENSE:
        words = text
        for name, pattern in _patterns(language):
            found += [(match.start(), match.end(), name) for match in pattern.finditer(text)]
    else:
        words = WORD.findall(text)
        found += _found(words, language)
    sentence, number = [], 0
    for word in words:
        sentence.append(number)
        number += word in _STOPS
    masks = {
        target: {place for start, end, name in found if name == mask for place in range(start, end)}
        for mask, target in (("fine", ""), ("not_each", "each"))
    }
    hits: dict[str, list[int]] = {}
    for start, _, name in sorted(found):
        if start not in (masks["each"] if name == "each" else masks[""]):
            hits.setdefault(name, []).append(start)
    return Words(words, hits, sentence)


def _found(words: Sequence[str], language: str) -> Iterable[tuple[int, int, str]]:
    phrases, stems = _table(language)
    following = (*words[1:], "")
    for at, (word, after) in enumerate(zip(words, following, strict=False)):
        if (by_second := phrases.get(word)) is not None:
            for phrase, name in (*by_second.get(after, ()), *by_second.get(_GAP, ())):
                if (end := _end(words, at, phrase)) is not None:
                    yield at, end, name
        for stem, name in stems.get(word[:_SHORTEST], ()):
            if word.startswith(stem):
                yield at, at + 1, name


def _end(words: Sequence[str], at: int, phrase: Sequence[str]) -> int | None:
    """Where a phrase that begins at a word ends."""
    for number, part in enumerate(phrase):
        if part == _GAP:
            continue
        if number and phrase[number - 1] == _GAP:
            near = range(at, min(at + _WIDEST + 1, len(words)))
            stop = next((place for place in near if words[place] in _STOPS), len(words))
            at = next((place for place in near if place < stop and _is(words[place], part)), len(words))
        if at >= len(words) or not _is(words[at], part):
            return None
        at += 1
    return at


def _is(word: str, part: str) -> bool:
    return word.startswith(part[:-1]) if part[-1] == "*" and len(part) > 1 else word == part


def entries_of(language: str) -> Iterable[tuple[str, str]]:
    """Yields the class and the text of each entry of a language."""
    for line in lexicon(FILE).get(language, ()):
        name, _, entries = line.partition(":")
        # Numbers stand in one line without bars; "/" separates their forms.
        for entry in re.split(r"[\s/]", entries) if name == "number" else entries.split(" | "):
            if entry := entry.strip():
                yield name.strip(), entry


_Phrases = Mapping[str, Mapping[str, Sequence[tuple[Sequence[str], str]]]]


@cache
def _table(language: str) -> tuple[_Phrases, Mapping[str, Sequence[tuple[str, str]]]]:
    """The phrases by their first and their second word if that is one, and the stems by their first letters."""
    phrases: dict[str, dict[str, list[tuple[Sequence[str], str]]]] = {}
    stems: dict[str, list[tuple[str, str]]] = {}
    for name, spelled in (*entries_of(language), *entries_of("all")):
        entry = spelled.casefold()
        if " " not in entry and entry.endswith("*"):
            stems.setdefault(entry[:-1][:_SHORTEST], []).append((entry[:-1], name))
            continue
        parts = [part for piece in entry.split() for part in ([piece] if piece[-1] == "*" else _words(piece))]
        # Many phrases begin with "a" or "the", and fail at their second word.
        second = parts[1] if len(parts) > 1 and parts[1][-1] != "*" else _GAP
        phrases.setdefault(parts[0], {}).setdefault(second, []).append((parts, name))
    return phrases, stems


def _words(piece: str) -> list[str]:
    return [piece] if piece == _GAP else WORD.findall(piece)


@cache
def _patterns(language: str) -> Sequence[tuple[str, re.Pattern[str]]]:
    by_name: dict[str, list[str]] = {}
    for name, entry in entries_of(language):
        by_name.setdefault(name, []).append(entry)
    for name, entry in entries_of("all"):
        by_name.setdefault(name, []).append(re.escape(entry))
    return [(name, re.compile("|".join(entries))) for name, entries in by_name.items()]


_TELLING = ("strong", "each", "weak", "things", "different", "piece", "tongue", "own")
"""Classes whose words tell the language of an instruction."""
_LETTERS = {"es": "ñ¿¡", "pt": "ãõ", "de": "äöüß", "fr": "êœûîù", "it": "ìò"}
_ENDS = 700, 300


def language_of(instruction: str) -> str:
    """The language of an instruction, or "" if its words are of none that is known."""
    head, tail = _ENDS
    if len(instruction) > head + tail:
        instruction = f"{instruction[:head]} {instruction[-tail:]}"
    language = read_question(instruction).language
    if language in _DENSE:
        return language
    lower = instruction.casefold().replace("’", "'")
    wholes, stems = _telling()
    counts = dict.fromkeys(LANGUAGES, 0)
    for word in dict.fromkeys(WORD.findall(lower)):
        weights = dict(wholes.get(word, ()))
        for stem, of, weight in stems.get(word[:_SHORTEST], ()):
            if word.startswith(stem):
                weights[of] = max(weight, weights.get(of, 0))
        for of, weight in weights.items():
            counts[of] += weight
    for of, letters in _LETTERS.items():
        counts[of] += 3 * (counts[of] > 0 and any(letter in lower for letter in letters))
    if language:
        counts[language] += 1
    best = max(LANGUAGES, key=lambda of: counts[of])
    return best if counts[best] else ""


@cache
def _telling() -> tuple[Mapping[str, Sequence[tuple[str, int]]], Mapping[str, Sequence[tuple[str, str, int]]]]:
    """The words, and the stems by their first letters, that tell a language, with their weights."""
    wholes: dict[str, dict[str, int]] = {}
    stems: dict[str, list[tuple[str, str, int]]] = {}
    for language in LANGUAGES:
        for name, spelled in entries_of(language) if language not in _DENSE else ():
            entry, weight = spelled.casefold(), 1 if name == "own" else 3
            if name not in _TELLING or " " in entry:
                continue
            if entry.endswith("*"):
                stems.setdefault(entry[:-1][:_SHORTEST], []).append((entry[:-1], language, weight))
            else:
                weights = wholes.setdefault(entry, {})
                weights[language] = max(weight, weights.get(language, 0))
    return {word: tuple(weights.items()) for word, weights in wholes.items()}, stems
