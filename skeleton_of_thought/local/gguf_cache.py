"""Converted copies of GGUF files in the user's cache directory: reading one is far faster than unpacking the file."""

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
"""The version of the copies. Raise it to make the engine ignore copies of earlier versions."""

_SAMPLE = 1 << 20
_TEMPORARY = (".new-", ".old-")
"""Prefixes of temporary folders, which are never read: unfinished copies, and copies that are being removed."""
_ABANDONED = 24 * 3600.0
"""Seconds after which any process removes a temporary folder."""

_UNREAD = 90 * 24 * 3600.0
"""Seconds after which an unread copy is removed: earlier versions of transformers leave theirs behind."""

Loaded = tuple[Any, Any]


def cache_root() -> Path:
    """The directory for converted models: `$XDG_CACHE_HOME` or `~/.cache`, then `skeleton-of-thought`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "skeleton-of-thought" / "models"


def copy_name(path: Path) -> str:
    """The name of a file's copy: the file's name, and a digest of its size, beginning and end and of the converter.

    Versions of transformers read GGUF files differently: 5.0 makes a tokenizer of the demo model that writes "Ġ" in
    place of spaces. So each version has separate copies.
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
    """The model of a GGUF file, from its converted copy. Makes the copy when there is none.

    An interruption at any moment leaves either no copy or a whole one.

    Args:
        path: The file.
        convert: Unpacks the file into a model and a tokenizer, both with `save_pretrained`.
        read: Loads a model and a tokenizer from a directory.
    """
    try:
        folder = cache_root() / copy_name(path)
    except RuntimeError as error:  # no home directory
        logger.warning("There is no directory for a converted copy of %s: %s", path, error)
        return convert()
    damaged = False
    if folder.is_dir():
        try:
            loaded = read(folder)
            with contextlib.suppress(OSError):  # a folder that this user may not write to
                os.utime(folder)
            return loaded
        except (ImportError, MemoryError):
            raise  # the copy is not the cause: a new one could not be read either
        except Exception as error:
            logger.warning("The converted copy %s cannot be read (%s); making a new one", folder, error)
            damaged = True
    model, tokenizer = convert()
    if not _save(folder, model, tokenizer, damaged=damaged):
        return model, tokenizer
    try:
        # Read the new copy back, so that the first run decodes with the same weights as later ones.
        return read(folder)
    except MemoryError:
        raise
    except Exception as error:
        logger.warning("The new converted copy %s cannot be read (%s); using the unpacked model", folder, error)
        return model, tokenizer


def _save(folder: Path, model: Any, tokenizer: Any, *, damaged: bool) -> bool:
    """Write a copy under a temporary name, then rename it, so that no process reads half a copy.

    A damaged copy stays until the new one is whole.

    Returns:
        Whether there is a copy now, made by this process or another one.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with _temporary_folder(folder.parent) as temporary:
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
def _temporary_folder(parent: Path) -> Iterator[str]:
    """A temporary folder for an unfinished copy, removed at the end if it still exists, also after Ctrl-C."""
    temporary = tempfile.mkdtemp(dir=parent, prefix=f"{_TEMPORARY[0]}{_owner()}-")
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Remove a copy by one rename: renaming the new copy onto a folder that holds files would fail."""
    away = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_TEMPORARY[1]}{_owner()}-"))
    try:
        os.replace(folder, away / folder.name)  # into the folder, because Windows does not rename onto existing folders
    finally:
        shutil.rmtree(away, ignore_errors=True)


def _flush(folder: str) -> None:
    """Write the files through to the disk, so that a power cut leaves no empty files under the final name."""
    for file in Path(folder).rglob("*"):
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _owner() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _sweep(parent: Path) -> None:
    """Remove unfinished copies of killed processes, and copies that were not read for long: they are large."""
    for folder in parent.iterdir():
        if _abandoned(folder) if folder.name.startswith(_TEMPORARY) else _is_older(folder, _UNREAD):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    if _is_older(folder, _ABANDONED):
        # Its process may run on another machine that shares this folder, and process numbers are used again: beyond
        # this age that does not matter.
        return True
    host, _, process = folder.name.split("-", 1)[1].rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and process.isdecimal() and not _is_running(int(process))


def _is_older(folder: Path, seconds: float) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > seconds
    except OSError:
        return False  # gone


def _is_running(process: int) -> bool:
    import psutil  # on Windows `os.kill(process, 0)` would end the process

    return bool(psutil.pid_exists(process))
