"""The forms of `--model`, and the errors about names that cannot work."""

from __future__ import annotations

import pytest

from skeleton_of_thought import cli
from skeleton_of_thought._cli import run_settings
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (None, ModelSpec()),
        ("org/model", ModelSpec("org/model")),
        ("gpt2", ModelSpec("gpt2")),
        ("openai/gpt-oss-20b", ModelSpec("openai/gpt-oss-20b")),
        ("openai:gpt-4o", ModelSpec("gpt-4o", "openai")),
        ("openai:m@http://h:1/v1", ModelSpec("m", "openai", "http://h:1/v1")),
        ("openai:@cf/meta/m@https://h/v1", ModelSpec("@cf/meta/m", "openai", "https://h/v1")),
        ("openai:m@HTTP://h:1/v1", ModelSpec("m", "openai", "HTTP://h:1/v1")),
        ("openai:m@http://[::1]:8000/v1", ModelSpec("m", "openai", "http://[::1]:8000/v1")),
        ("openai:@cf/meta/llama-3.1", ModelSpec("@cf/meta/llama-3.1", "openai")),
        ("openai:m@2024.01", ModelSpec("m@2024.01", "openai")),
        ("openai:ft:gpt-4o:org::id", ModelSpec("ft:gpt-4o:org::id", "openai")),
        ("langchain:anthropic:claude-x", ModelSpec("anthropic:claude-x", "langchain")),
        ("langchain:ollama:llama3.2:1b", ModelSpec("ollama:llama3.2:1b", "langchain")),
    ],
)
def test_the_form_of_a_name_decides_its_source(text, spec):
    assert ModelSpec.parse(text) == spec


def test_a_model_file_is_found(tmp_path):
    file = tmp_path / "m.gguf"
    with pytest.raises(InvalidInput):
        ModelSpec.parse(str(file))
    file.touch()
    assert ModelSpec.parse(str(file)) == ModelSpec(str(file))


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("gpt-4o", "openai:gpt-4o"),
        ("o3", "openai:o3"),
        ("claude-sonnet-4-5", "langchain:anthropic:claude-sonnet-4-5"),
        ("gemini-2.5-pro", "langchain:google_genai:gemini-2.5-pro"),
        ("mistral-large-latest", "langchain:mistralai:mistral-large-latest"),
        ("anthropic:claude-x", "langchain:anthropic:claude-x"),
        ("google_genai:gemini-x", "langchain:google_genai:gemini-x"),
        ("ollama:llama3.2", "openai:llama3.2@http://127.0.0.1:11434/v1"),
        ("http://127.0.0.1:8000/v1", "openai:NAME@http://127.0.0.1:8000/v1"),
        ("OPENAI:gpt-4o", "openai:gpt-4o"),
        ("LangChain:ollama:x", "langchain:ollama:x"),
        ("HTTP://127.0.0.1:8000/v1", "openai:NAME@HTTP://127.0.0.1:8000/v1"),
        ("langchain:claude-x", "langchain:PROVIDER:NAME"),
        ("langchain:", "langchain:PROVIDER:NAME"),
    ],
)
def test_the_error_about_a_servers_model_says_what_to_write(text, write):
    with pytest.raises(InvalidInput) as error:
        ModelSpec.parse(text)
    assert write in str(error.value)
    assert "\n" not in str(error.value)


def test_a_directory_with_such_a_name_is_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt-4o").mkdir()
    assert ModelSpec.parse("gpt-4o") == ModelSpec("gpt-4o")


@pytest.mark.parametrize(
    "address",
    [
        "x@",
        "x@ ",
        "x@localhost",
        "x@localhost/v1",
        "x@localhost:8000",
        "x@127.0.0.1",
        "x@127.0.0.1/v1",
        "x@host:8801/v1",
        "x@api.example.com/v1",
        "x@myhost/v1",
        "x@myhost:notaport/v1beta/",
        "x@[::1]:8000/v1",
        "x@http:/127.0.0.1:8801/v1",
        "x@http:127.0.0.1/v1",
        "x@HTTP:/127.0.0.1:8801/v1",
        "x@htp://127.0.0.1:8801/v1",
        "x@ws://127.0.0.1:8801/v1",
        "x http://127.0.0.1:8801/v1",
        "http://127.0.0.1:8801/v1",
        "@http://127.0.0.1:8801/v1",
        "x@http://127.0.0.1:notaport/v1",
        "x@http://127.0.0.1:99999/v1",
        "x@http://[::1/v1",
        "x@http://",
        "x@https:///v1",
        "x@http://a b/v1",
    ],
)
def test_a_name_that_may_be_an_address_never_goes_to_openai(monkeypatch, capsys, address):
    monkeypatch.setattr(run_settings, "load_backend", lambda *_, **__: pytest.fail("a model was loaded"))
    assert cli.main(["ask", "Why?", "-m", f"openai:{address}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sot: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("address", ["localhost:8000/v1", "http://127.0.0.1:notaport/v1", "http://[::1/v1", "http://"])
def test_an_address_in_the_environment_is_checked(monkeypatch, capsys, address):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert cli.main(["ask", "Why?", "-m", "openai:m"]) == 2
    err = capsys.readouterr().err
    assert "OPENAI_BASE_URL" in err
    assert err.count("\n") == 1
