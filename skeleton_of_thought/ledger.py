"""The open calls of an answer, a driver's reports on them, and the cost of all calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from skeleton_of_thought.text.assembly import PrefillEcho
from skeleton_of_thought.types import Call, Decoding, Point, Reply, Span, Stage, Usage

__all__ = ["End", "Key", "Ledger", "PointCalls", "Text"]

Key = tuple[int, int]
"""The position of a flow, and the id of one of its calls."""


class PointCalls(Protocol):
    """A point under way, which counts its own calls. Times are seconds since the answer began.

    Attributes:
        point: The point.
    """

    point: Point

    def start(self, stage: Stage, offset: float) -> None:
        """One of its calls is open from now on."""

    def end_retrieval(self, offset: float) -> None:
        """Its retrieval has ended, or an attempt at it."""

    def count(self, usage: Usage) -> None:
        """Adds the tokens of one of its calls."""


@dataclass
class Ledger:
    """The open calls of an answer, and the tokens, seconds and decoding of all its calls.

    Attributes:
        points: The points under way by index, which count their own calls, too.
        calls: The calls that are open or wait for room, by their ids.
        received: The number of characters that each of these calls has sent.
        echoes: Take a repeated prefill off the replies of calls that have one.
        usage: Tokens by stage.
        decoding: The work of a local engine by stage.
        spans: By stage, from the start of its first call to the end of its last one, in seconds since the answer began.
    """

    points: Mapping[int, PointCalls]
    calls: dict[int, Call] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    echoes: dict[int, PrefillEcho] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    decoding: dict[Stage, Decoding] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """More text of a call."""

    key: Key
    text: str


@dataclass(frozen=True)
class End:
    """A call has ended and its stream is closed."""

    key: Key
    reply: Reply
    error: BaseException | None
