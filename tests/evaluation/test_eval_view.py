"""The progress of `sot eval`: a status line on a terminal, lines elsewhere, nothing if the user wants none."""

from __future__ import annotations

import io
import sys

import pytest

from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.status_line import StatusLine


class Screen(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def screen_of(monkeypatch):
    def make(*, terminal: bool) -> Screen:
        made = Screen(terminal=terminal)
        monkeypatch.setattr(sys, "stderr", made)  # not in the fixture itself: pytest replaces it before the test
        return made

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return make


def test_a_terminal_shows_done_way_failures_rate_and_time_left_and_ends_clean(screen_of):
    screen = screen_of(terminal=True)
    clock = Clock()
    view = EvalView(clock=clock)
    with view.stage("answers", total=12, done=2, left=10):
        view.at("sot")
        for failed in (False, True):
            clock.now += 30
            view.made(failed=failed)
        assert screen.getvalue().endswith("\r\x1b[K3 of 12 answers · sot · 1 failed · 2.0 a minute · 4 min left")
        print("a warning of another package", file=sys.stderr)
        assert "\r\x1b[Ka warning of another package" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")
    assert sys.stderr is screen


def test_without_a_terminal_a_line_comes_every_half_minute_and_at_the_end(screen_of):
    screen = screen_of(terminal=False)
    clock = Clock()
    view = EvalView(clock=clock)
    with view.stage("answers", total=100, done=0, left=100):
        for _ in range(100):
            clock.now += 1
            view.made()
    lines = screen.getvalue().splitlines()
    assert [line.split(" answers")[0] for line in lines] == [f"sot: {n} of 100" for n in (0, 30, 60, 90, 100)]
    assert "\x1b" not in screen.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(screen_of, terminal):
    screen = screen_of(terminal=terminal)
    view = EvalView(quiet=True)
    with view.stage("answers", total=1, done=0, left=1):
        view.made()
        view.note("a note")
    assert screen.getvalue() == ""


def test_the_line_fits_the_terminal_and_controls_nothing(screen_of):
    screen = screen_of(terminal=True)
    with StatusLine() as line:
        line.show("x\x1b[2J" + "y" * 200)
    shown = screen.getvalue().split("\r\x1b[K")[1]
    assert len(shown) == 79
    assert "\x1b" not in shown
