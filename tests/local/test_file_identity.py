"""A large file is known by all of its bytes, which are read once for each of its states."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skeleton_of_thought.local import file_identity
from skeleton_of_thought.local.file_identity import FileChanged, identify

Read = Callable[[Any, str], Any]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "files"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old at once, as if every change had a time of its own."""
    monkeypatch.setattr(file_identity, "_GRANULARITY", -60.0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, one item for each time."""
    log: list[str] = []
    plain = hashlib.file_digest

    def digest(opened: Any, name: str) -> Any:
        log.append(Path(opened.name).name)
        return plain(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return log


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once_for_each_state(file: Path, records: Path, reads: list[str]) -> None:
    assert [identify(file, records).digest for _ in range(3)] == [sha(b"weights")] * 3
    assert len(reads) == 1
    file.write_bytes(b"weightz")
    assert [identify(file, records).digest for _ in range(3)] == [sha(b"weightz")] * 3
    assert len(reads) == 2


def test_the_middle_counts(tmp_path: Path, records: Path) -> None:
    end, found = bytes(1 << 20), []
    for middle in (b"a", b"b"):
        (tmp_path / "m.gguf").write_bytes(end + middle + end)
        found.append(identify(tmp_path / "m.gguf", records).digest)
    assert found == [sha(end + b"a" + end), sha(end + b"b" + end)]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_a_kept_time_of_change_hides_nothing(file: Path, records: Path, way: str) -> None:
    identify(file, records)
    before = file.stat()
    written = file if way == "in place" else file.with_suffix(".new")
    written.write_bytes(b"weightz")
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(written, file)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert identify(file, records).digest == sha(b"weightz")


def test_a_file_that_has_just_changed_is_not_recorded(file: Path, records: Path, reads: list[str]) -> None:
    # Its next change might get the same time.
    identity = identify(file, records)
    identify(file, records)
    assert not identity.settled
    assert len(reads) == 2
    assert not records.exists()


@pytest.mark.usefixtures("settled")
def test_links_lead_to_the_same_content(file: Path, records: Path, tmp_path: Path) -> None:
    hard, soft, other = tmp_path / "hard.gguf", tmp_path / "soft.gguf", tmp_path / "other.gguf"
    os.link(file, hard)
    soft.symlink_to(file)
    other.write_bytes(b"weightz")
    assert {identify(path, records).digest for path in (file, hard, soft)} == {sha(b"weights")}
    soft.unlink()
    soft.symlink_to(other)
    assert identify(soft, records).digest == sha(b"weightz")


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_read_again(
    file: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, changes = hashlib.file_digest, [b"1"]

    def digest(opened: Any, name: str) -> Any:
        found = plain(opened, name)
        if changes:
            file.write_bytes(b"weights" + changes.pop())
        return found

    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert identify(file, records).digest == sha(b"weights1")
    file.write_bytes(b"again")
    changes += [b"4", b"33", b"222", b"1111"]
    with pytest.raises(FileChanged, match=r"m\.gguf changes while it is read"):
        identify(file, records)


@pytest.mark.usefixtures("settled")
def test_a_later_change_is_noticed(file: Path, records: Path, reads: list[str]) -> None:
    identity = identify(file, records)
    identity.check()
    assert len(reads) == 1
    os.utime(file)
    identity.check()  # another state with the same bytes
    assert len(reads) == 2
    file.write_bytes(b"weightz")
    with pytest.raises(FileChanged, match="changed while it was read"):
        identity.check()
    file.unlink()
    with pytest.raises(FileChanged, match="cannot be read any more"):
        identity.check()


def test_a_file_that_has_just_changed_is_compared_by_its_bytes(file: Path, records: Path) -> None:
    identity, before = identify(file, records), file.stat()
    file.write_bytes(b"weightz")
    # As if the clock of the file system had not moved.
    object.__setattr__(identity, "state", file_identity._State.of(file.stat()))
    assert before.st_size == file.stat().st_size
    with pytest.raises(FileChanged):
        identity.check()


def false_record(file: Path, records: Path) -> Path:
    """A record that gives the file another hash."""
    identify(file, records)
    (record,) = records.iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), "sha256": "0" * 64}))
    return record


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("place", ["record", "directory", "directory above"])
def test_a_record_that_others_can_write_is_not_believed(file: Path, records: Path, place: str) -> None:
    record = false_record(file, records)
    assert identify(file, records).digest == "0" * 64
    path = {"record": record, "directory": records, "directory above": records.parent}[place]
    path.chmod(path.stat().st_mode | 0o022)
    assert identify(file, records).digest == sha(b"weights")


@pytest.mark.usefixtures("settled")
def test_a_record_of_another_user_is_not_believed(file: Path, records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false_record(file, records)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert identify(file, records).digest == sha(b"weights")


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"state": 1}', "null", "STATE", "[" * 20_000])
def test_a_broken_record_is_written_again(file: Path, records: Path, content: str) -> None:
    record = false_record(file, records)
    if content == "STATE":
        content = json.dumps({**json.loads(record.read_text()), "sha256": 5})
    record.write_text(content)
    assert identify(file, records).digest == sha(b"weights")
    assert json.loads(record.read_text())["sha256"] == sha(b"weights")


@pytest.mark.usefixtures("settled")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in directories here")
def test_a_pipe_in_place_of_a_record_is_not_waited_for(file: Path, records: Path) -> None:
    record = false_record(file, records)
    record.unlink()
    os.mkfifo(record, 0o600)
    assert identify(file, records).digest == sha(b"weights")
    assert json.loads(record.read_text())["sha256"] == sha(b"weights")


@pytest.mark.usefixtures("settled")
def test_without_a_place_for_records_the_file_is_read_each_time(
    file: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no directory")
    assert [identify(file, tmp_path / "cache" / "files").digest for _ in range(2)] == [sha(b"weights")] * 2

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_identity.tempfile, "mkstemp", full)
    assert identify(file, tmp_path / "other" / "files").digest == sha(b"weights")
    assert len(reads) == 3


@pytest.mark.usefixtures("settled")
def test_records_do_not_pile_up(file: Path, records: Path, tmp_path: Path) -> None:
    identify(file, records)
    (used,) = records.iterdir()
    unused, half = records / "0.json", records / ".new-x"
    for path in (used, unused, half):
        path.touch()
        os.utime(path, (time.time() - 91 * 24 * 3600.0,) * 2)
    identify(file, records)
    other = tmp_path / "n.gguf"
    other.write_bytes(b"other")
    identify(other, records)
    assert used.exists()
    assert not unused.exists()
    assert not half.exists()
    assert len(list(records.iterdir())) == 2
