"""Defaults of the `sot` command: the command line overrides the environment, which overrides the file."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import scripted_cli

from skeleton_of_thought import cli
from skeleton_of_thought._cli import config, run_settings
from skeleton_of_thought._cli.models import ModelSpec, load_backend


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    monkeypatch.setenv("SOT_CONFIG", str(path))
    path.touch()
    return path


def asked_words(capsys, *options):
    script = scripted_cli.Script()
    assert cli.main(["ask", "q", "--no-router", "--plain", *options], backend=script.backend()) == 0
    capsys.readouterr()
    return next(call.prompt.messages[-1].text for call in script.calls if call.stage == "point")


def test_the_command_line_overrides_the_defaults_of_the_file(file, capsys):
    file.write_text("words = 77\n")
    assert "77 words" in asked_words(capsys)
    assert "88 words" in asked_words(capsys, "--words", "88")


def test_a_flag_of_the_file_can_be_switched_off(file, capsys):
    file.write_text("json = true\nrouter = false\n")
    script = scripted_cli.Script()
    assert cli.main(["ask", "What is 17 * 4?"], backend=script.backend()) == 0
    assert json.loads(capsys.readouterr().out)["route"] == "skeleton"
    assert cli.main(["ask", "What is 17 * 4?", "--plain", "--router"], backend=script.backend()) == 0
    assert capsys.readouterr().out.startswith("This helps")
    assert cli.main(["ask", "What is 17 * 4?", "--no-json", "--threshold", "0.9"], backend=script.backend()) == 0
    assert capsys.readouterr().out.startswith("This helps")


def test_a_threshold_in_the_file_does_not_prevent_a_comparison(file, capsys):
    file.write_text("threshold = 0.9\n")
    assert cli.main(["ask", "q", "--compare"], backend=scripted_cli.Script().backend()) == 0
    assert cli.main(["ask", "q", "--compare", "--threshold", "0.5"], backend=scripted_cli.Script().backend()) == 2
    assert "--threshold goes without --compare" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "prefill"), [("true", "yes"), ("false", "no"), ('"auto"', "auto"), ('"yes"', "yes")])
def test_prefill_is_a_word_or_a_boolean(file, capsys, text, prefill):
    file.write_text(f"prefill = {text}")
    assert cli.main(["config"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["prefill"] == prefill


@pytest.fixture
def loaded(monkeypatch):
    """The models that the command wanted to load; none is loaded."""
    models: list[ModelSpec] = []

    def note(model, **settings):
        models.append(model)
        return scripted_cli.Script().backend()

    monkeypatch.setattr(run_settings, "load_backend", note)
    assert load_backend is not note
    return models


def test_the_model_comes_from_the_source_of_highest_priority(file, monkeypatch, loaded, capsys):
    assert cli.main(["ask", "q"]) == 0
    file.write_text('model = "of/file"\n')
    assert cli.main(["ask", "q"]) == 0
    monkeypatch.setenv("SOT_MODEL", "of/environment")
    assert cli.main(["ask", "q"]) == 0
    assert cli.main(["ask", "q", "-m", "of/line"]) == 0
    assert [model.name for model in loaded] == [None, "of/file", "of/environment", "of/line"]


def test_the_error_about_a_default_model_names_its_origin(file, monkeypatch, capsys):
    file.write_text('model = "gpt-4o"\n')
    assert cli.main(["ask", "q"]) == 2
    assert f"{file}: 'gpt-4o'" in capsys.readouterr().err
    monkeypatch.setenv("SOT_MODEL", "anthropic:claude-x")
    for command in (["ask", "q"], ["chat"]):
        assert cli.main(command) == 2
        assert "SOT_MODEL: 'anthropic:claude-x'" in capsys.readouterr().err
    assert cli.main(["ask", "q", "-m", "gpt-4o"]) == 2
    assert capsys.readouterr().err.startswith("sot: error: 'gpt-4o'")


def test_the_file_does_not_affect_other_commands(file, monkeypatch, capsys):
    file.write_text("wrods = 1")
    monkeypatch.setenv("SOT_MODEL", "no/classifier")
    assert cli.main(["route", "What is 17 * 4?"]) == 0
    assert cli.main(["ask", "--help"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wrods = 3", "no option 'wrods'. Did you mean words?"),
        ("max_points = 3", "Did you mean max-points?"),
        ("xyz = 3", "the long options of sot ask"),
        ("[ask]\nwords = 3", "no option 'ask'"),
        ("no-router = true", "written router = false"),
        ('output = "x"', "on the command line"),
        ('words = "3"', "words must be a whole number, not"),
        ("words = true", "words must be a whole number, not true"),
        ("words = 0", "words must be a whole number of at least 1"),
        ("merge = 1", "merge must be true or false, not 1"),
        ("model = 3", "model must be text in quotes"),
        ("threshold = 2", "threshold must be from 0 to 1"),
        ('join = "x"', "join must be one of numbered"),
        ("point-timeout = 0", "must be a number of more than 0"),
        ('prefill = "perhaps"', "prefill must be one of auto, yes, no"),
        ("prefill = 1", "prefill must be text in quotes"),
        ("plain = true\njson = true", "exclude each other"),
        ("words = ", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_file_and_key(file, capsys, text, words):
    file.write_text(text)
    script = scripted_cli.Script()
    assert cli.main(["ask", "q"], backend=script.backend()) == 2
    err = capsys.readouterr().err
    assert err.startswith("sot: error: ")
    assert err.count("\n") == 1
    assert words in err
    assert str(file) in err
    assert script.calls == []


def test_a_byte_order_mark_is_accepted(file, capsys):
    file.write_text("words = 77\n", encoding="utf-8-sig")
    assert "77 words" in asked_words(capsys)


def test_an_unreadable_file_is_named(file, monkeypatch, capsys):
    file.write_bytes(b"words = 3 # \xff")
    assert cli.main(["config"]) == 2
    assert str(file) in capsys.readouterr().err
    monkeypatch.setenv("SOT_CONFIG", str(file.parent))
    assert cli.main(["config"]) == 2
    err = capsys.readouterr().err
    assert str(file.parent) in err
    assert err.count("\n") == 1


def test_an_integer_is_a_valid_float(file):
    file.write_text("temperature = 1\npoint-timeout = 2.5\n")
    assert cli.main(["config"]) == 0


def test_a_file_named_by_the_environment_must_exist(file, capsys):
    file.unlink()
    assert cli.main(["ask", "q"], backend=scripted_cli.Script().backend()) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_file_is_in_the_configuration_directory_of_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("SOT_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.config_path() == tmp_path / "sot" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(config.sys, "platform", "linux")
    assert config.config_path() == tmp_path / ".config" / "sot" / "config.toml"
    monkeypatch.setattr(config.sys, "platform", "darwin")
    assert config.config_path() == tmp_path / "Library" / "Application Support" / "sot" / "config.toml"
    monkeypatch.setattr(config.sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path / "roaming"))
    assert config.config_path() == tmp_path / "roaming" / "sot" / "config.toml"


def test_without_a_file_the_defaults_are_built_in(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SOT_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert cli.main(["config"]) == 0
    out = capsys.readouterr().out
    assert "(not there)" in out
    assert "SOT_MODEL" not in out


def test_config_shows_all_values_and_is_a_valid_file(file, monkeypatch, capsys):
    file.write_text('words = 77\nsystem = "Say \\"hi\\""\n')
    monkeypatch.setenv("SOT_MODEL", "org/model")
    assert cli.main(["config"]) == 0
    out = capsys.readouterr().out
    lines = {line.split("=")[0].strip(): line for line in out.splitlines()}
    assert str(file) in out.splitlines()[0]
    assert lines["words"].endswith(f"# {file}")
    assert lines["model"].endswith("# SOT_MODEL")
    assert lines["max-points"].endswith("# built in")
    assert "# seed" in lines
    shown = tomllib.loads(out)
    assert (shown["words"], shown["system"], shown["model"]) == (77, 'Say "hi"', "org/model")
    file.write_text(out)
    assert cli.main(["config"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == shown


def test_the_file_in_the_documentation_is_valid(file, capsys):
    page = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    file.write_text(shown)
    assert cli.main(["config"]) == 0
    in_force = tomllib.loads(capsys.readouterr().out)
    assert tomllib.loads(shown).items() <= in_force.items()


def test_config_prints_toml_for_any_characters(file, monkeypatch, capsys):
    system = 'a "b" \\ \t \x01 \x7f \x80 é 早'
    file.write_text(f"system = {json.dumps(system)}\n")
    assert cli.main(["config"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["system"] == system
