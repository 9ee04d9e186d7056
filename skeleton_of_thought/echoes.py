"""A guard against replies that repeat the words of their own prompt, as those of small models at times do."""

from __future__ import annotations

from collections.abc import Iterable

from skeleton_of_thought._words import PIECES, is_unspaced, plain, words_of
from skeleton_of_thought.types import Prompt

__all__ = ["PromptEcho"]

_ECHO = 6
"""So many words of the instruction in a row are no chance."""

_ECHO_UNSPACED = 14
"""The same where a word is a character."""

_SUSPECT = 3
"""Words that are, or begin, so many of the instruction's are held back until it is clear what follows."""


class PromptEcho:
    """Shows a reply as it streams, until it repeats the words of its prompt.

    What the prompt was made of may be repeated: six of the words around it in a row are an echo. Text is held back
    only where it may be one. Verdict and shown text do not depend on how the text is cut into pieces.

    Args:
        prompt: What was sent.
        material: The texts in the prompt that a reply may repeat, such as the question and a draft.

    Example:
        >>> from skeleton_of_thought.types import Message
        >>> prompt = Prompt((Message("user", "Rewrite what follows as one text that reads well. Go to bed."),))
        >>> echo = PromptEcho(prompt, ["Go to bed."])
        >>> echo.feed("Rewrite what follows as one text that reads well. "), echo.found
        ('', True)
    """

    def __init__(self, prompt: Prompt, material: Iterable[str]) -> None:
        self.found = False
        asked = [words_of(message.text) for message in prompt.messages]
        given = [plain(words_of(text)) for text in material]
        dense = [is_unspaced(word) for words in asked for word in words]
        self._echo = _ECHO_UNSPACED if 2 * sum(dense) > len(dense) else _ECHO
        frame = [plain(words) for words in asked]
        self._frame = _grams(frame, self._echo) - _grams(given, self._echo)
        suspects = _grams(frame, _SUSPECT) - _grams(given, _SUSPECT)
        self._suspects = {gram[:length] for gram in suspects for length in range(1, _SUSPECT + 1)}
        self._word = ""
        self._words: list[str] = []
        self._fresh = True
        self._held: list[str] = []
        self._suspect = True
        self._shown: list[str] = []

    def feed(self, text: str) -> str:
        """More text of the reply; returns what may be shown now."""
        for found in PIECES.finditer(text):
            if self.found:
                break
            piece = found[0]
            if piece.isspace():
                self._end_word()
                self._keep(piece)
                if not self._suspect:
                    self._suspect = self._fresh = True
            elif is_unspaced(piece):
                self._end_word()
                self._word = piece
                self._suspect = True
                self._keep(piece)
                self._end_word()
            else:
                self._word += piece
                if self._fresh and not self._may_begin_echo():
                    self._suspect = self._fresh = False
                    self._let_go()
                self._keep(piece)
        return self._show()

    def close(self) -> str:
        """The reply is complete; returns what was held back and is no echo."""
        self._end_word()
        self._let_go()
        return self._show()

    def _show(self) -> str:
        shown, self._shown = "".join(self._shown), []
        return shown

    def _keep(self, piece: str) -> None:
        if not self.found:
            (self._held if self._suspect else self._shown).append(piece)

    def _let_go(self) -> None:
        self._shown += self._held
        self._held = []

    def _may_begin_echo(self) -> bool:
        """Whether what there is of a word may become one of the instruction."""
        begun = plain([self._word])
        return not begun or any(gram[0].startswith(begun[0]) for gram in self._suspects)

    def _end_word(self) -> None:
        """Judges the words so far, and lets go of what is above suspicion."""
        words, self._word = plain([self._word]), ""
        if not words or self.found:
            return
        self._words = [*self._words, *words][-self._echo :]
        self._fresh = False
        self._suspect = any(tuple(self._words[-count:]) in self._suspects for count in range(1, _SUSPECT + 1))
        if tuple(self._words) in self._frame:
            self.found = True
            self._held = []
        elif not self._suspect:
            self._let_go()


def _grams(texts: Iterable[list[str]], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + length]) for words in texts for i in range(len(words) - length + 1)}
