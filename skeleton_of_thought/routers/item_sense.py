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

__all__ = ["FEWEST", "MOST", "SHORT", "are_items", "refers"]

FEWEST, MOST = 3, 100
"""The fewest and the most items of a list."""
SHORT = 60
"""Characters of the longest item that names its answer in one line."""
_LONG, _LONG_ONE = 150, 400
"""Words of the average and of any item from which a question may be one about all of them together."""
_LETTER = 90
"""Characters of the shortest item that may be a letter."""

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
    pair = each and (found.kind == "marked" or (found.kind != "commas" and min(map(len, items)) > SHORT))
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
    if found.kind in ("lines", "paragraphs") and not (found.tail or sentences) and _ends_otherwise(items):
        return False
    if found.kind == "marked" and not words.has("direct") and any(map(_GOES_ON.match, items[1:])):
        return False
    questions = sum(item.rstrip().endswith(("?", "？")) for item in items)
    if words.has("answer") or (questions > len(items) // 2 and not words.has("direct")):
        # A letter of several sentences says by itself what its pronouns mean.
        return not any(refers(item, language) for item in items[1:] if not (each and len(item) > _LETTER))
    return True


def _ends_otherwise(items: Sequence[str]) -> bool:
    """Whether the last line asks or instructs, unlike the others: it is about all of them."""
    ends = [item.rstrip().endswith(("?", "？")) for item in items]
    if ends[-1] and sum(ends) == 1 and len(items) > 2:
        return True
    return _commands(items[-1]) and not any(map(_commands, items[:3]))


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
