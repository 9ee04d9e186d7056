"""Where a text has a list: its items with their marks, and the words before and after it.

Marked lines, unmarked lines, paragraphs, quotations, and pieces between commas. Nothing here knows what a word means,
and every pattern is bounded, so that any text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

__all__ = [
    "ListInText",
    "inline_numbered",
    "lines_after",
    "lines_before",
    "marked",
    "named_row",
    "pieces",
    "quotations",
    "quoted",
    "split_row",
]


@dataclass(frozen=True)
class ListInText:
    """A list in a text.

    Attributes:
        lead: The words before the list.
        items: The items as the text has them, without marks and quotes.
        tail: The words after the list.
        kind: What separates the items: marks, lines, paragraphs, quotation marks, or commas.
        marks: Their marks; empty for a list without marks.
        loose: Whether blank lines stand between the items.
        inline: Whether the list stands within a line of the instruction.
    """

    lead: str
    items: tuple[str, ...]
    tail: str
    kind: str
    marks: tuple[str, ...] = ()
    loose: bool = False
    inline: bool = False


# --- marked lines ---------------------------------------------------------------------------------

_DENSE = "\u3001-\u30ff\u3400-\u9fff\uff01-\uffef"
_MARK = re.compile(
    r"(?P<indent>[ \t\u3000]{0,20})(?P<mark>"
    r"\*{0,2}[(\[（【]?(?:\d{1,3}|[A-Za-zа-яА-Я]|[一二三四五六七八九十]{1,3})[.)\]:．）】、：]\*{0,2}|"
    r"[①-⑳]|\\?[-*+•·‣◦▪●○・–—>→➤►▶➢✅✔☑❓❔⭐]\ufe0f?|#\d{1,3}[:.)：]?|\d{1,3} ?[-–—](?=\s)|"
    r"[\u2600-\u27bf\u2b00-\u2bff\U0001f300-\U0001faff]\ufe0f?|"
    r"(?P<label>[^\W\d_]{1,20}) ?(?:[#№º]|n[º°]\.?|nr\.?|no\.?)? ?\d{1,3}(?:[:.)：]| ?[-–—](?=\s)))"
    rf"(?:[ \t\u3000]+|(?<=[.．、：）】①-⑳・])(?=[{_DENSE}])|(?=$))"
)
_NUMBER = re.compile(r"\d+")
_HAN_DIGITS = "一二三四五六七八九十"
_MOST_LISTS = 3
"""The most lists of a text that are read."""


@dataclass
class _Line:
    """A marked line."""

    at: int
    indent: int
    mark: str
    style: str
    number: int | None
    rest: str


def _read(at: int, line: str) -> _Line | None:
    found = _MARK.match(line)
    if found is None:
        return None
    mark = found["mark"]
    digits = _NUMBER.search(mark)
    number: int | None = None
    if digits is not None:
        number, style = int(digits[0]), mark.replace(digits[0], "0")
    elif "①" <= mark <= "⑳":
        number, style = ord(mark) - ord("①") + 1, "①"
    elif (bare := mark.strip("*()[].:（）【】．、：")) and len(bare) == 1 and bare.isascii() and bare.isalpha():
        number, style = ord(bare.lower()) - ord("a") + 1, mark.replace(bare, "A" if bare.isupper() else "a")
    elif len(bare) == 1 and "а" <= bare.lower() <= "я":
        number, style = ord(bare.lower()) - ord("а") + 1, mark.replace(bare, "Я" if bare.isupper() else "я")
    elif bare and bare[-1] in _HAN_DIGITS:
        number = _HAN_DIGITS.index(bare[-1]) + 1 + (10 if len(bare) == 2 and bare[0] == "十" else 0)
        style = mark.replace(bare, "一")
    else:
        style = mark.lstrip("\\")
    return _Line(at, len(found["indent"].expandtabs(4)), mark, style, number, line[found.end() :])


def marked(text: str, is_part: Callable[[str], bool]) -> ListInText | None:
    """The one list of marked lines; None if there is none, or more than one.

    Args:
        text: The text.
        is_part: Whether a line introduces a list that belongs to the instruction, such as "Rules:".
    """
    lines = text.split("\n")
    heads = [head for at, line in enumerate(lines) if line and (head := _read(at, line)) is not None]
    runs = [run for run in _runs(heads) if len(run) > 1]
    if 1 < len(runs) <= _MOST_LISTS:
        runs = [run for run in runs if not is_part(_last_line(lines[: run[0].at]))]
    if len(runs) != 1:
        return None
    run = runs[0]
    numbers = [head.number for head in run]
    if numbers[0] is not None and any(b != (a or 0) + 1 for a, b in pairwise(n or 0 for n in numbers)):
        return None
    end = _end(lines, run)
    stops = [*(head.at for head in run[1:]), end]
    blocks = [[head.rest, *lines[head.at + 1 : stop]] for head, stop in zip(run, stops, strict=True)]
    items = tuple("\n".join(block).strip() for block in blocks)
    loose = any(block and not block[-1].strip() for block in blocks[:-1])
    return ListInText(
        "\n".join(lines[: run[0].at]).strip(),
        items,
        "\n".join(lines[end:]).strip(),
        "marked",
        tuple(head.mark for head in run),
        loose,
    )


def _runs(heads: Sequence[_Line]) -> list[list[_Line]]:
    """The lists on the top level: a line of another style belongs to the item before it if its list goes on."""
    runs: list[list[_Line]] = []
    last: dict[str, int] = {}
    for place, head in enumerate(heads):
        last[head.style] = place
    for place, head in enumerate(heads):
        if runs:
            run = runs[-1]
            follows = head.style == run[0].style and head.indent <= run[0].indent + 1
            if follows and (head.number is None or head.number == (run[-1].number or 0) + 1):
                run.append(head)
                continue
            if head.indent > run[0].indent + 1 or (not follows and last[run[0].style] > place):
                continue
        runs.append([head])
    return runs


def _end(lines: Sequence[str], run: Sequence[_Line]) -> int:
    """The line after the last item: it goes on as far as the others do."""
    at, base = run[-1].at, run[0].indent
    between = [lines[before.at + 1 : after.at] for before, after in pairwise(run)]
    several = any(line.strip() for block in between for line in block)
    apart = any(not a.strip() and b.strip() for block in between for a, b in pairwise(block))
    end, blank = at + 1, False
    for place in range(at + 1, len(lines)):
        line = lines[place]
        if not line.strip():
            blank = True
            continue
        indented = len(line) - len(line.lstrip()) > base + 1
        if not (indented or (apart if blank else several)):
            break
        end, blank = place + 1, False
    return end


def _last_line(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


_INLINE = re.compile(r"(?<![\w.,])(?P<mark>[(（]?(?:\d{1,2}|[a-z])[.)）])(?=\s|[^\x00-\x7f])")
_FIRST = re.compile(r"[1a][.)）]")


def inline_numbered(text: str) -> ListInText | None:
    """A numbered or lettered list within a line, up to its end: "(1) ... (2) ...". No sentence follows it."""
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if not _FIRST.search(line):
            continue
        run: list[re.Match[str]] = []
        for found in _INLINE.finditer(line):
            number = _number_of(found["mark"])
            if number == len(run) + 1 and (not run or _style(found["mark"]) == _style(run[0]["mark"])):
                run.append(found)
            elif number == 1:
                return None
        if len(run) < 2:
            continue
        stops = [*(found.start() for found in run[1:]), len(line)]
        items = tuple(line[a.end() : b].strip().rstrip(",;，；、").strip() for a, b in zip(run, stops, strict=True))
        if _SENTENCE_BREAK.search(items[-1]) and not any(map(_SENTENCE_BREAK.search, items[:-1])):
            return None
        items = tuple(re.sub(r"[,;]?\s(?:and|und|et|y|e|en|и)$", "", item) for item in items)
        lead = "\n".join([*lines[:at], line[: run[0].start()]]).strip()
        tail = "\n".join(lines[at + 1 :]).strip()
        return ListInText(lead, items, tail, "marked", tuple(found["mark"] for found in run), inline=True)
    return None


def _number_of(mark: str) -> int:
    bare = mark.strip("(（.)）")
    return int(bare) if bare.isdigit() else ord(bare) - ord("a") + 1


def _style(mark: str) -> str:
    return re.sub(r"\d+", "0", re.sub(r"[a-z]", "a", mark))


# --- lines and paragraphs -------------------------------------------------------------------------


_SENTENCE_BREAK = re.compile(r"[.!?]\s")
_LEAD_LINES, _FEWEST_LINES, _LINE = 3, 3, 160
"""Lines of an instruction, lines of it and its list, and characters of an item, where no blank line stands between."""


_CLOSING = re.compile(
    r"(?:many |kind |vielen |besten |herzlichen )?(?:thanks?|thx|cheers|ty|please|pls|danke?|merci|"
    r"s'il (?:te|vous) plaît|"
    r"(?:muchas )?gracias|por favor|grazie|per favore|obrigad[oa]|valeu|bedankt|dankjewel|alvast bedankt|спасибо|"
    r"заранее спасибо|谢谢|多谢|ありがとう|よろしく)[^:\n]{0,40}$",
    re.I,
)
"""A line that ends a request: "thanks a lot!"."""


def _blocks(text: str) -> list[list[str]]:
    """The paragraphs, each a list of lines."""
    blocks: list[list[str]] = [[]]
    for line in text.strip().split("\n"):
        if line.strip():
            blocks[-1].append(line.strip())
        elif blocks[-1]:
            blocks.append([])
    return blocks


def lines_after(
    text: str, instructs: Callable[[str], bool], speaks_of_items: Callable[[str], bool]
) -> ListInText | None:
    """Unmarked lines or paragraphs after a lead that ends with a colon, is a paragraph, or speaks of the items.

    Args:
        text: The text.
        instructs: Whether a paragraph after the list is one of the instruction.
        speaks_of_items: Whether a line says "each" or "these words", so that the lines after it may be those.
    """
    blocks = _blocks(text)
    colon = next((n for n, line in enumerate(blocks[0]) if line.endswith((":", "："))), None)
    if colon is None and len(blocks[0]) > _FEWEST_LINES and len(blocks) < 3:
        colon = next((n for n, line in enumerate(blocks[0][:_LEAD_LINES]) if speaks_of_items(line)), None)
        if colon is not None and max(map(len, blocks[0][colon + 1 :]), default=0) > _LINE:
            return None
    if colon is None and (len(blocks) == 1 or len(blocks[0]) > 1):
        return None
    cut = len(blocks[0]) if colon is None else colon + 1
    lead, rest = blocks[0][:cut], [block for block in (blocks[0][cut:], *blocks[1:]) if block]
    if colon is None and len(rest) > 1 and len(rest[0]) == 1 and rest[0][0].endswith((":", "：")):
        lead, rest = [*lead, *rest[0]], rest[1:]
    tail: list[str] = []
    if len(rest) > 1 and len(rest[-1]) == 1 and _CLOSING.match(rest[-1][0]):
        rest = rest[:-1]
    if len(rest) > 1 and len(rest[-1]) == 1 and instructs(rest[-1][0]):
        tail, rest = rest[-1], rest[:-1]
    return _of_blocks("\n".join(lead), rest, "\n".join(tail))


def lines_before(text: str, instructs: Callable[[str], bool]) -> ListInText | None:
    """Unmarked lines or paragraphs before an instruction that is the last paragraph."""
    blocks = _blocks(text)
    if len(blocks) < 2 or not instructs(" ".join(blocks[-1])):
        return None
    return _of_blocks("", blocks[:-1], "\n".join(blocks[-1]))


def _of_blocks(lead: str, blocks: Sequence[Sequence[str]], tail: str) -> ListInText | None:
    if len(blocks) == 1:
        return ListInText(lead, tuple(blocks[0]), tail, "lines")
    if len(blocks) > 1:
        kind = "lines" if all(len(block) == 1 for block in blocks) else "paragraphs"
        return ListInText(lead, tuple("\n".join(block) for block in blocks), tail, kind, loose=True)
    return None


# --- within a line --------------------------------------------------------------------------------

_QUOTE_MARKS = re.compile("[\"“„‚«»「『《'‘`]")
_MOST_QUOTES = 500
"""The most quotation marks of a text that is read for quotations."""
_AND = r"(?:and|or|und|oder|sowie|et|ou|y|o|e|ed|en|of|и|или|和|与|及|以及|と)"
_QUOTED = re.compile(
    r"\"(?P<a>[^\"\n]{1,1500})\"|“(?P<b>[^“”\n]{1,1500})”|[„‚](?P<c>[^„“”‚‘’\n]{1,1500})[“”‘’]|"
    r"«\s?(?P<d>[^«»\n]{1,1500}?)\s?»|»(?P<e>[^«»\n]{1,1500})«|「(?P<f>[^「」\n]{1,1500})」|"
    r"『(?P<g>[^『』\n]{1,1500})』|《(?P<h>[^《》\n]{1,1500})》|(?<!\w)'(?P<i>[^'\n]{1,300})'(?!\w)|"
    r"(?<!\w)‘(?P<j>[^‘’\n]{1,300})’(?!\w)|`(?P<k>[^`\n]{1,300})`"
)
_BETWEEN = re.compile(rf"[\s,;，、；/|]*(?:{_AND}(?![^\W\d_]))?\s*", re.I)


def quoted(text: str) -> ListInText | None:
    """The one row of quotations with only commas, line ends or an "and" between them."""
    if len(_QUOTE_MARKS.findall(text)) > _MOST_QUOTES:
        return None
    rows: list[list[re.Match[str]]] = []
    for found in _QUOTED.finditer(text):
        if rows:
            gap = text[rows[-1][-1].end() : found.start()]
            if len(gap) < 20 and _BETWEEN.fullmatch(gap):
                rows[-1].append(found)
                continue
        rows.append([found])
    rows = [row for row in rows if len(row) > 1]
    if len(rows) != 1:
        return None
    row = rows[0]
    lead, tail = text[: row[0].start()].strip(), text[row[-1].end() :].strip()
    gaps = [text[a.end() : b.start()] for a, b in pairwise(row)]
    items = tuple(str(found[found.lastgroup or 0]).strip() for found in row)
    loose = any(gap.count("\n") > 1 for gap in gaps)
    inline = all("\n" not in gap for gap in gaps)
    return ListInText(lead, items, tail, "quoted", loose=loose, inline=inline)


def quotations(text: str) -> list[tuple[int, int]]:
    """Where the quotations of a text begin and end."""
    return [found.span() for found in _QUOTED.finditer(text)]


_MOST_PIECES = 200
"""The most commas of a row."""
_SEMICOLON = re.compile(r"[;；]")
_COMMA = re.compile(r"[,，、]")
AND = {
    "en": "and|or",
    "de": "und|oder|sowie",
    "fr": "et|ou",
    "es": "y|e|o|u",
    "it": "ed?|oppure|o",
    "pt": "e|ou",
    "nl": "en|of",
    "ru": "и|или",
}
"""The words before the last item of a row."""
_LAST_DENSE = re.compile(r"(?:和|与|及|以及)")
_ENDS = re.compile(r"[.!?。！？]+(?=\s|$|[^\x00-\x7f])")


def pieces(text: str, language: str) -> ListInText | None:
    """The pieces between commas or semicolons after the last colon, up to the end of their sentence."""
    colon = max(map(text.rfind, ":："))
    if colon < 0:
        colon = max(map(text.rfind, "?？"))
    if colon < 0:
        return None
    body = text[colon + 1 :].strip()
    end = _ENDS.search(body)
    row, tail = (body, "") if end is None else (body[: end.start()], body[end.end() :].strip())
    if "\n" in row:
        row, _, after = row.partition("\n")
        tail = f"{after}{body[end.start() : end.end()] if end else ''} {tail}".strip()
    # "Tim: good, but noisy" is the last of several lines of that form.
    if sum(_NAMED_LINE.match(line) is not None for line in text[: colon + 2].split("\n")[1:]) > 1:
        return None
    if not 0 < sum(map(row.count, ",，、;；")) <= _MOST_PIECES or len(items := split_row(row, language)) < 2:
        return None
    # "Anna, 80" may be the first of several lines.
    if "\n" in body and len(items) < 3:
        return None
    return ListInText(text[: colon + 1].strip(), items, tail, "commas", inline=True)


_NAMED_LINE = re.compile(r"[^\W\d_][\w .]{0,24}[:：]\s?\S")
_NAME = r"[A-ZÀ-ÖØ-ÞА-ЯЁ][\w.'’&-]{0,30}(?: (?:(?:of|the|de|la|del|da|von|van) )?[A-ZÀ-ÖØ-ÞА-ЯЁ][\w.'’&-]{0,30}){0,3}"
_NAMES = re.compile(rf"{_NAME}(?:, {_NAME}){{0,19}},? {_AND} {_NAME}(?!\w)")
_ROW_TEXT = 600
"""Characters of the longest text that is read for a row of names."""
_OF = re.compile(
    r"\b(?:of|for|von|für|de|des|pour|di|per|para|por|van|voor|для|из|städte|länder|cities|countries|firms|companies)\s$",
    re.I,
)


_ROW_JA = re.compile(
    r"(?:(?<=[。！])|^)(?P<row>[^、。\n「」]{1,15}(?:、[^、。\n「」]{1,15}){2,15}?)の?(?:それぞれ|各々)(?:について|に関して)"
)


def named_row(text: str, language: str, eaches: Callable[[str, str], bool]) -> ListInText | None:
    """A row of names in the sentence of a text of one line, with "each" before or after: "for each of Rome and Oslo".

    Args:
        text: The text.
        language: Its language.
        eaches: Whether some words of a language say "each".
    """
    if len(text) > _ROW_TEXT or "\n" in text:
        return None
    if language == "ja":
        if (row := _ROW_JA.search(text)) is None:
            return None
        items = split_row(row["row"], language)
        return ListInText(text[: row.start()].strip(), items, text[row.end("row") :].strip(), "names", inline=True)
    if language not in AND:
        return None
    rows = [row for row in _NAMES.finditer(text) if len(split_row(row[0], language)) > 2]
    if len(rows) != 1:
        return None
    lead, tail = text[: rows[0].start()], text[rows[0].end() :]
    before, after = " ".join(lead.split()[-4:]), " ".join(tail.split()[:2])
    if not _OF.search(lead) or not (eaches(before, language) or eaches(after, language)):
        return None
    return ListInText(lead.strip(), split_row(rows[0][0], language), tail.strip(), "names", inline=True)


def split_row(row: str, language: str) -> tuple[str, ...]:
    """The pieces of a row: between semicolons if it has two, else between commas, the last after an "and"."""
    last_and = _last_and(language)
    parts = _SEMICOLON.split(row.strip())
    if len(parts) < 3:
        parts = _COMMA.split(row.strip())
        last = last_and.split(parts[-1])
        if len(last) == 1 and len(parts) > 1:
            last = _LAST_DENSE.split(parts[-1])
        if len(last) == 2:
            parts = [*parts[:-1], *last]
    elif (only := last_and.match(parts[-1])) is not None:
        parts[-1] = parts[-1][only.end() :]
    return tuple(_stripped(parts))


@cache
def _last_and(language: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|\s)(?:{AND.get(language, AND['en'])})\s", re.I)


def _stripped(parts: Iterable[str]) -> Iterable[str]:
    return (part.strip() for part in parts if part.strip())
