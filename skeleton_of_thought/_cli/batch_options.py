"""The options of `sot batch`."""

from __future__ import annotations

from typing import Any

__all__ = ["add_batch"]


def add_batch(commands: Any) -> None:
    """Adds `sot batch`."""
    commands.add_parser("batch", help="answers many questions")
