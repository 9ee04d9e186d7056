"""`sot batch`: answers in the order of the questions, and nothing asked twice however a run ended."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import scripted_cli
from completion_server import CompletionServer

from skeleton_of_thought.cli import main
from skeleton_of_thought.evaluation import parts
from skeleton_of_thought.evaluation.manifest import Manifest
from skeleton_of_thought.evaluation.rows import from_json

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "sk-not-a-key"}
WAIT = 120
PROGRAM = """
import signal, sys
from skeleton_of_thought.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells make background processes ignore
sys.exit(main())
"""


class Script(scripted_cli.Script):
    """A model that knows which questions it was asked, and fails where it is told to."""

    def __init__(self, *, failing: str = "never", error: Exception | None = None) -> None:
        super().__init__(fail=self._failure, skeleton="1. Keep a schedule\n2. Dim the lights\n", sentences=1)
        self.failing, self.error = failing, error or ConnectionError("line cut")

    def _failure(self, call: Any) -> Exception | None:
        return self.error if self.failing in str(call.prompt.messages) else None

    def asked(self, *, stages: tuple[str, ...] = ("skeleton", "direct")) -> Counter[str]:
        return Counter(str(call.prompt.messages) for call in self.calls if call.stage in stages)


def batch(file: Path | str, out: Path, *options: str, script: Script | None = None) -> tuple[int, Script]:
    script = script or Script()
    code = main(["batch", str(file), str(out), *options], backend=script.backend())
    assert script.closed
    assert script.open == 0
    return code, script


def write(path: Path, *questions: str) -> Path:
    path.write_text("".join(f"{question}\n" for question in questions))
    return path


def numbered(count: int, start: int = 1) -> list[str]:
    return [f"What are good habits for person {i}?" for i in range(start, start + count)]


def answers(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def kept(out: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((out / "parts").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


# --- answers ---------------------------------------------------------------------------------------------


def test_every_question_has_a_row_in_its_order_with_the_other_columns(tmp_path, capsys):
    file = tmp_path / "in.csv"
    file.write_text(
        "id,question,category,source,page\na,What is 17 * 4?,math,web,1\nb,How can I sleep better?,health,,2\n"
    )
    code, script = batch(file, tmp_path / "out")
    assert code == 0
    rows = [from_json(row) for row in answers(tmp_path / "out")]
    assert [(row.number, row.id, row.category, row.route) for row in rows] == [
        (1, "a", "math", "direct"), (2, "b", "health", "skeleton")
    ]  # fmt: skip
    assert [row.extra for row in rows] == [{"source": "web", "page": "1"}, {"source": "", "page": "2"}]
    assert [row.calls for row in rows] == [1, 3]
    assert [point.title for point in rows[1].points] == ["Keep a schedule", "Dim the lights"]
    assert {(row.way, row.model) for row in rows} == {("auto", "scripted")}
    assert sum(row.calls for row in rows) == len(script.calls)
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.kind, manifest.questions["count"], manifest.ways) == ("batch", 2, ("auto",))
    out, err = capsys.readouterr()
    assert out == ""
    assert "2 of 2 questions have an answer" in err


@pytest.mark.parametrize(
    ("options", "calls", "way"),
    [
        (["--router", "never"], 1, "normal"),
        (["--router", "always"], 3, "sot"),
        (["--router", "off"], 3, "sot"),
        (["--no-router"], 3, "sot"),
        (["--threshold", "1"], 1, "auto"),
        (["--no-router", "--merge"], 4, "sot"),
    ],
)
def test_the_router_says_which_questions_get_a_skeleton(tmp_path, options, calls, way):
    file = write(tmp_path / "in.txt", "How can I sleep better?")
    code, script = batch(file, tmp_path / "out", *options, "--quiet")
    assert (code, len(script.calls)) == (0, calls)
    assert [row["way"] for row in answers(tmp_path / "out")] == [way]


def test_a_default_of_the_configuration_file_switches_the_router_off(tmp_path, monkeypatch):
    config = tmp_path / "config.toml"
    config.write_text("router = false\n")
    monkeypatch.setenv("SOT_CONFIG", str(config))
    batch(write(tmp_path / "in.txt", "What is 17 * 4?"), tmp_path / "out", "-q")
    assert [row["way"] for row in answers(tmp_path / "out")] == ["sot"]


# --- resume ----------------------------------------------------------------------------------------------


def test_the_same_command_asks_nothing_twice(tmp_path):
    file, out = write(tmp_path / "in.txt", *numbered(8)), tmp_path / "out"
    batch(file, out, "-q")
    before = answers(out)
    code, script = batch(file, out, "-q")
    assert (code, script.calls) == (0, [])
    assert answers(out) == before
    assert len(Manifest.read(out).runs) == 2


def test_a_file_that_grew_moved_or_changed_asks_only_what_is_new(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", *numbered(4)), tmp_path / "out"
    batch(file, out, "-q", "--no-router")
    write(file, "A new question?", *reversed(numbered(4)), "Another one?")
    code, script = batch(file, out, "-q", "--no-router")
    assert (code, sum(script.asked(stages=("skeleton",)).values())) == (0, 2)
    rows = answers(out)
    assert [row["question"] for row in rows] == ["A new question?", *reversed(numbered(4)), "Another one?"]
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["id"] for row in rows] == list("123456")
    write(file, numbered(4)[0], numbered(4)[1] + " Be brief.")
    _, script = batch(file, out, "-q", "--no-router")
    assert len(script.asked(stages=("skeleton",))) == 1
    assert [row["question"] for row in answers(out)] == [numbered(4)[0], numbered(4)[1] + " Be brief."]
    assert len(kept(out)) == 7


def test_the_same_question_twice_is_answered_twice_and_once_each(tmp_path):
    file, out = write(tmp_path / "in.txt", "Why?", "How?", "Why?"), tmp_path / "out"
    _, script = batch(file, out, "-q", "--router", "never")
    assert len(script.calls) == 3
    assert [(row["question"], row["repeat"]) for row in answers(out)] == [("Why?", 1), ("How?", 1), ("Why?", 2)]
    _, script = batch(file, out, "-q", "--router", "never")
    assert script.calls == []


def test_a_finished_run_needs_no_model(tmp_path):
    file, out = write(tmp_path / "in.txt", "Why?"), tmp_path / "out"
    with CompletionServer() as server:
        model = f"openai:m@{server.address}"
        assert main(["batch", str(file), str(out), "-q", "-m", model, "--prefill", "no"]) == 0
    assert main(["batch", str(file), str(out), "-q", "-m", model, "--prefill", "no"]) == 0


# --- failures --------------------------------------------------------------------------------------------


def test_failed_questions_are_rows_and_only_retry_asks_them_again(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", *numbered(6)), tmp_path / "out"
    code, _ = batch(file, out, "--no-router", "--retries", "0", script=Script(failing="person 3"))
    assert code == 0
    assert [bool(row["error"]) for row in answers(out)] == [False, False, True, False, False, False]
    assert "line cut" in answers(out)[2]["error"]
    err = capsys.readouterr().err
    assert "1 of 6 questions failed" in err
    assert "--retry" in err
    code, script = batch(file, out, "--no-router", "--retries", "0", "-q")
    assert (code, script.calls) == (0, [])
    code, script = batch(file, out, "--no-router", "--retries", "0", "-q", "--retry")
    assert (code, len(script.calls)) == (0, 3)
    assert not any(row["error"] for row in answers(out))
    assert len(kept(out)) == 7


def test_a_point_that_fails_keeps_what_was_written(tmp_path):
    script = Script()
    script.fail = lambda call: ConnectionError("cut") if call.point and call.point.index == 2 else None
    code, _ = batch(write(tmp_path / "in.txt", "Why?", "How?"), tmp_path / "out", "-q", "--no-router", script=script)
    assert code == 1
    row = from_json(answers(tmp_path / "out")[0])
    assert "Dim the lights" in row.error
    assert row.points[0].text


def test_a_model_that_does_not_work_ends_the_run_and_loses_nothing(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", *numbered(20)), tmp_path / "out"
    batch(file, out, "-q", "--no-router", "--limit", "4")
    capsys.readouterr()
    dead = Script(failing="person")
    code, _ = batch(file, out, "-q", "--no-router", "--retries", "0", "--concurrency", "2", script=dead)
    assert code == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert "line cut" in err[0]
    assert "4 of 20" in err[0]
    assert "--retry" in err[0]
    assert len(dead.asked()) <= 8
    assert len(kept(out)) == 4 + 5
    code, script = batch(file, out, "-q", "--no-router", "--retry")
    assert (code, len(script.calls)) == (0, 16 * 3)
    assert [row["question"] for row in answers(out)] == numbered(20)


def test_a_run_without_any_answer_is_an_error(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", "Why?"), tmp_path / "out"
    for _ in range(2):
        code, _ = batch(file, out, "-q", "--no-router", "--retries", "0", script=Script(failing="Why"))
        assert code == 1
        assert "No question has an answer" in capsys.readouterr().err
    assert len(kept(out)) == 1


@pytest.mark.parametrize("concurrency", ["1", "8"])
@pytest.mark.parametrize("budget", ["10calls", "3", "1Mtokens,7calls", "400tokens"])
def test_a_budget_ends_the_run_before_it_is_passed(tmp_path, capsys, budget, concurrency):
    file, out = write(tmp_path / "in.txt", *numbered(6)), tmp_path / "out"
    options = ("-q", "--router", "always", "--concurrency", concurrency)
    code, script = batch(file, out, *options, "--budget", budget)
    made = kept(out)
    assert code == 0
    assert len(script.calls) == {"10calls": 9, "3": 3, "1Mtokens,7calls": 6}.get(budget, 3 * len(made))
    assert sum(row["input_tokens"] + row["output_tokens"] for row in made) <= 400 or "400" not in budget
    assert made
    err = capsys.readouterr().err
    assert "budget" in err
    assert f"{len(made)} of 6 questions" in err
    assert not (out / "answers.jsonl").exists()
    code, script = batch(file, out, *options)
    assert len(script.calls) == 3 * (6 - len(made))
    assert len(answers(out)) == 6


def test_a_full_disk_is_one_error_and_the_run_goes_on_later(tmp_path, capsys, monkeypatch):
    file, out = write(tmp_path / "in.txt", *numbered(6)), tmp_path / "out"
    append = parts._write

    def full(number: int, data: bytes) -> None:
        if b"person 3" in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(number, data)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "_write", full)
        code, _ = batch(file, out, "-q", "--no-router", "--concurrency", "1")
    assert code == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert "No space left" in err[0]
    assert [row["number"] for row in kept(out)] == [1, 2]
    code, script = batch(file, out, "-q", "--no-router")
    assert (code, len(script.calls)) == (0, 12)


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "options", "named"),
    [
        ("none.txt", None, [], "none.txt"),
        ("in.txt", "\n \n", [], "no questions"),
        ("in.csv", "text\nWhy?\n", [], "'question'"),
        ("in.csv", "question\nWhy?\n", ["--id-column", "nr"], "'nr'"),
        ("in.jsonl", '{"question": "Why?"}\n{"question": \n', [], "line 2"),
        ("in.jsonl", '{"question": "Why?"}\n{"question": " "}\n', [], "line 2"),
        ("in.txt", "Why?\n", ["--budget", "much"], "budget"),
        ("in.xml", "Why?\n", [], ".jsonl"),
    ],
)
def test_bad_input_is_one_error_before_any_call(tmp_path, capsys, name, text, options, named):
    if text is not None:
        (tmp_path / name).write_text(text)
    code, script = batch(tmp_path / name, tmp_path / "out", *options)
    assert (code, script.calls) == (2, [])
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert named in err[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_run_is_left_alone(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", "Why?"), tmp_path / "out"
    batch(file, out, "-q", "--temperature", "0.5", "--system", "Be brief.")
    before = content(out)
    for options, named in (
        (["--temperature", "0", "--system", "Be brief."], "temperature"),
        (["--temperature", "0.5"], "system"),
        (["--temperature", "0.5", "--system", "Be brief.", "--merge"], "merge"),
        (["--temperature", "0.5", "--system", "Be brief.", "--router", "never"], "router"),
    ):
        code, script = batch(file, out, "-q", *options)
        assert (code, script.calls) == (2, [])
        assert named in capsys.readouterr().err
    data = json.loads(before["manifest.json"])
    (out / "manifest.json").write_text(json.dumps({**data, "kind": "eval"}))
    assert batch(file, out, "-q", "--temperature", "0.5", "--system", "Be brief.")[0] == 2
    (out / "manifest.json").write_bytes(before["manifest.json"])
    assert content(out) == before
    assert b"Be brief." not in before["manifest.json"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert batch(file, other, "-q")[0] == 2
    assert os.listdir(other) == ["thesis.txt"]
    assert batch(file, file, "-q")[0] == 2


# --- processes -------------------------------------------------------------------------------------------


def start(server: CompletionServer, file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "batch", str(file), str(out), "--prefill", "no", *options]
    return subprocess.Popen([*command, "-m", f"openai:m@{server.address}"], env=ENV, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    try:
        _, err = process.communicate(timeout=WAIT)
    finally:
        process.kill()
    return process.returncode, err.splitlines()


@pytest.mark.parametrize("router", ["always", "never"])
def test_killed_at_half_and_run_again_it_makes_few_calls_more_than_one_pass(tmp_path, router):
    count, calls = (60, 240) if router == "always" else (100, 100)
    file, out = write(tmp_path / "in.txt", *numbered(count)), tmp_path / "out"
    options = ("--router", router, "--concurrency", "4", "-q")
    with CompletionServer() as server:
        process = start(server, file, out, *options)
        server.wait_for(lambda: server.answered >= calls // 2)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert not (out / "answers.jsonl").exists()
        done = len(kept(out)) if all(line.endswith("}") for line in parts_lines(out)) else None
        assert finish(start(server, file, out, *options)) == (0, [])
        assert len(server.asked) <= 1.05 * calls
        assert [row["question"] for row in answers(out)] == numbered(count)
        assert done is None or 0 < done < count
        assert len(kept(out)) == count


def test_killed_twice_it_still_makes_few_calls_more_than_one_pass(tmp_path):
    file, out = write(tmp_path / "in.txt", *numbered(160)), tmp_path / "out"
    options = ("--router", "never", "--concurrency", "2", "-q")
    with CompletionServer() as server:
        for least in (50, 110):
            process = start(server, file, out, *options)
            server.wait_for(lambda least=least: server.answered >= least)
            process.send_signal(signal.SIGKILL)
            finish(process)
        assert finish(start(server, file, out, *options)) == (0, [])
        assert len(server.asked) <= 1.05 * 160
    assert [row["question"] for row in answers(out)] == numbered(160)
    assert Counter(row["key"] for row in kept(out)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_server_that_refuses_everything_is_not_asked_every_question(tmp_path, status):
    file, out = write(tmp_path / "in.txt", *numbered(40)), tmp_path / "out"
    options = ("--router", "never", "--concurrency", "2", "-q", "--retries", "0")
    with CompletionServer() as server:
        server.status = status
        code, err = finish(start(server, file, out, *options))
        assert (code, len(err)) == (1, 1)
        assert "The last 5 answers failed with the same error" in err[0]
        # The SDK asks twice more after an error of the server.
        assert len({asked for asked, _ in server.asked}) <= 5 + 2
        failed = len(kept(out))
        server.status, before = 200, len(server.asked)
        assert finish(start(server, file, out, *options, "--retry")) == (0, [])
        assert len(server.asked) - before == 40
    assert failed == 5
    assert not any(row["error"] for row in answers(out))


def test_tokens_are_estimated_where_the_server_reports_none(tmp_path):
    file, out = write(tmp_path / "in.txt", "Why?"), tmp_path / "out"
    rows = []
    for usage in (True, False):
        with CompletionServer() as server:
            server.usage = usage
            finish(start(server, file, out / str(usage), "--router", "never", "-q"))
        rows.append(from_json(answers(out / str(usage))[0]))
    assert [row.tokens_estimated for row in rows] == [False, True]
    for row in rows:
        assert 0 < row.output_tokens == row.answer_tokens
        assert row.input_tokens > 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_error_before_any_call(tmp_path, capsys):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code, script = batch(write(tmp_path / "in.txt", "Why?"), closed / "out")
    assert (code, script.calls, len(capsys.readouterr().err.splitlines())) == (2, [], 1)


def test_a_folder_below_a_file_is_one_error_before_any_call(tmp_path, capsys):
    file = write(tmp_path / "in.txt", "Why?")
    code, script = batch(file, file / "out")
    assert (code, script.calls) == (2, [])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_torn_line_is_asked_again_and_one_in_the_middle_is_named(tmp_path, capsys):
    file, out = write(tmp_path / "in.txt", *numbered(4)), tmp_path / "out"
    options = ("--router", "never", "--concurrency", "1")
    batch(file, out, "-q", *options)
    part = out / "parts" / "00001.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    code, script = batch(file, out, *options)
    assert (code, len(script.calls)) == (0, 1)
    assert "incomplete" in capsys.readouterr().err
    assert [row["number"] for row in answers(out)] == [1, 2, 3, 4]
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join([lines[0], lines[1][:30] + b"\n", *lines[2:]]))
    before = content(out)
    code, script = batch(file, out, *options)
    assert (code, script.calls) == (2, [])
    assert "line 2" in capsys.readouterr().err
    assert content(out) == before


def parts_lines(out: Path) -> list[str]:
    return [line for path in (out / "parts").glob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_one_line_and_the_same_command_goes_on(tmp_path, sent, code):
    file, out = write(tmp_path / "in.txt", *numbered(12)), tmp_path / "out"
    options = ("--router", "never", "--concurrency", "3", "-q")
    with CompletionServer() as server:
        process = start(server, file, out, *options)
        server.wait_for(lambda: server.answered >= 4)
        server.gate.clear()
        server.wait_for(lambda: len(server.asked) == server.answered + 3)
        process.send_signal(sent)
        ended, err = finish(process)
        done = len(kept(out))
        assert ended == code
        assert err == [f"sot: stopped: {done} of 12 questions have an answer in {str(out)!r}; the same command goes on"]
        server.gate.set()
        before = len(server.asked)
        assert finish(start(server, file, out, *options)) == (0, [])
        assert len(server.asked) - before == 12 - done
        assert [row["question"] for row in answers(out)] == numbered(12)


def test_64_calls_are_open_at_once_and_a_second_process_is_refused(tmp_path):
    file, out = write(tmp_path / "in.txt", *numbered(100)), tmp_path / "out"
    options = ("--router", "always", "--concurrency", "64", "-q")
    with CompletionServer() as server:
        server.gate.clear()
        process = start(server, file, out, *options)
        server.wait_for(lambda: len(server.asked) == 64)
        code, err = finish(start(server, file, out, *options))
        assert (code, len(err)) == (2, 1)
        assert "nother process" in err[0]
        assert len(server.asked) == 64
        server.gate.set()
        assert finish(process) == (0, [])
        assert len(server.asked) == 400
        assert len(Manifest.read(out).runs) == 1
        assert len(answers(out)) == 100


def test_questions_come_from_standard_input_too(tmp_path):
    with CompletionServer() as server:
        command = [sys.executable, "-m", "skeleton_of_thought", "batch", "-", str(tmp_path / "out"), "-q"]
        command += ["-m", f"openai:m@{server.address}", "--prefill", "no", "--router", "never"]
        subprocess.run(command, env=ENV, input=b"Why?\n\nHow?\n", check=True, timeout=WAIT)
    assert [row["question"] for row in answers(tmp_path / "out")] == ["Why?", "How?"]
