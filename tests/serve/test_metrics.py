"""The text for Prometheus."""

from __future__ import annotations

import re

import pytest

from skeleton_of_thought.serve.limits import CallLimit
from skeleton_of_thought.serve.metrics import Metrics
from skeleton_of_thought.types import Usage

SAMPLE = re.compile(
    r"(?P<name>[a-z_]+)(?:\{(?P<labels>(?:[a-z]+=\"(?:[^\"\\\n]|\\[\\\"n])*\",?)*)\})? (?P<value>[0-9.]+|\+Inf)"
)
LABEL = re.compile(r"([a-z]+)=\"((?:[^\"\\\n]|\\[\\\"n])*)\"")


def samples(text: str) -> dict[tuple, float]:
    """The samples by name and labels; fails on a line that is no text of Prometheus."""
    found: dict[tuple, float] = {}
    for line in text.splitlines():
        if line.startswith("# HELP ") or re.fullmatch(r"# TYPE [a-z_]+ (counter|gauge|histogram)", line):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = tuple(LABEL.findall(match["labels"] or ""))
        assert (match["name"], labels) not in found, line
        found[match["name"], labels] = float(match["value"])
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics.render()).get((name, tuple(labels.items())))


def test_answers_are_counted_by_model_route_and_status():
    metrics = Metrics()
    metrics.answered("a-sot", "skeleton", Usage(10, 20), 0.2, 3.0, 200)
    metrics.answered("a-sot", "skeleton", Usage(1, 2), 0.3, 4.0, 200)
    metrics.answered("a-sot", "skeleton", None, None, 0.1, 500)
    metrics.answered("a", "passed", None, None, 0.1, 200)
    assert value(metrics, "sot_answers_total", model="a-sot", route="skeleton", status="200") == 2
    assert value(metrics, "sot_answers_total", model="a-sot", route="skeleton", status="500") == 1
    assert value(metrics, "sot_answers_total", model="a", route="passed", status="200") == 1
    assert value(metrics, "sot_input_tokens_total", model="a-sot", route="skeleton") == 11
    assert value(metrics, "sot_output_tokens_total", model="a-sot", route="skeleton") == 22
    assert value(metrics, "sot_input_tokens_total", model="a", route="passed") is None


def test_histograms_count_up_to_each_bound():
    metrics = Metrics()
    for seconds in (0.05, 0.06, 3.0, 10_000.0):
        metrics.answered("a", "direct", None, None, seconds, 200)
    metrics.answered("a", "direct", None, 0.2, 1.0, 200)
    bucket = {"model": "a", "route": "direct"}
    counts = [
        value(metrics, "sot_answer_seconds_bucket", **bucket, le=bound)
        for bound in ("0.05", "0.1", "1.0", "5.0", "+Inf")
    ]
    assert counts == [1, 2, 3, 4, 5]
    assert value(metrics, "sot_answer_seconds_count", **bucket) == 5
    assert value(metrics, "sot_answer_seconds_sum", **bucket) == pytest.approx(10_004.11)
    assert value(metrics, "sot_first_text_seconds_count", **bucket) == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'a"} 7\nevil 1', "größe-模型", ""])
def test_no_name_of_a_model_breaks_the_text(name):
    metrics = Metrics()
    metrics.answered(name, "passed", None, None, 0.1, 200)
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert value(metrics, "sot_answers_total", model=escaped, route="passed", status="200") == 1


async def test_open_calls_and_waiting_requests_are_those_of_the_limit():
    limit, metrics = CallLimit(7, 3), Metrics()
    async with limit.place(), limit.place():
        found = samples(metrics.render(limit))
    assert found["sot_open_calls", ()] == 2
    assert found["sot_max_open_calls", ()] == 7
    assert found["sot_waiting_requests", ()] == 0


def test_every_family_has_its_type_before_its_samples():
    metrics = Metrics()
    metrics.answered("a", "direct", Usage(1, 1), 0.1, 0.2, 200)
    seen: set[str] = set()
    for line in metrics.render(CallLimit(1, 1)).splitlines():
        if line.startswith("# TYPE "):
            seen.add(line.split()[2])
        elif not line.startswith("#"):
            name = re.sub(r"_(bucket|sum|count)$", "", re.split(r"[{ ]", line)[0])
            assert name in seen, line
    assert len(seen) == 8
