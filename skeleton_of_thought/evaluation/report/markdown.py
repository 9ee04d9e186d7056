"""The report as Markdown: its sentences and its tables, without plots and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skeleton_of_thought.evaluation.report import texts
from skeleton_of_thought.evaluation.report.tables import Table, tables_of
from skeleton_of_thought.evaluation.report.wording import one_line

__all__ = ["markdown_of"]

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$])")


def markdown_of(figures: Mapping[str, Any], judge_prompt: str = "") -> str:
    """The report's text.

    Args:
        figures: What `figures_of` returns.
        judge_prompt: The judge's prompt; empty for none.
    """
    return "\n".join(_lines(figures, judge_prompt)) + "\n"


def _lines(figures: Mapping[str, Any], judge_prompt: str) -> Iterator[str]:
    yield f"# {_plain(texts.title(figures))}\n"
    yield f"{_plain(texts.compared(figures), 4000)}\n"
    yield from (f"- {_plain(way, 400)}" for way in texts.ways(figures))
    yield ""
    yield from _list("In short", texts.headlines(figures))
    yield from _list("What weakens these figures", [_note(note) for note in figures["notes"]])
    yield from _list("What this does not show", texts.limits(figures))
    headings = {"speed": "Speed", "quality": "Texts", "verdicts": "Verdicts", "failed": "Failed", "spent": "Spent"}
    tables = tables_of(figures)
    for section, heading in headings.items():
        found = [table for table in tables if table.section == section]
        if found:
            yield f"## {heading}\n"
            for table in found:
                yield from _table(table)
    if judge_prompt:
        # A fence that the prompt cannot end: longer than any in it.
        fence = "`" * max(3, 1 + max((len(each) for each in re.findall("`+", judge_prompt)), default=0))
        yield f"## The judge's prompt\n\n{fence}text\n{judge_prompt.rstrip()}\n{fence}\n"
    yield "## Setup\n"
    yield from _rows(["What", "Value"], texts.setup(figures))


def _note(note: Mapping[str, Any]) -> str:
    return f"{note['way']}: {note['text']}" if note["way"] else note["text"]


def _list(heading: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"## {heading}\n"
        yield from (f"- {_plain(sentence, 4000)}" for sentence in sentences)
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"### {_plain(table.title)}\n"
    if table.note:
        yield f"{table.note}\n"
    yield from _rows(table.columns, table.rows)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(_plain(column) for column in columns)} |"
    yield f"|{' --- |' * len(columns)}"
    yield from (f"| {' | '.join(_plain(cell, 400) for cell in row)} |" for row in rows)
    yield ""


def _plain(text: str, most: int = 200) -> str:
    """A text on one line, whose marks are text."""
    return _MARKS.sub(r"\\\1", one_line(text, most))
