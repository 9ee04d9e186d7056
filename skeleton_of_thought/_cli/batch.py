"""`sot batch`: answers many questions."""

from __future__ import annotations

from argparse import Namespace

from skeleton_of_thought._cli.backend import ModelBackend

__all__ = ["run_batch"]


def run_batch(args: Namespace, backend: ModelBackend | None) -> int:
    """Runs `sot batch`; returns the exit code."""
    raise NotImplementedError
