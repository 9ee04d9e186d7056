"""The report's plots, by matplotlib, as SVG that follows the page's colours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skeleton_of_thought.errors import InvalidInput, MissingExtra, is_missing
from skeleton_of_thought.evaluation.report.rates import win_rates
from skeleton_of_thought.evaluation.report.svg import COLOURS, SALT, inline
from skeleton_of_thought.evaluation.report.wording import one_line
from skeleton_of_thought.evaluation.rows import Row

__all__ = ["Plot", "check_plots", "plots_of", "timelines"]

_WIDTH = 4.6
"""Inches of 72 units. Narrow, so that a telephone shows the letters in their size; a page may show it larger."""
_MOST_WIN_RATES = 60
_MOST_DOTS = 60
_MOST_SECONDS = 1000
_LABEL = 18
_SMALL = 8.5


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        name: Its name in the page.
        title: Its heading.
        note: How to read it.
        svg: Its markup.
    """

    name: str
    title: str
    note: str
    svg: str


def check_plots() -> None:
    """Looks whether matplotlib is installed; to be called before any answer is asked for.

    Raises:
        MissingExtra: It is not.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        if is_missing(error, "matplotlib"):
            raise MissingExtra("The report's plots need matplotlib, which is not installed", "eval") from error
        raise


def plots_of(figures: Mapping[str, Any], rows: Sequence[Row]) -> list[Plot]:
    """The plots that there is data for.

    Args:
        figures: What `figures_of` returns.
        rows: The rows that count.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    check_plots()
    drawn: tuple[Callable[[Mapping[str, Any], Sequence[Row]], Plot | None], ...] = (_speed, _seconds, _tokens, _wins)
    with _settings():
        return [plot for draw in drawn if (plot := draw(figures, rows)) is not None]


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    ink, soft, line = COLOURS["ink"], COLOURS["soft"], COLOURS["line"]
    colours: Any = {"text.color": ink, "axes.labelcolor": soft, "xtick.color": line, "ytick.color": line}
    colours |= {"xtick.labelcolor": soft, "ytick.labelcolor": ink, "axes.edgecolor": line, "grid.color": line}
    # Names of categories and models may hold any text, so `$` starts no formula.
    drawing: Any = {"svg.fonttype": "none", "svg.hashsalt": SALT, "text.parse_math": False, "font.family": "sans-serif"}
    drawing |= {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    with matplotlib.rc_context({**colours, **drawing}), warnings.catch_warnings():
        # The browser draws the text; a letter that matplotlib's own font lacks is only measured wrong.
        warnings.filterwarnings("ignore", message="Glyph .* missing from|constrained_layout not applied")
        yield


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=3, width=0.6)
    return figure, axes


def _colour(figures: Mapping[str, Any], way: str) -> str:
    """The colour of a way, the same in all plots: the base has the first."""
    order = sorted(figures["ways"], key=lambda each: each != figures["base"])
    return COLOURS[f"way{order.index(way) % 8}"]


def _key(axes: Any, names: Iterable[str]) -> None:
    columns = max(1, min(4, 70 // (6 + max(len(one_line(name, _LABEL)) for name in names))))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize=_SMALL, borderaxespad=0.2)


# --- speed ------------------------------------------------------------------------------------------------


def _speed(figures: Mapping[str, Any], rows: Sequence[Row]) -> Plot | None:
    sorted_ratios = {
        way: sorted(each["ratio"] for each in speed["by_question"] if each["ratio"] is not None)
        for way, speed in figures["speed"].items()
    }
    shown = {way: ratios for way, ratios in sorted_ratios.items() if ratios}
    if not shown:
        return None
    figure, axes = _axes(2.9)
    for way, ratios in shown.items():
        style = {"color": _colour(figures, way), "label": one_line(way, _LABEL)}
        dots = {"marker": "o", "markersize": 3.5} if len(ratios) <= _MOST_DOTS else {}
        axes.plot(range(1, len(ratios) + 1), ratios, linewidth=1.2, **dots, **style)
    axes.axhline(1, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 3)))
    _ratio_axis(axes, [ratio for ratios in shown.values() for ratio in ratios])
    axes.set_xlabel("questions, each way sorted by its speed-up")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _key(axes, shown)
    told = "; ".join(
        f"{way}: {len(ratios)} questions from {ratios[0]:.2f} to {ratios[-1]:.2f} times"
        for way, ratios in shown.items()
    )
    base = one_line(figures["base"], _LABEL)
    return Plot(
        "plot-speed",
        "Speed-up by question",
        f"Above the line at 1 the way was faster than {base} on that question.",
        inline(figure, "plot-speed", f"Speed-up over {base} by question. {one_line(told, 400)}."),
    )


def _ratio_axis(axes: Any, ratios: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    # On a scale of ratios, twice as fast and half as fast are equally far from 1.
    axes.set_yscale("log")
    low, high = min(1.0, *ratios) / 1.12, max(1.0, *ratios) * 1.12
    ticks = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100]
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}×"))
    axes.set_ylim(low, high)


def _seconds(figures: Mapping[str, Any], rows: Sequence[Row]) -> Plot | None:
    by_way = {way: [row.seconds for row in rows if row.ok and row.way == way] for way in figures["ways"]}
    shown = {way: seconds for way, seconds in by_way.items() if seconds}
    if not shown:
        return None
    figure, axes = _axes(0.9 + 0.52 * len(shown))
    for place, (way, seconds) in enumerate(shown.items()):
        colour = _colour(figures, way)
        # Beside each other by the golden section, so that no chance is needed to keep equal times apart.
        dots = seconds[:: 1 + len(seconds) // _MOST_SECONDS]
        beside = [place + ((number * 0.618) % 1 - 0.5) * 0.56 for number in range(len(dots))]
        axes.scatter(dots, beside, s=7, color=colour, alpha=0.6, linewidths=0)
        line = {"color": COLOURS["ink"], "linewidth": 0.9}
        axes.boxplot(
            [seconds],
            positions=[place],
            orientation="horizontal",
            widths=0.62,
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": colour, "linewidth": 2.2},
        )
    axes.set_yticks(range(len(shown)), [one_line(way, _LABEL) for way in shown])
    axes.set_ylim(len(shown) - 0.45, -0.55)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of an answer")
    told = "; ".join(
        f"{way}: {len(seconds)} answers, {min(seconds):.2f} to {max(seconds):.2f} s" for way, seconds in shown.items()
    )
    return Plot(
        "plot-seconds",
        "Seconds of the answers",
        "A dot is an answer; the box holds the middle half of them, the thick line is the median.",
        inline(figure, "plot-seconds", f"Distribution of seconds by way. {one_line(told, 400)}."),
    )


def _tokens(figures: Mapping[str, Any], rows: Sequence[Row]) -> Plot | None:
    kinds = {"input_tokens": "in", "cached_tokens": "of these, cached", "output_tokens": "out"}
    colours = (COLOURS["soft"], COLOURS["line"], COLOURS["way1"])
    shown = {way: each for way, each in figures["summary"].items() if each["output_tokens"]["median"] is not None}
    if not shown:
        return None
    figure, axes = _axes(0.9 + 0.62 * len(shown))
    for number, ((kind, name), colour) in enumerate(zip(kinds.items(), colours, strict=True)):
        values = [each[kind]["median"] or 0 for each in shown.values()]
        places = [place + (number - 1) * 0.26 for place in range(len(shown))]
        bars = axes.barh(places, values, height=0.24, color=colour, label=name)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2, fontsize=7.5, color=COLOURS["soft"])
    axes.set_yticks(range(len(shown)), [one_line(way, _LABEL) for way in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel("tokens of an answer, median over questions")
    _key(axes, kinds.values())
    told = "; ".join(
        f"{way}: " + ", ".join(f"{each[kind]['median'] or 0:,.0f} {name}" for kind, name in kinds.items())
        for way, each in shown.items()
    )
    return Plot(
        "plot-tokens",
        "Tokens of the answers",
        "All calls of an answer together: a prompt for each point is read besides the question.",
        inline(figure, "plot-tokens", f"Median tokens by way. {one_line(told, 400)}."),
    )


# --- quality ----------------------------------------------------------------------------------------------


def _wins(figures: Mapping[str, Any], rows: Sequence[Row]) -> Plot | None:
    all_rates = list(win_rates(figures))
    rates = all_rates[:_MOST_WIN_RATES]
    if not rates:
        return None
    figure, axes = _axes(0.8 + 0.24 * len(rates))
    for place, each in enumerate(rates):
        colour = _colour(figures, each.way)
        low, high = each.interval or (each.rate, each.rate)
        axes.plot([low, high], [place, place], color=colour, linewidth=1.2 if each.category else 2)
        mark = {"marker": "o", "markersize": 3.5 if each.category else 5.5, "color": colour, "linestyle": "none"}
        axes.plot([each.rate], [place], **mark)
    axes.axvline(0.5, color=COLOURS["ink"], linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rates)), [each.label(_LABEL) for each in rates], fontsize=8)
    axes.set_ylim(len(rates) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("win rate")
    told = "; ".join(f"{each.label(60)}: {each.rate:.0%}" for each in rates if not each.category)
    more = f" The first {len(rates)} of {len(all_rates)} are shown." if len(rates) < len(all_rates) else ""
    return Plot(
        "plot-wins",
        "Win rates",
        f"With their 95 % intervals; ties count half, and at the dashed line both are equally good.{more}",
        inline(figure, "plot-wins", f"Win rates. {one_line(told, 600)}."),
    )


# --- time lines -------------------------------------------------------------------------------------------


def timelines(figures: Mapping[str, Any], rows: Sequence[Row]) -> list[Plot]:
    """When each call ran, in the answer with the greatest speed-up and in the one with the least.

    Only answers by points or by items count: a direct answer has one call, and its speed-up is that of chance.
    """
    found = []
    bases = [row for row in rows if row.ok and row.way == figures["base"]]
    seconds = {(row.number, row.question, row.repeat): row.seconds for row in bases}
    for row in rows:
        base = seconds.get((row.number, row.question, row.repeat))
        if row.ok and row.way != figures["base"] and row.points and base and row.seconds > 0:
            found.append((base / row.seconds, row, base))
    if not found:
        return []
    best, worst = (choose(found, key=lambda each: each[0]) for choose in (max, min))
    chosen = {"best": best} if best[1].key == worst[1].key else {"best": best, "worst": worst}
    drawn = (_timeline(name, ratio, row, base, figures["base"]) for name, (ratio, row, base) in chosen.items())
    return [plot for plot in drawn if plot is not None]


def _timeline(name: str, ratio: float, row: Row, base: float, base_way: str) -> Plot | None:
    try:
        timeline = row.timeline({one_line(base_way, _LABEL): base})
    except InvalidInput:
        return None  # times that make no sense, such as those of a file that was changed by hand
    title = f"The {name} speed-up: {ratio:.2f} times"
    note = f"Question {one_line(row.id, 40)}, {one_line(row.way, _LABEL)}: {one_line(row.question, 200)}"
    return Plot(f"timeline-{name}", title, note, timeline.svg)
