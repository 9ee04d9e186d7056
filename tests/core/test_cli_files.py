"""The input of the `sot` command from standard input, and its output file."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import scripted_cli
from terminals import Terminal

from skeleton_of_thought import cli
from skeleton_of_thought._cli import run_settings

Script = scripted_cli.Script


def ask(*argv, script=None):
    return cli.main(["ask", "--no-router", *argv], backend=(script or Script()).backend())


class Piped(io.StringIO):
    """Standard input that is no terminal, and counts its reads."""

    reads = 0

    def read(self, *args):
        self.reads += 1
        return super().read(*args)


# --- standard input ---


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ([], "Why is the sky blue?"),
        (["-"], "Why is the sky blue?"),
        (["Translate", "this:", "-"], "Translate this:\n\nWhy is the sky blue?"),
        (["-", "In French."], "Why is the sky blue?\n\nIn French."),
    ],
)
def test_standard_input_is_the_question_or_a_part_of_it(monkeypatch, capsys, words, question):
    monkeypatch.setattr(sys, "stdin", Piped("Why is the sky blue?\n"))
    assert ask("--json", *words) == 0
    assert json.loads(capsys.readouterr().out)["question"] == question


def test_with_a_question_standard_input_is_not_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", piped := Piped("not this"))
    assert ask("--json", "why", "so", "slow") == 0
    assert json.loads(capsys.readouterr().out)["question"] == "why so slow"
    assert piped.reads == 0


def test_unread_text_on_standard_input_is_reported(capsys, monkeypatch, tmp_path):
    ours, theirs = os.pipe()
    with os.fdopen(ours, encoding="utf-8") as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        assert ask("q", "--json") == 0
        assert capsys.readouterr().err == ""
        os.write(theirs, b"notes")
        os.close(theirs)
        assert ask("q", "--json") == 0
        assert "put a - where its text belongs" in capsys.readouterr().err
        assert piped.read() == "notes"
    file = tmp_path / "notes.txt"
    file.write_text("a\nb\n")
    with file.open() as notes:
        monkeypatch.setattr(sys, "stdin", notes)
        assert ask("q", "--json") == 0
        assert "put a -" in capsys.readouterr().err
        os.lseek(notes.fileno(), 2, os.SEEK_SET)  # like a loop over its lines
        assert ask("q", "--json") == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("stdin", "words", "message"),
    [
        (Terminal(""), [], 'sot ask "QUESTION"'),
        (None, [], "There is no question"),
        (Piped(" \n"), [], "question is empty"),
        (Piped("x"), ["-", "-"], "only once"),
        (io.TextIOWrapper(io.BytesIO(b"\xff\xfe\xff"), encoding="utf-8"), [], "not text in utf-8"),
    ],
)
def test_without_a_question_no_model_is_called(monkeypatch, capsys, stdin, words, message):
    monkeypatch.setattr(sys, "stdin", stdin)
    script = Script()
    assert ask(*words, script=script) == 2
    assert message in capsys.readouterr().err
    assert script.calls == []


def test_route_reads_standard_input(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Piped("What is 17 * 4?\n"))
    assert cli.main(["route"]) == 0
    assert capsys.readouterr().out.startswith("direct")


# --- the file of the answer ---


def test_the_answer_is_in_the_file_and_on_the_screen(tmp_path, capsys):
    file = tmp_path / "answer.txt"
    assert ask("q", "-o", str(file)) == 0
    out = capsys.readouterr().out
    assert file.read_text() == out
    assert out.startswith("1. Keep a schedule")
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_with_a_json_file_the_screen_shows_text(tmp_path, capsys):
    file = tmp_path / "answer.json"
    assert ask("q", "--json", "--output", str(file), "--compare") == 0
    answer = json.loads(file.read_text())
    assert answer["skeleton"] == list(scripted_cli.TITLES)
    assert answer["compare"]["speedup"]
    assert capsys.readouterr().out == answer["text"] + "\n"


def test_events_are_streamed_besides_a_json_file(tmp_path, capsys):
    file = tmp_path / "answer.json"
    assert ask("q", "--json", "--stream", "-o", str(file)) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["event"] == "AnswerDone"
    assert json.loads(file.read_text())["text"] == last["answer"]["text"]


def test_the_live_view_is_shown_besides_a_json_file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert ask("q", "--json", "-o", str(tmp_path / "a.json")) == 0
    assert "\x1b[?1049h" in terminal.getvalue()
    assert json.loads((tmp_path / "a.json").read_text())["route"] == "skeleton"


def test_a_failed_answer_leaves_the_file_as_it_was(tmp_path, capsys):
    file = tmp_path / "answer.txt"
    file.write_text("before")
    fail = lambda call: ConnectionError("cut") if call.point is not None and call.point.index == 2 else None  # noqa: E731
    assert ask("q", "--retries", "0", "-o", str(file), script=Script(fail=fail)) == 1
    assert file.read_text() == "before"
    assert "was not written" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_an_interrupted_answer_leaves_the_file_as_it_was(tmp_path, capsys):
    file = tmp_path / "answer.txt"
    file.write_text("before")

    def interrupt(call):
        raise KeyboardInterrupt

    script = Script(skeleton="no list", fail=lambda call: interrupt(call) if call.stage == "direct" else None)
    assert ask("q", "-o", str(file), script=script) == 130
    assert file.read_text() == "before"
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_a_file_keeps_its_permissions_and_its_link(tmp_path, capsys):
    file, link = tmp_path / "answer.txt", tmp_path / "link"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    assert ask("q", "-o", str(link)) == 0
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text().startswith("1. ")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()))
    thread.start()
    assert ask("q", "-o", str(pipe)) == 0
    thread.join(30)
    assert read == [capsys.readouterr().out]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def protect(path, monkeypatch):
    """Makes a file that cannot be written, even by root."""
    path.write_text("before")
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda name, mode: os.stat(name).st_mode & stat.S_IWUSR != 0)


@pytest.mark.parametrize("name", ["/dev/stderr", "/proc/self/fd/2", "link"])
def test_a_redirected_stream_is_written_to_and_not_replaced(tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/stderr")
    command = [sys.executable, scripted_cli.__file__, "0", "ask", "--no-router", "q", "-o", name]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    kept = tmp_path / "kept"
    with kept.open("w") as file:
        file.write("first\n")
        file.flush()
        done = subprocess.run(
            command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=file, timeout=120, check=True
        )
        file.write("last\n")
    assert kept.read_text() == f"first\n{done.stdout.decode()}last\n"
    piped = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=120, check=True)
    assert piped.stderr == piped.stdout


def test_a_file_in_a_directory_that_takes_no_new_files_is_written_in_place(tmp_path, monkeypatch, capsys):
    file = tmp_path / "answer.txt"
    file.write_text("before")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert ask("q", "-o", str(file)) == 0
    assert file.read_text() == capsys.readouterr().out
    assert os.listdir(tmp_path) == ["answer.txt"]


def test_a_file_with_the_longest_name_is_written(tmp_path, capsys):
    file = tmp_path / ("x" * 255)
    assert ask("q", "-o", str(file)) == 0
    assert file.read_text() == capsys.readouterr().out


@pytest.mark.parametrize("name", ["/dev/full", "no/such", "protected", "~nouserofthisname/x"])
def test_a_chat_that_cannot_save_names_the_file_as_the_user_did(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    protect(tmp_path / "protected", monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Why?\n/save {name}\n"))
    assert cli.main(["chat", "--no-router"], backend=Script().backend()) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"sot: error: {name}")
    assert "Errno" not in err
    assert ".new" not in err
    assert os.listdir(tmp_path) == ["protected"]
    assert (tmp_path / "protected").read_text() == "before"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/answer.txt", "there is no directory"),
        (".", "is a directory"),
        ("-", "leave it out"),
        ("", "name a file"),
        ("newfile/", "there is no directory"),
        ("~nouserofthisname/x", "no such home directory"),
        ("x" * 256, "too long"),
        ("loop", "symbolic links"),
        ("loop/answer.txt", "loop"),
        ("protected", "write-protected"),
        ("/dev/stdout", "leave it out"),
        ("/dev/fd/1", "leave it out"),
        ("out", "leave it out"),
        ("/dev/fd/987", "nothing can be written there"),
    ],
)
def test_an_impossible_path_is_reported_before_the_model_loads(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_settings, "load_backend", lambda *_, **__: pytest.fail("a model was loaded"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "out").symlink_to("/dev/stdout")
    protect(tmp_path / "protected", monkeypatch)
    assert cli.main(["ask", "q", "-o", name]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# --- errors ---


def test_errors_name_options_instead_of_settings(capsys):
    fail = lambda call: ValueError("lower max_new_tokens, point_words=3 or max_points")  # noqa: E731
    assert ask("q", "--retries", "0", script=Script(fail=fail)) == 1
    assert capsys.readouterr().err == "sot: error: lower --max-tokens, --words 3 or --max-points\n"
