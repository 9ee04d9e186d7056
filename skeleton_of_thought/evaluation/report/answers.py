"""Every answer of a run as data for the page's script, which shows a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skeleton_of_thought.evaluation.report.wording import form_words, judge_words
from skeleton_of_thought.evaluation.rows import PointRow, Row
from skeleton_of_thought.evaluation.verdicts import Verdict

__all__ = ["answers_of"]

_CUT = "length"


def answers_of(figures: Mapping[str, Any], rows: Sequence[Row], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The answers by question and repeat, with the verdicts on them.

    Args:
        figures: What `figures_of` returns.
        rows: The rows that count, failed ones too.
        verdicts: The verdicts that count, with those of people.
    """
    cards: dict[tuple[int, int, str], dict[str, Any]] = {}
    by_number: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        card = cards.setdefault((row.number, row.repeat, row.question), _card(row))
        card["answers"][row.way] = _answer(row)
        # Where a question was put in another's place, verdicts are on the newer one.
        by_number[row.number, row.repeat] = card
    for verdict in verdicts:
        if (verdict.number, verdict.repeat) in by_number:
            by_number[verdict.number, verdict.repeat]["verdicts"].append(_verdict(verdict))
    order = sorted(figures["ways"], key=lambda way: way != figures["base"])
    return {
        "ways": figures["ways"],
        "colours": {way: f"way{place % 8}" for place, way in enumerate(order)},
        "cards": [card for _, card in sorted(cards.items())],
    }


def _card(row: Row) -> dict[str, Any]:
    card = {"id": row.id, "question": row.question, "category": row.category, "repeat": row.repeat}
    return {**card, "answers": {}, "verdicts": []}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    shown = {name: getattr(verdict, name) for name in ("a", "b", "first", "winner", "reason", "error")}
    return {**shown, "judge": judge_words(verdict.judge), "form": form_words(verdict.form)}


def _answer(row: Row) -> dict[str, Any]:
    if not row.ok:
        return {"error": row.error, "parts": []}
    answer = {
        "seconds": round(row.seconds, 3),
        "tokens": row.output_tokens,
        "calls": row.calls,
        "route": row.route,
        "reason": row.reason,
        "parts": list(_parts(row)),
        "troubles": list(_troubles(row)),
        "merged": row.merged,
        "busy": row.busy,
    }
    return {name: value for name, value in answer.items() if value}


def _parts(row: Row) -> Iterator[tuple[str, str]]:
    """The text in pieces, each with what is wrong with it: `"cut"`, or nothing."""
    if row.finish_reason == _CUT and not row.points:
        yield row.text, "cut"
        return
    at = 0
    for point in row.points:
        found = row.text.find(point.text, at) if point.text.strip() and _cut(point) else -1
        if found >= 0:
            yield row.text[at:found], ""
            at = found + len(point.text)
            yield point.text, "cut"
    yield row.text[at:], ""


def _troubles(row: Row) -> Iterator[str]:
    if row.finish_reason == _CUT and not any(map(_cut, row.points)):
        yield "The text was cut at the limit of tokens."
    for role, error in row.role_errors.items():
        yield f"The {role} could not be written: {error}"
    for point in row.points:
        name = f"{'Item' if row.route == 'items' else 'Point'} {point.index}, {point.title}"
        if point.error:
            yield f"{name}: failed: {point.error}"
        elif not point.text.strip():
            yield f"{name}: empty"
        elif _cut(point):
            yield f"{name}: cut at the limit of tokens"


def _cut(point: PointRow) -> bool:
    return point.finish_reason == _CUT
