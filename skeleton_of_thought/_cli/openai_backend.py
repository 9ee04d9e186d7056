"""OpenAI-compatible servers: the backend of `sot ask`, and the chat completions that `sot serve` shares with it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Self
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
from skeleton_of_thought.errors import InvalidInput, MissingExtra, without_secrets
from skeleton_of_thought.types import Call, Prompt, Reply

if TYPE_CHECKING:
    import openai

__all__ = ["ChatCompletions", "check_address", "openai_backend", "without_login"]

logger = logging.getLogger(__name__)

_CONTINUING = frozenset({"llamacpp", "vllm", "sglang"})
"""Owners of models, as servers list them, that stand for servers that can continue the last message."""
_NO_KEY = "none"
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
    chat = ChatCompletions.of(model, base_url, temperature=temperature, seed=seed, max_tokens=max_tokens)
    thread = LoopThread()

    def open_call(call: Call, index: int) -> RemoteStream:
        assert call.prompt is not None
        return RemoteStream(chat.stream(call.prompt), thread)

    def explain(error: BaseException) -> str:
        return explain_openai(error, model, chat.address)

    def close() -> None:
        if not thread.loop.is_closed():
            asyncio.run_coroutine_threadsafe(chat.client.close(), thread.loop).result(GRACE)
        thread.stop()

    continues = prefill == "yes"
    if prefill == "auto":
        continues = asyncio.run_coroutine_threadsafe(chat.continues_prefill(), thread.loop).result()
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


class ChatCompletions:
    """Chat completions of one model on one server, for any number of tasks of one event loop.

    Args:
        client: The client of the server.
        model: The server's name for the model.
        settings: Fields of every request, such as `max_tokens`.
        own_server: Whether the server is another one than OpenAI's.
    """

    def __init__(
        self, client: openai.AsyncOpenAI, model: str, settings: Mapping[str, Any], *, own_server: bool
    ) -> None:
        self.client = client
        self.own_server = own_server
        self._model = model
        self._settings = dict(settings)
        self._usage_option: dict[str, Any] = {"stream_options": {"include_usage": True}}
        self._continue_option: dict[str, Any] = dict(_CONTINUE)
        self._reasons = FinishReasons()

    @classmethod
    def of(
        cls, model: str, base_url: str | None, key: str | None = None, *, http_client: Any = None, **settings: Any
    ) -> Self:
        """The model on a server, with a new client.

        Args:
            model: The server's name for the model.
            base_url: The server's address; `OPENAI_BASE_URL` or OpenAI's own by default.
            key: The server's key; `OPENAI_API_KEY` by default.
            http_client: Makes the SDK's HTTP client; None for the SDK's own.
            **settings: Fields of every request; those that are None are left out.

        Raises:
            MissingExtra: The `openai` SDK is not installed.
            InvalidInput: There is no key for OpenAI's own server, or the address is invalid.
        """
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("Models of the form openai:NAME need the openai SDK", "openai") from error
        url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        if url is not None:
            source = "" if base_url else " in OPENAI_BASE_URL"
            check_address(url, f"The server's address {without_login(url)!r}{source}")
        key = key or os.environ.get("OPENAI_API_KEY")
        if not key and url is None:
            raise InvalidInput(
                "OPENAI_API_KEY is not set. Set it, or name a server: --model openai:NAME@http://host:port/v1."
            )
        given = {name: value for name, value in settings.items() if value is not None}
        try:
            own = {} if http_client is None else {"http_client": http_client()}
            # Few other servers want a key, but the SDK always does.
            client = openai.AsyncOpenAI(api_key=key or _NO_KEY, base_url=url, **own)
        except Exception as error:
            # Of httpx, or of httpx2 since version 3 of the SDK.
            if type(error).__name__ != "InvalidURL":
                raise
            raise InvalidInput(
                f"The server's address {without_login(url or '')!r} cannot be used: its host or port is not valid."
            ) from error
        return cls(client, model, given, own_server=url is not None)

    @property
    def address(self) -> str:
        """The server's address, without a login or key."""
        return without_secrets(without_login(str(self.client.base_url)))

    @property
    def key(self) -> str | None:
        """The server's key; None for a server without one."""
        return None if self.client.api_key == _NO_KEY else self.client.api_key

    async def stream(
        self, prompt: Prompt, sampling: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[str | Reply]:
        """The text of a completion as it comes, then one `Reply`.

        Args:
            prompt: The prompt.
            sampling: Further fields of the request. They take precedence over those of all requests, and may be
                fields that only this server knows.
            headers: Further headers of the request.

        Raises:
            openai.OpenAIError: The server cannot be reached, refuses the request, or sends no chat completion.
            ConnectionError: The stream broke off.
        """
        end, messages, prefilled = ReplyEnd(), prompt_dicts(prompt), bool(prompt.prefill)
        async with await self._open(messages, prefilled=prefilled, more=sampling or {}, headers=headers) as stream:
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

    async def continues_prefill(self) -> bool:
        """Whether the server is of a kind that can continue the assistant's last message, and accepts one on trial."""
        if not self.own_server:
            return False
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                served = [card async for card in self.client.with_options(max_retries=0).models.list()]
                named = [card for card in served if card.id == self._model or len(served) == 1]
                if not {getattr(card, "owned_by", None) for card in named} & _CONTINUING:
                    return False
                await self._try_prefill()
        except Exception as error:
            # If the server does not work, the call of the question reports it.
            logger.debug("Could not find out whether the server continues a prefill: %s", one_line(error))
            return False
        return True

    async def _try_prefill(self) -> None:
        """Has the server continue a turn by one token. Chat templates of reasoning models may not allow it."""
        messages = [{"role": "user", "content": "Count to three."}, {"role": "assistant", "content": "1, 2,"}]
        async with await self._open(messages, prefilled=True, more={"max_tokens": 1}):
            pass

    async def _open(
        self,
        messages: list[Any],
        *,
        prefilled: bool,
        more: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> openai.AsyncStream[Any]:
        from openai import BadRequestError, UnprocessableEntityError

        create: Any = self.client.chat.completions.create
        request = {"model": self._model, "messages": messages, "stream": True, "extra_headers": headers}
        request |= self._settings
        while True:
            # As extra fields, which the SDK merges into the body as they are: it refuses arguments that it does not
            # know, and a field of the caller's may be called like an argument of the SDK's own, such as `timeout`.
            extra = {**more, **(self._continue_option if prefilled else {})}
            try:
                return await create(**request, **self._usage_option, extra_body=extra or None)  # type: ignore[no-any-return]
            except (BadRequestError, UnprocessableEntityError) as error:
                # Some servers reject fields that they do not know. An answer without token counts is better than none,
                # and a server that does not know the fields for continuing may continue its turn all the same.
                if self._usage_option and "stream_options" in str(error):
                    self._usage_option = {}
                elif prefilled and self._continue_option and any(name in str(error) for name in _CONTINUE):
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
