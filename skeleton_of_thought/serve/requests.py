"""Requests for chat completions: what they ask for, and whether an answer by points suits them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, get_args

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.serve.access import client_headers
from skeleton_of_thought.serve.errors import ServeError, refuse
from skeleton_of_thought.serve.settings import RouterName
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Conversation, Message, Request

__all__ = [
    "ChatRequest",
    "SotOptions",
    "conversation_of",
    "is_side_task",
    "misfit",
    "question_of",
    "read_request",
    "sampling_of",
]

TASK_HEADER = "x-openwebui-task"
"""Open WebUI sends it with its own side tasks: titles, tags, follow-up questions, queries."""

_SIDE_TASK = re.compile(
    r"\s*(?:#+\s*task:?\s*)?(?:please\s+)?(?:"
    r"(?:suggest|propose|predict|generate|create|write|give|list)\b[^.?!:\n]{0,60}\b"
    r"(?:follow[- ]?ups?|search queries|(?:suggested|quick|short) replies|(?:tags|title|name) for (?:this|the|our) "
    r"(?:chat|conversation|discussion|thread))\b"
    r"|(?:tag|label|title|name|rename|categori[sz]e) (?:this|the|our) (?:chat|conversation|discussion|thread)\b)",
    re.IGNORECASE,
)
"""The beginning of a side task of a client that sends no header. The router knows most others by their wording."""

_FLAGS = ("show_skeleton", "events")
_SETTINGS = (
    *("max_points", "join", "merge", "eager"),
    *("planning", "max_depth", "max_parents", "on_parent_error", "items"),
    *("opening", "closing", "rewrite_overlap", "max_overlap"),
)
_SWITCHES: Mapping[str, str | None] = {
    "merge": None,
    "eager": "auto",
    "opening": "restart",
    "closing": None,
    "rewrite_overlap": None,
}
"""Settings that are true or false, with the word that is another choice."""
_ROUTERS: Mapping[bool, RouterName] = {True: "always", False: "never"}
_OWN = frozenset({"model", "messages", "stream", "stream_options"})
"""Fields that a call of an answer does not take over."""

_AS_A_WHOLE: Mapping[str, tuple[Any, ...]] = {
    # tools
    "tools": (),
    "tool_choice": ("none",),
    "functions": (),
    "function_call": ("none",),
    "web_search_options": (),
    "plugins": (),
    # the form of the text
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "grammar": (),
    "json_schema": (),
    "regex": (),
    "ebnf": (),
    "format": (),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "documents": (),
    "echo": (False,),
    # its end and its length; some servers take -1 for no limit
    "stop": (),
    "stop_token_ids": (),
    "max_tokens": (-1,),
    "max_completion_tokens": (-1,),
    "max_new_tokens": (-1,),
    "n_predict": (-1,),
    "num_predict": (-1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    # several texts, and what is told about one
    "n": (1,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "n_probs": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    # how the chat becomes a prompt, and where it runs
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "chat_template": (),
    "id_slot": (-1,),
}
"""Fields that speak of the text as a whole, each with the values that ask for nothing. Nor does null, or an empty one.

All other fields, unknown ones included, go with each call of an answer by points.
"""
_GUIDED = "guided_"
"""Begins the names of vLLM's fields for the form of the text."""

_ROLES: Mapping[str, str] = {
    "system": "system",
    # The same to OpenAI's models; the chat templates of most others know only the older name.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_OF_TOOLS = ("tool_calls", "function_call", "tool_call_id", "audio")
"""Fields of a message that an answer by points cannot show."""


@dataclass(frozen=True)
class SotOptions:
    """The field `sot` of a request.

    Attributes:
        router: Which questions get a skeleton; None for the model's own setting.
        settings: Fields of `Settings` that replace the model's own: `max_points`, `join`, `merge`, `eager`, `planning`,
            `max_depth`, `max_parents`, `on_parent_error`, `items`, `opening`, `closing`, `rewrite_overlap`,
            `max_overlap`.
        show_skeleton: Whether the skeleton comes as `reasoning_content`.
        events: Whether chunks of a stream tell what happens, each under `sot`.
    """

    router: RouterName | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    show_skeleton: bool = False
    events: bool = False


@dataclass(frozen=True)
class ChatRequest:
    """A request of `POST /v1/chat/completions`.

    Attributes:
        body: All of its fields but `sot`, as the caller gave them.
        sot: Its field `sot`.
        headers: Those of its headers that may reach the model's server, with names in lower case.
        side_task: Whether the client says that it is a task of its own, such as a title for the chat.
    """

    body: Mapping[str, Any]
    sot: SotOptions = SotOptions()
    headers: Mapping[str, str] = field(default_factory=dict)
    side_task: bool = False

    @property
    def model(self) -> str:
        """The model's name, as the caller gave it."""
        return str(self.body["model"])

    @property
    def stream(self) -> bool:
        """Whether the answer is to be streamed."""
        return bool(self.body.get("stream"))

    @property
    def include_usage(self) -> bool:
        """Whether the stream is to end with its usage."""
        return bool((self.body.get("stream_options") or {}).get("include_usage"))


# --- reading ----------------------------------------------------------------------------------------


def read_request(content: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """Reads a request, and checks what the server itself needs to know; the rest is the model's to check.

    Args:
        content: The body, JSON in UTF-8.
        headers: All headers, with names in lower case. No other code sees those that may not reach a model's server.

    Raises:
        ServeError: The request is invalid; the message says what to do.
    """
    body = _read_json(content)
    if not isinstance(body, dict):
        raise ServeError("The body has to be a JSON object with the fields `model` and `messages`.")
    options = _read_options(body.pop("sot", None))
    model = body.get("model")
    if not isinstance(model, str) or not model.strip():
        refuse("model", "has to name a model; GET /v1/models lists them")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        refuse("messages", "has to be a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            refuse(f"messages[{i}]", "has to be an object with a `role` and a `content`")
    _check_flag("stream", body.get("stream"))
    stream_options = body.get("stream_options")
    if stream_options is not None:
        if not isinstance(stream_options, dict):
            refuse("stream_options", "has to be an object")
        _check_flag("stream_options.include_usage", stream_options.get("include_usage"))
    return ChatRequest(body, options, client_headers(headers), bool(headers.get(TASK_HEADER)))


def _read_json(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
        body = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        # Half of a character, which no server below could be sent.
        return _without_surrogates(body) if re.search(r"\\u[dD][89a-fA-F]", text) else body
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ServeError(f"The body is not valid JSON in UTF-8: {why[:200]}.", code="invalid_json") from error


def _refuse_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError("a number is too large")
    return number


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): _without_surrogates(each) for name, each in value.items()}
    return value


def _check_flag(param: str, value: object, word: str | None = None) -> None:
    if not isinstance(value, bool | None) and (word is None or value != word):
        choices = "true or false" if word is None else f'true, false or "{word}"'
        refuse(param, f"has to be {choices}, not {json.dumps(value)[:60]}")


def _read_options(given: Any) -> SotOptions:
    if given is None:
        return SotOptions()
    if not isinstance(given, dict):
        refuse("sot", "has to be an object")
    known = ("router", *_SETTINGS, *_FLAGS)
    for name in given:
        if name not in known:
            refuse(f"sot.{name}"[:100], f"is not known; the fields of `sot` are {', '.join(known)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name in (*_FLAGS, *_SWITCHES):
        _check_flag(f"sot.{name}", given.get(name), _SWITCHES.get(name))
    router = given.get("router")
    if isinstance(router, bool):
        router = _ROUTERS[router]
    if router is not None and router not in get_args(RouterName):
        refuse("sot.router", f'has to be "auto", "always", "never", true or false, not {json.dumps(router)[:60]}')
    settings = {name: given[name] for name in _SETTINGS if name in given}
    for name, value in settings.items():
        try:
            Settings(**{name: value})
        except InvalidInput as error:
            raise ServeError(f"`sot.{name}` is invalid: {error}", param=f"sot.{name}") from error
    return SotOptions(router, settings, **{name: given[name] for name in _FLAGS if name in given})


# --- suitability ------------------------------------------------------------------------------------


def misfit(request: ChatRequest) -> str | None:
    """Why an answer by points does not suit a request, in words; None if it does.

    The request then passes through to the model: it speaks of the text as a whole, or its conversation is not one that
    ends with a question in text.
    """
    if request.side_task:
        return "a side task of the client"
    for name, value in request.body.items():
        if (name in _AS_A_WHOLE or name.startswith(_GUIDED)) and _asks(name, value):
            return f"the request has {name}"[:80]
    messages = request.body["messages"]
    for message in messages:
        if (reason := _message_misfit(message)) is not None:
            return reason
    if len({str(message["name"]) for message in messages if message.get("name")}) > 1:
        return "several speakers with names"
    last = messages[-1]
    if last["role"] != "user":
        return "the conversation does not end with the user's message"
    if not _message(last).text.strip():
        return "the question is empty"
    return None


def _asks(name: str, value: Any) -> bool:
    """Whether this value of a field asks for anything."""
    if value is None or value in ("", [], {}):
        return False
    # `1 == True`, which are different answers to the same field.
    return not any(value == nothing and type(value) is type(nothing) for nothing in _AS_A_WHOLE.get(name, ()))


def _message_misfit(message: Mapping[str, Any]) -> str | None:
    role, content = message["role"], message.get("content")
    if role not in _ROLES:
        return f"a message of the role {role}"[:80]
    if any(message.get(name) for name in _OF_TOOLS):
        return "calls of tools in the conversation"
    if isinstance(content, str) or (content is None and role == "assistant"):
        return None
    if not isinstance(content, list):
        return "a message without text"
    if not all(map(_is_text, content)):
        return "content that is not text"
    return None


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def conversation_of(
    request: ChatRequest, *, max_concurrency: int | None = None, graph: bool = False, items: bool = False
) -> Conversation:
    """The conversation of a request that suits.

    Args:
        request: The request.
        max_concurrency: The most calls that may be open at a time, for routers.
        graph: Whether points may build on each other, for routers.
        items: Whether a question about several items may be answered item by item, for routers.
    """
    facts = Request(max_concurrency=max_concurrency, graph=graph, items=items)
    return Conversation(tuple(map(_message, request.body["messages"])), facts)


def question_of(request: ChatRequest) -> str:
    """The text of the last message of any request, as far as it has one."""
    content = request.body["messages"][-1].get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return "\n".join(part["text"] for part in parts if _is_text(part))


def is_side_task(request: ChatRequest) -> bool:
    """Whether a request reads like a client's own: for follow-up questions, say, or for the tags of a conversation."""
    return _SIDE_TASK.match(question_of(request)) is not None


def _message(message: Mapping[str, Any]) -> Message:
    role, content = _ROLES[message["role"]], message.get("content") or ""
    if isinstance(content, list):
        # Parts with other fields, such as the marks of a prompt cache, stay as they are.
        plain = all(part.keys() <= {"type", "text"} for part in content)
        content = Message(role, tuple(content)).text if plain else tuple(content)
    return Message(role, content, raw=message)


def sampling_of(request: ChatRequest) -> dict[str, Any]:
    """The fields of a request that suits which each call of its answer takes by itself."""
    left_out = _OWN | _AS_A_WHOLE.keys()
    return {
        name: value
        for name, value in request.body.items()
        if value is not None and name not in left_out and not name.startswith(_GUIDED)
    }
