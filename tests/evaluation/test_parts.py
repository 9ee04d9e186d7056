"""The folder of `sot batch`: rows are never lost, never half, and their order is that of the questions."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.parts import Parts
from skeleton_of_thought.evaluation.rows import Row


def row(number: int, *, error: str = "", text: str = "An answer.") -> Row:
    return Row(f"key{number}", number, str(number), f"Question {number}?", "auto", "m", error=error, text=text)


def filled(folder: Path, count: int, *, rows: int = 1000) -> None:
    with Parts(folder, rows=rows) as parts:
        for number in range(1, count + 1):
            parts.append(row(number))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "parts").glob("*.jsonl"))


def answers(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_parts_are_filled_one_after_the_other_over_several_runs(tmp_path):
    filled(tmp_path, 5, rows=2)
    assert names(tmp_path) == ["00001.jsonl", "00002.jsonl", "00003.jsonl"]
    with Parts(tmp_path, rows=2) as parts:
        assert (len(parts), parts.failed) == (5, 0)
        parts.append(row(6))
        parts.append(row(7))
        assert parts.read("key7")["question"] == "Question 7?"
        assert parts.read("key1")["question"] == "Question 1?"
    lines = [(tmp_path / "parts" / name).read_text().count("\n") for name in names(tmp_path)]
    assert lines == [2, 2, 2, 1]


def test_the_newest_row_of_a_key_counts(tmp_path):
    with Parts(tmp_path) as parts:
        assert parts.state("key1") is None
        parts.append(row(1, error="failed"))
        assert parts.state("key1") is False
        parts.append(row(2))
        assert parts.failed == 1
        parts.append(row(1, text="Now."))
        assert (parts.state("key1"), parts.failed, len(parts)) == (True, 0, 2)
    with Parts(tmp_path) as parts:
        assert (parts.state("key1"), parts.failed, parts.read("key1")["text"]) == (True, 0, "Now.")


def test_answers_are_in_the_order_of_the_questions_with_the_fields_of_the_file(tmp_path):
    with Parts(tmp_path, rows=2) as parts:
        for number in (4, 1, 3, 2, 9):
            parts.append(row(number, text="Ein süßer Text \U0001f600" if number == 3 else "Text"))
        order = [("key3", {"number": 1, "extra": {"who": "me"}}), ("key1", {"number": 2}), ("key8", {"number": 3})]
        assert parts.write_answers(iter(order)) == tmp_path / "answers.jsonl"
    assert [(each["key"], each["number"]) for each in answers(tmp_path)] == [("key3", 1), ("key1", 2)]
    assert answers(tmp_path)[0]["text"] == "Ein süßer Text \U0001f600"
    assert answers(tmp_path)[0]["extra"] == {"who": "me"}
    assert sorted(os.listdir(tmp_path)) == ["answers.jsonl", "parts"]


@pytest.mark.parametrize("torn", [b'{"key": "key6", "te', b'{"key": "key6"}', b"\x00\x00\x00\n", b"\xff"])
def test_a_last_line_that_a_kill_has_cut_is_taken_off(tmp_path, torn):
    filled(tmp_path, 5, rows=3)
    last = tmp_path / "parts" / "00002.jsonl"
    whole = last.read_bytes()
    last.write_bytes(whole + torn)
    with Parts(tmp_path, rows=3) as parts:
        assert "00002.jsonl" in parts.notice
        assert len(parts) == 5
        assert last.read_bytes() == whole
        parts.append(row(6))
    with Parts(tmp_path, rows=3) as parts:
        assert (len(parts), parts.notice) == (6, "")


@pytest.mark.parametrize("part", [1, 2])
def test_an_unreadable_line_elsewhere_is_named_and_nothing_is_changed(tmp_path, part):
    filled(tmp_path, 6, rows=3)
    path = tmp_path / "parts" / f"0000{part}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b'{"key": 1}\n'
    path.write_bytes(b"".join(lines))
    with pytest.raises(InvalidInput, match=rf"0000{part}\.jsonl.*line 2"):
        Parts(tmp_path, rows=3)
    assert path.read_bytes() == b"".join(lines)


def test_a_second_process_does_not_get_the_folder(tmp_path):
    with Parts(tmp_path), pytest.raises(InvalidInput, match="nother process"):
        Parts(tmp_path)
    with Parts(tmp_path):
        pass


def test_on_a_full_disk_a_row_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    write, room = os.write, [10]

    def full(file: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    filled(tmp_path, 1)
    with Parts(tmp_path) as parts:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(SotError, match=r"00001\.jsonl.*No space left"):
                parts.append(row(2))
        assert parts.state("key2") is None
        parts.append(row(3))
    with Parts(tmp_path) as parts:
        assert (parts.notice, len(parts), parts.state("key3")) == ("", 2, True)


def test_answers_that_cannot_be_written_leave_the_file_that_was_there(tmp_path, monkeypatch):
    filled(tmp_path, 2)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Parts(tmp_path) as parts:
        parts.write_answers([("key1", {})])
        before = (tmp_path / "answers.jsonl").read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SotError, match="No space left"):
            parts.write_answers([("key1", {}), ("key2", {})])
    assert (tmp_path / "answers.jsonl").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["answers.jsonl", "parts"]


def test_an_error_of_the_disk_is_raised_by_the_next_row_or_at_the_end(tmp_path, monkeypatch):
    failed = threading.Event()

    def broken(file: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("skeleton_of_thought.evaluation.parts._sync_folder", lambda folder: None)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(SotError, match=r"00001\.jsonl.*Input/output error"):
        filled(tmp_path, 1)
    assert failed.is_set()
    with Parts(tmp_path) as parts:
        assert len(parts) == 1


def test_half_a_character_in_a_column_is_kept(tmp_path):
    with Parts(tmp_path) as parts:
        parts.append(row(1, text="\ud83d"))
        assert parts.read("key1")["text"] == "\ud83d"
