"""Whether the pieces of a list can stand alone, so that each may be an item.

Lines of code, of a table, a log or a dialogue cannot, nor questions that refer to others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from skeleton_of_thought.routers.item_lists import ListInText
from skeleton_of_thought.routers.item_words import Words, language_of, read_words
from skeleton_of_thought.routers.question import LANGUAGES, lexicon
from skeleton_of_thought.text.words import words_of

__all__ = ["FEWEST", "MOST", "SHORT", "are_items", "asks_property", "becomes_one", "refers"]

FEWEST, MOST = 3, 100
"""The fewest and the most items of a list."""
SHORT = 60
"""Characters of the longest item that names its answer in one line."""
_LONG, _LONG_ONE = 150, 400
"""Words of the average and of any item from which a question may be one about all of them together."""
_LETTER = 90
"""Characters of the shortest item that may be a letter."""
_MORE = frozenset(("mais", "más", "plus", "più", "menos", "moins", "meno", "meest", "самая", "самый"))
"""Words that make a superlative after a noun."""
_LETTER_WORDS = 8
"""Words of the shortest letters."""
_OF_THESE = 6
"""Words between what is asked of some things and "these" at most."""
_NAME_OF = 4
"""Words, or characters of Chinese and Japanese, between "these" and the name of the things at most."""

_SNIPPET = re.compile(
    r"```|~~~|[;{}]\s*$|^\s*(?:def|class|import|from|#include|public|SELECT|return|const|let|var)\b|"
    r"^\s*(?:for|if|while|else|try|with)\b.*:\s*$|^\s*[a-z_]{2,30} ?[-+]?= ?\S|^\s*[a-z_.]{2,40}\(.*\)\s*$",
    re.M,
)
_SPEAKER = re.compile(r"(?P<who>[^\W\d_][\w .]{0,24})[:：]\s?\S")
_STAMP = re.compile(r"[\[(]?(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}:\d{2})")
_GOES_ON = re.compile(
    r"(?:then|next|after that|afterwards|finally|dann|danach|anschließend|puis|ensuite|luego|después|poi|quindi|depois|"
    r"em seguida|daarna|vervolgens|затем|потом)\b|然后|接着|次に|それから",
    re.I,
)
"""The first words of a step that goes on from the one before."""
_CELLS = re.compile(r"\|[^|\n]*\||\t[^\t\n]*\t")


def are_items(found: ListInText, words: Words, language: str, *, each: bool) -> bool:
    """Whether the pieces of a list can stand alone.

    Args:
        found: The list.
        words: The words of its instruction.
        language: The instruction's language.
        each: Whether the instruction says "each" of the items.
    """
    items = found.items
    pair = each and (
        found.kind == "marked"
        or (found.kind == "quoted" and words.has("strong"))
        or (found.kind != "commas" and min(map(len, items)) > SHORT)
    )
    if not (2 if pair else FEWEST) <= len(items) <= MOST or any(not _has_text(item) for item in items):
        return False
    counts = [len(words_of(item)) for item in items]
    if not each and (sum(counts) > _LONG * len(items) or max(counts) > _LONG_ONE):
        return False
    if sum(bool(_SNIPPET.search(item)) for item in items) > len(items) // 3:
        return False
    if _share(_STAMP, items) or any(_CELLS.search(item) for item in items):
        return False
    speakers = Counter(match["who"].casefold() for item in items if (match := _SPEAKER.match(item)))
    if speakers and ((len(speakers) > 1 and max(speakers.values()) > 1) or (not each and _share(_SPEAKER, items))):
        return False
    # The last of some sentences to translate may be a question; below words it is one about them.
    sentences = words.has("direct") and not all(item[-1:].isalnum() for item in items[:-1])
    # "For each of these commits:" says where they begin; one of them may look like a command.
    begins = each and words.has("these") and found.lead.endswith((":", "："))
    unmarked = found.kind in ("lines", "paragraphs") and not (found.tail or sentences)
    if unmarked and _ends_otherwise(items, commands=not begins):
        return False
    if found.kind == "marked" and not words.has("direct") and any(map(_GOES_ON.match, items[1:])):
        return False
    questions = sum(item.rstrip().endswith(("?", "？")) for item in items)
    if words.has("answer") or (questions > len(items) // 2 and not words.has("direct")):
        # A letter of several sentences says by itself what its pronouns mean.
        letters = each and all(len(words_of(item)) > _LETTER_WORDS or item.endswith(("!", ".")) for item in items)
        if letters or (words.has("one") and _has_text_before(found)):
            return not any(read_words(item, language).has("refers") for item in items[1:])
        return not any(refers(item, language) for item in items[1:] if not (each and len(item) > _LETTER))
    return True


def _has_text_before(found: ListInText) -> bool:
    """Whether the words before a list hold a text, which every call gets: its pronouns mean something there."""
    return any(len(block) > _LETTER and block.count(".") > 1 for block in found.lead.split("\n\n"))


def asks_property(words: Words) -> bool:
    """Whether an instruction names what each of several things has: "the capitals of these countries"."""
    for at in words.hits.get("tongue", ()):
        # "What is the English for these?"
        if at + 1 in words.hits.get("for", ()) and at + 2 in words.hits.get("these", ()):
            return True
    for at in words.hits.get("property", ()):
        sentence = words.sentence[at]
        # "The plural of: goose, ox".
        if not words.unspaced and ":" in words.words[at + 1 : at + 3]:
            return True
        # "The coldest capital of these countries" is one.
        these = [
            place
            for place in words.within("these", sentence)
            if words.unspaced or (at < place <= at + _OF_THESE and _MORE.isdisjoint(words.words[at:place]))
        ]
        if any(
            any(place <= thing <= place + _NAME_OF for thing in words.within("things", sentence)) for place in these
        ):
            return True
    return False


def becomes_one(words: Words) -> bool:
    """Whether "these" become one thing: "turn these notes into a report"."""
    kinds = {at for name in ("audience", "tone", "tone_one") for at in words.hits.get(name, ())}
    articles = set(words.hits.get("a", ()))
    into = set(words.hits.get("toward", ())) | set(words.hits.get("into", ()))
    return not words.unspaced and any(
        at + 1 in articles and kinds.isdisjoint(range(at + 1, at + 6))
        for these in words.hits.get("these", ())
        for at in into
        if these < at < these + _OF_THESE and words.sentence[at] == words.sentence[these]
    )


def _ends_otherwise(items: Sequence[str], *, commands: bool) -> bool:
    """Whether the last line asks or instructs, unlike the others: it is about all of them."""
    ends = [item.rstrip().endswith(("?", "？")) for item in items]
    if ends[-1] and sum(ends) == 1 and len(items) > 2:
        return True
    if not commands:
        language = language_of(items[-1])
        commands = bool(language) and read_words(items[-1], language).has("each", "these", "whole", "neighbour", "text")
    return commands and _commands(items[-1]) and not any(map(_commands, items[:3]))


def _commands(line: str) -> bool:
    language = language_of(line) if " " in line else ""
    words = read_words(line, language) if language else None
    return words is not None and any(0 in words.hits.get(name, ()) for name in ("strong", "weak", "compose"))


def _has_text(item: str) -> bool:
    return any(sign.isalnum() or ord(sign) > 0x2FFF for sign in item)


def _share(pattern: re.Pattern[str], items: Sequence[str]) -> bool:
    return sum(bool(pattern.match(item)) for item in items) * 2 > len(items)


def refers(item: str, language: str) -> bool:
    """Whether an item speaks of another one, in a language."""
    words = read_words(item, language)
    if words.has("refers") or 0 in words.hits.get("opens", ()):
        return True
    if language in ("zh", "ja"):
        return words.has("pronoun")
    stopwords = _stopwords(language)
    for name in ("pronoun", "owner"):
        for at in words.hits.get(name, ()):
            before = [
                place for place in range(at) if len(words.words[place]) > 2 and words.words[place] not in stopwords
            ]
            clauses = [place for place in words.hits.get("clause", ()) if place < at]
            if not before or (name == "pronoun" and not (clauses and clauses[-1] > before[0])):
                return True
    return False


@cache
def _stopwords(language: str) -> frozenset[str]:
    lines = lexicon()[language] if language in LANGUAGES else ()
    return frozenset(word for line in lines if line.startswith("stopwords: ") for word in line.split()[1:])
