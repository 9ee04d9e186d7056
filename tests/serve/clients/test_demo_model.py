"""The openai package on a server with the demo model in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

openai = pytest.importorskip("openai", reason="the openai package is not installed")
pytest.importorskip("torch", reason="the demo model needs torch")

from serving import serving_apart  # noqa: E402

from skeleton_of_thought.serve.app import create_app  # noqa: E402
from skeleton_of_thought.serve.limits import CallLimit  # noqa: E402
from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings  # noqa: E402
from skeleton_of_thought.serve.upstreams import open_upstream  # noqa: E402
from skeleton_of_thought.settings import Settings  # noqa: E402

pytestmark = pytest.mark.model


def test_the_demo_model_answers_by_points_and_by_itself(question):
    settings = Settings(max_points=2, on_point_error="placeholder")
    model = ModelSettings("demo", settings=settings, router="always", max_tokens=12)
    limit = CallLimit(8, 8)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[object]:
        upstream = await open_upstream(model)
        try:
            yield create_app(ServeSettings((model,), page=False), {"demo": upstream}, limit=limit)
        finally:
            await upstream.close()

    asked = {"model": "demo-sot", "messages": [{"role": "user", "content": question}]}
    with serving_apart(opened) as server, openai.OpenAI(base_url=server.base_url, api_key="none") as client:
        chunks = [*client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert text.startswith("1. ")
        assert "\n\n2. " in text
        assert chunks[-1].usage.completion_tokens > 0
        whole = client.chat.completions.create(**{**asked, "model": "demo"}, max_tokens=4)
        assert (whole.choices[0].finish_reason, whole.usage.completion_tokens) == ("length", 4)
        with client.chat.completions.create(**asked, stream=True) as stream:
            while not next(stream).choices[0].delta.content:
                pass
        server.until(lambda: limit.open_calls == 0, "all calls have ended")
