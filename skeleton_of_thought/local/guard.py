"""A lock that speaks up where another would wait for ever: in a forked process, and for its own holder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from skeleton_of_thought.errors import EngineForked, EngineReentered

__all__ = ["Guard", "OwnerProcess", "holds_guard", "reentry_error"]

_T = TypeVar("_T")


class _Thread(threading.local):
    inside = False


_here = _Thread()


class OwnerProcess:
    """The process in which something was made. A fork takes memory along, but no threads."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that it was made in."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Refuse to go on where the thread that would answer does not exist.

        Raises:
            EngineForked: This process is a fork of the one that it was made in.
        """
        if self.forked:
            raise EngineForked(
                "The local engine was made before this process was forked, and its thread stayed with the parent: "
                "make an engine in the child, with LocalEngine.for_model(model, tokenizer)."
            )


class Guard:
    """One caller at a time, as with a lock.

    A signal handler and a finalizer run on a thread that may be anywhere, inside of a guard too. A lock would
    have them wait for the very code that they interrupted; here they are told. One thread is inside of one
    guard at most, of whichever engine, so a thread that may enter holds nothing that others wait for.

    `run` takes a function, for a `with` statement over a class in Python leaks its lock when Ctrl-C arrives
    between taking it and entering the block; over the lock itself it does not.
    """

    def __init__(self) -> None:
        self.owner = OwnerProcess()
        self._lock = threading.Lock()

    def run(self, work: Callable[[], _T]) -> _T:
        """Call `work` while nobody else is inside.

        Raises:
            EngineForked: This process is a fork of the one that the guard was made in.
            EngineReentered: The calling thread is inside of a guard already.
        """
        self.owner.check()
        if _here.inside:
            raise reentry_error()
        try:
            # Before the lock is taken: a handler in between is refused once too often, never once too seldom.
            _here.inside = True
            with self._lock:
                return work()
        finally:
            _here.inside = False


def holds_guard() -> bool:
    """Whether the calling thread is inside of a guard, and so must not wait for another thread."""
    return _here.inside


def reentry_error() -> EngineReentered:
    """The error for a call that would wait for itself."""
    return EngineReentered(
        "The local engine was called from inside of itself (by a signal handler or a finalizer that interrupted a "
        "call on the same thread, or by a hook of the model) and would wait for itself: have the handler set a "
        "flag, or call the engine from another thread."
    )
