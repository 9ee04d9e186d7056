"""The last lines of `sot eval` on standard output: the main figures, short and in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skeleton_of_thought.evaluation.report.rates import win_rates
from skeleton_of_thought.evaluation.report.wording import form_words, judge_words, one_line, share, times, with_interval

__all__ = ["summary_lines"]

_MOST = 24
"""The most letters of a judge's name."""


def summary_lines(figures: Mapping[str, Any]) -> list[str]:
    """The speed-up of each way, and how often it was preferred, with intervals; the report has the rest.

    Args:
        figures: What `figures_of` returns.
    """
    speed, quality = list(_speed(figures)), list(_quality(figures))
    lines = []
    if speed:
        columns = ("", "as answers came", "at equal length", "to first text", "faster on")
        lines += [
            f"Times as fast as {figures['base']} (95 % interval; one that holds 1 shows no difference):",
            *_columns([columns, *speed]),
        ]
    if quality:
        heads = ("", "against", "by", "form", "win rate", "questions")
        lines += [
            "Win rate, ties as half (95 % interval; one that holds 50 % shows no difference):",
            *_columns([heads, *quality]),
        ]
    return lines or ["There are no two answers to the same question yet, so there is nothing to compare."]


def _speed(figures: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for way, each in figures["speed"].items():
        if each["ratio_median"] is not None:
            yield (
                way,
                with_interval(times, each["ratio_median"], each["interval"]),
                with_interval(times, each["ratio_equal_length"], each["interval_equal_length"]),
                times(each["ratio_first_text"]),
                f"{each['faster']} of {each['questions']}",
            )


def _quality(figures: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for each in win_rates(figures):
        if not each.category:
            judge = one_line(judge_words(each.judge), _MOST)
            rate = with_interval(share, each.rate, each.interval)
            yield each.way, each.other, judge, form_words(each.form), rate, str(each.tally["questions"])


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
