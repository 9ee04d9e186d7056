"""From the text of a model to the points of a skeleton, while the model still writes it.

`SkeletonParser` is the only implementation: text goes through `ReasoningFilter` and is cut into lines, and `Outline`
judges each complete line once, from the lines before it. Returned points are never revised, and the result does not
depend on how the text was cut into pieces.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

from skeleton_of_thought.errors import InvalidInput, SkeletonError
from skeleton_of_thought.parsing.outline import Outline, Title
from skeleton_of_thought.types import Point, Skeleton

__all__ = [
    "ReasoningFilter",
    "SkeletonParser",
    "SkeletonWriting",
    "check_skeleton",
    "parse_skeleton",
    "skeleton_of_titles",
]


# --- reasoning ------------------------------------------------------------------------------------

_NAMES = ("think", "thinking", "reasoning")
_TAG = re.compile(r"<(/?)(think|thinking|reasoning)>", re.ASCII | re.IGNORECASE)
_CLOSING = {name: re.compile(f"</{name}>", re.ASCII | re.IGNORECASE) for name in _NAMES}
_STARTS = frozenset(tag[:n] for name in _NAMES for tag in (f"<{name}>", f"</{name}>") for n in range(1, len(tag)))
_LONGEST = max(map(len, _STARTS))

MOST_POINTS = 1000
"""The most points of any answer. The parser stops here when a model loops until its window is full."""


class ReasoningFilter:
    """Takes `<think>`, `<thinking>` and `<reasoning>` blocks out of text that arrives in pieces.

    At most the possible start of a tag (eleven characters) is held back. A block that is never closed is
    dropped. So is a `</think>` without its opening, which some chat templates put into the prompt. The text before
    that tag is out already: a caller that can still discard it, as `SkeletonParser` does, has to.
    """

    def __init__(self) -> None:
        self._held = ""
        self._inside = ""

    def feed(self, text: str) -> str:
        """The part of `text` (and of the text held back before) that is known not to be reasoning."""
        if not self._held and not self._inside and "<" not in text:
            return text
        return "".join(filter(None, self.parts(text)))

    def close(self) -> str:
        """The text that was still held back. The filter can be used for another text then."""
        rest = "" if self._inside else self._held
        self._held = self._inside = ""
        return rest

    def parts(self, text: str) -> list[str | None]:
        """Like `feed`, in pieces; None marks a closing tag of a block that this text never opened."""
        if not self._held and not self._inside and "<" not in text:
            return [text]
        parts: list[str | None] = []
        text, self._held = self._held + text, ""
        at = 0
        while True:
            pattern = _CLOSING[self._inside] if self._inside else _TAG
            found = pattern.search(text, at)
            if not found:
                break
            if self._inside:
                self._inside = ""
            else:
                parts.append(text[at : found.start()])
                if found[1]:
                    parts.append(None)
                else:
                    self._inside = found[2].lower()
            at = found.end()
        # The start of a tag may be at the end of the text.
        keep = text.rfind("<", max(at, len(text) - _LONGEST))
        if keep < 0 or not text[keep:].isascii() or text[keep:].lower() not in _STARTS:
            keep = len(text)
        self._held = text[keep:]
        if not self._inside and keep > at:
            parts.append(text[at:keep])
        return parts


# --- the parser -----------------------------------------------------------------------------------

_LINE_END = re.compile(r"\r\n|\r|\n")


class SkeletonParser:
    """Reads a skeleton from text that arrives in pieces, as a person would read it.

    The `feed` that completes the line of a point returns the point. Some texts take longer:

    - A mark without a title waits for the next line.
    - Marks that sentences also begin with wait for a second line of their kind: headings, bold lines, `1st`, "First,",
      emoji. Below a single heading they wait for the end: it may be the title, or the first of more points.
    - Bullets below a heading, and bullets or numbers below a line such as "Introduction:", wait for the sections that
      they may be part of, until the end. So do bullets below prose, and numbers below a heading, if the line above does
      not announce a list, as "Here are the points:" and "Outline" do.
    - JSON, the rows of a table, and terms in bold with a colon are read by `close`.

    Text inside reasoning tags is skipped. When only the closing `</think>` arrives, all text before it was
    reasoning: the parser starts again, unless it has returned points, which are never revised.

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
        """Whether `max_points` points are complete, so that the model may be stopped."""
        return len(self._points) >= self._most

    def feed(self, text: str) -> list[Point]:
        """The points that this next piece of text completes; none after `close`."""
        if self._skeleton is not None:
            return []
        self._text.append(text)
        before = len(self._points)
        if before < self._most:
            for part in self._filter.parts(text):
                if part is None:
                    self._restart()
                elif part:
                    self._read(part)
        return self._points[before:]

    def close(self, truncated: bool = False) -> Skeleton:
        """Ends the text; reads the line that is still open as well.

        Args:
            truncated: Whether the model was cut off (it reached its token limit): the point on a line that was cut
                is dropped if there are others.
        """
        if self._skeleton is None:
            if not self.full:
                self._read(self._filter.close())
                titles = self._outline.read("".join(self._line), cut=truncated)
                titles += self._outline.finish()
                if titles and titles[-1].cut and len(self._points) + len(titles) > 1:
                    titles.pop()
                self._add(titles)
            self._skeleton = Skeleton(tuple(self._points), "".join(self._text))
        return self._skeleton

    def _read(self, part: str) -> None:
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
            if titles := self._outline.read(line):
                self._add(titles)
                if self.full:
                    break

    def _add(self, titles: list[Title]) -> None:
        count = len(self._points)
        for index, title in enumerate(titles[: self._most - count], count + 1):
            self._points.append(Point(index, title.text))

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
    """The skeleton of titles that a model gave as data; titles without any words are left out."""
    from skeleton_of_thought.parsing.data import plain_title

    plain = [plain_title(" ".join(title.split())) for title in titles]
    points = tuple(Point(i, title) for i, title in enumerate(filter(None, plain), 1))
    return Skeleton(points, "\n".join(plain))


# --- the skeleton of an answer --------------------------------------------------------------------

_LOOP = 3
"""A model that repeats so many titles in a row is in a loop: the rest of its skeleton is of no use."""


class SkeletonWriting:
    """The points of a skeleton that is being written: numbered from 1, without repeats, and no more than `max_points`.

    `feed` and `close` return the points that may show now. Neither returns any until `min_points` are
    found, because the answer may still become direct.

    Args:
        min_points: With fewer points the skeleton is unusable.
        max_points: The most points.

    Attributes:
        points: The points so far.
        complete: Whether the rest of the skeleton is of no use: there are enough points, or the model is in a loop.
        written: The skeleton as the model wrote it, repeats included; empty until `close`.
    """

    def __init__(self, min_points: int, max_points: int) -> None:
        self.points: list[Point] = []
        self.complete = False
        self.written = Skeleton()
        self._min_points = min_points
        self._max_points = max_points
        self._shown = 0
        self._parser = SkeletonParser()
        self._titles: set[str] = set()
        self._repeats = 0

    def feed(self, text: str) -> Sequence[Point]:
        """Reads more text; returns the points that may show now."""
        points = self._parser.feed(text)
        return self._add(points) if points else ()

    def close(self, *, truncated: bool, titles: Collection[str] | None = None) -> Sequence[Point]:
        """Ends the reading; returns the points that may show now.

        Args:
            truncated: The text or the list was cut off, so its last title may be half a title.
            titles: The titles, where the backend gave them as data; they count instead of the text.
        """
        known = len(self._parser.points)
        if titles is None:
            self.written = self._parser.close(truncated=truncated)
            return self._add(self.written.points[known:])
        self.written = skeleton_of_titles(list(titles)[:-1] if truncated and len(titles) > 1 else titles)
        return self._add(self.written.points)

    @property
    def skeleton(self) -> Skeleton:
        """The points so far as a skeleton."""
        return Skeleton(tuple(self.points), self.written.text)

    @property
    def error(self) -> SkeletonError:
        """The error of a skeleton with too few points."""
        return SkeletonError(
            f"The model's skeleton has {len(self.points)} usable point(s), fewer than min_points={self._min_points}: "
            f"{self.written.text[:80]!r}. Try another model or skeleton prompt, or let "
            'on_empty_skeleton="direct" answer such questions directly.',
            self.written,
        )

    def _add(self, points: Collection[Point]) -> Sequence[Point]:
        for point in points:
            title = point.title.casefold()
            if title in self._titles:
                # Small models repeat themselves; the same title twice would be the same text twice.
                self._repeats += 1
                continue
            self._repeats = 0
            if len(self.points) < self._max_points:
                self._titles.add(title)
                self.points.append(dataclasses.replace(point, index=len(self.points) + 1))
        self.complete = len(self.points) >= self._max_points or self._repeats >= _LOOP
        if len(self.points) < self._min_points:
            return ()
        fresh = self.points[self._shown :]
        self._shown = len(self.points)
        return fresh


def check_skeleton(skeleton: Skeleton | None) -> None:
    """Raises `InvalidInput` for a given skeleton without points, or with an index that comes twice."""
    if skeleton is not None and len({point.index for point in skeleton.points}) != max(len(skeleton), 1):
        raise InvalidInput(
            "The given skeleton needs at least one point, each with an index of its own; it has the indices "
            f"{[point.index for point in skeleton.points]}."
        )
