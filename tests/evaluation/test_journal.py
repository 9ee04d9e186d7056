"""The journal and the manifest: what survives a kill, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.journal import Journal, key_of, key_settings, read_journal
from skeleton_of_thought.evaluation.manifest import Manifest, safe_arguments
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.settings import Settings

ODD = {"text": "line\u2028end \ud800 ü \x00", "n": 1}


def test_rows_are_there_after_the_file_is_opened_again(tmp_path):
    with Journal(tmp_path / "rows.jsonl") as journal:
        journal.append({"a": 1})
        journal.append(ODD)
        assert read_journal(journal.path) == [{"a": 1}, ODD]
    with pytest.raises(SotError, match="closed"):
        journal.append({})
    with Journal(tmp_path / "rows.jsonl") as journal:
        assert journal.rows == [{"a": 1}, ODD]
    assert read_journal(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", ['{"a": 2', '{"a": 2, "b": "\n', "\0\0\0", "3\n"])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    path, notices = tmp_path / "rows.jsonl", []
    path.write_text('{"a": 1}\n\n' + torn)
    assert read_journal(path) == [{"a": 1}]
    with Journal(path, notice=notices.append) as journal:
        assert journal.rows == [{"a": 1}]
        journal.append({"a": 3})
    assert path.read_text() == '{"a": 1}\n\n{"a": 3}\n'
    assert len(notices) == 1


def test_a_last_line_that_lacks_its_end_alone_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}')
    with Journal(path) as journal:
        journal.append({"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_another_line_that_cannot_be_read_is_named_and_nothing_is_touched(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text := '{"a": 1}\n{"a"\n{"a": 2}\n')
    with pytest.raises(InvalidInput, match="line 2 is no JSON"):
        Journal(path)
    assert path.read_text() == text
    with pytest.raises(InvalidInput, match="cannot be opened"):
        Journal(tmp_path)


def test_a_second_writer_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    with Journal(tmp_path / "rows.jsonl"), pytest.raises(InvalidInput, match="Another process"):
        Journal(tmp_path / "rows.jsonl")
    Journal(tmp_path / "rows.jsonl").close()


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path, monkeypatch):
    path, write = tmp_path / "rows.jsonl", os.write

    def full(number: int, data: bytes) -> int:
        if len(data) > 8:
            return write(number, data[:8])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(path) as journal:
        journal.append({"a": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(SotError, match=r"rows\.jsonl.*No space left on device"):
                journal.append({"a": 22})
        assert path.read_text() == '{"a": 1}\n'
        journal.append({"a": 3})
        assert journal.rows == read_journal(path) == [{"a": 1}, {"a": 3}]


def test_threads_may_share_a_journal(tmp_path):
    with Journal(tmp_path / "rows.jsonl") as journal:
        threads = [threading.Thread(target=lambda n=n: journal.append({"n": n})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(row["n"] for row in read_journal(journal.path)) == list(range(8))


def test_a_killed_process_leaves_whole_rows_and_no_lock(tmp_path):
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("no kill -9")
    code = (
        "import sys; from skeleton_of_thought.evaluation.journal import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "for n in range(10**6):\n    journal.append({'n': n, 'text': 'x' * 50000})\n    print(n, flush=True)"
    )
    path = tmp_path / "rows.jsonl"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.kill()
    with Journal(path) as journal:
        assert [row["n"] for row in journal.rows][:3] == [0, 1, 2]


def test_a_key_is_that_of_what_makes_an_answer():
    parts = {"way": "sot", "model": "m", "settings": key_settings(Settings(), temperature=0.0), "repeat": 1}
    key = key_of("Why?", **parts)
    assert len(key) == 20
    assert key == key_of("Why?", **parts | {"settings": key_settings(Settings(max_retries=9), temperature=0.0)})
    others = [
        key_of("How?", **parts),
        key_of("Why?", **parts, system="Be brief."),
        *(key_of("Why?", **parts | other) for other in ({"way": "auto"}, {"model": "n"}, {"repeat": 2})),
        *(
            key_of("Why?", **parts | {"settings": settings})
            for settings in (
                key_settings(Settings(max_points=3), temperature=0.0),
                key_settings(Settings(), temperature=0.5),
                key_settings(Settings(), temperature=0.0, seed=1),
                key_settings(Settings(), temperature=0.0, system="Be brief."),
                key_settings(Settings(), temperature=0.0, prompts=PromptSet(skeleton="Plan {question}")),
            )
        ),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_the_digest_of_prompts_is_the_same_in_every_process():
    code = (
        "from skeleton_of_thought.evaluation.journal import key_settings\n"
        "from skeleton_of_thought.settings import Settings\nprint(key_settings(Settings())['prompts_sha256'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == key_settings(Settings())["prompts_sha256"]


# --- the manifest ------------------------------------------------------------------------------------------


def manifest(**changes) -> Manifest:
    given = {"model": "m", "settings": {"temperature": 0, "join": "numbered"}, "ways": ["normal"]}
    return Manifest.of(changes.pop("kind", "eval"), **given | changes)


def test_a_run_goes_on_in_its_folder(tmp_path):
    folder = tmp_path / "new" / "run"
    first = manifest(arguments=["eval", "q.txt"]).joined(folder)
    assert not folder.exists()
    first.write(folder)
    second = manifest(ways=["sot", "normal"], judges=["j"], arguments=["eval", "--retry"]).joined(folder)
    second.write(folder)
    read = Manifest.read(folder)
    assert read == replace(second, runs=read.runs, settings=read.settings)
    assert (read.ways, read.judge, read.started) == (("normal", "sot"), ("j",), first.started)
    assert [run["arguments"] for run in read.runs] == [["eval", "q.txt"], ["eval", "--retry"]]
    assert json.loads((folder / "manifest.json").read_text())["version"] == 1
    assert os.listdir(folder) == ["manifest.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "batch"}, "sot eval"),
        ({"model": "n"}, "the model is 'm' there and 'n' here"),
        ({"settings": {"temperature": 0.7, "join": "numbered"}}, r"temperature is 0 there and 0\.7 here"),
        ({"settings": {"join": "numbered"}}, "temperature is 0 there and not set here"),
        ({"settings": {"temperature": 0, "join": "numbered", "system_sha256": "1"}}, "the system message differs"),
    ],
)
def test_another_run_is_refused_with_the_difference(tmp_path, changes, message):
    manifest().write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(InvalidInput, match=f"{message}.*[Nn]ame another folder"):
        manifest(**changes).joined(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "rows.jsonl").touch()  # of a run that was killed at once
    assert manifest().joined(tmp_path).runs
    (tmp_path / "thesis.doc").write_text("x")
    with pytest.raises(InvalidInput, match=r"'thesis\.doc'"):
        manifest().joined(tmp_path)
    with pytest.raises(InvalidInput, match="is a file"):
        manifest().joined(tmp_path / "thesis.doc")
    with pytest.raises(InvalidInput, match=r"has no manifest\.json"):
        Manifest.read(tmp_path)
    for broken in ("{", "[]", '{"kind": "eval", "version": 2}', '{"kind": "eval", "version": 1, "ways": 3}'):
        (tmp_path / "manifest.json").write_text(broken)
        with pytest.raises(InvalidInput):
            manifest().joined(tmp_path)


def test_a_manifest_has_no_secrets(tmp_path):
    address = "openai:m@https://me:hunter2@host/v1?api_key=hunter2"
    arguments = ["--model", address, "--system", "hunter2", "--api-key=hunter2", "--judge-token", "hunter2"]
    made = manifest(model=address, judges=[address], arguments=[*arguments, "--max-tokens", "7"])
    made.write(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    assert "hunter2" not in text
    assert safe_arguments(["--max-tokens", "7", "--system=s"])[:2] == ["--max-tokens", "7"]


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    manifest().write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SotError, match="No space left"):
        manifest(ways=["sot"]).write(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["manifest.json"]
