"""The report of a run: `report.html`, `report.md` and `report.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from skeleton_of_thought.evaluation.report.markdown import markdown_of
from skeleton_of_thought.evaluation.report.page import page_of
from skeleton_of_thought.evaluation.report.plots import check_plots
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.single_page import as_json, write_text
from skeleton_of_thought.evaluation.speed import newest
from skeleton_of_thought.evaluation.verdicts import Verdict
from skeleton_of_thought.evaluation.verdicts import newest as newest_verdicts

__all__ = ["check_plots", "write_report"]


def write_report(
    folder: str | Path,
    figures: Mapping[str, Any],
    rows: Iterable[Row],
    verdicts: Iterable[Verdict] = (),
    *,
    judge_prompt: str = "",
) -> list[Path]:
    """Writes the report, each file completely or not at all, and returns the files' paths.

    All are made before the first is written, so that an error in one leaves an older report as it was.

    Args:
        folder: The folder of the run.
        figures: What `figures_of` returns.
        rows: All rows, in the order in which they were written; of several tries, the last one is shown.
        verdicts: All verdicts, of judges and people, in that order; of several tries, the last one is shown.
        judge_prompt: The judge's prompt, which the report shows; empty without a judge.

    Raises:
        MissingExtra: matplotlib is not installed; `check_plots` says so beforehand.
        SotError: A file cannot be written.
    """
    shown, judged = newest(rows), newest_verdicts(verdicts)
    made = {
        "report.html": page_of(figures, shown, judged, judge_prompt),
        "report.md": markdown_of(figures, judge_prompt),
        "report.json": as_json(figures, indent=1) + "\n",
    }
    for name, text in made.items():
        write_text(Path(folder) / name, text)
    return [Path(folder) / name for name in made]
