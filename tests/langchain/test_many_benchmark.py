"""The benchmark of many concurrent questions measures every variant on the same work."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "many.py"


@pytest.fixture
def many(monkeypatch):
    pytest.importorskip("torch", reason="the benchmark needs the local engine")
    spec = importlib.util.spec_from_file_location("many_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module at definition.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.model
def test_every_variant_answers_every_number_of_questions_alike():
    command = [sys.executable, str(SCRIPT), "--questions", "2,1", "--points", "2", "--point-tokens", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = json.loads(done.stdout.splitlines()[-1])["runs"]
    ways = ("one by one", "batch", "abatch")
    assert [(row["questions"], row["way"]) for row in runs] == [(count, way) for count in (1, 2) for way in ways]
    for row in runs:
        assert row["same_answers"] == row["questions"]
        assert row["tokens"] > 0
        assert row["reused"] > 0
        assert 1 <= row["peak"] <= 2 * row["questions"]
        assert 0 < row["median s"] <= row["95 % s"] <= row["seconds"]
    for count in (1, 2):
        assert len({row["tokens"] for row in runs if row["questions"] == count}) == 1


def test_the_benchmark_has_64_different_questions(many):
    asked = many.questions(64)
    assert len(set(asked)) == 64
    assert many.questions(5) == asked[:5]
    assert many.questions(65) == asked


def test_the_benchmark_reports_the_median_and_95th_percentile_latency(many):
    run = many.Run(latencies=[*range(20, 0, -1)], tokens=40, peak=3, reused=7, answers=[""] * 20)
    figures = run.figures
    assert (figures["median s"], figures["95 % s"], run.seconds) == (10.5, 19, 20)
    assert (figures["questions/s"], figures["tokens/s"]) == (1.0, 2.0)
    alone = many.Run(latencies=[4.0], tokens=8, peak=1, reused=0, answers=[""]).figures
    assert alone["median s"] == alone["95 % s"] == 4.0


@pytest.mark.parametrize("text", ["0", "65", "-1,4"])
def test_an_invalid_number_of_questions_is_refused(many, text):
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 64"):
        many._numbers(text)


def test_each_variant_is_measured_without_the_engines_of_others(many, monkeypatch, capsys):
    open_engines, most, order = 0, 0, []

    class Loader:
        model = tokenizer = None

        @classmethod
        def from_pretrained(cls, model):
            return cls()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    class WarmChain:
        def __init__(self, *args, **settings):
            nonlocal open_engines, most
            open_engines += 1
            most = max(most, open_engines)

        def close(self):
            nonlocal open_engines
            open_engines -= 1

    def way(name):
        def run(asked, texts):
            order.append((len(texts), name))
            return many.Run([1.0] * len(texts), 8, 1, 0, [""] * len(texts))

        return run

    monkeypatch.setattr(many, "LocalEngine", Loader)
    monkeypatch.setattr(many, "WarmChain", WarmChain)
    monkeypatch.setattr(many, "WAYS", {name: way(name) for name in many.WAYS})
    monkeypatch.setattr(sys, "argv", ["many.py", "--questions", "4,1"])
    many.main()
    assert (open_engines, most) == (0, 1)
    assert order == [
        *((1, name) for name in ("one by one", "batch", "abatch")),
        *((4, name) for name in ("batch", "abatch", "one by one")),
    ]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["runs"][0]["speedup"] == 1.0
