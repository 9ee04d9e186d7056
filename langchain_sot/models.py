"""Calls on LangChain models: opens what a flow asks for, and tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun
from langchain_core.callbacks.base import AsyncCallbackHandler
from langchain_core.language_models import BaseLLM
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable

from langchain_sot.chat_transformers import ChatTransformers
from langchain_sot.messages import Asked, convert_messages, render_text
from langchain_sot.skeleton_schema import Structured, ask_structured
from skeleton_of_thought.types import Call, Decoding, Reply, Usage

__all__ = ["Backend", "Calls", "call_config", "continues_prefill", "find_backend", "message_usage", "unbound"]

_LENGTH = frozenset({"max_tokens", "max_output_tokens", "length"})


@dataclass(frozen=True)
class Backend:
    """What kind of model stands behind a runnable.

    Attributes:
        model: The model itself, out of its wrappers; any runnable may be one.
    """

    model: Runnable[Any, Any]

    @property
    def native(self) -> bool:
        """Whether it is this package's own, which takes a prefill, stop strings and a limit with each call."""
        return isinstance(self.model, ChatTransformers)

    @property
    def text(self) -> bool:
        """Whether it completes a string instead of answering a chat."""
        return isinstance(self.model, BaseLLM)


def find_backend(llm: Runnable[Any, Any]) -> Backend:
    """Looks through bindings, retries, fallbacks and configurable fields."""
    while True:
        if isinstance(llm, RunnableBindingBase):
            llm = llm.bound
        elif isinstance(llm, RunnableWithFallbacks):
            # Every one of them gets the same input: what only some understand, none must get.
            backends = [find_backend(runnable) for runnable in llm.runnables]
            return next((backend for backend in backends if not backend.native), backends[0])
        elif isinstance(llm, DynamicRunnable):
            llm = llm.default
        else:
            return Backend(llm)


def continues_prefill(llm: Runnable[Any, Any], config: RunnableConfig) -> bool:
    """Whether the model that this config chooses is known to continue the start of its turn."""
    return find_backend(unbound(llm, config, {})[0]).native


def call_config(config: RunnableConfig, call: Call) -> RunnableConfig:
    """The config of one call: a child run with the stage as its name, and the point in its metadata."""
    metadata: dict[str, Any] = {"sot_stage": call.stage}
    name: str = "answer" if call.stage == "direct" else call.stage
    if call.point is not None:
        name = f"point {call.point.index}: {call.point.title}"
        metadata |= {"sot_point": call.point.index, "sot_attempt": call.attempt}
    return merge_configs(config, {"run_name": name, "tags": [f"sot:{call.stage}"], "metadata": metadata})


@dataclass(frozen=True)
class _Request:
    llm: Runnable[Any, Any]
    input: Any
    config: RunnableConfig
    kwargs: dict[str, Any]
    streamed: bool
    structured: bool = False


@dataclass(frozen=True)
class Calls:
    """Opens the calls of several flows.

    Attributes:
        llm: Writes the skeletons, the merges and the direct answers.
        point_llm: Writes the points.
        asked: What is asked, by the flow's position.
        configs: The config for the calls, by the flow's position: children of its root run.
        streamed: The stages whose text is wanted while it is written; the others are one `invoke` each,
            which caches may answer.
        kwargs: Passed on to the models.
    """

    llm: Runnable[Any, Any]
    point_llm: Runnable[Any, Any]
    asked: Sequence[Asked]
    configs: Sequence[RunnableConfig]
    streamed: frozenset[str]
    kwargs: Mapping[str, Any]

    def open(self, call: Call, position: int) -> Iterator[str | Reply]:
        """Makes a call, yields its text as it comes, and last how it ended."""
        request = self._request(call, position)
        outcome = _Outcome(structured=request.structured)
        if not request.streamed:
            yield outcome.add(request.llm.invoke(request.input, request.config, **request.kwargs))
            yield from outcome.end()
            return
        stream = request.llm.stream(request.input, request.config, **request.kwargs)
        try:
            for chunk in stream:
                yield outcome.add(chunk)
        finally:
            # Closed here and not when it is collected: the call's run shall end before its parent's.
            _close(stream)
        yield from outcome.end()

    async def aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        """Async twin of `open`."""
        request = self._request(call, position)
        outcome = _Outcome(structured=request.structured)
        if not request.streamed:
            async with _ended_runs(request.config) as config:
                message = await request.llm.ainvoke(request.input, config, **request.kwargs)
            yield outcome.add(message)
            for item in outcome.end():
                yield item
            return
        stream = request.llm.astream(request.input, request.config, **request.kwargs)
        try:
            async for chunk in stream:
                yield outcome.add(chunk)
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()
        for item in outcome.end():
            yield item

    def _request(self, call: Call, position: int) -> _Request:
        assert call.prompt is not None, "the driver asks routers itself"
        config = call_config(self.configs[position], call)
        llm, config, kwargs = unbound(self.point_llm if call.stage == "point" else self.llm, config, self.kwargs)
        backend = find_backend(llm)
        streamed = call.stage in self.streamed
        if call.stage == "direct":
            return _Request(llm, self.asked[position].untouched, config, kwargs, streamed)
        prompt = call.prompt
        if call.structured and (asking := ask_structured(llm, kwargs)) is not None:
            llm, config, kwargs = unbound(asking, config, {})
            return _Request(llm, convert_messages(prompt), config, kwargs, streamed, structured=True)
        if backend.native:
            kwargs = _native(kwargs, call, cast(ChatTransformers, backend.model))
        if backend.text:
            return _Request(llm, render_text(prompt), config, kwargs, streamed)
        messages = convert_messages(prompt)
        if prompt.prefill and not backend.native:
            messages.append(AIMessage(prompt.prefill))
        return _Request(llm, messages, config, kwargs, streamed)


def unbound(
    llm: Runnable[Any, Any], config: RunnableConfig, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], RunnableConfig, dict[str, Any]]:
    """The model out of its bindings, with the config and the arguments that a call on it takes.

    A binding's `astream` leaves the model's stream to the garbage collector when it is closed early, so bindings
    are taken off and what they bind is passed by hand.
    """
    merged = dict(kwargs)
    while True:
        if isinstance(llm, RunnableBinding) and _only_binds(type(llm)):
            config = merge_configs(llm.config, *(make(config) for make in llm.config_factories), config)
            merged = {**llm.kwargs, **merged}
            llm = llm.bound
        elif isinstance(llm, DynamicRunnable):
            llm, config = llm.prepare(config)
        else:
            return llm, config, merged


def _only_binds(kind: type[RunnableBinding[Any, Any]]) -> bool:
    """Whether a binding's class runs what it binds as `RunnableBinding` does; `BaseChatModel.bind` makes a subclass."""
    return all(
        getattr(kind, way) is getattr(RunnableBinding, way) for way in ("invoke", "ainvoke", "stream", "astream")
    )


def _native(kwargs: dict[str, Any], call: Call, model: ChatTransformers) -> dict[str, Any]:
    assert call.prompt is not None
    prompt = call.prompt
    own = kwargs.get("max_tokens", model.max_tokens)
    if call.stage == "merge" and prompt.max_tokens and not {"max_tokens"} & {*kwargs, *model.model_fields_set}:
        # The model's default is meant for one reply; a merge that is cut there would be in vain.
        own = prompt.max_tokens
    limit = own if prompt.max_tokens is None else min(own, prompt.max_tokens)
    hints = {"prefill": prompt.prefill, "stop_after_text": prompt.stop, "max_tokens": limit}
    # What the caller has set goes before these.
    defaults = {
        "min_new_tokens": prompt.min_tokens,
        "frequency_penalty": prompt.frequency_penalty,
        "presence_penalty": prompt.presence_penalty,
    }
    return {**defaults, **kwargs, **hints}


class _Outcome:
    """What a call's chunks say about how it ended; of one that gives data, also its data."""

    def __init__(self, *, structured: bool = False) -> None:
        self._structured = Structured() if structured else None
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._decoding: Decoding | None = None

    def add(self, chunk: Any) -> str:
        """Takes a chunk, or the whole message; returns its text."""
        if isinstance(chunk, str):
            return chunk
        if not isinstance(chunk, BaseMessage):
            raise TypeError(
                f"The model gave {type(chunk).__name__}, but must give messages or strings: pass the model itself, "
                "without a parser that turns its text into something else."
            )
        self._finish = _finish_reason(chunk.response_metadata) or self._finish
        self._decoding = _decoding(chunk) or self._decoding
        if (usage := message_usage(chunk)) is not None:
            self._usage = (self._usage or Usage()) + usage
        if self._structured is not None:
            self._structured.add(chunk)
            return ""
        return str(chunk.text)

    def end(self) -> Iterator[str | Reply]:
        """What is known only now: text that was no data, and the reply."""
        reply = self.reply
        if self._structured is not None and reply.titles is None:
            yield self._structured.text
        yield reply

    @property
    def reply(self) -> Reply:
        titles = None if self._structured is None else self._structured.titles
        return Reply(usage=self._usage, finish_reason=self._finish, decoding=self._decoding, titles=titles)


def message_usage(message: Any) -> Usage | None:
    """The tokens that a model's message says were spent; None where it says nothing."""
    if not isinstance(message, AIMessage) or not message.usage_metadata:
        return None
    usage = message.usage_metadata
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    return Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0), cached)


def _finish_reason(metadata: Mapping[str, Any]) -> str | None:
    for key in ("finish_reason", "stop_reason", "done_reason"):
        if isinstance(reason := metadata.get(key), str) and reason:
            return "length" if reason.lower() in _LENGTH else reason
    return None


def _decoding(message: BaseMessage) -> Decoding | None:
    """What `ChatTransformers` says that its engine did for this reply."""
    told, names = message.response_metadata.get("decoding"), Decoding.__dataclass_fields__
    if not isinstance(told, Mapping) or not told.keys() >= names.keys():
        return None
    usage: Mapping[str, Any] = (isinstance(message, AIMessage) and message.usage_metadata) or {}
    if usage.get("total_cost") == 0:
        # So LangChain marks what comes out of its cache, for which nothing was decoded.
        return None
    return Decoding(**{name: told[name] for name in names})


def _close(stream: Any) -> None:
    if (close := getattr(stream, "close", None)) is not None:
        close()


@contextlib.asynccontextmanager
async def _ended_runs(config: RunnableConfig) -> AsyncIterator[RunnableConfig]:
    """A config whose model runs are ended when the call is cancelled.

    `BaseChatModel.ainvoke` forgets its run when its task is cancelled: tracers would show it as running for
    ever. `astream` does not.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, AsyncCallbackManager):
        yield config
        return
    manager = callbacks.copy()
    runs = _OpenRuns()
    manager.add_handler(runs, inherit=True)
    try:
        yield {**config, "callbacks": manager}
    except asyncio.CancelledError as error:
        for run_id, details in runs.open.items():
            run = AsyncCallbackManagerForLLMRun(
                run_id=run_id,
                handlers=callbacks.handlers,
                inheritable_handlers=callbacks.inheritable_handlers,
                **details,
            )
            await run.on_llm_error(error)
        raise


class _OpenRuns(AsyncCallbackHandler):
    """Knows which model runs have begun and not ended."""

    run_inline = True

    def __init__(self) -> None:
        self.open: dict[Any, dict[str, Any]] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **details: Any) -> None:
        self._begin(run_id, details)

    async def on_llm_start(self, serialized: Any, prompts: Any, *, run_id: Any, **details: Any) -> None:
        self._begin(run_id, details)

    async def on_llm_end(self, response: Any, *, run_id: Any, **_: Any) -> None:
        self.open.pop(run_id, None)

    async def on_llm_error(self, error: BaseException, *, run_id: Any, **_: Any) -> None:
        self.open.pop(run_id, None)

    def _begin(self, run_id: Any, details: Mapping[str, Any]) -> None:
        self.open[run_id] = {key: details.get(key) for key in ("parent_run_id", "tags", "metadata")}
