"""Failures of a model: which rows they belong to, and what a failed forward leaves behind.

A forward of many rows raises one error, and nothing in it names the row at fault. So the rows run again in halves, and
halves of halves, until the rows that fail alone are found. Only they fail; the others go on as if nothing had happened.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from skeleton_of_thought.local.row import Row

__all__ = ["fail_rows", "in_halves", "out_of_memory", "release"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def in_halves(count: int, run: Callable[[int, int], _T]) -> tuple[list[tuple[int, int, _T]], dict[int, Exception]]:
    """Run `count` rows together; if that fails, in halves, down to single rows. At most `2 * count - 1` runs.

    Args:
        count: The number of rows.
        run: Runs the rows from its first argument up to its second one.

    Returns:
        What the runs that succeeded returned, each with its first row and the end of its rows, in order; and the
        errors of the rows that failed alone.

    Raises:
        Exception: The error of a run without enough memory, which is no row's own.
    """
    done: list[tuple[int, int, _T]] = []
    errors: dict[int, Exception] = {}
    parts = [(0, count)]
    while parts:
        first, stop = parts.pop()
        try:
            done.append((first, stop, run(first, stop)))
        except Exception as error:
            if out_of_memory(error):
                raise
            if stop - first == 1:
                errors[first] = error
            else:
                release(error)
                middle = (first + stop) // 2
                parts += [(middle, stop), (first, middle)]
    return done, errors


def fail_rows(rows: Sequence[Row], error: BaseException) -> None:
    """End rows with an error of the model."""
    logger.warning("Decoding failed for %d rows: %s: %s", len(rows), type(error).__name__, error)
    logger.debug("The failure of the local engine", exc_info=error)
    release(error)
    for row in rows:
        row.fail(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    # On CPUs torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def release(error: BaseException) -> None:
    """Free the tensors of a failed forward.

    The frames of the traceback hold them, so a caller who keeps the error would keep the tensors too.
    """
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    if isinstance(error, torch.OutOfMemoryError) and torch.cuda.is_available():
        torch.cuda.empty_cache()
