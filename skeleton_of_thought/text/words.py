"""The words of a text, also while it streams; in scripts without spaces, each character is a word."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["DENSE", "MAY_HOLD_ITEMS", "PIECES", "SPEAKS_OF_WORDS", "UNSPACED", "is_unspaced", "plain", "words_of"]

DENSE = "\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff20\U00020000-\U0003ffff"
"""Chinese and Japanese, as the inside of a character class."""
UNSPACED = f"{DENSE}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Scripts without spaces between words, as the inside of a character class."""
_ONE = re.compile(f"[{UNSPACED}]")
_NO_LETTER = re.compile(r"[\W_]+")

SPEAKS_OF_WORDS = re.compile(r"word|w[öo]e?rt|mots?\b|palabra|parol|palavra|woord|слов|[字词詞語]|ワード", re.I)
"""A question without any of these sets no limit of words."""

_DIFFERENT = (
    "different|separate|unique|distin|independent|individual|unrelated|verschiedene|unterschiedlich|getrennte|"
    "différent|divers|diferent|indipendent|verschillende|aparte|losse|разны|различны|отдельны|уникальны|независимы"
)
MAY_HOLD_ITEMS = re.compile(
    # One set of first characters lets the search skip all others.
    r"[\s:：\"“„«»「『《`,，、;；2b2（(②不独異違別](?:(?<=[\n\"“„«»「『《`②])|(?<=[:：])[^:：]|"
    r"(?<=[,，、;；])[^,，、;；]{1,200}(?:[,，、;；]|\s(?:and|und|et|ed|en|[eyи])\s)|"
    rf"(?<=\s)(?:['‘]\w|{_DIFFERENT})|(?<=[2b])[.)]\s|(?<=[（(])2[)）]|"
    r"(?<=不)同|(?<=独)立|(?<=異)なる|(?<=違)う|(?<=別)々)",
)
"""Matches in every question for several items, each for itself (`routers.items`); most questions have none of it."""

PIECES = re.compile(rf"\n|[^\S\n]+|[{UNSPACED}]|[^\s{UNSPACED}]+")
"""Matches line ends, other white space, characters that are words, and (parts of) other words."""


def is_unspaced(piece: str) -> bool:
    """Whether the piece is a word by itself, so that no later text can continue it."""
    return _ONE.match(piece) is not None


def words_of(text: str) -> list[str]:
    """The words of a complete text, with their punctuation."""
    return [piece for piece in PIECES.findall(text) if not piece.isspace()]


def plain(words: Iterable[str]) -> list[str]:
    """The words without case and punctuation; words of punctuation alone are left out."""
    bare = (_NO_LETTER.sub("", word).casefold() for word in words)
    return [word for word in bare if word]
