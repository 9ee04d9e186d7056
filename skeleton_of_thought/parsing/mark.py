"""A list mark, a title, and patterns that are compiled when they are first used."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Literal, NamedTuple, cast

__all__ = ["Mark", "Title", "pattern", "replace_surrogates"]

replace_surrogates = partial(re.compile(r"[\ud800-\udfff]").sub, "\ufffd")
"""Puts U+FFFD in place of each half of a character: a server's broken JSON may hold one, which cannot be encoded."""

MarkKind = Literal["number", "dotted", "alpha", "bullet", "heading"]


class Mark(NamedTuple):
    """A list mark and the rest of its line.

    Attributes:
        kind: The family: `1.`, `Step 1:`, `①`, `一、` are numbers; `1.1` is dotted; `a)`, `IV.` alpha. Marks that
            prose has, too, such as "First,", are headings (see `rare_marks`).
        style: The common feature of the marks of one list, such as `"."`, `"()"`, `"step"` or the bullet.
        number: The value of a number or of a heading's ordinal, the last component of a dotted number, else 0.
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


class Title(NamedTuple):
    """A title as the text has it.

    Attributes:
        text: Its words.
        cut: Whether it stands on the line at which the text was cut off.
        number: The number in its mark, or that of the mark before it where it has none; -1 in lists without numbers.
        item: The item of a JSON list that it stands in; None for other lists.
    """

    text: str
    cut: bool = False
    number: int = -1
    item: Any = None


class _Pattern:
    """A regular expression that is compiled at its first use: compiling all takes longer than the whole import."""

    def __init__(self, text: str, flags: re.RegexFlag | int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        # Python calls this for attributes that the object lacks: once for each method of the pattern.
        found = self.__dict__[name] = getattr(re.compile(self._text, self._flags), name)
        return found


def pattern(text: str, flags: re.RegexFlag | int = 0) -> re.Pattern[str]:
    """A pattern that is compiled at its first use."""
    return cast("re.Pattern[str]", _Pattern(text, flags))
