"""The waiting of GNU OpenMP's threads, which torch uses on Linux.

**Helpers of other threads.** Each thread that runs torch has its own helper threads, which stay when its work is done.
When all helpers together outnumber the processors, libgomp puts helpers to sleep after each parallel piece of work; up
to then they wait actively for the next piece, a few microseconds later (libgomp's manual, GOMP_SPINCOUNT). A model that
was loaded on one thread and decodes on another would then wait for sleeping helpers in each product of each step.
Therefore a thread that submits work to an engine on a CPU ends its own helpers first, and an idle engine ends its
helpers too. OpenMP starts them again when the thread next runs torch.

**Other processes.** libgomp does not know about them. Beside a busy process, a spinning thread keeps the processor from
the thread that it waits for: both wait for the scheduler, and a step takes several times as long. By default libgomp
spins for milliseconds. The next piece of a step is microseconds away, so a spin of microseconds is as good on an idle
machine, and on a busy one it ends before it does harm (`benchmarks/contention.py`). libgomp reads the length when torch
loads it, so this module sets it while torch is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator

__all__ = ["release_helpers", "short_waits"]

_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0: free all resources that can be allocated again."""

_SPINS = "1000"
"""Turns of a spin, a few nanoseconds each: longer than the pauses within a step, far shorter than a time slice."""

_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which users choose how OpenMP waits: GNU's, the standard's, and two of Intel's and LLVM's."""


@contextlib.contextmanager
def short_waits() -> Iterator[None]:
    """A context for the first import of torch: OpenMP's threads will spin for a short time only.

    Does nothing if torch is loaded already, on systems other than Linux, and if the environment chooses how to wait.
    Restores the environment afterwards, so that later child processes are not affected.
    """
    if sys.platform != "linux" or "torch" in sys.modules or any(name in os.environ for name in _CHOICES):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def release_helpers() -> None:
    """End the OpenMP helpers of the calling thread. Does nothing without libgomp, and in a forked process."""
    if not _forked:
        _pause()(_HARD)


_forked: list[bool] = []
"""Not empty in a fork of a process that loaded this module: helpers are not forked, and libgomp would wait for them."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(True))


@functools.cache
def _pause() -> Callable[[int], object]:
    if sys.platform == "linux":
        # torch loads its OpenMP into the global symbols.
        with contextlib.suppress(OSError, AttributeError):
            whole = ctypes.CDLL(None)
            whole.GOMP_parallel  # noqa: B018 - missing in other OpenMP libraries, which wait by other rules
            return whole.omp_pause_resource_all
    return lambda kind: None
