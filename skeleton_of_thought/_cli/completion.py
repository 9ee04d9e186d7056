"""`sot completion`: a script by which a shell completes the command. `shtab` makes it from the parser."""

from __future__ import annotations

import argparse
import importlib

from skeleton_of_thought.errors import MissingExtra

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
_FILES = frozenset({"FILE", "DIR", "CSV", "PATH", "MODEL", "QUESTIONS", "[NAME=]MODEL"})
"""Display names of arguments that may be files."""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for a shell.

    Raises:
        MissingExtra: `shtab` is not installed.
    """
    try:
        shtab = importlib.import_module("shtab")  # by name, so that mypy does not need it
    except ImportError as error:
        raise MissingExtra("Completion needs shtab", "completion") from error
    _complete_files(parser, shtab.FILE)
    return str(shtab.complete(parser, shell=shell))


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.metavar in _FILES:
            action.complete = files  # type: ignore[attr-defined]
