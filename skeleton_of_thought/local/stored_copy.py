"""Directories of model files that know what they must hold, and the cleaning of the directory that they lie in.

A copy has a record of the file that it was made from and of its own files: sizes, times and hashes. A file that is
missing, extra or different is evidence of damage; an error of whoever reads the copy is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from skeleton_of_thought.local.file_identity import digest_of, distrust

__all__ = ["Problem", "check_copy", "store", "sweep"]

_RECORD = "copy.json"
_LOCK = ".lock"
_NOT_OURS = {"Thumbs.db", "desktop.ini"}
"""Files that file managers leave in any directory, beside hidden ones."""

_UNSAFE = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".py"}
"""Files that a copy must not hold: reading pickles and Python runs what is in them."""

_SMALL = 32 << 20
"""Bytes up to which a file is hashed each time. Weights are hashed only if their time is not the recorded one."""

_TEMPORARY = (".new-", ".old-")
"""Prefixes of temporary folders, which are never read: unfinished copies, and copies that are being removed."""

_NAME = re.compile(r".-([0-9a-f]{16}|[0-9a-f]{32})$")
"""The end of the names of copies, those of earlier versions of this package included."""

_ABANDONED = 24 * 3600.0
"""Seconds after which a temporary folder of another machine is removed."""

_UNREAD = 90 * 24 * 3600.0
"""Seconds after which an unread copy is removed: earlier versions of transformers leave theirs behind."""


class Problem(NamedTuple):
    """Why a copy is not used.

    Attributes:
        reason: For the log.
        replace: Whether the copy itself is at fault, so that a new one may take its place.
    """

    reason: str
    replace: bool


def check_copy(folder: Path, source: str, *, thorough: bool = False) -> Problem | None:
    """What is wrong with a copy; None if it holds what it was recorded to hold.

    Args:
        folder: The copy.
        source: The hash of the file that it must be made from.
        thorough: Whether to read all files, large ones included.
    """
    try:
        return _problem(folder, source, thorough)
    except FileNotFoundError as error:
        return Problem(f"{Path(error.filename or folder).name} is missing", True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return Problem(f"its record cannot be read: {type(error).__name__}: {error}", True)
    except OSError as error:  # too many open files, no permission, a bad disk: no evidence against the copy
        return Problem(f"it cannot be read: {error}", False)


def _problem(folder: Path, source: str, thorough: bool) -> Problem | None:
    if not stat.S_ISDIR(folder.lstat().st_mode):
        return Problem("it is no directory", True)
    files = {file.relative_to(folder).as_posix(): file for file in (folder, *folder.rglob("*"))}
    states = {name: file.lstat() for name, file in files.items()}
    for name, state in states.items():
        if reason := distrust(state):
            return Problem(f"{folder.name if name == '.' else name} {reason}", "another user" not in reason)
    if not stat.S_ISREG((folder / _RECORD).lstat().st_mode):  # reading a pipe would wait
        return Problem(f"{_RECORD} is no file", True)
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    if record["source"]["sha256"] != source:
        return Problem("it was made from another file", True)
    held = {name for name, state in states.items() if _counts(name) and not stat.S_ISDIR(state.st_mode)}
    if different := held ^ set(record["files"]):
        return Problem(f"{min(different)} is {'extra' if different <= held else 'missing'}", True)
    for name, expected in record["files"].items():
        state = states[name]
        if not stat.S_ISREG(state.st_mode) or state.st_size != expected["size"]:
            return Problem(f"{name} has another size", True)
        known = state.st_mtime_ns == expected["mtime_ns"] and state.st_size > _SMALL and not thorough
        if not known and digest_of(files[name]) != expected["sha256"]:
            return Problem(f"{name} has other bytes", True)
    return None


def _counts(name: str) -> bool:
    last = name.rpartition("/")[2]
    return not last.startswith(".") and last not in _NOT_OURS and name != _RECORD


def store(folder: Path, parts: Sequence[Any], source: str, name: str) -> None:
    """Write a copy under a temporary name, then rename it, so that no process reads half a copy.

    A copy with a problem stays until the new one is whole. The copy of a faster process stays, too.

    Args:
        folder: The copy.
        parts: What to write, with `save_pretrained`.
        source: The hash of the file that the parts are from.
        name: The name of that file, for people.

    Raises:
        Exception: The copy cannot be written.
    """
    with _temporary_folder(folder.parent) as temporary:
        for part in parts:
            part.save_pretrained(str(temporary))
        _seal(temporary, {"sha256": source, "name": name})
        if os.path.lexists(folder):
            if check_copy(folder, source, thorough=True) is None:
                return
            _discard(folder)
        (temporary / _LOCK).unlink(missing_ok=True)
        os.replace(temporary, folder)


def _seal(folder: Path, source: dict[str, str]) -> None:
    """Write the record of a copy, and write all through to the disk: a power cut must leave no empty files."""
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.suffix in _UNSAFE:
            raise ValueError(f"{name} is no file of safetensors")
        file.chmod(0o700 if file.is_dir() else 0o600)
        if file.is_file() and _counts(name):
            _flush(file)
            state = file.stat()
            files[name] = {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": digest_of(file)}
    record = folder / _RECORD
    record.touch(mode=0o600)
    record.write_text(json.dumps({"source": source, "files": files}, indent=1), encoding="utf-8")
    _flush(record)


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder for an unfinished copy, removed at the end if it still exists, also after Ctrl-C."""
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f"{_TEMPORARY[0]}{_owner()}-"))
    try:
        with _lock(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a temporary folder, which ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows, which does not remove a folder with an open file
        yield
        return
    path = folder / _LOCK
    number = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            path.unlink()  # a file system without locks: the name of the folder says whose it is
        yield
    finally:
        os.close(number)


def _discard(folder: Path) -> None:
    """Remove a copy by one rename: renaming the new copy onto a folder that holds files would fail."""
    away = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_TEMPORARY[1]}{_owner()}-"))
    try:
        os.replace(folder, away / folder.name)  # into the folder, because Windows does not rename onto existing folders
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


# --- leftovers ----------------------------------------------------------------------------------------


def sweep(parent: Path, keep: str = "") -> None:
    """Remove unfinished copies of killed processes, and copies that were not read for long: they are large.

    Nothing else is touched, and nothing that cannot be removed is an error.

    Args:
        parent: The directory of the copies.
        keep: The name of the copy that is about to be read.
    """
    with contextlib.suppress(OSError):
        for folder in list(parent.iterdir()):
            with contextlib.suppress(OSError):
                if folder.name.startswith(_TEMPORARY):
                    gone = _abandoned(folder)
                else:
                    gone = folder.name != keep and bool(_NAME.search(folder.name)) and _age(folder) > _UNREAD
                if gone:
                    shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether the process that made a temporary folder has ended."""
    if (locked := _is_locked(folder / _LOCK)) is not None:
        return not locked
    host, _, process = folder.name.split("-", 1)[1].rpartition("-")[0].rpartition("-")
    if host == socket.gethostname() and process.isdecimal():
        return not _is_running(int(process), folder.stat().st_mtime)
    # Its process may run on another machine that shares this folder.
    return _age(folder) > _ABANDONED


def _is_locked(path: Path) -> bool | None:
    """Whether a process holds a lock; None if that cannot be found out."""
    try:
        import fcntl

        number = os.open(path, os.O_RDWR)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(number)
    return False


def _age(folder: Path) -> float:
    return time.time() - folder.stat().st_mtime


def _is_running(process: int, since: float) -> bool:
    """Whether a process runs that began before a time; a later one has only the number of the former."""
    import psutil  # on Windows `os.kill(process, 0)` would end the process

    try:
        return bool(psutil.Process(process).create_time() <= since + 2)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
