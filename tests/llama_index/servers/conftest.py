"""`OpenAILike` on llama.cpp's server, which `tests/conftest.py` starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest


@pytest.fixture
async def open_ai_like(llama: Any) -> AsyncIterator[Callable[..., Any]]:
    """`open_ai_like(**settings)`: an LLM that writes short greedy texts.

    Its client retries, because the server drops connections at times. Further fields of a request go into `extra_body`.
    """
    library = pytest.importorskip("llama_index.llms.openai_like", reason="`make test-llama-index` installs OpenAILike")
    import openai

    # The test closes these clients. Clients made by the library would stay open.
    sync, asynchronous = openai.DefaultHttpxClient(), openai.DefaultAsyncHttpxClient()

    def make(extra_body: dict[str, Any] | None = None, **settings: Any) -> Any:
        more = {"extra_body": {"cache_prompt": False, **(extra_body or {})}, **settings.pop("additional_kwargs", {})}
        known = {"model": "model", "is_chat_model": True, "context_window": 1024, "temperature": 0, "max_tokens": 8}
        clients = {"http_client": sync, "async_http_client": asynchronous, "max_retries": 3, "api_key": "none"}
        return library.OpenAILike(
            api_base=f"{llama.address}/v1", additional_kwargs=more, **{**known, **clients, **settings}
        )

    yield make
    sync.close()
    await asynchronous.aclose()
