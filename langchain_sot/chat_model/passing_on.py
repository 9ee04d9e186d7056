"""What a chat model over a chain passes on to the chain's `llm` as if nothing were in between, and how."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import LLMResult

from langchain_sot.messages import convert_message
from langchain_sot.models.streams import aclose, close
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Conversation

__all__ = [
    "CARRIED",
    "aclosed",
    "as_chunk",
    "as_message",
    "asks_a_question",
    "closed",
    "joined",
    "with_stop",
]

CARRIED = frozenset(
    {
        "cache_control",
        "extra_headers",
        "frequency_penalty",
        "logit_bias",
        "min_p",
        "model",
        "model_name",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "repeat_penalty",
        "repetition_penalty",
        "request_timeout",
        "safety_identifier",
        "seed",
        "service_tier",
        "stream",
        "stream_options",
        "stream_usage",
        "temperature",
        "timeout",
        "top_k",
        "top_p",
        "user",
    }
)
"""What may be given with a call and still be answered through a skeleton, because each of the answer's calls can take
it by itself. Anything else is about the text as a whole, or unknown, and sends the call to the model untouched."""


def asks_a_question(messages: Sequence[BaseMessage]) -> bool:
    """Whether a conversation ends with something that a human says, so that it can be answered."""
    try:
        Conversation(tuple(convert_message(message) for message in messages))
    except InvalidInput:
        return False
    return True


def joined(results: list[LLMResult]) -> LLMResult:
    """Results of one list of messages each as the result of all."""
    runs = [run for result in results for run in result.run or []]
    generations = [generation for result in results for generation in result.generations]
    return LLMResult(generations=generations, llm_output={}, run=runs or None)


def with_stop(stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call on any runnable: not every one takes a `stop` that is None."""
    return dict(kwargs) if stop is None else {"stop": stop, **kwargs}


def as_message(output: Any) -> AIMessage:
    """A model's message as it is; the text of a string LLM as one."""
    return AIMessage(content=output) if isinstance(output, str) else output


def as_chunk(output: Any) -> AIMessageChunk:
    """A model's chunk as it is; the text of a string LLM as one."""
    return AIMessageChunk(content=output) if isinstance(output, str) else output


@contextlib.contextmanager
def closed(chunks: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Closes what can be closed; LangChain's iterators are generators, but not said to be."""
    try:
        yield chunks
    finally:
        close(chunks)


@contextlib.asynccontextmanager
async def aclosed(chunks: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Async twin of `closed`."""
    try:
        yield chunks
    finally:
        await aclose(chunks)
