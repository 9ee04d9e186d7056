"""The outline of a text: which of its lines are the points of a skeleton.

`Outline.read` judges one complete line from the lines before it. The first list mark sets the style and indent of the
top level. Marks of another style, deeper marks and dotted numbers then belong to the point above them. Titles that
`read` has returned are final: titles that a later line may turn into parts of a point are held until the end.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skeleton_of_thought.parsing.mark import Mark, Title
from skeleton_of_thought.parsing.marks import (
    clean_title,
    intro_list,
    is_sentence,
    is_weak,
    names_section,
    read_mark,
    split_inline,
)
from skeleton_of_thought.parsing.numerals import roman_value
from skeleton_of_thought.parsing.signs import EMOJI_LEVEL, PICTURES

if TYPE_CHECKING:
    from skeleton_of_thought.parsing.markup import Markup

__all__ = ["Outline", "Title"]

_FENCE = re.compile(r"[\s>]*(`{3,}|~{3,})\s*([^`\s]*)[^`]*")
_PLAIN = frozenset(["", "text", "txt", "plain", "plaintext", "markdown", "md", "list", "outline", "skeleton"])
_DATA = frozenset(["json", "yaml", "yml", "html", "xml", "latex", "tex", "rst", "org", "asciidoc", "adoc"])
_FIELD = re.compile(r"""\s*["'*_]{0,2}(?:[a-z]{2,8}|Title|Point|Heading)(?:["'*_]{0,2}\s?:|:[*_]{2})\s""")
_BOLD_TERM = re.compile(r"(\*\*|__)(?=\S)([^*_]{1,80})(?:[:：]\1|\1\s*[:：–—-])\s*\S")


@dataclass
class _Top:
    """Style and position of the marks of the top level, and the number of the last point."""

    kind: str
    style: str
    indent: int
    level: int
    number: int = 0


class Outline:
    """The points among the lines of one text."""

    def __init__(self) -> None:
        self._top: _Top | None = None
        self._out: list[Title] = []
        self._found = False
        self._cut = False
        self._ended = False
        # Styles of the numbered lists nested under the current point: their "2." is not the next point.
        self._nested: set[tuple[str, int]] = set()
        # A mark without a title, which may follow on the next line.
        self._untitled: Mark | None = None
        # The headings so far, how many of each level, and the last ordinal of each: headings wait for equals.
        self._headings: list[tuple[int, Title]] = []
        self._levels: Counter[int] = Counter()
        self._ordinals: dict[int, int] = {}
        # Titles that are points only if nothing above them is: bullets below a heading or below an introduction, and
        # numbers there, unless the heading announces them. `_below` is the kind of line above them.
        self._held: list[Title] = []
        self._holding = False
        self._below = ""
        # Whether a heading stands after the last held number, and whether held numbers began again below one.
        self._headed = False
        self._restarted = False
        # The last heading or line of prose; the line of prose right above, and whether it is alone.
        self._lead = ""
        self._above = ""
        self._alone = True
        # Whether the last line was prose or blank, or ended in a colon: a numbered list may begin here.
        self._loose = True
        self._inline = True
        self._fence = ""
        self._list_in_fence = False
        # Rows of a table, or bold terms; lines from the first that may begin JSON, and whether the
        # text begins so; the lists in HTML or LaTeX that are open.
        self._in_table = False
        self._rows: list[Title] = []
        self._json: list[str] = []
        self._bare = False
        self._markup: Markup | None = None

    def read(self, line: str, cut: bool = False) -> list[Title]:
        """The titles of the points that this line completes.

        Args:
            line: One line without its line end.
            cut: Whether the text was cut off in this line.
        """
        self._cut, self._out = cut, []
        may_be_code = self._fence or "```" in line or "~~~" in line
        if self._ended or (may_be_code and self._in_code(line)):
            return []
        if not line.strip():
            self._loose, self._above = True, ""
            return []
        if self._json:
            self._json.append(line)
        mark = read_mark(line)
        if self._untitled is not None and self._give_title(line, mark):
            return self._out
        if mark is None:
            self._prose(line)
        else:
            getattr(self, f"_{mark.kind}")(mark)
            self._loose, self._above = line.rstrip().endswith((":", "：")), ""
        return self._out

    def finish(self) -> list[Title]:
        """The titles that only the whole text shows."""
        if self._found:
            return []
        if self._restarted or not (self._held and self._top and self._top.kind == "number"):
            for level in sorted(self._levels):
                if self._levels[level] > 1:
                    return [title for at, title in self._headings if at == level]
        if self._held or len(self._rows) > 1 or not self._json:
            return self._held or self._rows[len(self._rows) == 1 :]
        from skeleton_of_thought.parsing.data import json_titles

        return json_titles("\n".join(self._json), bare=self._bare)

    # --- fences, prose, JSON ----------------------------------------------------------------------

    def _in_code(self, line: str) -> bool:
        """Whether the line is a code fence, or code within a fence that does not hold the list."""
        found = _FENCE.fullmatch(line)
        if self._fence and not self._list_in_fence:
            if found and not found[2] and found[1].startswith(self._fence):
                self._fence = ""
            return True
        if not found:
            return False
        if self._fence:
            # The list had a fence of its own; the text after it only comments on the list.
            self._ended = self._found or bool(self._held)
            self._fence, self._list_in_fence = "", False
            return True
        self._open_fence(found)
        return True

    def _open_fence(self, found: re.Match[str]) -> None:
        self._fence = found[1]
        begun = self._found or bool(self._held)
        self._list_in_fence = not begun and found[2].lower() in _PLAIN | _DATA

    def _prose(self, line: str) -> None:
        if self._markup is not None or "<" in line or "\\" in line:
            from skeleton_of_thought.parsing.markup import Markup, has_markup

            if self._markup is not None or has_markup(line):
                self._markup = self._markup or Markup()
                self._read_markup(self._markup, line)
                return
        self._read_prose(line)

    def _read_markup(self, markup: Markup, line: str) -> None:
        """Reads a line of HTML or LaTeX as the lines of Markdown that mean the same."""
        cut, lines = self._cut, markup.lines(line)
        if not markup.open:
            self._markup = None
        for n, each in enumerate(lines, 1):
            self._cut = cut and markup.unfinished and n == len(lines)
            if mark := read_mark(each):
                getattr(self, f"_{mark.kind}")(mark)
                self._loose, self._above = each.endswith((":", "：")), ""
            else:
                self._read_prose(each)

    def _read_prose(self, line: str) -> None:
        self._loose, text = True, line.strip()
        if self._top is None and (mark := intro_list(line)):
            self._number(mark)
        elif text[0] in "|*_":
            self._read_row(text)
        elif self._above:
            from skeleton_of_thought.parsing.rare_marks import level_below

            if level := level_below(self._above, text, alone=self._alone):
                self._heading(Mark("heading", "heading", 0, "", 0, level, self._above))
                self._above = ""
                return
        if not self._found:
            if not self._json:
                from skeleton_of_thought.parsing.data import json_start

                if (start := json_start(line)) is not None:
                    self._json.append(line[start:])
                    self._bare = not self._lead and not line[:start].strip()
            self._lead = text
        self._alone, self._above = not self._above, text

    def _read_row(self, text: str) -> None:
        """Reads a line that is a point if the text has no other list: a row of a table, `**Title**: and more`."""
        if not text.strip("|-: "):
            self._in_table = not self._rows
        elif _BOLD_TERM.match(text):
            self._rows.append(Title(clean_title(text), self._cut))
        elif text[0] == "|":
            cells = [title for cell in text.split("|") if (title := clean_title(cell))]
            if (counted := len(cells) > 1 and cells[0].isdecimal()) or (cells and self._in_table):
                self._rows.append(Title(cells[counted], self._cut))

    def _give_title(self, line: str, mark: Mark | None) -> bool:
        """Takes the line as the title of the mark that has none yet; False if it is no title."""
        empty, self._untitled = self._untitled, None
        if mark is not None and mark.kind == "number":
            if not self._found and not self._held:
                self._top = None  # A prefilled "1." stood on a line of its own, and the real list begins here.
            return False
        if mark is None and empty is not None and empty.kind == "bullet":
            from skeleton_of_thought.parsing.data import field_title

            line = field_title(line)
        self._emit(clean_title(mark.rest, mark.opened) if mark else clean_title(line, empty.opened if empty else ""))
        return True

    # --- marks ------------------------------------------------------------------------------------

    def _number(self, mark: Mark) -> None:
        top = self._top
        if top is None or (self._holding and top.kind == "bullet"):
            if _begins(mark) and (top is None or self._outranks(mark, top)):
                if (self._lead or self._headings) and self._is_part(mark):
                    self._hold(mark)
                else:
                    self._begin(mark)
        elif top.kind == "number":
            if self._holding and self._is_above_held(mark, top):
                return
            if self._same_level(mark, top) or self._continues(mark, top):
                self._point(mark, top)
            elif mark.indent <= top.indent - 2 and _begins(mark):
                self._begin(mark)
            else:
                self._nested.add((mark.style, mark.indent // 2))
        elif top.kind == "heading":
            if 0 < mark.level <= top.level:
                self._point(mark, top)
        elif top.kind == "bullet" and mark.style.startswith("bullet ") and mark.indent <= top.indent + 1:
            self._sibling(mark, top)
        elif self._outranks(mark, top):
            self._begin(mark)

    def _sibling(self, mark: Mark, top: _Top) -> None:
        """Takes a bullet with a number among bullets without, or the reverse."""
        style = top.style
        self._point(mark, top)
        top.style = style

    def _is_part(self, mark: Mark) -> bool:
        """Whether a numbered list may be part of the section that a heading or an introduction opens."""
        from skeleton_of_thought.parsing.rare_marks import is_introduction, opens_section

        if mark.level or names_section(mark):
            return False
        levels = [level for level, _ in self._headings]
        if is_introduction(self._lead):
            # Below the bullets of the introduction, the points begin.
            return not (self._top and self._loose and (mark.opened or not levels))
        return bool(levels) and opens_section(levels, self._lead, loose=self._loose)

    def _hold(self, mark: Mark) -> None:
        self._holding, self._held, self._inline, self._headed = True, [], True, False
        self._below = "heading" if self._headings else "introduction"
        self._top = top = _Top(mark.kind, mark.style, mark.indent, mark.level, mark.number)
        self._point(mark, top)

    def _is_above_held(self, mark: Mark, top: _Top) -> bool:
        """Whether a number stands above the held ones, as in "Section 1:", or begins their numbering again."""
        if _begins(mark) and mark.style != top.style and (mark.level or names_section(mark)):
            self._begin(mark)
            return True
        if self._headed and mark.number <= 1:
            self._restarted = True
            self._decide()
        self._headed = False
        return not self._holding

    def _outranks(self, mark: Mark, top: _Top) -> bool:
        """Whether a number begins the real list, above the marks that looked like its top level."""
        if mark.indent > top.indent + 1 or not _begins(mark):
            return False
        if self._holding and (self._below == "heading" or names_section(mark)):
            return True
        if top.kind == "bullet":
            # "- Topic" with "1. part" on the very next line is a topic with its parts.
            return self._loose and mark.number <= 1
        if top.kind == "dotted":
            return mark.number <= 2
        return mark.indent <= top.indent - 2

    @staticmethod
    def _same_level(mark: Mark, top: _Top) -> bool:
        return (
            mark.style == top.style
            and mark.indent <= top.indent + 1
            and mark.level <= top.level
            and bool(mark.level) == bool(top.level)
            and (mark.number <= 99 or 0 <= mark.number - top.number <= 9)
        )

    def _continues(self, mark: Mark, top: _Top) -> bool:
        """Whether a mark of another style or indent is nevertheless the next of this list."""
        return mark.number == top.number + 1 and (mark.style, mark.indent // 2) not in self._nested

    def _begin(self, mark: Mark) -> None:
        self._holding, self._inline, self._held, self._headings = False, True, [], []
        self._levels.clear()
        self._top = top = _Top(mark.kind, mark.style, mark.indent, mark.level, mark.number)
        self._point(mark, top)

    def _point(self, mark: Mark, top: _Top) -> None:
        if _FIELD.match(mark.rest):
            from skeleton_of_thought.parsing.data import field_title

            mark = mark._replace(rest=field_title(mark.rest, only_field=mark.kind != "bullet"))
        if top.kind != "heading":
            top.style, top.indent, top.level = mark.style, mark.indent, mark.level
        self._nested.clear()
        pieces = split_inline(mark, self._inline) if mark.kind == "number" else [(mark.number, mark.rest)]
        self._inline = len(pieces) > 1
        top.number = pieces[-1][0]
        if len(pieces) > 1:
            for n, (top.number, raw) in enumerate(pieces):
                self._emit(clean_title(raw, "" if n else mark.opened), self._cut and n == len(pieces) - 1)
            return
        if fence := _FENCE.fullmatch(mark.rest):
            self._open_fence(fence)
            self._untitled = mark
        elif title := clean_title(mark.rest, mark.opened):
            self._emit(title)
        elif not mark.rest.strip("*_ \t"):
            self._untitled = mark

    def _dotted(self, mark: Mark) -> None:
        """Judges `1.1`: part of a point, unless the whole list is written so, or a prefilled "1." is repeated."""
        top = self._top
        if top is None or (self._holding and top.kind == "bullet"):
            first = bool(mark.style) or (mark.word == "1.1" and not mark.rest.lstrip(" *_")[:1].islower())
            if mark.style != "letter" and first and mark.word.startswith(("1.1", "1.0", "١.١")):
                self._begin(mark)
        elif top.kind == "dotted" and mark.indent <= top.indent + 1 and mark.style == top.style:
            self._point(mark, top)

    def _alpha(self, mark: Mark) -> None:
        top = self._top
        ascii_word = mark.word.isascii()
        if top is None or (self._holding and top.kind == "bullet" and self._loose and mark.indent <= top.indent):
            roman = mark.word in ("I", "i")
            if (roman or (mark.word in ("A", "a") if ascii_word else _letter(mark, 0) == 1)) and not is_sentence(mark):
                self._holding, self._held = False, []
                self._top = top = _Top("alpha", ("roman" if roman else "letter") + mark.style, mark.indent, 0)
                self._letter_point(mark, top, 1)
            return
        if top.kind != "alpha" or mark.indent > top.indent + 1 or not top.style.endswith(mark.style):
            return
        if top.style.startswith("roman"):
            value = roman_value(mark.word)
        elif ascii_word:
            value = ord(mark.word.upper()) - 64 if len(mark.word) == 1 else 0
        else:
            value = _letter(mark, top.number)
        if value == 1 or top.number < value <= top.number + 3:
            self._letter_point(mark, top, value)

    def _letter_point(self, mark: Mark, top: _Top, value: int) -> None:
        style, indent = top.style, mark.indent
        self._point(mark, top)
        top.style, top.indent, top.number = style, indent, value

    def _bullet(self, mark: Mark) -> None:
        top = self._top
        if not clean_title(mark.rest):
            return
        if top is None:
            self._below = self._place_below()
            self._holding = bool(self._below)
            self._top = top = _Top("bullet", mark.style, mark.indent, 0)
        same = top.kind == "bullet" and mark.style == top.style
        if (same or top.style.startswith("bullet ")) and mark.indent <= top.indent + 1:
            self._sibling(mark, top)

    def _place_below(self) -> str:
        """The kind of line above a list of bullets, if the list may be only a part of its section; "" for none."""
        if self._headings or not self._lead:
            return "heading" if self._headings else ""
        from skeleton_of_thought.parsing.rare_marks import announces, is_introduction

        return "introduction" if is_introduction(self._lead) else "" if announces(self._lead) else "prose"

    def _heading(self, mark: Mark) -> None:
        title = Title(clean_title(mark.rest, mark.opened), self._cut)
        top = self._top
        if not title.text:
            return
        if top is not None and not self._holding:
            same = top.level and (mark.level == top.level or (top.kind == "heading" and mark.level < top.level))
            if same or (mark.level == EMOJI_LEVEL and top.style in PICTURES and mark.indent <= top.indent + 1):
                self._emit(title.text)
            return
        if mark.number:
            last = self._ordinals.get(mark.level, 0)
            if mark.number <= last or (mark.number > 1 and not last):
                return
            self._ordinals[mark.level] = mark.number
        if self._holding and self._below == "prose":
            return
        self._lead, self._headed = title.text, True
        self._headings.append((mark.level, title))
        self._levels[mark.level] += 1
        if top is None or top.kind != "number" or self._restarted:
            self._decide()

    def _decide(self) -> None:
        """Makes points of the headings once there are two of the highest level; a single one may be the title."""
        level = min(self._levels, default=0)
        if self._levels[level] > 1:
            self._top, self._holding, self._held = _Top("heading", "", 0, level), False, []
            self._found = True
            self._out += [title for at, title in self._headings if at == level]

    def _emit(self, title: str, cut: bool | None = None) -> None:
        if not title:
            return
        into = self._held if self._holding else self._out
        number = self._top.number if self._top and self._top.kind in ("number", "dotted") else -1
        into.append(Title(title, self._cut if cut is None else cut, number))
        self._found = self._found or not self._holding


def _letter(mark: Mark, last: int) -> int:
    from skeleton_of_thought.parsing.rare_marks import letter_value

    return letter_value(mark.word, last)


def _begins(mark: Mark) -> bool:
    """Whether a number is likely to begin a list, unlike "2024." and "7 - Eleven"."""
    return mark.number <= (1 if is_weak(mark) else 99)
