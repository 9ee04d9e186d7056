"""The progress of `sot eval` on standard errors: a status line on a terminal, else a line every so often."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from skeleton_of_thought._cli.status_line import StatusLine

__all__ = ["EvalView"]

_PAUSE = 30.0
"""Seconds between two lines where there is no terminal."""


class EvalView:
    """Shows how far a run is: how many of a kind are done, what is being made, how fast, and the time left.

    Args:
        quiet: Whether to show nothing.
        clock: Seconds, monotonic.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._status: StatusLine | None = None
        self._what = ""
        self._now = ""
        self._total = self._done = self._left = self._failed = self._made = 0
        self._start = self._shown = 0.0
        self._said = ""

    @contextlib.contextmanager
    def stage(self, what: str, *, total: int, done: int, left: int | None = None) -> Iterator[None]:
        """Shows the progress of a stage while it lasts.

        Args:
            what: What is made, in the plural, such as `answers`.
            total: How many there will be.
            done: How many there were before.
            left: How many this command will make; None for all that are missing. They are fewer where failed ones are
                not made again.
        """
        self._what, self._total, self._done, self._now = what, total, done, ""
        self._left = total - done if left is None else left
        self._failed = self._made = 0
        self._start = self._clock()
        terminal = not self._quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        with StatusLine() if terminal else contextlib.nullcontext() as line:
            self._status = line
            self._show(always=True)
            try:
                yield
            finally:
                if self._status is None and self._made:
                    self._show(always=True)
                self._status = None

    def at(self, now: str) -> None:
        """Shows what is being made, such as the name of a way."""
        self._now = now
        if self._status is not None:
            self._show()

    def made(self, *, failed: bool = False) -> None:
        """Counts one that has been made, or has failed."""
        self._made += 1
        self._failed += failed
        self._done += not failed
        self._show()

    def note(self, line: str) -> None:
        """Shows a line that stays; none if the user wants no messages."""
        if not self._quiet:
            print(f"sot: {line}", file=sys.stderr)

    def text(self) -> str:
        """The line."""
        parts = [f"{self._done} of {self._total} {self._what}"]
        if self._now and self._status is not None:
            parts.append(self._now)
        if self._failed:
            parts.append(f"{self._failed} failed")
        seconds = self._clock() - self._start
        left = self._left - self._made
        if self._made and seconds > 0:
            parts.append(_rate(self._made / seconds))
            if left > 0:
                parts.append(f"{_span(seconds / self._made * left)} left")
        return " · ".join(parts)

    def _show(self, *, always: bool = False) -> None:
        if self._quiet:
            return
        if self._status is not None:
            self._status.show(self.text())
        elif (always or self._clock() - self._shown >= _PAUSE) and (text := self.text()) != self._said:
            self._shown, self._said = self._clock(), text
            print(f"sot: {text}", file=sys.stderr)


def _rate(per_second: float) -> str:
    return f"{60 * per_second:.1f} a minute" if per_second < 1 else f"{per_second:.1f} a second"


def _span(seconds: float) -> str:
    """A span of time in one unit or two, such as `2 h 5 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
