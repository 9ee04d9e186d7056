"""The benchmark of the server, in small: its counts, and what its verdicts say."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai", reason="the server's calls go by the openai SDK")
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the benchmark reads /proc")

ROOT = Path(__file__).parents[2]
RUN = {
    "--repeats": 1, "--tokens": 9, "--fast-tokens": 50, "--points": 3, "--point-tokens": 4, "--point-seconds": 0.2,
    "--skeleton-seconds": 0.05, "--streams": 6, "--many-tokens": 6, "--many-seconds": 0.2, "--many-points": 2,
    "--answers": 24, "--checkpoints": 2, "--rest": 2.2, "--patience": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """The JSON that a small run prints last."""
    command = [sys.executable, "benchmarks/serve.py", *(str(part) for pair in RUN.items() for part in pair)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_every_way_of_a_direct_answer_is_measured(result):
    assert set(result["direct"]) == {"paced", "as fast as it can"}
    for rows in result["direct"].values():
        assert set(rows) == {"upstream", "passed", "routed"}
        assert all(row["runs"] == 1 and row["first_byte_ms"] > 0 for row in rows.values())
        assert rows["upstream"]["ms_more"] == rows["upstream"]["percent_less"] == 0


def test_answers_by_points_make_a_call_for_the_skeleton_and_one_for_each_point(result):
    for way in ("skeleton first", "eager"):
        row = result["points"][way]
        assert (row["calls"], row["runs"]) == (1 + 3, 1)
        # A point cannot end before it was due.
        assert row["seconds"] >= row["ideal"] > row["first_text"]
    assert result["points"]["eager"]["ideal"] < result["points"]["skeleton first"]["ideal"]
    assert result["points"]["skeleton first"]["ideal"] == 0.25


def test_all_streams_are_complete_and_none_is_left_open(result):
    for way in ("upstream", "passed", "points"):
        row = result["many"][way]
        assert (row["complete"], row["open"]) == (6, 0)
        assert 0 < row["most_open"] <= (12 if way == "points" else 6)


def test_nothing_is_left_of_answers_that_are_left(result):
    soak = result["soak"]
    assert sum(soak["ends"].values()) >= soak["answers"] == 24
    assert all(end.endswith((", left", ", complete")) for end in soak["ends"])
    assert soak["left_upstream"] > 0
    assert len(soak["checkpoints"]) == 3
    for here in soak["checkpoints"]:
        assert (here["open_upstream"], here["open_calls"], here["waiting"]) == (0, 0, 0)
        assert here["objects"] > 0
    assert max(soak["more"][name] for name in ("threads", "tasks", "sockets")) <= 0
    assert result["targets"]["soak: calls, threads, tasks and sockets left"]["met"]


@pytest.mark.parametrize("name", ["threads", "tasks", "sockets"])
def test_what_is_left_behind_misses_the_target(result, monkeypatch, name):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    leaking = copy.deepcopy(result)
    leaking["soak"]["more"][name] = 2
    told = importlib.import_module("serve").verdicts(leaking)
    assert told["soak: calls, threads, tasks and sockets left"] == {"target": 0, "figure": 2, "met": False}


def test_streams_that_break_miss_the_target(result, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    broken = copy.deepcopy(result)
    broken["many"]["passed"]["complete"] -= 1
    told = importlib.import_module("serve").verdicts(broken)
    assert told["many: streams that are broken or left open"] == {"target": 0, "figure": 1, "met": False}
