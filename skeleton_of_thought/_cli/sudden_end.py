"""A word about a process that native code, or a signal that cannot be handled, ends without one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from skeleton_of_thought._cli.interrupts import before_leaving

__all__ = ["said_at_a_sudden_end"]

_WATCH = """
import sys
if not sys.stdin.buffer.read(1):
    clear = "\\r\\x1b[K" if sys.stderr.isatty() else ""
    print(clear + sys.argv[1], file=sys.stderr)
"""
"""The other process: the system closes its standard input when this one has ended."""


@contextlib.contextmanager
def said_at_a_sudden_end(line: str) -> Iterator[Callable[[], None]]:
    """Has another process print `line` on standard errors if this one ends within the block, without unwinding it.

    The block gets a function to call when an end needs no word any more. A signal that ends the process at once, see
    `exit_at_once`, has words of its own.
    """
    # In a session of its own: Ctrl-C is for this process.
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, line],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert watch.stdin is not None
    pipe = watch.stdin.fileno()

    def dismiss() -> None:
        with contextlib.suppress(OSError):  # it has gone, because this is the second time or somebody has ended it
            os.write(pipe, b".")

    try:
        with before_leaving(dismiss):
            yield dismiss
    finally:
        dismiss()
        with contextlib.suppress(OSError):
            watch.communicate()
