"""What tells one large file from another: a hash of all its bytes, computed once for each state of the file.

A record of the hash lies in the user's cache directory, beside the state of the file when it was read: device, inode,
size, and the times of its last changes. POSIX systems set the time of the last change of the inode (ctime) whenever a
file is written, renamed or given another mtime, so a file that was replaced with its old mtime has another state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["FileChanged", "FileIdentity", "digest_of", "distrust", "identify", "private_folder", "tighten"]

logger = logging.getLogger(__name__)

_GRANULARITY = 3.0
"""Seconds within which a file may change again without another mtime: FAT counts in steps of two seconds."""

_TRIES = 3
"""How often a file that changes while it is read is read again."""

_UNUSED = 90 * 24 * 3600.0
"""Seconds after which a record that nobody reads is removed."""

_HALF_WRITTEN = 3600.0
"""Seconds after which a record that a killed process was writing is removed."""

_LARGE = 1 << 30
"""Bytes from which a line in the log says that a file is being read."""


class FileChanged(ValueError):
    """A file changed while it was read."""


@dataclass(frozen=True)
class _State:
    """What the file system says about a file. A changed file has another state."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: os.stat_result) -> _State:
        return cls(file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)

    def settled(self, now: float) -> bool:
        """Whether a change after `now` would show in the times."""
        return now - max(self.mtime_ns, self.ctime_ns) / 1e9 > _GRANULARITY


@dataclass(frozen=True)
class FileIdentity:
    """The hash of a file, and the state of the file that has it.

    Attributes:
        path: The file, without symbolic links.
        digest: The SHA-256 of its bytes, in hexadecimal digits.
        state: What the file system said about it.
        settled: Whether a later change must show in the state.
    """

    path: Path
    digest: str
    state: _State
    settled: bool

    def check(self) -> None:
        """Compares with the file as it is now.

        Raises:
            FileChanged: It holds other bytes.
        """
        try:
            state = _State.of(self.path.stat())
        except OSError as error:
            raise FileChanged(f"{self.path.name} cannot be read any more ({error}).") from error
        same = state == self.state and self.settled
        if not same and (state.size != self.state.size or digest_of(self.path) != self.digest):
            raise FileChanged(f"{self.path.name} changed while it was read: load it again when it is complete.")


def identify(path: Path, records: Path) -> FileIdentity:
    """The identity of a file: read from its record, or else computed and recorded.

    Args:
        path: The file, or a link to it.
        records: The directory of the records. One that cannot be read or written, or that others can write to, costs
            time only: the hash is computed each time.

    Raises:
        OSError: The file cannot be read.
        FileChanged: It changes again and again.
    """
    path = Path(os.path.realpath(path))
    record = records / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    state = _State.of(path.stat())
    if (known := _recorded(record, state)) is not None:
        return FileIdentity(path, known, state, settled=True)
    if state.size >= _LARGE:
        logger.info("Reading all of %s, once, to know it again", path)
    for _ in range(_TRIES):
        began = time.time()
        with path.open("rb") as file:
            state = _State.of(os.fstat(file.fileno()))
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = _State.of(os.fstat(file.fileno()))
        if after == state == _State.of(path.stat()):
            identity = FileIdentity(path, digest, state, state.settled(began))
            if identity.settled:
                _write_record(record, identity)
            return identity
    raise FileChanged(f"{path.name} changes while it is read: load it again when it is complete.")


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recorded(record: Path, state: _State) -> str | None:
    try:
        private = all(map(is_private, (record.parent.parent, record.parent, record)))
        if not private or not stat.S_ISREG(record.stat().st_mode):  # reading a pipe would wait
            return None
        found = json.loads(record.read_text(encoding="utf-8"))
        digest = found["sha256"] if found["state"] == asdict(state) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(record)  # records that are in use stay
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _write_record(record: Path, identity: FileIdentity) -> None:
    content = {"path": str(identity.path), "state": asdict(identity.state), "sha256": identity.digest}
    try:
        if private_folder(record.parent):
            _forget_old(record.parent)
            _replace_file(record, json.dumps(content))
    except OSError as error:
        logger.debug("The hash of %s could not be recorded", identity.path, exc_info=error)


def _forget_old(records: Path) -> None:
    for record in list(records.iterdir()):
        with contextlib.suppress(OSError):
            age = time.time() - record.stat().st_mtime
            if age > (_HALF_WRITTEN if record.name.startswith(".new-") else _UNUSED):
                record.unlink()


# --- files and directories of this user alone ---------------------------------------------------------


def _replace_file(path: Path, text: str) -> None:
    """Write a file of this user alone, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def distrust(found: os.stat_result) -> str:
    """Why a file or directory may be somebody else's work; empty if it is this user's alone.

    Always empty on Windows, where the cache directory lies in the user's profile.
    """
    user: Callable[[], int] | None = getattr(os, "geteuid", None)
    if user is None:
        return ""
    if found.st_uid != user():
        return "belongs to another user"
    # The mode of a symbolic link says nothing.
    loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode)
    return "can be written to by others" if loose else ""


def is_private(path: Path) -> bool:
    """Whether nobody else can have written a file or directory, or put a link in its place.

    Raises:
        OSError: There is no such file.
    """
    return not distrust(path.stat()) and not distrust(path.lstat())


def private_folder(path: Path) -> bool:
    """Make a directory, and the one above it, for this user alone. Returns whether both are private.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.mkdir(exist_ok=True, mode=0o700)
    return is_private(path.parent) and is_private(path)


def tighten(path: Path) -> bool:
    """Take write permission of others from a directory and the one above it. Returns whether both are private now."""
    try:
        for folder in (path.parent, path):
            if not is_private(folder):
                folder.chmod(folder.stat().st_mode & 0o700)
        return is_private(path.parent) and is_private(path)
    except OSError:
        return False
