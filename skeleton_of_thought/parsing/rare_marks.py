"""List marks that are rare, or that prose has, too: read only where a line has no other mark.

Marks that sentences also begin with (`1st`, "First,", an emoji) are read as headings, each family with a level of its
own below the headings of Markdown: one such line is no list, two are. Each function looks at a single line.
"""

from __future__ import annotations

import re
import unicodedata

from skeleton_of_thought.parsing.mark import Mark, pattern
from skeleton_of_thought.parsing.numerals import numeral_value
from skeleton_of_thought.parsing.signs import (
    ALPHABETS,
    ANNOUNCING,
    ANNOUNCING_ANYWHERE,
    CJK,
    COUNTERS,
    DASHES,
    DEFINITION_LEVEL,
    EMOJI_LEVEL,
    INTRODUCTIONS,
    ORDINAL_ENDS,
    ORDINAL_LEVEL,
    SEQUENCE_LEVEL,
    SEQUENCES,
    WORDS,
)

__all__ = ["announces", "is_introduction", "letter_value", "level_below", "opens_section", "rare_mark"]

_LAST = 99
_LONGEST = 200
"""The most characters of a title behind a mark that prose has, too: a longer line is a paragraph."""

_EMPHASIS = pattern(r"(\*{1,3}|_{1,3})(?=[^\s*_])")
_AFTER = rf"[*_]{{0,3}}(?:\s?[:：.．,，、،)）](?!\d)|\s*[{DASHES}](?=\s)|(?=\s)|$)"
_COUNTER = pattern(rf"(?:제|第)?\s?(?P<n>\d{{1,3}}|[{CJK}]{{1,3}})\s?(?:{COUNTERS})(?:は|은|는)?{_AFTER}")
_WORD = pattern(
    rf"(?P<w>[^\s\d]{{1,20}}(?: [^\s\d]{{1,20}})?)\s+(?:(?P<n>\d{{1,3}}|[IVX]{{1,5}})[*_]{{0,3}}\s+(?=[^{DASHES}\s])"
    rf"|(?P<letter>[A-Z])[*_]{{0,3}}(?:\s?[:：.)]|\s*[{DASHES}](?=\s)))"
)
_WORDS = frozenset(WORDS.split("|"))
_ORDINAL = pattern(
    rf"(?P<n>\d{{1,2}})(?:{ORDINAL_ENDS})[*_]{{0,3}}(?:(?P<d>\s?[:：.,)])(?!\d)|(?P<dash>\s*[{DASHES}])(?=\s)|(?=\s))",
    re.IGNORECASE,
)
_OF = pattern(r"\s*(?:of|de|du|des|del|di|da|do|von|van|в|из|century|siècle|siglo|degree|degrees)\b", re.IGNORECASE)
_SEQUENCE = pattern(
    rf"(?P<w>[^{DASHES},，:：、،.)*_]{{1,30}}?(?:[{DASHES}][^{DASHES},，:：、،.)*_\s]{{2,12}})?)[*_]{{0,3}}"
    rf"(?:\s?[,，:：、،.)](?!\d)|\s+[{DASHES}](?=\s))[*_]{{0,3}}"
)
_PLACES = {word: place for place, words in enumerate(SEQUENCES, 1) for word in words.split("|")}
# Chinese goes on without a comma: 首先准备材料.
_CJK_SEQUENCE = pattern(r"(?:(?P<a>首先)|(?P<b>其次)|(?P<c>再次)|(?P<d>最后|最後))(?=[\u4e00-\u9fff])")

_LETTERS = "".join(sorted(set("".join(ALPHABETS) + "".join(ALPHABETS).upper())))
_LETTER = pattern(rf"(?P<open>[(（])?(?P<w>[{_LETTERS}]|[ａ-ｚＡ-Ｚ])[*_]{{0,3}}\\?(?P<d>[.)）．、:：])[*_]{{0,3}}")
_SIGN_LETTER = pattern(r"(?P<w>[ⓐ-ⓩⒶ-Ⓩ⒜-⒵🅐-🅩])\s?[.:)]?")
_ROMAN_SIGN = pattern(r"(?P<n>[Ⅰ-Ⅻⅰ-ⅻ])\s?(?:[.、:：)）．]|(?=\s))")
_DOUBLE_ROUND = pattern(r"(?P<n>[⓵-⓾])\s?[.、:)]?")
_ASCIIDOC = pattern(r"(={1,6})\s+(?=[^\s=])")
_SHARP_DOT = pattern(r"#\.\s+|\.\s+(?=\S)")

_PICTURE = (
    "\U0001f000-\U0001faff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\u25a0-\u25ff\u2190-\u21ff\u2934\u2935\u3030\u303d"
)
_EMOJI = pattern(rf"[{_PICTURE}][{_PICTURE}\u200d\ufe0f\u20e3]{{0,12}}\s*(?:[{DASHES}:：]\s+)?")


def rare_mark(body: str, indent: int, level: int) -> Mark | None:
    """The rare mark at the start of `body`, a line without its indent and heading.

    Args:
        body: The line.
        indent: Columns before it.
        level: Its level as a heading of Markdown: such a line may have no mark that prose has, too.
    """
    opened = ""
    if emphasis := _EMPHASIS.match(body):
        opened, body = emphasis[1], body[emphasis.end() :]
    start = body[:1]
    if start in "#.=":
        return _ascii_sign(body, indent, opened)
    mark = _counted(body, indent, level, opened) or _lettered(body, indent, level, opened)
    if mark or level or len(body) > _LONGEST:
        return mark
    return _doubtful(body, indent, opened)


def _ascii_sign(body: str, indent: int, opened: str) -> Mark | None:
    if title := _ASCIIDOC.match(body):
        return Mark("heading", "heading", 0, "", indent, len(title[1]), body[title.end() :].rstrip("= "), opened)
    found = _SHARP_DOT.match(body)
    return Mark("bullet", found[0].strip(), 0, "", indent, 0, body[found.end() :], opened) if found else None


def _counted(body: str, indent: int, level: int, opened: str) -> Mark | None:
    """Numbers: 1단계, 제1장, 1つ目, Ⅰ."""
    if found := _COUNTER.match(body):
        style, value = "counter", numeral_value(found["n"])
    elif found := _ROMAN_SIGN.match(body) or _DOUBLE_ROUND.match(body):
        style, value = "sign", int(unicodedata.numeric(found["n"]))
    else:
        return None
    return Mark("number", style, value, "", indent, level, *_after_mark(body[found.end() :], opened))


def _lettered(body: str, indent: int, level: int, opened: str) -> Mark | None:
    """Letters of other alphabets: α), а), א., 가."""
    style = "sign"
    found = _SIGN_LETTER.match(body)
    if not found:
        found = _LETTER.match(body)
        if not found or (found["open"] and found["d"] not in ")）"):
            return None
        style = ("(" if found["open"] else "") + unicodedata.normalize("NFKC", found["d"])
    rest = body[found.end() :]
    # Letters of alphabets with capitals are followed by a space; Korean, Chinese and Japanese ones need none.
    if not rest.strip() or (found["w"].lower() != found["w"].upper() and style != "sign" and not rest[:1].isspace()):
        return None
    return Mark(
        "alpha",
        ("A" if found["w"].isupper() else "a") + style,
        0,
        found["w"],
        indent,
        level,
        *_after_mark(rest, opened),
    )


def _after_mark(rest: str, opened: str) -> tuple[str, str]:
    """`rest` and `opened` behind an emphasis that closes right after the mark."""
    return (rest[len(opened) :], "") if opened and rest.startswith(opened) else (rest, opened)


def _doubtful(body: str, indent: int, opened: str) -> Mark | None:
    """Marks that sentences also begin with: `1st`, "First,", "Part 1 ", an emoji."""
    number, level, rest = 0, ORDINAL_LEVEL, ""
    if found := _ORDINAL.match(body):
        number, rest = int(found["n"]), body[found.end() :]
        if not found["d"] and not found["dash"] and _OF.match(rest):
            return None
    elif (found := _WORD.match(body)) and found["w"].lower() in _WORDS:
        number, rest = ord(found["letter"] or "@") - 64 or numeral_value(found["n"] or ""), body[found.end() :]
        if found["n"] and rest[0].islower():
            return None
    elif sequence := _sequence(body):
        number, rest = sequence
        level = SEQUENCE_LEVEL
    elif found := _EMOJI.match(body):
        level, rest = EMOJI_LEVEL, body[found.end() :]
        if announces(rest):
            return None
    if not rest.strip(" *_"):
        return None
    return Mark("heading", "heading", number, "", indent, level, *_after_mark(rest, opened))


def _sequence(body: str) -> tuple[int, str] | None:
    """The number that a word such as "Second," stands for, and the text behind it."""
    if body[0].islower():  # a line within a sentence
        return None
    if (found := _SEQUENCE.match(body)) and (place := _PLACES.get(found["w"].lower().replace("’", "'"))):
        return (_LAST if place == len(SEQUENCES) else place), body[found.end() :]
    if found := _CJK_SEQUENCE.match(body):
        return (_LAST if found["d"] else "abc".index(found.lastgroup or "a") + 1), body[found.end() :]
    return None


def letter_value(word: str, last: int) -> int:
    """The place of a letter in an alphabet, the one in which it goes on from place `last` if there is one."""
    letter = word.casefold()
    if letter not in _LETTERS:
        letter = unicodedata.normalize("NFKC", letter).strip("()")
    if len(letter) != 1:
        return 0
    if "a" <= letter <= "z":
        return ord(letter) - 96
    if "🅐" <= word <= "🅩":
        return ord(word) - ord("🅐") + 1
    places = [alphabet.find(letter) + 1 for alphabet in ALPHABETS if letter in alphabet]
    following = [place for place in places if last < place <= last + 3]
    return min(following or places, default=0)


# --- lines before a list ----------------------------------------------------------------------------

_INTRODUCTION = pattern(rf"\W{{0,9}}(?:{INTRODUCTIONS})(?!\w)", re.IGNORECASE)
_ANNOUNCING = pattern(rf"(?<!\w)(?:{ANNOUNCING})(?!\w)|{ANNOUNCING_ANYWHERE}", re.IGNORECASE)


def is_introduction(line: str) -> bool:
    """Whether a line opens an essay ("Introduction:"), so that a list below it is part of that section."""
    return _INTRODUCTION.match(line) is not None


def announces(line: str) -> bool:
    """Whether a line announces the list of the points, as "Here are the points:" and "Outline" do."""
    return not is_introduction(line) and _ANNOUNCING.search(line[:_LONGEST]) is not None


def opens_section(levels: list[int], lead: str, *, loose: bool) -> bool:
    """Whether a numbered list below headings may be part of the section that the last of them opens.

    Args:
        levels: The levels of the headings so far.
        lead: The last heading, or the line of prose below it.
        loose: Whether a blank line, or prose, stands right above the list.
    """
    # A single "# Title" is the title of the whole, and "🎉 Great question!" is no heading.
    if levels == [1] or (levels == [EMOJI_LEVEL] and (loose or lead[-1] in "!?！？")):
        return False
    return not announces(lead)


_UNDERLINE = re.compile(r"={3,}|-{3,}")
_SENTENCE_ENDS = ".,:;!?。，：；！？、"


def level_below(above: str, text: str, *, alone: bool) -> int:
    """The heading level that a line gives the line of prose above it, 0 for none: it underlines or defines it.

    Args:
        above: The line of prose.
        text: The line below it.
        alone: Whether `above` is the first line of its paragraph.
    """
    if len(above) > _LONGEST // 2:
        return 0
    if _UNDERLINE.fullmatch(text):
        if text[0] == "=":
            return 1 if alone or len(text) >= len(above) else 0
        return 2 if above[-1] not in _SENTENCE_ENDS and (alone or len(text) == len(above)) else 0
    return DEFINITION_LEVEL if alone and text.startswith((": ", ":\t")) else 0
