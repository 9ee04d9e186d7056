"""A lock that raises an error where a plain lock would deadlock: in a forked process, and for its own holder."""

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
    """The process that made an object. A fork copies its memory, but not its threads."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of that process."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise an error in a fork, where the engine's thread does not exist.

        Raises:
            EngineForked: This process is a fork of that process.
        """
        if self.forked:
            raise EngineForked(
                "The local engine was made before this process was forked, and its thread stayed with the parent: "
                "make an engine in the child, with LocalEngine.for_model(model, tokenizer)."
            )


class Guard:
    """A lock for one caller at a time.

    A signal handler or a finalizer can interrupt its thread inside a guard. With a plain lock it would wait for the
    very code that it interrupted; here it gets an error. A thread is inside at most one guard of all engines, so a
    thread that enters holds nothing that others wait for.

    `run` takes a function because a `with` statement over a class written in Python leaks its lock when Ctrl-C arrives
    between acquiring it and entering the block. A `with` statement over the lock itself does not.
    """

    def __init__(self) -> None:
        self.owner = OwnerProcess()
        self._lock = threading.Lock()

    def run(self, work: Callable[[], _T]) -> _T:
        """Call `work` while no other thread is inside.

        Raises:
            EngineForked: This process is a fork of the one that made the guard.
            EngineReentered: The calling thread is already inside a guard.
        """
        self.owner.check()
        if _here.inside:
            raise reentry_error()
        try:
            # Set before the lock is taken: a handler between the two lines gets an error without need, but never waits.
            _here.inside = True
            with self._lock:
                return work()
        finally:
            _here.inside = False


def holds_guard() -> bool:
    """Whether the calling thread is inside a guard, and so must not wait for another thread."""
    return _here.inside


def reentry_error() -> EngineReentered:
    """The error for a call that would wait for itself."""
    return EngineReentered(
        "The local engine was called from inside itself (by a signal handler or a finalizer that interrupted a "
        "call on the same thread, or by a hook of the model) and would wait for itself: have the handler set a "
        "flag, or call the engine from another thread."
    )
