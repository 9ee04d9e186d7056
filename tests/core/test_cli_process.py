"""The `sot` command as a process: signals, pipes, imports, and broken streams."""

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

from skeleton_of_thought.cli import main

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
SCRIPTED = [sys.executable, scripted_cli.__file__]


ROUTES = [("How can I sleep better?", "--no-router"), ("What is 17 * 4?",)]
"""A question that gets a skeleton, and one that the router has answered directly."""


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


def plain_answer(capsys, *words):
    """The text that the command prints in this process."""
    assert main(["ask", "--plain", *words], backend=scripted_cli.Script().backend()) == 0
    return capsys.readouterr().out


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


def test_ctrl_c_while_a_backend_is_silent_ends_cleanly(asked):
    process = start(3600, *asked, "--json", "--stream", "--point-timeout", "9999")
    if "--no-router" in asked:
        _wait_for_threads(process)
    else:
        # A direct answer runs in the caller's thread. After this line there is only its call.
        assert json.loads(process.stdout.readline())["event"] == "Routed"
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert process.returncode == 130
    assert (out, err) == ("", "")


def _wait_for_threads(process):
    # A silent call has no output to wait for, but it starts a thread, beside the main one and that for signals.
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        pytest.skip("needs /proc")
    while len(list(tasks.iterdir())) < 3:
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


def test_without_a_question_a_terminal_shows_how_to_ask():
    with PtyProcess([*SCRIPTED, "0", "ask"], ENV) as process:
        assert 'sot ask "QUESTION"' in process.rest()
        assert process.code() == 2


def test_ctrl_c_leaves_the_file_of_the_answer_as_it_was(tmp_path):
    file = tmp_path / "answer.txt"
    file.write_text("before")
    with PtyProcess([*SCRIPTED, "held", "ask", "--plain", "--no-router", "-o", str(file), "Why?"], ENV) as process:
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
    ("words", "code", "message"),
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
def test_a_bare_install_works_or_names_the_extra(words, code, message):
    # -S: only the standard library, without installed packages.
    command = [sys.executable, "-S", "-m", "skeleton_of_thought", *words]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=120, input="")
    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert code == 0 or done.stderr.count("\n") == 1


def test_the_package_runs_as_a_program():
    command = [sys.executable, "-m", "skeleton_of_thought", "--version"]
    done = subprocess.run(command, env=ENV, capture_output=True, check=True, timeout=120)
    assert done.stdout.startswith(b"sot ")


# --- broken streams ---

FOREIGN = r"""
import sys, scripted_cli
from skeleton_of_thought.cli import main
script = scripted_cli.Script(skeleton="1. \u65e9\u7761\n2. Sleep\n", sentences=1)
sys.exit(main(sys.argv[1:], backend=script.backend()))
"""
NARROW = [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]


def foreign(environment):
    env = {name: value for name, value in ENV.items() if name != "PYTHONIOENCODING"}
    return {**env, "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parents[1] / "shared"))), **environment}


@pytest.mark.parametrize("environment", NARROW, ids=["cp1252", "ascii"])
@pytest.mark.parametrize("command", ["ask", "chat"])
def test_characters_that_cannot_be_encoded_do_not_end_the_answer(tmp_path, environment, command):
    file = tmp_path / "answer.txt"
    words = ["ask", "-o", str(file)] if command == "ask" else ["chat"]
    done = subprocess.run(
        [sys.executable, "-c", FOREIGN, *words, "--no-router"],
        env=foreign(environment),
        input=b"Why?\n",
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == b""
    assert done.stdout.startswith(b"1. ??: This helps")
    assert b"2. Sleep: This helps" in done.stdout
    assert command == "chat" or file.read_text(encoding="utf-8").startswith("1. \u65e9\u7761: This helps")


def test_the_live_view_shows_encodable_characters():
    env = {**foreign(NARROW[0]), "TERM": "xterm"}
    with PtyProcess([sys.executable, "-c", FOREIGN, "ask", "--no-router", "Why?"], env) as process:
        shown = process.rest()
        assert process.code() == 0
    assert "Traceback" not in shown
    assert "Sleep" in shown


def shell(redirected, *words, **kwargs):
    """Runs the command with a shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *SCRIPTED, "0", *words]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=120, **kwargs)


@pytest.mark.parametrize(
    ("redirected", "words", "code", "out"),
    [
        ("2>&-", ["ask", "--no-router", "Why?"], 0, "1. Keep"),
        ("2>&-", ["ask", "--no-such-option"], 2, ""),
        ("2>&-", ["ask", "Why?", "-o", "no/such/file"], 2, ""),
        (">&-", ["ask", "--no-router", "Why?"], 0, ""),
        (">&- 2>&-", ["ask", "--no-router", "Why?"], 0, ""),
        ("<&-", ["ask", "--no-router", "Why?"], 0, "1. Keep"),
        ("<&-", ["ask"], 2, ""),
        ("<&-", ["ask", "-"], 2, ""),
        ("<&-", ["chat"], 0, ""),
        ("<&-", ["route", "--csv", "-"], 2, ""),
        ("<&- >&- 2>&-", ["ask"], 2, ""),
    ],
)
def test_the_command_works_with_closed_streams(redirected, words, code, out):
    done = shell(redirected, *words)
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert bool(done.stdout) == bool(out)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (code != 0 and "2>&-" not in redirected)


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path, capsys):
    file = tmp_path / "answer.txt"
    assert shell(">&- 2>&-", "ask", "--no-router", "Why?", "--stats", "-o", str(file)).returncode == 0
    assert file.read_text() == plain_answer(capsys, "--no-router", "Why?")


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@needs_full
@pytest.mark.parametrize("words", [["ask", "--no-router"], ["ask", "--json"], ["chat"], ["route"], ["config"]])
def test_a_full_disk_is_reported_in_one_line(words):
    done = shell("> /dev/full", *words, input="Why is the sky blue?\n")
    assert done.returncode == 1
    assert done.stderr == "sot: error: the output could not be written: No space left on device\n"


@needs_full
def test_the_file_of_the_answer_is_written_even_if_stdout_is_full(tmp_path, capsys):
    file = tmp_path / "answer.txt"
    done = shell("> /dev/full", "ask", "--no-router", "Why?", "-o", str(file))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert file.read_text() == plain_answer(capsys, "--no-router", "Why?")


def test_the_file_of_the_answer_is_written_after_the_reader_has_ended(tmp_path, asked, capsys):
    file = tmp_path / "answer.txt"
    process = start("stdin", *asked, "-o", str(file))
    assert process.stdout.read(4) == (b"1. K" if "--no-router" in asked else b"This")
    process.stdout.close()
    process.stdin.close()
    err = process.stderr.read().decode()
    process.wait(timeout=120)
    process.stderr.close()
    assert (process.returncode, err) == (141, "")
    assert file.read_text() == plain_answer(capsys, *asked)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["ask"], b"\xff\xfe bad"),
        (["ask", "-", "Why?"], b"\xff\xfe bad"),
        (["ask", b"a\xff"], b""),
        (["ask", "Why?", "--system", b"a\xff"], b""),
        (["route", b"a\xff"], b""),
        (["route", "--csv", "-"], b"question\xff\na\n"),
        (["route", "--csv", "-"], b"question\na\xff\n"),
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_bytes_that_are_not_text_are_rejected(words, given, locale):
    env = {**foreign({}), "LC_ALL": locale}
    command = [*SCRIPTED, "0", *words]
    done = subprocess.run(command, env=env, input=given, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"utf-8" in done.stderr or b"has no column" in done.stderr


def test_a_line_that_is_not_text_does_not_end_the_chat():
    command = [*SCRIPTED, "0", "chat", "--no-router"]
    done = subprocess.run(command, env=ENV, input=b"\xff\nWhy?\n", capture_output=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == b"sot: error: The line has bytes that are not text in utf-8.\n"
    assert done.stdout.startswith(b"1. Keep")


def test_a_locale_without_an_encoding_accepts_utf_8():
    env = foreign(NARROW[1])
    command = [*SCRIPTED, "0", "ask", "--json", "--no-router", "Fr\u00fch?".encode(), "-"]
    done = subprocess.run(command, env=env, input="\u65e9".encode(), capture_output=True, timeout=120, check=True)
    assert json.loads(done.stdout)["question"] == "Fr\u00fch?\n\n\u65e9"
