"""Prompt files in the JSON format that the paper's authors published."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from skeleton_of_thought.errors import PromptFileError
from skeleton_of_thought.small_files import parse_json, read_bounded
from skeleton_of_thought.templates import PromptTemplate

__all__ = ["read_prompt_file", "template_of_file"]

_ROLE_SWITCH = "[ROLESWITCHING assistant:]"
"""The mark in the paper's prompt files before the start of the assistant's turn."""

_LONGEST = 1 << 22
"""The most bytes of a prompt file."""


def read_prompt_file(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Reads a prompt file; a mapping is its content already.

    Raises:
        PromptFileError: The file cannot be read, or is no JSON object.
    """
    if isinstance(source, Mapping):
        return source
    name = os.fspath(source)
    try:
        text = read_bounded(name, _LONGEST).decode("utf-8")
    except (OSError, ValueError) as error:
        raise PromptFileError(f"The prompt file {name!r} cannot be read: {error}") from error
    try:
        data = parse_json(text)
    except ValueError as error:
        raise PromptFileError(f"The prompt file {name!r} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise PromptFileError(f"The prompt file {name!r} holds no JSON object.")
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
