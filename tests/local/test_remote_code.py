"""Code that a model's author wrote runs only where the user said so, and nobody is asked on standard input."""

from __future__ import annotations

import builtins
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.errors import ModelLoadError
from skeleton_of_thought.local import LocalEngine, models
from skeleton_of_thought.routers.classifier import ClassifierRouter, train_classifier
from skeleton_of_thought.routers.measures import LabelledQuestion

RAN = "ran.txt"
CODE = f"""
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
Path({{folder!r}}, {RAN!r}).write_text("x")
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MAPS = {
    "config.json": {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForCausalLM": "own.OwnModel",
        "AutoModelForSequenceClassification": "own.OwnModel",
    },
    "tokenizer_config.json": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    "processor_config.json": {"AutoProcessor": "own.OwnTokenizer"},
}


@pytest.fixture(autouse=True)
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked on standard input."""
    asked: list[str] = []

    def ask(text: str = "") -> str:
        asked.append(text)
        return "y"

    monkeypatch.setattr(builtins, "input", ask)
    return asked


@pytest.fixture
def folder(tmp_path: Path, llama: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose configuration and tokenizer need code of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "own.py").write_text(CODE.format(folder=str(folder)))
    return folder


def map_to_code(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        found["auto_map"] = MAPS[name]
        if name == "config.json":
            found["model_type"] = "own_llama"
        if name == "tokenizer_config.json":
            found["tokenizer_class"] = "OwnTokenizer"
        if name == "processor_config.json":
            found["processor_class"] = "OwnProcessor"
        path.write_text(json.dumps(found))


@pytest.mark.parametrize("names", [("config.json",), ("config.json", "tokenizer_config.json"), tuple(MAPS)])
@pytest.mark.parametrize("given", [{}, {"trust_remote_code": False}, {"trust_remote_code": None}])
def test_an_engine_asks_nobody(folder: Path, questions: list[str], names: Any, given: Any) -> None:
    map_to_code(folder, *names)
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        LocalEngine.from_pretrained(folder, **given)
    assert questions == []
    assert not (folder / RAN).exists()


def test_code_runs_for_those_who_want_it(folder: Path, questions: list[str]) -> None:
    map_to_code(folder, "config.json")
    with LocalEngine.from_pretrained(folder, trust_remote_code=True) as engine:
        assert type(engine.model).__name__ == "OwnModel"
    assert questions == []
    assert (folder / RAN).exists()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json"])
def test_a_tokenizer_alone_asks_nobody(folder: Path, questions: list[str], name: str) -> None:
    map_to_code(folder, name)
    with contextlib.suppress(ModelLoadError):  # what is loaded in place of the author's class may do
        LocalEngine.from_pretrained(folder).close()
    assert questions == []
    assert not (folder / RAN).exists()


@pytest.mark.parametrize("way", ["load", "train"])
def test_a_classifier_asks_nobody(folder: Path, questions: list[str], tmp_path: Path, way: str) -> None:
    map_to_code(folder, *MAPS)
    labelled = [LabelledQuestion(f"Why {at}?", use_skeleton=at % 2 == 0) for at in range(20)]
    load = {
        "load": lambda: ClassifierRouter.from_pretrained(folder),
        "train": lambda: train_classifier(labelled, base=folder, out=tmp_path / "out"),
    }[way]
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        load()
    assert questions == []
    assert not (folder / RAN).exists()


def test_every_loader_of_transformers_is_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Each call of `from_pretrained` says whether code may run: none of them relies on another."""
    import transformers

    told: list[tuple[str, Any]] = []
    for name in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM", "AutoProcessor"):
        auto = getattr(transformers, name)
        plain = auto.from_pretrained

        def load(*args: Any, name: str = name, plain: Any = plain, **kwargs: Any) -> Any:
            told.append((name, kwargs.get("trust_remote_code", "nothing")))
            return plain(*args, **kwargs)

        monkeypatch.setattr(auto, "from_pretrained", load)
    models.load_model(folder)
    assert {name for name, _ in told} >= {"AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"}
    assert {said for _, said in told} == {False}
