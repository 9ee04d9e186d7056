"""A Ray of this machine, and how the tests of this folder meet its actors; `make test-ray` runs them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

psutil = pytest.importorskip("psutil", reason="the local engine needs it")

PATIENCE = 200.0
"""Seconds: Ray takes long to start on a busy machine."""

SEARCHED = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "shared")])
"""Where the actors find what the tests import."""


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("OPENAI_API_KEY", "none")
        patch.setenv("PYTHONPATH", SEARCHED, prepend=os.pathsep)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Ray and pandas warn about each other's future, and Ray leaves sockets to the collector of garbage.
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="module")
def ray(_environment: None) -> Any:
    ray = pytest.importorskip("ray", reason="make test-ray installs it")
    pytest.importorskip("ray.data", reason="make test-ray installs it")
    # Of the two processors of two actors none is left for a job that also reads, filters and writes.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def actors_of(process: Any) -> list[Any]:
    """The actors that answer, of a Ray that this process has started."""
    found = []
    for each in process.children(recursive=True):
        try:
            if "MapWorker(" in " ".join(each.cmdline()):
                found.append(each)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def actors() -> Any:
    return actors_of


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Prompts by which the numbered server knows the stages."""
    path = tmp_path / "prompts.json"
    texts = {
        "outline_prompt": "[skeleton] {request}",
        "point_prompt": "[point {point}] {point_outline}: {request}",
    }
    path.write_text(json.dumps(texts))
    return path


@pytest.fixture
def eventually_sync() -> Any:
    """`eventually_sync(condition, what)`: waits in this thread."""

    def wait(condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, f"this condition never held: {what}"
            time.sleep(0.01)

    return wait
