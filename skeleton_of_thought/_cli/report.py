"""What the `sot` command says about an answer: times, tokens, and the comparison with normal decoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skeleton_of_thought.types import Answer, Stage, Usage

__all__ = ["Normal", "comparison", "comparison_dict", "length", "statistics"]

_WRITING: Mapping[Stage, str] = {"skeleton": "skeleton", "point": "points", "merge": "merge", "direct": "answer"}
"""The stages in which a model writes, as a reader calls them."""


@dataclass(frozen=True)
class Normal:
    """What normal decoding made of the same question.

    Attributes:
        text: Its answer.
        seconds: How long it took.
        first_text: Seconds until its first text; None when it wrote nothing.
        usage: Its tokens, where the backend says.
        limit: The most tokens it was allowed; None where its length was its own.
    """

    text: str
    seconds: float
    first_text: float | None = None
    usage: Usage | None = None
    limit: int | None = None


def statistics(answer: Answer) -> list[str]:
    """Lines about times, tokens and steps; before them why there are no points, where that is so."""
    lines = [*_directly(answer), _times(answer)]
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


def _directly(answer: Answer) -> list[str]:
    if answer.route != "direct":
        return []
    # Where the router had wanted a skeleton and the model made none, there is no way around it.
    routed = answer.decision is not None and not answer.decision.use_skeleton
    hint = " (--no-router for a skeleton)" if routed else ""
    return [f"answered directly: {' '.join(answer.reason.split())}{hint}"]


def _times(answer: Answer) -> str:
    timings = answer.timings
    parts = []
    if (skeleton := timings.stages.get("skeleton")) is not None:
        parts.append(f"skeleton {skeleton.seconds:.2f} s")
    if (merge := timings.stages.get("merge")) is not None:
        parts.append(f"merge {merge.seconds:.2f} s")
    if timings.first_text is not None:
        parts.append(f"first text {timings.first_text:.2f} s")
    parts.append(f"total {timings.total:.2f} s")
    return "time: " + ", ".join(parts)


def _decoding(answer: Answer) -> str | None:
    """How parallel a local model was, and how fast in each stage."""
    parts = []
    for stage, name in _WRITING.items():
        done, span = answer.timings.decoding.get(stage), answer.timings.stages.get(stage)
        if done is None or span is None or not done.output_tokens:
            continue
        rows = f"{done.mean_rows:.1f}".removesuffix(".0")
        # Over the stage and not over `decode`, which counts the seconds of each row that ran beside others.
        pace = done.output_tokens / max(span.seconds, 1e-9)
        parts.append(f"{name}: {rows} row{'' if rows == '1' else 's'} at once, {pace:.0f} tokens/s")
    return "decoding: " + "; ".join(parts) if parts else None


def _steps(answer: Answer) -> str | None:
    """How many tokens had to wait for one another, here and without us."""
    skeleton = answer.usage_by_stage.get("skeleton", Usage()).output_tokens
    points = [e.usage.output_tokens for e in answer.expansions]
    if answer.route == "direct" or not skeleton or not any(points):
        return None
    merge = answer.usage_by_stage.get("merge", Usage()).output_tokens
    ours = f"skeleton {skeleton:,} + longest point {max(points):,}" + (f" + merge {merge:,}" if merge else "")
    theirs = merge if answer.merged and merge else skeleton + sum(points)
    return (
        f"normal decoding: about {theirs:,} steps one after another; here: {ours} = "
        f"{skeleton + max(points) + merge:,} steps"
    )


def length(answer: Answer) -> int:
    """The tokens that normal decoding is set against: of all calls, or of the merge, which is then the whole answer."""
    merge = answer.usage_by_stage.get("merge", Usage()).output_tokens if answer.merged else 0
    return merge or answer.usage.output_tokens


def comparison(answer: Answer, normal: Normal) -> list[str]:
    """Lines that set both ways against each other, with the lengths of both."""
    ours, theirs = length(answer), normal.usage.output_tokens if normal.usage else 0
    lines = [
        f"skeleton-of-thought: {_pace(answer.timings.total, ours, answer.text)}",
        f"normal decoding:     {_pace(normal.seconds, theirs, normal.text)}",
    ]
    speedups = _speedups(answer, normal)
    if "per_token" not in speedups:
        return [*lines, f"speed-up: {speedups['wall']:.2f}x in time; the lengths may differ"]
    if ours == theirs:
        return [*lines, f"speed-up: {speedups['wall']:.2f}x at the same number of tokens"]
    why = " (normal decoding ended by itself)" if normal.limit is not None and theirs < normal.limit else ""
    return [
        *lines,
        f"speed-up: {speedups['wall']:.2f}x in time, {speedups['per_token']:.2f}x in tokens per second; "
        f"the lengths differ{why}, so the second is the one to compare",
    ]


def _pace(seconds: float, tokens: int, text: str) -> str:
    if not tokens:
        return f"{seconds:.2f} s, {len(text):,} characters"
    return f"{seconds:.2f} s, {tokens:,} tokens, {tokens / max(seconds, 1e-9):.1f} tokens/s"


def _speedups(answer: Answer, normal: Normal) -> dict[str, float]:
    ours, theirs = max(answer.timings.total, 1e-9), max(normal.seconds, 1e-9)
    found = {"wall": theirs / ours}
    if (written := length(answer)) and normal.usage is not None and normal.usage.output_tokens:
        found["per_token"] = (written / ours) / (normal.usage.output_tokens / theirs)
    return found


def comparison_dict(answer: Answer, normal: Normal) -> dict[str, Any]:
    """The comparison, ready for `json.dumps`."""
    return {"normal": asdict(normal), "speedup": _speedups(answer, normal)}
