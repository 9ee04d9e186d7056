"""From the texts of the points to the text of the answer: clean-up of model text, headings, and their order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

from skeleton_of_thought.parsing.parser import ReasoningFilter
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Expansion, Item, Point

__all__ = [
    "MAY_BEGIN_BLOCK",
    "POINT_BREAK",
    "DirectWriting",
    "ExpansionText",
    "ItemText",
    "Join",
    "PrefillEcho",
    "WholeText",
    "heading",
    "render",
    "separator",
]

POINT_BREAK = "\n\n"
"""The text between two points of an answer."""

Join = Literal["numbered", "headings", "paragraphs"]
"""The layout of points in an answer, see `skeleton_of_thought.settings.Settings.join`."""


_HTML = (
    "blockquote",
    "details",
    "dl",
    "div",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "ol",
    "p",
    "pre",
    "table",
    "ul",
)
_BLOCK = re.compile(
    rf"""[-*+–—][ \t\r\n]                                    # lists
        | [•‣⁃∙⦁▪▫◦●○■□◆◇❖►▶▸➢➤➔✓✔☑✅🔹🔸👉①❶⑴⒈]
        | \d{{1,3}}(?:[.)][ \t\r\n]|[、）．]) | \(\d{{1,3}}\)[ \t\r\n]
        | ``` | ~~~ | --- | \|                              # code fences, rules, tables
        | \#{{1,6}}[ \t\r\n] | >[^=] | \$\$ | \\\[ | \\begin\{{  # headings, quotes, display maths
        | <(?:{"|".join(_HTML)})[\s/>]""",
    re.VERBOSE,
)
"""The start of a text that has to stand on a line of its own, or Markdown shows its marks as words."""

_HTML_STARTS = "|".join(sorted({name[:n] for name in _HTML for n in range(1, len(name) + 1)}))
MAY_BEGIN_BLOCK = re.compile(
    rf"(?:[*+–—>$<\\]|--?|\(\d{{0,3}}\)?|\d{{1,3}}[.)]?|``?|~~?|\#{{1,6}}|\\b(?:e(?:g(?:in?)?)?)?|<(?:{_HTML_STARTS}))\Z"
)
"""Matches the first characters of a text while they do not show whether `separator` sets the text on its own line."""


def heading(point: Point, join: Join = "numbered") -> str:
    """The first words of a point in the answer: of an item, its mark; empty for paragraphs."""
    if isinstance(point, Item):
        return point.mark
    if join == "paragraphs":
        return ""
    if join == "headings":
        # On one line, or the rest of the title would be text; a heading needs no colon after it.
        return f"## {' '.join(point.title.split()).rstrip(':：') or point.index}"
    return f"{point.index}. {point.title}" if point.title else f"{point.index}."


def separator(point: Point, join: Join = "numbered", text: str = "") -> str:
    """The characters between a point's heading and its text.

    In numbered answers, a text that begins with a list, a code fence, a table, a heading, a quote or display maths
    follows after a blank line: this is what all dialects of Markdown need.

    Args:
        point: The point.
        join: The layout of the answer.
        text: The text, or as much of its start as `MAY_BEGIN_BLOCK` does not match.
    """
    gap = POINT_BREAK if _BLOCK.match(text) else " "
    if isinstance(point, Item):
        return gap if point.mark else ""
    if join != "numbered":
        return POINT_BREAK if join == "headings" else ""
    last = point.title[-1:]
    closed = not last or (unicodedata.category(last) == "Po" and last not in "\"'%")
    return gap if closed else ":" + gap


def render(expansions: Iterable[Expansion], join: Join = "numbered") -> str:
    """The text of a whole answer: the points in order, each with its heading."""
    answer: list[str] = []
    before = ""
    for expansion in expansions:
        point, text = expansion.point, heading(expansion.point, join)
        if expansion.text:
            text += separator(point, join, expansion.text) + expansion.text
        # A paragraph without text is left out.
        if text:
            gap = point.gap_after(before) if isinstance(point, Item) else POINT_BREAK
            answer += (gap, text) if answer else (text,)
            before = expansion.text
    return "".join(answer)


class WholeText:
    """Cleans a text as it streams: drops reasoning, and white space around the whole.

    `feed` and `close` return the text that may be shown; their join does not depend on the chunking.

    Attributes:
        restarted: Whether the last `feed` or `close` found that all text before it was reasoning: what was shown is
            void.
        echoed: Whether an echo of the prompt was dropped; no echo is looked for here.
    """

    echoed = False

    def __init__(self) -> None:
        self.restarted = False
        self._reasoning = ReasoningFilter()
        self._begun = False
        self._spaces = ""

    def feed(self, text: str) -> str:
        """Takes more text from the model; returns the text that can be shown now."""
        text = self._reasoning.feed(text)
        self.restarted = self._reasoning.restarted
        if self.restarted:
            self._restart()
        return self._trim(text)

    def close(self) -> str:
        """Ends the text; returns the text that was held back and belongs to it."""
        text = self._reasoning.close()
        self.restarted = self._reasoning.restarted
        if self.restarted:
            self._restart()
        return self._trim(text)

    def _restart(self) -> None:
        self._begun = False
        self._spaces = ""

    def _trim(self, text: str) -> str:
        """Drops white space at the start, and holds back white space that may turn out to be the end."""
        if not self._begun:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._spaces += text
            return ""
        shown = self._spaces + body
        self._begun, self._spaces = True, text[len(body) :]
        return shown


class PrefillEcho:
    """Takes a repeated prefill off the start of a reply as it streams.

    Some servers return the prefilled start of the turn before the text that the model adds to it, and some do so only
    when the reply is not streamed. `feed` and `close` return the model's own text; their join does not depend on the
    chunking.

    Example:
        >>> echo = PrefillEcho("1.")
        >>> echo.feed("1"), echo.feed(". Move"), echo.feed(" more")
        ('', ' Move', ' more')
    """

    def __init__(self, prefill: str) -> None:
        # Chat templates take white space off the ends of a turn.
        self._prefill = prefill.strip()
        self._head: str | None = "" if self._prefill else None

    def feed(self, text: str) -> str:
        """Takes more text of the reply; returns the part of it that is the model's own."""
        if self._head is None:
            return text
        self._head += text
        if len(self._head) < len(self._prefill) and self._prefill.startswith(self._head):
            return ""
        own, self._head = self._head.removeprefix(self._prefill), None
        return own

    def close(self) -> str:
        """Ends the reply; returns the text that was held back and is no repetition."""
        own, self._head = self._head or "", None
        return own


class ExpansionText(WholeText):
    """Cleans the text of one point as it streams.

    Drops reasoning, an echo of the point's number, title or note at the start, and white space around the whole. A
    note that is all there is, or the start of the first sentence, stays. `feed` and `close` return the text that may
    be shown; their join does not depend on the chunking. Text is held back only while it may still turn out to be an
    echo, or is trailing white space.

    Attributes:
        echoed: Whether an echo was dropped. A closed text that is empty was nothing but the echo then.
    """

    def __init__(self, point: Point) -> None:
        super().__init__()
        self.echoed = False
        self._point = point
        self._head: str | None = ""
        self._marks_go_on = False

    def feed(self, text: str) -> str:
        """Takes more text from the model; returns the text that can be shown now."""
        text = self._reasoning.feed(text)
        self.restarted = self._reasoning.restarted
        if self.restarted:
            self._restart()
        begun = self._head is None and not self._marks_go_on
        return self._trim(text) if begun else self._after_echo(text, final=False)

    def close(self) -> str:
        """Ends the text; returns the text that was held back and belongs to it."""
        text = self._reasoning.close()
        self.restarted = self._reasoning.restarted
        if self.restarted:
            self._restart()
        return self._after_echo(text, final=True)

    def _restart(self) -> None:
        super()._restart()
        self._head, self.echoed, self._marks_go_on = "", False, False

    def _after_echo(self, text: str, *, final: bool) -> str:
        if self._head is not None:
            self._head += text
            # No echo is longer than this. Endless marks or blanks are not read again and again, and the characters
            # that decide are the same for all chunkings.
            scope = self._point.scope
            most = len(self._point.title) + len(scope) + _LONGEST_ECHO
            final = final or len(self._head) > most
            end = _echo_end(self._head[:most], self._point, final=final)
            if end is not None and scope:
                end = _note_end(self._head[:most], end, scope, final=final)
            if end is None:
                return ""
            self._marks_go_on = end == most
            text, self._head, self.echoed = self._head[end:], None, end > 0
        if self._marks_go_on:
            text = text.lstrip(_BEHIND_ECHO)
            self._marks_go_on = not text
        return self._trim(text)


class ItemText(WholeText):
    """Cleans the answer to one item as it streams, as `WholeText` does.

    A name in front of the answers ("French:") is dropped from a text that begins with it, too. A number or another mark
    is not: it may be the answer, such as a rating.
    """

    def __init__(self, item: Item) -> None:
        super().__init__()
        self._name = item.mark if item.mark.endswith((":", "：")) else ""
        self._head: str | None = "" if self._name else None

    def _restart(self) -> None:
        super()._restart()
        self._head = "" if self._name else None

    def close(self) -> str:
        """Ends the text; returns the text that was held back and belongs to it."""
        text = super().close()
        held, self._head = self._head or "", None
        return text + self._trim(held)

    def _trim(self, text: str) -> str:
        if self._head is None:
            return super()._trim(text)
        self._head = (self._head + text).lstrip()
        rest = self._head[len(self._name) :].lstrip()
        if self._name.casefold().startswith(self._head[: len(self._name)].casefold()) and not rest:
            return ""  # it may become the name, or is nothing but the name so far
        named = self._head[: len(self._name)].casefold() == self._name.casefold()
        text, self._head = rest if named else self._head, None
        return super()._trim(text)


class DirectWriting:
    """The text of a direct answer under way.

    Args:
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        pieces: The text.
    """

    def __init__(self, loops: LoopGuard | None) -> None:
        self.pieces: list[str] = []
        self._loops = loops

    def restart(self, loops: LoopGuard | None) -> None:
        """Begins the text again after one that was blank; the reader may have the blanks, so they stay."""
        self._loops = loops

    def feed(self, text: str) -> str:
        """Takes more text of the model; returns the text that may show now."""
        shown = text if self._loops is None else self._loops.feed(text)
        self.pieces.append(shown)
        return shown

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        rest = "" if self._loops is None else self._loops.close()
        self.pieces.append(rest)
        return rest

    @property
    def looping(self) -> bool:
        """Whether the text repeats itself and is to be ended."""
        return self._loops is not None and self._loops.looping


# --- echoes of a point's number, title and note ---------------------------------------------------

_LONGEST_ECHO = 120
_WORD = re.compile(r"(?ai:point|step|item|section)\s*")
_WORD_STARTS = frozenset(word[:n] for word in ("point", "step", "item", "section") for n in range(1, len(word) + 1))

_MARKS = "#*_>\"'“”`([ \t\r\n"
_AFTER_NUMBER = ".):、．：]"
_IN_TITLE = " \t\r\n*_"
_CLOSING = "*_\"'”` )]"
_AFTER_TITLE = ":：.-–—\n"
_AFTER_NOTE = ":：-–—\n"
_BEHIND_ECHO = _AFTER_TITLE + "*_\"'”` \t\r\n"


def _echo_end(text: str, point: Point, *, final: bool) -> int | None:
    """The end of the echo of `point` at the start of `text`; 0 for none, None while it is undecided."""
    undecided = None if not final else 0
    length = len(text)
    marks = length - len(text.lstrip(_MARKS))
    if marks == length:
        return undecided
    number = _number_end(text, marks, str(point.index), final=final)
    if number is None:
        return undecided
    start = length - len(text[number or marks :].lstrip(_MARKS))
    if number and start == length:
        return start if final else None
    title = _title_end(text, start, point.title)
    if title is None:
        # The text ends inside the title: it may become an echo, unless it is over.
        return (number or 0) if final else None
    if not title:
        return number or 0
    if title == length:
        return length if final else None
    after = length - len(text[title:].lstrip(_CLOSING))
    if after == length:
        return length if final else None
    if text[after] not in _AFTER_TITLE and text[title] not in "*_":
        return number or 0
    # A hyphen without a space before it is part of a word, as in "Self-care" after the title "Self".
    if text[after] in "-–" and after == title:
        return number or 0
    end = length - len(text[after:].lstrip(_BEHIND_ECHO))
    return None if end == length and not final else end


def _note_end(text: str, start: int, scope: str, *, final: bool) -> int | None:
    """The end of the note that `text` repeats at `start`, set off from text that follows it; else `start`.

    Returns:
        None while it is undecided.
    """
    undecided = start if final else None
    length = len(text)
    note = _title_end(text, length - len(text[start:].lstrip(_MARKS)), scope)
    if note is None:
        return undecided
    if not note:
        return start
    after = length - len(text[note:].lstrip(_CLOSING))
    end = length - len(text[after:].lstrip(_BEHIND_ECHO))
    if end == length:
        return undecided
    # "Walks, food. Both cost time" begins with a sentence, and "walks-only" with another word.
    if text[after] not in _AFTER_NOTE or (text[after] in "-–" and after == note):
        return start
    return end


def _number_end(text: str, start: int, number: str, *, final: bool) -> int | None:
    """The end of "3." or "Point 3:" at `start`; 0 where there is no such number, None while it is undecided."""
    word = _WORD.match(text, start)
    if word is None and not final and text[start:].lower() in _WORD_STARTS:
        return None
    begin = word.end() if word else start
    digits = text[begin : begin + len(number)]
    if digits != number:
        return None if not final and number.startswith(digits) else 0
    end = begin + len(number)
    if end == len(text):
        return 0 if final else None
    if text[end] not in _AFTER_NUMBER:
        return 0
    after = len(text) - len(text[end:].lstrip(_AFTER_NUMBER + "*_"))
    if after == len(text):
        return after if final else None
    # "2.5 litres" is no number of a point.
    return 0 if text[after].isdigit() else after


def _title_end(text: str, start: int, title: str) -> int | None:
    """The end of the title at `start`, case and white space apart; 0 for none, None if the text ends in it."""
    if not title:
        return 0
    position = start
    for word in title.split():
        position = len(text) - len(text[position:].lstrip(_IN_TITLE))
        piece = text[position : position + len(word)]
        if piece.casefold() != word.casefold():
            inside = position + len(piece) == len(text) and word.casefold().startswith(piece.casefold())
            return None if inside else 0
        position += len(word)
    return position
