"""Calls on LangChain models: opens what a flow asks for, and tells how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun
from langchain_core.callbacks.base import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from langchain_sot.messages import Asked, convert_messages, render_text
from langchain_sot.models.kinds import takes_text
from langchain_sot.models.servers import ReplyEnd, begin_turn, continues_turn, with_timeout
from langchain_sot.models.text_calls import acomplete, as_string, complete
from langchain_sot.models.wrappers import Backend, abegin, aclose, begin, close, find_backend, settled, unbound
from langchain_sot.skeleton_schema import Structured, ask_structured
from skeleton_of_thought.drive import AsyncTogether, Together
from skeleton_of_thought.together import Whole
from skeleton_of_thought.types import Call, Decoding, Prompt, Reply, Stage, Usage

if TYPE_CHECKING:
    from langchain_sot.local.chat_transformers import ChatTransformers

__all__ = ["Calls", "Models", "call_config", "message_usage"]


@dataclass(frozen=True)
class Models:
    """The two models of a chain.

    Attributes:
        llm: Writes the skeletons, the merges and the direct answers.
        point_llm: Writes the points.
        adopts: Whether local models of LangChain's Hugging Face classes get an engine.
        kwargs: Passed on to the models.
    """

    llm: Runnable[Any, Any]
    point_llm: Runnable[Any, Any]
    adopts: bool = True
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def of(self, stage: Stage) -> Runnable[Any, Any]:
        """The one that writes this stage."""
        return self.point_llm if stage == "point" else self.llm

    def settled(self, stage: Stage, config: RunnableConfig) -> Runnable[Any, Any]:
        """The model that this config chooses, with what is around it."""
        return settled(self.of(stage), config, self.kwargs, adopts=self.adopts)

    def serial(self, config: RunnableConfig) -> bool:
        """Whether one of the models that this config chooses must not be called twice at a time."""
        stages: tuple[Stage, ...] = ("skeleton", "point")
        return any(find_backend(self.settled(stage, config)).serial for stage in stages)

    def room(self, config: RunnableConfig) -> int | None:
        """How many calls can really run side by side, where the caller's limit and the models tell; None for enough."""
        if self.serial(config):
            return 1
        limits = [config.get("max_concurrency")]
        writer = find_backend(self.settled("point", config))
        if writer.native:
            limits.append(cast("ChatTransformers", writer.model).engine.parallel_rows)
        return min((limit for limit in limits if limit is not None), default=None)

    def prepare(self) -> None:
        """Adopts what can be adopted now, rather than amid the first answer: an engine packs a model's weights."""
        for llm in (self.llm, self.point_llm):
            settled(llm, {}, self.kwargs, adopts=self.adopts)

    def continues_prefill(self, stage: Stage, config: RunnableConfig) -> bool:
        """Whether the model that this config chooses is known to continue the start of its turn."""
        llm = self.settled(stage, config)
        return find_backend(llm).native or continues_turn(llm, config, self.kwargs)


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
    backend: Backend
    structured: bool = False

    @property
    def echo(self) -> str:
        """What the output may begin with without being part of it: `HuggingFacePipeline` repeats its prompt."""
        return self.input if self.backend.text else ""


@dataclass(frozen=True)
class Calls:
    """Opens the calls of several flows.

    Attributes:
        models: The models, and what is passed on to them.
        asked: What is asked, by the flow's position.
        configs: The config for the calls, by the flow's position: children of its root run.
        streamed: The stages whose text is wanted while it is written; the others are one `invoke` each,
            which caches may answer. String LLMs get all of those that start together in one `generate`.
        direct: The models' messages of direct answers that came whole, by the flow's position: they may have more
            than text.
    """

    models: Models
    asked: Sequence[Asked]
    configs: Sequence[RunnableConfig]
    streamed: frozenset[str]
    direct: dict[int, AIMessage] = field(default_factory=dict)

    # --- one call ---

    def open(self, call: Call, position: int) -> Iterator[str | Reply]:
        """Makes a call, yields its text as it comes, and last how it ended."""
        request = self._request(call, position)
        outcome = _Outcome(request.echo, structured=request.structured)
        if not request.streamed:
            if request.backend.text:
                yield from outcome.whole(complete(request.llm, [request.input], [request.config], request.kwargs)[0])
                return
            output = request.llm.invoke(request.input, request.config, **request.kwargs)
            self._keep(call, position, output)
            yield from outcome.whole(output)
            return
        stream = begin(request.llm, request.input, request.config, request.kwargs)
        try:
            for chunk in stream:
                yield outcome.add(chunk)
        finally:
            # Closed here and not when it is collected: the call's run shall end before its parent's.
            close(stream)
        yield outcome.rest
        yield outcome.reply

    async def aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        """Async twin of `open`."""
        request = self._request(call, position)
        outcome = _Outcome(request.echo, structured=request.structured)
        async with _ended_runs(request.config) as config:
            if not request.streamed:
                if request.backend.text:
                    output = (await acomplete(request.llm, [request.input], [config], request.kwargs))[0]
                else:
                    output = await request.llm.ainvoke(request.input, config, **request.kwargs)
                    self._keep(call, position, output)
                for item in outcome.whole(output):
                    yield item
                return
            stream = abegin(request.llm, request.input, config, request.kwargs)
            try:
                async for chunk in stream:
                    yield outcome.add(chunk)
            finally:
                await aclose(stream)
            yield outcome.rest
        yield outcome.reply

    def _keep(self, call: Call, position: int, output: Any) -> None:
        if call.stage == "direct" and isinstance(output, AIMessage):
            self.direct[position] = output

    # --- several calls at once ---

    @property
    def together(self) -> Together:
        """Makes the calls of a string LLM that start at the same moment by one `generate`."""
        return Together(self._together_key, self._complete)

    @property
    def atogether(self) -> AsyncTogether:
        """Async twin of `together`."""
        return AsyncTogether(self._together_key, self._acomplete)

    def _together_key(self, call: Call, position: int) -> Hashable | None:
        if call.stage in self.streamed:
            return None
        try:
            if not find_backend(self.models.settled(call.stage, self.configs[position])).text:
                return None
            # What makes a model of the same runnable is what its config has for it.
            llm = self.models.of(call.stage)
            names = [spec.id for spec in llm.config_specs]
            chosen = [[(config.get("configurable") or {}).get(name) for name in names] for config in self.configs]
            return id(llm), chosen.index(chosen[position])
        except Exception:  # the call itself will raise it, in its own place
            return None

    def _complete(self, calls: Sequence[tuple[Call, int]]) -> list[Whole | Exception]:
        requests = [self._request(call, position) for call, position in calls]
        first = requests[0]
        prompts, configs = [r.input for r in requests], [r.config for r in requests]
        return _wholes(requests, complete(first.llm, prompts, configs, first.kwargs))

    async def _acomplete(self, calls: Sequence[tuple[Call, int]]) -> list[Whole | Exception]:
        requests = [self._request(call, position) for call, position in calls]
        first = requests[0]
        prompts, configs = [r.input for r in requests], [r.config for r in requests]
        return _wholes(requests, await acomplete(first.llm, prompts, configs, first.kwargs))

    # --- what is sent ---

    def _request(self, call: Call, position: int) -> _Request:
        assert call.prompt is not None, "the driver asks routers itself"
        config = call_config(self.configs[position], call)
        llm, config, kwargs = unbound(self.models.settled(call.stage, config), config, self.models.kwargs)
        backend = find_backend(llm)
        streamed = call.stage in self.streamed
        prompt = call.prompt
        if not prompt.prefill:
            llm, kwargs = begin_turn(llm, config, kwargs)
        if call.stage == "direct":
            untouched = self.asked[position].untouched
            if backend.text or takes_text(backend.model):
                untouched = as_string(untouched)
            return _Request(llm, untouched, config, kwargs, streamed, backend)
        if call.timeout is not None:
            kwargs = with_timeout(llm, config, kwargs, call.timeout)
        model = cast("ChatTransformers", backend.model)
        # What follows no schema writes for as long as it may.
        limited = {**kwargs, "max_tokens": _limit(kwargs, prompt, model)} if backend.native else kwargs
        if call.structured and (asking := ask_structured(llm, limited)) is not None:
            llm, config, kwargs = unbound(asking, config, {})
            return _Request(llm, convert_messages(prompt), config, kwargs, streamed, backend, structured=True)
        if backend.native:
            kwargs = _native(kwargs, call, model)
        if backend.text:
            return _Request(llm, render_text(prompt), config, kwargs, streamed, backend)
        messages = convert_messages(prompt)
        if prompt.prefill and not backend.native:
            messages.append(AIMessage(prompt.prefill))
        return _Request(llm, messages, config, kwargs, streamed, backend)


def _wholes(requests: Sequence[_Request], outputs: Sequence[Any]) -> list[Whole | Exception]:
    return [_whole(request, output) for request, output in zip(requests, outputs, strict=True)]


def _whole(request: _Request, output: Any) -> Whole | Exception:
    if isinstance(output, Exception):
        return output
    try:
        return _Outcome(request.echo).whole(output)
    except Exception as error:
        return error


def _limit(kwargs: Mapping[str, Any], prompt: Prompt, model: ChatTransformers) -> int:
    own: int = kwargs.get("max_tokens", model.max_tokens)
    return own if prompt.hints.max_tokens is None else min(own, prompt.hints.max_tokens)


def _native(kwargs: dict[str, Any], call: Call, model: ChatTransformers) -> dict[str, Any]:
    assert call.prompt is not None
    prompt = call.prompt
    limit = _limit(kwargs, prompt, model)
    if call.stage == "merge" and prompt.hints.max_tokens and not {"max_tokens"} & {*kwargs, *model.model_fields_set}:
        # The model's default is meant for one reply; a merge that is cut there would be in vain.
        limit = prompt.hints.max_tokens
    hints = {"prefill": prompt.prefill, "stop_after_text": prompt.hints.stop, "max_tokens": limit}
    # What the caller has set goes before these.
    defaults = {
        "min_new_tokens": prompt.hints.min_tokens,
        "frequency_penalty": prompt.hints.frequency_penalty,
        "presence_penalty": prompt.hints.presence_penalty,
    }
    return {**defaults, **kwargs, **hints}


class _Outcome:
    """What a call's chunks say about how it ended.

    Args:
        echo: What a whole output may begin with that is not part of it.
        structured: Whether data was asked for: the text is then known only at the end (`rest`).
    """

    def __init__(self, echo: str = "", *, structured: bool = False) -> None:
        self._echo = echo
        self._structured = Structured() if structured else None
        self._usage: Usage | None = None
        self._end = ReplyEnd()
        self._decoding: Decoding | None = None

    def whole(self, output: Any) -> tuple[str, Reply]:
        """The text of an output that came at once, and how it ended."""
        if isinstance(output, Exception):
            raise output
        if isinstance(output, tuple):
            output, info = output
            self._end.add(info)
        return self.add(output).removeprefix(self._echo) + self.rest, self.reply

    def add(self, chunk: Any) -> str:
        """Takes a chunk, or the whole message; returns its text."""
        if isinstance(chunk, str):
            return chunk
        if not isinstance(chunk, BaseMessage):
            raise TypeError(
                f"The model gave {type(chunk).__name__}, but must give messages or strings: pass the model itself, "
                "without a parser that turns its text into something else."
            )
        self._end.add(chunk.response_metadata)
        self._decoding = _decoding(chunk) or self._decoding
        if (usage := message_usage(chunk)) is not None:
            self._usage = (self._usage or Usage()) + usage
        if self._structured is not None:
            self._structured.add(chunk)
            return ""
        return str(chunk.text)

    @property
    def rest(self) -> str:
        """The text of a reply that was to be data and is not."""
        return "" if self._structured is None or self._structured.titles is not None else self._structured.text

    @property
    def reply(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: It did not end, it broke off.
        """
        if self._end.missing and self._usage is None:
            raise ConnectionError("The server's stream ended before its answer was complete.")
        titles = None if self._structured is None else self._structured.titles
        return Reply(usage=self._usage, finish_reason=self._end.finish_reason, decoding=self._decoding, titles=titles)


def message_usage(message: Any) -> Usage | None:
    """The tokens that a model's message says were spent; None where it says nothing."""
    if not isinstance(message, AIMessage) or not message.usage_metadata:
        return None
    usage = message.usage_metadata
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    return Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0), cached)


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


@contextlib.asynccontextmanager
async def _ended_runs(config: RunnableConfig) -> AsyncIterator[RunnableConfig]:
    """A config whose model runs are ended when the call is cancelled.

    `BaseChatModel.ainvoke` forgets its run when its task is cancelled: tracers would show it as running for
    ever. `astream` does so only while handlers hear that it begins.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, AsyncCallbackManager) or not (callbacks.handlers or callbacks.inheritable_handlers):
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
