"""LangChain's own integration tests for chat models, over `ChatOpenAI` on the server.

The suite leaves out what a model does not say that it can do. These are images, PDF files, audio and Anthropic's blocks
(they pass through as they are, and the suite would fetch its files from other hosts), `test_stream_time` (it replays
recordings), and details of usage other than cached tokens (scripted models report none).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

integration = pytest.importorskip(
    "langchain_tests.integration_tests", reason="LangChain's standard tests are not installed"
)
langchain_openai = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")

import openai  # noqa: E402

# The suite's own benchmark and beta events warn, and so does langchain-openai where it parses forms.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*beta.*:Warning",
    "ignore:.*v3.*:Warning",
    "ignore:Pydantic serializer warnings:UserWarning",
    "ignore:Received a Pydantic BaseModel V1:UserWarning",
)


class TestIntegration(integration.ChatModelIntegrationTests):
    """All that suits is answered by points; tools and forms pass through."""

    given: Any = None

    @pytest.fixture(autouse=True)
    async def connected(self, start: Callable[..., Any], upstream: Any) -> AsyncIterator[None]:
        server = start(upstream)
        # Clients of ChatOpenAI's own would stay open, also when their event loop has ended.
        with openai.DefaultHttpxClient(verify=False) as sync:
            async with openai.DefaultAsyncHttpxClient(verify=False) as tasks:
                self.given = {"base_url": server.base_url, "http_client": sync, "http_async_client": tasks}
                self.upstream = upstream
                yield

    @property
    def chat_model_class(self) -> Any:
        return langchain_openai.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        known = {"model": "x-sot", "api_key": "none", "stream_usage": True, "max_retries": 0}
        return {**known, "extra_body": {"sot": {"router": "always"}}, **self.given}

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "x"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> Any:
        model = self.chat_model_class(**self.chat_model_params)
        if not stream:
            return model.invoke("Hello")
        first, *rest = model.stream("Hello")
        return sum(rest, first)

    def test_questions_are_answered_by_points(self, model: Any) -> None:
        model.invoke("Hello")
        assert [call.stage for call in self.upstream.calls] == ["skeleton", "point", "point", "point"]
        assert not self.upstream.passed
