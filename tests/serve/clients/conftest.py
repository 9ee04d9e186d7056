"""The server over scripted models in a thread of its own, and the clients that other people wrote."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "httpx")):
    collect_ignore_glob = ["test_*.py"]  # they need the extra `serve`

QUESTION = "What are the pros and cons of living on a boat?"


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """`start(upstream, model={...}, **settings)`: a server with the models `x` and `x-sot`. It ends all calls."""
    from serving import serving_apart

    from skeleton_of_thought.serve.app import create_app
    from skeleton_of_thought.serve.limits import CallLimit
    from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

    with contextlib.ExitStack() as stack:
        started = []

        def make(upstream: Any, model: Any = None, **settings: Any) -> Any:
            chosen = ServeSettings((ModelSettings("x", **(model or {})),), page=False, **settings)
            limit = CallLimit(chosen.max_open_calls, chosen.max_waiting)

            @contextlib.asynccontextmanager
            async def opened() -> AsyncIterator[Any]:
                yield create_app(chosen, {"x": upstream}, limit=limit)

            server = stack.enter_context(serving_apart(opened))
            server.limit = limit
            started.append((server, upstream))
            return server

        yield make
        for server, upstream in started:
            server.until(lambda: upstream.open_calls == 0, "all calls upstream have ended")  # noqa: B023
            server.until(lambda: server.limit.open_calls == 0, "all places are free")  # noqa: B023


@pytest.fixture
def upstream() -> Any:
    """The model behind `x`: its answers by points have Diet, Sleep and Exercise."""
    from assistant_upstream import AssistantUpstream

    return AssistantUpstream()


@pytest.fixture
def server(start: Callable[..., Any], upstream: Any) -> Any:
    """A server whose model `x-sot` answers all that it can by points."""
    return start(upstream, model={"router": "always"})


@pytest.fixture
def question() -> str:
    """A question that suits."""
    return QUESTION


@pytest.fixture
def answer() -> str:
    """What the points say that nobody scripted."""
    return "1. Diet: All about Diet.\n\n2. Sleep: All about Sleep.\n\n3. Exercise: All about Exercise."
