"""The outline of a text: which of its lines are the points of a skeleton.

`Outline.read` judges one complete line from the lines before it. The first list mark sets the style and indent of the
top level. Marks of another style, deeper marks and dotted numbers then belong to the point above them. Titles that
`read` has returned are final.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from skeleton_of_thought.parsing.marks import (
    Mark,
    clean_title,
    intro_list,
    is_weak,
    read_mark,
    roman_value,
    split_inline,
)

__all__ = ["Outline", "Title", "plain_title"]

_FENCE = re.compile(r"[\s>]*(`{3,}|~{3,})\s*([^`\s]*)[^`]*")
_PLAIN = frozenset(["", "text", "txt", "plain", "plaintext", "markdown", "md", "list", "outline", "skeleton"])
_DATA = frozenset(["json", "yaml", "yml"])
_JSON_LIMIT = 200_000


class Title(NamedTuple):
    """A title, and whether it stands on the line at which the text was cut off."""

    text: str
    cut: bool = False


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
        # The headings so far, and the bullets below them, which are points only if the headings are not.
        self._headings: list[tuple[int, Title]] = []
        self._held: list[Title] = []
        self._holding = False
        # Whether the last line was prose or blank, or ended in a colon: a numbered list may begin here.
        self._loose = True
        self._inline = True
        self._fence = ""
        self._list_in_fence = False
        # The lines of a text that begins like JSON; None for other texts.
        self._json: list[str] | None = []

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
            self._loose = True
            return []
        if self._json is not None:
            self._keep_json(line)
        mark = read_mark(line)
        if self._untitled is not None and self._give_title(line, mark):
            return self._out
        if mark is None:
            self._prose(line)
        else:
            getattr(self, f"_{mark.kind}")(mark)
            self._loose = line.rstrip().endswith((":", "："))
        return self._out

    def finish(self) -> list[Title]:
        """The titles that only the whole text shows."""
        if self._found:
            return []
        levels = [level for level, _ in self._headings]
        for level in sorted(set(levels)):
            if levels.count(level) > 1:
                return [title for at, title in self._headings if at == level]
        return self._held or [Title(text) for text in _json_titles("\n".join(self._json or []))]

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
        self._loose = True
        if self._top is None and (mark := intro_list(line)):
            self._number(mark)

    def _give_title(self, line: str, mark: Mark | None) -> bool:
        """Takes the line as the title of the mark that has none yet; False if it is no title."""
        empty, self._untitled = self._untitled, None
        if mark is not None and mark.kind == "number":
            if not self._found:
                self._top = None  # A prefilled "1." stood on a line of its own, and the real list begins here.
            return False
        self._emit(clean_title(mark.rest, mark.opened) if mark else clean_title(line, empty.opened if empty else ""))
        return True

    def _keep_json(self, line: str) -> None:
        if self._json is not None and not self._found and (self._json or line.lstrip()[0] in "[{"):
            self._json.append(line)
        else:
            self._json = None

    # --- marks ------------------------------------------------------------------------------------

    def _number(self, mark: Mark) -> None:
        top = self._top
        if top is None or self._holding:
            if _begins(mark):
                self._begin(mark)
        elif top.kind == "number":
            if self._same_level(mark, top) or self._continues(mark, top):
                self._point(mark, top)
            elif mark.indent <= top.indent - 2 and _begins(mark):
                self._begin(mark)
            else:
                self._nested.add((mark.style, mark.indent // 2))
        elif top.kind == "heading":
            if 0 < mark.level <= top.level:
                self._point(mark, top)
        elif self._outranks(mark, top):
            self._begin(mark)

    def _outranks(self, mark: Mark, top: _Top) -> bool:
        """Whether a number begins the real list, above the marks that looked like its top level."""
        if mark.indent > top.indent + 1 or not _begins(mark):
            return False
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
        self._holding, self._held, self._headings = False, [], []
        self._inline = True
        self._top = top = _Top(mark.kind, mark.style, mark.indent, mark.level, mark.number)
        self._point(mark, top)

    def _point(self, mark: Mark, top: _Top) -> None:
        if top.kind != "heading":
            top.style, top.indent, top.level = mark.style, mark.indent, mark.level
        self._nested.clear()
        pieces = split_inline(mark, self._inline) if mark.kind == "number" else [(mark.number, mark.rest)]
        self._inline = len(pieces) > 1
        top.number = pieces[-1][0]
        if len(pieces) > 1:
            for n, (_, raw) in enumerate(pieces):
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
        if top is None or self._holding:
            first = bool(mark.style) or (mark.word == "1.1" and not mark.rest.lstrip(" *_")[:1].islower())
            if mark.style != "letter" and first and mark.word.startswith(("1.1", "1.0", "١.١")):
                self._begin(mark)
        elif top.kind == "dotted" and mark.indent <= top.indent + 1 and mark.style == top.style:
            self._point(mark, top)

    def _alpha(self, mark: Mark) -> None:
        top = self._top
        if top is None:
            if mark.word in ("I", "i", "A", "a") and not _is_sentence(mark):
                roman = mark.word in ("I", "i")
                self._top = top = _Top("alpha", ("roman" if roman else "letter") + mark.style, mark.indent, 0)
                self._letter_point(mark, top, 1)
            return
        if top.kind != "alpha" or mark.indent > top.indent + 1 or not top.style.endswith(mark.style):
            return
        if top.style.startswith("roman"):
            value = roman_value(mark.word)
        else:
            value = ord(mark.word.upper()) - 64 if len(mark.word) == 1 else 0
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
            self._holding = bool(self._headings)
            self._top = top = _Top("bullet", mark.style, mark.indent, 0)
        if top.kind == "bullet" and mark.style == top.style and mark.indent <= top.indent + 1:
            self._point(mark, top)

    def _heading(self, mark: Mark) -> None:
        title = Title(clean_title(mark.rest), self._cut)
        top = self._top
        if not title.text:
            return
        if top is not None and not self._holding:
            if top.level and (mark.level == top.level or (top.kind == "heading" and mark.level < top.level)):
                self._emit(title.text)
            return
        self._headings.append((mark.level, title))
        same = [other for level, other in self._headings if level == mark.level]
        above = [level for level, _ in self._headings if level < mark.level]
        if len(same) > 1 and above in ([], [1]):
            self._top, self._holding, self._held = _Top("heading", "", 0, mark.level), False, []
            self._found = True
            self._out += same

    def _emit(self, title: str, cut: bool | None = None) -> None:
        if not title:
            return
        into = self._held if self._holding else self._out
        into.append(Title(title, self._cut if cut is None else cut))
        self._found = self._found or not self._holding


def _begins(mark: Mark) -> bool:
    """Whether a number is likely to begin a list, unlike "2024." and "7 - Eleven"."""
    return mark.number <= (1 if is_weak(mark) else 99)


def _is_sentence(mark: Mark) -> bool:
    """Whether a letter with a dot begins a sentence: "A. Smith writes about plums.", "I. think"."""
    words = mark.rest.split(None, 4)
    if mark.style != "A.":
        return False
    return words[0][0].islower() or (len(words) > 3 and mark.rest.rstrip().endswith("."))


def _json_titles(source: str) -> list[str]:
    """The titles in a JSON list of strings or objects, or in an object that holds such a list."""
    try:
        data: Any = json.JSONDecoder().raw_decode(source[:_JSON_LIMIT].lstrip())[0]
    except (ValueError, RecursionError):
        return []
    if isinstance(data, dict):
        lists = [value for value in data.values() if isinstance(value, list)]
        data = lists[0] if lists else list(data.values())
    titles = []
    for item in data:
        text: Any = item
        if isinstance(item, dict):
            named = [item[key] for key in ("title", "point", "name", "heading", "text") if key in item]
            text = next((value for value in (*named, *item.values()) if isinstance(value, str)), None)
        if isinstance(text, str):
            titles.append(plain_title(text))
    return [title for title in titles if title]


def plain_title(text: str) -> str:
    """A title that a model gave as data, without its marks and without a number that the model put before it."""
    mark = read_mark(text)
    numbered = mark if mark and mark.kind == "number" else None
    return clean_title(numbered.rest, numbered.opened) if numbered else clean_title(text)
