"""The load that other processes put on this machine, which makes measured times vary."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

__all__ = ["CpuLoad", "CpuMeter"]

_BUSY_SHARE = 0.25
"""The share of the processors from which on their use by others shows in measured times."""


@dataclass(frozen=True)
class CpuLoad:
    """The use of some processors during a measurement.

    Attributes:
        processors: Their number.
        elapsed: Seconds that the measurement took.
        others: Processor seconds that other processes used.
    """

    processors: int
    elapsed: float
    others: float

    @property
    def warning(self) -> str | None:
        """A line about the other processes if they used much, else None."""
        used = self.others / self.elapsed if self.elapsed > 0 else 0.0
        if used < max(0.3, _BUSY_SHARE * self.processors):
            return None
        return (
            f"this machine is busy: others used {used:.1f} of its {self.processors} processors meanwhile, so times vary"
        )


class CpuMeter:
    """Measures, from its creation on, the use of the processors that this process may run on."""

    def __init__(self) -> None:
        # psutil comes with the extra `local`. Without that extra no model runs here that others could slow down.
        import psutil

        self._times = psutil.cpu_times
        self._start = self._totals()

    def read(self) -> CpuLoad:
        """The use so far."""
        elapsed, everything, own = (now - then for now, then in zip(self._totals(), self._start, strict=True))
        return CpuLoad(len(self._usable()), elapsed, max(0.0, everything - own))

    def _usable(self) -> list[Any]:
        """The times of the processors that this process may run on."""
        times = self._times(percpu=True)
        allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        return [time for index, time in enumerate(times) if index in allowed]

    def _totals(self) -> tuple[float, float, float]:
        """Seconds since the machine started: elapsed, used on all processors, and used by this process."""
        usable = self._usable()
        idle = sum(time.idle + getattr(time, "iowait", 0.0) for time in usable)
        # `user` and `nice` already contain the time of guests.
        total = sum(sum(t) - getattr(t, "guest", 0.0) - getattr(t, "guest_nice", 0.0) for t in usable)
        own = os.times()
        return total / max(1, len(usable)), total - idle, own.user + own.system
