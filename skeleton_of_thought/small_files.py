"""Files that are small unless something is wrong with them: settings, prompts, weights of routers."""

from __future__ import annotations

import json
import os
import stat
from typing import Any, BinaryIO

__all__ = ["open_at_once", "parse_json", "read_bounded"]


def open_at_once(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file for reading, without waiting for a program that may never open the other end of a pipe.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its name cannot be one of a file.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer. It exists only where there are such pipes.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        file = os.fdopen(number, "rb")
    except BaseException:  # a directory
        os.close(number)
        raise
    if stat.S_ISFIFO(os.fstat(number).st_mode):
        os.set_blocking(number, True)
    return file


def read_bounded(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a file, without waiting for a program that may never write to a pipe.

    Args:
        path: The file; a pipe that a program has open for writing is one too, such as a shell's `<(...)`.
        most: The most bytes. No more are read, also from devices that never end.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is longer, or its name cannot be one of a file.
    """
    with open_at_once(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: The text is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
