"""From the text of a model to the points of a skeleton, while the model still writes it.

`SkeletonParser` is the only implementation: text goes through `ReasoningFilter` and is cut into lines, and `Outline`
judges each complete line once, from the lines before it. Returned points are never revised, unless all of them turn out
to be reasoning. The result does not depend on how the text was cut into pieces.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from skeleton_of_thought.errors import InvalidInput, SkeletonError
from skeleton_of_thought.parsing.outline import Outline, Title
from skeleton_of_thought.types import PlanItem, Planning, Point, Skeleton

if TYPE_CHECKING:
    from skeleton_of_thought.parsing.plan_reader import PlanReader
    from skeleton_of_thought.parsing.reasoning import BlockReader

__all__ = [
    "ReasoningFilter",
    "SkeletonParser",
    "SkeletonWriting",
    "check_skeleton",
    "first_titles",
    "parse_skeleton",
    "skeleton_of_titles",
    "without_reasoning",
]


MOST_POINTS = 1000
"""The most points of any answer. The parser stops here when a model loops until its window is full."""

# --- reasoning ------------------------------------------------------------------------------------

_MARK = re.compile(r"[<\[◁]")
"""The first characters of the marks of reasoning; `_MARK_WORDS` has those of the marks that are words."""
_MARK_WORDS = "afH"


class ReasoningFilter:
    """Takes a model's reasoning out of its text, which arrives in pieces.

    Reasoning is one block or several at the beginning of the text, in the marks of `reasoning_marks`. A block that is
    never closed is dropped, too. Marks that come later are text, but for a closing mark that nothing has opened and
    that is neither code nor a word of a sentence. Some chat templates open the block in the prompt, so all text before
    this mark was reasoning. Text that was returned before is void then (`restarted`).

    Only what may be a mark is held back.

    Attributes:
        restarted: Whether the last `feed` or `close` found that all text returned before it was reasoning.
    """

    def __init__(self) -> None:
        self.restarted = False
        self._reader: BlockReader | None = None
        self._begun = False
        # Text that passed by the reader. A mark counts or not by the text before it.
        self._passed: list[str] = []

    def feed(self, text: str) -> str:
        """The part of `text` (and of the text held back before) that is known not to be reasoning."""
        self.restarted = False
        if not _MARK.search(text):
            if not self._begun and self._reader is None:
                words = text.lstrip()
                if not words:
                    return text
                self._begun = words[0] not in _MARK_WORDS
            if self._begun:
                self._passed.append(text)
                return text
        return self._read(text)

    def close(self) -> str:
        """The text that was still held back. The filter can be used for another text then."""
        self.restarted = False
        rest = ""
        if self._reader is not None:
            rest = self._reader.close(self._passed)
            self.restarted = self._reader.restarted
        self._reader, self._begun, self._passed = None, False, []
        return rest

    def _read(self, text: str) -> str:
        if self._reader is None:
            # Few texts have marks, and the patterns take time to build.
            from skeleton_of_thought.parsing.reasoning import BlockReader

            self._reader = BlockReader()
        shown = self._reader.feed(self._passed, text)
        self.restarted, self._begun = self._reader.restarted, self._reader.idle
        return shown


def without_reasoning(text: str) -> str:
    """A whole text without its reasoning; see `ReasoningFilter`."""
    reasoning = ReasoningFilter()
    shown, rest = reasoning.feed(text), reasoning.close()
    return rest if reasoning.restarted else shown + rest


# --- the parser -----------------------------------------------------------------------------------

_LINE_END = re.compile(r"\r\n|\r|\n")


class SkeletonParser:
    """Reads a skeleton from text that arrives in pieces, as a person would read it.

    The `feed` that completes the line of a point returns the point. Some texts take longer:

    - A mark without a title waits for the next line.
    - Marks that sentences also begin with wait for a second line of their kind: headings, bold lines, `1st`, "First,",
      emoji. Below a single heading they wait for the end: it may be the title, or the first of more points.
    - Bullets below a heading, and bullets or numbers below a line such as "Introduction:", wait for the sections that
      they may be part of, until the end. So do bullets below prose, and numbers below a heading that is not a single
      "# Title", if the line above does not announce a list, as "Here are the points:" and "Outline" do.
    - JSON, the rows of a table, and terms in bold with a colon are read by `close`.

    Reasoning at the beginning is skipped. Where only its closing mark arrives, all text before the mark was reasoning,
    and the parser starts again: the points that it has returned are void (`restarted`), and those that `feed` or
    `close` returns then are the first ones. This is the only way in which returned points change.

    Args:
        max_points: Points after this many are ignored; never more than `MOST_POINTS`.
        prefill: The start of the reply, where a backend was made to continue it. The model's own text, and so its
            reasoning, begins after it. Its points are in `points`.
        planning: What is read of a point besides its title: `"scoped"` its note and its length, `"graph"` also the
            points before it that it builds on.

    Attributes:
        restarted: Whether the last `feed` or `close` found that all points before it are void.
        introduced: Whether the first point has other text before it.
        plan: The reader of what the points say besides their titles; None for `"titles"`.

    Raises:
        InvalidInput: `max_points` is less than 1.
    """

    def __init__(self, max_points: int | None = None, *, prefill: str = "", planning: Planning = "titles") -> None:
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
        self.restarted = self.introduced = False
        self._prefill = prefill
        self.plan: PlanReader | None = None
        if planning != "titles":
            from skeleton_of_thought.parsing.plan_reader import PlanReader

            self.plan = PlanReader(planning)
        if prefill:
            self._text.append(prefill)
            self._read(prefill)

    @property
    def points(self) -> tuple[Point, ...]:
        """The points found so far."""
        return tuple(self._points)

    @property
    def full(self) -> bool:
        """Whether `max_points` points are complete, so that the model may be stopped."""
        return len(self._points) >= self._most

    def feed(self, text: str) -> list[Point]:
        """The points that this next piece of text completes; none after `close`.

        A full parser goes on to look for the end of reasoning.
        """
        if self._skeleton is not None:
            return []
        self._text.append(text)
        before = len(self._points)
        part = self._filter.feed(text)
        self.restarted = self._filter.restarted
        if self.restarted:
            self._restart()
            before = 0
        if part and len(self._points) < self._most:
            self._read(part)
        return self._points[before:]

    def close(self, truncated: bool = False) -> Skeleton:
        """Ends the text; reads the line that is still open as well.

        Args:
            truncated: Whether the model was cut off (it reached its token limit): the point on a line that was cut
                is dropped if there are others.
        """
        if self._skeleton is None:
            part = self._filter.close()
            self.restarted = self._filter.restarted
            if self.restarted:
                self._restart()
            if not self.full:
                self._read(part)
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
            elif not self._points and not line.isspace() and line:
                self.introduced = True

    def _add(self, titles: list[Title]) -> None:
        count = len(self._points)
        for index, title in enumerate(titles[: self._most - count], count + 1):
            self._points.append(Point(index, title.text) if self.plan is None else self.plan.read(title))

    def _restart(self) -> None:
        self._points = []
        if self.plan is not None:
            self.plan.restart()
        self.introduced = False
        self._outline = Outline()
        self._line = []
        self._after_return = False
        if self._prefill:
            # The answer continues it or begins with it once more: a line of its own suits both.
            self._read(self._prefill + "\n")


def parse_skeleton(text: str, max_points: int | None = None, planning: Planning = "titles") -> Skeleton:
    """The skeleton in a complete text; empty when there is none. See `SkeletonParser`.

    Example:
        >>> parse_skeleton("Sure!\\n1) **Move**\\n2) Rest: at least 7 h").titles
        ('Move', 'Rest: at least 7 h')

    Raises:
        InvalidInput: `max_points` is less than 1.
    """
    parser = SkeletonParser(max_points, planning=planning)
    parser.feed(text)
    return parser.close()


def skeleton_of_titles(titles: Iterable[str]) -> Skeleton:
    """The skeleton of titles that a model gave as data; titles without any words are left out."""
    from skeleton_of_thought.parsing.data import plain_title

    plain = [plain_title(" ".join(title.split())) for title in titles]
    points = tuple(Point(i, title) for i, title in enumerate(filter(None, plain), 1))
    return Skeleton(points, "\n".join(plain))


def first_titles(titles: Sequence[str], most: int) -> tuple[str, ...]:
    """The first titles as whole, as many as have this many characters together, and a piece of the next one."""
    found, room = [], most
    for title in titles:
        found.append(title[:room])
        room -= len(title)
        if room <= 0:
            break
    return tuple(found)


# --- the skeleton of an answer --------------------------------------------------------------------

_LOOP = 3
"""A model that repeats so many titles in a row is in a loop: the rest of its skeleton is of no use."""

_READ_ON = 3
"""A list after other text is read up to so many times the points that are wanted: it may belong to the reasoning."""


class SkeletonWriting:
    """The points of a skeleton that is being written: numbered from 1, without repeats, and no more than `max_points`.

    `feed` and `close` return the points that may show now. Neither returns any until `min_points` are
    found, because the answer may still become direct.

    Args:
        min_points: With fewer points the skeleton is unusable.
        max_points: The most points.
        prefill: The start of the reply, where the backend continues it; see `SkeletonParser`.
        planning, max_depth, max_parents: See `SkeletonParser` and `PlanGuard`.

    Attributes:
        points: The points so far; they build on points before them only.
        complete: Whether the rest of the skeleton is of no use: there are enough points, or the model is in a loop. A
            list that comes after other text may be part of the model's reasoning, whose end is still to come. It is
            read on, up to three times `max_points`.
        restarted: Whether the points that were returned were part of the model's reasoning. They are `voided`, and
            those that are returned now are the first. Whoever takes them back clears it.
        voided: The points that were returned and are void.
        written: The skeleton as the model wrote it, repeats included; empty until `close`.
        reasoned: Whether it began with reasoning that only its closing mark has shown.
    """

    def __init__(  # noqa: PLR0917 - the sizes of a skeleton
        self,
        min_points: int,
        max_points: int,
        prefill: str = "",
        planning: Planning = "titles",
        max_depth: int = 2,
        max_parents: int = 8,
    ) -> None:
        self.points: list[Point] = []
        self.complete = self.restarted = self.reasoned = False
        self.voided: tuple[Point, ...] = ()
        self.written = Skeleton()
        self._min_points, self._max_points = min_points, max_points
        self._shown = self._found = 0
        self._parser = SkeletonParser(prefill=prefill, planning=planning)
        self._plan = self._parser.plan
        self._guard = self._plan.guard(max_depth, max_parents) if self._plan is not None else None
        self._prefilled = self._parser.points if prefill else ()
        self._titles: set[str] = set()
        self._repeats = 0

    def feed(self, text: str) -> Sequence[Point]:
        """Reads more text; returns the points that may show now."""
        points = self._parser.feed(text)
        if self._prefilled or self._parser.restarted:
            points = self._from_the_first()
        return self._add(points) if points else ()

    def close(
        self, *, truncated: bool, titles: Collection[str] | None = None, plan: Sequence[PlanItem] | None = None
    ) -> Sequence[Point]:
        """Ends the reading; returns the points that may show now.

        Args:
            truncated: The text or the list was cut off, so its last title may be half a title.
            titles: The titles, where the backend gave them as data; they count instead of the text.
            plan: The points with what is said of them, where the backend gave them as data; they count before titles.
        """
        known = len(self._parser.points)
        if titles is None and plan is None:
            self.written = self._parser.close(truncated=truncated)
            if self._parser.restarted:
                return self._add(self._from_the_first())
            return self._add(self.written.points[known:])
        given = list(titles or ()) if plan is None else list(plan)
        given = given[:-1] if truncated and len(given) > 1 else given
        if self._plan is None:
            self.written = skeleton_of_titles([item if isinstance(item, str) else item.title for item in given])
        else:
            self.written = self._plan.read_all(given)
        return self._add(self.written.points)

    def void(self) -> None:
        """Takes back all points that were returned: they are `voided`."""
        self.voided, self.points = tuple(self.points[: self._shown]), []

    @property
    def skeleton(self) -> Skeleton:
        """The points so far as a skeleton."""
        return Skeleton(tuple(self.points), self.written.text)

    @property
    def chain(self) -> bool:
        """Whether each point so far builds on the one before it; see `PlanGuard`."""
        return self._guard is not None and self._guard.chain

    @property
    def parallel(self) -> bool:
        """Whether the points can be no chain any more; always so without a graph."""
        return self._guard is None or self._guard.parallel

    @property
    def error(self) -> SkeletonError:
        """The error of a skeleton with too few points."""
        return SkeletonError(
            f"The model's skeleton has {len(self.points)} usable point(s), fewer than min_points={self._min_points}: "
            f"{self.written.text[:80]!r}. Try another model or skeleton prompt, or let "
            'on_empty_skeleton="direct" answer such questions directly.',
            self.written,
        )

    def _from_the_first(self) -> list[Point]:
        """Forgets what was read before the parser restarted; returns the parser's points."""
        self._prefilled = ()
        self.reasoned = self._parser.restarted
        if self._guard is not None:
            self._guard.restart()
        if self._shown:
            self.restarted, self.voided = True, tuple(self.points[: self._shown])
        self.points, self._titles = [], set()
        self._shown = self._found = self._repeats = 0
        return list(self._parser.points)

    def _add(self, points: Collection[Point]) -> Sequence[Point]:
        self._found += len(points)
        for point in points:
            title = point.title.casefold()
            if title in self._titles:
                # Small models repeat themselves; the same title twice would be the same text twice.
                self._repeats += 1
                if self._guard is not None:
                    self._guard.repeat(point)
                continue
            self._repeats = 0
            if len(self.points) < self._max_points:
                self._titles.add(title)
                if self._guard is not None:
                    point = self._guard.add(point)  # noqa: PLW2901 - the same point, safe
                self.points.append(dataclasses.replace(point, index=len(self.points) + 1))
        most = _READ_ON * self._max_points if self._parser.introduced else self._max_points
        enough = len(self.points) >= self._max_points and self._found >= most
        self.complete = enough or self._repeats >= _LOOP
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
