"""One line of a plan: its title, what the point covers, what it builds on, and how long it is.

`Outline` finds the lines and takes their marks off. `read_plan_line` reads what is left, in any of these forms and in
ten languages:

    Which one to choose – weighs price against comfort (after 1, 3; ~80 words)
    **Which one to choose**: weighs price against comfort [builds on points 1 to 3]
    Which one to choose (weighs price against comfort) → after 1 and 3

What cannot be read as a note or as a dependency stays part of the title, such as "(after 1945)". All patterns are
anchored or bounded, so that a line of a megabyte takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple, TypeGuard

from skeleton_of_thought.parsing import plan_words as words_of
from skeleton_of_thought.parsing.mark import pattern
from skeleton_of_thought.parsing.marks import clean_title
from skeleton_of_thought.types import Planning

__all__ = ["PlanLine", "is_length", "read_numbers", "read_plan_line", "sums_up"]


class PlanLine(NamedTuple):
    """One line of a plan.

    Attributes:
        title: The title; only this is never empty, unless the whole line is.
        scope: What the point covers; "" if the line does not say it.
        after: The numbers of the points that it builds on, as the line names them, each once.
        words: Its length in words; None if the line does not say it.
        after_all: Whether it builds on all points before it.
        after_last: Whether it builds on the point right before it, whatever its number.
    """

    title: str
    scope: str = ""
    after: tuple[int, ...] = ()
    words: int | None = None
    after_all: bool = False
    after_last: bool = False


# --- signs ----------------------------------------------------------------------------------------

_SAME = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict(
    zip(map(ord, "【】〔〕、"), "[][],", strict=True)
)
"""Full-width signs, each with the ASCII sign that means the same; the length of the text stays."""

_END = r"(?![A-Za-zÀ-ɏЀ-ӿ])"
"""Words end here. Chinese and Japanese ones need no space behind them."""
_DASH = r"\s[-–—―−‐‑]{1,3}\s|[—―]{1,2}"
_ARROW = r"[→⇒←↳]|[-=]>|<-"

_NUMBERED = pattern(r"[(\[](?:[\s#]?(?:\d{1,3}|[①-⑳])\s?[,;/&]?){1,40}[)\]]")
_SEPARATOR = pattern(
    rf"(?P<open>[(\[{{])(?=[^()\[\]{{}}]{{3}})|(?P<strong>{_ARROW}|[;|])|(?P<dash>{_DASH}|:)|(?P<weak>[,.]\s|\s(?=(?:{words_of.STRONG}){_END}))",
    re.IGNORECASE,
)
"""What may stand before a dependency."""
_CLOSING = pattern(rf"\s?(?:[.,;]?(?P<close>[)\]}}])|(?P<strong>{_ARROW}|[;|:]\s?|{_DASH})|[.,;]?\s?\Z|(?P<comma>,\s))")
"""What may stand behind one; not each goes with each separator."""

_BETWEEN = pattern(rf"[\s,;.|/+&]+(?:(?:{words_of.AND}){_END}\s?)?|{_DASH}", re.IGNORECASE)
_AROUND = pattern(r"[\s\"'*_`]*")
_BEFORE = pattern(rf"(?:(?:{_ARROW})\s?)?(?:{words_of.BEFORE}){_END}\s?[:=]?\s?", re.IGNORECASE)
_BEHIND = pattern(rf"\s?(?:(?:{words_of.BEHIND}){_END}|{words_of.BEHIND_ALONE})", re.IGNORECASE)
_BEHIND_ALONE = pattern(rf"\s?(?:{words_of.BEHIND_ALONE})")
_ALL = pattern(
    rf"(?:{words_of.ALL}){_END}(?P<others>(?:[\s]?(?:{words_of.OTHERS}){_END}){{0,4}})|(?P<above>{words_of.ABOVE}){_END}",
    re.IGNORECASE,
)
_LAST = pattern(rf"(?:{words_of.LAST}){_END}", re.IGNORECASE)
_NONE = pattern(rf"(?:{words_of.NONE}){_END}", re.IGNORECASE)
_FREE = pattern(rf"(?:{words_of.FREE}){_END}", re.IGNORECASE)

_NUMBER = r"(?:\d{1,3}(?!\d|[.]\d|\s?[%°€$£])|[①-⑳])"
_WORDS = rf"\s?-?(?:{words_of.WORDS}){_END}"
_REFERENCE = pattern(
    rf"(?P<n>{_NUMBER})(?!{_WORDS})(?:\s?(?:{words_of.COUNTED}))?"
    rf"(?:\s?(?:[-–—−‐~〜]|\.{{2,3}}|…|(?:{words_of.TO}){_END})\s?(?:(?:{words_of.NOUNS})\s?)?[#№]?(?P<to>{_NUMBER})(?!{_WORDS})"
    rf"(?:\s?(?:{words_of.COUNTED}))?)?",
    re.IGNORECASE,
)
_BESIDE = pattern(rf"[\s,/+&#№]|(?:{words_of.AND}|{words_of.NOUNS}|{words_of.ARTICLES}){_END}", re.IGNORECASE)
"""What may stand before a number and between two."""
_MOST_BESIDE, _MOST_ALONE, _MOST_PARTS = 400, 40, 8
"""The most numbers and signs of a list of numbers behind a word and without one, and the most lists in a row.

All lists of a line then take linear time.
"""

_LONGEST_RANGE = 50
_LOOSE = pattern(r"(?<=[(\[{])\s|\s(?=[;,.)\]}])")
"""A space that is left beside a sign."""
_LEAST_WORDS = 10
"""Fewer words are no length of a point: "A slogan (3 words)"."""
_LENGTH = pattern(
    rf"(?:(?:{words_of.ROUGHLY})\s?){{0,2}}(?P<n>\d{{1,4}})(?:\s?(?:[-–—]|{words_of.TO})\s?(?P<to>\d{{1,4}}))?{_WORDS}",
    re.IGNORECASE,
)

_NOTE = pattern(
    r"[(（][^()（）]*[)）]|[\[【][^\[\]【】]*[\]】]|(?<!\w)\"[^\"]*\"|“[^“”]*”|„[^„“]*“|«[^«»]*»|「[^「」]*」|`[^`]*`"
    rf"|(?P<sign>\s?:(?=\s)|\s?：\s?|{_DASH}|\s\|\s|｜)"
)
"""A separator of title and note, or brackets and quotes, within which there is none."""
_IN_BRACKETS = pattern(r"(?:\s[(\[]|[（【])(?P<note>[^()\[\]（）【】]+)[)\]）】]\Z")
_LABEL = pattern(rf"(?:{words_of.LABELS})\s?[:：=]\s?", re.IGNORECASE)


# --- a line ---------------------------------------------------------------------------------------


def read_plan_line(title: str, planning: Planning, *, noted: bool = False) -> PlanLine:
    """A line of a plan, without its list mark.

    Args:
        title: The line as `clean_title` leaves it.
        planning: The kind of plan: `"titles"` takes the whole line as the title, and `"scoped"` takes what the point
            builds on out of the text without making anything of it.
        noted: Whether the note is known already, so that the line has none.

    Example:
        >>> read_plan_line("Which one to choose: price and comfort (after 1, 3)", "graph")[:3]
        ('Which one to choose', 'price and comfort', (1, 3))
    """
    if planning == "titles":
        return PlanLine(title)
    whole = " ".join(title.split())
    text, found = _without_parts(whole)
    name, scope = (clean_title(text), "") if noted else _split(text)
    if not name:
        return PlanLine(whole)
    if planning == "scoped":
        return PlanLine(name, scope, (), found.words)
    return PlanLine(name, scope, found.after, found.words, found.after_all, found.after_last)


def read_numbers(text: str) -> tuple[tuple[int, ...], bool]:
    """The numbers in the text of a field such as `after`, and whether it names all points: "1 and 3", "all", "#2"."""
    folded = _fold(" ".join(text.split()))
    start = before.end() if (before := _BEFORE.match(folded)) else 0
    if (every := _ALL.match(folded, start)) and every.end() == len(folded):
        return (), True
    numbers, end = _numbers(folded, start)
    return (tuple(dict.fromkeys(numbers)), False) if not folded[end:].strip(" .)]") else ((), False)


def is_length(words: object) -> TypeGuard[int]:
    """Whether a number of words may be the length of a point."""
    return isinstance(words, int) and words >= _LEAST_WORDS


def _without_label(note: str) -> str:
    """A note without a word such as "Covers:" before it."""
    label = _LABEL.match(note)
    return note[label.end() :] if label else note


def _fold(text: str) -> str:
    """The text in signs of ASCII, as long as before. Numbers in brackets of their own lose these: "after [1, 3]"."""
    return _NUMBERED.sub(
        lambda found: found[0].replace(found[0][0], " ").replace(found[0][-1], " "), text.translate(_SAME)
    )


# --- dependencies and lengths ---------------------------------------------------------------------


class _Parts(NamedTuple):
    """What one or several parts of a line say, such as "after 1, 3; 80 words"; `bare` is "after all" and no more."""

    end: int
    after: tuple[int, ...] = ()
    words: int | None = None
    after_all: bool = False
    after_last: bool = False
    bare: bool = False

    def __or__(self, other: _Parts) -> _Parts:
        """Both, with the end and the form of the other."""
        return _Parts(
            other.end,
            tuple(dict.fromkeys(self.after + other.after)),
            self.words or other.words,
            self.after_all or other.after_all,
            self.after_last or other.after_last,
            other.bare,
        )


def _without_parts(text: str) -> tuple[str, _Parts]:
    """The text without what it says of dependencies and length, and that."""
    folded = _fold(text)
    kept: list[str] = []
    at, total = 0, _Parts(0)
    for separator in _SEPARATOR.finditer(folded):
        if separator.start() < at or (read := _read_parts(folded, separator)) is None:
            continue
        parts, closing = read
        goes_on = closing["strong"] or closing["comma"]
        if separator["open"] and goes_on:
            kept.append(text[at : separator.end()])
        else:
            kept += text[at : separator.start()], " "
        at = parts.end if not separator["open"] and (closing["close"] or goes_on) else closing.end()
        total |= parts
    if not kept:
        return text, total
    return _LOOSE.sub("", " ".join("".join([*kept, text[at:]]).split())), total


def _read_parts(text: str, separator: re.Match[str]) -> tuple[_Parts, re.Match[str]] | None:
    """The parts behind a separator, as many as there are, and what ends them; None if there are none."""
    total, found, at = None, None, separator.end()
    for _ in range(_MOST_PARTS):
        part = _read_part(text, _end(_AROUND, text, at))
        if part is None:
            break
        total = part if total is None else total | part
        closing = _CLOSING.match(text, total.end)
        if closing and not (
            (closing["strong"] and separator["weak"])
            or (closing["comma"] and not separator["open"])
            or (total.bare and separator["dash"])
        ):
            found = total, closing
        if (between := _BETWEEN.match(text, total.end)) is None:
            break
        at = between.end()
    return found


def _read_part(text: str, at: int) -> _Parts | None:
    if length := _LENGTH.match(text, at):
        least, most = int(length["n"]), int(length["to"] or length["n"])
        return _Parts(length.end(), words=(least + most) // 2) if is_length(least) else None
    if free := _FREE.match(text, at):
        return _Parts(free.end())
    before = _BEFORE.match(text, at)
    if before is None:
        if text.isascii():
            return None
        numbers, end = _numbers(text, at, most=_MOST_ALONE)
        behind = _BEHIND_ALONE.match(text, end) if numbers else None
        if behind is None and (every := _ALL.match(text, at)) and (behind := _BEHIND_ALONE.match(text, every.end())):
            return _Parts(behind.end(), after_all=True)
        return _Parts(behind.end(), numbers) if behind else None
    if last := _LAST.match(text, before.end()):
        return _Parts(_end(_BEHIND, text, last.end()), after_last=True)
    if every := _ALL.match(text, before.end()):
        return _Parts(_end(_BEHIND, text, every.end()), after_all=True, bare=not (every["others"] or every["above"]))
    numbers, end = _numbers(text, before.end())
    if numbers:
        return _Parts(_end(_BEHIND, text, end), numbers)
    none = _NONE.match(text, before.end())
    return _Parts(none.end()) if none else None


def _end(of: re.Pattern[str], text: str, at: int) -> int:
    found = of.match(text, at)
    return found.end() if found else at


def _numbers(text: str, at: int, most: int = _MOST_BESIDE) -> tuple[tuple[int, ...], int]:
    """The numbers of a list such as "points 1, 3 and 5–7", and where it ends."""
    numbers: list[int] = []
    end = at
    for _ in range(most):
        if found := _REFERENCE.match(text, at):
            numbers += _range(found)
            at = end = found.end()
        elif beside := _BESIDE.match(text, at):
            at = beside.end()
        else:
            break
    return tuple(numbers), end


def _range(found: re.Match[str]) -> Iterator[int]:
    first, last = (
        int(unicodedata.numeric(n)) if len(n) == 1 else int(n) for n in (found["n"], found["to"] or found["n"])
    )
    yield from range(first, last + 1) if 0 <= last - first <= _LONGEST_RANGE else (first, last)


# --- the note -------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str, str]:
    """The title and the note of a line; "" for a line without a note."""
    first = next((at for at, sign in enumerate(text) if sign.isalnum()), len(text))
    for found in _NOTE.finditer(text):
        if found["sign"] and found.start() > first:
            name, note = clean_title(text[: found.start()]), clean_title(_without_label(text[found.end() :].lstrip()))
            if _says(name) and _says(note):
                return name, note
            break
    if (last := _in_brackets(text)) and _is_note(last["note"]):
        name, note = clean_title(text[: last.start()]), clean_title(_without_label(last["note"]))
        if _says(name) and note:
            return name, note
    return clean_title(text), ""


def _in_brackets(text: str) -> re.Match[str] | None:
    start = max(text.rfind(sign) for sign in "([（【")
    return _IN_BRACKETS.match(text, max(start - (start > 0 and text[start - 1].isspace()), 0)) if start > 0 else None


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))


def _is_note(text: str) -> bool:
    """Whether text in brackets is a note, unlike "(2020)", "(AI)" and "(part 1)"."""
    names = [word for word in text.split() if any(map(str.isalpha, word))]
    if len(names) == 1:
        return len(text) > 3 and not text.isupper() and text.isalpha()
    return len(names) > 1


# --- points that build on all others --------------------------------------------------------------

_ENDED = r"(?![^\W\d_])"
_SUM_FIRST = pattern(
    rf"(?:(?:{words_of.SUMMARIES['before']})\s+){{0,3}}(?:{words_of.SUMMARIES['first']}){_ENDED}", words_of.FLAGS
)
_SUM_LAST = pattern(rf"(?:\S+\s){{0,2}}(?:{words_of.SUMMARIES['last']})\Z", words_of.FLAGS)
_SUM_BEGINS = pattern(rf"(?:{words_of.SUMMARIES['within']})")
_ENDEDS = pattern(rf"(?:{words_of.SUMMARIES['within']})\Z")


def sums_up(title: str) -> bool:
    """Whether a title is that of a summary, conclusion, comparison or recommendation, in one of ten languages."""
    return bool(
        _SUM_FIRST.match(title) or _SUM_LAST.match(title) or _SUM_BEGINS.match(title) or _ENDEDS.search(title[-12:])
    )
