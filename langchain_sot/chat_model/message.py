"""An answer as a chat message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult

from langchain_sot.results import errors_dict
from skeleton_of_thought.types import Answer, Usage

__all__ = ["answer_chunk", "answer_message", "told_usage", "without_usage"]

_M = TypeVar("_M", bound=BaseMessage)

_STAGES = "usage_by_stage"


def answer_message(answer: Answer, model_name: str, direct: AIMessage | None = None) -> AIMessage:
    """The whole answer, without `usage_metadata`; see `told_usage`.

    Args:
        answer: The answer.
        model_name: Who wrote it.
        direct: The model's own message of a direct answer, which may have more than text.
    """
    metadata = _metadata(answer, model_name)
    if direct is None:
        return AIMessage(content=answer.text, response_metadata=metadata)
    # Its id is that of the call's run; the answer has one of its own.
    own = {"id": None, "usage_metadata": None, "response_metadata": {**direct.response_metadata, **metadata}}
    return direct.model_copy(update=own)


def answer_chunk(answer: Answer, model_name: str, *, usage: bool) -> ChatGenerationChunk:
    """The last chunk of a stream, which has all but the text."""
    metadata = _metadata(answer, model_name)
    message = AIMessageChunk(
        content="",
        response_metadata=metadata,
        usage_metadata=_summed(metadata[_STAGES]) if usage else None,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def told_usage(result: LLMResult) -> LLMResult:
    """The result with the usage in its messages, for the caller.

    Callbacks have had the result without: they hear of the same tokens from the answer's calls.
    """
    generations = [[_told(generation) for generation in row] for row in result.generations]
    return result.model_copy(update={"generations": generations})


def _told(generation: Any) -> Any:
    if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
        return generation
    usage = _summed(generation.message.response_metadata.get(_STAGES, {}))
    message = generation.message.model_copy(update={"usage_metadata": usage})
    return generation.model_copy(update={"message": message})


def without_usage(message: _M) -> _M:
    """A copy of the message that says nothing about tokens spent."""
    return message.model_copy(update={"usage_metadata": None})


def _metadata(answer: Answer, model_name: str) -> dict[str, Any]:
    return {
        "model_name": model_name,
        "finish_reason": _finish_reason(answer),
        "route": answer.route,
        "reason": answer.reason,
        "skeleton": list(answer.skeleton.titles) if answer.route == "skeleton" else [],
        "errors": errors_dict(answer),
        "timings": answer.timings.to_dict(),
        _STAGES: {stage: _usage(usage) for stage, usage in answer.usage_by_stage.items()},
    }


def _finish_reason(answer: Answer) -> str:
    reasons = [answer.finish_reason, *(expansion.finish_reason for expansion in answer.expansions)]
    if "length" in reasons:
        return "length"
    return (answer.route == "direct" and answer.finish_reason) or "stop"


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


def _summed(stages: Mapping[str, UsageMetadata]) -> UsageMetadata | None:
    """The sum over all stages; None where no backend told."""
    if not stages:
        return None
    total = Usage()
    for usage in stages.values():
        cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
        total += Usage(usage["input_tokens"], usage["output_tokens"], cached)
    return _usage(total)
