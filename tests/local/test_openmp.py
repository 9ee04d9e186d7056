"""OpenMP's waiting: callers' helper threads end before the engine's begin to wait, and spins are short."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from skeleton_of_thought.local import openmp

# The module by itself: its package also imports transformers, which takes seconds in each of these processes.
_OPENMP = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("openmp", {openmp.__file__!r})
openmp = importlib.util.module_from_spec(spec)
spec.loader.exec_module(openmp)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what torch uses on Linux")

_SCRIPT = """
import os
import threading
import time

import torch

torch.set_num_threads(3)
count = lambda: len(os.listdir("/proc/self/task"))
x = torch.randn(300, 300)
expected = x @ x
before = count()
openmp.release_helpers()
after = count()
again = x @ x
print(before - after, count() - after, torch.equal(again, expected))
threading.Thread(target=openmp.release_helpers).start()  # a thread without helpers
openmp.release_helpers()
until = time.monotonic() + 20
while count() > after and time.monotonic() < until:  # that thread may end late
    time.sleep(0.01)
print(count() - after)
"""


@linux
def test_helper_threads_end_and_restart() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OPENMP + _SCRIPT], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "2 2 True"
    assert second == "0"


_THROUGH_US = "import skeleton_of_thought.local"
_TORCH_ALONE = _OPENMP + "with openmp.short_waits():\n    import torch"

_REPORT = """
import os
# transformers may import scikit-learn, which sets two other variables.
others = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
print(sorted(name for name in os.environ if name.startswith(("GOMP_", "OMP_WAIT", "KMP_")) and name not in others))
"""


def _loaded(imports: str, **environment: str) -> tuple[str, str, str]:
    """The spin count and the policy that libgomp read in a process with these imports, and the variables left there."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
    env = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", imports + _REPORT],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**env, "OMP_DISPLAY_ENV": "verbose", **environment},
    )
    shown = dict(re.findall(r"^\s*(?:\[host\] )?(\w+) = '(.*)'$", done.stderr, re.M))
    return shown["GOMP_SPINCOUNT"], shown["OMP_WAIT_POLICY"], done.stdout.strip()


@linux
def test_torch_imported_through_the_package_spins_briefly_and_child_processes_are_unaffected() -> None:
    assert _loaded(_THROUGH_US) == ("1000", "PASSIVE", "[]")


@linux
@pytest.mark.parametrize(
    ("name", "value"),
    [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "active"), ("KMP_BLOCKTIME", "0"), ("KMP_LIBRARY", "serial")],
)
def test_a_chosen_wait_policy_is_kept(name: str, value: str) -> None:
    spins, policy, left = _loaded(_TORCH_ALONE, **{name: value})
    assert spins != "1000"
    assert (spins == "77") == (name == "GOMP_SPINCOUNT")
    assert (policy == "ACTIVE") == (name == "OMP_WAIT_POLICY")
    assert left == f"['{name}']"


@linux
def test_torch_imported_earlier_is_not_changed() -> None:
    spins, _, left = _loaded(f"import torch\n{_TORCH_ALONE}")
    assert (spins == "1000", left) == (False, "[]")


def test_other_systems_have_no_such_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp._CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    with openmp.short_waits():
        assert ("GOMP_SPINCOUNT" in os.environ) == (sys.platform == "linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    with openmp.short_waits():
        assert "GOMP_SPINCOUNT" not in os.environ


def test_a_failed_import_restores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openmp._CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    with pytest.raises(ModuleNotFoundError), openmp.short_waits():
        raise ModuleNotFoundError("torch")
    assert "GOMP_SPINCOUNT" not in os.environ


_FORK = """
import os
import torch
from skeleton_of_thought.local import openmp
left = torch.randn(500, 500)
(left @ left).sum()  # starts helpers, which a fork does not have
child = os.fork()
if child == 0:
    openmp.release_helpers()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@linux
def test_a_fork_does_not_wait_for_helpers_of_its_parent() -> None:
    done = subprocess.run([sys.executable, "-c", _FORK], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "7"
