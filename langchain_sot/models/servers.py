"""Servers that speak OpenAI's protocol: what they have to be told with a call, and what they leave unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs

from langchain_sot.models.kinds import has_fallbacks, is_configurable
from langchain_sot.models.wrappers import models_in

__all__ = ["ReplyEnd", "begin_turn", "continues_turn", "with_timeout"]

_FLAGS = ("continue_final_message", "add_generation_prompt")
_MARGIN = 1.0
"""Seconds by which a request may outlast its point, so that it is the driver that says how the point ended."""
_LENGTH = frozenset({"max_tokens", "max_output_tokens", "length"})

Model = Runnable[Any, Any]


def _body(model: Model, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    body = kwargs["extra_body"] if "extra_body" in kwargs else getattr(model, "extra_body", None)
    return body if isinstance(body, Mapping) else {}


def continues_turn(llm: Model, config: RunnableConfig, kwargs: Mapping[str, Any]) -> bool:
    """Whether the requests say that the last message is to be continued, as vLLM, SGLang and llama.cpp take it.

    That is `extra_body={"continue_final_message": True, ...}`: of the model, bound, or given with the call. Of several
    models each may get the call, so all must have it.
    """
    return all(_body(model, own).get(_FLAGS[0]) for model, own in models_in(llm, config, kwargs))


def begin_turn(llm: Model, config: RunnableConfig, kwargs: Mapping[str, Any]) -> tuple[Model, dict[str, Any]]:
    """The model and keywords for a call that ends with the user's turn, which no server shall continue.

    Returns:
        Both without `continue_final_message` and `add_generation_prompt`; everything else stays as it is.
    """
    if not any(_body(model, own).get(_FLAGS[0]) for model, own in models_in(llm, config, kwargs)):
        return llm, dict(kwargs)
    if isinstance(llm, RunnableBindingBase) or has_fallbacks(llm) or is_configurable(llm):
        return _begun(llm, config), _without_flags(kwargs)
    return llm, {**kwargs, "extra_body": _unflagged(_body(llm, kwargs))}


def _begun(llm: Model, config: RunnableConfig) -> Model:
    if is_configurable(llm):
        llm, config = llm.prepare(config)
    if has_fallbacks(llm):
        first, *others = (_begun(runnable, config) for runnable in llm.runnables)
        return llm.model_copy(update={"runnable": first, "fallbacks": others})
    if isinstance(llm, RunnableBindingBase):
        bound = _begun(llm.bound, merge_configs(llm.config, config))
        return llm.model_copy(update={"bound": bound, "kwargs": _without_flags(llm.kwargs)})
    body = _body(llm, {})
    return llm.bind(extra_body=_unflagged(body)) if body.get(_FLAGS[0]) else llm


def _without_flags(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    body = kwargs.get("extra_body")
    return {**kwargs, "extra_body": _unflagged(body)} if isinstance(body, Mapping) else dict(kwargs)


def _unflagged(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in _FLAGS}


def with_timeout(llm: Model, config: RunnableConfig, kwargs: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The keywords of a call whose text nobody waits for after so many seconds.

    A thread that waits for a silent server cannot be interrupted, but `ChatOpenAI` and its relatives take a timeout
    with each call, and then it ends by itself. A shorter timeout of the model's own stays, and so does one that is
    more than a number.
    """
    own: list[Any] = []
    for model, given in models_in(llm, config, kwargs):
        if "timeout" in given or all(kind.__name__ != "BaseChatOpenAI" for kind in type(model).__mro__):
            return dict(kwargs)
        own.append(getattr(model, "request_timeout", None))
    if not all(timeout is None or isinstance(timeout, int | float) for timeout in own):
        return dict(kwargs)
    return {**kwargs, "timeout": min([seconds + _MARGIN, *(timeout for timeout in own if timeout is not None)])}


class ReplyEnd:
    """How a reply ended, read off the metadata of its chunks, or of the whole message."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._promised = False
        self._told = False

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Takes the metadata of a chunk."""
        # A reply that was not streamed has the key, whatever the server put there: it is whole.
        self._told = self._told or "finish_reason" in metadata or "status" in metadata
        self._promised = self._promised or metadata.get("model_provider") == "openai"
        self.finish_reason = _finish_reason(metadata) or self.finish_reason

    @property
    def missing(self) -> bool:
        """Whether the reply should have said how it ended, and did not.

        In OpenAI's protocol every stream does. The client takes a connection that is cut between two chunks for the
        end of the stream, so this is all that tells a cut reply from a whole one.
        """
        return self._promised and not self._told


def _finish_reason(metadata: Mapping[str, Any]) -> str | None:
    # The Responses API has a status, and why a response is incomplete beside it.
    details = metadata.get("incomplete_details")
    incomplete = details.get("reason") if isinstance(details, Mapping) else None
    completed = "stop" if metadata.get("status") == "completed" else None
    for key in ("finish_reason", "stop_reason", "done_reason"):
        if isinstance(reason := metadata.get(key), str) and reason:
            return "length" if reason.lower() in _LENGTH else reason
    return "length" if incomplete in _LENGTH else incomplete or completed
