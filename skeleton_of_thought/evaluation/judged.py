"""Figures of verdicts: each judge, form and pair of ways, in all and by category."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from skeleton_of_thought.evaluation import verdicts as judging
from skeleton_of_thought.evaluation.notes import Note
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.verdicts import HUMAN, Verdict

__all__ = ["Controlled", "JudgedPair", "controlled_of", "judge_notes", "judged_pairs", "newest_verdicts"]

JudgedPair: TypeAlias = dict[str, Any]
"""`"judge"`, `"form"`, `"a"`, `"b"`, the fields of `verdicts.Tally` (its rate is that of `a` against `b`), and
`"by_category"`: a tally for each category, without verdicts by question; empty where no question has a category."""
Controlled: TypeAlias = dict[str, Any]
"""`"judge"`, `"a"`, `"b"`, and what `length_control` finds for them: win rates at equal length and in equal style."""

_MANY_FLIPS = 0.2


def newest_verdicts(found: Iterable[Verdict]) -> list[Verdict]:
    """The verdicts that count: the last on each pair of answers, form and order of a judge, and each vote."""
    last: dict[tuple[Any, ...], Verdict] = {}
    for each in found:
        name: tuple[Any, ...] = (each.judge, each.key)
        if each.judge != HUMAN:
            name = (each.judge, each.form, each.a, each.b, each.first, each.number, each.repeat)
        last.pop(name, None)
        last[name] = each
    return list(last.values())


def judged_pairs(found: Iterable[Verdict]) -> list[JudgedPair]:
    """The tally of each judge, form and pair of ways, in the order in which they first come.

    Args:
        found: All verdicts, outdated ones too.
    """
    counted = newest_verdicts(found)
    names = dict.fromkeys((each.judge, each.form, each.a, each.b) for each in counted)
    return [_pair(counted, *name) for name in names]


def _pair(counted: Sequence[Verdict], judge: str, form: str, a: str, b: str) -> JudgedPair:
    mine = [each for each in counted if (each.judge, each.form, each.a, each.b) == (judge, form, a, b)]
    categories = list(dict.fromkeys(each.category for each in mine)) if any(each.category for each in mine) else []

    def tally(some: Sequence[Verdict]) -> dict[str, Any]:
        return plain_data(judging.tally(some, a, b, form=form, judge=judge))  # type: ignore

    by_category = {name: tally([each for each in mine if each.category == name]) for name in categories}
    for each in by_category.values():
        each.pop("by_question", None)
    return {"judge": judge, "form": form, "a": a, "b": b, **tally(mine), "by_category": by_category}


def controlled_of(rows: Sequence[Row], found: Iterable[Verdict]) -> list[Controlled]:
    """Win rates at equal length and in equal style, of each judge and pair of ways.

    Args:
        rows: The rows that count.
        found: All verdicts, outdated ones too.
    """
    return []


def judge_notes(pairs: Sequence[JudgedPair], found: Sequence[Verdict], *, model: str | None) -> list[Note]:
    """What weakens the verdicts.

    Args:
        pairs: `judged_pairs` of the verdicts.
        found: The verdicts.
        model: The model that wrote the answers.
    """
    notes: list[Note] = []
    for judge in dict.fromkeys(each.judge for each in found):
        mine = [each for each in pairs if each["judge"] == judge]
        if judge == model:
            text = f"The judge {judge} wrote the answers itself; models prefer their own texts."
            notes.append({"kind": "judge", "way": "", "text": text})
        both, flips = sum(each["pairs"] for each in mine), sum(each["flips"] for each in mine)
        if both and flips / both >= _MANY_FLIPS:
            text = f"{flips} of {both} verdicts of {judge} changed the winner with the order of the answers."
            notes.append({"kind": "judge", "way": "", "text": text})
        none = sum(each["none"] for each in mine)
        if none:
            text = f"{none} verdicts of {judge} could not be had: the call failed, or the reply could not be read."
            notes.append({"kind": "unread", "way": "", "text": text})
    return notes


def plain_data(value: Any) -> Any:
    """A value as JSON has it: frozen classes as objects, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(name): plain_data(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(each) for each in value]
    return value
