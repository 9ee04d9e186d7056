"""The rows, verdicts and votes in the folder of `sot eval`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skeleton_of_thought._cli.eval_plan import Answers, EvalPlan
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation import rows as row_files
from skeleton_of_thought.evaluation import verdicts as verdict_files
from skeleton_of_thought.evaluation.journal import Journal, read_journal
from skeleton_of_thought.evaluation.numbering import numbered
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.verdicts import Verdict
from skeleton_of_thought.evaluation.votes import count_votes

__all__ = ["Records", "opened"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Records:
    """What the folder of a run holds.

    Attributes:
        rows: Gets the rows of answers; None if no answers are made.
        verdicts: Gets verdicts; None if nothing is judged.
        votes: Gets votes; None if none are counted.
        answers: The answers that are to be made; None if none are.
        kept: The objects of the files that no command writes now, by the file's name.
    """

    folder: Path
    rows: Journal | None
    verdicts: Journal | None
    votes: Journal | None
    answers: Answers | None = None
    kept: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def all_rows(self) -> list[Row]:
        """All rows in the order in which they were written, numbered as in the present file of questions."""
        found = self._read("rows", self.rows, row_files.from_json)
        if self.answers is None:
            return numbered(found)
        by_key: dict[str, Question] = {}
        for job in self.answers.jobs:
            by_key.setdefault(job.key, job.question)
        return numbered(found, self.answers.questions, by_key=by_key)

    def all_verdicts(self) -> list[Verdict]:
        """All verdicts of judges."""
        return self._read("verdicts", self.verdicts, verdict_files.from_json)

    def all_votes(self) -> list[Verdict]:
        """All votes, in the order in which they were counted."""
        return self._read("votes", self.votes, verdict_files.from_json)

    def _read(self, name: str, journal: Journal | None, convert: Callable[[Mapping[str, Any]], _T]) -> list[_T]:
        found: list[_T] = []
        for number, each in enumerate(self.kept[name] if journal is None else journal.rows, 1):
            try:
                found.append(convert(each))
            except InvalidInput as error:
                path = str(self.folder / f"{name}.jsonl")
                raise InvalidInput(f"{path!r}, line {number}: {error}. Name another folder.") from error
        return found

    def count(self, files: Sequence[str], ways: Sequence[str]) -> list[Verdict]:
        """The votes of files that are not in the folder yet. All files are checked; nothing is written.

        Of several votes of a person on the same pair the one of the latest time counts, whichever file comes first.

        Raises:
            InvalidInput: A file cannot be read, or has votes on other answers.
        """
        rows = self.all_rows()
        before = {vote.key: vote for vote in self.all_votes()}
        counted = dict(before)
        for vote in (vote for file in files for vote in count_votes(file, rows, ways=ways)):
            there = counted.get(vote.key)
            if there is None or (vote.winner != there.winner and vote.at >= there.at):
                counted[vote.key] = vote
        return [vote for key, vote in counted.items() if vote is not before.get(key)]


@contextlib.contextmanager
def opened(plan: EvalPlan, notice: Callable[[str], object]) -> Iterator[Records]:
    """Opens the files of a run: those that are written for this process alone, the others as they are.

    Raises:
        InvalidInput: Another process writes one of them, or a line in it cannot be read.
    """
    written = {"rows": plan.answers is not None, "verdicts": plan.judging is not None, "votes": bool(plan.votes)}
    with contextlib.ExitStack() as closing:
        if any(written.values()):
            try:
                plan.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidInput(
                    f"The folder {str(plan.folder)!r} cannot be made: {error.strerror or error}."
                ) from error
        journals: dict[str, Journal | None] = {}
        kept: dict[str, Sequence[Mapping[str, Any]]] = {}
        for name, writes in written.items():
            path = plan.folder / f"{name}.jsonl"
            journals[name] = closing.enter_context(Journal(path, notice=notice)) if writes else None
            if not writes:
                kept[name] = read_journal(path) if path.exists() else ()
        yield Records(plan.folder, **journals, answers=plan.answers, kept=kept)
