"""Settings in errors, as the command calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["as_options"]

_OPTIONS: Mapping[str, str] = {
    "point_words": "--words",
    "max_points": "--max-points",
    "max_retries": "--retries",
    "point_timeout": "--point-timeout",
    "on_point_error": "--on-point-error",
    "max_concurrency": "--max-concurrency",
    "max_new_tokens": "--max-tokens",
    "max_tokens": "--max-tokens",
}
_SETTING = re.compile(rf"(?<![\w'\"-])({'|'.join(_OPTIONS)})\b(?:=(?=[\w\"']))?")
"""Not in quotes, where it is what a user has written."""


def as_options(text: str) -> str:
    """The text with options in place of the settings that they stand for.

    Example:
        >>> as_options("shorten the prompt or lower max_new_tokens")
        'shorten the prompt or lower --max-tokens'
    """
    return _SETTING.sub(lambda found: _OPTIONS[found[1]] + (" " if found[0].endswith("=") else ""), text)
