"""What the `sot` command says about an answer: one line of figures, all of them, and comparisons with other ways."""

from __future__ import annotations

import statistics as stats
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skeleton_of_thought.types import Answer, Stage, Usage

__all__ = ["Comparison", "Normal", "comparison", "comparison_dict", "figures", "length", "measurements", "statistics"]

_WRITING: Mapping[Stage, str] = {"skeleton": "skeleton", "point": "points", "merge": "merge", "direct": "answer"}
"""The stages in which a model writes, as a reader calls them."""


@dataclass(frozen=True)
class Normal:
    """What a way without a skeleton made of the same question.

    Attributes:
        text: Its answer.
        seconds: How long it took.
        first_text: Seconds until its first text; None when it wrote nothing.
        usage: Its tokens, where the backend says.
        limit: The tokens that it was to write; None where its length was its own.
        name: How the way is called, as in "twice as fast as NAME".
    """

    text: str
    seconds: float
    first_text: float | None = None
    usage: Usage | None = None
    limit: int | None = None
    name: str = "one normal call"


@dataclass(frozen=True)
class Comparison:
    """Skeleton-of-Thought beside other ways.

    Attributes:
        normals: The other ways. There is at least one, and the first is what people have without us.
        ours: Seconds of each of our own runs, for as many tokens as the answer has.
        busy: A line about other work on this machine, where there was much.
    """

    normals: tuple[Normal, ...]
    ours: tuple[float, ...]
    busy: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds of Skeleton-of-Thought: the median of its runs."""
        return stats.median(self.ours)


def figures(answer: Answer, *, loading: float = 0.0, width: int | None = None) -> str:
    """The one line about an answer; of what it says, the less important gives way to a width.

    Args:
        answer: The answer.
        loading: Seconds that it took to load the model, which are no part of the answer's.
        width: The most characters.
    """
    tokens, seconds, timings = answer.usage.output_tokens, answer.timings.total, answer.timings
    parts = {"what": _count(len(answer.expansions), "point") if answer.route == "skeleton" else "answered directly"}
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
    """Whether a skeleton was left out on purpose: where the model made none, there is no way around it."""
    return answer.route == "direct" and answer.decision is not None and not answer.decision.use_skeleton


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
    hint = " (--no-router for a skeleton)" if _routed(answer) else ""
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


def comparison(answer: Answer, compared: Comparison) -> list[str]:
    """How fast we were beside the others, in words; and a line about a busy machine."""
    ours = length(answer)
    ratios = [(normal, _speedup(answer, compared, normal)) for normal in compared.normals]
    if all(ours and _tokens(normal) == ours for normal in compared.normals):
        said = ", ".join(f"{ratio['wall']:.1f}x as fast as {normal.name}" for normal, ratio in ratios)
        lines = [f"{said}; {_count(ours, 'token')} each"]
    else:
        lines = [_unequal(ours, normal, ratio) for normal, ratio in ratios]
    return lines + ([compared.busy] if compared.busy else [])


def _tokens(normal: Normal) -> int:
    return normal.usage.output_tokens if normal.usage else 0


def _unequal(ours: int, normal: Normal, speedup: dict[str, float]) -> str:
    """The words for a way that wrote more or less than we did."""
    said = f"{speedup['wall']:.1f}x as fast as {normal.name}"
    theirs = _tokens(normal)
    if "per_token" not in speedup:
        return f"{said} in time; the lengths may differ"
    if theirs == ours:
        return f"{said}; {_count(ours, 'token')} each"
    why = " as it ended by itself" if normal.limit is not None and theirs < normal.limit else ""
    return (
        f"{said} in time, {speedup['per_token']:.1f}x in tokens per second; the lengths differ ({ours:,} and "
        f"{theirs:,} tokens{why}), so the second is the one to compare"
    )


def measurements(answer: Answer, compared: Comparison) -> list[str]:
    """A line for each way with all that was measured."""
    names = ["Skeleton-of-Thought", *(normal.name for normal in compared.normals)]
    width = max(map(len, names)) + 1
    runs = ", ".join(f"{seconds:.2f}" for seconds in compared.ours)
    median = f" (median of {runs} s)" if len(compared.ours) > 1 else ""
    paces = [_pace(compared.seconds, length(answer), answer.text) + median]
    paces += [_pace(normal.seconds, _tokens(normal), normal.text) for normal in compared.normals]
    return [f"{name + ':':{width}} {pace}" for name, pace in zip(names, paces, strict=True)]


def _pace(seconds: float, tokens: int, text: str) -> str:
    if not tokens:
        return f"{seconds:.2f} s, {len(text):,} characters"
    return f"{seconds:.2f} s, {_count(tokens, 'token')}, {tokens / max(seconds, 1e-9):.1f} tokens/s"


def _speedup(answer: Answer, compared: Comparison, normal: Normal) -> dict[str, float]:
    ours, theirs = max(compared.seconds, 1e-9), max(normal.seconds, 1e-9)
    found = {"wall": theirs / ours}
    if (written := length(answer)) and _tokens(normal):
        found["per_token"] = (written / ours) / (_tokens(normal) / theirs)
    return found


def comparison_dict(answer: Answer, compared: Comparison) -> dict[str, Any]:
    """The comparison, ready for `json.dumps`. `normal` and `speedup` are of the first of the `ways`."""
    ways = [{**asdict(normal), "speedup": _speedup(answer, compared, normal)} for normal in compared.normals]
    return {
        "normal": asdict(compared.normals[0]),
        "speedup": _speedup(answer, compared, compared.normals[0]),
        "ways": ways,
        "seconds": compared.seconds,
        "runs": list(compared.ours),
        "busy": compared.busy,
    }
