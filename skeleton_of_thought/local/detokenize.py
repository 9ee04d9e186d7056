"""From tokens to text, piece by piece: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Detokenizer", "StopStrings"]

_UNFINISHED = "\ufffd"
_MAX_HELD = 32
"""Tokens held back for an unfinished character before they are taken for broken text."""
_WINDOW = 6
"""Tokens that are decoded together at most, but for those of an unfinished character: a longer window makes each
decoding dearer, a shorter one costs a second decoding more often."""


class Detokenizer:
    """Turns tokens into text as they come. The pieces joined are the text of all tokens.

    A token may hold half a character, and what a token adds can depend on the one before it (leading spaces
    of sentencepiece models). So each piece is the difference between two decodings of a short window, and a
    window whose text ends in U+FFFD waits for the rest of its character. The window grows for a few tokens,
    since the decoding with one token is the one to compare the next with; then it starts anew, one piece earlier.

    Args:
        decode: Ids to text.
        context: The last tokens of the text that is being continued; empty when a new text begins.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(context)
        self._known = len(self._ids)
        self._known_text = decode(self._ids) if context else ""
        self._sent = 0  # characters after _known_text that were already given out

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        ids = self._ids
        ids.append(token)
        text = self._decode(ids)
        fresh = len(ids) - self._known
        if text.endswith(_UNFINISHED) and fresh <= _MAX_HELD:
            return self._whole_part(text)
        piece = text[len(self._known_text) + self._sent :]
        if fresh == 1 and len(ids) < _WINDOW:
            self._known, self._known_text = len(ids), text
        else:
            self._advance()
        return piece

    def flush(self) -> str:
        """What is still held back, once no more tokens come."""
        if len(self._ids) == self._known:
            return ""
        piece = self._decode(self._ids)[len(self._known_text) + self._sent :]
        self._advance()
        return piece

    def _whole_part(self, text: str) -> str:
        # The characters before the unfinished one can go out, unless the decoder shows the whole run of
        # bytes as broken until it is complete (byte fallback): then what was known no longer matches.
        whole = text.rstrip(_UNFINISHED)
        fresh = whole[len(self._known_text) :]
        if not whole.startswith(self._known_text) or _UNFINISHED in fresh or len(fresh) <= self._sent:
            return ""
        piece, self._sent = fresh[self._sent :], len(fresh)
        return piece

    def _advance(self) -> None:
        self._ids = self._ids[self._known :]
        self._known = len(self._ids)
        self._known_text = self._decode(self._ids)
        self._sent = 0


class StopStrings:
    """Lets text through up to the first stop string, holding back what may be the start of one.

    Args:
        stops: Strings that end the text wherever they are.
        after_text: Strings that end it only once there is something to see: small models often begin with
            the line break that is to end them.
    """

    def __init__(self, stops: Sequence[str], after_text: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._after_text = tuple(after_text)
        self._every = tuple({*self._stops, *self._after_text})
        self._begun = False
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may go out, and whether a stop string was met."""
        if not text or not self._every:
            return text, False
        held = self._held + text
        end = self._end(held)
        if end >= 0:
            self._held = ""
            return held[:end], True
        cut = len(held) - max([_overlap(held, stop) for stop in self._every])
        out, self._held = held[:cut], held[cut:]
        self._begun = self._begun or bool(out.strip())
        return out, False

    def flush(self) -> str:
        """What is held back, once no more text comes."""
        out, self._held = self._held, ""
        return out

    def _end(self, held: str) -> int:
        """Where the first stop string begins; -1 where there is none."""
        ends = [held.find(stop) for stop in self._stops]
        if self._after_text:
            start = 0 if self._begun else len(held) - len(held.lstrip())
            ends += [held.find(stop, start) for stop in self._after_text]
        return min([at for at in ends if at >= 0], default=-1)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, short of all of it."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
