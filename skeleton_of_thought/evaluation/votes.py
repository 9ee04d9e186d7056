"""A blind page to vote on pairs of answers, and the votes that it saves.

The page has no way's name: a pair is a digest of its answers, which only the rows of the run lead back from. A browser
draws an id for who votes, so that the votes of several people on the same pair all count.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.evaluation.judging import shown
from skeleton_of_thought.evaluation.rows import Row
from skeleton_of_thought.evaluation.single_page import filled, json_block, write_text
from skeleton_of_thought.evaluation.verdicts import FORMS, HUMAN, TIE, Form, Verdict
from skeleton_of_thought.small_files import parse_json, read_bounded

__all__ = ["count_votes", "numbered_votes", "voters", "write_vote_page"]

_KIND, _VERSION = "answer-votes", 1
_MOST_BYTES = 64_000_000
_CHOICES = ("left", "right", TIE)
_BASE = "normal"
_VOTER = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True)
class _Pair:
    """Two answers to vote on; `left` is the one that the page shows first."""

    id: str
    form: Form
    left: Row
    right: Row

    @property
    def same(self) -> bool:
        return shown(self.left, self.form) == shown(self.right, self.form)


def write_vote_page(
    path: str | Path,
    rows: Iterable[Row],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    forms: Sequence[Form] = ("written",),
    seed: int = 0,
) -> int:
    """Writes the page, and returns how many pairs it asks for.

    Answers with the same text are not asked for: `count_votes` counts them as ties.

    Args:
        path: The page's file, written completely or not at all.
        rows: The answers; failed ones are left out, and of several tries of an answer the last counts.
        pairs: The two ways of each comparison; by default each way against `normal`, or against the first.
        forms: How answers are shown; each pair is asked for in each.
        seed: Which answer stands on which side.

    Raises:
        InvalidInput: There is no pair with two different answers.
        SotError: The file cannot be written.
    """
    rows = _answers(rows)
    wanted = {frozenset(pair) for pair in (_against_the_base(rows) if pairs is None else pairs)}
    asked = [
        pair
        for pair in _pairs(rows, forms, seed)
        if frozenset((pair.left.way, pair.right.way)) in wanted and not pair.same
    ]
    if not asked:
        raise InvalidInput(
            "There is nothing to vote on: no question has different answers of two ways. Run at least two ways."
        )
    run = hashlib.sha256("".join(pair.id for pair in asked).encode()).hexdigest()[:16]
    data = {
        "kind": _KIND,
        "version": _VERSION,
        "run": run,
        "seed": seed,
        "pairs": [
            {
                "id": pair.id,
                "question": pair.left.question,
                "left": shown(pair.left, pair.form),
                "right": shown(pair.right, pair.form),
            }
            for pair in asked
        ],
    }
    template = files("skeleton_of_thought.evaluation").joinpath("vote_page.html").read_text(encoding="utf-8")
    write_text(Path(path), filled(template, {"data": json_block(data)}))
    return len(asked)


def count_votes(path: str | Path, rows: Iterable[Row], *, ways: Sequence[str] = ()) -> list[Verdict]:
    """The votes of a file that the page saved, as verdicts of the judge `HUMAN`.

    A pair that was voted on twice counts once, with its last vote. Votes of the same person have the same keys in all
    files; a file that does not say whose votes it has counts as one of a person of its own. Pairs of the same text are
    ties, in the comparisons and forms that the file has votes for.

    Args:
        path: The file.
        rows: The answers of the run.
        ways: The run's order of ways: a verdict's `a` comes before its `b`. By default that of the rows.

    Raises:
        InvalidInput: The file cannot be read, is no file of votes, or has votes for answers that are not in `rows`.
    """
    data = _read(path)
    rows = _answers(rows)
    order = {way: place for place, way in enumerate(dict.fromkeys([*ways, *_ways(rows)]))}
    known = {pair.id: pair for pair in _pairs(rows, FORMS, data["seed"])}
    votes = {vote["pair"]: vote for vote in data["votes"]}
    voter = data["voter"]
    if not votes.keys() & known.keys():
        raise InvalidInput(f"{str(path)!r} has votes on another run: none of its pairs is among these answers.")
    for place, vote in enumerate(data["votes"], 1):
        if vote["pair"] not in known:
            raise InvalidInput(
                f"{str(path)!r}: vote {place} is on a pair that is not among these answers. Vote on a page of this run."
            )
    compared = {_comparison(known[name]) for name in votes}
    verdicts = []
    for name, pair in known.items():
        if name in votes:
            choice = votes[name]["choice"]
            winner = {"left": pair.left.way, "right": pair.right.way}.get(choice, TIE)
            verdicts.append(_verdict(pair, voter, winner, order, at=votes[name].get("at", "")))
        elif pair.same and _comparison(pair) in compared:
            verdicts.append(_verdict(pair, voter, TIE, order, reason="Both answers have the same text."))
    return verdicts


def numbered_votes(votes: Sequence[Verdict], rows: Iterable[Row], *, seed: int = 0) -> list[Verdict]:
    """The votes with the numbers, ids and categories that their questions have in these rows.

    Args:
        votes: What `count_votes` returned, perhaps long ago; those on answers that are not in `rows` stay as they are.
        rows: The answers.
        seed: That of the page.
    """
    known = {pair.id: pair.left for pair in _pairs(_answers(rows), FORMS, seed)}
    return [
        vote
        if (row := known.get(vote.key.rpartition("-")[2])) is None
        else replace(vote, number=row.number, id=row.id, category=row.category)
        for vote in votes
    ]


def voters(verdicts: Iterable[Verdict]) -> int:
    """How many people gave the votes among these verdicts."""
    return len({_voter(each.key) for each in verdicts if each.judge == HUMAN})


# --- pairs ------------------------------------------------------------------------------------------------


def _answers(rows: Iterable[Row]) -> list[Row]:
    latest = {row.key: row for row in rows}
    return [row for row in latest.values() if row.ok and row.text.strip()]


def _ways(rows: Iterable[Row]) -> list[str]:
    return sorted(dict.fromkeys(row.way for row in rows), key=lambda way: way != _BASE)


def _against_the_base(rows: Iterable[Row]) -> list[tuple[str, str]]:
    base, *others = _ways(rows) or [""]
    return [(base, other) for other in others]


def _pairs(rows: Iterable[Row], forms: Iterable[str], seed: int) -> Iterator[_Pair]:
    """All pairs of answers to the same question in the same repeat, in the order of the questions."""
    by_question: dict[tuple[int, int, str], list[Row]] = {}
    for row in rows:
        by_question.setdefault((row.number, row.repeat, row.question), []).append(row)
    for form in FORMS:
        for _, answers in sorted(by_question.items()) if form in forms else ():
            for one, other in itertools.combinations(sorted(answers, key=lambda row: row.key), 2):
                if one.way != other.way:
                    yield _pair(one, other, form, seed)


def _pair(one: Row, other: Row, form: Form, seed: int) -> _Pair:
    # The texts belong to what was voted on: a row that was made anew has the same key and another text.
    told = [str(seed), form, one.key, other.key, shown(one, form), shown(other, form)]
    digest = hashlib.sha256("\0".join(told).encode("utf-8", "surrogatepass")).digest()
    left, right = (one, other) if digest[-1] % 2 else (other, one)
    return _Pair(digest.hex()[:20], form, left, right)


def _comparison(pair: _Pair) -> tuple[frozenset[str], str]:
    return frozenset((pair.left.way, pair.right.way)), pair.form


def _key(voter: str, pair: str) -> str:
    return f"{HUMAN}-{voter}-{pair}"


def _voter(key: str) -> str:
    return key.removeprefix(f"{HUMAN}-").rpartition("-")[0]


def _verdict(
    pair: _Pair, voter: str, winner: str, order: Mapping[str, int], *, at: str = "", reason: str = ""
) -> Verdict:
    a, b = sorted((pair.left.way, pair.right.way), key=order.__getitem__)
    row = pair.left
    return Verdict(
        key=_key(voter, pair.id),
        number=row.number,
        id=row.id,
        a=a,
        b=b,
        first=pair.left.way,
        form=pair.form,
        judge=HUMAN,
        winner=winner,
        repeat=row.repeat,
        category=row.category,
        reason=reason,
        at=at,
    )


# --- the file -------------------------------------------------------------------------------------------


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = read_bounded(path, _MOST_BYTES)
        data = parse_json(content)
    except OSError as error:
        raise InvalidInput(f"The votes cannot be read: {str(path)!r}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInput(f"{str(path)!r} is no file of votes: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != _KIND:
        raise InvalidInput(f"{str(path)!r} is no file of votes: save one from the page to vote on.")
    if data.get("version") != _VERSION:
        raise InvalidInput(f"{str(path)!r} has votes in a form that this version cannot read.")
    if not isinstance(data.get("seed"), int) or not isinstance(data.get("votes"), list):
        raise InvalidInput(f"{str(path)!r} is no complete file of votes: it lacks the seed or the votes.")
    voter = data.setdefault("voter", hashlib.sha256(content).hexdigest()[:16])
    if not isinstance(voter, str) or not _VOTER.fullmatch(voter):
        raise InvalidInput(f"{str(path)!r} has no readable voter: save the votes again from the page.")
    if not data["votes"]:
        raise InvalidInput(f"{str(path)!r} has no votes: vote on the page, then save the votes again.")
    for place, vote in enumerate(data["votes"], 1):
        right = isinstance(vote, dict) and isinstance(vote.get("pair"), str) and vote.get("choice") in _CHOICES
        if not right or not isinstance(vote.get("at", ""), str):
            raise InvalidInput(
                f"{str(path)!r}: vote {place} needs a pair and a choice, one of {', '.join(_CHOICES)}; nothing counts."
            )
    return data
