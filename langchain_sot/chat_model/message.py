"""An answer as chat messages: whole, or in chunks."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig

from langchain_sot.entry import AnswerBatch
from langchain_sot.messages import usage_metadata, without_usage
from langchain_sot.models.resolution import ChainModels
from langchain_sot.plan import AnswerPlan
from langchain_sot.results import errors_dict, sources_list
from skeleton_of_thought.adapters.replies import read_usage
from skeleton_of_thought.events import AnswerDelta, AnswerDone, AnswerFailed, Event
from skeleton_of_thought.types import Answer, Usage

if TYPE_CHECKING:
    from skeleton_of_thought.budget import Budget

__all__ = ["AnswerMessages", "as_chunk", "as_message", "joined_results", "uncounted", "with_usage"]

_M = TypeVar("_M", bound=BaseMessage)

_STAGES = "usage_by_stage"


@dataclass(frozen=True)
class AnswerMessages:
    """Runs the chain for one question and turns its answer into messages.

    Attributes:
        plan: How the answer is made.
        models: The plan's models, as far as the route of the call resolved them.
        question: The chain's input.
        config: The config of the answer's calls.
        kwargs: Keyword arguments of every call.
        model_name: The `model_name` in `response_metadata`.
        budget: The budget that the answer shares with others of its batch; None where it shares none.
    """

    plan: AnswerPlan
    models: ChainModels | None
    question: Any
    config: RunnableConfig
    kwargs: Mapping[str, Any]
    model_name: str
    budget: Budget | None = None

    def result(self) -> ChatResult:
        """The whole answer."""
        work = self._work(live=False)
        with contextlib.closing(work.run()) as events:
            (answer,) = [done for _, event in events if (done := _finished(event)) is not None]
        return self._result(answer, work)

    async def aresult(self) -> ChatResult:
        """Async twin of `result`."""
        work = self._work(live=False)
        async with contextlib.aclosing(work.arun()) as events:
            (answer,) = [done async for _, event in events if (done := _finished(event)) is not None]
        return self._result(answer, work)

    def chunks(self) -> Generator[ChatGenerationChunk]:
        """The answer in document order.

        The last chunk has `usage_metadata`, which is removed once the consumer has taken the chunk: `BaseChatModel`
        makes the run's result of the same chunks, and the tokens are counted at the calls.
        """
        work = self._work(live=True)
        with contextlib.closing(work.run()) as events:
            for _, event in events:
                if (chunk := self._chunk(event, work)) is not None:
                    yield chunk
                    _drop_usage(chunk, event)

    async def achunks(self) -> AsyncGenerator[ChatGenerationChunk]:
        """Async twin of `chunks`."""
        work = self._work(live=True)
        async with contextlib.aclosing(work.arun()) as events:
            async for _, event in events:
                if (chunk := self._chunk(event, work)) is not None:
                    yield chunk
                    _drop_usage(chunk, event)

    def _work(self, *, live: bool) -> AnswerBatch:
        given = (self.plan, [self.question], [self.config], self.kwargs)
        return AnswerBatch(*given, live=live, models=self.models, budget=self.budget)

    def _result(self, answer: Answer, work: AnswerBatch) -> ChatResult:
        message = _answer_message(answer, self.model_name, work.direct(0))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunk(self, event: Event, work: AnswerBatch) -> ChatGenerationChunk | None:
        if isinstance(event, AnswerDelta):
            return ChatGenerationChunk(message=AIMessageChunk(content=event.text))
        # A message's text cannot be taken back: after an `AnswerRestarted` the answer follows, set apart by the blank
        # line that came before it.
        answer = _finished(event)
        return None if answer is None else _last_chunk(answer, self.model_name, work.direct(0))


def _finished(event: Event) -> Answer | None:
    """The complete answer, if this event has it.

    Raises:
        Exception: The error of an answer that failed.
    """
    if isinstance(event, AnswerFailed):
        raise event.error
    return event.answer if isinstance(event, AnswerDone) else None


def _drop_usage(chunk: ChatGenerationChunk, event: Event) -> None:
    if isinstance(event, AnswerDone):
        chunk.message = chunk.message.model_copy(update={"usage_metadata": None})


def _answer_message(answer: Answer, model_name: str, direct: AIMessage | None) -> AIMessage:
    """The whole answer without `usage_metadata`, which `with_usage` adds.

    Args:
        answer: The answer.
        model_name: The model's name, for the metadata.
        direct: The model's own message of a direct answer, which may have more than text.
    """
    metadata = _metadata(answer, model_name)
    if direct is None:
        return AIMessage(content=answer.text, response_metadata=metadata)
    # The id of the model's message is that of the call's run. `BaseChatModel` gives the answer its own.
    own = {"id": None, "usage_metadata": None, "response_metadata": {**direct.response_metadata, **metadata}}
    return direct.model_copy(update=own)


def _last_chunk(answer: Answer, model_name: str, direct: AIMessage | None) -> ChatGenerationChunk:
    """The last chunk of a stream: the metadata and the usage, without text.

    Args:
        answer: The answer.
        model_name: The model's name, for the metadata.
        direct: The model's message of a direct answer, without its text; None on the other route.
    """
    metadata = _metadata(answer, model_name)
    message = AIMessageChunk(
        content="",
        additional_kwargs={} if direct is None else direct.additional_kwargs,
        response_metadata=metadata if direct is None else {**direct.response_metadata, **metadata},
        usage_metadata=_total(metadata[_STAGES]),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def with_usage(result: LLMResult) -> LLMResult:
    """The result with `usage_metadata` in its messages, for the caller.

    Callbacks get the result without it: they count the same tokens at the answer's calls.
    """
    generations = [[_with_usage(generation) for generation in row] for row in result.generations]
    return result.model_copy(update={"generations": generations})


def uncounted(result: ChatResult) -> ChatResult:
    """The result of the model's run without `usage_metadata`, see `with_usage`."""
    result.generations = [without_usage(generation) for generation in result.generations]
    return result


def _with_usage(generation: Any) -> Any:
    if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
        return generation
    usage = _total(generation.message.response_metadata.get(_STAGES, {}))
    message = generation.message.model_copy(update={"usage_metadata": usage})
    return generation.model_copy(update={"message": message})


def joined_results(results: list[LLMResult]) -> LLMResult:
    """The results of several conversations as the result of one `generate`."""
    runs = [run for result in results for run in result.run or []]
    generations = [generation for result in results for generation in result.generations]
    return LLMResult(generations=generations, llm_output={}, run=runs or None)


def as_message(output: Any) -> AIMessage:
    """A model's message as it is; a string LLM's text as a message."""
    return AIMessage(content=output) if isinstance(output, str) else output


def as_chunk(output: Any) -> AIMessageChunk:
    """A model's chunk as it is; a string LLM's text as a chunk."""
    return AIMessageChunk(content=output) if isinstance(output, str) else output


def _metadata(answer: Answer, model_name: str) -> dict[str, Any]:
    documents = sources_list(answer)
    return {
        "model_name": model_name,
        "finish_reason": answer.finish_reason or "stop",
        "finish_reasons": {str(e.point.index): e.finish_reason for e in answer.expansions},
        "route": answer.route,
        "reason": answer.reason,
        "skeleton": list(answer.skeleton.titles) if answer.route != "direct" else [],
        **({"planning": answer.planning, "plan": answer.skeleton.plan} if answer.planning != "titles" else {}),
        "errors": errors_dict(answer),
        **({"sources": _described(documents)} if documents else {}),
        "timings": answer.timings.to_dict(),
        _STAGES: {stage: usage_metadata(usage) for stage, usage in answer.usage_by_stage.items()},
        "usage_by_point": {str(e.point.index): usage_metadata(e.usage) for e in answer.expansions},
    }


def _described(documents: list[Document]) -> list[dict[str, Any]]:
    """The ids and the metadata of documents as JSON-safe data, without their texts."""
    described = [{"id": document.id, "metadata": document.metadata} for document in documents]
    return cast(list[dict[str, Any]], json.loads(json.dumps(described, default=str)))


def _total(stages: Mapping[str, UsageMetadata]) -> UsageMetadata | None:
    """The sum over all stages; None where no model reported its usage."""
    if not stages:
        return None
    return usage_metadata(sum((read_usage(usage) or Usage() for usage in stages.values()), Usage()))
