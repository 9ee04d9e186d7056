"""A small LLM of LlamaIndex over httpx. It reads the protocol as plain clients do, without a check of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from typing import Any

import httpx
from llama_index.core.base.llms.generic_utils import (
    achat_to_completion_decorator,
    astream_chat_to_completion_decorator,
    chat_to_completion_decorator,
    stream_chat_to_completion_decorator,
)
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata, MessageRole
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM

from fault_matrix.clients import LONG, Steering
from fault_matrix.server import ROUTE_MODEL

__all__ = ["HttpxLLM", "async_httpx", "httpx_llm", "sync_httpx"]


class HttpxLLM(LLM):
    """A chat model on a server of OpenAI's chat completions."""

    address: str
    model: str = "model"
    sync: Any = None
    asynchronous: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, context_window=8192, model_name=self.model)

    def _request(self, messages: Sequence[ChatMessage], *, stream: bool) -> dict[str, Any]:
        given = [{"role": message.role.value, "content": message.content} for message in messages]
        body = {"model": self.model, "messages": given, "stream": stream}
        return {"method": "POST", "url": f"{self.address}/chat/completions", "json": body}

    # --- chats ---

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _whole(self.sync.request(**self._request(messages, stream=False)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _whole(await self.asynchronous.request(**self._request(messages, stream=False)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse]:
        def pieces() -> Generator[ChatResponse]:
            with self.sync.stream(**self._request(messages, stream=True)) as response:
                response.raise_for_status()
                yield from _pieces(response.iter_lines())

        return pieces()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse]:
        async def pieces() -> AsyncGenerator[ChatResponse]:
            text = ""
            async with self.asynchronous.stream(**self._request(messages, stream=True)) as response:
                response.raise_for_status()
                async with contextlib.aclosing(response.aiter_lines()) as lines:
                    async for line in lines:
                        if (data := _data(line)) == "[DONE]":
                            return
                        if data is not None:
                            text, piece = _piece(text, data)
                            yield piece

        return pieces()

    # --- completions ---

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_to_completion_decorator(self.chat)(prompt, **kwargs)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return await achat_to_completion_decorator(self.achat)(prompt, **kwargs)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        return stream_chat_to_completion_decorator(self.stream_chat)(prompt, **kwargs)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncIterator[CompletionResponse]:
        return await astream_chat_to_completion_decorator(self.astream_chat)(prompt, **kwargs)


def _whole(response: httpx.Response) -> ChatResponse:
    response.raise_for_status()
    data = response.json()
    return ChatResponse(message=_message(data["choices"][0]["message"]["content"]), raw=data)


def _pieces(lines: Iterator[str]) -> Generator[ChatResponse]:
    text = ""
    for line in lines:
        if (data := _data(line)) == "[DONE]":
            return
        if data is not None:
            text, piece = _piece(text, data)
            yield piece


def _data(line: str) -> str | None:
    return line.removeprefix("data:").strip() if line.startswith("data:") else None


def _piece(text: str, data: str) -> tuple[str, ChatResponse]:
    chunk = json.loads(data)
    if "error" in chunk:
        raise httpx.RemoteProtocolError(chunk["error"]["message"])
    choices = chunk["choices"]
    delta = (choices[0]["delta"].get("content") if choices else None) or ""
    return text + delta, ChatResponse(message=_message(text + delta), delta=delta, raw=chunk)


def _message(content: str | None) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, content=content)


def sync_httpx(steering: Steering) -> httpx.Client:
    """A client for threads."""
    return httpx.Client(event_hooks=steering.sync_hooks(), timeout=LONG, verify=False)


def async_httpx(steering: Steering) -> httpx.AsyncClient:
    """A client for an event loop."""
    return httpx.AsyncClient(event_hooks=steering.async_hooks(), timeout=LONG, verify=False)


def httpx_llm(steering: Steering, *, sync: Any = None, asynchronous: Any = None, route: bool = False) -> HttpxLLM:
    """An LLM on the fault server."""
    model = ROUTE_MODEL if route else "model"
    return HttpxLLM(address=steering.server.address, model=model, sync=sync, asynchronous=asynchronous)
