"""`sot eval` has answers judged."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skeleton_of_thought._cli.eval_view import EvalView
from skeleton_of_thought._cli.local_backend import DEMO
from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.spending import Spending

if TYPE_CHECKING:
    from skeleton_of_thought._cli.eval_plan import EvalPlan
    from skeleton_of_thought._cli.eval_records import Records

__all__ = ["Judging", "make_verdicts", "verdicts_done"]


@dataclass(frozen=True)
class Judging:
    """How answers are judged."""

    judges: Sequence[ModelSpec]
    model: str
    prompt_text: str = ""

    @classmethod
    def of(cls, args: Namespace, model: str) -> Judging:
        return cls([ModelSpec.parse(each) for each in args.judge], model)

    @property
    def names(self) -> list[str]:
        return [judge.name or DEMO for judge in self.judges]

    def warn(self, note: Callable[[str], object]) -> None:
        pass


def make_verdicts(plan: EvalPlan, records: Records, spending: Spending, view: EvalView, *, retry: bool) -> None:
    raise InvalidInput("not yet")


def verdicts_done(plan: EvalPlan, records: Records) -> tuple[int, int]:
    return 0, 0
