"""How much of this machine others use, which is what makes times vary."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["Meter", "Work"]

_MUCH = 0.25
"""The share of the processors whose use by others shows in times."""


@dataclass(frozen=True)
class Work:
    """What was done on some processors for a while.

    Attributes:
        processors: How many they are.
        elapsed: Seconds.
        others: Seconds of work of other processes, over all processors.
    """

    processors: int
    elapsed: float
    others: float

    @property
    def busy(self) -> str | None:
        """A line about the others, where what they did is much; else None."""
        used = self.others / self.elapsed if self.elapsed > 0 else 0.0
        if used < max(0.3, _MUCH * self.processors):
            return None
        return (
            f"this machine is busy: others used {used:.1f} of its {self.processors} processors meanwhile, so times vary"
        )


class Meter:
    """Measures from its making on what is done on the processors that this process may run on."""

    def __init__(self) -> None:
        # It comes with the extra `local`; without that nothing runs here that could be slowed down.
        import psutil

        self._times = psutil.cpu_times
        self._began = self._read()

    def read(self) -> Work:
        """What was done so far."""
        elapsed, everything, own = (now - then for now, then in zip(self._read(), self._began, strict=True))
        return Work(len(self._mine()), elapsed, max(0.0, everything - own))

    def _mine(self) -> list[Any]:
        times = self._times(percpu=True)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        return [time for index, time in enumerate(times) if index in allowed]

    def _read(self) -> tuple[float, float, float]:
        """Seconds so far: by the clock, of work on all processors, and of this process's work."""
        mine = self._mine()
        idle = sum(time.idle + getattr(time, "iowait", 0.0) for time in mine)
        # Guests' time is part of `user` and `nice` already.
        total = sum(sum(t) - getattr(t, "guest", 0.0) - getattr(t, "guest_nice", 0.0) for t in mine)
        own = os.times()
        return total / max(1, len(mine)), total - idle, own.user + own.system
