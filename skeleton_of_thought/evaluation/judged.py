"""Figures of verdicts: each judge, form and pair of ways, in all and by category."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from skeleton_of_thought.evaluation.length_control import control
from skeleton_of_thought.evaluation.notes import Note
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.verdicts import FORM_WORDS, Verdict, newest, tally

__all__ = ["Controlled", "JudgedPair", "controlled_of", "judge_notes", "judged_pairs", "oriented", "plain_data"]

JudgedPair: TypeAlias = dict[str, Any]
"""`"judge"`, `"form"`, the fields of `verdicts.Tally` (`a`, `b`: the rate is that of `a` against `b`, which is the base
where it is one of the two), and `"by_category"`: a tally for each category, without `"by_question"`; empty where no
question has a category."""
Controlled: TypeAlias = dict[str, Any]
"""`"judge"`, `"a"`, `"b"` as above, and the fields of `length_control.Controlled`: `"length"`, `"style"`, `"both"`."""

_MANY_FLIPS = 0.2


def judged_pairs(found: Iterable[Verdict], base: str) -> list[JudgedPair]:
    """The tally of each judge, form and pair of ways, in the order in which they first come.

    Args:
        found: All verdicts, outdated ones too.
        base: The way whose wins are losses of the other: `b` of its pairs.
    """
    groups: dict[tuple[str, str, frozenset[str]], list[Verdict]] = {}
    for each in newest(found):
        groups.setdefault((each.judge, each.form, frozenset((each.a, each.b))), []).append(each)
    return [_pair(group, *oriented(group[0], base)) for group in groups.values()]


def oriented(verdict: Verdict, base: str) -> tuple[str, str]:
    """Both ways of a verdict, the base last."""
    return (verdict.b, verdict.a) if verdict.a == base else (verdict.a, verdict.b)


def _pair(found: Sequence[Verdict], a: str, b: str) -> JudgedPair:
    judge, form = found[0].judge, found[0].form
    categories = list(dict.fromkeys(each.category for each in found)) if any(each.category for each in found) else []

    def count(some: Sequence[Verdict]) -> dict[str, Any]:
        return dict(plain_data(tally(some, a, b, form=form, judge=judge)))

    by_category = {name: count([each for each in found if each.category == name]) for name in categories}
    for each in by_category.values():
        del each["by_question"]
    return {"judge": judge, "form": form, **count(found), "by_category": by_category}


def controlled_of(rows: Sequence[Row], found: Iterable[Verdict], base: str) -> list[Controlled]:
    """Win rates at equal length and in equal style, of each judge and pair of ways.

    Args:
        rows: The rows that count.
        found: All verdicts, outdated ones too.
        base: The way whose wins are losses of the other: `b` of its pairs.
    """
    counted = newest(found)
    groups = {(each.judge, frozenset((each.a, each.b))): oriented(each, base) for each in counted}
    return [
        {"judge": judge, "a": a, "b": b, **plain_data(control(rows, counted, a, b, judge=judge))}
        for (judge, _), (a, b) in groups.items()
    ]


def judge_notes(pairs: Sequence[JudgedPair], *, model: str | None) -> list[Note]:
    """What weakens the verdicts of each judge.

    Args:
        pairs: `judged_pairs` of the verdicts.
        model: The model that wrote the answers.
    """
    notes: list[Note] = []

    def note(kind: str, text: str) -> None:
        notes.append({"kind": kind, "way": "", "text": text})

    for judge in dict.fromkeys(each["judge"] for each in pairs):
        mine = [each for each in pairs if each["judge"] == judge]
        if judge == model:
            note("judge", f"{judge} judges answers of its own, and models prefer their own texts.")
        both, flips = sum(each["pairs"] for each in mine), sum(each["flips"] for each in mine)
        if both and flips / both >= _MANY_FLIPS:
            note("judge", f"{judge} changed the winner with the order of the answers in {flips} of {both} comparisons.")
        places = [
            f"{100 * each['first_place']:.0f} % on {each['a']} and {each['b']} ({FORM_WORDS[each['form']]})"
            for each in mine
            if each["pairs"] and _favours_a_place(each["first_place_interval"])
        ]
        if places:
            text = f"Of its verdicts for one of the two, {judge} gave the answer that it saw first"
            note("judge", f"{text} {', '.join(places)}; a fair judge gives it 50 %.")
        none = sum(each["none"] for each in mine)
        if none:
            note("unread", f"{none} verdicts of {judge} are missing: the call failed, or the reply could not be read.")
    return notes


def _favours_a_place(interval: Sequence[float] | None) -> bool:
    return interval is not None and not interval[0] <= 0.5 <= interval[1]


def plain_data(value: Any) -> Any:
    """A value as JSON has it: frozen classes as objects, tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else str(name): plain_data(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(each) for each in value]
    return value
