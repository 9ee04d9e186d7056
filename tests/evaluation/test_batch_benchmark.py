"""The benchmark of `sot batch`: both ways make the same calls, as many at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the upstream of the benchmark needs uvicorn")
pytest.importorskip("openai", reason="its client needs the openai SDK")

ROOT = Path(__file__).parents[2]


def test_the_benchmark_compares_the_same_calls():
    options = ["--questions", "6", "--concurrency", "3", "--points", "2", "--seconds", "0.02", "--skeleton", "0.01"]
    done = subprocess.run(
        [sys.executable, "benchmarks/batch.py", *options, "--tokens", "2", "--repeats", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    direct, points = figures["kinds"]["direct"], figures["kinds"]["points"]
    assert direct["calls"] == {"text": 6}
    assert points["calls"] == {"point": 12, "skeleton": 6}
    assert direct["most"] == points["most"] == 3
    assert figures["met"] == all(kind["ratio"] <= figures["target"] for kind in figures["kinds"].values())
