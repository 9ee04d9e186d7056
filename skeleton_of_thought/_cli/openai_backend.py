"""The `sot` command's backend for OpenAI-compatible servers."""

from __future__ import annotations

import asyncio

from skeleton_of_thought._cli.backend import (
    LoopThread,
    ModelBackend,
    Prefill,
    RemoteStream,
    prefilled_stages,
)
from skeleton_of_thought._cli.chat_completions import ChatCompletions
from skeleton_of_thought._cli.diagnostics import explain_openai
from skeleton_of_thought.drive import GRACE
from skeleton_of_thought.types import Call

__all__ = ["openai_backend"]


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
