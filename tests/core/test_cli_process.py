"""The `sot` command as a process: signals, pipes, and what is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scripted_cli
from pty_process import CTRL_C, PtyProcess

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
SCRIPTED = [sys.executable, scripted_cli.__file__]


ROUTES = [("How can I sleep better?", "--no-router"), ("What is 17 * 4?",)]
"""A question that gets a skeleton, and one that the router sends the direct way."""


@pytest.fixture(params=ROUTES, ids=["skeleton", "direct"])
def asked(request):
    return request.param


def start(delay, *arguments, **kwargs):
    command = [*SCRIPTED, str(delay), "ask", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=ENV, stdin=pipe, stdout=pipe, stderr=pipe, **kwargs)


def finish(process):
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return out.decode(), err.decode()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_answer_ends_cleanly(sent, code, asked):
    process = start("stdin", *asked, "--json", "--stream")
    for line in process.stdout:
        if json.loads(line)["event"] == "AnswerDelta":
            break
    process.send_signal(sent)
    out, err = finish(process)
    assert process.returncode == code
    assert err == ""
    assert all(json.loads(line) for line in out.splitlines())


def test_ctrl_c_while_a_backend_keeps_silent_ends_cleanly(asked):
    process = start(3600, *asked, "--json", "--stream", "--point-timeout", "9999")
    if "--no-router" in asked:
        _wait_for_threads(process)
    else:
        # A direct answer has no thread of its own; after this line there is nothing but its call.
        assert json.loads(process.stdout.readline())["event"] == "Routed"
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert process.returncode == 130
    assert (out, err) == ("", "")


def _wait_for_threads(process):
    # There is no output of the call to wait for, but while it keeps silent it has a thread of its own.
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        pytest.skip("needs /proc")
    while len(list(tasks.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)


def test_a_question_is_piped_in_or_read_from_a_file(tmp_path):
    command = [*SCRIPTED, "0", "ask", "--json", "--no-router"]
    done = subprocess.run(command, env=ENV, input=b"Why?\n", capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout)["question"] == "Why?"
    file = tmp_path / "question.txt"
    file.write_text("Why\nnot?\n")
    with file.open() as stdin:
        done = subprocess.run(command, env=ENV, stdin=stdin, capture_output=True, check=True, timeout=120)
    assert json.loads(done.stdout)["question"] == "Why\nnot?"


def test_a_terminal_without_a_question_is_told_how_to_ask():
    with PtyProcess([*SCRIPTED, "0", "ask"], ENV) as process:
        assert 'sot ask "QUESTION"' in process.rest()
        assert process.code() == 2


def test_ctrl_c_leaves_the_file_of_the_answer_as_it_was(tmp_path):
    file = tmp_path / "answer.txt"
    file.write_text("before")
    with PtyProcess([*SCRIPTED, "0.05", "ask", "--plain", "--no-router", "-o", str(file), "Why?"], ENV) as process:
        process.until("because")
        process.type(CTRL_C)
        process.rest()
        assert process.code() == 130
    assert file.read_text() == "before"
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_a_closed_pipe_ends_quietly(asked):
    process = start("stdin", *asked, "--plain")
    assert process.stdout.read(4) == (b"1. K" if "--no-router" in asked else b"This")
    process.stdout.close()
    process.stdin.close()
    err = process.stderr.read().decode()
    process.wait(timeout=120)
    process.stderr.close()
    assert err == ""
    assert process.returncode == 141


def test_plain_output_has_no_escape_codes_even_when_colour_is_forced():
    command = [*SCRIPTED, "0", "ask", "q", "--no-router"]
    env = {**ENV, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, check=True, timeout=120)
    assert b"\x1b" not in done.stdout + done.stderr


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom skeleton_of_thought.cli import main\nassert main(['ask', '--help']) == 0\n"
        "print([m for m in ('torch', 'transformers', 'rich', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, check=True, timeout=120)
    assert done.stdout.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "exit codes"),
        (["config"], 0, "max-points"),
        (["route", "What is 17 * 4?"], 0, "direct"),
        (["completion", "bash"], 1, "pip install"),
        (["ask", "Why?"], 1, "pip install"),
        (["chat"], 1, "pip install"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bare_install_works_or_says_what_to_install(words, code, said):
    # -S: the standard library alone, without what is installed.
    command = [sys.executable, "-S", "-m", "skeleton_of_thought", *words]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=120, input="")
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert code == 0 or done.stderr.count("\n") == 1


def test_the_package_runs_as_a_program():
    command = [sys.executable, "-m", "skeleton_of_thought", "--version"]
    done = subprocess.run(command, env=ENV, capture_output=True, check=True, timeout=120)
    assert done.stdout.startswith(b"sot ")
