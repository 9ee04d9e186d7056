"""Threads that work through a list together, and end together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from skeleton_of_thought.drive import GRACE, join_threads, start_threads

__all__ = ["work_in_threads"]

_LOOK = 0.2
"""Seconds after which the caller's thread looks for a signal."""


def work_in_threads(work: Callable[[], None], cancel: Callable[[], None], number: int, *, name: str) -> None:
    """Runs `work` in so many threads, or in the caller's own for one, and waits until all have ended.

    The first exception in any of them, or here (`KeyboardInterrupt`), cancels the others and is raised.

    Args:
        work: Works until nothing is left.
        cancel: Has all threads end soon.
        number: How many threads; fewer if the machine has no more, as long as it has one.
        name: The start of their names.
    """
    if number <= 1:
        try:
            work()
        except BaseException:
            cancel()
            raise
        return
    failures: list[BaseException] = []
    changed = threading.Condition()
    at_work = number

    def run() -> None:
        nonlocal at_work
        try:
            work()
        except BaseException as error:
            with changed:
                failures.append(error)
        with changed:
            at_work -= 1
            changed.notify()

    threads = [threading.Thread(target=run, name=f"{name}-{each}", daemon=True) for each in range(number)]
    try:
        not_started = number - start_threads(threads)
        with changed:
            at_work -= not_started
            # In pieces: a signal that reaches another thread wakes no wait without an end.
            while not changed.wait_for(lambda: failures or not at_work, _LOOK):
                pass
        if failures:
            raise failures[0]
    except BaseException:
        cancel()
        join_threads(threads, 2 * GRACE)
        raise
