"""What an answer is to LlamaIndex: `Response` objects that know their points."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, Response, StreamingResponse
from llama_index.core.schema import NodeWithScore

from skeleton_of_thought.errors import error_text
from skeleton_of_thought.timeline import Timeline
from skeleton_of_thought.types import Answer, Expansion

__all__ = [
    "AsyncSkeletonOfThoughtStreamingResponse",
    "ResponsePoint",
    "SkeletonOfThoughtResponse",
    "SkeletonOfThoughtStreamingResponse",
    "about",
    "response_points",
    "union",
]

_CITED = re.compile(r"\[(\d+(?:\s*,\s*\d+)*)\]")


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
    """

    index: int
    title: str
    text: str = ""
    node_ids: tuple[str, ...] = ()
    error: str | None = None
    citations: tuple[int, ...] = ()


class _Drawn:
    """What all responses have beside their texts."""

    def timeline(self, normal: float | Mapping[str, float] | None = None) -> Timeline:
        """A picture of when each call of this answer ran; notebooks show it, `str` of it is one for terminals.

        Of a response that is being streamed it shows what ran as far as `metadata` knows, at the end all of it.

        Args:
            normal: Seconds that normal decoding took for the same query, to be shown beside it; or several ways' by
                their names.

        Raises:
            InvalidInput: Seconds that are not positive and finite; or `metadata` was taken away.
        """
        return Timeline.of(self, normal)


@dataclass
class SkeletonOfThoughtResponse(_Drawn, Response):
    """A whole answer.

    Attributes:
        response: The text.
        source_nodes: All nodes that were retrieved, each once.
        metadata: `metadata["sot"]` says in plain data how the answer came about: `route` and `reason`, the router's
            `decision` (with its `score`, 0 to 1, where it has one), `concurrency`, `retrieval`, `timings` in seconds,
            `usage` in tokens, also by stage.
        points: The points, in document order; empty for a direct answer.
    """

    points: list[ResponsePoint] = field(default_factory=list)

    def __str__(self) -> str:
        # An empty text is one; the base class says "None".
        return self.response or ""


@dataclass
class SkeletonOfThoughtStreamingResponse(_Drawn, StreamingResponse):
    """An answer that is written while `response_gen` is iterated, and not before.

    `source_nodes` is complete from the beginning. The points have their titles and nodes as soon as these are known,
    and their texts at the end, when `metadata["sot"]` is filled in, too.

    Attributes:
        points: The points, in document order.
    """

    points: list[ResponsePoint] = field(default_factory=list)

    def __str__(self) -> str:
        return self.get_response().response or ""

    def get_response(self) -> SkeletonOfThoughtResponse:
        """The whole answer; writes it to its end."""
        if self.response_txt is None:
            self.response_txt = "".join(self.response_gen or ())
        return SkeletonOfThoughtResponse(self.response_txt, self.source_nodes, self.metadata, self.points)


@dataclass
class AsyncSkeletonOfThoughtStreamingResponse(_Drawn, AsyncStreamingResponse):
    """Async twin of `SkeletonOfThoughtStreamingResponse`.

    `str(response)` blocks until the answer is whole, and works on a running event loop, too, where tools call it: it
    is then written in threads, as by `query`.

    Attributes:
        points: The points, in document order.
        write_blocking: Writes the whole answer without an event loop and returns its text.
    """

    points: list[ResponsePoint] = field(default_factory=list)
    write_blocking: Callable[[], str] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        # The base class iterates the stream on another loop, where clients of this one would not work, and
        # turns every RuntimeError into one about nested loops.
        if self.response_txt is None and self.write_blocking is not None:
            self.response_txt = self.write_blocking()
        return self.response_txt or ""

    async def _yield_response(self) -> AsyncGenerator[str]:
        async with self._lock:
            if self.response_txt is not None:
                yield self.response_txt
                return
            pieces: list[str] = []
            # Closed with whoever reads it, and not when it is collected: nothing is to run on unread.
            async with contextlib.aclosing(self.response_gen) as stream:
                async for text in stream:
                    pieces.append(text)
                    yield text
            self.response_txt = "".join(pieces)

    async def async_response_gen(self) -> AsyncGenerator[str]:
        """The text as it is written. Closing it early ends what is under way, and returns when that has ended."""
        async with contextlib.aclosing(self._yield_response()) as texts:
            async for text in texts:
                yield text

    async def get_response(self) -> SkeletonOfThoughtResponse:
        """The whole answer; writes it to its end."""
        async for _ in self._yield_response():
            pass
        return SkeletonOfThoughtResponse(self.response_txt, self.source_nodes, self.metadata, self.points)


def union(groups: Iterable[Iterable[NodeWithScore]]) -> list[NodeWithScore]:
    """All nodes of these groups, each once, in their order."""
    found: dict[str, NodeWithScore] = {}
    for group in groups:
        for source in group:
            found.setdefault(source.node.node_id, source)
    return list(found.values())


def response_points(answer: Answer, sources: list[NodeWithScore], *, citations: bool) -> list[ResponsePoint]:
    """The points of an answer."""
    return [_point(expansion, len(sources) if citations else 0) for expansion in answer.expansions]


def _point(expansion: Expansion, numbers: int) -> ResponsePoint:
    found = [int(number) for group in _CITED.findall(expansion.text) for number in group.split(",")]
    return ResponsePoint(
        index=expansion.point.index,
        title=expansion.point.title,
        text=expansion.text,
        node_ids=tuple(source.node.node_id for source in expansion.sources),
        error=None if expansion.error is None else error_text(expansion.error),
        citations=tuple(dict.fromkeys(number for number in found if 1 <= number <= numbers)),
    )


def about(answer: Answer, **more: Any) -> dict[str, Any]:
    """What `metadata["sot"]` says of an answer: plain data, with its titles and without its texts."""
    told = answer.to_dict()
    names = ("route", "reason", "decision", "finish_reason", "merged", "merge_error")
    spent = ("timings", "usage", "usage_by_stage")
    return {**{name: told[name] for name in names}, **more, **{name: told[name] for name in spent}}
