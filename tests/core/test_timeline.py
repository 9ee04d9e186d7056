"""The time line of an answer: its bars, labels and colours, for every kind of answer and title."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import pytest

from skeleton_of_thought import Timeline
from skeleton_of_thought._drawing import _COLOURS, Bar, Part, draw_svg, draw_text
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Answer, PointTimes, Span, Timings

SVG = "{http://www.w3.org/2000/svg}"
POINTS = (
    PointTimes(1, "Sleep", Span(1.0, 3.0, 1.5), None, 1.5, 1),
    PointTimes(2, "Eat well", Span(1.0, 2.0, 1.5), None, 3.0, 2),
)
STAGES = {"merge": Span(3.0, 4.0, 3.5), "skeleton": Span(0.1, 1.0, 0.4), "point": Span(1.0, 3.0), "route": Span(0, 0.1)}
TIMINGS = Timings(4.0, 1.5, STAGES, {}, POINTS)


def labels(timeline: Timeline) -> list[str]:
    return [bar.shortened(40) for bar in timeline.bars]


def parts(bar: Bar) -> list[tuple[float, float, str]]:
    return [(part.start, part.end, part.kind) for part in bar.parts]


def of_points(*points: PointTimes, total: float = 4.0) -> Timeline:
    return Timeline.of(Timings(total, None, {"point": Span(1.0, 3.0)}, {}, points))


def texts(timeline: Timeline) -> list[str]:
    """The text of the picture from top to bottom, without its tooltips."""
    return [element.text or "" for element in ET.fromstring(timeline.svg).iter(f"{SVG}text")]


# --- which bars there are ---


def test_there_is_a_bar_for_each_call_in_the_order_of_a_reader():
    assert labels(Timeline.of(TIMINGS)) == ["router", "skeleton", "1. Sleep", "2. Eat well", "merge"]
    assert Timeline.of(TIMINGS) == Answer("", "", "skeleton", timings=TIMINGS).timeline()


def test_a_bar_marks_its_first_text_and_when_the_reader_got_it():
    _, skeleton, first, second, _ = Timeline.of(TIMINGS).bars
    assert parts(skeleton) == [(0.1, 0.4, "waiting"), (0.4, 1.0, "writing")]
    assert parts(first) == [(1.0, 1.5, "waiting"), (1.5, 3.0, "writing")]
    assert (first.released, second.released, second.attempts) == (1.5, 3.0, 2)
    assert "(2 attempts)" in Timeline.of(TIMINGS).svg


@pytest.mark.parametrize("first", [None, 3.0, 2.99])
def test_a_text_that_came_at_once_is_one_part(first):
    assert parts(of_points(PointTimes(1, "Sleep", Span(1.0, 3.0, first))).bars[0]) == [(1.0, 3.0, "writing")]


def test_retrieval_for_a_point_stands_before_it_and_retrieval_for_all_has_a_bar():
    own = PointTimes(1, "Sleep", Span(1.0, 3.0), Span(0.5, 0.9))
    timings = Timings(3.0, None, {"sources": Span(0.5, 0.9), "point": Span(1.0, 3.0)}, {}, (own,))
    assert [parts(bar) for bar in Timeline.of(timings).bars] == [[(0.5, 0.9, "retrieval"), (1.0, 3.0, "writing")]]
    once = Timings(3.0, None, {"sources": Span(0.0, 0.5), "point": Span(1.0, 3.0)}, {}, POINTS[:1])
    assert labels(Timeline.of(once)) == ["retrieval", "1. Sleep"]


def test_any_kind_of_failure_is_drawn_as_a_failed_point():
    written = PointTimes(1, "Sleep", Span(1.0, 3.0, 2.0), failed=True)
    sought = PointTimes(2, "Eat", None, Span(1.0, 2.0), failed=True)
    first, second = of_points(written, sought).bars
    assert parts(first) == [(1.0, 2.0, "waiting"), (2.0, 3.0, "failed")]
    assert parts(second) == [(1.0, 2.0, "failed")]
    assert "failed" in texts(of_points(written))


def test_a_point_that_never_ran_keeps_its_place():
    timeline = of_points(PointTimes(1, "Sleep"), PointTimes(2, "Eat", Span(1.0, 3.0)))
    assert labels(timeline) == ["1. Sleep", "2. Eat"]
    assert timeline.bars[0].took == "not run"


def test_a_direct_answer_has_one_bar():
    timings = Timings(2.0, 0.5, {"direct": Span(0.0, 2.0, 0.5)})
    assert labels(Timeline.of(timings)) == ["direct answer"]


def test_timings_without_points_show_them_as_one():
    assert labels(Timeline.of(Timings(3.0, None, {"point": Span(1.0, 3.0)}))) == ["points"]


def test_plain_data_may_hold_a_call_without_an_end():
    broken = Timings(2.0, None, {"skeleton": Span(1.0, 1.0, 1.5)})
    assert Timeline.of(broken.to_dict()) == Timeline.of(broken)


def test_an_answer_without_timings_says_so():
    timeline = Answer("", "", "direct").timeline()
    assert texts(timeline) == [str(timeline)] == ["No call was timed."]


# --- normal decoding ---


def test_normal_decoding_is_a_bar_beside_the_calls_and_stretches_the_axis():
    timeline = Answer("", "", "skeleton", timings=TIMINGS).timeline(10)
    assert labels(timeline)[-1] == "normal decoding"
    assert parts(timeline.bars[-1]) == [(0.0, 10.0, "normal")]
    assert (timeline.seconds, timeline.total) == (10.0, 4.0)
    assert Timeline.of(TIMINGS).seconds == 4.0


def test_several_ways_have_their_names():
    timeline = Timeline.of(TIMINGS, {"model.generate": 21.3, "one row": 18.0})
    assert labels(timeline)[-2:] == ["model.generate", "one row"]
    assert "21.30 s" in texts(timeline)


class Narrow:
    """A number like numpy's and torch's: not a Python number, but `float` converts it."""

    def __float__(self) -> float:
        return 1.5


@pytest.mark.parametrize("number", [Narrow(), Fraction(3, 2), Decimal("1.5")])
def test_seconds_may_be_numbers_of_any_kind(number):
    read = Timeline.of({"total": number, "stages": {"direct": {"start": 0, "end": number}}}, number)
    assert read == Timeline.of(Timings(1.5, None, {"direct": Span(0.0, 1.5)}), 1.5)
    assert "1.50 s" in str(read)


def test_seconds_may_be_numpy_numbers():
    numpy = pytest.importorskip("numpy")
    assert (
        Timeline.of(TIMINGS, numpy.float32(1.5))
        == Timeline.of(TIMINGS, numpy.int64(3) / 2)
        == Timeline.of(TIMINGS, 1.5)
    )


@pytest.mark.parametrize(
    "bad", [0, -1, float("nan"), float("inf"), True, "3", {"one row": None}, pytest.param(10**5000, id="huge")]
)
def test_seconds_that_cannot_be_drawn_are_refused(bad):
    with pytest.raises(InvalidInput, match=r"normal= takes the seconds .*(one row|normal decoding)"):
        Timeline.of(TIMINGS, bad)


# --- sources of a time line ---


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"timings": d}, lambda d: {"timings": TIMINGS}])
def test_plain_data_makes_the_same_picture(wrap):
    data = json.loads(json.dumps(TIMINGS.to_dict()))
    assert Timeline.of(wrap(data), 3.0) == Timeline.of(TIMINGS, 3.0)


@pytest.mark.parametrize("name", ["metadata", "response_metadata"])
def test_timings_in_metadata_make_the_same_picture(name):
    carrier = SimpleNamespace(**{name: {"timings": TIMINGS.to_dict()}})
    assert Timeline.of(carrier) == Timeline.of(TIMINGS)


@pytest.mark.parametrize(
    ("bad", "has"),
    [
        ("text", "not a str"),
        (None, "not a NoneType"),
        (3.5, "not a float"),
        ({"answer": "x", "timing": 1}, r"not a dict with the keys \['answer', 'timing'\]"),
        ({"timings": {}}, "not a dict with the keys"),
        ({"timings": None}, "not a dict with the keys"),
        (SimpleNamespace(metadata={}), "not a SimpleNamespace"),
        (SimpleNamespace(metadata=None), "not a SimpleNamespace"),
    ],
)
def test_an_object_without_timings_is_refused_and_the_error_names_valid_types(bad, has):
    with pytest.raises(InvalidInput, match=f"needs an answer with its timings: .*{has}"):
        Timeline.of(bad)


NAN, INF = float("nan"), float("inf")
WHOLE = {"total": 4.0, "stages": {"point": {"start": 1.0, "end": 3.0}}, "points": [{"index": 1, "title": "Sleep"}]}


@pytest.mark.parametrize("bad", [NAN, INF, -INF, -1.0, "1.5", True, [1], {}, pytest.param(10**5000, id="huge")])
@pytest.mark.parametrize(
    "field",
    [
        "total",
        "first_text",
        "stages.point.start",
        "stages.point.end",
        "stages.point.first",
        "points[0].released",
        "points[0].written.start",
        "points[0].written.end",
        "points[0].written.first",
        "points[0].retrieved.end",
        "points[0].attempts",
        "points[0].index",
    ],
)
def test_altered_numbers_are_refused_by_name(field, bad):
    data = copy.deepcopy(WHOLE)
    data["points"][0] |= {"written": {"start": 1, "end": 2}, "retrieved": {"start": 0, "end": 1}}
    assert str(Timeline.of(data))
    owner = data
    *path, last = field.replace("[0]", ".0").split(".")
    for name in path:
        owner = owner[int(name) if name == "0" else name]
    owner[last] = bad
    with pytest.raises(InvalidInput, match=rf"cannot be read: {re.escape(field)} is "):
        Timeline.of(data)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"total": None}, "total is 'None'"),
        ({"stages": {"point": {"begin": 1}}}, "stages.point has 'begin'"),
        ({"stages": {"point": {"start": None, "end": 1}}}, "stages.point.start is 'None'"),
        ({"stages": {"point": {"start": 1}}}, "stages.point.end is 'None'"),
        ({"stages": {"point": {"start": 2, "end": 1}}}, "stages.point.end is '1.0'"),
        ({"stages": {"point": {"start": 1, "end": 2, "first": 0}}}, "stages.point.first is '0.0'"),
        ({"stages": {"point": None}}, "stages.point is 'None'"),
        ({"points": None}, "points is 'None'"),
        ({"points": "no"}, "points is 'no'"),
        ({"points": [None]}, r"points\[0\] is 'None'"),
        ({"points": [{"index": 1, "title": None}]}, r"points\[0\].title is 'None'"),
        ({"points": [{"index": 1.5, "title": "x"}]}, r"points\[0\].index is '1.5'"),
        ({"points": [{"index": 1, "title": "x", "written": 3}]}, r"points\[0\].written is '3'"),
    ],
)
def test_altered_timings_are_refused_by_name(changed, field):
    with pytest.raises(InvalidInput, match=f"cannot be read: {field}"):
        Timeline.of(WHOLE | changed)


# --- any title ---

TITLES = {
    "xml": 'Set <goals> & "limits" ]]>',
    "control": "Rest\x00 \x1b[31mnow\x08\ud800\uffff\nand\tthen",
    "cjk": "时间管理的第一步是把所有的任务写下来并排序再开始做事情",
    "rtl": "حدد أولوياتك قبل أن تبدأ يومك بالعمل حتى النهاية كل يوم",
    "overrides": "Rest \u202eon\u2066 Sunday",
    "marks": "e\u0301" * 60,
    "long": "word " * 1000,
    "empty": "",
}


@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
def test_any_title_is_drawn(title):
    timeline = of_points(PointTimes(1, title, Span(1.0, 3.0)))
    assert any(text.startswith("1. ") for text in texts(timeline))
    row = str(timeline).splitlines()[1]
    assert all(unicodedata.category(char) not in ("Cc", "Cs") for char in row)
    assert not any(char in row for char in "\u202e\u2066")
    # In a terminal all bars begin in the same column.
    wide = sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in row)
    assert wide == len(str(of_points(PointTimes(1, "Rest", Span(1.0, 3.0)))).splitlines()[1])
    assert len(timeline.svg) < 4500


def test_a_title_is_cut_short_and_whole_in_its_tooltip():
    timeline = of_points(PointTimes(1, "Learn to prioritize what matters most this week", Span(1.0, 3.0)))
    assert "1. \u2068Learn to prioritize what ma…\u2069" in texts(timeline)
    tooltip = ET.fromstring(timeline.svg).find(f".//{SVG}title")
    assert tooltip is not None
    assert tooltip.text == "Learn to prioritize what matters most this week: 2.00 s"


def test_a_hundred_points_are_drawn_closer_together():
    points = tuple(PointTimes(i, f"Point {i}", Span(1.0, 1.0 + i / 10)) for i in range(1, 101))
    crowd, few = (
        int(ET.fromstring(of_points(*some, total=12.0).svg).attrib["height"]) for some in (points, points[:2])
    )
    assert len(texts(of_points(*points, total=12.0))) > 200
    assert (crowd - few) / 98 < 16


# --- the picture ---


@pytest.mark.parametrize("seconds", [0.00012, 0.004, 0.7, 1, 3.3, 59, 61, 1234.5])
def test_the_axis_has_round_ticks_within_the_answer(seconds):
    said = texts(Timeline.of(Timings(seconds, None, {"direct": Span(0.0, seconds)})))
    ticks = [float(text) for text in said if text.replace(".", "").isdigit()]
    steps = {round(after - before, 9) for before, after in pairwise(ticks)}
    assert ticks[0] == 0
    assert ticks[-1] <= seconds * 1.001
    assert 3 <= len(ticks) <= 10
    assert len(steps) == 1
    assert f"{steps.pop():.0e}"[0] in "125"


def test_nothing_is_drawn_outside_the_picture():
    late = PointTimes(1, "Sleep", Span(1.0, 3.0), None, 9.0)
    root = ET.fromstring(Timeline.of(Timings(3.0, None, {"skeleton": Span(0, 1)}, {}, (late,)), 5.0).svg)
    for box in root.iter(f"{SVG}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= float(root.attrib["width"])
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= float(root.attrib["height"])


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground_in_both_modes(mode):
    ground = luminance(_COLOURS["ground"][mode])
    for name, least in {
        "text": 4.5,
        "faint": 4.5,
        "writing": 3.0,
        "retrieval": 2.5,
        "failed": 3.0,
        "normal": 3.0,
    }.items():
        low, high = sorted((ground, luminance(_COLOURS[name][mode])))
        assert (high + 0.05) / (low + 0.05) >= least, name


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it, 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("points", [1, 2, 5, 12, 20])
def test_rows_do_not_overlap(points):
    timeline = of_points(*(PointTimes(i, f"Point {i}", Span(1.0, 3.0), None, 3.0) for i in range(1, points + 1)))
    root = ET.fromstring(timeline.svg)
    labels = [(float(e.attrib["y"]), float(e.attrib["height"])) for e in root.iter(f"{SVG}svg") if "y" in e.attrib]
    assert len(labels) == points
    for (top, height), (below, _) in pairwise(labels):
        assert top + height <= below
    # The axis stands below the rows, and the legend below the axis.
    lower = sorted({float(e.attrib["y"]) for e in root.iter(f"{SVG}text") if e.text in ("seconds", "writing")})
    assert labels[-1][0] + labels[-1][1] < lower[0] < lower[1] - 11
    assert lower[1] < float(root.attrib["height"])


def test_every_colour_has_a_pair_and_holds_where_styles_are_dropped():
    root = ET.fromstring(Timeline.of(TIMINGS, 5.0).svg)
    style = root.find(f"{SVG}style")
    assert style is not None
    drawn = [element for element in root.iter() if "class" in element.attrib]
    assert drawn[0].attrib["class"] == "sot-ground"
    for element in drawn:
        assert f".{element.attrib['class']}{{fill:" in (style.text or "")
        assert element.attrib["fill"].startswith("#")


def test_the_legend_explains_only_the_drawn_parts():
    legend = texts(Timeline.of(TIMINGS, 5.0))[-4:]
    assert legend == ["until its first text", "writing", "first text shown", "normal decoding"]
    assert texts(of_points(PointTimes(1, "Sleep", Span(1.0, 3.0))))[-1:] == ["writing"]


def test_the_text_version_fits_a_terminal():
    lines = str(Timeline.of(TIMINGS, {"a way with a very, very long name here": 9.0})).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[0] == "First text after 1.50 s, the whole answer after 4.00 s"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["router", "skeleton", "1. Sleep"]
    assert lines[3].count("◆") == 1


@pytest.mark.parametrize("first", [None, 4.0, 3.99])
def test_an_answer_that_came_at_once_has_no_separate_first_text(first):
    timings = Timings(4.0, first, {"direct": Span(0.0, 4.0)})
    assert str(Timeline.of(timings)).startswith("The whole answer after 4.00 s\n")


def test_a_bar_without_length_is_still_seen():
    bars = [Bar("blink", (Part(1.0, 1.0, "writing"),)), Bar("long", (Part(0.0, 1000.0, "normal"),))]
    assert "█" in draw_text(bars, "", 1000.0)
    assert 'width="1.0"' in draw_svg(bars, "", 1000.0)
    assert "█" in draw_text(bars[:1], "", 0.0)


# --- where it is used ---


def test_a_notebook_gets_the_picture_and_the_text(tmp_path):
    class Printer:
        def text(self, text: str) -> None:
            self.said = text

    timeline, printer = Timeline.of(TIMINGS), Printer()
    timeline._repr_pretty_(printer, False)
    assert timeline._repr_svg_() == timeline.svg
    assert printer.said == str(timeline)


def test_a_timeline_is_saved_as_svg_only(tmp_path):
    timeline = of_points(PointTimes(1, "时间", Span(1.0, 3.0)))
    path = timeline.save(tmp_path / "line.svg")
    assert path.read_text(encoding="utf-8") == timeline.svg
    with pytest.raises(InvalidInput, match=r"ends in \.svg, not 'line\.png'"):
        timeline.save(tmp_path / "line.png")


def test_the_timeline_is_loaded_only_when_drawing():
    code = "import sys, skeleton_of_thought.flow; print('skeleton_of_thought.timeline' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
