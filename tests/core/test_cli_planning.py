"""Planned answers in the command: options, views, figures, time lines."""

from __future__ import annotations

import json

import pytest
import scripted_cli as scripted
from terminals import live_view

from skeleton_of_thought import cli
from skeleton_of_thought._cli import local_backend, models
from skeleton_of_thought._cli.options import parse
from skeleton_of_thought._cli.report import statistics
from skeleton_of_thought.errors import InvalidInput, OpeningWritten, PointOverlap, RoleError
from skeleton_of_thought.events import (
    AnswerDelta,
    AnswerRestarted,
    OverlapFound,
    PointDelta,
    PointDone,
    PointFound,
    PointRestarted,
    PointStarted,
    RoleDone,
    RoleStarted,
    SkeletonDone,
)
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.timeline import Timeline
from skeleton_of_thought.types import Answer, Expansion, Point, PointTimes, Skeleton, Span, Timings, Usage

PLAN = (
    "1. Price: tickets and fees\n2. Comfort: seats and noise\n3. Speed: from door to door\n"
    "4. Which one to choose (after 1, 3)\n"
)
QUESTION = "Should I take the train or the plane?"
GRAPH = ("ask", "--no-router", "--planning", "graph", QUESTION)


class Script(scripted.Script):
    """Writes a plan; the opening and the closing name themselves."""

    def __init__(self, **settings):
        super().__init__(**{"skeleton": PLAN, **settings})

    def text(self, call):
        if call.stage in ("opening", "closing"):
            return f"This is the {call.stage}."
        return f"Point {call.point.index} says this." if call.point else super().text(call)


pytestmark = pytest.mark.usefixtures("no_file")


# --- options ---


@pytest.mark.parametrize("command", [["ask", QUESTION], ["chat"], ["eval", "q.txt"], ["batch", "q.txt", "out"]])
@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {}),
        (["--eager"], {"eager": True}),
        (["--eager", "auto"], {"eager": "auto"}),
        (["--eager=auto", "--no-eager"], {}),
        (["--opening", "--closing"], {"opening": True, "closing": True}),
        (["--opening", "restart", "--rewrite-overlap"], {"opening": "restart", "rewrite_overlap": True}),
        (["--planning", "graph", "--max-depth", "3"], {"planning": "graph", "max_depth": 3}),
        (["--planning=auto", "--closing", "--no-closing"], {"planning": "auto"}),
    ],
)
def test_options_become_settings(command, words, changes):
    args = parse([command[0], *words, *command[1:]])
    assert models.settings_of(args) == Settings(**changes)
    assert getattr(args, "question", [QUESTION]) in ([QUESTION], QUESTION), "an option took the question for its value"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--planning", "tree"], "invalid choice: 'tree'"),
        (["--max-depth", "0"], "must be a whole number of at least 1"),
        (["--eager=often"], "invalid choice: 'often'"),
        (["--opening=late"], "invalid choice: 'late'"),
        (["--raw", "--closing"], "--raw goes without --closing"),
        (["--raw", "--opening"], "--raw goes without --opening"),
    ],
)
def test_a_mistake_is_one_line_before_any_call(words, said, capsys):
    script = Script()
    assert cli.main(["ask", *words, QUESTION], backend=script.backend()) == 2
    assert said in capsys.readouterr().err
    assert script.calls == []


def test_the_file_has_booleans_and_words(no_file, capsys):
    path = no_file / "sot" / "config.toml"
    path.parent.mkdir()
    path.write_text('eager = "auto"\nopening = true\nclosing = true\nplanning = "scoped"\nrewrite-overlap = true\n')
    expected = Settings(eager="auto", opening=True, closing=True, planning="scoped", rewrite_overlap=True)
    assert models.settings_of(parse(["ask", QUESTION])) == expected
    assert models.settings_of(parse(["ask", "--no-opening", "--eager", QUESTION])).opening is False
    assert cli.main(["ask", "--raw", "--quiet", QUESTION], backend=Script().backend()) == 0
    path.write_text('opening = "late"\n')
    with pytest.raises(InvalidInput, match="opening must be one of restart, yes, no"):
        parse(["ask", QUESTION])


def test_flows_of_auto_share_what_they_learn_and_a_local_model_is_not_eager():
    args = parse(["ask", "--no-router", "--planning", "auto", QUESTION])
    options = models.AnswerOptions.of(args)
    flows = options.flows(args, Script().backend())
    assert flows.keywords["plans"] is not None
    assert Script().backend().eager_pays is True
    engine = type("Engine", (), {"takes_prefill": False, "close": print, "checkpoint": print})()
    assert local_backend.local_backend(engine).eager_pays is False


# --- answers ---


def test_a_planned_answer_in_a_pipe(capsys):
    script = Script()
    assert cli.main([*GRAPH, "--opening", "--closing", "--stats"], backend=script.backend()) == 0
    out, err = capsys.readouterr()
    assert out.split("\n\n") == [
        "This is the opening.",
        "1. Price: Point 1 says this.",
        "2. Comfort: Point 2 says this.",
        "3. Speed: Point 3 says this.",
        "4. Which one to choose: Point 4 says this.",
        "This is the closing.\n",
    ]
    stages = [call.point.index if call.point else call.stage for call in script.calls]
    # Calls that are opened together may begin in any order.
    assert stages[0] == "skeleton"
    assert set(stages[1:5]) == {1, 2, 3, 4}
    assert set(stages[5:]) == {"opening", "closing"}
    assert len(stages) == 7
    assert "points in 2 waves" in err
    assert "longest way through the points" in err


def test_a_pipe_gets_the_whole_answer_again_after_a_late_opening(capsys):
    assert cli.main([*GRAPH, "--opening", "restart"], backend=Script().backend()) == 0
    out = capsys.readouterr().out
    assert out.startswith("1. Price: ")
    first, second = out.split("\n\nThis is the opening.\n\n")
    assert second.strip() == first.strip()


@pytest.mark.parametrize("role", ["opening", "closing"])
def test_a_failed_role_is_told_and_the_answer_stands(role, capsys):
    script = Script(fail=lambda call: ConnectionError("gone") if call.stage == role else None)
    assert cli.main([*GRAPH, "--opening", "--closing"], backend=script.backend()) == 0
    out, err = capsys.readouterr()
    assert f"This is the {role}." not in out
    assert "Point 4 says this." in out
    assert f"the {role} failed, so the answer goes without it" in err


def test_a_point_without_its_parent_is_told(capsys):
    fail = lambda call: ConnectionError("gone") if call.point and call.point.index == 3 else None  # noqa: E731
    words = [*GRAPH, "--on-point-error", "placeholder", "--retries", "0"]
    assert cli.main(words, backend=Script(fail=fail).backend()) == 0
    assert "point 4 was written without 3, which failed" in capsys.readouterr().err


def test_lines_of_json_tell_of_plans_and_roles(capsys):
    assert cli.main([*GRAPH, "--closing", "--json", "--stream"], backend=Script().backend()) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [event["point"] for event in events if event["event"] == "PointFound"]
    assert found[0] == {"index": 1, "title": "Price", "scope": "tickets and fees"}
    assert found[3]["depends_on"] == [1, 3]
    roles = [(event["event"], event["role"]) for event in events if event["event"].startswith("Role")]
    assert roles == [("RoleStarted", "closing"), ("RoleDone", "closing")]
    assert [point["wave"] for point in events[-1]["answer"]["plan"]] == [1, 1, 1, 2]


# --- the live view ---

POINTS = (
    Point(1, "Price", scope="tickets and fees"),
    Point(2, "Comfort", scope="seats and noise"),
    Point(3, "Which one to choose", depends_on=(1, 2)),
)


def found(view):
    for point in POINTS:
        view.show(PointFound(point))


def test_the_skeleton_shows_the_whole_plan():
    view, lines, _ = live_view(QUESTION, 80, 24)
    found(view)
    text = "\n".join(lines())
    assert "1. Price: tickets and fees" in text
    assert "3. Which one to choose (after 1, 2)" in text


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (70, 7)])
def test_a_point_says_which_points_it_still_waits_for(size):
    view, lines, _ = live_view(QUESTION, *size)
    found(view)
    view.show(SkeletonDone(Skeleton(POINTS)))
    for point in POINTS[:2]:
        view.show(PointStarted(point))
        view.show(PointDelta(point, "Some text."))
    assert "waits for 1, 2" in "\n".join(lines())
    view.show(PointDone(Expansion(POINTS[0], "Some text.")))
    assert "waits for 2" in "\n".join(lines())
    view.show(PointDone(Expansion(POINTS[1], "", ConnectionError("gone"))))
    view.show(PointStarted(POINTS[2]))
    assert "waits for" not in "\n".join(lines())


def test_notes_give_way_to_texts_where_there_is_no_room():
    view, lines, _ = live_view(QUESTION, 80, 16)
    found(view)
    for point in POINTS:
        view.show(PointStarted(point))
        view.show(PointDelta(point, "word " * 4))
    assert "tickets and fees" in "\n".join(lines())
    for point in POINTS:
        view.show(PointDelta(point, "word " * 400 + f"end{point.index}"))
    text = "\n".join(lines())
    assert "tickets and fees" not in text
    assert all(f"end{point.index}" in text for point in POINTS)


def test_a_rewritten_point_says_why():
    view, lines, _ = live_view(QUESTION, 80, 24)
    found(view)
    for point in POINTS[:2]:
        view.show(PointStarted(point))
        view.show(PointDelta(point, "The same text."))
    view.show(OverlapFound(POINTS[1], POINTS[0], 1.0, "The same text."))
    view.show(PointRestarted(POINTS[1], PointOverlap("repeats")))
    view.show(PointStarted(POINTS[1], 2))
    assert "repeats point 1, is written anew" in "\n".join(lines())
    view.show(PointDelta(POINTS[1], "Another one."))
    assert "written anew" not in "\n".join(lines())


def test_the_opening_and_the_closing_have_boxes_around_the_points():
    view, lines, _ = live_view(QUESTION, 100, 40)
    found(view)
    for point in POINTS:
        view.show(PointStarted(point))
        view.show(PointDone(Expansion(point, f"Text {point.index}.")))
    view.show(RoleStarted("opening"))
    view.show(RoleStarted("closing"))
    assert "writing the opening and the closing" in lines()[1]
    view.show(RoleDone("opening", "So it begins.", None))
    view.show(AnswerDelta("\n\n"))
    view.show(AnswerRestarted(OpeningWritten("late")))
    assert "writing the closing" in lines()[1]
    view.show(RoleDone("closing", "", RoleError("empty")))
    text = "\n".join(lines())
    places = [text.index(part) for part in ("Opening", "1. Price", "Closing")]
    assert places == sorted(places)
    assert "So it begins." in text
    assert "failed" in text
    assert "points done: 3 of 3" in lines()[1]


# --- figures and time lines ---

TIMES = (
    PointTimes(1, "Price", Span(1, 4, 1.5), released=1.5, attempts=1),
    PointTimes(2, "Comfort", Span(1, 3, 1.5), released=4, attempts=1),
    PointTimes(3, "Which one to choose", Span(4, 8, 4.5), released=4.5, attempts=1, depends_on=(1, 2), wave=2),
    PointTimes(4, "Never begun", depends_on=(3,), wave=3),
)
STAGES = {"skeleton": Span(0, 1), "point": Span(1, 8), "opening": Span(8, 9), "closing": Span(8, 10)}
TIMINGS = Timings(10.0, 1.5, STAGES, points=TIMES)


def test_statistics_count_the_longest_way_through_the_points():
    points = (*POINTS[:2], Point(3, "Which", depends_on=(2,)))
    answer = Answer(
        "text",
        QUESTION,
        "skeleton",
        Skeleton(points),
        tuple(Expansion(point, "x", usage=Usage(1, 10 * point.index)) for point in points),
        Usage(10, 90),
        TIMINGS,
        usage_by_stage={
            "skeleton": Usage(1, 5),
            "point": Usage(3, 60),
            "opening": Usage(1, 7),
            "closing": Usage(1, 8),
        },
    )
    lines = "\n".join(statistics(answer))
    assert "skeleton 1.00 s, opening 1.00 s, closing 2.00 s, points in 2 waves" in lines
    assert "skeleton 5 + longest way through the points 50 + opening and closing 8 = 63 steps" in lines
    assert "about 80 steps one after another" in lines


@pytest.mark.parametrize("source", [TIMINGS, TIMINGS.to_dict(), json.loads(json.dumps(TIMINGS.to_dict()))])
def test_a_time_line_shows_which_points_a_point_waited_for(source):
    line = Timeline.of(source)
    assert [bar.after for bar in line.bars] == [(), (), (), (1, 2), (3,), (), ()]
    rows = str(line).splitlines()
    assert [row.split()[0] for row in rows[1:8]] == ["skeleton", "1.", "2.", "3.", "4.", "opening", "closing"]
    assert "after 1, 2" in rows[4]
    assert "after 3" in rows[5]
    assert all(
        f">{text}<" in line.svg for text in ("after 1, 2", "after 3", "\u2068opening\u2069", "\u2068closing\u2069")
    )
    assert "4.00 s, after 1, 2" in line.svg


def test_parents_that_do_not_fit_before_a_bar_get_a_row_of_their_own():
    many = PointTimes(9, "Sum", Span(1, 9), depends_on=tuple(range(1, 9)))
    rows = str(Timeline.of(Timings(10.0, points=(many,), stages={"point": Span(1, 9)}))).splitlines()
    assert rows[1].startswith("9. Sum")
    assert rows[2] == "   after 1, 2, 3, 4, 5, 6, 7, 8"


def test_older_timings_have_no_plan_and_wrong_ones_are_refused():
    old = TIMINGS.to_dict()
    for point in old["points"]:
        del point["depends_on"], point["wave"]
    assert all(bar.after == () for bar in Timeline.of(old).bars)
    for wrong in ("1, 2", [-1], ["one"], {"1": 2}, 3):
        old["points"][0]["depends_on"] = wrong
        with pytest.raises(InvalidInput, match=r"points\[0\]\.depends_on"):
            Timeline.of(old)
