"""Questions for one thing in several versions, and for several different texts.

"Translate this into French and German" asks for a version for each target. "Write five different haikus" asks for
texts that need not know of each other. The targets are of kinds that `items.txt` lists: languages, programming
languages, audiences, tones, and platforms; other rows of words are no targets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile

from skeleton_of_thought.routers.item_lists import quotations, split_row
from skeleton_of_thought.routers.item_words import FILE, Words, entries_of, language_of, read_words
from skeleton_of_thought.routers.question import lexicon
from skeleton_of_thought.types.items import Item, ItemList

__all__ = ["find_different", "find_target_lines", "find_targets"]

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
_DATIVE = {
    "de": re.compile(r"(?:ein|mein|dein|unser)e[mr]\s", re.I),
    "ru": re.compile(r"\w+(?:у|ю|е|ам|ям)(?!\w)|по-", re.I),
}
"""Readers who need no preposition."""
_BETWEEN = re.compile(r"(?:[,，、/]\s?|以及|和|与|及|と|や)")
_LEAD_LINES = 6
"""Lines in which an instruction may end whose targets stand one a line."""
_COMMAND = 3
"""An instruction has its command within this many words."""
_BOUNDARY = re.compile(r"[.!?](?=\s)|[:](?=[\s\"“„«'])|[。！？：]|\n")

# --- targets --------------------------------------------------------------------------------------


def find_targets(text: str) -> ItemList | None:
    """The versions that a question asks for, one for each target; None if it names no such row of targets."""
    seen = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    # The text to be translated may be in another language.
    for language in dict.fromkeys((language_of(seen[:_ENDS]), language_of(seen[-_ENDS:]))):
        words = read_words(seen, language)
        for kind, pattern in _rows(language) if language else ():
            enough = len(words.hits.get(kind, ())) >= (1 if kind == "audience" else 2)
            for row in pattern.finditer(seen) if enough else ():
                # The row stands at the same place from the nearer end of the whole text.
                start = row.start() if row.start() < _HEAD or seen is text else row.start() + len(text) - len(seen)
                found = _versions(text, start, start + len(row[0]), kind, language)
                if found is not None:
                    return found
        if not language or seen is not text:
            continue
        for place in (_named_kind(text, language), _once_each(text, language)):
            if place is not None and (found := _versions(text, *place, _NAMED, language)) is not None:
                return found
    return None


def find_target_lines(text: str) -> ItemList | None:
    """The versions that a question asks for whose targets stand one a line: "Translate this into:", "- German"."""
    lines = text.split("\n")
    at = next((place for place, line in enumerate(lines[:_LEAD_LINES]) if line.rstrip().endswith((":", "："))), None)
    if at is None or not (language := language_of(lines[at])):
        return None
    lead = lines[at].strip()
    words = read_words(lead, language)
    below = [line.strip() for line in lines[at + 1 : at + 1 + _MOST + 2]]
    first = next((place for place, line in enumerate(below) if line), 0)
    for kind in ("tongue", "code", "audience", "platform"):
        last = max(words.sentence[:-1], default=0)
        if not words.within(f"to_{kind}", last) or words.has(kind, "whole", "neighbour", "together", "each"):
            continue
        pattern = _target_line(kind, language)
        targets = [found["name"].strip() for found in takewhile(bool, map(pattern.match, below[first:])) if found]
        if not 1 < len(targets) <= _MOST:
            continue
        end = at + 1 + first + len(targets)
        if end < len(lines) and lines[end].strip():
            continue
        context = "\n\n".join(part for part in ("\n".join(lines[:at]).strip(), "\n".join(lines[end:]).strip()) if part)
        before = _without_count(f"{lead[:-1].rstrip()} " if lead[:-1].split()[-1:] else "", language)
        counted = words.has("counted") or before.rstrip().casefold().endswith(
            tuple(_kinds(language).get("counted", ()))
        )
        ask = f"{lead} " if counted else before
        points = tuple(
            Item(index, name, mark=f"{name}:", tight=True, ask=_ask(ask, name, "", language))
            for index, name in enumerate(targets, 1)
        )
        return ItemList(context, points, "targets", language)
    return None


@cache
def _target_line(kind: str, language: str) -> re.Pattern[str]:
    names = "|".join(sorted(map(_spelled, _kinds(language).get(kind, ["(?!)"])), key=len, reverse=True))
    return re.compile(
        rf"(?:(?:[-*+•·‣・–—]|[(]?\w{{1,2}}[.)、])\s{{0,3}})?(?P<name>(?:{_toward(language).pattern})?"
        rf"(?:{_article(language).pattern})?(?:{names}))[.,;、，；]?$",
        re.I,
    )


def _once_each(text: str, language: str) -> tuple[int, int] | None:
    """Where a row has a word like "once" before each target: "once for children and once for adults"."""
    pattern = _onces(language)
    for found in pattern.finditer(text) if pattern is not None else ():
        begin, _ = _sentence(text, found.start(), found.end())
        words = read_words(text[begin : found.start()], language)
        commands = [at for name in ("strong", "weak", "compose") for at in words.hits.get(name, ())]
        # "Eine Geschichte, die einmal in Rom und einmal in Oslo spielt" is one.
        clause = "," in words.words[-2:] and len(words.words) - 1 in words.hits.get("relative", ())
        if not clause and any(at < _COMMAND for at in commands):
            return found.span("row")
    return None


@cache
def _onces(language: str) -> re.Pattern[str] | None:
    names = _kinds(language).get("once")
    if language in _DENSE or not names:
        return None
    once = rf"(?:{'|'.join(map(re.escape, names))})"
    # "Once we are there" is a time.
    target = (
        rf"(?:(?:as|with|without|from|{'|'.join(_kinds(language)['toward'])})\s[^,.:;!?\n\"“„«]{{2,50}}?|\w{{2,20}}ly)"
        if language == "en"
        else r"[^,.:;!?\n\"“„«]{2,50}?"
    )
    again = rf"(?:{once}|{'|'.join(map(re.escape, _kinds(language).get('again', ['(?!)'])))})"
    return re.compile(
        rf"(?<!\w)(?P<row>{once}\s{target}(?:(?:,\s(?:{_AND[language]}\s)?|\s(?:{_AND[language]})\s){again}\s{target}){{1,9}})"
        r"(?=[.:;!?\n]|$)",
        re.I,
    )


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
    elif _needs_preposition(kind, row, language) and before == text[begin:start]:
        return None
    after = text[end:stop].rstrip().rstrip(":：").rstrip()
    words = read_words(f"{before} ★ {after}", language)
    if words.has("neighbour", "together") or _is_one(words, kind) or not _asks_for_versions(words, kind, row, language):
        return None
    names = _BETWEEN.split(row) if language in _DENSE else split_row(row, language)
    targets = [_without(_toward(language), name) for name in names if name]
    points = tuple(
        Item(index, name, mark=f"{name}:", tight=True, ask=_ask(before, target, after, language))
        for index, target in enumerate(targets, 1)
        for name in (_name(target, kind, language),)
    )
    context = "\n\n".join(part for part in (text[:begin].strip(), text[stop:].strip()) if part)
    return ItemList(context, points, "targets", language) if len(points) > 1 else None


def _name(target: str, kind: str, language: str) -> str:
    """A target without its article, or without "once"."""
    if kind != _NAMED:
        return _without(_article(language), target)
    once = re.match(rf"(?:{'|'.join(map(re.escape, _kinds(language).get('once', ['(?!)'])))})\s", target, re.I)
    return target[once.end() :] if once is not None else _without(_article(language), target)


def _needs_preposition(kind: str, row: str, language: str) -> bool:
    if language in _DENSE or kind in (_NAMED, "tone", "format"):
        return False
    return not (kind in ("audience", "tongue") and language in _DATIVE and _DATIVE[language].match(row))


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


def _is_one(words: Words, kind: str) -> bool:
    """Whether the versions are to be compared or the like, and not what a program does: "code that counts words"."""
    whole = words.hits.get("whole", ())
    if kind != "code":
        return bool(whole)
    relatives = (*words.hits.get("relative", ()), *words.hits.get("into", ()), *words.hits.get("for", ()))
    return not all(any(at - 3 <= place < at for place in relatives) for at in whole)


def _asks_for_versions(words: Words, kind: str, row: str, language: str) -> bool:
    """Whether the words around a row, which stands at the star, ask for a version for each of its targets."""
    at = words.words.index("★")
    if at - 1 in words.hits.get("from", ()):
        return False
    if kind == _NAMED:
        return True
    if kind == "audience" and not read_words(row, language).has(kind):
        return False
    if kind == "tone" and not words.has("to_tone"):
        return words.has("tone_one") and all(_article(language).match(target) for target in split_row(row, language))
    if kind == "format":
        # Right after its command: "Write a tweet, a slogan and a haiku about ...".
        commands = [place for place in words.hits.get("to_format", ()) if place < at]
        relative = {at + 1, at + 2} & set(words.hits.get("relative", ()))
        return (
            bool(commands) and not relative and at - commands[-1] <= _COMMAND and not {",", ":"} & set(words.words[:at])
        )
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
    return re.compile(rf"(?:{'|'.join(_kinds(language).get('toward', ['(?!)']))})(?:(?<=')|\s)", re.I)


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
    for kind in ("tongue", "code", "audience", "tone", "platform", "tense", "format", "length"):
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
        if kind == "length":
            # "In two sentences and in 50 words" may be one text.
            one = rf"(?:{_toward(language).pattern})(?:\w{{1,12}}\s){{1,3}}(?:{name})(?!\w)"
            row = rf"(?<!\w){one}(?:,\s{one}){{1,5}},?\s(?:{_AND[language]})\s{one}"
            rows.append((kind, re.compile(row, re.I)))
            continue
        one = rf"(?>(?:{_toward(language).pattern})?(?:{_article(language).pattern})?(?:{name})(?!\w))"
        pattern = rf"(?<![\w-]){one}(?:,\s?{one}){{0,19}}+,?\s(?:{_AND[language]})\s{one}"
        if kind == "audience":
            # One or two that no list has: "to a child, a student of economics and a dancer".
            other = rf"(?:{one}|{_unknown(language)})(?:\s(?:of|von|der|de|di|en|van)\s\w{{4,20}})?"
            more = rf"{other}(?:\s\w{{3,20}})?,\s?"
            pattern = rf"(?<![\w-])(?:{more}){{2,10}}(?:{_AND[language]})\s{other}(?!\w)|{pattern}"
            pattern = (
                rf"(?<![\w-])(?:{more}){{1,9}}{other}(?:\s\w{{3,20}})?\s(?:{_AND[language]})\s{other}(?!\w)|{pattern}"
            )
        pattern += rf"|(?<![\w-]){one}(?:,\s?{one}){{2,19}}+"
        rows.append((kind, re.compile(pattern, re.I)))
    return rows


def _unknown(language: str) -> str:
    """One that may be a reader, with a preposition or an article."""
    toward, article = _toward(language).pattern, _article(language).pattern
    return rf"(?:(?:{toward})(?:{article})?|{article})\w{{3,20}}" if language != "ru" else r"\w{3,20}(?:у|ю|е|ам|ям)"


def _spelled(name: str) -> str:
    spelled = re.escape(name.rstrip("*")).replace("\\ ", r"\s")
    return spelled + (r"\w*" if name.endswith("*") else "")


# --- different texts ------------------------------------------------------------------------------

_MOST = 20
_NEAR = 4
_COMPOUNDS = ("de", "nl")
"""Languages whose nouns are written as one word: "Geburtstagsgedichte"."""


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
    nouns = list(words.hits.get("piece", ()))
    if language in _COMPOUNDS:
        names = tuple(_kinds(language).get("piece", ()))
        nouns = sorted({*nouns, *(at for at, word in enumerate(words.words) if word.endswith(names))})
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
