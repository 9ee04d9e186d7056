"""From the text of a model to the points of a skeleton, while it is still being written.

`SkeletonParser` is the one implementation: text goes through `ReasoningFilter`, is cut into lines, and
each complete line is judged once, by `Outline`, from what came before it. What was returned is never
revised, and the result does not depend on how the text was cut into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.outline import Outline, Title, plain_title
from skeleton_of_thought.types import Point, Skeleton

__all__ = ["ReasoningFilter", "SkeletonParser", "parse_skeleton", "skeleton_of_titles"]


# --- reasoning ------------------------------------------------------------------------------------

_NAMES = ("think", "thinking", "reasoning")
_TAG = re.compile(r"<(/?)(think|thinking|reasoning)>", re.ASCII | re.IGNORECASE)
_CLOSING = {name: re.compile(f"</{name}>", re.ASCII | re.IGNORECASE) for name in _NAMES}
_STARTS = frozenset(tag[:n] for name in _NAMES for tag in (f"<{name}>", f"</{name}>") for n in range(1, len(tag)))
_LONGEST = max(map(len, _STARTS))

MOST_POINTS = 1000
"""No answer has more points than this. A model that loops until its window is full is not read to the end."""


class ReasoningFilter:
    """Takes `<think>`, `<thinking>` and `<reasoning>` blocks out of text that arrives in pieces.

    At most the possible start of a tag (eleven characters) is held back. A block that is never closed is
    dropped. A `</think>` without its opening, which some chat templates put into the prompt, is swallowed;
    the text before it is already out, so whoever can still take it back (as `SkeletonParser` does) has to.
    """

    def __init__(self) -> None:
        self._held = ""
        self._inside = ""

    def feed(self, text: str) -> str:
        """The part of `text` (and of what was held back) that is known not to be reasoning."""
        return "".join(part for part in self.parts(text) if part)

    def close(self) -> str:
        """What was still held back. The filter is then as new."""
        rest = "" if self._inside else self._held
        self._held = self._inside = ""
        return rest

    def parts(self, text: str) -> Iterator[str | None]:
        """Like `feed`, in pieces; None stands where a block was closed that this text never opened."""
        if not self._held and not self._inside and "<" not in text:
            yield text
            return
        text, self._held = self._held + text, ""
        at = 0
        while True:
            if self._inside:
                found = _CLOSING[self._inside].search(text, at)
                if not found:
                    break
                self._inside = ""
            else:
                found = _TAG.search(text, at)
                if not found:
                    break
                yield text[at : found.start()]
                if found[1]:
                    yield None
                else:
                    self._inside = found[2].lower()
            at = found.end()
        keep = self._possible_start(text, at)
        self._held = text[keep:]
        if not self._inside and keep > at:
            yield text[at:keep]

    @staticmethod
    def _possible_start(text: str, at: int) -> int:
        last = text.rfind("<", max(at, len(text) - _LONGEST))
        return last if last >= 0 and text[last:].isascii() and text[last:].lower() in _STARTS else len(text)


# --- the parser -----------------------------------------------------------------------------------

_LINE_END = re.compile(r"\r\n|\r|\n")


class SkeletonParser:
    """Reads a skeleton from text that arrives in pieces, as a person would read it.

    A point is returned by the `feed` that completes its line. Three kinds of text need a longer look: a
    mark without a title waits for the next line; outlines of Markdown headings or bold lines wait for the
    second heading, and bullets below a single heading for the end (are the headings the points, or one
    heading the title of the list?); a JSON list is read by `close`.

    Text inside reasoning tags is skipped. When only the closing `</think>` arrives, all text before it was
    reasoning: the parser starts anew, unless points were returned already, which are never revised.

    Args:
        max_points: Points after this many are ignored; never more than `MOST_POINTS`.

    Raises:
        InvalidInput: `max_points` is less than 1.
    """

    def __init__(self, max_points: int | None = None) -> None:
        if max_points is not None and max_points < 1:
            raise InvalidInput(f"max_points must be at least 1, or None; it is {max_points!r}.")
        self._most = MOST_POINTS if max_points is None else min(max_points, MOST_POINTS)
        self._text: list[str] = []
        self._points: list[Point] = []
        self._filter = ReasoningFilter()
        self._outline = Outline()
        self._line: list[str] = []
        self._after_return = False
        self._skeleton: Skeleton | None = None

    @property
    def points(self) -> tuple[Point, ...]:
        """The points found so far."""
        return tuple(self._points)

    @property
    def full(self) -> bool:
        """Whether as many points as are wanted are complete, so that the model may be stopped."""
        return len(self._points) >= self._most

    def feed(self, text: str) -> list[Point]:
        """The points that this next piece of text completes; none after `close`."""
        if self._skeleton is not None:
            return []
        self._text.append(text)
        if self.full:
            return []
        before = len(self._points)
        for part in self._filter.parts(text):
            if part is None:
                self._restart()
            elif part:
                self._take(part)
        return self._points[before:]

    def close(self, truncated: bool = False) -> Skeleton:
        """End the text; the line that is still open is read as well.

        Args:
            truncated: The model was cut off (it reached its token limit): a point whose line was cut is
                dropped if there are others.
        """
        if self._skeleton is None:
            if not self.full:
                self._take(self._filter.close())
                titles = self._outline.read("".join(self._line), cut=truncated)
                titles += self._outline.finish()
                if titles and titles[-1].cut and len(self._points) + len(titles) > 1:
                    titles.pop()
                self._add(titles)
            self._skeleton = Skeleton(tuple(self._points), "".join(self._text))
        return self._skeleton

    def _take(self, part: str) -> None:
        if self._after_return and part.startswith("\n"):
            part = part[1:]
        if part:
            self._after_return = False
        if "\n" not in part and "\r" not in part:
            self._line.append(part)
            return
        *lines, rest = _LINE_END.split(part)
        self._after_return = part.endswith("\r")
        lines[0] = "".join(self._line) + lines[0]
        self._line = [rest]
        for line in lines:
            self._add(self._outline.read(line))
            if self.full:
                break

    def _add(self, titles: list[Title]) -> None:
        for title in titles:
            if not self.full:
                self._points.append(Point(len(self._points) + 1, title.text))

    def _restart(self) -> None:
        if not self._points:
            self._outline = Outline()
            self._line = []
            self._after_return = False


def parse_skeleton(text: str, max_points: int | None = None) -> Skeleton:
    """The skeleton in a complete text; empty when there is none. See `SkeletonParser`.

    Example:
        >>> parse_skeleton("Sure!\\n1) **Move**\\n2) Rest: at least 7 h").titles
        ('Move', 'Rest: at least 7 h')

    Raises:
        InvalidInput: `max_points` is less than 1.
    """
    parser = SkeletonParser(max_points)
    parser.feed(text)
    return parser.close()


def skeleton_of_titles(titles: Iterable[str]) -> Skeleton:
    """The skeleton of titles that came as data; those without any words are left out."""
    plain = [plain_title(" ".join(title.split())) for title in titles]
    points = tuple(Point(i, title) for i, title in enumerate(filter(None, plain), 1))
    return Skeleton(points, "\n".join(plain))
