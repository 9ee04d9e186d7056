"""The win rates of a report, in all and by category."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from skeleton_of_thought.evaluation.report.wording import NONE, judge_words, one_line

__all__ = ["WinRate", "win_rates"]


@dataclass(frozen=True)
class WinRate:
    """How often a judge prefers a way to another.

    Attributes:
        way: The way.
        other: The way that it is compared to: the base where it is one of the two.
        judge: Who judged.
        form: In which form.
        category: Of which category of questions; empty for all questions.
        tally: All its figures, see `verdicts.Tally`.
    """

    way: str
    other: str
    judge: str
    form: str
    category: str
    tally: Mapping[str, Any]

    @property
    def rate(self) -> float:
        """`(wins + ties / 2) / questions`."""
        return float(self.tally["rate"])

    @property
    def interval(self) -> Sequence[float] | None:
        """The ends of its interval, at 95 %; None where there is none."""
        return cast("Sequence[float] | None", self.tally["interval"])

    def label(self, most: int) -> str:
        """Its name in a plot, of at most so many letters for each part."""
        if self.category:
            return f"· {one_line(self.category, most)}"
        who = one_line(judge_words(self.judge), most)
        return f"{one_line(self.way, most)} against {one_line(self.other, most)}\n{who}, {self.form}"


def win_rates(figures: Mapping[str, Any]) -> Iterator[WinRate]:
    """All win rates: of each judge, form and pair of ways, each followed by those of its categories."""
    for pair in figures["verdicts"]:
        if pair["rate"] is not None:
            yield WinRate(pair["a"], pair["b"], pair["judge"], pair["form"], "", pair)
        for category, tally in pair["by_category"].items():
            if tally["rate"] is not None:
                yield WinRate(pair["a"], pair["b"], pair["judge"], pair["form"], category or NONE, tally)
