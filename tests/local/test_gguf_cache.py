"""Converted copies: processes are killed at every step of making one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skeleton_of_thought.local import gguf_cache, stored_copy

RUNS = """
import hashlib, json, os, signal, sys, types
from pathlib import Path

path, place = sys.argv[1:]
package = types.ModuleType("skeleton_of_thought.local")  # without torch, which the package loads
package.__path__ = [os.path.dirname(path)]
sys.modules[package.__name__] = package
from skeleton_of_thought.local import gguf_cache, stored_copy
import fcntl, psutil
gguf_cache.metadata.version("transformers")  # the first call opens files, which must not count as steps

class Part:
    def __init__(self, name):
        self.name = name

    def save_pretrained(self, folder):
        for index in range(3):
            with open(os.path.join(folder, f"{self.name}-{index}"), "w") as file:
                file.write("x" * 10)

def run():
    log = []

    def convert():
        log.append("convert")
        return Part("model"), Part("tokenizer")

    def read(folder):
        log.append("read")
        found = {file.name: file.read_text() for file in folder.iterdir() if file.name != "copy.json"}
        if len(found) != 6 or set(found.values()) != {"x" * 10}:
            raise ValueError("half a copy")
        return found, None

    found, _ = gguf_cache.load_converted(weights, convert=convert, read=read)
    assert isinstance(found, dict), "nothing was kept"
    return log

def in_a_process(work):
    if (child := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def killed_at(step):
    count = 0

    def hook(event, _):
        nonlocal count
        if event.startswith(("open", "os.", "shutil.", "tempfile.")):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run()

outcomes = []
damaged = sys.stdin.read() == "damaged"
for step in range(1, 1000):
    os.environ["XDG_CACHE_HOME"] = str(Path(place) / str(step))
    weights = Path(place) / "m.gguf"
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    kept = gguf_cache.cache_root() / gguf_cache.copy_name(weights)
    if damaged:
        kept.mkdir(parents=True)
        (kept / "model-0").write_text("x")
    code = in_a_process(lambda: killed_at(step))
    problem = stored_copy.check_copy(kept, digest) if kept.exists() else None
    whole = kept.is_dir() and len(list(kept.iterdir())) == 7
    log = run()
    sound = problem is None or (problem.replace and damaged)
    outcomes.append([code, whole, sound, log, sorted(os.listdir(kept.parent)) == [kept.name]])
    if code == 0:
        break
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", ["nothing", "damaged"])
def test_a_process_killed_at_any_step_leaves_a_whole_copy_or_none(tmp_path: Path, before: str) -> None:
    command = [sys.executable, "-c", RUNS, gguf_cache.__file__, str(tmp_path)]
    done = subprocess.run(command, input=before, capture_output=True, text=True, check=True, timeout=300)
    outcomes = json.loads(done.stdout)
    assert len(outcomes) > 20
    assert [code for code, *_ in outcomes] == [-9] * (len(outcomes) - 1) + [0]
    for _, whole, sound, log, tidy in outcomes:
        assert sound  # a copy is whole, or it is the damaged one from before
        # The next process reads the whole copy, or makes a new one.
        assert log == (["read"] if whole else ["convert", "read"])
        assert tidy


class Part:
    """Something with `save_pretrained`."""

    def __init__(self, name: str, text: str = "x") -> None:
        self.name, self.text = name, text

    def save_pretrained(self, folder: str) -> None:
        (Path(folder) / self.name).write_text(self.text)


def made(file: Path, text: str = "x") -> Path:
    """A converted copy of a file, made now."""
    parts = Part("model.safetensors", text), Part("tokenizer.json")
    gguf_cache.load_converted(file, convert=lambda: parts, read=lambda folder: (folder, None))
    return gguf_cache.cache_root() / gguf_cache.copy_name(file)


def leftover(folder: Path, name: str, age: float = 0.0) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    os.utime(made, (time.time() - age,) * 2)
    return made


def test_cleanup_removes_only_abandoned_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = socket.gethostname()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    day = 25 * 3600.0
    gone = [
        leftover(tmp_path, f".new-{host}-{ended.pid}-abc_def1"),
        leftover(tmp_path, f".old-{host}-{ended.pid}-abc_def2"),
        leftover(tmp_path, ".new-abcdefgh", day),
        leftover(tmp_path, ".new-another-host-1-abcdefgh", day),
        leftover(tmp_path, f".new-{host}-{os.getpid()}-abcdefgh", day),
        leftover(tmp_path, "model-0000000000000000", 91 * 24 * 3600.0),
    ]
    stays = [
        leftover(tmp_path, f".new-{host}-{os.getpid()}-abcdefgi"),
        leftover(tmp_path, f".new-another-host-{ended.pid}-abcdefgh"),
        leftover(tmp_path, ".new-abcdefgi"),
        leftover(tmp_path, "model-0123456789abcdef", day),
    ]
    stored_copy.sweep(tmp_path)
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in stays)


def test_each_version_of_transformers_has_separate_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    name = gguf_cache.copy_name(file)
    assert gguf_cache.copy_name(file) == name
    monkeypatch.setattr(gguf_cache.metadata, "version", lambda package: "5.0.0")
    assert gguf_cache.copy_name(file) != name


def test_reading_a_copy_protects_it_from_cleanup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "m.gguf"
    file.write_bytes(b"weights")
    kept = made(file, "x")
    os.utime(kept, (time.time() - 91 * 24 * 3600.0,) * 2)
    gguf_cache.load_converted(file, convert=lambda: pytest.fail("there is a copy"), read=lambda folder: (folder, None))
    assert time.time() - kept.stat().st_mtime < 3600
    stored_copy.sweep(kept.parent)
    assert kept.exists()
