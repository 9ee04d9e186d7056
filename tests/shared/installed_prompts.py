"""The prompts of installed packages, which are read when a test runs and are no part of this repository."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any


def installed_prompt(path: str) -> Any:
    """The prompt at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def prompt_values(names: Iterable[str], question: str) -> dict[str, str]:
    """A value for each placeholder: the question, a history, or a text."""
    return {name: _value(name, question) for name in names}


def _value(name: str, question: str) -> str:
    if name.lower() in ("question", "query", "query_str", "input"):
        return question
    return "Human: hi\nAI: hello" if "history" in name else "Exercise strengthens the heart. It lifts the mood."
