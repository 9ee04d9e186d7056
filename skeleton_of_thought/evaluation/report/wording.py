"""Numbers, intervals and names of the report in words."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Sequence

from skeleton_of_thought.evaluation.verdicts import FORM_WORDS, HUMAN

__all__ = ["NONE", "form_words", "judge_words", "number", "one_line", "share", "times", "with_interval"]

NONE = "–"
"""A figure that there is not."""


def one_line(text: object, most: int = 200) -> str:
    """A text on one line, without characters that control terminals, pages or directions.

    Args:
        text: The text.
        most: The most letters; wide ones, such as Chinese, count twice.
    """
    shown = " ".join("".join(" " if char.isspace() else char for char in str(text) if _shown(char)).split())
    if len(shown) * 2 <= most or sum(map(_width, shown)) <= most:
        return shown
    widths = itertools.accumulate(map(_width, shown))
    return shown[: sum(width < most for width in widths)].rstrip() + "…"


def _width(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _shown(char: str) -> bool:
    turns = "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
    return char.isspace() or not (turns or char in "\ufffe\uffff" or unicodedata.category(char) in ("Cc", "Cs"))


def number(value: float | None) -> str:
    """A number with three digits that say something."""
    if value is None:
        return NONE
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio."""
    return NONE if value is None else f"{value:.2f}×"


def share(value: float | None) -> str:
    """A share in percent."""
    return NONE if value is None else f"{100 * value:.0f} %"


def with_interval(shown: Callable[[float | None], str], value: float | None, interval: Sequence[float] | None) -> str:
    """A figure and its interval."""
    middle = shown(value)
    if value is None or interval is None or {shown(interval[0]), shown(interval[1])} == {middle}:
        return middle  # without an interval, or with one that is narrower than what is shown
    return f"{middle} ({shown(interval[0]).rstrip('×% ')} to {shown(interval[1])})"


def judge_words(judge: str) -> str:
    """Who judged, in words."""
    return "people" if judge == HUMAN else judge


def form_words(form: str) -> str:
    """How answers were shown, in words."""
    return FORM_WORDS.get(form, form)
