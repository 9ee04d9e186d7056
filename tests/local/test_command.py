"""`sot` on local models: folders without a chat template, the text as it is, and vision-language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reasoning_scripts import OPENS, SWITCHED, TITLES, reasoning, switched_off
from tiny_vision import save, vision_model
from transformers import LlamaConfig, LlamaForCausalLM

from skeleton_of_thought import cli
from skeleton_of_thought._cli import models
from skeleton_of_thought._cli.local_backend import local_backend
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.types import Prompt

NOTE = "sot: this model has no chat template"


@pytest.fixture(autouse=True)
def prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The texts that reach models, in order; no configuration file."""
    monkeypatch.setenv("SOT_CONFIG", str(tmp_path / "sot.toml"))
    (tmp_path / "sot.toml").touch()
    seen: list[str] = []
    stream = LocalEngine.stream

    def noted(self: LocalEngine, prompt: Any, **settings: Any) -> Any:
        seen.append(self.render(prompt))
        return stream(self, prompt, **settings)

    monkeypatch.setattr(LocalEngine, "stream", noted)
    return seen


@pytest.fixture
def wide(tiny: Any) -> Any:
    """A tiny random model whose window has room for the examples of the prompts."""
    return LlamaForCausalLM(LlamaConfig(**{**tiny.COMMON, "max_position_embeddings": 2048}))


@pytest.fixture
def base(wide: Any, tiny: Any, tmp_path: Path) -> str:
    return save(wide, tiny.make_tokenizer(template=None), tmp_path / "base")


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main([*words, "--max-tokens", "4"])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", ["ask", "compare"])
def test_a_base_model_gets_plain_text_and_the_user_a_note(
    base: str, prompts: list[str], capsys: Any, command: str
) -> None:
    words = ["--no-router"] if command == "ask" else []
    code, out, err = run(command, "--plain", "--model", base, "Why?", *words, capsys=capsys)
    assert (code, out.count(NOTE)) == (0, 0)
    assert err.count(NOTE) == 1
    assert "--raw" in err
    assert err.count("no chat template") == 1, "the log does not say it once more"
    asked = [text for text in prompts if "headings" in text]
    assert asked
    assert asked[0].startswith("User: What should I check before I buy a used bicycle?")
    assert asked[0].endswith("\n\nAssistant: 1.")


def test_a_chat_with_a_base_model_is_a_transcript(
    base: str, prompts: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    code, _, err = run("chat", "--model", base, "--system", "Be brief.", "--no-router", capsys=capsys)
    assert code == 0
    assert err.count(NOTE) == 1
    assert prompts[0].startswith("System: Be brief.\n\nUser: ")


def test_raw_continues_the_text_alone(base: str, prompts: list[str], capsys: Any) -> None:
    code, _, err = run("ask", "--plain", "--raw", "--model", base, "Bread needs flour,", capsys=capsys)
    assert (code, prompts) == (0, ["Bread needs flour,"])
    assert NOTE not in err


def test_raw_goes_past_a_chat_template(
    llama: Any, tokenizer: Any, tmp_path: Path, prompts: list[str], capsys: Any
) -> None:
    folder = save(llama, tokenizer, tmp_path / "chat")
    code, out, _ = run("ask", "--json", "--raw", "--model", folder, "List 5 ways to sleep.", capsys=capsys)
    assert (code, prompts) == (0, ["List 5 ways to sleep."])
    assert json.loads(out)["route"] == "direct"


@pytest.mark.parametrize("words", [["--quiet"], ["--raw"]])
def test_the_note_can_be_spared(base: str, capsys: Any, words: list[str]) -> None:
    assert NOTE not in run("ask", "--plain", "--model", base, "Why?", *words, capsys=capsys)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare"], "--raw goes without --compare"),
        (["--system", "S"], "--raw goes without --system"),
        (["--merge"], "--raw goes without --merge"),
        (["--model", "openai:m"], "--raw is for local models"),
        (["--model", "langchain:a:b"], "--raw is for local models"),
    ],
)
def test_raw_refuses_what_a_text_alone_cannot_have(
    words: list[str], message: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "load_backend", lambda *_, **__: pytest.fail("a model was loaded"))
    code, _, err = run("ask", "--raw", "Why?", *words, capsys=capsys)
    assert code == 2
    assert message in err


def test_a_file_of_defaults_does_not_stand_in_the_way_of_raw(
    base: str, prompts: list[str], capsys: Any, tmp_path: Path
) -> None:
    (tmp_path / "sot.toml").write_text('system = "Be brief."\nmerge = true\n')
    assert run("ask", "--plain", "--raw", "--model", base, "Bread", capsys=capsys)[0] == 0
    assert prompts == ["Bread"]


def test_the_note_comes_before_a_model_is_loaded(base: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise models.ModelLoadError(f"noted before: {capsys.readouterr().err.count(NOTE)}")

    monkeypatch.setattr(LocalEngine, "from_pretrained", load)
    assert "noted before: 1" in run("ask", "--model", base, "Why?", capsys=capsys)[2]


def test_a_vision_language_model_answers(tokenizer: Any, tmp_path: Path, prompts: list[str], capsys: Any) -> None:
    folder = save(vision_model("Qwen2VL"), tokenizer, tmp_path / "vl")
    code, out, err = run("ask", "--json", "--no-router", "--model", folder, "Why?", capsys=capsys)
    assert code == 0, err
    assert json.loads(out)["expansions"]
    assert prompts[0].startswith("<|im_start|>")


def test_another_kind_of_model_is_one_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    code, _, err = run("ask", "--model", str(tmp_path), "Why?", capsys=capsys)
    assert code == 1
    [line] = [line for line in err.splitlines() if "sot: error" in line]
    assert "an encoder (BertForMaskedLM)" in line


@pytest.mark.parametrize(("template", "script"), [(OPENS, reasoning), (SWITCHED, switched_off)])
def test_the_command_answers_whatever_the_template_opens(
    local_models: Any, template: str, script: Any, capsys: Any
) -> None:
    engine = local_models.scripted_engine(script, template)
    code = cli.main(["ask", "--json", "--no-router", "How?"], backend=local_backend(engine))
    out = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [point["text"] for point in out["expansions"]] == [f"All about {title.lower()}." for title in TITLES]


@pytest.mark.parametrize(("prefill", "given"), [("auto", False), ("yes", True), ("no", False)])
def test_the_option_for_the_start_of_a_turn_wins(local_models: Any, prefill: Any, given: bool) -> None:
    with local_models.scripted_engine("Just so.", OPENS) as engine:
        assert bool(local_backend(engine, prefill=prefill).prefill) is given


def test_a_prompt_with_a_start_never_lands_inside_reasoning(local_models: Any) -> None:
    from skeleton_of_thought.types import Message

    with local_models.scripted_engine("Just so.", OPENS) as engine:
        assert engine.render(Prompt((Message("user", "How?"),), prefill="1.")) == "<user>How?</s><assistant>1."
