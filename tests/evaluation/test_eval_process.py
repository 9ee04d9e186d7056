"""`sot eval` as a process over a server: killed, interrupted, on a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from completion_server import SKELETON, CompletionServer, usual
from pty_process import CTRL_C, PtyProcess

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
ENV.pop("OPENAI_BASE_URL", None)

# Shells make background processes ignore SIGINT, and child processes inherit that.
SOT = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from skeleton_of_thought.cli import main; sys.exit(main())",
]
POINTS = SKELETON.count("\n")
PATIENCE = 120


@pytest.fixture
def server():
    with CompletionServer() as made:
        yield made


@pytest.fixture
def command(server, tmp_path):
    """The words of the command for some questions."""

    def command(questions, *words):
        path = tmp_path / "questions.txt"
        path.write_text("".join(f"Why is the number {number} odd?\n" for number in range(questions)))
        model = ["-m", f"openai:scripted@{server.address}", "--prefill", "no", "--no-warm-up"]
        return [*SOT, "eval", str(path), "--out", str(tmp_path / "run"), "--ways", "normal,sot", *model, *words]

    return command


def rows_of(folder):
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def start(words):
    return subprocess.Popen(words, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out.decode(), err.decode()


def stop_at(server, requests):
    """Holds all replies from that request on, and waits for it."""

    def reply(asked, model):
        if len(server.asked) >= requests:
            server.gate.clear()
            server.gate.wait(PATIENCE)
        return usual(asked, model)

    server.reply = reply
    server.wait_for(lambda: len(server.asked) >= requests)


def test_killed_at_half_and_started_again_asks_hardly_anything_twice(server, command, tmp_path):
    questions = 30
    one_pass = questions * (1 + 1 + POINTS)
    killed = start(command(questions, "--quiet"))
    stop_at(server, one_pass // 2)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    kept = rows_of(tmp_path / "run")
    assert 0 < len(kept) < 2 * questions
    server.reply = usual
    server.gate.set()
    code, out, err = finish(start(command(questions, "--quiet")))
    assert code == 0, err
    assert len(server.asked) <= 1.05 * one_pass
    rows = rows_of(tmp_path / "run")
    assert rows[: len(kept)] == kept
    assert len({row["key"] for row in rows if not row["error"]}) == len(rows) == 2 * questions
    assert out.splitlines()[-1].startswith("Report: ")
    asked = len(server.asked)
    assert finish(start(command(questions, "--quiet")))[0] == 0
    assert len(server.asked) == asked


def test_ctrl_c_ends_all_calls_keeps_what_is_done_and_says_so_in_one_line(server, command, tmp_path):
    process = start(command(3, "--quiet"))
    stop_at(server, 8)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    done = len(rows_of(tmp_path / "run"))
    assert 0 < done < 6
    assert (code, out) == (130, "")
    assert err == f"Stopped: {done} of 6 answers are in {tmp_path / 'run'}; the same command goes on.\n"
    assert json.loads((tmp_path / "run" / "report.json").read_text())["answers"] == done


def test_a_second_process_in_the_same_folder_is_refused(server, command, tmp_path):
    server.gate.clear()
    first = start(command(1, "--quiet"))
    server.wait_for(lambda: server.asked)
    code, out, err = finish(start(command(1, "--quiet")))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Another process" in err
    server.gate.set()
    assert finish(first)[0] == 0


def test_a_terminal_shows_a_status_line_and_is_left_clean(server, command):
    words = command(2)
    server.gate.clear()
    with PtyProcess(words, {**ENV, "COLUMNS": "80"}) as process:
        process.until("0 of 4 answers · ")
        server.gate.set()
        shown = process.rest()
        assert process.code() == 0
    assert "3 of 4 answers · " in shown
    assert "Report: " in shown.split("\x1b[K")[-1]


def test_ctrl_c_on_a_terminal_leaves_the_line_about_it_last(server, command):
    server.gate.clear()
    with PtyProcess(command(2), {**ENV, "COLUMNS": "120"}) as process:
        process.until("0 of 4 answers · ")
        process.type(CTRL_C)
        shown = process.rest()
        assert process.code() == 130
    assert "Stopped: 0 of 4 answers are in " in shown.replace("\r\n", " ").split("\x1b[K")[-1]
