"""How GNU OpenMP, which torch uses on Linux, waits: two things to set right from outside.

**Helpers of other threads.** Each thread that runs torch has helpers of its own, which stay when it is done. As soon as
all of these together are more than the processors, libgomp no longer has helpers wait actively for the next parallel
piece of work, a few microseconds away, but puts them to sleep after each (the rule stands in libgomp's manual under
GOMP_SPINCOUNT). A model that was loaded on one thread and decodes on another then waits for sleepers in each product of
each step. So who submits work to an engine on a CPU lets its own helpers go first, and an engine that has nothing to do
lets go of its. They come back when that thread runs torch again.

**Other processes.** Of those libgomp knows nothing. Beside a busy one, a thread that spins for its sibling keeps the
processor from it: both wait for the scheduler, and a step takes several times as long. By default libgomp spins for
milliseconds. The next piece of a step is microseconds away, so a spin of that length is as good on an idle machine,
and on a busy one it ends before it does harm (`benchmarks/contention.py`). libgomp reads the length when it is loaded,
which torch does: so it is set for the import, where torch is imported through us.
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
"""`omp_pause_hard` of OpenMP 5.0: free what can be made again."""

_SPINS = "1000"
"""Turns of a spin, of a few nanoseconds each: longer than the pauses within a step, far shorter than a time slice."""

_CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""By these the user has decided how OpenMP waits: GNU's, of the standard, and Intel's and LLVM's."""


@contextlib.contextmanager
def short_waits() -> Iterator[None]:
    """While torch is imported for the first time: have OpenMP's threads spin for a short time only.

    Does nothing where torch is loaded already, on other systems than Linux, and where the environment says how to
    wait. The environment is as before afterwards: processes that are started later are not concerned.
    """
    if sys.platform != "linux" or "torch" in sys.modules or any(name in os.environ for name in _CHOSEN):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def release_helpers() -> None:
    """End the OpenMP helpers of the calling thread. Without libgomp this does nothing."""
    _pause()(_HARD)


@functools.cache
def _pause() -> Callable[[int], object]:
    if sys.platform == "linux":
        # torch puts its OpenMP among the global symbols.
        with contextlib.suppress(OSError, AttributeError):
            whole = ctypes.CDLL(None)
            whole.GOMP_parallel  # noqa: B018 - other OpenMP libraries wait by other rules
            return whole.omp_pause_resource_all
    return lambda kind: None
