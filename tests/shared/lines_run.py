"""The work of a function as a number of lines: a clock that no other process disturbs."""

from __future__ import annotations

import sys
from collections.abc import Callable


def lines_run(work: Callable[[], object]) -> int:
    """The lines of Python that a call runs."""
    count = 0

    def tracer(*_: object) -> object:
        nonlocal count
        count += 1
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count
