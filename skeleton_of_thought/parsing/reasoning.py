"""Finds reasoning in text that arrives in pieces, once there is something that may be a mark of it.

`skeleton_of_thought.parsing.parser.ReasoningFilter` passes other text on by itself. The verdict depends on the text
alone and not on its pieces, and the work is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from skeleton_of_thought.parsing.reasoning_marks import REASONING_MARKS, ReasoningMarks

__all__ = ["BlockReader"]

# --- the marks as patterns ------------------------------------------------------------------------

_ATTRIBUTES = 200
"""The most characters of the attributes of a tag."""
_SHORT = 3
"""Fewer letters at the beginning are shown at once, though marks that are words begin with them."""


def _pattern(mark: str, kind: ReasoningMarks, *, opens: bool = False) -> str:
    if kind.is_tag:
        attributes = rf"(?:\s[^<>]{{0,{_ATTRIBUTES}}})?/?>" if opens else ">"
        return f"(?i:{re.escape(mark[:-1])}{attributes})"
    return re.escape(mark) + (r"(?=[^\W\d_a-z])" if kind.before_capital and opens else "")


def _prefixes(marks: Iterable[str], *, whole: bool = False) -> set[str]:
    return {mark[:n].lower() for mark in marks for n in range(1, len(mark) + whole)}


_AT_START = [(mark, kind, False) for kind in REASONING_MARKS for mark in kind.opens]
# Several kinds share the tags around an answer: one of them stands for all.
_AT_START += [
    (mark, kind, True) for mark, kind in {m: kind for kind in REASONING_MARKS for m in kind.answer_opens}.items()
]
_START = re.compile("|".join(f"({_pattern(mark, kind, opens=True)})" for mark, kind, _ in _AT_START), re.ASCII)
_START_PREFIXES = _prefixes((mark for mark, kind, _ in _AT_START if not kind.before_capital))
_START_PREFIXES |= _prefixes((mark for mark, kind, _ in _AT_START if kind.before_capital), whole=True)
_TAG_NAMES = "|".join(re.escape(mark[1:-1]) for mark, kind, _ in _AT_START if kind.is_tag)
_OPEN_TAG = re.compile(rf"<(?:{_TAG_NAMES})(?:\s[^<>]{{0,{_ATTRIBUTES}}})?/?", re.ASCII | re.IGNORECASE)
"""The beginning of an opening tag whose end is still to come."""

_CLOSING = {
    kind: re.compile("|".join(_pattern(mark, kind) for mark in kind.closes), re.ASCII) for kind in REASONING_MARKS
}
_LONE = [(mark, kind) for kind in REASONING_MARKS for mark in kind.lone]
_LONE_PATTERN = "|".join(f"({_pattern(mark, kind)})" for mark, kind in _LONE)
_OPENED = re.compile(r"<([a-z:_]+)(?=[\s/>])", re.ASCII | re.IGNORECASE)
_TAGS = {mark[1:-1]: kind for mark, kind, answer in _AT_START if kind.is_tag and not answer}
_STEMS = [mark[:-1] for mark, kind, answer in _AT_START if kind.is_tag and not answer]
_FIRST = re.compile(r"[<\[◁]")

_IN_ANSWER: dict[ReasoningMarks | None, re.Pattern[str]] = {None: re.compile(_LONE_PATTERN, re.ASCII)}
"""Finds lone closing marks in an answer, and the end of its wrapper."""
_IN_ANSWER_PREFIXES: dict[ReasoningMarks | None, set[str]] = {
    None: _prefixes(mark for mark, _ in _LONE) | _prefixes(_STEMS, whole=True)
}
for _kind in REASONING_MARKS:
    _ends = "|".join(f"({_pattern(mark, _kind)})" for mark in _kind.answer_closes)
    _IN_ANSWER[_kind] = re.compile("|".join(filter(None, (_LONE_PATTERN, _ends))), re.ASCII)
    _IN_ANSWER_PREFIXES[_kind] = _IN_ANSWER_PREFIXES[None] | _prefixes(_kind.answer_closes)
_LONGEST = max(len(prefix) for prefixes in _IN_ANSWER_PREFIXES.values() for prefix in prefixes)
_LONGEST_CLOSING = max(len(mark) for kind in REASONING_MARKS for mark in kind.closes) + 1

# --- the surroundings of a lone mark -------------------------------------------------------------------

_SPACES = 40
"""So many spaces after a mark are as good as the end of its line."""
_AFTER = re.compile(rf"([ \t\r]{{0,{_SPACES}}})([\s\S]?)")
_BLANK = re.compile(r"\s*")
_SENTENCE_END = ".!?…:。！？："
_OPENING = "([{</=\\"
_QUOTES = "\"'“”‘’«»‹›„「」『』`*_~"
_AFTER_MENTION = ".,;:!?)]}…。，、：；！？" + _QUOTES
_STARTS = '*-–#•_("“«<[|>`'
_ITEM = re.compile(r"(?:[-*•#>]+|\(?(?:\d{1,3}|[^\W\d_])[.):])\s*")


class _Line:
    """The line that is being written, as far as it helps to tell a mark from a mention."""

    def __init__(self) -> None:
        self.fence = ""
        self.opened_above: set[ReasoningMarks] = set()
        self._new()

    def _new(self) -> None:
        self.blank, self.spaced, self.last = True, False, ""
        self.ticks = 0
        self.opened: dict[ReasoningMarks, int] = {}
        self._first = ""
        self._own: ReasoningMarks | None = None

    def add(self, text: str) -> None:
        """Takes text that follows; it never ends amid a mark."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._extend(line)
            self._end()
        self._extend(rest)

    @property
    def names_mark(self) -> bool:
        """Whether the line is a list item that has nothing so far, or that names what follows: "2. Closing:"."""
        found = _ITEM.match(self._first)
        return found is not None and (self.last in ":：" or (len(self._first) < 12 and found.end() == len(self._first)))

    def _extend(self, text: str) -> None:
        if not text:
            return
        if self._own is not None and text.strip():
            self._own = None
        for found in _OPENED.finditer(text):
            kind = _TAGS.get(found[1].lower())
            if kind is not None:
                self.opened[kind] = self.opened.get(kind, 0) + 1
                # Alone on its line, it opens a block whose end stands on another line.
                if self.blank and not text[: found.start()].strip() and text[found.end() :].strip() == ">":
                    self._own = kind
        self.ticks += text.count("`")
        if len(self._first) < 12:
            self._first = (self._first + text).lstrip()[:12]
        body = text.rstrip()
        self.spaced = len(body) < len(text)
        if body:
            self.blank, self.last = False, body[-1]

    def _end(self) -> None:
        mark = self._first[:3]
        if mark in ("```", "~~~"):
            if not self.fence:
                # "```code```" on one line opens nothing.
                run = len(self._first) - len(self._first.lstrip(mark[0]))
                self.fence = mark if mark == "~~~" or self.ticks == run else ""
            elif mark == self.fence:
                self.fence = ""
        if self._own is not None and self.opened.get(self._own):
            self.opened_above.add(self._own)
        self._new()

    @property
    def in_code(self) -> bool:
        """Whether the end of the line so far is code."""
        return bool(self.fence or self.ticks % 2)

    def is_mention(self, kind: ReasoningMarks) -> bool:
        """Whether a closing mark here is code, or closes an opening mark that is text itself."""
        if self.in_code:
            return True
        if self.opened.get(kind):
            self.opened[kind] -= 1
            return True
        if kind in self.opened_above:
            self.opened_above.discard(kind)
            return True
        return False


def _counts(line: _Line, after: str, *, final: bool) -> bool | None:
    """Whether a lone closing mark ends the reasoning, and is not a word of a sentence; None while it is undecided.

    It counts on a line of its own and at the end of a sentence, and where the answer follows it directly.

    Args:
        line: The line before it.
        after: The text after it.
        final: Whether no more text follows.
    """
    found = _AFTER.match(after)
    assert found is not None
    spaces, following = found[1], found[2]
    if not line.blank:
        ended = line.last in _SENTENCE_END and not line.names_mark
        if (line.spaced and not ended) or (not line.spaced and line.last in _OPENING):
            return False  # "The </think> tag"
    if not following and len(spaces) < _SPACES and not final:
        return None
    if following in ("", "\n") or len(spaces) == _SPACES:
        return True
    if not spaces:
        quoted = not line.spaced and not line.blank and line.last in _QUOTES
        return not (following in _AFTER_MENTION and (quoted or following not in _QUOTES))
    return following in _STARTS or following.isdigit() or (following.isalpha() and not following.islower())


# --- the reader -----------------------------------------------------------------------------------


class BlockReader:
    """Takes reasoning out of a text that has something like a mark.

    Attributes:
        restarted: Whether the last `feed` or `close` found that all text before was reasoning.
        idle: Whether it holds nothing back, and may be left out for text in which no mark can begin.
    """

    def __init__(self) -> None:
        self.restarted = False
        self.idle = False
        self._step = self._begin
        self._held = ""
        self._line = _Line()
        self._shown = False
        self._kind: ReasoningMarks | None = None
        self._wrapper: ReasoningMarks | None = None
        # Letters at the beginning that have shown, and may still be the first of a mark.
        self._peeked = ""
        self._kept: list[str] = []

    def feed(self, seen: list[str], text: str) -> str:
        """The text that may show now.

        Args:
            seen: Text that has shown without this reader since the last call; emptied.
            text: The next text.
        """
        self._take(seen)
        text, self._held = self._held + text, ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            at = self._step(text, at, shown)
        self.idle = self._step == self._answer and not self._held and self._wrapper is None
        return "".join(shown)

    def close(self, seen: list[str]) -> str:
        """The rest of the text."""
        self._take(seen)
        if self._step == self._block:
            kept = self._kind is not None and self._kind.keeps_unclosed
            return "".join(self._kept) + self._held if kept else ""
        if self._step == self._answer and (found := _IN_ANSWER[None].match(self._held)):
            kind = _LONE[(found.lastindex or 1) - 1][1]
            if not self._line.is_mention(kind) and _counts(self._line, self._held[found.end() :], final=True):
                self.restarted = self._shown
                return ""
        return self._held

    def _take(self, seen: list[str]) -> None:
        self.restarted = False
        if seen:
            self._step, self._shown = self._answer, True
            self._line.add("".join(seen))
            seen.clear()

    def _begin(self, text: str, at: int, shown: list[str]) -> int:
        """Between the beginning, or a block, and the first words of the answer."""
        start = at
        if not self._peeked:
            blank = _BLANK.match(text, at)
            assert blank is not None
            start = blank.end()
            shown.append(text[at:start])
            if start == len(text):
                return start
        head = self._peeked + text[start:]
        if found := _START.match(head):
            end = start + found.end() - len(self._peeked)
            if head[0].isalpha():  # its first letters may have shown
                self._shown = True
                self._void(shown)
            _, kind, is_answer = _AT_START[(found.lastindex or 1) - 1]
            if not is_answer:
                self._kind, self._kept = kind, [found[0]]
                if not found[0].endswith("/>"):
                    self._step = self._block
                return end
            if kind.bare_answer or self._kind is kind or (self._kind is not None and self._kind.is_tag and kind.is_tag):
                self._step, self._wrapper = self._answer, kind
                return end
        elif len(head) <= 2 * _ATTRIBUTES and (head.lower() in _START_PREFIXES or _OPEN_TAG.fullmatch(head)):
            if len(head) < _SHORT and head.isalpha():
                self._peeked = head
                self._show(text[start:], shown)
            else:
                self._held = text[start:]
            return len(text)
        self._step, self._peeked = self._answer, ""
        return start

    def _block(self, text: str, at: int, shown: list[str]) -> int:
        """Inside a block."""
        kind = self._kind
        assert kind is not None
        for found in _CLOSING[kind].finditer(text, at):
            if text[found.start() - 1 : found.start()] == "`" and found.start() > at:
                if found.end() == len(text):
                    self._keep(text, at, found.start() - 1)
                    return len(text)
                if text[found.end()] == "`":
                    continue  # it is only mentioned
            self._kept = []
            self._end_block(kind, found[0])
            return found.end()
        self._keep(text, at, max(at, len(text) - _LONGEST_CLOSING))
        return len(text)

    def _keep(self, text: str, at: int, held: int) -> None:
        if self._kind is not None and self._kind.keeps_unclosed:
            self._kept.append(text[at:held])
        self._held = text[held:]

    def _end_block(self, kind: ReasoningMarks, mark: str) -> None:
        is_answer = mark in kind.answer_opens
        self._step, self._wrapper = (self._answer, kind) if is_answer else (self._begin, None)

    def _answer(self, text: str, at: int, shown: list[str]) -> int:
        """Inside the answer, or inside reasoning, which only a closing mark will show."""
        found = _IN_ANSWER[self._wrapper].search(text, at)
        if not found:
            held = self._mark_begins(text, at)
            self._show(text[at:held], shown)
            self._held = text[held:]
            return len(text)
        self._show(text[at : found.start()], shown)
        number = (found.lastindex or 1) - 1
        if number >= len(_LONE):
            if self._line.in_code:
                self._show(found[0], shown)
            else:
                self._wrapper = None
            return found.end()
        kind = _LONE[number][1]
        counts: bool | None = False
        if not self._line.is_mention(kind):
            counts = _counts(self._line, text[found.end() : found.end() + _SPACES + 1], final=False)
        if counts is None:
            self._held = text[found.start() :]
            return len(text)
        if counts:
            self._void(shown)
            self._kind = kind
            self._end_block(kind, found[0])
        else:
            self._show(found[0], shown)
        return found.end()

    def _void(self, shown: list[str]) -> None:
        """Takes back all text so far."""
        # White space alone may be out already, and nobody has to take it back.
        if self._shown:
            self.restarted = True
            shown.clear()
        self._line, self._shown, self._peeked = _Line(), False, ""

    def _show(self, text: str, shown: list[str]) -> None:
        if text:
            shown.append(text)
            self._line.add(text)
            self._shown = self._shown or not text.isspace()

    def _mark_begins(self, text: str, at: int) -> int:
        """Where a mark begins whose end may still come; the end of the text if there is none."""
        prefixes = _IN_ANSWER_PREFIXES[self._wrapper]
        for found in _FIRST.finditer(text, max(at, len(text) - _LONGEST)):
            if text[found.start() :].lower() in prefixes:
                return found.start()
        return len(text)
