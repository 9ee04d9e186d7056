"""Reports of the `sot` command on an answer: figures in one line or in full, and comparisons."""

from __future__ import annotations

import statistics as stats
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skeleton_of_thought.types import Answer, Stage, Usage

__all__ = [
    "BaselineAnswer",
    "Comparison",
    "comparison_dict",
    "comparison_lines",
    "figures",
    "length",
    "measurements",
    "statistics",
]

_STAGE_NAMES: Mapping[Stage, str] = {
    "skeleton": "skeleton",
    "point": "points",
    "opening": "opening",
    "closing": "closing",
    "merge": "merge",
    "direct": "answer",
}
"""Display names of the stages in which a model writes."""


@dataclass(frozen=True)
class BaselineAnswer:
    """A baseline's answer to the same question.

    Attributes:
        text: The answer.
        seconds: How long it took.
        first_text: Seconds until its first text; None if it wrote nothing.
        usage: Its tokens, if the backend reports them.
        limit: The tokens that it had to write; None if it ended by itself.
        name: Display name of the baseline, as in "twice as fast as NAME".
    """

    text: str
    seconds: float
    first_text: float | None = None
    usage: Usage | None = None
    limit: int | None = None
    name: str = "one normal call"


@dataclass(frozen=True)
class Comparison:
    """Skeleton-of-Thought and its baselines.

    Attributes:
        baselines: The answers of the baselines, at least one. The first is what users have without this package.
        runs: Seconds of each run of Skeleton-of-Thought, for as many tokens as the answer has.
        busy: A line about other work on this machine, if there was much.
    """

    baselines: tuple[BaselineAnswer, ...]
    runs: tuple[float, ...]
    busy: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds of Skeleton-of-Thought: the median of its runs."""
        return stats.median(self.runs)


def figures(answer: Answer, *, loading: float = 0.0, width: int | None = None) -> str:
    """The figures of an answer in one line. The least important are left out if the line is too wide.

    Args:
        answer: The answer.
        loading: Seconds that loading the model took, which the answer's time does not include.
        width: The most characters; None for no limit.
    """
    tokens, seconds, timings = answer.usage.output_tokens, answer.timings.total, answer.timings
    noun = "item" if answer.route == "items" else "point"
    parts = {"what": "answered directly" if answer.route == "direct" else _count(len(answer.expansions), noun)}
    if answer.route == "direct" and answer.reason:
        parts["why"] = f" ({' '.join(answer.reason.split())})"
    parts["time"] = f", {_count(tokens, 'token')} in {seconds:.1f} s" if tokens else f" in {seconds:.1f} s"
    if tokens:
        parts["pace"] = f", {tokens / max(seconds, 1e-9):.0f} tokens/s"
    if timings.first_text is not None:
        parts["first"] = f", first text at {timings.first_text:.1f} s"
    if _routed(answer):
        parts["hint"] = "; --no-router for points"
    if loading:
        parts["loading"] = f"; loading the model: {loading:.1f} s"
    for name in ("pace", "first", "hint", "loading", "why"):
        if width is None or sum(map(len, parts.values())) <= width:
            break
        parts.pop(name, None)
    return "".join(parts.values())


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _routed(answer: Answer) -> bool:
    """Whether the router left out the skeleton. If the model wrote none, no option can force one."""
    return answer.route == "direct" and answer.decision is not None and not answer.decision.use_skeleton


def statistics(answer: Answer) -> list[str]:
    """Lines about times, tokens and steps; before them the reason if no skeleton was written."""
    lines = [*_reason(answer), _times(answer)]
    usage, stages = answer.usage, answer.usage_by_stage
    if usage.output_tokens:
        cached = f" ({usage.cached_tokens:,} of them reused)" if usage.cached_tokens else ""
        split = ", ".join(f"{name} {u.input_tokens:,}/{u.output_tokens:,}" for name, u in stages.items())
        lines.append(
            f"tokens: {usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out; in/out by stage: {split}"
        )
    else:
        lines.append("tokens: the server did not say")
    if (decoding := _decoding(answer)) is not None:
        lines.append(decoding)
    if (steps := _steps(answer)) is not None:
        lines.append(steps)
    return lines


def _reason(answer: Answer) -> list[str]:
    if answer.route == "items":
        return [f"answered item by item: {' '.join(answer.reason.split())} (--items off for one call)"]
    if answer.route != "direct":
        return []
    hint = " (--no-router for a skeleton)" if _routed(answer) else ""
    return [f"answered directly: {' '.join(answer.reason.split())}{hint}"]


def _times(answer: Answer) -> str:
    timings = answer.timings
    stages = ("skeleton", "opening", "closing", "merge")
    parts = [f"{stage} {timings.stages[stage].seconds:.2f} s" for stage in stages if stage in timings.stages]
    if (waves := max(answer.skeleton.waves.values(), default=1)) > 1:
        parts.append(f"points in {waves} waves")
    if timings.first_text is not None:
        parts.append(f"first text {timings.first_text:.2f} s")
    parts.append(f"total {timings.total:.2f} s")
    return "time: " + ", ".join(parts)


def _decoding(answer: Answer) -> str | None:
    """How many rows a local model decoded at once, and how fast, in each stage."""
    parts = []
    for stage, name in _STAGE_NAMES.items():
        done, span = answer.timings.decoding.get(stage), answer.timings.stages.get(stage)
        if done is None or span is None or not done.output_tokens:
            continue
        rows = f"{done.mean_rows:.1f}".removesuffix(".0")
        # Over the time of the stage: `decode` counts the seconds of parallel rows once for each row.
        pace = done.output_tokens / max(span.seconds, 1e-9)
        what = "items" if stage == "point" and answer.route == "items" else name
        parts.append(f"{what}: {rows} row{'' if rows == '1' else 's'} at once, {pace:.0f} tokens/s")
    return "decoding: " + "; ".join(parts) if parts else None


def _steps(answer: Answer) -> str | None:
    """How many tokens were decoded one after another, with a skeleton and without."""
    tokens = {stage: answer.usage_by_stage.get(stage, Usage()).output_tokens for stage in _STAGE_NAMES}
    skeleton, merge = tokens["skeleton"], tokens["merge"]
    points = {e.point.index: e.usage.output_tokens for e in answer.expansions}
    if answer.route == "items" and any(points.values()):
        written, longest = sum(points.values()), max(points.values())
        return f"normal decoding: about {written:,} steps one after another; here: longest item {longest:,} steps"
    if answer.route == "direct" or not skeleton or not any(points.values()):
        return None
    longest, waits = _longest(answer, points), any(point.depends_on for point in answer.skeleton.points)
    # The opening and the closing are written at the same time.
    roles = max(tokens["opening"], tokens["closing"])
    parts = [f"skeleton {skeleton:,}", f"longest {'way through the points' if waits else 'point'} {longest:,}"]
    parts += [f"opening and closing {roles:,}"] * bool(roles) + [f"merge {merge:,}"] * bool(merge)
    written = skeleton + sum(points.values()) + tokens["opening"] + tokens["closing"]
    theirs = merge if answer.merged and merge else written
    return (
        f"normal decoding: about {theirs:,} steps one after another; here: {' + '.join(parts)} = "
        f"{skeleton + longest + roles + merge:,} steps"
    )


def _longest(answer: Answer, tokens: Mapping[int, int]) -> int:
    """The most tokens that points which build on each other have together."""
    ways: dict[int, int] = {}
    for point in answer.skeleton.points:
        before = max((ways.get(parent, 0) for parent in point.depends_on), default=0)
        ways[point.index] = before + tokens.get(point.index, 0)
    return max(ways.values(), default=0)


def length(answer: Answer) -> int:
    """The tokens that a baseline has to write: those of the merge, which is the whole answer, or else of all calls."""
    merge = answer.usage_by_stage.get("merge", Usage()).output_tokens if answer.merged else 0
    return merge or answer.usage.output_tokens


def comparison_lines(answer: Answer, comparison: Comparison) -> list[str]:
    """How fast Skeleton-of-Thought was beside its baselines, and a line about a busy machine."""
    tokens = length(answer)
    speedups = [(baseline, _speedup(answer, comparison, baseline)) for baseline in comparison.baselines]
    if all(tokens and _tokens(baseline) == tokens for baseline in comparison.baselines):
        said = ", ".join(f"{speedup['wall']:.1f}x as fast as {baseline.name}" for baseline, speedup in speedups)
        lines = [f"{said}; {_count(tokens, 'token')} each"]
    else:
        lines = [_unequal_lengths(tokens, baseline, speedup) for baseline, speedup in speedups]
    return lines + ([comparison.busy] if comparison.busy else [])


def _tokens(baseline: BaselineAnswer) -> int:
    return baseline.usage.output_tokens if baseline.usage else 0


def _unequal_lengths(ours: int, baseline: BaselineAnswer, speedup: dict[str, float]) -> str:
    """The line about a baseline if not all lengths in the comparison are equal."""
    said = f"{speedup['wall']:.1f}x as fast as {baseline.name}"
    theirs = _tokens(baseline)
    if "per_token" not in speedup:
        return f"{said} in time; the lengths may differ"
    if theirs == ours:
        return f"{said}; {_count(ours, 'token')} each"
    why = " as it ended by itself" if baseline.limit is not None and theirs < baseline.limit else ""
    return (
        f"{said} in time, {speedup['per_token']:.1f}x in tokens per second; the lengths differ ({ours:,} and "
        f"{theirs:,} tokens{why}), so the second is the one to compare"
    )


def measurements(answer: Answer, comparison: Comparison) -> list[str]:
    """A line with all measurements for Skeleton-of-Thought and for each baseline."""
    names = ["Skeleton-of-Thought", *(baseline.name for baseline in comparison.baselines)]
    width = max(map(len, names)) + 1
    runs = ", ".join(f"{seconds:.2f}" for seconds in comparison.runs)
    median = f" (median of {runs} s)" if len(comparison.runs) > 1 else ""
    paces = [_pace(comparison.seconds, length(answer), answer.text) + median]
    paces += [_pace(baseline.seconds, _tokens(baseline), baseline.text) for baseline in comparison.baselines]
    return [f"{name + ':':{width}} {pace}" for name, pace in zip(names, paces, strict=True)]


def _pace(seconds: float, tokens: int, text: str) -> str:
    if not tokens:
        return f"{seconds:.2f} s, {len(text):,} characters"
    return f"{seconds:.2f} s, {_count(tokens, 'token')}, {tokens / max(seconds, 1e-9):.1f} tokens/s"


def _speedup(answer: Answer, comparison: Comparison, baseline: BaselineAnswer) -> dict[str, float]:
    ours, theirs = max(comparison.seconds, 1e-9), max(baseline.seconds, 1e-9)
    speedup = {"wall": theirs / ours}
    if (written := length(answer)) and _tokens(baseline):
        speedup["per_token"] = (written / ours) / (_tokens(baseline) / theirs)
    return speedup


def comparison_dict(answer: Answer, comparison: Comparison) -> dict[str, Any]:
    """The comparison, ready for `json.dumps`. `normal` and `speedup` are those of the first of the `ways`."""
    ways = [{**asdict(each), "speedup": _speedup(answer, comparison, each)} for each in comparison.baselines]
    return {
        "normal": asdict(comparison.baselines[0]),
        "speedup": _speedup(answer, comparison, comparison.baselines[0]),
        "ways": ways,
        "seconds": comparison.seconds,
        "runs": list(comparison.runs),
        "busy": comparison.busy,
    }
