"""Ctrl-C while `sot` loads the demo model: while it converts, writes and reads."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pty_process import CTRL_C, PATIENCE, PtyProcess

from skeleton_of_thought.local import gguf_cache, models

pytestmark = pytest.mark.model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return gguf_cache.cache_root()


def interrupt(ready: Callable[[PtyProcess], object]) -> None:
    """Run the command and type Ctrl-C at a random moment after `ready` returns."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "skeleton_of_thought", "ask", "--max-tokens", "3", "--model", "demo", "Why?"]
    with PtyProcess(argv, env) as process:
        ready(process)
        time.sleep(random.uniform(0, 0.5))
        process.type(CTRL_C)
        assert process.rest().splitlines()[-1].endswith("sot: interrupted")
        assert process.code() == 130
        assert "Traceback" not in process.shown


def writes(cache: Path) -> bool:
    return cache.is_dir() and any(file.is_file() for file in cache.rglob("*"))


def test_a_conversion_leaves_no_half_copy(cache: Path) -> None:
    kept = cache / gguf_cache.copy_name(models.demo_model_path())
    interrupt(lambda process: process.until("Converting"))
    assert not kept.exists()

    def writing(process: PtyProcess) -> None:
        process.until("Converting")
        deadline = time.monotonic() + 5 * PATIENCE
        while not writes(cache) and time.monotonic() < deadline:
            time.sleep(0.01)

    interrupt(writing)
    # The moment may have been after the move; then the copy is whole.
    assert not kept.exists() or {"config.json", "model.safetensors", "tokenizer.json"} <= set(os.listdir(kept))


@pytest.mark.usefixtures("demo_engine")
def test_reading_leaves_the_copy_alone() -> None:
    kept = gguf_cache.cache_root() / gguf_cache.copy_name(models.demo_model_path())
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    interrupt(lambda process: process.until("Loading SmolLM2"))
    assert {file.name: file.stat().st_mtime_ns for file in kept.iterdir()} == before
