"""LlamaIndex `Response` objects with the points of an answer."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.schema import NodeWithScore

from skeleton_of_thought.errors import error_text
from skeleton_of_thought.timeline import Timeline
from skeleton_of_thought.types import Answer

if TYPE_CHECKING:
    from skeleton_of_thought.flow import AnswerFlow

__all__ = [
    "AsyncSkeletonOfThoughtStreamingResponse",
    "Responding",
    "ResponsePoint",
    "SkeletonOfThoughtResponse",
    "SkeletonOfThoughtStreamingResponse",
    "response_metadata",
    "response_points",
    "union",
]

_CITED = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")
_DIGITS = 9
"""The most digits of the number of a source."""
_NODE_ID = attrgetter("node.node_id")
_METADATA = (
    *("route", "reason", "decision", "planning", "plan", "finish_reason", "merged", "merge_error"),
    *("opening", "closing", "role_errors"),
    *("concurrency", "retrieval", "timings", "usage", "usage_by_stage", "finish_reasons", "usage_by_point"),
)
"""The entries of `metadata["sot"]`, in their order."""


@dataclass(frozen=True)
class ResponsePoint:
    """One point of an answer.

    Attributes:
        index: Its number, from 1.
        title: Its title.
        text: Its text, without number and title; while the answer is streamed, empty.
        node_ids: The nodes that were retrieved for it, best first; their `NodeWithScore`s are in `source_nodes`.
        error: Why it failed; None for a point that succeeded.
        citations: With `citations=True`: the numbers in its text that name sources. `[3]` is `source_nodes[2]`.
        finish_reason: Why its text ended: `"stop"`, `"length"` for a text that a token limit cut, ...; None where the
            LLM does not say, and while the answer is streamed.
        scope: With a plan: what it covers, and perhaps what it leaves to others.
        depends_on: With a plan: the points that it builds on, and waited for.
        missing: Points that it builds on and that failed, so that it was written without their texts.
        rewritten: Whether it was written anew because it repeated another point.
    """

    index: int
    title: str
    text: str = ""
    node_ids: tuple[str, ...] = ()
    error: str | None = None
    citations: tuple[int, ...] = ()
    finish_reason: str | None = None
    scope: str = ""
    depends_on: tuple[int, ...] = ()
    missing: tuple[int, ...] = ()
    rewritten: bool = False


class _WithTimeline:
    """The time line of any response."""

    def timeline(self, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """A picture of when each call of this answer ran. Notebooks show it, and `str` draws it for terminals.

        While a response is streamed, the picture has the calls that `metadata` has so far; at the end it has all.

        Args:
            normal: Seconds that normal decoding took for the same query, shown for comparison; or the seconds of
                several methods, by their names.

        Raises:
            InvalidInput: Seconds are not positive and finite; or `metadata` has no `"sot"` entry any more.
        """
        return Timeline.of(self, normal)


@dataclass
class SkeletonOfThoughtResponse(_WithTimeline, Response):
    """A whole answer.

    Attributes:
        response: The text.
        source_nodes: All nodes that were retrieved, each once.
        metadata: `metadata["sot"]` records in plain data how the answer was made: `route` and `reason`, the router's
            `decision` (with its `score`, 0 to 1, where it has one), `concurrency`, `retrieval`, `timings` in seconds,
            `finish_reason`, also of each point, and `usage` in tokens, also by stage and by point. With points, the
            `finish_reason` is the worst end of any of them, or `"stop"`; of a direct answer it is the LLM's own.
            With the route `"items"` the points are the items of the query, each answered by itself.
            `planning` is the kind of skeleton, and `plan` has what each point covers (`scope`), builds on
            (`depends_on`) and in which `wave` it was written. `opening` and `closing` are the texts before and after
            the points, and `role_errors` says why one is missing.
        points: The points, in document order; empty for a direct answer.
    """

    points: list[ResponsePoint] = field(default_factory=list)

    def __str__(self) -> str:
        # The base class would return "None" for an empty text.
        return self.response or ""


@dataclass
class SkeletonOfThoughtStreamingResponse(_WithTimeline, StreamingResponse):
    """An answer that is written while `response_gen` is iterated, and not before.

    `source_nodes` is complete from the beginning. The points get their titles and nodes as soon as these are known.
    Their texts and `metadata["sot"]` are filled in at the end.

    Attributes:
        points: The points, in document order.
        final_txt: The answer's text, where text that was streamed has turned out to be void; else None.
    """

    points: list[ResponsePoint] = field(default_factory=list)
    final_txt: str | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.get_response().response or ""

    def get_response(self) -> SkeletonOfThoughtResponse:
        """Writes the rest of the answer and returns all of it."""
        if self.response_txt is None:
            text = "".join(self.response_gen or ())
            self.response_txt = text if self.final_txt is None else self.final_txt
        return SkeletonOfThoughtResponse(self.response_txt, self.source_nodes, self.metadata, self.points)


@dataclass
class AsyncSkeletonOfThoughtStreamingResponse(_WithTimeline, AsyncStreamingResponse):
    """Async twin of `SkeletonOfThoughtStreamingResponse`.

    `str(response)` blocks until the answer is complete. It works on a running event loop, too, where tools call it: the
    answer is then written in threads, as by `query`.

    Attributes:
        points: The points, in document order.
        write_blocking: Writes the whole answer without an event loop and returns its text.
        final_txt: See `SkeletonOfThoughtStreamingResponse`.
    """

    points: list[ResponsePoint] = field(default_factory=list)
    write_blocking: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    final_txt: str | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        # The base class iterates the stream on another loop, where clients of this loop do not work, and turns every
        # RuntimeError into one about nested loops.
        if self.response_txt is None and self.write_blocking is not None:
            self.response_txt = self.write_blocking()
        return self.response_txt or ""

    async def _yield_response(self) -> AsyncGenerator[str]:
        async with self._lock:
            if self.response_txt is not None:
                yield self.response_txt
                return
            pieces: list[str] = []
            # Closed as soon as its reader stops, not at garbage collection: until then its calls would go on.
            async with contextlib.aclosing(self.response_gen) as stream:
                async for text in stream:
                    pieces.append(text)
                    yield text
            self.response_txt = "".join(pieces) if self.final_txt is None else self.final_txt

    async def async_response_gen(self) -> AsyncGenerator[str]:
        """The text as it is written. Closing it early ends all open calls, and returns when they have ended."""
        async with contextlib.aclosing(self._yield_response()) as texts:
            async for text in texts:
                yield text

    async def get_response(self) -> SkeletonOfThoughtResponse:
        """Writes the rest of the answer and returns all of it."""
        async for _ in self._yield_response():
            pass
        return SkeletonOfThoughtResponse(self.response_txt, self.source_nodes, self.metadata, self.points)


def union(groups: Iterable[Iterable[NodeWithScore]]) -> list[NodeWithScore]:
    """The nodes of all groups in order, each once."""
    found: dict[str, NodeWithScore] = {}
    for group in groups:
        for source in group:
            found.setdefault(source.node.node_id, source)
    return list(found.values())


def response_points(answer: Answer, sources: list[NodeWithScore], *, citations: bool) -> list[ResponsePoint]:
    """The points of an answer.

    Args:
        answer: The answer.
        sources: All its nodes, in the order of their numbers.
        citations: Whether the texts may cite these numbers.
    """
    numbers = len(sources) if citations else 0
    return [
        ResponsePoint(
            index=expansion.point.index,
            title=expansion.point.title,
            text=expansion.text,
            node_ids=tuple(map(_NODE_ID, expansion.sources)),
            error=None if expansion.error is None else error_text(expansion.error),
            citations=_cited_numbers(expansion.text, numbers) if numbers else (),
            finish_reason=expansion.finish_reason,
            scope=expansion.point.scope,
            depends_on=expansion.point.depends_on,
            missing=expansion.missing,
            rewritten=expansion.rewritten,
        )
        for expansion in answer.expansions
    ]


def _cited_numbers(text: str, numbers: int) -> tuple[int, ...]:
    written = [number.strip() for group in _CITED.findall(text) for number in group.split(",")]
    # Python reads no number of thousands of digits.
    found = [int(number) for number in written if len(number) <= _DIGITS]
    return tuple(dict.fromkeys(number for number in found if 1 <= number <= numbers))


def response_metadata(answer: Answer, *, concurrency: str, retrieval: str) -> dict[str, Any]:
    """The entry `metadata["sot"]`: plain data about an answer, without the texts of its points.

    Args:
        answer: The answer.
        concurrency: How its calls ran side by side.
        retrieval: The option of that name: `"once"`, `"per_point"` or `"none"`.
    """
    data = answer.to_dict() | {"concurrency": concurrency, "retrieval": retrieval}
    data |= {"finish_reasons": {}, "usage_by_point": {}}
    for expansion in data["expansions"]:
        data["finish_reasons"][str(expansion["index"])] = expansion["finish_reason"]
        data["usage_by_point"][str(expansion["index"])] = expansion["usage"]
    return {name: data[name] for name in _METADATA}


_Streaming = SkeletonOfThoughtStreamingResponse | AsyncSkeletonOfThoughtStreamingResponse


class Responding(ABC):
    """Makes the response of an answer, which a subclass runs."""

    _flow: AnswerFlow
    _live: bool
    """Whether text is shown while it is written."""
    _begun: bool
    """Whether the answer's events are being read."""
    _restarted: bool
    """Whether text of the answer that was shown is void."""

    @property
    @abstractmethod
    def answer(self) -> Answer:
        """The answer so far."""

    @property
    @abstractmethod
    def source_nodes(self) -> list[NodeWithScore]:
        """All retrieved nodes, each once."""

    @property
    @abstractmethod
    def points(self) -> list[ResponsePoint]:
        """The points so far."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """The entry `metadata["sot"]` so far."""

    @abstractmethod
    def whole(self) -> str:
        """Makes the whole answer and returns its text."""

    @abstractmethod
    async def awhole(self) -> str:
        """Async twin of `whole`."""

    @abstractmethod
    def texts(self) -> Generator[str]:
        """The answer's text as it is written."""

    @abstractmethod
    def atexts(self) -> AsyncGenerator[str]:
        """Async twin of `texts`."""

    @abstractmethod
    def find_sources(self) -> None:
        """Runs the answer until all its sources are found."""

    @abstractmethod
    async def afind_sources(self) -> None:
        """Async twin of `find_sources`."""

    def respond(self) -> SkeletonOfThoughtResponse | SkeletonOfThoughtStreamingResponse:
        """Makes the response. A live one has its sources; its text is written while it is read."""
        if not self._live:
            self.whole()
            return self.response()
        self.find_sources()
        response = SkeletonOfThoughtStreamingResponse(_no_texts(), self.source_nodes, metadata={})
        self._fill(response)
        response.response_gen = self._filling_texts(response)
        return response

    async def arespond(self) -> SkeletonOfThoughtResponse | AsyncSkeletonOfThoughtStreamingResponse:
        """Async twin of `respond`.

        No task runs when this returns a streaming response, so a reader may block the loop until it has the text.
        """
        if not self._live:
            await self.awhole()
            return self.response()
        await self.afind_sources()
        response = AsyncSkeletonOfThoughtStreamingResponse(_no_atexts(), self.source_nodes, metadata={})
        self._fill(response)
        response.response_gen = self._filling_atexts(response)
        response.write_blocking = lambda: self._write(response)
        return response

    def response(self) -> SkeletonOfThoughtResponse:
        """The response of a complete answer."""
        return SkeletonOfThoughtResponse(
            self.answer.text,
            source_nodes=self.source_nodes,
            metadata={"sot": self.metadata},
            points=self.points,
        )

    def _filling_texts(self, response: _Streaming) -> Generator[str]:
        try:
            yield from self.texts()
        finally:
            self._fill(response)

    async def _filling_atexts(self, response: _Streaming) -> AsyncGenerator[str]:
        try:
            async with contextlib.aclosing(self.atexts()) as texts:
                async for text in texts:
                    yield text
        finally:
            self._fill(response)

    def _write(self, response: _Streaming) -> str:
        if self._begun:
            raise RuntimeError(
                "The response is being streamed: read its stream to the end before you ask for its text."
            )
        text = "".join(self._filling_texts(response))
        return text if response.final_txt is None else response.final_txt

    def _fill(self, response: _Streaming) -> None:
        if self._restarted and self._flow.finished:
            response.final_txt = self.answer.text
        response.points[:] = self.points
        response.metadata = response.metadata or {}
        response.metadata["sot"] = self.metadata


def _no_texts() -> Generator[str]:
    """The stream of a response until its own is known."""
    yield from ()


async def _no_atexts() -> AsyncGenerator[str]:
    """Async twin of `_no_texts`."""
    nothing: tuple[str, ...] = ()
    for text in nothing:
        yield text
