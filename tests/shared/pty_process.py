"""A program on a terminal of its own, as a user has it: Ctrl-C is typed, and the program gets the signal."""

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
"""Seconds until something that does not come fails the test."""

_ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Takes standard input as the terminal that sends signals. Not by a fork in the tests, which may have threads."""


class PtyProcess:
    """A process whose standard input, output and errors are one terminal.

    Attributes:
        process: The process.
        shown: All that it has shown so far, as far as `until` has read.
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
        """What it shows up to the first such text, this included."""
        self._screen.expect_exact(text)
        return self._read(text)

    def rest(self) -> str:
        """What it shows until it ends."""
        self._screen.expect(pexpect.EOF)
        return self._read("")

    def _read(self, end: str) -> str:
        read = f"{self._screen.before}{end}"
        self.shown += read
        return read

    def type(self, keys: str) -> None:
        """Types; the Enter key is a line end."""
        os.write(self._ours, keys.encode())

    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(PATIENCE)
