"""The report's tables, as texts in cells: the page and the Markdown file show the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.evaluation.report.rates import WinRate, win_rates
from skeleton_of_thought.evaluation.report.wording import (
    NONE,
    form_words,
    judge_words,
    number,
    one_line,
    share,
    times,
    with_interval,
)

__all__ = ["Table", "tables_of"]

_CAUSES = {"order": "first place", "length": "much longer", "items": "lists", "bold": "bold text"}
_CONTROLS = {"length": "At equal length", "style": "In equal style", "both": "Both equal"}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        section: The part of the report that it stands in: `"speed"`, `"quality"`, `"verdicts"`, `"spent"`, `"failed"`.
        title: Its heading.
        note: How to read it; empty for nothing to say.
        columns: The heads of its columns.
        rows: Its cells; the first of a row is its head.
    """

    section: str
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=tuple)


def _middle(middle: Mapping[str, Any]) -> str:
    return with_interval(number, middle["median"], middle["interval"])


def tables_of(figures: Mapping[str, Any]) -> list[Table]:
    """All tables that have rows, in the order of the report."""
    tables = [*_speed(figures), *_quality(figures), *_verdicts(figures), *_spent(figures), *_failed(figures)]
    return [table for table in tables if table.rows]


def _speed(figures: Mapping[str, Any]) -> Iterator[Table]:
    summary, speed = figures["summary"], figures["speed"]
    columns = ["Way", "Answers", "Failed", "Seconds", "First text", "Calls", "Tokens in", "Of these, cached"]
    columns += ["Tokens out", "Of these, in the answer", "Tokens per second"]
    kinds = ("seconds", "first_text", "calls", "input_tokens", "cached_tokens", "output_tokens", "answer_tokens")
    yield Table(
        "speed",
        "What an answer takes",
        "Medians over questions, with their 95 % intervals in brackets; first text in seconds. Tokens per second are "
        "those out by the seconds of the whole answer.",
        columns,
        [
            [way, number(each["answers"]), number(each["failed"])]
            + [_middle(each[kind]) for kind in (*kinds, "tokens_per_second")]
            for way, each in summary.items()
        ],
    )
    columns = ["Questions", "As the answers came", "At equal length", "To the first text"]
    yield Table(
        "speed",
        f"How many times as fast as {figures['base']}",
        "The median of the ratios of paired answers, with its 95 % interval in brackets; above 1 the way is faster. At "
        "equal length, seconds per token of the answer's text are compared; to the first text, the seconds until a "
        "reader sees something.",
        ["Way", *columns, "Faster on"],
        [
            [way, *_ratios(each), f"{each['faster']} of {each['questions']}"]
            for way, each in speed.items()
            if each["pairs"]
        ],
    )
    for title, key in (("Speed-up by category", "by_category"), ("Speed-up by route", "by_route")):
        rows = [[way, name or NONE, *_ratios(part)] for way, each in speed.items() for name, part in each[key].items()]
        # One route says what the table above says.
        if len(rows) > len(speed):
            yield Table("speed", title, "", ["Way", title.rpartition(" ")[2].capitalize(), *columns], rows)


def _ratios(part: Mapping[str, Any]) -> list[str]:
    kinds = {"ratio_median": "interval", "ratio_equal_length": "interval_equal_length"}
    kinds |= {"ratio_first_text": "interval_first_text"}
    return [
        number(part["questions"]),
        *(with_interval(times, part[kind], part[interval]) for kind, interval in kinds.items()),
    ]


def _quality(figures: Mapping[str, Any]) -> Iterator[Table]:
    found = figures["quality"]
    yield Table(
        "quality",
        "How the texts are made",
        "Words and points are medians, the other figures means. Trigrams: the share of groups of three words that "
        "stand in two points or more. Different words and pairs fall "
        "with length. Compression: the more a text repeats itself, the higher. Similarity of points: the mean cosine "
        "of their embeddings, with --embeddings. Echoes: points that begin with their title.",
        [
            *("Way", "Words", f"Words against {figures['base']}", "Trigrams in several points", "Different words"),
            *("Different pairs", "Compression", "Similarity of points", "Points per answer", "Echoes"),
        ],
        [
            [
                *(way, _middle(each["words"]), with_interval(times, each["words_ratio"], each["words_interval"])),
                *(_percent(each["shared_trigrams"]), _percent(each["distinct_1"]), _percent(each["distinct_2"])),
                *(number(each["compression"]), number(each["similarity"]), number(each["points_median"])),
                _percent(each["title_echo"]),
            ]
            for way, each in found.items()
            if each["answers"]
        ],
    )
    planned = any(each["scoped_points"] or each["dependent_points"] for each in found.values())
    yield Table(
        "quality",
        "What the skeletons said of their points",
        "Waves: a point starts when the points that it builds on are written, so points come in one or more waves. "
        "Skeleton: the share of an answer's seconds in which its skeleton was written. Means.",
        ["Way", "Points", "With what they cover", "Building on others", "Waves", "Skeleton"],
        [
            [
                *(way, number(each["points"]), number(each["scoped_points"]), number(each["dependent_points"])),
                *(number(each["waves"]), _percent(each["plan_share"])),
            ]
            for way, each in found.items()
            if planned and each["points"]
        ],
    )
    routes = list(dict.fromkeys(route for each in found.values() for route in each["routes"]))
    yield Table(
        "quality",
        "What went wrong, and which way answers took",
        "Cut: texts that ended at the limit of tokens.",
        [
            *("Way", "Answers", "Cut texts", "Points", "Failed points", "Empty points", "Empty answers", "Merged"),
            *(f"Route: {route or NONE}" for route in routes),
        ],
        [
            [
                *(way, number(each["answers"]), number(each["cut"]), number(each["points"])),
                *(number(each[kind]) for kind in ("failed_points", "empty_points", "empty_answers", "merged")),
                *(number(each["routes"].get(route, 0)) for route in routes),
            ]
            for way, each in found.items()
            if each["answers"]
        ],
    )


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _verdicts(figures: Mapping[str, Any]) -> Iterator[Table]:
    rates = list(win_rates(figures))
    head = ["Way", "Against", "Judge", "Form"]
    columns = ["Questions", "Won", "Tied", "Lost", "Win rate"]
    order = ["Flipped with the order", "First place won", "None"]
    yield Table(
        "verdicts",
        "Verdicts",
        "Both orders of a question count as one: a way wins if it wins in both; if they disagree, it is a tie. The "
        "votes of several people on a question count as one, too: for the way that more of them prefer. Ties "
        "count half. Intervals, in brackets, are Wilson's, at 95 %, over questions. First place: how often the answer "
        "that was shown first won, of verdicts for one of the two; a fair judge has 50 %. None: verdicts that could "
        "not be had.",
        [*head, *columns, *order],
        [[*_who(each), *_rate(each), *_order(each.tally)] for each in rates if not each.category]
        + [_without(pair) for pair in figures["verdicts"] if pair["rate"] is None],
    )
    yield Table(
        "verdicts",
        "Verdicts by category",
        "",
        [*head, "Category", *columns],
        [[*_who(each), each.category, *_rate(each)] for each in rates if each.category],
    )
    yield Table(
        "verdicts",
        "Win rates without what judges are biased by",
        "A model of the verdicts says how the ways would compare if both answers were equally long, had the same "
        "lists, headings and bold text, or both. A rate that takes away one of the two leaves what the other does. "
        "Intervals, at 95 %, are the model's, with the larger of two errors: as questions differ from each other, and "
        "as the model expects. The factors are what the order, the length and each kind of mark do to the odds that an "
        "answer wins.",
        [
            *("Way", "Against", "Judge"),
            *(cell for name in _CONTROLS.values() for cell in (name, "Factors")),
        ],
        [
            [
                *(each["a"], each["b"], judge_words(each["judge"])),
                *(cell for kind in _CONTROLS for cell in _controlled(each[kind])),
            ]
            for each in figures["controlled"]
        ],
    )


def _who(each: WinRate) -> list[str]:
    return [each.way, each.other, judge_words(each.judge), form_words(each.form)]


def _rate(each: WinRate) -> list[str]:
    counts = [number(each.tally[kind]) for kind in ("questions", "wins", "ties", "losses")]
    return [*counts, with_interval(share, each.rate, each.interval)]


def _order(tally: Mapping[str, Any]) -> list[str]:
    flips = f"{tally['flips']} of {tally['pairs']}" if tally["pairs"] else NONE
    first = with_interval(share, tally["first_place"], tally["first_place_interval"])
    return [flips, first, number(tally["none"])]


def _without(pair: Mapping[str, Any]) -> list[str]:
    """The row of two ways of which no verdict could be read."""
    who = [pair["a"], pair["b"], judge_words(pair["judge"]), form_words(pair["form"])]
    return [*who, "0", *([NONE] * 6), number(pair["none"])]


def _controlled(found: Mapping[str, Any]) -> list[str]:
    if found["rate"] is None:
        return [found["why"] or NONE, NONE]
    factors = [f"{_CAUSES.get(name, name)} ×{math.exp(value):.2f}" for name, value in found["effects"].items()]
    return [with_interval(share, found["rate"], found["interval"]), ", ".join(factors) or NONE]


def _spent(figures: Mapping[str, Any]) -> Iterator[Table]:
    def name(key: str) -> str:
        kind, _, rest = key.partition(":")
        return {"answers": "All answers", "way": f"Way {rest}", "judge": f"Judge {rest}"}.get(kind, key)

    yield Table(
        "spent",
        "What the run spent",
        "All tries count, failed ones too.",
        ["For", "Tries", "Calls", "Tokens in", "Of these, cached", "Tokens out", "Seconds"],
        [
            [
                *(name(key), number(each["rows"]), number(each["calls"]), number(each["input_tokens"])),
                *(number(each["cached_tokens"]), number(each["output_tokens"]), f"{each['seconds']:,.0f}"),
            ]
            for key, each in figures["spent"].items()
        ],
    )


def _failed(figures: Mapping[str, Any]) -> Iterator[Table]:
    yield Table(
        "failed",
        "Answers that failed",
        "No figure but these counts holds them. The same command with --retry asks for them again.",
        ["Question", "Way", "Repeat", "Error", "Text"],
        [
            [each["id"], each["way"], number(each["repeat"]), one_line(each["error"], 300), one_line(each["question"])]
            for each in figures["failed"]
        ],
    )
