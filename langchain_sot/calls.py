"""Where models are called: the calls that a flow asks for, and how their replies are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import _set_config_context

from langchain_sot.messages import (
    ParsedInput,
    convert_messages,
    message_decoding,
    message_usage,
    read_other_content,
    render_text,
)
from langchain_sot.models.open_runs import ended_runs
from langchain_sot.models.resolution import AnswerModels, ResolvedModel, unbind, with_bindings
from langchain_sot.models.servers import begin_turn, with_timeout
from langchain_sot.models.streams import aopen_stream, open_stream
from langchain_sot.models.text_calls import acomplete, as_string, complete
from langchain_sot.results import plan_facts
from langchain_sot.skeleton_schema import StructuredReply, ask_structured
from skeleton_of_thought.adapters.hints import engine_settings, token_limit
from skeleton_of_thought.adapters.replies import ReplyEnd, aclose_stream, close_stream
from skeleton_of_thought.drive import AsyncTogether, Together
from skeleton_of_thought.together import Whole
from skeleton_of_thought.types import Call, Planning, Prompt, Reply, Usage

if TYPE_CHECKING:
    from langchain_sot.local.chat_transformers import ChatTransformers

__all__ = ["ModelCalls", "ReplyReader"]


# --- calls ---


def call_config(config: RunnableConfig, call: Call, waves: dict[int, int]) -> RunnableConfig:
    """The config of one call: a child run with the stage as its name, and the point in its metadata.

    Args:
        config: The config of the answer's children.
        call: The call.
        waves: The waves of the answer's points so far, see `langchain_sot.results.plan_facts`.
    """
    metadata: dict[str, Any] = {"sot_stage": call.stage}
    name: str = "answer" if call.stage == "direct" else call.stage
    if call.point is not None:
        name = f"point {call.point.index}: {call.point.title:.120}"  # an item may be long
        metadata |= {"sot_point": call.point.index, "sot_attempt": call.attempt}
        if waves or call.point.scope or call.point.depends_on:
            metadata |= {f"sot_{fact}": value for fact, value in plan_facts(call.point, waves).items()}
    tags = sorted({*(config.get("tags") or ()), f"sot:{call.stage}"})
    return {**config, "run_name": name, "tags": tags, "metadata": {**(config.get("metadata") or {}), **metadata}}


@dataclass(frozen=True)
class _Request:
    """The arguments of one model call.

    Attributes:
        llm: The runnable to call.
        input: Messages or a string.
        config: The config of its run.
        kwargs: Its keyword arguments.
        model: The resolved model behind `llm`.
        structured: The kind of skeleton that it asks for as data; None if it asks for text.
    """

    llm: Runnable[Any, Any]
    input: Any
    config: RunnableConfig
    kwargs: Mapping[str, Any]
    model: ResolvedModel
    structured: Planning | None = None

    def stream(self) -> Iterator[Any]:
        """Starts the call. Closing the iterator closes the model's own stream."""
        if self.llm is self.model.model:
            return self.llm.stream(self.input, self.config, **self.kwargs)
        return open_stream(self.llm, self.input, self.config, self.kwargs)

    def astream(self, config: RunnableConfig) -> AsyncIterator[Any]:
        """Async twin of `stream`, with this config in place of its own."""
        if self.llm is self.model.model:
            return self.llm.astream(self.input, config, **self.kwargs)
        return aopen_stream(self.llm, self.input, config, self.kwargs)

    def reader(self, max_chars: int | None = None) -> ReplyReader:
        """Reads the reply; a stream up to so many characters."""
        end = ReplyEnd(reasons=self.model.reasons, max_chars=max_chars)
        return ReplyReader(end, self.input if self.model.text else "", structured=self.structured)


@dataclass(frozen=True)
class ModelCalls:
    """Opens the calls of several flows.

    Attributes:
        models: The models of each flow, by its position.
        inputs: The input of each flow.
        configs: The config for the calls of each flow: a child of its root run.
        streamed: The stages whose text is wanted while it is written; the others are one `invoke` each,
            which caches may answer. String LLMs get all of those that start together in one `generate`.
        waves: The waves of each flow's points so far, for their runs; see `langchain_sot.results.plan_facts`.
        direct: The models' messages of direct answers, by the flow's position: they may have more than text. Of a
            streamed answer it is the message without its text.
    """

    models: Sequence[AnswerModels]
    inputs: Sequence[ParsedInput]
    configs: Sequence[RunnableConfig]
    streamed: frozenset[str]
    direct: dict[int, AIMessage] = field(default_factory=dict)
    waves: defaultdict[int, dict[int, int]] = field(default_factory=partial(defaultdict, dict))

    # --- one call ---

    def open(self, call: Call, position: int) -> Iterator[str | Reply]:
        """Makes a call, yields its text as it arrives, and last how it ended."""
        # Runnables inside the model inherit the answer's config from the context, not the caller's.
        _set_config_context(self.configs[position])
        request = self._request(call, position)
        reader = request.reader(call.max_chars)
        if call.stage not in self.streamed:
            if request.model.text:
                output = complete(request.llm, [request.input], [request.config], request.kwargs)[0]
            else:
                output = request.llm.invoke(request.input, request.config, **request.kwargs)
                self._keep(call, position, output)
            yield from reader.whole(output)
            return
        stream = request.stream()
        try:
            for chunk in stream:
                if call.stage == "direct":
                    self._keep_extras(position, chunk)
                yield reader.add(chunk)
                if reader.end_of_reply.full:
                    break
        finally:
            # Closed here and not when it is collected: the call's run has to end before its parent's.
            close_stream(stream)
        if request.structured:
            yield reader.rest
        yield reader.end()

    async def aopen(self, call: Call, position: int) -> AsyncIterator[str | Reply]:
        """Async twin of `open`."""
        _set_config_context(self.configs[position])
        request = self._request(call, position)
        reader = request.reader(call.max_chars)
        async with ended_runs(request.config) as config:
            if call.stage not in self.streamed:
                if request.model.text:
                    output = (await acomplete(request.llm, [request.input], [config], request.kwargs))[0]
                else:
                    output = await request.llm.ainvoke(request.input, config, **request.kwargs)
                    self._keep(call, position, output)
                for item in reader.whole(output):
                    yield item
                return
            stream = request.astream(config)
            try:
                async for chunk in stream:
                    if call.stage == "direct":
                        self._keep_extras(position, chunk)
                    yield reader.add(chunk)
                    if reader.end_of_reply.full:
                        break
            finally:
                await aclose_stream(stream)
            if request.structured:
                yield reader.rest
        yield reader.end()

    def _keep(self, call: Call, position: int, output: Any) -> None:
        if call.stage == "direct" and isinstance(output, AIMessage):
            self.direct[position] = output

    def _keep_extras(self, position: int, chunk: Any) -> None:
        # A model that cannot stream gives a whole message.
        if isinstance(chunk, AIMessage) and (chunk.response_metadata or chunk.additional_kwargs):
            extras = AIMessageChunk(
                content="", response_metadata=chunk.response_metadata, additional_kwargs=chunk.additional_kwargs
            )
            before = cast("AIMessageChunk | None", self.direct.get(position))
            self.direct[position] = extras if before is None else before + extras

    # --- several calls at once ---

    @property
    def together(self) -> Together | None:
        """Makes the calls of a string LLM that start at the same moment by one `generate`; None without one."""
        return Together(self._group, self._complete) if self._has_groups else None

    @property
    def atogether(self) -> AsyncTogether | None:
        """Async twin of `together`."""
        return AsyncTogether(self._group, self._acomplete) if self._has_groups else None

    @property
    def _has_groups(self) -> bool:
        return any(model.text for models in self.models for model in (models.llm, models.point_llm))

    def _group(self, call: Call, position: int) -> Hashable | None:
        model = self.models[position].of(call.stage)
        return id(model) if model.text and call.prompt and call.stage not in self.streamed else None

    def _complete(self, calls: Sequence[tuple[Call, int]]) -> list[Whole | Exception]:
        requests = self._requests(calls)
        first = requests[0]
        prompts, configs = [r.input for r in requests], [r.config for r in requests]
        return _wholes(requests, complete(first.llm, prompts, configs, first.kwargs))

    async def _acomplete(self, calls: Sequence[tuple[Call, int]]) -> list[Whole | Exception]:
        requests = self._requests(calls)
        first = requests[0]
        prompts, configs = [r.input for r in requests], [r.config for r in requests]
        return _wholes(requests, await acomplete(first.llm, prompts, configs, first.kwargs))

    def _requests(self, calls: Sequence[tuple[Call, int]]) -> list[_Request]:
        answers = {position for _, position in calls}
        # Calls of several answers have no config in common.
        _set_config_context(self.configs[answers.pop()] if len(answers) == 1 else {})
        return [self._request(call, position) for call, position in calls]

    # --- prompts and settings of calls ---

    def _request(self, call: Call, position: int) -> _Request:
        prompt = call.prompt
        assert prompt is not None, "the driver calls routers itself"
        model = self.models[position].of(call.stage)
        config = with_bindings(model.bindings, call_config(self.configs[position], call, self.waves[position]))
        llm, kwargs = model.llm, model.kwargs
        if model.has_turn_flags and not prompt.prefill:
            llm, kwargs = begin_turn(llm, config, kwargs)
        if call.stage == "direct":
            self.direct.pop(position, None)  # of an attempt whose reply had no text
        if call.stage == "direct" and prompt.messages is self.inputs[position].conversation.messages:
            untouched = self.inputs[position].untouched
            given = as_string(untouched) if model.takes_text else untouched
            return _Request(llm, given, config, kwargs, model)
        if call.timeout is not None:
            kwargs = with_timeout(model.members, kwargs, call.timeout)
        if model.native:
            prompt = prompt.exact or prompt
            kwargs = _with_quoted(kwargs, prompt, cast("ChatTransformers", model.model))
        if call.structured and (structured := _structured(llm, kwargs, call, model)) is not None:
            llm, bindings, kwargs = unbind(structured, {})
            config = with_bindings(bindings, config)
            return _Request(llm, convert_messages(prompt), config, kwargs, model, structured=call.planning)
        if model.native:
            kwargs = _native(kwargs, call, cast("ChatTransformers", model.model))
        if model.text:
            return _Request(llm, render_text(prompt), config, kwargs, model)
        messages = convert_messages(prompt)
        if prompt.prefill and not model.native:
            messages.append(AIMessage(prompt.prefill))
        return _Request(llm, messages, config, kwargs, model)


def _structured(
    llm: Runnable[Any, Any], kwargs: Mapping[str, Any], call: Call, model: ResolvedModel
) -> Runnable[Any, Any] | None:
    if model.native:
        # A model that ignores the schema writes until its limit.
        own = kwargs.get("max_tokens", cast("ChatTransformers", model.model).max_tokens)
        kwargs = {**kwargs, "max_tokens": token_limit(call, own, chosen=True)}
    return ask_structured(llm, kwargs, call.planning)


def _native(kwargs: Mapping[str, Any], call: Call, model: ChatTransformers) -> dict[str, Any]:
    assert call.prompt is not None
    chosen = "max_tokens" in kwargs or "max_tokens" in model.model_fields_set
    reasons = not call.prompt.prefill and model.engine.reasons
    # The caller's settings win, but the prompt sets the stop string and may lower the limit.
    settings = {**engine_settings(call.prompt.hints, reasons=reasons), **kwargs}
    settings["stop_after_text"] = call.prompt.hints.stop
    own = kwargs.get("max_tokens", model.max_tokens)
    settings["max_tokens"] = token_limit(call, own, chosen=chosen, reasons=reasons)
    return {**settings, "prefill": (call.prompt.exact or call.prompt).prefill}


def _with_quoted(kwargs: Mapping[str, Any], prompt: Prompt, model: ChatTransformers) -> Mapping[str, Any]:
    """The keyword arguments with the quoted texts of the prompt in which the tokenizer may read a special token."""
    own = kwargs.get("split_special_tokens", model.split_special_tokens)
    if own is True or not (texts := model.engine.with_special_tokens(prompt.quoted)):
        return kwargs
    return {**kwargs, "split_special_tokens": [*(own or ()), *texts]}


# --- replies ---


def _wholes(requests: Sequence[_Request], outputs: Sequence[Any]) -> list[Whole | Exception]:
    return [_whole(request, output) for request, output in zip(requests, outputs, strict=True)]


def _whole(request: _Request, output: Any) -> Whole | Exception:
    try:
        return request.reader().whole(output)
    except Exception as error:
        return error


class ReplyReader:
    """Reads the text of a reply, and how it ended, from its chunks or from the whole message.

    Attributes:
        end_of_reply: Collects the end of the reply.

    Args:
        end: Collects the end of the reply.
        echo: The prompt, which some models repeat before their reply, such as `HuggingFacePipeline`.
        structured: The kind of skeleton that was asked for as data: the text is then known only at the end (`rest`).
    """

    def __init__(self, end: ReplyEnd, echo: str = "", *, structured: Planning | None = None) -> None:
        self._echo = echo
        self._structured = None if structured is None else StructuredReply(structured)
        self.end_of_reply = end

    def add(self, chunk: Any) -> str:
        """Takes a chunk, or the whole message; returns its text."""
        end = self.end_of_reply
        if isinstance(chunk, str):
            return chunk
        if not isinstance(chunk, BaseMessage):
            raise TypeError(
                f"The model gave {type(chunk).__name__}, but must give messages or strings: pass the model itself, "
                "without a parser that turns its text into something else."
            )
        if chunk.response_metadata:
            end.read_metadata(chunk.response_metadata)
            end.decoding = message_decoding(chunk) or end.decoding
        if getattr(chunk, "usage_metadata", None) and (usage := message_usage(chunk)) is not None:
            end.usage = (end.usage or Usage()) + usage
        calls = getattr(chunk, "tool_call_chunks", None) or getattr(chunk, "tool_calls", None)
        if calls or chunk.additional_kwargs or not isinstance(chunk.content, str):
            read_other_content(chunk, end)
        text = str(chunk.text)
        end.chars += len(text)
        end.full = end.streamed and end.max_chars is not None and end.chars > end.max_chars
        if self._structured is not None:
            self._structured.add(chunk)
            return ""
        return text

    def whole(self, output: Any) -> tuple[str, Reply]:
        """The text of an output that came at once, and how it ended.

        Raises:
            Exception: The output is this error.
        """
        if isinstance(output, Exception):
            raise output
        self.end_of_reply.streamed = False
        if isinstance(output, tuple):
            output, info = output
            self.end_of_reply.read_metadata(info)
        text = self.add(output).removeprefix(self._echo)
        return text + self.rest, self.end()

    @property
    def rest(self) -> str:
        """The text of a reply that was asked for data and has none."""
        if self._structured is None or self._structured.titles is not None or self._structured.plan is not None:
            return ""
        return self._structured.text

    def end(self) -> Reply:
        """How the call ended.

        Raises:
            ConnectionError: The stream broke off.
        """
        if self._structured is None:
            return self.end_of_reply.reply()
        plan, reply = self._structured.plan, self.end_of_reply.reply(self._structured.titles)
        return reply if plan is None else replace(reply, plan=plan)
