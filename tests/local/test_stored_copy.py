"""Converted copies: what is used, what is replaced, and what never prevents a model from loading."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.local import file_identity, gguf_cache, stored_copy

FILES = {"chat_template.jinja", "copy.json", "model.safetensors", "tokenizer.json"}


class Part:
    """Something with `save_pretrained`."""

    def __init__(self, *names: str, text: str = "x" * 100) -> None:
        self.names, self.text = names, text

    def save_pretrained(self, folder: str) -> None:
        for name in self.names:
            (Path(folder) / name).write_text(self.text)


class Loads:
    """One file, the log of what was done to load it, and the text of its weights."""

    def __init__(self, file: Path) -> None:
        self.file, self.log = file, []
        self.parts: tuple[Part, Part] = Part("model.safetensors"), Part("tokenizer.json", "chat_template.jinja")
        self.error: BaseException | None = None

    def convert(self) -> Any:
        self.log.append("convert")
        return self.parts

    def read(self, folder: Path) -> Any:
        self.log.append("read")
        if self.error is not None:
            raise self.error
        return (folder / "model.safetensors").read_text(), None

    def original(self) -> Any:
        self.log.append("original")
        return "the original", None

    def __call__(self) -> tuple[Any, list[str]]:
        """Load the file; returns the model and what was done."""
        self.log.clear()
        model, _ = gguf_cache.load_converted(self.file, convert=self.convert, read=self.read, original=self.original)
        return model, list(self.log)

    @property
    def copy(self) -> Path:
        return gguf_cache.cache_root() / gguf_cache.copy_name(self.file)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loads:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    return Loads(file)


@pytest.fixture
def made(load: Loads) -> Loads:
    """A file that has a copy."""
    assert load() == ("x" * 100, ["convert", "read"])
    assert {file.name for file in load.copy.iterdir()} == FILES
    return load


def inodes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.iterdir()}


# --- whose copy it is -------------------------------------------------------------------------------


def test_files_that_differ_in_the_middle_have_copies_of_their_own(load: Loads) -> None:
    end, found = bytes(1 << 20), []
    for middle in (b"a", b"b", b"a"):
        load.file.write_bytes(end + middle + end)
        load.parts = Part("model.safetensors", text=middle.decode()), Part("tokenizer.json")
        found.append(load())
    assert found == [("a", ["convert", "read"]), ("b", ["convert", "read"]), ("a", ["read"])]


def test_links_and_renamed_files_share_a_copy(made: Loads, tmp_path: Path) -> None:
    links = [tmp_path / name for name in ("soft.gguf", "hard.gguf", "renamed.gguf")]
    links[0].symlink_to(made.file)
    os.link(made.file, links[1])
    copy = made.copy
    for path in links[:2]:
        made.file = path
        assert made() == ("x" * 100, ["read"])
    os.rename(tmp_path / "m.gguf", links[2])
    made.file = links[2]
    assert made() == ("x" * 100, ["read"])
    assert list(copy.parent.iterdir()) == [copy]


def test_a_file_that_changes_during_its_conversion_is_an_error(load: Loads) -> None:
    plain = load.convert

    def convert() -> Any:
        load.file.write_bytes(b"weightz")
        return plain()

    load.convert = convert  # type: ignore[method-assign]
    with pytest.raises(file_identity.FileChanged, match="load it again"):
        load()
    assert list(gguf_cache.cache_root().iterdir()) == []
    load.convert = plain  # type: ignore[method-assign]
    assert load()[1] == ["convert", "read"]


# --- errors that are not the copy's -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ImportError("flash_attn"), KeyboardInterrupt(), SystemExit(1)],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_process_leaves_the_copy_alone(made: Loads, error: BaseException) -> None:
    before = inodes(made.copy)
    made.error = error
    with pytest.raises(type(error)):
        made()
    made.error = None
    assert inodes(made.copy) == before
    assert made() == ("x" * 100, ["read"])


@pytest.mark.parametrize("error", [TypeError("no argument 'dtpye'"), OSError(24, "Too many open files")])
def test_an_error_of_the_caller_is_raised_and_leaves_the_copy_alone(made: Loads, error: Exception) -> None:
    before = inodes(made.copy)
    made.error = error
    made.original = lambda: (_ for _ in ()).throw(ValueError("the same"))  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        made()
    made.error = None
    assert inodes(made.copy) == before
    assert made() == ("x" * 100, ["read"])


def test_a_whole_copy_that_cannot_be_read_does_not_block_the_model(made: Loads, caplog: Any) -> None:
    before = inodes(made.copy)
    made.error = ValueError("a mistake in the library")
    assert made() == ("the original", ["read", "original"])
    assert "using the file itself" in caplog.text
    assert inodes(made.copy) == before


def test_a_mistake_in_the_first_call_keeps_the_new_copy(load: Loads) -> None:
    load.error = TypeError("no argument 'dtpye'")
    assert load() == ("the original", ["convert", "read", "original"])
    load.error = None
    assert load() == ("x" * 100, ["read"])


@pytest.mark.parametrize("number", [13, 23, 24])  # no permission, too many open files
def test_a_copy_that_cannot_be_opened_now_is_kept(
    made: Loads, number: int, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    before = inodes(made.copy)

    def fails(path: Path) -> str:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(stored_copy, "digest_of", fails)
        assert made() == ("the original", ["original"])
    assert os.strerror(number) in caplog.text
    assert inodes(made.copy) == before
    assert made() == ("x" * 100, ["read"])


# --- damage ----------------------------------------------------------------------------------------------


def swap(path: Path) -> None:
    text = path.read_text()
    path.unlink()
    path.with_suffix(".elsewhere").write_text(text)
    path.symlink_to(path.with_suffix(".elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def fill(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no chat template": lambda copy: (copy / "chat_template.jinja").unlink(),
    "no weights": lambda copy: (copy / "model.safetensors").unlink(),
    "weights are cut": lambda copy: (copy / "model.safetensors").write_text("x" * 50),
    "weights are empty": lambda copy: (copy / "model.safetensors").write_text(""),
    "weights have other bytes": lambda copy: (copy / "model.safetensors").write_text("x" * 99 + "y"),
    "another template": lambda copy: (copy / "chat_template.jinja").write_text("y" * 100),
    "an adapter was added": lambda copy: (copy / "adapter_config.json").write_text("{}"),
    "a pickle was added": lambda copy: (copy / "pytorch_model.bin").write_text("x"),
    "a link in place of a file": lambda copy: swap(copy / "tokenizer.json"),
    "a directory in place of a file": lambda copy: fill(copy / "tokenizer.json"),
    "a pipe in place of a file": lambda copy: pipe(copy / "tokenizer.json"),
    "a pipe in place of the record": lambda copy: pipe(copy / "copy.json"),
    "a directory in place of the record": lambda copy: fill(copy / "copy.json"),
    "a link in place of the record": lambda copy: swap(copy / "copy.json"),
    "no record": lambda copy: (copy / "copy.json").unlink(),
    "an empty record": lambda copy: (copy / "copy.json").write_text(""),
    "a record of another kind": lambda copy: (copy / "copy.json").write_text('{"source": [], "files": 5}'),
    "a record that nests deeply": lambda copy: (copy / "copy.json").write_text("[" * 20_000),
    "a record of another file": lambda copy: (copy / "copy.json").write_text(
        '{"source": {"sha256": "0"}, "files": {}}'
    ),
    "a file in place of the copy": lambda copy: (os.rename(copy, f"{copy}.away"), copy.write_text("x")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_made_again(made: Loads, damage: str, caplog: Any) -> None:
    if "pipe" in damage and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in directories here")
    copy = made.copy
    DAMAGE[damage](copy)
    assert made() == ("x" * 100, ["convert", "read"])
    assert f"{copy} is not used" in caplog.text
    assert {file.name for file in copy.iterdir()} == FILES
    assert made() == ("x" * 100, ["read"])


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", ".nfs0001"])
def test_what_file_managers_leave_is_no_damage(made: Loads, name: str) -> None:
    (made.copy / name).write_text("x")
    assert made() == ("x" * 100, ["read"])


def test_damage_that_only_reading_shows_is_found_then(made: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_copy, "_SMALL", 10)
    weights = made.copy / "model.safetensors"
    before = weights.stat()
    weights.write_text("y" * 100)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert made()[1] == ["read"]  # large files with their recorded time are not hashed
    plain, errors = made.read, [ValueError("bad header")]

    def read(folder: Path) -> Any:
        found = plain(folder)
        if errors:
            raise errors.pop()
        return found

    made.read = read  # type: ignore[method-assign]
    assert made() == ("x" * 100, ["read", "convert", "read"])


# --- places ------------------------------------------------------------------------------------------------


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("step", ["os.replace", "tempfile.mkdtemp"])
def test_a_damaged_copy_that_cannot_be_replaced_does_not_block_the_model(
    made: Loads, step: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (made.copy / "chat_template.jinja").unlink()
    module, _, name = step.partition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(stored_copy, module), name, refuse)
        for _ in range(2):
            assert made() == ("the original", ["convert", "original"])
    assert "could not be kept" in caplog.text
    assert made() == ("x" * 100, ["convert", "read"])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
def test_a_copy_that_cannot_be_written_leaves_nothing(load: Loads, error: OSError, caplog: Any) -> None:
    class Full(Part):
        def save_pretrained(self, folder: str) -> None:
            super().save_pretrained(folder)
            raise error

    load.parts = Part("model.safetensors"), Full("tokenizer.json")
    assert load() == ("the original", ["convert", "original"])
    assert str(error) in caplog.text
    assert list(gguf_cache.cache_root().iterdir()) == []


def test_without_a_directory_the_file_itself_is_loaded(load: Loads, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "cache").write_text("no directory")
    assert load() == ("the original", ["original"])
    assert "no directory for a converted copy" in caplog.text


def test_without_a_home_the_file_itself_is_loaded(load: Loads, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert load() == ("the original", ["original"])
    assert "no directory for a converted copy" in caplog.text


def test_a_copy_without_pickles_is_kept_only(load: Loads, caplog: Any) -> None:
    load.parts = Part("pytorch_model.bin"), Part("tokenizer.json")
    assert load() == ("the original", ["convert", "original"])
    assert "pytorch_model.bin" in caplog.text
    assert list(gguf_cache.cache_root().iterdir()) == []


# --- other users -------------------------------------------------------------------------------------------

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users and modes of POSIX")


@posix
@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022])
def test_copies_are_this_users_alone(load: Loads, mask: int) -> None:
    before = os.umask(mask)
    try:
        load()
    finally:
        os.umask(before)
    root = gguf_cache.cache_root()
    for path in (root.parent, root, *root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert load()[1] == ["read"]


@posix
@pytest.mark.parametrize("place", ["a file", "the record", "the copy", "the directory", "the directory above"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_what_others_can_write_is_not_used(made: Loads, place: str, mode: int, caplog: Any) -> None:
    copy = made.copy
    path = {
        "a file": copy / "model.safetensors",
        "the record": copy / "copy.json",
        "the copy": copy,
        "the directory": copy.parent,
        "the directory above": copy.parent.parent,
    }[place]
    path.chmod(path.stat().st_mode | mode)
    assert made() == ("x" * 100, ["convert", "read"])
    assert "others" in caplog.text
    assert made() == ("x" * 100, ["read"])


@posix
def test_nothing_of_another_user_is_used_or_removed(made: Loads, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    before = inodes(made.copy)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 54321)
        assert made() == ("the original", ["original"])
    assert "belongs to another user" in caplog.text
    assert inodes(made.copy) == before
    assert made() == ("x" * 100, ["read"])


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("place", ["a file", "the copy", "the directory", "a link to it"])
def test_files_of_another_user_are_not_used(made: Loads, place: str, caplog: Any) -> None:
    copy = made.copy
    if place == "a link to it":
        copy.rename(copy.parent / "elsewhere")
        copy.symlink_to(copy.parent / "elsewhere")
        os.lchown(copy, 54321, -1)
        os.chown(copy.parent / "elsewhere", 54321, -1)
    else:
        path = {"a file": copy / "model.safetensors", "the copy": copy, "the directory": copy.parent}[place]
        os.chown(path, 54321, -1)
    found, log = made()
    assert "read" not in log or log[0] == "convert"
    assert found in ("the original", "x" * 100)
    assert "another user" in caplog.text or "no directory" in caplog.text


# --- several at once ------------------------------------------------------------------------------------------


def test_threads_that_convert_at_once_leave_one_copy(load: Loads) -> None:
    meeting, plain, found = threading.Barrier(4), load.convert, []

    def convert() -> Any:
        meeting.wait(60)
        return plain()

    load.convert = convert  # type: ignore[method-assign]

    def run() -> None:
        found.append(gguf_cache.load_converted(load.file, convert=load.convert, read=load.read)[0])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["x" * 100] * 4
    assert [path.name for path in gguf_cache.cache_root().iterdir()] == [load.copy.name]


def test_a_faster_process_that_repaired_the_copy_is_believed(made: Loads) -> None:
    (made.copy / "chat_template.jinja").unlink()
    plain, before = made.convert, {}

    def convert() -> Any:
        made.convert = plain  # type: ignore[method-assign]
        parts = plain()
        made()
        before.update(inodes(made.copy))
        return parts

    made.convert = convert  # type: ignore[method-assign]
    assert made()[0] == "x" * 100
    assert inodes(made.copy) == before


# --- leftovers -------------------------------------------------------------------------------------------------


def test_a_lock_protects_the_folder_of_a_live_process(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    folder = tmp_path / ".new-another-host-1-abcdefgh"
    folder.mkdir()
    with stored_copy._lock(folder):
        os.utime(folder, (time.time() - 48 * 3600.0,) * 2)
        stored_copy.sweep(tmp_path)
        assert folder.exists()
    stored_copy.sweep(tmp_path)  # its process has ended
    assert not folder.exists()


def test_reading_a_copy_removes_what_killed_processes_left(made: Loads) -> None:
    pytest.importorskip("fcntl")
    left = made.copy.parent / ".new-any-host-1-abcdefgh"
    left.mkdir()
    with stored_copy._lock(left):
        pass
    made()
    assert list(made.copy.parent.iterdir()) == [made.copy]


def test_only_copies_are_swept(tmp_path: Path) -> None:
    old = time.time() - 365 * 24 * 3600.0
    for name in ("notes", "model-v2", "m-0123456789abcdef", "m-" + "0" * 32, "x.txt"):
        path = tmp_path / name
        path.mkdir()
        os.utime(path, (old, old))
    stored_copy.sweep(tmp_path)
    stored_copy.sweep(tmp_path / "there is none")
    assert {path.name for path in tmp_path.iterdir()} == {"notes", "model-v2", "x.txt"}
