"""Ctrl-C while a model loads: the process ends at once, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skeleton_of_thought._cli.interrupts import exit_at_once

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}

LOADING = """
import hashlib, signal, sys, time
from skeleton_of_thought._cli.interrupts import exit_at_once
signal.signal(signal.SIGINT, signal.{handler})

def sleeps():
    time.sleep(3600)

def swallows():
    while True:
        try:
            time.sleep(0.001)
        except BaseException:
            pass

def computes():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # native code that releases the interpreter lock

with exit_at_once():
    print("ready", flush=True)
    {work}()
"""


def start(work, handler="default_int_handler", before=""):
    code = before + LOADING.format(work=work, handler=handler)
    return subprocess.Popen([sys.executable, "-c", code], env=ENV, stdout=-1, stderr=-1)


@pytest.mark.parametrize("work", ["sleeps", "swallows", "computes"])
def test_ctrl_c_ends_the_process_with_one_line(work):
    with start(work) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"sot: interrupted\n")


def test_repeated_ctrl_c_is_reported_once():
    with start("swallows") as process:
        assert process.stdout.readline() == b"ready\n"
        for _ in range(20):
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"sot: interrupted\n")


def test_the_line_is_said_however_slowly_it_is_written():
    slow = "import os, time\nisatty = os.isatty\nos.isatty = lambda number: (time.sleep(1), isatty(number))[1]\n"
    with start("sleeps", before=slow) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"sot: interrupted\n")


def test_a_process_that_ignores_ctrl_c_keeps_ignoring_it():
    with start("sleeps", "SIG_IGN") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.kill()


def test_after_loading_ctrl_c_raises_an_exception_again():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with exit_at_once():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert "sot-interrupts" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_while_loading_is_raised():
    with pytest.raises(ValueError, match="no model"), exit_at_once():
        raise ValueError("no model")
    assert "sot-interrupts" not in {thread.name for thread in threading.enumerate()}


def test_other_threads_do_not_change_the_handler():
    seen = []

    def load():
        with exit_at_once():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join(60)
    assert seen == [signal.getsignal(signal.SIGINT)]
