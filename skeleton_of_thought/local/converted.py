"""Converted copies of GGUF files, kept in the user's cache: unpacking one takes far longer than reading it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["cache_root", "converted", "identity"]

logger = logging.getLogger(__name__)

_FORMAT = 1
"""To be raised when copies made by earlier versions must not be used any more."""

_SAMPLE = 1 << 20


def cache_root() -> Path:
    """The directory for converted models: `$XDG_CACHE_HOME` or `~/.cache`, then `skeleton-of-thought`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "skeleton-of-thought" / "models"


def identity(path: Path) -> str:
    """A name for the content of a file: its own name, and a digest of its size, beginning and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{_FORMAT}:{size}:".encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return f"{path.stem}-{digest.hexdigest()[:16]}"


def converted(
    path: Path, *, convert: Callable[[], tuple[Any, Any]], read: Callable[[Path], tuple[Any, Any]]
) -> tuple[Any, Any]:
    """The model of a GGUF file, from its converted copy, which is made when there is none.

    Args:
        path: The file.
        convert: Unpacks the file into a model and a tokenizer, both with `save_pretrained`.
        read: Loads them from a directory.
    """
    try:
        folder = cache_root() / identity(path)
        if folder.is_dir():
            try:
                return read(folder)
            except Exception as error:
                logger.warning("The converted copy %s cannot be read (%s); making a new one", folder, error)
                shutil.rmtree(folder, ignore_errors=True)
    except RuntimeError as error:  # no home directory
        logger.warning("No place for a converted copy of %s: %s", path, error)
        return convert()
    model, tokenizer = convert()
    # What was just unpacked is read back, so that the first run decodes with the same weights as later ones.
    return read(folder) if _save(folder, model, tokenizer) else (model, tokenizer)


def _save(folder: Path, model: Any, tokenizer: Any) -> bool:
    """Write a copy under a temporary name, then rename it: nobody ever sees half of one."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=folder.parent, prefix=".new-")
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)
    except Exception as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if folder.is_dir():
            return True  # another process was faster
        logger.warning("The converted copy could not be kept in %s: %s", folder, error)
        return False
    return True
