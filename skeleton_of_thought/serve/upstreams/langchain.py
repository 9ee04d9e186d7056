"""LangChain's chat models, with chat completions of our own over their streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from skeleton_of_thought._cli.backend import prefilled_stages
from skeleton_of_thought._cli.diagnostics import explain_langchain
from skeleton_of_thought._cli.langchain_backend import chat_model, read_end, read_messages, stream_reply
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.adapters.replies import FinishReasons, ReplyEnd, aclose_stream, aclosing_stream
from skeleton_of_thought.errors import SotError
from skeleton_of_thought.serve.errors import ServeError, refuse, without_key
from skeleton_of_thought.serve.requests import ChatRequest
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstream import Passed
from skeleton_of_thought.serve.upstreams.fields import (
    check_supported,
    limit_of,
    numbers_of,
    stops_of,
    tools_of,
)
from skeleton_of_thought.serve.upstreams.replies import End, Piece, Pieces, streamed, whole
from skeleton_of_thought.serve.upstreams.threads import in_thread
from skeleton_of_thought.types import Call, Reply

__all__ = ["LangChainUpstream", "open_langchain"]

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict")
"""Names that the providers' models have for the most tokens of a reply."""
_PASSING = "BaseChatOpenAI"
"""The base of models that pass on any field of OpenAI's protocol."""


async def open_langchain(model: ModelSettings, spec: ModelSpec) -> LangChainUpstream:
    """Makes a model beside the event loop, as the import of its package takes a while.

    Raises:
        MissingExtra: LangChain is not installed.
        ModelLoadError: The provider's package or key is missing, or the provider refuses the settings.
        InvalidInput: There is no such provider.
    """
    name = spec.name
    assert name is not None
    made = await in_thread(lambda: chat_model(name, {"max_tokens": model.max_tokens, "api_key": model.key}))
    return LangChainUpstream(made, name, model)


class LangChainUpstream:
    """A chat model of LangChain's; see `skeleton_of_thought.serve.upstream.Upstream`.

    Args:
        chat: The chat model.
        name: PROVIDER:NAME.
        model: The settings of the model.
    """

    stop_loops = False
    local = False
    remark: str | None = None

    def __init__(self, chat: Any, name: str, model: ModelSettings) -> None:
        self.prefill = prefilled_stages(model.prefill == "yes")
        self._chat = chat
        self._name = name
        self._key = model.key
        # Of the model itself, not of the copies that calls with settings of their own get.
        self._reasons = FinishReasons.of(chat)
        self._fields = _fields(chat)

    def check(self, sampling: Mapping[str, Any]) -> None:
        """Refuses sampling that no call could take."""
        numbers_of(sampling)

    def open_call(
        self, call: Call, sampling: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """Opens one call of an answer, see the protocol."""
        assert call.prompt is not None, "only calls with a prompt reach a model"
        return stream_reply(self._with(numbers_of(sampling)), call.prompt, self._reasons)

    async def pass_through(self, request: ChatRequest) -> Passed:
        """Answers a request as OpenAI's protocol has it, with what the model has of its settings."""
        rest = self._pieces(request.body)
        # The first piece comes before the response begins, so that an error of the provider still has its status.
        pieces = _after(await anext(rest), rest)
        if request.stream:
            return streamed(pieces, request, close=lambda: aclose_stream(rest))
        async with aclosing_stream(pieces):
            return await whole(pieces, request)

    def _pieces(self, body: Mapping[str, Any]) -> Pieces:
        check_supported(body)
        settings: dict[str, Any] = dict(numbers_of(body))
        if (limit := limit_of(body, None)) is not None:
            settings["max_tokens"] = limit
        model = self._with(settings)
        given: dict[str, Any] = {"stop": list(stops)} if (stops := stops_of(body)) else {}
        response_format = body.get("response_format")
        if response_format not in (None, {"type": "text"}):
            if not self._passes_fields:
                refuse("response_format", "is not there for this model: name it openai:NAME@URL if its provider has it")
            given["response_format"] = response_format
        if tools := tools_of(body):
            choice = _choice(body.get("tool_choice"))
            try:
                model = model.bind_tools(tools, **({} if choice is None else {"tool_choice": choice}))
            except NotImplementedError:
                refuse("tools", "are not there for this model")
        return _read(model.astream(read_messages(body["messages"]), **given), ReplyEnd(reasons=self._reasons))

    @property
    def _passes_fields(self) -> bool:
        return any(base.__name__ == _PASSING for base in type(self._chat).__mro__)

    def _with(self, settings: Mapping[str, Any]) -> Any:
        """The model with these settings, those that it has. Its client is shared."""
        given = {self._fields[name]: value for name, value in settings.items() if name in self._fields}
        return self._chat.model_copy(update=given) if given else self._chat

    def explain(self, error: BaseException) -> str:
        """Describes an error of the model in one line."""
        if isinstance(error, SotError | ServeError):
            return str(error)
        return without_key(explain_langchain(error, self._name), self._key)

    async def close(self) -> None:
        """Does nothing: LangChain closes the connections of its models when it drops them."""


def _fields(chat: Any) -> dict[str, str]:
    """The fields of a model by the names that OpenAI's protocol has for them."""
    own: dict[str, str] = {}
    for name, field in type(chat).model_fields.items():
        own |= {alias: name for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
        own[name] = name
    limit = next((own[name] for name in _LIMITS if name in own), None)
    return own if limit is None else {**own, "max_tokens": limit}


_CHOICES = {None: None, "auto": "auto", "none": "none", "required": "any", "any": "any"}
"""The words of OpenAI's `tool_choice`, and those of LangChain, which all its providers know."""


def _choice(given: Any) -> str | None:
    """OpenAI's `tool_choice` for LangChain."""
    function = given.get("function") if isinstance(given, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if isinstance(name, str):
        return name
    if not isinstance(given, str | None) or given not in _CHOICES:
        refuse("tool_choice", 'has to be "auto", "none", "required" or {"type": "function", "function": {"name": ...}}')
    return _CHOICES[given]


async def _read(chunks: AsyncIterator[Any], end: ReplyEnd) -> Pieces:
    async with aclosing_stream(chunks):
        async for chunk in chunks:
            read_end(chunk, end)
            calls = [_call(part) for part in getattr(chunk, "tool_call_chunks", None) or ()]
            reasoning = str(chunk.additional_kwargs.get("reasoning_content") or "")
            if chunk.text or calls or reasoning:
                yield Piece(str(chunk.text), reasoning, calls)
    reply = end.reply()
    yield End("refusal" if reply.refusal else reply.finish_reason, reply.usage)


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    function = {name: text for name, text in (("name", part["name"]), ("arguments", part["args"])) if text is not None}
    call = {"index": part["index"] or 0, "type": "function", "function": function}
    return {**call, "id": part["id"]} if part["id"] else call


async def _after(first: Piece | End, rest: Pieces) -> Pieces:
    async with aclosing_stream(rest):
        yield first
        async for piece in rest:
            yield piece
