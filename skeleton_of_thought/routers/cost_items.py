"""What it costs to answer a question item by item, and what it saves: estimates for the cost guard.

Each item has a prompt of its own, so all that the items share is read once more for every item after the first. In
return the answers are written side by side. Where they are a word each, as ratings are, there is next to nothing to
write side by side, and one call is as good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from skeleton_of_thought.types import Answer, Conversation, Expansion, ItemList

__all__ = ["LEAST_STEPS", "ItemsCost", "Task", "estimate_items", "measure_items", "refusal", "task_of"]

Task = Literal["verdict", "change", "text"]
"""What is written for an item. A verdict, such as a rating, is a word or a number; a change, such as a translation, is
about as long as its item; any other text has a length of its own."""

LEAST_STEPS = 24
"""Items pay from so many tokens on that are written beside others, and not after them."""
_AT_ONCE = 0.02
"""A text was not streamed if the time from its first piece to its end is at most this share of its whole time."""
_NOTE = 25
"""Tokens that the prompt of an item adds to the conversation, the instruction and the item, roughly."""
_VERDICT, _TEXT, _LEAST_CHANGE = 12.0, 40.0, 12.0
"""Tokens of a verdict, of a text, and of the shortest change, before any is measured."""

_VERDICTS = re.compile(
    r"\b(?:rat(?:e|ing)|scor(?:e|ing)|classif|categori[sz]|label|sentiment|positive or negative|true or false|yes or no"
    r"|bewerte|klassifizier|stuf\w* .{0,40}\bein\b|évalu|class(?:e|ez|ifie)\b|clasifica|califica|puntúa"
    r"|classifica|valuta\b|avali[ae]|pontue|beoordeel|classificeer|categoriseer)"
    r"|оцени|классифицируй|определи тональность"
    r"|评分|打分|分类|评价|評価|分類|採点",
    re.I,
)
_REASONED = re.compile(
    r"\b(?:explain|why|reason|justif|comment|describe|because|begründ|erklär|warum|expliqu|pourquoi|explica|por qué"
    r"|spiega|perché|motiva|porquê|leg uit|waarom)|объясни|почему|обоснуй|解释|理由|为什么|原因|説明|なぜ",
    re.I,
)
"""A verdict that comes with reasons is a text."""
_CHANGES = re.compile(
    r"\b(?:translat|rewrit|rephras|reword|paraphras|proofread|correct|punctuat|fix|convert|simplif|shorten"
    r"|übersetz|korrigier|umformulier|formulier|vereinfach|tradui|corrig|reformul|simplifi|traduc|corrige|reescrib"
    r"|riscriv|correggi|traduz|reescrev|vertaal|verbeter|herschrijf|herformuleer)"
    r"|перевед|исправь|перефразируй|перепиши|упрости|翻译|译成|改写|改正|纠正|翻訳|訳し|書き換え|直して|修正",
    re.I,
)


@dataclass(frozen=True)
class ItemsCost:
    """What answering item by item costs, and how long both ways take.

    Attributes:
        count: The number of items.
        extra_tokens: Prompt tokens beyond those of a direct answer, without cached ones.
        direct_seconds: The time for a direct answer of the same length.
        items_seconds: The time for the items.
        steps: Tokens that are written beside others, and not after them.
        tokens: Tokens of an item's answer, on average.
    """

    count: int
    extra_tokens: int
    direct_seconds: float
    items_seconds: float
    steps: float
    tokens: float

    def fits(self, max_extra_tokens: int | None) -> bool:
        """Whether the prompts cost no more than this; None for any number."""
        return max_extra_tokens is None or self.extra_tokens <= max_extra_tokens


def task_of(items: ItemList) -> Task:
    """What is written for each item, by the words of the question.

    Example:
        >>> from skeleton_of_thought.types import Item
        >>> task_of(ItemList("Rate each review from 1 to 5:", (Item(1, "Great."), Item(2, "Bad."))))
        'verdict'
        >>> task_of(ItemList("Translate into French:", (Item(1, "Good day."), Item(2, "Thanks."))))
        'change'
    """
    words = items.points[0].ask if items.form == "targets" and items.points else items.instruction
    if _VERDICTS.search(words) and not _REASONED.search(words):
        return "verdict"
    return "change" if _CHANGES.search(words) and items.form != "different" else "text"


def estimate_items(
    conversation: Conversation,
    items: ItemList,
    mean: Mapping[str, float],
    tokens: Callable[[str], int],
    room: int | None = None,
) -> ItemsCost:
    """Estimates the costs of answering item by item, and the time that it takes.

    Args:
        conversation: The conversation; its last message is the question.
        items: The items of the question.
        mean: The measurements by name: `latency` (seconds) and `pace` (seconds per token) of a call that runs alone,
            and what `measure_items` finds.
        tokens: Counts the tokens of a text, roughly.
        room: The number of calls that can run at the same time; None for enough.
    """
    count = len(items)
    shared = sum(tokens(message.text) for message in conversation.messages[:-1]) + tokens(items.instruction) + _NOTE
    extra = max(0, count - 1) * shared * (1 - mean.get("cached", 0.0))
    lengths = _lengths(items, mean, tokens)
    total, longest = sum(lengths), max(lengths, default=0.0)
    at_once = count if room is None else max(1, min(room, count))
    latency, pace = mean.get("latency", 0.5), mean.get("pace", 0.02)
    if "pace" not in mean and (whole := mean.get("direct_whole") or mean.get("skeleton_whole")):
        latency, pace = 0.0, whole  # without streams the seconds per token contain the latency
    own_latency, own_pace = mean.get("call_latency", latency), mean.get("call_pace", pace)
    if "call_pace" not in mean and "call_whole" in mean:
        own_latency, own_pace = 0.0, mean["call_whole"]
    # With little room the calls go in waves, each with its latency.
    beside = own_latency * math.ceil(count / at_once) + own_pace * max(longest, total / at_once)
    steps = total - max(longest, total / at_once)
    return ItemsCost(count, round(extra), latency + pace * total, beside, steps, total / max(1, count))


def refusal(
    cost: ItemsCost, max_extra_tokens: int | None, min_speedup: float, room: int | None, *, slow: bool
) -> str | None:
    """Why answering item by item does not pay, with the figures; None where it does.

    Args:
        cost: The estimate.
        max_extra_tokens: The most prompt tokens beyond those of a direct answer; None for any number.
        min_speedup: The least speed-up; 0 for any.
        room: The number of calls that can run at the same time; None for enough.
        slow: Whether measurements say that the speed-up is less.
    """
    more = f"about {cost.extra_tokens:,} more prompt tokens"
    if not cost.fits(max_extra_tokens):
        return f"{cost.count} items would cost {more}, more than max_extra_tokens={max_extra_tokens:,}"
    if min_speedup <= 0:
        return None
    if room == 1 and min_speedup >= 1:
        return f"there is room for one call at a time, {cost.count} items would wait"
    if cost.steps < LEAST_STEPS:
        return f"{cost.count} answers of about {cost.tokens:.0f} tokens save too little for {more}"
    if slow:
        seconds = f"{cost.items_seconds:.1f} s instead of {cost.direct_seconds:.1f} s"
        return f"{cost.count} items in about {seconds} for {more} (min_speedup={min_speedup:g})"
    return None


def _lengths(items: ItemList, mean: Mapping[str, float], tokens: Callable[[str], int]) -> list[float]:
    """The tokens of each item's answer."""
    task = task_of(items)
    if task == "change":
        ratio = mean.get("change_ratio", 1.0)
        return [max(_LEAST_CHANGE, ratio * size) for size in _sizes(items, tokens)]
    own = mean.get("verdict_tokens", _VERDICT) if task == "verdict" else mean.get("text_tokens", _TEXT)
    return [own] * len(items)


def _sizes(items: ItemList, tokens: Callable[[str], int]) -> list[int]:
    """The tokens of the text that each item changes."""
    if items.form == "targets":  # one text, for several targets
        return [tokens(items.instruction)] * len(items)
    return [tokens(item.ask or item.title) for item in items.points]


def measure_items(answer: Answer, mean: Mapping[str, float], tokens: Callable[[str], int]) -> dict[str, float]:
    """What an answer by items shows: the lengths of its answers, and the pace of calls that run side by side.

    Args:
        answer: The answer.
        mean: The measurements so far, as for `estimate_items`.
        tokens: Counts the tokens of a text, roughly.
    """
    items = answer.decision.items if answer.decision is not None else None
    good = [one for one in answer.expansions if one.error is None and one.text]
    if items is None or not good:
        return {}
    lengths = [one.usage.output_tokens or tokens(one.text) for one in good]
    task = task_of(items)
    found: dict[str, float] = {}
    if task == "change":
        sizes = dict(zip((item.index for item in items.points), _sizes(items, tokens), strict=True))
        found["change_ratio"] = sum(lengths) / max(1, sum(sizes.get(one.point.index, 0) for one in good))
    else:
        found[f"{task}_tokens"] = sum(lengths) / len(good)
    usage = answer.usage_by_stage.get("point")
    if usage is not None and usage.input_tokens:
        found["cached"] = usage.cached_tokens / usage.input_tokens
    return found | _paces(good, lengths, mean) | _gain(answer, sum(lengths), mean)


def _paces(good: Sequence[Expansion], lengths: Sequence[int], mean: Mapping[str, float]) -> dict[str, float]:
    """Latency and pace of calls that ran side by side."""
    timed = [(one.span, one.span.first, n) for one, n in zip(good, lengths, strict=True) if one.span is not None]
    # A text that came in one piece hides its latency.
    streamed = [
        (span.end - first, first - span.start, n)
        for span, first, n in timed
        if first is not None and span.end - first > _AT_ONCE * span.seconds
    ]
    if streamed:
        # The first token came with the latency.
        steps = max(1, sum(n - 1 for *_, n in streamed))
        latency = sum(waited for _, waited, _ in streamed) / len(streamed)
        return {"call_latency": latency, "call_pace": sum(seconds for seconds, *_ in streamed) / steps}
    if not (seconds := sum(span.seconds for span, *_ in timed)):
        return {}
    total = sum(n for *_, n in timed)
    # What the tokens alone do not take is latency. That of a word or two is nearly all of their time.
    if "pace" in mean or total < _LEAST_CHANGE * len(timed):
        return {"call_latency": max(0.0, seconds - (total - len(timed)) * mean.get("pace", 0.0)) / len(timed)}
    return {"call_whole": seconds / total}


def _gain(answer: Answer, tokens: int, mean: Mapping[str, float]) -> dict[str, float]:
    """The logarithm of the answer's speed-up, by the pace of calls that run alone."""
    stage = answer.timings.stages.get("point")
    if "pace" in mean:
        alone = mean.get("latency", 0.0) + tokens * mean["pace"]
    else:
        alone = tokens * (mean.get("direct_whole") or mean.get("skeleton_whole") or 0.0)
    if stage is None or stage.seconds <= 0 or alone <= 0:
        return {}
    gain = math.log(alone / stage.seconds)
    return {"gain": gain, "gain_squared": gain * gain}
