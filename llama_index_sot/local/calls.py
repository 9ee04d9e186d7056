"""One call of `TransformersLLM` on its engine: the settings that go in, the responses that come out."""

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

__all__ = ["Call", "astreamed", "awhole", "chat_response", "completion_response", "streamed", "whole"]

Response = TypeVar("Response")
Respond = Callable[[str, str | None, Completion | None], Response]
"""Makes a response of the text so far, what is new of it, and the whole completion once there is one."""

_HINTS: dict[str, Any] = {**engine_settings(Hints()), "prefill": "", "grammar": None}
"""Keywords of a call that are no settings of the LLM, and their defaults."""

_LIMITS = ("max_tokens", "max_new_tokens")


class Call:
    """One call, ready to be made.

    Args:
        engine: The engine.
        prompt: The prompt.
        defaults: The LLM's own settings, `max_tokens` among them.
        given: What the call's keywords say instead; None says nothing.

    Raises:
        InvalidInput: There is no such keyword, two of them say the same, or the prompt cannot work.
    """

    def __init__(self, engine: Any, prompt: LocalPrompt, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        from skeleton_of_thought.local.generation import fit_settings

        self._engine = engine
        self._prompt = prompt.content
        settings = _settings(defaults, given)
        settings["prefill"] = prompt.prefill + settings["prefill"]
        used = engine.count_tokens(prompt.content, prefill=settings["prefill"])
        self._settings = fit_settings(settings, used, engine.context_window)

    def open(self) -> CompletionStream:
        """Decoded from now on, to be read by a thread."""
        stream: CompletionStream = self._engine.stream(self._prompt, **self._settings)
        return stream

    def aopen(self) -> AsyncCompletionStream:
        """Async twin of `open`."""
        stream: AsyncCompletionStream = self._engine.astream(self._prompt, **self._settings)
        return stream


def _settings(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in given.items() if value is not None}
    if strange := sorted(said.keys() - {*defaults, *_HINTS, *_LIMITS}):
        raise InvalidInput(
            f"TransformersLLM does not know {', '.join(strange)}. With a call it takes "
            f"{', '.join(sorted({*defaults, *_HINTS, *_LIMITS}))}."
        )
    if all(name in said for name in _LIMITS):
        raise InvalidInput("max_tokens and max_new_tokens say the same: give one of them.")
    settings = {**_HINTS, **defaults, **said}
    limit = settings.pop("max_tokens")
    settings.setdefault("max_new_tokens", limit)
    settings["stop"] = settings["stop"] or ()
    if settings["grammar"] is not None and "min_new_tokens" not in said:
        settings["min_new_tokens"] = 0  # a grammar says itself when the text may end
    return settings


# --- streams ---


def whole(stream: CompletionStream, respond: Respond[Response]) -> Response:
    """The response of a stream, once it has ended."""
    with stream:
        for _ in stream:
            pass
    completion = stream.completion
    return respond(completion.text, None, completion)


async def awhole(stream: AsyncCompletionStream, respond: Respond[Response]) -> Response:
    """Async twin of `whole`."""
    async with stream:
        async for _ in stream:
            pass
    completion = stream.completion
    return respond(completion.text, None, completion)


def streamed(stream: CompletionStream, respond: Respond[Response]) -> Generator[Response, None, None]:
    """The responses of a stream, the last with what it cost. Closing it frees the row."""
    text = ""
    with stream:
        for piece in stream:
            text += piece
            yield respond(text, piece, None)
    yield respond(text, "", stream.completion)


def astreamed(stream: AsyncCompletionStream, respond: Respond[Response]) -> AsyncGenerator[Response, None]:
    """Async twin of `streamed`."""
    return _Responses(stream, respond)


class _Responses(AsyncGenerator[Response, None]):
    """Not a generator function: one that is dropped unfinished, as LlamaIndex's callbacks drop it when their own
    generator is closed, only ends when the event loop gets to it. This one's row is free at once."""

    def __init__(self, stream: AsyncCompletionStream, respond: Respond[Response]) -> None:
        self._stream = stream
        self._respond: Respond[Response] = respond
        self._text = ""
        self._ended = False

    async def asend(self, value: None) -> Response:
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await anext(self._stream)
        except StopAsyncIteration:
            self._ended = True
            return self._respond(self._text, "", self._stream.completion)
        except BaseException:
            self._ended = True
            raise
        self._text += piece
        return self._respond(self._text, piece, None)

    async def athrow(self, *error: Any) -> Response:
        self._ended = True
        await self._stream.aclose()
        return await super().athrow(*error)


# --- responses ---


def chat_response(text: str, delta: str | None, completion: Completion | None) -> ChatResponse:
    """A message of the assistant's."""
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=_raw(completion))


def completion_response(text: str, delta: str | None, completion: Completion | None) -> CompletionResponse:
    """A text."""
    return CompletionResponse(text=text, delta=delta, raw=_raw(completion))


def _raw(completion: Completion | None) -> dict[str, Any] | None:
    """What a completion cost and why it ended, in the form of OpenAI's servers, which LlamaIndex counts by."""
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
