"""`sot eval`: evaluates."""

from __future__ import annotations

from argparse import Namespace

from skeleton_of_thought._cli.backend import ModelBackend

__all__ = ["run_eval"]


def run_eval(args: Namespace, backend: ModelBackend | None) -> int:
    """Runs `sot eval`; returns the exit code."""
    raise NotImplementedError
