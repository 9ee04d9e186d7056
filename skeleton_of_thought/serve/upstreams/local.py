"""Models in this process, with chat completions of our own over the engine."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._cli.backend import prefilled_stages
from skeleton_of_thought._cli.diagnostics import one_line
from skeleton_of_thought._cli.local_backend import DEMO, TINY
from skeleton_of_thought._cli.models import ModelSpec, load_failure
from skeleton_of_thought.errors import EngineClosed, ModelLoadError, PromptTooLong, SotError
from skeleton_of_thought.serve.errors import ServeError
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.serve.upstreams.local_request import LocalRequest, read_local_request, sampling_settings
from skeleton_of_thought.serve.upstreams.replies import End, Piece, Pieces, streamed, whole
from skeleton_of_thought.serve.upstreams.threads import in_thread
from skeleton_of_thought.types import Call, Prompt, Reply

if TYPE_CHECKING:
    from skeleton_of_thought.adapters.tool_calls import WrittenCall
    from skeleton_of_thought.local import AsyncCompletionStream, LocalEngine

__all__ = ["LocalUpstream", "open_local"]

logger = logging.getLogger(__name__)

_LONG = 50_000
"""Characters of a prompt whose tokens are counted beside the event loop first: one that does not fit never reaches it,
and one that fits most windows takes the loop a few milliseconds."""
_PENALTIES = ("frequency_penalty", "presence_penalty")


async def open_local(model: ModelSettings, spec: ModelSpec) -> LocalUpstream:
    """Loads a model beside the event loop; models of the same name share one.

    Raises:
        ModelLoadError, MissingExtra: As for `LocalEngine.from_pretrained`.
    """

    def load() -> LocalEngine:
        from skeleton_of_thought.local import shared_engine

        try:
            return shared_engine(spec.name, {"progress": logger.info})
        except ModelLoadError as error:
            raise load_failure(error, spec.name) from error

    return LocalUpstream(await in_thread(load), model, demo=spec.name in (None, DEMO))


class LocalUpstream:
    """A model in this process; see `skeleton_of_thought.serve.upstream.Upstream`.

    Args:
        engine: The engine.
        model: The settings of the model.
        demo: Whether it is the demo model.
    """

    stop_loops = True
    local = True

    def __init__(self, engine: LocalEngine, model: ModelSettings, *, demo: bool = False) -> None:
        continues = model.prefill == "yes" or (model.prefill == "auto" and engine.takes_prefill)
        self.prefill = prefilled_stages(continues)
        self.remark = TINY if demo else None
        self._engine = engine
        self._model = model

    def check(self, sampling: Mapping[str, Any]) -> None:
        """Refuses sampling that no call could take."""
        sampling_settings(sampling)

    async def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """Opens one call of an answer, see the protocol."""
        assert call.prompt is not None, "only calls with a prompt reach a model"
        settings = sampling_settings(sampling)
        # Many clients send OpenAI's default, which asks for nothing; the prompts' own keep small models from loops.
        settings = {name: value for name, value in settings.items() if value or name not in _PENALTIES}
        await self._check_length(call.prompt, len(call.prompt.prefill) + sum(len(m.text) for m in call.prompt.messages))
        async with self._engine.astream(call.prompt, max_new_tokens=self._model.max_tokens, **settings) as stream:
            async for text in stream:
                yield text
            done = stream.completion
        yield Reply(done.usage, done.finish_reason, decoding=done.decoding)

    async def pass_through(self, request: ChatRequest) -> Passed:
        """Answers a request as OpenAI's protocol has it."""
        asked = read_local_request(self._engine, request.body, self._model.max_tokens)
        stream = await self._open(asked)
        if request.stream:
            return streamed(_pieces(stream, asked), request, close=stream.aclose)
        async with stream:
            return await whole(_pieces(stream, asked), request)

    async def _open(self, asked: LocalRequest) -> AsyncCompletionStream:
        """Begins a completion, with a limit that fits the model's window."""
        await self._check_length(asked.messages, sum(len(str(message["content"])) for message in asked.messages))
        if (grammar := asked.settings.get("grammar")) is not None:
            # The first one takes about a second, for which the other streams would stand still.
            await asyncio.to_thread(self._engine.prepare, grammar)
        try:
            return self._engine.astream(asked.messages, **asked.settings)
        except PromptTooLong:
            # The limit is the most that the caller wants, and clients send large ones to be safe.
            shown = {name: asked.settings[name] for name in ("prefill", "tools") if name in asked.settings}
            room = (self._engine.context_window or 0) - self._engine.count_tokens(asked.messages, **shown)
            if not 0 < room < (asked.settings.get("max_new_tokens") or 0):
                raise
            return self._engine.astream(asked.messages, **{**asked.settings, "max_new_tokens": room})

    async def _check_length(self, prompt: Prompt | list[dict[str, Any]], chars: int) -> None:
        window = self._engine.context_window
        if chars < _LONG or window is None:
            return
        if (tokens := await asyncio.to_thread(self._engine.count_tokens, prompt)) >= window:
            raise PromptTooLong(
                f"The prompt has {tokens} tokens, but the model's window is {window}: shorten the conversation."
            )

    def explain(self, error: BaseException) -> str:
        """Describes an error of the engine in one line."""
        if isinstance(error, EngineClosed):
            return "The model has been closed: the server is stopping."
        text = str(error) if isinstance(error, SotError | ServeError) else one_line(error)
        return text.replace("max_new_tokens", "max_tokens")

    async def close(self) -> None:
        """Ends all open calls, and the engine's thread."""
        await in_thread(self._engine.close)


async def _pieces(stream: AsyncCompletionStream, asked: LocalRequest) -> Pieces:
    reader = asked.reader
    async for text in stream:
        if shown := text if reader is None else reader.feed(text):
            yield Piece(shown)
    done = stream.completion
    if reader is not None:
        rest = reader.finish(cut=done.finish_reason == "length")
        # A call that cannot be read is text to a client of this protocol, which has no other place for it.
        broken = [str(call["args"]).removeprefix("Unreadable: ") for call in rest.calls if call["type"] != "tool_call"]
        calls = [call for call in rest.calls if call["type"] == "tool_call"]
        text = "".join((rest.text, *broken))
        if text or calls or rest.reasoning:
            yield Piece(text, rest.reasoning, [_delta(call, index) for index, call in enumerate(calls)])
    yield End(done.finish_reason, done.usage)


def _delta(call: WrittenCall, index: int) -> dict[str, Any]:
    named = {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)}
    return {"index": index, "id": call["id"], "type": "function", "function": named}
