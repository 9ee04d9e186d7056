"""A word about a process that native code, or a signal that cannot be handled, ends without one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

__all__ = ["said_at_a_sudden_end"]

_WATCH = """
import sys
if not sys.stdin.buffer.read(1):
    clear = "\\r\\x1b[K" if sys.stderr.isatty() else ""
    print(clear + sys.argv[1], file=sys.stderr)
"""
"""The other process: the system closes its standard input when this one has ended."""


@contextlib.contextmanager
def said_at_a_sudden_end(line: str) -> Iterator[None]:
    """Has another process print `line` on standard errors if this one ends within the block, without unwinding it."""
    # In a session of its own: Ctrl-C is for this process, which unwinds the block.
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, line],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody has ended it
            watch.communicate(b".")
