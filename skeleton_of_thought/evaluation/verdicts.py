"""Verdicts on two answers to the same question, by a judge or a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from skeleton_of_thought.errors import InvalidInput

__all__ = ["FORMS", "HUMAN", "TIE", "Form", "Verdict", "from_json", "to_json"]

Form = Literal["written", "plain"]
FORMS: tuple[Form, ...] = get_args(Form)
"""How the answers are shown: as they were written, or as plain paragraphs without marks (`forms.plain`)."""
TIE = "tie"
HUMAN = "human"
"""The judge of votes."""


@dataclass(frozen=True)
class Verdict:
    """One try of a verdict.

    Attributes:
        key: What was judged: both texts, judge, prompt, form, order.
        number: The question's number.
        id: The file's own name for the question.
        a: One way.
        b: The other way.
        first: The way whose answer was shown first; empty where that is unknown.
        form: How the answers were shown.
        judge: The judge's model, or `HUMAN`.
        winner: A way, `TIE`, or empty for none: the judge failed, or its reply could not be read twice.
        repeat: Which repeat of the answers.
        category: The question's category.
        reason: The judge's reasons.
        error: Why there is none, in one line.
        tries: The replies that were asked for.
        calls: The calls opened.
        input_tokens: Tokens of the judge's prompts.
        cached_tokens: Those of them that its server had computed before.
        output_tokens: Tokens of its replies.
        seconds: How long it took.
        at: When it began, UTC, ISO 8601.
    """

    key: str
    number: int
    id: str
    a: str
    b: str
    first: str
    form: str
    judge: str
    winner: str
    repeat: int = 1
    category: str = ""
    reason: str = ""
    error: str = ""
    tries: int = 1
    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    at: str = ""


_FIELDS = {each.name for each in dataclasses.fields(Verdict)}


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data for `json.dumps`."""
    return dataclasses.asdict(verdict)


def from_json(data: Mapping[str, Any]) -> Verdict:
    """The verdict of plain data. Fields that are not known are left out.

    Raises:
        InvalidInput: A field is missing.
    """
    try:
        return Verdict(**{name: value for name, value in data.items() if name in _FIELDS})
    except TypeError as error:
        raise InvalidInput(f"a verdict has fields of another form: {error}") from error
