"""Fixtures for the tests of the server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from scripted_upstream import ScriptedUpstream

if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "httpx")):
    collect_ignore_glob = ["test_*.py"]  # they need the extra `serve`

PATIENCE = 30.0
QUESTION = "What are good ways to stay healthy?"


def body_of(model: str = "m-sot", question: Any = QUESTION, **fields: Any) -> dict[str, Any]:
    """A request whose answer has points, whatever the router says."""
    body = {"model": model, "messages": [{"role": "user", "content": question}], "sot": {"router": "always"}}
    return {**body, **fields}


@pytest.fixture
def body() -> Callable[..., dict[str, Any]]:
    """`body(model="m-sot", question=..., **fields)`: a request."""
    return body_of


@pytest.fixture
def upstream() -> ScriptedUpstream:
    """The model `m`, with the points Diet, Sleep and Exercise."""
    return ScriptedUpstream()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """`await serve(upstream, model={...}, **settings)`: a client of a server with the model `m`."""
    import httpx
    from serving import serving

    from skeleton_of_thought.serve.app import create_app
    from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

    async with contextlib.AsyncExitStack() as stack:

        async def start(upstream: ScriptedUpstream, model: Any = None, **settings: Any) -> Any:
            app = create_app(
                ServeSettings((ModelSettings("m", **(model or {})),), page=False, **settings), {"m": upstream}
            )
            url = await stack.enter_async_context(serving(app))
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=PATIENCE))

        yield start


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Awaitable[None]]:
    """`await until(condition, what)`: waits for a condition."""

    async def wait(condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"this never came: {what}"
            await asyncio.sleep(0.002)

    return wait
