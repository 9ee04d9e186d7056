"""SIGTERM and SIGHUP restore the terminal, and streams that end or are full are one line, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import scripted_cli
from pty_process import PtyProcess
from terminals import Terminal

from skeleton_of_thought import cli

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
SCRIPTED = [sys.executable, scripted_cli.__file__]
SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"
TERM, HUP = signal.SIGTERM, signal.SIGHUP

LOADING = """
import sys, threading
from skeleton_of_thought import cli
from skeleton_of_thought._cli.interrupts import exit_at_once
from skeleton_of_thought._cli.models import _progress

def load(*_, **__):
    with _progress(False) as report:
        report("Loading")
        threading.Event().wait()

def load_at_once(*_, **__):
    with exit_at_once():
        load()

cli.load_backend = load_at_once if sys.argv[1:] else load
sys.exit(cli.main(["ask", "Why?"]))
"""


def modes(process):
    """Whether the terminal shows what is typed, and takes it line by line."""
    flags = termios.tcgetattr(process._ours)[3]
    return bool(flags & termios.ECHO), bool(flags & termios.ICANON)


@pytest.mark.parametrize("sent", [(TERM,), (HUP,), (HUP, TERM), (TERM, TERM, TERM)], ids=str)
def test_a_signal_restores_the_screen(sent):
    with PtyProcess([*SCRIPTED, "held", "ask", "--no-router", "Why?"], ENV) as process:
        process.until("\x1b[?1049h")
        process.until("because")
        for number in sent:
            os.kill(process.process.pid, number)
        rest = process.rest()
        assert "\x1b[?1049l" in rest
        assert process.shown.rfind(SHOWN) > process.shown.rfind(HIDDEN)
        assert "Traceback" not in process.shown
        # A later signal may come when the command has ended and has given its handlers back.
        assert process.code() in {128 + number for number in sent} | {-number for number in sent[1:]}


@pytest.mark.parametrize("sent", [TERM, HUP])
def test_a_signal_ends_a_chat_at_its_prompt_and_restores_the_modes(sent):
    with PtyProcess([*SCRIPTED, "held", "chat", "--no-router"], ENV) as process:
        before = modes(process)
        process.until("> ")
        os.kill(process.process.pid, sent)
        assert process.code() == 128 + sent
        assert modes(process) == before == (True, True)
        assert "Traceback" not in process.rest()


@pytest.mark.parametrize(("sent", "at_once"), [(HUP, ["at once"]), (TERM, ["at once"]), (HUP, [])])
def test_a_signal_while_a_model_loads_shows_the_cursor(sent, at_once):
    with PtyProcess([sys.executable, "-c", LOADING, *at_once], ENV) as process:
        process.until("Loading")
        os.kill(process.process.pid, sent)
        process.rest()
        assert process.code() == 128 + sent
        assert process.shown.rfind(SHOWN) > process.shown.rfind(HIDDEN) >= 0
        assert "Traceback" not in process.shown


def test_a_command_may_say_how_to_go_on_if_it_is_stopped_while_a_model_loads():
    script = """
import threading
from skeleton_of_thought._cli.interrupts import exit_at_once, last_words
with last_words("Stopped: the same command goes on."), exit_at_once():
    print("Loading", flush=True)
    threading.Event().wait()
"""
    with PtyProcess([sys.executable, "-c", script], ENV) as process:
        process.until("Loading")
        os.kill(process.process.pid, signal.SIGINT)
        assert "Stopped: the same command goes on." in process.rest()
        assert process.code() == 130


@pytest.mark.parametrize("words", [["ask"], ["ask", "--plain"], ["chat"]], ids=" ".join)
def test_a_terminal_that_is_gone_ends_the_command(words):
    process = PtyProcess([*SCRIPTED, "held", *words, "--no-router", *(["Why?"] if words[0] == "ask" else [])], ENV)
    try:
        process.until("> " if words[0] == "chat" else "because")
        os.close(process._ours)
        assert process.code() == 129
    finally:
        process.process.kill()
        process.process.wait()


def test_a_process_that_ignores_sighup_keeps_ignoring_it(monkeypatch):
    before = signal.signal(HUP, signal.SIG_IGN)
    handlers = []

    class Hanging(scripted_cli.Script):
        def text(self, call):
            handlers.append((signal.getsignal(HUP), signal.getsignal(TERM)))
            return super().text(call)

    try:
        assert cli.main(["ask", "--plain", "q"], backend=Hanging().backend()) == 0
        assert handlers[0][0] == signal.SIG_IGN
        assert callable(handlers[0][1])
        assert signal.getsignal(HUP) == signal.SIG_IGN
    finally:
        signal.signal(HUP, before)
    assert signal.getsignal(TERM) == signal.SIG_DFL


ELSEWHERE = """
import queue, signal, sys, threading, time
from skeleton_of_thought._cli.interrupts import main_thread_woken

def fail(*_):
    sys.exit(7)

def signal_itself():
    time.sleep(0.3)  # until the main thread waits for the queue
    signal.pthread_kill(threading.get_ident(), int(sys.argv[1]))
    threading.Event().wait()

signal.signal(int(sys.argv[1]), fail)
with main_thread_woken():
    threading.Thread(target=signal_itself, daemon=True).start()
    queue.SimpleQueue().get()
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, TERM, HUP])
def test_the_main_thread_wakes_for_a_signal_that_another_thread_got(sent):
    """Without help it would wait for the queue for ever."""
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(int(sent))], env=ENV, timeout=60, check=False)
    assert done.returncode == 7


# --- streams ---


def shell(redirected, *words, **kwargs):
    """Runs the command with a shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *SCRIPTED, "0", *words]
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=False, timeout=120, **kwargs)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirected", "words", "code", "out"),
    [
        ("2>/dev/full", ["ask", "--no-router", "--stats", "Why?"], 0, "1. Keep"),
        ("2>/dev/full", ["ask", "--nonsense"], 2, ""),
        (">/dev/full 2>/dev/full", ["ask", "--no-router", "Why?"], 1, ""),
        (">/dev/full 2>&-", ["ask", "--no-router", "Why?"], 1, ""),
    ],
)
def test_standard_errors_that_are_full_do_not_lose_the_answer(redirected, words, code, out):
    done = shell(redirected, *words)
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert bool(done.stdout) == bool(out)
    assert done.stderr == ""


class Full(io.StringIO):
    """A stream on a full disk, which notices that in `write` or in `flush`, as Python buffers it or not."""

    def __init__(self, buffered):
        super().__init__()
        self.buffered = buffered

    def write(self, text):
        if not self.buffered:
            raise OSError(28, "No space left on device")
        return len(text)

    def flush(self):
        if self.buffered:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["ask", "--help"],
        ["route", "What is 17 * 4?"],
        ["route", "--csv", "questions.csv"],
        ["config"],
        ["ask", "--json", "q"],
        ["ask", "--json", "--stream", "q"],
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_whatever_is_written(words, buffered, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.csv").write_text("question\nWhy?\n")
    monkeypatch.setattr(sys, "stdout", Full(buffered))
    assert cli.main(words, backend=scripted_cli.Script().backend()) == 1
    assert capsys.readouterr().err == "sot: error: the output could not be written: No space left on device\n"


@pytest.mark.parametrize("stream", ["stdin that is a directory", "stdin that fails", "endless stdin"])
@pytest.mark.parametrize("command", ["ask", "route"])
def test_standard_input_that_cannot_be_read_is_one_line(monkeypatch, capsys, stream, command, tmp_path):
    class Failing(io.StringIO):
        def read(self, size=-1):
            if stream == "endless stdin":
                assert size > 0
                return "x" * size
            raise IsADirectoryError(21, "Is a directory") if "directory" in stream else OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stdin", Failing())
    script = scripted_cli.Script()
    assert cli.main([command], backend=script.backend()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), script.calls) == ("", 1, [])
    assert err.startswith("sot: error: Standard input")


def test_an_unexpected_error_is_one_line_and_a_traceback_on_demand(monkeypatch, capsys):
    def break_down(*_):
        raise ZeroDivisionError("out\nof the blue \x1b[2J")

    monkeypatch.setitem(cli._COMMANDS, "config", break_down)
    assert cli.main(["config"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("sot: error: ZeroDivisionError: out of the blue �[2J (SOT_TRACEBACK=1 ")
    assert err.count("\n") == 1
    monkeypatch.setenv("SOT_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["config"])


# --- encodings ---

FOREIGN = "ä 早 \U0001f44d \ud800 –"
VIEWS = [
    ["ask", "--no-router"],
    ["ask", "--no-router", "--plain", "--stats"],
    ["ask", "--no-router", "--json"],
    ["ask", "--no-router", "--json", "--stream"],
    ["ask", "What is 17 * 4?"],
    ["compare"],
    ["chat", "--no-router"],
]


class Foreign(scripted_cli.Script):
    def text(self, call):
        return f"1. {FOREIGN}\n2. Two\n" if call.stage == "skeleton" else f"Text {FOREIGN}"


@pytest.mark.parametrize(
    "encoding", ["latin-1", "ascii", "cp1252", "utf-16", "latin-1:surrogatepass", "ascii:xmlcharrefreplace"]
)
@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_characters_that_an_encoding_lacks_are_replaced_in_every_view(monkeypatch, encoding, words, terminal):
    name, _, errors = encoding.partition(":")
    made = {}
    for stream in ("stdout", "stderr"):
        made[stream] = io.TextIOWrapper(io.BytesIO(), name, errors or "strict")
        made[stream].isatty = lambda: terminal
        monkeypatch.setattr(sys, stream, made[stream])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Why {FOREIGN[:3]}?\n"))
    monkeypatch.setenv("TERM", "xterm")
    question = [] if words[0] == "chat" or (len(words) > 1 and words[1][0] != "-") else [f"Why {FOREIGN[:3]}?"]
    assert cli.main([*words, *question], backend=Foreign().backend()) == 0
    for stream in made.values():
        stream.flush()
    out, err = (made[stream].buffer.getvalue().decode(name) for stream in ("stdout", "stderr"))
    assert "Text " in out
    assert "Traceback" not in out + err
    assert "早" not in out or name == "utf-16"


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_questions_are_utf_8_whatever_python_thinks(monkeypatch, capsys, encoding):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Früh 早?".encode()), encoding))
    script = scripted_cli.Script()
    assert cli.main(["ask", "--no-router", "--plain"], backend=script.backend()) == 0
    assert "Früh 早?" in script.calls[0].prompt.messages[-1].text


def test_surrogates_of_the_command_line_are_one_line(capsys):
    for words in (
        ["ask", "\udcff"],
        ["ask", "--system", "\udcff", "q"],
        ["ask", "-m", "openai:\udcff", "--nonsense", "q"],
    ):
        assert cli.main(words, backend=scripted_cli.Script().backend()) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_text_with_half_a_surrogate_pair_reaches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    file = tmp_path / "answer.txt"
    with contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["ask", "--no-router", "q", "-o", str(file)], backend=Foreign().backend()) == 0
    assert "Text ä 早 \U0001f44d � –" in file.read_text(encoding="utf-8")
