"""The last lines of `sot eval`: the speed-up of each way, what judges say, and where the report is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["summary_lines"]


def summary_lines(figures: Mapping[str, Any], report: Path) -> list[str]:
    """The lines.

    Args:
        figures: All figures of the run (`evaluation.figures.Figures`).
        report: The file of the report.
    """
    return [*_speeds(figures), *_verdicts(figures), f"Report: {report}"]


def _speeds(figures: Mapping[str, Any]) -> Iterator[str]:
    base, width = figures["base"], max(map(len, figures["ways"]), default=0)
    for way in figures["ways"]:
        found = figures["summary"][way]
        seconds, first = (found[name]["median"] for name in ("seconds", "first_text"))
        failed = f", {found['failed']} failed" if found["failed"] else ""
        if seconds is None:
            yield f"{way:<{width}}  no answers{failed}"
            continue
        begins = "" if first is None else f", first text after {_seconds(first)}"
        line = f"{way:<{width}}  {_seconds(seconds)}{begins} (medians of {found['questions']} questions{failed})"
        if way != base and (speed := figures["speed"].get(way)) is not None and speed["ratio_median"] is not None:
            line += f"; {_times(speed['ratio_median'], speed['interval'])} as fast as {base}"
            if speed["ratio_equal_length"] is not None:
                line += f", {_times(speed['ratio_equal_length'], speed['interval_equal_length'])} at equal lengths"
        yield line


def _verdicts(figures: Mapping[str, Any]) -> Iterator[str]:
    for pair in figures["verdicts"]:
        if pair["form"] != "written" or pair["rate"] is None:
            continue
        interval = _interval([100 * end for end in pair["interval"]], "{:.0f} to {:.0f} %") if pair["interval"] else ""
        yield (
            f"{pair['judge']}: {pair['a']} against {pair['b']} wins {100 * pair['rate']:.0f} %{interval} of "
            f"{pair['questions']} questions, ties as half"
        )


def _times(ratio: float, interval: Sequence[float] | None) -> str:
    return f"{ratio:.2f} times{'' if interval is None else _interval(interval, '{:.2f} to {:.2f}')}"


def _interval(ends: Sequence[float], form: str) -> str:
    return f" ({form.format(*ends)})"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
