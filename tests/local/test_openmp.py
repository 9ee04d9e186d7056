"""Helpers of OpenMP: those of callers must be gone when the engine's own begin to wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import os
import threading
import time

import torch

from skeleton_of_thought.local.openmp import release_helpers

torch.set_num_threads(3)
count = lambda: len(os.listdir("/proc/self/task"))
x = torch.randn(300, 300)
expected = x @ x
before = count()
release_helpers()
after = count()
again = x @ x
print(before - after, count() - after, torch.equal(again, expected))
threading.Thread(target=release_helpers).start()  # a thread without helpers
release_helpers()
until = time.monotonic() + 20
while count() > after and time.monotonic() < until:  # that thread takes its time to end
    time.sleep(0.01)
print(count() - after)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what torch uses on Linux")
def test_helpers_go_and_come_back() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "2 2 True"
    assert second == "0"
