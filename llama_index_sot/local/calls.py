"""One call of `TransformersLLM` on its engine: settings and responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from llama_index_sot.local.prompts import LocalPrompt
from skeleton_of_thought.adapters.hints import engine_settings
from skeleton_of_thought.adapters.replies import completion_metadata
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Completion, Hints

if TYPE_CHECKING:
    from skeleton_of_thought.local import AsyncCompletionStream, CompletionStream

__all__ = ["CALL_ONLY", "LocalCall", "astreamed", "awhole", "chat_response", "completion_response", "streamed", "whole"]

ResponseT = TypeVar("ResponseT")
MakeResponse = Callable[[str, str | None, Completion | None], ResponseT]
"""Makes a response from the text so far, its new part, and the completion, which is None before the end."""

_HINTS: dict[str, Any] = {**engine_settings(Hints()), "prefill": "", "grammar": None}
"""Keywords that only a call takes, not the LLM, and their defaults."""

_LIMITS = ("max_tokens", "max_new_tokens")

CALL_ONLY = frozenset((*_HINTS, *_LIMITS))
"""Keywords that a call takes, besides the LLM's own settings."""


class LocalCall:
    """One call of an engine, prepared.

    Args:
        engine: The engine.
        prompt: The prompt.
        defaults: The LLM's own settings, `max_tokens` among them.
        given: The call's keyword arguments; None stands for the default.

    Raises:
        InvalidInput: There is no such keyword, two of them contradict each other, or the prompt cannot work.
    """

    def __init__(self, engine: Any, prompt: LocalPrompt, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        from skeleton_of_thought.local.generation import fit_settings

        self._engine = engine
        self._prompt = prompt.content
        settings = _settings(defaults, given)
        settings["prefill"] = prompt.prefill + settings["prefill"]
        if prompt.stops:
            stop = settings["stop"] or engine.configured_stops(settings["generation_config"])
            settings["stop"] = (*((stop,) if isinstance(stop, str) else stop), *prompt.stops)
        split = settings["split_special_tokens"]
        used = engine.count_tokens(prompt.content, prefill=settings["prefill"], split_special_tokens=split)
        self._settings = fit_settings(settings, used, engine.context_window)

    def open(self) -> CompletionStream:
        """Begins to decode; a thread reads the stream."""
        stream: CompletionStream = self._engine.stream(self._prompt, **self._settings)
        return stream

    def aopen(self) -> AsyncCompletionStream:
        """Async twin of `open`."""
        stream: AsyncCompletionStream = self._engine.astream(self._prompt, **self._settings)
        return stream


def _settings(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(chosen.keys() - {*defaults, *CALL_ONLY}):
        raise InvalidInput(
            f"TransformersLLM does not know {', '.join(unknown)}. With a call it takes "
            f"{', '.join(sorted({*defaults, *CALL_ONLY}))}."
        )
    if all(name in chosen for name in _LIMITS):
        raise InvalidInput("max_tokens and max_new_tokens mean the same: give one of them.")
    settings = {**_HINTS, **defaults, **chosen}
    limit = settings.pop("max_tokens")
    settings.setdefault("max_new_tokens", limit)
    # None stands for the engine's default: what the model's generation config says.
    settings["stop"] = settings["stop"] or None
    settings["min_new_tokens"] = settings["min_new_tokens"] or None
    if settings["grammar"] is not None and "min_new_tokens" not in chosen:
        settings["min_new_tokens"] = None  # the grammar decides when the text may end
    return settings


# --- streams ---


def whole(stream: CompletionStream, make: MakeResponse[ResponseT]) -> ResponseT:
    """The response of a stream, once it has ended."""
    with stream:
        for _ in stream:
            pass
    completion = stream.completion
    return make(completion.text, None, completion)


async def awhole(stream: AsyncCompletionStream, make: MakeResponse[ResponseT]) -> ResponseT:
    """Async twin of `whole`."""
    async with stream:
        async for _ in stream:
            pass
    completion = stream.completion
    return make(completion.text, None, completion)


def streamed(stream: CompletionStream, make: MakeResponse[ResponseT]) -> Generator[ResponseT, None, None]:
    """The responses of a stream; the last one has the usage. Closing it frees the row."""
    text = ""
    with stream:
        for piece in stream:
            text += piece
            yield make(text, piece, None)
    yield make(text, "", stream.completion)


def astreamed(stream: AsyncCompletionStream, make: MakeResponse[ResponseT]) -> AsyncGenerator[ResponseT, None]:
    """Async twin of `streamed`."""
    return _Responses(stream, make)


class _Responses(AsyncGenerator[ResponseT, None]):
    """The responses of an async stream.

    Not a generator function: LlamaIndex's callbacks drop the inner generator when their own is closed, and a dropped
    generator ends only when the event loop gets to it. This class frees its row at once.
    """

    def __init__(self, stream: AsyncCompletionStream, make: MakeResponse[ResponseT]) -> None:
        self._stream = stream
        self._make: MakeResponse[ResponseT] = make
        self._text = ""
        self._ended = False

    async def asend(self, value: None) -> ResponseT:
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await anext(self._stream)
        except StopAsyncIteration:
            self._ended = True
            return self._make(self._text, "", self._stream.completion)
        except BaseException:
            self._ended = True
            raise
        self._text += piece
        return self._make(self._text, piece, None)

    async def athrow(self, *error: Any) -> ResponseT:
        self._ended = True
        await self._stream.aclose()
        return await super().athrow(*error)


# --- responses ---


def chat_response(text: str, delta: str | None, completion: Completion | None) -> ChatResponse:
    """A response with the assistant's message."""
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=_raw(completion))


def completion_response(text: str, delta: str | None, completion: Completion | None) -> CompletionResponse:
    """A response with a text."""
    return CompletionResponse(text=text, delta=delta, raw=_raw(completion))


def _raw(completion: Completion | None) -> dict[str, Any] | None:
    """Usage and finish reason in the form of OpenAI's servers, which LlamaIndex reads for its token counts."""
    if completion is None:
        return None
    usage = completion.usage
    return {
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
        **completion_metadata(completion),
    }
