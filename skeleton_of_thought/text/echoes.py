"""A guard against replies that repeat their own prompt, as small models sometimes do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from skeleton_of_thought.text.words import PIECES, is_unspaced, plain, words_of
from skeleton_of_thought.types import Prompt

__all__ = ["PromptEcho"]

_FEW, _MANY = 6, 10
"""Words in a row that make an echo: from the beginning of a part of the instruction, and from anywhere in it."""

_LEAD_IN = 12
"""Words at the beginning of a reply that may precede an echo: "Sure, here is the text that you asked for:"."""

_UNSPACED = 7 / 3
"""Characters of scripts without spaces that stand for a word."""

_MOST = 2 / 3
"""The share of the instruction that makes an echo in the middle of a reply, if the words may be quoted."""

_LONGEST_HEAD = 200
"""The most words before the instruction that are held back while a reply copies its prompt."""


class PromptEcho:
    """Shows a reply as it streams, until it repeats the words of its prompt.

    A reply may repeat the material of the prompt. The words around the material are the instruction, in one or more
    parts. An echo is a run of six words from the beginning of a part, or of ten words from anywhere in it. If the
    instruction may ask for some of its own words ("end with this sentence: ..."), only a run from the beginning of a
    part counts: six words at the beginning of the reply, elsewhere at least ten words and two thirds of the
    instruction.

    Text that may become an echo is held back, so that no part of an echo shows. The same holds for a reply that copies
    its prompt from the first word on. Verdict and shown text do not depend on how the text is cut into pieces.

    Args:
        prompt: The prompt of the reply.
        material: The texts in the prompt that a reply may repeat, such as the question and a draft.
        quotable: Whether the instruction may ask for some of its own words.

    Example:
        >>> from skeleton_of_thought.types import Message
        >>> prompt = Prompt((Message("user", "Rewrite what follows as one text that reads well. Go to bed."),))
        >>> echo = PromptEcho(prompt, ["Go to bed."])
        >>> echo.feed("Rewrite what follows as one text that reads well. "), echo.found
        ('', True)
    """

    def __init__(self, prompt: Prompt, material: Iterable[str], *, quotable: bool = False) -> None:
        self.found = False
        material = list(material)
        self._given = [_line(plain(words_of(text))) for text in material]
        parts = list(_parts(prompt, material))
        dense = [is_unspaced(word) for words in parts for word in words]
        scale = _UNSPACED if 2 * sum(dense) > len(dense) else 1
        few, many, self._lead_in = (round(scale * words) for words in (_FEW, _MANY, _LEAD_IN))
        total = sum(map(len, parts))
        self._needs = (few, max(many, round(_MOST * total)), None) if quotable else (few, few, many)
        self._frame: list[str] = []
        self._begins: list[int] = []  # for each word of the frame, the beginning of its part
        self._ends: list[int] = []
        for words in parts:
            begin = len(self._frame)
            self._frame += words
            self._begins += [begin] * len(words)
            self._ends += [begin + len(words)] * len(words)
        self._at: dict[str, list[int]] = {}
        for position, word in enumerate(self._frame):
            self._at.setdefault(word, []).append(position)
        firsts = {word for first, word in enumerate(self._frame) if self._may_become(first, 0)}
        self._beginnings = {word[:end] for word in firsts for end in range(1, len(word) + 1)}
        self._head = _head(prompt, parts)
        self._copies = bool(self._head)
        # The word so far, without case and punctuation; no longer than shows that it is none of the prompt's.
        self._word = ""
        self._longest = max(map(len, (*self._frame, *self._head)), default=0) + 1
        self._count = 0
        self._runs: dict[int, int] = {}
        """The lengths of the runs that may become an echo, by the position of their last word."""
        self._held: list[tuple[int, str]] = []
        """Held text, each piece with the number of its word."""
        self._shown: list[str] = []

    def feed(self, text: str) -> str:
        """Takes more text of the reply; returns the text that may be shown now."""
        for found in PIECES.finditer(text):
            if self.found:
                break
            piece = found[0]
            if piece.isspace():
                self._end_word()
                if self._held:
                    self._hold(piece)
                elif not self.found:
                    self._shown.append(piece)
            elif is_unspaced(piece):
                self._end_word()
                self._word = "".join(plain([piece]))
                self._hold(piece)
                self._end_word()
            else:
                if len(self._word) < self._longest:
                    self._word = "".join((self._word, *plain([piece])))[: self._longest]
                self._hold(piece)
                if not self._may_go_on():
                    self._let_go()
        return self._show()

    def close(self) -> str:
        """Ends the reply; returns the text that was held back and is no echo."""
        self._end_word()
        self._copies = False
        self._let_go()
        return self._show()

    def _show(self) -> str:
        shown, self._shown = "".join(self._shown), []
        return shown

    def _hold(self, piece: str) -> None:
        if not self.found:
            self._held.append((self._count, piece))

    def _let_go(self, before: int | None = None) -> None:
        """Shows the held text of the words before this one, or all of it."""
        if self._copies:
            return
        kept = 0
        while kept < len(self._held) and (before is None or self._held[kept][0] < before):
            kept += 1
        self._shown += [piece for _, piece in self._held[:kept]]
        del self._held[:kept]

    def _may_go_on(self) -> bool:
        """Whether the word so far may begin a run, or become the next word of one."""
        begun = self._word
        if not begun or begun in self._beginnings:
            return True
        self._copies = self._copies and self._head[self._count].startswith(begun)
        return any(
            position + 1 < self._ends[position] and self._frame[position + 1].startswith(begun)
            for position in self._runs
        )

    def _end_word(self) -> None:
        """Judges the runs that end with this word, and shows the text outside of runs that may become an echo."""
        word, self._word = self._word, ""
        if not word or self.found:
            return
        self._copies = self._copies and self._head[self._count] == word
        self._count += 1
        runs = {position: self._run_before(position) + 1 for position in self._at.get(word, ())}
        if any(self._is_echo(position, length) for position, length in runs.items()):
            self.found = True
            self._let_go(self._count - max(runs.values()))
            self._held = []
            return
        self._copies = self._copies and self._count < len(self._head)
        self._runs = {p: n for p, n in runs.items() if self._may_become(p - n + 1, self._count - n)}
        self._let_go(self._count - max(self._runs.values(), default=0))

    def _run_before(self, position: int) -> int:
        return self._runs.get(position - 1, 0) if position > self._begins[position] else 0

    def _need(self, first: int, start: int) -> int | None:
        """The least words of an echo that begins with this word of the frame and at this word of the reply."""
        at_beginning, from_first, from_any = self._needs
        if first != self._begins[first]:
            return from_any
        return at_beginning if start <= self._lead_in else from_first

    def _may_become(self, first: int, start: int) -> bool:
        """Whether a run that begins with this word of the frame and at this word of the reply can become an echo."""
        need = self._need(first, start)
        return need is not None and self._ends[first] - first >= need

    def _is_echo(self, position: int, length: int) -> bool:
        first = position - length + 1
        need = self._need(first, self._count - length)
        if need is None or length < need:
            return False
        run = _line(self._frame[first : position + 1])
        return not any(run in text for text in self._given)


def _head(prompt: Prompt, parts: list[list[str]]) -> list[str]:
    """The first words of the prompt, up to the end of the first part of its instruction."""
    words = plain(words_of(prompt.messages[-1].text)) if prompt.messages else []
    for start in range(min(len(words), _LONGEST_HEAD)):
        for part in parts:
            if words[start : start + len(part)] == part:
                return words[: start + len(part)]
    return []


def _parts(prompt: Prompt, material: list[str]) -> Iterator[list[str]]:
    """The words of the prompt around the material, part by part. An assistant's messages hold no instruction."""
    texts = sorted({text.strip() for text in material} - {""}, key=len, reverse=True)
    between = re.compile("|".join(map(_whole, texts)) or r"(?!)")
    for message in prompt.messages:
        if message.role != "assistant":
            for part in between.split(message.text):
                if words := plain(words_of(part)):
                    yield words


def _whole(text: str) -> str:
    """A pattern for the text that does not match inside other words."""
    before, after = (r"\b" if re.match(r"\w", end) and not is_unspaced(end) else "" for end in (text[0], text[-1]))
    return f"{before}{re.escape(text)}{after}"


def _line(words: list[str]) -> str:
    return f" {' '.join(words)} "
