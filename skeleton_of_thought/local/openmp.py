"""A workaround for how GNU OpenMP, which torch uses on Linux, waits when there are more threads than processors.

Each thread that runs torch has helpers of its own, which stay when it is done. As soon as all of these together are
more than the processors, libgomp no longer has helpers wait actively for the next parallel piece of work, a few
microseconds away, but puts them to sleep after each (the rule stands in libgomp's manual under GOMP_SPINCOUNT).
A model that was loaded on one thread and decodes on another then waits for sleepers in each product of each step.
So who submits work to an engine on a CPU lets its own helpers go first, and an engine that has nothing to do lets go
of its. They come back when that thread runs torch again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Callable

__all__ = ["release_helpers"]

_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0: free what can be made again."""


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
