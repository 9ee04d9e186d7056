"""Questions for one thing in several versions, and for several different texts.

"Translate this into French and German" asks for a version for each target. "Write five different haikus" asks for
texts that need not know of each other. The targets are of kinds that `items.txt` lists: languages, programming
languages, audiences, tones, and platforms; other rows of words are no targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from skeleton_of_thought.routers.item_lists import quotations, split_row
from skeleton_of_thought.routers.item_words import FILE, Words, entries_of, language_of, read_words
from skeleton_of_thought.routers.question import lexicon
from skeleton_of_thought.types.items import Item, ItemList

__all__ = ["find_different", "find_targets"]

_HEAD, _TAIL = 2000, 1000
"""Characters at either end of a text where its instruction stands."""
_ENDS = 300
"""Characters at either end of it that tell its language."""
_NEAR_END = 400
"""Characters between the sentence that names targets and the nearer end of the text."""
_SENTENCE = 700
"""Characters of the longest sentence that names targets."""
_DENSE = ("zh", "ja")
_NAMED = "named"
"""The kind of targets that the words before them tell."""
_AND = {
    "en": "and",
    "de": "und|sowie",
    "fr": "et",
    "es": "y|e",
    "it": "ed?",
    "pt": "e",
    "nl": "en",
    "ru": "и",
}
_BETWEEN = re.compile(r"(?:[,，、/]\s?|以及|和|与|及|と|や)")
_BOUNDARY = re.compile(r"[.!?](?=\s)|[:](?=[\s\"“„«'])|[。！？：]|\n")

# --- targets --------------------------------------------------------------------------------------


def find_targets(text: str) -> ItemList | None:
    """The versions that a question asks for, one for each target; None if it names no such row of targets."""
    seen = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    # The text to be translated may be in another language.
    for language in dict.fromkeys((language_of(seen[:_ENDS]), language_of(seen[-_ENDS:]))):
        words = read_words(seen, language)
        for kind, pattern in _rows(language) if language else ():
            for row in () if len(words.hits.get(kind, ())) < 2 else pattern.finditer(seen):
                # The row stands at the same place from the nearer end of the whole text.
                start = row.start() if row.start() < _HEAD or seen is text else row.start() + len(text) - len(seen)
                found = _versions(text, start, start + len(row[0]), kind, language)
                if found is not None:
                    return found
        if language and (named := _named_kind(seen, language)) is not None and seen is text:
            return _versions(text, *named, _NAMED, language)
    return None


def _named_kind(text: str, language: str) -> tuple[int, int] | None:
    """Where a row has as many targets as the words before it say: "in three styles: pirate, poet, judge"."""
    pattern = _announced(language)
    for found in pattern.finditer(text) if pattern is not None else ():
        count = _number(found["number"].casefold(), language)
        if 1 < count == len(split_row(found["row"], language)):
            return found.span("row")
    return None


@cache
def _announced(language: str) -> re.Pattern[str] | None:
    names = _kinds(language).get("counted")
    if language in _DENSE or not names:
        return None
    return re.compile(
        rf"(?<!\w){_toward(language).pattern}(?P<number>\w{{1,14}})\s(?:\w{{1,14}}\s)?(?:{'|'.join(names)})\s?:\s"
        r"(?P<row>[^.:;\n\"“„«]{5,200})(?=[.\n]|$)",
        re.I,
    )


def _versions(text: str, start: int, end: int, kind: str, language: str) -> ItemList | None:
    begin, stop = _sentence(text, start, end)
    # Further inside, a sentence is one of a document.
    if stop - begin > _SENTENCE or (begin > _NEAR_END and len(text) - stop > _NEAR_END):
        return None
    before, row = _without_count(text[begin:start], language), text[start:end]
    if (toward := _toward(language).match(row)) is not None:
        before, row = before + toward[0], row[toward.end() :]
    elif kind != "tone" and before == text[begin:start] and language not in _DENSE:
        return None
    after = text[end:stop].rstrip().rstrip(":：").rstrip()
    words = read_words(f"{before} ★ {after}", language)
    if words.has("whole", "neighbour", "together") or not _asks_for_versions(words, kind, row, language):
        return None
    names = _BETWEEN.split(row) if language in _DENSE else split_row(row, language)
    targets = [_without(_toward(language), name) for name in names if name]
    points = tuple(
        Item(index, name, mark=f"{name}:", tight=True, ask=_ask(before, target, after, language))
        for index, target in enumerate(targets, 1)
        for name in (_without(_article(language), target),)
    )
    context = "\n\n".join(part for part in (text[:begin].strip(), text[stop:].strip()) if part)
    return ItemList(context, points, "targets", language) if len(points) > 1 else None


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the sentence around a row begins and ends; the ends of quoted sentences do not count."""
    low, high = max(0, start - _SENTENCE), min(len(text), end + _SENTENCE)
    spans = [span for span in quotations(text[low:high]) if "\n" not in text[low + span[0] : low + span[1]]]
    begin, stop = low, high
    for mark in _BOUNDARY.finditer(text, low, high):
        if any(a <= mark.start() - low < b for a, b in spans):
            continue
        if mark.end() <= start and mark[0] not in ":：":
            begin = mark.end()
        elif mark.start() >= end:
            stop = mark.end()
            break
    while begin < start and text[begin].isspace():
        begin += 1
    return begin, stop


def _asks_for_versions(words: Words, kind: str, row: str, language: str) -> bool:
    """Whether the words around a row, which stands at the star, ask for a version for each of its targets."""
    at = words.words.index("★")
    if at - 1 in words.hits.get("from", ()):
        return False
    if kind == _NAMED:
        return True
    if kind == "tone" and not words.has("to_tone"):
        return words.has("tone_one") and all(_article(language).match(target) for target in split_row(row, language))
    return words.has(f"to_{kind}")


def _ask(before: str, target: str, after: str, language: str) -> str:
    ask = f"{before}{target}{after}".strip()
    if ask[-1:] not in (".", "!", "?", "。", "！", "？"):
        ask += "。" if language in _DENSE else "."
    return ask


def _without_count(before: str, language: str) -> str:
    """The words before a row without the number of its targets: "into three languages: "."""
    counted = _counted(language)
    return counted.sub(r"\1", before) if counted is not None else before


@cache
def _toward(language: str) -> re.Pattern[str]:
    """A preposition at the beginning of a row or of one of its targets."""
    return re.compile(rf"(?:{'|'.join(_kinds(language).get('toward', ['(?!)']))})\s", re.I)


def _without(beginning: re.Pattern[str], text: str) -> str:
    found = beginning.match(text)
    return text if found is None else text[found.end() :]


@cache
def _article(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(_kinds(language).get('small', ['(?!)']))})(?:(?<=')|\s)", re.I)


@cache
def _kinds(language: str) -> Mapping[str, Sequence[str]]:
    kinds: dict[str, list[str]] = {}
    for name, entry in (*entries_of(language), *entries_of("all")):
        kinds.setdefault(name, []).append(entry)
    return kinds


@cache
def _counted(language: str) -> re.Pattern[str] | None:
    names = _kinds(language).get("counted")
    if not names:
        return None
    toward = _toward(language).pattern
    return re.compile(rf"(?<!\w)({toward})(?:\w{{1,14}}\s){{0,2}}(?:{'|'.join(names)})\s?:\s?\Z", re.I)


@cache
def _rows(language: str) -> Sequence[tuple[str, re.Pattern[str]]]:
    """The patterns of rows of targets of each kind."""
    rows = []
    for kind in ("tongue", "code", "audience", "tone", "platform"):
        names = _kinds(language).get(kind)
        if not names:
            continue
        name = "|".join(sorted(map(_spelled, names), key=len, reverse=True))
        if language in _DENSE:
            rows.append(
                (
                    kind,
                    re.compile(rf"(?:{name})(?:{_BETWEEN.pattern}{{1,2}}+(?:{name})){{1,20}}+", re.I),
                )
            )
            continue
        one = rf"(?>(?:{_toward(language).pattern})?(?:{_article(language).pattern})?(?:{name})(?!\w))"
        pattern = rf"(?<![\w-]){one}(?:,\s?{one}){{0,19}}+,?\s(?:{_AND[language]})\s{one}"
        pattern += rf"|(?<![\w-]){one}(?:,\s?{one}){{2,19}}+"
        rows.append((kind, re.compile(pattern, re.I)))
    return rows


def _spelled(name: str) -> str:
    spelled = re.escape(name.rstrip("*")).replace("\\ ", r"\s")
    return spelled + (r"\w*" if name.endswith("*") else "")


# --- different texts ------------------------------------------------------------------------------

_MOST = 20
_NEAR = 4


def find_different(text: str) -> ItemList | None:
    """The number of different texts that a question asks for; None if it asks for none, or for things in one list."""
    if len(text) > _HEAD:
        return None
    language = language_of(text)
    if not language:
        return None
    words = read_words(text, language)
    if words.has("whole", "neighbour", "together", "unlike") or not words.has("compose"):
        return None
    found = list(_different(text, words, language))
    if len(found) != 1 or not 2 <= found[0][0] <= _MOST:
        return None
    count, noun = found[0]
    points = tuple(Item(index, f"{noun} {index}", mark=f"{index}.", tight=False) for index in range(1, count + 1))
    return ItemList(text, points, "different", language)


def _different(text: str, words: Words, language: str) -> Iterator[tuple[int, str]]:
    """The numbers of different texts, with the noun."""
    if language in _DENSE:
        for pattern in _kinds(language).get("different", ()):
            for match in re.finditer(pattern, text):
                groups = {name: value for name, value in match.groupdict().items() if value}
                yield _number(groups.get("n") or groups["n2"], language), groups.get("what") or groups["what2"]
        return
    nouns = words.hits.get("piece", ())
    for at in words.hits.get("different", ()):
        near = [place for place in nouns if at < place <= at + _NEAR] or [
            place for place in nouns if at - 3 <= place < at
        ]
        if not near:
            continue
        first = min(at, near[0])
        numbers = [_number(words.words[place], language) for place in range(max(0, first - 2), first)]
        numbers = [number for number in numbers if number]
        between = range(first, max(at, near[0]))
        if numbers and not any(place in words.hits.get("sorts", ()) for place in between):
            yield numbers[-1], _singular(words.words[near[0]], language)


def _number(word: str, language: str) -> int:
    if word.isdecimal() and len(word) < 4:
        return int(word)
    return _numbers(language).get(word, 0)


@cache
def _numbers(language: str) -> Mapping[str, int]:
    line = next(line for line in lexicon(FILE)[language] if line.startswith("number: "))
    return {name: value for value, names in enumerate(line.split()[1:], 2) for name in names.split("/")}


def _singular(noun: str, language: str) -> str:
    if language != "en":
        return noun
    for ending, single in (("ies", "y"), ("ches", "ch"), ("s", "")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + single
    return noun
