"""A guard against loops: small models that repeat a passage until they are stopped.

`LoopGuard` reads a text word by word as it streams and looks for a passage that repeats itself in a row. In doubt it
lets the text pass: the passage must be real text. The numbers of a list, tables, and repetitions that the question asks
for do not count, and code in fences counts only after many repetitions. Work and memory are linear in the text.
"""

from __future__ import annotations

import re
from functools import lru_cache

from skeleton_of_thought.text.words import DENSE, PIECES, is_unspaced, plain, words_of

__all__ = ["LoopGuard", "asks_to_repeat"]

_GRAM = 4
"""A repetition is suspected once this many words in a row have occurred before."""

_LEAST_LETTERS = 20
"""A repeated passage with fewer letters is no sentence, but a refrain such as la la la, or closing brackets."""

_LONG = 120
"""A passage of this many letters is long: nobody repeats it `_OFTEN_IF_LONG` times in a row on purpose."""

_OFTEN, _OFTEN_IF_LONG, _OFTEN_IF_CODE, _OFTEN_IF_FENCED = 5, 3, 20, 100
"""Repetitions in a row that make a loop: of a short passage, a long one, code, and code in a fence."""
_LETTERS_IF_SHORT = 400
"""This many letters of repetitions make a loop even of a passage below `_LEAST_LETTERS`: "ha" two hundred times."""

_LONGEST_WORD = 200
"""Letters after which a word is cut in two."""

_SYLLABLES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7af"
_WEIGHTS = ((re.compile(f"[{DENSE}]"), 4), (re.compile(f"[{_SYLLABLES}]"), 2))
"""The number of letters that a character of a script stands for."""

_MARKER = re.compile(r"\W{0,4}\d{1,4}[.):]\W{0,4}")
_ENDS_SENTENCE = re.compile(r"[.!?。！？…][\"'”’)\]*_]*$")
_CODE = re.compile(r"[{}=\\]|</|\w\(|;$")
_BULLET = re.compile(r"[-*+•–>]{1,3}")
_FENCE = re.compile(r"`{3,}(?!.*`)|~{3,}")


class LoopGuard:
    """Shows a text as it streams, up to the point where it begins to loop.

    The second occurrence of a passage in a row is still shown. From the end of that sentence or line on, the guard
    holds the text back until it continues differently. After five occurrences (three of a long passage, twenty of one
    that looks like code, a hundred in a fence) the text is `looping`, and the guard drops the text it held back.
    Verdict and shown text do not depend on how the text is cut into pieces.

    Args:
        question: The user's question. Repetitions pass if it asks for them ("repeat after me", "write ... 100 times")
            or contains the passage ("write 'I am sorry for what I did' often").

    Example:
        >>> guard = LoopGuard()
        >>> guard.feed("It is a good day to be outside. " * 9)
        'It is a good day to be outside. It is a good day to be outside.'
        >>> guard.looping
        True
    """

    def __init__(self, question: str = "") -> None:
        self.looping = False
        self._may_repeat = asks_to_repeat(question)
        self._question = question
        self._word = ""
        self._words: list[str] = []
        self._letters = [0]
        self._last: dict[tuple[str, ...], int] = {}
        self._period = 0
        self._run = 0
        self._repeated = False
        self._line_start = True
        self._in_table = False
        self._fence = ""
        """The marks that opened the current fence; empty outside a fence."""
        self._opening = ""
        """The marks of a fence that this line opens, unless the line also closes it."""
        self._holding = False
        self._held: list[str] = []
        self._shown: list[str] = []

    def fresh(self) -> LoopGuard:
        """A guard for another text on the same question."""
        return LoopGuard(self._question)

    def feed(self, text: str) -> str:
        """Takes more text from the model; returns the text that may be shown now."""
        if self._may_repeat:
            return text
        for found in PIECES.finditer(text):
            if self.looping:
                break
            self._take(found[0])
        return self._show()

    def close(self) -> str:
        """Ends a text that the model ended itself; returns the text that was held back, for it is no loop."""
        if not self.looping:
            self._let_go()
        return self._show()

    def _show(self) -> str:
        shown, self._shown = "".join(self._shown), []
        return shown

    def _take(self, piece: str) -> None:
        if piece.isspace():
            self._end_word()
            if piece == "\n":
                self._line_start, self._in_table = True, False
                self._open_fence()
                self._holding = self._holding or self._repeated
            self._keep(piece)
            return
        if is_unspaced(piece):
            self._end_word()
            self._word = piece
            self._keep(piece)
            self._end_word()
            return
        while piece and not self.looping:
            part = piece[: _LONGEST_WORD - len(self._word)]
            self._word += part
            self._keep(part)
            piece = piece[len(part) :]
            if len(self._word) == _LONGEST_WORD:
                self._end_word()

    def _keep(self, text: str) -> None:
        if not self.looping:
            (self._held if self._holding else self._shown).append(text)

    def _let_go(self) -> None:
        self._shown += self._held
        self._held, self._holding, self._repeated = [], False, False

    def _end_word(self) -> None:
        word, self._word = self._word, ""
        if not word:
            return
        at_start, self._line_start = self._line_start, False
        if self._opening and "`" in word:
            # Code within the line, as in ```pip install x```. Backticks do not end a fence of tildes.
            self._opening = self._opening.strip("`")
        if at_start:
            # The word after the mark of a list or quotation begins a line, too.
            numbered = _MARKER.fullmatch(word) is not None
            self._line_start = numbered or _BULLET.fullmatch(word) is not None
            if self._fence:
                if word.startswith(self._fence) and not word.strip(self._fence[0]):
                    self._fence = ""
                    self._forget()
                    return
            elif fence := _FENCE.match(word):
                self._opening = fence[0]
            elif word.startswith("|"):
                self._in_table = True
                self._forget()
            elif numbered:
                # The numbers of a list increase while its text repeats itself.
                return
        if not self._in_table:
            self._follow(word)

    def _open_fence(self) -> None:
        if self._opening:
            self._fence, self._opening = self._opening, ""
            self._forget()

    def _forget(self) -> None:
        self._period = 0
        self._last.clear()
        self._let_go()

    def _follow(self, word: str) -> None:
        """Continues the suspected repetition, or looks for another one."""
        words, now = self._words, len(self._words)
        words.append(word)
        weight = next((weight for script, weight in _WEIGHTS if script.match(word)), 1)
        self._letters.append(self._letters[-1] + weight * sum(map(str.isalpha, word)))
        gram = tuple(words[-_GRAM:])
        if self._period and words[now - self._period] == word:
            self._run += 1
        else:
            self._let_go()
            before = self._last.get(gram)
            self._period, self._run = (0, 0) if before is None else (now - before, _GRAM)
        if len(gram) == _GRAM:
            self._last[gram] = now
        if self._period and self._run >= self._period:
            self._judge(word)

    def _judge(self, word: str) -> None:
        """Judges a passage that has occurred at least twice in a row, up to this word."""
        letters = self._letters[-1] - self._letters[-1 - self._period]
        if letters < _LEAST_LETTERS:
            least = _LETTERS_IF_SHORT if not self._fence else _LEAST_LETTERS * _OFTEN_IF_FENCED
            self.looping = letters * self._run // self._period >= least and not self._wanted()
        elif self._run >= (self._often(letters) - 1) * self._period:
            self.looping = not self._wanted()
        else:
            self._repeated = True
            self._holding = self._holding or _ENDS_SENTENCE.search(word) is not None
        if self.looping:
            self._held.clear()

    def _often(self, letters: int) -> int:
        if self._fence:
            return _OFTEN_IF_FENCED
        if self._run >= (_OFTEN_IF_LONG - 1) * self._period and any(map(_CODE.search, self._words[-self._period :])):
            return _OFTEN_IF_CODE
        return _OFTEN if letters < _LONG else _OFTEN_IF_LONG

    def _wanted(self) -> bool:
        """Whether the question contains the passage and more."""
        passage = set(plain(self._words[-self._period :]))
        return bool(passage) and passage < set(plain(words_of(self._question)))


# --- questions that ask for a repetition -----------------------------------------------------------

_LONGEST = 4_000
"""Characters that are read of a question: half from its beginning, half from its end."""

_QUOTED = re.compile(
    r"\"[^\"\n]{1,400}\"|“[^”\n]{1,400}”|«[^»\n]{1,400}»|「[^」\n]{1,400}」|(?<!\w)'[^\n]{1,400}?'(?!\w)"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")

# Questions for how, why or whether want no repetition; "Can you ..." is a request.
_QUESTION = re.compile(
    r"\W*(?:(?:and|but|so|und|et|y|e)\s+)?(?:"
    r"how|what|why|where|which|who|whom|whose|is|are|was|were|am|does|did|should|shall|might|"
    r"when(?:ever)?\s+(?:do|does|did|is|are|was|were|should|will|can)|do\s+(?:i|you|we|they|people|the|my|your)|"
    r"(?:can|could|would|will|may)\s+(?!you\b)|(?:has|have|had)\s+(?:i|you|we|they|there)|"
    r"wie|warum|wieso|wann|welche\w*|wer|wo|woran|comment|pourquoi|quand|combien|quel(?:le)?s?|est-ce|"
    r"c[oó]mo|por\s+qu[eé]|qu[eé]|cu[aá]ndo|cu[aá]nt\w+|quando|quant\w+|perch[eé]|come\s+(?:si|posso|faccio|mai)|"
    r"hoe|waarom|wanneer|как|почему|зачем|что|сколько|когда)\b"
    r"|.*(?:为什么|為什麼|怎|如何|什么|什麼|多少|几[次遍回]|幾[次遍回]|なぜ|どう|何回|왜|어떻게|몇\s*번)",
    re.IGNORECASE | re.DOTALL,
)

_NUMBERS = (
    r"(?:\d[\d.,]{0,9}|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|(?:a|one|\w+)\s+hundred|(?:a|one|\w+)\s+thousand|hundreds\s+of|thousands\s+of|"
    r"(?:a|two)\s+dozen|dozens\s+of|a\s+million|a\s+lot\s+of|many|several|countless|"
    r"drei|vier|fünf|sechs|sieben|acht|neun|zehn|zwölf|zwanzig|dreißig|fünfzig|hundert|tausend|viele|"
    r"trois|quatre|cinq|six|sept|huit|neuf|dix|quinze|vingt|trente|cinquante|cent|mille|plusieurs|"
    r"tres|cuatro|cinco|seis|siete|ocho|nueve|diez|veinte|cincuenta|cien|mil|muchas|varias|"
    r"três|sete|oito|nove|dez|vinte|cem|muitas|várias|tre|quattro|cinque|sei|sette|otto|dieci|venti|cento|molte|"
    r"drie|vijf|zes|zeven|acht|negen|tien|twintig|honderd|duizend|vele|"
    r"три|четыре|пять|шесть|семь|восемь|девять|десять|двадцать|пятьдесят|сто|тысячу|много|несколько)"
)
# "Three times a week" is a frequency, and "ten times faster" a comparison.
_NO_COUNT = (
    r"(?!\s+(?:an?|per|each|every|as|more|less|fewer|better|worse|than|when|that|tables?|daily|weekly|\w{2,}er|"
    r"the\s+(?:size|speed|price|cost|amount|number|weight|length|height|rate|value)|"
    r"am|pro|im|in\s+der|täglich|so|mehr|par|plus|moins|al|por|más|menos|à|ao|mais|al|più|meno|в|больше|meer)\b)"
)
_COUNT = (
    rf"(?:\b{_NUMBERS}[\s-]*(?:times|mal|fois|veces|vezes|volte|keer|раза?)\b{_NO_COUNT}"
    r"|\b\d[\d.,]{0,9}\s?x(?=\s*(?:$|[.,;:!?)\n]))"
    r"|\b(?:over\s+and\s+over|again\s+and\s+again|repeatedly|endlessly|forever|non-?stop|immer\s+wieder|"
    r"encore\s+et\s+encore|una\s+y\s+otra\s+vez))"
)
_SAY = (
    r"(?:say|write|repeat|repeated|loop|give|print|type|tell|output|sing|chant|recite|copy|echo|spell|generate|produce|"
    r"schreib\w*|sag\w*|sprich|wiederhol\w*|nenn\w*|sing\w*|écri\w+|dis|dites|répète\w*|copie\w*|chante\w*|"
    r"escrib\w+|escrev\w+|diga|di|dime|copia\w*|repit\w+|scriv\w+|dimmi|ripet\w+|schrijf|zeg|herhaal|"
    r"напиш\w+|скаж\w+|повтор\w+)"
)
_NO_SAYING = r"(?:why|how|about|when|whether|because|who|warum|wie|pourquoi|comment|cómo|perché|waarom|почему|как)"
_TIMES = re.compile(
    rf"(?<!\bI )(?<!\bwe )(?<!\bthey )\b{_SAY}\b(?:(?!\b{_NO_SAYING}\b).){{0,120}}?{_COUNT}"
    rf"|^\W*{_COUNT}\s*[,:]",
    re.IGNORECASE | re.DOTALL,
)

_REPEAT = re.compile(
    r"^\W*(?:please\s+)?repeat\b(?!\s+(?:customer|client|buyer|visit|business|order|purchase|prescription|offen[cds]|"
    r"sale|sign|measure|infection|exposure|test|win|loser))"
    r"|^\W*(?:please\s+)?keep\s+(?:on\s+)?(?:saying|writing|repeating|singing|printing)\b"
    r"|(?:^|[,:;]|\b(?:please|now|then|just|simply|and|you\s+to|you\s+must|(?:can|could|would|will)\s+you))"
    r"\s*[\"'“(*]*\s*(?:please\s+)?"
    r"repeat(?:\s*[:\"'“‘«*]|\s+(?:after|this|that|the|it|these|those|my|what|every\w*|all|your\w*|back|exactly|over|"
    r"until|\d+|[\"'“‘«]))"
    r"|(?:^|[,:;]|\bbitte)\s*wiederhol(?:e|t|en\s+sie)?\b|\bsprich\s+mir\s+nach\b"
    r"|(?:^|[,:;])\s*(?:r[ée]p[éèe]te[zr]?|repite|repitan?|repete|ripeti|ripeta|ripetete|herhaal|повтори(?:те)?|"
    r"повторяй(?:те)?)\b"
    r"|(?:请|請)[^，。\s]{0,6}(?:重[复複]|跟我)|(?:^|[，：])\s*重[复複](?:说|說|写|寫|念|这|這|以下|下面|我|：|:)"
    r"|繰り返し(?:て(?:ください|下さい|$)|言|書|唱)|(?:반복|따라)\s*(?:해\s*(?:줘|주세요|서)|하세요|하시오)"
    r"|[写寫说說念读讀唱抄喊][^。！？\n]{0,60}[\d一二三四五六七八九十百千万萬两]{1,9}\s*[遍次回]"
    r"|[\d一二三四五六七八九十百千万]{1,9}\s*[回度]\s*(?:書|言|唱|歌|繰)|(?:\d{1,9}|세|네|다섯|열|백)\s*번\s*(?:써|쓰|말|적|반복|외)",
    re.IGNORECASE,
)


# One answer has a guard for each of its texts, all with the same question.
@lru_cache(maxsize=8)
def asks_to_repeat(question: str) -> bool:
    """Whether the question asks for a text that repeats itself, such as "Write 'I will not lie' 100 times".

    Example:
        >>> asks_to_repeat("Write 'I will not lie' 100 times."), asks_to_repeat("How do I stop repeating mistakes?")
        (True, False)
    """
    if len(question) > _LONGEST:
        question = f"{question[: _LONGEST // 2]}\n{question[-_LONGEST // 2 :]}"
    for sentence in _SENTENCE.split(_QUOTED.sub('""', question)):
        request = sentence.strip()
        if request and not _QUESTION.match(request) and (_REPEAT.search(request) or _TIMES.search(request)):
            return True
    return False
