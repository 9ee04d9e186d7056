"""Answers without the marks of their form, so that a judge compares what two answers say.

Judges prefer lists, headings and bold words. `plain` takes these away from any answer: what was a list, a table or a
section becomes sentences in paragraphs. `marks` counts them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from skeleton_of_thought.parsing.signs import DASHES, DOTS, ROUND, SIGNS
from skeleton_of_thought.text.words import DENSE

__all__ = ["Marks", "marks", "plain"]

_FENCE = re.compile(r"[ \t>]*(?:[-*+][ \t]+|\d{1,3}[.)][ \t]+)?(`{3,}|~{3,})[ \t]*([^`\s]*)[^`]*")
_TEXT_FENCES = frozenset(["markdown", "md", "text", "txt", "plain", "plaintext"])
"""Languages of fences around an answer that is no code."""

_RULE_SIGNS = " \t|:-*_=~#>+"
_QUOTE = re.compile(r">\s?")
_HEADING = re.compile(r"#{1,6}\s+")
_CLOSING = re.compile(r"\s#{1,6}$")
_ITEM = re.compile(
    rf"""[{DASHES}*+]\s+(?:\[[ xX✓✔]?\]\s+)?
      | [{DOTS}{SIGNS}]\ufe0f?\s*
      | [{ROUND}]\s?[.、:：)]?\s*
      | (?:\d\ufe0f?\u20e3|🔟)\s?[.:)]?\s*
      | [(（\[]\d{{1,3}}(?:[)）]|\][.)]?)\s+
      | \d{{1,3}}(?:[.)]\s+|[、．）]\s*)
      | \d{{1,2}}(?:\.\d{{1,2}}){{1,3}}[.)]?\s+(?=[^\W\d_])
      | \(?(?:[a-z]|[ivx]{{2,5}})\)\s+
      | [A-Z]\)\s+""",
    re.VERBOSE,
)
_STRAY_FENCE = re.compile(r"(?:`{3,}|~{3,})(?=[^`]*$)\s*")
_BARE_NUMBER = re.compile(r"\(?\d{1,3}[.)]")
_BOLD_LINE = re.compile(r"(\*\*|__)[^*_\n]{1,120}\1[ \t]*[:：]?")
_LONGEST_LEAD = 120
_SENTENCE_END = ".!?…:;,。！？：；，、"
_AFTER_END = "\"'”’»)]}）】」』*_`"
_DENSE = re.compile(f"[{DENSE}]")
_TOKEN = re.compile(r"`+|[*_]+")
_DELIMITER_ROW = re.compile(r"[\s>]*\|?\s*:?-+:?\s*(?:\|\s*:?-*:?\s*)+")


def plain(text: str) -> str:
    """The text as plain paragraphs: no list marks, numbers, headings, bold or tables; code in fences stays as it is.

    Items become sentences; those of a list without blank lines become one paragraph. A title leads the paragraph below
    it, as in "Title: text". The rows of a table are sentences of its cells. The function is idempotent, and the time is
    linear in the text. A text of marks alone is returned as it is.

    Example:
        >>> plain("# Sleep\\n1. **Light**: dim it\\n2. **Noise**: block it")
        'Sleep: Light: dim it. Noise: block it.'
    """
    out: list[str] = []
    for code, lines in _parts(_lines(text)):
        if code:
            if out and out[-1].endswith(_LEAD):
                out[-1] = _closed(out[-1].removesuffix(_LEAD), ":")
            out.append("\n".join(lines))
        else:
            out += _paragraphs(lines)
    if out and out[-1].endswith(_LEAD):
        out[-1] = _closed(out[-1].removesuffix(_LEAD), ".")
    return "\n\n".join(out) or text.strip()


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace(_LEAD, "\ufffd").split("\n")


_LEAD = "\0"
"""After a paragraph that is a title alone, while it is not known what follows."""


def _parts(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    """The text and the blocks of code in turn: whether it is code, and its lines."""
    found = [_FENCE.fullmatch(line) if "```" in line or "~~~" in line else None for line in lines]
    closing = _longest_closings(found)
    text: list[str] = []
    inside = ""  # the fence around text that is no code
    at = 0
    while at < len(lines):
        fence = found[at]
        if fence is None:
            text.append(lines[at])
            at += 1
            continue
        mark, language = fence[1], fence[2].lower()
        if inside and not language and mark.startswith(inside):
            inside = ""
        elif language in _TEXT_FENCES or closing[mark[0]][at + 1] < len(mark):
            # A fence around text, or one that nothing closes: only its own line is left out.
            inside = mark if language in _TEXT_FENCES else inside
        else:
            end = at + 1
            while not _closes(found[end], mark):
                end += 1
            yield False, text or [""]
            yield True, [mark + fence[2], *_dedented(lines[at + 1 : end], lines[at]), mark]
            text, at = [], end
        text.append("")
        at += 1
    yield False, text or [""]


def _closes(fence: re.Match[str] | None, mark: str) -> bool:
    return fence is not None and not fence[2] and fence[1].startswith(mark)


def _longest_closings(found: list[re.Match[str] | None]) -> dict[str, list[int]]:
    """For each sign of fences: the longest fence that could close one, from each line on."""
    longest = {sign: [0] * (len(found) + 2) for sign in "`~"}
    for at in range(len(found) - 1, -1, -1):
        for sign, lengths in longest.items():
            fence = found[at]
            own = len(fence[1]) if fence is not None and not fence[2] and fence[1][0] == sign else 0
            lengths[at] = max(own, lengths[at + 1])
    return longest


def _dedented(lines: list[str], fence: str) -> list[str]:
    indent = len(fence) - len(fence.lstrip(" \t"))
    return [line[min(indent, len(line) - len(line.lstrip(" \t"))) :] for line in lines]


# --- paragraphs ---------------------------------------------------------------------------------------


@dataclass
class _Line:
    """What a line says without its marks, and what they made of it: a title, an item, or text."""

    text: str
    kind: str


def _read(line: str, *, row: bool) -> _Line:
    """Takes the marks at the start of a line, and those of a table's row."""
    line = " ".join(line.split())
    kind = "text"
    start = 0
    while start < len(line):
        if quote := _QUOTE.match(line, start):
            start = quote.end()
        elif heading := _HEADING.match(line, start):
            start, kind = heading.end(), "title"
        elif item := _ITEM.match(line, start):
            start, kind = item.end(), "item" if kind == "text" else kind
        elif stray := _STRAY_FENCE.match(line, start):
            start = stray.end()
        elif line[start] == "|" or (row and "|" in line[start:]):
            line, start, kind = _cells(line[start:]), 0, "item"
        else:
            break
    rest = line[start:]
    return _Line(_CLOSING.sub("", rest) if kind == "title" else rest, kind)


def _cells(row: str) -> str:
    return ", ".join(" ".join(cell.split()) for cell in row.split("|") if cell.strip())


def _paragraphs(lines: list[str]) -> list[str]:
    """The paragraphs of a text without code; one that is a title alone ends with `_LEAD`."""
    clean = _without_emphasis("\n".join(lines)).split("\n")
    writing = _Paragraphs()
    table = False
    waiting = False  # for the text of an item, whose number stands on a line of its own
    for at, (raw, line) in enumerate(zip(lines, clean, strict=True)):
        if not line.strip():
            table = False
            writing.end()
            continue
        if not line.strip(_RULE_SIGNS):
            if "|" not in line:
                table = False
                writing.underline(line.strip())
            continue
        below = clean[at + 1] if at + 1 < len(clean) else ""
        table = table or ("|" in line and "-" in below and _DELIMITER_ROW.fullmatch(below) is not None)
        read = _read(line, row=table)
        if not read.text.strip(_RULE_SIGNS):
            continue
        if _BARE_NUMBER.fullmatch(read.text) and below.strip(_RULE_SIGNS):
            waiting = True
            continue
        removed = read.text[0] not in "*_" and read.text[-1] not in ".!?"
        bold = removed and _BOLD_LINE.fullmatch(_read(raw, row=False).text) is not None
        if read.kind == "title" or (bold and len(read.text) <= _LONGEST_LEAD):
            kind = "term" if waiting or read.kind == "item" else "title"
        else:
            kind = "item" if waiting else read.kind
        waiting = False
        writing.add(_Line(read.text, kind))
    writing.end()
    return writing.close()


class _Paragraphs:
    """Joins lines to paragraphs, and makes sentences of items."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._open: list[str] = []
        self._kind = ""

    def add(self, line: _Line) -> None:
        if self._open:
            leads = self._kind in ("title", "term")
            if leads:
                # A list of bold terms has no texts.
                sign = "." if self._kind == line.kind == "term" else ":"
                self._open[-1] = _closed(self._open[-1], sign)
            elif line.kind != "text":
                self._open[-1] = _closed(self._open[-1], ".")
        self._open.append(line.text)
        # Further lines of an item belong to it.
        self._kind = "item" if self._kind == "item" and line.kind == "text" else line.kind

    def underline(self, line: str) -> None:
        """A line of signs: it makes a title of the line above it, or ends the paragraph."""
        if len(self._open) == 1 and self._kind == "text" and not line.strip("=-") and line[0] in "=-":
            self._kind = "title"
        else:
            self.end()

    def end(self) -> None:
        """A blank line: it ends the paragraph, unless that is a title or announces what follows."""
        if self._open and self._kind not in ("title", "term") and self._open[-1][-1] not in ":：":
            self._flush()

    def close(self) -> list[str]:
        if self._open:
            self._flush()
        return self._done

    def _flush(self) -> None:
        text = " ".join(self._open)
        if self._kind == "item":
            text = _closed(text, ".")
        # A joined line may begin with what would be a mark at the start of one.
        text = _read(text, row=False).text
        if text.strip(_RULE_SIGNS):
            self._done.append(text + (_LEAD if self._kind in ("title", "term") else ""))
        self._open, self._kind = [], ""


def _closed(text: str, sign: str) -> str:
    """The text with this sign at its end, unless it ends with one."""
    last = text.rstrip(_AFTER_END)[-1:]
    if text[-1:] in _SENTENCE_END or last in _SENTENCE_END:
        return text
    return text + ({".": "。", ":": "："}[sign] if _DENSE.match(last) else sign)


# --- emphasis -----------------------------------------------------------------------------------------


def _without_emphasis(text: str) -> str:
    """The text without `*` and `_` around words; those in `code`, within a word and between spaces stay."""
    tokens = list(_TOKEN.finditer(text))
    following: dict[str, int] = {}
    partner: list[int | None] = [None] * len(tokens)
    for at in range(len(tokens) - 1, -1, -1):
        if (run := tokens[at][0])[0] == "`" and len(run) < 3:
            partner[at] = following.get(run)
            following[run] = at
    opened: dict[str, list[int]] = defaultdict(list)
    gone: list[int] = []
    at = 0
    while at < len(tokens):
        mark = tokens[at][0]
        if mark[0] == "`":
            closing = partner[at]
            at = (at if closing is None else closing) + 1
            continue
        start, end = tokens[at].span()
        before, after = text[max(0, start - 1) : start], text[end : end + 1]
        if len(mark) <= 3 and before != "\\":
            opens = bool(after.strip()) and after not in _SENTENCE_END and not _is_word(before)
            closes = bool(before.strip()) and not _is_word(after)
            if closes and (waiting := opened[mark[::-1]]):
                gone += [waiting.pop(), at]
            elif opens:
                opened[mark].append(at)
        at += 1
    pieces, done = [], 0
    for at in sorted(gone):
        pieces.append(text[done : tokens[at].start()])
        done = tokens[at].end()
    return "".join([*pieces, text[done:]])


def _is_word(sign: str) -> bool:
    # Chinese and Japanese have no spaces around a word.
    return sign.isalnum() and _DENSE.match(sign) is None


# --- counts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marks:
    """How often a text has each kind of mark.

    Attributes:
        items: Lines that are items of a list.
        headings: Headings.
        bold: Words or lines in bold.
    """

    items: int
    headings: int
    bold: int


_BOLD = re.compile(r"\*\*(?=\S)[^*\n]+\*\*|__(?=\S)[^_\n]+__")


def marks(text: str) -> Marks:
    """Counts the marks of a text, without those in fences of code."""
    items = headings = bold = 0
    for code, lines in _parts(_lines(text)):
        if code:
            continue
        for raw, line in zip(lines, _without_emphasis("\n".join(lines)).split("\n"), strict=True):
            bold += len(_BOLD.findall(raw))
            if line.strip(_RULE_SIGNS):
                kind = _read(line, row=False).kind
                items += kind == "item"
                headings += kind == "title"
    return Marks(items, headings, bold)
