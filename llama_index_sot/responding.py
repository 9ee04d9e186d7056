"""From an answer on its way to the response that LlamaIndex gets, at once or as it is written."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator

from llama_index_sot.answering import Answering
from llama_index_sot.response import (
    AsyncSkeletonOfThoughtStreamingResponse,
    SkeletonOfThoughtResponse,
    SkeletonOfThoughtStreamingResponse,
)

__all__ = ["astreaming_response", "streaming_response", "whole_response"]

_Streaming = SkeletonOfThoughtStreamingResponse | AsyncSkeletonOfThoughtStreamingResponse


def whole_response(answering: Answering) -> SkeletonOfThoughtResponse:
    """The response of an answer that is complete."""
    return SkeletonOfThoughtResponse(
        answering.answer.text,
        source_nodes=answering.source_nodes,
        metadata={"sot": answering.metadata},
        points=answering.points,
    )


def streaming_response(answering: Answering) -> SkeletonOfThoughtStreamingResponse:
    """The response of an answer whose sources are found here, and whose text is written while it is read."""
    answering.sources()
    response = SkeletonOfThoughtStreamingResponse(_none(), answering.source_nodes, metadata={})
    _fill(response, answering)
    response.response_gen = _texts(answering, response)
    return response


async def astreaming_response(answering: Answering) -> AsyncSkeletonOfThoughtStreamingResponse:
    """Async twin of `streaming_response`.

    No task is under way when it returns: whoever gets the response may block the loop until it has its text.
    """
    await answering.asources()
    response = AsyncSkeletonOfThoughtStreamingResponse(_anone(), answering.source_nodes, metadata={})
    _fill(response, answering)
    response.response_gen = _atexts(answering, response)
    response.write_blocking = lambda: _write(answering, response)
    return response


def _texts(answering: Answering, response: _Streaming) -> Generator[str]:
    try:
        yield from answering.texts()
    finally:
        _fill(response, answering)


async def _atexts(answering: Answering, response: _Streaming) -> AsyncGenerator[str]:
    try:
        async with contextlib.aclosing(answering.atexts()) as texts:
            async for text in texts:
                yield text
    finally:
        _fill(response, answering)


def _write(answering: Answering, response: _Streaming) -> str:
    if answering.begun:
        raise RuntimeError("The response is being streamed: read its stream to the end before you ask for its text.")
    return "".join(_texts(answering, response))


def _fill(response: _Streaming, answering: Answering) -> None:
    response.points[:] = answering.points
    response.metadata = response.metadata or {}
    response.metadata["sot"] = answering.metadata


def _none() -> Generator[str]:
    yield from ()


async def _anone() -> AsyncGenerator[str]:
    nothing: tuple[str, ...] = ()
    for text in nothing:
        yield text
