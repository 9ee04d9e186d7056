"""Converted copies of GGUF files in the user's cache directory: reading one is far faster than unpacking the file.

A copy belongs to the content of a file (`file_identity.py`), holds a record of its own files (`stored_copy.py`), and is
used only if it is this user's and holds what it was recorded to hold. Whatever is wrong with copies, the model loads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from skeleton_of_thought.local.file_identity import FileChanged, FileIdentity, identify, private_folder, tighten
from skeleton_of_thought.local.stored_copy import Problem, check_copy, store, sweep

__all__ = ["cache_root", "copy_name", "load_converted"]

logger = logging.getLogger(__name__)

_FORMAT = 2
"""The version of the copies. Raise it to make the engine ignore copies of earlier versions."""

Loaded = tuple[Any, Any]


def cache_root() -> Path:
    """The directory for converted models: `$XDG_CACHE_HOME` or `~/.cache`, then `skeleton-of-thought`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "skeleton-of-thought" / "models"


def copy_name(path: Path) -> str:
    """The name of a file's copy: the file's name, and a digest of its content and of the converter.

    Files with the same content share a copy, whatever they are called. Versions of transformers read GGUF files
    differently: 5.0 makes a tokenizer of the demo model that writes "Ġ" in place of spaces. So each version has
    separate copies.
    """
    return _name_of(path, _identify(path))


def _identify(path: Path) -> FileIdentity:
    return identify(path, cache_root().parent / "files")


def _name_of(path: Path, identity: FileIdentity) -> str:
    digest = hashlib.sha256(f"{_FORMAT}:{_converter()}:{identity.digest}".encode()).hexdigest()[:32]
    with contextlib.suppress(OSError):
        for other in cache_root().glob(f"*-{digest}"):
            return other.name
    return f"{path.stem}-{digest}"


def _converter() -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("transformers")
    return "unknown"


def load_converted(
    path: Path,
    *,
    convert: Callable[[], Loaded],
    read: Callable[[Path], Loaded],
    original: Callable[[], Loaded] | None = None,
) -> Loaded:
    """The model of a GGUF file, from its converted copy. Makes the copy when there is none.

    An interruption at any moment leaves either no copy or a whole one. Where no copy can be kept or read, the model
    comes from the file itself, and the log says why.

    Args:
        path: The file.
        convert: Unpacks the file into a model and a tokenizer, both with `save_pretrained`.
        read: Loads a model and a tokenizer from a directory, with the caller's settings.
        original: Loads them from the file, with the caller's settings; by default `convert`.

    Raises:
        FileChanged: The file is being written.
        Exception: The error of `convert`, `read` or `original`.
    """
    settled = original or convert
    try:
        root = cache_root()
        was_private = private_folder(root)
    except (RuntimeError, OSError) as error:  # no home directory, or one that cannot be written to
        logger.warning("There is no directory for a converted copy of %s: %s", path, error)
        return settled()
    identity = _identify(path)
    if not was_private and not tighten(root):
        logger.warning("%s belongs to another user or can be written to by others: no converted copy is used", root)
        return _from_file(identity, settled)
    folder = root / _name_of(path, identity)
    sweep(root, folder.name)
    problem = check_copy(folder, identity.digest)
    if not was_private and problem is None:
        problem = Problem("others could write to its directory", True)
    if problem is None:
        return _from_copy(folder, identity, convert, read, original)
    if os.path.lexists(folder):
        logger.warning("The converted copy %s is not used: %s", folder, problem.reason)
    if not problem.replace:
        return _from_file(identity, settled)
    return _renew(folder, identity, convert, read, original)


def _from_copy(
    folder: Path,
    identity: FileIdentity,
    convert: Callable[[], Loaded],
    read: Callable[[Path], Loaded],
    original: Callable[[], Loaded] | None,
) -> Loaded:
    """The model of a copy that looks whole."""
    try:
        loaded = read(folder)
    except (ImportError, MemoryError):
        raise  # the copy is not the cause: a new one could not be read either
    except Exception as error:
        problem = check_copy(folder, identity.digest, thorough=True)
        if problem is not None and problem.replace:
            logger.warning("The converted copy %s cannot be read (%s): %s", folder, error, problem.reason)
            return _renew(folder, identity, convert, read, original)
        if original is None:
            raise
        return _instead(folder, identity, error, original)
    with contextlib.suppress(OSError):  # a folder that this user may not write to
        os.utime(folder)
    return loaded


def _renew(
    folder: Path,
    identity: FileIdentity,
    convert: Callable[[], Loaded],
    read: Callable[[Path], Loaded],
    original: Callable[[], Loaded] | None,
) -> Loaded:
    """Make a copy and read it back, so that the first run decodes with the same weights as later ones."""
    parts = _from_file(identity, convert)
    try:
        store(folder, parts, identity.digest, identity.path.name)
    except Exception as error:
        # Another process may have been faster.
        if check_copy(folder, identity.digest, thorough=True) is not None:
            logger.warning("The converted copy could not be kept in %s: %s", folder, error)
            return parts if original is None else _from_file(identity, original)
    fallback = original or functools.partial(_same, parts)
    del parts  # reading the copy needs the memory
    try:
        return read(folder)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        return _instead(folder, identity, error, fallback)


def _instead(folder: Path, identity: FileIdentity, error: Exception, original: Callable[[], Loaded]) -> Loaded:
    """The model of the file itself, where its whole copy cannot be read.

    Raises:
        Exception: The file cannot be read either: the error of the copy, which is the caller's, as a setting that
            there is not.
    """
    try:
        loaded = _from_file(identity, original)
    except FileChanged:
        raise
    except Exception:
        raise error from None
    logger.warning("The converted copy %s cannot be read (%s); using the file itself", folder, error)
    return loaded


def _from_file(identity: FileIdentity, load: Callable[[], Loaded]) -> Loaded:
    loaded = load()
    identity.check()
    return loaded


def _same(parts: Loaded) -> Loaded:
    return parts
