"""GGUF files end to end: the right weights, settings and chat template, with a converted copy and without one."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from skeleton_of_thought.errors import ModelLoadError
from skeleton_of_thought.local import LocalEngine, gguf_cache
from skeleton_of_thought.local.models import has_chat_template

pytest.importorskip("gguf", reason="GGUF files need gguf")
pytest.importorskip("accelerate", reason="GGUF files need accelerate")

from tiny_gguf import write_gguf


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return gguf_cache.cache_root()


@pytest.fixture
def file(tmp_path: Path, llama: Any, tokenizer: Any) -> Path:
    return write_gguf(tmp_path / "m.gguf", llama, tokenizer)


def holds(file: Path, model: Any) -> bool:
    """Whether a file is loaded with the weights of a model."""
    with LocalEngine.from_pretrained(file) as engine:
        found, wanted = engine.model.state_dict(), model.state_dict()
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def steps_of(file: Path, **settings: Any) -> list[str]:
    """The first words of the lines that loading reports."""
    steps: list[str] = []
    LocalEngine.from_pretrained(file, progress=steps.append, **settings).close()
    return [step.split()[0] for step in steps]


@pytest.mark.usefixtures("cache")
def test_other_weights_in_a_file_of_the_same_name_and_size_are_read(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    file = write_gguf(tmp_path / "m.gguf", llama, tokenizer, margin=1 << 20)
    assert holds(file, llama)
    size = file.stat().st_size
    other = copy.deepcopy(llama)
    torch.nn.init.normal_(other.model.layers[1].mlp.up_proj.weight, std=0.4)
    write_gguf(file, other, tokenizer, margin=1 << 20)
    assert file.stat().st_size == size
    assert holds(file, other)


@pytest.mark.parametrize(
    "wrong",
    [{"attn_implementation": "flahs"}, {"dtpye": "float32"}, {"dtype": "flaot32"}],
    ids=lambda wrong: next(iter(wrong)),
)
@pytest.mark.parametrize("before", ["a copy", "no copy"])
def test_a_setting_that_is_wrong_leaves_the_copy_alone(file: Path, cache: Path, before: str, wrong: Any) -> None:
    if before == "a copy":
        assert steps_of(file) == ["Converting", "Loading"]
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"could not be loaded: (ValueError|TypeError|AttributeError)"):
            LocalEngine.from_pretrained(file, **wrong)
    assert len(list(cache.iterdir())) == 1
    assert steps_of(file) == ["Loading"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json"])
def test_a_copy_that_lacks_a_file_is_made_again(file: Path, name: str) -> None:
    assert steps_of(file) == ["Converting", "Loading"]
    (gguf_cache.cache_root() / gguf_cache.copy_name(file) / name).unlink()
    with LocalEngine.from_pretrained(file) as engine:
        assert engine.has_chat_template
    assert steps_of(file) == ["Loading"]


@pytest.mark.parametrize("why", ["no directory", "another user", "no room"])
def test_without_a_copy_the_file_is_loaded_with_the_settings(
    file: Path, cache: Path, why: str, llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    if why == "no directory":
        cache.parents[1].write_text("a file")
    elif why == "another user":
        cache.mkdir(parents=True)
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    else:

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    assert holds(file, llama)
    assert [record.levelno for record in caplog.records if record.name.endswith("gguf_cache")] == [logging.WARNING]
    with LocalEngine.from_pretrained(file, dtype="bfloat16", attn_implementation="eager") as engine:
        assert engine.model.dtype == torch.bfloat16
        assert engine.model.config._attn_implementation == "eager"
        assert engine.has_chat_template
    with pytest.raises(ModelLoadError, match="dtpye"):
        LocalEngine.from_pretrained(file, dtpye="float32")


@pytest.mark.usefixtures("cache")
def test_one_part_of_a_split_file_is_refused(tmp_path: Path, llama: Any, tokenizer: Any) -> None:
    part = write_gguf(tmp_path / "m-00001-of-00002.gguf", llama, tokenizer, parts=2)
    for load in (LocalEngine.from_pretrained, has_chat_template):
        with pytest.raises(ModelLoadError, match=r"one of 2 parts of a split GGUF file.*llama-gguf-split --merge"):
            load(part)
    assert steps_of(write_gguf(tmp_path / "whole.gguf", llama, tokenizer, parts=1)) == ["Converting", "Loading"]


@pytest.mark.usefixtures("cache")
def test_a_file_that_changes_while_it_is_converted_is_refused(file: Path) -> None:
    def report(line: str) -> None:
        if line.startswith("Converting"):
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)

    with pytest.raises(ModelLoadError, match=r"m\.gguf changed while it was read"):
        LocalEngine.from_pretrained(file, progress=report)
    assert steps_of(file) == ["Converting", "Loading"]
