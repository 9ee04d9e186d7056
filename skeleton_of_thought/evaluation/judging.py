"""Has a model judge pairs of answers: blind, in both orders, as they were written and as plain paragraphs."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from skeleton_of_thought.errors import InvalidInput, SotError
from skeleton_of_thought.evaluation.answering import AnswerOnce, Backend
from skeleton_of_thought.evaluation.forms import plain
from skeleton_of_thought.evaluation.journal import Journal, sha256_of
from skeleton_of_thought.evaluation.judge_prompt import DEFAULT_JUDGE_PROMPT, REMINDER, JudgePrompt, read_verdict
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.runner import SAME_FAILURES, Job
from skeleton_of_thought.evaluation.spending import Cost, Spending
from skeleton_of_thought.evaluation.verdicts import FORMS, TIE, Form, Verdict, to_json
from skeleton_of_thought.evaluation.ways import WAYS
from skeleton_of_thought.evaluation.workers import work_in_threads
from skeleton_of_thought.parsing.parser import without_reasoning
from skeleton_of_thought.settings import Settings

__all__ = [
    "Judge",
    "JudgeOutcome",
    "JudgeProgress",
    "Judgement",
    "Judging",
    "judge_all",
    "judgements_of",
    "pairs_of",
    "plan_judgements",
    "shown",
]

_BASE = "normal"
_KEY_DIGITS = 20
_LONGEST_REASON = 4000
_LONGEST_END = 200
_TRIES = 2
_UNREAD = "the reply has no verdict that can be read"
_SAME_TEXT = "Both answers have the same text."
_NO_REPLY = "ReplyError"
"""The type of the error of a reply that came, without a text."""


@dataclass(frozen=True)
class Judgement:
    """A verdict that is to be had.

    Attributes:
        key: What is judged: question, both texts, ways, repeat, judge, prompt, form, order.
        number: The question's number.
        id: The file's own name for it.
        category: Its category.
        repeat: Which repeat of the answers.
        question: Its text.
        a: A way.
        b: Another one; `a` comes before it in the run's order of ways.
        first: The one whose answer is shown first.
        form: How the answers are shown.
        judge: The judge's name.
        texts: The two answers, in the order in which they are shown.
    """

    key: str
    number: int
    id: str
    category: str
    repeat: int
    question: str
    a: str
    b: str
    first: str
    form: Form
    judge: str
    texts: tuple[str, str]

    @property
    def second(self) -> str:
        """The way whose answer is shown second."""
        return self.b if self.first == self.a else self.a


def pairs_of(ways: Sequence[str], *, base: str | None = None, every: bool = False) -> list[tuple[str, str]]:
    """The pairs of ways that are compared, in the order of the ways.

    Args:
        ways: The ways of the run.
        base: The way that the others are compared to; None for `normal` if it is one of them, else the first.
        every: Whether all pairs are compared, not only those with the base.

    Raises:
        InvalidInput: There are fewer than two ways, or the base is none of them.
    """
    if len(ways) < 2:
        raise InvalidInput("A judge compares two ways: name two or more, such as --ways normal,sot.")
    if base is None:
        base = _BASE if _BASE in ways else ways[0]
    elif base not in ways:
        raise InvalidInput(f"The way {base!r} is none of this run: {', '.join(ways)}.")
    return [pair for pair in itertools.combinations(ways, 2) if every or base in pair]


def shown(row: Row, form: str) -> str:
    """An answer as it is shown.

    Args:
        row: The answer.
        form: `"written"` or `"plain"`.
    """
    return row.text.strip() if form == "written" else plain(row.plain or row.text)


def judgements_of(
    rows: Iterable[Row],
    pairs: Iterable[tuple[str, str]],
    *,
    judge: str,
    prompt: JudgePrompt = DEFAULT_JUDGE_PROMPT,
    forms: Sequence[Form] = FORMS,
) -> list[Judgement]:
    """All judgements of a run, by question; the two orders of a pair come one after the other.

    Args:
        rows: The answers; failed ones have no judgement, and of several tries of an answer the last counts.
        pairs: See `pairs_of`.
        judge: The judge's name.
        prompt: Its prompt.
        forms: How the answers are shown.
    """
    answers = {(row.number, row.repeat, row.way): row for row in rows}
    places = dict.fromkeys((number, repeat) for number, repeat, _ in sorted(answers))
    found = []
    pairs = list(pairs)
    for (number, repeat), (a, b), form in itertools.product(places, pairs, forms):
        both = [answers.get((number, repeat, way)) for way in (a, b)]
        one, other = both
        if one is None or other is None or not (one.ok and other.ok):
            continue
        texts = {a: shown(one, form), b: shown(other, form)}
        # Which order is asked first changes, so that a run that ends early has both.
        orders = ((a, b), (b, a)) if (number + repeat) % 2 else ((b, a), (a, b))
        for first, second in orders:
            shown_texts = (texts[first], texts[second])
            parts = [judge, prompt.sha256, form, one.question, repeat, first, second, *shown_texts]
            key = sha256_of(json.dumps(parts))[:_KEY_DIGITS]
            about = {"number": number, "id": one.id, "category": one.category, "repeat": repeat}
            ways = {"a": a, "b": b, "first": first, "form": form}
            found.append(Judgement(key=key, question=one.question, judge=judge, texts=shown_texts, **about, **ways))
    return found


def plan_judgements(
    judgements: Iterable[Judgement], *, done: Iterable[Verdict] = (), retry: bool = False
) -> list[Judgement]:
    """The judgements that are left; nothing is asked twice.

    Args:
        judgements: All of the run.
        done: The verdicts there are.
        retry: Whether those that could not be had are asked for again.
    """
    newest = {verdict.key: verdict for verdict in done}
    kept = {key for key, verdict in newest.items() if verdict.winner or not retry}
    return list({each.key: each for each in judgements if each.key not in kept}.values())


# --- one verdict ----------------------------------------------------------------------------------------


class Judging(Protocol):
    """Makes the verdict of a judgement. It may have a method `cancel` that ends all calls, from any thread."""

    def __call__(self, judgement: Judgement, /) -> Verdict:
        """The verdict. An error of the judge is one without a winner; an exception ends the run."""
        ...


class Judge:
    """A model that judges. Its calls have the limits, retries and waiting times of any answer.

    A reply without a verdict is asked for once more. Answers with the same text are a tie without a call.

    Args:
        backend: The model.
        name: Its name, as in the judgements.
        prompt: Its prompt.
        settings: How its calls are made.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        name: str,
        prompt: JudgePrompt = DEFAULT_JUDGE_PROMPT,
        settings: Settings | None = None,
    ) -> None:
        self._answer = AnswerOnce(backend, model=name, settings=settings, plain=str)
        self._prompt = prompt

    def __call__(self, judgement: Judgement) -> Verdict:
        """The verdict of a judgement; see `Judging`.

        Raises:
            KeyboardInterrupt: After `cancel`.
        """
        if judgement.texts[0] == judgement.texts[1]:
            return _verdict(judgement, [], winner=TIE, reason=_SAME_TEXT)
        text = self._prompt.fill(judgement.question, *judgement.texts)
        replies: list[Row] = []
        for attempt in range(_TRIES):
            reply = self._ask(judgement, f"{text}\n\n{REMINDER}" if attempt else text)
            replies.append(reply)
            if reply.error_type not in ("", _NO_REPLY):
                return _verdict(judgement, replies, error=reply.error)
            text_of_reply = without_reasoning(reply.text)
            place = read_verdict(text_of_reply) if reply.ok else None
            if place is not None:
                winner = {"first": judgement.first, "second": judgement.second}.get(place, TIE)
                return _verdict(judgement, replies, winner=winner, reason=text_of_reply)
        error = reply.error or f"{_UNREAD}: {' '.join(text_of_reply.split())[-_LONGEST_END:]!r}"
        return _verdict(judgement, replies, error=error, reason=text_of_reply)

    def cancel(self) -> None:
        """Ends all calls at once, from any thread."""
        self._answer.cancel()

    def _ask(self, judgement: Judgement, text: str) -> Row:
        question = Question(judgement.number, text, judgement.id)
        return self._answer(Job(question, WAYS["normal"], judgement.repeat, judgement.key))


def _verdict(
    judgement: Judgement, replies: Sequence[Row], *, winner: str = "", reason: str = "", error: str = ""
) -> Verdict:
    reason = reason.strip()
    return Verdict(
        key=judgement.key,
        number=judgement.number,
        id=judgement.id,
        a=judgement.a,
        b=judgement.b,
        first=judgement.first,
        form=judgement.form,
        judge=judgement.judge,
        winner=winner,
        repeat=judgement.repeat,
        category=judgement.category,
        reason=reason if len(reason) <= _LONGEST_REASON else "…" + reason[-_LONGEST_REASON:],
        error=error,
        tries=len(replies),
        calls=sum(reply.calls for reply in replies),
        input_tokens=sum(reply.input_tokens for reply in replies),
        cached_tokens=sum(reply.cached_tokens for reply in replies),
        output_tokens=sum(reply.output_tokens for reply in replies),
        seconds=sum(reply.seconds for reply in replies),
        at=replies[0].at if replies else "",
    )


# --- all verdicts ---------------------------------------------------------------------------------------


class JudgeProgress:
    """Gets told what the judging does; one call at a time. This one tells nobody."""

    def begins(self, judgement: Judgement) -> None:
        """A judgement begins."""

    def ends(self, judgement: Judgement, verdict: Verdict) -> None:
        """A judgement has ended, and its verdict is on the disk."""


@dataclass(frozen=True)
class JudgeOutcome:
    """How the judging ended.

    Attributes:
        ended: `"done"`; `"budget"` if the budget allows no further one; `"stopped"` if `stop` said so.
        verdicts: The verdicts of this command, in the order in which they came.
        left: The judgements that are still to be made.
    """

    ended: Literal["done", "budget", "stopped"]
    verdicts: tuple[Verdict, ...]
    left: int


def judge_all(
    judgements: Sequence[Judgement],
    judge: Judging,
    *,
    journal: Journal,
    parallel: int = 1,
    spending: Spending | None = None,
    progress: JudgeProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> JudgeOutcome:
    """Makes verdicts, one after the other or several side by side, and appends each to the journal at once.

    An exception such as `KeyboardInterrupt` ends all calls and is raised; verdicts in the journal stay.

    Args:
        judgements: See `plan_judgements`; all of one judge.
        judge: The judge.
        journal: Gets the verdicts.
        parallel: The most judgements at a time.
        spending: Counts what is spent; the judging ends before its budget is passed.
        progress: Gets told what happens.
        stop: Asked before each judgement; True ends the judging once those under way have ended.

    Raises:
        SotError: The verdicts cannot be written. Or the judge fails always: the last `SAME_FAILURES` judgements failed
            with the same error, or so many replies from the first on have no verdict. What there is is kept, and the
            same command goes on.
    """
    run = _Run(judgements, judge, journal, spending or Spending(), progress or JudgeProgress(), stop)
    work_in_threads(run.work, run.cancel, min(parallel, len(judgements)), name="sot-judge")
    return run.outcome()


class _Run:
    def __init__(  # noqa: PLR0917 - as `judge_all` has them
        self,
        judgements: Sequence[Judgement],
        judge: Judging,
        journal: Journal,
        spending: Spending,
        progress: JudgeProgress,
        stop: Callable[[], bool],
    ) -> None:
        self._left, self._judge, self._journal = iter(judgements), judge, journal
        self._count = len(judgements)
        self._spending, self._progress, self._stop = spending, progress, stop
        self._lock = threading.Lock()
        self._ended: Literal["done", "budget", "stopped"] = "done"
        self._verdicts: list[Verdict] = []
        self._failures = _Failures()
        self._next: Judgement | None = next(self._left, None)
        self._cancelled = False

    def outcome(self) -> JudgeOutcome:
        return JudgeOutcome(self._ended, tuple(self._verdicts), self._count - len(self._verdicts))

    def cancel(self) -> None:
        self._cancelled = True
        if (cancel := getattr(self._judge, "cancel", None)) is not None:
            cancel()

    def work(self) -> None:
        """Makes verdicts until none is left."""
        while (taken := self._take()) is not None:
            judgement, reserved = taken
            cost = None
            try:
                verdict = self._judge(judgement)
                cost = Cost(verdict.calls, verdict.input_tokens + verdict.output_tokens)
                if self._cancelled:  # its calls may have been cut off
                    return
                with self._lock:
                    self._journal.append(to_json(verdict))
                    self._verdicts.append(verdict)
                    self._progress.ends(judgement, verdict)
                    self._failures.check(verdict)
            finally:
                self._spending.end(_kind(judgement), reserved, cost)

    def _take(self) -> tuple[Judgement, Cost] | None:
        with self._lock:
            judgement = self._next
            if self._cancelled or self._ended != "done" or judgement is None:
                return None
            if self._stop():
                self._ended = "stopped"
                return None
            if (reserved := self._spending.begin(_kind(judgement))) is None:
                self._ended = "budget"
                return None
            self._next = next(self._left, None)
            self._progress.begins(judgement)
            return judgement, reserved


def _kind(judgement: Judgement) -> str:
    return f"judge:{judgement.judge}"


_VARYING = re.compile(r"\d+|0x[0-9a-f]+")


class _Failures:
    """Notices a judge that fails always."""

    def __init__(self) -> None:
        self._same, self._error = 0, ""
        self._unread, self._was_read = 0, False

    def check(self, verdict: Verdict) -> None:
        if not verdict.tries:  # nobody was asked
            return
        if verdict.winner:
            self._same, self._was_read = 0, True
            return
        if verdict.error.startswith(_UNREAD):
            # Single replies without a verdict are counted as none, but a judge that never writes one is no judge.
            self._same, self._unread = 0, self._unread + 1
            if self._unread >= SAME_FAILURES and not self._was_read:
                raise SotError(
                    f"None of the first {self._unread} judgements by {verdict.judge} has a verdict that can be read. "
                    f"The last reply ended with {verdict.error.partition(': ')[2]}. Name a judge that follows its "
                    "prompt, or change the prompt; with --retry these are asked for once more."
                )
            return
        error = _VARYING.sub("#", verdict.error)
        self._same = self._same + 1 if error == self._error else 1
        self._error = error
        if self._same >= SAME_FAILURES:
            raise SotError(
                f"The last {self._same} judgements by {verdict.judge} failed with the same error: {verdict.error} "
                "Nothing is lost: the same command goes on, and with --retry it asks for the failed ones once more."
            )
