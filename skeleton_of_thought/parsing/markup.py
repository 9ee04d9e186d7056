"""Lists in HTML and LaTeX, rewritten as the lines of Markdown that mean the same."""

from __future__ import annotations

import re

__all__ = ["Markup", "has_markup"]

_ITEMS = frozenset(["li", "dt", "item", "point"])
_LISTS = frozenset(["ol", "ul", "dl", "menu"])
_BREAKS = frozenset(
    ["p", "div", "br", "dd", "section", "article", "details", "summary", "tr", "table", "thead", "tbody"]
)
_BOLD = frozenset(["b", "strong"])
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})(?:\s[^<>]{0,500})?/?>")

_HUGE = re.compile(r"&#\d{9,};?")
"""The number of no character."""

_LATEX_LISTS = frozenset(["itemize", "enumerate", "description", "compactitem", "compactenum"])
_LEVELS = {"part": 1, "chapter": 1, "section": 2, "frametitle": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}
_BRACED = r"\{([^{}]{0,500})\}"
_LATEX = re.compile(
    rf"\\(?P<at>begin|end)\{{(?P<name>[A-Za-z]{{1,20}})\*?\}}(?:\[[^\]]{{0,100}}\])?"
    rf"|\\item\b\s*(?:\[(?P<label>[^\]]{{0,200}})\])?"
    rf"|\\(?P<heading>{'|'.join(_LEVELS)})\*?{_BRACED}|(?P<line>\\\\)"
)
_STRONG = re.compile(rf"\\textbf{_BRACED}")
_STYLED = re.compile(rf"\\(?:text[a-z]{{2}}|emph|underline|text|mbox|textnormal){_BRACED}")
_ESCAPED = re.compile(r"\\([&%$#_{}])")
_COMMENT = re.compile(r"(?<!\\)%.*")

_MARKUP = re.compile(
    r"</?(?:[ou]l|dl|li|dt|h[1-6]|p|b|strong|table|tr)(?:\s[^<>]{0,500})?/?>|^\s*<(?:item|point)[\s>]"
    rf"|\\item\b|^\s*\\textbf\{{|\\begin\{{(?:{'|'.join(sorted(_LATEX_LISTS))})\}}|\\(?:{'|'.join(_LEVELS)})\*?\{{",
    re.IGNORECASE,
)
_MENTION = re.compile(r"\s*[^<\s].*?\w\s</?[A-Za-z0-9]{1,10}>(?=\s[a-z])")
"""Prose that speaks of a tag: "Use the <li> tag"."""


def has_markup(line: str) -> bool:
    """Whether a line has a tag or a command of a list, a heading or a table."""
    return _MARKUP.search(line) is not None and not _MENTION.match(line)


class Markup:
    """The lists of one text that are open.

    Attributes:
        unfinished: Whether the last title had no end on its line.
    """

    def __init__(self) -> None:
        self.unfinished = False
        self._lists: list[str] = []
        self._counts: list[int] = []
        self._prefix = ""
        self._text: list[str] = []
        self._lines: list[str] = []
        self._headed = False
        self._latex = False

    @property
    def open(self) -> bool:
        """Whether a list or an item is open, so that the next line belongs to it."""
        return bool(self._lists or self._prefix)

    def lines(self, line: str) -> list[str]:
        """The lines of Markdown in one line of HTML or LaTeX."""
        self._lines = []
        if not _TAG.search(line) and (self._latex or _LATEX.search(line) or _STRONG.search(line)):
            self._latex = True
            self._read_latex(_COMMENT.sub("", line))
        else:
            self._read_html(line)
        self.unfinished = bool("".join(self._text).strip())
        self._flush(end=False)
        return self._lines

    def _flush(self, *, end: bool = True) -> None:
        """Ends the title or the line of text that is open; without `end` a title that has no text yet stays open."""
        text = " ".join("".join(self._text).split())
        self._text = []
        if text:
            self._lines.append(self._prefix + text)
        if text or end:
            self._prefix = ""

    def _open_list(self, name: str) -> None:
        self._flush()
        self._lists.append(name)
        self._counts.append(0)

    def _close_list(self) -> None:
        self._flush()
        if self._lists:
            self._lists.pop()
            self._counts.pop()

    def _open_item(self) -> None:
        self._flush()
        indent = " " * (4 * max(len(self._lists) - 1, 0))
        if self._lists and self._lists[-1] in ("ol", "enumerate", "compactenum"):
            self._counts[-1] += 1
            # Rare marks: "1." and "-" would continue a list of Markdown that this list stands in.
            self._prefix = f"{indent}{self._counts[-1]}) "
        else:
            self._prefix = f"{indent}+ "

    # --- HTML -------------------------------------------------------------------------------------

    def _read_html(self, line: str) -> None:
        from html import unescape

        at = 0
        line = _HUGE.sub("\ufffd", line)  # Python reads no number of thousands of digits
        for found in _TAG.finditer(line):
            self._text.append(unescape(line[at : found.start()]))
            at = found.end()
            self._read_tag(found[2].lower(), closing=bool(found[1]))
        self._text.append(unescape(line[at:]))

    def _read_tag(self, name: str, *, closing: bool) -> None:
        if name in _LISTS:
            self._close_list() if closing else self._open_list(name)
        elif name in _ITEMS:
            self._flush() if closing else self._open_item()
        elif len(name) == 2 and name[0] == "h" and name[1] in "123456":
            self._flush()
            self._prefix = "" if closing else "#" * int(name[1]) + " "
        elif name in ("td", "th"):
            self._headed = self._headed or name == "th"
            self._text.append("|")
        elif name == "tr" and closing:
            self._close_row()
        elif name in _BREAKS:
            if name == "table" and not closing:
                self._lines.append("|---|")
            self._flush(end=False)
        elif name in _BOLD:
            self._text.append("**")

    def _close_row(self) -> None:
        if self._headed:
            self._text = []
        self._headed = False
        self._text = ["".join(self._text).replace("||", "|")]
        self._flush()

    # --- LaTeX ------------------------------------------------------------------------------------

    def _read_latex(self, line: str) -> None:
        line = _STRONG.sub(r"**\1**", line)
        for _ in range(2):
            line = _STYLED.sub(r"\1", line)
        at = 0
        for found in _LATEX.finditer(line):
            self._text.append(_plain(line[at : found.start()]))
            at = found.end()
            if found["at"]:
                if found["name"] in _LATEX_LISTS:
                    self._open_list(found["name"]) if found["at"] == "begin" else self._close_list()
            elif found["heading"]:
                self._flush()
                self._lines.append("#" * _LEVELS[found["heading"]] + " " + _plain(found[5]))
            elif found["line"]:
                self._flush()
            else:
                self._open_item()
                label = _plain(found["label"] or "").strip()
                if sum(map(str.isalpha, label)) > 2:  # of a description, unlike the sign of "\item[x]"
                    self._text.append(label + (" " if label[-1:] in ":.?!" else ": "))
        self._text.append(_plain(line[at:]))


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text).replace("~", " ")
