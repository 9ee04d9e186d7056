"""The skeleton's parser as a LangChain output parser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from pydantic import Field

from skeleton_of_thought.parsing.parser import SkeletonParser, parse_skeleton
from skeleton_of_thought.types import Planning

__all__ = ["SkeletonOutputParser"]


class SkeletonOutputParser(BaseTransformOutputParser[list[str]]):
    """Reads the titles of a skeleton's points from a model's text.

    It understands the lists that models really write: `1.`, `2)`, bullets, bold, headings, several points on a line.
    In a stream, each title is emitted as a list of its own as soon as its line is complete; the lists add up
    to the result of `parse`. A text without points gives an empty list. If titles turn out to be part of the model's
    reasoning, the next list is a `langchain_sot.results.RestartList`, which replaces what it is added to.

    Example:
        >>> from langchain_sot import SkeletonOutputParser
        >>> SkeletonOutputParser().parse("1. Take breaks\\n2. Move")
        ['Take breaks', 'Move']

    Attributes:
        max_points: The most titles to return; None for all.
        planning: The kind of skeleton that the text is. What its lines say besides titles is left out of these;
            `skeleton_of_thought.parsing.parse_skeleton` gives it.
    """

    max_points: int | None = Field(default=None, ge=1)
    planning: Planning = "titles"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Always: the parser is plain data."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """The name in dumps, which a move of the class to another module does not change."""
        return ["langchain_sot", "skeleton_parser"] if cls is SkeletonOutputParser else super().get_lc_namespace()

    @property
    def _type(self) -> str:
        return "skeleton"

    def parse(self, text: str) -> list[str]:
        """The titles of all points in `text`."""
        return list(parse_skeleton(text, self.max_points, planning=self.planning).titles)

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[list[str]]:
        titles = _Titles(self.max_points, self.planning)
        for chunk in input:
            for found in titles.feed(chunk):
                yield found
        for found in titles.close():
            yield found

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[list[str]]:
        titles = _Titles(self.max_points, self.planning)
        async for chunk in input:
            for found in titles.feed(chunk):
                yield found
        for found in titles.close():
            yield found


class _Titles:
    """The titles that are new with each chunk, each as a list of its own."""

    def __init__(self, max_points: int | None, planning: Planning) -> None:
        self._parser = SkeletonParser(max_points, planning=planning)
        self._count = 0

    def feed(self, chunk: str | BaseMessage) -> list[list[str]]:
        """The lists to emit now."""
        text = chunk if isinstance(chunk, str) else str(chunk.text)
        return self._lists([point.title for point in self._parser.feed(text)])

    def close(self) -> list[list[str]]:
        """The rest of the lists: at least one in all."""
        known = self._count
        titles = self._parser.close().titles
        lists = self._lists(list(titles) if self._parser.restarted else list(titles[known:]))
        return lists if lists or self._count else [[]]

    def _lists(self, titles: list[str]) -> list[list[str]]:
        lists = [[title] for title in titles]
        if self._parser.restarted and self._count:
            from langchain_sot.results import RestartList

            lists.insert(0, RestartList())
            self._count = 0
        self._count += len(titles)
        return lists
