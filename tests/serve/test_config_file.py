"""The settings of the server, from its TOML file and from options of the command."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from skeleton_of_thought._cli.options import parse, parser, served_options
from skeleton_of_thought._cli.serve import settings_of
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.serve.config_file import default_name, named_model, read_config
from skeleton_of_thought.serve.settings import ServeSettings
from skeleton_of_thought.settings import Settings

SERVED = "openai:m@http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SOT_CONFIG", "SOT_MODEL", "SOT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def read(tmp_path):
    def read(text: str, **options):
        path = tmp_path / "server.toml"
        path.write_text(text, encoding="utf-8")
        return read_config(path, **options)

    return read


def typed(*words: str) -> ServeSettings:
    return settings_of(parse(["serve", *words]))


# --- the file ---------------------------------------------------------------------------------------


def test_every_key_of_the_server_sets_its_field(read, monkeypatch):
    monkeypatch.setenv("KEYS", "sk-1, sk-2 ,,sk-1")
    settings = read(
        """
        [server]
        host = "0.0.0.0"
        port = 0
        key-env = "KEYS"
        allow-anyone = true
        origins = ["https://a.example", "https://b.example"]
        max-open-calls = 3
        max_waiting = 0
        max-request-bytes = 1000
        timeout = 2.5
        keep-alive = 1
        grace = 0
        log-texts = true
        page = false
        """
    )
    assert settings.keys == ("sk-1", "sk-2")
    assert (settings.host, settings.port, settings.open_to_all) == ("0.0.0.0", 0, True)
    assert settings.origins == ("https://a.example", "https://b.example")
    assert (settings.max_open_calls, settings.max_waiting, settings.max_request_bytes) == (3, 0, 1000)
    assert (settings.timeout, settings.keep_alive, settings.grace) == (2.5, 1.0, 0.0)
    assert (settings.log_texts, settings.page) == (True, False)
    assert [model.name for model in settings.models] == ["demo"]
    assert "sk-" not in repr(settings)


def test_every_key_of_a_model_sets_its_field(read, monkeypatch):
    monkeypatch.setenv("ITS_KEY", "sk-1")
    (model,) = read(
        f"""
        [[models]]
        name = "fast"
        spec = "{SERVED}"
        key-env = "ITS_KEY"
        max-points = 4
        words = 60
        eager = true
        join = "headings"
        merge = true
        retries = 3
        point-timeout = 9
        on-point-error = "raise"
        router = "never"
        prefill = "yes"
        max-tokens = 100
        max-concurrency = 2
        """
    ).models
    assert (model.name, model.spec, model.key) == ("fast", SERVED, "sk-1")
    assert model.settings == Settings(
        max_points=4, point_words=60, eager=True, join="headings", merge=True, max_retries=3, point_timeout=9.0
    )
    assert (model.router, model.prefill, model.max_tokens, model.max_concurrency) == ("never", "yes", 100, 2)
    assert "sk-1" not in repr(model)


def test_what_a_model_leaves_out_is_as_on_the_command_line(read):
    assert read(f'[[models]]\nspec = "{SERVED}"').models == typed("--model", SERVED).models
    assert read("").models == typed().models
    assert read("") == typed()


@pytest.mark.parametrize(
    ("text", "router"), [("true", "auto"), ("false", "always"), ('"auto"', "auto"), ('"never"', "never")]
)
def test_the_router_is_a_word_or_a_boolean(read, text, router):
    assert read(f"[[models]]\nrouter = {text}").models[0].router == router


def test_prompts_lie_beside_the_file(read, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    prompts = {"outline_prompt": "List for {request}", "point_prompt": "Of {request}, {outline}: {point}"}
    (tmp_path / "mine.json").write_text(json.dumps(prompts))
    assert read('[[models]]\nprompts = "mine.json"').models[0].prompts != named_model(None).prompts
    with pytest.raises(InvalidInput, match=r"there\.json"):
        read('[[models]]\nprompts = "there.json"')
    (tmp_path / "there.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"\[\[models\]\] 'demo'"):
        read('[[models]]\nprompts = "there.json"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nhots = 'x'", r"\[server\]: there is no key 'hots'. Did you mean host\?"),
        ("[server]\nmax_open_cals = 1", "Did you mean max-open-calls"),
        ("[server]\norigin = 'x'", "Did you mean origins"),
        ("[server]\nwords = 3", r"words belongs under \[\[models\]\]"),
        ("[server]\nopen = true", "there is no key 'open'"),
        ("[server]\nquiet = true", "there is no key 'quiet'"),
        ("[[models]]\nport = 3", r"'demo': port belongs under \[server\]"),
        ("[[models]]\nwrods = 3", "Did you mean words"),
        ("[[models]]\ntemperature = 0.5", "there is no key 'temperature'"),
        ("port = 3", r"port belongs under \[server\]"),
        ("words = 3", r"words belongs under \[\[models\]\]"),
        ("[model]\nname = 'x'", "there is no table 'model'"),
        ("[models]\nname = 'x'", r"begin each one with the line \[\[models\]\]"),
        ("models = [3]", r"begin each one with the line \[\[models\]\]"),
        ("server = 3", "server must be a table"),
        ("[server]\nport = 'x'", "port must be a whole number"),
        ("[server]\nport = -1", "port must be a whole number of at least 0"),
        ("[server]\nport = true", "port must be a whole number"),
        ("[server]\ntimeout = 0", "timeout must be a number of more than 0"),
        ("[server]\ntimeout = inf", "timeout must be a number"),
        ("[server]\npage = 'yes'", "page must be true or false"),
        ("[server]\norigins = [1]", "origins must be a list of texts"),
        ("[server]\norigins = {a = 1}", "origins must be a list of texts"),
        ("[server]\nmax-waiting = 1\nmax_waiting = 2", "there twice"),
        ("[server]\nkey-env = 3", "key-env must be text"),
        ("[server]\nkey-env = 'NOT_THERE'", "The environment variable NOT_THERE is not set"),
        ("[[models]]\nkey-env = 'NOT_THERE'", r"'demo': The environment variable NOT_THERE is not set"),
        ("[[models]]\nname = 3", "name must be text"),
        ("[[models]]\nname = ''", "name must be text"),
        ("[[models]]\nspec = 'openai:'", "names no model"),
        ("[[models]]\nspec = './no.gguf'", "is not there"),
        ("[[models]]\njoin = 'x'", "join must be one of numbered"),
        ("[[models]]\nrouter = 'x'", "router must be one of auto"),
        ("[[models]]\nmax-points = 0", "max-points must be a whole number of at least 1"),
        ("[server", "is not TOML"),
        ("[server]\nx = " + "[" * 5000, "is not TOML"),  # how deep is too deep depends on the process
        ("#" * 70_000, "more than 65,536 bytes"),
    ],
)
def test_a_mistake_is_named_with_its_place(read, text, said):
    with pytest.raises(InvalidInput, match=said) as refused:
        read(text)
    assert "server.toml" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"[server]\n{'k' * 5000} = 1",
        f"[{'k' * 5000}]\na = 1",
        f"[server]\nhost = {['x' * 5000]}",
        f"[[models]]\nname = '{'n' * 5000}'\nport = 1",
        f"[[models]]\njoin = '{'n' * 5000}'",
        f"[[models]]\nspec = 'openai:{'n' * 5000}@'",
        f"[server]\nkey-env = '{'K' * 5000}'",
        "[server]\nhost = {a = [[[[[[[[[[1]]]]]]]]]]}",
    ],
)
def test_errors_are_bounded_and_have_one_line(read, text):
    with pytest.raises(InvalidInput) as refused:
        read(text)
    assert len(str(refused.value)) < 12_000 if "openai" in text else len(str(refused.value)) < 1200
    assert "\n" not in str(refused.value)


def test_an_empty_variable_counts_as_unset(read, monkeypatch):
    monkeypatch.setenv("EMPTY", " , ")
    with pytest.raises(InvalidInput, match="EMPTY"):
        read('[server]\nkey-env = "EMPTY"')
    monkeypatch.setenv("EMPTY", " ")
    with pytest.raises(InvalidInput, match="EMPTY"):
        read('[[models]]\nkey-env = "EMPTY"')


def test_the_usual_variable_needs_no_key_in_the_file(read, monkeypatch):
    assert read("", key_env="SOT_API_KEY").keys == ()
    monkeypatch.setenv("SOT_API_KEY", "one")
    assert read("", key_env="SOT_API_KEY").keys == ("one",)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"There is no file .*no\.toml"):
        read_config(tmp_path / "no.toml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_config(tmp_path)


def test_the_page_of_the_server_shows_every_key(read, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-1")
    monkeypatch.setenv("SOT_API_KEY", "sk-2")
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    settings = read(text)
    assert [(model.name, model.key) for model in settings.models] == [("demo", None), ("fast", "sk-1")]
    # The values of the first table are the defaults.
    assert settings == dataclasses.replace(ServeSettings(settings.models), keys=("sk-2",))
    shown = set(re.findall(r"^(?:# )?([a-z-]+) =", text, re.M))
    server, models = served_options()
    assert shown == {*server, *models, "origins", "key-env", "name", "spec"}


# --- the command line -------------------------------------------------------------------------------


def test_without_options_the_demo_model_is_served_on_this_machine_alone():
    settings = typed()
    assert [(model.name, model.spec) for model in settings.models] == [("demo", None)]
    assert settings.models[0].settings == Settings(on_point_error="placeholder")
    assert settings == ServeSettings(settings.models)


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("openai:gpt-4o", "gpt-4o", "openai:gpt-4o"),
        ("fast=openai:gpt-4o", "fast", "openai:gpt-4o"),
        ("org/a.b-c=openai:gpt-4o", "org/a.b-c", "openai:gpt-4o"),
        ("openai:a=b", "a-b", "openai:a=b"),
        ("openai:m@http://h/v1?k=v", "m", "openai:m@http://h/v1?k=v"),
        ("openai:llama3.2:1b@http://h/v1", "llama3.2:1b", "openai:llama3.2:1b@http://h/v1"),
        ("openai:@cf/meta/m", "cf/meta/m", "openai:@cf/meta/m"),
        ("langchain:anthropic:claude", "claude", "langchain:anthropic:claude"),
        ("org/model", "org/model", "org/model"),
    ],
)
def test_a_model_has_the_name_that_is_given_or_that_of_its_spec(text, name, spec):
    model = named_model(text)
    assert (model.name, model.spec) == (name, spec)


def test_a_file_or_directory_is_a_spec_even_with_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.gguf").touch()
    assert (named_model("a=b.gguf").name, named_model("a=b.gguf").spec) == ("a-b", "a=b.gguf")
    assert default_name(str(tmp_path / "a=b.gguf")) == "a-b"
    (tmp_path / "dir").mkdir()
    assert default_name("./dir") == "dir"
    monkeypatch.chdir(tmp_path / "dir")
    assert default_name(".") == "dir"


def test_options_hold_for_all_models():
    settings = typed(
        "-m", "a=openai:x", "--model", "b=openai:y", "--words", "70", "--no-router", "--merge", "--retries", "0"
    )
    assert [model.name for model in settings.models] == ["a", "b"]
    for model in settings.models:
        assert (model.settings.point_words, model.router, model.settings.merge) == (70, "always", True)
        assert (model.settings.max_retries, model.settings.on_point_error) == (0, "placeholder")


def test_options_go_before_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SOT_API_KEY", "usual")
    monkeypatch.setenv("OTHER", "other")
    path = tmp_path / "server.toml"
    path.write_text('[server]\nport = 1\ngrace = 5\nkey-env = "OTHER"\n[[models]]\nwords = 60\nmax-points = 3\n')
    settings = typed("--config", str(path), "--port", "2", "--max-points", "4", "--origin", "https://a.example")
    assert (settings.port, settings.grace, settings.keys) == (2, 5.0, ("other",))
    assert settings.origins == ("https://a.example",)
    (model,) = settings.models
    assert (model.settings.max_points, model.settings.point_words) == (4, 60)
    settings = typed(f"--config={path}", "-m", "b=openai:y", "--key-env", "SOT_API_KEY")
    assert ([model.name for model in settings.models], settings.keys) == (["b"], ("usual",))


def test_defaults_of_sot_hold_without_a_file_and_not_with_one(tmp_path, monkeypatch):
    defaults = tmp_path / "config.toml"
    defaults.write_text('model = "openai:of-file"\nwords = 77\nrouter = false\ntemperature = 0.5\njson = true\n')
    monkeypatch.setenv("SOT_CONFIG", str(defaults))
    (model,) = typed().models
    assert (model.name, model.settings.point_words, model.router) == ("of-file", 77, "always")
    monkeypatch.setenv("SOT_MODEL", "openai:of-environment")
    assert typed().models[0].name == "of-environment"
    path = tmp_path / "server.toml"
    path.touch()
    assert typed("--config", str(path)) == ServeSettings((named_model(None),))


def test_a_variable_that_is_named_must_be_set():
    with pytest.raises(InvalidInput, match="NOT_THERE"):
        typed("--key-env", "NOT_THERE")


@pytest.mark.parametrize(
    "words",
    [["--prot", "1"], ["--port", "x"], ["--router", "maybe"], ["QUESTION"], ["--temperature", "1"], ["--grace", "-1"]],
)
def test_a_mistyped_option_is_reported(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["serve", *words])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("sot: error: ")
    assert error.count("\n") == 1


def test_the_help_names_every_option_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["serve", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    server, models = served_options()
    for name in (*server, *models, "model", "config", "origin", "open"):
        assert f"--{name}" in shown or f"--no-{name}" in shown, name
    assert "None" not in shown
    assert "(default: placeholder)" in " ".join(shown.split())


def test_other_commands_know_the_command_but_not_its_options(capsys):
    assert "serve" in parser().format_help()
    with pytest.raises(SystemExit):
        parse(["srve"])
    assert "did you mean sot serve?" in capsys.readouterr().err
