"""A program on its own terminal, where a typed Ctrl-C sends the program a signal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import Self

import pexpect
from pexpect import fdpexpect

CTRL_C, CTRL_D = "\x03", "\x04"
PATIENCE = 120.0
"""Seconds after which a wait fails the test, so that the test does not hang."""

_ON_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
# Shells make programs in the background ignore SIGINT, and `nohup` SIGHUP; child processes inherit that.
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes standard input the controlling terminal, in a new program: the tests may have threads and must not fork."""


class PtyProcess:
    """A process whose standard input, output and errors are one terminal.

    Attributes:
        process: The process.
        shown: The output that `until` and `rest` have read so far.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], *, rows: int = 24, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *argv],
            env={**env, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._screen = fdpexpect.fdspawn(self._ours, encoding="utf-8", codec_errors="replace", timeout=PATIENCE)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)

    def until(self, text: str) -> str:
        """Reads up to the first occurrence of the text, and returns what it read."""
        self._screen.expect_exact(text)
        return self._read(text)

    def rest(self) -> str:
        """Reads until the program ends, and returns what it read."""
        self._screen.expect(pexpect.EOF)
        return self._read("")

    def _read(self, end: str) -> str:
        read = f"{self._screen.before}{end}"
        self.shown += read
        return read

    def type(self, keys: str) -> None:
        """Types keys; Enter is a line end."""
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        """Waits for the end, and returns the exit code."""
        return self.process.wait(PATIENCE)
