"""What is said about a process that ends without a word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

SCRIPT = """
import os, signal, subprocess, sys
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.sudden_end import said_at_a_sudden_end
with said_at_a_sudden_end("it has ended") as dismiss:
    {}
print("the block has ended", file=sys.stderr)
"""


def said(within: str) -> tuple[int, str]:
    """The exit code and the standard errors of a process that runs a line within the block."""
    words = [sys.executable, "-c", SCRIPT.format(within)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stdout
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("within", "code"),
    [("os._exit(1)", 1), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("os.abort()", -signal.SIGABRT)],
)
def test_a_sudden_end_is_said(within, code):
    assert said(within) == (code, "it has ended\n")


def test_the_end_of_the_block_is_none():
    assert said("pass") == (0, "the block has ended\n")


@pytest.mark.parametrize("within", ["raise KeyboardInterrupt", "sys.exit(3)", "raise OSError('broken')"])
def test_an_exception_is_none(within):
    _, text = said(within)
    assert "it has ended" not in text


def test_an_end_that_needs_no_word_is_none():
    assert said("dismiss(); dismiss(); os._exit(1)") == (1, "")
    assert said("dismiss()") == (0, "the block has ended\n")


@pytest.mark.parametrize(("number", "text"), [(signal.SIGINT, "sot: interrupted\n"), (signal.SIGTERM, "")])
def test_a_signal_that_ends_the_process_at_once_has_words_of_its_own(number, text):
    at_once = (
        f"stack = exit_at_once(); stack.__enter__(); os.kill(os.getpid(), {int(number)}); import time; time.sleep(50)"
    )
    assert said(at_once) == (128 + number, text)


def test_programs_that_the_block_has_started_do_not_hide_the_end():
    code, text = said("subprocess.Popen(['sleep', '5'], stderr=subprocess.DEVNULL); os._exit(1)")
    assert (code, text) == (1, "it has ended\n")


def test_the_other_process_may_be_gone():
    found = "import psutil; (other,) = psutil.Process().children(); other.kill(); other.wait()"
    assert said(found) == (0, "the block has ended\n")


def test_the_other_process_ends_with_the_block():
    from skeleton_of_thought._cli.sudden_end import said_at_a_sudden_end

    before = set(psutil.Process().children())
    with said_at_a_sudden_end("it has ended"):
        (other,) = set(psutil.Process().children()) - before
        # Ctrl-C in the terminal is for this process alone.
        assert os.getpgid(other.pid) != os.getpgid(0)
    assert not other.is_running()
