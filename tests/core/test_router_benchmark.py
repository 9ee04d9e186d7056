"""The benchmark of the routers counts what it says, on our own questions."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OWN = ROOT / "tests" / "data" / "router_questions.csv"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("router")


def test_every_router_is_measured_on_every_file(bench, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("label,question\n1,What are the benefits of tea?\n0,What is 2 + 2?\n0,Write a poem about tea.\n")
    bench.main(["--train", str(OWN), "--test", str(labels), "--limit", "60"])
    out = capsys.readouterr().out
    sets = json.loads(out.splitlines()[-1])["sets"]
    assert set(sets) == {"router_questions", "labels"}
    assert sets["router_questions"]["auto"]["questions"] == 60
    rows = sets["labels"]
    assert set(rows) == {"majority", "gate", "embedded", "auto"}
    assert [rows[name]["accuracy"] for name in ("gate", "embedded", "auto")] == [1.0, 1.0, 1.0]
    assert (rows["majority"]["tn"], rows["majority"]["fn"]) == (2, 1)
    assert "labels: 3 questions, 1 labelled 1" in out


def test_without_labels_it_says_what_to_name(bench, tmp_path):
    with pytest.raises(SystemExit, match="--train"):
        bench.main(["--train", str(tmp_path / "none.csv"), "--test"])
