"""`sot --model langchain:PROVIDER:NAME`: models of `init_chat_model`, imported when needed."""

from __future__ import annotations

import importlib.machinery
import json
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from skeleton_of_thought._cli.diagnostics import explain_langchain
from skeleton_of_thought.cli import main

pytest.importorskip("langchain")

SKELETON = "1. First thing\n2. Second thing\n3. Third thing\n"


class Scripted(BaseChatModel):
    """A provider's model that records its settings and its calls."""

    model: str
    temperature: float | None = None
    max_tokens: int | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("x"))])

    async def _astream(self, messages: Any, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        ASKED.append((self, messages))
        last = str(messages[-1].content)
        if "fail" in last:
            raise ConnectionError("no\nroute")
        text = SKELETON if "Write only the headings" in last or last == "1." else "Some text of this."
        for word in text.replace(" ", "| ").split("|"):
            yield ChatGenerationChunk(message=AIMessageChunk(word))
        usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "input_token_details": {"cache_read": 2}}
        end = AIMessageChunk("", usage_metadata=usage, response_metadata={"stop_reason": "max_tokens"})
        yield ChatGenerationChunk(message=end)


ASKED: list[tuple[Scripted, Any]] = []


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `init_chat_model` find a langchain-anthropic."""
    from langchain.chat_models import base

    package = types.ModuleType("langchain_anthropic")
    package.ChatAnthropic = Scripted  # type: ignore[attr-defined]
    package.__spec__ = importlib.machinery.ModuleSpec("langchain_anthropic", None)
    monkeypatch.setitem(sys.modules, "langchain_anthropic", package)
    _forget(base)
    ASKED.clear()


def _forget(base: Any) -> None:
    """Makes it look for packages again: newer versions cache the result."""
    for name in vars(base).values():
        if hasattr(name, "cache_clear"):
            name.cache_clear()


def ask(capsys: Any, *options: str, question: str = "What now?") -> tuple[int, str, str]:
    code = main(["ask", question, "--no-router", "--model", "langchain:anthropic:some-model", *options])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_provider_of_langchain_answers(capsys: Any) -> None:
    code, out, err = ask(capsys, "--json", "--temperature", "0.5", "--max-tokens", "99", "--system", "Be brief.")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["skeleton"] == ["First thing", "Second thing", "Third thing"]
    assert "1. First thing: Some text of this." in answer["text"]
    assert answer["usage"]["output_tokens"] == 16
    assert answer["usage"]["cached_tokens"] == 8
    model, messages = ASKED[0]
    assert (model.model, model.temperature, model.max_tokens) == ("some-model", 0.5, 99)
    assert [message.type for message in messages] == ["system", "human"]


def test_missing_settings_are_the_providers_defaults(capsys: Any) -> None:
    assert ask(capsys)[0] == 0
    assert (ASKED[0][0].temperature, ASKED[0][0].max_tokens) == (None, None)


@pytest.mark.parametrize(("options", "last"), [([], "human"), (["--prefill=yes"], "ai"), (["--prefill=auto"], "human")])
def test_only_the_option_gives_a_provider_the_start_of_turns(capsys: Any, options: list[str], last: str) -> None:
    assert ask(capsys, *options)[0] == 0
    assert {messages[-1].type for _, messages in ASKED} == {last}


def test_an_error_of_the_provider_is_one_line(capsys: Any) -> None:
    code, _, err = ask(capsys, "--retries", "0", question="Does it fail?")
    assert code == 1
    assert err.startswith("sot: error: The server of LangChain's provider anthropic cannot be reached")
    assert "ConnectionError: no route" in err
    assert err.count("\n") == 1


def test_an_error_names_the_provider_and_its_cause() -> None:
    class APIConnectionError(Exception):
        pass

    class AuthenticationError(Exception):
        pass

    error = APIConnectionError("Connection error.")
    error.__cause__ = OSError("name or service not known")
    text = explain_langchain(error, "openai:m")
    assert text.startswith("The server of LangChain's provider openai cannot be reached")
    assert "name or service not known" in text
    assert "the key" in explain_langchain(AuthenticationError("no"), "openai:m")
    assert (
        explain_langchain(ValueError("bad\nvalue"), "openai:m")
        == "LangChain's model 'openai:m' failed: ValueError: bad value"
    )


def test_no_thread_remains(capsys: Any) -> None:
    assert ask(capsys)[0] == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "sot-calls"]


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("langchain:groq:m", 1, "pip install langchain-groq"),
        ("langchain:google_genai:m", 1, "pip install langchain-google-genai"),
        ("langchain:ollama:m", 1, "pip install langchain-ollama"),
        ("langchain:nosuch:m", 2, "anthropic"),
        ("langchain:nosuch:m", 2, "knows no provider 'nosuch'"),
        ("langchain:openai:m", 1, "api_key"),
    ],
)
def test_a_missing_package_or_key_is_named(
    model: str, code: int, words: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["ask", "q", "--model", model]) == code
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_missing_langchain_names_the_extra(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    code, _, err = ask(capsys)
    assert code == 1
    assert "pip install" in err
    assert "agents]" in err


def test_langchain_is_imported_only_for_its_models() -> None:
    code = (
        "import sys\nfrom skeleton_of_thought.cli import main\nmain(['ask', 'q', '--model', './nowhere'])\n"
        "main(['ask', 'q', '--model', 'anthropic:claude-x'])\n"
        "print([name for name in ('langchain', 'langchain_core') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "langchain:anthropic:claude-x" in done.stderr
