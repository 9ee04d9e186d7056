"""What is said of answers and errors: settings as the command calls them, and what an answer falls short of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from skeleton_of_thought.flow import REPEATED
from skeleton_of_thought.routers.base import FAILED
from skeleton_of_thought.types import Answer

__all__ = ["as_options", "shortcomings"]

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


def shortcomings(answer: Answer, explain: Callable[[Exception], str]) -> Iterator[str]:
    """Lines on what of an answer was ended or failed, and why."""
    if answer.decision is not None and answer.decision.reason.startswith(FAILED):
        yield f"{' '.join(answer.decision.reason.split())}; the model answered directly"
    if answer.finish_reason == REPEATED:
        yield "the model repeated itself, so its answer was ended"
    for expansion in answer.expansions:
        if expansion.finish_reason == REPEATED:
            yield f"point {expansion.point.index} repeated itself, so it was ended"
    for index, error in answer.errors.items():
        yield f"point {index} failed: {explain(error)}"
    if answer.merge_error is not None:
        yield f"merge failed, so the points stand as they are: {explain(answer.merge_error)}"
