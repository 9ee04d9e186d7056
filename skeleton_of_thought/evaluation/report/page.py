"""The report as one page of HTML that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from skeleton_of_thought.evaluation.report import texts
from skeleton_of_thought.evaluation.report.answers import answers_of
from skeleton_of_thought.evaluation.report.plots import Plot, plots_of, timelines
from skeleton_of_thought.evaluation.report.tables import Table, tables_of
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.single_page import as_text, filled, json_block
from skeleton_of_thought.evaluation.verdicts import Verdict

__all__ = ["page_of"]

_RANGE = re.compile(r"([-\d.,]+(?:×| %)?) \(([-\d.,]+ to [-\d.,]+(?:×| %)?)\)")
"""A figure and its interval."""


def page_of(
    figures: Mapping[str, Any], rows: Sequence[Row], verdicts: Sequence[Verdict], judge_prompt: str = ""
) -> str:
    """The page.

    Args:
        figures: What `figures_of` returns.
        rows: The rows that count.
        verdicts: The verdicts that count.
        judge_prompt: The judge's prompt; empty for none.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    tables, plots = tables_of(figures), {plot.name: plot for plot in plots_of(figures, rows)}
    parts = {
        "title": as_text(texts.title(figures)),
        "compared": as_text(texts.compared(figures)),
        "ways": _items(texts.ways(figures)),
        "headlines": _items(texts.headlines(figures)),
        "notes": "".join(_notes(figures)),
        "limits": _items(texts.limits(figures)),
        "setup": "".join(_setup(figures)),
        "speed": _figures(plots, "plot-speed", "plot-seconds", "plot-tokens") + _tables(tables, "speed"),
        "timelines": "".join(map(_figure, timelines(figures, rows))),
        "quality": _tables(tables, "quality"),
        "verdicts": "".join(_verdicts(tables, plots, judge_prompt)),
        "failed": _tables(tables, "failed"),
        "spent": _tables(tables, "spent"),
        "data": json_block(answers_of(figures, rows, verdicts)),
    }
    assets = files("skeleton_of_thought.evaluation.report") / "assets"
    code = {name: (assets / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js", "html")}
    return filled(code["html"], {**parts, "style": code["css"], "script": code["js"]})


def _items(sentences: Sequence[str]) -> str:
    # No line begins with the sign of percent.
    return "".join(f"<li>{as_text(sentence).replace(' %', '&nbsp;%')}</li>" for sentence in sentences)


def _notes(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["notes"]:
        yield '<section class="notes" aria-labelledby="notes"><h2 id="notes">What weakens these figures</h2><ul>'
        for note in figures["notes"]:
            way = f"<strong>{as_text(note['way'])}</strong>: " if note["way"] else ""
            yield f"<li>{way}{as_text(note['text'])}</li>"
        yield "</ul></section>"


def _setup(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, value in texts.setup(figures):
        yield f"<div><dt>{as_text(name)}</dt><dd>{as_text(value)}</dd></div>"


def _figures(plots: Mapping[str, Plot], *names: str) -> str:
    found = "".join(_figure(plots[name]) for name in names if name in plots)
    return f'<div class="plots">{found}</div>' if found else ""


def _figure(plot: Plot) -> str:
    return (
        f'<figure id="{plot.name}"><figcaption><h3>{as_text(plot.title)}</h3><p class="soft">{as_text(plot.note)}</p>'
        f'</figcaption><div class="wide" tabindex="0" role="region" aria-label="{as_text(plot.title)}">{plot.svg}</div>'
        "</figure>"
    )


def _tables(tables: Sequence[Table], section: str) -> str:
    return "".join(_table(table) for table in tables if table.section == section)


def _table(table: Table) -> str:
    note = f'<p class="soft">{as_text(table.note)}</p>' if table.note else ""
    heads = "".join(f'<th scope="col">{as_text(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{as_text(row[0])}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in table.rows
    )
    return (
        f'<h3>{as_text(table.title)}</h3>{note}<div class="wide" tabindex="0" role="region" '
        f'aria-label="{as_text(table.title)}"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cell(text: str) -> str:
    found = _RANGE.fullmatch(text)
    if found is None:
        return f"<td>{as_text(text)}</td>"
    return f'<td>{as_text(found[1])} <span class="range">({as_text(found[2])})</span></td>'


def _verdicts(tables: Sequence[Table], plots: Mapping[str, Plot], judge_prompt: str) -> Iterator[str]:
    shown = _figures(plots, "plot-wins") + _tables(tables, "verdicts")
    yield shown or '<p class="soft">Nobody compared these answers: no judge was named, and no vote was counted.</p>'
    if judge_prompt:
        yield f"<details><summary>The judge's prompt</summary><pre>{as_text(judge_prompt)}</pre></details>"
