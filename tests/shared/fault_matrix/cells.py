"""The cells of the matrix: a fault, its stage, a policy, and the way to ask. All of them, and a sample."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

FAULTS = {
    "busy": "status 429",
    "busy_later": "status 429 with Retry-After",
    "broken": "status 500",
    "unavailable": "status 503",
    "refused": "the connection is refused",
    "silent": "no byte comes",
    "reset": "the connection is reset before the first byte",
    "reset_amid": "the connection is reset in the middle",
    "hung_up": "the server hangs up in the middle",
    "stalled": "nothing more comes after the middle",
    "endless": "the text has no end",
    "garbage": "bytes that are no text",
    "truncated": "JSON that breaks off",
    "html": "a page of HTML with status 200",
    "error_amid": "an error in the stream, or in place of the reply, with status 200",
    "cut": "half of the text, then the end without a word",
    "no_mark": "a stream without [DONE]",
    "no_reason": "no finish reason",
    "length": 'half of the text, finish reason "length"',
    "filtered": 'half of the text, finish reason "content_filter"',
    "no_choices": "no choices",
    "null": "null in place of the text",
    "empty": "an empty text",
    "duplicates": "first and last chunks twice",
    "huge": "one chunk with two megabytes",
    "tiny": "a chunk for each character",
    "one_chunk": "one chunk for the whole text",
}
WAITS = frozenset(("silent", "stalled", "endless"))
"""Faults that never end by themselves."""

SIX = ("invoke", "stream", "batch", "ainvoke", "astream", "abatch")
ENGINE = ("query", "stream", "gather", "aquery", "astream", "events")
WAYS = {
    "chain": SIX,
    "chat": SIX,
    "engine": ENGINE,
    "openai_like": ENGINE,
    "command": ("plain", "json", "events", "live"),
}
_STREAMED = frozenset(("stream", "astream", "events", "plain", "live"))
"""Ways whose reader gets text while it is written."""


@dataclass(frozen=True)
class Policy:
    """The settings that decide what a failure leads to.

    Attributes:
        once: Whether the fault meets one request only. Else it meets all of its stage.
    """

    on_point_error: str = "raise"
    max_retries: int = 0
    on_empty_skeleton: str = "direct"
    point_timeout: float | None = None
    once: bool = False

    def __str__(self) -> str:
        words = [self.on_point_error[:5], self.on_empty_skeleton[:5], f"r{self.max_retries}"]
        if self.point_timeout is not None:
            words.append("timeout")
        return "-".join([*words, "once" if self.once else "lasting"])


_ONCE = Policy(max_retries=1, once=True)
POLICIES = {
    "route": (Policy(), _ONCE),
    "skeleton": (
        *(Policy(max_retries=n, on_empty_skeleton=empty) for n in (0, 1) for empty in ("direct", "raise")),
        *(Policy(max_retries=1, on_empty_skeleton=empty, once=True) for empty in ("direct", "raise")),
    ),
    "point": (
        *(Policy(on_point_error=error, max_retries=n) for error in ("placeholder", "raise") for n in (0, 1)),
        *(Policy(on_point_error=error, max_retries=1, once=True) for error in ("placeholder", "raise")),
        *(Policy(on_point_error=error, point_timeout=2.0) for error in ("placeholder", "raise")),
        Policy(on_point_error="placeholder", max_retries=1, point_timeout=2.0, once=True),
    ),
    "direct": (Policy(), Policy(max_retries=1), _ONCE),
    "merge": (Policy(), Policy(max_retries=1), _ONCE),
}
"""The policies that matter for a stage."""
PLACES = tuple((stage, policy) for stage, policies in POLICIES.items() for policy in policies)


@dataclass(frozen=True)
class Cell:
    """One answer over a broken server.

    Attributes:
        surface: What is asked, a key of `WAYS`.
        way: How it is asked.
        fault: What breaks.
        stage: The stage whose requests meet the fault; of the points the second one's do.
        policy: The settings.
    """

    surface: str
    way: str
    fault: str
    stage: str
    policy: Policy

    def __str__(self) -> str:
        return f"{self.surface}.{self.way}/{self.stage}/{self.fault}/{self.policy}"

    @property
    def streamed(self) -> bool:
        """Whether a reader gets text while it is written."""
        return self.way in _STREAMED

    @property
    def exists(self) -> bool:
        """Whether there is such a cell."""
        if self.surface == "command" and (self.stage == "route" or self.policy.on_empty_skeleton == "raise"):
            return False  # the command's router makes no call, and it has no option for an empty skeleton
        if self.policy.point_timeout is not None and self.fault not in WAITS:
            return False  # nothing takes long
        if self.fault == "busy" and self.policy.max_retries and not self.policy.once and self.surface == "command":
            return False  # it waits half a minute, and has no option for less
        # The body of a reply that is not streamed cannot be left in the middle by a thread: docs/servers.md says so.
        whole = self.stage == "route" or not (self.streamed or self.surface == "command")
        return self.fault != "endless" or not whole


def all_cells(surfaces: tuple[str, ...]) -> Iterator[Cell]:
    """Every cell of some surfaces."""
    for surface in surfaces:
        for way, fault, (stage, policy) in itertools.product(WAYS[surface], FAULTS, PLACES):
            if (cell := Cell(surface, way, fault, stage, policy)).exists:
                yield cell


def sample(surfaces: tuple[str, ...]) -> Iterator[Cell]:
    """Cells in which every way meets every fault, and every fault every stage.

    A Latin square: the place of a way and a fault is the sum of their positions, or the next place that has a cell.
    Then a cell for each fault and stage that have not met, each in the next way.
    """
    ways = [(surface, way) for surface in surfaces for way in WAYS[surface]]
    begin = sum(len(WAYS[surface]) for surface in itertools.takewhile(lambda each: each != surfaces[0], WAYS))
    met: set[tuple[str, str]] = set()
    for (w, (surface, way)), (f, fault) in itertools.product(enumerate(ways, begin), enumerate(FAULTS)):
        cells = (Cell(surface, way, fault, *PLACES[(w + f + step) % len(PLACES)]) for step in range(len(PLACES)))
        for cell in itertools.islice((cell for cell in cells if cell.exists), 1):
            met.add((fault, cell.stage))
            yield cell
    missing = [(fault, stage) for fault in FAULTS for stage in POLICIES if (fault, stage) not in met]
    for n, (fault, stage) in enumerate(missing):
        policies = POLICIES[stage][n % len(POLICIES[stage]) :] + POLICIES[stage]
        turns = (*ways[n % len(ways) :], *ways)
        cells = (Cell(*way, fault, stage, policy) for way, policy in itertools.product(turns, policies))
        yield from itertools.islice((cell for cell in cells if cell.exists), 1)


def chosen_cells(*surfaces: str) -> list[Cell]:
    """The sample; with `SOT_FAULTS_LONG=1`, as `make test-faults` sets it, every cell."""
    return list(all_cells(surfaces) if os.environ.get("SOT_FAULTS_LONG") == "1" else sample(surfaces))
