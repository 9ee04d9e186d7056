"""The benchmark of busy machines: its measurements, independent of the caller's settings."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

psutil = pytest.importorskip("psutil", reason="the benchmarks need the local extra")

ROOT = Path(__file__).parent.parent
WAITS = {"GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "5"}


@pytest.fixture
def contention(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("contention")


class Runs:
    """Stands in for `subprocess.run`: returns scripted outputs, and records commands and environments."""

    def __init__(self, *outputs: str) -> None:
        self.outputs = list(outputs)
        self.commands: list[list[str]] = []
        self.environments: list[dict[str, str]] = []

    def __call__(self, command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.environments.append(env)
        return subprocess.CompletedProcess(command, 0, self.outputs.pop(0), "")


def cell(rows: int, busy: int, pace: float) -> str:
    return json.dumps({"rows": rows, "busy": busy, "steps_per_second": pace})


def test_busy_processes_last_as_long_as_their_block(contention: Any) -> None:
    before = set(psutil.Process().children())
    with contention.busy(2):
        running = set(psutil.Process().children()) - before
        assert len(running) == 2
        assert all(process.is_running() for process in running)
    assert not [process for process in running if process.is_running()]


def test_a_busy_process_ends_with_its_parent(contention: Any) -> None:
    process = subprocess.Popen([sys.executable, "-c", contention._BUSY], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_each_combination_of_rows_and_busy_processes_is_warmed_up_and_measured(contention: Any) -> None:
    asked: list[tuple[int, int]] = []

    def measure(rows: int, steps: int) -> float:
        asked.append((rows, steps))
        return 10.0 * rows

    found = list(contention.cells(measure, [1, 4], [0, 1], 50))
    assert asked == [(1, 8), (1, 50), (1, 50), (4, 8), (4, 50), (4, 50)]
    assert [(c["rows"], c["busy"], c["steps_per_second"]) for c in found] == [
        (1, 0, 10.0), (1, 1, 10.0), (4, 0, 40.0), (4, 1, 40.0),
    ]  # fmt: skip


def test_variants_differ_only_in_their_environment_and_take_turns(contention: Any, monkeypatch: Any) -> None:
    for name, value in WAITS.items():
        monkeypatch.setenv(name, value)
    runs = Runs(*(cell(1, 0, pace) for pace in (1, 2, 30, 40, 50, 6)))
    monkeypatch.setattr(contention.subprocess, "run", runs)
    args = contention.arguments(["--ways", "default,passive,one thread", "--rows", "1", "--busy", "0", "--rounds", "2"])
    result = contention.measured(args)
    assert [command[command.index("--child") + 1] for command in runs.commands] == [
        "default", "passive", "one thread", "passive", "one thread", "default",
    ]  # fmt: skip
    said = [{name: env.get(name) for name in WAITS} for env in runs.environments[:3]]
    nothing = dict.fromkeys(WAITS)
    assert said == [nothing, nothing | {"OMP_WAIT_POLICY": "passive"}, nothing | {"OMP_NUM_THREADS": "1"}]
    assert runs.environments[0]["PATH"] == os.environ["PATH"]
    assert {c["way"]: c["steps_per_second"] for c in result["cells"]} == {
        "default": 3.5, "passive": 21.0, "one thread": 40.0,
    }  # fmt: skip


def test_skipped_variants_are_reported_with_the_reason(contention: Any, tmp_path: Path, capsys: Any) -> None:
    args = contention.arguments(["--ways", "llama.cpp,llama.cpp 0", "--model", str(tmp_path)])
    result = contention.measured(args)
    assert result["cells"] == []
    assert set(result["skipped"]) == {"llama.cpp", "llama.cpp 0"}
    contention.show(result)
    assert "llama.cpp 0: " in capsys.readouterr().out


def test_the_demo_counts_runs_by_their_speedup_at_equal_tokens(contention: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    ratios = [2.5, 1.9, 2.0, 3.1]
    runs = Runs(*(json.dumps({"compare": {"speedup": {"wall": 9.0, "per_token": ratio}}}) for ratio in ratios))
    monkeypatch.setattr(contention.subprocess, "run", runs)
    result = contention.demo(contention.arguments(["--demo", "4", "--busy", "0"]))["demo"]
    assert (result["ratios"], result["above"], result["runs"]) == (ratios, 2, 4)
    assert all("--compare" in command for command in runs.commands)
    assert not any("GOMP_SPINCOUNT" in env for env in runs.environments)
    assert "above 2x in 2 of 4 runs" in capsys.readouterr().out


def test_an_unknown_variant_is_refused(contention: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        contention.arguments(["--ways", "fast"])
    assert "no such way: fast" in capsys.readouterr().err
