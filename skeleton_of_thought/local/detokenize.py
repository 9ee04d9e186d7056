"""From tokens to text, piece by piece: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Detokenizer", "StopStrings"]

_UNFINISHED = "\ufffd"
_MAX_HELD = 32
"""Tokens held back for an unfinished character before they are taken for broken text."""


class Detokenizer:
    """Turns tokens into text as they come. The pieces joined are the text of all tokens.

    A token may hold half a character, and what a token adds can depend on the one before it (leading spaces
    of sentencepiece models). So each piece is the difference between two decodings of a short window that
    starts one piece earlier, and a window whose text ends in U+FFFD waits for the rest of its character.

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
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) and len(self._ids) - self._known <= _MAX_HELD:
            return self._whole_part(text)
        piece = text[len(self._known_text) + self._sent :]
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
        self._begun = False
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may go out, and whether a stop string was met."""
        if not (self._stops or self._after_text) or not text:
            return text, False
        self._held += text
        start = 0 if self._begun else len(self._held) - len(self._held.lstrip())
        ends = [self._held.find(stop) for stop in self._stops]
        ends += [self._held.find(stop, start) for stop in self._after_text]
        found = [at for at in ends if at >= 0]
        if found:
            out, self._held = self._held[: min(found)], ""
            return out, True
        keep = max(_overlap(self._held, stop) for stop in (*self._stops, *self._after_text))
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        self._begun = self._begun or bool(out.strip())
        return out, False

    def flush(self) -> str:
        """What is held back, once no more text comes."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, short of all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
