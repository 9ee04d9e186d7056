"""The cost guard: whether a skeleton pays off, by the measurements of this process so far.

A skeleton costs prompt tokens, once for itself and once for every point. It pays off only if the points are really
written side by side. Their speed differs between a server with free capacity and a busy one, so the guard learns it
from the answers of this process.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.comparisons import asks_for_graph
from skeleton_of_thought.types import Answer, Conversation, ItemList, Planning, RouteDecision

__all__ = ["CostGuard", "Estimate", "Pace"]

_NEWEST = 0.3
"""The share of the newest measurement in a mean, so that the mean follows a server whose load changes."""
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CHARACTERS_PER_TOKEN = 4
_MESSAGE_TOKENS = 4
_SKELETON_WORDING = 120
"""Tokens that the prompt of a skeleton adds to the conversation, roughly."""
_POINT_WORDING = 60
"""Tokens that the prompt of a point adds to the conversation, roughly."""
_AT_ONCE = 0.02
"""A text was not streamed if the time from its first piece to its end is at most this share of its whole time."""
_INSTANT = 0.25
"""Below this many seconds nobody waits and measurements are mostly noise: the guard then refuses nothing."""
_GRAPH = "graph_"
"""Before the names of means that were measured on graphs: points that wait for each other have another pace."""
_OF_POINTS = frozenset(
    ("points", "point_tokens", "point_pace", "skeleton_tokens", "skeleton_whole", "cached", "gain", "gain_squared")
)
"""The means that differ between graphs and other skeletons."""
_OF_ALONE = frozenset(("latency", "pace", "skeleton_whole", "direct_whole"))
"""The means of calls that run alone."""
_WAVES, _PARENTS = 2.0, 5.0
"""The waves of a graph, and the texts of points in the prompts of others, before any graph is measured."""
_FURTHER_WAVE = 0.7
"""What each wave after the first costs before any graph is measured, as a share of the time of points without waves."""


class _Mean:
    """A mean in a pickle of version 0.1."""

    value: float


class Pace:
    """The measurements of one model. Safe to update and read from many threads.

    Flows report all their answers (`observe`). If a backend reports no usage, words are counted, at four tokens for
    three words, which is precise enough to compare a skeleton with a direct answer.

    Answers whose points wait for each other (`planning="graph"`) are measured apart, see `of_graphs`; so are answers by
    items, see `of_items`.

    Attributes:
        answers: The number of answers with points that were measured, without graphs and items.
        graphs: The number of graphs that were measured.
        items: The number of answers by items that were measured.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._means: dict[str, float] = {}
        self._item_means: dict[str, float] = {}
        self.answers = self.graphs = self.items = 0

    def __getstate__(self) -> dict[str, Any]:
        # Locks cannot be copied or pickled; engines and chains, which hold a router, are.
        with self._lock:
            counts = {"answers": self.answers, "graphs": self.graphs, "items": self.items}
            return {"means": dict(self._means), "item_means": dict(self._item_means), **counts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock, self._item_means = threading.Lock(), dict(state.get("item_means", {}))
        self._means = {name: getattr(mean, "value", mean) for name, mean in state["means"].items()}
        self.answers, self.graphs, self.items = state["answers"], state.get("graphs", 0), state.get("items", 0)

    def observe(self, answer: Answer) -> None:
        """Learns from an answer's timings and usage."""
        if answer.route == "items":
            self._observe_items(answer)
            return
        found = _alone(answer)
        if answer.route == "skeleton" and answer.expansions:
            _add_points(answer, found)
        measured = "point_pace" in found
        graph = answer.planning == "graph" and answer.route == "skeleton"
        if graph:
            found = _of_graph(answer, found)
        with self._lock:
            for name, value in found.items():
                mean = self._means.get(name, value)
                self._means[name] = mean + _NEWEST * (value - mean)
            # A comparison needs both paces.
            alone = {"pace", "skeleton_whole", "direct_whole", f"{_GRAPH}skeleton_whole"} & self._means.keys()
            if measured and alone:
                self.answers, self.graphs = self.answers + (not graph), self.graphs + graph

    def _observe_items(self, answer: Answer) -> None:
        from skeleton_of_thought.routers.cost_items import measure_items

        found = measure_items(answer, self.means(), _words_as_tokens)
        with self._lock:
            for name, value in found.items():
                mean = self._item_means.get(name, value)
                self._item_means[name] = mean + _NEWEST * (value - mean)
            self.items += "gain" in found

    @property
    def doubt(self) -> float:
        """The spread of the answers' speed-ups around their mean, as a factor: 1 if all were the same.

        It is large if load changes often, or if answers wait for others of this process.
        """
        means = self.means()
        mean = means.get("gain", 0.0)
        return math.exp(max(0.0, means.get("gain_squared", 0.0) - mean * mean) ** 0.5)

    def of_graphs(self) -> Pace:
        """The measurements for a skeleton whose points wait for each other, as they are now.

        What no graph has shown yet is that of other skeletons, with the time of further waves added. All measured
        answers count.
        """
        graphs = Pace()
        with self._lock:
            own = {name.removeprefix(_GRAPH): value for name, value in self._means.items() if name.startswith(_GRAPH)}
            flat = {name: value for name, value in self._means.items() if not name.startswith(_GRAPH)}
            graphs.answers, graphs.graphs = self.answers + self.graphs, self.graphs
        slower = 1 + _FURTHER_WAVE * (own.get("waves", _WAVES) - 1)
        if "point_pace" in flat:
            flat["point_pace"] *= slower
        graphs._means = {"parents": _PARENTS, "slower": slower, **flat, **own}
        return graphs

    def of_items(self) -> Pace:
        """The measurements for answers by items, as they are now, and those of calls that run alone."""
        items = Pace()
        with self._lock:
            items._means = {name: self._means[name] for name in _OF_ALONE & self._means.keys()} | self._item_means
            items.items = self.items
        return items

    def get(self, name: str, default: float) -> float:
        """A mean by its name, or the default before the first measurement."""
        return self.means().get(name, default)

    def means(self) -> dict[str, float]:
        """All means by their names, as they are now."""
        with self._lock:
            return dict(self._means)


def _alone(answer: Answer) -> dict[str, float]:
    """Latency and pace of a call that runs alone: the call for the skeleton, or for a direct answer."""
    stage = "skeleton" if answer.route == "skeleton" else "direct"
    span = answer.timings.stages.get(stage)
    if span is None or span.first is None:
        return {}
    text = answer.skeleton.text if stage == "skeleton" else answer.text
    usage = answer.usage_by_stage.get(stage)
    tokens = (usage.output_tokens if usage else 0) or _words_as_tokens(text)
    found = {f"{stage}_tokens": float(tokens)}
    if span.end - span.first <= _AT_ONCE * (span.end - span.start):
        # The text came in one piece: its latency is unknown.
        return found | {f"{stage}_whole": (span.end - span.start) / tokens}
    found["latency"] = span.first - span.start
    # The first token came with the latency.
    if tokens > 1:
        found["pace"] = (span.end - span.first) / (tokens - 1)
    return found


def _add_points(answer: Answer, found: dict[str, float]) -> None:
    """Adds the points' number, length and pace, and the logarithm of this answer's speed-up by its own paces."""
    good = tokens = 0
    for one in answer.expansions:
        if one.error is None and one.text:
            good += 1
            tokens += one.usage.output_tokens or _words_as_tokens(one.text)
    if not good:
        return
    found["points"] = float(len(answer.expansions))
    found["point_tokens"] = tokens / good
    usage = answer.usage_by_stage.get("point")
    if usage is not None and usage.input_tokens:
        found["cached"] = usage.cached_tokens / usage.input_tokens
    stages = answer.timings.stages
    span = stages.get("point")
    if span is None or span.end <= span.start:
        return
    # Seconds per token of all points together, with batching, latency and the wait for room.
    found["point_pace"] = (span.end - span.start) / max(1, tokens)
    if "pace" in found:
        alone = found["latency"] + tokens * found["pace"]
    elif "skeleton_whole" in found:
        alone = tokens * found["skeleton_whole"]
    else:
        return
    beside = span.end - stages["skeleton"].start
    if alone > 0 and beside > 0:
        gain = math.log(alone / beside)
        found |= {"gain": gain, "gain_squared": gain * gain}


def _of_graph(answer: Answer, found: dict[str, float]) -> dict[str, float]:
    """The measurements of a graph under names of their own, with its waves and the texts that its points waited for."""
    own = {f"{_GRAPH}{name}" if name in _OF_POINTS else name: value for name, value in found.items()}
    if answer.expansions:
        waves = [point.wave for point in answer.timings.points] or answer.skeleton.waves.values()
        own[f"{_GRAPH}waves"] = float(max(waves, default=1))
        own[f"{_GRAPH}parents"] = float(sum(len(point.depends_on) for point in answer.skeleton.points))
    return own


def _words_as_tokens(text: str) -> int:
    dense = len(_DENSE.findall(text))
    return dense + max(1, len(text.split()) * 4 // 3)


@dataclass(frozen=True)
class Estimate:
    """The estimated costs of a skeleton, and the time it saves.

    Attributes:
        extra_tokens: Prompt tokens beyond those of a direct answer, without cached ones.
        direct_seconds: The time for a direct answer of the same length.
        skeleton_seconds: The time for the skeleton and its points.
        room: The number of calls that can run at the same time; None for enough.
    """

    extra_tokens: int
    direct_seconds: float
    skeleton_seconds: float
    room: int | None = None

    @property
    def saved(self) -> float:
        """Seconds saved; negative where a skeleton is slower."""
        return self.direct_seconds - self.skeleton_seconds

    @property
    def speedup(self) -> float:
        """The ratio of both times; above 1 the skeleton is faster."""
        return self.direct_seconds / self.skeleton_seconds if self.skeleton_seconds > 0 else math.inf


class CostGuard:
    """Refuses skeletons that would cost too much or save too little time. A `Router` itself.

    Args:
        max_extra_tokens: The most prompt tokens that a skeleton may cost beyond a direct answer; None for any number.
        min_speedup: The least ratio of the time for a direct answer to the time with a skeleton; 0 for any. It applies
            once `enough` answers are measured, and leaves a margin if they disagree: see `Pace.doubt`.
        max_points: The most points of a skeleton, as in `Settings`.
        capacity: The number of calls that can run at the same time: a number, a function that returns it, or None for
            enough. The limit of the request (`Request.max_concurrency`) holds as well. With room for one call a
            skeleton is no faster, whatever the measurements are.
        pace: The measurements; share one between all guards of a model.
        enough: The guard compares times once this many answers are measured.
        retry: After this many refusals because of time, one question passes, to measure again: load may have changed.

    Raises:
        InvalidInput: A number is out of its range.

    Example:
        >>> guard = CostGuard(max_extra_tokens=2000)
        >>> guard.route(Conversation.of("What makes a good teacher?")).use_skeleton
        True
        >>> guard.route(Conversation.of("What makes a good teacher? " + "Context. " * 1000)).reason
        'cost guard: a skeleton would cost about 16,710 more prompt tokens, more than max_extra_tokens=2,000'
    """

    def __init__(
        self,
        *,
        max_extra_tokens: int | None = None,
        min_speedup: float = 1.0,
        max_points: int = 10,
        capacity: int | Callable[[], int] | None = None,
        pace: Pace | None = None,
        enough: int = 3,
        retry: int = 5,
    ) -> None:
        if max_extra_tokens is not None and max_extra_tokens < 0:
            raise InvalidInput(f"max_extra_tokens must be 0 or more, or None for no limit, not {max_extra_tokens!r}.")
        if not min_speedup >= 0:
            raise InvalidInput(f"min_speedup must be 0 or more, not {min_speedup!r}.")
        for name, value in (("max_points", max_points), ("enough", enough), ("retry", retry)):
            if value < 1:
                raise InvalidInput(f"{name} must be at least 1, not {value!r}.")
        if isinstance(capacity, int) and capacity < 1:
            raise InvalidInput(f"capacity must be at least 1, or None for enough, not {capacity!r}.")
        self.max_extra_tokens = max_extra_tokens
        self.min_speedup = min_speedup
        self.pace = pace or Pace()
        self._max_points = max_points
        self._capacity = capacity
        self._enough = enough
        self._retry = retry
        self._refused = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def observe(self, answer: Answer) -> None:
        """Learns from an answer."""
        self.pace.observe(answer)

    @property
    def has_measured(self) -> bool:
        """Whether enough answers are measured to compare times."""
        return self.pace.answers >= self._enough

    def estimate(self, conversation: Conversation, planning: Planning | None = None) -> Estimate:
        """The costs of a skeleton for this conversation and the time it saves, by the measurements so far.

        Args:
            conversation: The conversation.
            planning: The kind of skeleton. With `"graph"`, the waves of points that wait for each other count, and the
                texts in their prompts. None: a graph where the request allows one and the question asks for it.
        """
        pace = self.pace
        if planning == "graph" or conversation.request.graph:
            pace = self._pace(conversation, planning)
        mean = pace.means().get
        points = max(1.0, min(mean("points", 7.0), float(self._max_points)))
        point_tokens = mean("point_tokens", 60.0)
        skeleton_tokens = mean("skeleton_tokens", 50.0)
        prompt = _prompt_tokens(conversation)
        fresh = 1 - mean("cached", 0.0)
        parents = mean("parents", 0.0) * point_tokens
        extra = _SKELETON_WORDING + (points * (prompt + skeleton_tokens + _POINT_WORDING) + parents) * fresh
        latency, seconds = mean("latency", 0.5), mean("pace", 0.02)
        direct_seconds = skeleton_seconds = seconds
        if (whole := mean("skeleton_whole", 0.0) or mean("direct_whole", 0.0)) and not mean("pace", 0.0):
            # Without streams the seconds per token contain the latency. Long texts spread the latency over more
            # tokens, so each route has its own rate.
            latency, skeleton_seconds = 0.0, whole
            direct_seconds = seconds = mean("direct_whole", whole)
        together = mean("point_pace", seconds / points * mean("slower", 1.0))
        room = conversation.request.max_concurrency
        if self._capacity is not None:
            capacity = max(1, self._capacity()) if callable(self._capacity) else self._capacity
            room = capacity if room is None else min(capacity, room)
        if room is not None:
            # Measured with all points side by side; with less room they run in waves.
            together = max(together, seconds / room)
        length = points * point_tokens
        direct = latency + length * direct_seconds
        skeleton = latency + skeleton_tokens * skeleton_seconds + length * together
        return Estimate(round(extra), direct, skeleton, room)

    def route(self, conversation: Conversation, planning: Planning | None = None) -> RouteDecision:
        """Direct if a skeleton would cost too much or save too little, with the numbers as the reason.

        Arguments as for `estimate`.
        """
        estimate = self.estimate(conversation) if planning is None else self.estimate(conversation, planning)
        pace = self.pace
        if planning == "graph" or conversation.request.graph:
            pace = self._pace(conversation, planning)
        limit = self.max_extra_tokens
        if limit is not None and estimate.extra_tokens > limit:
            return RouteDecision(
                False,
                reason=f"cost guard: a skeleton would cost about {estimate.extra_tokens:,} more prompt tokens, "
                f"more than max_extra_tokens={limit:,}",
            )
        if estimate.room == 1 and self.min_speedup >= 1:
            return RouteDecision(False, reason="cost guard: there is room for one call at a time, points would wait")
        if pace.answers < self._enough:
            return RouteDecision(True, reason="cost guard: too little was measured to compare")
        saves = (
            f"cost guard: about {estimate.skeleton_seconds:.1f} s instead of {estimate.direct_seconds:.1f} s "
            f"for about {estimate.extra_tokens:,} more prompt tokens"
        )
        if self._is_fast(estimate, pace):
            return RouteDecision(True, reason=saves)
        if self._may_retry():
            return RouteDecision(True, reason=f"{saves}; measured again after {self._retry} direct answers")
        return RouteDecision(False, reason=f"{saves} (min_speedup={self.min_speedup:g})")

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self.route(conversation)

    def items(self, conversation: Conversation, items: ItemList) -> RouteDecision | None:
        """A direct decision with the figures as the reason where answering item by item would not pay; else None.

        `max_extra_tokens`, `min_speedup`, `capacity`, `enough` and `retry` mean for items what they mean for skeletons.
        Without measurements, too, items do not pay where little of their answers is written side by side, as with a
        rating for each of a few (`cost_items.LEAST_STEPS`), unless `min_speedup` is 0.
        """
        from skeleton_of_thought.routers.cost_items import estimate_items, refusal

        pace, room = self.pace.of_items(), conversation.request.max_concurrency
        if self._capacity is not None:
            capacity = max(1, self._capacity()) if callable(self._capacity) else self._capacity
            room = capacity if room is None else min(capacity, room)
        cost = estimate_items(conversation, items, pace.means(), _words_as_tokens, room)
        measured, estimate = pace.items >= self._enough, Estimate(0, cost.direct_seconds, cost.items_seconds, room)
        slow = measured and not self._is_fast(estimate, pace)
        reason = refusal(cost, self.max_extra_tokens, self.min_speedup, room, slow=slow)
        # Another measurement changes neither the length of a prompt nor the room.
        if reason is None or (measured and room != 1 and cost.fits(self.max_extra_tokens) and self._may_retry()):
            return None
        return RouteDecision(False, reason=f"cost guard: {reason}")

    def _is_fast(self, estimate: Estimate, pace: Pace) -> bool:
        """Whether the time is short enough beside that of a direct answer; it is where the measurements disagree."""
        instant = max(estimate.direct_seconds, estimate.skeleton_seconds) < _INSTANT
        return instant or estimate.speedup * pace.doubt >= self.min_speedup

    def _pace(self, conversation: Conversation, planning: Planning | None) -> Pace:
        """The measurements for this kind of skeleton; those of graphs, too, where all measured skeletons are graphs."""
        if planning is None and conversation.request.graph:
            only = self.pace.graphs >= self._enough > self.pace.answers
            planning = "graph" if only or asks_for_graph(conversation.question) else None
        return self.pace.of_graphs() if planning == "graph" else self.pace

    def _may_retry(self) -> bool:
        with self._lock:
            self._refused = (self._refused + 1) % (self._retry + 1)
            return self._refused == 0


def _prompt_tokens(conversation: Conversation) -> int:
    tokens = 0
    for message in conversation.messages:
        text = message.text
        dense = len(_DENSE.findall(text))
        tokens += dense + (len(text) - dense) // _CHARACTERS_PER_TOKEN + _MESSAGE_TOKENS
    return tokens
