"""Models of any provider that LangChain has a package for: `--model langchain:PROVIDER:NAME`.

The only module here that knows a framework, and it loads it when such a model is asked for.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._cli.backends import Backend, LoopThread, Prefill, RemoteStream, as_dict, one_line, prefilled
from skeleton_of_thought.errors import InvalidInput, MissingExtra, ModelLoadError
from skeleton_of_thought.types import Call, Prompt, Reply, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["langchain_backend"]

_PACKAGE = re.compile(r"pip install (?:-U )?([\w.-]+)")
_LENGTH = frozenset({"max_tokens", "max_output_tokens", "length"})


def langchain_backend(
    name: str,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    prefill: Prefill = "auto",
) -> Backend:
    """A backend over a model that LangChain's `init_chat_model` makes.

    Args:
        name: PROVIDER:NAME.
        temperature: None for the provider's own, as for the others.
        seed: For sampling, where the provider's model takes one.
        max_tokens: The most tokens of a call.
        prefill: Whether the provider continues a last message of the assistant; "auto" is no, as most refuse one.

    Raises:
        MissingExtra: LangChain is not installed.
        ModelLoadError: The provider's package or key is missing, or it does not take what is asked for.
        InvalidInput: There is no such provider.
    """
    settings = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    model = _init(name, {key: value for key, value in settings.items() if value is not None})
    thread = LoopThread()

    def open_call(call: Call, index: int) -> RemoteStream:
        assert call.prompt is not None
        return RemoteStream(_stream(model, call.prompt), thread)

    def explain(error: BaseException) -> str:
        return _explain(error, name)

    return Backend(name, open_call, prefill=prefilled(prefill == "yes"), explain=explain, close=thread.stop)


def _explain(error: BaseException, name: str) -> str:
    """What to do about an error: whose it is says the name, as each provider has errors of its own."""
    provider = name.partition(":")[0]
    causes = list(_causes(error))
    root = causes[-1]
    said = one_line(error) if root is error else f"{one_line(error)} ({one_line(root)})"
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    if any("Connect" in kind or "Timeout" in kind or "Transport" in kind for kind in kinds):
        return (
            f"The server of LangChain's provider {provider} cannot be reached, or broke off: {said}. "
            "Check the network, and the address that its package has from the environment."
        )
    if any("Authentication" in kind or "PermissionDenied" in kind for kind in kinds):
        return f"The server of LangChain's provider {provider} does not accept the key in the environment: {said}"
    return f"LangChain's model {name!r} failed: {said}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from, each once."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__


def _init(name: str, settings: dict[str, Any]) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtra("Models of the form langchain:PROVIDER:NAME need LangChain", "agents") from error
    provider, _, model = name.partition(":")
    if provider == "openai":
        # Behind an address of one's own it asks for no token counts by itself.
        settings = {"stream_usage": True, **settings}
    try:
        made: BaseChatModel = init_chat_model(model, model_provider=provider, **settings)
    except Exception as error:
        if (package := _missing(error, provider)) is not None:
            raise ModelLoadError(
                f"Models of {provider} need the package {package}, which is not installed: pip install {package}"
            ) from error
        if isinstance(error, ValueError) and str(error).startswith("Unsupported "):
            known = " ".join(str(error).split("\n", 1)[-1].split())
            raise InvalidInput(f"LangChain knows no provider {provider!r}. {known}") from error
        raise ModelLoadError(f"LangChain's model {name!r} could not be made: {one_line(error)}") from error
    return made


def _missing(error: Exception, provider: str) -> str | None:
    """The package that an error says is missing."""
    if isinstance(error, ImportError) and (named := _PACKAGE.search(str(error))) is not None:
        return named[1]
    # `init_chat_model` looks for some in langchain-community too, and then complains of that, if it is installed.
    own = importlib.util.find_spec(f"langchain_{provider}")
    if isinstance(error, ImportError | AttributeError) and own is None:
        return f"langchain-{provider.replace('_', '-')}"
    return None


async def _stream(model: BaseChatModel, prompt: Prompt) -> AsyncIterator[str | Reply]:
    messages = [as_dict(message) for message in prompt.messages]
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    usage: Usage | None = None
    finish: str | None = None
    async for chunk in model.astream(messages):
        if (spent := getattr(chunk, "usage_metadata", None)) is not None:
            usage = (usage or Usage()) + _usage(spent)
        finish = _finish(chunk.response_metadata) or finish
        if chunk.text:
            yield str(chunk.text)
    yield Reply(usage, finish)


def _usage(spent: Any) -> Usage:
    cached = (spent.get("input_token_details") or {}).get("cache_read") or 0
    return Usage(spent.get("input_tokens") or 0, spent.get("output_tokens") or 0, cached)


def _finish(metadata: Any) -> str | None:
    for key in ("finish_reason", "stop_reason", "done_reason"):
        if isinstance(reason := metadata.get(key), str) and reason:
            return "length" if reason.lower() in _LENGTH else reason
    return None
