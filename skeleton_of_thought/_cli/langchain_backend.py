"""The `sot` command's backend for LangChain's providers: `--model langchain:PROVIDER:NAME`.

No other module of the command imports a framework, and this one imports LangChain when it makes a model.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skeleton_of_thought._cli.backend import (
    LoopThread,
    ModelBackend,
    Prefill,
    RemoteStream,
    prefilled_stages,
    prompt_dicts,
)
from skeleton_of_thought._cli.diagnostics import explain_langchain, one_line
from skeleton_of_thought.adapters.replies import FinishReasons, ReplyEnd, aclosing_stream, read_usage
from skeleton_of_thought.errors import InvalidInput, MissingExtra, ModelLoadError
from skeleton_of_thought.types import Call, Prompt, Reply, Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = ["chat_model", "langchain_backend", "read_end", "read_messages", "stream_reply"]

_PACKAGE = re.compile(r"pip install (?:-U )?([\w.-]+)")


def langchain_backend(
    name: str,
    *,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    prefill: Prefill = "auto",
) -> ModelBackend:
    """A backend for a model that LangChain's `init_chat_model` makes.

    Args:
        name: PROVIDER:NAME.
        temperature: For sampling; None for the provider's default.
        seed: For sampling, if the provider's model has one.
        max_tokens: The most tokens of a call.
        prefill: Whether the provider continues a last message of the assistant; "auto" means no, as most refuse one.

    Raises:
        MissingExtra: LangChain is not installed.
        ModelLoadError: The provider's package or key is missing, or the provider refuses the settings.
        InvalidInput: There is no such provider.
    """
    model = chat_model(name, {"temperature": temperature, "seed": seed, "max_tokens": max_tokens})
    thread = LoopThread()

    def open_call(call: Call, index: int) -> RemoteStream:
        assert call.prompt is not None
        return RemoteStream(stream_reply(model, call.prompt), thread)

    def explain(error: BaseException) -> str:
        return explain_langchain(error, name)

    return ModelBackend(name, open_call, prefill=prefilled_stages(prefill == "yes"), explain=explain, close=thread.stop)


def chat_model(name: str, settings: Mapping[str, Any]) -> BaseChatModel:
    """The chat model that LangChain's `init_chat_model` makes.

    Args:
        name: PROVIDER:NAME.
        settings: Its keyword arguments; those that are None are left out.

    Raises:
        MissingExtra: LangChain is not installed.
        ModelLoadError: The provider's package or key is missing, or the provider refuses the settings.
        InvalidInput: There is no such provider.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtra("Models of the form langchain:PROVIDER:NAME need LangChain", "agents") from error
    provider, _, model = name.partition(":")
    if provider == "openai":
        # With OPENAI_BASE_URL set, it does not ask for token counts by default.
        settings = {"stream_usage": True, **settings}
    try:
        made: BaseChatModel = init_chat_model(model, model_provider=provider, **settings)
    except Exception as error:
        if (package := _missing_package(error, provider)) is not None:
            raise ModelLoadError(
                f"Models of {provider} need the package {package}, which is not installed: pip install {package}"
            ) from error
        if isinstance(error, ValueError) and str(error).startswith("Unsupported "):
            known = " ".join(str(error).split("\n", 1)[-1].split())
            raise InvalidInput(f"LangChain knows no provider {provider!r}. {known}") from error
        raise ModelLoadError(f"LangChain's model {name!r} could not be made: {one_line(error)}") from error
    return made


def _missing_package(error: Exception, provider: str) -> str | None:
    """The package that is missing according to an error; None if it is about something else."""
    if isinstance(error, ImportError) and (named := _PACKAGE.search(str(error))) is not None:
        return named[1]
    # `init_chat_model` also looks for some providers in langchain-community, and the error is then about that package.
    own = importlib.util.find_spec(f"langchain_{provider}")
    if isinstance(error, ImportError | AttributeError) and own is None:
        return f"langchain-{provider.replace('_', '-')}"
    return None


async def stream_reply(
    model: BaseChatModel, prompt: Prompt, reasons: FinishReasons | None = None
) -> AsyncIterator[str | Reply]:
    """A reply of the model as it comes, then one `Reply`.

    Args:
        model: The model.
        prompt: The prompt.
        reasons: Whether the model gives finish reasons; None for the record of this object.
    """
    end = ReplyEnd(reasons=reasons or FinishReasons.of(model))
    async with aclosing_stream(model.astream(prompt_dicts(prompt))) as chunks:
        async for chunk in chunks:
            read_end(chunk, end)
            if chunk.text:
                yield str(chunk.text)
            elif chunk.tool_calls:
                end.instead = "tool calls"
    yield end.reply()


def read_end(chunk: Any, end: ReplyEnd) -> None:
    """Takes what a chunk says about the end of its reply."""
    # Some providers report their counts in several chunks.
    if (usage := read_usage(getattr(chunk, "usage_metadata", None))) is not None:
        end.usage = (end.usage or Usage()) + usage
    end.read_metadata(chunk.response_metadata)
    end.refusal += str(chunk.additional_kwargs.get("refusal") or "")


def read_messages(messages: Sequence[Any]) -> list[Any]:
    """LangChain's messages from those of a chat completion request.

    Raises:
        InvalidInput: They cannot be read.
    """
    from langchain_core.messages import convert_to_messages

    try:
        return list(convert_to_messages(messages))
    except Exception as error:
        raise InvalidInput(f"The messages cannot be read: {one_line(error)}") from error
