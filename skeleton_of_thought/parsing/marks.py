"""One line of a skeleton: its list mark, the titles on it, and the clean-up of a title.

All functions look at a single line and know nothing of the lines around it; `outline` decides which marks make points.
All patterns are anchored or bounded, so that a line of a megabyte takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from skeleton_of_thought.parsing.mark import Mark, pattern, replace_surrogates
from skeleton_of_thought.parsing.numerals import numeral_value
from skeleton_of_thought.parsing.signs import (
    BOLD_LEVEL,
    CJK_NUMBER,
    CJK_ORDINAL,
    DASHES,
    DOTS,
    ROUND,
    SIGNS,
    STEP,
    TWINS,
)
from skeleton_of_thought.parsing.special_tokens import MAY_BE_SPECIAL, drop_special_tokens

__all__ = [
    "Mark",
    "clean_title",
    "intro_list",
    "is_sentence",
    "is_weak",
    "names_section",
    "read_mark",
    "split_inline",
]

TITLE_LIMIT = 1000
"""The most characters of a title: far above any outline, low enough to be repeated in prompts."""


_INDENT = pattern(r"[\s>\u200b-\u200f\u2060\ufeff]*")
_HEADING = pattern(r"(#{1,6})(?:\s+|(?=[*_]{0,3}\d))")
_EMPHASIS = pattern(r"(\*{1,3}|_{1,3})(?=[^\s*_])")
_BOLD_LINE = pattern(r"(\*\*|__)(?=\S)([^*_]+)\1\s*[:：]?\s*")

_BULLET = pattern(rf"(?:([{DASHES}*+])(?:\s+|(?<=-)(?=[^\W\d_]))|([{DOTS}{SIGNS}])\ufe0f?\s*)")
_CHECKBOX = pattern(r"\[[ xX✓✔]?\]\s+")

_NUMBER = pattern(
    rf"""(?P<open>[(（\[【])?\s?(?P<n>\d{{1,4}})(?P<inner>[*_]{{0,3}})\\?
         (?:\s?(?P<close>[.．。﹒、)）\]】:：])|\s?(?P<slash>/)(?=\s)|\s*(?P<dash>[{DASHES}])(?=\s|$))""",
    re.VERBOSE,
)
_BRACKETS = "(（[【"
_STYLES = {"．": ".", "。": ".", "﹒": ".", "）": ")", "】": "]", "：": ":"}
_WEAK = frozenset(":-/#")

_DOTTED = pattern(r"(?P<w>\d{1,3}(?:[.．]\d{1,3}){1,5})(?P<d>[.．)）、:：]?)(?![\d.])")
_DOTTED_LETTER = pattern(r"\d{1,3}[.\-]?[A-Za-z][.)](?=\s)")
_SHARP = pattern(r"(?:\#|№\s?|[Nn][or]\.\s?)(?P<n>\d{1,3})(?P<inner>[*_]{0,3})(?:[.:：)](?!\d)|(?=\s|$))")

_CJK_NUMBER = pattern(CJK_NUMBER)
_CJK_ORDINAL = pattern(CJK_ORDINAL)
_CIRCLED = pattern(rf"(?P<n>[{ROUND}])\s?[.、:：)]?")
_KEYCAP = pattern("(?P<n>[0-9])\ufe0f?\u20e3\\s?[.:)]?")
_KEYCAP_TEN = pattern("🔟\\s?[.:)]?")

_STEP = pattern(STEP, re.VERBOSE | re.IGNORECASE)

_ALPHA = pattern(r"(?P<open>[(（])?(?P<w>[A-Za-z]|[IVXLC]{1,6}|[ivxlc]{1,6})[*_]{0,3}\\?(?P<d>[.)）])[*_]{0,3}(?=\s)")


def read_mark(line: str) -> Mark | None:
    """The list mark at the start of `line`, or None for prose, blank lines and horizontal rules."""
    return _read_short(line) if len(line) <= _SHORT else _read_mark(line)


def _read_mark(line: str) -> Mark | None:
    indent, body = _unindent(line)
    if not body.strip("-*_=~# \t"):
        return None
    level = 0
    if sharp := _HEADING.match(body):
        if numbered := _SHARP.match(body):
            n = int(numbered["n"])
            return _number("#", n, numbered, Mark("number", "#", n, "", indent, 0, body))
        level, body = len(sharp[1]), body[sharp.end() :].rstrip().rstrip("#")
    elif bullet := _BULLET.match(body):
        return _bullet(bullet[1] or bullet[2], body[bullet.end() :], indent)
    mark = _emphasised_mark(body, indent, level)
    if mark is None:
        from skeleton_of_thought.parsing.rare_marks import rare_mark

        mark = rare_mark(body, indent, level)
    if mark or level:
        return mark or Mark("heading", "heading", 0, "", indent, level, body)
    if bold := _BOLD_LINE.fullmatch(body):
        return Mark("heading", "heading", 0, "", indent, BOLD_LEVEL, bold[2])
    return None


# A model that loops writes the same short lines over and over.
_SHORT = 80
_read_short = lru_cache(maxsize=256)(_read_mark)


def _unindent(line: str) -> tuple[int, str]:
    found = _INDENT.match(line)
    end = found.end() if found else 0
    return len(line[:end].expandtabs(4)), line[end:]


def _bullet(sign: str, rest: str, indent: int) -> Mark:
    if box := _CHECKBOX.match(rest):
        rest = rest[box.end() :]
    inner = _emphasised_mark(rest, indent, 0)
    if inner and inner.kind == "number" and not is_weak(inner) and inner.number <= 99:
        return inner._replace(style="bullet " + inner.style)
    style = "-" if sign in DASHES else "•" if sign in DOTS else sign.translate(TWINS)
    return Mark("bullet", style, 0, "", indent, 0, rest)


def _emphasised_mark(body: str, indent: int, level: int) -> Mark | None:
    opened = ""
    if emphasis := _EMPHASIS.match(body):
        opened, body = emphasis[1], body[emphasis.end() :]
    return _bare_mark(body, indent, level, opened)


def _bare_mark(body: str, indent: int, level: int, opened: str) -> Mark | None:
    """The mark at the very start of `body`, a line without its indent, heading and emphasis."""
    digit = body[:1].isdecimal()
    if digit and (dotted := _DOTTED.match(body)):
        rest = body[dotted.end() :]
        if dotted["d"] or not rest or rest[0] in " \t*_":
            last = int(re.split(r"[.．]", dotted["w"])[-1])
            return Mark("dotted", dotted["d"], last, dotted["w"], indent, level, *_closed(rest, opened))
    if digit and (letter := _DOTTED_LETTER.match(body)):
        rest = body[letter.end() :]
        return Mark("dotted", "letter", 0, letter[0], indent, level, *_closed(rest, opened))
    if number := _number_mark(body):
        style, value, found = number
        return _number(style, value, found, Mark("number", style, value, "", indent, level, body, opened))
    if alpha := _ALPHA.match(body):
        return _alpha(alpha, Mark("alpha", "", 0, alpha["w"], indent, level, body[alpha.end() :], opened))
    return None


def _number_mark(body: str) -> tuple[str, int, re.Match[str]] | None:
    """Style, value and match of the number at the start of `body`."""
    start = body[:1]
    if start.isdecimal() or start in _BRACKETS:
        if (found := _NUMBER.match(body)) and (style := _number_style(found, body)):
            return style, int(found["n"]), found
        if found := _KEYCAP.match(body):
            return "keycap", int(found["n"]), found
    if found := _STEP.match(body):
        return f"step {found['w'].lower()}", numeral_value(found["n"]), found
    if found := _SHARP.match(body):
        return "#", int(found["n"]), found
    return None if start.isascii() and start != "(" else _sign_mark(body)


def _sign_mark(body: str) -> tuple[str, int, re.Match[str]] | None:
    """Like `_number_mark`, for numbers in signs such as ① and in CJK numerals."""
    if found := _CIRCLED.match(body):
        return "circled", int(unicodedata.numeric(found["n"])), found
    if found := _KEYCAP_TEN.match(body):
        return "keycap", 10, found
    if found := _CJK_NUMBER.match(body):
        return "一" if found["n"] else "(一)", numeral_value(found["n"] or found["m"]), found
    if found := _CJK_ORDINAL.match(body):
        return "第", numeral_value(found["n"]), found
    return None


def _alpha(found: re.Match[str], mark: Mark) -> Mark | None:
    if not mark.rest.strip() or (found["open"] and found["d"] == "."):
        return None
    style = ("(" if found["open"] else "") + _STYLES.get(found["d"], found["d"])
    rest, opened = _closed(mark.rest, mark.opened)
    return mark._replace(style=("A" if mark.word.isupper() else "a") + style, rest=rest, opened=opened)


def _number_style(found: re.Match[str], body: str) -> str | None:
    """The style of a number with its delimiter, or None if the text only looks like a list number."""
    after = body[found.end() : found.end() + 2]
    if found["dash"]:
        return None if found["open"] or body[found.end() :].lstrip()[:1].isdigit() else "-"
    if found["slash"]:
        return None if found["open"] else "/"
    close = _STYLES.get(found["close"], found["close"])
    if found["open"]:
        pair = {"(": ")", "（": ")", "[": "]", "【": "]"}[found["open"]]
        if close != pair or (pair == "]" and after[:1] == "("):  # "[1](https://...)" is a link
            return None
        return "[]" if pair == "]" else "()"
    if close == "]" or (close in ".:" and (after[:1].isdigit() or after[:1] in (".", "º", "ª", "°"))):
        return None
    return close


def _number(style: str, n: int, found: re.Match[str], mark: Mark) -> Mark:
    """`mark` without the number, with which its `rest` still begins."""
    rest, opened = mark.rest[found.end() :], mark.opened
    if style in (".", ")", "()", "[]") and rest[:1] in (")", ".", ":", "：") and not rest[1:2].strip("*_ "):
        rest = rest[1:]  # "1.) Title", "(1): Title"
    if opened and "inner" in found.re.groupindex and found["inner"] == opened:
        opened = ""
    rest, opened = _closed(rest, opened)
    # A prefilled "1." that the model repeats: "1. 1. Title", "1.**1. Title**".
    if style in (".", ")") and (echo := _without_echo(rest, n)):
        rest, opened = echo
    return mark._replace(style=style + ("b" if opened else ""), rest=rest, opened=opened)


def _closed(rest: str, opened: str) -> tuple[str, str]:
    """`rest` and `opened` behind an emphasis that closes right after the mark: `**1.** Title`."""
    if opened and rest.startswith(opened):
        return rest[len(opened) :], ""
    return rest, opened


def _without_echo(rest: str, n: int) -> tuple[str, str] | None:
    rest = rest.lstrip()
    opened = ""
    if emphasis := _EMPHASIS.match(rest):
        opened, rest = emphasis[1], rest[emphasis.end() :]
    found = _NUMBER.match(rest)
    if not found or int(found["n"]) != n or _number_style(found, rest) not in (".", ")", "()"):
        return None
    return _closed(rest[found.end() :], opened)


def plain_style(mark: Mark) -> str:
    """The style of a number without a bullet before it and without bold type."""
    return mark.style.removeprefix("bullet ").removesuffix("b")


def is_weak(mark: Mark) -> bool:
    """Whether the mark also occurs in prose, as in "7 - Eleven": such a list has to begin with its first number."""
    return plain_style(mark) in _WEAK


def names_section(mark: Mark) -> bool:
    """Whether the mark is a word with a number, such as "Section 1:" and 第一部分."""
    style = plain_style(mark)
    return style.startswith("step ") or style in ("第", "counter")


def is_sentence(mark: Mark) -> bool:
    """Whether a letter with a dot begins a sentence: "A. Smith writes about plums.", "I. think"."""
    words = mark.rest.split(None, 4)
    if mark.style != "A.":
        return False
    return words[0][0].islower() or (len(words) > 3 and mark.rest.rstrip().endswith("."))


# --- several points on one line -------------------------------------------------------------------

_EDGE = r"(?:(?<=\s)|(?<=[；;，,。>\u3040-\u30ff\u4e00-\u9fff]))(?:\*\*|__)?"
_INLINE = {
    ".": pattern(_EDGE + r"(?P<n>\d{1,3})[.．](?![\d.])(?:\*\*|__)?"),
    ")": pattern(_EDGE + r"(?P<n>\d{1,3})\.?[)）](?:\*\*|__)?"),
    "()": pattern(_EDGE + r"[(（](?P<n>\d{1,3})[)）](?:\*\*|__)?"),
    "、": pattern(_EDGE + r"(?P<n>\d{1,3})、"),
    "step": pattern(_EDGE + r"(?:step|point|步骤|ステップ)\s?(?P<n>\d{1,3})\s?[:：](?:\*\*|__)?", re.IGNORECASE),
    "circled": pattern(rf"(?P<n>[{ROUND}])"),
}
_INTRO = pattern(r"[:：][*_]{0,3}\s{0,9}(?=(?:\*\*|__)?[(（]?[1１][.．)）、](?!\d))")
_LAST_AND = pattern(r"[,，;]\s+(?:and|y|et|und|e|и)\s*$")


def split_inline(mark: Mark, first: bool) -> list[tuple[int, str]]:
    """The numbers and raw titles on the line of a number mark: "1. a 2. b 3. c" holds three.

    A number inside a title splits it only if it continues the sequence in the same style. The case of the next letter
    shows a number that continues it by chance ("1. Rule 2. of thermodynamics"). Two marks are enough only on a line
    that is likely to hold several points.

    Args:
        mark: The mark at the start of the line.
        first: Whether the line is the first of its list, or follows a line that was split.
    """
    whole = [(mark.number, mark.rest)]
    style = plain_style(mark)
    marks = _INLINE.get("step" if style.startswith("step ") else style)
    if marks is None or len(mark.rest) < 3:
        return whole
    text = mark.rest
    head = text.lstrip("*_ \t")[:1]
    pieces: list[tuple[int, str]] = []
    start, number, doubtful = 0, mark.number, False
    for found in marks.finditer(text):
        after = text[found.end() : found.end() + 8].lstrip("*_ \t")[:1]
        value = unicodedata.numeric(found["n"]) if len(found["n"]) == 1 else int(found["n"])
        if value != number + 1 or (after.isdigit() and not head.isdigit()):
            continue
        before = text[: found.start()][-8:].rstrip()[-1:] if not pieces else ""
        doubtful = doubtful or (after.islower() and not head.islower()) or before in set("+-−×*/=<≈&")
        pieces.append((number, text[start : found.start()]))
        start, number = found.end(), number + 1
    if not pieces:
        return whole
    pieces.append((number, text[start:]))
    if len(pieces) == 2 and (doubtful or not first or not clean_title(pieces[1][1])):
        return whole
    return [(n, _LAST_AND.sub("", raw[: TITLE_LIMIT * 4])) for n, raw in pieces]


def intro_list(line: str) -> Mark | None:
    """The first mark of a list that begins behind a colon: "The points are: 1. a 2. b"."""
    found = _INTRO.search(line)
    if not found:
        return None
    mark = read_mark(line[found.end() :])
    if mark is None or mark.kind != "number" or not clean_title(mark.rest, mark.opened):
        return None
    return mark._replace(indent=_unindent(line)[0])


# --- titles ---------------------------------------------------------------------------------------

_TOKENS = pattern(r"`[^`]*`|\*+|_+")
_INVISIBLE = dict.fromkeys((*range(9), *range(14, 28), *range(127, 133), *range(134, 160), 0x200B, 0x2060, 0xFEFF))
_LINE_BREAK = pattern(r"<br ?/?>")
_LEADING = pattern(rf"(?:[{DASHES}*+]\s+|[{DOTS}{SIGNS}]\ufe0f?\s*|#{{1,6}}\s+)")
_ABBREVIATION = pattern(r"(?:^|[\s(])(?:[^\W\d_]\.){2,}$")


def clean_title(raw: str, opened: str = "") -> str:
    """The words of a title: no list or emphasis marks, no special tokens, single spaces, no closing punctuation.

    Code in backticks, `?`, `!`, an ellipsis and the last dot of "U.S." stay. Returns "" if only punctuation is left.

    Args:
        raw: The text after the list mark on its line.
        opened: Emphasis that opens before the list mark and closes in `raw`.
    """
    return _clean_short(raw, opened) if len(raw) <= _SHORT else _clean_title(raw, opened)


def _clean_title(raw: str, opened: str) -> str:
    text = _LINE_BREAK.sub(" ", raw.lstrip()[: TITLE_LIMIT * 4].translate(_INVISIBLE))
    text = replace_surrogates(" ".join(text.split()))
    while True:
        if leading := _LEADING.match(text):
            text = text[leading.end() :]
        text = _without_emphasis(text, opened)
        # Emphasis may have stood within a special token, and other marks behind one that leaked from a server.
        if not MAY_BE_SPECIAL.search(text) or (kept := drop_special_tokens(text)) == text:
            break
        text, opened = " ".join(kept.split()), ""
    if len(text) > TITLE_LIMIT:
        text = text[:TITLE_LIMIT].rpartition(" ")[0] or text[:TITLE_LIMIT]
    while text and _is_closing(text):
        text = text[:-1].rstrip()
    has_words = any(map(str.isalnum, text)) or any(unicodedata.category(c)[0] == "S" for c in text)
    return text if has_words else ""


_clean_short = lru_cache(maxsize=256)(_clean_title)


def _without_emphasis(text: str, opened: str) -> str:
    """`text` without the pairs of `*` and `_` runs around emphasis. Code keeps them."""
    if "*" not in text and "_" not in text:
        return text
    drop: list[tuple[int, int]] = []
    waiting: dict[str, list[tuple[int, int]]] = {opened: [(0, 0)]} if opened else {}
    for token in _TOKENS.finditer(text):
        run, (start, end) = token[0], token.span()
        if run[0] == "`" or len(run) > 3:
            continue
        before, after = text[start - 1 : start] if start else "", text[end : end + 1]
        # Within a word only ** is emphasis (Chinese needs it), unlike snake_case and 2*3*4.
        inside_ok = run[:2] == "**"
        closes = bool(before.strip()) and (inside_ok or not after.isalnum())
        opens = bool(after.strip()) and (inside_ok or not before.isalnum())
        if closes and waiting.get(run):
            drop += [waiting[run].pop(), (start, end)]
        elif opens:
            waiting.setdefault(run, []).append((start, end))
    # The first half of a pair whose other half is gone with a cut line or with the list mark.
    for run in ("***", "**", "__"):
        drop += [span for span in waiting.get(run, []) if span[0] == 0]
    kept, at = [], 0
    for start, end in sorted(drop):
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    text = "".join(kept).strip()
    return text[:-2].rstrip() if text.endswith("**") and len(text.strip("*")) > 0 else text


def _is_closing(text: str) -> bool:
    last = text[-1]
    if last == ".":
        return not text.endswith("..") and not _ABBREVIATION.search(text[-12:])
    return last in ":;,。；：，、" or (last in DASHES and text[-2:-1].isspace())
