"""Which outcomes are right, as tables: of a fault that lasts, and of one that meets a single request.

Never right, whatever the cell: an empty answer, text of other points that is lost or changed, an error that is neither
this package's nor the client's, a wait without an end, and anything that is left running.
"""

from __future__ import annotations

from fault_matrix.cells import Cell

ANSWER = "whole answer"
MERGED = "merged answer"
JOINED = "joined points after a failed merge"
FEWER = "answer with fewer points"
CUT_POINT = "answer with a cut point"
PLACEHOLDER = "answer with a failed point"
DIRECT = "direct answer"
CUT_DIRECT = "cut direct answer"
CLIENT_ERROR = "the client's error"
POINT_ERROR = "PointError"
SKELETON_ERROR = "SkeletonError"
REPLY_ERROR = "ReplyError"

OUTCOMES = (
    *(ANSWER, MERGED, JOINED, FEWER, CUT_POINT, PLACEHOLDER, DIRECT, CUT_DIRECT),
    *(CLIENT_ERROR, POINT_ERROR, SKELETON_ERROR, REPLY_ERROR),
)

POINT = "a failed point, by on_point_error"
EMPTY = "no skeleton, by on_empty_skeleton"

STAGES = ("route", "skeleton", "point", "direct", "merge")

EFFECTS = {
    # The call raises an error.
    "fails": "busy busy_later broken unavailable refused silent reset reset_amid hung_up stalled garbage truncated "
    "error_amid",
    # The reply says that it is complete, and has no text.
    "empty": "null empty",
    # The reply is none: the client raises an error, or gives nothing.
    "none": "html no_choices",
    # Half of a reply without any sign of its end. A client that passes this on as the end of a stream cannot be told
    # from a server that never says how its replies end.
    "half": "cut",
    # A whole reply that does not say why it ended.
    "unsaid": "no_reason",
    # The reply says that it was cut.
    "length": "length",
    "filtered": "filtered",
    # More text than any answer has.
    "too much": "endless huge",
    # Complete replies in unusual form.
    "whole": "no_mark duplicates tiny one_chunk",
}
EFFECT_OF = {fault: effect for effect, faults in EFFECTS.items() for fault in faults.split()}

LASTING: dict[str, tuple[tuple[str, ...], ...]] = {
    #            route             skeleton                point              direct                       merge
    "fails":    ((DIRECT,),        (CLIENT_ERROR,),       (POINT,),           (CLIENT_ERROR,),           (JOINED,)),
    "empty":    ((DIRECT,),        (EMPTY,),              (POINT,),           (REPLY_ERROR,),            (JOINED,)),
    "none":     ((DIRECT,),        (EMPTY, CLIENT_ERROR), (POINT,),           (REPLY_ERROR, CLIENT_ERROR), (JOINED,)),
    "half":     ((DIRECT,),        (CLIENT_ERROR, FEWER), (POINT,),           (CLIENT_ERROR, CUT_DIRECT), (JOINED,)),
    "unsaid":   ((ANSWER,),        (ANSWER, FEWER),       (ANSWER, POINT),    (DIRECT,),             (MERGED, JOINED)),
    "length":   ((DIRECT,),        (FEWER,),              (CUT_POINT,),       (CUT_DIRECT,),             (JOINED,)),
    "filtered": ((DIRECT,),        (FEWER, EMPTY),        (POINT,),           (CUT_DIRECT, REPLY_ERROR), (JOINED,)),
    "too much": ((DIRECT, ANSWER), (EMPTY, FEWER, ANSWER), (CUT_POINT, POINT), (CUT_DIRECT,),            (JOINED,)),
    "whole":    ((ANSWER,),        (ANSWER,),             (ANSWER,),          (DIRECT,),                 (MERGED,)),
}  # fmt: skip
"""The right outcomes of a fault that meets every request of the stage."""

RETRIED = {
    "route": (DIRECT, ANSWER),  # a router that fails is not asked again: the direct answer is always there
    "skeleton": (ANSWER,),
    "point": (ANSWER,),
    "merge": (MERGED,),
}
"""The right outcomes of a fault that meets one request, with `max_retries=1`."""

_SHOWS_TEXT = frozenset(("reset_amid", "hung_up", "stalled", "garbage", "truncated", "error_amid", "cut"))
"""Faults after some text. A reader of a stream may have it already, and what was read is not written again."""
_NOT_RETRIED = frozenset(("length", "filtered", "too much", "unsaid", "whole"))
"""Effects of which nobody expects that a second try mends them. A second try is no mistake either."""
_SIDE_BY_SIDE = frozenset(("batch", "abatch", "gather"))
"""Ways that ask a second question at the same time."""


def right_outcomes(cell: Cell) -> frozenset[str]:
    """The outcomes that are right for a cell."""
    stage, effect, policy = cell.stage, EFFECT_OF[cell.fault], cell.policy
    lasting = _by_policy(LASTING[effect][STAGES.index(stage)], cell)
    if effect == "unsaid" and cell.way in _SIDE_BY_SIDE:
        # If the sound question's reply comes first, the model is known to say why its replies end. Then a reply that
        # does not say so counts as broken off.
        lasting |= _by_policy(LASTING["half"][STAGES.index(stage)], cell)
    if not policy.once:
        return lasting
    if stage == "direct":  # the caller's own call: made again only where its reply was no reply
        return lasting | {DIRECT}
    retried = frozenset(RETRIED[stage])
    if effect in _NOT_RETRIED or stage == "route" or (cell.streamed and cell.fault in _SHOWS_TEXT):
        return lasting | retried
    return retried


def _by_policy(names: tuple[str, ...], cell: Cell) -> frozenset[str]:
    policy = cell.policy
    words = {
        POINT: PLACEHOLDER if policy.on_point_error == "placeholder" else POINT_ERROR,
        EMPTY: DIRECT if policy.on_empty_skeleton == "direct" else SKELETON_ERROR,
    }
    return frozenset(words.get(name, name) for name in names)
