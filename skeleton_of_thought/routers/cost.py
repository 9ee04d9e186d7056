"""The cost guard: whether a skeleton pays, by what this process has measured of the model so far.

A skeleton costs prompt tokens, once for itself and once for every point, and pays only where points really are
written side by side. How fast that is differs between a server with free capacity and one that is full, so it is
learnt from the answers of this process.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Answer, Conversation, Expansion, RouteDecision

__all__ = ["CostGuard", "Estimate", "Pace"]

_NEWEST = 0.3
"""The share of the newest measurement in a mean: it follows a server whose load changes."""
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CHARACTERS_PER_TOKEN = 4
_MESSAGE_TOKENS = 4
_SKELETON_WORDING = 120
"""Tokens that the skeleton's prompt adds to the conversation, about; likewise that of a point."""
_POINT_WORDING = 60
_AT_ONCE = 0.02
"""A text of which so small a share of its time lay between its first piece and its end was not streamed."""
_INSTANT = 0.25
"""Seconds below which no one waits, and measurements are mostly noise: nothing is held back for them."""


@dataclass(frozen=True)
class _Mean:
    """A mean that forgets; None before the first measurement."""

    value: float | None = None

    def __add__(self, measured: float) -> _Mean:
        if self.value is None:
            return _Mean(measured)
        return _Mean(self.value + _NEWEST * (measured - self.value))

    def otherwise(self, default: float) -> float:
        return default if self.value is None else self.value


class Pace:
    """What has been measured of one model; safe to be fed and read from many threads.

    Flows feed it every answer of theirs (`observe`). Answers whose backend tells no usage are counted in words, at
    four tokens for three words, which is good enough to compare one way with the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._means: dict[str, _Mean] = {}
        self._answers = 0

    def __getstate__(self) -> dict[str, Any]:
        # Locks do not travel; what holds a router (engines, chains) is copied and pickled.
        with self._lock:
            return {"means": dict(self._means), "answers": self._answers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._means, self._answers = dict(state["means"]), state["answers"]

    def observe(self, answer: Answer) -> None:
        """Learns from an answer's timings and usage."""
        found = dict(_alone(answer))
        if answer.route == "skeleton" and answer.expansions:
            found |= _side_by_side(answer)
            found |= _gain(answer, found)
        with self._lock:
            for name, value in found.items():
                self._means[name] = self._means.get(name, _Mean()) + value
            # Only what has both paces can be compared.
            alone = {"pace", "skeleton_whole", "direct_whole"} & self._means.keys()
            self._answers += "point_pace" in found and bool(alone)

    @property
    def answers(self) -> int:
        """How many answers with points have been measured."""
        with self._lock:
            return self._answers

    @property
    def doubt(self) -> float:
        """By which factor the speed-ups of single answers lie around their mean: 1 where all were the same.

        It is large where load comes and goes, or where answers wait for others of this process.
        """
        mean, square = self.get("gain", 0.0), self.get("gain_squared", 0.0)
        return math.exp(max(0.0, square - mean * mean) ** 0.5)

    def get(self, name: str, default: float) -> float:
        """A mean by its name, or the default before anything was measured."""
        with self._lock:
            return self._means.get(name, _Mean()).otherwise(default)


def _alone(answer: Answer) -> dict[str, float]:
    """Latency and pace of a call that runs alone: the skeleton's, or a direct answer's."""
    stage = "skeleton" if answer.route == "skeleton" else "direct"
    span = answer.timings.stages.get(stage)
    if span is None or span.first is None:
        return {}
    text = answer.skeleton.text if stage == "skeleton" else answer.text
    usage = answer.usage_by_stage.get(stage)
    tokens = (usage.output_tokens if usage else 0) or _words_as_tokens(text)
    found = {f"{stage}_tokens": float(tokens)}
    if span.end - span.first <= _AT_ONCE * span.seconds:
        # The text came in one piece: what of the time was latency cannot be told.
        return found | {f"{stage}_whole": span.seconds / tokens}
    found["latency"] = span.first - span.start
    # The first token came with the latency.
    if tokens > 1:
        found["pace"] = (span.end - span.first) / (tokens - 1)
    return found


def _side_by_side(answer: Answer) -> dict[str, float]:
    """How many points there were, how long, and how fast they were written beside each other."""
    good = [one for one in answer.expansions if one.error is None and one.text]
    if not good:
        return {}
    tokens = sum(map(_tokens, good))
    found = {"points": float(len(answer.expansions)), "point_tokens": tokens / len(good)}
    span = answer.timings.stages.get("point")
    if span is not None and span.end > span.start:
        # Seconds per token of all points together: batching, waiting for room and latency are in it.
        found["point_pace"] = (span.end - span.start) / max(1, tokens)
    usage = answer.usage_by_stage.get("point")
    if usage is not None and usage.input_tokens:
        found["cached"] = usage.cached_tokens / usage.input_tokens
    return found


def _gain(answer: Answer, found: Mapping[str, float]) -> dict[str, float]:
    """The logarithm of the speed-up of this one answer, by its own paces."""
    if "point_pace" not in found:
        return {}
    tokens = found["point_tokens"] * len([one for one in answer.expansions if one.error is None and one.text])
    if "pace" in found:
        alone = found["latency"] + tokens * found["pace"]
    elif "skeleton_whole" in found:
        alone = tokens * found["skeleton_whole"]
    else:
        return {}
    stages = answer.timings.stages
    beside = stages["point"].end - stages["skeleton"].start
    if alone <= 0 or beside <= 0:
        return {}
    gain = math.log(alone / beside)
    return {"gain": gain, "gain_squared": gain * gain}


def _tokens(expansion: Expansion) -> int:
    return expansion.usage.output_tokens or _words_as_tokens(expansion.text)


def _words_as_tokens(text: str) -> int:
    dense = len(_DENSE.findall(text))
    return dense + max(1, len(text.split()) * 4 // 3)


@dataclass(frozen=True)
class Estimate:
    """What a skeleton would cost and save.

    Attributes:
        extra_tokens: Prompt tokens beyond those of a direct answer, less what the backend has cached.
        direct_seconds: How long a direct answer of the same length would take.
        skeleton_seconds: How long the skeleton and its points would take.
    """

    extra_tokens: int
    direct_seconds: float
    skeleton_seconds: float

    @property
    def saved(self) -> float:
        """Seconds saved; negative where a skeleton is slower."""
        return self.direct_seconds - self.skeleton_seconds

    @property
    def speedup(self) -> float:
        """How many times faster."""
        return self.direct_seconds / self.skeleton_seconds if self.skeleton_seconds > 0 else math.inf


class CostGuard:
    """Sends questions the direct way where a skeleton would cost too much or save too little. A `Router` itself.

    Args:
        max_extra_tokens: The most prompt tokens that a skeleton may cost beyond a direct answer; None for any number.
        min_speedup: How many times faster it has to be; 0 for any. Counts once `enough` answers were measured, and as
            far as they agree: see `Pace.doubt`.
        max_points: The most points that there may be, as in `Settings`.
        capacity: How many calls can run at a time now: a number, a function that tells, or None for enough. What the
            request allows (`Request.max_concurrency`) is kept to besides. With room for one call a skeleton is no
            faster, whatever was measured.
        pace: What was measured; give the same to all guards of one model.
        enough: So many answers have to be measured before seconds are compared.
        retry: After so many refusals for seconds, one question goes through to measure anew: load changes.

    Raises:
        InvalidInput: A number that cannot work.

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
        """Whether enough answers were measured to compare seconds."""
        return self.pace.answers >= self._enough

    def estimate(self, conversation: Conversation) -> Estimate:
        """What a skeleton would cost and save for this conversation, by what was measured so far."""
        pace = self.pace
        points = max(1.0, min(pace.get("points", 7.0), float(self._max_points)))
        point_tokens = pace.get("point_tokens", 60.0)
        skeleton_tokens = pace.get("skeleton_tokens", 50.0)
        prompt = sum(_prompt_tokens(message.text) for message in conversation.messages)
        fresh = 1 - pace.get("cached", 0.0)
        extra = _SKELETON_WORDING + points * (prompt + skeleton_tokens + _POINT_WORDING) * fresh
        latency, seconds = pace.get("latency", 0.5), pace.get("pace", 0.02)
        direct_seconds = skeleton_seconds = seconds
        if (whole := pace.get("skeleton_whole", 0.0) or pace.get("direct_whole", 0.0)) and not pace.get("pace", 0.0):
            # Without streams the latency is in the seconds per token: fewer in a long text, so each has its own.
            latency, skeleton_seconds = 0.0, whole
            direct_seconds = seconds = pace.get("direct_whole", whole)
        together = pace.get("point_pace", seconds / points)
        if (room := self._room(conversation)) is not None:
            # Measured with all of them side by side; with less room they come in waves.
            together = max(together, seconds / room)
        length = points * point_tokens
        direct = latency + length * direct_seconds
        return Estimate(round(extra), direct, latency + skeleton_tokens * skeleton_seconds + length * together)

    def route(self, conversation: Conversation) -> RouteDecision:
        """Direct where a skeleton would cost too much or save too little, with the numbers as the reason."""
        estimate = self.estimate(conversation)
        limit = self.max_extra_tokens
        if limit is not None and estimate.extra_tokens > limit:
            return RouteDecision(
                False,
                reason=f"cost guard: a skeleton would cost about {estimate.extra_tokens:,} more prompt tokens, "
                f"more than max_extra_tokens={limit:,}",
            )
        if self._room(conversation) == 1 and self.min_speedup >= 1:
            return RouteDecision(False, reason="cost guard: there is room for one call at a time, points would wait")
        if not self.has_measured:
            return RouteDecision(True, reason="cost guard: too little was measured to compare")
        saves = (
            f"cost guard: about {estimate.skeleton_seconds:.1f} s instead of {estimate.direct_seconds:.1f} s "
            f"for about {estimate.extra_tokens:,} more prompt tokens"
        )
        instant = max(estimate.direct_seconds, estimate.skeleton_seconds) < _INSTANT
        # What may well be faster is not held back: a refusal takes measurements that agree.
        if instant or estimate.speedup * self.pace.doubt >= self.min_speedup:
            return RouteDecision(True, reason=saves)
        if self._may_retry():
            return RouteDecision(True, reason=f"{saves}; measured anew after {self._retry} direct answers")
        return RouteDecision(False, reason=f"{saves} (min_speedup={self.min_speedup:g})")

    at_once = route

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`."""
        return self.route(conversation)

    def _room(self, conversation: Conversation) -> int | None:
        own = max(1, self._capacity()) if callable(self._capacity) else self._capacity
        limits = [limit for limit in (own, conversation.request.max_concurrency) if limit is not None]
        return min(limits, default=None)

    def _may_retry(self) -> bool:
        with self._lock:
            self._refused = (self._refused + 1) % (self._retry + 1)
            return self._refused == 0


def _prompt_tokens(text: str) -> int:
    dense = len(_DENSE.findall(text))
    return dense + (len(text) - dense) // _CHARACTERS_PER_TOKEN + _MESSAGE_TOKENS
