"""The events of one call on the LLM, as LlamaIndex's decorators of LLMs emit them, but with each token counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index_instrumentation.span import active_span_id

from llama_index_sot.llm_calls import LLMResponse
from llama_index_sot.skeleton_llm.inputs import LLMInput
from llama_index_sot.tracing import dispatcher, has_handlers

__all__ = ["USAGE_KEYS", "CallEvents"]

USAGE_KEYS = ("prompt_tokens", "completion_tokens", "total_tokens")
"""The keys of `additional_kwargs` in which LlamaIndex's OpenAI LLMs report tokens."""


class CallEvents:
    """The events of one call.

    A handler of the instrumentation hears this call and those of the wrapped LLM, so the event of this call has no
    usage. A legacy handler that listens to the wrapped LLM hears only its calls; any other hears this call, with the
    usage of all of them.

    Args:
        llm: The LLM that was called.
        wrapped: The LLMs that make the calls of its answer.
        given: What it was called with.
        kwargs: The keyword arguments of the call.
        answers: Whether the call is answered by points. If not, the wrapped LLM emits the same events itself.
    """

    def __init__(
        self, llm: LLM, wrapped: Sequence[LLM], given: LLMInput, kwargs: Mapping[str, Any], *, answers: bool
    ) -> None:
        self._llm = llm
        self._is_chat = given.prompt is None
        self._given: Any = list(given.messages) if given.prompt is None else given.prompt
        self._kwargs = dict(kwargs)
        self._manager = _unshared(llm.callback_manager, wrapped)
        self._speaks = answers and has_handlers(dispatcher)
        self._span_id = active_span_id.get()
        self._id = ""

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Begins the call. An error within ends it."""
        payload: dict[str, Any] = {
            self._input_key: self._given,
            EventPayload.ADDITIONAL_KWARGS: self._kwargs,
            EventPayload.SERIALIZED: self._model,
        }
        with self._manager.as_trace("chat" if self._is_chat else "completion"):
            if self._speaks:
                start = LLMChatStartEvent if self._is_chat else LLMCompletionStartEvent
                self._speak(start, additional_kwargs=self._kwargs, model_dict=self._model)
            self._id = self._manager.on_event_start(CBEventType.LLM, payload=payload)
            try:
                yield
            except BaseException as error:
                self._end({EventPayload.EXCEPTION: error})
                raise

    @contextlib.contextmanager
    def streamed(self) -> Iterator[None]:
        """Watches the stream of a call that has begun. An error within ends it."""
        try:
            yield
        except BaseException as error:
            self._end({EventPayload.EXCEPTION: error})
            if self._speaks:
                dispatcher.event(ExceptionEvent(exception=error, span_id=self._span_id))
            raise

    def progress(self, response: LLMResponse) -> None:
        """The next response of a stream."""
        if self._speaks:
            kind = LLMChatInProgressEvent if self._is_chat else LLMCompletionInProgressEvent
            self._speak(kind, response=_without_usage(response))

    def end(self, response: LLMResponse | None) -> None:
        """The end of the call, with its last response."""
        key = EventPayload.RESPONSE if self._is_chat else EventPayload.COMPLETION
        self._end({self._input_key: self._given, key: response})
        if self._speaks and response is not None:
            self._speak(LLMChatEndEvent if self._is_chat else LLMCompletionEndEvent, response=_without_usage(response))

    @property
    def _input_key(self) -> EventPayload:
        return EventPayload.MESSAGES if self._is_chat else EventPayload.PROMPT

    @property
    def _model(self) -> dict[str, Any]:
        return {"class_name": self._llm.class_name(), **self._llm.metadata.model_dump()}

    def _end(self, payload: Mapping[Any, Any]) -> None:
        self._manager.on_event_end(CBEventType.LLM, payload=dict(payload), event_id=self._id)

    def _speak(self, kind: Any, **fields: Any) -> None:
        given = {"messages" if self._is_chat else "prompt": self._given}
        dispatcher.event(kind(**given, **fields, span_id=self._span_id))


def _unshared(manager: CallbackManager, wrapped: Sequence[LLM]) -> CallbackManager:
    """The manager without the handlers that listen to the wrapped LLMs."""
    taken = [handler for llm in wrapped for handler in llm.callback_manager.handlers]
    if not any(handler in taken for handler in manager.handlers):
        return manager
    own = CallbackManager()
    # Set afterwards: a new manager has the global handler.
    own.set_handlers([handler for handler in manager.handlers if handler not in taken])
    return own


def _without_usage(response: LLMResponse) -> LLMResponse:
    raw, extra = response.raw, response.additional_kwargs
    return response.model_copy(
        update={
            "raw": {name: value for name, value in raw.items() if name != "usage"} if isinstance(raw, dict) else raw,
            "additional_kwargs": {name: value for name, value in extra.items() if name not in USAGE_KEYS},
        }
    )
