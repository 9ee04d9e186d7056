"""The `sot` command's backend for OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from skeleton_of_thought._cli.backend import (
    LoopThread,
    ModelBackend,
    Prefill,
    RemoteStream,
    prefilled_stages,
    prompt_dicts,
)
from skeleton_of_thought._cli.diagnostics import explain_openai, one_line
from skeleton_of_thought.adapters.replies import FinishReasons, ReplyEnd, read_finish_reason, read_usage
from skeleton_of_thought.drive import GRACE
from skeleton_of_thought.errors import InvalidInput, MissingExtra
from skeleton_of_thought.types import Call, Prompt, Reply

if TYPE_CHECKING:
    import openai

__all__ = ["check_address", "openai_backend", "without_login"]

logger = logging.getLogger(__name__)

_CONTINUING = frozenset({"llamacpp", "vllm", "sglang"})
"""Owners of models, as servers list them, that stand for servers that can continue the last message."""
_PROBE_SECONDS = 5.0
"""Seconds within which a server has to show that it continues a prefill."""
_CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""Makes vLLM and SGLang continue the last message. llama.cpp does so anyway, and accepts these fields."""


def openai_backend(
    model: str,
    *,
    base_url: str | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    prefill: Prefill = "auto",
) -> ModelBackend:
    """A backend for an OpenAI-compatible server. The key is `OPENAI_API_KEY`.

    Args:
        model: The server's name for the model.
        base_url: The server's address; `OPENAI_BASE_URL` or OpenAI's own by default.
        temperature: For sampling; None for the server's default.
        seed: For sampling.
        max_tokens: The most tokens of a call.
        prefill: Whether the server continues a last message of the assistant; "auto" probes the server.

    Raises:
        MissingExtra: The `openai` SDK is not installed.
        InvalidInput: There is no key for OpenAI's own server, or the address is invalid.
    """
    client, own_server = _client(base_url)
    settings = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    chat = _ChatCompletions(client, model, {name: value for name, value in settings.items() if value is not None})
    thread = LoopThread()

    def open_call(call: Call, index: int) -> RemoteStream:
        assert call.prompt is not None
        return RemoteStream(chat.stream(call.prompt), thread)

    def explain(error: BaseException) -> str:
        return explain_openai(error, model, str(client.base_url))

    def close() -> None:
        if not thread.loop.is_closed():
            asyncio.run_coroutine_threadsafe(client.close(), thread.loop).result(GRACE)
        thread.stop()

    continues = prefill == "yes"
    if prefill == "auto" and own_server:
        continues = asyncio.run_coroutine_threadsafe(_continues(client, chat, model), thread.loop).result()
    return ModelBackend(model, open_call, prefill=prefilled_stages(continues), explain=explain, close=close)


def without_login(url: str) -> str:
    """An address that may not be valid, with `***` in place of a login."""
    login, at, host = url.rpartition("@")
    scheme, mark, _ = login.partition("://")
    return f"{scheme + mark if mark else ''}***@{host}" if at else url


def check_address(url: str, what: str) -> None:
    """Checks the address of a server.

    Args:
        url: The address.
        what: Its name in errors.

    Raises:
        InvalidInput: The address is invalid.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        # The error names a part of the address, which may be one of a password.
        why = str(error).split(" as ")[0] if str(error).startswith("Port ") else "its host is not valid"
        raise InvalidInput(f"{what} cannot be used: {why}.") from error
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise InvalidInput(f"{what} must be like http://host:port/v1.")


def _client(base_url: str | None) -> tuple[openai.AsyncOpenAI, bool]:
    """A client, and whether its server is another one than OpenAI's own."""
    try:
        import httpx
        import openai
    except ImportError as error:
        raise MissingExtra("Models of the form openai:NAME need the openai SDK", "openai") from error
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if url is not None:
        check_address(url, f"The server's address {without_login(url)!r}" + ("" if base_url else " in OPENAI_BASE_URL"))
    key = os.environ.get("OPENAI_API_KEY")
    if not key and url is None:
        raise InvalidInput(
            "OPENAI_API_KEY is not set. Set it, or name a server: --model openai:NAME@http://host:port/v1."
        )
    try:
        # Few other servers want a key, but the SDK always does.
        return openai.AsyncOpenAI(api_key=key or "none", base_url=url), url is not None
    except httpx.InvalidURL as error:
        raise InvalidInput(
            f"The server's address {without_login(url or '')!r} cannot be used: its host or port is not valid."
        ) from error


class _ChatCompletions:
    """Chat completions of one model on one server."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, settings: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._settings = settings
        self._usage_option: dict[str, Any] = {"stream_options": {"include_usage": True}}
        self._continue_option: dict[str, Any] = dict(_CONTINUE)
        self._reasons = FinishReasons()

    async def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        end = ReplyEnd()
        async with await self._open(prompt_dicts(prompt), prefilled=bool(prompt.prefill)) as stream:
            if not self._usage_option:
                # Of a server that takes the option, each whole stream has at least the usage.
                end.reasons = self._reasons
            async for chunk in stream:
                if (usage := getattr(chunk, "usage", None)) is not None:
                    end.usage = read_usage(usage)
                # The last chunk, with the usage, has no choices.
                for choice in chunk.choices or ():
                    if choice.finish_reason:
                        end.finish_reason = read_finish_reason(choice)
                    delta = choice.delta
                    if delta is None:
                        continue
                    end.refusal += getattr(delta, "refusal", None) or ""
                    if text := delta.content:
                        yield text if type(text) is str else _text_of_parts(text)
                    elif delta.tool_calls:
                        end.instead = "tool calls"
                    elif getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None):
                        end.instead = end.instead or "reasoning"
        end.cut = end.finish_reason is None
        yield end.reply()

    async def try_prefill(self) -> None:
        """Has the server continue a turn by one token.

        Raises:
            openai.OpenAIError: The server refuses. Chat templates of reasoning models may not allow it.
        """
        messages = [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "1, 2,"}]
        async with await self._open(messages, prefilled=True, max_tokens=1):
            pass

    async def _open(self, messages: list[Any], *, prefilled: bool, **more: Any) -> openai.AsyncStream[Any]:
        from openai import BadRequestError, UnprocessableEntityError

        create: Any = self._client.chat.completions.create
        request = {"model": self._model, "messages": messages, "stream": True, **self._settings, **more}
        while True:
            extra = {"extra_body": self._continue_option} if prefilled and self._continue_option else {}
            try:
                return await create(**request, **self._usage_option, **extra)  # type: ignore[no-any-return]
            except (BadRequestError, UnprocessableEntityError) as error:
                # Some servers reject fields that they do not know. An answer without token counts is better than none,
                # and a server that does not know the fields for continuing may continue its turn all the same.
                if self._usage_option and "stream_options" in str(error):
                    self._usage_option = {}
                elif extra and any(name in str(error) for name in _CONTINUE):
                    self._continue_option = {}
                else:
                    raise


def _text_of_parts(content: Any) -> str:
    """The text of content in parts, as servers of some models that reason send it; the reasoning is left out.

    Raises:
        TypeError: The content is neither text nor parts.
    """
    if not isinstance(content, list):
        raise TypeError(f"its text is of the type {type(content).__name__}")
    return "".join(part["text"] for part in content if part["type"] == "text")


async def _continues(client: openai.AsyncOpenAI, chat: _ChatCompletions, model: str) -> bool:
    """Whether the server is of a kind that can continue the assistant's last message, and accepts one on trial."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            served = [card async for card in client.with_options(max_retries=0).models.list()]
            owners = {getattr(card, "owned_by", None) for card in served if card.id == model or len(served) == 1}
            if not owners & _CONTINUING:
                return False
            await chat.try_prefill()
    except Exception as error:
        # If the server does not work, the call of the question reports it.
        logger.debug("Could not find out whether the server continues a prefill: %s", one_line(error))
        return False
    return True
