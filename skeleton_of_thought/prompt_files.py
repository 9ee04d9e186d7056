"""Prompt files in the JSON format that the paper's authors published."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.templates import PromptTemplate

__all__ = ["read_prompt_file", "template_of_file"]

_ROLE_SWITCH = "[ROLESWITCHING assistant:]"
"""The mark in the paper's prompt files before the start of the assistant's turn."""


def read_prompt_file(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads a prompt file; a mapping is its content already.

    Raises:
        PromptFileError: The file cannot be read, or is no JSON object.
    """
    if isinstance(source, Mapping):
        return source
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PromptFileError(f"The prompt file {os.fspath(source)!r} holds no JSON object.")
    return data


def template_of_file(data: Mapping[str, Any], key: str, source: object) -> PromptTemplate:
    """The template under a key of a prompt file.

    Args:
        data: The content of the file.
        key: The key.
        source: The file, for the error text.

    Raises:
        PromptFileError: There is no text under the key.
    """
    text = data.get(key)
    if not isinstance(text, str) or not text.strip():
        name = "" if isinstance(source, Mapping) else f" of {source}"
        hint = " (a router's prompt goes into `route=`)" if "prompt" in data and key != "prompt" else ""
        raise PromptFileError(
            f"The prompts{name} have no text under {key!r}; found keys: {sorted(map(str, data))}{hint}."
        )
    user, mark, assistant = text.partition(_ROLE_SWITCH)
    return PromptTemplate(user.rstrip() if mark else user, prefill=assistant.strip())
