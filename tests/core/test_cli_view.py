"""The views of `sot ask`: the layout of the live view, figures, and comparisons."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from functools import partial

import pytest
import scripted_cli as scripted
from rich.cells import cell_len
from rich.console import Console
from terminals import Terminal, live_view

from skeleton_of_thought import cli
from skeleton_of_thought._cli.backend import Baseline
from skeleton_of_thought._cli.cpu_load import CpuLoad, CpuMeter
from skeleton_of_thought._cli.live_view import LiveView, _columns, _share
from skeleton_of_thought._cli.report import (
    BaselineAnswer,
    Comparison,
    comparison_dict,
    comparison_lines,
    figures,
    measurements,
)
from skeleton_of_thought._cli.views import AnswerResult
from skeleton_of_thought.events import AnswerDelta, PointDelta, PointDone, PointFound, PointStarted
from skeleton_of_thought.types import Answer, Expansion, Point, RouteDecision, Span, Timings, Usage

Script = scripted.Script

QUESTION = "How can I sleep better?"
SIZES = [(80, 24), (120, 40), (200, 50)]
HEAD = 3
"""Lines above the points: the question, the status and a blank line."""


def started(view, texts):
    for index, text in enumerate(texts, 1):
        point = Point(index, f"Title number {index}")
        view.show(PointFound(point))
        view.show(PointStarted(point))
        if text:
            view.show(PointDelta(point, text))


def prose(words, mark="end"):
    return " ".join(f"word{'s' * (number % 5)}" for number in range(words)) + f" {mark}"


def insides(lines):
    """The text of each row of each box, without frames and padding."""
    return [part.strip() for line in lines for part in line.split("│")[1::2]]


def boxes(lines):
    return sum(line.count("╭") for line in lines)


# --- the layout ---

TEXTS = {
    "short": lambda index: f"Only this, {index}.",
    "long": lambda index: prose(900, f"end{index}"),
    "mixed": lambda index: prose(900, f"end{index}") if index % 3 == 1 else f"Only this, {index}.",
    "wide": lambda index: "早く寝ることは体に良いので、" * 120 + f"end{index}",
    "unbroken": lambda index: "x" * 3000 + f"end{index}",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("count", [1, 3, 8, 15])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_no_wider_and_no_taller_than_their_texts_need(size, count, text):
    view, lines, _ = live_view(QUESTION, *size)
    started(view, [TEXTS[text](index) for index in range(1, count + 1)])
    shown = lines()
    assert len(shown) <= size[1]
    assert max(map(cell_len, shown)) <= size[0]
    assert boxes(shown) == count
    assert "" not in insides(shown), "a box has rows to spare"
    whole = "\n".join(shown)
    assert all(f"{index}. Title num" in whole for index in range(1, count + 1))
    # The end of a word without spaces may be on two rows.
    assert text == "unbroken" or all(TEXTS[text](index)[-4:].strip() in whole for index in range(1, count + 1))


@pytest.mark.parametrize("size", SIZES)
def test_three_short_texts_take_three_rows_and_not_the_screen(size):
    view, lines, _ = live_view(QUESTION, *size)
    started(view, ["Short."] * 3)
    rows = -(-3 // _columns(3, size[0], size[1] - HEAD))
    assert len(lines()) == HEAD + 3 * rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_texts_that_do_not_fit_fill_the_height_and_show_their_ends(size, count):
    view, lines, _ = live_view(QUESTION, *size)
    started(view, [prose(3000, f"end{index}") for index in range(1, count + 1)])
    shown = lines()
    # Whole lines are shared, so a few may remain.
    assert size[1] - 4 < len(shown) <= size[1]
    assert all(f"end{index} " in "\n".join(shown) for index in range(1, count + 1))


@pytest.mark.parametrize("width", range(60, 131))
def test_a_text_is_wrapped_once_at_every_width(width):
    # If it were wrapped again at another width, a word or two of a line would get a line of their own.
    view, lines, console = live_view(QUESTION, width, 40)
    texts = [prose(60 + 7 * index) for index in range(3)]
    started(view, texts)
    columns = _columns(3, width, 40 - HEAD)
    inner = min(100, width // columns) - 4
    from rich.text import Text

    expected = [line.plain.rstrip() for text in texts for line in Text(text).wrap(console, inner)]
    assert sorted(insides(lines())) == sorted(expected)


def test_there_are_as_many_readable_columns_as_fit():
    assert [_columns(15, width, 37) for width in (80, 120, 200)] == [2, 3, 5]
    assert _columns(1, 200, 47) == 1
    # More and narrower columns if the height requires them; none if nothing fits.
    assert _columns(15, 80, 21) == 3
    assert _columns(15, 80, 10) == 0


def test_short_texts_get_all_their_lines_and_long_texts_equal_shares():
    assert _share([1, 50, 2, 50], 23) == [1, 10, 2, 10]
    assert _share([1, 2, 3], 100) == [1, 2, 3]
    assert sum(_share([50, 50, 50], 20)) <= 20


def test_the_layout_stays_while_texts_grow():
    view, lines, _ = live_view(QUESTION, 120, 40)
    started(view, [""] * 6)
    tops = []
    for _ in range(12):
        for index in range(1, 7):
            view.show(PointDelta(Point(index, f"Title number {index}"), "some more words of it "))
        tops.append([line.index("╭") for line in lines() if "Title number 1" in line])
        assert boxes(lines()) == 6
    assert len({tuple(top) for top in tops}) == 1


def test_a_point_without_text_shows_its_state():
    view, lines, _ = live_view(QUESTION, 80, 24)
    started(view, ["", "Text."])
    point = Point(2, "Title number 2")
    view.show(PointDone(Expansion(point, "Text.")))
    assert sorted(insides(lines())) == ["Text.", "waiting"]


@pytest.mark.parametrize("size", SIZES)
def test_a_direct_answer_has_no_box(size):
    view, lines, _ = live_view(QUESTION, *size)
    view.show(AnswerDelta("It is 68."))
    assert boxes(lines()) == 0
    assert len(lines()) == HEAD + 1
    view.show(AnswerDelta(prose(4000)))
    shown = lines()
    assert len(shown) == size[1]
    assert shown[-1].rstrip().endswith("end")
    assert max(map(len, shown[HEAD:])) <= 100


def test_a_screen_that_shrinks_keeps_the_layout():
    view, lines, console = live_view(QUESTION, 200, 50)
    started(view, [prose(300, f"end{index}") for index in range(1, 6)])
    lines()
    console.size = (80, 24)
    shown = lines()
    assert len(shown) <= 24
    assert max(map(cell_len, shown)) <= 80


# --- the end ---


def printed(width, outcome, report=()):
    console = Console(file=io.StringIO(), width=width, height=40, force_terminal=True, color_system=None)
    view = LiveView(QUESTION, console)
    view.finish(outcome)
    view.report(report)
    return console.file.getvalue()


POINTS = tuple(Expansion(Point(index, f"Title {index}"), prose(40, f"ours{index}")) for index in (1, 2))
TEXT = "\n\n".join(f"{e.point.index}. {e.point.title}: {e.text}" for e in POINTS)
ANSWER = Answer(TEXT, QUESTION, "skeleton", usage=Usage(10, 100), expansions=POINTS, timings=Timings(2.0, 0.5))
GENERATE = BaselineAnswer(prose(90, "theirs"), 8.0, 0.1, Usage(5, 100), 100, "model.generate")
ROW = BaselineAnswer("Row.", 4.0, 0.1, Usage(5, 100), 100, "the engine's single row")
BOTH = Comparison((GENERATE, ROW), (1.9, 2.0, 5.0))


def test_both_texts_stand_side_by_side_on_a_wide_terminal():
    out = printed(120, AnswerResult(ANSWER, comparison=BOTH))
    (heads,) = (line for line in out.splitlines() if "Skeleton-of-Thought, 2.0 s" in line)
    assert heads.index("model.generate, 8.0 s") > 55
    assert max(map(len, out.splitlines())) <= 120
    assert all(word in out for word in ("ours1", "ours2", "theirs"))
    first = next(line for line in out.splitlines() if "1. Title 1" in line)
    assert "word" in first[60:]


def test_both_texts_stand_below_each_other_on_a_narrow_terminal():
    out = printed(80, AnswerResult(ANSWER, comparison=BOTH))
    places = [
        out.index(word) for word in (QUESTION, "Skeleton-of-Thought, 2.0 s", "ours2", "model.generate, 8.0 s", "theirs")
    ]
    assert places == sorted(places)


def test_a_question_of_many_lines_is_not_printed_in_full():
    console = Console(file=io.StringIO(), width=80, height=40, force_terminal=True, color_system=None)
    LiveView("Summarise: " + prose(2000), console).finish(AnswerResult(Answer("Short.", "", "direct")))
    assert len(console.file.getvalue().splitlines()) <= 7


# --- one line of figures ---


def test_the_figures_are_one_line_with_loading_apart():
    line = figures(ANSWER, loading=1.25)
    assert line == "2 points, 100 tokens in 2.0 s, 50 tokens/s, first text at 0.5 s; loading the model: 1.2 s"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_figures_fit_the_width(width):
    line = figures(ANSWER, loading=1.25, width=width)
    assert len(line) <= width
    assert line.startswith("2 points, 100 tokens in 2.0 s")


def test_a_direct_answer_by_the_router_says_how_to_get_points():
    direct = Answer("68", QUESTION, "direct", usage=Usage(5, 1), timings=Timings(0.5))
    assert figures(direct) == "answered directly, 1 token in 0.5 s, 2 tokens/s"
    routed = dataclasses.replace(direct, decision=RouteDecision(False))
    assert "--no-router for points" in figures(routed)


class Both:
    """Standard output and error, each a terminal or not."""

    def __init__(self, patch, out, err):
        self.out, self.err = (Terminal() if tty else io.StringIO() for tty in (out, err))
        patch.setattr(sys, "stdout", self.out)
        patch.setattr(sys, "stderr", self.err)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")

    def ask(self, *options, script=None, command="ask"):
        router = ["--no-router"] if command == "ask" else []
        code = cli.main([command, QUESTION, *router, *options], backend=(script or Script()).backend())
        assert code == 0
        return self.out.getvalue(), self.err.getvalue()


@pytest.fixture
def both(monkeypatch):
    return partial(Both, monkeypatch)


def test_a_pager_gets_the_answer_without_figures(both):
    out, err = both(out=False, err=True).ask("--plain")
    assert out.startswith("1. Keep a schedule")
    assert err == ""


def test_a_pager_gets_no_progress_messages(both):
    streams = both(out=False, err=True)
    reading, writing = os.pipe()
    with open(writing, "w") as streams.out, open(reading):
        sys.stdout = streams.out
        assert cli.main(["compare", QUESTION, "--json"], backend=WithBaselines().backend()) == 0
    assert streams.err.getvalue() == ""


@pytest.mark.parametrize(("options", "shown"), [((), False), (("--stats",), True)])
def test_a_pagers_screen_has_a_comparison_only_with_stats(both, options, shown):
    streams = both(out=False, err=True)
    reading, writing = os.pipe()
    with open(writing, "w") as streams.out, open(reading):
        sys.stdout = streams.out
        assert cli.main(["compare", QUESTION, "--plain", *options], backend=WithBaselines().backend()) == 0
    assert ("normal decoding" in streams.err.getvalue()) == shown
    assert bool(streams.err.getvalue()) == shown


@pytest.mark.parametrize("options", [(), ("--plain",)])
def test_a_pipe_without_a_terminal_gets_no_figures_either(both, options):
    assert both(out=False, err=False).ask(*options)[1] == ""


def test_plain_on_a_terminal_has_one_line_of_figures(both):
    _, err = both(out=True, err=True).ask("--plain")
    assert err.startswith("5 points, ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("err", [True, False])
def test_stats_are_complete_wherever_the_answer_goes(both, err):
    _, figures_text = both(out=False, err=err).ask("--plain", "--stats")
    lines = figures_text.splitlines()
    assert lines[0].startswith("5 points, ")
    assert [line.split(":")[0] for line in lines[1:]] == ["time", "tokens", "normal decoding"]


@pytest.mark.parametrize("options", [("--plain",), ("--json",), ("--plain", "--compare"), ("--json", "--compare")])
def test_quiet_leaves_standard_error_empty(both, options):
    assert both(out=True, err=True).ask(*options, "-q")[1] == ""


def after(out):
    return out.split("\x1b[?1049l")[1]


def test_the_live_view_ends_with_question_answer_and_one_line(both):
    out, err = both(out=True, err=True).ask()
    lines = [line for line in after(out).splitlines() if line]
    assert err == ""
    assert QUESTION in lines[0]
    assert "5. Put screens away" in "".join(lines)
    assert "5 points, " in lines[-1]
    assert not [line for line in lines if line.startswith(("time:", "tokens:"))]


def test_a_quiet_live_view_ends_with_the_answer(both):
    out, _ = both(out=True, err=True).ask("--quiet")
    assert " points, " not in after(out)
    assert "5. Put screens away" in after(out)


def test_stats_and_quiet_exclude_each_other(capsys):
    assert cli.main(["ask", "q", "--stats", "--quiet"]) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_reason_why_rows_are_not_batched_is_reported(capsys):
    backend = dataclasses.replace(Script().backend(), notice=lambda: "its cache keeps a state")
    line = "sot: this model's rows are not decoded in one batch: its cache keeps a state\n"
    for options, expected in ((["--plain"], line), (["--json"], line), (["--plain", "--quiet"], "")):
        assert cli.main(["ask", QUESTION, "--no-router", *options], backend=backend) == 0
        assert capsys.readouterr().err == expected


# --- comparison ---


class WithBaselines(Script):
    """A scripted backend with two baselines, which records the order of all measurements."""

    def __init__(self, **settings):
        super().__init__(sentences=1, **settings)
        self.order = []
        self.returns = 0
        self.lengths = []

    def backend(self):
        baselines = [
            Baseline(name, partial(self._baseline, name)) for name in ("model.generate", "the engine's single row")
        ]
        return dataclasses.replace(super().backend(), baselines=baselines, checkpoint=self._checkpoint)

    def _checkpoint(self):
        self.order.append("checkpoint")

        def back():
            self.returns += 1

        return back

    def _open(self, call, index):
        if call.stage != "point":
            self.order.append("sot" if call.stage == "skeleton" else "warm-up")
        return super()._open(call, index)

    def _baseline(self, name, call, index):
        self.order.append(name if call.prompt.hints.max_tokens > 4 else "warm-up")
        self.lengths.append((call.prompt.hints.min_tokens, call.prompt.hints.max_tokens))
        return super()._open(call, index)

    def text(self, call):
        return scripted.SENTENCE * 40 if call.stage == "direct" else super().text(call)


def test_baselines_are_measured_in_turns_after_a_warm_up(both):
    script = WithBaselines()
    out, _ = both(out=False, err=False).ask("--compare", "--json", script=script)
    turns = ["sot", "model.generate", "sot", "the engine's single row", "sot"]
    assert script.order == ["warm-up"] * 7 + ["checkpoint"] + turns
    # Each repetition costs as much as the first run.
    assert script.returns == 2
    found = json.loads(out)["compare"]
    assert [way["name"] for way in found["ways"]] == ["model.generate", "the engine's single row"]
    assert len(found["runs"]) == 3
    assert found["seconds"] == sorted(found["runs"])[1]
    assert found["normal"]["name"] == "model.generate"
    assert found["speedup"] == found["ways"][0]["speedup"]


def test_all_baselines_write_as_many_tokens_as_the_answer(both):
    script = WithBaselines()
    out, _ = both(out=False, err=False).ask("--compare", "--json", script=script)
    answer = json.loads(out)
    tokens = answer["usage"]["output_tokens"]
    assert script.lengths == [(4, 4), (4, 4), (tokens, tokens), (tokens, tokens)]
    assert [way["usage"]["output_tokens"] for way in answer["compare"]["ways"]] == [tokens] * 2


def test_both_ratios_are_reported(both):
    _, err = both(out=False, err=False).ask("--plain", script=WithBaselines(), command="compare")
    (line,) = [line for line in err.splitlines() if "as fast as" in line]
    assert "x as fast as model.generate, " in line
    assert "x as fast as the engine's single row; " in line
    assert line.endswith(" tokens each")


def test_plain_writes_the_answer_once_and_progress_on_a_terminal(both):
    out, err = both(out=True, err=True).ask("--compare", "--plain", script=WithBaselines())
    assert out.count("1. Keep a schedule") == 1
    notes = [line for line in err.splitlines() if line.startswith("sot: ")]
    assert notes[0] == "sot: warming up, not timed ..."
    assert notes[1] == "sot: model.generate, turn 2 of 5 ..."
    assert notes[2] == "sot: Skeleton-of-Thought again, turn 3 of 5 ..."
    assert len(notes) == 5


def test_json_lines_have_the_events_of_the_answer_and_none_of_its_repetitions(both):
    out, _ = both(out=False, err=False).ask("--compare", "--json", "--stream", script=WithBaselines())
    names = [json.loads(line)["event"] for line in out.splitlines()]
    assert names.count("SkeletonDone") == names.count("AnswerDone") == 1


def test_a_repetition_that_fails_leaves_the_answer_and_the_error(capsys):
    def fail(call):
        return ConnectionError("gone") if call.stage == "skeleton" and script.order.count("sot") == 2 else None

    script = WithBaselines(fail=fail)
    code = cli.main(["compare", QUESTION, "--plain", "--retries", "0"], backend=script.backend())
    out, err = capsys.readouterr()
    assert code == 1
    assert "5. Put screens away: This" in out
    assert err == "sot: error: gone\n"
    assert script.open == 0


def test_ctrl_c_while_a_baseline_is_measured_leaves_the_answer(both):
    class Interrupted(WithBaselines):
        def _baseline(self, name, call, index):
            if call.prompt.hints.max_tokens > 4:
                raise KeyboardInterrupt
            return super()._baseline(name, call, index)

    streams, script = both(out=True, err=True), Interrupted()
    assert cli.main(["compare", QUESTION], backend=script.backend()) == 130
    assert "5. Put screens away" in after(streams.out.getvalue())
    assert (script.open, script.closed) == (0, True)


def test_a_server_is_not_warmed_up(both):
    # Calls of servers cost, so there are only those of the skeleton, the points and the baseline.
    script = Script(sentences=1)
    backend = dataclasses.replace(script.backend(), takes_limits=False)
    both(out=False, err=False)
    assert cli.main(["compare", QUESTION, "--plain"], backend=backend) == 0
    assert [call.stage for call in script.calls] == ["skeleton", *["point"] * 5, "direct"]
    assert script.calls[-1].prompt.hints.max_tokens is None


def test_the_live_view_shows_measurements():
    view, lines, _ = live_view(QUESTION, 80, 24)
    view.note("warming up, not timed")
    assert lines()[1].startswith("warming up, not timed - ")
    started(view, ["Text."])
    assert lines()[1].startswith("points done: 0 of 1")
    view.note("model.generate, turn 2 of 5")
    view.show_baseline("Their text.")
    shown = lines()
    assert shown[1].startswith("model.generate, turn 2 of 5 - ")
    assert (shown[-1], boxes(shown)) == ("Their text.", 0)
    view.note("Skeleton-of-Thought again, turn 3 of 5")
    view.show_repetition(PointFound(Point(1, "Once more")))
    shown = lines()
    assert shown[1].startswith("Skeleton-of-Thought again")
    assert "Once more" in shown[-1]
    assert "Their text." not in shown


def test_ratios_are_of_the_median():
    assert comparison_lines(ANSWER, BOTH) == [
        "4.0x as fast as model.generate, 2.0x as fast as the engine's single row; 100 tokens each"
    ]
    assert comparison_dict(ANSWER, BOTH)["speedup"] == {"wall": 4.0, "per_token": 4.0}
    lines = measurements(ANSWER, BOTH)
    assert lines[0] == "Skeleton-of-Thought:     2.00 s, 100 tokens, 50.0 tokens/s (median of 1.90, 2.00, 5.00 s)"
    assert lines[1] == "model.generate:          8.00 s, 100 tokens, 12.5 tokens/s"


@pytest.mark.parametrize(
    ("normal", "expected"),
    [
        (BaselineAnswer("y", 4.0, usage=Usage(5, 100), limit=100), "; 100 tokens each"),
        (BaselineAnswer("y", 4.0, usage=Usage(5, 40), limit=100), "(100 and 40 tokens as it ended by itself)"),
        (BaselineAnswer("y", 4.0, usage=Usage(5, 140)), "the lengths differ (100 and 140 tokens), so"),
        (BaselineAnswer("y", 4.0), "the lengths may differ"),
    ],
)
def test_a_comparison_reports_the_lengths(normal, expected):
    (line,) = comparison_lines(ANSWER, Comparison((normal,), (2.0,)))
    assert expected in line
    assert line.startswith("2.0x as fast as one normal call")


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (CpuLoad(2, 10.0, 0.0), None),
        (CpuLoad(2, 10.0, 4.0), None),
        (CpuLoad(2, 10.0, 12.0), "this machine is busy: others used 1.2 of its 2 processors meanwhile, so times vary"),
        (CpuLoad(64, 10.0, 100.0), None),
        (CpuLoad(64, 0.0, 100.0), None),
    ],
)
def test_a_machine_is_busy_if_others_use_much_of_it(work, line):
    assert work.warning == line


def test_a_busy_machine_is_reported_last():
    lines = comparison_lines(ANSWER, dataclasses.replace(BOTH, busy="this machine is busy"))
    assert lines[1:] == ["this machine is busy"]


def test_the_meter_does_not_count_this_process():
    meter = CpuMeter()
    sum(number * number for number in range(300_000))
    work = meter.read()
    assert work.processors >= 1
    assert work.others >= 0.0
    assert work.elapsed >= 0.0


def test_stages_are_reported_by_stats_only(both):
    timed = Answer("x", QUESTION, "skeleton", timings=Timings(3.0, None, {"skeleton": Span(0.0, 1.0)}))
    assert "skeleton" not in figures(timed)
    _, err = both(out=False, err=False).ask("--plain", "--stats")
    assert "time: skeleton " in err
