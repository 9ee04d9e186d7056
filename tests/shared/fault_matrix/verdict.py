"""From what a caller got to the name of an outcome, and what is wrong with it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from fault_matrix import rules
from fault_matrix.cells import Cell
from fault_matrix.server import DIRECT, FAULTY_POINT, MERGED, POINTS, TITLES, Counts
from fault_matrix.surfaces import Seen

PACKAGES = ("skeleton_of_thought", "langchain_sot", "llama_index_sot")
PLACEHOLDER = "(This point could not be completed.)"
_ERRORS = (rules.POINT_ERROR, rules.SKELETON_ERROR, rules.REPLY_ERROR, rules.CLIENT_ERROR)


def joined(texts: tuple[str, ...]) -> str:
    """Points as they stand in an answer."""
    return "\n\n".join(f"{i}. {title}: {text}" for i, (title, text) in enumerate(zip(TITLES, texts, strict=False), 1))


WHOLE = joined(POINTS)
_FIRST, _FAULTY, _LAST = POINTS
_AROUND = (joined(("", ""))[:0] + f"1. {TITLES[0]}: {_FIRST}\n\n2. {TITLES[1]}: ", f"\n\n3. {TITLES[2]}: {_LAST}")


def judge(cell: Cell, seen: Seen, counts: Counts) -> tuple[str, list[str]]:
    """The name of the outcome, and all that is wrong with it."""
    outcome = _error_outcome(cell, seen) if seen.error is not None else _text_outcome(cell, seen)
    wrong = list(_faults(cell, seen, counts, outcome))
    if outcome not in rules.right_outcomes(cell):
        wrong.insert(0, f"{outcome}, not {' or '.join(sorted(rules.right_outcomes(cell)))}{_detail(seen)}")
    return outcome, wrong


def _detail(seen: Seen) -> str:
    if isinstance(seen.error, BaseException):
        return f" ({type(seen.error).__name__}: {str(seen.error)[:200]})"
    return f" ({seen.error[:300]!r})" if seen.error else f" ({seen.text[:200]!r})"


# --- errors ----------------------------------------------------------------------------------------------


def _error_outcome(cell: Cell, seen: Seen) -> str:
    error = seen.error
    if isinstance(error, str):
        return _command_error(cell, error)
    name = type(error).__name__
    if name in _ERRORS:
        return name
    if isinstance(error, ConnectionError | TimeoutError) and name != "PointTimeout":
        return rules.CLIENT_ERROR
    frames = traceback.extract_tb(error.__traceback__ if error is not None else None)
    # Where a worker's error comes through a queue, the frames of its origin are the last ones.
    own = bool(frames) and any(f"/{package}/" in frames[-1].filename for package in PACKAGES)
    return f"{name} of this package" if own else rules.CLIENT_ERROR


def _command_error(cell: Cell, error: str) -> str:
    """The command says in a line what happened; which of the errors it was is not in the line."""
    if not re.match(r"exit code 1: (.*\n)*sot: ", error) or "Traceback" in error:
        return "a crash"
    right = rules.right_outcomes(cell)
    return next((name for name in _ERRORS if name in right), "an error")


# --- texts -----------------------------------------------------------------------------------------------


def _text_outcome(cell: Cell, seen: Seen) -> str:
    text, merges = seen.text, cell.stage == "merge"
    if not text.strip():
        return "an empty answer"
    if cell.way == "live":
        return _live_outcome(cell, text)
    if merges and _is_set_apart(text, WHOLE):
        return rules.JOINED
    return {WHOLE: rules.ANSWER, MERGED: rules.MERGED, DIRECT: rules.DIRECT}.get(text) or _unusual(text)


def _is_set_apart(text: str, whole: str) -> bool:
    """Whether a text is the joined points, after what a reader had of the merge and a blank line."""
    before = text.removesuffix(whole)
    if not text.endswith(whole) or not before:
        return text == whole
    begun = before.removesuffix("\n\n")
    return begun != before and (MERGED.startswith(begun) or begun.startswith(MERGED))


def _unusual(text: str) -> str:
    before, after = _AROUND
    if text.startswith(before) and text.endswith(after):
        middle = text[len(before) : -len(after)]
        kept = middle.removesuffix(PLACEHOLDER).rstrip()
        if middle and (_FAULTY.startswith(kept) or kept.startswith(_FAULTY)):
            return rules.PLACEHOLDER if middle.endswith(PLACEHOLDER) else rules.CUT_POINT
    if text in (joined(POINTS[:2]), joined(POINTS[:1])):
        return rules.FEWER
    if DIRECT.startswith(text) or text.startswith(DIRECT):
        return rules.CUT_DIRECT
    return "another text"


def _canonical(text: str) -> str:
    return re.sub(r"[\s:]+", " ", text).strip()


def _live_outcome(cell: Cell, text: str) -> str:
    """The screen has the question before the answer, and the figures after it, and breaks lines."""
    shown = _canonical(text)
    if re.search(f"{re.escape(_canonical(DIRECT))} more0", shown):
        return rules.CUT_DIRECT
    for candidate, name in ((WHOLE, rules.ANSWER), (MERGED, rules.MERGED), (DIRECT, rules.DIRECT)):
        if _canonical(candidate) in shown:
            return rules.JOINED if cell.stage == "merge" and name == rules.ANSWER else name
    before, after = map(_canonical, _AROUND)
    if (found := re.search(f"{re.escape(before)} (.+?) {re.escape(after)}", shown)) is not None:
        return _unusual(_AROUND[0] + found[1] + _AROUND[1])
    if _canonical(joined(POINTS[:2])) in shown or _canonical(joined(POINTS[:1])) in shown:
        return rules.FEWER
    return rules.CUT_DIRECT if _canonical(DIRECT.rpartition(" ")[0]) in shown else "another text"


# --- what else has to hold -------------------------------------------------------------------------------


def _faults(cell: Cell, seen: Seen, counts: Counts, outcome: str) -> Iterator[str]:
    if not counts.met:
        yield "the fault met no request: the cell shows nothing"
    if counts.forgotten:
        yield "a request waited until the server ended it"
    if counts.unbounded:
        yield "an endless text was read until the server ended it"
    if seen.spared is not None and seen.spared != _unharmed(cell):
        yield f"the answer at its side is {seen.spared[:200]!r}"
    yield from _read_faults(cell, seen)
    number = str(FAULTY_POINT)
    if cell.way not in ("plain", "live"):
        if outcome == rules.PLACEHOLDER and list(seen.errors) != [number]:
            yield f"a point failed, and the errors are of {list(seen.errors)}"
        if outcome in (rules.ANSWER, rules.MERGED, rules.DIRECT) and seen.errors:
            yield f"a good answer reports errors: {seen.errors}"
    if outcome in (rules.CUT_POINT, rules.CUT_DIRECT) and rules.EFFECT_OF[cell.fault] in ("length", "too much"):
        reason = seen.reasons.get(number if outcome == rules.CUT_POINT else "", "length")
        if reason in (None, "stop"):
            yield f"a text was cut, and its finish reason is {reason!r}"
    for index, text in seen.partial.items():
        full = POINTS[index - 1]
        kept = text.removesuffix(PLACEHOLDER).rstrip()
        if not full.startswith(kept) and not (index == FAULTY_POINT and kept.startswith(full)):
            yield f"the error has another text of point {index}: {text[:200]!r}"
    empty = rules.EFFECT_OF[cell.fault] == "empty" and cell.stage in ("skeleton", "point")
    if empty and cell.policy.max_retries and not cell.policy.once and counts.met < 2:
        yield "an empty reply had no second try"


def _unharmed(cell: Cell) -> str:
    return {"direct": DIRECT, "merge": MERGED}.get(cell.stage, WHOLE)


def _read_faults(cell: Cell, seen: Seen) -> Iterator[str]:
    """Text that a reader of a stream got has to be the answer, or its beginning before an error."""
    if seen.read is None or cell.surface == "chain":  # its chunks say what is void; their sum is the text
        return
    if seen.error is None:
        if seen.read != seen.text and not (cell.stage == "merge" and seen.read.endswith(f"\n\n{seen.text}")):
            yield f"the stream has {seen.read[-300:]!r}, the answer {seen.text[-300:]!r}"
    elif not isinstance(seen.error, str):
        begun = [text for text in (WHOLE, DIRECT, MERGED) if text.startswith(seen.read)]
        too_much = rules.EFFECT_OF[cell.fault] == "too much"
        if not begun and not (too_much and seen.read.startswith((_AROUND[0], DIRECT, MERGED))):
            yield f"before the error the stream had {seen.read[-300:]!r}"
