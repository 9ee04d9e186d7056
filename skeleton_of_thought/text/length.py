"""How long the texts of an answer may be: a limit shared out over its points, and a guard that keeps a text to it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.text.words import SPEAKS_OF_WORDS, UNSPACED, is_unspaced
from skeleton_of_thought.types.answer import Point

__all__ = ["LengthGuard", "most_points", "share_words", "whole_sentences", "word_limit"]

_LEAST_WORDS = 5
"""Words of the shortest point that a limit makes."""
_POINT_WORDS = 25
"""Words that a point needs to say something."""


def word_limit(question: str) -> int | None:
    """The number of words that a question allows for its whole answer; the upper end of a range.

    In Chinese and Japanese, the number of characters.

    Returns:
        None without a limit, and where it is not clear that the whole answer is meant.

    Example:
        >>> word_limit("What is tea? Answer in 100-150 words."), word_limit("Give five tips, each in 20 words.")
        (150, None)
    """
    if not SPEAKS_OF_WORDS.search(question):
        return None
    # Its patterns take long to compile, and few questions need them.
    from skeleton_of_thought.text.word_limits import read_limit

    return read_limit(question)


def share_words(limit: int, points: Sequence[Point]) -> dict[int, int]:
    """Shares a limit out over the points, by the lengths that the plan gives them.

    Args:
        limit: Words of all points together.
        points: The points. One whose plan gives no length counts as long as the mean of the others.

    Returns:
        The words of each point, by its index. They add up to the limit, unless it gives the points fewer than five
        words each, which is the least.
    """
    planned = [point.words for point in points if point.words is not None and point.words > 0]
    mean = sum(planned) / len(planned) if planned else 1.0
    weights = {p.index: p.words if p.words is not None and p.words > 0 else mean for p in points}
    shares: dict[int, int] = {}
    while weights:
        left, total = limit - sum(shares.values()), sum(weights.values())
        short = [index for index, weight in weights.items() if left * weight / total < _LEAST_WORDS]
        if not short:
            exact = {index: left * weight / total for index, weight in weights.items()}
            shares |= {index: int(words) for index, words in exact.items()}
            # What rounding leaves goes to those that lost most of a word.
            for index in sorted(exact, key=lambda i: int(exact[i]) - exact[i])[: limit - sum(shares.values())]:
                shares[index] += 1
            break
        for index in short:
            shares[index] = _LEAST_WORDS
            del weights[index]
    return {point.index: shares[point.index] for point in points}


def most_points(limit: int, max_points: int, min_points: int) -> int:
    """The most points that share a limit of words so that each can say something: about 25 words or more."""
    return max(min_points, min(max_points, limit // _POINT_WORDS))


def whole_sentences(text: str) -> str:
    """A text that was cut, up to the end of its last whole sentence; empty if it has none."""
    for found in reversed(list(_SENTENCE_END.finditer(text))):
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        last = line.rsplit(maxsplit=1)[-1].lstrip("(\"'“„«") if line.strip() else ""
        short = (len(last) == 1 and last.isalpha()) or last.lower() in _ABBREVIATIONS or _NUMBER.fullmatch(line)
        if found[0] != "." or not short:
            return text[: found.end()]
    return ""


# --- the guard --------------------------------------------------------------------------------------

_TOKENS = re.compile(rf"[^\W_{UNSPACED}]+|.", re.S)
"""Matches runs of letters and digits, also parts of them, and single other characters."""
_AT_ONCE = frozenset("。！？｡．།༎។៕။")
"""Sentence signs that need no space after them."""
_SIGNS = _AT_ONCE | frozenset(".!?…‼⁇⁈⁉؟۔।॥։።፧፨")
_CLOSING = frozenset("\"'”’“»›)]}*_`」』》〉）】］")
"""Marks that belong to the sentence before them when they stand behind its sign."""
_SENTENCE_END = re.compile(
    rf"[{re.escape(''.join(sorted(_SIGNS)))}]+[{re.escape(''.join(sorted(_CLOSING)))}]*(?=\s|\Z)|[{''.join(sorted(_AT_ONCE))}]+"
)
_DANGLING = frozenset(",;:-–—/|(，、；：")
"""Marks that are left out where a text ends at a word."""
_SPACED_OUT = re.compile("[\u0e00-\u0eff]")
"""Thai and Lao: white space stands between their sentences."""
_ABBREVIATIONS = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "cf", "al", "fig", "eq", "approx", "ca", "bzw", "vgl", "evtl", "ggf",
     "inkl", "zzgl", "nr", "abb", "bspw", "usw", "sog", "sr", "sra", "srta", "ud", "uds", "dott", "sig", "art", "pag",
     "núm", "mme", "mlle", "env", "dhr", "mevr", "bijv", "blz", "см", "рис", "стр", "тыс", "млн", "ул", "им", "напр")
)  # fmt: skip
_NUMBER = re.compile(r"[\s>*_(-]*\d{1,3}")
"""The number of an item at the start of a line, whose point ends no sentence."""
_BLOCK = frozenset("-*+•–#>|`~")
"""Marks with which a line goes on with no sentence of the line before."""
_FENCE = re.compile(r"[\s>]*(?:(?:[-*+]|\d{1,3}[.)])\s+)?(`{3,}|~{3,})")
_TITLE = re.compile(r"\s*(?:#|\*\*[^*]+\*\*:?\s*$)")
"""A line that is a heading, after which no text ends."""
_READ = 64
"""Characters that are kept of a line: fences, headings and numbers show in them."""


class LengthGuard:
    """Shows a text as it streams, and ends one that grows too long.

    A text of up to 1.3 times the words passes unchanged. A longer one ends where the last sentence, item or paragraph
    within that length ends, if that is past `words`; else at the last word within it. So no text is held back before
    `words` words have shown. In scripts without spaces each character is a word.

    Code in a fence stays whole: a fence that begins past `words` is left out if it grows too long, and so is all
    text after it; one that began before passes up to its end, where the text ends, too. A text that ends at a word may
    leave other marks open, such as those of bold words.

    What shows does not depend on how the text is cut into pieces. Work is linear in the text.

    Args:
        words: Words that the text should have, 1 or more.

    Attributes:
        full: Whether the text was ended: all further text is dropped.

    Raises:
        InvalidInput: `words` is less than 1.

    Example:
        >>> guard = LengthGuard(5)
        >>> guard.feed("Tea keeps you awake today. And it warms your hands."), guard.full
        ('Tea keeps you awake today.', True)
    """

    def __init__(self, words: int) -> None:
        if words < 1:
            raise InvalidInput(f"A text needs at least 1 word, not {words!r:.80}.")
        self.full = False
        self._words = words
        self._most = words * 13 // 10
        self._count = 0
        self._in_word = False
        """Whether the last characters are a word that has been counted and may go on."""
        self._letters = ""
        """The last letters, while no other character has followed."""
        self._before = ""
        """The character before them."""
        self._last = ""
        """The last character that is no white space."""
        self._ending = ""
        """The sign that the text so far may end with, "\\n" for a line end; empty for none."""
        self._apart = True
        """Whether white space has followed the last word."""
        self._line = ""
        self._fence = ""
        """The marks that opened the current fence; empty outside a fence."""
        self._opening = ""
        """The marks of a fence that this line opens, unless the line also closes it."""
        self._holding = False
        self._held: list[str] = []
        self._end = 0
        """The number of held pieces up to `_ending`."""
        self._word_end = 0
        """The number of held pieces up to the end of the last word."""
        self._clean = False
        """Whether the text that has shown ends with a sentence."""
        self._shown: list[str] = []

    def fresh(self) -> LengthGuard:
        """A guard for another text of the same length."""
        return LengthGuard(self._words)

    def feed(self, text: str) -> str:
        """Takes more text from the model; returns the text that may be shown now."""
        for found in _TOKENS.finditer(text):
            if self.full:
                break
            self._take(found[0])
        return self._show()

    def close(self) -> str:
        """Ends a text that the model ended itself; returns the text that was held back."""
        if not self.full:
            self._shown += self._held
            self._held.clear()
        return self._show()

    def _show(self) -> str:
        shown, self._shown = "".join(self._shown), []
        return shown

    def _take(self, token: str) -> None:
        if token == "\n":
            self._end_line()
        elif token.isspace():
            self._space(token)
        elif token[0].isalnum():
            self._word(token)
        elif self._fence:
            self._in_word = self._in_word and not is_unspaced(token)
            self._keep(token)
        else:
            self._sign(token)

    def _keep(self, token: str) -> None:
        if self.full:
            return
        (self._held if self._holding else self._shown).append(token)
        if len(self._line) < _READ:
            self._line = (self._line + token)[:_READ]

    def _hold(self) -> None:
        """Holds the text back from here on if it has its words."""
        if not self._holding and self._count >= self._words and not (self._fence or self._opening):
            self._holding = True
            # Past its length within a line that looked like a fence, or within a fence that has just ended.
            if self._count > self._most:
                self.full = True

    def _resolve(self, *, ended: bool) -> None:
        """Settles whether the text ended where it might have: what is held back up to there may show."""
        if self._ending and ended and self._holding:
            self._shown += self._held[: self._end]
            del self._held[: self._end]
            self._word_end = max(0, self._word_end - self._end)
            self._clean = True
        self._ending = ""

    def _word(self, token: str) -> None:
        dense = is_unspaced(token)
        if dense or not self._in_word:
            self._hold()
            at_once = dense or self._apart or self._ending in _AT_ONCE
            self._resolve(ended=at_once and not token[0].islower())
            self._count += 1
            if self._count > self._most and self._holding:
                self.full = True
                self._shown += [] if self._clean else self._held[: self._word_end]
                self._held.clear()
        self._ending = ""
        self._in_word, self._apart = not dense, False
        if not self._letters:
            self._before = self._line[-1:]
        self._letters = (self._letters + token)[-16:]
        self._last = token[-1]
        self._keep(token)
        if not (self._fence or self._opening):
            self._word_end = len(self._held)

    def _space(self, token: str) -> None:
        self._hold()
        if not self._ending and _SPACED_OUT.match(self._last) and not self._apart:
            self._ending, self._end = " ", len(self._held)
        self._in_word, self._apart, self._letters = False, True, ""
        self._keep(token)

    def _sign(self, token: str) -> None:
        opens = unicodedata.category(token) in ("Ps", "Pi") and token not in _CLOSING
        if is_unspaced(token):
            self._in_word = False
        if opens:
            self._hold()
        if token in _BLOCK and not self._line.strip():
            self._resolve(ended=True)
        if token in "`~":
            self._mark_fence(token)
        if token in _SIGNS:
            if self._ends_sentence(token):
                self._ending, self._apart = token, False
        elif not (self._apart or opens or token in _CLOSING):
            self._ending = ""
        self._letters, self._last = "", token
        self._keep(token)
        if not (self._apart or opens or self._opening):
            self._end = len(self._held)
            if token not in _DANGLING:
                self._word_end = len(self._held)

    def _ends_sentence(self, sign: str) -> bool:
        if not self._count or self._line.lstrip().startswith("#"):
            return False
        if sign != "." or not self._letters:
            return True
        initial = len(self._letters) == 1 and self._letters.isalpha() and self._before in ("", " ", ".", "(")
        return not (initial or self._letters.lower() in _ABBREVIATIONS or _NUMBER.fullmatch(self._line))

    def _mark_fence(self, token: str) -> None:
        found = _FENCE.fullmatch(self._line + token) if len(self._line) < _READ else None
        if found:
            self._opening = found[1]
            self._resolve(ended=True)
        elif token == "`" and self._opening[:1] == "`":
            # Code within the line, as in ```pip install x```. Backticks do not end a fence of tildes.
            self._opening = ""

    def _end_line(self) -> None:
        line = self._line.strip(" \t\r>")
        closes = bool(self._fence) and line.startswith(self._fence) and not line.strip(self._fence[0])
        self._fence = "" if closes else self._fence or self._opening
        self._opening = ""
        if not self._fence:
            self._hold()
            if closes or (line and self._last not in _DANGLING and not _TITLE.match(line)):
                if not self._ending:
                    self._ending, self._end = "\n", len(self._held)
                    while self._end and self._held[self._end - 1].isspace():
                        self._end -= 1
            elif not line:
                self._resolve(ended=True)
        self._in_word, self._apart, self._letters = False, True, ""
        self._keep("\n")
        self._line = ""
