"""Converted copies of GGUF files, kept in the user's cache: unpacking one takes far longer than reading it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["cache_root", "copy_name", "load_converted"]

logger = logging.getLogger(__name__)

_FORMAT = 1
"""To be raised when copies made by earlier versions must not be used any more."""

_SAMPLE = 1 << 20
_ASIDE = (".new-", ".old-")
"""How the names of folders begin that nobody reads: copies on their way in, and on their way out."""
_ABANDONED = 24 * 3600.0
"""Seconds after which a folder aside belongs to nobody, whoever made it."""

_UNREAD = 90 * 24 * 3600.0
"""Seconds after which a copy that nobody has read is wanted by nobody: versions of transformers leave theirs behind."""

Loaded = tuple[Any, Any]


def cache_root() -> Path:
    """The directory for converted models: `$XDG_CACHE_HOME` or `~/.cache`, then `skeleton-of-thought`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "skeleton-of-thought" / "models"


def copy_name(path: Path) -> str:
    """A name for the copy of a file: its own name, and a digest of its size, beginning and end, and of who copies it.

    Versions of transformers read GGUF files differently: of the demo model's tokenizer 5.0 makes one that writes "Ġ" in
    place of spaces. So each version has copies of its own.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{_FORMAT}:{_converter()}:{size}:".encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return f"{path.stem}-{digest.hexdigest()[:16]}"


def _converter() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("transformers")
    return "unknown"


def load_converted(path: Path, *, convert: Callable[[], Loaded], read: Callable[[Path], Loaded]) -> Loaded:
    """The model of a GGUF file, from its converted copy, which is made when there is none.

    An interruption at any moment leaves either no copy or a whole one.

    Args:
        path: The file.
        convert: Unpacks the file into a model and a tokenizer, both with `save_pretrained`.
        read: Loads them from a directory.
    """
    try:
        folder = cache_root() / copy_name(path)
    except RuntimeError as error:  # no home directory
        logger.warning("No place for a converted copy of %s: %s", path, error)
        return convert()
    damaged = False
    if folder.is_dir():
        try:
            loaded = read(folder)
            with contextlib.suppress(OSError):  # a folder that others may not write to
                os.utime(folder)
            return loaded
        except (ImportError, MemoryError):
            raise  # not the copy's fault: one made anew could not be read either
        except Exception as error:
            logger.warning("The converted copy %s cannot be read (%s); making a new one", folder, error)
            damaged = True
    model, tokenizer = convert()
    if not _save(folder, model, tokenizer, damaged=damaged):
        return model, tokenizer
    try:
        # What was just unpacked is read back, so that the first run decodes with the same weights as later ones.
        return read(folder)
    except MemoryError:
        raise
    except Exception as error:
        logger.warning(
            "The converted copy %s, just made, cannot be read (%s); using what it was made of", folder, error
        )
        return model, tokenizer


def _save(folder: Path, model: Any, tokenizer: Any, *, damaged: bool) -> bool:
    """Write a copy under a temporary name, then rename it: nobody ever sees half of one.

    Returns:
        Whether there is a copy now, this process's or another one's. A damaged one stays until the new one is whole.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with _aside(folder.parent) as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            _flush(temporary)
            if damaged:
                _discard(folder)
            os.replace(temporary, folder)
    except Exception as error:
        if folder.is_dir() and not damaged:
            return True  # another process was faster
        logger.warning("The converted copy could not be kept in %s: %s", folder, error)
        return False
    return True


@contextlib.contextmanager
def _aside(parent: Path) -> Iterator[str]:
    """A folder for what is on its way in. It goes if it is still there at the end, also after Ctrl-C."""
    temporary = tempfile.mkdtemp(dir=parent, prefix=f"{_ASIDE[0]}{_owner()}-")
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Takes a copy away in one move; a rename onto a folder that holds files would fail."""
    away = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_ASIDE[1]}{_owner()}-"))
    try:
        os.replace(folder, away / folder.name)  # into it, as Windows renames onto nothing that exists
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _flush(folder: str) -> None:
    """Puts the files on the disk, so that not even a power cut leaves a folder of empty ones under the final name."""
    for file in Path(folder).rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _sweep(parent: Path) -> None:
    """Removes what nobody wants: a copy is as large as the model.

    That is what processes left behind that were killed in mid-copy, and copies that were not read for long.
    """
    for folder in parent.iterdir():
        if _abandoned(folder) if folder.name.startswith(_ASIDE) else _is_older(folder, _UNREAD):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    if _is_older(folder, _ABANDONED):
        # Of another machine that shares this folder, of an earlier version, or with a number that is in use again: only
        # time tells.
        return True
    host, _, process = folder.name.split("-", 1)[1].rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and process.isdecimal() and not _is_running(int(process))


def _is_older(folder: Path, seconds: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > seconds
    except OSError:
        return False  # gone


def _is_running(process: int) -> bool:
    import psutil  # `os.kill(process, 0)` would end it on Windows

    return bool(psutil.pid_exists(process))
