"""The report's tables, as texts in cells: the page and the Markdown file show the same ones."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skeleton_of_thought.evaluation.verdicts import HUMAN

__all__ = [
    "Table",
    "WinRate",
    "form_words",
    "judge_words",
    "number",
    "one_line",
    "share",
    "tables_of",
    "times",
    "win_rates",
]

NONE = "–"
"""A figure that there is not."""
_FORMS = {"written": "as written", "plain": "as plain paragraphs"}


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


@dataclass(frozen=True)
class WinRate:
    """How often a judge prefers a way to another.

    Attributes:
        way: The way.
        other: The way that it is compared to: the base where it is one of the two.
        judge: Who judged.
        form: In which form.
        category: Of which category of questions; empty for all questions.
        wins: Questions on which the way won in both orders, or in the only one that could be read.
        losses: Those on which the other did.
        ties: All others: the orders disagree, or neither is better.
        rate: `(wins + ties / 2) / questions`.
        interval: Its ends, at 95 %; None where there is none.
        tally: All figures of the two ways, as `judged_pairs` has them.
    """

    way: str
    other: str
    judge: str
    form: str
    category: str
    wins: float
    losses: float
    ties: float
    rate: float
    interval: tuple[float, float] | None
    tally: Mapping[str, Any]

    def label(self, most: int) -> str:
        """Its name in a plot, of at most so many letters for each part."""
        if self.category:
            return f"· {one_line(self.category, most)}"
        who = one_line(judge_words(self.judge), most)
        return f"{one_line(self.way, most)} against {one_line(self.other, most)}\n{who}, {self.form}"


def win_rates(figures: Mapping[str, Any]) -> Iterator[WinRate]:
    """All win rates: of each judge, form and pair of ways, each followed by those of its categories."""
    for pair in figures["verdicts"]:
        for category, tally in ("", pair), *pair.get("by_category", {}).items():
            if tally["questions"] and tally["rate"] is not None:
                yield _win_rate(pair, category, tally, turned=pair["b"] != figures["base"])


def _win_rate(pair: Mapping[str, Any], category: str, tally: Mapping[str, Any], *, turned: bool) -> WinRate:
    way, other = (pair["b"], pair["a"]) if turned else (pair["a"], pair["b"])
    rate, interval = turn(tally["rate"], tally.get("interval"), turned=turned)
    wins, losses = (tally[name] for name in (("losses", "wins") if turned else ("wins", "losses")))
    who = {"judge": pair["judge"], "form": pair["form"], "category": category or ("" if tally is pair else NONE)}
    return WinRate(
        way, other, **who, wins=wins, losses=losses, ties=tally["ties"], rate=rate, interval=interval, tally=tally
    )


def turn(rate: float, interval: Sequence[float] | None, *, turned: bool) -> tuple[float, tuple[float, float] | None]:
    """A win rate and its interval, as they are or seen from the other way."""
    if not turned:
        return rate, None if interval is None else (interval[0], interval[1])
    return 1 - rate, None if interval is None else (1 - interval[1], 1 - interval[0])


# --- words and numbers --------------------------------------------------------------------------------


def one_line(text: object, most: int = 200) -> str:
    """A text on one line, without characters that control terminals, pages or directions.

    Args:
        text: The text.
        most: The most letters; wide ones, such as Chinese, count twice.
    """
    shown = " ".join("".join(" " if char.isspace() else char for char in str(text) if _shown(char)).split())
    if len(shown) * 2 <= most or sum(map(_width, shown)) <= most:
        return shown
    widths = itertools.accumulate(map(_width, shown))
    return shown[: sum(width < most for width in widths)].rstrip() + "…"


def _width(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _shown(char: str) -> bool:
    turns = "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
    return char.isspace() or not (turns or char in "\ufffe\uffff" or unicodedata.category(char) in ("Cc", "Cs"))


def number(value: float | None) -> str:
    """A number with three digits that say something."""
    if value is None:
        return NONE
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio."""
    return NONE if value is None else f"{value:.2f}×"


def share(value: float | None) -> str:
    """A share in percent."""
    return NONE if value is None else f"{100 * value:.0f} %"


def _with(shown: Any, value: float | None, interval: Sequence[float] | None) -> str:
    """A figure and its interval."""
    middle = shown(value)
    if value is None or interval is None or {shown(interval[0]), shown(interval[1])} == {middle}:
        return str(middle)  # without an interval, or with one that is narrower than what is shown
    return f"{middle} ({shown(interval[0]).rstrip('×% ')} to {shown(interval[1])})"


def _middle(middle: Mapping[str, Any]) -> str:
    return _with(number, middle["median"], middle["interval"])


def judge_words(judge: str) -> str:
    """Who judged, in words."""
    return "people" if judge == HUMAN else judge


def form_words(form: str) -> str:
    """How answers were shown, in words."""
    return _FORMS.get(form, form)


# --- the tables -----------------------------------------------------------------------------------------


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
        "Medians over questions, with their 95 % intervals in brackets.",
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
        "The middle of the ratios of paired answers, with its 95 % interval in brackets; above 1 the way is faster. At "
        "equal length, seconds per token of the answer's text are compared.",
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
    return [number(part["questions"]), *(_with(times, part[kind], part[interval]) for kind, interval in kinds.items())]


def _quality(figures: Mapping[str, Any]) -> Iterator[Table]:
    found = figures["quality"]
    yield Table(
        "quality",
        "How the texts are made",
        "Trigrams: the share of groups of three words that stand in two points or more. Different words and pairs fall "
        "with length. Compression: the more a text repeats itself, the higher. Similarity of points: the mean cosine "
        "of their embeddings. Echoes: points that begin with their title.",
        [
            *("Way", "Words", f"Words against {figures['base']}", "Trigrams in several points", "Different words"),
            *("Different pairs", "Compression", "Similarity of points", "Points", "Echoes"),
        ],
        [
            [
                *(way, _middle(each["words"]), _with(times, each["words_ratio"], each["words_interval"])),
                *(_percent(each["shared_trigrams"]), _percent(each["distinct_1"]), _percent(each["distinct_2"])),
                *(number(each["compression"]), number(each["similarity"]), number(each["points_median"])),
                _percent(each["title_echo"]),
            ]
            for way, each in found.items()
            if each["answers"]
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
        "Both orders of a question count as one: a way wins if it wins in both; if they disagree, it is a tie. Ties "
        "count half. First place: how often the answer that was shown first won, of verdicts for one of the two; a "
        "fair judge has 50 %. None: verdicts that could not be had.",
        [*head, *columns, *order],
        [[*_who(each), *_rate(each), *_order(each.tally)] for each in rates if not each.category]
        + [
            _without(pair, figures["base"])
            for pair in figures["verdicts"]
            if pair["rate"] is None or not pair["questions"]
        ],
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
        "A model of the verdicts with the difference of the lengths, or of lists, headings and bold text, as a cause "
        "of its own says how the ways would compare if both answers were alike in it.",
        [*head, "At equal length", "In equal style"],
        [
            [*(way, other, judge_words(each["judge"]), form_words(each.get("form", NONE))), *cells]
            for each in figures["controlled"]
            for way, other, cells in [_controlled(each, figures["base"])]
            if any(cell != NONE for cell in cells)
        ],
    )


def _who(each: WinRate) -> list[str]:
    return [each.way, each.other, judge_words(each.judge), form_words(each.form)]


def _rate(each: WinRate) -> list[str]:
    counts = [number(count) for count in (each.tally["questions"], each.wins, each.ties, each.losses)]
    return [*counts, _with(share, each.rate, each.interval)]


def _order(tally: Mapping[str, Any]) -> list[str]:
    flips = f"{tally['flips']} of {tally['pairs']}" if tally["pairs"] else NONE
    first = _with(share, tally.get("first_place"), tally.get("first_place_interval"))
    return [flips, first, number(tally["none"])]


def _without(pair: Mapping[str, Any], base: str) -> list[str]:
    """The row of two ways of which no verdict could be read."""
    way, other = (pair["b"], pair["a"]) if pair["b"] != base else (pair["a"], pair["b"])
    who = [way, other, judge_words(pair["judge"]), form_words(pair["form"])]
    return [*who, "0", *([NONE] * 6), number(pair["none"])]


def _controlled(each: Mapping[str, Any], base: str) -> tuple[str, str, list[str]]:
    turned = each["b"] != base
    way, other = (each["b"], each["a"]) if turned else (each["a"], each["b"])
    cells = []
    for kind in ("length", "style"):
        found = each.get(kind)
        if not found or found.get("rate") is None:
            cells.append(NONE)
        else:
            cells.append(_with(share, *turn(found["rate"], found.get("interval"), turned=turned)))
    return way, other, cells


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
