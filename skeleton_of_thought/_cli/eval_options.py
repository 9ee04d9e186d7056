"""The options of `sot eval`."""

from __future__ import annotations

from typing import Any

__all__ = ["add_eval"]


def add_eval(commands: Any) -> None:
    """Adds `sot eval`."""
    commands.add_parser("eval", help="evaluates")
