"""The path of one question stays short: `benchmarks/path.py` counts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LIMITS = {
    "langchain": {"modules": 22, "functions": 220, "calls": 2500},
    "llama_index": {"modules": 22, "functions": 225, "calls": 1200},
    "command": {"modules": 30, "functions": 272, "calls": 2300},
    # Its calls depend on how long the caller waits for each token. Each prompt also goes through the model's generation
    # config, its limits, the private tokenizer, the check for a changed model and the search for a row at fault.
    "engine": {"modules": 28, "functions": 295},
}
"""The limits of an answer. If one is exceeded, `--modules` and `--functions` show where the path has grown."""


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "benchmarks/path.py"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", LIMITS)
def test_an_answer_goes_through_few_modules_functions_and_calls(counted, way):
    assert {name: counted[way][name] for name in LIMITS[way] if counted[way][name] > LIMITS[way][name]} == {}


@pytest.mark.parametrize("way", ["langchain", "llama_index"])
def test_a_model_is_resolved_once_per_role(counted, way):
    assert counted[way]["resolved"] <= 2


def test_a_stock_local_model_is_adopted_once(counted):
    assert counted["pipeline"]["adopted"] <= 1
