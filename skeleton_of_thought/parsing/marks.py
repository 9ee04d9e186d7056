"""One line of a skeleton: its list mark, the titles on it, and the clean-up of a title.

All functions look at a single line and know nothing of the lines around it; `outline` decides which marks make points.
All patterns are anchored or bounded, so that a line of a megabyte takes linear time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

__all__ = ["Mark", "clean_title", "intro_list", "is_weak", "read_mark", "roman_value", "split_inline"]

MarkKind = Literal["number", "dotted", "alpha", "bullet", "heading"]

TITLE_LIMIT = 1000
"""The most characters of a title: far above any outline, low enough to be repeated in prompts."""

BOLD_LEVEL = 7
"""The heading level of a line that is bold as a whole: deeper than the six levels of Markdown."""


class Mark(NamedTuple):
    """A list mark and the rest of its line.

    Attributes:
        kind: The family: `1.`, `Step 1:`, `①`, `一、` are numbers; `1.1` is dotted; `a)`, `IV.` alpha.
        style: The common feature of the marks of one list, such as `"."`, `"()"`, `"step"` or the bullet.
        number: The value of a number, the last component of a dotted number, else 0.
        word: The letters of an alpha mark, or the whole dotted number.
        indent: Columns before the mark.
        level: Heading level of the line, 0 for none.
        rest: The text after the mark, not yet cleaned.
        opened: Emphasis that opens before the mark and closes somewhere in `rest`.
    """

    kind: MarkKind
    style: str
    number: int
    word: str
    indent: int
    level: int
    rest: str
    opened: str = ""


class _Pattern:
    """A regular expression that is compiled at its first use: compiling all takes longer than the whole import."""

    def __init__(self, text: str, flags: re.RegexFlag | int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        # Python calls this for attributes that the object lacks: once for each method of the pattern.
        found = self.__dict__[name] = getattr(re.compile(self._text, self._flags), name)
        return found


def _pattern(text: str, flags: re.RegexFlag | int = 0) -> re.Pattern[str]:
    return cast("re.Pattern[str]", _Pattern(text, flags))


_INDENT = _pattern(r"[\s>\u200b-\u200f\u2060\ufeff]*")
_HEADING = _pattern(r"(#{1,6})(?:\s+|(?=[*_]{0,3}\d))")
_EMPHASIS = _pattern(r"(\*{1,3}|_{1,3})(?=[^\s*_])")
_BOLD_LINE = _pattern(r"(\*\*|__)(?=\S)([^*_]+)\1\s*[:：]?\s*")

_DASHES = "-–—‐‑−"
_DOTS = "•●∙⦁·・‧"
_SIGNS = "◦○■□▪▫►▶▸‣⁃➢➤➔→⇒✓✔☑✅★☆⭐◆◇❖🔹🔸🔷🔶👉"
_BULLET = _pattern(rf"(?:([{_DASHES}*+])(?:\s+|(?<=-)(?=[^\W\d_]))|([{_DOTS}{_SIGNS}])\ufe0f?\s*)")
_CHECKBOX = _pattern(r"\[[ xX✓✔]?\]\s+")

_NUMBER = _pattern(
    rf"""(?P<open>[(（\[【])?\s?(?P<n>\d{{1,4}})(?P<inner>[*_]{{0,3}})\\?
         (?:\s?(?P<close>[.．。﹒、)）\]】:：])|\s?(?P<slash>/)(?=\s)|\s*(?P<dash>[{_DASHES}])(?=\s|$))""",
    re.VERBOSE,
)
_BRACKETS = "(（[【"
_STYLES = {"．": ".", "。": ".", "﹒": ".", "）": ")", "】": "]", "：": ":"}
_WEAK = frozenset(":-/#")

_DOTTED = _pattern(r"(?P<w>\d{1,3}(?:[.．]\d{1,3}){1,5})(?P<d>[.．)）、:：]?)(?![\d.])")
_DOTTED_LETTER = _pattern(r"\d{1,3}[.\-]?[A-Za-z][.)](?=\s)")
_SHARP = _pattern(r"(?:\#|№\s?|[Nn][or]\.\s?)(?P<n>\d{1,3})(?P<inner>[*_]{0,3})(?:[.:：)](?!\d)|(?=\s|$))")

_CJK = "[一二三四五六七八九十]{1,3}"
_CJK_NUMBER = _pattern(rf"(?:(?P<n>{_CJK})[、．.:：]|[(（](?P<m>{_CJK})[)）][、:：]?)")
_CJK_ORDINAL = _pattern(
    rf"第\s?(?P<n>\d{{1,3}}|{_CJK})\s?(?:部分|[点點步章节節条條项項個个段])?[*_]{{0,3}}(?:[、，,：:．.]|\s|$)"
)
_ROUND = "①-⑳⑴-⒇⒈-⒛⓪-⓿❶-❿➀-➓㈠-㈩㊀-㊉"
_CIRCLED = _pattern(rf"(?P<n>[{_ROUND}])\s?[.、:：)]?")
_KEYCAP = _pattern("(?P<n>[0-9])\ufe0f?\u20e3\\s?[.:)]?")
_KEYCAP_TEN = _pattern("🔟\\s?[.:)]?")

_WORDS = (
    "step|point|key point|main point|part|section|chapter|tip|phase|stage|idea|item|reason|rule|topic"
    "|paragraph|argument|aspect|factor|strategy|method|day|week|lesson|principle|question|option|example|benefit|myth"
    "|fact|habit|way|task|trick|mistake|theme|bullet|goal|action|element|pillar|number"
    "|paso|punto|passo|ponto|parte|étape|etape|partie|schritt|punkt|teil|stap|krok|adım|langkah"
    "|шаг|пункт|этап|часть|步骤|步驟|要点|要點|ステップ|ポイント|단계|चरण|बिंदु|الخطوة|خطوة|نقطة"
)
_ENGLISH = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNT = {w: i for i, w in enumerate(_ENGLISH, 1)}
_STEP = _pattern(
    rf"""(?P<w>{_WORDS.replace(" ", r"[ ]")})\s?[#№]?(?P<n>\d{{1,3}}|{_CJK}|(?<=\s)(?:{"|".join(_COUNT)}|[IVX]{{1,5}}))
         (?P<inner>[*_]{{0,3}})(?:\s?[:：.．)、](?!\d)|\s*[{_DASHES}](?=\s)|\s*$)""",
    re.VERBOSE | re.IGNORECASE,
)

_ALPHA = _pattern(r"(?P<open>[(（])?(?P<w>[A-Za-z]|[IVXLC]{1,6}|[ivxlc]{1,6})[*_]{0,3}\\?(?P<d>[.)）])[*_]{0,3}(?=\s)")
_ROMAN = _pattern(r"(X{0,3})(IX|IV|V?I{0,3})", re.IGNORECASE)


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
    style = "-" if sign in _DASHES else "•" if sign in _DOTS else sign
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
        return f"step {found['w'].lower()}", _value(found["n"]), found
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
        return "一" if found["n"] else "(一)", _value(found["n"] or found["m"]), found
    if found := _CJK_ORDINAL.match(body):
        return "第", _value(found["n"]), found
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
    if close == "]" or (close in ".:" and (after[:1].isdigit() or after[:1] == ".")):
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


def _value(digits: str) -> int:
    """The value of a number written as digits of any script, a CJK numeral up to 99 or an English word."""
    if digits.isdecimal():
        return int(digits)
    if word := _COUNT.get(digits.lower()):
        return word
    if digits.isascii():
        return roman_value(digits)
    tens, ten, ones = digits.partition("十")
    signs = "一二三四五六七八九"
    unit = signs.find((ones or tens)[-1:]) + 1 if (ones or not ten) else 0
    return unit if not ten else (signs.find(tens[-1:]) + 1 if tens else 1) * 10 + unit


def plain_style(mark: Mark) -> str:
    """The style of a number without a bullet before it and without bold type."""
    return mark.style.removeprefix("bullet ").removesuffix("b")


def is_weak(mark: Mark) -> bool:
    """Whether the mark also occurs in prose, as in "7 - Eleven": such a list has to begin with its first number."""
    return plain_style(mark) in _WEAK


def roman_value(word: str) -> int:
    """The value of a Roman numeral below 40, or 0 for any other word."""
    found = _ROMAN.fullmatch(word)
    if not found:
        return 0
    ones = {"IX": 9, "IV": 4}.get(found[2].upper())
    if ones is None:
        ones = len(found[2]) + (4 if found[2][:1].upper() == "V" else 0)
    return 10 * len(found[1]) + ones


# --- several points on one line -------------------------------------------------------------------

_EDGE = r"(?:(?<=\s)|(?<=[；;，,。>\u3040-\u30ff\u4e00-\u9fff]))(?:\*\*|__)?"
_INLINE = {
    ".": _pattern(_EDGE + r"(?P<n>\d{1,3})[.．](?![\d.])(?:\*\*|__)?"),
    ")": _pattern(_EDGE + r"(?P<n>\d{1,3})\.?[)）](?:\*\*|__)?"),
    "()": _pattern(_EDGE + r"[(（](?P<n>\d{1,3})[)）](?:\*\*|__)?"),
    "、": _pattern(_EDGE + r"(?P<n>\d{1,3})、"),
    "step": _pattern(_EDGE + r"(?:step|point|步骤|ステップ)\s?(?P<n>\d{1,3})\s?[:：](?:\*\*|__)?", re.IGNORECASE),
    "circled": _pattern(rf"(?P<n>[{_ROUND}])"),
}
_INTRO = _pattern(r"[:：][*_]{0,3}\s{0,9}(?=(?:\*\*|__)?[(（]?[1１][.．)）、](?!\d))")
_LAST_AND = _pattern(r"[,，;]\s+(?:and|y|et|und|e|и)\s*$")


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
    pattern = _INLINE.get("step" if style.startswith("step ") else style)
    if pattern is None or len(mark.rest) < 3:
        return whole
    text = mark.rest
    head = text.lstrip("*_ \t")[:1]
    pieces: list[tuple[int, str]] = []
    start, number, doubtful = 0, mark.number, False
    for found in pattern.finditer(text):
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

_TOKENS = _pattern(r"`[^`]*`|\*+|_+")
_INVISIBLE = dict.fromkeys((*range(9), *range(14, 28), *range(127, 133), *range(134, 160), 0x200B, 0x2060, 0xFEFF))
# End-of-turn tokens, which leak from some servers, and line breaks in HTML.
_LEAKED = _pattern(r"<(?:\|[\w ]{1,30}\||/s|eos|end_of_turn|br ?/?)>")
_SURROGATE = _pattern(r"[\ud800-\udfff]")
_LEADING = _pattern(rf"(?:[{_DASHES}*+]\s+|[{_DOTS}{_SIGNS}]\ufe0f?\s*|#{{1,6}}\s+)")
_ABBREVIATION = _pattern(r"(?:^|[\s(])(?:[^\W\d_]\.){2,}$")


def clean_title(raw: str, opened: str = "") -> str:
    """The words of a title: no list or emphasis marks, one space between words, no closing punctuation.

    Code in backticks, `?`, `!`, an ellipsis and the last dot of "U.S." stay. Returns "" if only punctuation is left.

    Args:
        raw: The text after the list mark on its line.
        opened: Emphasis that opens before the list mark and closes in `raw`.
    """
    return _clean_short(raw, opened) if len(raw) <= _SHORT else _clean_title(raw, opened)


def _clean_title(raw: str, opened: str) -> str:
    text = _LEAKED.sub(" ", raw.lstrip()[: TITLE_LIMIT * 4]).translate(_INVISIBLE)
    text = _SURROGATE.sub("\ufffd", " ".join(text.split()))
    if leading := _LEADING.match(text):
        text = text[leading.end() :]
    text = _without_emphasis(text, opened)
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
    return last in ":;,。；：，、" or (last in _DASHES and text[-2:-1].isspace())
