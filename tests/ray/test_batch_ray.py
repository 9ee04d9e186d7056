"""`sot batch --ray` as a program, each time with a Ray of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from numbered_server import BAD, CALLS, NumberedServer, question

pytest.importorskip("ray", reason="make test-ray installs it")
LIMIT = 400
"""Seconds for a command."""
ENDED = "Ray or another program has ended the command"


def command(folder: Path, model: str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "skeleton_of_thought", "batch", str(folder / "q.txt"), str(folder / "out")),
        *("--ray", "--actors", "2", "--model", model, *more),
    ]


def finished(words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that has ended. Where Ray has ended it, which says so, the same command has to go on."""
    for _ in range(3):
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT, check=False)
        if ENDED not in done.stderr:
            break
    return done


def write(folder: Path, count: int, bad: tuple[int, ...] = ()) -> None:
    lines = [question(i, BAD if i in bad else "") for i in range(1, count + 1)]
    (folder / "q.txt").write_text("\n".join(lines))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all parts; a line that is being written is left out."""
    lines = [
        line for part in sorted((folder / "out" / "parts").glob("*")) for line in part.read_text().splitlines(True)
    ]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text().splitlines()]


def leftovers(before: set[int]) -> list[str]:
    names = []
    for each in psutil.process_iter(["pid", "name", "cmdline"]):
        line = " ".join(each.info["cmdline"] or [])
        if each.info["pid"] not in before and ("MapWorker(" in line or "raylet/raylet" in line):
            names.append(line[:80])
    return names


def test_killed_and_resumed_it_asks_hardly_anything_twice(tmp_path, prompts, eventually_sync):
    count = 100
    write(tmp_path, count)
    before = set(psutil.pids())
    with NumberedServer(0.03) as server:
        words = command(
            tmp_path, server.model, *("--router", "always", "--prompts", str(prompts), "--concurrency", "4", "-q")
        )
        first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        eventually_sync(lambda: len(rows(tmp_path)) >= count // 2 or first.poll() is not None, "half is answered")
        assert first.poll() is None
        first.kill()
        _, said = first.communicate()
        assert ENDED in said
        eventually_sync(lambda: not server.open, "the calls of the killed command have ended")
        asked = sum(server.asked.values())
        eventually_sync(lambda: not leftovers(before), "nothing is left running")
        assert sum(server.asked.values()) == asked
        second = finished(words)
        assert second.returncode == 0, second.stderr
        assert server.most <= 4
        assert sum(server.asked.values()) <= 1.05 * count * CALLS
    assert [row["number"] for row in answers(tmp_path)] == list(range(1, count + 1))
    assert all(f"Said of {row['number']}." in row["text"] for row in answers(tmp_path))
    assert Counter(row["number"] for row in rows(tmp_path)) == Counter(range(1, count + 1))
    eventually_sync(lambda: not leftovers(before), "nothing is left running")


def test_an_actor_dies_and_an_error_is_a_row(tmp_path, prompts, actors, eventually_sync):
    write(tmp_path, 40, bad=(3,))
    with NumberedServer(0.02) as server:
        words = command(
            tmp_path, server.model, *("--router", "always", "--prompts", str(prompts), "--concurrency", "4", "-q")
        )
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        eventually_sync(lambda: len(rows(tmp_path)) >= 5 or process.poll() is not None, "some are answered")
        server.gate.clear()
        eventually_sync(lambda: server.open >= 3, "both actors have open calls")
        actors(psutil.Process(process.pid))[0].kill()
        server.gate.set()
        _, said = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, said
        assert sum(server.asked.values()) <= (40 + 4) * CALLS
    assert Counter(row["number"] for row in rows(tmp_path)) == Counter(range(1, 41))
    assert [row["number"] for row in answers(tmp_path) if row["error"]] == [3]


DIES = """
import os, sys, ray
ray.shutdown = lambda: os._exit(1)
from skeleton_of_thought.cli import main
sys.exit(main())
"""
"""The command with a Ray that ends the process while it is closed, as its core may."""


@pytest.mark.parametrize("dies", [False, True], ids=["ray closes", "ray dies"])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(tmp_path, dies):
    write(tmp_path, 3)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    words = command(tmp_path, str(tmp_path / "broken.gguf"))
    if dies:
        words[1:3] = ["-c", DIES]
    done = finished(words)
    assert done.returncode == 1
    assert not done.stdout
    lines = [line for line in done.stderr.splitlines() if "answers" not in line]
    assert len(lines) == 1, done.stderr
    (line,) = lines
    assert line.startswith("sot: error: On an actor of Ray: ")
    assert "broken.gguf" in line
    assert "Traceback" not in done.stderr


def test_an_address_without_a_cluster_is_one_clear_error(tmp_path):
    write(tmp_path, 3)
    words = command(tmp_path, "openai:m@http://127.0.0.1:1/v1", "--ray=127.0.0.1:1")
    done = finished(words)
    assert done.returncode == 2
    assert "no cluster answers there" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.model
def test_the_demo_model_answers_on_two_actors(tmp_path):
    write(tmp_path, 4)
    words = [word for word in command(tmp_path, "", "--max-tokens", "12", "--router", "always") if word]
    words.remove("--model")
    done = finished(words)
    assert done.returncode == 0, done.stderr
    assert [bool(row["text"]) for row in answers(tmp_path)] == [True] * 4
    assert {row["route"] for row in answers(tmp_path)} == {"skeleton"}
