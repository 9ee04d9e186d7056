"""`llm`, Simon Willison's command line, with its models on OpenAI-compatible servers."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("llm") is None:
    pytest.skip("the command line llm is not installed", allow_module_level=True)


@pytest.fixture
def home(server, tmp_path):
    """Its folder, with the two models of the server."""
    models = "".join(
        f"- model_id: {name}\n  model_name: {name}\n  api_base: {server.base_url}\n  supports_schema: true\n"
        for name in ("x", "x-sot")
    )
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    return tmp_path


@pytest.fixture
def command(home):
    """`command(*arguments)`: starts it."""
    started = []

    def start(*arguments):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "OPENAI_"))}
        environment = {**kept, "LLM_USER_PATH": str(home), "LLM_LOAD_PLUGINS": "", "PYTHONUNBUFFERED": "1"}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-m", "llm", *arguments], env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_streams(command, server, upstream, question, answer):
    gate = asyncio.Event()
    upstream.script["Sleep"] = [gate, "All about ", "Sleep."]
    process = command("-m", "x-sot", "-s", "Be brief.", "-u", question)
    told = ""
    while "All about Diet." not in told:
        letter = process.stdout.read(1)
        assert letter, process.stderr.read()
        told += letter
    server.until(lambda: upstream.open["Sleep"] == 1, "a later point is not written yet")
    server.do(gate.set)
    # Not `communicate`, which would lose what stdout has buffered.
    rest, errors = process.stdout.read(), process.stderr.read()
    assert (told + rest).strip() == answer
    assert process.wait(timeout=30) == 0
    assert "40 input, 20 output" in errors
    assert all(call.prompt.messages[0].text == "Be brief." for call in upstream.calls)


def test_the_command_without_streaming_and_an_interrupt(command, server, upstream, question, answer):
    out, errors = command("-m", "x-sot", "--no-stream", question).communicate(timeout=30)
    assert (out.strip(), errors) == (answer, "")
    upstream.script["Diet"] = ["Begun ", asyncio.Event()]
    process = command("-m", "x-sot", question)
    server.until(lambda: upstream.open["Diet"] == 1, "a point is being written")
    process.terminate()
    server.until(lambda: upstream.open_calls == 0, "all calls upstream have ended")
    assert len(upstream.calls) == 8


def test_the_command_shows_an_error_of_the_server(command, upstream, question):
    upstream.script["skeleton"] = [ValueError("odd")]
    out, errors = command("-m", "x-sot", question).communicate(timeout=30)
    assert "Error: " in errors
    assert "odd" in errors
    assert out.strip() == ""
