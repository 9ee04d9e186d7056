"""Which kinds of plan a model can write, learned from the answers of this process.

A small model that is asked for a graph may write bare titles, or nothing that can be used: the longer prompt is then
spent for nothing. `Settings.planning="auto"` asks for no kind that failed twice in a row.
"""

from __future__ import annotations

import threading
from typing import Any

from skeleton_of_thought.adapters.finish_reasons import FAILED
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.settings import is_whole
from skeleton_of_thought.types import Answer, Planning, Skeleton

__all__ = ["PlanMemory", "graph_allowed", "is_usable_plan"]

_GIVEN = "given skeleton"
"""The reason of an answer whose skeleton its caller gave."""
_NO_REPLY = "there is no skeleton: "
"""The start of the reason of a direct answer after a call for a skeleton that failed: it says nothing of plans."""


class PlanMemory:
    """What one model made of each kind of plan. Safe to update and read from many threads.

    Args:
        failures: A kind is not chosen any more after this many unusable plans in a row.
        retry: After this many further answers of any kind it is tried again, once: the model or its prompts may have
            changed.

    Raises:
        InvalidInput: A number is no whole number of at least 1.

    Example:
        >>> from skeleton_of_thought.types import Point
        >>> memory = PlanMemory()
        >>> flat = Answer("...", "Which is better?", "skeleton", Skeleton((Point(1, "Price"),)), planning="graph")
        >>> memory.observe(flat)
        >>> memory.may("graph")
        True
        >>> memory.observe(flat)
        >>> memory.may("graph"), memory.may("scoped")
        (False, True)
    """

    def __init__(self, *, failures: int = 2, retry: int = 20) -> None:
        for name, value in (("failures", failures), ("retry", retry)):
            if not is_whole(value, 1):
                raise InvalidInput(f"{name} must be a whole number of at least 1, not {value!r:.80}.")
        self._most, self._retry = int(failures), int(retry)
        self._failures: dict[Planning, int] = {}
        self._since: dict[Planning, int] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Locks cannot be copied or pickled; engines and chains, which hold this memory, are.
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
            return {**state, "_failures": dict(self._failures), "_since": dict(self._since)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def may(self, kind: Planning) -> bool:
        """Whether to ask the model for this kind of plan. Titles are always possible."""
        with self._lock:
            return self._failures.get(kind, 0) < self._most or self._since[kind] >= self._retry

    def observe(self, answer: Answer) -> None:
        """Learns from an answer, unless its plan was given, its router chose no skeleton, or the call failed."""
        usable = _usable(answer)
        with self._lock:
            for kind in self._since:
                self._since[kind] += 1
            if usable is None:
                return
            self._failures[answer.planning] = 0 if usable else self._failures.get(answer.planning, 0) + 1
            self._since[answer.planning] = 0


def is_usable_plan(skeleton: Skeleton, kind: Planning) -> bool:
    """Whether a skeleton says what its kind is for.

    A graph has a point that builds on another, and two points that need not wait for each other. In a scoped plan at
    least half of the points say what they cover.
    """
    points = skeleton.points
    if kind == "graph":
        return 1 < max(skeleton.waves.values(), default=0) < len(points)
    return len(points) > 0 and (kind == "titles" or 2 * sum(bool(point.scope) for point in points) >= len(points))


def _usable(answer: Answer) -> bool | None:
    """Whether the model's plan was usable; None for an answer that does not tell."""
    if answer.planning == "titles" or answer.reason == _GIVEN:
        return None
    if answer.route == "skeleton":
        if is_usable_plan(answer.skeleton, answer.planning):
            return True
        # A call that broke off may have lost the rest of its plan.
        broke_off = answer.finish_reason in FAILED - {one.finish_reason for one in answer.expansions}
        return None if broke_off else False
    stages = answer.timings.stages
    refused = answer.decision is not None and not answer.decision.use_skeleton
    if refused or answer.reason.startswith(_NO_REPLY) or (stages and "skeleton" not in stages):
        return None
    return False


def graph_allowed(planning: str, plans: PlanMemory | None) -> bool:
    """Whether a router may ask for a graph (`Request.graph`), by `Settings.planning` and the model's plans so far."""
    return planning == "graph" or (planning == "auto" and (plans is None or plans.may("graph")))
